"""
The hive offered to agents, as a server of the Model Context Protocol.

::

    agent's client ── stdin, stdout, or HTTP ──▶ Server of the MCP SDK ──▶ Agent ──▶ a hive's worker

Whatever the SDK speaks is spoken, the versions with a handshake (2024-11-05 to 2025-11-25) and
those without (2026-07-28): https://modelcontextprotocol.io/specification. Arguments are held
against the tool's schema here, before anybody is asked; what goes wrong is a result that an agent
can read. jsonschema is imported for schemas that are not Hive's own: where its extra "format" is
installed, as with jupyter_server, that takes more than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

import anyio
import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from hive_jupyter import __version__
from hive_jupyter.agents import AGENT_TOOLS, Agent, AsyncSink
from hive_jupyter.errors import ConfigError, HiveError, ToolError
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.portal import apart
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import Tool, ToolResult

log = logging.getLogger(__name__)

PATH = "/mcp"
HOST = "127.0.0.1"
# Bytes of a request: as much as the door of a running hive takes.
LONGEST_REQUEST = 16 * 2**20

_PIECE = 2**16
# Whoever opens more is told to come back later.
_MOST_CONNECTIONS = 200
# Seconds that open connections get at the end.
_LAST_MOMENT = 1
_UNKNOWN, _TOO_LARGE = 401, 413
_CLOSE = (b"connection", b"close")
# Key in an ASGI scope: an event that comes when the client has hung up.
_GONE = "hive_jupyter.gone"
_LONGEST_SENTENCE = 500
# Keywords that a check of arguments looks at; a schema can have itself be gone through for ever.
_MOST_STEPS = 10_000
_UNBOUNDED = (
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


# What is offered


class AgentServer:
    """
    The SDK's server over an agent's tools.

    Args:
        agent_named: gives the way to the workers for an agent that calls itself so.
        instructions: for the agents.

    Attributes:
        server: the SDK's, to be run over a transport.
    """

    def __init__(self, agent_named: Callable[[str], Agent], instructions: str) -> None:
        self._agent_named = agent_named
        self._tools: Mapping[str, Tool] = {}
        self.server: Server[Any] = Server(
            "hive-jupyter",
            title="Hive for Jupyter",
            version=__version__,
            instructions=instructions,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_resource_templates,
            on_read_resource=self._read_resource,
        )

    async def _list_tools(
        self, context: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        try:
            tools = await self._known(self._agent(context))
        except HiveError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from error
        return types.ListToolsResult(
            tools=[types.Tool.model_validate(_sendable(tool.to_wire())) for tool in tools.values()]
        )

    async def _call_tool(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        agent = self._agent(context)
        arguments = params.arguments or {}
        try:
            await self._check(agent, params.name, arguments)
        except HiveError as error:
            return as_mcp(ToolResult.failure(str(error)))
        # of a tool that nobody knows, the agent's way says which is the nearest
        work = agent.call(params.name, arguments, sink=_progress(context))
        return as_mcp(await _unless_gone(context, work))

    async def _check(self, agent: Agent, name: str, arguments: Mapping[str, Any]) -> None:
        """Hold arguments against a tool's schema; one that has changed is asked for again."""
        tool = self._tools.get(name)
        if tool is not None:
            with contextlib.suppress(ToolError):
                await apart(lambda: check(tool, arguments))
                return
        known = (await self._known(agent)).get(name)
        if known is not None:
            await apart(lambda: check(known, arguments))

    async def _known(self, agent: Agent) -> Mapping[str, Tool]:
        """Ask for the tools; one whose schema is none would cost a client the whole list."""
        tools = {}
        for tool in await agent.tools():
            trouble = await apart(lambda: trouble_with_schema(tool))  # noqa: B023
            if trouble:
                log.warning("The tool %s is left out, its schema is none: %s", tool.name, trouble)
            else:
                tools[tool.name] = tool
        self._tools = tools
        return tools

    def _agent(self, context: ServerRequestContext[Any]) -> Agent:
        client = context.session.client_params
        return self._agent_named(client.client_info.name if client is not None else "")

    # There are none of these, and clients that ask are told so.

    async def _list_prompts(self, *_: object) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[])

    async def _get_prompt(
        self, _context: ServerRequestContext[Any], params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        raise MCPError(types.INVALID_PARAMS, f'There is no prompt "{params.name}".')

    async def _list_resources(self, *_: object) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[])

    async def _list_resource_templates(self, *_: object) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=[])

    async def _read_resource(
        self, _context: ServerRequestContext[Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        raise MCPError(types.INVALID_PARAMS, f"There is no resource {uri}.", {"uri": uri})


def _is_hives(tool: Tool) -> bool:
    """Whether its schema is one of Hive's own, of which ``Tool.check`` knows all."""
    own = BUILT_IN.get(tool.name) or AGENT_TOOLS.get(tool.name)
    return own is not None and own.input_schema == tool.input_schema


def trouble_with_schema(tool: Tool) -> str:
    """What is wrong with a tool's schema, or ""."""
    if _is_hives(tool):
        return ""
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
    except jsonschema.SchemaError as error:
        return str(error.message)[:_LONGEST_SENTENCE]
    except RecursionError:
        return "it is too deep"
    return ""


def check(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """
    Hold arguments against a tool's schema.

    Raises:
        ToolError: they do not fit; says which, and what is expected.
    """
    if _is_hives(tool):
        tool.check(arguments)
        return
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # a worker's own schema: its references lead anywhere
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, _keywords())
    try:
        errors = kind(_of_one_draft(tool.input_schema), registry=Registry()).iter_errors(arguments)
        wrong = jsonschema.exceptions.best_match(errors)
    except (Unresolvable, RecursionError, _TooMuch) as error:
        # the tool itself may know better
        log.warning("The schema of %s cannot be used: %s", tool.name, error)
        return
    if wrong is not None:
        # which says it in more words, of schemas as Hive makes them
        tool.check(arguments)
        place = ".".join(map(str, wrong.absolute_path))
        msg = f"{tool.name}: {f'{place}: ' if place else ''}{wrong.message[:_LONGEST_SENTENCE]}."
        raise ToolError(msg)


class _TooMuch(Exception):
    """To hold arguments against a schema takes too long."""


def _keywords() -> dict[str, Callable[..., Any]]:
    """JSON Schema's keywords for one check of bounded length; without those that have no bound."""
    import jsonschema

    left = iter(range(_MOST_STEPS))

    def counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any) -> Any:
            if next(left, None) is None:
                msg = f"it takes more than {_MOST_STEPS} steps"
                raise _TooMuch(msg)
            return keyword(*given)

        return step

    known = jsonschema.Draft202012Validator.VALIDATORS
    further = known["additionalProperties"]

    def unless_by_pattern(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        # which properties are further ones, the patterns say
        return () if "patternProperties" in schema else further(validator, value, instance, schema)

    chosen = {**known, "additionalProperties": unless_by_pattern}
    keywords = {name: counted(keyword) for name, keyword in chosen.items()}
    return {**keywords, **dict.fromkeys(_UNBOUNDED, lambda *_: None)}


def _of_one_draft(schema: Any) -> Any:
    """A schema without ``$schema``, which would bring back the keywords as others have them."""
    if isinstance(schema, Mapping):
        return {
            name: _of_one_draft(value)
            for name, value in schema.items()
            if not (name == "$schema" and isinstance(value, str))
        }
    return [_of_one_draft(entry) for entry in schema] if isinstance(schema, list) else schema


def as_mcp(result: ToolResult) -> types.CallToolResult:
    """A tool's result in the SDK's types."""
    return types.CallToolResult.model_validate(_sendable(result.to_wire()))


def _sendable(value: Any) -> Any:
    """
    A value as JSON brings it to the other side.

    Half a character, which no UTF-8 can hold, becomes a question mark, and what is no number null.
    """
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    return json.loads(text, parse_constant=lambda _: None)


async def _unless_gone(
    context: ServerRequestContext[Any], work: Awaitable[ToolResult]
) -> ToolResult:
    """Await it, as long as the HTTP client that asked is there; the SDK does not look for that."""
    gone = context.request.scope.get(_GONE) if context.request is not None else None
    if gone is None:
        return await work
    calling, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait((calling, leaving), return_when=asyncio.FIRST_COMPLETED)
        return calling.result() if calling.done() else ToolResult.failure("The client has gone.")
    finally:
        calling.cancel()
        leaving.cancel()


def _progress(context: ServerRequestContext[Any]) -> AsyncSink:
    """Tells the client how far a tool is, where it wants to know."""
    progress = Progress()

    async def tell(message: Message) -> None:
        step = progress.step(message)
        if step is not None:
            await context.session.report_progress(*step)

    return tell


class Progress:
    """Makes of a tool's messages what MCP calls progress: numbers, each larger than the last."""

    # What a word without a number adds.
    _STEP = 0.001

    def __init__(self) -> None:
        self._last = 0.0

    def step(self, message: Message) -> tuple[float, float | None, str] | None:
        """How far the tool is, of how much, and what it does; None where that is no news."""
        if message.type != "progress" or not message.content["text"]:
            return None
        done, total = message.content.get("progress"), message.content.get("total")
        if done is None:
            done, total = self._last + self._STEP, None
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            done, total = float(done), None if total is None else float(total)
            if math.isfinite(done) and done > self._last and math.isfinite(total or 0):
                self._last = done
                return done, total, _sendable(str(message.content["text"]))
        return None


# Standard input and output


async def over_stdio(server: Server[Any], wire: tuple[int, int]) -> None:
    """
    Serve one client until it closes its end.

    The SDK's own transport reads on a thread that cannot be ended, and lines of any length.

    Args:
        server: of the SDK.
        wire: descriptors of pipes, to read from and to write to.
    """
    requests, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, answers = anyio.create_memory_object_stream[SessionMessage](0)
    async with _opened(*wire) as (lines, writer):

        async def read() -> None:
            async with requests:
                async for line in lines:
                    try:
                        await requests.send(_message(line))
                    except MCPError as error:
                        _write(writer, _refusal(error))
                        await writer.drain()

        async def write() -> None:
            async with answers:
                async for answer in answers:
                    _write(writer, answer.message)
                    await writer.drain()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                group.start_soon(write)
                await server.run(incoming, outgoing, server.create_initialization_options())
                # who has closed one end may not read the other any more
                group.cancel_scope.deadline = anyio.current_time() + _LAST_MOMENT
        except* (BrokenPipeError, ConnectionResetError):
            log.info("the client has gone")


def _message(line: bytes) -> SessionMessage:
    """
    Read a line.

    Raises:
        MCPError: it is no message of JSON-RPC; its data is the id, if there is one.
    """
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError:
        pass
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        text = "The line is no JSON." if line else f"No more than {LONGEST_REQUEST} bytes a line."
        raise MCPError(types.PARSE_ERROR, text) from None
    identity = value.get("id") if isinstance(value, dict) else None
    raise MCPError(types.INVALID_REQUEST, "The line is no message of JSON-RPC 2.0.", identity)


def _refusal(error: MCPError) -> types.JSONRPCError:
    identity = error.data if isinstance(error.data, int | str) else None
    return types.JSONRPCError(
        jsonrpc="2.0", id=identity, error=types.ErrorData(code=error.code, message=error.message)
    )


def _write(writer: asyncio.StreamWriter, message: types.JSONRPCMessage) -> None:
    writer.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")


@contextlib.asynccontextmanager
async def _opened(
    source: int, target: int
) -> AsyncIterator[tuple[AsyncIterator[bytes], asyncio.StreamWriter]]:
    """Open two descriptors for this loop: lines to be read, and a writer that can be waited for."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transports: list[asyncio.BaseTransport] = []
    try:
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0, closefd=False)
        )
        transports.append(reading)
        writing, _ = await loop.connect_write_pipe(
            lambda: protocol, os.fdopen(target, "wb", 0, closefd=False)
        )
        transports.append(writing)
        writer = asyncio.StreamWriter(writing, protocol, None, loop)
        yield _lines(reader), writer
    finally:
        for transport in transports:
            transport.close()
        for descriptor in (source, target):
            # whoever shares it does not expect otherwise
            os.set_blocking(descriptor, True)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines; one that is too long is empty, and not kept."""
    begun = bytearray()
    too_long = False
    while piece := await reader.read(_PIECE):
        *ended, rest = piece.split(b"\n")
        for end in ended:
            begun += end
            if too_long or begun.strip():
                yield b"" if too_long else bytes(begun)
            begun.clear()
            too_long = False
        begun += rest
        if len(begun) > LONGEST_REQUEST:
            begun.clear()
            too_long = True


# HTTP


def listen(port: int) -> socket.socket:
    """
    Open a port of this machine alone.

    Raises:
        ConfigError: somebody else has it, or this user may not.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        msg = f"Port {port} cannot be opened: {reason}. Choose another one; 0 takes any."
        raise ConfigError(msg) from None


def guarded(server: Server[Any], token: str) -> App:
    """
    The SDK's server as an ASGI application that asks for a token.

    Args:
        server: of the SDK.
        token: that each request has to bring.
    """
    app = server.streamable_http_app(
        streamable_http_path=PATH, host=HOST, max_request_body_size=LONGEST_REQUEST
    )
    return _Guarded(cast("App", app), token)


async def over_http(app: App, listener: socket.socket) -> None:
    """
    Serve over HTTP until cancelled.

    Args:
        app: from ``guarded``.
        listener: from ``listen``.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_LAST_MOMENT,
    )
    http = _Http(config)
    serving = asyncio.create_task(http.serve([listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        http.should_exit = True
        await serving
        raise


class _Http(uvicorn.Server):
    """uvicorn, which leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Not here."""
        yield


class _Guarded:
    """Lets in who knows the token, and notes when a client hangs up."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not self._is_known(scope):
            await _refuse(receive, send)
            return
        gone = asyncio.Event()

        async def noting() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.disconnect":
                gone.set()
            return message

        async def closing(message: MutableMapping[str, Any]) -> None:
            if message.get("status") == _TOO_LARGE:
                # the rest of the request is not waited for
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        await self._app({**scope, _GONE: gone}, noting, closing)

    def _is_known(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"


async def _refuse(receive: Receive, send: Send) -> None:
    # a client that is still sending when the connection is closed does not see the answer
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_MOMENT):
            while size < _PIECE and (message := await receive()).get("more_body"):
                size += len(message["body"])
    text = b"Send the token that `jupyter hive mcp` was started with: Authorization: Bearer ...\n"
    headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer"), _CLOSE]
    await send({"type": "http.response.start", "status": _UNKNOWN, "headers": headers})
    await send({"type": "http.response.body", "body": text})
