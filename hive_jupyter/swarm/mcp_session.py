"""
A conversation with an MCP server, over pipes to its standard input and output.

The official SDK (https://modelcontextprotocol.io) speaks; the pipes are read here, since its own
reader puts up with lines of any length. To import this takes a second, so whoever needs it imports
it in a thread.
"""

from __future__ import annotations

import asyncio
import asyncio.streams
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any, Self

import anyio
import mcp_types
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp_types import methods
from pydantic import TypeAdapter, ValidationError

from hive_jupyter import __version__
from hive_jupyter.errors import HiveError, ToolError
from hive_jupyter.protocol import encode_line
from hive_jupyter.swarm.process import first_of
from hive_jupyter.tools import LARGEST_RESULT, MOST_BLOCKS, Tool, ToolResult, check_sendable, within
from hive_jupyter.units import format_size, printable

# Where nobody has set up logging, Python prints warnings to stderr: a server must not write there.
for _logger in ("client", "mcp"):
    logging.getLogger(_logger).addHandler(logging.NullHandler())

# The longest message that is read, in bytes: a few times what is left of a result in the end.
LARGEST_MESSAGE = 8 * 2**20
# What is remembered of what is no message: so many lines, and so many characters of each.
_NOISE_LINES = 50
_NOISE_LENGTH = 200
# A server that writes without a pause is not read for as long as reading it took, so often
# (seconds): the loop has other work.
_SPELL = 0.02
# One that made its reader wait so long has paused: it has no more to say just now.
_PAUSE = 0.0002
# A list of tools ends after so many, or after so many pages.
_MOST_TOOLS = 500
_MOST_PAGES = 50
# A server that asks and does not read what it is answered is not heard while so many answers wait.
_MOST_ANSWERS = 100
_LONGEST_NAME = 128
_LONGEST_DESCRIPTION = 10_000
_LONGEST_COMPLAINT = 500
# How long the conversation may take to end, once its server is gone.
_END_PATIENCE = 2.0

_TOO_LARGE = -32099
# Where the SDKs put the number of the call that a message answers.
_ID_FIRST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')
_EDGE = 256

_CallResult: TypeAdapter[Any] = TypeAdapter(
    mcp_types.CallToolResult | mcp_types.InputRequiredResult
)

Report = Callable[[float, float | None, str], None]


