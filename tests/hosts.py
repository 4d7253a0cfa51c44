"""Hosts in processes of their own, in whatever state a test wants them, and what they leave."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

LEFT_SOMETHING = 98

# Becomes the parent of whatever the host leaves, and waits until all of that is gone.
_WITNESS = f"""
import ctypes, os, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
code = subprocess.call(sys.argv[2:])
def accuse(*_):
    own = os.listdir("/proc/self/task")[0]
    for pid in open("/proc/self/task/" + own + "/children").read().split():
        print("left behind:", pid, open("/proc/" + pid + "/cmdline").read(), file=sys.stderr)
        os.kill(int(pid), signal.SIGKILL)
    sys.stderr.flush()
    os._exit({LEFT_SOMETHING})
signal.signal(signal.SIGALRM, accuse)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
try:
    while True:
        os.wait()
except ChildProcessError:
    os._exit(code if code >= 0 else 128 - code)
"""

# As root a mount namespace is to be had for the asking; others need a user namespace for it.
OWN_MOUNTS = (
    ("unshare", "--mount")
    if os.geteuid() == 0
    else ("unshare", "--user", "--map-root-user", "--mount")
)


def command(program, *arguments, before=(), options=("-W", "error"), witness=True):
    """The command line of a host that runs ``program``, watched for what it leaves after 3 s."""
    watched = [sys.executable, "-I", "-S", "-c", _WITNESS, "3"] if witness else []
    return [*watched, *before, sys.executable, *options, "-c", program, *map(str, arguments)]


def environment(**changes):
    """The environment of a host; None removes a variable."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])
    merged = {**os.environ, "PYTHONPATH": path, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def play(program, *arguments, before=(), options=("-W", "error"), cwd=None, timeout=60, **changes):
    """
    Run a host to its end.

    Args:
        program: Python code; its arguments are in ``sys.argv``.
        before: a command that runs the interpreter.
        changes: of the environment.

    Returns:
        What it printed to stdout.
    """
    played = subprocess.run(
        command(program, *arguments, before=before, options=options),
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    ended = f"ended with {played.returncode}\n{played.stdout}\n{played.stderr}"
    assert (played.returncode, played.stderr) == (0, ""), ended
    return played.stdout


@contextmanager
def started(program, *arguments):
    """A host that a signal is to reach, and its pipes; it does not outlive a test that fails."""
    with subprocess.Popen(
        command(program, *arguments, witness=False),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as host:
        try:
            yield host
        finally:
            host.kill()


def own_mounts_or(skip):
    """The command that gives a host mounts of its own, or ``skip`` with the reason."""
    try:
        works = subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        skip("unshare(1) is not installed")
    if works.returncode and os.geteuid() != 0:
        skip(f"no mounts of our own here: {works.stderr.decode().strip()}")
    assert works.returncode == 0, works
    return OWN_MOUNTS
