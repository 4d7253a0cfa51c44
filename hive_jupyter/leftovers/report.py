"""What was found in a project, in sentences."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

from hive_jupyter.leftovers.kinds import REPOSITORY
from hive_jupyter.leftovers.watch import Finding
from hive_jupyter.units import visible

# Paths of one kind that are named, and repositories.
_MOST_NAMED = 5


def report(findings: Sequence[Finding], workers: Sequence[str], root: str) -> str:
    """
    Tell the user what was found.

    Args:
        findings: at least one.
        workers: that may have written it, at least one.
        root: of the project.

    Returns:
        Lines.
    """
    happened = (
        f"Hive: in {visible(root, '')} something came that your tools act on by themselves. "
        f"{_who(workers)} may have written it, or you have; Hive cannot tell."
    )
    lines = [happened, *_lines(findings)]
    taken_back = [_command(finding) for finding in findings if finding.moves]
    if taken_back:
        stop = " and ".join(f"%hive stop {name}" for name in workers)
        lines.append(
            f"Nothing is deleted. What you made yourself you get back, after {stop}, in that "
            "folder by:"
        )
        lines += _indented(taken_back)
    return "\n".join(lines)


def summary(findings: Sequence[Finding], workers: Sequence[str], root: str) -> str:
    """The same in one line."""
    names = _named(sorted({finding.path for finding in findings}))
    told = f"{_who(workers)} may have left what your tools act on by themselves: {names}"
    moved = [_command(finding) for finding in findings if finding.moves]
    if not moved:
        return told
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"{told}; set aside, back in {visible(root, '')} by: {moved[0]}{more}"


def _who(workers: Sequence[str]) -> str:
    names = " or ".join(f'"{name}"' for name in workers)
    return f"Worker {names}"


def _lines(findings: Sequence[Finding]) -> Iterable[str]:
    repositories = [finding for finding in findings if finding.kind is REPOSITORY]
    yield from _indented([_repository(finding) for finding in repositories])
    files = sorted(
        (finding for finding in findings if finding.kind is not REPOSITORY),
        key=lambda finding: (finding.kind.tool, finding.kind.when, finding.change),
    )
    for (kind, change), group in groupby(files, key=lambda finding: (finding.kind, finding.change)):
        paths = _named([finding.path for finding in group])
        yield f"  {paths} ({change}): {kind.tool}, {kind.when}"


def _repository(finding: Finding) -> str:
    acts = f"{REPOSITORY.tool}, {REPOSITORY.when}"
    path = visible(finding.path, "")
    if finding.moves:
        is_now = visible(finding.moves[0][1], "")
        return f"{path} (a new repository): {acts}. It is {is_now} now."
    left = f". It could not be set aside ({finding.problem}): do that yourself." * bool(
        finding.problem
    )
    return f"{path} (a {finding.change} repository): {acts}{left}"


def _command(finding: Finding) -> str:
    return " && ".join(
        f"mv -- {visible(shlex.quote(new), '')} {visible(shlex.quote(old), '')}"
        for old, new in reversed(finding.moves)
    )


def _named(paths: Sequence[str]) -> str:
    more = len(paths) - _MOST_NAMED
    named = ", ".join(visible(path, "") for path in paths[:_MOST_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def _indented(lines: Sequence[str]) -> list[str]:
    shown = [f"  {line}" for line in lines[:_MOST_NAMED]]
    more = len(lines) - _MOST_NAMED
    return [*shown, f"  and {more} more"] if more > 0 else shown
