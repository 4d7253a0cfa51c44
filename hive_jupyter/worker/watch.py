"""
The limits of a worker that nobody else keeps: what all its processes use together.

There is no event for them, so a supervisor looks: five times a second, and sooner the less memory
is left, as processors fill it at a known pace. A worker that does nothing costs a glance, and looks
take no more than a twentieth of a processor, but where a single one takes more than 0.1 seconds.

Memory is what ``Documentation/filesystems/proc.rst`` of the kernel calls so: private and shared
pages and what was swapped, each once. Pages of files on a disk are not, as the system takes them
back. Files in memory are, mapped or not: those in a /dev/shm of the worker's own, and what
memfd_create(2) made, as long as a process has it open.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Collection, Container, Iterable, Iterator
from typing import NamedTuple

from hive_jupyter import procfs
from hive_jupyter.policy import SandboxPolicy

# Seconds between two looks, at most.
_LONGEST = 0.2
# The same where the kernel keeps the worst away (RLIMIT_NPROC, which does not hold for root).
_LEISURELY = 1.0
# Of one processor's time, the part that looks may take; so long, in seconds, they rest for that at
# most.
_SHARE = 0.05
_LONGEST_REST = 2.0
# Seconds that an exact count may take. A worker has its supervisor wait no longer for having a
# million mappings, or processes.
_LONGEST_COUNT = 2.0
# Bytes that one processor may fill in a second.
_PACE = 4 * 2**30
# Descriptors that one look takes on, at most; each takes 3 us.
_MOST_DESCRIPTORS = 20_000
_BLOCK = 512  # of st_blocks, see stat(2)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (a place, not a file)


class Excess(NamedTuple):
    """
    A limit that was passed.

    Attributes:
        limit: "memory" or "processes".
        used: bytes, or processes and threads.
    """

    limit: str
    used: int


class Watch:
    """
    Looks after all that is below this process.

    Args:
        policy: with the limits.
        kept: names of those that the kernel keeps.
        own_shared_memory: /dev/shm is the worker's own.
    """

    def __init__(
        self, policy: SandboxPolicy, *, kept: Container[str], own_shared_memory: bool
    ) -> None:
        memory = None if "memory" in kept else policy.memory
        processes = None if "processes" in kept else policy.processes
        self._memory = math.inf if memory is None else memory
        self._processes = math.inf if processes is None else processes
        self._has_files = own_shared_memory and os.path.isdir(_SHARED_MEMORY)
        at_leisure = memory is None and os.geteuid() != 0
        self._longest = _LEISURELY if at_leisure else _LONGEST
        self._pause = self._longest
        self._due = math.inf if memory is None and processes is None else 0.0
        self._cpu_seconds: dict[int, float] = {}
        self._files = _MemoryFiles()

    @property
    def timeout(self) -> float | None:
        """Milliseconds until the next look is due; None: there is nothing to look after."""
        if self._due == math.inf:
            return None
        return max(0.0, self._due - time.monotonic()) * 1000

    def look(self) -> Excess | None:
        """Find out whether a limit was passed, where it is time to."""
        if time.monotonic() < self._due:
            return None
        began = time.process_time()
        own = os.getpid()
        family = procfs.family(own, most=self._processes + 1)
        family.pop(own, None)
        excess = None
        if (tasks := sum(family.values())) > self._processes:
            excess = Excess("processes", tasks)
        elif self._memory < math.inf and (self._has_worked(family) or not self._files.has_seen_all):
            used = self._memory_used(family)
            if used > self._memory:
                excess = Excess("memory", used)
            self._pause = (self._memory - used) / (_PACE * (os.cpu_count() or 1))
        else:
            self._pause *= 2
        self._pause = min(self._pause, self._longest)
        spent = time.process_time() - began
        rest = min(spent / _SHARE, _LONGEST_REST)
        self._due = math.inf if excess else time.monotonic() + max(self._pause, rest)
        return excess

    def _has_worked(self, family: Iterable[int]) -> bool:
        """Whether any of it had a processor since the last look; else it took no memory either."""
        stats = {pid: procfs.read_stat(pid) for pid in family}
        before = self._cpu_seconds
        self._cpu_seconds = {pid: stat.cpu_seconds for pid, stat in stats.items() if stat}
        return self._cpu_seconds != before

    def _memory_used(self, pids: Collection[int]) -> int:
        """Bytes; where that is surely less than the limit, or counting takes too long, at most."""
        files = self._files.look(pids)
        beside = sum(files.values())
        devices: tuple[int, ...] = ()
        if self._has_files:
            found = os.statvfs(_SHARED_MEMORY)
            beside += (found.f_blocks - found.f_bfree) * found.f_frsize
            devices = (os.stat(_SHARED_MEMORY).st_dev,)
        most = procfs.held_memory(pids) + beside
        if most <= self._memory:
            return most
        until = time.monotonic() + _LONGEST_COUNT
        with contextlib.suppress(procfs.Overdue):
            most = procfs.used_memory(pids, until) + beside
            if most > self._memory and beside:
                # what is mapped of these files is a part of both
                most -= procfs.mapped_memory(
                    pids,
                    lambda device, number: device in devices or (device, number) in files,
                    until,
                )
        return most


class _MemoryFiles:
    """Those files that processes have open and that lie in memory alone."""

    def __init__(self) -> None:
        self._paths: Iterator[str] = iter(())
        self._found: dict[tuple[int, int], int] = {}
        self._before: dict[tuple[int, int], int] = {}
        self.has_seen_all = True

    def look(self, pids: Collection[int]) -> dict[tuple[int, int], int]:
        """
        Look at so many descriptors as one look may; the next one goes on where it stopped.

        Returns:
            Bytes of each, by device and number; also of those before, until all were looked at.
        """
        if self.has_seen_all:
            self._before, self._found = self._found, {}
            self._paths = _descriptors(pids)
        self.has_seen_all = False
        for number, path in enumerate(self._paths, 1):
            # it may be closed, its process gone
            with contextlib.suppress(OSError):
                if os.readlink(path).startswith("/memfd:"):
                    file = os.stat(path)
                    self._found[file.st_dev, file.st_ino] = file.st_blocks * _BLOCK
            if number == _MOST_DESCRIPTORS:
                return {**self._before, **self._found}
        self.has_seen_all = True
        return self._found


def _descriptors(pids: Iterable[int]) -> Iterator[str]:
    for pid in pids:
        # it may be gone, or not let itself be looked at
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                yield f"/proc/{pid}/fd/{number}"
