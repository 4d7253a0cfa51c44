"""
A subshell of a worker's kernel, which answers while a cell runs.

See https://jupyter.org/enhancement-proposals/91-kernel-subshells/kernel-subshells.html.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hive_jupyter.errors import TransferError
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.process import note_failure

# Each request repeats it.
_LONGEST_NAME = 100

Ask = Callable[[str, str, Mapping[str, Any]], Awaitable[Message]]


class Subshell:
    """
    Made when somebody needs it for the first time. Belongs to one loop.

    Args:
        request: sends a request on a channel of the worker, and awaits the reply.
    """

    def __init__(self, request: Ask) -> None:
        self._request = request
        self._opening: asyncio.Task[str] | None = None

    async def name(self) -> str:
        """
        The ``subshell_id`` for the headers of requests.

        Raises:
            TransferError: the worker makes none.
        """
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(note_failure)
        # who asks may give up; the next one finds it open
        return await asyncio.shield(self._opening)

    def close(self) -> None:
        """Have the worker end it; nobody waits for that."""
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled():
            return
        if not opening.exception():
            name = opening.result()
            ending = asyncio.ensure_future(
                self._request("control", "delete_subshell_request", {"subshell_id": name})
            )
            ending.add_done_callback(note_failure)

    async def _open(self) -> str:
        reply = await self._request("control", "create_subshell_request", {})
        name = reply.content.get("subshell_id")
        if not isinstance(name, str) or len(name) > _LONGEST_NAME:
            msg = "a create_subshell_reply without the name of a subshell"
            raise TransferError(msg)
        return name
