"""
Namespaces: a worker with processes, mounts, shared memory and /proc of its own.

See namespaces(7), user_namespaces(7), pid_namespaces(7), mount_namespaces(7). A user namespace lets
anybody make the others, where the machine allows it: inside, one has all capabilities, over what
belongs to the new namespaces and nothing else. The mounts of ``arrange`` stay as they are for who
has given them up (``capabilities.drop``).

The way: ``clone`` in a process with one thread, ``arrange`` (and ``leave_network``) in its child
while it still has its capabilities.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import stat
import struct
import traceback
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from hive_jupyter.worker.confine import prctl, system_calls

# sched.h
_NEW_MOUNTS = 0x00020000
_NEW_IPC = 0x08000000
_NEW_USER = 0x10000000
_NEW_PIDS = 0x20000000
_NEW_NETWORK = 0x40000000

# From sys/mount.h; the structure of mount_setattr(2).
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_BIND, _RECURSIVE = 4096, 16384
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_RDONLY = 1  # MOUNT_ATTR_RDONLY

# See netdevice(7).
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (these are what a worker is to see less of)
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108

# Unlike CDLL, it keeps the interpreter's lock during a call, as os.fork does.
_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long


@dataclass(frozen=True)
class Mounts:
    """
    What is to be seen where, and what can be changed; all paths without symbolic links.

    Attributes:
        writable: files and folders that can be changed, with all below; all others cannot.
        read_only: what lies in these and cannot be changed nevertheless, nor moved away.
        temporary: the folder that is shown as /tmp and as /var/tmp.
        keep: what lies below these and stays in its place.
        shm_size: bytes that /dev/shm may hold.
    """

    writable: tuple[str, ...]
    read_only: tuple[str, ...]
    temporary: str
    keep: tuple[str, ...]
    shm_size: int


def clone() -> int:
    """
    Fork a child into new user, mount, process and IPC namespaces.

    The child is PID 1 of its own, with a fresh /proc; its end takes all others there with it. It
    keeps its user and group, the only ones there are inside, and has all capabilities there. What
    it mounts is seen by nobody else. Its parent counts as pid 0, also for ``getppid``.

    Only for a process with one thread: another thread's locks would stay closed in the child, and
    this is not the C library's fork, which opens its own.

    Returns:
        0 in the child, the child's pid in the parent. A child that could not be set up says why on
        stderr and ends with status 1.

    Raises:
        OSError: there may be no such namespaces here. ``work`` tells beforehand.
    """
    user, group = os.geteuid(), os.getegid()
    pid = _fork()
    if pid == 0:
        try:
            _begin(user, group)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def work() -> bool:
    """
    Try in a child whether ``clone`` and ``arrange`` work here.

    They may not: a container, a setting (``user.max_user_namespaces``), a security module or a
    kernel before 5.12 forbids it, some not before something is mounted.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        pid = _fork()
    except OSError:
        return False
    if pid == 0:
        status = 1
        try:
            _begin(user, group)
            _divide((), ())
            status = 0 if os.statvfs("/etc").f_flag & os.ST_RDONLY else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def arrange(mounts: Mounts) -> None:
    """
    Mount what a worker is to see; in the child of ``clone``, which then stands in ``/``.

    What is open already, folders above all, still leads to what was there before.

    Raises:
        OSError: something could not be mounted.
    """
    _divide(mounts.writable, mounts.read_only)
    if os.path.isdir(_SHARED_MEMORY):
        options = f"size={mounts.shm_size},mode=1777"
        _mount("tmpfs", _SHARED_MEMORY, _NOSUID | _NODEV, kind="tmpfs", options=options)
    with ExitStack() as opened:
        # Opened first: what is mounted over /tmp hides what is below.
        temporary = _open(mounts.temporary, opened)
        # On some systems one of the two is a link to the other.
        folders = {os.path.realpath(path) for path in TEMPORARY if os.path.isdir(path)}
        kept = {folder: _opened_below(folder, mounts.keep, opened) for folder in folders}
        for folder in folders:
            if not any(f"{folder}/".startswith(f"{path}/") for path in mounts.keep):
                _show_instead(folder, temporary, kept[folder])
    os.chdir("/")


