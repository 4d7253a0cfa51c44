"""
The portal: the only door between blocking callers and the async core.

::

    caller's threads ── submit, call, post ──▶ one thread, one event loop ── nodes, sockets

Below the door everything is ``async def``, above it everything is plain ``def``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from hive_jupyter.errors import HiveError

_T = TypeVar("_T")

# A signal that comes in the moment before a thread begins to wait for a lock is noted and does not
# wake it. Whoever waits looks up so often (seconds), so that Ctrl-C is never lost.
LOOK_UP = 0.5

_CLOSED = "This hive is closed. Load the extension again, or make a new HiveManager."


def handle_sigint(handler: Any) -> Any:
    """
    Install a handler of SIGINT.

    Args:
        handler: or None, which does nothing.

    Returns:
        The previous one, or None where this thread does not get signals.
    """
    if handler is None:
        return None
    try:
        previous = signal.signal(signal.SIGINT, handler)
    except ValueError:
        return None
    # A handler that Python did not install cannot be put back.
    return signal.default_int_handler if previous is None else previous


@contextlib.contextmanager
def deferring_sigint() -> Iterator[None]:
    """While entered, Ctrl-C is noted; it takes effect at the end."""
    pressed: list[int] = []
    previous = handle_sigint(lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        handle_sigint(previous)
    if pressed:
        signal.raise_signal(signal.SIGINT)


async def apart(work: Callable[[], _T]) -> _T:
    """
    Await what blocks, in a thread that ends with it.

    asyncio's own threads would stay in the process, and hold up its end.
    """
    outcome: Future[_T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=run, name="hive, for a moment", daemon=True).start()
    return await asyncio.wrap_future(outcome)


class Portal:
    """One daemon thread with one event loop, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """
        Start ``work`` on the loop and return at once.

        An async caller awaits ``asyncio.wrap_future(portal.submit(...))``.

        Raises:
            HiveError: the portal is closed, or this is a forked child of the process that owns it.
            RuntimeError: the system gives this process no further thread.
        """
        try:
            self._belong_here()
            # a loop that may be ending must not get work which it would never take up
            with self._lock:
                return asyncio.run_coroutine_threadsafe(work, self._running_loop())
        except BaseException:
            work.close()
            raise

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """
        Run ``work`` on the loop and wait for its result.

        Raises:
            HiveError: as ``submit``, or called from the loop's own thread, which would deadlock.
        """
        if threading.current_thread() is self._thread:
            work.close()
            msg = "Portal.call from the portal's own thread would wait for itself; await instead."
            raise HiveError(msg)
        future = self.submit(work)
        try:
            while not future.done():
                wait((future,), LOOK_UP)
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        """
        Run ``work`` on the loop and wait for its end, Ctrl-C or not: that is heeded afterwards.

        Raises:
            HiveError: as ``submit``.
        """
        with deferring_sigint():
            future = self.submit(work)
            wait((future,))
        return future.result()

    def post(self, action: Callable[[], object]) -> None:
        """Have ``action`` called on the loop; returns at once, safe from a signal handler."""
        loop = self._loop
        if loop is not None and os.getpid() == self._pid and not self._closed:
            # a loop that closes just now has no use for it
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(action)

    def close(self) -> None:
        """End loop and thread. Idempotent; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        if threading.current_thread() is not thread:
            thread.join()

    def check(self) -> None:
        """
        See that what is asked for may still be done.

        Raises:
            HiveError: as ``submit``.
        """
        self._belong_here()
        if self._closed:
            raise HiveError(_CLOSED)

    @property
    def is_open(self) -> bool:
        """Whether it has a loop, or had one."""
        return self._loop is not None

    def _belong_here(self) -> None:
        if os.getpid() != self._pid:
            msg = (
                "This process is a fork of the one that owns the hive, and has no workers. "
                "Delegate in the original process, or make a HiveManager here."
            )
            raise HiveError(msg)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise HiveError(_CLOSED)
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=self._run, args=(loop,), name="hive portal", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            # what is cancelled may begin something else to clean up
            while tasks := asyncio.all_tasks(loop):
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            # who waits for what ended in the last moment is told in the next one
            loop.run_until_complete(asyncio.sleep(0))
        finally:
            loop.close()
