"""
What the doctor's workers try to reach: made for that in the host, and removed again.

Nothing here is the user's but the interpreter's files, which are opened as if to write to them and
not written to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import traitlets

from hive_jupyter.procfs import lines, read_stat
from hive_jupyter.units import format_size

# What a worker is kept from; the order is that of the report.
READING = "reading other files"
CHANGING = "changing other files"
PROJECT = "changing the project"
GIT = "changing a project's .git"
BESIDE_GIT = "making files beside .git"
PYTHON = "changing what Python runs"
TEMPORARY = "seeing files in /tmp"
SHARED = "shared memory of others"
PORTS = "TCP to other ports"
ALLOWED_PORTS = "TCP to ports that you allow"
UDP = "UDP, DNS included"
SOCKETS = "unix sockets of others"
SIGNALS = "signals to other processes"
MEMORY = "memory of other processes"
PROCESSES = "seeing other processes"
CALLS = "system calls nobody needs"
RIGHTS = "keeping or gaining rights"
MORE_PROCESSES = "more processes than its limit"
MORE_MEMORY = "more memory than its limit"

_HERE = "127.0.0.1"
_TMP, _SHM = "/tmp", "/dev/shm"  # noqa: S108 (places that all programs share)

# Another program of the user's. It lets itself be traced, also where a system (Yama) would not let
# one process trace another anyway: what counts is what Hive's own layers refuse.
_OTHER_PROGRAM = """
import ctypes, signal, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
secret = sys.argv[1].encode()
print(id(secret) + bytes.__basicsize__ - 1, flush=True)
sys.stdin.read()
"""

# How an attempt ended, as the worker says: "value", what it returned; "error", the name of the one
# that refused it; or "failed", what else went wrong.
Outcome = Mapping[str, Any]
Judge = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Attempt:
    """
    One thing that a worker tries.

    Attributes:
        of: what it is to be kept from.
        what: the attempt in words, after "it could not" or "it could".
        call: a function of ``worker.probes`` by name, and its arguments.
        succeeded: judges it, by how the worker says that it ended and by what is to be seen here.
    """

    of: str
    what: str
    call: tuple[Any, ...]
    succeeded: Judge


class Targets:
    """
    Files, sockets and a process for one worker; a context manager, at whose end they are gone.

    Args:
        processes: that the worker may have.
        memory: bytes that it may have.

    Attributes:
        project: the folder to start the worker in.
        port: TCP port that it is to be allowed.
        attempts: what it is to try, in this order.
        crowd: what another worker is to try, as it may end with that.

    Raises:
        OSError: they cannot be made here.
    """

    def __init__(self, *, processes: int, memory: int) -> None:
        self._memory = memory
        self._secret = secrets.token_hex(16)
        self._name = f"hive-doctor-{os.getpid()}-"
        self._folders: list[Path] = []
        self.project = Path()
        self.port = 0
        self.attempts: list[Attempt] = []
        call = ("exceed_processes", processes)
        self.crowd = Attempt(MORE_PROCESSES, f"have {processes} more", call, _returned)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._made = stack
            program = self._start_program()
            self._make_files()
            self._make_project()
            self._make_shared_memory()
            self._listen()
            self._add_program(program)
            self._add_what_needs_no_target()
            self._made = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def _add(
        self, of: str, what: str, call: tuple[Any, ...], succeeded: Judge | None = None
    ) -> None:
        self.attempts.append(Attempt(of, what, call, succeeded or _returned))

    def _told_secret(self, outcome: Outcome) -> bool:
        return self._secret in str(outcome.get("value"))

    # --- files ---

    def _folder(self, place: str) -> Path:
        path = Path(tempfile.mkdtemp(prefix=f".{self._name}", dir=place)).resolve()
        self._made.callback(shutil.rmtree, path, ignore_errors=True)
        self._folders.append(path)
        return path

    def _file(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._secret)
        return path

    def _add_change(self, of: str, what: str, path: Path) -> None:
        def changed(_outcome: Outcome) -> bool:
            return path.read_text() != self._secret

        self._add(of, what, ("append", str(path)), changed)

    def _add_new(self, of: str, what: str, path: Path) -> None:
        self._add(of, what, ("make", str(path)), lambda _: path.exists())

    def _make_files(self) -> None:
        """Make a file where a user's secrets are, and one where everybody's temporary files are."""
        home = os.path.realpath(os.path.expanduser("~"))
        if home != "/" and os.access(home, os.W_OK):
            at_home = self._folder(home)
            self._add_file(at_home, "in your home folder")
            self.project = at_home / "project"
        if not os.access(_TMP, os.W_OK):
            return
        folder = self._folder(_TMP)
        file = self._add_file(folder, "in /tmp")
        self._add(TEMPORARY, "look up a file by its name", ("look_up", str(file)))
        self._add(
            TEMPORARY,
            "list all files",
            ("list_names", _TMP),
            lambda outcome: folder.name in outcome.get("value", ()),
        )

    def _add_file(self, folder: Path, where: str) -> Path:
        file = self._file(folder / "secret")
        self._add(READING, f"read a file {where}", ("read", str(file)), self._told_secret)
        self._add_change(CHANGING, f"change a file {where}", file)
        self._add_new(CHANGING, f"make a file {where}", folder / "new")
        return file

    def _make_project(self) -> None:
        """Make it where projects are as a rule: in the home folder, where there is one."""
        if self.project == Path():
            self.project = self._folder(tempfile.gettempdir())
        project = self.project
        part = self._file(project / "part" / "a.py")
        self._add_change(PROJECT, "change a file of the project", part)
        self._add_new(BESIDE_GIT, "make a file beside .git", project / "new.py")
        head = self._file(project / ".git" / "HEAD")
        hook = head.with_name("hooks") / "commit-msg"
        hook.parent.mkdir()
        self._add_change(GIT, "change .git/HEAD", head)
        self._add_new(GIT, "make a hook", hook)
        moved = ("move_and_back", str(head.parent), str(part.with_name("git")))
        self._add(GIT, "move .git away", moved)
        self._add_interpreter(project)

    def _add_interpreter(self, project: Path) -> None:
        environment = self._file(project / ".venv" / "pyvenv.cfg").parent
        self._add_new(PYTHON, "make a .pth file in the project's .venv", environment / "new.pth")
        for of_what, module in (("the library", os), ("an installed package", traitlets)):
            path = module.__file__
            if path is not None and os.access(path, os.W_OK):
                self._add(PYTHON, f"open a module of {of_what} to write", ("open_to_write", path))

    def _make_shared_memory(self) -> None:
        if not os.access(_SHM, os.W_OK):
            return
        handle, name = tempfile.mkstemp(prefix=self._name, dir=_SHM)
        os.close(handle)
        file = self._file(Path(name))
        self._made.callback(file.unlink, missing_ok=True)
        self._add(SHARED, "read it", ("read", name), self._told_secret)
        self._add_change(SHARED, "change it", file)

    # --- sockets ---

    def _listen(self) -> None:
        self.port = self._listener(socket.AF_INET, (_HERE, 0))[1]
        other = self._listener(socket.AF_INET, (_HERE, 0))[1]
        self._add(PORTS, "connect", ("connect_tcp", other))
        self._add(PORTS, "connect by Multipath TCP", ("connect_mptcp", other))
        self._add(PORTS, "connect by TCP Fast Open", ("fast_open", other))
        self._add(ALLOWED_PORTS, "connect", ("connect_tcp", self.port))
        self._receive()
        abstract = f"\0{self._name}{self._secret}"
        self._listener(socket.AF_UNIX, abstract)
        self._add(SOCKETS, "connect to one by its abstract name", ("connect_unix", abstract))
        for folder in self._folders:
            # its path may be too long, or its file system have no sockets
            with contextlib.suppress(OSError):
                path = str(folder / "s")
                self._listener(socket.AF_UNIX, path)
                self._add(SOCKETS, f"connect to one in {folder.parent}", ("connect_unix", path))

    def _listener(self, family: int, address: Any) -> Any:
        listener = self._made.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind(address)
        listener.listen()
        return listener.getsockname()

    def _receive(self) -> None:
        receiver = self._made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind((_HERE, 0))
        receiver.setblocking(False)

        def arrived(_outcome: Outcome) -> bool:
            with contextlib.suppress(BlockingIOError):
                return receiver.recv(len(self._secret)).decode(errors="replace") == self._secret
            return False

        port = receiver.getsockname()[1]
        self._add(UDP, "send a datagram", ("send_udp", port, self._secret), arrived)

    # --- another program ---

    def _start_program(self) -> subprocess.Popen[bytes]:
        program = self._made.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _OTHER_PROGRAM, self._secret],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # first, since of what a worker reads the beginning is looked at
                env={"HIVE_DOCTOR": self._secret, **os.environ},
                start_new_session=True,
            )
        )
        self._made.callback(program.kill)
        return program

    def _add_program(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stdout is not None
        told = program.stdout.readline()
        if not told:
            msg = f"{sys.executable} could not be started"
            raise OSError(msg)
        pid, where = program.pid, (int(told), len(self._secret))
        this, that = _named(os.getpid()), _named(pid)
        told_secret = self._told_secret
        self._add(MEMORY, "read it as a file", ("read_memory", pid, *where), told_secret)
        self._add(MEMORY, "read it by a system call", ("copy_memory", pid, *where), told_secret)
        environment, command = (f"/proc/{pid}/{name}" for name in ("environ", "cmdline"))
        self._add(MEMORY, "read a process's environment", ("read", environment), told_secret)
        self._add(MEMORY, "trace a process", ("trace", *that))
        self._add(PROCESSES, "read a command line", ("read", command), told_secret)
        self._add(SIGNALS, "signal your kernel", ("send_signal", *this, 0))
        self._add(
            SIGNALS,
            "signal another program",
            ("send_signal", *that, int(signal.SIGURG)),
            lambda _: _is_pending(pid, signal.SIGURG),
        )

    # --- what it does to itself ---

    def _add_what_needs_no_target(self) -> None:
        memory = self._memory
        for of, what, *call in (
            (CALLS, "set up io_uring", "set_up_io_uring"),
            (CALLS, "handle page faults (userfaultfd)", "handle_page_faults"),
            (CALLS, "enter a user namespace", "enter_user_namespace"),
            (CALLS, "keep a key (keyctl)", "keep_key"),
            (CALLS, "make a System V segment", "share_segment"),
            (CALLS, "change its personality", "change_personality"),
            (CALLS, "be traced", "be_traced"),
            (CALLS, "have a thread without a filter", "run_unfiltered"),
            (RIGHTS, "keep a capability", "keep_capabilities"),
            (RIGHTS, "gain rights from a program (set-user-ID)", "gain_rights"),
            (RIGHTS, "leave its groups", "leave_groups"),
            (MORE_MEMORY, f"reserve {format_size(memory)} more", "exceed_memory", memory),
        ):
            self._add(of, what, tuple(call))


def _returned(outcome: Outcome) -> bool:
    return "error" not in outcome


def _named(pid: int) -> tuple[int, int]:
    """A process's number, and when it started, which tell it from all others."""
    stat = read_stat(pid)
    return pid, stat.start_ticks if stat else 0


def _is_pending(pid: int, number: int) -> bool:
    """Whether a signal that a process blocks has reached it (``proc(5)``)."""
    fields = dict(line.split(b":", 1) for line in lines(f"/proc/{pid}/status") if b":" in line)
    return bool(int(fields[b"ShdPnd"], 16) & 1 << (number - 1))
