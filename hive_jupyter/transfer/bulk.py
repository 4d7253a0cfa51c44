"""
The memory of large values past the messages: over a pair of connected sockets, for host and worker.

zmq moves what is large at a third of the speed of a bare socket: it receives in small pieces, into
memory whose pages the system hands out one by one. What goes this way is announced in a message:
how many parts there are, and how large each is. Of whatever is not there in time, or not all there,
nobody knows how much is still on its way: then both ends are closed, and what is moved later goes
with the messages.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from hive_jupyter.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# What is smaller goes with the message (bytes): up to here it is there as soon, or sooner.
SMALLEST = 2**23
# What a socket holds for the other side (bytes), where the system lets it.
_ROOM = 2**20
# A system call that has moved nothing for so long ends, to look whether it still should (seconds).
_LOOK_UP = 0.05
# To read what an honest worker has written before it was over takes some milliseconds (seconds).
_LATE = 5.0
# Memory of this size is had from the system, in pages of 2 MB where it has such (bytes).
_LARGE = 2**21


def _never() -> bool:
    return False


class BulkSocket:
    """
    One end of the pair.

    Args:
        descriptor: of the socket, which is this object's from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._identity = _identity(descriptor)
        pause = struct.pack("@ll", 0, int(_LOOK_UP * 1e6))
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, pause)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)

    def is_in_step(self) -> bool:
        """Whether both ends are open, and nothing waits that nobody announced; else it closes."""
        try:
            if self._is_ours():
                self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        self.close()
        return False

    def send(self, parts: Iterable[memoryview], over: Callable[[], bool] = _never) -> None:
        """
        Send memory, as it lies there. Blocks until the other side has taken it.

        Args:
            parts: of bytes.
            over: whether the other side can take nothing any more.

        Raises:
            TransferError: it could not all be sent, and this way is closed.
        """
        with self._taken() as sending:
            for part in parts:
                left = part
                while left:
                    if over():
                        raise TransferError("it was not all taken")
                    with contextlib.suppress(BlockingIOError):
                        left = left[sending.send(left, socket.MSG_NOSIGNAL) :]

    def receive(self, sizes: Sequence[int], over: Callable[[], bool] = _never) -> list[memoryview]:
        """
        Receive memory, which is nobody else's and can be written to. Blocks until it is there.

        Args:
            sizes: in bytes, of the parts that were announced; memory is taken as they come.
            over: whether all is written that ever will be.

        Raises:
            TransferError: it did not all come, and this way is closed.
        """
        with self._taken() as receiving:
            return [_received(receiving, size, over) for size in sizes]

    def close(self) -> None:
        """Close both ends, whoever has inherited one. Idempotent."""
        with contextlib.suppress(OSError):
            if self._is_ours():
                self._socket.shutdown(socket.SHUT_RDWR)
        self.leave()

    def leave(self) -> None:
        """Close this process's own descriptor only, as a fork does that is not to have it."""
        if self._is_ours():
            self._socket.close()
        else:
            self._socket.detach()

    def _is_ours(self) -> bool:
        """Whether code of the user has not put something else in its place."""
        return _identity(self._socket.fileno()) == self._identity

    def _own(self) -> socket.socket:
        if not self._is_ours():
            raise TransferError("it was closed")
        return self._socket.dup()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[socket.socket]:
        """A descriptor of its own: another thread may close this object meanwhile."""
        try:
            with self._own() as taken:
                yield taken
        except (OSError, MemoryError) as error:
            self.close()
            raise TransferError(str(error) or "there is not enough memory") from None
        except BaseException:
            self.close()
            raise


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What no other file has that is open now; None where there is none."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _received(receiving: socket.socket, size: int, over: Callable[[], bool]) -> memoryview:
    memory, start = memory_of(size), 0
    flags, deadline = socket.MSG_WAITALL, None
    while start < size:
        # asked before it is looked what is there
        if deadline is None and over():
            flags, deadline = socket.MSG_DONTWAIT, time.monotonic() + _LATE
        try:
            count = receiving.recv_into(memory[start:], 0, flags)
        except BlockingIOError:
            count = None
        if count == 0 or (deadline and (count is None or time.monotonic() > deadline)):
            raise TransferError("it broke off before all had come that was announced")
        start += count or 0
    return memory


def memory_of(size: int) -> memoryview:
    """Memory that is nobody else's; what it holds is anything, or zeros."""
    if size < _LARGE:
        return memoryview(bytearray(size))
    # not a bytearray, which would be filled with zeros first
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(mapped)
