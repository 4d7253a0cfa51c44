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
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from copy import copy
from typing import Any

from hive_jupyter import shadows, transfer
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError, NodeTimeout, TransferError
from hive_jupyter.swarm.chunks import LARGEST, WORTH, Pace
from hive_jupyter.swarm.items import Chunk, Outcome, Overseer, Report, Task, taken
from hive_jupyter.swarm.messages import Sink
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.staff import Allowance, PoolNode, Staff
from hive_jupyter.units import format_duration

# So often an item is sent to a worker that dies before it begins it.
_TRIES = 3
# Parts of a message, at most some thousand.
_MOST_PARTS = 4000


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
        self._refusal: Exception | None = None
        self._sealed = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def ahead(self) -> int:
        """How many items there may be whose results nobody has taken; on any thread."""
        return self._pace.ahead

    def put(self, tasks: Iterable[Task]) -> None:
        """Take items."""
        if self._refusal is not None:
            for task in tasks:
                task.end(error=copy(self._refusal))
            return
        self._waiting.extend(tasks)
        self._have_workers()

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
        self._end_if_done()

    async def _work(self) -> None:
        """Have one worker do what there is."""
        node = await self._hired()
        try:
            while node is not None and (tasks := self._next_tasks()):
                node = await self._ask(node, tasks)
                if node is None and self._waiting:
                    self._hiring += 1
                    node = await self._hired()
        finally:
            if node is not None and self._refusal is None:
                self._staff.give_back(node)
            elif node is not None:
                self._staff.dismiss(node)

    async def _hired(self) -> PoolNode | None:
        try:
            return await self._staff.hire(self._policy)
        finally:
            self._hiring -= 1

    def _next_tasks(self) -> list[Task]:
        """The next chunk: of one function, and no more than a worker's share."""
        most = self._pace.size(len(self._waiting))
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
            if task.claim():
                tasks.append(task)
        return tasks

    async def _ask(self, node: PoolNode, tasks: list[Task]) -> PoolNode | None:
        """Have a worker run some items; None where it is not to be had any more."""
        try:
            lives = await self._asked(node, tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.end(error=copy(self._refusal or CancelledError()))
            raise
        except TransferError as lie:
            # none is run a second time, as some may have run
            for task in tasks:
                msg = f'What worker "{node.name}" sent for its items cannot be taken: {lie}.'
                task.end(error=TransferError(msg))
            lives = False
        if lives and node.is_connected:
            return node
        self._staff.dismiss(node)
        return None

    async def _asked(self, node: PoolNode, tasks: list[Task]) -> bool:
        """
        Have a worker run some items.

        Returns:
            Whether it can be asked again.

        Raises:
            TransferError: what it says makes no sense.
        """
        function = tasks[0].function
        chunk = Chunk(
            tasks,
            seconds=WORTH,
            sends_function=node.function != function.key,
            pickles=not node.policy.is_confined,
            limit=self._config.max_transfer,
            sink=self._sink,
        )
        node.function = function.key
        with self._overseen(node, chunk):
            try:
                reply = await node.execute(chunk)
            except HiveError as failure:
                if node.folder is None:  # it hangs in the kernel, and nobody knows what it did
                    for task in tasks:
                        task.end(error=copy(failure))
                else:
                    await self._settle(node, chunk, tasks, chunk.left(node.folder), failure)
                return False
        await self._settle(node, chunk, tasks, chunk.report(reply), None)
        return True

    @contextlib.contextmanager
    def _overseen(self, node: PoolNode, chunk: Chunk) -> Iterator[None]:
        """While entered, no item has more than its time."""
        if self._timeout is None:
            yield
            return
        overseer = Overseer(chunk, lambda: node.folder, self._timeout)
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
        if not count and report.running is None:
            rest = [task for task in rest if not _gave_up(task, failure)]
        self._waiting.extendleft(reversed(rest))
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

        # what is JSON alone is soon read, and runs no code; the rest may take its time
        if any(outcome.buffers for outcome in outcomes):
            return await apart(read)
        return read()

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
