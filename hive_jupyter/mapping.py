"""
A map, and an executor, seen from the caller's thread.

::

    items ─▶ Task ─▶ Crew.put ─▶ ...workers... ─▶ Task.answer ─▶ a queue ─▶ __next__

A crew is who does the work: workers of this hive, or another engine. Items are taken from their
iterable in the caller's thread, while it waits for results, and only so many ahead of it as keep
the crew busy.
"""

from __future__ import annotations

import contextlib
import operator
import os
import queue
import reprlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, wait
from typing import Any, Protocol, Self

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError, RemoteError, TransferError
from hive_jupyter.swarm.items import Function, Task
from hive_jupyter.swarm.messages import OUTPUTS, Message, Sink, ignore
from hive_jupyter.swarm.pool import Pool
from hive_jupyter.swarm.portal import LOOK_UP, Portal, deferring_sigint
from hive_jupyter.units import nearest

# Those that there are, by their names.
ENGINES = ("local", "dask")
# What takes longer (seconds) has a bar, and that is drawn so often.
_BAR_AFTER = 1.0
_BAR_INTERVAL = 0.2
# While items are taken from their iterable, the crew gets them, and the caller the results, no
# later than this (seconds).
_PROMPT = 0.002
# As much of what the items say waits for who shows it, in bytes.
_MOST_WAITING = 10 * 2**20


class Crew(Protocol):
    """
    Who does the work of one map or executor.

    Attributes:
        ahead: how many items there may be whose results nobody has taken.
        sink: is called on any thread with what the items say; must not block.
    """

    sink: Sink

    @property
    def ahead(self) -> int: ...

    def prepare(self, task: Task) -> None:
        """
        Do, in the caller's thread, what makes an item fit to travel.

        Raises:
            TransferError: it cannot.
        """

    def put(self, tasks: Sequence[Task]) -> None:
        """Take items; returns at once. Each is answered, on any thread."""

    def cancel(self) -> None:
        """Stop what runs, and have all items answered; returns at once, safe from a signal."""

    def seal(self, *, cancel: bool) -> Future[None]:
        """
        Take no more items; what has not begun is run, or cancelled.

        Returns:
            What resolves when the last one is answered.

        Raises:
            HiveError: as ``check``.
        """

    def close(self) -> None:
        """Cancel, and wait until nothing is left of it."""

    def check(self) -> None:
        """
        See that items may still be answered.

        Raises:
            HiveError: the hive was closed, or this is a fork of its process.
        """


class LocalCrew:
    """
    Workers of this hive.

    Args:
        portal: to their loop.
        config: the settings.
        make_pool: makes the pool, on the loop, of what is to be told of its items.

    Attributes:
        sink: as of a Crew.
        pool: whose workers they are.

    Raises:
        ConfigError: there is no room for them.
    """

    def __init__(
        self, portal: Portal, config: HiveConfig, make_pool: Callable[[Sink], Pool]
    ) -> None:
        self.sink: Sink = ignore
        self._portal = portal
        self._config = config
        self._news: deque[Task] = deque()
        self._is_noted = False

        async def make() -> Pool:
            return make_pool(self._say)

        self.pool = portal.call(make())

    @property
    def ahead(self) -> int:
        return self.pool.ahead

    def prepare(self, task: Task) -> None:
        task.pack(self._config.max_transfer)

    def put(self, tasks: Sequence[Task]) -> None:
        self._news.extend(tasks)
        if not self._is_noted:
            self._is_noted = True
            self._portal.post(self._take_news)

    def cancel(self) -> None:
        self._portal.post(self.pool.cancel)

    def seal(self, *, cancel: bool) -> Future[None]:
        return self._portal.submit(self._sealed(cancel=cancel))

    def close(self) -> None:
        self._portal.finish(self.pool.close())

    def check(self) -> None:
        self._portal.check()

    def _say(self, message: Message) -> None:
        # widgets belong to a worker that is there when somebody moves them
        if message.type in OUTPUTS:
            self.sink(message)

    async def _sealed(self, *, cancel: bool) -> None:
        self._take_news()
        self.pool.seal(cancel=cancel)
        await self.pool.over

    def _take_news(self) -> None:
        self._is_noted = False
        news = []
        while self._news:
            news.append(self._news.popleft())
        self.pool.put(news)


