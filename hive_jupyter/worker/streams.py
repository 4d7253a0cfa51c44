"""
stdout and stderr of a worker.

ipykernel's stream publishes what Python prints, and what C code and child processes write to the
descriptor. This one does the same, with four differences:

- What the descriptor got before a print, a flush or the end of a cell comes before it, with that
  cell: the thread that prints looks into the descriptor's pipe first.
- A write takes no lock, so it may come from a signal handler, a finaliser or a fork at any time:
  writers only append to one list, and only the publishing thread takes from it.
- What a loop prints is sent piece by piece, so that memory stays bounded and the wire is busy.
- Last words are heard: what was flushed has left the process, and what the descriptor got stays in
  its pipe for a moment, whose reading end the supervisor holds too.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import os
import select
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import compress, repeat
from operator import is_
from pathlib import Path
from typing import Any

from ipykernel.iostream import OutStream

from hive_jupyter.worker.compat import called_as_its_base

# So many characters are sent at once, while the next ones come together; then printing waits. Also
# the most that one message holds.
PIECE = 2**20

_libc = ctypes.CDLL(None)
# Calls through this one keep the GIL. To let it go at each print would hand it to any thread that
# computes, and Python gives it back after 5 ms.
_quick_libc = ctypes.PyDLL(None)
# What FIONREAD answers for an empty pipe.
_NOTHING = bytes(ctypes.sizeof(ctypes.c_int))
# So long what the descriptor got stays in its pipe (seconds): if the worker dies meanwhile, as it
# does after a failed assertion in C, its supervisor finds it there.
_LAST_WORDS = 0.05
# Where so many bytes have come together by then, more follow, and their writer must not wait.
_FLOOD = 2**15
# So the names of zmq's threads that write begin; a context has one.
_WRITES = b"ZMQbg/IO"
# So long a flush waits for zmq's thread (seconds), and so long between two looks at it. It takes
# microseconds where it gets a processor, and sleeps where nobody reads. To look all the time would
# keep a processor from it.
_WRITING_PATIENCE = 5.0
_WRITING_INTERVAL = 0.0001


class Wire:
    """
    The thread of zmq's that writes to the sockets what was sent to them.

    Attributes:
        stat: the file that tells its state; None until that is first asked for.
    """

    def __init__(self) -> None:
        self._candidates: list[Path] = []
        self.stat: Path | None = None

    def find(self) -> None:
        """Look for it among the threads that there are now, while zmq has no other of its kind."""
        with contextlib.suppress(FileNotFoundError):  # only Linux tells
            self._candidates = list(Path("/proc/self/task").iterdir())

    def wait(self) -> None:
        """Return once all that was sent is written, or cannot be because nobody reads."""
        deadline = time.monotonic() + _WRITING_PATIENCE
        with contextlib.suppress(OSError):
            while self._runs() and time.monotonic() < deadline:
                time.sleep(_WRITING_INTERVAL)

    def _runs(self) -> bool:
        if self.stat is None:
            # it names itself when it first runs, which it has by the time a request came through it
            writing = (thread for thread in self._candidates if _writes(thread))
            self.stat = next((thread / "stat" for thread in writing), None)
        # so does, from the moment on when it is told that there is something to do, one that waits
        # for a processor; see proc(5)
        stat = b") S" if self.stat is None else self.stat.read_bytes()
        return stat[stat.rindex(b")") :][2:3] in (b"R", b"D")


def _writes(thread: Path) -> bool:
    return (thread / "comm").read_bytes().startswith(_WRITES)


wire = Wire()


def _c_stream(name: str) -> ctypes.c_void_p:
    """What libc calls stdout and stderr: so on Linux, ``__stdoutp`` on macOS and BSDs."""
    try:
        return ctypes.c_void_p.in_dll(_libc, name)
    except ValueError:
        return ctypes.c_void_p.in_dll(_libc, f"__{name}p")


@called_as_its_base
class WorkerStream(OutStream):
    """
    ipykernel's OutStream, with output of C code and children in time, and cheaper.

    Attributes:
        pipes: ends for reading and writing, by the stream's name, which somebody else holds too.
    """

    pipes: Mapping[str, tuple[int, int]] = {}
    _fid: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # The watching thread starts inside ipykernel's __init__.
        self._pipe_lock = threading.RLock()
        self._reading = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # parent, text, parent, text, ...: extending a list is one step, which nothing comes between
        self._written: list[Any] = []
        self._size = 0
        self._in_flight = 0
        self._handed_over: list[threading.Lock] = []
        self._taking = False
        self._is_child = False
        self._arrived: Callable[[], object] = int
        if self.pipes:  # ipykernel would watch the descriptor on Linux and macOS alone
            options["watchfd"] = "force"
        super().__init__(*arguments, **options)
        if self._should_watch:
            # ipykernel copies what comes through the pipe to the original descriptor, too: our log.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._original_stdstream_copy)
            os.close(null)
            self._arrived = self._asking()
            self._c_stream = _c_stream(self.name)
        os.register_at_fork(after_in_child=self._begin_anew)

    def _asking(self) -> Callable[[], object]:
        """Something to call that says whether there is anything in the descriptor's pipe."""
        if not hasattr(select, "epoll"):
            poll = select.poll()
            poll.register(self._fid, select.POLLIN)
            return partial(poll.poll, 0)
        # of all ways to ask this, the cheapest
        self._epoll = select.epoll()
        self._epoll.register(self._fid, select.EPOLLIN)
        event = ctypes.byref(ctypes.create_string_buffer(16))
        return partial(_quick_libc.epoll_wait, self._epoll.fileno(), event, 1, 0)

    def write(self, string: str) -> int:
        """Take what Python prints, after what the descriptor got before."""
        if self.pub_thread is None or not isinstance(string, str):
            super().write(string)  # raises what is right
        # Whoever reads says so before the pipe is empty, and until the text is in the list.
        if self._arrived() or self._reading:
            self._read_pipe()
        # as _take, without the price of a call and of a property
        parent = self._parent_header.get(None)
        self._written += (self._parent_header_global if parent is None else parent, string)
        size = len(string)
        self._size += size
        if self._size >= PIECE or not self._flush_pending:
            self._see_to_sending()
        return size

    def flush(self) -> None:
        """
        Publish all that was written so far, by Python or to the descriptor.

        It has left the process when this returns, so it is seen also if the next line crashes, or
        keeps the GIL for itself.
        """
        if self.closed:
            return
        if self._should_watch:
            # What C code printed and libc still holds back comes into the pipe. Not fflush(NULL): a
            # thread that writes to another file, which nobody reads, holds its lock.
            _libc.fflush(self._c_stream)
            self._read_pipe()
        if self._written or self._in_flight:
            self._publish()
            if not self._on_its_own():
                wire.wait()

    def close(self) -> None:
        """Publish what is left; afterwards nothing can be written any more."""
        if not self.closed:
            self.flush()
            super().close()

    def _take(self, text: str) -> None:
        self._written += (self.parent_header, text)
        # threads may miscount a little: the next flush by the clock makes up for it
        self._size += len(text)
        self._see_to_sending()

    def _see_to_sending(self) -> None:
        if self._size >= PIECE:
            self._hand_over()
        elif not self._flush_pending:
            self._schedule_flush()

    def _hand_over(self) -> None:
        """Have a piece sent while the next one comes together; wait for the one before it."""
        if self._on_its_own():
            self._flush()
            return
        self._size = 0
        before = None
        # each is waited for once, also where a signal handler prints in the midst of this
        with contextlib.suppress(IndexError):
            before = self._handed_over.pop()
        self._handed_over.append(self._sending())
        if before is not None:
            self._wait(before)

    def _publish(self) -> None:
        """Have the publishing thread send what there is, and wait for that."""
        if self._on_its_own():
            self._flush()
        else:
            self._wait(self._sending())

    def _on_its_own(self) -> bool:
        """Whether no other thread can send."""
        return self._is_child or threading.current_thread() is self.pub_thread.thread

    def _sending(self) -> threading.Lock:
        """
        Have the publishing thread send what there is.

        Returns:
            A lock that is released then. No Event: its set() needs a lock that wait() holds for a
            moment, in which a signal handler that flushes would wait for the thread that waits for
            that lock.
        """
        sent = threading.Lock()
        sent.acquire()
        self.pub_thread.schedule(partial(self._flush, sent.release))
        return sent

    def _wait(self, sent: threading.Lock) -> None:
        if not sent.acquire(timeout=self.flush_timeout):
            print("IOStream.flush timed out", file=sys.__stderr__)

    def _schedule_flush(self) -> None:
        if self._is_child:
            self._flush()
        else:
            super()._schedule_flush()

    def _flush(self, then: Callable[[], object] = int) -> None:
        # on the publishing thread, or in a fork's only one
        self._flush_pending = False
        if self._is_child and self._fid is not None:
            self._write_through()
            then()
            return
        self._in_flight += 1
        send = partial(self._send, list(self._messages()), then)
        # What was queued before this text was taken goes out before it. To queue all the same where
        # nothing waits would have the thread wake itself, and block once too many wake-ups wait.
        if self.pub_thread._events:  # noqa: SLF001  private in ipykernel
            self.pub_thread.schedule(send)
        else:
            send()

    def _messages(self) -> Iterator[dict[str, Any]]:
        for parent, text in self._flush_buffers():
            content = {"name": self.name, "text": text}
            message = self.session.msg("stream", content, parent=parent)
            for hook in self._hooks:
                message = hook(message)
                if message is None:
                    break
            else:
                yield message

    def _send(self, messages: list[dict[str, Any]], then: Callable[[], object]) -> None:
        try:
            self.session.pid = os.getpid()  # it refuses to send in a fork; the thread knows how
            for message in messages:
                self.session.send(self, message, ident=self.topic)
        finally:
            self._in_flight -= 1
            then()

    def _write_through(self) -> None:
        """In a fork: write into the pipe, where it keeps its order with all else that comes there.

        ipykernel opens a connection for each write there, and connections overtake each other.
        """
        for _, text in self._flush_buffers():
            data = text.encode(errors="replace")
            while data:
                data = data[os.write(self._original_stdstream_fd, data) :]

    def send_multipart(self, *frames: Any, **options: Any) -> None:
        """Send at once: what Session calls."""
        self.pub_thread._really_send(*frames, **options)  # noqa: SLF001

    def _flush_buffers(self) -> Iterator[tuple[Any, str]]:
        if self._taking:  # a finaliser flushes, in the midst of this
            return
        self._taking = True
        try:
            count = len(self._written)
            parents, texts = self._written[:count:2], self._written[1:count:2]
            del self._written[:count]
            self._size = 0
        finally:
            self._taking = False
        for parent in {id(parent): parent for parent in parents}.values():
            text = "".join(compress(texts, map(is_, parents, repeat(parent))))
            for start in range(0, len(text), PIECE):
                yield parent, text[start : start + PIECE]

    def _setup_stream_redirects(self, name: str) -> None:
        self._fid, writing = self.pipes.get(name) or os.pipe()
        self._original_stdstream_fd = getattr(sys, name).fileno()
        self._original_stdstream_copy = os.dup(self._original_stdstream_fd)
        os.dup2(writing, self._original_stdstream_fd)
        self.watch_fd_thread = threading.Thread(target=self._watch_pipe_fd, daemon=True)
        self.watch_fd_thread.start()

    def _watch_pipe_fd(self) -> None:
        """Wait for output, outside the lock; read it like ``flush`` does."""
        poll = select.poll()
        poll.register(self._fid, select.POLLIN)
        flowing_until = 0.0
        while poll.poll():
            flows = time.monotonic() < flowing_until
            if not flows:
                time.sleep(_LAST_WORDS)
            if not self._should_watch:
                return
            if self._read_pipe() >= _FLOOD:
                flowing_until = time.monotonic() + self.flush_interval
            elif self._written and not flows:
                self._sending()

    def _read_pipe(self) -> int:
        with self._pipe_lock:
            self._reading = True
            try:
                answer = fcntl.ioctl(self._fid, termios.FIONREAD, _NOTHING)
                size = int.from_bytes(answer, sys.byteorder)
                if size:
                    self._take(self._decoder.decode(os.read(self._fid, size)))
            finally:
                self._reading = False
        return size

    def _begin_anew(self) -> None:
        """In a fork: what was written before is the parent's affair, and so is the pipe."""
        self._is_child = True
        self._should_watch = False
        self._arrived = int
        self._reading = False
        self._written.clear()
        self._flush_pending = False
        self._in_flight = 0
        self._handed_over.clear()
        self._taking = False
