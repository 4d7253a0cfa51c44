"""Buffers as parts of a message: how they are put into it, and taken out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hive_jupyter.transfer.bulk import memory_of
from hive_jupyter.transfer.describing import LieError, is_count

if TYPE_CHECKING:
    from collections.abc import Sequence

# No message part is larger: the host's sockets take none that is.
LARGEST_PART = 2**30
# Smaller buffers share a part; and so do those beyond so many, as a message has few thousand parts.
_LARGE = 2**16
_MOST_PARTS = 1000
# Of one transfer, with the pieces of what is larger than a part.
_MOST_ANNOUNCED = 10_000
# Where a buffer that shares a part begins: at a multiple of this, in bytes.
_ALIGNMENT = 16
_EMPTY = memoryview(bytearray())


def in_parts(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Large buffers as they are, the others joined in front of them; see ``from_parts``."""
    alone = _alone([buffer.nbytes for buffer in buffers])
    joined = bytearray()
    parts: list[memoryview] = []
    for number, buffer in enumerate(buffers):
        if number in alone:
            parts += _pieces(buffer)
        else:
            joined += buffer
            joined += bytes(-len(joined) % _ALIGNMENT)
    return [*_pieces(memoryview(joined)), *parts]


def from_parts(sizes: Any, parts: list[Any]) -> list[memoryview]:
    """
    The inverse of ``in_parts``: no two buffers share memory, and each can be written to.

    Raises:
        Exception: there is not exactly as much as was said.
    """
    if not isinstance(sizes, list) or not all(map(is_count, sizes)):
        raise LieError("the sizes are no sizes")
    alone = _alone(sizes)
    shared = sum(
        size + -size % _ALIGNMENT for number, size in enumerate(sizes) if number not in alone
    )
    parts.reverse()
    joined = _whole(parts, shared)
    buffers, start = [], 0
    for number, size in enumerate(sizes):
        if number in alone:
            buffers.append(_whole(parts, size))
        else:
            # a value that stays must not keep all others
            buffers.append(memoryview(bytearray(joined[start : start + size])) if size else _EMPTY)
            start += size + -size % _ALIGNMENT
    if parts:
        raise LieError("there is more than was said")
    return buffers


def are_sizes(announced: object) -> bool:
    """Whether this can be what ``in_parts`` makes: how large its parts are, and how many."""
    return (
        isinstance(announced, list)
        and len(announced) <= _MOST_ANNOUNCED
        and all(is_count(size) and size <= LARGEST_PART for size in announced)
    )


def _alone(sizes: Sequence[int]) -> frozenset[int]:
    """The numbers of the buffers that have parts of their own."""
    large = [number for number, size in enumerate(sizes) if size >= _LARGE]
    return frozenset(large[:_MOST_PARTS])


def _pieces(buffer: memoryview) -> list[memoryview]:
    return [buffer[start : start + LARGEST_PART] for start in range(0, buffer.nbytes, LARGEST_PART)]


def _whole(parts: list[Any], size: int) -> memoryview:
    """Take as many parts from the end as make up this size."""
    if size == 0:
        return _EMPTY
    if size <= LARGEST_PART:
        part = memoryview(parts.pop()).cast("B")
        if part.nbytes != size:
            msg = f"{part.nbytes} bytes instead of {size}"
            raise LieError(msg)
        return part
    if sum(memoryview(part).nbytes for part in parts) < size:
        raise LieError("there is less than was said")
    whole, start = memory_of(size), 0
    while start < size:
        length = min(size - start, LARGEST_PART)
        whole[start : start + length] = memoryview(parts.pop()).cast("B")
        start += length
    return whole
