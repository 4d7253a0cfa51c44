"""What Linux tells about processes in ``/proc`` (see ``proc(5)``); pids are never trusted alone."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
# Linux alone has it; elsewhere nobody tells.
_IS_THERE = os.path.exists("/proc/self/stat")
# Not every kernel is built with it (CONFIG_PROC_CHILDREN).
_LISTS_CHILDREN = os.path.exists("/proc/thread-self/children")
# Of /proc/PID/status: what a process holds in memory, but for files, and on disk (swap).
_HELD = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
# The same of smaps_rollup, each page that n processes share counted 1/n in each.
_SHARE_OF = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


class Overdue(Exception):
    """A count takes longer than it may."""


@dataclass(frozen=True)
class ProcessStat:
    """
    One process, as ``/proc/PID/stat`` shows it.

    Attributes:
        state: one letter; "T" stopped, "Z" ended and not yet reaped.
        parent: pid of the parent.
        cpu_seconds: user and system time so far.
        threads: how many it has.
        faults: how often it was given memory that needed no disk.
        start_ticks: start time in clock ticks since boot; with the pid it names a process for good.
    """

    state: str
    parent: int
    cpu_seconds: float
    threads: int
    faults: int
    start_ticks: int

    @property
    def has_ended(self) -> bool:
        """Whether it is only there for its parent to take note of its end."""
        return self.state in "ZX"


def read_stat(pid: int) -> ProcessStat | None:
    """Read one process; None where it is gone."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name in brackets may hold anything, brackets included.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(
        state=fields[0].decode(),
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        threads=int(fields[17]),
        faults=int(fields[7]),
        start_ticks=int(fields[19]),
    )


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or there for its parent alone; False where nothing tells."""
    stat = read_stat(pid)
    return _IS_THERE if stat is None else stat.has_ended


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP); False where nothing tells."""
    stat = read_stat(pid)
    return stat is not None and stat.state == "T"


def title(pid: int) -> str:
    """How a process is called in ``ps``: its command line, words apart by a space; "" if gone."""
    try:
        return os.fsdecode(_read(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
    except OSError:
        return ""


def pid_of(pidfd: int, otherwise: int) -> int:
    """The pid of a pidfd's process as it is seen from here; ``otherwise`` where nothing tells."""
    with contextlib.suppress(OSError, ValueError):
        for line in lines(f"/proc/self/fdinfo/{pidfd}"):
            name, _, value = line.partition(b":")
            if name == b"Pid" and int(value) > 0:
                return int(value)
    return otherwise


def descendants(pid: int, *, spared: Container[int] = ()) -> dict[int, ProcessStat]:
    """
    Children, their children, and so on, without ``pid`` itself; found by a look at all processes.

    Args:
        pid: of the ancestor.
        spared: pids that are left out, with what is below them.
    """
    generations = _generations()
    found: dict[int, ProcessStat] = {}
    queue = [pid]
    while queue:
        for child, stat in generations[queue.pop()].items():
            if child not in spared:
                found[child] = stat
                queue.append(child)
    return found


def family(pid: int, *, most: float = math.inf) -> dict[int, int]:
    """
    A process and its descendants, which may miss some while others come and go.

    Quicker than ``descendants`` where the kernel lists children.

    Args:
        pid: of the ancestor.
        most: threads of them all; where there are more, not all of them are looked for.

    Returns:
        How many threads each has.
    """
    if not _LISTS_CHILDREN:
        stats = {pid: read_stat(pid), **descendants(pid)}
        return {member: stat.threads if stat else 0 for member, stat in stats.items()}
    found: dict[int, int] = {}
    total = 0
    queue = [pid]
    with contextlib.suppress(OSError):
        while queue and total <= most:
            member = queue.pop()
            found[member], children = _threads_and_children(member)
            total += found[member]
            queue += children
    return found


def held_memory(pids: Iterable[int]) -> int:
    """
    Bytes that processes hold, each page that n of them share counted n times.

    Pages of files do not count: the system takes those back. What was moved to the disk to make
    room does (swap).
    """
    return sum(_sum(f"/proc/{pid}/status", _HELD) or 0 for pid in pids)


def used_memory(pids: Iterable[int], until: float = math.inf) -> int:
    """
    The same, each shared page counted once (PSS).

    Dearer than ``held_memory``: about a millisecond for 100 MB. Where a process does not let itself
    be read, what it holds stands for it.

    Args:
        pids: the processes.
        until: the time (``time.monotonic``) at which to give up.

    Raises:
        Overdue: it is later.
    """
    total = 0
    for pid in pids:
        _check_time(until)
        share = _sum(f"/proc/{pid}/smaps_rollup", _SHARE_OF)
        total += held_memory([pid]) if share is None else share
    return total


def mapped_memory(
    pids: Iterable[int], is_meant: Callable[[int, int], bool], until: float = math.inf
) -> int:
    """
    Bytes that processes hold of certain files, each shared page counted once (PSS).

    Each mapping takes some 15 microseconds, and a process may have a million.

    Args:
        pids: the processes.
        is_meant: whether a file counts, by its device and number (``st_dev``, ``st_ino``).
        until: the time (``time.monotonic``) at which to give up.

    Raises:
        Overdue: it is later.
    """
    total = 0
    for pid in pids:
        counts = False
        # in binary, so that only a line feed ends a line; see ``lines``
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps", "rb") as file:
            for line in file:
                words = line.split(None, 5)
                if not words[0].endswith(b":"):  # the first line of a mapping
                    _check_time(until)
                    major, minor = words[3].split(b":")
                    counts = is_meant(os.makedev(int(major, 16), int(minor, 16)), int(words[4]))
                elif counts and words[0] == b"Pss:":
                    total += int(words[1]) * 1024
    return total


def lines(path: str) -> list[bytes]:
    """
    The lines of one of these files, without empty ones.

    Nothing but a line feed ends one: whoever gives a process or a file its name may have put any
    other character into it, and the kernel writes out no more than that one.

    Raises:
        OSError: it cannot be read.
    """
    return [line for line in _read(path).split(b"\n") if line]


def oom_kills() -> int:
    """How often the out-of-memory killer struck on this machine since boot; 0 if unknown."""
    try:
        found = lines("/proc/vmstat")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in found if line.startswith(b"oom_kill ")), 0)


def _read(path: str) -> bytes:
    """The whole of a file; ``open`` takes three times as long, which counts in loops."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise Overdue


def _sum(path: str, names: Collection[bytes]) -> int | None:
    """Bytes, of the lines of these names; None where the file cannot be read."""
    try:
        found = [line.split(None, 2) for line in lines(path)]
    except OSError:
        return None
    return sum(int(words[1]) for words in found if words[0] in names) * 1024


def _threads_and_children(pid: int) -> tuple[int, list[int]]:
    children: list[int] = []
    threads: list[str] = []
    # it, or one of its threads, may be gone
    with contextlib.suppress(FileNotFoundError):
        threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return len(threads), children


def _generations() -> defaultdict[int, dict[int, ProcessStat]]:
    """All processes, by their parents."""
    found: defaultdict[int, dict[int, ProcessStat]] = defaultdict(dict)
    for entry in os.listdir("/proc") if _IS_THERE else ():
        if entry.isdigit() and (stat := read_stat(int(entry))):
            found[stat.parent][int(entry)] = stat
    return found
