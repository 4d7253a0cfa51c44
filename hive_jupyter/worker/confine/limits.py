"""Resource limits of a worker (``setrlimit(2)``); every process that it starts inherits them."""

from __future__ import annotations

import resource


def apply(memory: int | None) -> None:
    """
    Set the limits.

    Args:
        memory: bytes of private writable memory for each process (RLIMIT_DATA), which turns an
            allocation too large into a MemoryError; the supervisor watches the sum over all
            processes. None: no limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
