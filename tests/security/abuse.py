"""
What probes share, in the worker: where things are, system calls, and how an outcome is told.

This source runs in the worker. It needs nothing but the standard library.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

MARK = "told by a probe: "

# Where things are; see ``World.facts``.
facts = SimpleNamespace()

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

X86 = os.uname().machine == "x86_64"

# Numbers of system calls: on x86_64, and on aarch64 and others of the generic table.
_CALLS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fanotify_init": (300, 262),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "prlimit64": (302, 261),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "renameat2": (316, 276),
    "rt_sigqueueinfo": (129, 138),
    "sched_setattr": (314, 274),
    "sendmmsg": (307, 269),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}

NEW_MOUNTS, NEW_USER, NEW_NET = 0x00020000, 0x10000000, 0x40000000
TRACE_ATTACH, TRACE_DETACH, TRACE_SEIZE, TRACE_INTERRUPT = 16, 17, 0x4206, 0x4207
ALL_CHILDREN = 0x40000000  # __WALL of waitpid
EXCHANGE = 2  # of renameat2
IN_FOLDER = -100  # AT_FDCWD
MPTCP, SMC, SCTP = 262, 256, 132
NETLINK, PACKET, CRYPTO, BLUETOOTH, VSOCK, XDP = 16, 17, 38, 31, 40, 44
FASTOPEN, FASTOPEN_CONNECT = 0x20000000, 30
SET_PDEATHSIG, SET_SUBREAPER, SET_SECCOMP, SET_NO_NEW_PRIVS = 1, 36, 22, 38


class Refused(Exception):
    """The abuse did not succeed, and no system call said so."""


class Absent(Exception):
    """There is nothing here that could be abused so."""


def call(name, *arguments):
    """A system call by its name; raises OSError. Text and bytes become pointers."""
    number = _CALLS[name][not X86]
    converted = [os.fsencode(a) if isinstance(a, str | Path) else a for a in arguments]
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in converted]
    result = libc.syscall(ctypes.c_long(number), *converted)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, text="planted\n"):
    with open(path, "w") as file:
        file.write(text)


def append(path, text="planted\n"):
    with open(path, "a") as file:
        file.write(text)


def git(*arguments):
    """git in the project, without the configuration of a user."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    who = ("-c", "user.name=Eve", "-c", "user.email=eve@example.org")
    return run("git", *who, *arguments, cwd=facts.project, env=environment)


def run(*command, **options):
    """A program's output; one that fails is a refusal."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        reason = f"{command[0]} exited with {done.returncode}: {last}"
        raise Refused(reason)
    return done.stdout


def in_child(function):
    """
    Run a function in a child, and raise here what it raised there.

    For what cannot be undone, or may end the process.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            number = _number_of_error(function)
            os.write(writer, b"%d" % number)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise Refused("the process was ended by " + signal.Signals(-code).name)
    if not told:
        raise RuntimeError("the function failed otherwise")
    if int(told):
        raise OSError(int(told), os.strerror(int(told)))


def in_children(count, body):
    """Have so many children run a function, one after another, and let them be for a while."""
    children = []
    try:
        for _ in range(count):
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                try:
                    body(writer)
                    signal.pause()
                finally:
                    os._exit(1)
            children.append(child)
            os.close(writer)
            is_ready = os.read(reader, 1)
            os.close(reader)
            if not is_ready:
                raise Refused("the children ended")
        time.sleep(facts.patience)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _number_of_error(function):
    try:
        function()
    except OSError as error:
        return error.errno
    return 0


def connect(family, kind, address, protocol=0):
    """Connect a socket, and close it."""
    with socket.socket(family, kind, protocol) as made:
        made.settimeout(2)
        made.connect(address)


def send_to(family, address):
    """Send one datagram."""
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", address)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def messages(text, address):
    """What ``sendmmsg(2)`` takes: one message to an address."""
    vector = _Vector(ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p), len(text))
    message = _Message(address, len(address), ctypes.addressof(vector), 1, None, 0, 0, 0)
    message.keep = vector, text
    return ctypes.byref(message)


