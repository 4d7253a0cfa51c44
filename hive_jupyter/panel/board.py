"""
What the panel shows, as plain values that JSON can hold, and what of it has changed. Pure.

Whatever others wrote has gone through ``units.visible``, and reaches the page as text. Times are
Unix times in seconds, so that the page counts by itself and nothing is sent while nothing happens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hive_jupyter.guard.authorization import AnyRequest
from hive_jupyter.guard.diff import FileChange
from hive_jupyter.guard.lines import patch_lines
from hive_jupyter.guard.requests import CommitRequest
from hive_jupyter.jobs import Job
from hive_jupyter.listing import Listed, place, what
from hive_jupyter.showing import Showing
from hive_jupyter.units import format_duration, format_size, visible

# A board has these, each by name or id.
PARTS = ("workers", "jobs", "requests")

# Of a file's patch and of all patches of a request, characters that are shown before somebody asks
# for more: a page draws each line, and the portal's loop packs it.
_SHOWN_OF_FILE = 6_000
_SHOWN_OF_ALL = 40_000
# A patch of more than so many characters or lines is for a terminal; and so is a request of more
# files, or of more characters besides its patches.
_MOST_OF_FILE = 300_000
_MOST_LINES = 5_000
_MOST_FILES = 300
_MOST_OF_REQUEST = 200_000
# What counts as a change: times are measured anew at each look, and memory is never quite the same.
_STEADY_SECONDS = 1.5
_STEADY_BYTES = 2**20
_TIMES = ("since", "started", "retry_at")
# How far a job is, as bars of progress say it.
_PERCENT = re.compile(r"(?<![\d.])(100|\d{1,2})(?:\.\d+)? ?%")
_LONGEST = 200


def worker(
    status: Mapping[str, Any], *, now: float, cpu: float, before: Mapping[str, Any]
) -> dict[str, Any]:
    """
    A worker's row.

    Args:
        status: of it, as ``SwarmStatus`` holds it.
        now: Unix time of that.
        cpu: processors that it kept busy since it was looked at last.
        before: its row then; empty: there was none.
    """
    row = {
        "name": status["name"],
        "state": status["state"],
        "kernel": visible(status["kernel"], keep=""),
        "sandbox": status["sandbox"],
        "now": _cut(status["running"] or ""),
        "since": _ago(status["running_for"], now),
        "queue": status["queue"],
        "pid": status["pid"],
        "started": _ago(status["uptime"], now),
        "retry_at": now + status["retry_in"] if status["retry_in"] else None,
        "memory": status["memory"],
        "limit": format_size(status["memory_limit"]) if status["memory_limit"] else "",
        "cpu": round(cpu, 1),
        "p50": "" if status["p50"] is None else format_duration(status["p50"]),
        "ok": status["successes"],
        "failed": status["failures"],
        "restarts": status["restarts"],
        "error": _cut(status["last_error"] or ""),
        "drift": ", ".join(status["drift"]),
    }
    for name in _TIMES:
        row[name] = _steady(before.get(name), row[name], _STEADY_SECONDS)
    row["memory"] = _steady(before.get("memory"), row["memory"], _STEADY_BYTES)
    row["holds"] = "" if row["memory"] is None else format_size(row["memory"])
    return row


def job(job: Job) -> dict[str, Any]:
    """A job's row."""
    progress = job.progress
    percent = _PERCENT.findall(progress)
    return {
        "id": job.id,
        "worker": job.worker,
        "state": job.state,
        "code": _cut(job.title),
        "asked": round(job.asked, 1),
        "took": format_duration(job.seconds) if job.done() else "",
        "progress": _cut(progress),
        "percent": int(percent[-1]) if percent else None,
    }


