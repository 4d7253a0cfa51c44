"""What a worker may ask of the kernel: both machines' filters read here, this one's tried."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.worker.confine import landlock, namespaces, prctl, seccomp, system_calls
from tests.children import ends, in_child, outcome, place_of, users

MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
PRETENDED = 0x00050000
NO_PROTOCOL = PRETENDED | errno.ENOPROTOOPT
REFUSED = PRETENDED | errno.EPERM
ABSENT = PRETENDED | errno.ENOSYS
OWN, ABOVE = 4711, (17, 400000)

here = pytest.mark.skipif(not seccomp.available(), reason="this machine takes no filter")


def read_filter(program, machine, number, *arguments):
    """What the kernel would do with a call: the little machine that filters are written for."""
    words = [word % 2**64 for word in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number, ARCHITECTURES[machine], 0, *words)
    code = list(struct.iter_unpack("<HBBI", program))
    place = word = 0
    while True:
        operation, yes, no, k = code[place]
        place += 1
        if operation == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            word = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            word &= k
        elif operation == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            place += yes if word == k else no
        elif operation == 0x25:  # BPF_JMP | BPF_JGT | BPF_K
            place += yes if word > k else no
        else:
            assert operation == 0x06  # BPF_RET | BPF_K
            return k


def part_one(machine, abi=7):
    return seccomp.system_calls_filter(machine, abi=abi, own=OWN, above=ABOVE)


def part_two(machine, *, internet):
    return seccomp.assemble(machine, seccomp.rules_of_sockets(internet=internet))


ONE = {(machine, abi): part_one(machine, abi) for machine in MACHINES for abi in (0, 1, 2, 3)}
TWO = {
    (m, internet): part_two(m, internet=internet) for m in MACHINES for internet in (True, False)
}

machines = pytest.mark.parametrize("machine", MACHINES)


def asked(machine, name, *arguments, abi=3):
    """What part one says."""
    number = system_calls.number(name, machine)
    return read_filter(ONE[machine, abi], machine, number, *arguments)


def asked_for_socket(machine, internet, name, *arguments):
    """What part two says."""
    number = system_calls.number(name, machine)
    return read_filter(TWO[machine, internet], machine, number, *arguments)


def word(*values):
    """An argument: one of those that mean something, others close by, or any; garbage above."""
    low = st.sampled_from([value % 2**32 for value in (0, 1, OWN, *ABOVE, *values)])
    near = low.map(lambda value: (value + 1) % 2**32)
    anything = st.integers(0, 2**32 - 1)
    high = st.sampled_from([0, 1, 2**32 - 1])
    return st.builds(lambda low, high: low | high << 32, st.one_of(low, near, anything), high)


# Both machines' programs


@pytest.mark.parametrize("program", [*ONE.values(), *TWO.values()])
def test_a_program_fits_and_jumps_to_what_is_in_it(program):
    code = list(struct.iter_unpack("<HBBI", program))

    assert len(code) <= 4096
    for place, (operation, yes, no, _) in enumerate(code):
        if operation in {0x15, 0x25}:
            assert place + 1 + max(yes, no) < len(code)
    assert 0x06 == code[-1][0]


def test_a_filter_has_room_for_all_that_are_above():
    own, above = os.getpid(), seccomp._processes_above()
    longest = [10**6 + each for each in range(16)]

    assert above[0] == os.getppid()
    assert 1 in above or len(above) == 16
    program = seccomp.system_calls_filter("x86_64", abi=5, own=own, above=longest)
    assert REFUSED == read_filter(program, "x86_64", 62, longest[-1], 9)
    assert REFUSED == read_filter(program, "x86_64", 62, -longest[-1], 9)


@machines
def test_the_numbers_are_those_of_the_kernel_s_headers(machine):
    headers = {
        "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "aarch64": "/usr/include/asm-generic/unistd.h",
    }
    if not os.path.exists(headers[machine]):
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    text = Path(headers[machine]).read_text()
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }
    index = MACHINES.index(machine)
    known = {name: both[index] for name, both in system_calls.NUMBERS.items()}

    assert {} == {
        name: (number, found.get(name))
        for name, number in known.items()
        # Headers are older than the newest calls; asm-generic leaves some to the machine.
        if number != found.get(name) and not (number is not None and name not in found)
    }
    if machine == "x86_64":
        assert {name for name in known if name not in found} <= {"fchmodat2", "open_tree_attr"}


@machines
def test_calls_without_rules_are_allowed_without_a_look_at_their_arguments(machine):
    """The kernel then does not run the filter for them at all (seccomp_is_const_allow)."""
    named = {
        number for name in system_calls.NUMBERS if (number := system_calls.number(name, machine))
    }

    for number in set(range(system_calls.NEWEST + 1)) - named:
        assert ALLOWED == read_filter(ONE[machine, 3], machine, number, *[2**64 - 1] * 6)
        assert ALLOWED == read_filter(TWO[machine, True], machine, number, *[0] * 6)


@machines
@given(number=st.integers(system_calls.NEWEST + 1, 2**32 - 1), argument=word())
def test_calls_that_nobody_knew_are_absent(machine, number, argument):
    assert ABSENT == read_filter(ONE[machine, 3], machine, number, *[argument] * 6)


@machines
@given(number=st.integers(0, 2**32 - 1), argument=word())
def test_another_machine_s_calls_end_the_process(machine, number, argument):
    other = {"x86_64": "i386", "aarch64": "x86_64"}[machine]

    assert KILLED == read_filter(ONE[machine, 3], other, number, *[argument] * 6)
    assert KILLED == read_filter(TWO[machine, False], other, number, *[argument] * 6)


@machines
@given(argument=word())
def test_what_is_refused_is_refused_with_all_arguments(machine, argument):
    for names, answer in ((seccomp._REFUSED, REFUSED), (seccomp._ABSENT, ABSENT)):
        for name in names.split():
            if system_calls.number(name, machine) is not None:
                assert answer == asked(machine, name, *[argument] * 6)


# linux/sched.h
NEW = {"NS": 17, "CGROUP": 25, "UTS": 26, "IPC": 27, "USER": 28, "PID": 29, "NET": 30}


@machines
@given(flags=word(*(1 << bit | 17 for bit in NEW.values()), 0x003D0F00, 0x4111, 17, 0x8000))
def test_clone_makes_threads_and_processes_and_no_namespaces(machine, flags):
    forbidden = {*NEW.values(), 15}  # CLONE_PARENT
    refused = any(flags >> bit & 1 for bit in forbidden)

    assert (REFUSED if refused else ALLOWED) == asked(machine, "clone", flags)


@machines
@given(who=word(), new=st.sampled_from([0, 1 << 32, 0x7FFF00000000, 4096, 2**64 - 4096]))
def test_limits_of_others_can_be_asked_for_only(machine, who, new):
    allowed = who % 2**32 in {0, OWN} or new == 0

    assert (ALLOWED if allowed else REFUSED) == asked(machine, "prlimit64", who, 7, new, 0)


@machines
@pytest.mark.parametrize(("name", "of_a_user"), [("setpriority", 2), ("ioprio_set", 3)])
@given(which=word(2, 3), who=word())
def test_others_are_not_slowed_down(machine, name, of_a_user, which, who):
    allowed = which % 2**32 != of_a_user and who % 2**32 in {0, OWN}

    assert (ALLOWED if allowed else REFUSED) == asked(machine, name, which, who, 19)


@machines
@given(who=word(-1))
def test_what_is_done_to_others_by_number(machine, who):
    own = who % 2**32 in {0, OWN}

    for name in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"):
        assert (ALLOWED if own else PRETENDED) == asked(machine, name, who)
    for name in ("migrate_pages", "move_pages"):
        assert (ALLOWED if own else REFUSED) == asked(machine, name, who)


@machines
@given(who=word(-1, *ABOVE, *(-each for each in ABOVE)))
def test_those_above_are_not_signalled_nor_all_at_once(machine, who):
    low = who % 2**32
    refused = low in {each % 2**32 for each in (-1, *ABOVE, *(-each for each in ABOVE))}

    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        assert (REFUSED if refused else ALLOWED) == asked(machine, name, who, 9)


@machines
@given(
    flags=word(*(mode | more for mode in range(4) for more in (0, os.O_TRUNC, os.O_CREAT))),
    abi=st.sampled_from([0, 1, 2, 3]),
)
def test_what_landlock_does_not_keep_from_truncating_is_kept_here(machine, flags, abi):
    refused = abi in {1, 2} and flags & os.O_TRUNC and flags & 3 in {0, 3}
    answer = REFUSED if refused else ALLOWED

    assert answer == asked(machine, "openat", 0, 0, flags, abi=abi)
    if machine == "x86_64":
        assert answer == asked(machine, "open", 0, flags, abi=abi)
    assert (ABSENT if abi in {1, 2} else ALLOWED) == asked(machine, "openat2", abi=abi)
    assert (REFUSED if abi in {1, 2} else ALLOWED) == asked(machine, "truncate", abi=abi)


# asm-generic/ioctls.h, linux/btrfs.h, linux/fscrypt.h, linux/fsverity.h
IOCTLS = {
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
    "FIOSETOWN": 0x8901,
    "SIOCSPGRP": 0x8902,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SNAP_DESTROY": 0x5000940F,
    "FS_IOC_SET_ENCRYPTION_POLICY": 0x800C6613,
    "FS_IOC_ADD_ENCRYPTION_KEY": 0xC0506617,
    "FS_IOC_REMOVE_ENCRYPTION_KEY": 0xC0406618,
    "FS_IOC_REMOVE_ENCRYPTION_KEY_ALL_USERS": 0xC0406619,
    "FS_IOC_ENABLE_VERITY": 0x40806685,
}
CLONES = {0x40049409, 0x4020940D, 0xC0189436}  # FICLONE, FICLONERANGE, FIDEDUPERANGE


@machines
@given(request=word(*IOCTLS.values(), *CLONES, 0x5401, 0x5413, 0x40086602))
def test_no_terminal_is_typed_into_and_no_folder_changed_that_is_open_for_reading(machine, request):
    low = request % 2**32
    of_btrfs = low >> 8 & 0xFF == 0x94 and low not in CLONES
    refused = of_btrfs or low in IOCTLS.values()

    assert (REFUSED if refused else ALLOWED) == asked(machine, "ioctl", 0, request)


@machines
@given(command=word(8, 10, 15, 1, 2, 1033))
def test_signals_are_not_sent_by_descriptors(machine, command):
    refused = command % 2**32 in {8, 10, 15}

    assert (REFUSED if refused else ALLOWED) == asked(machine, "fcntl", 0, command)


@machines
@given(option=word(1, 4, 15, 22, 35, 36, 38, 62, 0x59616D61), value=word(0, 1, 9, 15))
def test_a_worker_can_not_outlive_who_started_it_nor_hide_from_it(machine, option, value):
    low = option % 2**32
    answer = ALLOWED
    if low in {35, 62, 0x59616D61}:
        answer = REFUSED
    elif (low == 1 and value % 2**32 != 9) or (low == 4 and value % 2**32 == 0):
        answer = PRETENDED

    assert answer == asked(machine, "prctl", option, value)


@machines
@given(mode=word(0o755, 0o4755, 0o2755, 0o6755, 0o1777))
def test_no_program_runs_as_its_owner(machine, mode):
    answer = REFUSED if mode & 0o4000 else ALLOWED

    if machine == "x86_64":
        assert answer == asked(machine, "chmod", 0, mode)
    assert answer == asked(machine, "fchmod", 0, mode)
    assert answer == asked(machine, "fchmodat", 0, 0, mode)
    assert answer == asked(machine, "fchmodat2", 0, 0, mode)


@machines
@given(what=word(2**32 - 1, 0x40000, 0x400000, 8))
def test_a_worker_stays_what_linux_runs(machine, what):
    allowed = what % 2**32 in {0, 2**32 - 1}

    assert (ALLOWED if allowed else REFUSED) == asked(machine, "personality", what)


@machines
@pytest.mark.parametrize("internet", [True, False])
@given(
    family=word(1, 2, 10, 16, 17, 38, 40, 43, 44),
    kind=word(1, 2, 3, 5, 0x80801, 0x80802, 0x80803),
    protocol=word(0, 1, 6, 15, 16, 17, 132, 136, 255, 262),
)
def test_sockets(machine, internet, family, kind, protocol):
    low_family, low_kind, low_protocol = family % 2**32, kind % 16, protocol % 2**32
    of_the_internet = low_family in {2, 10} and (low_kind, low_protocol) in {
        (1, 0),
        (1, 6),
        (2, 0),
        (2, 17),
    }
    allowed = (internet and of_the_internet) or (low_family, low_protocol) == (16, 0)
    answer = asked_for_socket(machine, internet, "socket", family, kind, protocol)

    assert (ALLOWED if allowed else REFUSED) == answer


@machines
@pytest.mark.parametrize("internet", [True, False])
@given(family=word(1, 2, 16, 30), kind=word(1, 2, 5, 0x80801, 0x80802))
def test_pairs_of_sockets(machine, internet, family, kind):
    allowed = family % 2**32 == 1 and kind % 16 in {1, 5}
    answer = asked_for_socket(machine, internet, "socketpair", family, kind, 0)

    assert (ALLOWED if allowed else REFUSED) == answer


@machines
@pytest.mark.parametrize("internet", [True, False])
@given(flags=word(0x20000000, 0x20004000, 0x4000))
def test_sending_does_not_connect(machine, internet, flags):
    answer = REFUSED if flags & 0x20000000 else ALLOWED

    assert answer == asked_for_socket(machine, internet, "sendmsg", 3, 0, flags)
    assert answer == asked_for_socket(machine, internet, "sendto", 3, 0, 1, flags)
    assert answer == asked_for_socket(machine, internet, "sendmmsg", 3, 0, 1, flags)


@machines
@given(level=word(0, 1, 6), option=word(1, 13, 23, 30, 31))
def test_options_of_sockets(machine, level, option):
    refused = level % 2**32 == 6 and option % 2**32 in {30, 31}
    answer = asked_for_socket(machine, True, "setsockopt", 3, level, option)

    assert (NO_PROTOCOL if refused else ALLOWED) == answer


@machines
def test_without_internet_nothing_is_connected(machine):
    assert ALLOWED == asked_for_socket(machine, True, "connect", 3)
    assert REFUSED == asked_for_socket(machine, False, "connect", 3)


# This machine's kernel


@pytest.fixture(params=users(), ids=str)
def user(request):
    return request.param


@pytest.fixture
def place(user):
    with place_of(user) as place:
        yield place


def confine(*, sockets=None):
    """Part one, and part two with or without internet."""
    prctl.no_new_privs()
    seccomp.restrict_system_calls()
    if sockets is not None:
        seccomp.restrict_sockets(internet=sockets)


call = system_calls.call


class Buffer:
    """Bytes at an address, as an argument: ``struct iovec`` for those calls that take it."""

    def __init__(self, size=8):
        self._bytes = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self._bytes)
        self.vector = struct.pack("<QQ", self.address, size)


BUFFER = Buffer()


def clone_into_namespaces(_):
    if not namespaces.work():
        raise PermissionError(errno.EPERM, "clone")


def be_a_sibling(_):
    child = os.fork()
    if child == 0:
        try:
            call("clone", 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)  # the child and its sibling
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "clone")
    os.wait()


def type_into_terminal(_):
    os.setsid()
    _, terminal = os.openpty()
    fcntl.ioctl(terminal, 0x540E)  # TIOCSCTTY
    fcntl.ioctl(terminal, 0x5412, b"x")


def pipe_from_memory(_):
    _, writing = os.pipe()
    call("vmsplice", writing, BUFFER.vector, 1, 0)


def set_user_id(_):
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o4755)


# What each does; its outcome without a filter where that is no success, but shows that the kernel
# would have done it: it found the rest of the arguments wanting.
ABUSES = {
    "trace": (lambda pid: call("ptrace", 16, pid, 0, 0), ""),
    "read memory": (
        lambda pid: call("process_vm_readv", pid, Buffer().vector, 1, BUFFER.vector, 1, 0),
        "",
    ),
    "write memory": (
        lambda pid: call("process_vm_writev", pid, BUFFER.vector, 1, BUFFER.vector, 1, 0),
        "",
    ),
    "compare": (lambda pid: call("kcmp", pid, os.getpid(), 0, 0, 0), ""),
    "take a descriptor": (lambda pid: call("pidfd_getfd", os.pidfd_open(pid), 0, 0), ""),
    "signal by descriptor": (lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), 0), ""),
    "signal all": (lambda _: os.kill(-1, 0), ""),
    "own a descriptor": (lambda pid: fcntl.fcntl(0, fcntl.F_SETOWN, pid), ""),
    "choose its signal": (lambda _: fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL), ""),
    "limit": (lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (9, 9)), ""),
    "slow down": (lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 5), ""),
    "slow down reading": (lambda pid: call("ioprio_set", 1, pid, 2 << 13 | 7), ""),
    "move memory": (lambda pid: call("migrate_pages", pid, 0, None, None), "EINVAL"),
    "change the memory map": (lambda _: call("prctl", 35, 0, 0, 0, 0), "EINVAL or EPERM"),
    "new namespaces": (lambda _: call("unshare", 1 << NEW["USER"]), ""),
    "clone into them": (clone_into_namespaces, ""),
    "be a sibling": (be_a_sibling, ""),
    "requests in memory": (lambda _: call("io_uring_setup", 1, bytes(120)), ""),
    "faults of memory": (lambda _: call("userfaultfd", 1), ""),
    "user's keys": (lambda _: call("keyctl", 0, -4, 1, 0, 0), ""),
    "new keys": (lambda _: call("add_key", b"user\0", b"hive\0", b"x", 1, -2), ""),
    "shared memory by number": (lambda _: call("shmget", 0, 4096, 0o600), ""),
    "messages by number": (lambda _: call("msgget", 0, 0o600), ""),
    "queues by name": (lambda _: call("mq_open", b"hive-test\0", 0, 0, None), "ENOENT"),
    "memory out of sight": (lambda _: call("memfd_secret", 0), ""),
    "personality": (lambda _: call("personality", 0x0040000), ""),
    "gifts to a pipe": (pipe_from_memory, ""),
    "run as the owner": (set_user_id, ""),
    "type": (type_into_terminal, ""),
    "watch the kernel": (lambda _: call("bpf", 0, None, 0), "EINVAL or EPERM"),
    "measure": (lambda _: call("perf_event_open", None, 0, 0, -1, 0), "EFAULT"),
}
# The same of root's.
ROOTS = {
    "mount": (lambda _: call("mount", None, b"/none\0", b"tmpfs\0", 0, None), "ENOENT"),
    "unmount": (lambda _: call("umount2", b"/none\0", 0), "ENOENT"),
    "another root": (lambda _: os.chroot("/none"), "ENOENT"),
    "a file system": (lambda _: call("fsopen", b"none\0", 0), "ENODEV"),
    "a tree": (lambda _: call("open_tree", -100, b"/none\0", 1), "ENOENT"),
    "another namespace": (lambda _: call("setns", -1, 0), "EBADF"),
    "a file by its number": (lambda _: call("open_by_handle_at", -1, None, 0), "EFAULT"),
    "watch files": (lambda _: call("fanotify_init", 0, 0), ""),
    "swap": (lambda _: call("swapon", b"/none\0", 0), "ENOENT"),
    "a module": (lambda _: call("finit_module", -1, b"\0", 0), "EBADF"),
    "restart": (lambda _: call("reboot", 0, 0, 0, None), "EINVAL"),
    "the kernel's log": (lambda _: call("syslog", 10, None, 0), ""),
    "the clock": (lambda _: call("clock_settime", 99, None), "EINVAL or EFAULT"),
    "the name": (lambda _: call("sethostname", None, -1), "EINVAL"),
    "a quota": (lambda _: call("quotactl", 0, b"/none\0", 0, None), "ENOENT or ENOSYS"),
    "an account": (lambda _: call("acct", b"/none\0"), "ENOENT"),
}


def tried(abuse, *, filtered):
    parent, victim = os.getpid(), os.fork()
    if victim == 0:
        prctl.die_with(parent)
        while True:
            signal.pause()
    try:
        if filtered:
            confine()
        return outcome(abuse, victim)
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)


def check_abuse(abuse, without, user):
    unfiltered = in_child(lambda: tried(abuse, filtered=False), user=user)
    if unfiltered == "ENOSYS":
        pytest.skip("this kernel was built without it")
    assert unfiltered in without.split(" or ")
    assert in_child(lambda: tried(abuse, filtered=True), user=user) in {"EPERM", "ENOSYS"}


@here
@pytest.mark.parametrize("name", ABUSES)
def test_what_a_filter_stops(name, user):
    check_abuse(*ABUSES[name], user)


@here
@pytest.mark.skipif(os.getuid() != 0, reason="only root can do it without a filter")
@pytest.mark.parametrize("name", ROOTS)
def test_what_it_stops_root_from(name):
    check_abuse(*ROOTS[name], None)


@here
@pytest.mark.parametrize("abi", range(6))
def test_below_abi_6_those_above_are_not_signalled(abi, monkeypatch, user):
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    parent = os.getpid()

    def worker():
        os.setsid()
        prctl.no_new_privs()
        seccomp.restrict_system_calls()
        child = os.fork()
        if child == 0:
            signal.pause()
        own = outcome(os.kill, child, signal.SIGKILL)
        os.waitpid(child, 0)
        return (
            own,
            outcome(os.kill, 0, 0),
            outcome(os.kill, os.getppid(), 0),
            outcome(os.killpg, os.getppid(), 0),
            outcome(os.kill, parent, 0),
        )

    def parent_of_worker():
        os.setpgid(0, 0)
        return in_child(worker)

    found = in_child(parent_of_worker, user=user)

    assert ("", "", "EPERM", "EPERM", "EPERM") == found


@here
@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("mkfs.btrfs"), reason="needs root and btrfs-progs"
)
def test_no_subvolume_is_planted_where_landlock_refuses_a_folder(tmp_path):
    """Landlock is not asked about what btrfs does by ioctl, in a folder open for reading."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(128 * 2**20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    mounted.mkdir()

    def plant(*, filtered):
        call("unshare", 1 << NEW["NS"])
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
        prctl.no_new_privs()
        landlock.restrict(read=[str(mounted)], write=(), connect=None)
        if filtered:
            confine()
        folder = os.open(mounted, os.O_RDONLY)
        name = bytearray(struct.pack("q4088s", 0, b"planted"))
        by_ioctl = outcome(fcntl.ioctl, folder, IOCTLS["BTRFS_IOC_SUBVOL_CREATE"], name)
        return outcome(os.mkdir, mounted / "made"), by_ioctl

    assert ("EACCES", "") == in_child(lambda: plant(filtered=False))
    assert ("EACCES", "EPERM") == in_child(lambda: plant(filtered=True))


