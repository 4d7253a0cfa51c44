"""
The way of a worker where the system is not Linux: started and ended by what POSIX knows alone.

::

    host ── unix socket (lines of JSON) ── supervisor ── exec ── worker ── whatever it starts
                                               └────── pipe ────────┘
                            what the worker is to be; then its end is the supervisor's

Both are exec'd, since a fork that is no exec does not go well with the libraries of every system.
To the host this supervisor says what that of Linux says, but for pidfds. With its worker it ends
the process group that the worker leads; what left that, gets away.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

from hive_jupyter.protocol import SERVER, WorkerSpec, encode_line
from hive_jupyter.worker.confine.elsewhere import Elsewhere
from hive_jupyter.worker.confine.seatbelt import SANDBOX_EXEC
from hive_jupyter.worker.supervisor import (
    Supervisor,
    arrange,
    be_worker,
    end_with,
    own_streams,
    receive_spec,
)

_ENTRY = os.path.join(os.path.dirname(os.path.realpath(__file__)), "__main__.py")
# So often it is looked whether there is a host (milliseconds): as a rule the socket tells of its
# end, but not where a fork of it keeps the socket open.
_LOOK_INTERVAL = 1000.0


def main(descriptor: int, host_pid: int) -> NoReturn:
    """
    Receive a spec, run its worker to the end, and exit.

    Args:
        descriptor: the unix socket to the host.
        host_pid: of the host, this process's parent.
    """
    host = socket.socket(fileno=descriptor)
    spec = receive_spec(host)
    confinement = Elsewhere(spec, has_profile=os.access(SANDBOX_EXEC, os.X_OK))
    arrange(host, confinement)
    PortableSupervisor(host, host_pid, spec, confinement).run()
    os._exit(0)


class PortableSupervisor(Supervisor):
    """
    The life of one worker.

    Args:
        host: the socket to the host.
        host_pid: of the host.
        spec: of the worker.
        confinement: of it, as far as this process prepares it.
    """

    def __init__(
        self, host: socket.socket, host_pid: int, spec: WorkerSpec, confinement: Elsewhere
    ) -> None:
        self._host_pid = host_pid
        self._elsewhere = confinement
        super().__init__(host, None, spec, confinement)

    def _bulk_pair(self) -> tuple[list[int], list[int]]:
        return [], []

    def _start(self, ready: int, pipes: Mapping[str, tuple[int, int]], bulk: Sequence[int]) -> int:  # noqa: ARG002  none
        reading, self._lifeline = os.pipe()
        door = [sys.executable, "-I", "-S", _ENTRY, "worker", str(reading), str(os.getpid())]
        self._program = subprocess.Popen(
            [*self._elsewhere.wrapper, *door, *sys.argv[4:]],
            stdin=None if self._spec.role == SERVER else subprocess.DEVNULL,
            pass_fds=[reading, ready, *(end for pair in pipes.values() for end in pair)],
            start_new_session=True,
        )
        os.close(reading)
        told = {"ready": ready, "pipes": dict(pipes), "boundary": self._elsewhere.paths()}
        line = memoryview(self._spec.to_json() + encode_line(told))
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen otherwise
            while line:
                line = line[os.write(self._lifeline, line) :]
        return self._program.pid

    def _reader(self, reading: int) -> int:
        ours = os.dup(reading)
        os.set_blocking(ours, False)
        return ours

    def _handles(self) -> list[int]:
        return []

    def _patience(self) -> float:
        return _LOOK_INTERVAL

    def _look(self) -> bool:
        return os.getppid() == self._host_pid

    def _last_words(self) -> dict[str, str]:
        # Without /proc there is no reading end of our own: who still has the worker's may have us
        # wait, and who is left of it goes now anyway.
        self._kill_all()
        for descriptor in self._output.values():
            os.set_blocking(descriptor, False)
        return super()._last_words()

    def _kill_all(self) -> None:
        # also after its end: as long as one of its group is left, nobody else gets that number
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker, signal.SIGKILL)


def main_of_worker(descriptor: int) -> NoReturn:
    """
    Be a worker.

    Args:
        descriptor: a pipe from the supervisor.
    """
    with os.fdopen(descriptor, "rb", closefd=False) as pipe:
        first, second = pipe.readline(), pipe.readline()
    if not second:
        os._exit(0)
    spec, told = WorkerSpec.from_json(first), json.loads(second)
    pipes = {name: (reading, writing) for name, (reading, writing) in told["pipes"].items()}
    for inherited in (descriptor, told["ready"], *(end for ends in pipes.values() for end in ends)):
        os.set_inheritable(inherited, False)
    own_streams(spec, pipes)
    if not spec.argv:
        threading.Thread(target=_end_with_supervisor, args=[descriptor], daemon=True).start()
    confinement = Elsewhere.of(spec, told["boundary"])
    end_with(lambda: be_worker(spec, confinement, told["ready"], pipes))


def _end_with_supervisor(descriptor: int) -> None:
    """Wait, on a thread of its own, for the end of the supervisor; take all of the group along."""
    os.read(descriptor, 1)
    os.killpg(0, signal.SIGKILL)
