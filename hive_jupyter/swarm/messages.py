"""One message of a worker, and what a run may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hive_jupyter.units import printable

OUTPUTS = frozenset(
    {
        "stream",
        "display_data",
        "update_display_data",
        "clear_output",
        "execute_result",
        "error",
    }
)

COMMS = frozenset({"comm_open", "comm_msg", "comm_close"})


# Of what a tool says that it does, in characters.
_LONGEST_PROGRESS = 200


@dataclass(frozen=True)
class Message:
    """
    One message of a worker, checked.

    Attributes:
        type: such as "stream".
        content: of the message.
        metadata: of the message.
        buffers: binary parts.
        size: bytes it took on the wire.
    """

    type: str
    content: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    buffers: tuple[Any, ...] = ()
    size: int = 0

    def continues(self, other: Message) -> bool:
        """Whether both are text for the same stream."""
        return self.type == other.type == "stream" and self.content["name"] == other.content["name"]


Sink = Callable[[Message], None]


def ignore(_message: Message) -> None:
    """A sink for those who do not want to know."""


def progress(done: float, total: float | None, text: str) -> Message:
    """
    How far a tool is.

    Args:
        done: so much.
        total: of so much, or None.
        text: what it does, as the tool says it; cut where it is long.
    """
    share = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    content = {
        "text": printable(f"{text[:_LONGEST_PROGRESS]} ({share})"),
        "progress": done,
        "total": total,
    }
    return Message("progress", content)


def joined(messages: Sequence[Message]) -> Message:
    """One message of several that continue the first."""
    if len(messages) == 1:
        return messages[0]
    text = "".join(message.content["text"] for message in messages)
    size = sum(message.size for message in messages)
    return replace(messages[0], content={**messages[0].content, "text": text}, size=size)
