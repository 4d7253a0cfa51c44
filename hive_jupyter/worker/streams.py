"""
stdout and stderr of a worker.

ipykernel's stream publishes what Python prints, and what C code and child processes write to the
descriptor. This one reads the descriptor's pipe on the flushing thread too, so that what a cell
wrote is published with that cell, never after it; and it does not bother the publishing thread
where there is nothing to flush, which is most of the time of a cell that prints nothing.
"""

from __future__ import annotations

import codecs
import ctypes
import fcntl
import os
import select
import sys
import termios
import threading
import time
from typing import Any

from ipykernel.iostream import OutStream

_libc = ctypes.CDLL(None)
# What FIONREAD answers for an empty pipe.
_NOTHING = bytes(ctypes.sizeof(ctypes.c_int))


class WorkerStream(OutStream):
    """ipykernel's OutStream, with output of C code and children in time and a cheap flush."""

    _fid: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # The watching thread starts inside ipykernel's __init__. The user's signal handlers may
        # print while the lock is held.
        self._pipe_lock = threading.RLock()
        self._in_flight = 0
        self._latest: tuple[Any, frozenset[tuple[str, Any]]] = (None, frozenset())
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        super().__init__(*arguments, **options)
        if self._should_watch:
            # ipykernel copies what comes through the pipe to the original descriptor, too: our log.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._original_stdstream_copy)
            os.close(null)

    def write(self, string: str) -> int:
        """Take what Python prints, after what the descriptor got before."""
        if (
            os.getpid() != self._master_pid
            or not self._should_watch
            or self.pub_thread is None
            or not isinstance(string, str)
        ):
            return super().write(string) or 0
        # print() writes its line end apart; what belongs before the line has been looked for then
        if string != "\n" and fcntl.ioctl(self._fid, termios.FIONREAD, _NOTHING) != _NOTHING:
            self._read_pipe()
        self._take(string)
        return len(string)

    def flush(self) -> None:
        """Publish all that was written so far, by Python or to the descriptor."""
        if self._should_watch and self._is_master_process():
            # what C code printed and libc still holds back comes into the pipe
            _libc.fflush(None)
            self._read_pipe()
        if self._has_text():
            super().flush()
        if self._in_flight and threading.current_thread() is not self.pub_thread.thread:
            self._wait_until_sent()

    def _flush(self) -> None:
        # on the publishing thread, where ipykernel only queues the message behind earlier ones
        self._in_flight += 1
        super()._flush()
        self.pub_thread.schedule(self._land)

    def _land(self) -> None:
        self._in_flight -= 1

    def _wait_until_sent(self) -> None:
        """What was flushed is seen also if the next line crashes, or keeps the GIL for itself."""
        end = time.monotonic() + self.flush_timeout
        while self._in_flight and time.monotonic() < end:
            turn = threading.Event()
            self.pub_thread.schedule(turn.set)
            turn.wait(self.flush_timeout)

    def _watch_pipe_fd(self) -> None:
        """Wait for output, outside the lock; read it like ``flush`` does."""
        poll = select.poll()
        poll.register(self._fid, select.POLLIN)
        while self._should_watch:
            poll.poll()
            self._read_pipe()

    def _read_pipe(self) -> None:
        with self._pipe_lock:
            answer = fcntl.ioctl(self._fid, termios.FIONREAD, _NOTHING)
            size = int.from_bytes(answer, sys.byteorder)
            if size:
                self._take(self._decoder.decode(os.read(self._fid, size)))

    def _take(self, string: str) -> None:
        """Do what OutStream.write does, at a third of its price."""
        parent = self.parent_header
        known, key = self._latest
        if known is not parent:
            # a cell's header stays one object while the cell prints
            key = frozenset(parent.items())
            self._latest = (parent, key)
        with self._buffer_lock:
            self._buffers[key].write(string)
        if not self._flush_pending:
            self._schedule_flush()

    def _has_text(self) -> bool:
        with self._buffer_lock:
            return any(buffer.tell() for buffer in self._buffers.values())
