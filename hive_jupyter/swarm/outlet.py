"""The one place through which all goes that a run shows: what of it may pass, and how much."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hive_jupyter.display import rules
from hive_jupyter.display.widgets import VIEW
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.surplus import Surplus
from hive_jupyter.units import format_size

View = Callable[[object], Mapping[str, Any] | None]

# Of what may be shown, this part is not for text: a value and a picture come at the end.
_FOR_DISPLAYS = 0.1


class Outlet:
    """
    What a run's worker says, as it may be shown. Belongs to one loop.

    Args:
        rule: for what may pass; one of ``display.rules.RULES``.
        worker: its name.
        most: bytes that a cell shows, about; None: no limit.
        surplus: takes what is not shown.
        view: gives what may pass of a widget's view, or None.
    """

    def __init__(
        self,
        rule: str = rules.TRUSTED,
        worker: str = "",
        most: int | None = None,
        surplus: Surplus | None = None,
        view: View = lambda _: None,
    ) -> None:
        self.rule = rule
        self._view = view
        self._worker = worker
        self._most = most
        self._surplus = surplus or Surplus("")
        self._shown = 0
        # By the name of displays that can be updated: how many there are, and the bytes of each.
        self._displays: dict[str, tuple[int, int]] = {}
        # Characters in the last line, which a carriage return overwrites.
        self._line = 0
        self._is_full = False

    def passed(self, message: Message) -> list[Message]:
        """What to show for a message of the worker; may be none."""
        if message.type == "stream":
            return self._printed(self.checked(message))
        # before it is looked at, for that takes the longer the more it is
        if self._has_room_for(message):
            return [self.checked(message)]
        output = {"output_type": message.type, **message.content}
        output.pop("transient", None)
        self._surplus.add(f"{json.dumps(output)}\n")
        return self._notice()

    def checked(self, message: Message) -> Message:
        """What of a message may pass, however much it is."""
        if self.rule == rules.TRUSTED:
            return message
        content, view = dict(message.content), None
        if VIEW in content.get("data", ()):
            view = self._view(content["data"][VIEW])
        if view is not None:
            content["data"] = {form: part for form, part in content["data"].items() if form != VIEW}
        passed = rules.passed(self.rule, message.type, content, self._worker)
        if view is not None:
            passed = {**passed, "data": {**passed["data"], VIEW: view}}
        return replace(message, content=passed, metadata={}, buffers=())

    def reply(self, message: Message) -> Message:
        """A reply, in which an exception is told as ``checked`` leaves it."""
        if self.rule == rules.TRUSTED or message.content.get("status") != "error":
            return message
        told = rules.passed(self.rule, "error", message.content, self._worker)
        return replace(message, content={**message.content, **told})

    def close(self) -> list[Message]:
        """Keep nothing more. What to tell about what was kept; may be nothing."""
        trouble = self._surplus.trouble
        self._surplus.close()
        if not trouble or not self._surplus.path:
            return []
        return [_told(f"Not all that this cell has said beyond that could be kept: {trouble}.\n")]

    def _has_room_for(self, message: Message) -> bool:
        if self._most is None:
            return True
        if message.type == "clear_output":
            self._shown = self._line = 0
            self._displays.clear()
            self._is_full = False
            return True
        name = str((message.content.get("transient") or {}).get("display_id") or "")
        number, size = self._displays.get(name, (0, 0))
        if message.type == "update_display_data":
            after = max(1, number), message.size
        else:  # some front-ends update those of the same name
            after = number + 1, max(size, message.size)
        shown = self._shown - number * size + after[0] * after[1]
        if shown > self._most:
            return False
        self._shown = shown
        if name:
            self._displays[name] = after
        return True

    def _printed(self, message: Message) -> list[Message]:
        if self._most is None:
            return [message]
        text, most = message.content["text"], int(self._most * (1 - _FOR_DISPLAYS))
        grown, line = _growth(text, self._line)
        if self._shown + grown <= most:
            self._shown += grown
            self._line = line
            return [message]
        room = max(0, most - self._shown)
        self._shown = max(most, self._shown)
        self._surplus.add(text[room:])
        cut = replace(message, content={**message.content, "text": text[:room]})
        return [cut] * (room > 0) + self._notice()

    def _notice(self) -> list[Message]:
        """Say once where the rest is."""
        if self._is_full:
            return []
        self._is_full = True
        where = f"is in {self._surplus.path}, as long as the worker lives"
        if not self._surplus.path:
            where = f"is lost ({self._surplus.trouble})"
        return [
            _told(
                f"\nThis cell says more than is shown of one cell ({format_size(self._most)}, the "
                f"setting max_output). The rest {where}.\n"
            )
        ]


def _growth(text: str, line: int) -> tuple[int, int]:
    """
    How many characters more a front-end has to keep, and how many are then in the last line.

    Args:
        text: that is printed.
        line: characters in the line to which it is added.
    """
    if "\r" not in text:
        end = text.rfind("\n")
        return len(text), len(text) - end - 1 if end >= 0 else line + len(text)
    lines = [part.rpartition("\r") for part in text.replace("\r\n", "\n").split("\n")]
    left = line if not lines[0][1] else 0
    kept = sum(len(last) + 1 for _, _, last in lines) - 1
    return left - line + kept, len(lines[-1][2]) + (left if len(lines) == 1 else 0)


def _told(text: str) -> Message:
    return Message("stream", {"name": "stderr", "text": text})
