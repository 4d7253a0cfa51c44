"""
The files that tools may touch: those of the project.

A path is opened first, without reading and without waiting (``O_PATH``); what it led to, links and
all, is then asked of the kernel and judged. Whoever swaps a link or a folder in between changes
nothing: read and written is what was judged. This keeps tools from what a project's links point to;
it does not confine the code that runs in the worker.

Only Linux can open without reading, and tells where that is. On other systems what is open is
looked for where its path leads, and what becomes of that path in between is not noticed.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from hive_jupyter.errors import ToolError
from hive_jupyter.project import is_too_wide
from hive_jupyter.units import format_size, printable

# Larger files are no texts that somebody edits, and would not fit into memory several times over.
LARGEST_FILE = 64 * 2**20

_HAS_PLACES = hasattr(os, "O_PATH")
_PLACE = os.O_PATH if _HAS_PLACES else os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = _PLACE | os.O_DIRECTORY
# How the files begin that a worker may leave which is killed while it writes.
_TEMPORARY = ".hive-save-"
_SHOWN = 200
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Workspace:
    """Where the worker is at home."""

    root = ""
    folder = ""
    home = ""
    wide = False


_HERE = _Workspace()


def enter(root: str, folder: str) -> None:
    """
    Say where the worker is at home.

    Args:
        root: the project's; nothing outside is read or written. Of a home folder, and of one above
            it, only what does not begin with a dot counts.
        folder: where relative paths begin.
    """
    _HERE.root, _HERE.folder = os.path.realpath(root), os.path.realpath(folder)
    _HERE.home = os.path.realpath(os.path.expanduser("~"))
    _HERE.wide = is_too_wide(_HERE.root, _HERE.home)


def shown(path: str) -> str:
    """A path as tools take and show it: relative to the working folder."""
    return os.path.relpath(path, _HERE.folder)


def is_inside(path: str) -> bool:
    """Whether an absolute path without links is one of the project's."""
    if not _is_below(path, _HERE.root):
        return False
    hidden = _HERE.wide and (_is_hidden(path, _HERE.root) or _is_hidden(path, _HERE.home))
    return not hidden


def ceiling() -> str:
    """The folder in which a search for the repository, upwards, finds nothing any more."""
    return _HERE.root if _HERE.wide else os.path.dirname(_HERE.root)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_hidden(path: str, folder: str) -> bool:
    return _is_below(path, folder) and path[len(folder) :].lstrip("/").startswith(".")


# Reading


@dataclass(frozen=True)
class Opened:
    """
    What is at a path, opened to look at: one file or folder, whatever becomes of the path.

    Attributes:
        descriptor: opened without reading.
        path: absolute, without links.
        status: of the file or folder.
    """

    descriptor: int
    path: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def place(self) -> str:
        """A path by which the system finds it for this process and its children."""
        return f"/proc/self/fd/{self.descriptor}" if _HAS_PLACES else self.path

    def reopened(self) -> int:
        """
        A descriptor to read from, which the caller closes.

        Raises:
            ToolError: it is no regular file, or may not be read.
        """
        kind = stat.S_IFMT(self.status.st_mode)
        if kind != stat.S_IFREG:
            msg = f"{shown(self.path)} is {_KINDS.get(kind, 'no file')}, and not a file."
            raise ToolError(msg)
        with _explained(shown(self.path)):
            return _to_read(self.descriptor)

    def read(self) -> bytes:
        """
        The file's content.

        Raises:
            ToolError: it is no regular file, may not be read, or is larger than LARGEST_FILE.
        """
        descriptor = self.reopened()
        try:
            if self.status.st_size <= LARGEST_FILE:
                with _explained(shown(self.path)):
                    data = _read(descriptor)
                if len(data) <= LARGEST_FILE:
                    return data
        finally:
            os.close(descriptor)
        size = format_size(os.stat(self.place).st_size)
        msg = (
            f"{shown(self.path)} has {size}; tools read files of up to "
            f"{format_size(LARGEST_FILE)}. Look at parts of it with execute."
        )
        raise ToolError(msg)