@here
def test_a_pretended_call_changes_nothing(user):
    def change():
        parent, victim = os.getpid(), os.fork()
        if victim == 0:
            prctl.die_with(parent)
            signal.pause()
        confine()
        before = os.sched_getaffinity(victim)
        os.sched_setaffinity(victim, {min(before)})
        os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))
        own = {min(before)}
        os.sched_setaffinity(os.getpid(), own)
        return (
            before == os.sched_getaffinity(victim),
            os.sched_getscheduler(victim) == os.SCHED_OTHER,
            own == os.sched_getaffinity(0),
        )

    assert (True, True, True) == in_child(change, user=user)


@here
def test_the_end_of_the_parent_stays_the_end_of_the_worker(user):
    def outlive(*, filtered):
        prctl.die_with(os.getppid())
        if filtered:
            confine()
        prctl.outlive_parent()
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0)  # PR_GET_PDEATHSIG
        return found.value

    assert 0 == in_child(lambda: outlive(filtered=False), user=user)
    assert signal.SIGKILL == in_child(lambda: outlive(filtered=True), user=user)


@here
@pytest.mark.skipif(platform.machine() != "x86_64", reason="there are no such calls here")
def test_calls_of_32_bits_end_the_process():
    def number_of_this_process():
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex("b814000000 cd80 c3"))  # mov eax, 20 (getpid); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)()

    def call_confined():
        confine()
        number_of_this_process()

    without = ends(number_of_this_process)
    if without == -signal.SIGSEGV:
        pytest.skip("this kernel runs no 32-bit programs")
    assert 0 == without
    assert -signal.SIGSYS == ends(call_confined)