def leave_network() -> None:
    """
    Move this process into a network namespace in which there is nothing but itself (``lo``).

    Raises:
        OSError: this process has no capabilities, or the machine has no such namespaces.
    """
    system_calls.call("unshare", _NEW_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def _fork() -> int:
    """Do what ``os.fork`` does, by clone(2)."""
    number = None
    if system_calls.MACHINE is not None:
        number = system_calls.number("clone", system_calls.MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"clone: {os.strerror(errno.ENOSYS)}")
    flags = _NEW_USER | _NEW_MOUNTS | _NEW_PIDS | _NEW_IPC | signal.SIGCHLD
    words = [ctypes.c_long(word) for word in (number, flags, 0, 0, 0, 0)]
    _python.PyOS_BeforeFork()
    pid: int = _python.syscall(*words)
    code = ctypes.get_errno()
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def _begin(user: int, group: int) -> None:
    """Map the ids, without which a child is nobody, and mount the new processes' /proc."""
    with prctl.dumpable():
        for name, text in (
            ("setgroups", "deny"),  # a group may serve to exclude: nobody may leave one
            ("gid_map", f"{group} {group} 1"),
            ("uid_map", f"{user} {user} 1"),
        ):
            with open(f"/proc/self/{name}", "wb", buffering=0) as file:
                file.write(text.encode())
    _mount("proc", "/proc", _NOSUID | _NODEV | _NOEXEC, kind="proc")


def _mount(source: str, target: str, flags: int, *, kind: str = "", options: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind, options)]
    try:
        system_calls.call("mount", *words[:3], flags, words[3])
    except OSError as error:
        error.filename = target
        raise


def _open(path: str, opened: ExitStack) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return descriptor


def _divide(writable: Iterable[str], read_only: Iterable[str]) -> None:
    """
    Make everything read-only but what is writable, and in that what is not.

    Each becomes a mount of its own, as do the folders on the way from the one to the other: a mount
    point cannot be moved or removed, and what lies behind it stays where it is.
    """
    own = frozenset(writable)
    changeable = {path: path in own for path in (*own, *read_only)}
    for path in read_only:
        on_the_way = [str(folder) for folder in Path(path).parents]
        tops = [folder for folder in on_the_way if folder in own]
        if tops:
            nearest = on_the_way.index(tops[0])
            changeable |= dict.fromkeys(on_the_way[:nearest], True)
    paths = sorted(changeable, key=len)
    for path in paths:
        _mount(path, path, _BIND | _RECURSIVE)
    _set_read_only("/")
    for path in paths:
        if changeable[path]:
            _set_writable(path)
        else:
            _set_read_only(path)


def _set_read_only(path: str) -> None:
    _set_attributes(path, _AT_RECURSIVE, set_=_RDONLY)


def _set_writable(path: str) -> None:
    """What has been read-only outside stays so, with whatever is mounted below."""
    for depth in (_AT_RECURSIVE, 0):
        with suppress(PermissionError):
            _set_attributes(path, depth, clear=_RDONLY)
            return


def _set_attributes(path: str, depth: int, *, set_: int = 0, clear: int = 0) -> None:
    """Unlike a remount, this need not name the flags that the mounts have to keep."""
    attributes = struct.pack("<4Q", set_, clear, 0, 0)
    where = os.fsencode(path)
    system_calls.call("mount_setattr", _AT_FDCWD, where, depth, attributes, len(attributes))


def _opened_below(folder: str, paths: Iterable[str], opened: ExitStack) -> dict[str, int]:
    """Those of the paths that lie in a folder, opened; what is in another one comes with it."""
    found: dict[str, int] = {}
    for path in sorted(paths, key=len):
        lies_here = path.startswith(f"{folder}/") and os.path.exists(path)
        if lies_here and not any(path.startswith(f"{other}/") for other in found):
            found[path] = _open(path, opened)
    return found


def _show_instead(folder: str, shown: int, kept: Mapping[str, int]) -> None:
    """Show another folder in place of this one, and in it, at its place, what is kept."""
    _mount(f"/proc/self/fd/{shown}", folder, _BIND | _RECURSIVE)
    for path, descriptor in kept.items():
        _make_place(path, folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
        _mount(f"/proc/self/fd/{descriptor}", path, _BIND | _RECURSIVE)


def _make_place(path: str, *, folder: bool) -> None:
    """What something is mounted on has to be there, and of its kind."""
    os.makedirs(path if folder else os.path.dirname(path), exist_ok=True)
    if not folder:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
