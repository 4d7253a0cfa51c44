"""
What the doctor has a worker try, to prove what its boundary stops.

An attempt is a function of this module and its arguments: the real thing, done to what the host has
made for that. It succeeds where it returns, and is refused where it raises an OSError. Whether it
has left something, the host looks for itself.
"""

from __future__ import annotations

import _thread
import errno
import json
import mmap
import os
import socket
import struct
import threading
from array import array
from typing import TYPE_CHECKING, Any

from hive_jupyter import procfs
from hive_jupyter.worker.confine import system_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_TEXT = 4096
_HERE = "127.0.0.1"
# Seconds until a connection counts as refused; on the machine itself it takes none.
_PATIENCE = 1.0
_MPTCP = 262
_FAST_OPEN = 0x20000000

# From sys/ptrace.h, sched.h, sys/personality.h, linux/keyctl.h and linux/userfaultfd.h.
_SEIZE, _TRACE_ME = 0x4206, 0
_NEW_USER = 0x10000000
_NO_RANDOM_ADDRESSES = 0x0040000
_PROCESS_KEYRING = -2
_USER_MODE_ONLY = 1
_IO_URING_PARAMETERS = 120
_REMOVE = 0  # IPC_RMID

# What a thread needs that only waits, in bytes.
_SMALL_STACK = 64 * 1024
# Seconds within which a worker that has too many of them is ended.
_CROWDS_PATIENCE = 5.0
# How a child says that something else than a system call failed.
_FAILED = 255


def tell(attempts: str) -> None:
    """
    Make all attempts and print how each ended, as one line of JSON.

    Args:
        attempts: a JSON array with an array for each: the name of a function, and its arguments.
    """
    print(json.dumps([_outcome(*attempt) for attempt in json.loads(attempts)]))  # noqa: T201


def _outcome(name: str, *arguments: Any) -> dict[str, Any]:
    """What it returned ("value"), the name of the error that refused it ("error"), or "failed"."""
    try:
        return {"value": globals()[name](*arguments)}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, type(error).__name__)}
    except Exception as error:
        return {"failed": repr(error)}


# --- files ---


def read(path: str) -> str:
    """The beginning of a file."""
    with open(path, "rb") as file:
        return file.read(_LONGEST_TEXT).decode(errors="replace")


def append(path: str) -> None:
    """Change a file that is there."""
    with open(path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"changed\n")


def make(path: str) -> None:
    """Make a file."""
    with open(path, "xb"):
        pass


def move_and_back(path: str, to: str) -> None:
    """Move a file or folder, and move it back."""
    os.rename(path, to)
    os.rename(to, path)


def open_to_write(path: str) -> None:
    """Open a file as if to write to it; it stays as it is."""
    os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))


def look_up(path: str) -> None:
    """See that a file is there."""
    os.stat(path)


def list_names(path: str) -> list[str]:
    """The names in a folder."""
    return os.listdir(path)


# --- network ---


def connect_tcp(port: int) -> None:
    """Connect to a port of this machine."""
    _connect(socket.AF_INET, (_HERE, port))


def connect_mptcp(port: int) -> None:
    """The same by Multipath TCP."""
    _connect(socket.AF_INET, (_HERE, port), _MPTCP)


def fast_open(port: int) -> None:
    """The same with data in the first packet, without ``connect``; only a blocking socket can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.sendto(b"x", _FAST_OPEN, (_HERE, port))


def send_udp(port: int, text: str) -> None:
    """Send a datagram to a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(text.encode(), (_HERE, port))


def connect_unix(address: str) -> None:
    """Connect to a unix socket by its path, or by its abstract address, which begins with a NUL."""
    _connect(socket.AF_UNIX, address)


def _connect(family: int, address: Any, protocol: int = 0) -> None:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as made:
        made.settimeout(_PATIENCE)
        made.connect(address)


# --- other processes ---


def send_signal(pid: int, started: int, number: int) -> None:
    """Send a signal to a process; number 0 only asks whether one could."""
    _find(pid, started)
    os.kill(pid, number)


def trace(pid: int, started: int) -> None:
    """Attach to a process as a debugger does; it runs on."""
    _find(pid, started)
    system_calls.call("ptrace", _SEIZE, pid, 0, 0)


