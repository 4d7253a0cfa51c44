"""
A running hive's door for the command line and for agents.

::

    jupyter hive run ... ──▶ <runtime folder>/attach (unix socket, mode 0600) ──▶ HiveManager

The host greets whoever connects, reads one request, and answers; all in lines of JSON::

    host    {"attach": 1, "pid": 4711, ...}           who it is, and how it speaks
    client  {"verb": "run", "code": "print(1)"}       one of VERBS, with its arguments
    host    {"say": "stdout", "text": "1"} ...        what the run says, while it says it
    client  {"interrupt": true}                       during a run; the second one kills
    host    {"answer": {...}} or {"error": "...", "kind": "..."}

A client that goes away during a run has interrupted it.

What serves an agent knows two verbs only: ``tools``, and ``call`` with a tool's name and arguments.
Which tools there are, and in which project they work, is the host's choice.

Only processes of the same user are answered. That includes the workers: code that runs in one may
do here what its user could type, and nothing can tell the two apart. So there is no verb that
approves anything, and there must never be one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import struct
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hive_jupyter import __version__
from hive_jupyter.agents import AgentSession, AsyncSink, Awaited, claimed
from hive_jupyter.delegation import Delegation, Result
from hive_jupyter.errors import ConfigError, HiveError, NodeDied, NodeTimeout, RemoteError
from hive_jupyter.protocol import encode_line
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.outputs import plain_text
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.runtime import living
from hive_jupyter.tools import TOOL_TIMEOUT, Tool, ToolResult
from hive_jupyter.units import nearest

if TYPE_CHECKING:
    from hive_jupyter.manager import HiveManager

log = logging.getLogger(__name__)

# How the two sides speak; raised when an older one would misunderstand the newer.
VERSION = 1
# The socket, in the hive's runtime folder.
SOCKET = "attach"
# What a server of agents asks for; and all there is to ask for.
AGENTS_VERBS = ("tools", "call")
VERBS = ("status", "logs", "run", "interrupt", "restart", "doctor", *AGENTS_VERBS)

# Bytes of a line: a request holds the code of a run, an answer is cut into pieces. The log of a
# worker is not, and JSON makes six bytes of one.
LONGEST_REQUEST = 16 * 2**20
LONGEST_ANSWER = 8 * 2**20
# Characters of text in one line.
_PIECE = 2**16
_LONGEST_SENTENCE = 2000
_MOST_CLIENTS = 16
_MOST_LINES = 10**6
# Seconds that a client may take for its request and for taking its answer.
_CLIENTS_PATIENCE = 10.0
# Seconds that a host may take to greet, and to answer what needs no worker.
GREETING_PATIENCE = 5.0
_HOSTS_PATIENCE = 30.0
# struct ucred, see unix(7).
_CREDENTIALS = struct.Struct("iII")
# Of macOS, which has no such: sys/un.h, and the size of struct xucred in sys/ucred.h.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED = 76


# The host's side


def serve(manager: HiveManager, title: str) -> None:
    """
    Open the door of a hive; it is closed with the hive. Returns at once.

    Args:
        manager: whose workers can be reached.
        title: what the host is, such as the path of its notebook.
    """
    manager.serve(lambda folder: _Door(manager, title, folder).keep_open())


def peer(connection: socket.socket) -> tuple[int, int]:
    """
    Pid and user id of the process at the other end, as the system knows them.

    Raises:
        OSError: it does not tell.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        version_and_user = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED)
        pid = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
        return pid, int(struct.unpack_from("II", version_and_user)[1])
    size = _CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, _ = _CREDENTIALS.unpack(credentials)
    return pid, user


class _Malformed(Exception):
    """What the other side sent is no line of JSON that makes sense; the text says why."""


