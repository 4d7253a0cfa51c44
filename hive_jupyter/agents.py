"""
What an agent may do with a hive.

An agent is a program that calls tools, and nothing that it says of itself is proven: the name is a
claim. So no tool here approves anything or shows a secret, and there must never be one; what each
agent may call is the user's choice (``HiveConfig.agent_tools``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hive_jupyter.config import HiveConfig, checked_worker
from hive_jupyter.delegation import END, BaseDelegation, ToolDelegation
from hive_jupyter.display.text import plain
from hive_jupyter.errors import ConfigError, HiveError, NodeError, RemoteError, ToolError
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.portal import apart
from hive_jupyter.toolbox import BUILT_IN, spelled_out
from hive_jupyter.tools import (
    LARGEST_RESULT,
    LONGEST_NAME,
    TOOL_TIMEOUT,
    Tool,
    ToolContent,
    ToolResult,
    within,
)
from hive_jupyter.units import as_seconds, nearest, printable

if TYPE_CHECKING:
    from hive_jupyter.commits import Commits
    from hive_jupyter.guard.requests import CallRequest
    from hive_jupyter.manager import HiveManager

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Takes what a tool says while it runs; who cannot show it is silent.
AsyncSink = Callable[[Message], Awaitable[None]]

_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
_LONGEST_NAME = 60
# Of a call or an error, to somebody who watches, in characters.
_SHOWN = 4000
# Stands in the user's choice of tools for all that are not named there.
_ALL_OTHERS = "*"
# Seconds between two looks at the ledger: another process's entry is no event.
_LOOK = 1.0


class Agent(Protocol):
    """What an MCP server, or whoever else serves an agent, calls for it."""

    async def tools(self) -> list[Tool]:
        """The tools that the agent may call."""

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, sink: AsyncSink | None = None
    ) -> ToolResult:
        """Call a tool; what goes wrong is a result, too. Cancelled, it interrupts the tool."""


class AgentSession:
    """
    One agent's way to the workers of a hive of this process. Lives on the portal's loop.

    Args:
        manager: of the hive.
        name: what the agent calls itself.
        worker: whose tools it gets; by default the configured one.
        timeout: seconds, or such as "5m", that a tool may take.

    Raises:
        ConfigError: the worker's name, the time or the user's choice of tools cannot be.
    """

    def __init__(
        self,
        manager: HiveManager,
        name: str,
        *,
        worker: str | None = None,
        timeout: float | str = TOOL_TIMEOUT,
    ) -> None:
        check_policies(manager.config, manager.is_server(worker))
        self.name = claimed(name)
        self.worker = checked_worker(manager.config.worker if worker is None else worker)
        self._manager = manager
        self._timeout = as_seconds(timeout)
        self._calls: set[asyncio.Task[ToolResult]] = set()
        self._own: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[ToolResult]]] = {
            "interrupt": self._interrupt,
            "restart": self._restart,
            "status": self._status,
            "request_commit": self._request_commit,
            "commit_status": self._commit_status,
        }

    async def tools(self) -> list[Tool]:
        """The tools that the agent may call; also those of a worker that cannot answer now."""
        known = self._manager.known_tools(self.worker)
        was_asked = known and known is not BUILT_IN
        offered = known if was_asked else await self._offered()
        tools = {**offered, **AGENT_TOOLS}
        return [tool for tool in tools.values() if self._policy(tool.name) != "deny"]

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, sink: AsyncSink | None = None
    ) -> ToolResult:
        """
        Call a tool.

        Args:
            name: of the tool.
            arguments: by name.
            sink: is awaited with each message that the tool says meanwhile; must not raise.

        Returns:
            What the tool answered; what went wrong is a result, too, with a text that helps.

        Raises:
            CancelledError: nobody waits any more; the tool is interrupted.
        """
        if len(name) > LONGEST_NAME:
            return ToolResult.failure(f'There is no tool "{name[:LONGEST_NAME]}...".')
        try:
            policy = self._policy(name)
            if policy == "deny":
                return ToolResult.failure(_denied(name))
            if name in self._own:
                arguments = _checked(name, arguments)
            if policy == "ask":
                arguments = await self._allowed(name, arguments, sink)
            if name in self._own:
                return await self._own[name](arguments)
            return await self._call_worker(name, arguments, sink)
        except HiveError as error:
            return ToolResult.failure(str(error))

    def _policy(self, name: str) -> str:
        """What the user says of a tool: "auto", "ask" or "deny"."""
        policies = self._manager.config.agent_tools
        return str(policies.get(name, policies.get(_ALL_OTHERS, "auto")))

    async def _allowed(
        self, name: str, arguments: Mapping[str, Any], sink: AsyncSink | None
    ) -> Mapping[str, Any]:
        """
        Ask the human whether a call may be made, and wait for the answer.

        Returns:
            The arguments that the human has seen.

        Raises:
            RequestDenied, RequestExpired: it may not.
            AuthorizationError: too many calls of agents wait already.
            LedgerError: the ledger cannot be read or written.
        """
        commits = await apart(lambda: self._manager.commits)
        asking = asyncio.create_task(
            apart(
                lambda: commits.request_call(name, arguments, worker=self.worker, agent=self.name)
            )
        )
        try:
            return await self._answered(name, asking, commits, sink)
        except asyncio.CancelledError:
            await asyncio.shield(_withdrawn(asking, commits))
            raise

    async def _answered(
        self, name: str, asking: asyncio.Task[CallRequest], commits: Commits, sink: AsyncSink | None
    ) -> Mapping[str, Any]:
        # who is cancelled has to know what the ledger holds by then
        asked = await asyncio.shield(asking)
        waiting = f"Waiting for the human: %hive approve {asked.id}"
        self._tell(f"asks whether it may call {name}: %hive approve {asked.id}")
        if sink is not None:
            await sink(Message("progress", {"text": waiting}))
        deadline = time.monotonic() + commits.guard.expiry
        while not await apart(lambda: commits.guard.is_allowed(asked.id)):
            if time.monotonic() > deadline:
                await apart(lambda: commits.withdraw(asked.id))
                break
            await asyncio.sleep(_LOOK)
        return asked.arguments

    async def _call_worker(
        self, name: str, arguments: Mapping[str, Any], sink: AsyncSink | None
    ) -> ToolResult:
        unknown = await self._if_unknown(name)
        if unknown is not None:
            return unknown
        delegation = self._manager.begin_tool(
            name,
            arguments,
            worker=self.worker,
            timeout=self._timeout,
            asker=self.name,
            kind=_AwaitedCall,
        )
        assert isinstance(delegation, _AwaitedCall)
        self._tell(f"calls in {self.worker}: {spelled_out(name, arguments)}")
        # a task of its own: also a call that nobody waits for any more has an end, and a history
        following = asyncio.create_task(self._followed(delegation, sink))
        self._calls.add(following)
        following.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(following)
        except asyncio.CancelledError:
            delegation.abandon()
            raise

    async def _followed(self, delegation: _AwaitedCall, sink: AsyncSink | None) -> ToolResult:
        """What a call has come to, once it is over."""
        async for message in delegation.messages():
            self._manager.overhear(message)
            if sink is not None:
                await sink(message)
        result = _with_news(_result(delegation), delegation.told)
        value = (result.structured_content or {}).get("value")
        if value is not None:
            text = plain(f"{value}\n")
            self._manager.overhear(Message("stream", {"name": "stdout", "text": text}))
        self._tell(f"got an error: {result.trouble}" if result.is_error else "got its answer")
        return result

    def _tell(self, happened: str) -> None:
        """Tell the user, if he watches."""
        # what follows on other lines must not look like the beginning of something else
        lines = "\n    ".join(map(printable, happened[:_SHOWN].splitlines()))
        text = f"[agent {self.name}] {lines}\n"
        self._manager.overhear(Message("stream", {"name": "stdout", "text": text}))

    async def _offered(self) -> Mapping[str, Tool]:
        """Ask the worker for its tools."""
        try:
            return {tool.name: tool for tool in await self._manager.nodes.tools(self.worker)}
        except ToolError:  # it runs another language, and code can be run in it
            return {"execute": BUILT_IN["execute"]}
        except NodeError as error:  # calls will say why
            log.info("worker %s cannot list its tools: %s", self.worker, error)
            return self._manager.known_tools(self.worker)

    async def _if_unknown(self, name: str) -> ToolResult | None:
        """What there is instead of a tool that nobody has; None where it exists."""
        if name in self._manager.known_tools(self.worker):
            return None
        names = {**await self._offered(), **AGENT_TOOLS}
        if name in names:
            return None
        problems = " ".join(["", *self._manager.tool_problems(self.worker)])
        return ToolResult.failure(f'There is no tool "{name}".{nearest(name, names)}{problems}')

    async def _interrupt(self, _arguments: Mapping[str, Any]) -> ToolResult:
        stopped = await self._manager.nodes.interrupt(self.worker)
        said = "was interrupted; its variables are still there" if stopped else "runs nothing"
        return ToolResult.of(f'Worker "{self.worker}" {said}.')

    async def _restart(self, _arguments: Mapping[str, Any]) -> ToolResult:
        self._manager.checked(None, starts=True)
        status = await self._manager.nodes.restart(self.worker)
        return ToolResult.of(
            f'Worker "{self.worker}" is {status.state}: a fresh process, without any variables.'
        )

    async def _status(self, _arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult.of(dict(await self._manager.status_of_workers()))

    async def _request_commit(self, arguments: Mapping[str, Any]) -> ToolResult:
        answer = await apart(lambda: self._manager.commits.serve_request(arguments, self.name))
        request = (answer.structured_content or {}).get("request")
        self._tell(f"asks for a commit: %hive approve {request}")
        return answer

    async def _commit_status(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await apart(lambda: self._manager.commits.serve_status(arguments["request"]))


async def _withdrawn(asking: asyncio.Task[CallRequest], commits: Commits) -> None:
    """Ask the human no more; nobody is there to be told that the call may not be made."""
    with contextlib.suppress(HiveError):
        asked = await asking
        await apart(lambda: commits.withdraw(asked.id))


AGENT_TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "interrupt",
            "Stop what the worker runs now, as Ctrl-C does; the worker keeps its variables.",
            _NOTHING,
            idempotent=True,
        ),
        Tool(
            "restart",
            "End the worker, with what it runs and all its variables, and start a fresh one.",
            _NOTHING,
            idempotent=True,
        ),
        Tool(
            "status",
            "How the workers are: what state each is in, its runs, failures and memory.",
            _NOTHING,
            read_only=True,
        ),
        Tool(
            "commit_status",
            "What became of a commit that was asked for with request_commit: pending, approved, "
            "denied, expired, superseded, void, or committed, with its hash.",
            {
                "type": "object",
                "properties": {
                    "request": {"type": "string", "description": "What request_commit answered."}
                },
                "required": ["request"],
                "additionalProperties": False,
            },
            read_only=True,
        ),
        BUILT_IN["request_commit"],
    )
}


def check_policies(config: HiveConfig, is_server: bool) -> None:
    """
    See that the tools exist of which the user says what agents may do with them.

    A mistyped name would leave open what was to be shut. Where the user has tools of his own, or
    the worker is an MCP server, other names may exist.

    Raises:
        ConfigError: there is no such tool.
    """
    known = {*BUILT_IN, *AGENT_TOOLS, _ALL_OTHERS}
    if config.tool_modules or is_server:
        return
    for name in config.agent_tools:
        if name not in known:
            msg = f'The setting agent_tools speaks of a tool "{name}".{nearest(name, known)}'
            raise ConfigError(msg)


def _checked(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a tool of the host's, whose texts git and the ledger can hold."""
    checked = AGENT_TOOLS[name].check(arguments)
    for key, value in checked.items():
        # in a path, bytes that are no UTF-8 are surrogates
        errors = "surrogateescape" if key == "paths" else "strict"
        if not all(_is_whole(text, errors) for text in (value if key == "paths" else [value])):
            msg = (
                f"{name}: {key} holds a NUL or half a character (a lone surrogate), which no file "
                "can. Read what it came from with the right encoding."
            )
            raise ToolError(msg)
    return checked


