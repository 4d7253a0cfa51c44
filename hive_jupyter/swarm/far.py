"""A worker on another machine, as the host holds it: through the line to its station."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hive_jupyter.display.text import plain
from hive_jupyter.errors import HiveError
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import CHANNELS
from hive_jupyter.swarm.channels import Context
from hive_jupyter.swarm.death import Exit
from hive_jupyter.swarm.link import Link, caller
from hive_jupyter.swarm.process import Process, Usage, first_of

# A station does what it is asked, or its machine stands still or cannot be reached (seconds).
_STATION_PATIENCE = 6.0
# One that ended was heard of lately: it tells several times within its patience how its worker is.
_SILENT = 0.75
_LONGEST_LOG = 64 * 2**10

# What a station says of its own end, where it was not this host that wanted it.
PARENT, CANCELLED = "parent", "cancelled"


@dataclass(frozen=True)
class Station:
    """
    Where one listens.

    Attributes:
        host: name or address of its machine.
        link: port of the line.
        ports: of the channels, as in Jupyter's connection information.
        key: its public key (Z85).
        place: what users call the place.
    """

    host: str
    link: int
    ports: Mapping[str, int]
    key: str
    place: str

    def address(self, port: int) -> str:
        """Of one of its ports, as zmq writes it."""
        return f"tcp://{self.shown_host}:{port}"

    @property
    def shown_host(self) -> str:
        """The host, with the brackets that an IPv6 address needs before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host


