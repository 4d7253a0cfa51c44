"""The files below a folder, without those that git ignores."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hive_jupyter.errors import ToolError
from hive_jupyter.worker.tools import git, workspace

FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
_MOST_ALTERNATIVES = 100


@dataclass(frozen=True)
class Entry:
    """
    Something in a folder.

    Attributes:
        name: its path from the folder on where the walk began.
        kind: FILE, FOLDER, LINK or OTHER.
        size: of a file, bytes.
    """

    name: str
    kind: str
    size: int


def walk(folder: workspace.Opened, *, hidden: bool) -> Iterator[Entry]:
    """
    All that is below a folder, in the order of the names; no link is followed.

    Args:
        folder: of the project.
        hidden: also what begins with a dot, and what git ignores. Never ``.git`` itself.

    Without git, and outside of a repository, nothing is ignored.
    """
    names = None if hidden else git.names_of_files(folder)
    if names is None:
        yield from _everything(folder, "", hidden=hidden)
        return
    seen: set[str] = set()
    is_inside: dict[str, bool] = {}
    for name in names:
        above = os.path.dirname(name)
        if above not in is_inside:  # git's index may name what is behind a link
            place = os.path.realpath(os.path.join(folder.path, above))
            is_inside[above] = workspace.is_inside(place)
        if is_hidden(name) or not is_inside[above]:
            continue
        parts = name.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above not in seen:
                seen.add(above)
                yield Entry(above, FOLDER, 0)
        entry = _entry(folder, name)
        if entry is None or name in seen:
            continue
        yield entry
        if entry.kind == FOLDER:  # a repository of its own, into which git does not look
            yield from _everything(folder, name, hidden=False)


def is_hidden(name: str) -> bool:
    """Whether a part of a path begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def _entry(folder: workspace.Opened, name: str) -> Entry | None:
    """What has that name, or None where it is gone."""
    try:
        status = os.lstat(os.path.join(folder.place, name))
    except OSError:
        return None
    kind = stat.S_IFMT(status.st_mode)
    kinds = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}
    return Entry(name, kinds.get(kind, OTHER), status.st_size if kind == stat.S_IFREG else 0)


def _everything(start: workspace.Opened, below: str, *, hidden: bool) -> Iterator[Entry]:
    waiting = [below]
    while waiting:
        name = waiting.pop()
        if name != below:
            yield Entry(name, FOLDER, 0)
        try:
            with workspace.opened(os.path.join(start.path, name)) as folder:
                inside = sorted(os.listdir(folder.place))
        except (ToolError, OSError):
            continue  # gone, or not for us: the others are still there
        folders = []
        for part in inside:
            path = os.path.join(name, part)
            if part == ".git" or (part.startswith(".") and not hidden):
                continue
            entry = _entry(start, path)
            if entry is None or not workspace.is_inside(os.path.join(start.path, path)):
                continue
            if entry.kind == FOLDER:
                folders.append(path)
            else:
                yield entry
        waiting += reversed(folders)


# Patterns for paths


def matches(name: str, pattern: str) -> bool:
    """
    Whether a path matches a pattern as ``.gitignore`` has them.

    Args:
        name: a path without a slash before it.
        pattern: ``*`` and ``?`` match no slash, ``**`` any number of folders, ``{a,b}`` either. One
            without a slash matches in every folder.

    Raises:
        ToolError: it has too many alternatives.
    """
    parts = name.split("/")
    return any(_matches(parts, alternative) for alternative in _alternatives(pattern))


def last_parts(pattern: str) -> list[str]:
    """Patterns for the names, without folders, of the files that match a pattern."""
    ends = {alternative[-1] for alternative in _alternatives(pattern)}
    return sorted("*" if end == "**" else end for end in ends)


@lru_cache(maxsize=16)
def _alternatives(pattern: str) -> tuple[tuple[str, ...], ...]:
    plain = [pattern]
    while any(_BRACES.search(text) for text in plain):
        plain = [
            text[: match.start()] + choice + text[match.end() :] if match else text
            for text in plain
            for match in [_BRACES.search(text)]
            for choice in (match[1].split(",") if match else [""])
        ]
        if len(plain) > _MOST_ALTERNATIVES:
            msg = f"The pattern {pattern[:_MOST_ALTERNATIVES]!r} has too many alternatives."
            raise ToolError(msg)
    return tuple(
        tuple(text.strip("/").split("/")) if "/" in text.rstrip("/") else ("**", text.rstrip("/"))
        for text in plain
    )


_BRACES = re.compile(r"\{([^{}]*)\}")


def _matches(parts: list[str], pattern: tuple[str, ...]) -> bool:
    # how many of the parts may have been used up so far
    used = {0}
    for wanted in pattern:
        if wanted == "**":
            used = set(range(min(used, default=len(parts) + 1), len(parts) + 1))
        else:
            match = _compiled(wanted)
            used = {n + 1 for n in used if n < len(parts) and match.match(parts[n])}
    return len(parts) in used


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))
