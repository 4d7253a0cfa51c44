"""What a hive does without a worker, at its end, and with what it is given."""

import signal
import threading
from pathlib import Path

import pytest

from hive_jupyter import HiveManager, lookout
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, NodeDied, NodeStartError
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.runtime import RuntimeFolder
from tests.processes import family, wait_gone, wait_until


@pytest.fixture
def hive():
    """A hive that answers with instructions."""
    with HiveManager(direct=False) as hive:
        yield hive


def remembered(hive):
    return [run.code for run in hive.history()]


def test_the_history_holds_as_many_runs_as_are_wanted_now(hive):
    """And the latest of them."""
    hive.config.history_size = 3
    for number in range(5):
        hive.delegate(str(number))
    assert remembered(hive) == ["2", "3", "4"]

    hive.config.history_size = 2
    assert remembered(hive) == ["3", "4"]

    hive.config.history_size = 4
    hive.delegate("5")
    hive.delegate("6")
    assert remembered(hive) == ["3", "4", "5", "6"]


@pytest.mark.parametrize("lines", [0, -1])
def test_less_than_one_line_of_a_log_is_refused(hive, lines):
    with pytest.raises(ConfigError, match=f"{lines} is no number of lines"):
        hive.logs(lines=lines)

    assert "" == hive.logs(lines=1)


@pytest.mark.parametrize("details", ["", "path=a.py", "the code", "'"])
def test_where_no_worker_runs_a_tool_instructions_are_given_whatever_the_words(hive, details):
    answer = hive.delegate_to_coder("review", details)

    assert isinstance(answer, Instructions)
    assert answer.task == f"review {details}".strip()


@pytest.mark.parametrize(("task", "details"), [(None, ""), ("ping", 1)])
def test_a_tool_is_called_in_words(hive, task, details):
    with pytest.raises(ConfigError, match="A tool's name is text"):
        hive.delegate_to_coder(task, details)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"memry": 1}, 'no setting "memry".*memory'), ({"timeout": "soon"}, "no duration")],
)
def test_settings_beside_a_configuration_are_checked_like_others(settings, message):
    with pytest.raises(ConfigError, match=message):
        HiveManager(HiveConfig(), **settings)


def test_what_a_dead_worker_says_is_in_the_result(runtime):
    with HiveManager() as hive:
        delegation = hive.begin("import os; os._exit(3)")
        with pytest.raises(NodeDied) as caught:
            delegation.outcome()

    assert delegation.result.error is caught.value


def test_ctrl_c_while_a_hive_is_closed_leaves_nothing(runtime):
    others = family()
    hive = HiveManager()
    hive.delegate("1")
    closing = hive._close

    async def close_slowly():
        signal.raise_signal(signal.SIGINT)
        await closing()

    hive._close = close_slowly
    started = [process for process in family() if process not in others]
    with pytest.raises(KeyboardInterrupt):
        hive.close()

    wait_gone(started)
    assert [] == list(Path(runtime, "hive").iterdir())


def test_without_a_further_thread_workers_are_refused_and_loading_goes_on(monkeypatch):
    def refuse(_self):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with HiveManager() as hive:
        hive.warm_up()
        assert isinstance(hive.delegate("1"), Instructions)
        with pytest.raises(NodeStartError, match="can't start new thread"):
            hive.start()


def test_what_cannot_be_served_says_why(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RuntimeFolder, "create", full)
    with HiveManager() as hive, pytest.raises(NodeStartError, match="No space left"):
        hive.serve(None).result(60)


LEAVE = "import os; os.makedirs('sub/.git'); open('.envrc', 'w').close()"


def test_what_a_worker_left_is_told_at_the_latest_when_the_hive_is_closed(
    runtime, tmp_path, monkeypatch, capsys
):
    """And set aside, however soon that is."""
    monkeypatch.chdir(tmp_path)
    with HiveManager() as hive:
        hive.delegate(LEAVE)
        assert (tmp_path / "sub/.git").is_dir()

    told = capsys.readouterr().err
    assert told.startswith(f"Hive: in {tmp_path} something came")
    assert ".envrc (new)" in told
    assert not (tmp_path / "sub/.git").exists()


def test_what_there_was_no_run_for_to_tell_it_in_is_told_when_the_hive_is_closed(
    runtime, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(lookout, "_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    with HiveManager() as hive:
        hive.delegate(LEAVE)
        wait_until(lambda: hive.swarm_status()["notes"])
        assert "" == capsys.readouterr().err

    assert 1 == capsys.readouterr().err.count("Hive: in ")


def test_a_result_tells_what_the_run_before_it_left(runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(lookout, "_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    with HiveManager() as hive:
        hive.delegate(LEAVE)
        wait_until(lambda: hive.swarm_status()["notes"])
        result = hive.delegate("1")

        assert "1" == result.value_repr
        assert "sub/.git (a new repository)" in result.stderr
        assert "" == hive.delegate("1").stderr


def test_an_open_worker_is_not_looked_after(runtime, tmp_path, monkeypatch, capsys):
    """It has the user's rights in any case."""
    monkeypatch.chdir(tmp_path)
    with HiveManager(sandbox="open") as hive:
        hive.delegate(LEAVE)

    assert "" == capsys.readouterr().err
    assert (tmp_path / "sub/.git").is_dir()


def test_what_a_daemon_of_a_worker_makes_until_its_end_is_set_aside(
    runtime, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with HiveManager() as hive:
        hive.delegate(
            "import os\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        while True: os.makedirs('sub/.git', exist_ok=True)\n"
            "    os._exit(0)"
        )
        wait_until((tmp_path / "sub/.git").exists)

        hive.stop()

        assert not (tmp_path / "sub/.git").exists()
    assert "sub/.git (a new repository)" in capsys.readouterr().err
