"""
seccomp: which system calls this process, and all that it starts, may still make.

The kernel's side: ``Documentation/userspace-api/seccomp_filter.rst``, seccomp(2); the little
machine that a filter is written for: ``Documentation/networking/filter.rst``. A filter sees the
number of a call and its six arguments, but not what an argument points to: neither paths nor
addresses. Those are for Landlock and for namespaces; what goes around these two is refused here.

There are two filters. The first holds while the kernel starts and binds its sockets. The second
says which sockets there may be from then on, in all threads at once.

What is refused fails with EPERM, or with ENOSYS where programs know another way. Calls newer than
this file fail with ENOSYS as well: nobody has thought about them yet.

Signals are scoped by Landlock from its ABI 6 on. Below, this filter refuses those to the processes
above the worker and to all at once (``kill(-1)``). It cannot tell the worker's own children from
other processes of the user, nor a thread of such a process from anything else: these can be
signalled, unless a pid namespace hides them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hive_jupyter import procfs
from hive_jupyter.worker.confine import landlock, system_calls

_SET_MODE_FILTER = 1
_GET_ACTION_AVAIL = 2
_TSYNC = 1
# Code in a worker has no secrets in its own process to keep from itself; kernels before 5.16 would
# slow down all that computes, against speculation.
_SPEC_ALLOW = 4

_ALLOW = 0x7FFF0000
_KILL = 0x80000000  # the whole process
_ERRNO = 0x00050000
_EPERM = _ERRNO | errno.EPERM
_ENOSYS = _ERRNO | errno.ENOSYS
_PRETEND = _ERRNO | 0  # the call is not made, and says that it succeeded

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class Test(NamedTuple):
    """
    One word of an argument compared.

    Attributes:
        word: which of the twelve 32-bit words of the six arguments, the lower half first.
        mask: the bits that count.
        value: what they are compared to.
        equal: whether they are to be equal, or to differ.
    """

    word: int
    mask: int
    value: int
    equal: bool


class Rule(NamedTuple):
    """What is to happen where all tests hold; of a call's rules, the first such is taken."""

    action: int
    tests: tuple[Test, ...] = ()


_ALL = 0xFFFFFFFF

Rules = Mapping[str, Sequence[Rule]]


def _is(argument: int, value: int, mask: int = _ALL) -> Test:
    return Test(2 * argument, mask, value & _ALL, equal=True)


def _is_not(argument: int, value: int, mask: int = _ALL) -> Test:
    return Test(2 * argument, mask, value & _ALL, equal=False)


def _has(argument: int, bits: int) -> Test:
    return Test(2 * argument, bits, 0, equal=False)


# Never needed by what a worker runs, whatever the arguments.
_REFUSED = (
    # the memory, the descriptors and the life of other processes
    "get_robust_list kcmp pidfd_getfd pidfd_send_signal process_madvise process_mrelease "
    "process_vm_readv process_vm_writev ptrace "
    # another view of the file system, or a way beside every view
    "chroot fanotify_init fanotify_mark fsconfig fsmount fsopen fspick mount mount_setattr "
    "move_mount open_by_handle_at open_tree open_tree_attr pivot_root setns umount2 unshare "
    # the user's keys; large and old doors into the kernel
    "add_key bpf keyctl lookup_dcookie modify_ldt perf_event_open request_key uselib userfaultfd "
    "vmsplice "
    # the administrator's
    "_sysctl acct clock_settime create_module delete_module finit_module get_kernel_syms "
    "init_module ioperm iopl kexec_file_load kexec_load nfsservctl query_module quotactl "
    "quotactl_fd reboot setdomainname sethostname settimeofday swapoff swapon syslog vhangup"
)

# Programs look for another way where a kernel does not have these.
_ABSENT = (
    # requests are made through memory, where no filter sees them
    "io_uring_enter io_uring_register io_uring_setup "
    # the flags of clone can be seen, those of clone3 cannot
    "clone3 "
    # memory that nobody counts
    "memfd_secret "
    # found by numbers and names that all processes of a user share
    "mq_open mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl "
    "shmdt shmget"
)

