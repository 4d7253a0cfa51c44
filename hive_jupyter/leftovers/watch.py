"""
Watch: what came into a project since it was looked at last.

A worker cannot set the time at which an inode changed (ctime), so a folder whose time is that of
the last look holds the same names, and is not listed again. That makes a look cheap: one system
call for each folder, and for each file that counts.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter

from hive_jupyter.leftovers.aside import Identity, Move, set_aside
from hive_jupyter.leftovers.kinds import LAYOUT, REPOSITORY, Kind, kind_of_file, kind_of_folder
from hive_jupyter.project import is_too_wide
from hive_jupyter.units import format_duration

# So many folders are watched, as many as can be read in so many seconds, and so many entries of
# each.
MOST_FOLDERS = 20_000
MOST_ENTRIES = 100_000
PATIENCE = 2.0
# A folder that changed so lately (nanoseconds) may have changed again at the same time: the clock
# of a file system ticks slowly, on some disks once in two seconds.
_TICK = 2 * 10**9

GIT = ".git"
HEAD = "HEAD"
# With HEAD, either has git take a folder for a repository (is_git_directory in its setup.c). It
# wants "objects", too; but that may be elsewhere.
_MAKE_A_LAYOUT = frozenset({"refs", "commondir"})
# From these in it git takes what it runs, or is led elsewhere.
_ORDERS = frozenset({"config", "config.worktree", "commondir"})
_FOLDER_OF_ORDERS = "hooks"

# Hooks that git does not run.
_SAMPLE = ".sample"

_NOBODY: Identity = (-1, -1)

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """
    Something in a project by which a tool of the user's may run what a worker wrote.

    Attributes:
        path: from the project's root on.
        change: "new", "changed" or "replaced".
        kind: which tool, and when.
        moves: what of it was renamed to what.
        problem: why it could not be.
    """

    path: str
    change: str
    kind: Kind
    moves: tuple[Move, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class _Folder:
    """
    What counts in a folder.

    Attributes:
        identity: device and inode.
        changed: when it changed last (ctime, in nanoseconds); None: too lately to be relied on.
        kind: of all that is in it.
        folders: the names of those in it.
        files: the names that count, and why.
        repositories: the names by which git finds one here: ".git", or the HEAD of a bare one.
    """

    identity: Identity
    changed: int | None
    kind: Kind | None
    folders: frozenset[str] = frozenset()
    files: tuple[tuple[str, Kind], ...] = ()
    repositories: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether anything in it does."""
        return bool(self.files or self.repositories)


