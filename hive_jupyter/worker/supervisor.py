"""
The supervisor: one small process per worker, between zygote and worker.

It forks the worker, tells the host how it ends, and takes everything that the worker started with
it: as a child subreaper it becomes the parent of every daemon that tries to slip away. It never
runs the user's code. Of what a server writes to its stderr it keeps the latest.

::

    host ── unix socket (lines of JSON) ── supervisor ── fork ── worker ── whatever it starts
              spec, signal, kill  ->            ready <- pipe <-
              <- started, ready, exit
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NoReturn

from hive_jupyter import procfs
from hive_jupyter.errors import SandboxUnavailable
from hive_jupyter.protocol import (
    EXIT,
    FAILED,
    KERNEL,
    READY,
    SERVER,
    SIGNALLED,
    STARTED,
    WORKER,
    WORKER_VARIABLE,
    LineBuffer,
    WorkerSpec,
    encode_line,
)
from hive_jupyter.worker.confine import Confinement, namespaces, prctl
from hive_jupyter.worker.log import RecentLog
from hive_jupyter.worker.sweep import kill_below, sweep
from hive_jupyter.worker.watch import Excess, Watch

# Bytes of a dead worker's last words on each stream: what fits into the socket to a host that does
# not read just now; and what a pipe holds (pipe(7)).
_LAST_WORDS = 8192
_PIPE = 2**16

# When the host is gone, supervisors have so many seconds to sweep; one that was stopped does not.
HOST_GONE_GRACE = 1.0

# Who may open fewer files (ulimit -n) needs each; a worker takes some sixty for itself.
_ENOUGH_FILES = 128

# What ru_maxrss counts, in bytes.
_MAXRSS = 1 if sys.platform == "darwin" else 1024

START_FAILED = 70  # EX_SOFTWARE of sysexits.h: the worker never got as far as the user's code


def main(descriptor: int, host_process: int, *, has_namespaces: bool) -> NoReturn:
    """
    Receive a spec, run its worker to the end, and exit.

    Args:
        descriptor: the unix socket to the host.
        host_process: a pidfd of the host. The end of the socket is not enough: a fork of the host
            (multiprocessing) keeps it open.
        has_namespaces: this process is the first in namespaces of its own.
    """
    host = socket.socket(fileno=descriptor)
    _supervise(host, host_process, receive_spec(host), has_namespaces=has_namespaces)


def main_of_program(descriptor: int, host_process: int) -> NoReturn:
    """
    The same for a program of its own, with no zygote above it.

    What supervises is a child: whoever makes namespaces of processes stays outside, and somebody
    has to end what is left where a worker kills its supervisor.
    """
    prctl.set_dumpable(False)
    host = socket.socket(fileno=descriptor)
    spec = receive_spec(host)
    has_namespaces = spec.policy.is_confined and namespaces.work()
    prctl.adopt_orphans()
    child = namespaces.clone() if has_namespaces else os.fork()
    if child == 0:
        if has_namespaces:
            prctl.die_with(0)  # its parent is not to be seen from within
        _supervise(host, host_process, spec, has_namespaces=has_namespaces)
    if spec.role == SERVER:
        _leave_streams()
    # its own end of the socket stays open: the host is told the end of all
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, host_process], [], [])[0]:
        select.select([ended], [], [], HOST_GONE_GRACE)
    has_failed = os.waitpid(child, os.WNOHANG)[1] != 0
    sweep(kill_below)
    os._exit(START_FAILED if has_failed else 0)


def _supervise(
    host: socket.socket, host_process: int, spec: WorkerSpec, *, has_namespaces: bool
) -> NoReturn:
    prctl.set_title(f"hive: supervisor of {spec.name or 'a spare'}")
    prctl.adopt_orphans()
    confinement = Confinement(spec, has_namespaces=has_namespaces)
    arrange(host, confinement)
    Supervisor(host, host_process, spec, confinement).run()
    os._exit(0)


def arrange(host: socket.socket, confinement: Confinement) -> None:
    """Prepare a worker's confinement; where that fails, the host is told why."""
    try:
        confinement.arrange()
    except Exception as error:
        missing = error.missing if isinstance(error, SandboxUnavailable) else ()
        host.sendall(encode_line({"event": FAILED, "reason": f"{error}", "missing": missing}))
        raise


