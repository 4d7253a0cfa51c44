"""
Private repositories: empty ones of Hive's own, which see the objects of the user's.

Whatever reads files or content runs in one of them (see ``git``). git does not look whether an
object has the content that its name says; what is shown and what is committed is *verified*: copied
into a repository that has nothing else, whose objects have been named anew.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.git import Git, at, objects_of, split
from hive_jupyter.guard.objects import as_lines, checked_hash, content_ids, empty_tree, raw_changes

# The file in one of them that names folders whose programs do not count.
_OUTSIDE = "outside"

# What is in one may be lost in a crash, and the request with it.
_PASSING = {"core.fsync": "none"}


@contextlib.contextmanager
def opened(repository: str, private: str | None) -> Iterator[Git]:
    """
    Open the private repository that holds what is to be committed.

    Args:
        repository: the user's git dir.
        private: the private repository's folder; None: one is made for the occasion.

    Raises:
        RepositoryError: the private repository is no more, or none can be made.
    """
    user = at(repository, *outside_of(private))
    if private is not None:
        if not Path(private, "HEAD").is_file():
            msg = "The content of this request is kept no more. Ask for the commit again."
            raise RepositoryError(msg)
        yield Git(user.path, private, settings=_PASSING)
        return
    with tempfile.TemporaryDirectory(prefix="hive-", ignore_cleanup_errors=True) as folder:
        yield make_private(user, os.path.join(folder, "private"))


def make_private(user: Git, folder: str) -> Git:
    """
    Make a private repository.

    Args:
        user: git on the user's repository, whose objects it is to see.
        folder: where; it must not exist.

    Returns:
        git on it.

    Raises:
        RepositoryError: it cannot be made.
    """
    try:
        os.makedirs(folder, mode=0o700)
    except OSError as error:
        msg = f"There is no place for a commit's content: {error}"
        raise RepositoryError(msg) from error
    git = Git(user.path, folder, settings=_PASSING)
    _init(git, user)
    info = Path(folder, "objects", "info")
    info.mkdir(exist_ok=True)
    quoted = objects_of(user).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (info / "alternates").write_bytes(os.fsencode(f'"{quoted}"\n'))
    Path(folder, _OUTSIDE).write_bytes(b"".join(os.fsencode(one) + b"\0" for one in user.outside))
    return git


def _init(git: Git, like: Git) -> None:
    """Make an empty repository, whose objects have names of the same kind as another's."""
    os.makedirs(git.folder, mode=0o700, exist_ok=True)
    object_format = like.line("rev-parse", "--show-object-format")
    git.run(
        "init", "--quiet", "--bare", "--template=", "--initial-branch=none",
        f"--object-format={object_format}", git.folder,
    )  # fmt: skip


@contextlib.contextmanager
def verified(source: Git, parent: str | None, tree: str) -> Iterator[Git]:
    """
    Copy a commit's tree, and all in which it differs from another commit, object by object.

    Args:
        source: git on a repository that has them.
        parent: the other commit's hash; None: there is none, all is new.
        tree: the tree's hash.

    Yields:
        git on the copy, for as long as this is entered.

    Raises:
        RepositoryError: git fails, or an object is missing or not what its name says.
    """
    beside = os.path.dirname(source.folder)
    with tempfile.TemporaryDirectory(dir=beside, ignore_cleanup_errors=True) as folder:
        yield copied(source, os.path.join(folder, "verified"), _wanted(source, parent, tree))


def copied(source: Git, folder: str, wanted: Collection[str]) -> Git:
    """
    Copy objects into a repository of their own, in which git has named them anew.

    Args:
        source: git on a repository that has them.
        folder: where the copy goes; it must not exist, and the one around it is private.
        wanted: the objects' hashes.

    Returns:
        git on the copy.

    Raises:
        RepositoryError: git fails, or an object is missing or not what its name says.
    """
    copy = Git(source.path, folder, settings=_PASSING)
    _init(copy, source)
    pack = f"{folder}-pack"
    name = source.run("pack-objects", "--quiet", "--window=0", pack, stdin=as_lines(wanted))
    given = f"{pack}-{name.decode().strip()}.pack"
    with open(given, "rb") as content:
        copy.run("index-pack", "--stdin", stdin=content)
    os.unlink(given)
    out = copy.run("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    if set(out.decode().split()) != set(wanted):
        msg = (
            "An object of this repository does not have the content that its name says, so that "
            "nobody can tell what would be committed. git fsck names it."
        )
        raise RepositoryError(msg)
    return copy


def _wanted(source: Git, parent: str | None, tree: str) -> set[str]:
    """All objects that have to be read to tell in what a tree differs from a commit."""
    old = parent or empty_tree(source)
    wanted = {checked_hash(tree)}
    if parent is not None:
        wanted |= {parent, source.line("rev-parse", "--verify", f"{parent}^{{tree}}") or ""}
    for change in raw_changes(source, old, tree, "-t"):
        wanted.update(content_ids(change))
    return wanted - {empty_tree(source)}


def outside_of(private: str | None) -> list[str]:
    """
    Recall the folders whose programs did not count when a private repository was made.

    The work tree is among them. A git dir that is not in it does not tell where it is.
    """
    try:
        return split(Path(private, _OUTSIDE).read_bytes()) if private is not None else []
    except FileNotFoundError:
        return []
