"""
Starting worker processes: from a zygote, or exec'd where fork is not to be had.

::

    ForkServer ── socket ── zygote ── fork ── supervisor ── fork ── worker
         └─────── socket per worker ─────────────┘

Where the system is not Linux each has an exec'd supervisor that is content with POSIX
(``worker.portable``), and nobody waits as a spare.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir, jupyter_runtime_dir

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import (
    CHANNELS,
    FAILED,
    FORK,
    KERNEL,
    READY,
    SERVER,
    WORKER,
    LineBuffer,
    WorkerSpec,
    encode_line,
)
from hive_jupyter.swarm import system
from hive_jupyter.swarm.channels import curve_keys
from hive_jupyter.swarm.launch import Launch, library_path, worker_environment
from hive_jupyter.swarm.process import WorkerProcess, first_of, log_tail
from hive_jupyter.swarm.runtime import RuntimeFolder

log = logging.getLogger(__name__)

_ENTRY = Path(__file__).resolve().parent.parent / "worker" / "__main__.py"
# A zygote that is not warm after this long hangs (a .pth file that waits, a dead network drive).
_WARM_UP_PATIENCE = 60.0
# How long a spare may take until it is ready; nobody waits for it but the next spare.
_SPARE_PATIENCE = 10.0
# How long one that is told to retire may take.
_RETIRING_PATIENCE = 0.5
# A look at all files that a zygote loaded takes 2 ms; a start asks several times.
_LOOK_INTERVAL = 0.2
# What Linux allows for one variable of a new program, and a part of what it allows for all
# (execve(2): 32 pages, and a quarter of the stack's limit, which is 8 MB as a rule).
_LONGEST_VARIABLE = 32 * 4096
_MOST_ENVIRONMENT = 2**20
_FIRST_FREE_DESCRIPTOR = 3


class _Zygote:
    """One that is ready to fork; its end is seen on a pidfd, so that it never stays a zombie."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        files: Mapping[str, int],
        on_end: Callable[[_Zygote], None],
    ) -> None:
        self.process = process
        self.channel = channel
        self._files = files
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._next_look = 0.0
        self._is_stale = False
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self.reap)

    def packages_changed(self) -> bool:
        """Whether a package was installed, upgraded or removed since; a look that costs nothing."""
        folders = (path for path in self._files if path.endswith("-packages"))
        return any(_modified(folder) != self._files[folder] for folder in folders)

    def stale(self) -> bool:
        """Whether that, or a file that it loaded, changed since; one look at those per start."""
        if self.packages_changed():
            return True
        now = time.monotonic()
        if now >= self._next_look:
            self._is_stale = any(_modified(path) != when for path, when in self._files.items())
            self._next_look = now + _LOOK_INTERVAL
        return self._is_stale

    def retire(self) -> None:
        """Have it fork no more, and go with its last worker."""
        # shutdown reaches the zygote also while a fork of the host keeps the socket open
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()

    def end(self) -> None:
        """End it now, where it does not go by itself in time."""
        self.retire()
        try:
            self.process.wait(_RETIRING_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reap()

    def reap(self) -> None:
        """Collect its end. Idempotent."""
        if self._pidfd < 0:
            return
        self.process.wait()
        self.channel.close()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._on_end(self)


@dataclass
class ForkServer:
    """
    Starts workers with one interpreter; its zygote is started at the first need.

    Args:
        runtime: where the private folders go.
        interpreter: absolute path of the Python.
        path: entries of ``sys.path`` that the zygote may import from.
        environment: of the zygote.
        fork: False: every worker is exec'd.
        supervisor: the door of that of an exec'd worker: "supervisor", or "portable".
        sockets: use unix sockets (else TCP with CurveZMQ).
        confined: for workers with a boundary; the others get a zygote of their own, as its memory
            is also theirs.
    """

    runtime: RuntimeFolder
    interpreter: str
    path: tuple[str, ...]
    environment: Mapping[str, str]
    fork: bool = True
    supervisor: str = "supervisor"
    sockets: bool = True
    confined: bool = False
    no_fork_because: str = ""
    last_words: str = ""
    _zygote: _Zygote | None = None
    _warming: asyncio.Task[_Zygote | None] | None = None
    _renewed: int = 0
    _refilling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _spares: list[tuple[Launch, WorkerProcess]] = field(default_factory=list)
    _retired: list[_Zygote] = field(default_factory=list)

    async def warm_up(self) -> None:
        """Have a zygote ready to fork; many callers at once start one."""
        await self._living_zygote()

    async def spawn(self, launch: Launch, name: str) -> WorkerProcess:
        """
        Start a worker, or take a spare.

        Args:
            launch: what kind of worker.
            name: of the worker.

        Returns:
            The started process; its ``ready`` is still to be awaited.

        Raises:
            SandboxUnavailable: this machine cannot enforce what the policy promises.
            HiveError: no process could be started; the message says why.
        """
        spare = await self._take_spare(launch)
        if spare is not None:
            return spare
        # a zygote that was killed may take one request that it never serves, and refuse another
        for _ in range(3):
            process = await self._start(launch, name)
            if process.started.done():
                return process
            self.last_words = process.log_tail()
            await process.remove_folder()
            if process.refused is not None:
                raise process.refused
            if process.exit_status is not None:
                msg = f"{self.interpreter} {_ended(process.exit_status)} instead of starting it"
                raise HiveError(msg)
        msg = "the process that starts workers was killed again and again"
        raise HiveError(msg)

    async def refill(self, launch: Launch, count: int) -> None:
        """Keep ``count`` spares of this kind, and none of another kind."""
        # several nodes may ask at once
        async with self._refilling:
            await self._discard_spares(keep=launch)
            while self.fork and not launch.argv and len(self._spares) < count:
                renewed = self._renewed
                process = await self._start(launch, "")
                try:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_SPARE_PATIENCE):
                            await first_of(process.ready, process.exited)
                except asyncio.CancelledError:
                    await process.abandon()
                    await process.remove_folder()
                    raise
                if not process.ready.done() or renewed != self._renewed:
                    await process.stop()
                    await process.remove_folder()
                    return
                self._spares.append((launch, process))

    async def renew_boundaries(self) -> None:
        """
        Stop spares with a boundary, and one that is on its way.

        What a spare may write was found out when it was forked; a repository may have come since.
        """
        if self.confined:
            self._renewed += 1
            await self._discard_spares()

    async def close(self) -> None:
        """Stop spares and zygotes."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        await self._discard_spares()
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            zygote.end()

    async def _take_spare(self, launch: Launch) -> WorkerProcess | None:
        if self._zygote is not None and self._zygote.packages_changed():
            await self._discard_spares()
        for entry in self._spares:
            kind, process = entry
            if kind == launch and process.alive:
                self._spares.remove(entry)
                return process
        return None

    async def _discard_spares(self, keep: Launch | None = None) -> None:
        unwanted = [entry for entry in self._spares if entry[0] != keep or not entry[1].alive]
        self._spares = [entry for entry in self._spares if entry not in unwanted]
        for _, process in unwanted:
            if process.alive:
                process.kill("stop")
        for _, process in unwanted:
            await process.stop()
            await process.remove_folder()

    async def _start(self, launch: Launch, name: str) -> WorkerProcess:
        """Have a worker forked, or exec'd; where it was not even that, it has exited."""
        zygote = await self._living_zygote() if self.fork and not launch.argv else None
        spec = self._spec(launch, name)
        supervisor = None
        ours, theirs = _socketpair()
        with theirs:
            if zygote is not None:
                try:
                    socket.send_fds(zygote.channel, [FORK], [theirs.fileno()])
                except OSError:
                    zygote.end()
            else:
                try:
                    log_file = Path(spec.folder, "log")
                    supervisor = self._exec(
                        self.supervisor,
                        theirs,
                        launch.environment,
                        log_file,
                        has_pipes=launch.role == SERVER,
                    )
                except OSError:
                    ours.close()
                    raise
        process = WorkerProcess(ours, spec, supervisor)
        try:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(ours, spec.to_json())
            await first_of(process.started, process.exited)
        except asyncio.CancelledError:
            if zygote is not None and not process.started.done():
                # it should have forked long ago: another one does better
                self._retire(zygote)
            await process.abandon()
            await process.remove_folder()
            raise
        return process

    def _spec(self, launch: Launch, name: str) -> WorkerSpec:
        argv = launch.argv
        connection = {}
        if launch.role == KERNEL:
            folder = Path(launch.folder)
            folder.mkdir(mode=0o700, exist_ok=True)  # a start that failed has removed it
            (folder / "log").unlink(missing_ok=True)
        else:
            folder = self.runtime.worker_folder()
        if launch.role == WORKER:
            connection = _connection(folder, self.sockets)
        if argv and connection:
            if not self.sockets:
                msg = (
                    "Another kernel needs unix sockets here, and no folder has a path short enough."
                )
                raise HiveError(msg)
            file = folder / "connection.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps(connection))
            argv = tuple(word.replace("{connection_file}", str(file)) for word in argv)
        return WorkerSpec(
            name=name,
            folder=str(folder),
            cwd=launch.cwd,
            path=launch.path,
            environment=dict(launch.environment),
            policy=launch.policy,
            connection=connection,
            argv=argv,
            library=self.path,
            role=launch.role,
            options=launch.options,
            patience=launch.patience,
            root=launch.root,
            protected=launch.protected,
            private=(str(self.runtime.path.parent), jupyter_data_dir(), jupyter_runtime_dir()),
            tools=launch.tools,
        )

    async def _living_zygote(self) -> _Zygote | None:
        """The zygote, started anew if it died or is stale; None where fork is not to be had."""
        if not self.fork:
            return None
        zygote = self._zygote
        if zygote is not None and zygote.process.poll() is not None:
            zygote.reap()
        elif zygote is not None and zygote.stale():
            log.info("installed packages changed: starting a new zygote")
            self._retire(zygote)
            await self._discard_spares()
        if self._zygote is not None:
            return self._zygote
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._start_zygote())
        return await asyncio.shield(self._warming)

    def _retire(self, zygote: _Zygote) -> None:
        zygote.retire()
        if self._zygote is zygote:
            self._zygote = None
            self._retired.append(zygote)

    def _forget(self, zygote: _Zygote) -> None:
        """A zygote has ended."""
        if self._zygote is zygote:
            self._zygote = None
        if zygote in self._retired:
            self._retired.remove(zygote)

    async def _start_zygote(self) -> _Zygote | None:
        loop = asyncio.get_running_loop()
        folder = self.runtime.worker_folder()
        ours, theirs = _socketpair()
        ours.setblocking(False)
        process = None
        try:
            with theirs:
                environment = tuple(self.environment.items())
                process = self._exec("zygote", theirs, environment, folder / "log")
            setup = {"folder": str(folder), "confined": self.confined}
            event = {}
            hangs = False
            try:
                async with asyncio.timeout(_WARM_UP_PATIENCE):
                    await loop.sock_sendall(ours, encode_line(setup))
                    event = await _first_event(ours)
            except TimeoutError:
                hangs = True
            except OSError:  # it ended at once
                pass
        except BaseException:
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            raise
        if event.get("event") != READY:
            self.last_words = log_tail(folder)
            reason = event.get("reason") or self.last_words or "it ended without a word"
            if event.get("event") == FAILED or hangs:
                self.fork = False
            if hangs:
                reason = f"it was not ready within {_WARM_UP_PATIENCE:.0f} s"
                process.kill()
            self.no_fork_because = reason
            log.warning("no zygote for %s: %s", self.interpreter, reason)
            ours.close()
            process.wait()
            return None
        ours.setblocking(True)
        self._zygote = _Zygote(process, ours, event["files"], self._forget)
        return self._zygote

    def _exec(
        self,
        role: str,
        theirs: socket.socket,
        environment: tuple[tuple[str, str], ...],
        log_file: Path,
        *,
        has_pipes: bool = False,
    ) -> subprocess.Popen[bytes]:
        # -I and -S keep the project's folder, PYTHONPATH, the user's site folder and what .pth
        # files name out of what runs before a worker is confined; its own sys.path has them.
        command = [
            self.interpreter,
            "-I",
            "-S",
            str(_ENTRY),
            role,
            str(theirs.fileno()),
            str(os.getpid()),
            *self.path,
        ]
        with open(log_file, "ab") as output:
            return subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE if has_pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if has_pipes else output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=_for_exec(environment),
                cwd="/",
                start_new_session=True,
            )


