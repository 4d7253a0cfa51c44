"""Whatever happens to a host, nothing of its hive is left after three seconds."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hive_jupyter.swarm.runtime import sweep
from tests.processes import (
    adopting,
    family,
    send,
    start_host,
    stopped,
    titled,
    wait_until,
    zombies,
)

WITHOUT = Path(__file__).parents[1] / "without.py"

# A host that is busy starting, running, dying and stopping workers of two names for ever.
BUSY = """
import threading
from hive_jupyter import HiveManager
hive = HiveManager(max_failures=10**6, environment={"OPENBLAS_NUM_THREADS": "1"})
hive.warm_up()
print("up")
def work(name):
    number = 0
    while True:
        number += 1
        code = "import os; os._exit(1)" if number % 3 == 0 else "import subprocess; 1"
        if number % 5 == 0:
            code = "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
        try:
            hive.delegate(code, worker=name)
        except Exception:
            pass
        if number % 7 == 0:
            hive.stop(name)
for name in ("a", "b"):
    threading.Thread(target=work, args=[name], daemon=True).start()
threading.Event().wait()
"""

DAEMON = (
    "import os, time\\n"
    "if os.fork() == 0:\\n"
    "    os.setsid()\\n"
    "    if os.fork() == 0:\\n"
    "        os.setsid()\\n"
    "        time.sleep(1000)\\n"
    "    os._exit(0)\\n"
    "_ = os.wait()"
)

# A host with a worker that has a daemon and a child, one more worker, and a spare.
CALM = f"""
import sys, threading, time
from hive_jupyter import HiveManager
hive = HiveManager(**eval(sys.argv[1]) if len(sys.argv) > 1 else {{}})
hive.delegate("{DAEMON}")
hive.delegate("import subprocess; _ = subprocess.Popen(['sleep', '1000'])", worker="second")
while not hive.config.spares == len(next(iter(hive.nodes.servers))._spares):
    time.sleep(0.01)
while not all(node._refilling.done() for node in hive.nodes.by_name.values() if node._refilling):
    time.sleep(0.01)
print("up")
"""
WAIT = "threading.Event().wait()\n"


@pytest.fixture
def left():
    """Lists what a test's hosts have left behind."""
    with adopting() as left:
        yield left


def nothing_is(left):
    wait_until(lambda: not left())


def started(code, runtime, before=(), **environment):
    host = start_host(code, runtime, before, **environment)
    assert "up\n" == host.stdout.readline()
    return host


@pytest.fixture(
    params=[("open", ""), ("workspace", ""), ("workspace", "namespaces")], ids=" without ".join
)
def begin(request, runtime):
    """Starts a host whose workers have a profile, on a machine that may lack something."""
    profile, lacking = request.param
    before = [sys.executable, "-I", "-S", WITHOUT, lacking] if lacking else ()
    return lambda code: started(code, runtime, before, HIVE_JUPYTER_SANDBOX=profile)


def end(host, number=signal.SIGKILL):
    host.send_signal(number)
    host.wait(10)
    host.stdout.close()


def test_a_host_that_is_killed_at_random_moments_leaves_nothing(runtime, left):
    """Twenty times, from before its first worker on; two hosts at a time."""
    moments = random.Random(20)
    for _ in range(10):
        hosts = [start_host(BUSY, runtime) for _ in range(2)]
        for host in hosts:
            assert "up\n" == host.stdout.readline()
            # the moment itself is what is wanted, nothing is waited for
            with pytest.raises(subprocess.TimeoutExpired):
                host.wait(moments.uniform(0, 0.7))
            end(host)
        nothing_is(left)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
def test_a_host_that_a_signal_ends_leaves_nothing(begin, left, number):
    host = begin(CALM + WAIT)
    processes = left()
    assert 1 == len(titled(processes, "sleep"))
    assert 4 == len(titled(processes, "hive: worker"))  # two, the daemon of one, and a spare
    end(host, number)

    nothing_is(left)


def test_a_host_with_exec_d_workers_leaves_nothing(runtime, left):
    host = started(CALM + WAIT, runtime, HIVE_JUPYTER_START_METHOD="exec", HIVE_JUPYTER_SPARES="0")
    assert left()
    end(host)

    nothing_is(left)


@pytest.mark.parametrize("ending", ["", "hive.close()", "sys.exit(3)", "1 / 0", "os._exit(0)"])
def test_a_host_that_ends_by_itself_leaves_nothing(runtime, left, ending):
    """Without a word, by closing its hive, by an exception or without any cleaning up."""
    host = started(f"import os\n{CALM}{ending}\n", runtime, PYTHONWARNINGS="error")
    code = host.wait(10)
    host.stdout.close()

    assert {"sys.exit(3)": 3, "1 / 0": 1}.get(ending, 0) == code
    nothing_is(left)


