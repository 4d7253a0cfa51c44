"""Namespaces, rights, and system calls that nobody needs."""

import ctypes
import errno
import mmap
import os
import shutil
import signal
import socket
import struct

from tests.security.abuse import (
    NEW_MOUNTS,
    NEW_NET,
    NEW_USER,
    SET_NO_NEW_PRIVS,
    SET_SECCOMP,
    X86,
    Absent,
    Refused,
    call,
    connect,
    elsewhere,
    facts,
    in_child,
    libc,
    prctl,
    read,
    run,
    threads,
)
from tests.security.probe import NOWHERE, topic

spaces = topic("Namespaces")

_ADMIN = "Linux wants CAP_SYS_ADMIN"
_NONE = "it has no user namespaces"
_ALL_FILTERED = "all of its processes are filtered (a container)"


@spaces("makes a user namespace (unshare)", optional=_NONE)
def unshare_user():
    in_child(lambda: call("unshare", NEW_USER))


@spaces("mounts a file system in a namespace of its own", optional=_NONE)
def mount_in_namespace():
    def mount():
        call("unshare", NEW_USER | NEW_MOUNTS)
        call("mount", "none", "/tmp", "tmpfs", 0, None)

    in_child(mount)


@spaces("makes a network of its own", optional=_NONE)
def unshare_network():
    in_child(lambda: call("unshare", NEW_USER | NEW_NET))


@spaces("makes a namespace without rights (unshare of mounts alone)", possible=NOWHERE, why=_ADMIN)
def unshare_mounts():
    in_child(lambda: call("unshare", NEW_MOUNTS))


@spaces("clones into a user namespace", optional=_NONE)
def clone_user():
    def clone():
        if call("clone", NEW_USER | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)

    in_child(clone)


@spaces("clones into a user namespace by clone3", optional=_NONE)
def clone3_user():
    def clone():
        arguments = struct.pack("=11Q", NEW_USER, 0, 0, 0, signal.SIGCHLD, *[0] * 6)
        if call("clone3", arguments, len(arguments)) == 0:
            os._exit(0)

    in_child(clone)


@spaces("enters the host's namespaces", possible=NOWHERE, why=_ADMIN)
def enter_host():
    handle = os.open(f"/proc/{facts.host}/ns/mnt", os.O_RDONLY)
    call("setns", handle, 0)


@spaces("enters the namespaces of process 1", possible=NOWHERE, why=_ADMIN)
def enter_first():
    call("setns", os.pidfd_open(1), NEW_MOUNTS)


@spaces("mounts over `/tmp`", possible=NOWHERE, why=_ADMIN)
def mount():
    call("mount", "none", "/tmp", "tmpfs", 0, None)


@spaces("makes `.git` writable again (remount)", possible=NOWHERE, why=_ADMIN)
def remount():
    call("mount", "none", facts.git, None, 4096 | 32, None)


@spaces("makes `.git` writable again (mount_setattr)", possible=NOWHERE, why=_ADMIN)
def mount_attributes():
    attributes = struct.pack("=4Q", 0, 1, 0, 0)
    call("mount_setattr", -100, facts.git, 0, attributes, len(attributes))


@spaces("takes a protection away (umount)", possible=NOWHERE, why=_ADMIN)
def unmount():
    call("umount2", facts.git, 2)


@spaces("makes a copy of the tree without protections (open_tree)", possible=NOWHERE, why=_ADMIN)
def open_tree():
    call("open_tree", -100, facts.project, 1)


@spaces("opens a file system (fsopen)", possible=NOWHERE, why=_ADMIN)
def open_file_system():
    call("fsopen", "tmpfs", 0)


@spaces("changes its root (chroot)", possible=NOWHERE, why="Linux wants CAP_SYS_CHROOT")
def chroot():
    in_child(lambda: call("chroot", facts.project))


@spaces("changes its root (pivot_root)", possible=NOWHERE, why=_ADMIN)
def pivot_root():
    call("pivot_root", facts.project, facts.project)


rights = topic("Rights")


@rights("runs a program that makes it root (setuid)")
def setuid_program():
    if facts.setuid == "":
        raise Absent("the world has no such program")
    if run(facts.setuid, "-u").strip() != "0":
        raise Refused("it stayed the user")


@rights("has a thread without a filter of system calls", optional=_ALL_FILTERED)
def unfiltered_thread():
    found = [status["Name"] for status in threads() if status["Seccomp"] == "0"]
    if not found:
        raise Refused("there is none")
    return found


@rights("has a thread that may gain rights (no_new_privs is missing)", optional=_ALL_FILTERED)
def privileged_thread():
    found = [status["Name"] for status in threads() if status["NoNewPrivs"] == "0"]
    if not found:
        raise Refused("there is none")
    return found


@rights(
    "has a thread with capabilities",
    possible=NOWHERE,
    why="a user has none, and a worker gives up those of its namespaces",
)
def capable_thread():
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    found = [status["Name"] for status in threads() for name in sets if int(status[name], 16)]
    if not found:
        raise Refused("there is none")
    return found


@rights("makes a program that runs as the user for others (setuid)", fresh=True)
def make_setuid():
    program = f"{facts.project}/data/program"
    shutil.copy("/usr/bin/id", program)
    try:
        os.chmod(program, 0o4755)
    finally:
        os.unlink(program)


