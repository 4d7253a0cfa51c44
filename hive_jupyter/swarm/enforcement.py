"""
What Hive needs of this machine, each thing proven by a probe and not by a version number.

What confines workers is the matter of ``confinement``. What needs forking or limiting a process is
tried in a short-lived interpreter (``prove``), never in the user's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_jupyter.errors import HiveError
from hive_jupyter.procfs import read_stat
from hive_jupyter.swarm import system
from hive_jupyter.swarm.report import MISSING, YES, Row
from hive_jupyter.swarm.runtime import RuntimeFolder
from hive_jupyter.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds for the interpreter with all probes, and for one event within a probe.
PROBE_TIMEOUT = 10.0
_EVENT_TIMEOUT = 2.0

_LEAST_FREE = 64 * 2**20
_DATA_LIMIT = 64 * 2**20
_BLOCK = 64 * 1024
_CHILDS_ANSWER = 7

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_PROVE = (
    "import sys; sys.path.extend(sys.argv[1:]); "
    "from hive_jupyter.swarm.enforcement import prove; prove()"
)

_EXEC_INSTEAD = "Workers are started anew each time instead of forked: slower, the same otherwise."
_MEANINGS = {
    "Linux": "No worker runs on this system. You get instructions instead.",
    "Python": "",
    "ipykernel": "No worker can start; install it: pip install ipykernel",
    "IPython": "No worker can start; install it: pip install ipython",
    "pyzmq": "No worker can start; install it: pip install pyzmq",
    "fork": _EXEC_INSTEAD,
    "process descriptors (pidfd)": "A worker's death cannot be seen at once; Hive cannot run here.",
    "adopting orphans (subreaper)": "What a worker leaves in the background may outlive it.",
    "dying with the parent (PDEATHSIG)": "After a crash of your kernel, workers may stay behind.",
    "memory limit (RLIMIT_DATA)": "--memory stops a worker late, by watching it, or not at all.",
    "processes shown in /proc": "No memory, CPU or health of workers; stale folders stay.",
    "unix sockets": "Workers are reached by TCP on this machine, encrypted; a little slower.",
    "space for runtime files": "No worker can start, or its log is cut. Free some space.",
}
# The same on other systems, of which only this is asked.
_MEANINGS_ELSEWHERE = {
    "Linux": "Workers are started and ended by what all systems know. Less holds them.",
    "fork": _EXEC_INSTEAD,
    "adopting orphans (subreaper)": "What a worker starts in a session of its own may outlive it.",
    "memory limit (RLIMIT_DATA)": "--memory and `processes` do not hold: nobody counts.",
    "processes shown in /proc": "No memory and CPU of workers; one that was stopped looks busy.",
}
_PROVEN_APART = (
    "fork",
    "process descriptors (pidfd)",
    "adopting orphans (subreaper)",
    "dying with the parent (PDEATHSIG)",
    "memory limit (RLIMIT_DATA)",
    "processes shown in /proc",
)


def examine(folder: Path | None = None) -> list[Row]:
    """
    Try out what Hive needs of this machine; takes about half a second.

    Args:
        folder: the runtime folder; None: one is made for the probe and removed again.
    """
    is_elsewhere = system.HAS_WORKERS and not system.IS_LINUX
    meanings = {**_MEANINGS, **_MEANINGS_ELSEWHERE} if is_elsewhere else _MEANINGS
    found = {
        "Linux": (system.IS_LINUX, f"{platform.system()} {platform.release()}"),
        "Python": (True, sys.version.split()[0]),
        "ipykernel": _version("ipykernel"),
        "IPython": _version("ipython"),
        "pyzmq": _version("pyzmq"),
        **(_prove_apart() if system.IS_LINUX else _not_here()),
        **_examine_folder(folder),
    }
    return [
        Row(name, YES if ok else MISSING, detail, "" if ok else meanings[name])
        for name, (ok, detail) in found.items()
    ]


def _not_here() -> dict[str, tuple[bool, str]]:
    names = (name for name in _MEANINGS_ELSEWHERE if name != "Linux")
    return dict.fromkeys(names, (False, "not used on this system"))


def _version(distribution: str) -> tuple[bool, str]:
    try:
        return True, importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False, "not installed"


def _examine_folder(folder: Path | None) -> dict[str, tuple[bool, str]]:
    if folder is not None:
        return {
            "unix sockets": _try(lambda: _socket(folder)),
            "space for runtime files": _try(lambda: _space(folder)),
        }
    try:
        own = RuntimeFolder.create()
    except HiveError as error:
        return {
            "unix sockets": (False, "no folder to bind one in"),
            "space for runtime files": (False, str(error)),
        }
    try:
        return _examine_folder(own.path)
    finally:
        own.remove()


def _socket(folder: Path) -> str:
    """Connect to a socket in the folder and pass a file descriptor through it."""
    path = folder / f"doctor-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        Path(os.devnull).open("rb") as file,
    ):
        listener.bind(os.fsencode(path))
        try:
            listener.listen(1)
            client.settimeout(_EVENT_TIMEOUT)
            client.connect(os.fsencode(path))
        finally:
            path.unlink()
        server, _ = listener.accept()
        with server:
            server.settimeout(_EVENT_TIMEOUT)
            socket.send_fds(client, [b"x"], [file.fileno()])
            received = socket.recv_fds(server, 1, 1)[1]
            for descriptor in received:
                os.close(descriptor)
    if not received:
        raise OSError("no file descriptor came through")
    return f"in {folder}"


def _space(folder: Path) -> str:
    path = folder / f"doctor-{os.getpid()}"
    try:
        path.write_bytes(bytes(_BLOCK))
    finally:
        path.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        msg = f"only {format_size(free)} free in {folder}"
        raise OSError(msg)
    return f"{format_size(free)} free in {folder}"


def _try(probe: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, probe()
    except Exception as error:
        return False, (error.strerror if isinstance(error, OSError) else "") or str(error)


# --- in an interpreter of its own ---


def _prove_apart() -> dict[str, tuple[bool, str]]:
    """Run ``prove`` in a short-lived interpreter."""
    # At the end of the path, so that nothing of the user's hides a module of Python's own.
    path = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    unknown = "the probe did not answer"
    results: dict[str, Any] = {}
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-c", _PROVE, *path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT,
            check=False,
        )
        results = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        unknown = f"the probe did not answer ({type(error).__name__})"
    return {name: tuple(results.get(name, (False, unknown))) for name in _PROVEN_APART}


def prove() -> None:
    """Try what only a process of its own may try; write the findings to stdout as JSON."""
    probes = (_fork, _pidfd, _subreaper, _parent_death, _data_limit, _proc)
    findings = {name: _try(probe) for name, probe in zip(_PROVEN_APART, probes, strict=True)}
    sys.stdout.write(json.dumps(findings))


def _fork() -> str:
    if _outcome(_child(lambda: _CHILDS_ANSWER)) != _CHILDS_ANSWER:
        raise OSError("a child did not run")
    return "a child was forked and reaped"


def _pidfd() -> str:
    with _idle_child() as pid:
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not select.select([descriptor], [], [], _EVENT_TIMEOUT)[0]:
                raise OSError("a child's death was not reported")
        finally:
            os.close(descriptor)
    return "a child's death was reported"


def _subreaper() -> str:
    _adopt_orphans()
    if _outcome(_orphan(lambda _ready: 0)) != 0:
        raise OSError("an orphan did not come to its grandparent")
    return "an orphan came to its grandparent"


def _parent_death() -> str:
    def body(ready: int) -> int:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.write(ready, b"r")
        return _idle()

    _adopt_orphans()
    if _outcome(_orphan(body)) != -signal.SIGKILL:
        raise OSError("a child survived its parent")
    return "a child died with its parent"


def _data_limit() -> str:
    def body() -> int:
        resource.setrlimit(resource.RLIMIT_DATA, (_DATA_LIMIT, _DATA_LIMIT))
        try:
            bytearray(2 * _DATA_LIMIT)
        except MemoryError:
            return 0
        return 1

    if _outcome(_child(body)) != 0:
        raise OSError("a child could take more than its limit")
    return "a child got a MemoryError at its limit"


def _proc() -> str:
    with _idle_child() as pid:
        facts = read_stat(pid)
        if facts is None or facts.parent != os.getpid() or not Path(f"/proc/{pid}/task").is_dir():
            raise OSError("a child could not be read")
    return "a child could be read"


def _child(body: Callable[[], int]) -> int:
    """Fork a child that ends with the exit code that the body returns."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = body()
        finally:
            os._exit(code)
    return pid


