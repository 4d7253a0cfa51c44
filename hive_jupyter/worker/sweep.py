"""
Everything that a worker started ends with it.

A child subreaper (``prctl.adopt_orphans``) becomes the parent of whatever tries to slip away, and
may take note of its end, or not. An ended process counts as one of its user's until somebody has:
as long as nobody does, those that fork faster than they are killed run into their limit
(RLIMIT_NPROC).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Container

from hive_jupyter import procfs


def sweep(kill_all: Callable[[], None]) -> None:
    """
    Kill what is below this child subreaper until it has no child.

    Args:
        kill_all: kills all that can be seen, as ``kill_below``.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            kill_all()
            os.wait()
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def kill_below(spared: Container[int] = ()) -> None:
    """
    Kill all descendants of this process, round by round until nobody new is among them.

    A killed process's children come to this child subreaper before its end is told
    (``exit_notify`` in the kernel reparents first), so nothing slips through between two rounds.

    Args:
        spared: pids of those that stay, with what is below them.
    """
    hit: set[tuple[int, int]] = set()
    while fresh := _living(spared) - hit:
        for pid, _ in fresh:
            kill(pid)
        hit |= fresh


def kill(pid: int) -> None:
    """End a process of ours that nobody has reaped yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _living(spared: Container[int]) -> set[tuple[int, int]]:
    """The pids, each with the start time that makes it a name."""
    family = procfs.descendants(os.getpid(), spared=spared)
    return {(pid, stat.start_ticks) for pid, stat in family.items() if not stat.has_ended}
