"""The user's index: looked at, and set where a commit changed what it says."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.files import copy_file
from hive_jupyter.guard.git import Git, split
from hive_jupyter.guard.objects import NO_FILE, RawChange

_AS_IT_WAS = "index-as-it-was"
_BEFORE = "before"
_SHARED = "sharedindex.*"

# So long another git may take to end (seconds), and so often is looked whether it has.
_PATIENCE = 3.0
_LOOK = 0.05


def copy_index(user: Git, git: Git) -> None:
    """
    Copy the user's index: once to work on, and once as it was.

    With its time, by which git tells which of its entries it can trust (see racy-git in git's
    documentation), and with the other half of a split one.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in ("index", _AS_IT_WAS):
            copy_file(os.path.join(user.folder, "index"), os.path.join(git.folder, name))
        content = Path(git.folder, "index").read_bytes()
        for path in Path(user.folder).glob(_SHARED):
            if _names(content, path.suffix.removeprefix(".")):
                copy_file(str(path), os.path.join(git.folder, path.name))


def _names(index: bytes, shared: str) -> bool:
    """Whether an index is split and names the other half; see gitformat-index(5), "link"."""
    try:
        return b"link" in index and bytes.fromhex(shared) in index
    except ValueError:
        return False


def on_index(git: Git, name: str) -> Git:
    """The same with another index of the private repository's."""
    return replace(git, environment={"GIT_INDEX_FILE": os.path.join(git.folder, name)})


def remember_index(git: Git, changed: list[RawChange]) -> None:
    """Keep the entries that a commit will change, to know then whether the user changed them."""
    paths = {change.path for change in changed}
    entries = _entries(on_index(git, _AS_IT_WAS))
    kept = [f"{entry}\t{path}\0" for path, entry in entries.items() if path in paths]
    Path(git.folder, _BEFORE).write_bytes(os.fsencode("".join(kept)))


def _entries(git: Git) -> dict[str, str]:
    """The index: "mode hash stage" by path; all stages of one that is in conflict."""
    return _read_entries(git.run("ls-files", "-z", "--stage"))


def _read_entries(out: bytes) -> dict[str, str]:
    entries: dict[str, str] = {}
    for line in split(out):
        entry, _, path = line.partition("\t")
        entries[path] = f"{entries[path]}, {entry}" if path in entries else entry
    return entries


def refuse_locked(user: Git, ref: str) -> None:
    """
    See that no other git is at work on the index; one that has just begun is waited for.

    It would keep the index from following the commit, and what is staged would then undo it.

    Raises:
        RepositoryError: one is, on the branch that is to be committed to.
    """
    lock = Path(user.folder, "index.lock")
    deadline = time.monotonic() + _PATIENCE
    while _is_checked_out(user, ref) and os.path.lexists(lock):
        if time.monotonic() > deadline:
            msg = (
                f"Another git is at work in this repository, perhaps a commit in an editor ({lock} "
                "is there). Nothing was committed. Let it end, or remove that file if nothing runs."
            )
            raise RepositoryError(msg)
        _wait()


def update_index(user: Git, ref: str, changed: list[RawChange], private: str | None) -> str:
    """
    Leave the index as ``git commit`` would: what was committed is no change any more.

    An entry that the user changed since the request stays as it is, and so does all of the index
    where another branch is checked out by now.

    Args:
        user: git on the user's repository.
        ref: the branch that got the commit.
        changed: what the commit changed.
        private: the private repository's folder, with what the index was; None, or gone: the index
            was as the commit before.

    Returns:
        What is left for the user to do where another git held the index for long; else "".
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if _is_checked_out(user, ref):
                _update(user, changed, _remembered(changed, private))
        except RepositoryError as error:
            if time.monotonic() < deadline and "index.lock" in error.stderr:
                _wait()
                continue
            said = error.stderr.partition("\n")[0] or str(error)
            return (
                "git's index could not follow, so that what is staged would undo the commit. "
                f"Before you commit again: git reset -q ({said})"
            )
        return ""


def _update(user: Git, changed: list[RawChange], before: dict[str, str | None]) -> None:
    now = _entries(user)
    entries = [
        (change.new_mode, change.new_id, change.path)
        for change in changed
        if now.get(change.path) == before.get(change.path)
        and now.get(change.path) != _entry(change.new_mode, change.new_id)
    ]
    set_entries(user, entries)


def _wait() -> None:
    time.sleep(_LOOK)


def _is_checked_out(user: Git, ref: str) -> bool:
    return user.line("symbolic-ref", "--quiet", "HEAD") == ref


def _remembered(changed: list[RawChange], private: str | None) -> dict[str, str | None]:
    """The index's entries when the commit was asked for."""
    if private is not None:
        with contextlib.suppress(FileNotFoundError):
            return dict(_read_entries(Path(private, _BEFORE).read_bytes()))
    return {change.path: _entry(change.old_mode, change.old_id) for change in changed}


def _entry(mode: str, content: str) -> str | None:
    return None if mode == NO_FILE else f"{mode} {content} 0"


def set_entries(git: Git, entries: list[tuple[str, str, str]]) -> None:
    """Set entries (mode, hash, path) of an index; mode 000000 and a hash of zeros remove one."""
    if not entries:
        return
    # What goes comes first: a folder may make place for a file.
    lines = [
        f"{mode} {content}\t{path}\0"
        for mode, content, path in sorted(entries, key=lambda entry: entry[0] != NO_FILE)
    ]
    git.run("update-index", "-z", "--index-info", stdin=os.fsencode("".join(lines)))