@contextlib.contextmanager
def opened(path: str) -> Iterator[Opened]:
    """
    Open what is at a path; nothing is read, and nothing waits, whatever it is.

    Raises:
        ToolError: there is nothing, or it lies outside the project.
    """
    whole = absolute(path)
    with _explained(path):
        descriptor = os.open(whole, _PLACE)
    try:
        yield Opened(descriptor, _judged(descriptor, path), os.fstat(descriptor))
    finally:
        os.close(descriptor)


def absolute(path: str) -> str:
    """
    A path from the working folder on; it may lead anywhere.

    Raises:
        ToolError: no file can have this name.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        msg = f"{path!r} cannot be a file's name."
        raise ToolError(msg) from None
    if not path or "\0" in path:
        msg = f"{path!r} cannot be a file's name."
        raise ToolError(msg)
    return os.path.join(_HERE.folder, path)


def _judged(descriptor: int, asked: str) -> str:
    """The path, without links, of what is open, if it is one of the project's."""
    path = os.readlink(f"/proc/self/fd/{descriptor}") if _HAS_PLACES else _found(descriptor, asked)
    _require_inside(path, asked)
    return path


def _found(descriptor: int, asked: str) -> str:
    """Where what is open lies: where the path leads, or above that."""
    path = os.path.realpath(absolute(asked))
    while not (os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(descriptor))):
        if path == "/":
            msg = f"{_short(asked)} has been moved by somebody else meanwhile. Try again."
            raise ToolError(msg)
        path = os.path.dirname(path)
    return path


def _to_read(descriptor: int) -> int:
    """A descriptor to read from of a file that is open."""
    if _HAS_PLACES:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    reading = os.dup(descriptor)
    os.lseek(reading, 0, os.SEEK_SET)
    return reading


def _require_inside(path: str, asked: str) -> None:
    if not is_inside(path):
        word = _short(asked)
        there = f"{word} leads to {_short(path)}, which" if path != absolute(asked) else word
        hidden = " and visible there" if _HERE.wide else ""
        msg = (
            f"{there} lies outside the project. Tools reach what is below {_HERE.root}{hidden}; "
            "give a path there."
        )
        raise ToolError(msg)