FAMILIES = {
    "unix": (1, 1, 0),
    "unix datagrams": (1, 2, 0),
    "raw": (2, 3, 6),
    "ping": (2, 2, 1),
    "multipath": (2, 1, 262),
    "sctp": (2, 1, 132),
    "udplite": (10, 2, 136),
    "packets": (17, 3, 0),
    "kernel events": (16, 2, 15),
    "generic netlink": (16, 3, 16),
    "cryptography": (38, 5, 0),
    "virtual machines": (40, 1, 0),
}


@here
@pytest.mark.parametrize("internet", [True, False])
def test_what_sockets_there_are(internet, user):
    def make():
        confine(sockets=internet)
        return {
            name: outcome(lambda kind=kind: socket.socket(*kind).close())
            for name, kind in FAMILIES.items()
        }, {
            (family, kind): outcome(lambda f=family, k=kind: socket.socket(f, k).close())
            for family in (socket.AF_INET, socket.AF_INET6)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        }

    others, of_the_internet = in_child(make, user=user)

    assert {"EPERM"} == set(others.values())
    assert {"" if internet else "EPERM"} == set(of_the_internet.values())


def test_some_of_these_sockets_there_are_without_a_filter():
    made = {
        name
        for name, kind in FAMILIES.items()
        if outcome(lambda kind=kind: socket.socket(*kind).close()) == ""
    }

    assert {"unix", "unix datagrams", "kernel events"} <= made


