"""
Private folders for sockets and logs, and the sweeping of those whose process is gone.

::

    <jupyter_runtime_dir>/hive/         or <tmp>/hive-<uid>/ where the former is of no use
        <pid>-<start time>/             one for each RuntimeFolder, locked (flock) while it is used
            w1/ w2/ ...                 one for each worker

The lock is what makes sweeping safe where pids mean nothing: on a home that several machines or
containers share. It also keeps systemd-tmpfiles away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import logging
import os
import re
import secrets
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_core.paths import jupyter_runtime_dir

from hive_jupyter.errors import HiveError
from hive_jupyter.procfs import read_stat
from hive_jupyter.swarm import system
from hive_jupyter.swarm.descriptors import NO_DESCRIPTOR, shortage
from hive_jupyter.swarm.portal import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

# Bytes of a unix socket's path, its closing NUL not counted: unix(7); sys/un.h of macOS and BSDs.
SOCKET_PATH = 107 if system.IS_LINUX else 103
# The longest path that Hive makes below a runtime folder.
_LONGEST_BELOW = "/w999999/k-5"
# What must fit on the disk for a start: a log, a profile, a few sockets.
LEAST_SPACE = 64 * 1024
# What a folder needs while it is made: its lock, and a file or a socket.
_DESCRIPTORS = 2
# So long somebody waits until a folder is removed, in seconds.
_PATIENCE = 5.0
_NAME = re.compile(r"(\d{1,10})-(\d{1,20})(?:-\d{1,6})?", re.ASCII)
_GONE = "ZX"


class RuntimeFolder:
    """
    A private folder of this process; made by ``create``.

    Attributes:
        path: absolute, mode 0700, owned by this user.
        sockets: whether unix sockets work below it; where not, TCP is used.
    """

    def __init__(self, path: Path, lock: int, *, sockets: bool) -> None:
        """Take over a folder that ``create`` has made and locked."""
        self.path = path
        self.sockets = sockets
        self._lock = lock
        self._owner = os.getpid()
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<RuntimeFolder {str(self.path)!r}>"

    @classmethod
    def create(cls, base: Path | None = None) -> RuntimeFolder:
        """
        Make a folder where sockets work, or else one where files can be written.

        Args:
            base: where to make it; None: below Jupyter's runtime folder. Where that cannot be used
                (read-only, full, another's, a path too long), below the temporary folder.

        Raises:
            HiveError: there is no place to write, or no descriptor.
        """
        spare: RuntimeFolder | None = None
        failures: list[str] = []
        for place in _places(base):
            try:
                folder = cls._create_in(place)
            except OSError as error:
                if error.errno in NO_DESCRIPTOR:
                    raise HiveError(shortage(_DESCRIPTORS)) from error
                failures.append(f"{place}: {error.strerror or error}")
                continue
            if folder.sockets:
                if spare is not None:
                    spare.remove()
                return folder
            if spare is None:
                spare = folder
            else:
                folder.remove()
        if spare is not None:
            return spare
        msg = (
            f"Hive found no folder for its runtime files ({'; '.join(failures)}). Set "
            "JUPYTER_RUNTIME_DIR or TMPDIR to a folder that you own, on a disk with free space."
        )
        raise HiveError(msg)

    @classmethod
    def _create_in(cls, base: Path) -> RuntimeFolder:
        _make_private(base)
        path, lock = _make_locked(base)
        try:
            _prove_space(path)
            sockets = _sockets_work(path)
        except OSError:
            os.close(lock)  # where there are no descriptors, removing takes the one of the lock
            remove_tree(path)
            raise
        return cls(path, lock, sockets=sockets)

    def worker_folder(self) -> Path:
        """
        Make a folder for one worker, mode 0700.

        Raises:
            HiveError: it cannot be made.
        """
        path = self.path / f"w{next(self._numbers)}"
        try:
            path.mkdir(mode=0o700)
            path.chmod(stat.S_IRWXU)  # whatever the umask took away
        except OSError as error:
            msg = (
                f"Hive cannot make the runtime folder {path} ({error.strerror}). Free some space, "
                "or restart your kernel if somebody removed the folder above it."
            )
            raise HiveError(msg) from error
        return path

    def remove(self) -> None:
        """Remove the folder with all that is in it; harmless when repeated or in a forked child."""
        if self._lock < 0 or os.getpid() != self._owner:
            return
        remove_tree(self.path)
        os.close(self._lock)
        self._lock = -1


def sweep(base: Path | None = None) -> list[Path]:
    """
    Remove the runtime folders of processes that are gone.

    A folder goes only if it is this user's, its process (by pid and start time) does not exist
    here, and nobody holds its lock. Several processes may sweep at once.

    Args:
        base: where to look; None: everywhere where ``RuntimeFolder.create`` makes folders.

    Returns:
        The folders that were removed.
    """
    return [path for path, lives in _judged(base) if not lives and _remove_unlocked(path)]


def living(base: Path | None = None) -> list[Path]:
    """
    Find the runtime folders of processes that exist here.

    Args:
        base: where to look; None: everywhere where ``RuntimeFolder.create`` makes folders.

    Returns:
        Folders of this user's alone, by pid; no symbolic link was followed.
    """
    return sorted((path for path, lives in _judged(base) if lives), key=_pid_and_number)


def _usual_base() -> Path:
    return Path(jupyter_runtime_dir(), "hive").absolute()


def _temporary_folders() -> list[Path]:
    folders = [Path("/tmp")]  # noqa: S108 (TMPDIR may be too long for a socket)
    with contextlib.suppress(FileNotFoundError):
        folders.insert(0, Path(tempfile.gettempdir()).absolute())
    return list(dict.fromkeys(folders))


def _below_temporary(folder: Path) -> list[Path]:
    """Where this user's folder is, or would be, in one where everybody may write."""
    name = f"hive-{os.geteuid()}"
    return [folder / name, *sorted(folder.glob(f"{name}-*"))]


def _usual_places() -> list[Path]:
    """All folders that may hold runtime folders, whether they exist or not."""
    temporary = [path for folder in _temporary_folders() for path in _below_temporary(folder)]
    return [_usual_base(), *temporary]


def _places(base: Path | None) -> Iterator[Path]:
    """Folders to make runtime folders in, the best first; the later ones are made on demand."""
    yield base.absolute() if base is not None else _usual_base()
    for folder in _temporary_folders():
        with contextlib.suppress(OSError):
            yield _private_below(folder)


def _private_below(folder: Path) -> Path:
    for path in _below_temporary(folder):
        with contextlib.suppress(OSError):
            _make_private(path)
            return path
    # Somebody else was first and took the name.
    return Path(tempfile.mkdtemp(prefix=f"hive-{os.geteuid()}-", dir=folder))


def _make_private(path: Path) -> None:
    """Make a folder that is this user's alone, or make sure that the one there is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the folder belongs to somebody else", str(path))
        if stat.S_IMODE(facts.st_mode) != stat.S_IRWXU:
            os.fchmod(descriptor, stat.S_IRWXU)
    finally:
        os.close(descriptor)


def _make_locked(base: Path) -> tuple[Path, int]:
    """Make a folder named after this process and lock it; a process may have several."""
    me = read_stat(os.getpid())
    name = f"{os.getpid()}-{me.start_ticks if me else 0}"
    for number in itertools.count(1):
        path = base / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        path.chmod(stat.S_IRWXU)  # whatever the umask took away
        try:
            lock = _lock(path)
        except OSError:
            path.rmdir()
            raise
        if lock is not None:
            return path, lock
    raise AssertionError  # a count has no end


def _lock(path: Path) -> int | None:
    """Lock a folder; None where another holds it or has just removed it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _prove_space(path: Path) -> None:
    file = path / "probe"
    file.write_bytes(bytes(LEAST_SPACE))
    file.unlink()


def _sockets_work(path: Path) -> bool:
    """Whether the longest path below fits, and the file system takes a socket."""
    if len(os.fsencode(path)) + len(_LONGEST_BELOW) > SOCKET_PATH:
        return False
    probe = path / "probe"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(os.fsencode(probe))
        except OSError:
            return False
    probe.unlink()
    return True


def _judged(base: Path | None) -> list[tuple[Path, bool]]:
    """All runtime folders of this user, and whether the process of each exists here."""
    places = [base] if base is not None else _usual_places()
    return [(path, _lives(path)) for place in places for path in _own_folders(place)]


def _own_folders(base: Path) -> list[Path]:
    try:
        if base.is_symlink() or base.stat().st_uid != os.geteuid():
            return []
        with os.scandir(base) as entries:
            return [Path(entry.path) for entry in entries if _is_own(entry)]
    except OSError:
        return []


def _is_own(entry: os.DirEntry[str]) -> bool:
    try:
        return (
            _NAME.fullmatch(entry.name) is not None
            and entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
        )
    except OSError:
        return False


def _lives(path: Path) -> bool:
    pid, ticks, *_ = map(int, path.name.split("-"))
    if read_stat(os.getpid()) is None:  # nothing tells when processes began
        return _exists(pid)
    process = read_stat(pid)
    return process is not None and process.state not in _GONE and process.start_ticks == ticks


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _pid_and_number(path: Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split("-")))