class FarProcess(Process):
    """
    One worker and its station.

    Args:
        station: that was started for it.
        folder: the worker's private one on this machine, for what it says that is too much.
        policy: what the worker may touch.
        context: for the socket of the line.
        keys: the host's own for this worker: public and secret (Z85).
        patience: seconds that a station may be silent.
        why_gone: asked for the reason in words when a station ended for PARENT or CANCELLED.
        over: is called at the end, with how it ended.
        notes: what the user is to know of the place.
    """

    def __init__(
        self,
        station: Station,
        folder: Path,
        policy: SandboxPolicy,
        *,
        context: Context,
        keys: tuple[str, str],
        patience: float,
        why_gone: Callable[[str], Awaitable[str]],
        over: Callable[[Exit], object],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, policy)
        self.place = station.place
        self._station = station
        self._keys = keys
        self._patience = patience
        self._why_gone = why_gone
        self._over = over
        self._notes = notes
        self._session_key = ""
        self._log = ""
        self._usage: Usage | None = None
        self._stopped = False
        self._heard = time.monotonic()
        self._leaving = ""
        self._explaining: asyncio.Task[None] | None = None
        self._signalled = asyncio.Event()
        self._link = Link(caller(context, keys, station.key), self._take, self._lost, patience)

    async def start(self, spec: Mapping[str, Any]) -> None:
        """
        Call the station and have it start the worker.

        Raises:
            HiveError: it cannot be reached, or does not start it.
        """
        self._link.connect(self._station.address(self._station.link))
        try:
            await first_of(self._link.opened, self.exited)
            self._link.send({"spawn": dict(spec)})
            await first_of(self.started, self.exited)
        except BaseException:
            self._give_up()
            raise
        if self.refused is not None:
            raise self.refused
        if not self.started.done():
            msg = self.end.lost_because or "its process ended while it started"
            raise HiveError(msg)

    @property
    def connection(self) -> dict[str, Any]:
        public, secret = self._keys
        return {
            **self.ready.result(),
            "key": self._session_key,
            "signature_scheme": "hmac-sha256",
            "transport": "tcp",
            "ip": self._station.shown_host,
            "curve_publickey": public,
            "curve_secretkey": secret,
            "curve_serverkey": self._station.key,
        }

    @property
    def has_ended(self) -> bool:
        return self.exited.done()

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def usage(self) -> Usage | None:
        return self._usage

    def log_tail(self, most: int = _LONGEST_LOG) -> str:
        return self._log[-most:]

    async def signal(self, number: int) -> None:
        self._signalled.clear()
        self._link.send({"signal": int(number)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._signalled.wait(), _STATION_PATIENCE)

    def kill(self, reason: str) -> None:
        self._killed_for = self._killed_for or reason
        self._link.send({"kill": reason})
        self._loop.call_later(_STATION_PATIENCE, self._give_up)

    async def stop(self, reason: str = "stop") -> None:
        if not self.gone.is_set():
            self.kill(reason)
            await self.gone.wait()

    def _take(self, word: Mapping[str, Any]) -> None:
        """Note what a station says; it is trusted no more than to be what it is."""
        self._heard = time.monotonic()
        event = word.get("event")
        if "log" in word:
            self._log = plain(str(word["log"]))[-_LONGEST_LOG:]
        if event == "started" and not self.started.done():
            self.pid = int(word["pid"])
            self.started.set_result(None)
        elif event == "failed":
            self.refused = self._refused(str(word["reason"]), word["missing"])
            self._conclude(Exit(by_us="stop"))
        elif event == "ready" and not self.ready.done():
            self._session_key = str(word["key"])
            report = _checked_report(word["confinement"])
            self.confinement = {**report, "notes": [*self._notes, *report["notes"]]}
            ports = {f"{name}_port": self._station.ports[f"{name}_port"] for name in CHANNELS}
            self.ready.set_result(ports)
        elif event == "figures":
            self._stopped = bool(word["stopped"])
            if "usage" in word:
                usage = word["usage"]
                self._usage = Usage(int(usage["memory"]), float(usage["cpu_seconds"]))
        elif event == "signalled":
            self._signalled.set()
        elif event == "leaving":
            self._leaving = str(word["why"])
        elif event == "exit":
            self._take_end(_checked_exit(word["end"]))

    def _refused(self, reason: str, missing: Any) -> HiveError:
        if missing:
            return self._refusal("", tuple(map(str, missing)))
        return HiveError(f"at {self.place}: {plain(reason)}")

    def _take_end(self, end: Exit) -> None:
        if self._leaving in (PARENT, CANCELLED) and self._killed_for is None:
            self._explain(self._leaving)
        else:
            self._conclude(end)

    def _lost(self, reason: str) -> None:
        """The line has ended."""
        if self._killed_for is not None:
            self._conclude(Exit(by_us=self._killed_for))
        elif reason:
            self._conclude(Exit(lost_because=f"{self._station.host} was refused: {reason}"))
        elif self._leaving:
            self._explain(self._leaving)
        elif not self.started.done():
            where = self._station.address(self._station.link)
            self._conclude(Exit(lost_because=f"{where} cannot be reached from here"))
        else:
            self._conclude(Exit(lost_because=self._silence()))

    def _silence(self) -> str:
        seconds = time.monotonic() - self._heard
        if seconds > _SILENT * self._patience:
            return (
                f"nothing was heard of {self._station.host} for {seconds:.0f} s (its machine "
                "stands still, or the network to it is cut)"
            )
        return f"what kept it at {self._station.host} ended without a word"

    def _explain(self, why: str) -> None:
        async def ask() -> None:
            self._conclude(Exit(lost_because=await self._why_gone(why)))

        if self._explaining is None:
            self._explaining = asyncio.create_task(ask())

    def _give_up(self) -> None:
        """Nothing more is to be had of the station: it ends its worker when the line is cut."""
        self._conclude(Exit(by_us=self._killed_for or "stop"))

    def _conclude(self, end: Exit) -> None:
        if self.exited.done():
            return
        self.exited.set_result(end)
        self._signalled.set()
        self._link.close()
        self._over(end)
        self.gone.set()


def _checked_exit(told: Mapping[str, Any]) -> Exit:
    """How a worker ended, as its station tells."""
    known = {field.name for field in fields(Exit)}
    end = Exit(**{name: value for name, value in told.items() if name in known})
    words = {str(name): str(text) for name, text in end.last_words.items()}
    numbers = (end.code, end.signal, end.memory_limit, end.memory_used)
    if not all(number is None or isinstance(number, int) for number in numbers):
        raise ValueError(numbers)
    return Exit(**{**vars(end), "last_words": words})


def _checked_report(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker's machine enforces; what of it users read is text."""
    texts = {
        name: [plain(str(text)) for text in told.get(name, ())] for name in ("missing", "notes")
    }
    return {**told, **texts}