def _decoded(line: bytes) -> dict[str, Any]:
    """
    Read one line.

    Raises:
        _Malformed: it is no JSON object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise _Malformed("a line that is no JSON") from None
    if not isinstance(value, dict):
        raise _Malformed("a line of JSON that is no object")
    return value


class _Client:
    """One connection, seen from the host."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        # what is sent has been taken
        writer.transport.set_write_buffer_limits(0)

    @property
    def user(self) -> int:
        """The user id of the process at the other end."""
        return peer(self._writer.get_extra_info("socket"))[1]

    async def receive(self) -> dict[str, Any] | None:
        """
        The next line; None where the client has gone.

        Raises:
            _Malformed: it makes no sense, or is too long.
            OSError: the connection broke.
        """
        try:
            line = await self._reader.readline()
        except ValueError:
            msg = f"a line longer than {LONGEST_REQUEST} bytes"
            raise _Malformed(msg) from None
        return _decoded(line) if line.endswith(b"\n") else None

    async def send(self, line: Mapping[str, Any]) -> None:
        """
        Send a line, as fast as the client takes it.

        Raises:
            OSError: the client has gone.
        """
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(encode_line(line))
        await self._writer.drain()

    async def leave(self) -> None:
        """Wait until the client has gone, or says what it should not."""
        with contextlib.suppress(OSError, _Malformed):
            await self.receive()

    def close(self) -> None:
        """Hang up, whatever was not taken yet."""
        self._writer.transport.abort()


