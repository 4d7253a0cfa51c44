"""
The zygote: an exec'd, clean, single-threaded interpreter that has imported what a worker needs.

It forks a supervisor for each unix socket that the host sends it, and does nothing else: one
``poll`` loop with two sources, the host and ended children. It holds no thread, no event loop and
no zmq context, because a fork copies none of them whole. The end of the host's stream retires it:
it forks no more and goes with its last worker. When the host itself ends, supervisors end by
themselves; one that cannot, because somebody stopped it, the zygote kills before it goes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, NoReturn

from hive_jupyter.protocol import FAILED, FORK, READY, LineBuffer, encode_line
from hive_jupyter.worker import supervisor
from hive_jupyter.worker.confine import namespaces, prctl
from hive_jupyter.worker.sweep import kill_below, sweep


def main(descriptor: int, host_pid: int) -> NoReturn:
    """
    Warm up, tell the host, and fork on request.

    Args:
        descriptor: the unix socket to the host; its first line is
            {"folder": "...", "confined": false}.
        host_pid: of the host.
    """
    prctl.die_with(host_pid)
    host_process = supervisor.watch_host(host_pid)
    prctl.set_dumpable(False)
    prctl.set_title("hive: zygote")
    prctl.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = socket.socket(fileno=descriptor)
    try:
        setup = _receive_setup(host)
        _warm_up(setup["folder"])
        files = _watched_files()
        has_namespaces = setup["confined"] and namespaces.work()
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            host.sendall(encode_line({"event": FAILED, "reason": f"{error}"}))
        os._exit(supervisor.START_FAILED)
    # from here on the host's end is an event, after which there is something left to do
    prctl.outlive_parent()
    host.sendall(encode_line({"event": READY, "files": files}))
    Zygote(host, host_process, has_namespaces=has_namespaces).serve()
    os._exit(0)


def _receive_setup(host: socket.socket) -> dict[str, Any]:
    buffer = LineBuffer()
    while True:
        piece = host.recv(65536)
        if not piece:
            os._exit(0)
        for setup in buffer.feed(piece):
            return setup


def _warm_up(folder: str) -> None:
    """Import, and build the shell."""
    from hive_jupyter.worker import kernel

    gc.disable()  # what is imported stays, so there is nothing to collect
    kernel.prepare(folder)
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        msg = (
            f"{len(threads)} threads run in a fresh interpreter, so it cannot be forked "
            "(a .pth file or sitecustomize may start them)"
        )
        raise RuntimeError(msg)
    gc.freeze()
    gc.enable()


def _watched_files() -> dict[str, int]:
    """Modification times (ns) of what was loaded, and of the folders that pip installs into."""
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    folders = [entry for entry in sys.path if entry.endswith("-packages")]
    files: dict[str, int] = {}
    for name in [*modules, *folders]:
        with contextlib.suppress(OSError, TypeError, ValueError):
            files[str(name)] = os.stat(str(name)).st_mtime_ns
    return files


class Zygote:
    """
    Forks supervisors.

    Args:
        host: a unix socket; each byte that comes down it brings the socket for one supervisor.
        host_process: a pidfd of the host, for the supervisors.
        has_namespaces: each supervisor is the first process in namespaces of its own.
    """

    def __init__(self, host: socket.socket, host_process: int, *, has_namespaces: bool) -> None:
        self._host = host
        self._host_process = host_process
        self._has_namespaces = has_namespaces
        self._supervisors: set[int] = set()
        self._wakeup = supervisor.wake_on_child()
        self._retired = False

    def serve(self) -> None:
        """Fork until the host's stream ends and the last supervisor is gone, or the host is."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(self._host, select.POLLIN)
        poll.register(self._host_process, select.POLLIN)
        while not (self._retired and not self._supervisors):
            for descriptor, _ in poll.poll():
                if descriptor == self._host_process:
                    self._outlive_host()
                    return
                if descriptor == self._wakeup:
                    self._reap()
                elif not self._serve_host():
                    self._retired = True
                    poll.unregister(self._host)

    def _serve_host(self) -> bool:
        try:
            request, descriptors, _, _ = socket.recv_fds(self._host, 1, 1)
        except OSError:
            return False
        if request == FORK and descriptors:
            self._fork(descriptors[0])
        return bool(request)

    def _outlive_host(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        deadline = time.monotonic() + supervisor.HOST_GONE_GRACE
        while self._supervisors and (left := deadline - time.monotonic()) > 0:
            poll.poll(left * 1000)
            self._reap()
        sweep(kill_below)

    def _fork(self, descriptor: int) -> None:
        try:
            pid = namespaces.clone() if self._has_namespaces else os.fork()
        except OSError:  # too many processes, too little memory: the host sees the socket's end
            traceback.print_exc()
            os.close(descriptor)
            return
        if pid == 0:
            try:
                self._host.close()
                os.close(self._wakeup)
                os.setsid()
                supervisor.main(descriptor, self._host_process, has_namespaces=self._has_namespaces)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(supervisor.START_FAILED)
        os.close(descriptor)
        self._supervisors.add(pid)

    def _reap(self) -> None:
        """Collect ended supervisors, and kill what a supervisor that was killed left behind."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._supervisors.discard(pid)
        kill_below(spared=self._supervisors)
