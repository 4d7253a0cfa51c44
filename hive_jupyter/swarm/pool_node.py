"""A worker of a pool: one that runs chunks of items, and has the next one before it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from hive_jupyter.errors import HiveError, NodeDied
from hive_jupyter.swarm.channels import Channels
from hive_jupyter.swarm.death import Exit, explain_item
from hive_jupyter.swarm.items import Chunk
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.process import Process, first_of, note_failure
from hive_jupyter.swarm.run import Run

# A wish to stop is told again after so long (seconds), and then after twice as long: a system call
# may have begun in the moment before, and not know of it.
_AGAIN = 0.25
# A process that got SIGKILL and is not gone after this long hangs in the kernel.
_DEATH_PATIENCE = 5.0


class PoolNode(SwarmNode):
    """
    A worker of a pool; once it has died it is not started again.

    Attributes:
        function: the key of the function that it has; "" for none.
        has_lied: it is not to be asked again.
    """

    function = ""
    has_lied = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._asked: list[Run] = []
        self._slot = 0
        self._turned = 0.0

    @property
    def folder(self) -> Path | None:
        """Its private folder; None where it has no process."""
        return None if self._process is None else self._process.folder

    @property
    def is_fit(self) -> bool:
        """Whether it can be asked."""
        return self.is_connected and not self.has_lied

    @property
    def is_current(self) -> bool:
        """Whether one that is started now would be the same."""
        return self.is_connected and not self.status().drift

    @property
    def writable(self) -> list[str]:
        """The folders that it may write."""
        return [*self.config.writable_paths, *filter(None, [self.root])]

    def next_slot(self) -> int:
        """For the next chunk; see Chunk."""
        self._slot = 1 - self._slot
        return self._slot

    @property
    def busy_for(self) -> float:
        """Seconds since it could begin with the first of what it was asked."""
        return time.monotonic() - self._turned if self._asked else 0.0

    def runs(self, chunk: Chunk) -> bool:
        """Whether nothing that it was asked before keeps it from these items."""
        return self._running is chunk

    async def take_back(self, chunk: Chunk) -> int | None:
        """
        Have the worker begin no further item of a chunk.

        Returns:
            The place of the first one that it does not begin; None where that is not known before
            the end of the chunk.
        """
        channels, process = self._channels, self._process
        if channels is None or channels.is_closed or process is None:
            return None
        content = {"number": chunk.number}
        asking = asyncio.create_task(channels.request("control", "map_return_request", content))
        try:
            await first_of(asking, chunk.done, process.exited)
        finally:
            asking.cancel()
        if chunk.done.done() or not asking.done() or asking.cancelled():
            return None
        first = asking.result().content.get("first")
        return first if isinstance(first, int) and 0 <= first <= chunk.count else None

    async def _execute(self, run: Run) -> Message:
        """Have the worker run something behind what it has to run already."""
        if not self.is_connected:
            msg = f'Worker "{self.name}" has ended.'
            raise HiveError(msg)
        self._say_what_is_missing(run)
        if isinstance(run, Chunk):
            run.is_first = not self._asked
        self._asked.append(run)
        run.since = time.monotonic()
        self._next_turn()
        try:
            return await self._run_now(run)
        finally:
            run.close()
            self._asked.remove(run)
            self._next_turn()
            ended = self._process is not None and self._process.exited.done()
            if ended and self._running is None:
                self._forget()

    def _next_turn(self) -> None:
        """What waits behind nothing has begun, whether its worker says so or not."""
        running, self._running = self._running, next(iter(self._asked), None)
        if running is not self._running:
            self._turned = time.monotonic()
        if self._running is not None and not self._running.begun.done():
            self._running.begun.set_result(None)

    async def _bring_to_a_stop(self, run: Run, channels: Channels, process: Process) -> bool:
        """
        Ask the worker to stop these items, and no others; after a grace, SIGKILL.

        Returns:
            Whether the worker lives on.
        """
        run.heed()
        if run.stops == 1 and not channels.is_closed:
            asking = asyncio.create_task(self._ask_to_stop(run, channels))
            asking.add_done_callback(note_failure)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.config.interrupt_grace):
                        await first_of(run.done, process.exited, run.stopping)
            finally:
                asking.cancel()
            if run.done.done():
                run.is_stopping = False
                return True
        process.kill("timeout" if isinstance(run, Chunk) and run.overran else "interrupt")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEATH_PATIENCE):
                await asyncio.shield(process.exited)
        return False

    @staticmethod
    async def _ask_to_stop(run: Run, channels: Channels) -> None:
        pause = _AGAIN
        while True:
            asking = channels.request(
                "control", "map_stop_request", {"number": run.content["number"]}
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await asking
                    await asyncio.shield(run.done)
            pause *= 2

    def _explain(self, end: Exit, *, during: bool) -> NodeDied:
        if self._broke_protocol:
            return super()._explain(end, during=during)
        return explain_item(self.name, end)

    def _refill_later(self) -> None:
        """A pool has workers enough; a spare is for who works with one."""