def descriptors():
    """Of this process's sockets."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the listing's own is closed by now
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number


def is_tcp(descriptor):
    with socket.socket(fileno=os.dup(descriptor)) as found:
        return found.family == socket.AF_INET and found.type == socket.SOCK_STREAM


def prctl(option, argument=0, third=0):
    if libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(third), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def threads():
    """The status of each thread of this process, as a dict."""
    for task in os.listdir("/proc/self/task"):
        lines = Path("/proc/self/task", task, "status").read_text().splitlines()
        yield dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def trace(request, pid, address=0, data=0):
    """``ptrace(2)``."""
    return call("ptrace", request, pid, address, data)


def seize(pid):
    """Stop a process as a debugger does, and let it go again."""
    trace(TRACE_SEIZE, pid)
    trace(TRACE_INTERRUPT, pid)
    os.waitpid(pid, ALL_CHILDREN)
    trace(TRACE_DETACH, pid)


def copy_memory(name, pid, address, buffer):
    """``process_vm_readv(2)`` or ``process_vm_writev(2)``, of a whole buffer."""
    here = _Vector(ctypes.addressof(buffer), ctypes.sizeof(buffer))
    there = _Vector(address, ctypes.sizeof(buffer))
    call(name, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


def daemonize(body):
    """Run ``body`` for good in a process that has slipped away; returns when it runs."""
    reader, writer = os.pipe()
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        try:
            with suppress(OSError):
                prctl(SET_PDEATHSIG, 0)
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            body(writer)
        finally:
            os._exit(1)
    os.close(writer)
    if not os.read(reader, 1):
        raise Refused("the daemon did not come to life")


def hold_lock(writer):
    """What a daemon does: hold a lock that the host can try, tell, and stay."""
    file = os.open(facts.lock, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(writer, b"!")
    while True:
        time.sleep(60)


def temporary(name):
    return os.path.join(tempfile.gettempdir(), name)


def elsewhere(thread, function):
    """What a function gives in another thread: the kernel's "control" or "iopub", or a new one."""
    over = threading.Event()
    outcome = []

    def body():
        try:
            outcome.append((function(), None))
        except OSError as error:
            outcome.append((None, error))
        finally:
            over.set()

    kernel = get_ipython().kernel  # noqa: F821  the worker's
    if thread == "own":
        threading.Thread(target=body).start()
    else:
        of_kernel = kernel.control_thread if thread == "control" else kernel.iopub_thread
        of_kernel.io_loop.add_callback(body)
    if not over.wait(10):
        raise Refused("the thread did not do it")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def say_as_output(*frames):
    """Send frames over the socket of the kernel's output."""
    kernel = get_ipython().kernel  # noqa: F821  the worker's
    kernel.iopub_socket.send_multipart([*frames])
    kernel.iopub_thread.flush()


def hand_over(told, memory):
    """Say to the host, whenever it pulls the variable x, that it is what is told."""
    kernel = get_ipython().kernel  # noqa: F821  the worker's

    async def answer(stream, ident, parent):
        content = {"status": "ok", "values": {"sizes": [len(memory)], "values": {"x": told}}}
        part = memory + bytes(-len(memory) % 16)
        kernel.session.send(stream, "pull_reply", content, parent, ident=ident, buffers=[part])

    kernel.shell_handlers["pull_request"] = answer


def tell(probe, places):
    """Run a probe, and print its outcome for the host."""
    facts.__dict__.update(places)
    try:
        evidence = probe()
        outcome = ("succeeded", repr(evidence)[:200])
    except OSError as error:
        outcome = ("refused", errno.errorcode.get(error.errno, str(error)))
    except MemoryError:
        outcome = ("refused", "MemoryError")
    except Refused as error:
        outcome = ("refused", str(error)[:200])
    except Absent as error:
        outcome = ("absent", str(error))
    except Exception:
        outcome = ("broken", traceback.format_exc())
    print("\n" + MARK + json.dumps(outcome), flush=True)