@rights("takes the filter of system calls away", possible=NOWHERE, why="Linux never does that")
def remove_filter():
    prctl(SET_SECCOMP, 0)


@rights("takes no_new_privs away", possible=NOWHERE, why="Linux never does that")
def remove_no_new_privs():
    prctl(SET_NO_NEW_PRIVS, 0)


@rights("becomes another user", possible=NOWHERE, why="Linux wants CAP_SETUID")
def set_user():
    in_child(lambda: os.setuid(0))


@rights(
    "raises a limit above what it was given", possible=NOWHERE, why="Linux wants CAP_SYS_RESOURCE"
)
def raise_limit():
    # RLIMIT_CORE, which is 0
    call("prlimit64", 0, 4, struct.pack("=2Q", 1, 1), None)


early = topic("Threads that began before the filters were complete")


@early("reads a secret in the kernel's control thread")
def control_reads():
    return elsewhere("control", lambda: read(f"{facts.home}/.ssh/id_ed25519"))


@early("connects to the SSH agent in the kernel's control thread")
def control_connects():
    elsewhere("control", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.agent))


@early("reads a secret in the thread that sends output")
def iopub_reads():
    return elsewhere("iopub", lambda: read(f"{facts.home}/.ssh/id_ed25519"))


@early("connects to the SSH agent in the thread that sends output")
def iopub_connects():
    elsewhere("iopub", lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, facts.agent))


@early("connects to another port in a thread of its own")
def thread_connects():
    address = ("127.0.0.1", facts.port)
    elsewhere("own", lambda: connect(socket.AF_INET, socket.SOCK_STREAM, address))


exotic = topic("System calls that nobody needs")


@exotic("sets up io_uring", optional="it has no io_uring")
def io_uring_setup():
    os.close(call("io_uring_setup", 4, ctypes.create_string_buffer(120)))


@exotic("loads a BPF program", possible=NOWHERE, why="Linux lets no user do that any more")
def bpf():
    call("bpf", 0, struct.pack("=4I", 2, 4, 4, 1).ljust(120, b"\0"), 120)


@exotic("counts events of the processor (perf)", optional="it lets no user do that")
def perf():
    # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, without the kernel
    event = bytearray(struct.pack("=2IQ", 1, 112, 1).ljust(112, b"\0"))
    struct.pack_into("=Q", event, 40, 1 << 5 | 1 << 6)
    os.close(call("perf_event_open", bytes(event), 0, -1, -1, 0))


@exotic("handles page faults (userfaultfd)", optional="it lets no user do that")
def page_faults():
    os.close(call("userfaultfd", os.O_CLOEXEC | 1))


@exotic("watches files of the whole system (fanotify)", optional="it lets no user do that")
def fanotify():
    os.close(call("fanotify_init", 0x200, 0))


@exotic("makes its memory executable wherever it is readable (personality)", fresh=True)
def personality():
    call("personality", 0x0400000)


@exotic("changes the descriptors of its segments (modify_ldt)", optional="it is no x86")
def segments():
    if not X86:
        raise OSError(errno.ENOSYS, "modify_ldt")
    buffer = ctypes.create_string_buffer(16)
    if libc.syscall(ctypes.c_long(154), ctypes.c_long(0), buffer, ctypes.c_long(16)) < 0:
        raise OSError(ctypes.get_errno(), "modify_ldt")


@exotic("makes 32-bit system calls", optional="it is no x86, or has none")
def old_calls():
    if not X86:
        raise OSError(errno.ENOSYS, "int 0x80")

    def getpid():
        # mov eax, 20; int 0x80; ret
        code = b"\xb8\x14\0\0\0\xcd\x80\xc3"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        if ctypes.CFUNCTYPE(ctypes.c_int)(address)() != os.getpid():
            raise OSError(errno.ENOSYS, "int 0x80")

    in_child(getpid)


@exotic("makes x32 system calls", possible=NOWHERE, why="no kernel of a distribution has them")
def x32_calls():
    number = 39 | 0x40000000
    if not X86 or libc.syscall(ctypes.c_long(number)) < 0:
        raise OSError(errno.ENOSYS, "x32")


@exotic("loads a module of the kernel", possible=NOWHERE, why="Linux wants CAP_SYS_MODULE")
def load_module():
    call("init_module", b"", 0, b"")


@exotic("loads another kernel (kexec)", possible=NOWHERE, why="Linux wants CAP_SYS_BOOT")
def kexec():
    call("kexec_load", 0, 0, None, 0)


@exotic("restarts the machine", possible=NOWHERE, why="Linux wants CAP_SYS_BOOT")
def reboot():
    call("reboot", 0, 0, 0, None)  # whatever the rights, this is refused


@exotic("turns swapping on", possible=NOWHERE, why=_ADMIN)
def swapon():
    call("swapon", "/nowhere", 0)


@exotic("turns accounting off", possible=NOWHERE, why="Linux wants CAP_SYS_PACCT")
def accounting():
    call("acct", None)


@exotic("changes quotas", possible=NOWHERE, why=_ADMIN)
def quotas():
    call("quotactl", 0x800002 << 8, "/dev/root", 0, None)


@exotic("names the machine", possible=NOWHERE, why=_ADMIN)
def host_of_name():
    call("sethostname", "planted", 7)


@exotic("sets the clock", possible=NOWHERE, why="Linux wants CAP_SYS_TIME")
def clock():
    call("settimeofday", struct.pack("=2q", 10**9, 0), None)
