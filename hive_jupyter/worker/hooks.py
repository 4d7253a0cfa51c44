"""
A commit that git makes for its hooks alone, in a repository that is thrown away.

What git and the hooks do here, the host believes none of: it looks at the files itself, and what
comes back is shown as theirs.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

# Bytes that are kept of what hooks say, of its end; and those of a commit.
_MOST_SAID = 64 * 2**10
_MOST_OF_COMMIT = 2**20
_PIECE = 2**16


def run(asked: Mapping[str, Any]) -> dict[str, Any]:
    """
    Have git make a commit in the working folder.

    Args:
        asked: content of the request, see ``protocol``: "git", the program; "repository", of which
            a copy becomes the working folder's; "hooks" that have to be there; "message";
            "environment" for git; "seconds" that all may take.

    Returns:
        "code", git's exit code, or None where the time was over; "said" by the hooks; "message" and
        "tree" of the commit. Or "missing", the first hook that is not there.

    Raises:
        OSError: the repository cannot be copied, or git not be started.
    """
    deadline = time.monotonic() + asked["seconds"]
    shutil.copytree(asked["repository"], ".git", symlinks=True)
    for hook in asked["hooks"]:
        if not os.access(hook, os.X_OK):
            return {"missing": hook}
    environment = {**os.environ, **asked["environment"]}
    command = (asked["git"], "commit", "--quiet", "--cleanup=verbatim", "--file=-")
    with tempfile.TemporaryFile() as message:
        message.write(asked["message"].encode())
        message.seek(0)
        code, said = _run(command, environment, message, deadline, _MOST_SAID)
    answer: dict[str, Any] = {"code": code, "said": said.decode(errors="replace")}
    if code == 0:
        shown = (asked["git"], "cat-file", "commit", "HEAD")
        _, made = _run(shown, environment, subprocess.DEVNULL, deadline, _MOST_OF_COMMIT)
        head, _, text = made.decode(errors="replace").partition("\n\n")
        answer |= {"message": text, "tree": head.partition("\n")[0].removeprefix("tree ")}
    return answer


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdin: int | IO[bytes],
    deadline: float,
    most: int,
) -> tuple[int | None, bytes]:
    """
    Run a program until it ends, or its time does; what it started may go on, and is not waited for.

    Returns:
        Its exit code, None where it was stopped; and the end of what it and they wrote, ``most``
        bytes.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        has_ended, said = _listen(process, deadline, most)
    finally:
        # nobody has waited for it yet, so its number is still its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass
    return (process.returncode if has_ended else None), said


def _listen(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bool, bytes]:
    """Whether a program ended in time, and the end of what was written until then."""
    assert process.stdout is not None
    pipe, end = process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(pipe, False)
    said = bytearray()
    has_ended = False
    waiting = select.poll()
    try:
        for descriptor in (pipe, end):
            waiting.register(descriptor, select.POLLIN)
        while not has_ended and (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in waiting.poll(left * 1000)}
            has_ended = end in ready
            piece = _piece(pipe)
            if pipe in ready and not piece:
                waiting.unregister(pipe)
            said += piece
            del said[:-most]
    finally:
        os.close(end)
    return has_ended, bytes(said)


def _piece(pipe: int) -> bytes:
    """As much as a pipe holds, as a rule, of what is there."""
    try:
        return os.read(pipe, _PIECE)
    except BlockingIOError:
        return b""