def _orphan(body: Callable[[int], int]) -> int:
    """
    Fork a child of a child that then ends.

    Args:
        body: as in ``_child``; gets a descriptor to write to, or close, when the parent may end.

    Returns:
        The orphan's pid.
    """
    reader, writer = os.pipe()

    def parent() -> int:
        ready, tell = os.pipe()
        pid = _child(lambda: body(tell))
        os.close(tell)
        os.read(ready, 1)
        os.write(writer, b"%d" % pid)
        return 0

    _outcome(_child(parent))
    os.close(writer)
    answer = os.read(reader, _BLOCK)
    os.close(reader)
    return int(answer)


def _idle() -> int:
    """Wait to be killed, but not for ever."""
    select.select([], [], [], 2 * _EVENT_TIMEOUT)
    return 1


@contextlib.contextmanager
def _idle_child() -> Iterator[int]:
    pid = _child(_idle)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _outcome(pid: int) -> int:
    """
    Wait for a child's end, and reap it.

    Returns:
        Its exit code, or the negative number of the signal that ended it.
    """
    deadline = time.monotonic() + _EVENT_TIMEOUT
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended:
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError("a child did not end")
        signal.sigtimedwait({signal.SIGCHLD}, left)
        ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)


def _adopt_orphans() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    answer = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    if answer.value != 1:
        raise OSError("the setting does not last")


def _prctl(option: int, argument: int) -> None:
    function = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if function(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
