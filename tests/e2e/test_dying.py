"""A worker dies, its host does not, and the error says what happened and what is lost."""

import os
import signal

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import ConfigError, NodeDied, NodeStartError, RemoteError
from hive_jupyter.swarm.channels import Channels
from tests.processes import family, stopped, wait_gone, wait_until, zombies

MEGABYTES = "2**20"


def pid_of(hive, name="coder"):
    return hive.swarm_status()["workers"][name]["pid"]


def value(hive, code, **options):
    return eval(hive.delegate(code, timeout=60, **options).value_repr)


@pytest.fixture
def forgiving(runtime):
    """A hive whose circuit breaker does not open so soon."""
    with HiveManager(max_failures=100) as hive:
        yield hive


@pytest.fixture(scope="module")
def hive(runtime):
    with HiveManager(
        max_failures=1000, interrupt_grace=30, connect_timeout=60, sandbox="open"
    ) as hive:
        yield hive


DEATHS = {
    "import ctypes; ctypes.string_at(0)": ("signal", signal.SIGSEGV, None, "segmentation fault"),
    "import os; os.abort()": ("signal", signal.SIGABRT, None, "abort"),
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": (
        "killed", signal.SIGKILL, None, "SIGKILL",
    ),
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)": (
        "signal", signal.SIGTERM, None, "terminate",
    ),
    "import os, signal; os.kill(os.getpid(), signal.SIGBUS)": (
        "signal", signal.SIGBUS, None, "bus error",
    ),
    "import os; os._exit(3)": ("exit", None, 3, "exit code 3"),
    "import os; os._exit(0)": ("exit", None, 0, "exit code 0"),
}  # fmt: skip


@pytest.mark.parametrize("code", DEATHS)
def test_a_death_is_told_with_its_cause_and_the_next_run_is_fine(hive, code):
    cause, number, exit_code, words = DEATHS[code]
    hive.delegate("lost_one = 1; lost_two = 2")
    with pytest.raises(NodeDied) as caught:
        hive.delegate(code)
    died = caught.value

    assert (cause, number, exit_code, "coder") == (
        died.cause, died.signal, died.exit_code, died.node
    )  # fmt: skip
    assert {"lost_one", "lost_two"} <= set(died.lost)
    for part in (words, 'Worker "coder"', "Your kernel is untouched.", "fresh worker"):
        assert part in str(died)
    assert 2 == value(hive, "1 + 1")
    with pytest.raises(NameError):
        hive.delegate("lost_one")


def test_what_was_said_before_a_death_is_shown(hive, tmp_path):
    """What reached the host is shown, however the worker ends."""
    heard = tmp_path / "heard"
    delegation = hive.begin(
        "import os, time\nprint('before', flush=True)\n"
        f"while not os.path.exists({str(heard)!r}): time.sleep(0.001)\nos._exit(1)"
    )
    for message in delegation:
        if message.type == "stream" and message.content["text"].endswith("\n"):
            heard.touch()
    with pytest.raises(NodeDied):
        delegation.outcome()

    assert "before\n" == delegation.result.stdout


LAST_WORDS = {
    "printed": "print('last', 'words', flush=True); os.kill(os.getpid(), 9)",
    "displayed": "display('last words'); print(flush=True); os._exit(1)",
    "by descriptor": "os.write(1, b'last words'); os.kill(os.getpid(), 9)",
    "by an assertion in C": "os.write(2, b'last words'); os.abort()",
    "by a child": "os.system('echo last words'); os._exit(1)",
    "in half a character": "os.write(1, b'last words \\xe2'); os.kill(os.getpid(), 9)",
    "both": "print('last', end=' ', flush=True); os.write(1, b'words'); os.abort()",
}


