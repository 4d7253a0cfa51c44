"""
A pool: some workers, and the items that go to them.

::

    put ─▶ waiting ─▶ a chunk for each worker that is free ─▶ outcomes ─▶ each item's ``answer``
               ▲                      │
               └── what was not begun ┘   where a worker died, or its time for a chunk was over
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from copy import copy
from pathlib import Path
from typing import Any

from hive_jupyter import shadows, transfer
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError, NodeTimeout, TransferError
from hive_jupyter.swarm.chunks import LARGEST, WORTH, Pace
from hive_jupyter.swarm.items import Chunk, Outcome, Overseer, Report, Task, taken
from hive_jupyter.swarm.messages import Sink
from hive_jupyter.swarm.pool_node import PoolNode
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.staff import Allowance, Staff
from hive_jupyter.units import format_duration

log = logging.getLogger(__name__)

# So often an item is sent to a worker that dies before it begins it.
_TRIES = 3
# A chunk that takes so long (seconds) is late: something in it is dearer than it seemed.
_LATE = 2 * WORTH
# Parts of a message, at most some thousand.
_MOST_PARTS = 4000


class _Post:
    """
    A worker that is at work.

    Attributes:
        node: the worker.
        chunks: that it has, in their order.
        asks: for a chunk each; they last until it is known what came of each item.
    """

    def __init__(self, node: PoolNode) -> None:
        self.node = node
        self.chunks: list[list[Task]] = []
        self.asks: set[asyncio.Task[None]] = set()

    def left(self, pace: Pace) -> float:
        """How many items it has not done, presumably."""
        counts = [len(tasks) for tasks in self.chunks]
        return sum(counts) - min(next(iter(counts), 0), pace.done_in(self.node.busy_for))


class Pool:
    """
    Runs items in workers. Belongs to their loop.

    Args:
        staff: lends the workers.
        allowance: how many, and their policy.
        config: the settings.
        timeout: seconds that each item has; None: no limit.
        sink: is called on the loop with what the items say; must not block.

    Attributes:
        over: resolves once it is closed, or sealed and all items are answered.
    """

    def __init__(
        self,
        staff: Staff,
        allowance: Allowance,
        config: HiveConfig,
        *,
        timeout: float | None,
        sink: Sink,
    ) -> None:
        self._staff = staff
        self._policy = allowance.policy
        self._most = allowance.workers
        self._config = config
        self._timeout = timeout
        self._sink = sink
        self._pace = Pace(allowance.workers)
        self._waiting: deque[Task] = deque()
        self._working: set[asyncio.Task[None]] = set()
        self._hiring = 0
        self._posts: list[_Post] = []
        self._asked_for: dict[Chunk, tuple[PoolNode, list[Task]]] = {}
        self._relieving: set[asyncio.Task[None]] = set()
        self._refusal: Exception | None = None
        self._sealed = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def ahead(self) -> int:
        """How many items there may be whose results nobody has taken; on any thread."""
        return self._pace.ahead

    @property
    def cost(self) -> float | None:
        """Seconds that an item takes, as measured; None: nothing is known."""
        return self._pace.cost

    def put(self, tasks: Iterable[Task]) -> None:
        """Take items."""
        if self._refusal is not None:
            for task in tasks:
                task.end(error=copy(self._refusal))
            return
        self._waiting.extend(tasks)
        self._have_workers()
        self._deal()

    def seal(self, *, cancel: bool = False) -> None:
        """Take no more items; those that wait are run, or cancelled."""
        self._sealed = True
        if cancel:
            self._refuse_waiting(CancelledError())
        self._end_if_done()

    def cancel(self, why: Exception | None = None) -> None:
        """Stop what runs, and take nothing more; ``why`` is what comes of all items then."""
        self._refusal = self._refusal or why or CancelledError()
        self._sealed = True
        self._refuse_waiting(self._refusal)
        for task in self._working:
            task.cancel()
        self._end_if_done()

    async def close(self, why: Exception | None = None) -> None:
        """The same, and wait until its workers are gone."""
        self.cancel(why)
        await asyncio.shield(self.over)
        await self._staff.have_left()

    def _put_back(self, tasks: Sequence[Task]) -> None:
        """Have items wait again, in front; its worker may be busy with others."""
        if self._refusal is not None:
            for task in tasks:
                task.end(error=copy(self._refusal))
            return
        self._waiting.extendleft(reversed(tasks))
        self._have_workers()
        self._deal()

    def _have_workers(self) -> None:
        while len(self._working) < self._most and self._hiring < len(self._waiting):
            self._hiring += 1
            task = asyncio.create_task(self._work())
            self._working.add(task)
            task.add_done_callback(self._worked)
            task.add_done_callback(note_failure)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if task.cancelled() or task.exception() is None:
            if self._waiting:
                self._have_workers()
        elif not self._working:
            error = task.exception()
            known = error if isinstance(error, HiveError) else HiveError(str(error))
            self._refuse_waiting(known)
        self._relieve()
        self._end_if_done()

    async def _work(self) -> None:
        """Have one worker after the other do what there is."""
        while (node := await self._hired()) is not None:
            try:
                await self._employ(node)
            finally:
                if self._refusal is None:
                    self._staff.give_back(node)
                else:
                    self._staff.dismiss(node)
            self._hiring += 1

    async def _employ(self, node: PoolNode) -> None:
        """Have a worker at hand, as long as there is something to do for it."""
        post = _Post(node)
        self._posts.append(post)
        try:
            self._deal()
            while post.asks:
                await asyncio.wait(post.asks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._posts.remove(post)
            for ask in post.asks:
                ask.cancel()
            if post.asks:
                await asyncio.wait(post.asks)

    def _deal(self) -> None:
        """Hand out what waits; nobody gets a second chunk while others have none."""
        for chunks in range(self._pace.depth):
            busy = sum(len(post.chunks) >= chunks for post in self._posts)
            if chunks and busy < len(self._working):
                return
            for post in self._posts:
                if not self._waiting:
                    return
                if len(post.chunks) == chunks and post.node.is_fit:
                    self._give(post)

    def _give(self, post: _Post) -> None:
        """Hand its next chunk to a worker, where it is to have one."""
        tasks = self._next_tasks(post.left(self._pace))
        if not tasks:
            return
        post.chunks.append(tasks)
        ask = asyncio.create_task(self._ask(post, tasks))
        post.asks.add(ask)

        def is_over(_: object) -> None:
            post.asks.discard(ask)
            if ask.cancelled():  # it may not even have begun
                for task in tasks:
                    task.end(error=copy(self._refusal or CancelledError()))

        ask.add_done_callback(is_over)

    async def _hired(self) -> PoolNode | None:
        """A worker, where there is something to do."""
        try:
            return await self._staff.hire(self._policy) if self._waiting else None
        finally:
            self._hiring -= 1

    def _next_tasks(self, held: float) -> list[Task]:
        """The next chunk, of one function, of a worker that has so many items."""
        given = sum(post.left(self._pace) for post in self._posts)
        most = self._pace.size(len(self._waiting), given, held)
        tasks: list[Task] = []
        size = parts = 0
        while self._waiting and len(tasks) < most:
            task = self._waiting[0]
            size += task.size
            parts += len(task.buffers)
            if tasks and (
                task.function.key != tasks[0].function.key or size > LARGEST or parts > _MOST_PARTS
            ):
                break
            self._waiting.popleft()
            if not task.is_over and task.claim():
                tasks.append(task)
                if task.is_revocable and self._pace.cost is None:
                    break
        return tasks

    async def _ask(self, post: _Post, tasks: list[Task]) -> None:
        """Have a worker run some items; one that lies is ended."""
        node = post.node
        try:
            await self._asked(post, tasks)
        except TransferError as lie:
            node.has_lied = True
            # none is run a second time, as some may have run
            for task in tasks:
                msg = f'What worker "{node.name}" sent for its items cannot be taken: {lie}.'
                task.end(error=TransferError(msg))
        except Exception as error:  # nobody is to wait for ever
            log.exception("items could not be asked for")
            node.has_lied = True
            for task in tasks:
                task.end(error=HiveError(f'Worker "{node.name}" could not be asked: {error}'))

    async def _asked(self, post: _Post, tasks: list[Task]) -> None:
        """
        Have a worker run some items.

        Raises:
            TransferError: what it says makes no sense.
        """
        node, function = post.node, tasks[0].function
        folder = node.folder
        assert folder is not None
        chunk = Chunk(
            tasks,
            seconds=WORTH,
            sends_function=node.function != function.key,
            slot=node.next_slot(),
            pickles=not node.policy.is_confined,
            limit=self._config.max_transfer,
            sink=self._sink,
        )
        node.function = function.key
        with self._overseen(chunk, folder), self._watched(node, chunk, tasks):
            try:
                report = chunk.report(await node.execute(chunk))
                failure = None
            except TransferError:
                raise
            except HiveError as error:
                report, failure = chunk.left(folder), error
            finally:
                post.chunks.remove(tasks)
        await self._settle(node, chunk, tasks, report, failure)

    @contextlib.contextmanager
    def _watched(self, node: PoolNode, chunk: Chunk, tasks: list[Task]) -> Iterator[None]:
        """While entered, care is taken of its items, once it takes longer than it should."""
        self._asked_for[chunk] = node, tasks
        looks: list[asyncio.Task[None]] = []

        def is_late() -> None:
            looks.append(asyncio.create_task(self._look_after(node, chunk, tasks)))
            looks[0].add_done_callback(note_failure)

        timer = asyncio.get_running_loop().call_later(_LATE, is_late)
        try:
            yield
        finally:
            timer.cancel()
            for look in looks:
                look.cancel()
            chunk.is_over = True
            del self._asked_for[chunk]

    async def _look_after(self, node: PoolNode, chunk: Chunk, tasks: list[Task]) -> None:
        """See that nobody waits for a dear item but who asked for it."""
        chunk.is_late = True
        self._relieve()
        pause = _LATE
        while True:
            await self._answer_done(node, chunk, tasks)
            await asyncio.sleep(pause)
            pause *= 2

    async def _answer_done(self, node: PoolNode, chunk: Chunk, tasks: list[Task]) -> None:
        """Answer the items that come before the one that runs."""
        folder = node.folder
        began = None if folder is None else chunk.began(folder)
        if folder is None or began is None or not began[0]:
            return
        try:
            outcomes = await apart(lambda: chunk.done_before(began[0], folder))
        except TransferError:
            return  # the end of the chunk tells what is to be thought of that
        for task, (value, error) in zip(tasks, await self._values(node, outcomes), strict=False):
            task.end(value, error)

    def _relieve(self) -> None:
        """Take items from workers that do not come to them soon, where others have nothing."""
        if self._waiting or len(self._working) >= self._most:
            return
        for chunk, (node, tasks) in self._asked_for.items():
            if not chunk.is_asked_back and self._is_for_others(node, chunk):
                chunk.is_asked_back = True
                task = asyncio.create_task(self._take_back(node, chunk, tasks))
                self._relieving.add(task)
                task.add_done_callback(self._relieving.discard)
                task.add_done_callback(note_failure)

    def _is_for_others(self, node: PoolNode, chunk: Chunk) -> bool:
        """Whether others would have done its items sooner than the worker that has them."""
        if node.runs(chunk):
            return chunk.is_late and chunk.count > 1
        return chunk.is_late or self._pace.is_worth_sharing(chunk.count)

    async def _take_back(self, node: PoolNode, chunk: Chunk, tasks: list[Task]) -> None:
        first = await node.take_back(chunk)
        # what is over is settled, or about to be, with all of its items; so is what was stopped
        if first is not None and not chunk.is_over and self._refusal is None:
            back = tasks[first:]
            del tasks[first:]
            chunk.count = len(tasks)
            self._put_back(back)

    @contextlib.contextmanager
    def _overseen(self, chunk: Chunk, folder: Path) -> Iterator[None]:
        """While entered, no item has more than its time."""
        if self._timeout is None:
            yield
            return
        overseer = Overseer(chunk, folder, self._timeout)
        chunk.begun.add_done_callback(lambda _: overseer.begin())
        try:
            yield
        finally:
            overseer.end()

    async def _settle(
        self,
        node: PoolNode,
        chunk: Chunk,
        tasks: list[Task],
        report: Report,
        failure: HiveError | None,
    ) -> None:
        """Answer what came to an end; what was not begun waits again, in front."""
        if report.unknown:
            node.function = ""
        if report.refused is not None:
            for task in tasks:
                msg = f'Worker "{node.name}" cannot take the function: {report.refused}.'
                task.end(error=TransferError(msg))
            return
        self._pace.learn(len(report.outcomes), report.seconds)
        count = len(report.outcomes)
        rest = tasks[count:]
        if report.running is not None and rest:
            rest.pop(0).end(error=self._blame(node, chunk, failure))
        if not count and report.running is None and chunk.is_first and not chunk.is_asked_back:
            rest = [task for task in rest if not _gave_up(task, failure)]
        self._put_back(rest)
        self._deal()
        values = await self._values(node, report.outcomes)
        for task, (value, error) in zip(tasks, values, strict=False):
            task.end(value, error)

    def _blame(self, node: PoolNode, chunk: Chunk, failure: HiveError | None) -> HiveError:
        """Why the item that ran has no result."""
        if chunk.overran:
            assert self._timeout is not None
            msg = f"The item was stopped after {format_duration(self._timeout)}, its time."
            return NodeTimeout(msg, node=node.name, seconds=self._timeout)
        return failure or HiveError("The item was interrupted.")

    async def _values(
        self, node: PoolNode, outcomes: Sequence[Outcome]
    ) -> list[tuple[Any, BaseException | None]]:
        """The values, and errors, of some outcomes; nothing of them is believed."""
        loads = None if node.policy.is_confined else transfer.unpickled

        def read() -> list[tuple[Any, BaseException | None]]:
            with shadows.installed_only(node.writable):
                return [taken(outcome, node.name, loads=loads) for outcome in outcomes]

        if all(outcome.is_scalar for outcome in outcomes):
            return [taken(outcome, node.name, loads=loads) for outcome in outcomes]
        return await apart(read)  # which may take its time, and import modules

    def _refuse_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            task.end(error=copy(error))

    def _end_if_done(self) -> None:
        if self._sealed and not self._waiting and not self._working and not self.over.done():
            self.over.set_result(None)


def _gave_up(task: Task, failure: HiveError | None) -> bool:
    """Whether an item that no worker has begun is tried no more."""
    task.tries += 1
    if task.tries < _TRIES:
        return False
    task.end(error=copy(failure) if failure else HiveError("No worker has begun the item."))
    return True
