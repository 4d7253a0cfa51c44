"""Runs that go on in threads beside the main one, where no signal reaches them."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any


class OfThread:
    """
    An attribute of which each thread has its own value.

    Args:
        default: what it is where the thread has set none.
    """

    def __init__(self, default: Any) -> None:
        self._default = default
        self._values = threading.local()

    def __get__(self, _owner: object, _kind: type) -> Any:
        return getattr(self._values, "value", self._default)

    def __set__(self, _owner: object, value: Any) -> None:
        self._values.value = value


class Threads:
    """Knows which thread each of them is in, so that one can be interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[str, int] = {}

    @contextlib.contextmanager
    def running(self, key: str) -> Iterator[None]:
        """
        While entered, the calling thread can be interrupted.

        Args:
            key: of the run.
        """
        thread = threading.get_ident()
        self._threads[key] = thread
        try:
            yield
        finally:
            # an interrupt that comes only now meets no code of the user's
            while key in self._threads:
                with contextlib.suppress(KeyboardInterrupt), self._lock:
                    _have_raise(thread, None)
                    del self._threads[key]

    def interrupt(self, key: str) -> None:
        """Have a run raise KeyboardInterrupt as soon as its thread runs Python code."""
        with self._lock:
            if key in self._threads:
                _have_raise(self._threads[key], KeyboardInterrupt)


def _have_raise(thread: int, kind: type[BaseException] | None) -> None:
    """
    Have a thread raise an exception; None takes one back that it has not raised yet.

    See https://docs.python.org/3/c-api/threads.html#c.PyThreadState_SetAsyncExc.
    """
    wanted = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), wanted)
