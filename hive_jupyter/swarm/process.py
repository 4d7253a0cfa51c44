"""A worker's process, as the host holds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hive_jupyter import procfs
from hive_jupyter.display.text import plain
from hive_jupyter.errors import HiveError, SandboxUnavailable
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import (
    EXIT,
    FAILED,
    READY,
    SIGNALLED,
    STARTED,
    LineBuffer,
    WorkerSpec,
    encode_line,
)
from hive_jupyter.swarm.death import Exit
from hive_jupyter.swarm.runtime import remove_apart, remove_tree
from hive_jupyter.transfer import BulkSocket

log = logging.getLogger(__name__)

# As many bytes of a worker's log go into an error, and as many are shown to somebody who asks.
_LOG_IN_ERROR = 8 * 2**10
LOG_SHOWN = 2**20
# How long a supervisor may take to tell what the kernel has already told through a pidfd, or to do
# what it was asked; after that it is stopped or stuck, and the host acts itself.
_SUPERVISOR_PATIENCE = 1.5
# How long a supervisor may take to kill all that its worker started.
_SWEEP_PATIENCE = 2.0


@dataclass(frozen=True)
class Usage:
    """
    What a worker uses.

    Attributes:
        memory: bytes of it and its descendants, pages of files left out.
        cpu_seconds: processor time of the worker alone.
    """

    memory: int
    cpu_seconds: float


class Process:
    """
    A worker's process, wherever it is.

    Belongs to the loop that it was made on.

    Args:
        folder: the worker's private runtime folder, on this machine.
        policy: what it may touch.

    Attributes:
        place: where it lives; "": on this machine.
        started: resolves once the worker is forked.
        ready: resolves with the bound ports once the worker's sockets are bound.
        exited: resolves with the worker's Exit; never fails.
        gone: set once everything that the worker started is gone too.
        pid: of the worker, 0 until started.
        confinement: what the worker told of its own once it was ready: "missing", what its policy
            asks for and its machine cannot enforce; "notes" for the user; of what was applied,
            "landlock" (its ABI, or 0), "seccomp", "namespaces" and, on macOS, "sandbox-exec".
        refused: why it is not started, as an error; None: nothing stops it.
        bulk: for the memory of large values; None: it goes with the messages.
    """

    place = ""

    def __init__(self, folder: Path, policy: SandboxPolicy) -> None:
        self._loop = asyncio.get_running_loop()
        self._killed_for: str | None = None
        self.folder = folder
        self.policy = policy
        self.pid = 0
        self.confinement: Mapping[str, Any] = {}
        self.refused: HiveError | None = None
        self.bulk: BulkSocket | None = None
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.ready: asyncio.Future[Mapping[str, int]] = self._loop.create_future()
        self.exited: asyncio.Future[Exit] = self._loop.create_future()
        self.gone = asyncio.Event()

    @property
    def connection(self) -> dict[str, Any]:
        """Jupyter connection information, with the ports that were bound."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the worker is known to have started and not known to have ended."""
        return self.started.done() and not self.exited.done()

    @property
    def end(self) -> Exit:
        """How it ended; one that has not hangs in the kernel, where its end was waited for."""
        return self.exited.result() if self.exited.done() else Exit(by_us="hung")

    @property
    def has_ended(self) -> bool:
        """Whether the system says that it is gone, also where nobody has told so yet."""
        raise NotImplementedError

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped it with SIGSTOP."""
        raise NotImplementedError

    def usage(self) -> Usage | None:
        """What it uses now, as far as the system tells; None where it does not."""
        raise NotImplementedError

    def log_tail(self, most: int = _LOG_IN_ERROR) -> str:
        """The last lines that the worker wrote to its own log, at most so many bytes."""
        raise NotImplementedError

    async def signal(self, number: int) -> None:
        """Send a signal to the worker's process group; returns when it has been sent."""
        raise NotImplementedError

    def kill(self, reason: str) -> None:
        """
        Kill the worker and everything that it started, without waiting; ``exited`` tells.

        Args:
            reason: why, for ``Exit.by_us``: "timeout", "interrupt", "stop", "restart", "exit",
                "hung", "protocol".
        """
        raise NotImplementedError

    async def stop(self, reason: str = "stop") -> None:
        """Kill, and wait until everything is gone."""
        raise NotImplementedError

    async def remove_folder(self) -> None:
        """Delete the runtime folder, log included; what takes long goes on by itself."""
        await remove_apart(lambda: remove_tree(self.folder))

    def _refusal(self, reason: str, missing: tuple[str, ...]) -> HiveError:
        profile = self.policy.profile
        if not missing:
            return HiveError(f"the sandbox {profile} could not be set up: {reason}")
        machine = f"the machine of {self.place}" if self.place else "this machine"
        msg = (
            f"The sandbox {profile} cannot be had on {machine}, which cannot confine "
            f"{', '.join(missing)}; `%hive doctor` tells more. --sandbox workspace enforces what "
            "there is, and says what is missing."
        )
        return SandboxUnavailable(msg, missing=missing)


