"""
The items of a map on a Dask cluster, seen from the host.

::

    MapResults ── items ──▶ DaskCrew ── a task of Dask for each chunk ──▶ Room, on a Dask worker

Where a chunk runs is Dask's affair. It goes and comes as Dask moves things: what a task returns is
unpickled here, so that the cluster is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from copy import copy
from dataclasses import dataclass
from typing import Any

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError, NodeDied, NodeStartError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.chunks import Pace
from hive_jupyter.swarm.dask import DaskProvisioner
from hive_jupyter.swarm.items import Task
from hive_jupyter.swarm.messages import Message, Sink, ignore
from hive_jupyter.swarm.portal import Portal, apart
from hive_jupyter.swarm.process import note_failure

# Seconds of work that a task of Dask has: to ask for one takes some 10 ms.
_WORTH = 0.25
# Chunks that each thread of the cluster has, so that it does not wait for the next one.
_CHUNKS = 2
# Sent as text, as the scheduler needs to know nothing of it.
_RUN = "__import__('hive_jupyter.dask_room', fromlist=['run_chunk']).run_chunk(order)"


@dataclass(frozen=True)
class Work:
    """
    How the items of a map are run.

    Attributes:
        policy: of the workers there.
        timeout: seconds that each item has; None: no limit.
        most: chunks at once; None: as the cluster has threads.
        pure: an item may be run twice, where a Dask worker is lost.
    """

    policy: SandboxPolicy
    timeout: float | None
    most: int | None
    pure: bool


class DaskCrew:
    """
    The workers of a Dask cluster; see ``mapping.Crew``.

    Args:
        portal: to the loop.
        cluster: where they are.
        config: the settings.
        work: how the items are run.

    Attributes:
        sink: is called on the portal's thread with what the items print.

    Raises:
        NodeStartError: the cluster does not answer, has no workers, or lacks Hive.
    """

    def __init__(
        self, portal: Portal, cluster: DaskProvisioner, config: HiveConfig, work: Work
    ) -> None:
        self.sink: Sink = ignore
        self._portal = portal
        self._cluster = cluster
        self._config = config
        self._work = work
        self._key = secrets.token_hex(8)
        self._news: deque[Task] = deque()
        self._is_noted = False
        self._waiting: deque[Task] = deque()
        self._running: dict[int, tuple[Any, list[Task]]] = {}
        self._number = 0
        self._unwanted: list[Any] = []
        self._sealed = self._cancelled = False
        try:
            portal.call(self._begin())
        except NodeStartError:
            raise
        except HiveError as error:
            msg = f"No worker could be started: {error}"
            raise NodeStartError(msg, node="map") from error

    @property
    def ahead(self) -> int:
        """How many items there may be whose results nobody has taken."""
        return self._pace.ahead

    def prepare(self, task: Task) -> None:
        """Make an item fit to travel."""
        task.pack(self._config.max_transfer)

    def put(self, tasks: Sequence[Task]) -> None:
        """Take items; returns at once."""
        self._news.extend(tasks)
        if not self._is_noted:
            self._is_noted = True
            self._portal.post(self._take_news)

    def cancel(self) -> None:
        """Stop what runs; returns at once."""
        self._portal.post(self._cancel)

    def seal(self, *, cancel: bool) -> Future[None]:
        """Take no more items; resolves when the last one is answered."""
        return self._portal.submit(self._sealed_off(cancel=cancel))

    def close(self) -> None:
        """Stop what runs, and wait for that."""
        self._portal.finish(self._closed())

    def check(self) -> None:
        """See that the hive is there."""
        self._portal.check()

    # On the portal's loop

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._client = await self._cluster.client()
        threads = await apart(self._threads)
        if not threads:
            msg = f"The Dask cluster {self._cluster.place} has no workers; start some."
            raise NodeStartError(msg, node="map")
        self._room = await self._cluster.have_plugin(lambda name: _room(name, self._settings()))
        self._most = min(threads, self._work.most or threads)
        self._pace = Pace(self._most, _WORTH)

    def _threads(self) -> int:
        """Of the cluster; one that is just growing gets its time. On a thread that may wait."""
        with contextlib.suppress(TimeoutError):
            self._client.wait_for_workers(1, timeout=self._config.connect_timeout)
        return sum(self._client.nthreads().values())

    def _settings(self) -> dict[str, Any]:
        """What of the host's settings counts for workers there."""
        names = ("environment", "pass_environment", "tool_modules", "transport", "connect_timeout")
        more = ("max_transfer", "interrupt_grace", "pool_idle_timeout", "max_workers")
        return {name: getattr(self._config, name) for name in (*names, *more)}

    def _take_news(self) -> None:
        self._is_noted = False
        news = []
        while self._news:
            news.append(self._news.popleft())
        if self._cancelled:
            _refuse(news)
            return
        self._waiting.extend(news)
        self._send()

    def _send(self) -> None:
        while self._waiting and len(self._running) < _CHUNKS * self._most:
            tasks = self._next_tasks()
            if tasks:
                self._submit(tasks)

    def _next_tasks(self) -> list[Task]:
        """The next chunk, of one function."""
        function = self._waiting[0].function
        tasks: list[Task] = []
        most = self._pace.size(len(self._waiting))
        while self._waiting and len(tasks) < most:
            if self._waiting[0].function is not function:
                break
            task = self._waiting.popleft()
            if task.claim():
                tasks.append(task)
        return tasks

    def _submit(self, tasks: list[Task]) -> None:
        self._number += 1
        number, function = self._number, tasks[0].function
        order = {
            "plugin": self._room,
            "map": self._key,
            "number": number,
            "pure": self._work.pure,
            "policy": self._work.policy.facts(),
            "timeout": self._work.timeout,
            "function": {**vars(function), "buffers": [bytes(part) for part in function.buffers]},
            "items": [(task.told, [bytes(part) for part in task.buffers]) for task in tasks],
        }
        # Dask's dashboard shows tasks by the first part of their keys
        key = (f"{function.name}-{self._key}", number)
        future = self._cluster.submit(self._client, _RUN, order, key)
        self._running[number] = future, tasks
        future.add_done_callback(lambda done: self._answered(number, done))

    def _answered(self, number: int, future: Any) -> None:
        """On a thread of Dask: a chunk is over."""
        answer: Any
        try:
            answer = future.result(timeout=self._config.connect_timeout)
        except BaseException as error:  # Dask's own word for a cancelled task is one, too
            answer = error
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, number, answer)

    def _settle(self, number: int, answer: Any) -> None:
        _, tasks = self._running.pop(number, (None, []))
        if isinstance(answer, BaseException):
            for task in tasks:
                task.end(error=self._blame(answer))
        else:
            if answer["cost"] is not None:
                self._pace.learn(len(tasks), len(tasks) * answer["cost"])
            for name, text in answer["said"]:
                self.sink(Message("stream", {"name": name, "text": text}, size=len(text)))
            for task, (value, error) in zip(tasks, answer["outcomes"], strict=True):
                task.end(value, error)
        self._send()
        self._end_if_done()

    def _blame(self, error: BaseException) -> Exception:
        """Why the items of a chunk have no result."""
        if isinstance(error, HiveError):
            return copy(error)
        reason = str(error) or type(error).__name__
        msg = f"The item was lost with its Dask worker, or {self._cluster.place} itself: {reason}"
        return NodeDied(msg, node="map", cause="lost")

    def _cancel(self) -> None:
        if self._cancelled or self._over.done():
            return
        self._cancelled = self._sealed = True
        waiting, self._waiting = self._waiting, deque()
        running, self._running = self._running, {}
        _refuse([*waiting, *(task for _, tasks in running.values() for task in tasks)])
        self._unwanted = [future for future, _ in running.values()]
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._sealed and not self._waiting and not self._running and not self._over.done():
            self._over.set_result(None)
            self._ending = asyncio.ensure_future(apart(self._end_there))
            self._ending.add_done_callback(note_failure)

    def _end_there(self) -> None:
        """Have the rooms give their workers to others; on a thread that may wait."""
        from hive_jupyter.dask_room import end_map

        if self._unwanted:
            self._client.cancel(self._unwanted)
        self._client.run(end_map, self._room, self._key, cancel=self._cancelled, on_error="ignore")
        self._client.set_metadata(["hive", self._key], {})

    async def _sealed_off(self, *, cancel: bool) -> None:
        self._take_news()
        if cancel:
            waiting, self._waiting = self._waiting, deque()
            _refuse(waiting)
        self._sealed = True
        self._end_if_done()
        await self._over

    async def _closed(self) -> None:
        self._cancel()
        await self._over
        with contextlib.suppress(Exception):
            await self._ending


def check_profile(sandbox: str | None) -> None:
    """
    See that nobody asks of a cluster what Dask cannot keep.

    Raises:
        ConfigError: a profile with a boundary was asked for.
    """
    if sandbox in (None, "open"):
        return
    msg = (
        f'engine="dask" cannot promise sandbox={sandbox!r}: Dask unpickles here what comes from '
        "the cluster, and its scheduler asks nobody who they are. Without sandbox= the workers "
        "there are confined as configured, and the cluster is trusted; `%%delegate --on` keeps "
        "all that a profile promises."
    )
    raise ConfigError(msg)


def _room(name: str, settings: Mapping[str, Any]) -> Any:
    from hive_jupyter.dask_room import Room

    return Room(name, settings)


def _refuse(tasks: Sequence[Task]) -> None:
    for task in tasks:
        task.end(error=CancelledError())