def _for_exec(environment: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """What of an environment a new program can be given; a worker gets all of it later."""
    sizes = {name: len(os.fsencode(name + text)) + 2 for name, text in environment}
    room = _MOST_ENVIRONMENT
    fitting = {}
    for name, text in sorted(environment, key=lambda pair: sizes[pair[0]]):
        room -= sizes[name]
        if sizes[name] <= _LONGEST_VARIABLE and room >= 0:
            fitting[name] = text
    return fitting


def _ended(status: int) -> str:
    if status >= 0:
        return f"exited with code {status}"
    return f"was killed by {signal.Signals(-status).name}"


def _socketpair() -> tuple[socket.socket, socket.socket]:
    """
    A pair of sockets that a new program can inherit.

    In a host that has closed its standard streams their descriptors would be given out, and
    overwritten in the program by its own.
    """
    ours, theirs = socket.socketpair()
    while theirs.fileno() < _FIRST_FREE_DESCRIPTOR:
        with theirs:
            number = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR)
            theirs = socket.socket(fileno=number)
    return ours, theirs


async def _first_event(channel: socket.socket) -> dict[str, Any]:
    """The first line from a zygote; {} where it ended instead."""
    lines = LineBuffer()
    while True:
        piece = await asyncio.get_running_loop().sock_recv(channel, 65536)
        if not piece:
            return {}
        for event in lines.feed(piece):
            return event


