"""Why the boundary of a confined worker refused something, in one line for the traceback."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker.confine.boundary import Boundary, is_below

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
# What Python says where a thread cannot be had; it has no number.
_NO_THREAD = "can't start new thread"


class Refusals:
    """
    Knows what one worker may not, and whom to ask for it.

    Args:
        policy: what it may touch.
        boundary: its paths.
    """

    def __init__(self, policy: SandboxPolicy, boundary: Boundary) -> None:
        self._policy = policy
        self._boundary = boundary

    def explain(self, error: BaseException | None, worker: str) -> str | None:
        """
        Say which setting of the policy an exception comes from.

        Args:
            error: that the user's code raised; those that caused it are looked at, too.
            worker: its name.

        Returns:
            One line, or None where the policy has nothing to do with it.
        """
        for one in _chain(error):
            reason = self._reason(one)
            if reason is not None:
                what, setting = reason
                profile = self._policy.profile
                return f"The sandbox {profile} refused this: {what}. {_way_out(setting, worker)}"
        return None

    def _reason(self, error: BaseException) -> tuple[str, str] | None:
        """What was refused, and the setting for it; "" where only another profile allows it."""
        policy = self._policy
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and number in _REFUSED:
            names = [name for name in (error.filename, error.filename2) if name is not None]
            paths = [os.fsdecode(name) for name in names if isinstance(name, str | bytes)]
            if paths:
                return self._of_path(paths)
            if names:
                return None
            return self._of_connection() if number == errno.EACCES else self._of_call()
        if isinstance(error, socket.gaierror) and not policy.writes_project:
            return self._of_call()
        if number == errno.EFBIG and policy.file_size:
            return f"no file may be larger than {policy.file_size} bytes", "file_size"
        if number == errno.EMFILE and policy.open_files:
            return f"a process may open {policy.open_files} files", "open_files"
        if policy.processes and (number == errno.EAGAIN or _lacks_thread(error)):
            most = policy.processes
            return f"the worker may have {most} processes and threads", "processes"
        return None

    def _of_connection(self) -> tuple[str, str]:
        if not self._policy.writes_project:
            return self._of_call()
        ports = ", ".join(map(str, self._policy.connect)) or "none"
        return f"of TCP ports a worker may connect to {ports}", "connect_ports"

    def _of_call(self) -> tuple[str, str]:
        lacks = "unix sockets" if self._policy.writes_project else "network or shared memory"
        return f"a worker reaches no other programs, and has no {lacks}", ""

    def _of_path(self, paths: list[str]) -> tuple[str, str] | None:
        boundary = self._boundary
        for path in map(os.path.realpath, paths):
            if any(is_below(path, folder) for folder in boundary.never):
                return f"{path} runs with your rights later, so no worker writes it", ""
            if any(is_below(path, folder) for folder in boundary.write):
                continue
            folder = os.path.dirname(path)
            kept = [never for never in boundary.never if is_below(never, folder)]
            if kept:
                what = (
                    f"in {folder} nothing can be made or removed, as {kept[0]} has to stay there; "
                    "the folders in it are free"
                )
                return what, ""
            if any(is_below(path, folder) for folder in boundary.read):
                return f"{path} may be read only", "writable_paths"
            return f"{path} is none of its files", "readable_paths"
        return None


def _way_out(setting: str, worker: str) -> str:
    if not setting:
        return f"`%hive restart {worker} --sandbox open` takes the boundary away."
    return f"`%hive config {setting}=...`, then `%hive restart {worker}`, allows more."


def _lacks_thread(error: BaseException) -> bool:
    # the text of an exception of the user's own may be anything, or fail
    return type(error) is RuntimeError and error.args[:1] == (_NO_THREAD,)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
