"""
The far end of a worker on a cluster: ``python -m hive_jupyter.swarm.station``.

::

    Dask worker ── stdin, stdout ── station ── supervisor ── worker
                                     ▲   └──────── unix sockets ──┘
    host ──── TCP with CurveZMQ ─────┘

A station starts one worker, on its own machine and confined there as at home, and carries what the
worker and the host say to each other: a confined worker has no network. It ends with the process
that started it, with its host, and with its worker, whichever is first; the worker ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from hive_jupyter import __version__
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import HiveError, SandboxUnavailable
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import CHANNELS, PROTOCOL_VERSION
from hive_jupyter.swarm.channels import Context, curve_keys
from hive_jupyter.swarm.forkserver import ForkServer, make_server
from hive_jupyter.swarm.launch import Kernel, snapshot
from hive_jupyter.swarm.link import DOMAIN, Link
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import WorkerProcess, first_of
from hive_jupyter.swarm.runtime import RuntimeFolder, sweep

# What carries each channel, at the host's end and at the worker's.
_KINDS = {
    "shell": (zmq.DEALER, zmq.DEALER),
    "control": (zmq.DEALER, zmq.DEALER),
    "stdin": (zmq.DEALER, zmq.DEALER),
    "iopub": (zmq.XPUB, zmq.XSUB),
    "hb": (zmq.DEALER, zmq.DEALER),
}
# Messages that may wait here on each side of a channel; the rest waits in the worker.
_HIGH_WATER_MARK = 10
# How often the host is told how its worker is (seconds), and at least within its patience.
_INTERVAL = 2.0
_TIMES = 4
# The last word may take so long to leave (seconds).
_LINGER = 1.0
# As much of a worker's log goes with each word about it.
_LOG = 64 * 2**10
# A connection that carries nothing for a minute is kept open, whatever is between (seconds).
_KEEPALIVE = 60


class _Pin:
    """Lets in who has the host's key alone."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def callback(self, _domain: str, key: bytes) -> bool:
        return secrets.compare_digest(key, self._key)


