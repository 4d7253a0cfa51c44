"""
Private repositories: empty ones of Hive's own, which see the objects of the user's.

Whatever reads files or content runs in one of them (see ``git``).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.git import Git, at, objects_of, split

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
    object_format = user.line("rev-parse", "--show-object-format")
    git.run(
        "init", "--quiet", "--bare", "--template=", "--initial-branch=none",
        f"--object-format={object_format}", folder,
    )  # fmt: skip
    info = Path(folder, "objects", "info")
    info.mkdir(exist_ok=True)
    quoted = objects_of(user).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (info / "alternates").write_bytes(os.fsencode(f'"{quoted}"\n'))
    Path(folder, _OUTSIDE).write_bytes(b"".join(os.fsencode(one) + b"\0" for one in user.outside))
    return git


def outside_of(private: str | None) -> list[str]:
    """
    Recall the folders whose programs did not count when a private repository was made.

    The work tree is among them. A git dir that is not in it does not tell where it is.
    """
    try:
        return split(Path(private, _OUTSIDE).read_bytes()) if private is not None else []
    except FileNotFoundError:
        return []
