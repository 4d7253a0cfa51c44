"""Running programs, and which of those on PATH may be run."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from hive_jupyter.errors import RepositoryError
from hive_jupyter.units import format_duration, format_size, visible

# Bytes that a program may write to stdout and to stderr, since they are held in memory, and to one
# file; and those of memory that it may have. So much no commit takes that a human reads.
MOST_OUTPUT = 256 * 2**20
MOST_ERRORS = 2**20
MOST_FILE = 4 * 2**30
MOST_MEMORY = 4 * 2**30

_TIMEOUT = 120.0
_GRACE = 5.0
_PIECE = 2**16


def run_program(
    command: tuple[str, ...],
    folder: str,
    environment: Mapping[str, str],
    stdin: bytes | IO[bytes] = b"",
    *,
    timeout: float = _TIMEOUT,
    keeps: tuple[int, ...] = (),
) -> tuple[int, bytes, bytes]:
    """
    Run a program to its end, in a process group of its own: Ctrl-C does not cut it in two.

    Args:
        command: the program's absolute path, and its arguments.
        folder: where it runs.
        environment: all of its variables.
        stdin: what it reads.
        timeout: seconds that it may take.
        keeps: descriptors that it has, too.

    Returns:
        Its exit code, and what it wrote to stdout and stderr.

    Raises:
        RepositoryError: it cannot be started, took too long, wrote too much, or was ended by a
            signal.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=keeps,
        )
    except (OSError, ValueError) as error:
        msg = f"git cannot be run in {folder!r}: {error}"
        raise RepositoryError(msg, command=command[1:]) from error
    with process:
        try:
            _bound(process.pid)
            deadline = time.monotonic() + timeout
            out, err = _talk(process, stdin if isinstance(stdin, bytes) else b"", deadline)
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _end(process)
            msg = (
                f"git was stopped: it took longer than {format_duration(timeout)}. Try again when "
                "the disk is less busy. Where a filter takes its time, stage the file with git add."
            )
            raise RepositoryError(msg, command=command[1:]) from None
        except _TooMuchError as error:
            _end(process)
            msg = (
                f"git was stopped: it wrote more than {format_size(error.most)}. Ask for the "
                "commit in parts, or make it with git itself."
            )
            raise RepositoryError(msg, command=command[1:]) from None
        except BaseException:
            _end(process)
            raise
    if process.returncode < 0:
        raise _was_ended(command, -process.returncode, err)
    return process.returncode, out, err


class _TooMuchError(Exception):
    """A program wrote more than so many bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


def _bound(pid: int) -> None:
    """
    Bound what a program, and all that it starts, takes of memory and of the disk.

    Linux alone lets one process bound another.
    """
    if not hasattr(resource, "prlimit"):
        return
    for what, most in ((resource.RLIMIT_DATA, MOST_MEMORY), (resource.RLIMIT_FSIZE, MOST_FILE)):
        with contextlib.suppress(ProcessLookupError):  # it is over
            soft, hard = (
                most if limit == resource.RLIM_INFINITY else min(limit, most)
                for limit in resource.prlimit(pid, what)
            )
            resource.prlimit(pid, what, (soft, hard))


def _talk(process: subprocess.Popen[bytes], given: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Give a program what it reads, and take what it writes to stdout and stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = BytesIO(), BytesIO()
    rest = memoryview(given)
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ, (out, MOST_OUTPUT))
        waiting.register(process.stderr, selectors.EVENT_READ, (err, MOST_ERRORS))
        if process.stdin is not None:
            waiting.register(process.stdin, selectors.EVENT_WRITE)
        while waiting.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, deadline)
            for key, _ in waiting.select(left):
                if key.data is None:
                    rest = rest[_written(key.fd, rest) :]
                    is_over = not rest
                else:
                    is_over = not _read(key.fd, *key.data)
                if is_over:
                    waiting.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
    return out.getvalue(), err.getvalue()


def _written(pipe: int, rest: memoryview) -> int:
    """How much of what is left a pipe took; where nobody reads any more, all of it."""
    try:
        # so much never blocks
        return os.write(pipe, rest[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(rest)


def _read(pipe: int, taken: BytesIO, most: int) -> bool:
    """Take what a pipe has; whether there may be more."""
    piece = os.read(pipe, _PIECE)
    if taken.tell() + len(piece) > most:
        raise _TooMuchError(most)
    taken.write(piece)
    return bool(piece)


def _was_ended(command: tuple[str, ...], number: int, stderr: bytes) -> RepositoryError:
    said = visible(stderr.decode("utf-8", "surrogateescape")).strip()
    known = number in set(signal.Signals)
    name = signal.Signals(number).name if known else f"signal {number}"
    why = said or "it did not say why. Try again when there is more memory."
    if number == signal.SIGXFSZ:
        why = f"it wrote a file of more than {format_size(MOST_FILE)}. Commit that with git itself."
    return RepositoryError(f"git was ended by {name}: {why}", command=command[1:], stderr=said)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was started, with a grace in which git removes its lock files."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        _see_end(process)
        # With what it started. Its number is still its own, or that of its group.
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


def _see_end(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment for a program's end; on Linux nobody takes note of it yet."""
    if not hasattr(os, "pidfd_open"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        return
    over = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(over, select.POLLIN)
        waiting.poll(_GRACE * 1000)
    finally:
        os.close(over)


def trusted_path(*outside: str) -> str:
    """
    Say where programs may be looked for: PATH without what a worker may have written.

    Args:
        outside: folders whose programs do not count; nor do those of the temporary folder, those
            that anybody may write to, and those that depend on the current folder.

    Returns:
        Folders, as in PATH.
    """
    folders = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    return os.pathsep.join(
        str(folder)
        for folder in folders
        if folder.is_absolute() and os.path.isdir(folder) and is_trusted(folder, *outside)
    )


def is_trusted(place: str | os.PathLike[str], *outside: str) -> bool:
    """
    Say whether no worker may have written what is there, as for ``trusted_path``.

    Args:
        place: a folder or a file; absolute.
        outside: folders in which nothing counts, nor what leads there.
    """
    home = Path("~").expanduser()
    barred = [Path(folder).resolve() for folder in (*outside, tempfile.gettempdir())]
    # Where the whole home folder is a repository, the user's own programs are no project's.
    barred = [folder for folder in barred if not home.is_relative_to(folder)]
    named, found = Path(place), Path(place).resolve()
    # The folder that a program is in counts like the program itself.
    near = 1 if os.path.isdir(found) else 2
    return not any(one.is_relative_to(bar) for bar in barred for one in (named, found)) and not any(
        _is_open(one, near) for one in (named, found)
    )


def _is_open(place: Path, near: int) -> bool:
    """Whether anybody may write to a place's nearest folders, or put others where they are."""
    for number, one in enumerate((place, *place.parents)):
        mode = one.stat().st_mode if os.path.exists(one) else 0
        # In a sticky folder nobody renames what is another's.
        if mode & stat.S_IWOTH and (number < near or not mode & stat.S_ISVTX):
            return True
    return False


def find_git(path: str) -> str:
    """
    Find git.

    Args:
        path: folders to look in, as in PATH.

    Returns:
        An absolute path.

    Raises:
        RepositoryError: it is not there.
    """
    program = shutil.which("git", path=path) if path else None
    if program is None:
        msg = (
            "Commits need git, and none was found on PATH, where folders of the project, the "
            "temporary one and those that anybody may write to do not count. Install git."
        )
        raise RepositoryError(msg)
    return program