class WorkerProcess(Process):
    """
    A worker of this machine, held through its supervisor's socket and, on Linux, two pidfds.

    Args:
        channel: the unix socket to the supervisor.
        spec: what was asked of it.
        supervisor: the supervisor's process where it is this host's own child.
    """

    def __init__(
        self,
        channel: socket.socket,
        spec: WorkerSpec,
        supervisor: subprocess.Popen[bytes] | None = None,
    ) -> None:
        super().__init__(Path(spec.folder), spec.policy)
        self._supervisor = supervisor
        pipes = (supervisor.stdin, supervisor.stdout) if supervisor is not None else ()
        self._pipes = [pipe for pipe in pipes if pipe is not None]
        self._channel = channel
        self._lines = LineBuffer()
        self._pidfds: list[int] = []
        self._acknowledged = asyncio.Event()
        self._worked: dict[int, tuple[float, int]] = {}
        self._memory = 0
        self.spec = spec
        self.supervisor_pid = 0
        channel.setblocking(False)
        self._loop.add_reader(channel, self._read)

    @property
    def connection(self) -> dict[str, Any]:
        """Jupyter connection information, with the ports that were bound."""
        return {**self.spec.connection, **self.ready.result()}

    @property
    def exit_status(self) -> int | None:
        """The supervisor's exit code or negative signal, where it was this host's own child."""
        return None if self._supervisor is None else self._supervisor.returncode

    @property
    def has_ended(self) -> bool:
        return procfs.has_ended(self.pid)

    @property
    def is_stopped(self) -> bool:
        return procfs.is_stopped(self.pid)

    def usage(self) -> Usage | None:
        stat = procfs.read_stat(self.pid)
        return None if stat is None else Usage(self._used_memory(), stat.cpu_seconds)

    def _used_memory(self) -> int:
        """Bytes; what takes long to count is counted where any of it may have changed."""
        family = procfs.family(self.pid)
        stats = {pid: procfs.read_stat(pid) for pid in family}
        worked = {pid: (stat.cpu_seconds, stat.faults) for pid, stat in stats.items() if stat}
        if worked != self._worked:
            self._worked, self._memory = worked, procfs.used_memory(family)
        return self._memory

    def log_tail(self, most: int = _LOG_IN_ERROR) -> str:
        return log_tail(self.folder, most)

    def take_pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """A server's standard input and output; who takes them closes them."""
        stdin, stdout = self._pipes
        self._pipes = []
        return stdin, stdout

    def see_off(self, reason: str) -> None:
        """Say that it is to end by itself now; its Exit tells why."""
        self._killed_for = self._killed_for or reason

    async def signal(self, number: int) -> None:
        self._acknowledged.clear()
        self._request({"signal": number})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acknowledged.wait(), _SUPERVISOR_PATIENCE)

    def kill(self, reason: str) -> None:
        self._killed_for = self._killed_for or reason
        self._request({"kill": True})
        self._loop.call_later(_SUPERVISOR_PATIENCE, self._kill_directly)

    async def stop(self, reason: str = "stop") -> None:
        if self.gone.is_set():
            return
        self.kill(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SWEEP_PATIENCE):
                await self.gone.wait()
        if not self.gone.is_set():
            # something is left that its supervisor may not kill (sudo) or that hangs in the kernel
            log.warning("worker %s left processes that cannot be killed", self.pid)
            for descriptor in self._pidfds[1:]:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if self._supervisor is not None:
                self._supervisor.kill()
            await self.gone.wait()

    async def abandon(self) -> None:
        """Give up a start, however far it is; a supervisor that is still to come finds no host."""
        if self.started.done():
            await self.stop()
            return
        if self._supervisor is not None:
            self._supervisor.kill()
        self._supervisor_ended()

    def _request(self, request: dict[str, Any]) -> None:
        # Requests are a few bytes; a supervisor whose buffer is full is stopped or gone, and the
        # direct kill follows.
        with contextlib.suppress(OSError):
            self._channel.send(encode_line(request))

    def _read(self) -> None:
        try:
            piece, descriptors, _, _ = socket.recv_fds(self._channel, 65536, 3)
        except BlockingIOError:
            return
        except OSError:
            piece, descriptors = b"", []
        if descriptors:
            self._pidfds = descriptors[:2]
            for descriptor in descriptors:  # recv_fds of the library does not take the flag
                os.set_inheritable(descriptor, False)
            self._loop.add_reader(descriptors[0], self._worker_ended)
            for descriptor in descriptors[2:]:
                self.bulk = BulkSocket(descriptor)
        if not piece:
            self._supervisor_ended()
            return
        for event in self._lines.feed(piece):
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == STARTED:
            self.pid, self.supervisor_pid = event["pid"], event["supervisor"]
            # from namespaces of its own it tells pids that mean nothing here
            if len(self._pidfds) == 2:
                self.pid = procfs.pid_of(self._pidfds[0], self.pid)
                self.supervisor_pid = procfs.pid_of(self._pidfds[1], self.supervisor_pid)
            self.started.set_result(None)
        elif kind == FAILED:
            self.refused = self._refusal(event["reason"], tuple(event["missing"]))
        elif kind == READY:
            self.confinement = event.pop("confinement", {})
            self.ready.set_result(event)
        elif kind == SIGNALLED:
            self._acknowledged.set()
        elif kind == EXIT:
            passed, used = event["excess"] or (None, 0)
            policy = self.spec.policy
            self._conclude(
                Exit(
                    code=event["code"],
                    signal=event["signal"],
                    by_us=passed or self._killed_for,
                    memory_limit=policy.memory,
                    memory_used=used if passed == "memory" else event["peak_memory"],
                    processes_limit=policy.processes,
                    cpu_limit=policy.cpu_time,
                    cpu_seconds=event["cpu_seconds"],
                    oom_kill=event["oom_kill"],
                    last_words=event["last_words"],
                )
            )

    def _worker_ended(self) -> None:
        """The kernel says the worker is dead; its supervisor has a moment to say how."""
        self._loop.remove_reader(self._pidfds[0])
        self._loop.call_later(_SUPERVISOR_PATIENCE, self._presume_lost)

    def _presume_lost(self) -> None:
        if not self.exited.done():
            self._kill_directly()
            self._conclude(Exit(by_us=self._killed_for, lost_supervisor=True))

    def _supervisor_ended(self) -> None:
        self._loop.remove_reader(self._channel)
        if not self.exited.done():
            self._kill_directly()
            self._conclude(Exit(by_us=self._killed_for, lost_supervisor=True))
        for descriptor in self._pidfds:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._pidfds = []
        if self.bulk is not None:
            self.bulk.close()
        self._channel.close()
        if self._supervisor is not None:
            # its socket closes as it exits, so this takes no time
            self._supervisor.wait()
        for pipe in self._pipes:
            pipe.close()
        self.gone.set()

    def _conclude(self, exit_: Exit) -> None:
        if not self.exited.done():
            self.exited.set_result(exit_)
            self._acknowledged.set()

    def _kill_directly(self) -> None:
        """For a supervisor that is stopped or stuck; what they leave, the zygote sweeps."""
        if self.exited.done():
            return
        for descriptor in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not self._pidfds and self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            if self._supervisor is not None:
                self._supervisor.kill()


