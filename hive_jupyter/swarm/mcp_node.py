"""
McpNode: the host's handle on a worker that is an MCP server of somebody else's.

::

    McpNode ── McpSession ── pipes ─────────────┐
       └────── WorkerProcess ── supervisor ── server ── whatever it starts

The same face as ``SwarmNode``, without code to run: a server has tools and nothing else. It serves
many calls at once, so that nobody waits for a turn.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hive_jupyter.config import HiveConfig, checked_worker
from hive_jupyter.errors import (
    NodeDied,
    NodeStartError,
    NodeTimeout,
    ToolError,
    remote_error,
)
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import SERVER
from hive_jupyter.swarm.death import STARTED_AGAIN, Exit, explain_server
from hive_jupyter.swarm.forkserver import make_server
from hive_jupyter.swarm.kernels import checked_command, find_program
from hive_jupyter.swarm.launch import Kernel, Launch, changed, first_policy
from hive_jupyter.swarm.life import Life, NodeStatus
from hive_jupyter.swarm.messages import Message, Sink, ignore, progress
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import (
    LOG_SHOWN,
    WorkerProcess,
    answers_within,
    first_of,
    note_failure,
)
from hive_jupyter.swarm.run import Request, Run, or_stopped
from hive_jupyter.swarm.runtime import RuntimeFolder
from hive_jupyter.tools import TOOL_TIMEOUT, Tool, ToolResult
from hive_jupyter.units import format_duration, nearest, printable

if TYPE_CHECKING:
    from hive_jupyter.swarm.mcp_session import McpSession

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Programs that fetch a server before they run it, and how long that may take, in seconds.
_FETCHERS = ("bunx", "deno", "docker", "npm", "npx", "pipx", "pnpm", "podman", "uv", "uvx", "yarn")
FETCH_PATIENCE = 120.0
# How far a tool is, is told so often, in seconds.
_PROGRESS_INTERVAL = 0.1
# How long a server may take to prove that it lives, for its health or after a call that is late.
_HEALTH_PATIENCE = 1.0
# How long the rest of what a dead server wrote may take to be read.
_LAST_ANSWER_PATIENCE = 1.0
# A process that got SIGKILL and is not gone after this long hangs in the kernel (a dead NFS, say).
_DEATH_PATIENCE = 5.0
# How often a tool is tried again that changes nothing, or nothing more.
_RETRIES = 2
_LAST_WORDS = 300


class McpNode:
    """
    One MCP server: its life, its tools, its metrics, its circuit breaker.

    Belongs to the loop on which it is first awaited; awaiting it on another one raises.

    Args:
        name: of the worker.
        config: the settings.
        command: the server's program and its arguments.
        runtime: where its private folder goes.
        environment: variables that it gets besides those that every worker gets.

    Raises:
        ConfigError: a worker cannot be called so, or the command cannot be one.

    Attributes:
        tools: what the server offers, as it said last.
        tool_problems: why some of its tools are left out.
    """

    def __init__(
        self,
        name: str,
        *,
        config: HiveConfig,
        command: Sequence[str],
        runtime: RuntimeFolder,
        environment: Mapping[str, str] | None = None,
        died: Callable[[NodeDied | NodeTimeout], object] = id,
    ) -> None:
        self.name = checked_worker(name)
        self.config = config
        self.kernel = Kernel(
            interpreter="",
            argv=checked_command(command),
            environment=environment,
            language="",
            description="MCP server",
            protocol="mcp",
        )
        self.policy = first_policy(self.kernel, config)
        self.tools: Mapping[str, Tool] = {}
        self.tool_problems: tuple[str, ...] = ()
        self._life = Life(self.name, config, STARTED_AGAIN, died)
        self.metrics = self._life.metrics
        self.breaker = self._life.breaker
        self._processes = make_server(config, sys.executable, runtime)
        self._process: WorkerProcess | None = None
        self._session: McpSession | None = None
        self._runs: set[Run] = set()
        self._silenced: set[Run] = set()
        self._buried: WorkerProcess | None = None
        self._last_log = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<McpNode {self.name!r} {self._state()}>"

    @property
    def last_error(self) -> Exception | None:
        """Why the latest connect or call failed, or None."""
        return self._life.last_error

    @property
    def is_connected(self) -> bool:
        """Whether the server lives, has answered, and keeps to the protocol."""
        session, process = self._session, self._process
        return bool(session and session.is_open and process and process.alive)

    async def connect(self) -> bool:
        """
        Have a server that answers, starting it where there is none.

        Idempotent: fifty callers at once start one server.

        Returns:
            True, or False where it could not be had within ``connect_timeout``, or within
            FETCH_PATIENCE where that is longer and its program may have to fetch it first;
            ``last_error`` says why, with the tail of the server's log.
        """
        self._life.belong_here()
        return await self._life.reached(self._ensure_ready())

    async def execute(self, run: Run) -> Message:
        """
        Refuse: a server runs no code.

        Raises:
            ToolError: always.
        """
        msg = (
            f'Worker "{self.name}" is an MCP server: it has tools, and runs no {run.noun} of code. '
            f"`%delegate -w {self.name} TOOL ...` calls one; `%hive tools -w {self.name}` lists "
            "them."
        )
        raise ToolError(msg)

    async def list_tools(self) -> list[dict[str, Any]]:
        """
        The server's tools, in the shape of MCP's ``tools/list``.

        Those that it describes wrongly are left out; ``tool_problems`` says why.

        Raises:
            ToolError: it answers with something else.
            NodeTimeout, NodeDied, NodeStartError, CircuitOpen: as ``call_tool``.
        """
        request = Request("list_tools_request", {}, self.config.connect_timeout)
        self.tools, self.tool_problems = await self._ask(request, _listing)
        return [tool.to_wire() for tool in self.tools.values()]

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = TOOL_TIMEOUT,
        *,
        sink: Sink = ignore,
        began: Callable[[Run], object] = id,
    ) -> ToolResult:
        """
        Call one of the server's tools.

        A tool that says it is read-only or idempotent is tried again, twice at most, where its
        server died.

        Args:
            name: of the tool.
            arguments: by name.
            timeout: seconds it may take; the start of the server does not count.
            sink: is called with how far it is; must not block.
            began: is called with each attempt that this takes, which can be stopped.

        Returns:
            What it answered, cut where it is too large; ``is_error`` where it failed or was called
            wrongly.

        Raises:
            ToolError: the arguments cannot be sent.
            RemoteError: it was interrupted; named KeyboardInterrupt.
            NodeTimeout: it did not answer in time, and was told to give up.
            NodeDied: the server ended.
            NodeStartError, CircuitOpen: there is no server.
        """
        given = dict(arguments or {})
        deadline = time.monotonic() + timeout
        for attempt in itertools.count():
            run = Request("call_tool_request", {"name": name, "arguments": given}, timeout, sink)
            run.waited = timeout - (deadline - time.monotonic()) if attempt else 0.0
            began(run)
            try:
                return await self._call(run, name, given)
            except NodeDied as death:
                tool = self.tools.get(name)
                again = attempt < _RETRIES and run.lost_its_worker
                if not (again and tool is not None and tool.is_repeatable):
                    raise
                sink(Message("progress", {"text": f"{death} Trying {name} again ..."}))
        raise AssertionError  # pragma: no cover

    async def health_check(self) -> str:
        """
        Ask the server how it is.

        Returns:
            "cold", "dead", "idle", "busy", "stopped" (SIGSTOP) or "unresponsive".
        """
        self._life.belong_here()
        session, process = self._session, self._process
        if session is None or process is None:
            return "cold" if process is None else "dead"
        if process.has_ended:
            return "dead"
        if process.is_stopped:
            return "stopped"
        if not await answers_within(session.ping(), _HEALTH_PATIENCE):
            return "unresponsive" if process.alive else "dead"
        return "busy" if self._runs else "idle"

    async def interrupt(self) -> bool:
        """Give up all calls that run now, and tell the server; False where none runs."""
        self._life.belong_here()
        for run in self._runs:
            run.stop()
        return bool(self._runs)

    def pause_output(self, run: Run) -> None:
        """Leave out how far this call is, since that does not get away."""
        self._silenced.add(run)

    def resume_output(self, run: Run) -> None:
        """Tell again how far it is."""
        self._silenced.discard(run)

    async def stop(self, reason: str = "stop") -> None:
        """
        End the server and everything that it started; the next call starts it again.

        It is asked first, by the end of its stdin and then by SIGTERM, each with half of
        ``interrupt_grace``.
        """
        self._life.belong_here()
        await self._life.give_up_start()
        process, session = self._process, self._session
        if process is not None:
            self._session = None
            if session is not None:
                await self._see_off(process, session, reason)
            await self._end(process, session, reason)
            # a call may have started it again meanwhile
            if process is self._process:
                self._process = None
        self.breaker.withdraw()
        if process is not None:
            await process.remove_folder()

    async def close(self) -> None:
        """End the server, for good."""
        self._life.belong_here()
        self._life.is_closed = True
        await self.stop()

    def changed_policy(self, memory: int | None, sandbox: str | None) -> SandboxPolicy:
        """
        The policy with another memory (bytes, 0 for no limit), where one is given.

        Raises:
            SandboxUnavailable: a profile is given that confines; a server has the user's rights.
        """
        return changed(self.policy, self.kernel, memory, sandbox)

    def log(self, lines: int) -> str:
        """The last lines that the server wrote to its stderr, and what it should not have said."""
        text, note = "", ""
        if self._process is not None:
            text = self._process.log_tail(LOG_SHOWN)
        if not text and self._last_log:
            text, note = self._last_log, "\n(logged by the server before this one)"
        noise = list(self._session.noise) if self._session is not None else []
        if noise:
            text = "\n".join([text, "(on its stdout, where only MCP belongs:)", *noise]).strip()
        return "\n".join(text.splitlines()[-lines:]) + note

    def status(self) -> NodeStatus:
        """A snapshot for people and programs."""
        process = self._process if self.is_connected else None
        return self._life.status(
            self._state(), self.kernel, self.policy, process, running=self._runs
        )

    # Starting

    async def _ensure_ready(self) -> None:
        self._life.require_open()
        if self.is_connected:
            return
        if not self._life.is_starting:
            # the caller can mend what is wrong with this, so that does not count
            self._life.begin(self._start, self._snapshot())
        await self._life.started()

    async def _start(self, launch: Launch) -> None:
        old = self._process
        if old is not None:
            session, self._session = self._session, None
            self._last_log = old.log_tail(LOG_SHOWN)
            await self._end(old, session, "hung")
            await old.remove_folder()
            self._process = None
        try:
            async with asyncio.timeout(self._patience):
                await self._spawn_and_greet(launch)
        except asyncio.CancelledError:
            await self._abandon()
            self.breaker.withdraw()
            raise
        except Exception as error:
            if self._session is not None and self._session.is_over:
                # it is about to say how it ended
                assert self._process is not None
                await _ends_within(self._process, _LAST_ANSWER_PATIENCE)
            # its log and its exit are whole only once it is gone
            await self._abandon()
            failure = self._start_error(error)
            self._life.fail(failure)
            raise failure from error
        assert self._process is not None
        self._life.note_start(self._process.gone)

    async def _spawn_and_greet(self, launch: Launch) -> None:
        process = self._process = await self._processes.spawn(launch, self.name)
        session = self._session = (await _session_class())(*process.take_pipes())
        await session.open()
        about = session.server or Path(launch.argv[0]).name
        self.kernel = replace(self.kernel, description=f"MCP server {about}")
        process.exited.add_done_callback(lambda _: self._server_ended(process))

    @property
    def _patience(self) -> float:
        """Seconds that a start may take."""
        patience: float = self.config.connect_timeout
        return max(patience, FETCH_PATIENCE) if self._fetches else patience

    @property
    def _fetches(self) -> bool:
        return Path(self.kernel.argv[0]).name in _FETCHERS

    def _start_error(self, error: Exception) -> NodeStartError:
        process, session = self._process, self._session
        tail = process.log_tail() if process is not None else ""
        end = process.end if process is not None else Exit()
        advice = ""
        if isinstance(error, ImportError):
            reason = f"MCP servers need the package mcp ({error})"
            advice = f" Install it: {sys.executable} -m pip install 'hive-jupyter[mcp]'"
        elif isinstance(error, TimeoutError):
            fetching = " (which may have to fetch the server first)" if self._fetches else ""
            reason = (
                f"{self.kernel.argv[0]}{fetching} did not answer within "
                f"{format_duration(self._patience)}"
            )
            advice = " HiveConfig.connect_timeout gives it more."
        elif end.by_us is None and (end.code is not None or end.signal is not None):
            how = f"code {end.code}" if end.code is not None else f"signal {end.signal}"
            reason = f"its process ended while it started (exit {how})"
        else:
            reason = str(error) or type(error).__name__
        said = f" It said last: {_last_line(tail)}" if tail else ""
        if session is not None and session.noise:
            advice = f" On its stdout was no MCP: {session.noise[-1]}{advice}"
        return NodeStartError(
            f'Worker "{self.name}" could not be started: {reason}.{said}{advice}',
            node=self.name,
            exit_code=end.code,
            log_tail=tail,
        )

    async def _abandon(self) -> None:
        """Leave nothing of a start that failed; its log stays until the next one."""
        if self._process is not None:
            await self._end(self._process, self._session, "stop")

    def _snapshot(self) -> Launch:
        """What the server takes over from the host, now."""
        launch = replace(self._life.snapshot(self.kernel, self.policy), role=SERVER)
        program, *arguments = launch.argv
        path = find_program(program, dict(launch.environment))
        if path is None:
            msg = (
                f'Worker "{self.name}" could not be started: there is no program "{program}" on '
                "the PATH. Install it, or give its path."
            )
            raise NodeStartError(msg, node=self.name)
        return replace(launch, argv=(path, *arguments))

    # Calling

    async def _call(self, run: Request, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        reports = _Reports(run, name, self._silenced)

        async def call(session: McpSession) -> ToolResult:
            if name not in self.tools:
                self.tools, self.tool_problems = await session.list_tools()
            if name not in self.tools:
                return ToolResult.failure(self._no_tool(name))
            return await session.call_tool(name, arguments, reports.report)

        try:
            return await self._ask(run, call)
        finally:
            reports.end()

    def _no_tool(self, name: str) -> str:
        problems = " ".join(["", *self.tool_problems])
        return f'Worker "{self.name}" has no tool "{name}".{nearest(name, self.tools)}{problems}'

    async def _ask(self, run: Request, work: Callable[[McpSession], Coroutine[Any, Any, _T]]) -> _T:
        self._life.belong_here()
        self._runs.add(run)
        run.since = time.monotonic()
        try:
            with self._life.asked():
                await self._have_ready(run)
                return await self._ask_now(run, work)
        finally:
            self._runs.discard(run)
            self._silenced.discard(run)

    async def _have_ready(self, run: Request) -> None:
        with self._life.telling(run):
            await or_stopped(run, self._ensure_ready())
        if run.stops:
            raise remote_error("KeyboardInterrupt", "", [])

    async def _ask_now(
        self, run: Request, work: Callable[[McpSession], Coroutine[Any, Any, _T]]
    ) -> _T:
        session, process = self._session, self._process
        if session is None or process is None:
            msg = f'Worker "{self.name}" was stopped before this call began.'
            raise NodeStartError(msg, node=self.name)
        assert run.timeout is not None
        began = time.monotonic()
        asking = asyncio.create_task(work(session))
        asking.add_done_callback(note_failure)
        try:
            async with asyncio.timeout(max(0.0, run.timeout - run.waited)):
                await first_of(asking, process.exited, run.stopping)
            if not asking.done() and not run.stops:
                # what it answered last may still be on its way
                await asyncio.wait({asking}, timeout=_LAST_ANSWER_PATIENCE)
        except TimeoutError:
            asking.cancel()
            raise await self._late(run, session, process) from None
        finally:
            # the SDK tells the server
            asking.cancel()
        if not asking.done() or asking.cancelled():
            if run.stops:
                raise remote_error("KeyboardInterrupt", "", [])
            raise await self._death(run, process)
        try:
            result = asking.result()
        except ConnectionError:
            raise await self._death(run, process) from None
        self._life.succeed(time.monotonic() - began)
        return result

    async def _late(self, run: Request, session: McpSession, process: WorkerProcess) -> NodeTimeout:
        """A call has had its time; its server is proven alive, by an answer, or is ended."""
        assert run.timeout is not None
        time_had = f"within {format_duration(run.timeout)}"
        others = self._runs - {run}
        if others or await answers_within(session.ping(), _HEALTH_PATIENCE):
            msg = (
                f'Worker "{self.name}" did not answer {time_had}, the time this call had, and was '
                "told to give it up. It lives on. --timeout gives more."
            )
            return NodeTimeout(msg, node=self.name, seconds=run.timeout)
        if process is self._process:
            self._session = None
        await self._end(process, session, "hung")
        msg = (
            f'Worker "{self.name}" did not answer {time_had}, the time this call had, nor anything '
            f"else, and was ended. Your kernel is untouched. {STARTED_AGAIN}"
        )
        late = NodeTimeout(msg, node=self.name, seconds=run.timeout)
        self._life.fail(late)
        return late

    # Ending

    async def _death(self, run: Request, process: WorkerProcess) -> NodeDied:
        """The server ended during a call, or talks no more."""
        if not await _ends_within(process, _LAST_ANSWER_PATIENCE):
            process.kill("hung")
            await _ends_within(process, _DEATH_PATIENCE)
        death = self._explain(process, during=True)
        run.lost_its_worker = process.end.is_accident
        if run.lost_its_worker or process.end.by_us == "hung":
            self._fail_once(process, death)
        else:
            self.breaker.withdraw()
        return death

    def _server_ended(self, process: WorkerProcess) -> None:
        """A server that ends while nobody calls it fails too; a call tells its own end."""
        if process is not self._process or self._runs:
            return
        if process.exited.result().is_accident:
            self._fail_once(process, self._explain(process, during=False))
        else:
            self.breaker.withdraw()

    def _fail_once(self, process: WorkerProcess, death: NodeDied) -> None:
        """Count a death, however many calls it ends."""
        if process is self._buried:
            self._life.last_error = death
        else:
            self._buried = process
            self._life.fail(death)

    def _explain(self, process: WorkerProcess, *, during: bool) -> NodeDied:
        said = _last_line(process.log_tail())
        return explain_server(self.name, process.end, said, during)

    async def _see_off(self, process: WorkerProcess, session: McpSession, reason: str) -> None:
        """Ask a server to end, as MCP wants it: by the end of its stdin, and then by SIGTERM."""
        process.see_off(reason)
        session.hang_up()
        patience = self.config.interrupt_grace / 2
        if not await _ends_within(process, patience):
            await process.signal(signal.SIGTERM)
            await _ends_within(process, patience)

    @staticmethod
    async def _end(process: WorkerProcess, session: McpSession | None, reason: str) -> None:
        """Kill a server with all that it started, and end the conversation."""
        await process.stop(reason)
        if session is not None:
            await session.close()

    def _state(self) -> str:
        return self._life.state(self._process, connected=self.is_connected, busy=bool(self._runs))


class _Reports:
    """
    How far a call is, told not too often.

    Args:
        run: the call.
        tool: that is called.
        silenced: the calls that are to say nothing now.
    """

    def __init__(self, run: Run, tool: str, silenced: set[Run]) -> None:
        self._run = run
        self._tool = tool
        self._silenced = silenced
        self._next = 0.0
        self._told = False
        self._over = False

    def report(self, done: float, total: float | None, text: str) -> None:
        now = time.monotonic()
        if self._over or self._run in self._silenced or now < self._next:
            return
        self._next = now + _PROGRESS_INTERVAL
        self._told = True
        self._run.say(progress(done, total, text or self._tool))

    def end(self) -> None:
        self._over = True
        if self._told:
            self._run.say(Message("progress", {"text": ""}))


async def _ends_within(process: WorkerProcess, seconds: float) -> bool:
    await asyncio.wait({process.exited}, timeout=seconds)
    return process.exited.done()


async def _listing(session: McpSession) -> tuple[Mapping[str, Tool], tuple[str, ...]]:
    return await session.list_tools()


async def _session_class() -> type[McpSession]:
    """Import it in a thread, for that takes a second; the thread does not stay."""
    return await apart(_import_session)


def _import_session() -> type[McpSession]:
    from hive_jupyter.swarm.mcp_session import McpSession

    return McpSession


def _last_line(tail: str) -> str:
    return printable(tail.splitlines()[-1])[:_LAST_WORDS] if tail else ""