def _find(pid: int, started: int) -> None:
    """See that the number means that process here, too: a namespace has numbers of its own."""
    stat = procfs.read_stat(pid)
    if stat is None or stat.start_ticks != started:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def copy_memory(pid: int, address: int, length: int) -> str:
    """Read a process's memory by a system call."""
    copied = array("B", bytes(length))
    here = struct.pack("QQ", copied.buffer_info()[0], length)
    there = struct.pack("QQ", address, length)
    system_calls.call("process_vm_readv", pid, here, 1, there, 1, 0)
    return copied.tobytes().decode(errors="replace")


def read_memory(pid: int, address: int, length: int) -> str:
    """Read a process's memory as a file."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, address).decode(errors="replace")
    finally:
        os.close(descriptor)


# --- system calls ---


def set_up_io_uring() -> None:
    """Get a ring for requests that no filter sees."""
    parameters = array("B", bytes(_IO_URING_PARAMETERS))
    os.close(system_calls.call("io_uring_setup", 1, parameters.buffer_info()[0]))


def handle_page_faults() -> None:
    """Get a descriptor that holds up threads which touch memory."""
    os.close(system_calls.call("userfaultfd", os.O_CLOEXEC | _USER_MODE_ONLY))


def enter_user_namespace() -> None:
    """Get all capabilities in a namespace of one's own."""
    _in_child(lambda: system_calls.call("unshare", _NEW_USER))


def keep_key() -> None:
    """Put a key into the kernel's keyrings."""
    system_calls.call("add_key", b"user", b"hive-doctor", b"x", 1, _PROCESS_KEYRING)


def share_segment() -> None:
    """Make a segment of memory that is shared by its number."""
    segment = system_calls.call("shmget", 0, mmap.PAGESIZE, 0o600)
    system_calls.call("shmctl", segment, _REMOVE, None)


def change_personality() -> None:
    """Have programs laid out in memory as one can foresee."""
    _in_child(lambda: system_calls.call("personality", _NO_RANDOM_ADDRESSES))


def be_traced() -> None:
    """Let a debugger in."""
    _in_child(lambda: system_calls.call("ptrace", _TRACE_ME, 0, 0, 0))


def run_unfiltered() -> int:
    """Have a thread that no filter holds for; gives how many there are."""
    return _count(status["Seccomp"] != "2" for status in _threads())


# --- rights ---


def keep_capabilities() -> int:
    """Have a thread with a capability; gives how many there are."""
    kinds = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    return _count(any(int(status[kind], 16) for kind in kinds) for status in _threads())


def gain_rights() -> int:
    """Have a thread that gets more rights from a set-user-ID program; gives how many there are."""
    return _count(status["NoNewPrivs"] != "1" for status in _threads())


def leave_groups() -> None:
    """Leave the groups that one belongs to, as only the administrator can."""
    _in_child(lambda: os.setgroups([]))


def _threads() -> Iterator[dict[str, str]]:
    for task in os.listdir("/proc/self/task"):
        lines = procfs.lines(f"/proc/self/task/{task}/status")
        yield dict(os.fsdecode(line).split(":\t", 1) for line in lines if b":\t" in line)


def _count(found: Iterator[bool]) -> int:
    """How many there are; none is a refusal."""
    number = sum(found)
    if not number:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return number


# --- limits ---


def exceed_processes(limit: int) -> None:
    """Have more threads than there may be processes and threads together, and wait for the end."""
    threading.stack_size(_SMALL_STACK)
    try:
        for _ in range(limit + 1):
            _thread.start_new_thread(threading.Event().wait, ())
    except RuntimeError as error:
        raise BlockingIOError(errno.EAGAIN, str(error)) from None
    threading.Event().wait(_CROWDS_PATIENCE)


def exceed_memory(size: int) -> None:
    """Reserve private memory; nothing is written to it."""
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _in_child(body: Callable[[], object]) -> None:
    """Do in a child what cannot be taken back; its error is raised here."""
    pid = os.fork()
    if pid == 0:
        code: int | None = _FAILED
        try:
            body()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(_FAILED if code is None else code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in {0, *errno.errorcode}:
        msg = f"the child ended with {code}"
        raise RuntimeError(msg)
    if code:
        raise OSError(code, os.strerror(code))