class Watch:
    """
    Remembers what counts in a project, and finds what came since.

    It follows no link, and enters no ``.git`` and no folder in which a worker cannot write. Two
    threads must not call it at once.

    Args:
        root: of the project; absolute.
        home: the user's. Of a root that is the home, or above it, hidden files are no project's.
        excluded: folders in which no worker writes; absolute.

    Attributes:
        unwatched: why not all of the project is watched, or "".
    """

    def __init__(self, root: str, home: str, excluded: Iterable[str] = ()) -> None:
        self.unwatched = ""
        self._is_partly_known = False
        self._root = os.path.realpath(root)
        self._is_home = is_too_wide(self._root, home)
        self._excluded = frozenset(map(os.path.realpath, excluded))
        self._folders: dict[str, _Folder] = {}
        # folders beyond the bounds when all was accepted: nobody knows what was in them
        self._unknown: set[str] = set()
        self._files: dict[str, Stamp] = {}
        # the user's own, by their paths
        self._repositories: dict[str, Identity] = {}
        # those that could not be set aside
        self._told: set[tuple[str, Identity]] = set()

    def accept(self) -> None:
        """Take all that is there for the user's own."""
        self.unwatched, self._is_partly_known, self._unknown = "", False, set()
        self._folders = self._walk(accepts=True)
        self._files = {}
        self._repositories = {}
        for path, folder in self._folders.items():
            if not folder.counts:
                continue
            self._files |= self._stamps(path, folder)
            self._repositories |= self._identities(path, folder)

    def look(self) -> list[Finding]:
        """
        Find what came since the last call of this or of ``accept``, so that each is found once.

        Repositories that came are set aside (``set_aside``).

        Returns:
            What was found, by its path.
        """
        folders = self._walk(accepts=False)
        files: dict[str, Stamp] = {}
        identities: dict[str, Identity] = {}
        findings: list[Finding] = []
        for path, folder in folders.items():
            if not folder.counts:
                continue
            is_known = path in self._folders or not self._is_partly_known
            for found, identity in self._identities(path, folder).items():
                identities[found] = identity
                findings += self._judge(found, identity, is_known=is_known)
            stamps = self._stamps(path, folder)
            files |= stamps
            for name, kind in folder.files:
                if kind is not LAYOUT or self._is_in_own_layout(path):
                    findings += self._compare(_joined(path, name), stamps, kind)
        self._folders, self._files = folders, files
        self._told &= identities.items()
        for path in self._repositories.keys() - identities.keys():
            # the path stays the user's; but something else may get the inode
            self._repositories[path] = _NOBODY
        return sorted(findings, key=attrgetter("path"))

    # Walking

    def _walk(self, *, accepts: bool) -> dict[str, _Folder]:
        """All folders by their paths, those near the root first."""
        folders: dict[str, _Folder] = {}
        unknown: set[str] = set()
        room = MOST_FOLDERS - max(1, len(self._folders))
        deadline = time.monotonic() + PATIENCE if accepts else math.inf
        waiting = deque[tuple[str, Kind | None]]([("", None)])
        while waiting:
            path, kind = waiting.popleft()
            before = self._folders.get(path)
            folder = self._current(path, kind, before)
            if folder is None:
                continue
            folders[path] = folder
            for name in folder.folders:
                below = _joined(path, name)
                if self._place(below) in self._excluded:
                    continue
                if below in self._unknown:
                    unknown.add(below)
                    continue
                if below not in self._folders:
                    if room <= 0 or time.monotonic() > deadline:
                        if accepts:
                            self._is_partly_known = True
                            unknown.add(below)
                        self.unwatched = (
                            f"it has more than {MOST_FOLDERS} folders, or more than are read in "
                            f"{format_duration(PATIENCE)}"
                        )
                        continue
                    room -= 1
                waiting.append((below, _kind_below(path, folder, name)))
        self._unknown = unknown
        return folders

    def _current(self, path: str, kind: Kind | None, before: _Folder | None) -> _Folder | None:
        """A folder as it is, or None where it is gone, or was never to be reached."""
        place, now = self._place(path), time.time_ns()
        try:
            status = os.lstat(place)
            if not stat.S_ISDIR(status.st_mode):
                return None
            identity = (status.st_dev, status.st_ino)
            if before and (identity, status.st_ctime_ns, kind) == _key(before):
                return before
            names = self._entries(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.unwatched = f"some of its folders cannot be read: {error.strerror}"
            return self._unreadable(place, kind, before)
        changed = status.st_ctime_ns if status.st_ctime_ns < now - _TICK else None
        return self._listed(path, _Folder(identity, changed, kind), names)

    def _entries(self, place: str) -> dict[str, bool]:
        """The names in a folder, and whether each is a folder."""
        with os.scandir(place) as entries:
            names = {
                entry.name: entry.is_dir(follow_symlinks=False)
                for entry in itertools.islice(entries, MOST_ENTRIES)
            }
        if len(names) == MOST_ENTRIES:
            self.unwatched = f"a folder of it has {MOST_ENTRIES} files or more"
        if self._is_home and place == self._root:
            return {name: is_folder for name, is_folder in names.items() if name[0] != "."}
        return names

    @staticmethod
    def _unreadable(place: str, kind: Kind | None, before: _Folder | None) -> _Folder:
        """What there is of a folder that does not show its names; git needs no more than these."""
        names = [
            name for name in (GIT, HEAD, *_MAKE_A_LAYOUT) if os.path.lexists(f"{place}/{name}")
        ]
        known = before or _Folder(_NOBODY, None, kind)
        return replace(known, changed=None, repositories=_repositories(names))

    @staticmethod
    def _listed(path: str, folder: _Folder, names: Mapping[str, bool]) -> _Folder:
        repositories = _repositories(names)
        parts = tuple(path.split("/")) if path else ()
        files = []
        for name, is_folder in names.items():
            kind = folder.kind or kind_of_file(parts, name)
            if HEAD in repositories and name in _ORDERS:
                kind = LAYOUT
            if kind is LAYOUT and name.endswith(_SAMPLE):
                continue
            if kind is not None and not is_folder and name not in repositories:
                files.append((name, kind))
        return replace(
            folder,
            folders=frozenset(name for name in names if names[name] and not _is_git(name)),
            files=tuple(sorted(files, key=itemgetter(0))),
            repositories=repositories,
        )

    # Comparing

    def _stamps(self, path: str, folder: _Folder) -> dict[str, Stamp]:
        """Of the files that count in a folder: device, inode, and when each changed."""
        stamps = {}
        for name, _ in folder.files:
            with contextlib.suppress(OSError):
                status = os.lstat(self._place(_joined(path, name)))
                stamps[_joined(path, name)] = (status.st_dev, status.st_ino, status.st_ctime_ns)
        return stamps

    def _identities(self, path: str, folder: _Folder) -> dict[str, Identity]:
        """The repositories in a folder; a bare one is the folder itself."""
        found = {}
        for name in folder.repositories:
            with contextlib.suppress(OSError):
                place = path if name == HEAD else _joined(path, name)
                found[_joined(path, name)] = _identity(self._place(place))
        return found

    def _compare(self, path: str, stamps: Mapping[str, Stamp], kind: Kind) -> list[Finding]:
        before, now = self._files.get(path), stamps.get(path)
        if now is None or before == now:
            return []
        return [Finding(path, "new" if before is None else "changed", kind)]

    def _judge(self, path: str, identity: Identity, *, is_known: bool) -> list[Finding]:
        """
        What is to be told of a repository; nothing where it is the user's, or gone by now.

        Args:
            path: of it.
            identity: of it.
            is_known: what was in its folder before.
        """
        was_there = path in self._repositories
        is_own = identity in self._repositories.values()  # it may have been moved
        if is_own or was_there or not is_known:
            self._repositories[path] = identity
        if is_own:
            return []
        if was_there:
            return [Finding(path, "replaced", REPOSITORY)]
        if not is_known:
            problem = f"not all of this project is watched: {self.unwatched}"
            return [Finding(path, "new", REPOSITORY, problem=problem)]
        try:
            moves = set_aside(self._root, path, _identity(self._place(path)))
        except FileNotFoundError:
            return []
        except OSError as error:  # the next look tries again
            was_told = (path, identity) in self._told
            self._told.add((path, identity))
            problem = error.strerror or str(error)
            return [] if was_told else [Finding(path, "new", REPOSITORY, problem=problem)]
        return [Finding(path, "new", REPOSITORY, moves)] if moves else []

    def _is_in_own_layout(self, path: str) -> bool:
        """Whether a folder is a bare repository of the user's, or directly in one."""
        layouts = (path, os.path.dirname(path))
        return any(_joined(layout, HEAD) in self._repositories for layout in layouts)

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _key(folder: _Folder) -> tuple[Identity, int | None, Kind | None]:
    return folder.identity, folder.changed, folder.kind


def _identity(place: str) -> Identity:
    status = os.lstat(place)
    return status.st_dev, status.st_ino


def _is_git(name: str) -> bool:
    # as git has it on disks that do not tell letters' case
    return name.casefold() == GIT


def _repositories(names: Iterable[str]) -> tuple[str, ...]:
    """By which of its names git finds a repository in a folder."""
    found = [name for name in names if _is_git(name)]
    if HEAD in names and not _MAKE_A_LAYOUT.isdisjoint(names):
        found.append(HEAD)
    return tuple(found)


def _kind_below(path: str, folder: _Folder, name: str) -> Kind | None:
    """Of all that is in one of a folder's folders."""
    if HEAD in folder.repositories and name == _FOLDER_OF_ORDERS:
        return LAYOUT
    return folder.kind or kind_of_folder(tuple(_joined(path, name).split("/")))