@here
def test_no_path_is_reached_by_a_pair_of_sockets(user, place):
    path = f"{place.path}/socket"

    def send():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(path)
            one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            one.sendto(b"x", path)

    def send_by(kind):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(f"{path}-{kind}")
            confine(sockets=True)
            pair = socket.socketpair(socket.AF_UNIX, kind)
            return outcome(lambda: pair[0].sendmsg([b"x"], [], 0, f"{path}-{kind}"))

    def pair():
        confine(sockets=True)
        return outcome(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))

    assert "" == in_child(outcome, send, user=user)
    assert "EPERM" == in_child(pair, user=user)
    assert "EISCONN" == in_child(send_by, socket.SOCK_STREAM, user=user)
    # The kernel leaves out the address.
    assert "" == in_child(send_by, socket.SOCK_SEQPACKET, user=user)


@here
@pytest.mark.skipif(landlock.abi() < 4, reason="Landlock knows no ports here")
def test_sending_does_not_go_around_the_ports_that_landlock_grants(user):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def send(*, filtered):
            prctl.no_new_privs()
            landlock.restrict(read=["/"], write=(), connect=[])
            if filtered:
                confine(sockets=True)
            with socket.socket() as plain, socket.socket() as fast, socket.socket() as late:
                option = outcome(lambda: late.setsockopt(socket.IPPROTO_TCP, 30, 1))
                return (
                    outcome(plain.connect, address),
                    outcome(fast.sendto, b"x", socket.MSG_FASTOPEN, address),
                    option,
                )

        without = in_child(lambda: send(filtered=False), user=user)
        assert ("EACCES", "EPERM", "ENOPROTOOPT") == in_child(
            lambda: send(filtered=True), user=user
        )

    # Kernels with a correction ask Landlock.
    assert without in {("EACCES", "", ""), ("EACCES", "EACCES", "")}