async def first_of(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of the futures is done; whose result, the caller looks up."""
    await asyncio.wait(futures, return_when="FIRST_COMPLETED")


async def answers_within(question: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Whether a question comes to an answer in time; a failure and a cancellation are none."""
    asking = asyncio.ensure_future(question)
    asking.add_done_callback(note_failure)
    try:
        await asyncio.wait({asking}, timeout=seconds)
    finally:
        asking.cancel()
    return asking.done() and not asking.cancelled() and asking.exception() is None


def note_failure(task: asyncio.Future[Any]) -> None:
    """Take note of a task's error, which those who waited for it, if anybody, have been told."""
    if not task.cancelled() and task.exception() is not None:
        log.info("%s", task.exception())


def log_tail(folder: Path, most: int = _LOG_IN_ERROR) -> str:
    """The last lines of the log in a runtime folder, at most so many bytes."""
    try:
        # the worker may have put something else there: a pipe, a link, a device
        descriptor = os.open(folder / "log", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        start = max(0, status.st_size - most)
        tail = os.pread(descriptor, most, start).rstrip()
        if start > 0:
            # half a line says little, but more than nothing where there is no other
            tail = tail.partition(b"\n")[2] or tail
        return plain(tail.decode(errors="replace")).strip()
    finally:
        os.close(descriptor)
