"""Processes seen from outside: deadlines, families, and hosts of a test's own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]

MEGABYTE = 2**20

_SET_CHILD_SUBREAPER = 36


def wait_until(condition, seconds=30.0):
    """Wait for what has no event: return the condition's first true value, or fail."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.002)
    return value


def has_ended(pid):
    """Whether or not somebody has waited for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes, seconds=30.0):
    """Wait until all of them have ended; a zombie is not gone."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert [] == alive


def family(pid=None):
    """All that a process has started and that still exists."""
    return psutil.Process(pid).children(recursive=True)


def titled(processes, start):
    """Those of the processes whose command line begins so."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(start):
                found.append(process)
    return found


def zombies(pid=None):
    """Those below a process that have ended and that nobody has waited for."""
    found = []
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            found += [process] if process.status() == psutil.STATUS_ZOMBIE else []
    return found


def rested(node):
    """An open circuit's rest is over, without anybody waiting for it."""
    clock, rest = node.breaker._clock, node.config.recovery_time
    node.breaker._clock = lambda: clock() + rest
    assert "half-open" == node.breaker.state


def send(process, number):
    """A signal to a process that may be gone already."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        os.kill(process.pid, number)


def stopped(pid):
    """SIGSTOP that has taken effect."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


@contextmanager
def adopting(*, reap=True):
    """
    Be the parent of every orphan below this process: nothing slips away unseen.

    Gives a function that lists what is left; zombies are reaped, unless this process has a hive
    of its own, which does that for its children.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = {child.pid for child in family()}

    def left():
        for child in psutil.Process().children() if reap else ():
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.pid not in before and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, 0)
        return [child for child in family() if child.pid not in before and _known(child)]

    try:
        yield left
    finally:
        for child in left():
            send(child, signal.SIGKILL)
        with suppress(AssertionError):
            wait_until(lambda: not left(), 3)
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _known(child):
    with suppress(psutil.NoSuchProcess):
        return bool(child.status())
    return False


def holder(code):
    """A Python that runs ``code``, prints a line, and lives until its stdin ends."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", f"{code}\nprint(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def start_host(code, runtime, before=(), **environment):
    """
    A Python of its own that runs ``code``; lines that it prints can be read from ``stdout``.

    ``before``: a command that runs the interpreter.
    """
    return subprocess.Popen(
        [*before, sys.executable, "-u", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(runtime),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            **environment,
        },
    )