@here
def test_without_internet_a_socket_from_before_is_not_turned_around(user):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def turn(*, internet):
            own = socket.create_server(("127.0.0.1", 0))
            confine(sockets=internet)
            own.shutdown(socket.SHUT_RDWR)
            return outcome(own.connect, address)

        assert "" == in_child(lambda: turn(internet=True), user=user)
        assert "EPERM" == in_child(lambda: turn(internet=False), user=user)


@here
@pytest.mark.parametrize("internet", [True, False])
def test_threads_that_are_there_get_the_socket_rules(internet):
    def look():
        go, found = threading.Event(), []

        def late():
            go.wait()
            found.append(outcome(lambda: socket.socket(socket.AF_UNIX)))

        prctl.no_new_privs()
        seccomp.restrict_system_calls()
        threads = [threading.Thread(target=late) for _ in range(3)]
        for thread in threads:
            thread.start()
        seccomp.restrict_sockets(internet=internet)
        go.set()
        for thread in threads:
            thread.join()
        return found

    assert ["EPERM"] * 3 == in_child(look)


@here
def test_a_thread_that_can_not_be_held_to_the_rules_is_an_error():
    def restrict():
        ready, done = threading.Event(), threading.Event()

        def apart():
            seccomp.restrict_system_calls()
            ready.set()
            done.wait()

        prctl.no_new_privs()
        thread = threading.Thread(target=apart)
        thread.start()
        ready.wait()
        try:
            return outcome(lambda: seccomp.restrict_sockets(internet=True))
        finally:
            done.set()

    assert "EINVAL" == in_child(restrict)


