"""
The sockets of one worker, with one reader each.

::

    requests ─▶ shell, control, stdin (DEALER, one identity)      replies ─▶ whoever asked
                                     iopub (SUB) ─▶ the run whose key the message carries

The messages are Jupyter's
(https://jupyter-client.readthedocs.io/en/stable/messaging.html). A worker is not trusted: every
frame is checked before it is used, and a worker that breaks the protocol is reported, not obeyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import zmq
from jupyter_client.session import Session

from hive_jupyter.display.rules import INERT, TRUSTED, stricter
from hive_jupyter.display.widgets import VIEW
from hive_jupyter.errors import TransferError
from hive_jupyter.protocol import RUN_KEY, WORKER_NAME
from hive_jupyter.swarm.comms import WorkerComms
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.messages import COMMS, OUTPUTS, Message, Sink, progress
from hive_jupyter.swarm.outlet import Outlet
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.surplus import Surplus
from hive_jupyter.units import format_size

Context = zmq.Context[zmq.Socket[bytes]]

# What one worker takes of those that zmq allows, both ends of monitors included.
_SOCKETS = 9

log = logging.getLogger(__name__)

# A worker that sends a larger message than this is cut off by zmq.
MAX_MESSAGE_BYTES = 2**30
# How many messages may wait in the host's socket; the rest waits in the worker, whose queue is not
# finite. One message holds what was printed in 0.2 s, so it may be large.
_RECEIVE_HIGH_WATER_MARK = 50
_BATCH = 100
# What else the loop has to do waits no longer than this for what is read, but for the end of one
# message (seconds): to build a large page anew may take as long again.
_LONGEST_BATCH = 0.05
# Whose connections tell that a worker has ended, or was cut off.
_MONITORED = ("shell", "iopub")
# A message has six parts, and one more for each buffer.
_MOST_FRAMES = 10_000
# A worker that died closes its connection after its last message. Where a child of it keeps that
# open, this long nothing new must arrive: as a rule its supervisor ends the child much sooner, and
# zmq's thread in the host may have to wait for a processor before it reads.
_QUIET = 1.0
# A child may also go on to send. What a worker itself has left is in zmq's queue and in the
# socket's buffer: some hundred messages, and soon read (seconds).
_DRAIN_PATIENCE = 2.0
_MOST_LEFT = 2000
# A worker whose connection ends, and that is still alive this long afterwards, was cut off by zmq.
_END_PATIENCE = 1.0


def _replacing(unpack: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put a question mark where JSON escapes half a character, which a front-end cannot be sent."""

    def unpacked(part: bytes | memoryview) -> Any:
        value = unpack(part)
        text = bytes(part)
        if b"\\ud" in text or b"\\uD" in text:
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        if isinstance(value, dict) and "msg_id" in value:
            # nobody asks a header for it, and to parse it takes Session half of its time
            value.pop("date", None)
        return value

    return unpacked


def context_for(workers: int) -> Context:
    """What the sockets of so many workers are made of; zmq's own limit is reached with 113."""
    context: Context = zmq.Context()
    wanted = _SOCKETS * (workers + 1)
    limits = context.get(zmq.MAX_SOCKETS), context.get(zmq.SOCKET_LIMIT)
    context.set(zmq.MAX_SOCKETS, min(max(wanted, limits[0]), limits[1]))
    return context