def _is_whole(text: str, errors: str) -> bool:
    try:
        return b"\0" not in text.encode(errors=errors)
    except UnicodeEncodeError:
        return False


def _denied(name: str) -> str:
    return (
        f"The user does not let agents call {name} (HiveConfig.agent_tools). Do without it, or ask "
        "the user."
    )


def claimed(name: str) -> str:
    """What an agent calls itself, on one line that is not too long."""
    return printable(name).strip()[:_LONGEST_NAME] or "an agent"


class Awaited(BaseDelegation[_T]):
    """
    A run whose messages are awaited on the portal's loop instead of taken on another thread.

    Less of them may wait: there may be many clients.
    """

    most_waiting = 8 * 2**20
    few_waiting = 2 * 2**20

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._news = asyncio.Event()

    def follow(self, future: Future[Any]) -> None:
        super().follow(future)
        future.add_done_callback(lambda _: self._news.set())

    def say(self, message: Message) -> None:
        super().say(message)
        self._news.set()

    async def messages(self) -> AsyncIterator[Message]:
        """What the worker says, live and in order, until the run is over."""
        while (message := await self._awaited()) is not END:
            yield message
            self._took(message)
        # for ``outcome``
        self._messages.put(END)

    async def _awaited(self) -> Message:
        while self._messages.empty():
            self._news.clear()
            await self._news.wait()
        return self._messages.get_nowait()


class _AwaitedCall(Awaited[ToolResult], ToolDelegation):
    """A call of a tool, awaited."""


def _with_news(result: ToolResult, told: str) -> ToolResult:
    """The result of a call, and what Hive had to say meanwhile; in that of code it is already."""
    if not told or any(told in block.text for block in result.content):
        return result
    content = (ToolContent("text", told), *result.content)
    return within(replace(result, content=content), LARGEST_RESULT)


def _result(delegation: _AwaitedCall) -> ToolResult:
    """What a call that is over has come to."""
    try:
        outcome = delegation.outcome()
    except RemoteError as error:
        return ToolResult.failure(f"{error.ename}: it was interrupted.")
    except HiveError as error:
        return ToolResult.failure(str(error))
    if isinstance(outcome, Instructions):
        return ToolResult.failure(f"No worker did this. {outcome.reason}")
    return outcome
