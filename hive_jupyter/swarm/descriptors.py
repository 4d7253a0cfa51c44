"""How many files this process may still open, asked before something that cannot do without."""

from __future__ import annotations

import errno
import os
import resource

from hive_jupyter.swarm import system

# Where a process finds its own; Linux has the second only where somebody made a link of it.
_OPEN = "/proc/self/fd" if system.IS_LINUX else "/dev/fd"

# The errors of a system call for which there was no descriptor: of this process, of the machine.
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def lack_of_descriptors(needed: int) -> str | None:
    """
    Look before leaping: libzmq ends the whole process where it gets no descriptor.

    Args:
        needed: how many more files are to be opened.

    Returns:
        What is wrong and what helps, where there is no room for so many; else None.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        left = limit - len(os.listdir(_OPEN))
    except OSError as error:
        if error.errno not in NO_DESCRIPTOR:
            return None
        left = 0
    return None if left >= needed else shortage(needed, left)


def shortage(needed: int, left: int = 0) -> str:
    """
    What is wrong and what helps, where there are too few descriptors.

    Args:
        needed: how many more files were to be opened.
        left: how many may be.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process may have {limit} open files (ulimit -n) and has room for {left} more, where "
        f"{needed} are needed. Close some, or raise the limit."
    )
