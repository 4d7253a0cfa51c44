"""
The line between a host and a station: small words as JSON, over one pair of sockets with CurveZMQ.

::

    host (connects, knows the station's public key) ◀── words ──▶ station (binds, knows the host's)

zmq's own thread asks the other end for a sign of life, so that a Python that is held up in C code
on either end does not pass for a dead one. Where the connection ends, the line is lost: what was on
its way is not known, so that it is never taken up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import struct
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from hive_jupyter.swarm.channels import Context

log = logging.getLogger(__name__)

# Words are small; what ends a worker brings a piece of its log.
LARGEST_WORD = 2**20
# Of a socket's monitor: what happened, and to which descriptor or with which error; see
# http://api.zeromq.org/4-3:zmq-socket-monitor.
_EVENT = struct.Struct("=hi")
# Of the keys that a station knows (https://rfc.zeromq.org/spec/27).
DOMAIN = b"hive"
# So many signs of life are asked for within the time in which one has to come.
_SIGNS = 4

_EVENTS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_FAILURES: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not know this host's key",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it speaks something else",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "it is not the one whose key Dask brought",
}


def caller(context: Context, keys: tuple[str, str], station_key: str) -> zmq.Socket[bytes]:
    """A host's socket, with its own public and secret key and the public one of the station."""
    socket = context.socket(zmq.DEALER)
    socket.ipv6 = True
    socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in keys)
    socket.curve_serverkey = station_key.encode()
    return socket


class Link:
    """
    One end of the line. Belongs to the loop that it was made on.

    Args:
        socket: with its keys, neither bound nor connected.
        take: is called with each word.
        lost: is called once, with the reason, when the other end is gone or was silent too long.

    Attributes:
        opened: resolves once the other end has proven its key.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        take: Callable[[Mapping[str, Any]], object],
        lost: Callable[[str], object],
        patience: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._take = take
        self._lost = lost
        self._peer: int | None = None
        self._binds = False
        self._closed = False
        self.opened: asyncio.Future[None] = self._loop.create_future()
        socket.maxmsgsize = LARGEST_WORD
        socket.heartbeat_ivl = round(patience * 1000 / _SIGNS)
        socket.heartbeat_timeout = round(patience * 1000)
        self._monitor = socket.get_monitor_socket(_EVENTS)
        self._loop.add_reader(socket.FD, self._read)
        self._loop.add_reader(self._monitor.FD, self._watch)

    def bind(self, address: str) -> int:
        """Listen on a port that is free; return it."""
        self._binds = True
        port = self._socket.bind_to_random_port(address)
        self._watch()
        return port

    def connect(self, address: str) -> None:
        """Call the other end; once."""
        self._socket.reconnect_ivl = -1
        self._socket.connect(address)
        self._watch()

    def send(self, word: Mapping[str, Any]) -> None:
        """Say something; where nobody hears it, the end of the line tells."""
        if self._closed:
            return
        with contextlib.suppress(zmq.Again):
            self._socket.send(json.dumps(dict(word)).encode(), zmq.NOBLOCK)
        # zmq's descriptor tells of changes only, and sending may have swallowed one
        self._loop.call_soon(self._read)

    def close(self, linger: float = 0.0) -> None:
        """Hang up; what was said may take so many seconds to leave. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.FD)
        self._loop.remove_reader(self._monitor.FD)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=round(linger * 1000))
        self.opened.cancel()

    def _read(self) -> None:
        while not self._closed:
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self._binds and self._peer is None:
                # others may call, too; their connections fail, and tell nothing about this one
                self._peer = frame.get(zmq.SRCFD)
            try:
                word = json.loads(frame.bytes)
                self._take(word if isinstance(word, dict) else {})
            except Exception as error:
                log.warning("a word that makes no sense: %r", error)
                self._end(f"it said what makes no sense ({type(error).__name__})")

    def _watch(self) -> None:
        with contextlib.suppress(zmq.Again):
            while not self._closed:
                event, *_ = self._monitor.recv_multipart(zmq.NOBLOCK)
                self._note(*_EVENT.unpack(event))

    def _note(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if not self.opened.done():
                self.opened.set_result(None)
        elif not self._binds:
            self._end(_FAILURES.get(event, ""))
        elif event == zmq.EVENT_DISCONNECTED and value == self._peer:
            self._end("")

    def _end(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._lost(reason)
