"""What to do where no worker can: instructions instead of an error."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from hive_jupyter.units import as_markdown

_LANGUAGE_WORD = re.compile(r"[\w+#.-]+", re.ASCII)
_SHORTEST_FENCE = 3
_RULE = "-" * 72


@dataclass(frozen=True)
class Instructions:
    """
    Something was asked and no worker did it: how to do it by hand.

    Attributes:
        task: what was asked, whole: code, or a call of a tool.
        reason: why no worker did it, for a person; from the second line on it is shown as it is.
        language: of the code, such as "python" or "r"; "" where the task is the call of a tool.
        retry_at: Unix time in seconds from which on Hive tries again; None: not before what the
            reason names has changed.
    """

    task: str
    reason: str
    language: str = "python"
    retry_at: float | None = None

    def _repr_markdown_(self) -> str:
        reason, *details = _visible(self.reason).splitlines() or [""]
        parts = ["**No worker did this.** " + as_markdown(reason)]
        if details:
            parts.append(_fenced("\n".join(details), "text"))
        parts += [
            "What was asked:",
            _fenced(self._to_copy(), self._language_word()),
            f"{self._by_hand()} {self._next_try()}",
        ]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        asked = [_RULE, self._to_copy().removesuffix("\n"), _RULE]
        return "\n".join(
            [
                f"No worker did this. {_visible(self.reason)}",
                "",
                "What was asked:",
                *asked,
                f"{self._by_hand()} {self._next_try()}",
            ]
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002
        """IPython's protocol for a terminal."""
        printer.text(str(self))

    def _language_word(self) -> str:
        word = self.language.lower()
        return word if _LANGUAGE_WORD.fullmatch(word) else "text"

    def _to_copy(self) -> str:
        """
        The task in characters that survive being shown and copied.

        Python that holds others (an escape sequence, a NUL, an invisible space) becomes a call
        that runs exactly the same cell.
        """
        task = self.task.replace("\r\n", "\n")
        if self.language != "python":
            return _visible(task)
        task = task.replace("\r", "\n")
        if task == _visible(task):
            return task
        lines = "".join(f"    {line!r}\n" for line in task.splitlines(keepends=True))
        return f"get_ipython().run_cell(\n{lines})\n"

    def _by_hand(self) -> str:
        if not self.language:
            return "By hand: do in your own notebook or editor what the tool would have done."
        if self.language == "python":
            return (
                "By hand: copy the code into a cell of its own and run it. It then runs in your "
                "own kernel, so a crash would take your variables with it: save your work first."
            )
        return f"By hand: run the code in a notebook or terminal for {self._language_word()}."

    def _next_try(self) -> str:
        if self.retry_at is None:
            return "Hive tries again once the cause named above is gone."
        if self.retry_at <= time.time():
            return "Hive tries again with your next cell."
        moment = time.strftime("%H:%M:%S", time.localtime(self.retry_at))
        return f"Hive tries again with the first cell after {moment}."


def _visible(text: str) -> str:
    """Show as an escape what a screen would obey, swallow or not tell from a space."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]
        for letter in text
    )


def _fenced(text: str, language: str) -> str:
    """A Markdown code block that no line of the text can end."""
    runs = re.findall("`+", text)
    fence = "`" * max(_SHORTEST_FENCE, *(len(run) + 1 for run in runs), 0)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}{language}\n{text}{end}{fence}"
