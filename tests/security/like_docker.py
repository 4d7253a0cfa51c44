"""
What Docker's default seccomp profile refuses of namespaces, for this process and all its children.

The filter is the tests' own: what is tested must not stand for what it is tested against. It is
classic BPF, see ``Documentation/userspace-api/seccomp_filter.rst`` of the kernel.
"""

import ctypes
import errno
import os
import struct

_LOAD, _EQUAL, _ANY_OF, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

# Architecture (linux/audit.h), then: clone, clone3, and what is refused whatever its arguments are:
# unshare, setns, mount, umount2, pivot_root.
_MACHINES = {
    "x86_64": (0xC000003E, 56, 435, (272, 308, 165, 166, 155)),
    "aarch64": (0xC00000B7, 220, 435, (97, 268, 40, 39, 41)),
}
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x7E020000

_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVS = 22, 2, 38


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_namespaces():
    """Apply the filter; without the right to do so, for the price of no_new_privs."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(_instructions(*_MACHINES[os.uname().machine]))
    program = _Program(len(code) // 8, code)
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
            raise OSError(ctypes.get_errno(), "the filter was not taken")


def _instructions(architecture, clone, clone3, refused):
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, architecture, 1, 0)
    yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_LOAD, _NUMBER)
    for number in refused:
        yield _instruction(_EQUAL, number, 0, 1)
        yield _instruction(_RETURN, _REFUSE | errno.EPERM)
    yield _instruction(_EQUAL, clone3, 0, 1)
    yield _instruction(_RETURN, _REFUSE | errno.ENOSYS)
    yield _instruction(_EQUAL, clone, 0, 3)
    yield _instruction(_LOAD, _FIRST_ARGUMENT)
    yield _instruction(_ANY_OF, _NEW_NAMESPACES, 0, 1)
    yield _instruction(_RETURN, _REFUSE | errno.EPERM)
    yield _instruction(_RETURN, _ALLOW)


def _instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)
