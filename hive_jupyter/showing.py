"""
A request as it is put before the human who decides: in lines, of which nothing may hide.

Whatever others wrote has gone through ``units.visible``; fronts add colours, and nothing else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hive_jupyter.guard.authorization import AnyRequest, AuthorizationGuard
from hive_jupyter.guard.diff import FileChange, marked, summary
from hive_jupyter.guard.ledger import Entry
from hive_jupyter.guard.requests import CommitRequest
from hive_jupyter.units import format_duration, visible

Kind = Literal["plain", "head", "mark", "hunk", "added", "removed"]

# How many characters of the digest a human types, and how many where something is to be looked at.
_TYPED = 4
_TYPED_IF_MARKED = 8

_KINDS: dict[str, Kind] = {"+": "added", "-": "removed", "@": "hunk"}
_FILE = "diff --git "

# Of one request; a token may have been refused any number of times.
_MOST_ENTRIES = 1000

_BRANCHES = "refs/heads/"
# Git dirs within another one.
_INNER = re.compile(r"(?P<top>.+?)/\.git/(?P<kind>worktrees|modules)/(?P<name>.+)", re.DOTALL)
_INNER_KINDS = {"worktrees": "worktree", "modules": "submodule"}


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


@dataclass(frozen=True)
class Showing:
    """
    All that there is to be seen of a request.

    Attributes:
        request: what is asked.
        lines: what it is, what it changes in short, what deserves a close look, and the patch.
        marks: what deserves a close look, once more.
    """

    request: AnyRequest
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
        return cls(request, tuple(_lines(request, changes, marks)), marks)

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
    if changes:
        yield Line("plain", "")
        yield from (Line("plain", line) for line in summary(changes))
    yield from close_look(marks)
    for change in changes:
        yield Line("plain", "")
        yield from _patch(change.patch)


def close_look(marks: Sequence[str]) -> list[Line]:
    """Lines that say what deserves a close look; none where nothing does."""
    if not marks:
        return []
    lines = ["Look closely at:", *(f"  {mark}" for mark in marks)]
    return [Line("plain", ""), *(Line("mark", line) for line in lines)]


def _patch(patch: str) -> Iterator[Line]:
    in_hunk = False
    for line in patch.removesuffix("\n").split("\n"):
        if line.startswith(_FILE):
            in_hunk = False
            yield Line("head", line)
            continue
        in_hunk |= line.startswith("@@")
        yield Line(_KINDS.get(line[:1], "plain") if in_hunk else "plain", line)


# --- in a list ---

COLUMNS = ("request", "what", "asked by", "age", "state", "answer")
_ANSWERS = {"approved", "denied"}
# Where a request came to otherwise than by what was answered.
_AGAINST = {"expired", "superseded"}


@dataclass(frozen=True)
class Listed:
    """
    A request in a list, and how it came to its state.

    Attributes:
        request: as it is now.
        answered: when a human answered, as Unix time in seconds; None where none did.
        origin: where the human was: "notebook", "terminal", ...; "" where none answered.
        reason: why it came to its state, if somebody said so.
    """

    request: AnyRequest
    answered: float | None
    origin: str
    reason: str

    @classmethod
    def of(cls, guard: AuthorizationGuard, request: AnyRequest) -> Listed:
        """
        Look up in the ledger what became of a request.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        entries = guard.history(_MOST_ENTRIES, request=request.id)
        answers = [entry for entry in entries if entry.event in _ANSWERS]
        reasons = [entry.details.get("reason") for entry in entries if entry.event == request.state]
        return cls(
            request,
            answered=answers[0].at.time if answers else None,
            origin=str(answers[0].details["origin"]) if answers else "",
            reason=str((reasons and reasons[0]) or ""),
        )

    @property
    def row(self) -> tuple[str, ...]:
        """Its row in a table, see ``COLUMNS``; markup in it is not escaped."""
        age = format_duration(max(0.0, time.time() - self.request.time))
        answer = [self.reason]
        if self.answered is not None:
            yes = "approved " * (self.request.state in _AGAINST)
            when = time.strftime("%F %T", time.localtime(self.answered))
            unused = "not used in time" * (self.request.state == "expired")
            answer = [f"{yes}{_where(self.origin)}", when, unused, self.reason]
        return (
            self.request.id,
            what(self.request),
            str(self.request.requester),
            age,
            self.request.state,
            visible(", ".join(filter(None, answer)), keep=""),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The same for programs, as JSON can hold it."""
        made = {"commit": self.request.commit} if isinstance(self.request, CommitRequest) else {}
        return {
            **self.request.content,
            "state": self.request.state,
            "digest": self.request.digest,
            **made,
            "answered": self.answered,
            "origin": self.origin,
            "reason": self.reason,
        }


def _where(origin: str) -> str:
    """Where a human answered, in words; "" where none did."""
    return "from Python" if origin == "python" else f"in the {origin}" if origin else ""


# --- in a history ---

LEDGER_COLUMNS = ("when", "what happened", "request", "about")

_HAPPENED = {"requested": "asked for", "spent": "token used", "void": "cut off", "died": "death"}


def ledger_rows(guard: AuthorizationGuard, limit: int) -> list[tuple[str, ...]]:
    """
    The ledger's last entries as rows of a table, see ``LEDGER_COLUMNS``, the latest last.

    Args:
        guard: whose ledger.
        limit: of how many.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    return [_ledger_row(guard, entry) for entry in guard.history(limit)[::-1]]


def _ledger_row(guard: AuthorizationGuard, entry: Entry) -> tuple[str, ...]:
    details = entry.details
    parts = [
        _where(details.get("origin", "")),
        *(details.get(name) for name in ("happened", "error", "reason")),
    ]
    if entry.event == "requested" and entry.request is not None:
        request = guard.get(entry.request)
        parts = [str(request.requester), what(request)]
    about = ", ".join(str(part) for part in [entry.commit, *parts] if part)
    return (
        time.strftime("%F %T", time.localtime(entry.at.time)),
        _HAPPENED.get(entry.event, entry.event),
        entry.request or "",
        visible(about, keep=""),
    )


def what(request: AnyRequest) -> str:
    """What a request is about, on one line."""
    if isinstance(request, CommitRequest):
        subject = request.message.strip().partition("\n")[0]
        return visible(f"commit to {place(request)}: {subject}", keep="")
    return visible(f"call of {request.tool} on worker {request.worker}", keep="")


def place(request: CommitRequest) -> str:
    """The branch and the repository of a commit, as people call them."""
    folder = request.repository.removesuffix("/.git")
    if inner := _INNER.fullmatch(folder):
        folder = f"{_INNER_KINDS[inner['kind']]} {inner['name']} of {inner['top']}"
    return visible(f"{request.ref.removeprefix(_BRANCHES)} of {folder}", keep="")


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