def test_a_hive_that_is_closed_leaves_nothing_below_a_host_that_lives(runtime, left):
    host = started(
        f"{CALM}hive.close()\nimport psutil\n"
        "print(psutil.Process().children(recursive=True), threading.active_count())\n"
        f"print(len(__import__('os').listdir({str(runtime / 'hive')!r})))\n{WAIT}",
        runtime,
    )

    assert "[] 1\n" == host.stdout.readline()
    assert "0\n" == host.stdout.readline()
    end(host)
    nothing_is(left)


def test_a_host_that_forks_and_is_killed_leaves_only_its_fork(runtime, left):
    """The fork (multiprocessing) keeps the host's sockets open, and lives on."""
    code = (
        f"{CALM}"
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=[1000])\n"
        "child.start()\n"
        f"print(child.pid)\n{WAIT}"
    )
    host = started(code, runtime)
    child = psutil.Process(int(host.stdout.readline()))
    host.kill()
    host.wait()

    wait_until(lambda: left() == [child])
    child.kill()
    host.stdout.close()
    nothing_is(left)


def test_the_end_of_a_hosts_fork_ends_nothing_of_the_host(runtime, left):
    code = (
        f"{CALM}"
        "import os, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    hive.close()\n"
        "    sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        "print(hive.delegate('1 + 1').value_repr)\n"
        "try: os.fork() or print(hive.delegate('1'))\n"
        "except BaseException as error: print(type(error).__name__); os._exit(0)\n"
        f"{WAIT}"
    )
    host = started(code, runtime)

    assert "2\n" == host.stdout.readline()
    assert "HiveError\n" == host.stdout.readline()
    end(host)
    nothing_is(left)


@pytest.mark.parametrize("victim", ["hive: zygote", "hive: supervisor"])
@pytest.mark.parametrize("then", ["the host lives", "the host is killed"])
def test_a_process_of_hive_that_is_killed_leaves_nothing(begin, left, victim, then):
    host = begin(CALM + WAIT)
    for process in titled(left(), victim):
        process.kill()
    if (victim, then) == ("hive: supervisor", "the host lives"):
        zygote = titled(left(), "hive: zygote")
        wait_until(lambda: [psutil.Process(host.pid), *zygote] == left())
    end(host)

    nothing_is(left)


def test_a_stopped_host_keeps_its_workers_and_a_killed_one_does_not(runtime, left):
    host = started(CALM + WAIT, runtime)
    before = len(left())
    stopped(host.pid)
    assert before == len(left())
    end(host)

    nothing_is(left)


def test_stopped_workers_go_with_their_host(begin, left):
    host = begin(CALM + WAIT)
    for process in titled(left(), "hive: worker"):
        stopped(process.pid)
    end(host)

    nothing_is(left)


def test_a_host_that_is_killed_while_its_worker_forks_daemons_leaves_nothing(begin, left):
    code = (
        f"{CALM}"
        "hive.begin('''import os, time\n"
        "for _ in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        time.sleep(0.05)\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(1000)\n"
        "        os._exit(0)\n"
        "    time.sleep(0.01)\n"
        f"''')\nprint('forking')\n{WAIT}"
    )
    host = begin(code)
    host.stdout.readline()
    wait_until(lambda: len(left()) > 30)
    end(host)

    nothing_is(left)


def test_the_folder_of_a_killed_host_is_swept_at_the_next_start(runtime, left):
    host = started(CALM + WAIT, runtime)
    (folder,) = [entry for entry in (runtime / "hive").iterdir() if f"{host.pid}-" in entry.name]
    assert 0o700 == folder.stat().st_mode & 0o777
    end(host)
    nothing_is(left)
    assert folder.exists()
    alive = started(CALM + WAIT, runtime)

    assert not folder.exists()
    assert [] == sweep()
    end(alive)
    sweep()
    assert [] == list((runtime / "hive").iterdir())


def test_no_zombie_lives_below_a_host(runtime, left):
    """Whatever of its hive has ended."""
    host = started(CALM + WAIT, runtime)

    def killed(title):
        """Another spare may be on its way."""
        for process in titled(family(host.pid), title):
            send(process, signal.SIGKILL)
        return not titled(left(), title)

    for title in ("hive: worker", "hive: supervisor", "hive: zygote"):
        wait_until(lambda title=title: killed(title))
        wait_until(lambda: not zombies(host.pid))
    end(host)
    nothing_is(left)