class Station:
    """
    One worker, and the carrying of what it says. Belongs to the loop that it was made on.

    Args:
        order: from the process that started this one: "host_key" (Z85), "bind", an address of this
            machine, "path", its ``sys.path``, and "silence", in seconds.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._context = Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN.decode(), _Pin(order["host_key"]))
        self._public, self._secret = curve_keys()
        self._link = Link(self._socket(zmq.DEALER), self._take, self._host_lost, order["silence"])
        self._fronts = {name: self._socket(kinds[0]) for name, kinds in _KINDS.items()}
        self._spec: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process: WorkerProcess | None = None
        self._log = ""

    def announce(self) -> dict[str, Any]:
        """Listen; return what the host needs to know to call."""
        address = f"tcp://{_bindable(self._order['bind'])}"
        ports = {f"{name}_port": self._bind(name, address) for name in CHANNELS}
        return {
            "key": self._public,
            "link": self._link.bind(address),
            "ports": ports,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "hive": __version__,
            "protocol": PROTOCOL_VERSION,
        }

    def leave(self, reason: str) -> None:
        """End the worker, and this; the host is told why."""
        if not self._end.done():
            self._end.set_result(reason)

    async def run(self) -> None:
        """Wait for the host, and serve it until the end."""
        loop = asyncio.get_running_loop()
        waiting = loop.call_later(self._order["silence"], self.leave, "no host came")
        await first_of(self._spec, self._end)
        waiting.cancel()
        runtime: RuntimeFolder | None = None
        server: ForkServer | None = None
        try:
            if not self._end.done():
                sweep()
                runtime = RuntimeFolder.create()
                spec = self._spec.result()
                config = HiveConfig(start_method="exec", **spec["settings"])
                server = make_server(config, sys.executable, runtime)
                await self._serve(server, config, spec)
        except Exception as error:
            missing = error.missing if isinstance(error, SandboxUnavailable) else ()
            said = f"{error}" if isinstance(error, HiveError | OSError) else f"{error!r}"
            self._link.send({"event": "failed", "reason": said, "missing": missing})
        finally:
            if self._end.done():
                self._link.send({"event": "leaving", "why": self._end.result()})
            if self._process is not None:
                await self._process.stop()
                self._tell_end(self._process)
            if server is not None:
                await server.close()
            if runtime is not None:
                runtime.remove()
            await self._hang_up()

    async def _serve(self, server: ForkServer, config: HiveConfig, spec: Mapping[str, Any]) -> None:
        # the host's own where the machines share their files, else where Dask is
        with contextlib.suppress(OSError):
            os.chdir(spec["cwd"])
        sys.path[:] = self._order["path"]
        launch = snapshot(Kernel(), config, SandboxPolicy.of(spec["policy"]))
        process = self._process = await server.spawn(launch, spec["name"])
        self._link.send({"event": "started", "pid": process.pid, "cwd": launch.cwd})
        await first_of(process.ready, process.exited, self._end)
        if process.ready.done():
            self._carry(process.connection)
            confinement = dict(process.confinement)
            key = process.connection["key"]
            self._link.send({"event": "ready", "key": key, "confinement": confinement})
        while not process.exited.done() and not self._end.done():
            self._tell_figures(process)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_INTERVAL, self._order["silence"] / _TIMES)):
                    await first_of(process.exited, self._end)

    def _tell_figures(self, process: WorkerProcess) -> None:
        figures: dict[str, Any] = {"event": "figures", "stopped": process.is_stopped}
        if (usage := process.usage()) is not None:
            figures["usage"] = asdict(usage)
        if (log := process.log_tail(_LOG)) != self._log:
            figures["log"] = self._log = log
        self._link.send(figures)

    def _tell_end(self, process: WorkerProcess) -> None:
        end = process.end
        self._link.send({"event": "exit", "end": asdict(end), "log": process.log_tail(_LOG)})

    async def _hang_up(self) -> None:
        self._link.close(_LINGER)
        for front in self._fronts.values():
            front.close(linger=0)
        self._authenticator.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _LINGER):
                await apart(self._context.term)

    def _take(self, word: Mapping[str, Any]) -> None:
        """Do what the host says."""
        if "spawn" in word and not self._spec.done():
            self._spec.set_result(word["spawn"])
        if self._process is None:
            if "kill" in word:
                self.leave(word["kill"])
        elif "signal" in word:
            task = asyncio.ensure_future(self._process.signal(word["signal"]))
            task.add_done_callback(lambda _: self._link.send({"event": "signalled"}))
        elif "kill" in word:
            self._process.kill(word["kill"])

    def _host_lost(self, _reason: str) -> None:
        self.leave("the host is gone")

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        front = self._context.socket(kind)
        front.ipv6 = True
        front.curve_server = True
        front.curve_secretkey = self._secret.encode()
        front.zap_domain = DOMAIN
        return front

    def _bind(self, name: str, address: str) -> int:
        front = self._fronts[name]
        front.sndhwm = front.rcvhwm = _HIGH_WATER_MARK
        front.tcp_keepalive, front.tcp_keepalive_idle = 1, _KEEPALIVE
        if name == "iopub":
            front.xpub_nodrop = True
        return front.bind_to_random_port(address)

    def _carry(self, connection: Mapping[str, Any]) -> None:
        """Join the host's sockets with the worker's."""
        identity = secrets.token_bytes(16)
        for name, (_, kind) in _KINDS.items():
            back = self._context.socket(kind)
            back.sndhwm = back.rcvhwm = _HIGH_WATER_MARK
            if name in ("shell", "control", "stdin"):
                back.routing_id = identity
            _connect(back, connection, name)
            front = self._fronts.pop(name)
            threading.Thread(target=_proxy, args=(front, back), daemon=True).start()


def _connect(back: zmq.Socket[bytes], connection: Mapping[str, Any], channel: str) -> None:
    """Call the worker's own socket."""
    if "curve_publickey" in connection:
        for name in ("curve_publickey", "curve_secretkey"):
            setattr(back, name, connection[name].encode())
        back.curve_serverkey = connection["curve_publickey"].encode()
    separator = "-" if connection["transport"] == "ipc" else ":"
    port = connection[f"{channel}_port"]
    back.connect(f"{connection['transport']}://{connection['ip']}{separator}{port}")


def _proxy(front: zmq.Socket[bytes], back: zmq.Socket[bytes]) -> None:
    """Carry until the context ends."""
    with contextlib.suppress(zmq.ContextTerminated, zmq.ZMQError):
        zmq.proxy(front, back)
    front.close(linger=round(_LINGER * 1000))
    back.close(linger=0)


def _bindable(address: str) -> str:
    """An address that sockets of this machine can have: the one it is known by, or all."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return "*"
    return f"[{address}]" if ":" in address else address


async def main() -> None:
    """Read the order, answer with where to call, and serve."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**22)
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, sys.stdin.buffer)
    station = Station(json.loads(await reader.readline()))
    sys.stdout.write(json.dumps(station.announce()) + "\n")
    sys.stdout.flush()

    async def watch() -> None:
        # who started this says why it is to end, or is gone without a word
        said = (await reader.readline()).decode().strip()
        station.leave(said or "parent")

    watching = asyncio.create_task(watch())
    if hasattr(os, "pidfd_open"):
        # a fork of that process may keep the pipe open
        parent = os.pidfd_open(os.getppid())
        loop.add_reader(parent, station.leave, "parent")
    await station.run()
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(main())
    # nothing is left to be said, and a context that does not end would hold up the interpreter
    os._exit(0)
