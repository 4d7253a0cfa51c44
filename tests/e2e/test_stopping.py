"""A run is stopped by a time limit or an interrupt; its worker is idle afterwards, or gone."""

import os
import signal
import threading
import time

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import HiveError, NodeDied, NodeTimeout, RemoteError
from hive_jupyter.swarm import node as node_module
from tests.processes import family, stopped, wait_gone, wait_until

# Each ends at SIGINT.
OBEDIENT = {
    "a loop": "while True: pass",
    "a sleep": "import time; time.sleep(1000)",
    "an await": "import asyncio; await asyncio.sleep(1000)",
    "an await of nothing": "import asyncio; await asyncio.Event().wait()",
    "a subprocess": "import subprocess; subprocess.run(['sleep', '1000'])",
    "a thread that is waited for": (
        "import threading, time\n"
        "t = threading.Thread(target=time.sleep, args=(1000,), daemon=True); t.start(); t.join()"
    ),
    "C code that a signal wakes": "import ctypes; ctypes.PyDLL(None).pause()",
    "a flood": "while True: print('x' * 100)",
}
# These do not. The marker stands where that is certain: before, an interrupt would stop the code
# that is still to make itself deaf.
BEGUN = "print('begun', flush=True)"
STUBBORN = {
    "C code that holds the GIL": (
        f"import signal\nsignal.signal(2, lambda *_: None)\n{BEGUN}\nsum(range(10**13))"
    ),
    "an ignored signal": (
        f"import signal, time\nsignal.signal(2, signal.SIG_IGN)\n{BEGUN}\ntime.sleep(1000)"
    ),
    "an exception that is swallowed": (
        "import time\nwhile True:\n"
        f"    try: {BEGUN}; time.sleep(1000)\n    except BaseException: pass"
    ),
    "SIGSTOP": (
        "import os, signal, time\nsignal.signal(2, lambda *_: None)\n"
        f"{BEGUN}\nos.kill(os.getpid(), signal.SIGSTOP)"
    ),
}


def pid_of(hive, name="coder"):
    return hive.swarm_status()["workers"][name]["pid"]


def value(hive, code, **options):
    return eval(hive.delegate(code, timeout=30, **options).value_repr)


def begun(hive, code, **options):
    """A run that is known to have begun in the worker."""
    code = code if BEGUN in code else f"{BEGUN}\n{code}"
    delegation = hive.begin(code, **options)
    # before, a worker that takes its time to start may be spoken of
    next(message for message in delegation if message.type == "stream")
    return delegation