def _read(descriptor: int) -> bytes:
    pieces, size = [], 0
    while size <= LARGEST_FILE and (piece := os.read(descriptor, 2**20)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say what the system's error means."""
    word = _short(path)
    try:
        yield
    except FileNotFoundError:
        msg = f"There is no {word}.{_nearest(path)}"
        raise ToolError(msg) from None
    except NotADirectoryError:
        msg = f"There is no {word}: a part of this path is a file and no folder."
        raise ToolError(msg) from None
    except PermissionError:
        msg = f"{word}: permission denied."
        raise ToolError(msg) from None
    except OSError as error:
        msg = f"{word}: {error.strerror}."
        raise ToolError(msg) from None


def _nearest(path: str) -> str:
    """The name beside a missing one that is most like it, as a question."""
    folder, name = os.path.split(absolute(path))
    names: list[str] = []
    if os.path.isdir(folder):
        with contextlib.suppress(ToolError, OSError), opened(folder) as beside:
            names = os.listdir(beside.place)
    close = difflib.get_close_matches(name, names, n=1)
    if not close:
        return " list_files shows what is there."
    return f' Did you mean "{os.path.join(os.path.dirname(path), close[0])}"?'


def _short(path: str) -> str:
    word = printable(path)
    return word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."


# Writing


@dataclass(frozen=True)
class Target:
    """
    A file that is to be written, as it was before.

    Attributes:
        path: absolute; without links where there is a file.
        data: its content, or None where there is no file.
        status: of the file, or None.
    """

    path: str
    data: bytes | None
    status: os.stat_result | None

    def write(self, data: bytes) -> str:
        """
        Replace the whole file, at once or not at all; make folders that are missing.

        Its mode stays, and its owner where the worker may say so. Hard links to it keep the old
        content. Where the boundary lets nothing new be made in its folder it is written over.

        Returns:
            Its path, absolute and without links.

        Raises:
            ToolError: the file is not as it was; it lies outside the project or in ``.git``; or the
                system refuses.
        """
        folder_path, name = os.path.split(self.path)
        with _explained(shown(self.path)), _folder(folder_path) as folder:
            path = os.path.join(_judged(folder, folder_path), name)
            _require_writable(path)
            try:
                self._replace(name, folder, data)
            except PermissionError as error:
                if self.data is None:
                    raise PermissionError(error.errno, error.strerror, path) from None
                self._write_over(name, folder, self.data, data)
        return path

    def _replace(self, name: str, folder: int, data: bytes) -> None:
        temporary = _TEMPORARY + secrets.token_hex(8)
        try:
            self._fill(temporary, folder, data)
            self._put(temporary, name, folder)
        finally:
            # no such file, or nothing can be removed there, either
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.unlink(temporary, dir_fd=folder)

    def _write_over(self, name: str, folder: int, before: bytes, data: bytes) -> None:
        """Write into the file itself; where that fails half-way, put back what was there."""
        if self._content(name, folder) != before:
            raise self._changed()
        descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=folder)
        with open(descriptor, "wb", buffering=0) as file:
            try:
                _overwrite(file, data)
            except OSError:
                _overwrite(file, before)
                raise

    def _fill(self, temporary: str, folder: int, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(
            temporary, flags, 0o666 if self.status is None else 0o600, dir_fd=folder
        )
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if self.status is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, self.status.st_uid, self.status.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(self.status.st_mode))
            os.fsync(descriptor)

    def _put(self, temporary: str, name: str, folder: int) -> None:
        """Give the new file its name, unless somebody else has been there meanwhile."""
        if self.data is not None:
            if self._content(name, folder) != self.data:
                raise self._changed()
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileExistsError:
            raise self._changed() from None
        except OSError:  # a file system without hard links
            if self._content(name, folder) is not None:
                raise self._changed() from None
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _content(self, name: str, folder: int) -> bytes | None:
        """What is in the file now, or None where there is none any more."""
        try:
            descriptor = os.open(name, _PLACE | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._changed()
            reading = _to_read(descriptor)
        finally:
            os.close(descriptor)
        try:
            return _read(reading)
        finally:
            os.close(reading)

    def _changed(self) -> ToolError:
        msg = (
            f"{shown(self.path)} has been changed by somebody else meanwhile, and was left as it "
            "is. Read it again."
        )
        return ToolError(msg)


def _overwrite(file: io.FileIO, data: bytes) -> None:
    file.seek(0)
    written = 0
    while written < len(data):
        written += file.write(data[written:])
    file.truncate()
    os.fsync(file.fileno())


def target(path: str) -> Target:
    """
    Look at a file that is to be written; a link is followed, and stays.

    Raises:
        ToolError: it lies outside the project or in ``.git``, is no regular file, is read-only, or
            is too large.
    """
    whole = absolute(path)
    if not os.path.lexists(whole):
        if path.endswith("/"):
            msg = f"{_short(path)} is a folder's name. Give the file's, too."
            raise ToolError(msg)
        return Target(whole, None, None)
    if not os.path.exists(whole) and os.path.islink(whole):
        msg = f"{_short(path)} is a link that leads nowhere. Write to the place that you mean."
        raise ToolError(msg)
    with opened(path) as there:
        _require_writable(there.path)
        data = there.read()
        if not os.access(there.place, os.W_OK):
            msg = f"{shown(there.path)} is read-only, and was left as it is."
            raise ToolError(msg)
        return Target(there.path, data, there.status)


def _require_writable(path: str) -> None:
    _require_inside(path, path)
    if ".git" in path.casefold().split("/"):
        msg = f"{shown(path)} belongs to git. Tools do not write there; ask with request_commit."
        raise ToolError(msg)


@contextlib.contextmanager
def _folder(path: str) -> Iterator[int]:
    """Open a folder of the project; make it, and those above it, where they are missing."""
    descriptor, missing = _existing(path)
    try:
        for name in missing:
            _require_writable(os.path.join(_judged(descriptor, path), name))
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _existing(path: str) -> tuple[int, list[str]]:
    """Open as much of a folder's path as there is; what is missing below it, from the top."""
    missing: list[str] = []
    while True:
        try:
            return os.open(path, _FOLDER), [name for name in reversed(missing) if name]
        except FileNotFoundError:
            path, name = os.path.split(path)
            missing.append(name)
