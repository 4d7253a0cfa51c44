"""What a run has said, as a notebook stores it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hive_jupyter.swarm.messages import COMMS, Message


class Outputs:
    """
    Keeps what a run says, as a notebook stores it.

    Args:
        limit: bytes of text and data to keep, about; what comes later is counted only.

    Attributes:
        left_out: bytes that were not kept.
        value_repr: the text of the last expression's value, or None.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.left_out = 0
        self._left = limit
        self.value_repr: str | None = None
        # A stream's text is a list of pieces until somebody asks.
        self._outputs: list[dict[str, Any]] = []
        self._displays: dict[str, list[dict[str, Any]]] = {}
        self._clear_with_next = False

    @property
    def all(self) -> tuple[Mapping[str, Any], ...]:
        """All outputs, in order."""
        return tuple(
            {**output, "text": "".join(output["text"])} if _is_stream(output) else output
            for output in self._outputs
        )

    def written(self, name: str) -> str:
        """What was written to a stream, and was not cleared; from any thread."""
        return "".join(
            piece
            for output in list(self._outputs)
            if _is_stream(output) and output["name"] == name
            for piece in list(output["text"])
        )

    def last_written(self, most: int) -> str:
        """The end of what was written last, to either stream: about so many characters."""
        for output in reversed(self._outputs):
            if _is_stream(output):
                # a piece has at least a character
                return "".join(output["text"][-most:])[-most:]
        return ""

    def take(self, message: Message) -> None:
        """Take the run's next message."""
        if message.type in COMMS:
            return
        message = self._as_far_as_there_is_room(message)
        content = message.content
        if message.type == "clear_output":
            self._clear_with_next = True
            if not content.get("wait"):
                self._clear()
            return
        if self._clear_with_next:
            self._clear()
        if message.type == "stream":
            self._take_stream(content["name"], content["text"])
        elif message.type == "update_display_data":
            for output in self._displays.get(_display_id(content), ()):
                output.update(data=content["data"], metadata=content.get("metadata") or {})
        elif message.type in ("display_data", "execute_result", "error"):
            self._take_output(message.type, content)
        if message.type == "execute_result":
            text = content["data"].get("text/plain")
            self.value_repr = None if text is None else whole(text)

    def _as_far_as_there_is_room(self, message: Message) -> Message:
        if self._left == math.inf or message.type in ("clear_output", "error"):
            return message
        room, self._left = max(0, int(self._left)), self._left - message.size
        if message.size <= room:
            return message
        if message.type != "stream":
            self.left_out += message.size
            return replace(message, type="left out")
        text = message.content["text"]
        kept = text[:room]
        self.left_out += len(text) - len(kept)
        return replace(message, content={**message.content, "text": kept})

    def _take_stream(self, name: str, text: str) -> None:
        last = self._outputs[-1] if self._outputs else {}
        if _is_stream(last) and last["name"] == name:
            last["text"].append(text)
        else:
            self._outputs.append({"output_type": "stream", "name": name, "text": [text]})

    def _take_output(self, kind: str, content: Mapping[str, Any]) -> None:
        output = {"output_type": kind, **content}
        output.pop("transient", None)
        self._outputs.append(output)
        display_id = _display_id(content)
        if display_id:
            self._displays.setdefault(display_id, []).append(output)

    def _clear(self) -> None:
        self._clear_with_next = False
        self._outputs.clear()
        self._displays.clear()


def plain_text(data: Mapping[str, Any]) -> str:
    """The text of something displayed, or its types where it has none."""
    return whole(data.get("text/plain", f"<{', '.join(map(str, data)) or 'nothing'}>"))


def whole(text: object) -> str:
    """A text, which may come in lines."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text)


def _display_id(content: Mapping[str, Any]) -> str:
    return str((content.get("transient") or {}).get("display_id") or "")


def _is_stream(output: Mapping[str, Any]) -> bool:
    return output.get("output_type") == "stream"
