"""
Changes in lines: a summary, what deserves a close look, and the patches.

Every front shows these, and ``CommitRequest.diff`` is these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hive_jupyter.guard.diff import FileChange

Kind = Literal["plain", "head", "mark", "hunk", "added", "removed"]

_KINDS: dict[str, Kind] = {"+": "added", "-": "removed", "@": "hunk"}
_FILE = "diff --git "


@dataclass(frozen=True)
class Line:
    """
    One line to be shown.

    Attributes:
        kind: what it is, for colours.
        text: without anything that a screen would obey or swallow, but for tabs.
    """

    kind: Kind
    text: str


def render(files: Sequence[FileChange]) -> str:
    """Changes as text."""
    return "".join(f"{line.text}\n" for line in lines_of(files, marked(files)))


def lines_of(files: Sequence[FileChange], noted: Sequence[str]) -> Iterator[Line]:
    """Changes in lines, with what deserves a close look between summary and patches."""
    yield from (Line("plain", line) for line in _summary(files))
    yield from close_look(noted)
    for file in files:
        yield Line("plain", "")
        yield from patch_lines(file.patch)


def marked(files: Sequence[FileChange]) -> list[str]:
    """What deserves a close look, a line for each mark of each file."""
    return [f"{file.name}: {mark}" for file in files for mark in file.marks]


def close_look(marks: Sequence[str]) -> list[Line]:
    """Lines that say what deserves a close look; none where nothing does."""
    if not marks:
        return []
    lines = ["Look closely at:", *(f"  {mark}" for mark in marks)]
    return [Line("plain", ""), *(Line("mark", line) for line in lines)]


def _summary(files: Sequence[FileChange]) -> list[str]:
    """A line on all changes, and one for each file."""
    added = sum(file.added or 0 for file in files)
    removed = sum(file.removed or 0 for file in files)
    lines = [f"Files changed: {len(files)}. Lines added: {added}, removed: {removed}.", ""]
    return lines + [f"  {file.what:12}  {_numbers(file):>12}  {file.name}" for file in files]


def _numbers(file: FileChange) -> str:
    return "binary" if file.added is None else f"+{file.added} -{file.removed}"


def patch_lines(patch: str) -> Iterator[Line]:
    """A file's change as git writes it, in lines."""
    in_hunk = False
    for line in patch.removesuffix("\n").split("\n"):
        if line.startswith(_FILE):
            in_hunk = False
            yield Line("head", line)
            continue
        in_hunk |= line.startswith("@@")
        yield Line(_KINDS.get(line[:1], "plain") if in_hunk else "plain", line)
