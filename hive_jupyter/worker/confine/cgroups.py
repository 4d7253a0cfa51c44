"""
A control group of the worker's own, where the kernel keeps the sums, if a place was delegated.

See ``Documentation/admin-guide/cgroup-v2.rst`` of the kernel (version 2 alone), and
https://systemd.io/CGROUP_DELEGATION for what systemd asks of others.

A group that holds processes cannot have limited groups in it ("No Internal Process Constraint"), so
the worker's is made beside that of its host, in the parent of both, if that was handed over: by
systemd, which marks it (``Delegate=yes`` with ``DelegateSubgroup=``), or as the top of a container
whose processes were moved one level down. Anywhere else the worker might leave a limit that
somebody else has set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from hive_jupyter import procfs
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker.confine import system_calls

_PREFIX = "hive-"
_AT_FDCWD = -100
_CLONE = 1  # of open_tree(2)


def make(policy: SandboxPolicy) -> Group | None:
    """A group with a policy's limits; None where no place for it was delegated."""
    place = _delegated_place()
    if place is None:
        return None
    try:
        _remove_abandoned(place)
        return Group(place, f"{_PREFIX}{os.urandom(8).hex()}", policy)
    except OSError:
        return None


class Group:
    """
    The group of one worker.

    Args:
        place: the folder of the group that it is made in.
        name: its own.
        policy: with its limits.

    Attributes:
        kept: names of the policy's limits that the kernel keeps for the group as a whole.

    Raises:
        OSError: there can be no such group.
    """

    def __init__(self, place: str, name: str, policy: SandboxPolicy) -> None:
        self._name = name
        self._place = _opened_apart(place)
        for controller in ("memory", "pids"):
            with contextlib.suppress(OSError):
                _write(self._place, "cgroup.subtree_control", f"+{controller}")
        os.mkdir(name, dir_fd=self._place)
        self._own = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._place)
        fcntl.flock(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.kept = frozenset(self._limit(policy))

    def _limit(self, policy: SandboxPolicy) -> list[str]:
        kept = []
        with contextlib.suppress(OSError):
            if policy.processes is not None:
                _write(self._own, "pids.max", str(policy.processes))
                kept.append("processes")
        with contextlib.suppress(OSError):
            if policy.memory is not None:
                _write(self._own, "memory.max", str(policy.memory))
                # where it is reached, all of the group ends
                _write(self._own, "memory.oom.group", "1")
                kept.append("memory")
                _write(self._own, "memory.swap.max", "0")
        return kept

    def enter(self) -> None:
        """Move this process into the group; what it starts from now on is in it, too."""
        _write(self._own, "cgroup.procs", "0")

    def kill(self) -> None:
        """End all that is in it at once; no fork gets away."""
        with contextlib.suppress(OSError):
            _write(self._own, "cgroup.kill", "1")

    def memory_used(self) -> int | None:
        """Bytes that it used at most, where the kernel has ended it for that; else None."""
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in _read(self._own, "memory.events").splitlines())
            if "0" not in (events["oom"], events["oom_kill"]):
                return int(_read(self._own, "memory.peak"))
        return None

    def remove(self) -> None:
        """Remove it, with nobody in it."""
        with contextlib.suppress(OSError):
            os.rmdir(self._name, dir_fd=self._place)


def _remove_abandoned(place: str) -> None:
    """Groups whose supervisor was killed: nobody holds their lock, and nobody is in them."""
    for name in os.listdir(place):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                group = os.path.join(place, name)
                descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.rmdir(group)
                finally:
                    os.close(descriptor)


def _delegated_place() -> str | None:
    """The folder of the group above that of this process, where it was handed over."""
    own, top = _own_group(), _mount_point()
    if own in (None, "/") or top is None:
        return None
    place = os.path.dirname(f"{top}{own}")
    if not all(os.access(os.path.join(place, name), os.W_OK) for name in ("", "cgroup.procs")):
        return None
    # that of the whole machine has no type
    is_top_of_container = place == top and os.path.exists(os.path.join(place, "cgroup.type"))
    return place if is_top_of_container or _is_marked(place) else None


def _opened_apart(folder: str) -> int:
    """A descriptor of a folder that stays as it is where all will be mounted read-only."""
    try:
        return system_calls.call("open_tree", _AT_FDCWD, os.fsencode(folder), _CLONE | os.O_CLOEXEC)
    except OSError:  # without namespaces nothing will be
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _own_group() -> str | None:
    """Its path, as this process is told it: "/" is the top that it may know of."""
    with contextlib.suppress(OSError):
        for line in procfs.lines("/proc/self/cgroup"):
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:])
    return None


def _mount_point() -> str | None:
    with contextlib.suppress(OSError):
        for line in procfs.lines("/proc/self/mountinfo"):
            words = line.split(b" ")
            if words[words.index(b"-") + 1] == b"cgroup2" and words[3] == b"/":
                return os.fsdecode(words[4])
    return None


def _is_marked(place: str) -> bool:
    try:
        return os.getxattr(place, "user.delegate") == b"1"
    except OSError:
        return False


def _write(folder: int, name: str, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(descriptor, 4096).decode()
    finally:
        os.close(descriptor)
