"""
Renaming what git would take for a repository, while somebody hostile may rename things, too.

Every folder on the way is opened, and no link is followed. So nothing outside of the project is
renamed, whatever is put in the place of a folder meanwhile; and nothing is deleted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator

Identity = tuple[int, int]
Move = tuple[str, str]

# O_PATH needs no right to list the folder, as little as git does. Linux alone has it.
_HAS_PLACES = hasattr(os, "O_PATH")
_PLACE = os.O_PATH if _HAS_PLACES else os.O_RDONLY
_FOLDER = _PLACE | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HEAD = "HEAD"


def set_aside(root: str, path: str, identity: Identity) -> tuple[Move, ...]:
    """
    Give a repository names that git does not look for.

    Args:
        root: the project's folder, absolute.
        path: from there on, of what is called .git, or of the HEAD of a folder that is laid out as
            a repository.
        identity: the device and inode of what is to be there.

    Returns:
        What was renamed to what, in that order, from the root on; nothing where something else is
        there by now.

    Raises:
        OSError: it cannot be renamed.
    """
    above, name = os.path.split(path)
    with _opened(root, above) as folder:
        status = os.lstat(name, dir_fd=folder)
        if (status.st_dev, status.st_ino) != identity:
            return ()
        new = _rename(folder, name)
        moves = [(path, os.path.join(above, new))]
        if stat.S_ISDIR(status.st_mode):
            # who changes to it would be in a repository still
            with contextlib.suppress(FileNotFoundError), _opened_in(folder, new) as repository:
                beheaded = _rename(repository, _HEAD)
                moves.append((f"{moves[0][1]}/{_HEAD}", f"{moves[0][1]}/{beheaded}"))
    return tuple(moves)


def _rename(folder: int, name: str) -> str:
    # nobody can guess the name, and put something there that would be overwritten
    new = f"{name.lstrip('.')}-set-aside-by-hive-{secrets.token_hex(4)}"
    try:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=folder)
    except PermissionError:
        with _made_writable(folder):
            os.rename(name, new, src_dir_fd=folder, dst_dir_fd=folder)
    return new


@contextlib.contextmanager
def _made_writable(folder: int) -> Iterator[None]:
    """Who owns a folder may write to it, whatever its mode is."""
    place: str | int = f"/proc/self/fd/{folder}" if _HAS_PLACES else folder
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    os.chmod(place, mode | stat.S_IWUSR | stat.S_IXUSR)
    try:
        yield
    finally:
        os.chmod(place, mode)


@contextlib.contextmanager
def _opened(root: str, path: str) -> Iterator[int]:
    """A folder below the root, found part by part."""
    folder = os.open(root, _FOLDER)
    try:
        for part in path.split("/") if path else ():
            above, folder = folder, os.open(part, _FOLDER, dir_fd=folder)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def _opened_in(folder: int, name: str) -> Iterator[int]:
    opened = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)
