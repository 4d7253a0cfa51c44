"""git's objects: hashes and modes, what two trees differ in, and contents."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.git import Git

# Modes as git writes them.
NO_FILE = "000000"
EXECUTABLE = "100755"
SYMLINK = "120000"
GITLINK = "160000"
TREE = "040000"
_FILES = {"100644", EXECUTABLE}

EVERYTHING_SHOWN = ("--no-ext-diff", "--no-textconv", "--no-color")
LISTED = ("diff-tree", "-r", "-z", *EVERYTHING_SHOWN, "--no-abbrev")
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True)
class RawChange:
    """
    One line of ``git diff-tree --raw``.

    Attributes:
        status: "A", "C", "D", "M", "R" or "T".
        old_mode, new_mode: as git writes them, such as "100644"; "000000" where there is no file.
        old_id, new_id: hashes of the content.
        old_path, path: relative to the top; bytes that are no UTF-8 are surrogates.
    """

    status: str
    old_mode: str
    new_mode: str
    old_id: str
    new_id: str
    old_path: str
    path: str


def checked_hash(text: str) -> str:
    """
    Take a hash.

    Raises:
        RepositoryError: it is no hash in full, and git might read it as something else.
    """
    if not _HASH.fullmatch(text):
        msg = f"{text!r} is no full hash of an object."
        raise RepositoryError(msg)
    return text


def empty_tree(git: Git) -> str:
    """The hash of a tree without files."""
    return git.run("hash-object", "-t", "tree", "--stdin").decode().strip()


def as_lines(ids: Iterable[str]) -> bytes:
    """Hashes, one on each line, as git reads them."""
    return "".join(f"{one}\n" for one in sorted(ids)).encode()


def raw_changes(git: Git, old: str, new: str, *options: str) -> list[RawChange]:
    """
    The files in which two trees differ.

    Raises:
        RepositoryError: git fails.
    """
    return read_raw(git.run(*LISTED, "--raw", *options, old, new))


def read_raw(out: bytes) -> list[RawChange]:
    """Read what git lists with --raw and -z."""
    changes = []
    rest = iter(out.split(b"\0"))
    for head in rest:
        if not head.startswith(b":"):
            break
        old_mode, new_mode, old_id, new_id, status = os.fsdecode(head[1:]).split(" ")
        old_path = os.fsdecode(next(rest))
        path = os.fsdecode(next(rest)) if status[0] in "CR" else old_path
        changes.append(RawChange(status[0], old_mode, new_mode, old_id, new_id, old_path, path))
    return changes


def content_ids(change: RawChange) -> list[str]:
    """Hashes of the contents that a change is made of; a submodule's commit is not here."""
    pairs = ((change.old_mode, change.old_id), (change.new_mode, change.new_id))
    return [one for mode, one in pairs if mode not in {NO_FILE, GITLINK}]


def sizes_of(git: Git, raw: list[RawChange]) -> dict[str, int]:
    """
    How long the contents of changes are, in bytes, by their hashes.

    Raises:
        RepositoryError: git fails, or content is missing.
    """
    ids = sorted({one for change in raw for one in content_ids(change)})
    out = git.run("cat-file", "--batch-check", stdin="".join(f"{one}\n" for one in ids).encode())
    sizes = {}
    for line in out.decode().splitlines():
        one, _, size = line.split(" ", 2) if line.count(" ") > 1 else (line, "", "")
        if not size.isdigit():
            msg = f"Content of this commit is missing: {line}. Ask for it again."
            raise RepositoryError(msg)
        sizes[one] = int(size)
    return sizes


def small_contents(git: Git, raw: list[RawChange], most: int) -> list[bytes]:
    """
    The new contents of changed files that are no longer than so many bytes, each once.

    Raises:
        RepositoryError: git fails, or content is missing.
    """
    new = {change.new_id for change in raw if change.new_mode in _FILES}
    sizes = sizes_of(git, raw)
    wanted = {one: sizes[one] for one in new if sizes[one] <= most}
    return list(contents_of(git, wanted).values())


def contents_of(git: Git, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """
    Several files' contents, read in one go; by their hashes.

    Args:
        git: on the repository.
        sizes: in bytes, by hash, as ``sizes_of`` gives them; all of it has to fit into memory.
    """
    out = git.run("cat-file", "--batch", stdin=as_lines(sizes))
    contents = {}
    start = 0
    for one in sorted(sizes):
        start = out.index(b"\n", start) + 1
        contents[one] = out[start : start + sizes[one]]
        start += sizes[one] + 1
    return contents


def content_of(git: Git, content: str) -> bytes:
    """A file's content, by its hash."""
    return git.run("cat-file", "blob", content)