def curve_keys() -> tuple[str, str]:
    """A fresh public and secret key (Z85) for CurveZMQ (https://rfc.zeromq.org/spec/26)."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


_LONGEST_ID = 64
# What a front-end's JSON can take, and more than any display has: levels, and MIME types.
_DEEPEST = 100
_MOST_FORMS = 100
# The character with which a front-end says that there is no more input.
_END_OF_INPUT = "\x04"
_NO_COMMITS = (
    "Only a delegated cell asks for a commit, while it runs, and one at a time. A program asks "
    "with the tool request_commit."
)
_NO_PASSWORDS = (
    "This worker asked for a password. Its output is inert, so nobody is asked: it got the end of "
    "the input.\n"
)

# What the content of a message must hold, and what it may, by the type of message.
_REQUIRED: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "stream": {"name": str, "text": str},
    "display_data": {"data": dict},
    "update_display_data": {"data": dict},
    "execute_result": {"data": dict},
    "clear_output": {},
    "error": {"ename": str, "evalue": str, "traceback": list},
    "input_request": {"prompt": str},
    "execute_reply": {"status": str},
    "list_tools_reply": {"status": str},
    "call_tool_reply": {"status": str},
    "push_reply": {"status": str},
    "pull_reply": {"status": str},
    "map_reply": {"status": str},
    "run_hooks_reply": {"status": str},
    "tool_progress": {"progress": (int, float), "message": str},
    "commit_request": {"id": str},
    "comm_open": {"comm_id": str, "target_name": str},
    "comm_msg": {"comm_id": str},
    "comm_close": {"comm_id": str},
}
_OPTIONAL: Mapping[str, type] = {
    "data": dict,
    "metadata": dict,
    "transient": dict,
    "wait": bool,
    "password": bool,
    "ename": str,
    "evalue": str,
    "traceback": list,
}


def _check_content(kind: str, content: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """
    Hold a message's content against Jupyter's protocol.

    Raises:
        TransferError: a part is missing, or is of another type.
    """
    required = _REQUIRED.get(kind)
    if required is None:
        return
    wrong = [name for name, type_ in required.items() if not isinstance(content.get(name), type_)]
    wrong += [
        name
        for name, type_ in _OPTIONAL.items()
        if name in content and not isinstance(content[name], type_)
    ]
    if not all(isinstance(line, str) for line in content.get("traceback", ())):
        wrong.append("traceback")
    if wrong:
        msg = f"a {kind} message whose {', '.join(wrong)} is not what Jupyter's protocol says"
        raise TransferError(msg)
    if required.get("data") is dict and len(content["data"]) > _MOST_FORMS:
        msg = f"a {kind} message of more than {_MOST_FORMS} MIME types"
        raise TransferError(msg)
    if kind in OUTPUTS | COMMS and kind != "stream" and _is_deep([content, metadata]):
        msg = f"a {kind} message that is nested more than {_DEEPEST} levels deep"
        raise TransferError(msg)


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return False
    return True


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _progress(message: Message) -> Message:
    """How far a tool is, as the host tells it."""
    done, total = message.content["progress"], message.content.get("total")
    total = total if isinstance(total, int | float) else None
    return replace(progress(done, total, message.content["message"]), size=message.size)


def _through(outlet: Outlet, sink: Sink) -> Sink:
    def take(message: Message) -> None:
        for shown in outlet.passed(message):
            sink(shown)

    return take


class Channels:
    """
    All sockets to one worker. Belongs to the loop that it was made on.

    Args:
        context: for the sockets.
        connection: Jupyter connection information.
        name: of the worker; a spare learns it from the first request.
        on_violation: is called once with a reason when the worker breaks the protocol.
        rule: for what of its output may pass; one of ``display.rules.RULES``.
        folder: the worker's private one, for output that is too much to be shown.
        saw_widget: is called with each run that displays a widget.

    Attributes:
        comms: of the worker.
    """

    def __init__(
        self,
        context: Context,
        connection: Mapping[str, Any],
        name: str,
        on_violation: Callable[[str], None],
        *,
        rule: str = TRUSTED,
        folder: str = "",
        saw_widget: Callable[[Run], object] = id,
    ) -> None:
        self._rule = rule
        self._saw_widget = saw_widget
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._name = name
        self._on_violation = on_violation
        self._session = Session(key=connection["key"].encode())
        self._session.unpack = _replacing(self._session.unpack)
        self._runs: dict[str, Run] = {}
        self._keys: dict[str, str] = {}
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._published: dict[str, asyncio.Event] = {}
        self._beats: dict[bytes, asyncio.Event] = {}
        self._to_read: set[str] = set()
        self._asking: set[str] = set()
        self._awaiting_commit: set[str] = set()
        self._messages_seen = 0
        self._closed = False
        self._pauses: set[str] = set()
        self._draining = False
        self._late = LateOutput(self._hold)
        self.comms = WorkerComms(
            self._late, self._pass_on, rule=rule, worker=name, surplus=Surplus(folder)
        )
        self._disconnected = asyncio.Event()
        identity = uuid.uuid4().bytes
        self._monitors: dict[str, zmq.Socket[bytes]] = {}
        self._sockets = {
            channel: self._connect(context, channel, kind, identity)
            for channel, kind in (
                ("shell", zmq.DEALER),
                ("control", zmq.DEALER),
                ("stdin", zmq.DEALER),
                ("iopub", zmq.SUB),
                ("hb", zmq.DEALER),
            )
        }
        for channel, socket in self._sockets.items():
            self._loop.add_reader(socket.FD, self._take_notice, channel)
        for channel, monitor in self._monitors.items():
            self._loop.add_reader(monitor.FD, self._watch, channel)
            # the descriptor tells only of what comes after a first look
            self._watch(channel)

    async def probe(self) -> Mapping[str, Any]:
        """
        Wait until the worker answers on shell and is heard on iopub.

        A subscription takes its time to arrive and nothing tells when it has, so the question is
        repeated until its "idle" is heard too.

        Returns:
            The content of its kernel_info_reply.
        """
        pause = 0.05
        while True:
            key = secrets.token_hex(8)
            heard = self._published[key] = asyncio.Event()
            header = {"msg_id": key, RUN_KEY: key}
            asking = asyncio.create_task(self.request("shell", "kernel_info_request", {}, header))
            try:
                async with asyncio.timeout(pause):
                    await heard.wait()
                    return (await asking).content
            except TimeoutError:
                pause = min(0.2, pause * 2)
            finally:
                asking.cancel()
                del self._published[key]

    async def request(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        header: Mapping[str, Any] | None = None,
    ) -> Message:
        """
        Send a request and wait for its reply, for ever: the caller knows how long that makes sense.

        Args:
            channel: "shell" or "control".
            kind: the message's type.
            content: of the message.
            header: keys to add to its header.

        Returns:
            The reply.
        """
        own = {**self._session.msg_header(kind), WORKER_NAME: self._name, **(header or {})}
        future = self._waiting[own["msg_id"]] = self._loop.create_future()
        try:
            self._send(channel, Message(kind, content), own)
            reply: Message = await future
            return reply
        finally:
            del self._waiting[own["msg_id"]]

    def begin(self, run: Run, most_shown: int | None = None) -> None:
        """
        Send the run's request; its messages arrive at its sink from now on.

        Args:
            run: to begin.
            most_shown: bytes of output that are shown of it, about; None: no limit.
        """
        rule = stricter(self._rule, run.rule)
        header = {**self._session.msg_header(run.type), **run.header, "msg_id": run.message_id}
        header.pop("subshell_id", None)
        header.update({"msg_type": run.type, RUN_KEY: run.key, WORKER_NAME: self._name})
        if run.subshell is not None:
            header["subshell_id"] = run.subshell
        run.outlet = Outlet(
            rule,
            self._name,
            most_shown,
            Surplus(self._folder),
            self.comms.views_of(run.message_id),
        )
        self._runs[run.key] = run
        # some kernels hand back only the header's standard keys
        self._keys[run.message_id] = run.key
        self.resume("late")
        self._send("shell", Message(run.type, run.content, buffers=run.buffers), header)

    def end(self, run: Run) -> None:
        """Route nothing to this run any more, but what comes late."""
        self.resume(run.key)
        self._runs.pop(run.key, None)
        self._keys.pop(run.message_id, None)
        self.comms.release(run.message_id, run.say)
        if run.late is not None:
            self._late.expect(run.key, _through(run.outlet, run.late))
        self._asking.discard(run.key)
        self._awaiting_commit.discard(run.key)

    def answer(self, run: Run, text: str) -> None:
        """Reply to the latest input_request of a run."""
        if run.key in self._asking:
            self._asking.discard(run.key)
            header = self._session.msg_header("input_reply")
            self._send("stdin", Message("input_reply", {"value": text}), header)

    def answer_commit(self, run: Run, asked: Message, answer: Mapping[str, str]) -> None:
        """
        Reply to a commit_request; also where its run is over, as a thread of it may wait.

        Args:
            run: whose code asked.
            asked: the request.
            answer: "text" to show, or "error", why not.
        """
        self._awaiting_commit.discard(run.key)
        self._reply_to_commit(asked, answer)

    def _reply_to_commit(self, asked: Message, answer: Mapping[str, str]) -> None:
        if self._closed:
            return
        reply = Message("commit_reply", {"id": asked.content["id"], **answer})
        # who asks without an end and reads no answer gets none
        with contextlib.suppress(zmq.Again):
            self._send("control", reply, self._session.msg_header("commit_reply"))

    async def beat(self, seconds: float) -> bool:
        """Whether the worker's heartbeat, which needs no Python, answers within ``seconds``."""
        if self._closed:
            return False
        token = secrets.token_bytes(8)
        heard = self._beats[token] = asyncio.Event()
        try:
            with contextlib.suppress(zmq.Again):
                self._sockets["hb"].send_multipart([b"", token], zmq.NOBLOCK)
            self._read_soon("hb")
            async with asyncio.timeout(seconds):
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            del self._beats[token]
        return not self._closed

    def pause(self, who: str) -> None:
        """Read no output for now: ``who``, a run's key or "late", does not get rid of it."""
        if not self._draining:
            self._pauses.add(who)

    def resume(self, who: str) -> None:
        """Read output again, unless somebody else cannot take it."""
        if who in self._pauses:
            self._pauses.remove(who)
            self._read_soon("iopub")

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent or heard any more."""
        return self._closed

    @property
    def is_paused(self) -> bool:
        """Whether no output is read."""
        return bool(self._pauses)

    async def drain(self) -> None:
        """Wait until a dead worker's last messages have been routed, whoever takes them or not."""
        self._draining = True
        self._pauses.clear()
        self._read_soon("iopub")
        first = self._messages_seen
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_PATIENCE):
                await self._last_message()
                await self._nothing_more(first)

    def close(self) -> None:
        """Close all sockets. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._late.close()
        self.comms.close()
        for channel, monitor in self._monitors.items():
            self._loop.remove_reader(monitor.FD)
            self._sockets[channel].disable_monitor()
            monitor.close(linger=0)
        for socket in self._sockets.values():
            self._loop.remove_reader(socket.FD)
            socket.close(linger=0)
        for future in self._waiting.values():
            future.cancel()
        for heard in self._beats.values():
            heard.set()

    def _connect(
        self, context: Context, channel: str, kind: int, identity: bytes
    ) -> zmq.Socket[bytes]:
        connection = self._connection
        socket = context.socket(kind)
        socket.linger = 0
        socket.maxmsgsize = MAX_MESSAGE_BYTES
        socket.rcvhwm = _RECEIVE_HIGH_WATER_MARK
        if channel == "iopub":
            socket.subscribe(b"")
        elif channel != "hb":
            socket.routing_id = identity
        if "curve_publickey" in connection:
            # a worker of this machine has the same keys; a station has its own
            server_key = connection.get("curve_serverkey", connection["curve_publickey"])
            socket.curve_serverkey = server_key.encode()
            socket.curve_publickey = connection["curve_publickey"].encode()
            socket.curve_secretkey = connection["curve_secretkey"].encode()
        if channel in _MONITORED:
            # before there is anything to be told of: the end of a connection is told once
            self._monitors[channel] = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        separator = "-" if connection["transport"] == "ipc" else ":"
        port = connection[f"{channel}_port"]
        socket.connect(f"{connection['transport']}://{connection['ip']}{separator}{port}")
        return socket

    def _pass_on(self, message: Message, header: Mapping[str, Any]) -> None:
        """Send what a front-end said to a comm."""
        own = {**header, WORKER_NAME: self._name}
        self._send("shell", message, own)

    def _send(self, channel: str, message: Message, header: Mapping[str, Any]) -> None:
        parts = self._session.msg(
            message.type,
            dict(message.content),
            header=dict(header),
            metadata=dict(message.metadata),
        )
        frames: list[Any] = [*self._session.serialize(parts), *message.buffers]
        # zmq holds the buffers' memory until it is sent, or the socket is closed
        self._sockets[channel].send_multipart(frames, zmq.NOBLOCK, copy=not message.buffers)
        # zmq's descriptor tells of changes only, and sending may have swallowed one.
        self._read_soon(channel)

    def _take_notice(self, channel: str) -> None:
        if channel not in self._to_read:
            self._read(channel)

    def _read_soon(self, channel: str) -> None:
        """Once, whoever asks for it: else the loop had less and less time for others."""
        if channel not in self._to_read:
            self._to_read.add(channel)
            self._loop.call_soon(self._read, channel)

    def _read(self, channel: str) -> None:
        self._to_read.discard(channel)
        if self._closed:
            return
        socket = self._sockets[channel]
        end = time.monotonic() + _LONGEST_BATCH
        for _ in range(_BATCH):
            if self._pauses and channel == "iopub":
                return
            # values come as replies: their memory is zmq's until somebody takes it over, and no
            # process shares it
            copies = channel != "shell"
            try:
                frames = [socket.recv(zmq.NOBLOCK, copy=copies)]
            except zmq.Again:
                return
            while socket.getsockopt(zmq.RCVMORE) and len(frames) <= _MOST_FRAMES:
                frames.append(socket.recv(copy=copies))
            self._messages_seen += 1
            if channel == "hb":
                if frames[-1] in self._beats:
                    self._beats[frames[-1]].set()
                continue
            if len(frames) > _MOST_FRAMES:
                self._violated(f"a message of more than {_MOST_FRAMES} parts")
                return
            try:
                self._route(channel, frames)
            except Exception as error:
                if any(run.stops for run in self._runs.values()):
                    # an interrupt may cut a message short; the proof of idleness follows
                    log.info('worker "%s": %s', self._name, error)
                    continue
                self._violated(str(error))
                return
            if time.monotonic() > end:
                break
        self._read_soon(channel)

    async def _last_message(self) -> None:
        """Wait for the connection's end, or, where somebody keeps that open, for silence."""
        seen = -1
        while not self._disconnected.is_set() and seen != self._messages_seen:
            seen = self._messages_seen
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET):
                    await self._disconnected.wait()

    async def _nothing_more(self, first: int) -> None:
        """Read what has been received, but no more than a dead worker can have left."""
        seen = -1
        while seen != self._messages_seen < first + _MOST_LEFT:
            seen = self._messages_seen
            self._read("iopub")
            await asyncio.sleep(0)

    def _hold(self, holds: bool) -> None:
        if not holds:
            self.resume("late")
        elif not self._runs:  # a run's own output, and its end, must not wait for what comes late
            self.pause("late")

    def _watch(self, channel: str) -> None:
        """Look whether a connection ended: as a rule its worker has, and the sockets are closed."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._monitors[channel].recv_multipart(zmq.NOBLOCK)
                self._loop.call_later(_END_PATIENCE, self._cut_off)
                if channel == "iopub":
                    self._disconnected.set()

    def _cut_off(self) -> None:
        if not self._closed and not self._draining:
            size = format_size(MAX_MESSAGE_BYTES)
            self._violated(f"it closed a connection, or sent a message of more than {size}")

    def _violated(self, reason: str) -> None:
        log.warning('worker "%s" broke the protocol: %s', self._name, reason)
        self.close()
        self._on_violation(reason)

    def _route(self, channel: str, frames: list[Any]) -> None:
        message, parent = self._check(frames)
        msg_id = str(parent.get("msg_id"))
        key = str(parent.get(RUN_KEY) or self._keys.get(msg_id, msg_id))
        run = self._runs.get(key)
        if channel in ("shell", "control"):
            future = self._waiting.get(msg_id)
            if run is not None and message.type == run.reply_type:
                run.take_reply(run.outlet.reply(message))
            elif future is not None and not future.done():
                future.set_result(message)
        elif channel == "stdin":
            if run is not None and run.allow_stdin and message.type == "input_request":
                self._take_question(run, run.outlet.checked(message))
        elif message.type == "status":
            self._take_status(message, run, key)
        elif message.type == "commit_request":
            self._take_commit_request(run, message)
        elif message.type in COMMS:
            self.comms.take(message, run, key)
        elif run is not None:
            self._take_of_run(run, message)
        elif not self.comms.take_output(message, key):
            self._late.take(key, message)

    def _take_of_run(self, run: Run, message: Message) -> None:
        if message.type in OUTPUTS:
            run.take_output(message)
            if VIEW in message.content.get("data", ()):
                self._saw_widget(run)
        elif message.type == "tool_progress":
            run.say(_progress(message))

    def _take_question(self, run: Run, asked: Message) -> None:
        self._asking.add(run.key)
        if run.outlet.rule == INERT and asked.content["password"]:
            run.say(Message("stream", {"name": "stderr", "text": _NO_PASSWORDS}))
            self.answer(run, _END_OF_INPUT)
        else:
            run.say(asked)

    def _take_commit_request(self, run: Run | None, asked: Message) -> None:
        """
        Pass a request for a commit on; of each run one at a time, so that nobody is flooded.

        Raises:
            TransferError: its id is no short word; each answer repeats it.
        """
        if len(asked.content["id"]) > _LONGEST_ID:
            msg = "a commit_request with a long id"
            raise TransferError(msg)
        if run is None or run.commit_requests is None or run.key in self._awaiting_commit:
            self._reply_to_commit(asked, {"error": _NO_COMMITS})
        else:
            self._awaiting_commit.add(run.key)
            run.commit_requests(asked)

    def _take_status(self, message: Message, run: Run | None, key: str) -> None:
        state = message.content.get("execution_state")
        if state == "busy" and run is not None and not run.begun.done():
            run.begun.set_result(None)
        if state != "idle":
            return
        heard = self._published.get(key)
        if heard is not None:
            heard.set()
        if run is not None:
            run.take_idle()
        self.comms.take_idle(key)

    def _check(self, frames: list[Any]) -> tuple[Message, dict[str, Any]]:
        """
        Take a message apart.

        Raises:
            TransferError: it is malformed, or not signed by the worker.
        """
        try:
            copied = isinstance(frames[0], bytes)
            _, parts = self._session.feed_identities(frames, copy=copied)
            raw = self._session.deserialize(parts, copy=copied)
            content, metadata, parent = raw["content"], raw["metadata"], raw["parent_header"]
            kind = raw["msg_type"]
        except Exception as error:
            msg = f"a message that cannot be read ({type(error).__name__}: {str(error)[:100]})"
            raise TransferError(msg) from error
        if not (
            isinstance(kind, str)
            and isinstance(content, dict)
            and isinstance(metadata, dict)
            and isinstance(parent, dict)
        ):
            msg = "a message whose parts are not what Jupyter's protocol says"
            raise TransferError(msg)
        _check_content(kind, content, metadata)
        return Message(
            kind, content, metadata, tuple(raw["buffers"]), sum(map(len, frames))
        ), parent