def until(path):
    """Code that ends once there is such a file."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.001)"


def expire(hive, delegation):
    """Its time is over, now."""
    hive._portal.post(delegation._run.expire)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """How long each question of a health check may stay unanswered."""
    monkeypatch.setattr(node_module, "_HEALTH_PATIENCE", 15)


@pytest.fixture(autouse=True)
def calm(hive, patience):
    """A test that fails leaves no run behind which the next ones would have to wait."""
    yield
    if hive.health() not in {"idle", "cold", "dead"}:
        hive.stop()


@pytest.fixture
def impatient(hive, monkeypatch):
    monkeypatch.setattr(hive.config, "interrupt_grace", 0.2)
    return hive


def test_an_interrupt_ends_a_shell_command_as_it_does_at_home(hive):
    """IPython passes it on to the command, and takes the command's end for the cell's."""
    delegation = begun(hive, "!echo up; sleep 1000")
    worker = psutil.Process(pid_of(hive))
    # from here on IPython waits for the command, and no more for its start
    next(message for message in delegation if message.content.get("text", "").startswith("up"))
    wait_until(lambda: "sleep" in [child.name() for child in worker.children(recursive=True)])
    delegation.interrupt()

    assert "ok" == delegation.outcome().status
    assert worker.pid == value(hive, "import os; os.getpid()")


@pytest.mark.parametrize("what", OBEDIENT)
def test_an_interrupt_stops_it_and_the_worker_is_idle(hive, what):
    """The same process, its variables, and a next run that nothing of the interrupt reaches."""
    kept = value(hive, "import os; kept = os.getpid(); kept")
    delegation = begun(hive, OBEDIENT[what])
    delegation.interrupt()
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()

    assert "KeyboardInterrupt" == caught.value.ename
    assert "idle" == hive.health()
    assert kept == value(hive, "import time; time.sleep(0.02); kept")


@pytest.mark.parametrize("what", ["a loop", "an await of nothing", "a subprocess"])
def test_a_time_limit_stops_it_and_the_worker_is_idle(hive, what):
    kept = value(hive, "import os; kept = os.getpid(); kept")
    began = time.monotonic()
    with pytest.raises(NodeTimeout) as caught:
        hive.delegate(OBEDIENT[what], timeout="300ms")

    assert 0.3 <= time.monotonic() - began < 20  # without the limit it lasts 1000 s
    assert isinstance(caught.value, TimeoutError)
    assert (0.3, "coder") == (caught.value.seconds, caught.value.node)
    assert "--timeout" in str(caught.value)
    assert kept == value(hive, "kept")


@pytest.mark.parametrize("what", STUBBORN)
def test_what_obeys_no_interrupt_is_killed_after_the_grace(impatient, what):
    hive = impatient
    hive.delegate("lost = 1")
    worker = psutil.Process(pid_of(hive))
    delegation = begun(hive, STUBBORN[what])
    delegation.interrupt()
    with pytest.raises(NodeDied) as caught:
        delegation.outcome()

    assert "killed" == caught.value.cause
    assert "did not obey the interrupt" in str(caught.value)
    assert "lost" in caught.value.lost
    wait_gone([worker])
    assert 2 == value(hive, "1 + 1")
    assert worker.pid != pid_of(hive)


@pytest.mark.parametrize("what", ["C code that holds the GIL", "SIGSTOP"])
def test_what_obeys_no_time_limit_is_killed_after_the_grace(impatient, what):
    hive = impatient
    hive.delegate("lost = 1")
    worker = psutil.Process(pid_of(hive))
    delegation = begun(hive, STUBBORN[what], timeout=1000)
    expire(hive, delegation)  # not before the code is deaf
    with pytest.raises(NodeTimeout, match="lost") as caught:
        delegation.outcome()

    assert "untouched" in str(caught.value)
    wait_gone([worker])
    assert 2 == value(hive, "1 + 1")
    hive.start()  # tells the breaker that all is well


def test_a_second_interrupt_kills_at_once(hive, monkeypatch):
    monkeypatch.setattr(hive.config, "interrupt_grace", 1000)
    worker = psutil.Process(value(hive, "import os; os.getpid()"))
    delegation = begun(hive, STUBBORN["an ignored signal"])
    delegation.interrupt()
    delegation.interrupt()
    with pytest.raises(NodeDied):
        delegation.outcome()

    wait_gone([worker])
    assert 2 == value(hive, "1 + 1")


def test_an_interrupt_reaches_what_the_worker_started(hive):
    """Its whole process group, so that no child works on."""
    code = f"with subprocess.Popen(['sleep', '999']) as child: {BEGUN}; child.wait()"
    delegation = begun(hive, f"import subprocess\n{code}")
    (child,) = psutil.Process(pid_of(hive)).children()
    delegation.interrupt()
    with pytest.raises(RemoteError):
        delegation.outcome()

    wait_gone([child])


def test_an_interrupt_before_the_run_has_begun_ends_it_without_running_it(hive, tmp_path):
    mark = tmp_path / "mark"
    first = begun(hive, until(tmp_path / "go"))
    second = hive.begin(f"open({str(mark)!r}, 'w')")
    second.interrupt()
    with pytest.raises(RemoteError) as caught:
        second.outcome()
    (tmp_path / "go").touch()
    first.outcome()

    assert "KeyboardInterrupt" == caught.value.ename
    assert 2 == value(hive, "1 + 1")
    assert not mark.exists()


def test_an_interrupt_of_a_worker_that_does_nothing_is_none(hive):
    value(hive, "1")

    assert not hive.interrupt()
    assert 2 == value(hive, "1 + 1")


def test_interrupting_a_worker_by_name_stops_what_runs(hive):
    delegation = begun(hive, "while True: pass")

    assert hive.interrupt("coder")
    with pytest.raises(RemoteError):
        delegation.outcome()


def test_runs_of_two_threads_keep_their_order_and_a_limit_hits_its_own(hive):
    first = hive.begin("import time; time.sleep(1000)", timeout=0.2)
    second = hive.begin("order = ['second']", timeout=60)
    third = hive.begin("order.append('third'); order", timeout=60)
    with pytest.raises(NodeTimeout):
        first.outcome()

    assert "ok" == second.outcome().status
    assert "['second', 'third']" == third.outcome().value_repr


def test_output_before_and_at_the_stop_is_kept(hive):
    code = "try: print('ready', flush=True); time.sleep(1000)\nfinally: print('cleaned up')"
    delegation = hive.begin(f"import time\n{code}")
    assert any("ready" in message.content["text"] for message in delegation)
    delegation.interrupt()
    with pytest.raises(RemoteError):
        delegation.outcome()

    assert delegation.result.stdout.endswith("cleaned up\n")


def test_a_flood_that_nobody_has_read_yet_does_not_make_a_worker_deaf(hive, monkeypatch):
    """It obeyed; that its last message waits behind the others is the reader's affair."""
    kept = value(hive, "import os; kept = os.getpid(); kept")
    delegation = begun(hive, "number = 0\nwhile True:\n    number += 1; display(number)")
    node = hive.nodes.by_name["coder"]
    wait_until(lambda: node._channels.is_paused)
    obeyed, stop = [], node._bring_to_a_stop

    async def watched(*whom):
        obeyed.append(await stop(*whom))
        return obeyed[-1]

    monkeypatch.setattr(node, "_bring_to_a_stop", watched)
    delegation.interrupt()
    wait_until(lambda: obeyed, 60)
    assert delegation._run.replied
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()

    assert "KeyboardInterrupt" == caught.value.ename
    assert kept == value(hive, "kept")


