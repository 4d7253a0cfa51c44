"""Programs that tools run: found by absolute paths, with an environment that no project can set."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from hive_jupyter.errors import ToolError
from hive_jupyter.worker.tools import workspace

_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "USER", "XDG_CONFIG_HOME")
_MOST_SAID = 2000


def find(name: str) -> str | None:
    """
    The absolute path of a program: of this Python's own, or of the search path's.

    One in the project counts only where it belongs to this Python.
    """
    folders = [
        folder
        for folder in os.get_exec_path()
        if os.path.isabs(folder) and not workspace.is_inside(os.path.realpath(folder))
    ]
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), *folders]))


class Program:
    """
    A running program.

    Attributes:
        process: with pipes to its input, if asked for, and from its output.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self._errors = errors

    @property
    def output(self) -> IO[bytes]:
        """What it writes."""
        assert self.process.stdout is not None
        return self.process.stdout

    @property
    def said(self) -> str:
        """What it has written to its standard error, the first lines of it."""
        self._errors.seek(0)
        return self._errors.read(_MOST_SAID).decode(errors="replace").strip()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    folder: workspace.Opened | None = None,
    source: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """
    Run a program, and have it ended at the end.

    Args:
        command: the absolute path and the arguments.
        folder: in which it runs, or none in particular.
        source: its standard input: a descriptor, PIPE or DEVNULL.
        environment: besides a few variables of this process.
    """
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # not a pipe: nobody reads there while it runs
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd=folder.place if folder else "/",
            env={"PATH": os.defpath, **kept, **(environment or {})},
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Program(process, errors)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                process.__exit__(None, None, None)


def output_of(
    command: Sequence[str],
    *,
    folder: workspace.Opened,
    environment: Mapping[str, str] | None = None,
    most: int = workspace.LARGEST_FILE,
) -> tuple[int, bytes, str]:
    """
    Run a program to its end.

    Args:
        command: the absolute path and the arguments.
        folder: in which it runs.
        environment: see ``running``.
        most: bytes of its output that are of use; it is ended where it writes more.

    Returns:
        Its exit status, its output (at most ``most`` + 1 bytes), and the beginning of what it wrote
        to standard error.

    Raises:
        ToolError: it could not be started.
    """
    try:
        with running(command, folder=folder, environment=environment) as program:
            output = program.output.read(most + 1)
            if len(output) > most:
                return 0, output, ""
            return program.process.wait(), output, program.said
    except OSError as error:
        msg = f"{command[0]} could not be run: {error.strerror}."
        raise ToolError(msg) from None
