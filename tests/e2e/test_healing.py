"""A hive recovers by itself, and where no worker can run it says what to do instead."""

import contextlib
import signal
import time

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import HiveError, NodeDied
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.runtime import RuntimeFolder
from tests.processes import family, rested, send, stopped, titled, wait_gone, wait_until

CRASH = "import os; os.abort()"
# Seconds that an open circuit rests: more than any machine stands still. Tests turn the clock.
REST = 1000


@pytest.fixture
def frail(runtime):
    """A hive whose circuit opens after two failures, until ``rest`` is called."""
    with HiveManager(max_failures=2, recovery_time=REST) as hive:
        yield hive


def value(hive, code, **options):
    outcome = hive.delegate(code, timeout=30, **options)
    assert not isinstance(outcome, Instructions), outcome
    return eval(outcome.value_repr)


def crash(hive, times=1):
    for _ in range(times):
        with pytest.raises(NodeDied):
            hive.delegate(CRASH)


def rest(hive, name="coder"):
    """The circuit is open, and its rest is over now."""
    assert "open" == of(hive, "circuit", name)
    rested(hive.nodes.by_name[name])
    assert "half-open" == of(hive, "circuit", name)


def of(hive, key, name="coder"):
    return hive.swarm_status()["workers"][name][key]


# The circuit


def test_the_next_use_starts_a_fresh_worker_by_itself(frail):
    crash(frail)

    assert 2 == value(frail, "1 + 1")
    assert 1 == of(frail, "restarts")
    assert ("closed", "idle") == (of(frail, "circuit"), of(frail, "state"))


def test_an_open_circuit_gives_instructions_and_starts_nothing(frail):
    """What was asked, why no worker did it, how to do it by hand, and when it is tried again."""
    crash(frail, 2)
    before = family()
    asked = time.time()
    outcome = frail.delegate("a = 1\na + 1")

    assert isinstance(outcome, Instructions)
    assert "a = 1\na + 1" == outcome.task
    assert "2 times in a row" in outcome.reason
    assert "SIGABRT" in outcome.reason
    # the crash was before the question, and not as long ago as half the rest
    assert asked + REST / 2 < outcome.retry_at <= time.time() + REST
    assert "a + 1" in outcome._repr_markdown_()
    assert "a + 1" in str(outcome)
    assert ("open", "resting") == (of(frail, "circuit"), of(frail, "state"))
    assert [] == [process for process in family() if process not in before]
    assert "instructions" == frail.history()[-1].status
    assert isinstance(frail.delegate_to_coder("ping"), Instructions)


def test_after_the_rest_one_success_closes_it(frail):
    crash(frail, 2)
    rest(frail)

    assert 2 == value(frail, "1 + 1")
    assert "closed" == of(frail, "circuit")
    crash(frail)
    assert "closed" == of(frail, "circuit")


def test_after_the_rest_one_failure_opens_it_again(frail):
    crash(frail, 2)
    rest(frail)
    crash(frail)

    assert "open" == of(frail, "circuit")


def test_half_open_lets_one_start_through_for_many_callers(frail):
    crash(frail, 2)
    rest(frail)
    runs = [frail.begin(f"{number}") for number in range(10)]

    assert list(map(str, range(10))) == [run.outcome().value_repr for run in runs]
    assert 1 == of(frail, "restarts") - 1


def test_a_slow_start_is_no_success_that_hides_the_crashes(frail, monkeypatch):
    """While a start is spoken of, somebody waits for it; that it came is not what was asked."""
    monkeypatch.setattr("hive_jupyter.swarm.life.PROGRESS_AFTER", 0.0)
    crash(frail, 2)

    assert "open" == of(frail, "circuit")


def test_one_worker_rests_and_the_others_work(frail):
    crash(frail, 2)

    assert 2 == value(frail, "1 + 1", worker="other")


def test_a_users_exceptions_open_no_circuit(frail):
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            frail.delegate("1 / 0")

    assert "closed" == of(frail, "circuit")
    assert (5, 5, 0) == (of(frail, "calls"), of(frail, "successes"), of(frail, "failures"))


