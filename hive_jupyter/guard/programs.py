"""Running programs, and which of those on PATH may be run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from hive_jupyter.errors import RepositoryError
from hive_jupyter.units import format_duration

_TIMEOUT = 120.0
_GRACE = 5.0


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
        RepositoryError: it cannot be started, or took too long.
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
            out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            msg = (
                f"git was stopped: it took longer than {format_duration(timeout)}. Try again when "
                "the disk is less busy. Where a filter takes its time, stage the file with git add."
            )
            raise RepositoryError(msg, command=command[1:]) from None
        except BaseException:
            _end(process)
            raise
    return process.returncode, out, err


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was started, with a grace in which git removes its lock files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
            return


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
    written = (named, found) if os.path.isdir(found) else (named, found, named.parent, found.parent)
    return not any(one.is_relative_to(bar) for bar in barred for one in (named, found)) and not any(
        os.path.exists(one) and one.stat().st_mode & stat.S_IWOTH for one in written
    )


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