# sched.h: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x70000000
_CLONE_PARENT = 0x00008000
# ioctl: TIOCSTI and TIOCLINUX, into a terminal and a console; FIOSETOWN, SIOCSPGRP.
_TYPING, _OWNING = (0x5412, 0x541C), (0x8901, 0x8902)
# What a folder or file is changed by that is open for reading, and Landlock is not asked about. Of
# btrfs, subvolumes: a package among others, say, where every interpreter looks; but copies of
# files need them open for writing (FICLONE, FICLONERANGE, FIDEDUPERANGE). Of all file systems:
# encryption (a policy, keys) and verity, which make files unreadable and immutable.
_BTRFS = 0x94
_CLONES = (0x40049409, 0x4020940D, 0xC0189436)
_SEALING = (0x800C6613, 0xC0506617, 0xC0406618, 0xC0406619, 0x40806685)
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_SET_PDEATHSIG, _SIGKILL, _SET_MM, _SCHED_CORE, _SET_PTRACER = 1, 9, 35, 62, 0x59616D61
_SET_DUMPABLE = 4
_PRIO_USER, _IOPRIO_WHO_USER = 2, 3
_PERSONALITY_LINUX, _PERSONALITY_ASK = 0, 0xFFFFFFFF
_SET_USER_ID = 0o4000


def _rules_of_all_workers() -> Rules:
    return {
        **{name: [Rule(_EPERM)] for name in _REFUSED.split()},
        **{name: [Rule(_ENOSYS)] for name in _ABSENT.split()},
        # A child of the worker's parent would not be below the worker.
        "clone": [Rule(_EPERM, (_has(0, _NEW_NAMESPACES | _CLONE_PARENT),))],
        # Signals to whom a descriptor belongs to.
        "fcntl": [Rule(_EPERM, (_is(1, each),)) for each in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX)],
        "ioctl": [
            *(Rule(_ALLOW, (_is(1, each),)) for each in _CLONES),
            Rule(_EPERM, (_is(1, _BTRFS << 8, 0xFF << 8),)),
            *(Rule(_EPERM, (_is(1, each),)) for each in (*_TYPING, *_OWNING, *_SEALING)),
        ],
        "prctl": [
            # The end of the parent stays the end of the worker. Launchers ask for other signals, in
            # children of theirs, and raise where that fails (torch.multiprocessing.spawn).
            Rule(_PRETEND, (_is(0, _SET_PDEATHSIG), _is_not(1, _SIGKILL))),
            # Its supervisor sees what it holds. Programs with secrets do this, and end if it fails.
            Rule(_PRETEND, (_is(0, _SET_DUMPABLE), _is(1, 0))),
            *(Rule(_EPERM, (_is(0, each),)) for each in (_SET_MM, _SCHED_CORE, _SET_PTRACER)),
        ],
        "personality": [
            Rule(_EPERM, (_is_not(0, _PERSONALITY_LINUX), _is_not(0, _PERSONALITY_ASK)))
        ],
        # A program by which others would act as this user.
        "chmod": [Rule(_EPERM, (_has(1, _SET_USER_ID),))],
        "fchmod": [Rule(_EPERM, (_has(1, _SET_USER_ID),))],
        "fchmodat": [Rule(_EPERM, (_has(2, _SET_USER_ID),))],
        "fchmodat2": [Rule(_EPERM, (_has(2, _SET_USER_ID),))],
    }


def _rules_beside_landlock(abi: int) -> Rules:
    """What Landlock of this ABI leaves open and can be told from the arguments."""
    if abi not in {1, 2}:
        return {}

    def truncates_unwritten(flags: int) -> Rule:
        writes = (_is_not(flags, mode, os.O_ACCMODE) for mode in (os.O_WRONLY, os.O_RDWR))
        return Rule(_EPERM, (_has(flags, os.O_TRUNC), *writes))

    # Truncating needs no right of Landlock's: not by path, nor while opening without writing, which
    # openat2 asks for in a struct.
    return {
        "truncate": [Rule(_EPERM)],
        "open": [truncates_unwritten(1)],
        "openat": [truncates_unwritten(2)],
        "openat2": [Rule(_ENOSYS)],
    }


