"""
A request as it is put before the human who decides: in lines, of which nothing may hide.

Whatever others wrote has gone through ``units.visible``; fronts add colours, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hive_jupyter.guard.authorization import AnyRequest
from hive_jupyter.guard.diff import FileChange
from hive_jupyter.guard.lines import Line, close_look, lines_of, marked
from hive_jupyter.guard.requests import CommitRequest
from hive_jupyter.units import visible

# How many characters of the digest a human types, and how many where something is to be looked at.
_TYPED = 4
_TYPED_IF_MARKED = 8


@dataclass(frozen=True)
class Showing:
    """
    All that there is to be seen of a request.

    Attributes:
        request: what is asked.
        changes: what a commit changes, file by file; empty for a call.
        lines: what it is, what it changes in short, what deserves a close look, and the patch.
        marks: what deserves a close look, once more.
    """

    request: AnyRequest
    changes: tuple[FileChange, ...]
    lines: tuple[Line, ...]
    marks: tuple[str, ...]

    @classmethod
    def of(cls, request: AnyRequest) -> Showing:
        """
        See what a request is about.

        Raises:
            RepositoryError: its content cannot be shown, and so not be approved.
        """
        changes = request.changes() if isinstance(request, CommitRequest) else ()
        marks = tuple(_marks(request, changes))
        return cls(request, changes, tuple(_lines(request, changes, marks)), marks)

    @property
    def needed(self) -> int:
        """How many characters of the digest are to be typed."""
        return _TYPED_IF_MARKED if self.marks else _TYPED

    def objection(self, typed: str) -> str:
        """Why what somebody typed is no yes; "" where it is what only who saw the digest knows."""
        word = typed.strip().lower()
        if len(word) >= self.needed and self.request.digest.startswith(word):
            return ""
        if len(word) >= self.needed:
            why = f"is not how the digest of request {self.request.id} begins"
        else:
            why = f"is too short: {self.needed} characters of the digest are needed"
            why += ", since something deserves a close look" if self.marks else ""
        return f"{visible(word, keep='')!r} {why}. Nothing was approved."

    def cut(self, most_lines: int, most_letters: int) -> tuple[list[Line], int]:
        """
        As much of the beginning as fits.

        Returns:
            Lines, and how many are left out, one that is shown in part included.
        """
        shown = []
        room = most_letters
        for line in self.lines[:most_lines]:
            if len(line.text) > room:
                shown.append(Line(line.kind, f"{line.text[:room]} ..."))
                return shown, len(self.lines) - len(shown) + 1
            shown.append(line)
            room -= len(line.text) + 1
        return shown, len(self.lines) - len(shown)

    @property
    def letters(self) -> int:
        """How long all of it is, in characters."""
        return sum(len(line.text) + 1 for line in self.lines)


def _marks(request: AnyRequest, changes: tuple[FileChange, ...]) -> Iterator[str]:
    if isinstance(request, CommitRequest) and visible(request.message) != request.message:
        yield "the message: invisible or control characters"
    yield from marked(changes)


def _lines(
    request: AnyRequest, changes: tuple[FileChange, ...], marks: Sequence[str]
) -> Iterator[Line]:
    first, *rest = request.text().split("\n")
    yield Line("head", first)
    yield from (Line("plain", line) for line in rest)
    if not changes:
        yield from close_look(marks)
        return
    yield Line("plain", "")
    yield from lines_of(changes, marks)


# --- in a terminal ---

_COLOURS = {"head": "1", "mark": "1;33", "hunk": "36", "added": "32", "removed": "31"}


def as_text(lines: Sequence[Line], *, coloured: bool = False) -> str:
    """Lines as text, with ANSI colours if there may be some."""
    return "\n".join(
        f"\033[{_COLOURS[line.kind]}m{line.text}\033[0m"
        if coloured and line.kind in _COLOURS and line.text
        else line.text
        for line in lines
    )