def test_random_interrupts_of_short_runs_hit_no_other_run(hive):
    """Some hit the run, some the end of it, some come too late; the next run is never touched."""
    pid = value(hive, "import os, time; os.getpid()")
    for number in range(40):
        delegation = hive.begin("time.sleep(0.01)")
        timer = threading.Timer(0.0005 * number, delegation.interrupt)
        timer.start()
        try:
            delegation.outcome()
        except RemoteError as error:
            assert "KeyboardInterrupt" == error.ename
        timer.join()
        assert 7 == value(hive, "time.sleep(0.002); 7")

    assert pid == pid_of(hive)


def test_a_script_that_is_interrupted_stops_the_run_it_waited_for(hive, tmp_path):
    """Ctrl-C in plain Python raises in ``delegate``; the next one does not wait behind the run."""
    begins = tmp_path / "begins"

    def press():
        wait_until(begins.exists, 60)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        hive.delegate(f"open({str(begins)!r}, 'w').close()\nwhile True: print('x' * 1000)")
    presser.join()

    assert 2 == value(hive, "1 + 1")


def test_stop_and_restart_give_a_fresh_worker(runtime):
    with HiveManager(sandbox="open") as hive:
        _stop_and_restart(hive)


def _stop_and_restart(hive):
    first = value(hive, "import os; a = os.getpid(); a")
    hive.stop()
    assert pid_of(hive) is None
    second = value(hive, "import os; os.getpid()")
    status = hive.restart(memory="2G")

    assert 3 == len({first, second, status.pid})
    assert 2 * 2**30 == status.memory_limit
    with pytest.raises(NameError):
        hive.delegate("a")
    assert "closed" == hive.swarm_status()["workers"]["coder"]["circuit"]


def test_closing_a_hive_ends_its_runs_and_all_its_processes(runtime):
    before = family()
    hive = HiveManager()
    outcomes = []

    def run(code):
        try:
            outcomes.append(hive.delegate(code))
        except HiveError as error:
            outcomes.append(error)

    threads = [
        threading.Thread(target=run, args=["import time; time.sleep(1000)"]) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: (
            {"state": "busy", "queue": 4}.items() <= hive.swarm_status()["workers"]["coder"].items()
        )
    )
    hive.close()
    hive.close()
    for thread in threads:
        thread.join(30)

    assert [True] * 5 == [isinstance(outcome, HiveError) for outcome in outcomes]
    wait_gone([process for process in family() if process not in before])
    with pytest.raises(HiveError, match="closed"):
        hive.delegate("1")


def test_a_stopped_worker_is_known_and_can_be_replaced(hive):
    value(hive, "1")
    worker = psutil.Process(pid_of(hive))
    stopped(worker.pid)
    assert "stopped" == hive.health()
    hive.stop()

    wait_gone([worker])
    assert 2 == value(hive, "1 + 1")


def test_health_tells_the_states_apart(hive, monkeypatch):
    value(hive, "1")
    assert "idle" == hive.health()
    busy = begun(hive, "import time; time.sleep(1000)")
    assert "busy" == hive.health()
    busy.interrupt()
    with pytest.raises(RemoteError):
        busy.outcome()
    monkeypatch.setattr(hive.config, "interrupt_grace", 0.2)
    monkeypatch.setattr(node_module, "_HEALTH_PATIENCE", 0.5)
    held = begun(hive, STUBBORN["C code that holds the GIL"])
    wait_until(lambda: hive.health() == "gil-held")
    held.interrupt()
    with pytest.raises(NodeDied):
        held.outcome()
    assert "dead" == hive.health()
