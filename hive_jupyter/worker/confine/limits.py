"""Resource limits of a worker (``setrlimit(2)``); every process that it starts inherits them."""

from __future__ import annotations

import contextlib
import resource

from hive_jupyter.policy import SandboxPolicy

# Seconds between SIGXCPU, which the worker may ignore, and SIGKILL.
_LAST_SECONDS = 1


def apply(policy: SandboxPolicy, *, own_users: bool) -> None:
    """
    Set the limits.

    The memory is that of private writable pages for each process (RLIMIT_DATA), which turns an
    allocation too large into a MemoryError; the supervisor watches the sum over all processes. That
    of processes holds for the user as a whole where there is no user namespace: so all that run now
    are added, and the supervisor counts the worker's own.

    Args:
        policy: what the worker may use.
        own_users: it is in a user namespace of its own, which counts its own processes only.
    """
    others = 0 if own_users else _running()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, policy.memory)
    _limit(resource.RLIMIT_FSIZE, policy.file_size)
    _limit(resource.RLIMIT_NOFILE, policy.open_files)
    _limit(resource.RLIMIT_NPROC, policy.processes and policy.processes + others)
    if policy.cpu_time is not None:
        last = policy.cpu_time + _LAST_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (policy.cpu_time, last))


def _limit(kind: int, most: int | None) -> None:
    """Lower a limit; one that is lower already, stays."""
    if most is None:
        return
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))


def _running() -> int:
    """How many processes and threads the whole system has (``proc_loadavg(5)``)."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/loadavg") as file:
        return int(file.read().split()[3].partition("/")[2])
    return 0