def _rules_about_others(own: int, above: Sequence[int]) -> Rules:
    """What may be done to the worker itself, but to nobody else."""

    def others(argument: int) -> tuple[Test, ...]:
        return (_is_not(argument, 0), _is_not(argument, own))

    rules: dict[str, Sequence[Rule]] = {
        # A new limit for somebody else; to ask for one is harmless.
        "prlimit64": [
            Rule(_EPERM, (*others(0), Test(4, _ALL, 0, equal=False))),
            Rule(_EPERM, (*others(0), Test(5, _ALL, 0, equal=False))),
        ],
        "setpriority": [Rule(_EPERM, (_is(0, _PRIO_USER),)), Rule(_EPERM, others(1))],
        "ioprio_set": [Rule(_EPERM, (_is(0, _IOPRIO_WHO_USER),)), Rule(_EPERM, others(1))],
        "migrate_pages": [Rule(_EPERM, others(0))],
        "move_pages": [Rule(_EPERM, others(0))],
        # Libraries do this to threads of their own, by number, and libzmq ends the process where
        # that fails.
        "sched_setaffinity": [Rule(_PRETEND, others(0))],
        "sched_setattr": [Rule(_PRETEND, others(0))],
        "sched_setparam": [Rule(_PRETEND, others(0))],
        "sched_setscheduler": [Rule(_PRETEND, others(0))],
    }
    refused = [Rule(_EPERM, (_is(0, pid),)) for pid in (-1, *above, *(-pid for pid in above))]
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        rules[name] = refused
    return rules


_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_STREAM, _DGRAM, _SEQPACKET, _KIND = 1, 2, 5, 0xF
_TCP, _UDP, _NETLINK_ROUTE = 6, 17, 0
_MSG_FASTOPEN = 0x20000000
_TCP_FASTOPEN_CONNECT, _TCP_ULP = 30, 31


def rules_of_sockets(*, internet: bool) -> Rules:
    """
    Part two.

    Without internet no socket can be made, and none that was there before be pointed elsewhere: a
    TCP listener can be turned back (``shutdown``) and connected. An address given to sendto or
    sendmsg needs no rule: of the sockets that a worker can hold, all but UDP's are connected or
    refuse it, and netlink's talks to the kernel alone. libzmq and the C library need it, to ask for
    the machine's own addresses.
    """
    kinds = ((_STREAM, 0), (_STREAM, _TCP), (_DGRAM, 0), (_DGRAM, _UDP)) if internet else ()
    fast_open = [Rule(_EPERM, (_has(flags, _MSG_FASTOPEN),)) for flags in (2, 3)]
    rules = {
        "socket": [
            *(
                Rule(_ALLOW, (_is(0, family), _is(1, kind, _KIND), _is(2, protocol)))
                for family in (_AF_INET, _AF_INET6)
                for kind, protocol in kinds
            ),
            Rule(_ALLOW, (_is(0, _AF_NETLINK), _is(2, _NETLINK_ROUTE))),
            Rule(_EPERM),
        ],
        # A pair of datagram sockets would send to any path.
        "socketpair": [
            *(
                Rule(_ALLOW, (_is(0, _AF_UNIX), _is(1, kind, _KIND)))
                for kind in (_STREAM, _SEQPACKET)
            ),
            Rule(_EPERM),
        ],
        # A connection made by sending is none that Landlock sees.
        "sendmsg": fast_open[:1],
        "sendto": fast_open[1:],
        "sendmmsg": fast_open[1:],
        "setsockopt": [
            Rule(_ERRNO | errno.ENOPROTOOPT, (_is(1, _TCP), _is(2, option)))
            for option in (_TCP_FASTOPEN_CONNECT, _TCP_ULP)
        ],
    }
    if not internet:
        rules["connect"] = [Rule(_EPERM)]
    return rules


# Berkeley packet filter: load a word of ``struct seccomp_data``; compare; end.
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GREATER, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16


