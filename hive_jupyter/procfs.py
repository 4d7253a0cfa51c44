"""What Linux tells about processes in ``/proc`` (see ``proc(5)``); pids are never trusted alone."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessStat:
    """
    One process, as ``/proc/PID/stat`` shows it.

    Attributes:
        state: one letter; "T" stopped, "Z" ended and not yet reaped.
        parent: pid of the parent.
        cpu_seconds: user and system time so far.
        start_ticks: start time in clock ticks since boot; with the pid it names a process for good.
        resident: bytes, those that are shared with others included.
    """

    state: str
    parent: int
    cpu_seconds: float
    start_ticks: int
    resident: int


def read_stat(pid: int) -> ProcessStat | None:
    """Read one process; None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name in brackets may hold anything, brackets included.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(
        state=fields[0].decode(),
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        start_ticks=int(fields[19]),
        resident=int(fields[21]) * _PAGE,
    )


def title(pid: int) -> str:
    """How a process is called in ``ps``: its command line, words apart by a space; "" if gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return os.fsdecode(file.read()).replace("\0", " ").strip()
    except OSError:
        return ""


def pid_of(pidfd: int, otherwise: int) -> int:
    """The pid of a pidfd's process as it is seen from here; ``otherwise`` where nothing tells."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    return otherwise


def children(pid: int) -> list[int]:
    """Direct children, found by scanning (``/proc/PID/task/*/children`` may not exist)."""
    return _family_tree().get(pid, [])


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on, without ``pid`` itself."""
    tree = _family_tree()
    found: list[int] = []
    queue = [pid]
    while queue:
        offspring = tree.get(queue.pop(), [])
        found += offspring
        queue += offspring
    return found


def family(pid: int) -> list[int]:
    """A process and its descendants; itself alone where this process may open no more files."""
    try:
        return [pid, *descendants(pid)]
    except OSError:
        return [pid]


def resident_memory(pids: list[int]) -> int:
    """Bytes that the processes hold resident, each page that n of them share counted n times."""
    return sum(stat.resident for pid in pids if (stat := read_stat(pid)))


def proportional_memory(pids: list[int]) -> int:
    """
    Bytes that the processes hold resident, each shared page counted once (PSS).

    Dearer than ``resident_memory`` (about a millisecond a process). Where a process does not let
    itself be read, its resident memory stands for it.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                lines = [line for line in file if line.startswith(b"Pss:")]
            total += int(lines[0].split()[1]) * 1024
        except (OSError, IndexError):
            total += resident_memory([pid])
    return total


def oom_kills() -> int:
    """How often the out-of-memory killer struck on this machine since boot; 0 if unknown."""
    try:
        with open("/proc/vmstat", "rb") as file:
            counts = [line.split()[1] for line in file if line.startswith(b"oom_kill ")]
    except OSError:
        return 0
    return int(counts[0]) if counts else 0


def _family_tree() -> dict[int, list[int]]:
    tree: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := read_stat(int(entry))):
            tree[stat.parent].append(int(entry))
    return tree