def card(showing: Showing, expires: float) -> dict[str, Any]:
    """
    A request that waits: all that there is to be seen of it.

    Args:
        showing: of the request.
        expires: Unix time until which it waits.
    """
    request = showing.request
    names = sum(len(change.name) + sum(map(len, change.marks)) for change in showing.changes)
    if len(request.text()) + names > _MOST_OF_REQUEST or len(showing.changes) > _MOST_FILES:
        problem = (
            f"This is too much for a notebook. In a terminal: jupyter hive approve {request.id}"
        )
        return unshowable(request, problem, expires)
    room = _SHOWN_OF_ALL
    files = []
    for number, change in enumerate(showing.changes):
        size, lines = len(change.patch), change.patch.count("\n")
        fits = size <= min(_SHOWN_OF_FILE, room)
        room -= size if fits else 0
        files.append(
            {
                "name": change.name,
                "what": change.what,
                "added": change.added,
                "removed": change.removed,
                "marks": list(change.marks),
                "lines": lines,
                "size": format_size(size),
                "patch": patch(showing.changes, number) if fits else None,
                "is_too_large": size > _MOST_OF_FILE or lines > _MOST_LINES,
            }
        )
    return {
        **_heading(request),
        "text": request.text().split("\n"),
        "marks": list(showing.marks),
        "files": files,
        "expires": expires,
        "digest": request.digest,
    }


def unshowable(request: AnyRequest, problem: str, expires: float) -> dict[str, Any]:
    """A request whose content cannot be shown, and that nobody can approve therefore."""
    return {
        **_heading(request),
        "text": request.text()[:_SHOWN_OF_ALL].split("\n"),
        "marks": [],
        "expires": expires,
        "digest": "",
        "problem": visible(problem),
    }


def answered(listed: Listed) -> dict[str, Any]:
    """What became of a request, to be put into its card."""
    request = listed.request
    state = request.state
    return {
        **_heading(request),
        "state": state,
        "commit": _made(request) if state == "committed" else "",
        "reason": visible(listed.reason, keep=""),
        "answered": listed.answered,
    }


def patch(changes: Sequence[FileChange], number: int) -> list[list[str]]:
    """A file's change, line by line, each with what kind of line it is."""
    return [[line.kind, line.text] for line in patch_lines(changes[number].patch)]


def folded(shown: Mapping[str, Any]) -> set[int]:
    """The numbers of a card's files that nobody has seen who sees the card."""
    return {number for number, file in enumerate(shown.get("files", ())) if file["patch"] is None}


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """
    What is to be told to somebody who has the old board.

    Returns:
        Of each part the fields that changed, by name, and the names that are gone; of all else the
        new value. Empty where nothing changed.
    """
    told: dict[str, Any] = {}
    for part in PARTS:
        changed = _changed(old[part], new[part])
        gone = [name for name in old[part] if name not in new[part]]
        if changed:
            told[part] = changed
        if gone:
            told[f"no_{part}"] = gone
    told |= {
        name: value for name, value in new.items() if name not in PARTS and old.get(name) != value
    }
    return told


def title_of(request: AnyRequest) -> str:
    """What waits, and who asks, on one line."""
    return f"Request {request.id}, {what(request)}, asked by {request.requester}"


def _changed(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, entry in new.items():
        before: Collection[Any] = old.get(name, {}).items()
        fields = {key: value for key, value in entry.items() if (key, value) not in before}
        if fields:
            found[name] = fields
    return found


def _heading(request: AnyRequest) -> dict[str, Any]:
    commit = request if isinstance(request, CommitRequest) else None
    return {
        "id": request.id,
        "kind": request.kind,
        "title": _cut(what(request)),
        "place": place(commit) if commit else "",
        "message": visible(commit.message)[:_SHOWN_OF_ALL] if commit else "",
        "by": str(request.requester),
        "asked": request.time,
        "state": request.state,
    }


def _made(request: AnyRequest) -> str:
    return (request.commit or "") if isinstance(request, CommitRequest) else ""


def _cut(text: str) -> str:
    """What others wrote, on one line that is not long."""
    line = visible(" ".join(text[: 4 * _LONGEST].split()), keep="")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _ago(seconds: float | None, now: float) -> float | None:
    return None if seconds is None else round(now - seconds, 1)


def _steady(old: float | None, new: float | None, tolerance: float) -> float | None:
    """The old value, where the new one is the same but for how it was measured."""
    if old is None or new is None or abs(new - old) > tolerance:
        return new
    return old