def _instruction(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def system_calls_filter(machine: str, *, abi: int, own: int, above: Sequence[int]) -> bytes:
    """
    Part one.

    Args:
        machine: "x86_64" or "aarch64".
        abi: of Landlock; what it leaves open and can be told from arguments is refused here.
        own: pid of the worker, which may name itself where it may not name others.
        above: pids that it may not signal.

    Returns:
        As ``assemble``.
    """
    rules = {**_rules_beside_landlock(abi), **_rules_about_others(own, above)}
    return _program(machine, _blocks_of_all_workers(machine) + _blocks(machine, rules))


def assemble(machine: str, rules: Rules) -> bytes:
    """
    Write a filter for the kernel.

    Args:
        machine: "x86_64" or "aarch64".
        rules: by the names of system calls; a call without rules, or of whose rules none holds, is
            allowed. Calls newer than the table of numbers, and so those of the x32 ABI, are not.

    Returns:
        The program, an array of ``struct sock_filter``. Calls of another machine's ABI (x86_64
        runs 32-bit programs) end the process.
    """
    return _program(machine, _blocks(machine, rules))


def _program(machine: str, blocks: bytes) -> bytes:
    begin = (
        _instruction(_LOAD, _AT_ARCH),
        _instruction(_JUMP_EQUAL, _AUDIT_ARCH[machine], yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _AT_NUMBER),
        _instruction(_JUMP_GREATER, system_calls.NEWEST, no=1),
        _instruction(_RETURN, _ENOSYS),
    )
    return b"".join((*begin, blocks, _instruction(_RETURN, _ALLOW)))


@functools.cache
def _blocks_of_all_workers(machine: str) -> bytes:
    return _blocks(machine, _rules_of_all_workers())


def _blocks(machine: str, rules: Rules) -> bytes:
    return b"".join(
        _block(number, rules[name])
        for name in rules
        if (number := system_calls.number(name, machine)) is not None
    )


def _block(number: int, rules: Sequence[Rule]) -> bytes:
    body = b"".join(map(_rule, rules))
    if rules[-1].tests:
        body += _instruction(_RETURN, _ALLOW)
    return _instruction(_JUMP_EQUAL, number, no=len(body) // 8) + body


def _rule(rule: Rule) -> bytes:
    code = _instruction(_RETURN, rule.action)
    for test in reversed(rule.tests):
        past = len(code) // 8
        code = (
            _instruction(_LOAD, _AT_ARGUMENTS + 4 * test.word)
            + (b"" if test.mask == _ALL else _instruction(_AND, test.mask))
            + _instruction(_JUMP_EQUAL, test.value, *((0, past) if test.equal else (past, 0)))
            + code
        )
    return code


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Whether this kernel takes filters, on a machine that they are written for."""
    if system_calls.MACHINE is None:
        return False
    try:
        system_calls.call("seccomp", _GET_ACTION_AVAIL, 0, struct.pack("<I", _KILL))
    except OSError:
        return False
    return True


def restrict_system_calls() -> None:
    """
    Refuse what a worker never needs, in this thread and in all that it starts, for good.

    To be called before there are other threads, after ``no_new_privs``; below ABI 6 of Landlock
    while the processes above can still be looked up in ``/proc``.

    Raises:
        OSError: the kernel takes no filter.
    """
    abi = landlock.abi()
    above = _processes_above() if abi < 6 else ()
    machine = _machine()
    _install(system_calls_filter(machine, abi=abi, own=os.getpid(), above=above), flags=0)


def restrict_sockets(*, internet: bool) -> None:
    """
    Say which sockets there may be from now on, in all threads of this process, for good.

    Those that are open and bound go on: they accept, receive and send.

    Args:
        internet: whether there may be TCP and UDP sockets. Ports are Landlock's matter. Without,
            no connection can be made. With or without, there are pairs of unix sockets and what
            tells the machine's own addresses (netlink), but no unix sockets that have an address.

    Raises:
        OSError: the kernel takes no filter.
    """
    _install(assemble(_machine(), rules_of_sockets(internet=internet)), flags=_TSYNC)


def _machine() -> str:
    if system_calls.MACHINE is None:
        raise OSError(errno.ENOSYS, f"no seccomp filter for this machine ({os.uname().machine})")
    return system_calls.MACHINE


def _processes_above() -> list[int]:
    """The parent, its parent and so on: of those that a filter has room for, the nearest."""
    found: list[int] = []
    pid = os.getppid()
    while pid and len(found) < 16:
        found.append(pid)
        stat = procfs.read_stat(pid)
        pid = stat.parent if stat else 0
    return found


def _install(code: bytes, *, flags: int) -> None:
    program = _Program(len(code) // 8, code)
    thread = system_calls.call("seccomp", _SET_MODE_FILTER, flags | _SPEC_ALLOW, bytes(program))
    if thread:
        raise OSError(errno.EINVAL, f"seccomp: thread {thread} has filters of its own")


# Once, where this is imported: the zygote does so before it forks workers.
if system_calls.MACHINE is not None:
    _blocks_of_all_workers(system_calls.MACHINE)