def _remove_unlocked(path: Path) -> bool:
    try:
        lock = _lock(path)
    except OSError:
        return False
    if lock is None:
        return False
    remove_tree(path)
    os.close(lock)
    log.info("removed %s, whose process is gone", path)
    return True


def remove_tree(path: Path) -> None:
    """
    Remove a folder and all that is in it, as far as that is possible; never raises.

    Folders are moved up before they are emptied: a worker may have nested them deeper than a path
    may be long, or than Python recurses. Symbolic links are removed, not followed.
    """
    try:
        if path.is_symlink():  # the worker has put it there
            path.unlink()
            return
        while folders := _remove_files(path):
            for folder in folders:
                for inner in _remove_files(folder):
                    # a name that the worker could foresee would be taken
                    inner.rename(path / f".removing-{secrets.token_hex(8)}")
                folder.rmdir()
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("could not remove all of %s: %s", path, error)


async def remove_apart(remove: Callable[[], None]) -> None:
    """
    Remove something in a thread: a worker may have left more files than a loop can wait for.

    What takes longer than 5 seconds goes on by itself; where this process ends meanwhile, the next
    start sweeps the rest.

    Args:
        remove: does it, and never raises.
    """
    removing = asyncio.ensure_future(apart(remove))
    await asyncio.wait({removing}, timeout=_PATIENCE)
    if removing.done() and removing.exception() is not None:  # the system gives no thread
        remove()


def _remove_files(folder: Path) -> list[Path]:
    """Remove what is no folder; return the folders."""
    folders = []
    with contextlib.suppress(OSError):
        folder.chmod(stat.S_IRWXU)  # whatever mode the worker gave it
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                os.unlink(entry.path)
    return folders
