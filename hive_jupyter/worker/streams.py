"""
stdout and stderr of a worker.

ipykernel's stream publishes what Python prints, and what C code and child processes write to the
descriptor. This one reads the descriptor's pipe on the flushing thread too, so that what a cell
wrote is published with that cell, never after it; and it does not bother the publishing thread
where there is nothing to flush, which is most of the time of a cell that prints nothing.
"""

from __future__ import annotations

import array
import codecs
import ctypes
import fcntl
import os
import select
import termios
import threading
from typing import Any

from ipykernel.iostream import OutStream

_libc = ctypes.CDLL(None)


class WorkerStream(OutStream):
    """ipykernel's OutStream, with output of C code and children in time and a cheap flush."""

    _fid: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # The watching thread starts inside ipykernel's __init__. The user's signal handlers may
        # print while the lock is held.
        self._pipe_lock = threading.RLock()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        super().__init__(*arguments, **options)
        if self._should_watch:
            # ipykernel copies what comes through the pipe to the original descriptor, too: our log.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._original_stdstream_copy)
            os.close(null)

    def write(self, string: str) -> int:
        """Take what Python prints, after what the descriptor got before."""
        if self._should_watch and self._is_master_process():
            self._read_pipe()
        return super().write(string) or 0

    def flush(self) -> None:
        """Publish all that was written so far, by Python or to the descriptor."""
        if self._should_watch and self._is_master_process():
            # what C code printed and libc still holds back comes into the pipe
            _libc.fflush(None)
            self._read_pipe()
        if self._has_text():
            super().flush()

    def _watch_pipe_fd(self) -> None:
        """Wait for output, outside the lock; read it like ``flush`` does."""
        poll = select.poll()
        poll.register(self._fid, select.POLLIN)
        while self._should_watch:
            poll.poll()
            self._read_pipe()

    def _read_pipe(self) -> None:
        with self._pipe_lock:
            waiting = array.array("i", [0])
            fcntl.ioctl(self._fid, termios.FIONREAD, waiting)
            if waiting[0]:
                super().write(self._decoder.decode(os.read(self._fid, waiting[0])))

    def _has_text(self) -> bool:
        with self._buffer_lock:
            return any(buffer.tell() for buffer in self._buffers.values())
