"""
Requests on a line each: those that wait, and what the ledger tells.

Whatever others wrote has gone through ``units.visible``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from hive_jupyter.guard.authorization import AnyRequest, AuthorizationGuard
from hive_jupyter.guard.ledger import Entry
from hive_jupyter.guard.requests import CommitRequest
from hive_jupyter.units import format_duration, visible

# Of one request; a token may have been refused any number of times.
_MOST_ENTRIES = 1000

_BRANCHES = "refs/heads/"
# Git dirs within another one.
_INNER = re.compile(r"(?P<top>.+?)/\.git/(?P<kind>worktrees|modules)/(?P<name>.+)", re.DOTALL)
_INNER_KINDS = {"worktrees": "worktree", "modules": "submodule"}

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

_HAPPENED = {
    "requested": "asked for",
    "spent": "token used",
    "void": "cut off",
    "died": "death",
    "stopped": "job stopped",
}


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
