"""Resource limits of a worker (``setrlimit(2)``); every process that it starts inherits them."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess

from hive_jupyter import procfs
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.units import format_size
from hive_jupyter.worker.confine import prctl

# Seconds between SIGXCPU, which the worker may ignore, and SIGKILL.
_LAST_SECONDS = 1
# Where the machine has no memory left, a process counts as if it held so many thousandths more.
_FIRST_TO_GO = 500
_MOST_TO_GO = 1000
# What Python says where a thread cannot be had; it has no number.
_NO_THREAD = "can't start new thread"
_SHELL_SIGNAL = 128


def apply(policy: SandboxPolicy, *, own_users: bool) -> None:
    """
    Set the limits.

    That of processes holds for the user as a whole where there is no user namespace: so all that
    run now are added, and the supervisor counts the worker's own.

    Args:
        policy: what the worker may use.
        own_users: it is in a user namespace of its own, which counts its own processes only.
    """
    apply_to_each(policy)
    others = 0 if own_users else _running()
    _limit(resource.RLIMIT_NPROC, policy.processes and policy.processes + others)


def apply_to_each(policy: SandboxPolicy) -> None:
    """
    Set the limits that each process has for itself.

    The memory is that of private writable pages (RLIMIT_DATA), which turns an allocation too large
    into a MemoryError; the supervisor watches the sum over all processes.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, policy.memory)
    _limit(resource.RLIMIT_FSIZE, policy.file_size)
    _limit(resource.RLIMIT_NOFILE, policy.open_files)
    _limit(resource.RLIMIT_CPU, policy.cpu_time, _LAST_SECONDS)


def go_first() -> None:
    """
    Have the system end this process, and what it starts, before others when it has no memory left.

    See ``Documentation/filesystems/proc.rst`` of the kernel, oom_score_adj.
    """
    with (
        prctl.dumpable(),
        contextlib.suppress(OSError),
        open("/proc/self/oom_score_adj", "r+") as file,
    ):
        score = int(file.read()) + _FIRST_TO_GO
        file.seek(0)
        file.write(str(min(score, _MOST_TO_GO)))


def reached(policy: SandboxPolicy, error: BaseException) -> tuple[str, str] | None:
    """
    Whether a limit is behind an exception of the user's code.

    Returns:
        What the limit is, in words, and the policy's name for it; or None.
    """
    number = error.errno if isinstance(error, OSError) else None
    ended_by = error.returncode if type(error) is subprocess.CalledProcessError else 0
    if policy.file_size and (number == errno.EFBIG or _is(ended_by, signal.SIGXFSZ)):
        return f"no file may be larger than {format_size(policy.file_size)}", "file_size"
    if policy.open_files and number == errno.EMFILE:
        return f"a process may open {policy.open_files} files", "open_files"
    if policy.cpu_time and _is(ended_by, signal.SIGXCPU):
        return f"a process may use {policy.cpu_time} s of processor time", "cpu_time"
    # the text of an exception of the user's own may be anything, or fail
    no_thread = type(error) is RuntimeError and error.args[:1] == (_NO_THREAD,)
    if policy.processes and (no_thread or number == errno.EAGAIN) and _are_many(policy.processes):
        return f"the worker may have {policy.processes} processes and threads", "processes"
    if policy.memory and (no_thread or number == errno.ENOMEM):
        return f"a process may have {format_size(policy.memory)} of memory", "memory"
    return None


def _is(status: int, number: signal.Signals) -> bool:
    """Whether a program's status tells of a signal; a shell tells of its child's by 128 + N."""
    return status in (-number, _SHELL_SIGNAL + number)


def _are_many(limit: int) -> bool:
    """Whether there are about as many; what is not ready yet gives the same error (EAGAIN)."""
    return sum(procfs.family(os.getppid(), most=limit).values()) > limit / 2


def _limit(kind: int, most: int | None, beyond: int = 0) -> None:
    """Lower a limit, and the hard one to so much beyond it; one that is lower already, stays."""
    if most is None:
        return
    _, hard = resource.getrlimit(kind)
    last = most + beyond if hard == resource.RLIM_INFINITY else min(most + beyond, hard)
    resource.setrlimit(kind, (min(most, last), last))


def _running() -> int:
    """How many processes and threads the whole system has (``proc_loadavg(5)``)."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/loadavg") as file:
        return int(file.read().split()[3].partition("/")[2])
    return 0
