"""
What a worker's kernel is asked beside what it runs: completions, and help on a name.

A subshell of the kernel answers, so that a worker that is busy does, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hive_jupyter.display.text import plain
from hive_jupyter.errors import TransferError
from hive_jupyter.swarm.channels import Channels
from hive_jupyter.swarm.subshell import Subshell

# As much as anybody reads: completions, characters of one, and characters of a help.
_MOST = 500
_LONGEST = 200
_LONGEST_HELP = 100_000
# A name, an attribute, or either as an argument; nothing that is more than one word on one line.
_WORD = re.compile(r"(%{0,2}|\.)[^\W\d][\w.]*[=(]?")


@dataclass(frozen=True)
class Completions:
    """
    How a word could go on.

    Attributes:
        words: each with its type, such as "function"; "" where that is not known.
        start: where in the code the word begins that they take the place of.
    """

    words: tuple[tuple[str, str], ...]
    start: int


class Aside:
    """
    The questions to one worker. Belongs to a loop.

    Args:
        channels: to the worker.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._subshell = Subshell(channels.request)

    async def complete(self, code: str, position: int) -> Completions:
        """
        Complete the word at a place.

        Args:
            code: with the word.
            position: of the cursor, in characters.

        Raises:
            TransferError: the answer is none.
        """
        asked = {"code": code, "cursor_pos": position}
        content = await self._ask("complete_request", asked)
        start, matches = content.get("cursor_start"), content.get("matches")
        if not isinstance(start, int) or not 0 <= start <= position or type(matches) is not list:
            msg = "a complete_reply that is not what Jupyter's protocol says"
            raise TransferError(msg)
        kinds = _kinds(content)
        words = [word for word in matches[:_MOST] if _is_word(word)]
        return Completions(tuple((word, kinds.get(word, "")) for word in words), start)

    async def inspect(self, code: str, position: int, detail: int) -> str:
        """
        Tell of the name at a place, in text; "" where there is nothing to tell.

        Args:
            code: with the name.
            position: of the cursor, in characters.
            detail: 0, or 1 for its source.

        Raises:
            TransferError: the answer is none.
        """
        asked = {"code": code, "cursor_pos": position, "detail_level": detail}
        content = await self._ask("inspect_request", asked)
        data = content.get("data")
        text = data.get("text/plain", "") if isinstance(data, dict) else None
        if not isinstance(text, str):
            msg = "an inspect_reply that is not what Jupyter's protocol says"
            raise TransferError(msg)
        return plain(text[:_LONGEST_HELP])

    async def _ask(self, kind: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
        header = {"subshell_id": await self._subshell.name()}
        reply = await self._channels.request("shell", kind, content, header)
        return reply.content


def _is_word(word: object) -> bool:
    return isinstance(word, str) and len(word) <= _LONGEST and _WORD.fullmatch(word) is not None


def _kinds(content: Mapping[str, Any]) -> dict[str, str]:
    """The types of completions, where IPython tells them."""
    metadata = content.get("metadata")
    told = metadata.get("_jupyter_types_experimental") if isinstance(metadata, dict) else None
    found = {}
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict) and _is_word(one.get("text")) and _is_word(one.get("type")):
            found[one["text"]] = one["type"]
    return found
