"""What a process may say about itself to Linux (``prctl(2)``), and the name it goes by."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SET_PDEATHSIG = 1
_GET_DUMPABLE = 3
_SET_DUMPABLE = 4
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with(parent: int) -> None:
    """End by SIGKILL with the thread of ``parent`` that forked us, at once if it is gone."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Take ``die_with`` back."""
    _prctl(_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (a "child subreaper")."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def set_dumpable(dumpable: bool) -> None:
    """Let processes of the same user trace this one and read its memory, or not."""
    _prctl(_SET_DUMPABLE, int(dumpable))


def is_dumpable() -> bool:
    """Whether processes of the same user may trace this one and read its memory."""
    return bool(_libc.prctl(_GET_DUMPABLE, 0, 0, 0, 0) == 1)


@contextmanager
def dumpable() -> Iterator[None]:
    """For a moment own what is in ``/proc/self``: it is root's while a process is not dumpable."""
    before = is_dumpable()
    set_dumpable(True)
    try:
        yield
    finally:
        set_dumpable(before)


def no_new_privs() -> None:
    """
    Have no program that is started from now on give more rights than the caller has (set-user-ID).

    For good, also for what is started later; Landlock and seccomp ask for it
    (``Documentation/userspace-api/no_new_privs.rst``).
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)


def set_title(title: str) -> None:
    """
    Show ``title`` in ``ps`` and ``top``, cut to the room that the command line had.

    The kernel reads ``/proc/PID/cmdline`` from the process's own memory, between the addresses that
    fields 48 and 49 of ``/proc/PID/stat`` name. Elsewhere than on Linux it stays as it is.
    """
    if not hasattr(_libc, "prctl"):
        return
    text = title.encode()
    _prctl(_SET_NAME, text[:15])
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    fields = stat[stat.rindex(b")") + 2 :].split()
    start, end = int(fields[45]), int(fields[46])
    if start and end > start:
        ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b"\0"), end - start)