@pytest.mark.parametrize("way", LAST_WORDS)
def test_the_last_words_before_a_death_are_heard(hive, way):
    """What a flush returned for, or the descriptor took, is shown; ten times of ten."""
    for _ in range(10):
        code = f"import os\nfrom IPython.display import display\n{LAST_WORDS[way]}"
        delegation = hive.begin(code)
        with pytest.raises(NodeDied):
            delegation.outcome()
        assert 1 == str(delegation.result.outputs).count("last words")


def test_of_long_last_words_the_last_are_heard(hive):
    """The pipe holds 64 KB; the sentence that matters is at the end."""
    delegation = hive.begin("import os\nos.write(1, b'x' * 60_000 + b'failed')\nos.abort()")
    with pytest.raises(NodeDied):
        delegation.outcome()

    assert delegation.result.stdout.endswith("xfailed")
    assert delegation.result.stdout.startswith("[51814 bytes left out]\n")


def test_last_words_are_heard_whatever_a_child_does_to_its_pipes(hive):
    """It makes reading them wait, if it can, and with it the supervisor's report."""
    for _ in range(5):
        with pytest.raises(NodeDied) as caught:
            hive.delegate(
                "import fcntl, os\n"
                "ends = [int(fd) for fd in os.listdir('/proc/self/fd')]\n"
                "if os.fork() == 0:\n"
                "    while True:\n"
                "        for fd in ends:\n"
                "            try: fcntl.fcntl(fd, fcntl.F_SETFL, 0)\n"
                "            except OSError: pass\n"
                "os.abort()"
            )
        assert "SIGABRT" in str(caught.value)


def test_a_crash_in_c_leaves_its_traceback_in_the_log(hive):
    with pytest.raises(NodeDied):
        hive.delegate("import ctypes; ctypes.string_at(0)")

    assert "Segmentation fault" in hive.logs()
    assert "string_at" in hive.logs()

    hive.delegate("'the next cell'")
    assert "string_at" in hive.logs()


def test_a_death_is_seen_at_once(hive, monkeypatch):
    """Not by a heartbeat or a deadline."""
    beats = []
    monkeypatch.setattr(Channels, "beat", lambda *_: beats.append("asked for"))
    hive.delegate("1")
    delegation = hive.begin("import os; os._exit(1)", timeout=1000)
    with pytest.raises(NodeDied):
        delegation.outcome()

    assert [] == beats
    assert hive.history()[-1].seconds < 10


def test_sys_exit_is_an_exception_of_the_cell(hive):
    """As in any notebook; the worker goes on."""
    pid = value(hive, "import os; os.getpid()")
    with pytest.raises(RemoteError) as caught:
        hive.delegate("import sys; sys.exit(3)")

    assert "SystemExit" == caught.value.ename
    assert pid == value(hive, "os.getpid()")


@pytest.mark.parametrize("call", ["exit()", "quit()"])
def test_exit_ends_the_worker_and_is_no_failure(hive, call):
    pid = value(hive, "import os; gone = 1; os.getpid()")
    failures = hive.swarm_status()["workers"]["coder"]["failures"]
    assert "ok" == hive.delegate(call).status

    wait_until(lambda: not psutil.pid_exists(pid))
    with pytest.raises(NameError):
        hive.delegate("gone")
    assert failures == hive.swarm_status()["workers"]["coder"]["failures"]


def test_a_death_between_two_runs_does_not_hurt_the_next(hive):
    pid = value(hive, "import os; os.getpid()")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: hive.swarm_status()["workers"]["coder"]["state"] == "dead")

    assert "SIGKILL" in hive.swarm_status()["workers"]["coder"]["last_error"]
    assert 2 == value(hive, "1 + 1")


def test_nothing_is_run_twice(hive, tmp_path):
    counter = tmp_path / "count"
    with pytest.raises(NodeDied):
        hive.delegate(f"open({str(counter)!r}, 'a').write('x'); import os; os._exit(1)")
    value(hive, "1 + 1")

    assert "x" == counter.read_text()


def test_the_other_workers_do_not_notice(hive):
    hive.delegate("kept = 7", worker="other")
    with pytest.raises(NodeDied):
        hive.delegate("import os; os.abort()")

    assert 7 == value(hive, "kept", worker="other")


