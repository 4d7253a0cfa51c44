"""
A small hive in each Dask worker, for the items of ``hive.map(..., engine="dask")``.

::

    a task of Dask ── chunk of items ──▶ Room.run ── portal ──▶ Pool ──▶ workers of that machine

The process of a Dask worker runs none of the items itself: one that crashes costs an item.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker
from distributed.protocol import pickle

from hive_jupyter import __version__
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError, NodeDied, TransferError
from hive_jupyter.nodes import Nodes
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.items import Function, Task
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.pool import Pool
from hive_jupyter.swarm.portal import LOOK_UP, Portal

# Bytes of what items print that wait for the next chunk to end.
_MOST_SAID = 2**20
# So many maps that are over are remembered: a chunk may come late.
_REMEMBERED = 100
# As Dask itself does it.
dumps: Callable[[Any], bytes] = pickle.dumps
_PLAIN = (str, bytes, int, float, bool, type(None))
_NOT_AGAIN = (
    "The item was lost with its Dask worker. It is not run again, as it may have had an effect; "
    "hive.map(..., pure=True) allows that."
)


class Room(WorkerPlugin):
    """
    The hive of one Dask worker; started by the first chunk that comes.

    Args:
        name: of the plugin.
        settings: of the host's, by name.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.name = name
        self._settings = dict(settings)
        self._version = __version__

    def setup(self, worker: Worker) -> None:
        """On the Dask worker: make ready."""
        if self._version != __version__:
            msg = (
                f"hive-jupyter is {__version__} on the Dask worker {worker.address} and "
                f"{self._version} where the map is. Install the same there."
            )
            raise HiveError(msg)
        self._threads = worker.state.nthreads
        self._config = HiveConfig(**self._settings)
        self._portal = Portal()
        self._nodes = Nodes(self._config, {}, id)
        self._pools: dict[str, Pool] = {}
        self._over: deque[str] = deque(maxlen=_REMEMBERED)
        self._said: list[Message] = []
        self._size = 0

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002  as Dask calls it
        """End all workers."""
        if self._portal.is_open:
            await asyncio.to_thread(self._close)

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """
        Run some items; on a thread of the Dask worker.

        Args:
            order: "map", its key; "policy" and "timeout" of its workers; "function" and "items".

        Returns:
            "outcomes": value and error of each item; "cost": seconds for one, as measured; "said":
            what items have printed meanwhile.
        """
        answers: queue.SimpleQueue[Task] = queue.SimpleQueue()
        told = order["function"]
        function = Function(**{**told, "buffers": tuple(map(memoryview, told["buffers"]))})
        tasks = [
            Task(
                index,
                None,
                function,
                answers.put,
                told=item,
                buffers=tuple(map(memoryview, buffers)),
            )
            for index, (item, buffers) in enumerate(order["items"])
        ]
        pool = self._portal.call(self._put(order, tasks))
        for _ in tasks:
            self._wait_for(answers)
        said, self._said, self._size = self._said, [], 0
        return {
            "outcomes": [_outcome(task) for task in tasks],
            "cost": pool.cost,
            "said": [(message.content["name"], message.content["text"]) for message in said],
        }

    def end(self, key: str, *, cancel: bool) -> None:
        """A map is over: its workers are for others. Returns at once."""
        # a chunk may come later than this, also to a room that has not begun
        self._over.append(key)
        self._portal.post(lambda: self._end(key, cancel=cancel))

    def _wait_for(self, answers: queue.SimpleQueue[Task]) -> None:
        while True:
            try:
                answers.get(timeout=LOOK_UP)
            except queue.Empty:
                self._portal.check()
            else:
                return

    async def _put(self, order: Mapping[str, Any], tasks: list[Task]) -> Pool:
        key = order["map"]
        if key in self._over:
            msg = "The map is over."
            raise HiveError(msg)
        if key not in self._pools:
            policy = SandboxPolicy.of(order["policy"])
            self._pools[key] = self._nodes.make_pool(
                self._threads, policy, order["timeout"], self._hear
            )
        self._pools[key].put(tasks)
        return self._pools[key]

    def _end(self, key: str, *, cancel: bool) -> None:
        pool = self._pools.pop(key, None)
        if pool is not None and cancel:
            pool.cancel()
        elif pool is not None:
            pool.seal()

    def _hear(self, message: Message) -> None:
        if message.type == "stream" and self._size < _MOST_SAID:
            self._said.append(message)
            self._size += message.size

    def _close(self) -> None:
        self._portal.finish(self._nodes.close())
        self._portal.close()


def _outcome(task: Task) -> tuple[Any, BaseException | None]:
    """What came of an item, as far as Dask can send it."""
    if task.error is None and not isinstance(task.value, _PLAIN):
        try:
            dumps(task.value)
        except Exception as error:
            msg = f"The result cannot be sent by Dask ({type(error).__name__}: {error})."
            return None, TransferError(msg)
    return task.value, task.error


def run_chunk(order: Mapping[str, Any]) -> dict[str, Any]:
    """
    A task of Dask.

    Args:
        order: "plugin", the room's name; "pure", whether the items may be run twice; "number" of
            the chunk; and as for ``Room.run``.

    Raises:
        NodeDied: the chunk has begun before, on a Dask worker that was lost, and is not pure.
    """
    worker = get_worker()
    room = worker.plugins[order["plugin"]]
    assert isinstance(room, Room)
    if not order["pure"]:
        claiming = _begun_before(worker, ["hive", order["map"], str(order["number"])])
        loop = worker.loop.asyncio_loop  # type: ignore[attr-defined]
        if asyncio.run_coroutine_threadsafe(claiming, loop).result():
            raise NodeDied(_NOT_AGAIN, node="map", cause="lost")
    return room.run(order)


async def _begun_before(worker: Worker, place: list[str]) -> bool:
    """Note on the scheduler that something begins here; whether it has begun elsewhere before."""
    if await worker.scheduler.get_metadata(keys=place, default=False):
        return True
    await worker.scheduler.set_metadata(keys=place, value=True)
    return False


def end_map(plugin: str, key: str, *, cancel: bool, dask_worker: Worker) -> None:
    """
    A map is over.

    Args:
        plugin: the room's name.
        key: of the map.
        cancel: its items are to end.
        dask_worker: as Dask calls it: the one that runs this.
    """
    room = dask_worker.plugins.get(plugin)
    if isinstance(room, Room):
        room.end(key, cancel=cancel)
