"""What tools answer with: as much as an answer may hold, and how to get the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from hive_jupyter.tools import ToolContent, ToolResult, current_call

# What an answer has around its lines: the frame, notes, single facts.
FRAME = 2000
_SECONDS_BETWEEN_REPORTS = 0.5

Row = tuple[str, dict[str, Any]]


def json_size(value: object) -> int:
    """Bytes of a value's JSON, as answers are measured."""
    return len(json.dumps(value))


def answer(text: str, *notes: str, **structure: Any) -> ToolResult:
    """A text, what there is to say about it in blocks of its own, and the same as structure."""
    blocks = (ToolContent("text", block) for block in (text, *filter(None, notes)))
    return ToolResult(tuple(blocks), structured_content=structure)


def listing(
    rows: Iterator[Row],
    *,
    key: str,
    limit: int,
    none: str,
    narrow: str,
    more: Mapping[str, Any] | None = None,
) -> ToolResult:
    """
    Answer with lines, as many as were asked for and as an answer may hold.

    Args:
        rows: a line of text and its structure; a generator, which is closed where there is enough.
        key: where the structure has the list of rows.
        limit: at most so many.
        none: the text where there is no row.
        narrow: how to get other rows than the first, as a sentence.
        more: of the structure.
    """
    lines: list[str] = []
    entries: list[dict[str, Any]] = []
    left = current_call().limit - FRAME - json_size(more or {})
    note = ""
    # a generator may hold a running program
    with closing(rows):  # type: ignore[type-var]
        for line, entry in rows:
            left -= json_size(line) + json_size(entry) + 4
            if left < 0:
                note = f"[Cut after {len(lines)}: an answer holds no more. {narrow}]"
                break
            if len(lines) == limit:
                note = f"[Cut after {limit}. {narrow} Or give a larger limit.]"
                break
            lines.append(line)
            entries.append(entry)
    text = "\n".join(lines) if lines or note else none
    return answer(text, note, **{key: entries, "truncated": bool(note)}, **(more or {}))


class Progress:
    """Reports how far a call is, not more often than somebody can read."""

    def __init__(self) -> None:
        self._report = current_call().report
        self._next = time.monotonic() + _SECONDS_BETWEEN_REPORTS

    def __call__(self, done: float, total: float | None, message: str) -> None:
        """Tell what is done, of what total (None: unknown), in a few words."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS_BETWEEN_REPORTS
            self._report(done, total, message)