def watch_host(pid: int) -> int:
    """Return a pidfd of the host, this process's parent; end at once if it is gone already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(0)
    if os.getppid() != pid:
        os._exit(0)
    return descriptor


def receive_spec(host: socket.socket) -> WorkerSpec:
    """The first line that a host sends; ends this process where there is none."""
    line = b""
    while not line.endswith(b"\n"):
        piece = host.recv(65536)
        if not piece:
            os._exit(0)
        line += piece
    return WorkerSpec.from_json(line)


class Supervisor:
    """
    The life of one worker.

    Args:
        host: the socket to the host; its end means that the host wants no worker any more.
        host_process: a pidfd of the host; None: there are no such here.
        spec: of the worker.
        confinement: the same, in so far as this process prepares it.
    """

    def __init__(
        self,
        host: socket.socket,
        host_process: int | None,
        spec: WorkerSpec,
        confinement: Confinement,
    ) -> None:
        self._host = host
        self._host_process = host_process
        self._spec = spec
        self._requests = LineBuffer()
        self._confinement = confinement
        self._watch = Watch(
            spec.policy, kept=confinement.kept, own_shared_memory=confinement.has_namespaces
        )
        self._excess: Excess | None = None
        self._has_worker = True
        self._cpu_seconds = 0.0
        self._oom_kills = procfs.oom_kills()
        self._ready, ready_end = os.pipe()
        pipes = {name: os.pipe() for name in _piped_streams(spec)}
        self._output = {name: self._reader(reading) for name, (reading, _) in pipes.items()}
        self._log = None
        if spec.role == SERVER:
            self._log = RecentLog(os.path.join(spec.folder, "log"))
        self._wakeup = wake_on_child()
        self._bulk, workers_bulk = self._bulk_pair()
        self._worker = self._start(ready_end, pipes, workers_bulk)
        for descriptor in (ready_end, *chain(*pipes.values()), *workers_bulk):
            os.close(descriptor)
        if spec.role == SERVER:
            _leave_streams()

    def run(self) -> None:
        """Serve until the worker and everything that it started are gone."""
        self._announce()
        handlers: dict[int, Callable[[], bool]] = {
            self._host.fileno(): self._serve_host,
            self._ready: self._pass_ready_on,
            self._wakeup: self._reap,
        }
        if self._host_process is not None:
            handlers[self._host_process] = lambda: False
        if self._log is not None:
            handlers[self._output["stderr"]] = self._keep_log
        poll = select.poll()
        for descriptor in handlers:
            poll.register(descriptor, select.POLLIN)
        going = True
        while going:
            for descriptor, events in poll.poll(self._patience()):
                going = handlers[descriptor]() and going
                # a server that closed its stderr, as the last who held it
                if descriptor == self._ready or events == select.POLLHUP:
                    poll.unregister(descriptor)
            going = going and self._look()
        self._kill_all()
        self._has_worker = False  # its pid is another's as soon as the sweep has reaped it
        sweep(self._kill_all)
        self._confinement.leave()

    def _start(self, ready: int, pipes: Mapping[str, tuple[int, int]], bulk: Sequence[int]) -> int:
        """Have the worker begin, in a session of its own; return its pid."""
        return _fork(lambda: become_worker(self._spec, self._confinement, ready, pipes, bulk))

    def _bulk_pair(self) -> tuple[list[int], list[int]]:
        """The host's and the worker's end of a way for large values; of others none."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        has_few = 0 <= files < _ENOUGH_FILES
        if self._spec.role != WORKER or self._spec.argv or has_few:
            return [], []
        ours, theirs = socket.socketpair()
        return [ours.detach()], [theirs.detach()]

    def _reader(self, reading: int) -> int:
        """A reading end of our own: nothing that the worker does to its own has us wait."""
        return os.open(f"/proc/self/fd/{reading}", os.O_RDONLY | os.O_NONBLOCK)

    def _handles(self) -> list[int]:
        """By which the host sees the ends of the worker and of this process."""
        return [os.pidfd_open(self._worker), os.pidfd_open(os.getpid())]

    def _announce(self) -> None:
        descriptors = [*self._handles(), *self._bulk]
        event = {"event": STARTED, "pid": self._worker, "supervisor": os.getpid()}
        with contextlib.suppress(OSError):
            socket.send_fds(self._host, [encode_line(event)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _tell(self, event: dict[str, Any]) -> None:
        # A host that is gone is noticed by the end of its stream.
        with contextlib.suppress(OSError):
            self._host.sendall(encode_line(event))

    def _serve_host(self) -> bool:
        try:
            piece = self._host.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            return False
        for request in self._requests.feed(piece):
            if request.get("kill"):
                self._kill_all()
            else:
                _signal_group(self._worker, int(request["signal"]))
                self._tell({"event": SIGNALLED})
        return True

    def _pass_ready_on(self) -> bool:
        line = b""
        while piece := os.read(self._ready, 65536):
            line += piece
        os.close(self._ready)
        if line:
            self._tell({**json.loads(line), "event": READY})
        return True

    def _keep_log(self) -> bool:
        assert self._log is not None
        with contextlib.suppress(BlockingIOError):
            self._log.write(os.read(self._output["stderr"], _PIPE))
        return True

    def _reap(self) -> bool:
        """Collect ended children; False once the worker itself is among them."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        # what it used itself, without its children, is not to be had later
        if (stat := procfs.read_stat(self._worker)) is not None:
            self._cpu_seconds = stat.cpu_seconds
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return True
            if pid == self._worker:
                self._has_worker = False
                self._report_exit(status, usage)
                return False

    def _report_exit(self, status: int, usage: resource.struct_rusage) -> None:
        code = os.waitstatus_to_exitcode(status)
        if self._excess is None and (used := self._confinement.memory_used()) is not None:
            self._excess = Excess("memory", used)
        self._tell(
            {
                "event": EXIT,
                "code": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "excess": self._excess,
                "peak_memory": usage.ru_maxrss * _MAXRSS,
                "cpu_seconds": self._cpu_seconds,
                "oom_kill": procfs.oom_kills() > self._oom_kills,
                "last_words": self._last_words(),
            }
        )

    def _last_words(self) -> dict[str, str]:
        """What the dead worker's streams got and it did not read any more."""
        if self._log is not None:
            self._keep_log()
            return {}
        found = {}
        for name, descriptor in self._output.items():
            words = b""
            with contextlib.suppress(BlockingIOError):
                words = os.read(descriptor, _PIPE)
            if words:
                left_out = len(words) - _LAST_WORDS
                note = f"[{left_out} bytes left out]\n" if left_out > 0 else ""
                found[name] = note + words[-_LAST_WORDS:].decode(errors="replace")
        return found

    def _patience(self) -> float | None:
        """Milliseconds until ``_look`` is due; None: it is not."""
        return self._watch.timeout

    def _look(self) -> bool:
        """See to what has no event; whether there is a host to go on for."""
        if self._excess is None:
            self._excess = self._watch.look()
            if self._excess is not None:
                self._kill_all()
        return True

    def _kill_all(self) -> None:
        """Kill the worker and all that it has started; at once what is left in its group."""
        if self._has_worker:
            _signal_group(self._worker, signal.SIGKILL)
        if not self._confinement.kill_all():
            kill_below()


def become_worker(
    spec: WorkerSpec,
    confinement: Confinement,
    ready: int,
    pipes: Mapping[str, tuple[int, int]],
    bulk: Sequence[int] = (),
) -> None:
    """
    Turn this freshly forked process into the worker; returns only when its kernel ends.

    Args:
        spec: of the worker.
        confinement: of it, as its supervisor prepared it.
        ready: a pipe to which the kernel writes one line of JSON once its sockets are bound.
        pipes: for "stdout" and "stderr" of Hive's own worker, for "stderr" of a server: ends for
            reading and writing.
        bulk: the socket for large values, where there is one.
    """
    os.setsid()
    prctl.set_dumpable(True)
    prctl.set_title(f"hive: {spec.role} {spec.name or '(spare)'}")
    confinement.join()
    own_streams(spec, pipes)
    kept = {ready, *bulk}
    _close_all_but(kept if spec.role == SERVER else {*kept, *chain(*pipes.values())})
    be_worker(spec, confinement, ready, pipes, bulk)


def be_worker(
    spec: WorkerSpec,
    confinement: Confinement,
    ready: int,
    pipes: Mapping[str, tuple[int, int]],
    bulk: Sequence[int] = (),
) -> None:
    """Be the worker, in a process that has nothing left of its parent; see ``become_worker``."""
    os.environ.clear()
    os.environ.update(spec.environment)
    os.environ.update(confinement.environment)
    if spec.role != KERNEL:
        os.environ[WORKER_VARIABLE] = spec.name or "spare"
        os.umask(0o022)
    time.tzset()
    os.chdir(spec.cwd)
    confinement.confine()
    if spec.argv:
        os.close(ready)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # what Python ignores, others do not
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(spec.argv[0], list(spec.argv), os.environ)
    from hive_jupyter.worker import kernel

    kernel.run(spec, confinement, ready, pipes, bulk)


def _piped_streams(spec: WorkerSpec) -> tuple[str, ...]:
    """The streams of a worker that are read here, or by the worker itself."""
    if spec.role == SERVER:
        return ("stderr",)
    return ("stdout", "stderr") if spec.role == WORKER and not spec.argv else ()


def own_streams(spec: WorkerSpec, pipes: Mapping[str, tuple[int, int]]) -> None:
    """Standard streams of the worker's own."""
    if spec.role == SERVER:  # its stdin and stdout are pipes to the host
        os.dup2(pipes["stderr"][1], 2)
        return
    null = os.open(os.devnull, os.O_RDONLY)
    path = os.path.join(spec.folder, "log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for opened, streams in ((null, (0,)), (log, (1, 2))):
        for stream in streams:
            os.dup2(opened, stream)
        if opened not in streams:
            os.close(opened)


def _close_all_but(kept: set[int]) -> None:
    """But for these and the standard streams, nothing is inherited."""
    for low, high in pairwise([2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]):
        os.closerange(low + 1, high)


def _leave_streams() -> None:
    """Give up stdin and stdout, which are a server's: their ends are told when it ends."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _fork(body: Callable[[], None]) -> int:
    """Fork a child that runs ``body`` and ends with this process; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:

        def child() -> None:
            prctl.die_with(parent)
            body()

        end_with(child)
    return pid


def end_with(body: Callable[[], None]) -> NoReturn:
    """Run ``body``, with signals as any program has them, and end this process."""
    code = START_FAILED
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        body()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends; SIGINT and SIGTERM are not for us."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return read_end


def _signal_group(pid: int, number: int) -> None:
    """Signal the worker's process group; the pid is ours until we reap it."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # Between the fork and its setsid the child has no group of its own yet. Of one that has
        # ended macOS says that it may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