def test_what_a_dying_worker_started_goes_with_it(hive):
    code = (
        "import os, subprocess\n"
        "plain = subprocess.Popen(['sleep', '1000']).pid\n"
        "own = subprocess.Popen(['sleep', '1000'], start_new_session=True).pid\n"
        "(plain, own)"
    )
    children = [psutil.Process(pid) for pid in value(hive, code)]
    with pytest.raises(NodeDied):
        hive.delegate("os._exit(1)")

    wait_gone(children)


DOUBLE_FORK = """
import os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(w, str(os.getpid()).encode())
        time.sleep(1000)
    os._exit(0)
os.wait()
daemon = int(os.read(r, 20))
daemon
"""


def test_a_daemon_that_forked_twice_goes_with_its_worker(hive):
    daemon = psutil.Process(value(hive, DOUBLE_FORK))
    assert pid_of(hive) != daemon.ppid()
    hive.stop()

    wait_gone([daemon])


def test_a_daemon_goes_also_where_its_supervisor_is_killed_first(hive):
    """The zygote sweeps what a supervisor leaves."""
    daemon = psutil.Process(value(hive, DOUBLE_FORK))
    supervisor = psutil.Process(pid_of(hive)).parent()
    supervisor.kill()

    wait_gone([daemon, supervisor])
    assert 2 == value(hive, "1 + 1")


def test_a_killed_supervisor_is_told_as_such(hive):
    delegation = hive.begin("print(1, flush=True); import time; time.sleep(1000)")
    next(message for message in delegation if message.type == "stream")
    psutil.Process(pid_of(hive)).parent().kill()
    with pytest.raises(NodeDied) as caught:
        delegation.outcome()

    assert "lost" == caught.value.cause
    assert 2 == value(hive, "1 + 1")


def test_a_stopped_supervisor_does_not_stop_a_time_limit(hive, monkeypatch):
    monkeypatch.setattr(hive.config, "interrupt_grace", 0.2)
    delegation = hive.begin("print(1, flush=True); import time; time.sleep(1000)", timeout=1000)
    next(message for message in delegation if message.type == "stream")
    worker = psutil.Process(pid_of(hive))
    supervisor = worker.parent()
    stopped(supervisor.pid)
    hive._portal.post(delegation._run.expire)  # its time is over, now
    with pytest.raises(TimeoutError):
        delegation.outcome()

    wait_gone([worker, supervisor])
    assert 2 == value(hive, "1 + 1")


# Memory


def test_a_process_above_its_limit_gets_a_memory_error_and_lives(runtime):
    with HiveManager(spares=0) as hive:
        pid = value(hive, "import os; os.getpid()", memory="300M")
        with pytest.raises(MemoryError, match="limit of 300 MB.*restart coder --memory 600M"):
            hive.delegate(f"x = bytearray(400 * {MEGABYTES})")

        assert pid == value(hive, "os.getpid()")
        assert 300 * 2**20 == hive.swarm_status()["workers"]["coder"]["memory_limit"]


def test_the_sum_of_its_processes_above_the_limit_ends_a_worker(runtime):
    """Each of them is below it."""
    code = (
        "kept = 1\n"
        "import subprocess, sys, time\n"
        "hog = 'import time; x = b\"x\" * (150 * 2**20); time.sleep(1000)'\n"
        "hogs = [subprocess.Popen([sys.executable, '-S', '-c', hog]) for _ in range(3)]\n"
        "time.sleep(1000)"
    )
    before = family()
    with HiveManager(spares=0) as hive:
        hive.delegate("kept = 1", memory="300M")
        with pytest.raises(NodeDied) as caught:
            hive.delegate(code, timeout=60)

        assert "memory" == caught.value.cause
        assert "300 MB" in str(caught.value)
        assert "%hive restart coder --memory 600M" in str(caught.value)
        assert "kept" in caught.value.lost
        assert 2 == value(hive, "1 + 1")
    wait_gone([process for process in family() if process not in before])


