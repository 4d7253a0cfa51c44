"""
The workers of a hive's pools: nameless to the user, lent to a pool and taken back, ended when idle.

::

    Staff ── hire ──▶ a pool's worker ── give back ──▶ idle ── hire, or after a while ──▶ ended
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError, NodeStartError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.pool_node import PoolNode
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.units import format_size

# A worker of a pool that shares a budget gets no less memory than this: Python, and some data.
LEAST_SHARE = 256 * 2**20
# One that has been idle for longer is asked whether it is as a new one would be; that takes 1 ms.
_SURELY_CURRENT = 1.0


@dataclass(frozen=True)
class Allowance:
    """
    What a pool gets.

    Attributes:
        workers: how many it may have.
        policy: of each.
        note: why that is less than was asked for, or "".
    """

    workers: int
    policy: SandboxPolicy
    note: str = ""


def overdue(
    idle: Iterable[tuple[Any, float]], now: float, patience: float
) -> tuple[list[Any], float | None]:
    """
    Who has been idle for too long.

    Args:
        idle: who is, and since when.
        now: the time.
        patience: how long one may be.

    Returns:
        Those, and the time until the next one has been; None where there is no other.
    """
    ends = [(who, since + patience) for who, since in idle]
    gone = [who for who, end in ends if end <= now]
    return gone, min((end - now for _, end in ends if end > now), default=None)


def allowed(
    wanted: int, policy: SandboxPolicy, *, most: int, others: int, budget: int | None, used: int
) -> Allowance:
    """
    How many workers a pool may have.

    Args:
        wanted: how many it is to have.
        policy: of each.
        most: workers that there may be.
        others: those that there are, besides idle ones of pools.
        budget: bytes that all may take together; None: any number.
        used: bytes that the others take, or may take.

    Raises:
        ConfigError: not even one fits.
    """
    workers, note = min(wanted, most - others), ""
    if workers < 1:
        msg = (
            f"{others} workers run, and there may be {most} (the setting max_workers). Stop some "
            "(%hive stop NAME), or raise it."
        )
        raise ConfigError(msg)
    if workers < wanted:
        note = f"{workers} workers instead of {wanted}: {others} others run (max_workers={most})."
    if budget is None:
        return Allowance(workers, policy, note)
    each = policy.memory or LEAST_SHARE
    left = budget - used
    if left < each:
        msg = (
            f"Of the memory budget of {format_size(budget)} (the setting memory_budget) "
            f"{format_size(max(left, 0))} are left, and one worker takes {format_size(each)}. "
            "Stop some workers (%hive stop NAME), give each less memory, or raise it."
        )
        raise ConfigError(msg)
    if left // each < workers:
        workers = left // each
        note = (
            f"{workers} workers instead of {wanted}: more do not fit into the memory budget of "
            f"{format_size(budget)} (memory_budget)."
        )
    return Allowance(workers, replace(policy, memory=policy.memory or left // workers), note)


class Staff:
    """
    All workers of a hive's pools. Belongs to its loop.

    Args:
        config: the settings.
        make: makes one, of that name and policy.
        others: the hive's other nodes.
    """

    def __init__(
        self,
        config: HiveConfig,
        make: Callable[[str, SandboxPolicy], PoolNode],
        others: Callable[[], Iterable[Any]],
    ) -> None:
        self._config = config
        self._make = make
        self._others = others
        self._numbers = itertools.count(1)
        self._nodes: set[PoolNode] = set()
        self._idle: list[tuple[PoolNode, float]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def working(self) -> int:
        """How many are lent to a pool."""
        return len(self._nodes) - len(self._idle)

    def __len__(self) -> int:
        return len(self._nodes)

    def allowance(self, wanted: int, policy: SandboxPolicy) -> Allowance:
        """
        What a pool may have now; see ``allowed``.

        Raises:
            ConfigError: not even one worker.
        """
        others = [node for node in self._others() if node.is_connected]
        idle = {node for node, _ in self._idle}
        busy = [node for node in self._nodes if node not in idle]
        budget = self._config.memory_budget
        used = sum(map(_claimed, (*others, *busy))) if budget is not None else 0
        return allowed(
            wanted,
            policy,
            most=self._config.max_workers,
            others=len(others) + len(busy),
            budget=budget,
            used=used,
        )

    async def hire(self, policy: SandboxPolicy) -> PoolNode:
        """
        A worker that is ready.

        Raises:
            HiveError: none can be had; says why.
        """
        while (node := self._idle_one(policy)) is not None:
            if node.is_connected:
                return node
            self.dismiss(node)
        if self._closed:
            raise HiveError("This hive is closed.")
        if self._config.memory_budget is not None:
            self._end_idle()
        self.make_room("map")
        node = self._make(f"map-{next(self._numbers)}", policy)
        self._nodes.add(node)
        try:
            if await node.connect():
                return node
        except BaseException:
            self.dismiss(node)
            raise
        self.dismiss(node)
        assert node.last_error is not None
        raise node.last_error

    def make_room(self, name: str) -> None:
        """
        See that one more worker may run; idle ones of pools go for it.

        Args:
            name: of the worker.

        Raises:
            NodeStartError: there are as many as there may be.
        """
        most = self._config.max_workers
        if self._count() >= most:
            self._end_idle()
        if (count := self._count()) >= most:
            msg = (
                f'Worker "{name}" could not be started: {count} workers run, as many as there may '
                "be (the setting max_workers). Stop some (%hive stop NAME), or raise it."
            )
            raise NodeStartError(msg, node=name)

    def _end_idle(self) -> None:
        """End those that take the place, or the memory, of another one."""
        idle, self._idle = self._idle, []
        for node, _ in idle:
            self.dismiss(node)

    def _count(self) -> int:
        return len(self._nodes) + sum(1 for node in self._others() if node.is_connected)

    def give_back(self, node: PoolNode) -> None:
        """Take a worker back that a pool does not need any more."""
        if self._closed or not node.is_fit:
            self.dismiss(node)
            return
        self._idle.append((node, time.monotonic()))
        if self._timer is None:
            self._reap()

    def dismiss(self, node: PoolNode) -> None:
        """End a worker, beside what else is done."""
        self._nodes.discard(node)
        task = asyncio.create_task(node.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        task.add_done_callback(note_failure)

    async def have_left(self) -> None:
        """Wait for those that are being ended."""
        while self._leaving:
            await asyncio.wait({*self._leaving})

    async def close(self) -> None:
        """End all."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._idle.clear()
        for node in [*self._nodes]:
            self.dismiss(node)
        await self.have_left()

    def _idle_one(self, policy: SandboxPolicy) -> PoolNode | None:
        now = time.monotonic()
        for node, since in [*self._idle]:
            if node.policy == policy and (now - since < _SURELY_CURRENT or node.is_current):
                self._take_away(node)
                return node
        return None

    def _take_away(self, node: PoolNode) -> None:
        self._idle = [entry for entry in self._idle if entry[0] is not node]

    def _reap(self) -> None:
        gone, pause = overdue(self._idle, time.monotonic(), self._config.pool_idle_timeout)
        for node in gone:
            self._take_away(node)
            self.dismiss(node)
        self._timer = None
        if pause is not None:
            self._timer = asyncio.get_running_loop().call_later(pause, self._reap)


def _claimed(node: Any) -> int:
    """Bytes that a worker may take; where that has no limit, those that it takes."""
    status = node.status()
    return status.memory_limit or status.memory or 0