class McpSession:
    """
    A conversation with one server. Belongs to the loop that it was made on.

    One task opens, serves and closes it, as the SDK wants; others ask through it.

    Args:
        stdin: of the server; closed with this.
        stdout: of the server; closed with this.

    Attributes:
        server: name and version that the server gives itself; "" before it has.
        noise: the latest lines on its stdout that are no message, cut.
    """

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.server = ""
        self.noise: deque[str] = deque(maxlen=_NOISE_LINES)
        self._pipes = stdin, stdout
        self._ready: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._listing = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._dispatcher: _Dispatcher | None = None
        self._task = asyncio.create_task(self._serve())

    @property
    def is_open(self) -> bool:
        """Whether the server has answered, and still listens and talks."""
        return self._ready.done() and not self._task.done() and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the server talks no more."""
        return self._over.is_set()

    async def open(self) -> None:
        """
        Wait until the server has answered.

        Raises:
            HiveError: it refused, or ended.
        """
        await first_of(self._ready, self._task)
        if not self._ready.done():
            self._task.result()
            msg = "it closed its standard output"
            raise HiveError(msg)
        self._ready.result()

    async def list_tools(self) -> tuple[dict[str, Tool], tuple[str, ...]]:
        """
        Ask for the tools.

        Returns:
            The tools by name, and why some are left out.

        Raises:
            ConnectionError: the server is gone.
            ToolError: it answered with something else.
        """
        dispatcher = self._dispatcher
        assert dispatcher is not None
        async with self._listing:
            dispatcher.problems = []
            try:
                wires = await self._pages()
            except MCPError as error:
                msg = f"It lists no tools: {_said(error)}"
                raise ToolError(msg) from None
            except ValidationError as error:
                msg = f"It answered tools/list with something else: {_complaint(error)}."
                raise ToolError(msg) from None
            return _usable(wires, dispatcher.problems)

    async def call_tool(
        self, tool: str, arguments: Mapping[str, Any], report: Report
    ) -> ToolResult:
        """
        Call a tool; where the caller is cancelled, the server is told.

        Args:
            tool: its name.
            arguments: by name.
            report: is called with how far it is: done, total (or None), and a word on what it does.

        Returns:
            What it answered, cut where it is too large; ``is_error`` where it refused.

        Raises:
            ConnectionError: the server is gone.
            ToolError: the arguments cannot be sent.
        """
        _check_arguments(tool, arguments)

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            report(progress, total, message or "")

        session = self._ready.result()
        params = mcp_types.CallToolRequestParams(name=tool, arguments=dict(arguments))
        try:
            result = await session.send_request(
                mcp_types.CallToolRequest(params=params), _CallResult, progress_callback=tell
            )
        except MCPError as error:
            return ToolResult.failure(f"{tool} failed: {_said(error)}")
        except ValidationError as error:
            return ToolResult.failure(
                f"{tool} answered with what is no result of a tool: {_complaint(error)}."
            )
        if isinstance(result, mcp_types.InputRequiredResult):
            return ToolResult.failure(f"{tool} asks its user a question, which Hive cannot answer.")
        wire = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return within(ToolResult.from_wire(wire), LARGEST_RESULT)

    async def ping(self) -> None:
        """
        Wait for any answer at all.

        Raises:
            ConnectionError: the server is gone.
        """
        request = mcp_types.PingRequest(params=mcp_types.RequestParams())
        try:
            await self._ready.result().send_request(request, mcp_types.EmptyResult)
        except MCPError as error:  # it may not know the question, but it has answered
            _said(error)
        except ValidationError:
            pass

    def hang_up(self) -> None:
        """Close the server's stdin, which tells it to end."""
        if self._writer is not None:
            self._writer.close()

    async def close(self) -> None:
        """End the conversation, once the server has been ended. Idempotent."""
        self._over.set()
        await asyncio.wait({self._task}, timeout=_END_PATIENCE)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._ready.done():
            self._ready.exception()  # whoever waited for it has been told, or waits no more

    async def _pages(self) -> list[dict[str, Any]]:
        wires: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            params = mcp_types.PaginatedRequestParams(cursor=cursor)
            request = mcp_types.ListToolsRequest(params=params)
            page = await self._ready.result().send_request(request, mcp_types.ListToolsResult)
            wires += [tool.model_dump(by_alias=True, exclude_none=True) for tool in page.tools]
            if page.next_cursor in (None, cursor) or len(wires) > _MOST_TOOLS:
                break
            cursor = page.next_cursor
        return wires

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stdin, stdout = self._pipes
        reader = asyncio.StreamReader(limit=LARGEST_MESSAGE)
        with stdin, stdout:
            reading, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), stdout
            )
            writing, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, stdin)
            self._writer = asyncio.StreamWriter(writing, flow, None, loop)
            outgoing = _Outgoing(self._writer)
            incoming = _Incoming(reader, outgoing, self.noise, self._over)
            self._dispatcher = _Dispatcher(incoming, outgoing)
            about = mcp_types.Implementation(name="hive-jupyter", version=__version__)
            try:
                async with ClientSession(dispatcher=self._dispatcher, client_info=about) as session:
                    await self._begin(session)
                    await self._over.wait()
            finally:
                reading.close()
                writing.abort()

    async def _begin(self, session: ClientSession) -> None:
        """
        Shake hands.

        The handshake of the protocol's earlier versions comes first: nearly every server knows it,
        while many are silent, or end, when they are asked for the newest one.
        """
        try:
            await _greet(session)
        except ValidationError as error:
            msg = f"it answered with something that is not MCP: {_complaint(error)}"
            self._ready.set_exception(HiveError(msg))
        except Exception as error:
            self._ready.set_exception(HiveError(_cut(str(error))))
        else:
            about = session.server_info
            self.server = _cut(f"{about.name} {about.version}") if about is not None else ""
            assert self._dispatcher is not None
            self._dispatcher.version = session.protocol_version or ""
            self._ready.set_result(session)


