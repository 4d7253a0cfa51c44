"""Everything below a process ends, whatever it does about it; nothing beside is touched."""

import os
import subprocess
import sys

import pytest

from hive_jupyter.worker.confine import landlock
from tests.processes import ROOT, adopting, holder, wait_until

# Each leaves something behind that does not want to end, says so with ``ready()``, and returns.
NASTY = {
    "a daemon": (
        "for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: os.setsid(); ready(); forever()\n"
        "    os._exit(0)\n"
        "os.wait()"
    ),
    "one that is stopped": (
        "pid = os.fork()\n"
        "if pid == 0: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "os.waitpid(pid, os.WUNTRACED); ready()"
    ),
    "a tree": (
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid(); os.fork(); os.fork(); ready(); forever()"
    ),
    "one that waits for what it forked, undisturbed (vfork)": (
        "if os.fork() == 0:\n"
        "    clone = system_calls.number('clone', system_calls.MACHINE)\n"
        "    libc.syscall(clone, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0)\n"
        "    ready(); forever()"
    ),
    "two that trace each other": (
        "first = os.fork() or forever()\n"
        "if os.fork() == 0:\n"
        "    assert libc.ptrace(0x4206, first, None, None) == 0  # PTRACE_SEIZE\n"
        "    assert libc.ptrace(0x4207, first, None, None) == 0  # PTRACE_INTERRUPT\n"
        "    ready(); forever()"
    ),
    "one that collects its children": (
        "if os.fork() == 0:\n"
        "    libc.prctl(36, 1, 0, 0, 0)\n"
        "    if os.fork() == 0:\n"
        "        if os.fork(): os._exit(0)\n"
        "        ready()\n"
        "    forever()"
    ),
    "twenty that are somebody else all the time": (
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        ready()\n"
        "        while True:\n"
        "            if os.fork(): os._exit(0)\n"
        "            os.setsid()"
    ),
}
WAYS = {
    "round by round": "kill_below",
    "at once": "lambda: os.kill(-1, signal.SIGKILL)",
}
SWEEPER = """
import contextlib, ctypes, os, signal, sys, time
from hive_jupyter.worker.confine import landlock, prctl, system_calls
from hive_jupyter.worker.sweep import kill_below, sweep
libc = ctypes.CDLL(None)
def forever():
    while True: time.sleep(1000)
prctl.adopt_orphans()
way, nasty = sys.argv[1:]
if "-1" in way:
    prctl.no_new_privs()
    assert landlock.keep_signals_below()
reading, writing = os.pipe()
def ready():
    os.write(writing, b"!")
if os.fork() == 0:
    exec(nasty)
    os._exit(0)
os.read(reading, 1)
print("ready", flush=True)
def kill_all(kill=eval(way)):
    with contextlib.suppress(ProcessLookupError): kill()
sweep(kill_all)
print("swept", flush=True)
forever()
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nasty", NASTY)
def test_whatever_it_does_it_ends(way, nasty):
    if way == "at once" and landlock.abi() < 6:
        pytest.skip("this kernel cannot scope signals")
    with (
        adopting() as left,
        subprocess.Popen(
            [sys.executable, "-c", SWEEPER, WAYS[way], NASTY[nasty]],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as sweeper,
    ):
        assert "ready\n" == sweeper.stdout.readline()
        assert "swept\n" == sweeper.stdout.readline()

        assert [sweeper.pid] == [process.pid for process in left()]
        sweeper.kill()
        wait_until(lambda: not left())


def test_who_is_spared_stays_with_all_below():
    program = (
        "from hive_jupyter.worker.sweep import kill_below\n"
        "import os, subprocess, time\n"
        "def parent():\n"
        "    pid = os.fork()\n"
        "    if pid == 0: subprocess.run(['sleep', '1000'])\n"
        "    return pid\n"
        "kept, other = parent(), parent()\n"
        "from hive_jupyter import procfs\n"
        "while len(procfs.family(os.getpid())) < 5: time.sleep(0.001)\n"
        "kill_below(spared={kept})\n"
        "os.waitpid(other, 0)\n"
        "print(len(procfs.family(kept)))"
    )
    with (
        adopting() as left,
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE
        ) as process,
    ):
        assert b"2\n" == process.stdout.readline()
        process.wait(10)
        wait_until(lambda: len(left()) == 2)


@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel cannot scope signals")
def test_who_keeps_signals_below_reaches_nobody_else():
    """And what it starts may be signalled by it, and neither may signal others."""
    program = (
        "import os, sys\n"
        "from hive_jupyter.worker.confine import landlock, prctl\n"
        "others = [os.getppid(), int(sys.argv[1])]\n"
        "def refused(pid):\n"
        "    try: os.kill(pid, 0)\n"
        "    except PermissionError: return True\n"
        "    return False\n"
        "assert not any(map(refused, others))\n"
        "prctl.no_new_privs()\n"
        "assert landlock.keep_signals_below()\n"
        "assert all(map(refused, others))\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if all(map(refused, others)) else 1)\n"
        "assert not refused(child)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    with holder("") as other:
        other.stdout.readline()
        command = [sys.executable, "-c", program, str(other.pid)]
        assert 0 == subprocess.run(command, cwd=ROOT, check=False).returncode
        assert other.poll() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may signal everybody")
def test_where_the_parent_cannot_be_signalled_anyway_nothing_is_proven():
    """Then a refusal says nothing; process 1 is root's."""
    program = (
        "import os, time\n"
        "from hive_jupyter.worker.confine import landlock, prctl\n"
        "if os.fork(): os._exit(0)\n"
        "while os.getppid() != 1: time.sleep(0.001)\n"
        "prctl.no_new_privs()\n"
        "print(landlock.keep_signals_below())"
    )
    command = [sys.executable, "-c", program]
    assert (
        "False\n"
        == subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout
    )
