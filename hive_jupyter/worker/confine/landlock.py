"""
Landlock: this thread and all that it starts reach no more files and TCP ports than granted here.

What it is, right by right: ``Documentation/userspace-api/landlock.rst`` of the kernel, landlock(7).
It holds for the thread that asks and for what that starts later, so it is applied before any other
thread exists, and needs ``no_new_privs``. What each ABI brought:

=== ====== ==========================================================================
ABI Linux  adds
=== ====== ==========================================================================
1   5.13   files: reading, writing, executing, making, removing
2   5.19   moving and linking between folders; before, that is refused throughout
3   6.2    truncating; before, ``seccomp`` refuses it by path
4   6.7    TCP ports
5   6.10   ioctl on devices
6   6.12   scopes: signals, abstract unix sockets; before, see ``seccomp``
7   6.15   refusals can be kept out of the system's log
=== ====== ==========================================================================

From ABI 1 on, processes that are not below this one cannot be traced either, nor what ``/proc``
shows to who could trace them be read: memory, environment, descriptors.

It does not hold back: looking at a path's metadata, where a link leads, and what happens there
(stat, readlink, inotify); chmod, chown, utime and extended attributes of the user's own files;
connecting to a unix socket by its path; UDP; and descriptors that were open before. What a file
system does by ioctl it is not asked about either: see ``seccomp``.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Collection, Iterable

from hive_jupyter.worker.confine import system_calls

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH, _NET_PORT = 1, 2

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_MAKE_CHAR = 1 << 6
_MAKE_BLOCK = 1 << 11
_ABI_1 = (1 << 13) - 1
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15

_CONNECT_TCP = 1 << 1
_SINCE_SIGNALS, _SINCE_LOGS = 6, 7
_UNLOGGED = 1 << 0  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF
_SCOPE_SIGNALS = 1 << 1
_SCOPES = 1 << 0 | _SCOPE_SIGNALS  # and abstract unix sockets

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _ABI_1 & ~(_MAKE_CHAR | _MAKE_BLOCK) | _REFER | _TRUNCATE | _IOCTL_DEV
_ON_FILES = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV

# openat2(2). What can be written may be in the hands of a worker: a link in its place is no grant.
_RESOLVE_NO_SYMLINKS = 0x04
_PLACE = getattr(os, "O_PATH", 0) | os.O_CLOEXEC  # this is imported elsewhere than on Linux, too
_FOLLOWING_LINKS = struct.pack("<QQQ", _PLACE, 0, 0)
_WITHOUT_LINKS = struct.pack("<QQQ", _PLACE, 0, _RESOLVE_NO_SYMLINKS)
_AT_FDCWD = -100

# What stands at such a path is out of reach anyway.
_PASSED_OVER = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP)


def abi() -> int:
    """The version of Landlock that this kernel offers; 0 where there is none."""
    try:
        return system_calls.call("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def restrict(*, read: Iterable[str], write: Iterable[str], connect: Collection[int] | None) -> None:
    """
    Grant what is named and, as far as this kernel's ABI goes, nothing else, for good.

    Paths that do not exist are passed over.

    Args:
        read: files and folders to be read and executed, with all below.
        write: those to be changed, too: free of symbolic links (``os.path.realpath``), others are
            passed over. Devices cannot be made, and need to be named themselves for ioctl.
        connect: TCP ports to which connections may be made; None: to all.

    Raises:
        OSError: this kernel has no Landlock, or ``no_new_privs`` is not set.
    """
    version = abi()
    network = version >= 4 and connect is not None
    attributes = struct.pack(
        "<QQQ",
        _handled_files(version),
        _CONNECT_TCP if network else 0,
        _SCOPES if version >= _SINCE_SIGNALS else 0,
    )
    size = 24 if version >= _SINCE_SIGNALS else 16 if version >= 4 else 8
    ruleset = system_calls.call("landlock_create_ruleset", attributes, size, 0)
    try:
        for path in read:
            _grant(ruleset, path, _FOLLOWING_LINKS, _READ)
        for path in write:
            _grant(ruleset, path, _WITHOUT_LINKS, _WRITE & _handled_files(version))
        for port in connect if network and connect else ():
            rule = struct.pack("<QQ", _CONNECT_TCP, port)
            system_calls.call("landlock_add_rule", ruleset, _NET_PORT, rule, 0)
        system_calls.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def keep_signals_below() -> bool:
    """
    Have this process, and what it starts, signal nobody but what it starts, for good.

    Needs ``no_new_privs``.

    Returns:
        Whether that is so now. It is tried: before, the parent could be signalled.
    """
    parent = os.getppid()
    if abi() < _SINCE_SIGNALS or _refusal_of_signal(parent) is not None:
        return False
    attributes = struct.pack("<QQQ", _REFER, 0, _SCOPE_SIGNALS)
    ruleset = system_calls.call("landlock_create_ruleset", attributes, len(attributes), 0)
    # a signal to all that can be reached is refused for each of the others: no line in a log each
    flags = _UNLOGGED if abi() >= _SINCE_LOGS else 0
    try:
        # every ruleset refuses to move files between folders but where it grants that
        _grant(ruleset, "/", _FOLLOWING_LINKS, _REFER)
        system_calls.call("landlock_restrict_self", ruleset, flags)
    finally:
        os.close(ruleset)
    return _refusal_of_signal(parent) == errno.EPERM


def _refusal_of_signal(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno
    return None


def _handled_files(version: int) -> int:
    """All rights on files that this ABI knows."""
    later = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
    return _ABI_1 | sum(right for since, right in later.items() if version >= since)


def _grant(ruleset: int, path: str, how: bytes, rights: int) -> None:
    try:
        descriptor = system_calls.call("openat2", _AT_FDCWD, os.fsencode(path), how, len(how))
    except OSError as error:
        if error.errno in _PASSED_OVER:
            return
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        # A folder's devices are not named: no ioctl on them. A file has no other rights than these.
        rights &= ~_IOCTL_DEV if stat.S_ISDIR(mode) else _ON_FILES
        rule = struct.pack("<Qi", rights, descriptor)
        system_calls.call("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