class MapResults(Iterator[Any]):
    """
    What comes of the items of a map, one after the other.

    To ask for the next one may raise what one item raised, and go on afterwards. ``close``, or the
    end of a ``with``, stops what runs; so does Ctrl-C while somebody waits for the next result.

    Args:
        crew: does the work.
        function: that is called.
        items: with which it is called; taken as they are needed.
        ordered: results have the order of the items; else they come as they are completed.
        return_exceptions: what an item raised is its result, and is not raised.
        progress: show how far it is, where it takes more than a second.
        show: is called, on the caller's thread, with what the items say; by default what they
            print is printed.
    """

    def __init__(
        self,
        crew: Crew,
        function: Function,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool = True,
        show: Callable[[Message], object] | None = None,
    ) -> None:
        try:
            self._items = iter(items)
        except TypeError:
            crew.cancel()
            raise
        self._crew = crew
        self._function = function
        self._total = operator.length_hint(items, 0) or None
        self._ordered = ordered
        self._returns_exceptions = return_exceptions
        self._show = show or print_message
        self._bar = Bar(self._total) if progress else None
        self._news = _News()
        self._answers: dict[int, Task] = {}
        self._given = 0
        self._taken = 0
        self._unanswered = 0
        self._broken: BaseException | None = None
        self._is_exhausted = False
        self._is_cancelled = False
        self._is_over = False
        crew.sink = self._news.hear
        try:
            self._feed()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._is_over:
            raise StopIteration
        try:
            task = self._following()
        except BaseException:
            # Ctrl-C, an error of the items' iterable, a closed hive, ...
            self.close()
            raise
        if task is None:
            self._end(cancel=self._is_cancelled)
            raise StopIteration
        self._taken += 1
        if self._bar is not None:
            self._bar.move(self._taken)
        return self._result(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self._crew.cancel()

    def cancel(self) -> None:
        """Stop what runs; returns at once, safe from a signal handler. No further result comes."""
        self._is_cancelled = True
        self._crew.cancel()

    def close(self) -> None:
        """Stop what runs, and wait until it has; no further result comes."""
        if self._is_over:
            return
        self._end(cancel=True)

    def _end(self, *, cancel: bool = False) -> None:
        self._is_over = True
        self._answers.clear()
        with deferring_sigint():
            if self._bar is not None:
                self._bar.close()
            with contextlib.suppress(HiveError):
                if cancel:
                    self._crew.close()
                else:
                    self._crew.seal(cancel=False)
        self._show_news()
        close = getattr(self._items, "close", None)
        if cancel and callable(close):
            with contextlib.suppress(Exception):
                close()

    def _following(self) -> Task | None:
        """The next item that is over; None after the last one."""
        while True:
            self._show_news()
            if self._is_cancelled:
                return None
            self._feed()
            if (task := self._next_answer()) is not None:
                return task
            if self._is_exhausted and not self._unanswered:
                if self._broken is not None:
                    raise self._broken
                return None
            self._wait()

    def _next_answer(self) -> Task | None:
        if self._ordered:
            return self._answers.pop(self._taken, None)
        first = next(iter(self._answers), None)
        return None if first is None else self._answers.pop(first)

    def _has_answer(self) -> bool:
        return self._taken in self._answers if self._ordered else bool(self._answers)

    def _feed(self) -> None:
        """Give the crew as much as it may have ahead of who takes the results."""
        batch: list[Task] = []
        began = time.monotonic()
        try:
            while not self._is_exhausted and self._given - self._taken < self._crew.ahead:
                task = self._next_task()
                if task is not None:
                    batch.append(task)
                if time.monotonic() - began > _PROMPT:
                    self._put(batch)
                    batch = []
                    began = time.monotonic()
                    self._show_news()
                    if self._has_answer():
                        break
        finally:
            self._put(batch)

    def _put(self, batch: list[Task]) -> None:
        if batch:
            self._unanswered += len(batch)
            self._crew.put(batch)

    def _next_task(self) -> Task | None:
        try:
            item = next(self._items)
        except StopIteration:
            self._is_exhausted = True
            return None
        except Exception as error:
            # what came before is still to be had
            self._broken, self._is_exhausted = error, True
            return None
        task = Task(self._given, item, self._function, self._news.take)
        self._given += 1
        try:
            self._crew.prepare(task)
        except TransferError as error:
            task.error = error
            self._answers[task.index] = task
            return None
        return task

    def _wait(self) -> None:
        pause = LOOK_UP
        if self._bar is not None:
            self._bar.draw()
            pause = min(pause, self._bar.pause)
        try:
            self._news.wait(pause)
        except queue.Empty:
            self._crew.check()

    def _show_news(self) -> None:
        for news in self._news.taken():
            self._take(news)

    def _take(self, news: Task | Message) -> None:
        if isinstance(news, Message):
            self._news.shown += news.size
            if self._bar is not None:
                self._bar.clear()
            self._show(news)
        else:
            self._unanswered -= 1
            self._answers[news.index] = news

    def _result(self, task: Task) -> Any:
        error = task.error
        if error is None:
            return task.value
        named(error, task.index, task.item)
        if self._returns_exceptions:
            return error
        raise error


class _News:
    """
    What the crew says, for the thread that takes the results; it does not know who that is.

    Attributes:
        shown: bytes of messages that were shown.
    """

    def __init__(self) -> None:
        self.shown = 0
        self._heard = 0
        self._all: deque[Task | Message] = deque()
        # to wake a thread takes longer than all else, so it is done once for all that came
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._has_rung = False

    def take(self, news: Task | Message) -> None:
        """Take an item that is over, or a message; on any thread."""
        self._all.append(news)
        if not self._has_rung:
            self._has_rung = True
            self._bell.put(None)

    def hear(self, message: Message) -> None:
        """Take a message, where not too many wait."""
        if self._heard - self.shown < _MOST_WAITING:
            self._heard += message.size
            self.take(message)

    def wait(self, seconds: float) -> None:
        """
        Wait for news.

        Raises:
            queue.Empty: there are none.
        """
        self._bell.get(timeout=seconds)
        self._has_rung = False

    def taken(self) -> Iterator[Task | Message]:
        """All that came, as often as somebody asks."""
        while self._all:
            yield self._all.popleft()


class HiveExecutor(Executor):
    """
    A ``concurrent.futures.Executor`` over workers of a hive.

    Callbacks of its futures run on the hive's own thread: they must not wait for the hive.

    Args:
        crew: does the work.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._count = 0
        self._is_shut_down = False
        crew.sink = print_message

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Have a worker call a function.

        Returns:
            What comes of it.

        Raises:
            RuntimeError: it was shut down.
            HiveError: the hive was closed, or this is a fork of its process.
        """
        if self._is_shut_down:
            msg = "cannot schedule new futures after shutdown"
            raise RuntimeError(msg)
        self._crew.check()
        future: Future[Any] = Future()
        promise = _Promise(future)
        try:
            function = Function.of(fn, spread=True)
            task = Task(self._count, (args, kwargs), function, promise.keep, promise.claim)
            self._crew.prepare(task)
        except TransferError as error:
            future.set_exception(error)
            return future
        self._count += 1
        self._crew.put([task])
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more.

        Args:
            wait: until all is done.
            cancel_futures: those that have not begun are cancelled.
        """
        self._is_shut_down = True
        try:
            over = self._crew.seal(cancel=cancel_futures)
        except HiveError:  # the hive was closed, and all with it
            return
        if wait:
            _wait_for(over)


class _Promise:
    """A future, and the word that something comes of it."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future
        self._is_claimed: bool | None = None

    def claim(self) -> bool:
        if self._is_claimed is None:
            self._is_claimed = self._future.set_running_or_notify_cancel()
        return self._is_claimed

    def keep(self, task: Task) -> None:
        if isinstance(task.error, CancelledError):
            self._future.cancel()
        if not self.claim():
            return
        if task.error is not None:
            named(task.error, task.index, task.item)
            self._future.set_exception(task.error)
        else:
            self._future.set_result(task.value)


class Bar:
    """
    How far a map is: a bar of tqdm, where that is installed, or a line of text.

    Args:
        total: items; None: nobody knows.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._began = time.monotonic()
        self._next = self._began + _BAR_AFTER
        self._done = 0
        self._bar: Any = None

    @property
    def pause(self) -> float:
        """Seconds until it is to be drawn."""
        return max(0.01, self._next - time.monotonic())

    def move(self, done: int) -> None:
        """So many items are done."""
        self._done = done
        self.draw()

    def draw(self) -> None:
        """Show it, where it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _BAR_INTERVAL
        if self._bar is None:
            self._bar = _new_bar(self._total, now - self._began)
        self._bar.update(self._done - self._bar.n)

    def clear(self) -> None:
        """Make room for something else."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Take it away."""
        if self._bar is not None:
            # of one that is not full tqdm leaves a red bar in a notebook
            self._bar.total = None
            self._bar.close()
            self._bar = None


class _TextBar:
    """A line of text that is written over itself."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._width = 0
        self.n = 0

    def update(self, more: int) -> None:
        self.n += more
        of_all = "" if self._total is None else f" of {self._total}"
        self._write(f"{self.n}{of_all} items")

    def clear(self) -> None:
        self._write("")

    def close(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}\r{text}")
        sys.stderr.flush()
        self._width = len(text)


class _NoBar:
    """Nobody looks: a log file is no place for a bar."""

    n = 0

    def update(self, more: int) -> None:
        """Show nothing."""

    clear = close = lambda _self: None


def _new_bar(total: int | None, seconds: float) -> Any:
    if not _is_watched():
        return _NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _TextBar(total)
    # without the thread that would look after it
    kind: Any = type("tqdm", (tqdm,), {"monitor_interval": 0})
    bar = kind(total=total, file=sys.stderr, leave=False, unit="item", miniters=0, mininterval=0)
    bar.start_t -= seconds
    return bar


def _is_watched() -> bool:
    """Whether somebody may see a bar: at a terminal, or in a notebook."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return sys.stderr.isatty() or (kernel is not None and kernel.IPKernelApp.initialized())


def print_message(message: Message) -> None:
    """Print what an item printed; of other output there is no place here."""
    if message.type == "stream":
        stream = sys.stderr if message.content["name"] == "stderr" else sys.stdout
        stream.write(message.content["text"])
        stream.flush()


def named(error: BaseException, index: int, item: Any) -> None:
    """Have an error say of which item it tells."""
    note = f"item {index}: {_short(item)}"
    error.add_note(note)
    setattr(error, "index", index)  # noqa: B010  of whatever class it is
    if isinstance(error, RemoteError):
        error.traceback = [*error.traceback, note]


def _short(item: Any) -> str:
    try:
        return reprlib.repr(item)
    except Exception:
        return f"an object of type {type(item).__name__}"


def checked_count(workers: object, most: int = sys.maxsize) -> int:
    """
    How many workers somebody wants.

    Args:
        workers: None: as many as this process has processors.
        most: that there may be.

    Raises:
        ConfigError: there can be none so many.
    """
    if workers is None:
        return min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        msg = f"{workers!r} is no number of workers. Say 1 or more."
        raise ConfigError(msg)
    if workers > most:
        msg = (
            f"{workers} workers are more than this hive may have: {most}, the setting max_workers. "
            "More than there are processors are seldom of use."
        )
        raise ConfigError(msg)
    return workers


def check_engine(engine: object, address: object) -> None:
    """
    See that there is such an engine.

    Raises:
        ConfigError: there is none, or it has no address.
    """
    if engine not in ENGINES:
        close = nearest(engine, ENGINES) if isinstance(engine, str) else ""
        msg = f"There is no engine {engine!r}.{close} Engines: {', '.join(ENGINES)}."
        raise ConfigError(msg)
    if address is not None and engine == "local":
        msg = 'The engine "local" runs here, and takes no address. Others: engine="dask".'
        raise ConfigError(msg)


def _wait_for(future: Future[Any]) -> None:
    while not future.done():
        wait((future,), LOOK_UP)
    with contextlib.suppress(HiveError):
        future.result()