@here
def test_without_no_new_privs_only_an_administrator_may():
    assert "EACCES" == in_child(outcome, seccomp.restrict_system_calls, user=users()[-1])


@here
@pytest.mark.parametrize("internet", [True, False])
def test_zmq_lives_on(internet, tmp_path):
    """Sockets bound before part two serve new and old connections; none ends the process."""
    path = f"ipc://{tmp_path}/socket"

    def serve():
        prctl.no_new_privs()
        seccomp.restrict_system_calls()
        context = zmq.Context()
        server = context.socket(zmq.ROUTER)
        server.bind(path)
        channel = context.socket(zmq.PUB)
        port = channel.bind_to_random_port("tcp://127.0.0.1")
        seccomp.restrict_sockets(internet=internet)
        said = []
        for _ in range(2):
            identity, text = server.recv_multipart()
            said.append(text)
            server.send_multipart([identity, b"yes"])
        late = zmq.Context()
        psutil.net_if_addrs()
        with pytest.raises(zmq.ZMQError, match="Operation not permitted"):
            late.socket(zmq.ROUTER).bind(f"{path}-late")
        late.socket(zmq.PUSH).connect(f"tcp://127.0.0.1:{port}")
        return said

    def ask():
        with zmq.Context() as context:
            for _ in range(2):
                with context.socket(zmq.DEALER) as client:
                    client.connect(path)
                    client.send(b"there?")
                    assert b"yes" == client.recv()

    asker = threading.Thread(target=ask)
    asker.start()
    answers = in_child(serve)
    asker.join()

    assert [b"there?"] * 2 == answers


@here
@pytest.mark.parametrize("internet", [True, False])
def test_what_people_do_goes_on(internet):
    words = [sys.executable, str(Path(__file__).with_name("confined_work.py")), str(internet)]

    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert "" == done.stderr
    assert "done" == done.stdout.strip()
    assert 0 == done.returncode


def test_where_there_are_no_filters_it_is_told(monkeypatch):
    monkeypatch.setattr(system_calls, "MACHINE", None)

    assert not seccomp.available()
    with pytest.raises(OSError, match="no seccomp filter for this machine"):
        seccomp.restrict_sockets(internet=True)