def test_memory_that_runs_out_between_two_runs_is_told_by_the_status(runtime):
    hogs = (
        "import subprocess, sys\n"
        "hog = 'import time; x = b\"x\" * (150 * 2**20); time.sleep(1000)'\n"
        "hogs = [subprocess.Popen([sys.executable, '-S', '-c', hog]) for _ in range(3)]"
    )
    with HiveManager(spares=0) as hive:
        hive.delegate(hogs, memory="300M")
        wait_until(lambda: hive.swarm_status()["workers"]["coder"]["state"] == "dead")

        assert "300 MB" in hive.swarm_status()["workers"]["coder"]["last_error"]
        assert 1 == hive.swarm_status()["workers"]["coder"]["failures"]


def test_a_limit_never_changes_on_a_living_worker(runtime):
    with HiveManager(spares=0) as hive:
        hive.delegate("a = 1", memory="300M")
        with pytest.raises(ConfigError, match="restart coder --memory"):
            hive.delegate("1", memory="400M")
        assert 1 == value(hive, "a", memory="300M")
        assert 400 * 2**20 == hive.restart(memory="400M").memory_limit


# A worker that breaks the protocol


FORGED = {
    "no message": "[b'junk']",
    "an unsigned message": "[b'<IDS|MSG>', b'', b'{}', b'{}', b'{}', b'{}']",
    "a message of another's": (
        "[b'<IDS|MSG>', b'0' * 64, "
        "b'{\"msg_type\": \"stream\", \"msg_id\": \"1\"}', b'{}', b'{}', b'{}']"
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_worker_that_breaks_the_protocol_is_ended(hive, what):
    hive.delegate("kept = 1")
    worker = psutil.Process(pid_of(hive))
    with pytest.raises(NodeDied) as caught:
        hive.delegate(
            f"get_ipython().kernel.iopub_socket.send_multipart({FORGED[what]})\n"
            "import time; time.sleep(1000)",
            timeout=30,
        )

    assert "protocol" == caught.value.cause
    assert "untouched" in str(caught.value)
    assert "kept" in caught.value.lost
    wait_gone([worker])
    assert 2 == value(hive, "1 + 1")


def test_a_worker_that_breaks_the_protocol_between_two_runs_is_ended(hive, tmp_path):
    over = tmp_path / "over"
    value(hive, "1")
    worker = psutil.Process(pid_of(hive))
    hive.delegate(
        "import os, threading, time\n"
        "def send():\n"
        f"    while not os.path.exists({str(over)!r}): time.sleep(0.001)\n"
        "    get_ipython().kernel.iopub_socket.send_multipart([b'junk'])\n"
        "threading.Thread(target=send).start()"
    )
    over.touch()
    wait_gone([worker])
    wait_until(lambda: hive.swarm_status()["workers"]["coder"]["state"] == "dead")

    assert "protocol" in hive.swarm_status()["workers"]["coder"]["last_error"]
    assert 2 == value(hive, "1 + 1")


# What stays


def test_no_zombie_stays_and_no_folder_of_a_dead_worker(hive, runtime):
    hive.stop()
    for _ in range(3):
        with pytest.raises(NodeDied):
            hive.delegate("import os; os._exit(1)")
    value(hive, "1")
    hive.stop()

    wait_until(lambda: not zombies())
    folder = hive.nodes.runtime.path
    # of a spare, and of one that is on its way
    wait_until(lambda: len([e for e in folder.iterdir() if (e / "k-1").exists()]) <= 1 + 1)


def test_a_start_that_fails_says_how_it_ended(runtime):
    with HiveManager(spares=0) as hive:
        hive.start()
        hive.stop()
        hive.add("odd", python="/bin/true")
        with pytest.raises(NodeStartError) as caught:
            hive.start("odd")

        assert "odd" == caught.value.node