async def _greet(session: ClientSession) -> None:
    try:
        await session.initialize()
    except MCPError as error:
        refusal = _said(error)
        try:
            await session.discover()
        except MCPError:
            msg = f"it refused to talk: {refusal}"
            raise HiveError(msg) from None


class _Dispatcher(JSONRPCDispatcher):
    """
    The SDK's, which fails a whole list of tools where one of them is wrong; here the others stay.

    Attributes:
        version: of the protocol that was agreed on.
        problems: why tools were left out of the latest list.
    """

    version = ""
    problems: list[str]

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: Any = None, **related: Any
    ) -> dict[str, Any]:
        answer = await super().send_raw_request(method, params, opts, **related)
        content = answer.get("content")
        if method == "tools/call" and isinstance(content, list) and len(content) > MOST_BLOCKS:
            # here, since to validate each would take the loop for seconds
            note = {"type": "text", "text": f"[Cut: {len(content) - MOST_BLOCKS} blocks more.]"}
            return {**answer, "content": [*content[: MOST_BLOCKS - 1], note]}
        tools = answer.get("tools")
        if method != "tools/list" or not isinstance(tools, list):
            return answer
        good = []
        for tool in tools[:_MOST_TOOLS]:
            try:
                methods.validate_server_result(method, self.version, {**answer, "tools": [tool]})
            except ValidationError as error:
                self.problems.append(_left_out(tool, _complaint(error)))
            else:
                good.append(tool)
        return {**answer, "tools": good}


class _Incoming:
    """
    What a server writes to its stdout: messages, a line each, and what should not be there.

    Args:
        reader: of its stdout; its limit is the longest message.
        outgoing: what it is told.
        noise: takes what is no message.
        over: is set where it ends.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        outgoing: _Outgoing,
        noise: deque[str],
        over: asyncio.Event,
    ) -> None:
        self._reader = reader
        self._outgoing = outgoing
        self._noise = noise
        self._over = over
        self._busy_since = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while True:
            await self._rest()
            line = await self._line()
            if not line:
                self._over.set()
                raise StopAsyncIteration
            try:
                message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                self._note(line)
                continue
            is_question = isinstance(message, mcp_types.JSONRPCRequest)
            if is_question and self._outgoing.waiting > _MOST_ANSWERS:
                self._note(line)
            else:
                return SessionMessage(message)

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        self._over.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _rest(self) -> None:
        """Let others have the loop; after a spell of work without a pause, for as long as that."""
        await asyncio.sleep(0)
        worked = time.monotonic() - self._busy_since
        if worked > _SPELL:
            await asyncio.sleep(worked)
            self._busy_since = time.monotonic()

    async def _line(self) -> bytes:
        """The next line; b"" where there will be no more."""
        began = time.monotonic()
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            return end.partial
        except asyncio.LimitOverrunError:
            return await self._skim()
        finally:
            ended = time.monotonic()
            if ended - began > _PAUSE:
                self._busy_since = ended

    async def _skim(self) -> bytes:
        """Read a line that is too long for a message; return an error in its place."""
        head = tail = b""
        size = 0
        while not tail.endswith(b"\n"):
            await self._rest()
            try:
                piece = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as over:
                piece = await self._reader.readexactly(over.consumed)
            except asyncio.IncompleteReadError:
                return b""
            head = head or piece[:_EDGE]
            tail = (tail + piece[-_EDGE:])[-_EDGE:]
            size += len(piece)
        found = _ID_FIRST.match(head) or _ID_LAST.search(tail)
        most = format_size(LARGEST_MESSAGE)
        text = f"its answer has {format_size(size)}, and at most {most} are read. Ask it for less."
        if found is None:
            self._note(f"[{format_size(size)} without an end of line]".encode())
            return b"\n"
        error = {"code": _TOO_LARGE, "message": text}
        return encode_line({"jsonrpc": "2.0", "id": int(found[1]), "error": error})

    def _note(self, line: bytes) -> None:
        text = printable(line[: 4 * _NOISE_LENGTH].decode(errors="replace")).strip()
        if text:
            self._noise.append(text[:_NOISE_LENGTH])


class _Outgoing:
    """
    What is written to a server's stdin.

    Attributes:
        waiting: messages that wait for the server to read.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.waiting = 0
        self._writer = writer

    async def send(self, item: SessionMessage, /) -> None:
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self.waiting += 1
        try:
            self._writer.write(f"{line}\n".encode())
            await self._writer.drain()
        except OSError:
            raise anyio.BrokenResourceError from None
        finally:
            self.waiting -= 1

    async def aclose(self) -> None:
        self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _check_arguments(tool: str, arguments: Mapping[str, Any]) -> None:
    size = check_sendable(tool, arguments)
    if size > LARGEST_MESSAGE:
        most = format_size(LARGEST_MESSAGE)
        msg = f"The arguments of {tool} have {format_size(size)}, and at most {most} are sent."
        raise ToolError(msg)


