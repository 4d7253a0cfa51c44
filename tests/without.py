"""
Take something away from this process and from all that it starts, as old kernels or containers do.

::

    python -I -S without.py WHAT[,WHAT...] PROGRAM [ARGUMENT ...]

The filter is the tests' own, since what is tested must not stand for what it is tested against. It
is classic BPF; see ``Documentation/userspace-api/seccomp_filter.rst`` of the kernel.
"""

import ctypes
import errno
import os
import struct
import sys

_LOAD, _EQUAL, _ANY_OF, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_X86 = os.uname().machine == "x86_64"
_AUDIT_ARCHITECTURE = 0xC000003E if _X86 else 0xC00000B7
# Numbers of system calls: on x86_64, and on aarch64.
_CALLS = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "landlock_create_ruleset": (444, 444),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "seccomp": (317, 277),
    "setns": (308, 268),
    "umount2": (166, 39),
    "unshare": (272, 97),
}
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x7E020000

_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVS = 22, 2, 38

# What each call fails with. The filters themselves are set by prctl(2), which stays.
_DENIALS = {
    "landlock": {"landlock_create_ruleset": errno.ENOSYS},
    "namespaces": {
        **dict.fromkeys(("unshare", "setns", "mount", "umount2", "pivot_root"), errno.EPERM),
        "clone3": errno.ENOSYS,
    },
    "seccomp": {"seccomp": errno.ENOSYS},
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def take_away(what):
    """Apply a filter to this thread; without the right to do so, for the price of no_new_privs."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(_instructions(what))
    program = _Program(len(code) // 8, code)
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
            raise OSError(ctypes.get_errno(), "the filter was not taken")


def _instructions(what):
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_EQUAL, _AUDIT_ARCHITECTURE, 1, 0)
    yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_LOAD, _NUMBER)
    for name, error in _DENIALS[what].items():
        yield _instruction(_EQUAL, _number(name), 0, 1)
        yield _instruction(_RETURN, _REFUSE | error)
    if what == "namespaces":
        yield _instruction(_EQUAL, _number("clone"), 0, 3)
        yield _instruction(_LOAD, _FIRST_ARGUMENT)
        yield _instruction(_ANY_OF, _NEW_NAMESPACES, 0, 1)
        yield _instruction(_RETURN, _REFUSE | errno.EPERM)
    yield _instruction(_RETURN, _ALLOW)


def _number(name):
    return _CALLS[name][not _X86]


def _instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        take_away(each)
    os.execvp(sys.argv[2], sys.argv[2:])
