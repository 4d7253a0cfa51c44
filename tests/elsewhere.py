"""
Hide from this process, and from what it starts, that the system is Linux.

What is hidden is what Python and C libraries of other systems do not have, or what no program would
find there; the numbers and the structures of this system stay. What belongs to packages of others,
such as psutil, which ipykernel imports, is loaded before: they have versions for other systems.
"""

import contextlib
import ctypes.util  # noqa: F401  looks at the platform once
import fcntl
import importlib
import os
import resource
import runpy
import select
import signal
import socket
import sys
import sysconfig
import time
from pathlib import Path

_ABSENT = {
    os: (
        "O_PATH",
        "copy_file_range",
        "eventfd",
        "getrandom",
        "memfd_create",
        "pidfd_open",
        "posix_fadvise",
        "sched_getaffinity",
        "sched_setaffinity",
        "setns",
        "setresuid",
        "splice",
        "unshare",
        "waitid",
    ),
    signal: ("SIGRTMAX", "SIGRTMIN", "pidfd_send_signal", "sigtimedwait", "sigwaitinfo"),
    socket: ("MSG_CMSG_CLOEXEC", "SO_PASSCRED", "SO_PEERCRED"),
    select: ("epoll",),
    fcntl: ("F_ADD_SEALS", "F_GETPIPE_SZ", "F_SETPIPE_SZ"),
    resource: ("prlimit",),
    time: ("CLOCK_BOOTTIME",),
}
_ABSENT_FUNCTIONS = {"epoll_wait", "prctl"}
_ABSENT_PLACES = ("/proc", "/sys", "/dev/shm")
_LOOKS = ("access", "lstat", "readlink", "stat", "statvfs")


def _is_absent(path):
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    return any(name == place or name.startswith(f"{place}/") for place in _ABSENT_PLACES)


def _refuse(event, arguments):
    if event in {"open", "os.chdir", "os.listdir", "os.scandir"} and _is_absent(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])
    if event == "ctypes.dlsym" and arguments[1] in _ABSENT_FUNCTIONS:
        raise AttributeError(arguments[1])


def _blind(look):
    def looked(path, *arguments, **options):
        if _is_absent(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return look(path, *arguments, **options)

    return looked


def hide():
    """Hide it from now on, for what is imported later."""
    sysconfig.get_config_vars()
    path = [*sys.path]
    sys.path += [word for word in sys.argv if word.endswith("-packages")]
    with contextlib.suppress(ImportError):
        importlib.import_module("psutil")
    sys.path[:] = path
    for module, names in _ABSENT.items():
        for name in names:
            vars(module).pop(name, None)
    for name in _LOOKS:
        setattr(os, name, _blind(getattr(os, name)))
    sys.platform = "freebsd14"
    sys.addaudithook(_refuse)


def interpreter(folder, prepare="hide()"):
    """
    A Python that does something before it runs a program; so does what is started by its name.

    ::

        PYTHON [OPTION ...] PROGRAM [ARGUMENT ...]
    """
    program = folder / "python"
    source = Path(__file__).read_text()
    program.write_text(f"#!{sys.executable} -IS\n{source}\n\n{prepare}\n_run()\n")
    program.chmod(0o700)
    return str(program)


def _run():
    sys.executable = os.path.abspath(__file__)
    place = next(number for number, word in enumerate(sys.argv[1:], 1) if word[0] != "-")
    sys.argv[:] = sys.argv[place:]
    runpy.run_path(sys.argv[0], run_name="__main__")