def _usable(
    wires: list[dict[str, Any]], problems: list[str]
) -> tuple[dict[str, Tool], tuple[str, ...]]:
    tools: dict[str, Tool] = {}
    for wire in wires[:_MOST_TOOLS]:
        try:
            tool = _checked(wire)
        except ToolError as error:
            problems.append(_left_out(wire, str(error)))
            continue
        if tool.name in tools:
            problems.append(_left_out(wire, "there is another one of that name"))
        else:
            tools[tool.name] = tool
    if len(wires) > _MOST_TOOLS:
        problems.append(f"It lists more than {_MOST_TOOLS} tools; the others are left out.")
    return tools, tuple(problems)


def _checked(wire: dict[str, Any]) -> Tool:
    """
    Hold a tool against what is asked of it here.

    Raises:
        ToolError: it cannot be used.
    """
    tool = Tool.from_wire({**wire, "description": _short(wire.get("description"))})
    if len(tool.name) > _LONGEST_NAME or printable(tool.name) != tool.name or " " in tool.name:
        msg = f"its name has spaces or more than {_LONGEST_NAME} characters"
        raise ToolError(msg)
    properties = tool.input_schema.get("properties", {})
    required = tool.input_schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        msg = "inputSchema: properties is to be an object, required a list"
        raise ToolError(msg)
    if not all(isinstance(name, str) for name in required):
        msg = "inputSchema: required is to be a list of names"
        raise ToolError(msg)
    return tool


def _short(description: object) -> str:
    return str(description or "")[:_LONGEST_DESCRIPTION]


def _left_out(tool: object, complaint: str) -> str:
    name = tool.get("name") if isinstance(tool, dict) else None
    return f"The tool {_cut(str(name or 'without a name'))} is left out: {complaint}."


def _said(error: MCPError) -> str:
    """
    What a server's error says.

    Raises:
        ConnectionError: it is the SDK's own, that the server is gone.
    """
    if error.code == mcp_types.CONNECTION_CLOSED:
        msg = "it closed its standard output"
        raise ConnectionError(msg)
    return _cut(error.message)


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return _cut(f"{place}: {first['msg']}" if place else first["msg"])


def _cut(text: str) -> str:
    return printable(text)[:_LONGEST_COMPLAINT].strip()