def _connection(folder: Path, sockets: bool) -> dict[str, Any]:
    key = secrets.token_hex(32)
    common = {"key": key, "signature_scheme": "hmac-sha256"}
    if sockets:
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
        return {**common, **ports, "transport": "ipc", "ip": str(folder / "k")}
    public, secret = curve_keys()
    ports = {f"{channel}_port": 0 for channel in CHANNELS}
    curve = {"curve_publickey": public, "curve_secretkey": secret}
    return {**common, **ports, **curve, "transport": "tcp", "ip": "127.0.0.1"}


def _modified(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


class ForkServers:
    """
    The fork servers of one hive, made as they are needed.

    Args:
        config: the settings.
        runtime: where the private folders go.

    Attributes:
        told: what the user has been told once of the workers' confinement.
    """

    def __init__(self, config: HiveConfig, runtime: RuntimeFolder) -> None:
        self.runtime = runtime
        self.told: set[str] = set()
        self._config = config
        self._servers: dict[tuple[str, bool], ForkServer] = {}

    @property
    def patience(self) -> float:
        """Seconds that a start may take."""
        return float(self._config.connect_timeout)

    def __iter__(self) -> Iterator[ForkServer]:
        return iter(self._servers.values())

    def of(self, interpreter: str, policy: SandboxPolicy) -> ForkServer:
        """The one that starts workers of an interpreter ("": this one) under a policy."""
        kind = (interpreter or sys.executable, policy.is_confined)
        if kind not in self._servers:
            program, confined = kind
            server = make_server(self._config, program, self.runtime, confined=confined)
            self._servers[kind] = server
        return self._servers[kind]

    async def renew_boundaries(self) -> None:
        """Have whatever starts from now on see what there is now."""
        await asyncio.gather(*(server.renew_boundaries() for server in self))

    async def close(self) -> None:
        """Stop all of them."""
        await asyncio.gather(*(server.close() for server in self), return_exceptions=True)


def make_server(
    config: HiveConfig, interpreter: str, runtime: RuntimeFolder, *, confined: bool = False
) -> ForkServer:
    """A ForkServer for one interpreter, as configured."""
    return ForkServer(
        runtime=runtime,
        interpreter=interpreter,
        path=library_path() if interpreter == sys.executable else (),
        environment=worker_environment(config),
        fork=system.IS_LINUX and config.start_method == "fork",
        supervisor="supervisor" if system.IS_LINUX else "portable",
        sockets=runtime.sockets if config.transport == "auto" else config.transport == "ipc",
        confined=confined,
    )