class _Door:
    """The listening socket of a hive, and those who came in. Lives on the portal's loop."""

    def __init__(self, manager: HiveManager, title: str, folder: Path) -> None:
        self._manager = manager
        self._title = title
        self._path = folder / SOCKET
        self._since = time.time()
        self._clients: set[asyncio.Task[None]] = set()
        self._answers = {
            "status": self._status,
            "logs": self._logs,
            "run": self._run,
            "interrupt": self._interrupt,
            "restart": self._restart,
            "doctor": self._doctor,
            "tools": self._tools,
            "call": self._call,
        }

    async def keep_open(self) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_unix_server(
            self._welcome, sock=self._listener(), limit=LONGEST_REQUEST
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    def _listener(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fsencode(self._path))
            self._path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        except OSError as error:
            log.info("no door for the command line: %s", error)
            listener.close()
            raise
        return listener

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(reader, writer)
        task = asyncio.get_running_loop().create_task(self._talk(client))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _talk(self, client: _Client) -> None:
        try:
            await self._greet_and_answer(client)
        except Exception as error:
            log.info("a client of the door: %s: %s", type(error).__name__, error)
        finally:
            client.close()

    async def _greet_and_answer(self, client: _Client) -> None:
        if client.user != os.geteuid():
            return
        async with asyncio.timeout(_CLIENTS_PATIENCE):
            if len(self._clients) > _MOST_CLIENTS:
                await client.send(_refusal(HiveError("Too many others speak to this hive now.")))
                return
            await client.send(self._greeting())
            request = await self._request(client)
        if request is None:
            return
        try:
            answer = {"answer": await self._answers[request["verb"]](request, client)}
        except HiveError as error:
            answer = _refusal(error)
        async with asyncio.timeout(_CLIENTS_PATIENCE):
            await client.send(answer)

    async def _request(self, client: _Client) -> dict[str, Any] | None:
        """A request with a verb that exists, or None after telling the client what is wrong."""
        try:
            request = await client.receive()
        except _Malformed as error:
            await client.send(_refusal(HiveError(f"This hive was sent {error}.")))
            return None
        if request is None:
            return None
        verb = request.get("verb")
        if not isinstance(verb, str) or verb not in self._answers:
            said = str(verb)[:40]
            unknown = ConfigError(f'This hive has no verb "{said}".{nearest(said, VERBS)}')
            await client.send(_refusal(unknown))
            return None
        return request

    def _greeting(self) -> dict[str, Any]:
        try:
            folder = str(Path.cwd())
        except FileNotFoundError:
            folder = "(a folder that was removed)"
        return {
            "attach": VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "title": self._title,
            "folder": folder,
            "since": self._since,
            "workers": self._manager.workers(),
        }

    # One method a verb; each gets the request, and returns the answer.

    async def _status(self, _request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        return await self._manager.status_of_workers()

    async def _logs(self, request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        worker = self._manager.checked(_text_or_none(request, "worker"))
        lines = request.get("lines", 50)
        if not isinstance(lines, int) or isinstance(lines, bool) or not 0 < lines <= _MOST_LINES:
            msg = f"A number of lines is to be between 1 and {_MOST_LINES}."
            raise ConfigError(msg)
        return {"worker": worker, "log": await self._manager.nodes.log(worker, lines)}

    async def _interrupt(self, request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        worker = self._manager.checked(_text_or_none(request, "worker"))
        return {"worker": worker, "interrupted": await self._manager.nodes.interrupt(worker)}

    async def _restart(self, request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        worker = self._manager.checked(_text_or_none(request, "worker"), starts=True)
        status = await self._manager.nodes.restart(worker)
        return {"worker": worker, "state": status.state, "pid": status.pid}

    async def _doctor(self, _request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        return (await apart(self._manager.doctor)).facts()

    async def _run(self, request: Mapping[str, Any], client: _Client) -> dict[str, Any]:
        delegation = self._manager.begin(
            _text(request, "code"),
            worker=_text_or_none(request, "worker"),
            timeout=_text_or_none(request, "timeout") or "default",
            collect=False,
            kind=_Run,
        )
        assert isinstance(delegation, _Run)
        obeying = asyncio.create_task(_obey(client, delegation))
        try:
            async for message in delegation.messages():
                await _tell(client, delegation, _lines_of(message))
            answer, traceback = delegation.ending()
            await _tell(client, delegation, _cut("error", traceback))
        except Exception:
            delegation.abandon()
            raise
        else:
            return answer
        finally:
            obeying.cancel()

    async def _tools(self, request: Mapping[str, Any], _client: _Client) -> dict[str, Any]:
        tools = await self._agent(request).tools()
        return {"tools": [tool.to_wire() for tool in tools]}

    async def _call(self, request: Mapping[str, Any], client: _Client) -> dict[str, Any]:
        arguments = request.get("arguments")
        if not isinstance(arguments, dict):
            msg = '"arguments" has to be an object.'
            raise ConfigError(msg)
        work = self._agent(request).call(_text(request, "tool"), arguments, sink=_shown(client))
        calling = asyncio.create_task(work)
        leaving = asyncio.create_task(client.leave())
        try:
            await asyncio.wait((calling, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ConnectionResetError
            return {"result": calling.result().to_wire()}
        finally:
            calling.cancel()
            leaving.cancel()

    def _agent(self, request: Mapping[str, Any]) -> AgentSession:
        return AgentSession(
            self._manager,
            _text(request, "agent"),
            worker=_text_or_none(request, "worker"),
            timeout=_text_or_none(request, "timeout") or TOOL_TIMEOUT,
        )


def _shown(client: _Client) -> AsyncSink:
    """Tells a client how far a tool is; whether it is still there, its leaving says."""

    async def show(message: Message) -> None:
        if message.type == "progress":
            with contextlib.suppress(OSError):
                await client.send({"say": "progress", **message.content, "more": False})

    return show


async def _obey(client: _Client, delegation: _Run) -> None:
    """Interrupt the run when the client says so, or goes, or makes no sense."""
    try:
        while (line := await client.receive()) is not None:
            if line.get("interrupt") is True:
                delegation.interrupt()
    except (OSError, _Malformed) as error:
        log.info("a client of the door, during a run: %s", error)
    delegation.abandon()


async def _tell(client: _Client, delegation: _Run, lines: Iterator[Mapping[str, Any]]) -> None:
    """Send what a run said; a client that has gone is no reason not to wait for the run's end."""
    try:
        for line in lines:
            await client.send(line)
    except OSError:
        delegation.abandon()


class _Run(Awaited[Result], Delegation):
    """A run of code, awaited."""

    def ending(self) -> tuple[dict[str, Any], str]:
        """How the run, which is over, has ended, for the answer; and the code's traceback."""
        status, error, text, traceback = "ok", "", "", ""
        try:
            outcome = self.outcome()
            if isinstance(outcome, Instructions):
                status, text = "instructions", outcome.reason
        except RemoteError as raised:
            status, error, text = "error", raised.ename, raised.evalue
            traceback = "\n".join(raised.traceback) or f"{error}: {text}"
        except HiveError as failure:
            kinds = ((NodeTimeout, "timeout"), (NodeDied, "died"), (HiveError, "closed"))
            status = next(word for kind, word in kinds if isinstance(failure, kind))
            error, text = type(failure).__name__, str(failure)
        answer = {
            "worker": self._worker,
            "status": status,
            "error": error,
            "text": text[:_LONGEST_SENTENCE],
            "seconds": None if self.result is None else self.result.seconds,
        }
        return answer, traceback


def _lines_of(message: Message) -> Iterator[dict[str, Any]]:
    """What a terminal can show of a message."""
    content = message.content
    if message.type == "stream":
        yield from _cut("stderr" if content["name"] == "stderr" else "stdout", content["text"])
    elif message.type == "execute_result":
        yield from _cut("result", plain_text(content["data"]))
    elif message.type in ("display_data", "update_display_data"):
        yield from _cut("display", plain_text(content["data"]))
    elif message.type == "error":
        yield from _cut("error", "\n".join(content["traceback"]))
    elif message.type == "progress":
        yield {"say": "progress", "text": content["text"], "more": False}


def _cut(place: str, text: str) -> Iterator[dict[str, Any]]:
    """
    A text as lines that are not too long.

    All but the last say that there is more, so that the other side knows where the text ends.
    """
    for start in range(0, len(text), _PIECE):
        end = start + _PIECE
        yield {"say": place, "text": text[start:end], "more": end < len(text)}


def _refusal(error: HiveError) -> dict[str, Any]:
    kind = "ConfigError" if isinstance(error, ConfigError) else "HiveError"
    return {"error": str(error)[:_LONGEST_SENTENCE], "kind": kind}


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        msg = f'"{name}" has to be text.'
        raise ConfigError(msg)
    return value


def _text_or_none(request: Mapping[str, Any], name: str) -> str | None:
    return None if request.get(name) is None else _text(request, name)


# The client's side


@dataclass(frozen=True)
class Identity:
    """
    Which hive it is.

    Attributes:
        id: what a person types to choose it: its process, and a number where that has several.
        pid: of its process.
        title: what the host is, such as the path of its notebook.
        folder: its working folder.
        since: Unix time in seconds.
        workers: their names.
    """

    id: str
    pid: int
    title: str
    folder: str
    since: float
    workers: tuple[str, ...]


class Attachment:
    """
    A connection to a running hive: good for one request.

    Attributes:
        id: what a person types to choose the hive.
        folder: the hive's runtime folder.
        identity: which hive it is; None where it does not answer as it should.
        trouble: why it does not, or "".
    """

    def __init__(self, folder: Path) -> None:
        """
        Connect.

        Raises:
            OSError: there is no door, or nobody behind it.
        """
        pid, _, *number = folder.name.split("-")
        self.id = "-".join([pid, *number])
        self.identity: Identity | None = None
        self.trouble = ""
        self._pid = int(pid)
        self._received = bytearray()
        self._is_asked = False
        # Wishes that came before there was a run to interrupt.
        self._interrupts = 0
        self.folder = folder
        path = folder / SOCKET
        facts = path.lstat()
        if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.geteuid():
            raise FileNotFoundError(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(GREETING_PATIENCE)
        try:
            self._socket.connect(os.fsencode(path))
        except (TimeoutError, BlockingIOError):  # nobody takes those who wait at the door
            self.trouble = self._silence()
        except OSError:
            self._socket.close()
            raise

    def read_greeting(self, deadline: float) -> None:
        """Learn which hive it is, until ``deadline`` (time.monotonic()); never raises."""
        if self.trouble:
            return
        try:
            self.identity = self._identity(self._line(max(0.1, deadline - time.monotonic())))
        except TimeoutError:
            self.trouble = self._silence()
        except HiveError as error:
            self.trouble = str(error)
        except (OSError, EOFError):
            self.trouble = f"The hive of process {self._pid} closed its door; it is ending."
        except _Malformed:
            self.trouble = f"What answers for process {self._pid} does not speak as a hive does."

    def ask(self, verb: str, *, patient: bool = False, **arguments: Any) -> dict[str, Any]:
        """
        Ask for something and wait for the answer.

        Args:
            verb: one of VERBS, but not "run".
            patient: wait as long as it takes.
            arguments: of the verb.

        Raises:
            ConfigError: the hive does not know what was asked for.
            HiveError: it could not do that, or did not answer.
        """
        line: dict[str, Any] = {}
        for line in self._lines(verb, arguments, None if patient else _HOSTS_PATIENCE):
            if "answer" in line:
                break
        return dict(line["answer"])

    def run(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        """
        Run code; give each line that the host sends, the last being the answer.

        Raises:
            ConfigError, HiveError: as ``ask``.
        """
        return self._lines("run", arguments, None)

    def interrupt(self) -> None:
        """Stop the run, as Ctrl-C does; safe from a signal handler."""
        if self._is_asked:
            self._send_interrupt()
        else:
            self._interrupts += 1

    def close(self) -> None:
        """Hang up; a run is interrupted by that."""
        self._socket.close()

    def _lines(
        self, verb: str, arguments: Mapping[str, Any], seconds: float | None
    ) -> Iterator[dict[str, Any]]:
        if self.identity is None:
            raise HiveError(self.trouble)
        request = _request(verb, arguments)
        with self._understood():
            self._socket.settimeout(seconds)
            self._socket.sendall(request)
            self._is_asked = True
            for _ in range(self._interrupts):
                self._send_interrupt()
            line: dict[str, Any] = {}
            while "answer" not in line:
                line = _unless_refused(self._line(seconds))
                yield line

    async def converse(self, verb: str, **arguments: Any) -> AsyncGenerator[dict[str, Any]]:
        """
        Ask for something on a running loop, and for as long as it takes.

        Args:
            verb: one of AGENTS_VERBS.
            arguments: of the verb.

        Returns:
            Each line that the host sends, the last being the answer.

        Raises:
            ConfigError, HiveError: as ``ask``.
        """
        if self.identity is None:
            raise HiveError(self.trouble)
        request = _request(verb, arguments)
        with self._understood():
            reader, writer = await asyncio.open_unix_connection(
                sock=self._socket, limit=LONGEST_ANSWER
            )
            try:
                writer.write(request)
                await writer.drain()
                line: dict[str, Any] = {}
                while "answer" not in line:
                    line = _unless_refused(await _read(reader))
                    yield line
            finally:
                writer.transport.abort()

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Say in words of a person what can go wrong with a connection."""
        try:
            yield
        except TimeoutError:
            raise HiveError(self._silence()) from None
        except (OSError, EOFError):
            msg = f"The hive of process {self._pid} ended, or was closed, before it answered."
            raise HiveError(msg) from None
        except _Malformed as error:
            msg = f"The hive of process {self._pid} sent {error}."
            raise HiveError(msg) from None

    def _send_interrupt(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(encode_line({"interrupt": True}), socket.MSG_DONTWAIT)

    def _line(self, seconds: float | None) -> dict[str, Any]:
        """
        The next line.

        Raises:
            TimeoutError: there was none within ``seconds``.
            EOFError, OSError: the host is gone.
            _Malformed: it makes no sense, or is too long.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > LONGEST_ANSWER:
                raise _Malformed("a line that is too long")
            if deadline is not None:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            piece = self._socket.recv(2**16)
            if not piece:
                raise EOFError
            self._received += piece
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return _decoded(line)

    def _identity(self, greeting: Mapping[str, Any]) -> Identity:
        if peer(self._socket) != (self._pid, os.geteuid()):
            raise _Malformed("a greeting in the name of another process")
        if "error" in greeting:
            raise HiveError(str(greeting["error"]))
        if not isinstance(greeting.get("attach"), int):
            raise _Malformed("no greeting")
        if greeting["attach"] != VERSION:
            msg = (
                f"The hive of process {self._pid} is of hive-jupyter {greeting.get('version')}, "
                f"and this command of {__version__}; they do not understand each other. Run the "
                "command of the Python that runs the notebook."
            )
            raise HiveError(msg)
        try:
            return Identity(
                id=self.id,
                pid=self._pid,
                title=str(greeting["title"]),
                folder=str(greeting["folder"]),
                since=_time(greeting["since"]),
                workers=tuple(map(str, greeting["workers"])),
            )
        except (KeyError, TypeError, ValueError):
            raise _Malformed("no greeting") from None

    def _silence(self) -> str:
        return (
            f"The hive of process {self._pid} does not answer. It may be stopped (kill -CONT "
            f"{self._pid} wakes it), or its machine is too busy."
        )


def _request(verb: str, arguments: Mapping[str, Any]) -> bytes:
    request = encode_line({"verb": verb, **arguments})
    if len(request) > LONGEST_REQUEST:
        msg = "The code is too long to be sent. Put the data into a file and read it there."
        raise ConfigError(msg)
    return request


def _unless_refused(line: dict[str, Any]) -> dict[str, Any]:
    if "error" in line:
        kind = ConfigError if line.get("kind") == "ConfigError" else HiveError
        raise kind(str(line["error"]))
    return line


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await reader.readline()
    except ValueError:
        raise _Malformed("a line that is too long") from None
    if not line.endswith(b"\n"):
        raise EOFError
    return _decoded(line)


def _time(value: object) -> float:
    """
    Unix time in seconds.

    Raises:
        ValueError: it is no time that a clock can show.
    """
    since = float(str(value))
    if not 0 <= since < 2**35:
        msg = f"{value!r} is no time"
        raise ValueError(msg)
    return since


def attachments() -> list[Attachment]:
    """
    Connect to all hives of this user that run on this machine, by pid.

    One that does not answer within ``GREETING_PATIENCE`` has ``trouble``; a dead one is left out.
    """
    found = []
    for folder in living():
        with contextlib.suppress(OSError):
            found.append(Attachment(folder))
    deadline = time.monotonic() + GREETING_PATIENCE
    for attachment in found:
        attachment.read_greeting(deadline)
    return found


class AttachedHive:
    """
    A running hive of another process, to be spoken to more than once.

    Where it has ended, one of the same notebook (whose kernel was restarted) takes its place.

    Args:
        attachment: that was greeted.
    """

    def __init__(self, attachment: Attachment) -> None:
        assert attachment.identity is not None
        self._folder = attachment.folder
        self._identity = attachment.identity

    def attachment(self) -> Attachment:
        """
        A new connection to it.

        Raises:
            HiveError: it has ended, and there is no other one of the same notebook.
        """
        try:
            attachment = Attachment(self._folder)
        except OSError:
            return self._successor()
        attachment.read_greeting(time.monotonic() + GREETING_PATIENCE)
        return attachment

    def _successor(self) -> Attachment:
        wanted = (self._identity.title, self._identity.folder)
        chosen: Attachment | None = None
        for found in attachments():
            identity = found.identity
            if chosen is None and identity and (identity.title, identity.folder) == wanted:
                chosen = found
                self._folder = found.folder
            else:
                found.close()
        if chosen is None:
            msg = (
                f"The notebook that this MCP server speaks to ({self._identity.title}, in "
                f"{self._identity.folder}) has ended, or its hive was closed. Open it again and "
                "run %load_ext hive_jupyter."
            )
            raise HiveError(msg)
        return chosen


class AttachedAgent:
    """
    One agent's way to the workers of a hive of another process, through its door.

    Args:
        hive: whose workers; each call has a connection of its own.
        name: what the agent calls itself.
        worker: whose tools it gets; by default the hive's default one.
        timeout: such as "5m": that a tool may take; by default as the hive says.
    """

    def __init__(
        self,
        hive: AttachedHive,
        name: str,
        *,
        worker: str | None = None,
        timeout: str | None = None,
    ) -> None:
        self._hive = hive
        self._words = {"agent": claimed(name), "worker": worker, "timeout": timeout}

    async def tools(self) -> list[Tool]:
        """
        The tools that the agent may call.

        Raises:
            HiveError: the hive has ended, or cannot tell.
        """
        answer = await self._ask("tools")
        return [Tool.from_wire(wire) for wire in answer["tools"]]

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, sink: AsyncSink | None = None
    ) -> ToolResult:
        """Call a tool, as AgentSession does; cancelled, it interrupts the tool."""
        try:
            answer = await self._ask("call", sink, tool=name, arguments=dict(arguments))
        except HiveError as error:
            return ToolResult.failure(str(error))
        return ToolResult.from_wire(answer["result"])

    async def _attachment(self) -> Attachment:
        """Connect in a thread: a host that is stopped lets nobody else wait."""
        connecting = asyncio.ensure_future(apart(self._hive.attachment))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_hang_up)
            raise

    async def _ask(
        self, verb: str, sink: AsyncSink | None = None, **arguments: Any
    ) -> dict[str, Any]:
        attachment = await self._attachment()
        line: dict[str, Any] = {}
        try:
            said = attachment.converse(verb, **self._words, **arguments)
            async with contextlib.aclosing(said) as lines:
                async for line in lines:
                    if "say" in line and sink is not None:
                        await sink(Message(line["say"], line))
        finally:
            attachment.close()
        return dict(line["answer"])


def _hang_up(connected: asyncio.Future[Attachment]) -> None:
    if not connected.cancelled() and connected.exception() is None:
        connected.result().close()