def test_starts_that_are_refused_open_the_circuit_and_never_raise(runtime, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with HiveManager(max_failures=2, recovery_time=1000) as hive:
        hive.add("odd", python=str(python))
        outcomes = [hive.delegate("1", worker="odd") for _ in range(3)]

        assert [True] * 3 == [isinstance(outcome, Instructions) for outcome in outcomes]
        assert [None, None] == [outcome.retry_at for outcome in outcomes[:2]]
        assert outcomes[2].retry_at > time.time()


# Turned off


@pytest.mark.parametrize("word", ["0", "false"])
def test_direct_0_gives_instructions_only(runtime, monkeypatch, word):
    monkeypatch.setenv("HIVE_JUPYTER_DIRECT", word)
    before = family()
    with HiveManager() as hive:
        hive.warm_up()
        outcome = hive.delegate("1 + 1", timeout=5, memory="2G")
        called = hive.delegate_to_coder("ping")
        status = hive.swarm_status()

        assert isinstance(outcome, Instructions)
        assert "HIVE_JUPYTER_DIRECT" in outcome.reason
        assert isinstance(called, Instructions)
        assert not status["direct"]
        assert "HIVE_JUPYTER_DIRECT" in str(status)
    assert [] == [process for process in family() if process not in before]


def test_inside_a_worker_nobody_delegates(hive):
    outcome = hive.delegate(
        "from hive_jupyter import HiveManager\n"
        "with HiveManager() as inner: outcome = inner.delegate('1')\n"
        "type(outcome).__name__, outcome.reason"
    )

    assert "Instructions" in outcome.value_repr
    assert "workers do not delegate" in outcome.value_repr


def test_where_there_is_no_place_to_write_there_are_instructions(runtime, monkeypatch):
    def refuse():
        msg = "Hive found no folder for its runtime files"
        raise HiveError(msg)

    monkeypatch.setattr(RuntimeFolder, "create", refuse)
    with HiveManager() as hive:
        hive.warm_up()
        outcomes = [
            hive.delegate("1"),
            hive.delegate("1", memory="2G"),
            hive.delegate_to_coder("ping"),
        ]

    assert [True] * 3 == [isinstance(outcome, Instructions) for outcome in outcomes]
    assert all("no folder" in outcome.reason for outcome in outcomes)


# Processes that are killed or stopped


def chain(hive):
    """The worker's process, its supervisor's and their zygote's."""
    worker = psutil.Process(of(hive, "pid"))
    return worker, worker.parent(), worker.parent().parent()


def test_a_killed_zygote_is_replaced_and_its_workers_live_on(runtime):
    with HiveManager(spares=0) as hive:
        hive.delegate("kept = 7")
        _, _, zygote = chain(hive)
        zygote.kill()
        wait_gone([zygote])

        assert 7 == value(hive, "kept")
        crash(hive)
        assert 2 == value(hive, "1 + 1")
        assert zygote.pid != chain(hive)[2].pid


def test_a_stopped_zygote_costs_one_start(runtime):
    with HiveManager(spares=0) as hive:
        value(hive, "1")
        hive.config.connect_timeout = 0.5
        stopped(chain(hive)[2].pid)

        assert isinstance(hive.delegate("1", worker="second"), Instructions)
        hive.config.connect_timeout = 60
        assert 2 == value(hive, "1 + 1", worker="second")
        assert 2 == value(hive, "1 + 1")


def test_a_killed_spare_is_not_missed(runtime):
    with HiveManager() as hive:
        value(hive, "1")
        # of this hive: the one that tests share may have a spare, too
        zygote = chain(hive)[2]
        (spare,) = wait_until(lambda: titled(family(zygote.pid), "hive: worker (spare)"))
        spare.kill()
        wait_gone([spare])

        assert 2 == value(hive, "1 + 1", worker="second")


@pytest.mark.parametrize("which", [0, 1, 2], ids=["worker", "supervisor", "zygote"])
def test_whatever_dies_the_next_or_the_next_but_one_run_is_fine(runtime, which):
    with HiveManager(max_failures=1000) as hive:
        for _ in range(5):
            assert 2 == value(hive, "1 + 1")
            victim = chain(hive)[which]
            send(victim, signal.SIGKILL)
            if which < 2:  # a worker whose supervisor has not quite ended may run one cell more
                wait_gone([victim])
            with contextlib.suppress(NodeDied):
                value(hive, "1 + 1")
            assert 2 == value(hive, "1 + 1")
            if which:
                # a worker whose zygote is gone has another parent; the next one has a zygote again
                hive.stop()


# The status


def test_the_status_counts_and_measures(runtime):
    with HiveManager() as hive:
        for _ in range(4):
            hive.delegate("1")
        with pytest.raises(NodeDied):
            hive.delegate(CRASH)
        hive.delegate("x = 1")
        status = hive.swarm_status()["workers"]["coder"]

    assert (6, 5, 1, 1) == tuple(
        status[key] for key in ("calls", "successes", "failures", "restarts")
    )
    assert 0 < status["p50"] <= status["p95"] < 10
    assert "SIGABRT" in status["last_error"]
    assert status["memory"] > 2**20
    assert status["cpu_seconds"] > 0
    assert status["uptime"] > 0


def test_the_memory_of_a_worker_is_that_of_all_its_processes(hive):
    before = of(hive, "memory") or 0
    hive.delegate(
        "import subprocess, sys\n"
        "hog = 'x = b\"x\" * (100 * 2**20); print(1, flush=True); input()'\n"
        "hog = subprocess.Popen([sys.executable, '-S', '-c', hog], stdin=subprocess.PIPE, "
        "stdout=subprocess.PIPE); hog.stdout.readline()"
    )

    assert of(hive, "memory") > before + 90 * 2**20
    hive.stop()


def test_the_status_of_a_busy_worker_does_not_wait(hive):
    run = hive.begin("import time; time.sleep(1000)")
    wait_until(lambda: of(hive, "state") == "busy")
    waiting = hive.begin("1")
    wait_until(lambda: of(hive, "queue") == 1)

    assert psutil.pid_exists(of(hive, "pid"))
    run.interrupt()
    assert "1" == waiting.outcome().value_repr


def test_the_history_tells_how_each_run_ended(runtime):
    with HiveManager(interrupt_grace=1) as hive:
        hive.delegate("1")
        with pytest.raises(ZeroDivisionError):
            hive.delegate("1 / 0")
        with pytest.raises(TimeoutError):
            hive.delegate("while True: pass", timeout=0.1)
        crash(hive)
        history = hive.history()

    assert ["ok", "error", "timeout", "died"] == [record.status for record in history]
