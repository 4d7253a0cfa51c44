"""Why a worker's boundary or a limit refused something, in one line for the traceback."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.units import memory_option
from hive_jupyter.worker.confine import limits
from hive_jupyter.worker.confine.boundary import Boundary, is_below

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
# In place of a setting: what another profile has.
_CALLS = "network"


class Refusals:
    """
    Knows what one worker may not, and whom to ask for it.

    Args:
        policy: what it may touch.
        boundary: its paths; None: it has no boundary.
        own: folders that it has for itself, where others have another one of that name.
    """

    def __init__(
        self, policy: SandboxPolicy, boundary: Boundary | None, own: Sequence[str] = ()
    ) -> None:
        self._policy = policy
        self._boundary = boundary
        self._own = own

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
            limit = limits.reached(self._policy, one)
            if limit is not None:
                what, setting = limit
                return f"A limit of this worker: {what}. {self._way_out(setting, worker)}"
            if isinstance(one, FileNotFoundError) and (missing := self._missing(one)):
                return missing
            reason = self._reason(one)
            if reason is not None:
                what, setting = reason
                profile = self._policy.profile
                return (
                    f"The sandbox {profile} refused this: {what}. {self._way_out(setting, worker)}"
                )
        return None

    def _missing(self, error: FileNotFoundError) -> str | None:
        """What there is to say of a file that is not there, and may be for others."""
        for path in _paths(error):
            real = os.path.realpath(path)
            own = [folder for folder in self._own if is_below(real, folder)]
            if own and self._boundary and not _is_in(real, self._boundary):
                return (
                    f"{own[0]} is this worker's own: a file that you have there, it does not see. "
                    "Put it into the project, or name it in `readable_paths`."
                )
        return None

    def _reason(self, error: BaseException) -> tuple[str, str] | None:
        """What was refused, and the setting for it; "" where only another profile allows it."""
        if self._boundary is None:
            return None
        if isinstance(error, OSError) and error.errno in _REFUSED:
            paths = _paths(error)
            if paths:
                return self._of_path(self._boundary, paths, error.errno)
            if error.filename is not None:
                return None
            return self._of_connection() if error.errno == errno.EACCES else self._of_call()
        if isinstance(error, socket.gaierror) and not self._policy.writes_project:
            return self._of_call()
        return None

    def _of_path(
        self, boundary: Boundary, paths: list[str], number: int | None
    ) -> tuple[str, str] | None:
        for name in paths:
            path = os.path.realpath(name)
            folder, link = os.path.split(os.path.abspath(name))
            for place in (path, os.path.join(os.path.realpath(folder), link)):
                if any(is_below(place, kept) for kept in boundary.never):
                    return _runs_later(place)
            if any(is_below(path, folder) for folder in boundary.write):
                continue
            folder = os.path.dirname(path)
            kept = [never for never in boundary.never if is_below(never, folder)]
            if kept and any(is_below(folder, granted) for granted in boundary.granted):
                what = (
                    f"in {folder} nothing can be made or removed, as {kept[0]} has to stay there; "
                    "the folders in it are free"
                )
                return what, ""
            if any(is_below(path, folder) for folder in boundary.read):
                if any(is_below(path, kept) for kept in boundary.later):
                    return _runs_later(path)
                return f"{path} may be read only", self._with("writable_paths", path)
            if number == errno.EROFS or _is_missing(path):
                return f"{path} is none of its files", self._with("writable_paths", path)
            what = f"{path} is none of its files (writable_paths, if it was to be written)"
            return what, self._with("readable_paths", path)
        return None

    def _with(self, setting: str, path: str) -> str:
        """A setting with what it names already, and one path more."""
        policy = self._policy
        named = policy.readable if setting == "readable_paths" else policy.writable
        value = ":".join([*named, path])
        return setting if any(letter.isspace() for letter in value) else f"{setting}={value}"

    def _of_connection(self) -> tuple[str, str]:
        if not self._policy.writes_project:
            return self._of_call()
        ports = ", ".join(map(str, self._policy.connect)) or "none"
        value = ",".join([*map(str, self._policy.connect), "..."])
        return f"of TCP ports a worker may connect to {ports}", f"connect_ports={value}"

    def _of_call(self) -> tuple[str, str]:
        if not self._policy.writes_project:
            return "a worker reaches no other programs, and has no network or shared memory", _CALLS
        return "a worker reaches no other programs, and has no unix sockets", ""

    def _way_out(self, setting: str, worker: str) -> str:
        if not setting:
            return f"`%hive restart {worker} --sandbox open` takes the boundary away."
        if setting == _CALLS:
            return (
                f"`%hive restart {worker} --sandbox workspace` lets it reach TCP port 443, "
                "`--sandbox open` takes the boundary away."
            )
        if setting == "memory":
            twice = memory_option(2 * (self._policy.memory or 0))
            return f"`%hive restart {worker} --memory {twice}` gives it more."
        command = setting if "=" in setting else f"{setting}=..."
        return f"`%hive config {command}`, then `%hive restart {worker}`, allows more."


def _runs_later(path: str) -> tuple[str, str]:
    return f"{path} runs with your rights later, so no worker writes it", ""


def _paths(error: OSError) -> list[str]:
    names = (error.filename, error.filename2)
    return [os.fsdecode(name) for name in names if isinstance(name, str | bytes)]


def _is_missing(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_in(path: str, boundary: Boundary) -> bool:
    return any(is_below(path, folder) for folder in (*boundary.read, *boundary.write))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
