"""
What git-lfs keeps beside a repository: a file's content, where a commit has a pointer to it.

Frozen, it lies in the private repository. Before the branch moves it is put into the user's
storage, by the rules of git-lfs (git-lfs-config(5), and its specification of pointers).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.files import regular

# No pointer that git-lfs writes is longer, and of what is, it reads so much.
LONGEST_POINTER = 1024

_POINTER = re.compile(
    rb"version (?:https://git-lfs\.github\.com/spec/v1|https://hawser\.github\.com/spec/v1|"
    rb"http://git-media\.io/v/2)\noid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})"
)
_EXTENSION = re.compile(rb"ext-[0-9]-\w+ ")

# Below a git dir, where nothing else is configured.
STORAGE = "lfs"
_KEPT = "lfs-contents"
_PIECE = 2**20


@dataclass(frozen=True)
class Pointer:
    """
    What a commit has in the place of a file's content.

    Attributes:
        oid: SHA-256 of the content.
        size: of the content, in bytes.
    """

    oid: str
    size: int


def read_pointer(content: bytes) -> Pointer | None:
    """Read a pointer as git-lfs does; None: it is none."""
    start = content[:LONGEST_POINTER].strip()
    lines = [line.removesuffix(b"\r") for line in start.split(b"\n")]
    plain = b"\n".join(line for line in lines if line and not _EXTENSION.match(line))
    match = _POINTER.fullmatch(plain)
    return match and Pointer(match["oid"].decode(), int(match["size"]))


def remember(private: str) -> None:
    """Note what git-lfs has put into a private repository, to know what there has to be."""
    names = sorted(path.name for path in Path(private, STORAGE, "objects").glob("*/*/*"))
    Path(private, _KEPT).write_text("".join(f"{name}\n" for name in names))


def kept(private: str) -> set[str]:
    """The ids of contents that a private repository has, or should have."""
    try:
        return set(Path(private, _KEPT).read_text().split())
    except FileNotFoundError:
        return set()


def hand_over(private: str, pointers: Iterable[Pointer], storage: str, mode: int) -> None:
    """
    Put frozen contents into the user's storage, each whole or not at all.

    Args:
        private: the private repository.
        pointers: what leads to them.
        storage: the user's folder of git-lfs; absolute.
        mode: of new folders in it, and so of files, but for the right to enter them; others than
            the group never may write.

    Raises:
        RepositoryError: a content is not what it was when it was frozen, or cannot be written.
    """
    mode &= ~stat.S_IWOTH
    for pointer in pointers:
        try:
            with regular(_place(os.path.join(private, STORAGE), pointer)) as source:
                _put(source, pointer, storage, mode)
        except OSError as error:
            msg = f"What git-lfs keeps of this commit cannot be handed over: {error}"
            raise RepositoryError(msg) from error


def _place(storage: str, pointer: Pointer) -> str:
    return os.path.join(storage, "objects", pointer.oid[:2], pointer.oid[2:4], pointer.oid)


def _put(source: int, pointer: Pointer, storage: str, mode: int) -> None:
    target = _place(storage, pointer)
    # git-lfs clears this folder of what a crash left there.
    passing = os.path.join(storage, "tmp")
    for folder in (passing, os.path.dirname(target)):
        _make_folder(folder, mode)
    descriptor, temporary = tempfile.mkstemp(prefix="hive-", dir=passing)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(_checked(source, pointer))
            os.fchmod(descriptor, mode & 0o666)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _write_through(os.path.dirname(target))


def _checked(source: int, pointer: Pointer) -> Iterator[bytes]:
    """What a pointer leads to, piece by piece, and after the last one that it is just that."""
    digest = hashlib.sha256()
    left = pointer.size
    while left >= 0 and (piece := os.read(source, _PIECE)):
        digest.update(piece)
        left -= len(piece)
        yield piece
    if left or digest.hexdigest() != pointer.oid:
        msg = (
            "What git-lfs keeps of this commit is not what it was when it was frozen. Ask for the "
            "commit again."
        )
        raise RepositoryError(msg)


def _make_folder(path: str, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # What is too long for a path fails before half of it is made.
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
            os.chmod(folder, mode)


def _write_through(folder: str) -> None:
    """Have a folder's new names on the disk, before a branch leads there."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
