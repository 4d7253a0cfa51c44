"""
SwarmNode: the host's handle on one worker.

::

    cold ── connect ──▶ ready ◀── runs, one at a time ──▶ dead ── next use ──▶ ready
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hive_jupyter.config import HiveConfig, checked_worker
from hive_jupyter.errors import (
    ConfigError,
    HiveError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    SandboxUnavailable,
    ToolError,
    TransferError,
    remote_error,
)
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.aside import Aside, Completions
from hive_jupyter.swarm.channels import Channels, Context
from hive_jupyter.swarm.comms import answer_for_nobody
from hive_jupyter.swarm.dask import DaskProvisioner
from hive_jupyter.swarm.death import FRESH, Exit, enumerate_names, explain
from hive_jupyter.swarm.descriptors import lack_of_descriptors
from hive_jupyter.swarm.forkserver import ForkServer, ForkServers
from hive_jupyter.swarm.launch import Kernel, Launch, changed, first_policy
from hive_jupyter.swarm.life import Life, NodeStatus, Watcher
from hive_jupyter.swarm.messages import Message, Sink, ignore
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import (
    LOG_SHOWN,
    Process,
    answers_within,
    first_of,
    note_failure,
)
from hive_jupyter.swarm.replies import asks_to_exit, payloads, users_error, variables
from hive_jupyter.swarm.run import Request, Run, or_stopped
from hive_jupyter.swarm.runtime import LEAST_SPACE, RuntimeFolder, remove_apart
from hive_jupyter.swarm.subshell import Subshell
from hive_jupyter.swarm.tool_call import ToolCall, listed_tools
from hive_jupyter.swarm.values import Pull, Push, check_pickles, checked_names, packed, telling
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import TOOL_TIMEOUT, Tool, ToolResult, check_sendable
from hive_jupyter.units import format_duration, format_size, memory_option

log = logging.getLogger(__name__)

_MISSING_PACKAGE = re.compile(r"No module named '(ipykernel|IPython|jupyter_client|traitlets|zmq)")
# As much of a worker's last line goes into an error, in characters.
_LAST_WORDS = 300
# How many descriptors a worker may need in the host, with its zygote and a spare. libzmq ends the
# whole process where it gets none for its own use.
_DESCRIPTORS = 32
# How long each question of a health check may stay unanswered.
_HEALTH_PATIENCE = 1.0
# After so long a worker that was interrupted is asked again whether it is idle; each time it has
# twice as long, up to the second figure.
_PROOF_INTERVAL = 0.25
_LONGEST_PROOF_INTERVAL = 2.0
# So long after a result the next spare is forked, in seconds: the caller gets the result first.
_REFILL_PAUSE = 0.05
# How often an idempotent tool is tried again.
_RETRIES = 2
# A process that got SIGKILL and is not gone after this long hangs in the kernel (a dead NFS, say).
_DEATH_PATIENCE = 5.0


_NO_WIDGETS = (
    "A widget of a worker on a cluster may be slow, or stand still: Hive promises widgets of "
    "workers on this machine only."
)


class SwarmNode:
    """
    One worker: its life, its channels, its metrics, its circuit breaker.

    Belongs to the loop on which it is first awaited; awaiting it on another one raises.

    Args:
        name: of the worker.
        config: the settings; by default from the environment.
        kernel: what runs in it; by default Hive's worker with this Python.
        policy: what it may touch; by default as configured.
        servers: start its processes; by default some of its own, closed with it.
        context: for its sockets; by default one of its own, closed with it.
        died: is called on the loop with the news of each death that nobody wanted; must not block.
        watcher: is told when its worker begins, rests and ends.
        folder: the working folder and project of the worker; by default the host's.

    Raises:
        ConfigError: a worker cannot be called so.

    Attributes:
        tools: what the worker offers, as it said last; before that, and after each start, Hive's
            own.
        tool_problems: why some of the tools that the settings name are missing.
        root: of the project that its worker was started in, or "".
    """

    def __init__(
        self,
        name: str = "coder",
        *,
        config: HiveConfig | None = None,
        kernel: Kernel | None = None,
        policy: SandboxPolicy | None = None,
        servers: ForkServers | DaskProvisioner | None = None,
        context: Context | None = None,
        died: Callable[[NodeDied | NodeTimeout], object] = id,
        watcher: Watcher | None = None,
        folder: str = "",
    ) -> None:
        self.name = checked_worker(name)
        self.config = config or HiveConfig()
        self.kernel = kernel or Kernel()
        self.policy = policy or first_policy(self.kernel, self.config)
        self._follows_config = policy is None
        self.tools: Mapping[str, Tool] = BUILT_IN
        self.tool_problems: tuple[str, ...] = ()
        self.root = ""
        self._life = Life(self.name, self.config, FRESH, died, watcher)
        self.metrics = self._life.metrics
        self.breaker = self._life.breaker
        self._folder = folder
        self._servers = servers
        self._own_servers = servers is None
        self._server: ForkServer | DaskProvisioner | None = None
        self._context = context
        self._own_context = context is None
        self._process: Process | None = None
        self._channels: Channels | None = None
        self._refilling: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._queue = 0
        self._running: Run | None = None
        self._beside: set[Run] = set()
        self._mourned: Process | None = None
        self._aside: Aside | None = None
        self._names: tuple[str, ...] = ()
        self._last_log = ""
        self._broke_protocol: str | None = None
        self._unsaid: HiveError | None = None
        self._untold: list[str] = []
        self._late: Sink | None = None
        self._info: Mapping[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<SwarmNode {self.name!r} {self._state()}>"

    @property
    def last_error(self) -> Exception | None:
        """Why the latest connect, run or call failed, or None."""
        return self._life.last_error

    @property
    def is_connected(self) -> bool:
        """Whether the worker lives, has answered, and keeps to the protocol."""
        channels, process = self._channels, self._process
        return bool(channels and not channels.is_closed and process and process.alive)

    @property
    def speaks_tools(self) -> bool | None:
        """Whether the worker understands Hive's own messages; None before it has answered."""
        return "hive_protocol" in self._info if self._info else None

    async def connect(self) -> bool:
        """
        Have a worker that answers, starting one where there is none.

        Idempotent: fifty callers at once start one worker.

        Returns:
            True, or False where no worker could be had within ``connect_timeout``;
            ``last_error`` says why, with the tail of the worker's log.
        """
        self._life.belong_here()
        return await self._life.reached(self._ensure_ready())

    async def execute(self, run: Run) -> Message:
        """
        Run code in the worker, after the runs before it.

        Returns:
            The reply, whose status is "ok".

        Raises:
            RemoteError: the code raised; an interrupt is one named KeyboardInterrupt.
            NodeDied: the worker ended, or had to be killed.
            NodeTimeout: it was stopped because its time was over.
            NodeStartError, CircuitOpen: there is no worker to run it.
        """
        self._life.belong_here()
        with self._life.asked():
            return await (self._execute_beside(run) if run.is_concurrent else self._execute(run))

    async def list_tools(self) -> list[dict[str, Any]]:
        """
        The worker's tools, in the shape of MCP's ``tools/list``.

        Raises:
            ToolError: the worker does not speak tools.
            NodeTimeout, NodeDied, NodeStartError, CircuitOpen: as ``execute``.
        """
        request = Request("list_tools_request", {}, self.config.connect_timeout)
        reply = await self.execute(request)
        self.tools, self.tool_problems = listed_tools(reply)
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
        Run one of the worker's tools; ``execute`` also where the worker has no others.

        A tool that is idempotent is tried again, twice at most, on a fresh worker where its worker
        died.

        Args:
            name: of the tool.
            arguments: by name.
            timeout: seconds it may take; waiting for its turn counts, the start of a worker does
                not.
            sink: is called with what the tool prints and how far it is; must not block.
            began: is called with each run that this takes, which can be stopped.

        Returns:
            What it answered; ``is_error`` where it failed or was called wrongly.

        Raises:
            ToolError: the worker does not speak tools, or the arguments cannot be sent.
            RemoteError: it was interrupted; named KeyboardInterrupt.
            NodeTimeout, NodeDied, NodeStartError, CircuitOpen: as ``execute``.
        """
        given = dict(arguments or {})
        check_sendable(name, given)
        deadline = time.monotonic() + timeout
        for attempt in itertools.count():
            call = ToolCall(name, given, deadline - time.monotonic(), sink)
            began(call.run)
            try:
                return call.result(await self.execute(call.run))
            except RemoteError as error:
                if call.run.stops:
                    raise
                return call.failure(error)
            except NodeDied as death:
                again = attempt < _RETRIES and call.run.lost_its_worker
                if not (again and await self._is_repeatable(name)):
                    raise
                sink(Message("progress", {"text": f"{death} Trying {name} again ..."}))
        raise AssertionError  # pragma: no cover

    async def push(
        self,
        values: Mapping[str, Any],
        timeout: float | None = None,
        *,
        sink: Sink = ignore,
        began: Callable[[Run], object] = id,
    ) -> None:
        """
        Give variables to the worker: all of them, or none.

        Args:
            values: by name.
            timeout: seconds it may take; waiting for its turn counts, the start of a worker does
                not. None: no limit.
            sink: is called with how far it is; must not block.
            began: is called with the run that this takes, which can be stopped.

        Raises:
            ConfigError: something is no name of a variable.
            TransferError: a value cannot be moved, or the worker runs something that takes none.
            RemoteError: it was interrupted; named KeyboardInterrupt.
            NodeTimeout, NodeDied, NodeStartError, CircuitOpen: as ``execute``.
        """
        self._life.belong_here()
        names = checked_names(values)
        limit = self.config.max_transfer
        told, buffers = await apart(lambda: packed(values, limit))
        run = Push(names, told, buffers, timeout, sink)
        began(run)
        self._check_fits(run)
        with telling(run, self.name):
            run.check(await self.execute(run), self.name)

    async def pull(
        self,
        names: Sequence[str],
        timeout: float | None = None,
        *,
        allow_pickle: bool = False,
        sink: Sink = ignore,
        began: Callable[[Run], object] = id,
    ) -> dict[str, Any]:
        """
        Take over variables of the worker: all of them, or none.

        They come as data, which is checked and never unpickled.

        Args:
            names: of the variables.
            timeout: as for ``push``.
            allow_pickle: what has no safe form is unpickled, which runs what the worker wants;
                only for a worker without a boundary.
            sink: as for ``push``.
            began: as for ``push``.

        Returns:
            The values, by name.

        Raises:
            ConfigError: something is no name of a variable, or the worker is confined and its
                pickles are not opened.
            TransferError: there is no such variable, it has no safe form, it is too large, or the
                worker lies about it, or runs something that hands over none.
            RemoteError: it was interrupted; named KeyboardInterrupt.
            NodeTimeout, NodeDied, NodeStartError, CircuitOpen: as ``execute``.
        """
        self._life.belong_here()
        names = checked_names(names)
        if allow_pickle:
            check_pickles(self.name, self.policy.profile)
        limit = self.config.max_transfer
        run = Pull(names, timeout, sink, limit=limit, allow_pickle=allow_pickle)
        began(run)
        try:
            return await self._taken(run)
        except TransferError as error:
            failure = str(error)
        del run  # an error that somebody keeps is not to keep what came with it
        raise TransferError(failure)

    async def _taken(self, run: Pull) -> dict[str, Any]:
        with telling(run, self.name):
            reply = await self.execute(run)
            writable = [*self.config.writable_paths, *filter(None, [self.root])]
            reading = asyncio.ensure_future(
                apart(lambda: run.values(reply, self.name, self._names, writable))
            )
            await or_stopped(run, reading)
            return reading.result()

    def _check_fits(self, run: Push) -> None:
        """See that the worker's memory holds what is sent: it would die of it."""
        if self.policy.memory is not None and run.size > self.policy.memory:
            msg = (
                f"{', '.join(run.names)} take {format_size(run.size)}, and worker "
                f'"{self.name}" may use {format_size(self.policy.memory)}. '
                f"`%hive restart {self.name} --memory {memory_option(2 * run.size)}` raises that."
            )
            raise TransferError(msg)

    async def health_check(self) -> str:
        """
        Ask the worker how it is, without waiting for what it runs.

        Returns:
            "cold", "dead", "idle", "busy", "stopped" (SIGSTOP), "gil-held" (C code that does not
            let Python run) or "unresponsive".
        """
        self._life.belong_here()
        channels, process = self._channels, self._process
        if channels is None or process is None:
            return "cold" if process is None else "dead"
        if process.has_ended:
            return "dead"
        if process.is_stopped:
            return "stopped"
        question = channels.request("control", "kernel_info_request", {})
        asking = asyncio.gather(
            channels.beat(_HEALTH_PATIENCE), answers_within(question, _HEALTH_PATIENCE)
        )
        await first_of(asking, process.exited)
        if not process.alive:
            asking.cancel()
            return "dead"
        beats, control = asking.result()
        if control:
            return "busy" if self._running else "idle"
        return "gil-held" if beats else "unresponsive"

    async def interrupt(self) -> bool:
        """Stop what runs now, as Ctrl-C does; False where nothing runs."""
        self._life.belong_here()
        running = self._all_running()
        for run in running:
            run.stop()
        return bool(running)

    async def complete(self, code: str, position: int) -> Completions | None:
        """
        Complete a word from what the worker has; None where it has not started.

        Args:
            code: with the word.
            position: of the cursor, in characters.

        Raises:
            TransferError: the worker's answer is none.
        """
        self._life.belong_here()
        return await self._aside.complete(code, position) if self._aside else None

    async def inspect(self, code: str, position: int, detail: int) -> str | None:
        """
        Tell of a name that the worker has, in text; None where it has not started.

        Args:
            code: with the name.
            position: of the cursor, in characters.
            detail: 0, or 1 for its source.

        Raises:
            TransferError: the worker's answer is none.
        """
        self._life.belong_here()
        return await self._aside.inspect(code, position, detail) if self._aside else None

    def pass_on(self, message: Message, header: Mapping[str, Any], sink: Sink) -> None:
        """Pass on what a front-end says to a comm of the worker; see ``WorkerComms.pass_on``."""
        if self._channels is None:
            answer_for_nobody(message, sink)
        else:
            self._channels.comms.pass_on(message, header, sink, self.config.max_output)

    def pause_output(self, run: Run) -> None:
        """Read no output for now, since this run's does not get away; it waits in the worker."""
        if self._channels is not None:
            self._channels.pause(run.key)

    def resume_output(self, run: Run) -> None:
        """Read output again."""
        if self._channels is not None:
            self._channels.resume(run.key)

    def tell(self, text: str) -> None:
        """
        Have the user read something.

        It is shown where something runs, else with the latest run's late output, else in the next
        run.
        """
        message = Message("stream", {"name": "stderr", "text": f"{text}\n"})
        if self._running is not None:
            self._running.tell(message)
            return
        try:
            if self._late is not None:
                self._late(message)
                return
        except Exception as error:  # the cell's kernel is going, its stdout was closed
            log.info("late output is told in the next run: %s", error)
        self._untold.append(text)

    def take_untold(self) -> list[str]:
        """What there was no run for to show it in; nobody else will."""
        untold, self._untold = self._untold, []
        return untold

    def answer(self, run: Run, text: str) -> None:
        """Reply to what a run asked the user."""
        if self._channels is not None:
            self._channels.answer(run, text)

    def answer_commit(self, run: Run, asked: Message, answer: Mapping[str, str]) -> None:
        """Reply to a commit that a run's code asked for; see ``Channels.answer_commit``."""
        if self._channels is not None:
            self._channels.answer_commit(run, asked, answer)

    async def stop(self, reason: str = "stop") -> None:
        """End the worker and everything that it started; the next use starts a new one."""
        self._life.belong_here()
        await self._life.give_up_start()
        process = self._process
        if process is not None:
            await process.stop(reason)
            # a run that waited may have its fresh worker by now
            if process is self._process:
                self._forget()
                self._process = None
        self.breaker.withdraw()
        if process is not None:
            await process.remove_folder()

    @property
    def idle_since(self) -> float | None:
        """Since when it has had nothing to do (``time.monotonic``); None: it has, or has ended."""
        if not self.is_connected or self._turn.locked() or self._queue:
            return None
        return self._life.idle_since

    async def cull(self, seconds: float) -> None:
        """End a worker that has had nothing to do for so long; the next use starts a new one."""
        since = self.idle_since
        if since is None or time.monotonic() - since < seconds:
            return
        # a run that comes meanwhile waits, and has a fresh one
        async with self._turn:
            names = self._names
            await self.stop()
        if names:
            self._untold.append(
                f'Worker "{self.name}" had nothing to do for {format_duration(seconds)} and was '
                f"ended (the setting cull_idle_timeout). Lost: {enumerate_names(names)}. This cell "
                "runs in a fresh worker."
            )

    async def close(self) -> None:
        """End the worker, and the processes that start workers where they are this node's own."""
        self._life.belong_here()
        self._life.is_closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.wait({self._refilling})
        await self.stop()
        if self._own_servers and self._servers is not None:
            await self._servers.close()
            await remove_apart(self._servers.runtime.remove)
            self._servers = None
        if self._own_context and self._context is not None:
            self._context.term()
            self._context = None

    def change_policy(self, memory: int | None, sandbox: str | None) -> None:
        """
        Choose the policy of a worker that has not started yet.

        Args:
            memory: bytes, 0 for no limit, or None to leave it as it is.
            sandbox: a profile, or None to leave it as it is.

        Raises:
            ConfigError: there is no such policy, or the worker lives already with another one.
        """
        policy = self.changed_policy(memory, sandbox)
        if policy != self.policy and (self.is_connected or self._life.is_starting):
            changes = []
            if memory is not None:
                changes.append(f" --memory {memory_option(memory)}")
            if sandbox is not None:
                changes.append(f" --sandbox {sandbox}")
            lost = enumerate_names(self._names) if self._names else "nothing yet"
            msg = (
                f'Worker "{self.name}" runs already, with sandbox {self.policy.profile} and memory '
                f"{format_size(self.policy.memory)}; that never changes while it lives. "
                f"`%hive restart {self.name}{''.join(changes)}` starts it anew (lost: {lost}); "
                "another worker is one -w NAME away."
            )
            raise ConfigError(msg)
        self.policy = policy

    def move(self, servers: ForkServers | DaskProvisioner) -> None:
        """
        Choose where a worker lives that has not started yet.

        Args:
            servers: start it.

        Raises:
            ConfigError: it lives already elsewhere, or runs something else than Hive's own worker.
        """
        if servers is self._servers:
            return
        if self.is_connected or self._life.is_starting:
            assert self._servers is not None
            lost = enumerate_names(self._names) if self._names else "nothing yet"
            msg = (
                f'Worker "{self.name}" lives {_whereabouts(self._servers)} already; that never '
                f"changes. `%hive stop {self.name}` ends it (lost: {lost}); another worker is one "
                "-w NAME away."
            )
            raise ConfigError(msg)
        if self.kernel != Kernel():
            msg = (
                f'Worker "{self.name}" runs {self.kernel.description}. On a cluster runs Hive\'s '
                "own worker only, with the Python that Dask has there: take another -w NAME."
            )
            raise ConfigError(msg)
        self._servers, self._own_servers = servers, False

    def changed_policy(self, memory: int | None, sandbox: str | None) -> SandboxPolicy:
        """The policy that ``change_policy`` would choose."""
        return changed(self.policy, self.kernel, memory, sandbox)

    def log(self, lines: int) -> str:
        """The last lines of the worker's own log, or else of that of the worker before it."""
        text, note = "", ""
        if self._process is not None:
            text = self._process.log_tail(LOG_SHOWN)
        if not text and self._last_log:
            text, note = self._last_log, "\n(logged by the worker before this one)"
        return "\n".join(text.splitlines()[-lines:]) + note

    def status(self) -> NodeStatus:
        """A snapshot for people and programs."""
        process = self._process if self.is_connected else None
        return self._life.status(
            self._state(),
            self.kernel,
            self.policy,
            process,
            running=self._all_running(),
            queue=self._queue,
        )

    def _all_running(self) -> list[Run]:
        return [*filter(None, [self._running]), *self._beside]

    # Starting

    async def _ensure_ready(self) -> None:
        self._life.require_open()
        if self.is_connected:
            return
        if not self._life.is_starting:
            # the caller can mend what is wrong with these, so that does not count
            self._renew_policy()
            launch = self._snapshot()
            lack = lack_of_descriptors(_DESCRIPTORS)
            if lack is not None:
                msg = f'Worker "{self.name}" could not be started: {lack}'
                raise NodeStartError(msg, node=self.name)
            self._life.begin(self._start, launch)
        await self._life.started()

    async def _start(self, launch: Launch) -> None:
        old = self._process
        if old is not None:
            if not old.exited.done():  # it broke the protocol a moment ago
                await old.stop("protocol")
            self._forget()
            self._last_log = old.log_tail(LOG_SHOWN)
            await old.remove_folder()
            self._process = None
        try:
            async with asyncio.timeout(self._patience):
                await self._spawn_and_probe(launch)
        except asyncio.CancelledError:
            await self._abandon()
            self.breaker.withdraw()
            raise
        except SandboxUnavailable:
            await self._abandon()
            self.breaker.withdraw()
            raise
        except Exception as error:
            failure = self._start_error(error)
            await self._abandon()
            self._life.fail(failure)
            raise failure from error
        assert self._process is not None
        self._life.note_start(self._process.gone)
        self._names = ()
        # the user's own are imported anew, and may be others
        self.tools, self.tool_problems = BUILT_IN, ()

    async def _spawn_and_probe(self, launch: Launch) -> None:
        if self._servers is None:
            self._servers = ForkServers(self.config, RuntimeFolder.create())
        server = self._server = self._servers.of(self.kernel.interpreter, launch.policy)
        self._broke_protocol = None
        process = self._process = await server.spawn(launch, self.name)
        self.root = launch.root
        if not self.kernel.argv:
            await first_of(process.ready, process.exited)
        else:
            process.ready.set_result({})
        if process.exited.done():
            msg = "its process ended while it started"
            raise HiveError(msg)
        self._context = self._context or Context()
        channels = self._channels = Channels(
            self._context,
            process.connection,
            self.name,
            self._violated,
            rule=launch.policy.output_rule,
            folder=str(process.folder),
            saw_widget=self._saw_widget,
        )
        probe = asyncio.ensure_future(channels.probe())
        await first_of(probe, process.exited)
        if not probe.done() or probe.cancelled():  # by channels that were closed
            probe.cancel()
            msg = "its process ended while it started"
            raise HiveError(msg)
        self._info = probe.result()
        if "kernel subshells" in self._info.get("supported_features", ()):
            self._aside = Aside(channels)
            channels.comms.subshell = Subshell(channels.request)
        process.exited.add_done_callback(lambda _: self._worker_ended(process))

    def _start_error(self, error: Exception) -> NodeStartError:
        process = self._process
        tail = process.log_tail() if process is not None else ""
        if process is None and self._server is not None:
            tail = self._server.last_words
        exit_ = process.exited.result() if process is not None and process.exited.done() else Exit()
        if isinstance(error, TimeoutError):
            reason = f"it did not answer within {format_duration(self._patience)}"
        else:
            reason = str(error) or type(error).__name__
        if self._broke_protocol:
            reason = f"it broke the protocol: {self._broke_protocol}"
        advice = ""
        if _MISSING_PACKAGE.search(tail):
            advice = f" Install it there: {self.kernel.interpreter} -m pip install ipykernel"
        if (folder := self._full_disk()) is not None:
            advice += f" The disk of {folder} is full: free some space."
        last = tail.splitlines()[-1][:_LAST_WORDS] if tail else ""
        said = f" It said last: {last}" if last else ""
        return NodeStartError(
            f'Worker "{self.name}" could not be started: {reason}.{said}{advice}',
            node=self.name,
            exit_code=exit_.code,
            log_tail=tail,
        )

    @property
    def _patience(self) -> float:
        """Seconds that a start may take."""
        return self._servers.patience if self._servers else float(self.config.connect_timeout)

    def _full_disk(self) -> Path | None:
        """The folder for runtime files, where its disk has no space left."""
        folder = self._servers.runtime.path if self._servers is not None else None
        with contextlib.suppress(OSError):
            if folder is not None and shutil.disk_usage(folder).free < LEAST_SPACE:
                return folder
        return None

    async def _abandon(self) -> None:
        """Leave nothing of a start that failed; its log stays until the next one."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        if self._process is not None:
            await self._process.stop()

    def _renew_policy(self) -> None:
        """Begin with what the settings say now, but for what was chosen for this worker."""
        if self._follows_config:
            self.policy = self.config.policy(self.policy.profile, self.policy.memory or 0)

    def _snapshot(self) -> Launch:
        """What the worker takes over from the host, now."""
        return self._life.snapshot(self.kernel, self.policy, self._folder)

    # Running

    async def _execute(self, run: Run) -> Message:
        self._queue += 1
        try:
            await self._take_turn(run)
        finally:
            self._queue -= 1
        try:
            while not self.is_connected:
                await self._have_ready(run)
            if run.stops:
                raise remote_error("KeyboardInterrupt", "", [])
            if run.type != Run.type and not self.speaks_tools:
                raise self._not_spoken(run)
            if run.is_heard:
                self._say_what_was_lost(run)
                self._say_what_is_missing(run)
            self._running = run
            return await self._run_with_values(run)
        finally:
            self._running, self._late = None, run.late
            self._forget_if_ended()
            self._turn.release()

    async def _execute_beside(self, run: Run) -> Message:
        """Have a run begin at once, on a subshell of its own, whatever runs."""
        while not self.is_connected:
            await self._have_ready(run)
        channels, process = self._channels, self._process
        assert channels is not None
        assert process is not None
        if self._aside is None:
            msg = (
                f'Worker "{self.name}" runs {self.kernel.description}, which does one thing after '
                "the other. Without --concurrent the code waits for its turn."
            )
            raise ConfigError(msg)
        subshell = Subshell(channels.request)
        self._beside.add(run)
        try:
            run.subshell = await self._opened(subshell, run, process)
            return await self._run_with_values(run)
        finally:
            self._beside.discard(run)
            subshell.close()
            self._forget_if_ended()

    async def _opened(self, subshell: Subshell, run: Run, process: Process) -> str:
        """The name of a subshell; a worker whose interpreter is held by C code makes none."""
        opening = asyncio.ensure_future(subshell.name())
        opening.add_done_callback(note_failure)
        try:
            async with asyncio.timeout(self.config.connect_timeout):
                await first_of(opening, process.exited, run.stopping)
                if opening.cancelled():  # its channels were closed
                    await first_of(process.exited, run.stopping)
        except TimeoutError:
            raise self._busy(self.config.connect_timeout) from None
        finally:
            opening.cancel()
        if run.stopping.done():
            raise remote_error("KeyboardInterrupt", "", [])
        if process.exited.done():
            raise self._death(run, process)
        return opening.result()

    async def _run_with_values(self, run: Run) -> Message:
        run.since = time.monotonic()
        try:
            if isinstance(run.before, Push):
                run.before.subshell = run.subshell
                await self._give(run.before)
            return await self._run_now(run)
        finally:
            run.close()

    def _forget_if_ended(self) -> None:
        if self._process is not None and self._process.exited.done():
            self._forget()

    async def _give(self, push: Push) -> None:
        if not self.speaks_tools:
            raise self._not_spoken(push)
        self._check_fits(push)
        push.check(await self._run_now(push), self.name)

    def _not_spoken(self, run: Run) -> ToolError | TransferError:
        runs = f'Worker "{self.name}" runs {self.kernel.description}'
        if isinstance(run, Push | Pull):
            return TransferError(
                f"{runs}, which neither takes values nor hands over any. Write them to a file."
            )
        return ToolError(f"{runs}, which has no tools of Hive. Cells can be delegated to it.")

    def _say_what_was_lost(self, run: Run) -> None:
        """A worker that died between two runs had nobody to tell."""
        death, self._unsaid = self._unsaid, None
        if death is not None:
            told = str(death).replace(FRESH, "This cell runs in a fresh worker.")
            run.say(Message("stream", {"name": "stderr", "text": f"{told}\n"}))
        for text in self.take_untold():
            run.tell(Message("stream", {"name": "stderr", "text": f"{text}\n"}))

    def _say_what_is_missing(self, run: Run) -> None:
        """What of its boundary the worker does not have here is said once in a hive."""
        assert self._process is not None
        assert self._servers is not None
        told = self._process.confinement
        sentences = list(told.get("notes", ()))
        if missing := told.get("missing"):
            place = self._process.place
            here, machine = (f"at {place}", "its") if place else ("here", "this")
            sentences.append(
                f"The sandbox {self.policy.profile} is not whole {here}: {machine} machine cannot "
                f"confine {', '.join(missing)}. %hive doctor tells more."
            )
        for sentence in sentences:
            self._say_once(run, sentence)

    def _say_once(self, run: Run, sentence: str) -> None:
        assert self._servers is not None
        if sentence not in self._servers.told:
            self._servers.told.add(sentence)
            run.say(Message("stream", {"name": "stderr", "text": f"{sentence}\n"}))

    def _saw_widget(self, run: Run) -> None:
        if self._process is not None and self._process.place:
            self._say_once(run, _NO_WIDGETS)

    async def _have_ready(self, run: Run) -> None:
        with self._life.telling(run):
            await or_stopped(run, self._ensure_ready())

    async def _take_turn(self, run: Run) -> None:
        if self._queue == 1 and not self._turn.locked():
            await self._turn.acquire()
            return
        asked = time.monotonic()
        acquiring = asyncio.ensure_future(self._turn.acquire())
        try:
            async with asyncio.timeout(run.patience):
                await or_stopped(run, acquiring)
        except BaseException as error:
            # the turn may have come in the moment in which nobody wanted it any more
            if acquiring.done() and not acquiring.cancelled():
                self._turn.release()
            if isinstance(error, TimeoutError) and run.patience is not None:
                raise self._busy(run.patience) from None
            raise
        if run.patience is not None:
            run.waited = time.monotonic() - asked

    def _busy(self, seconds: float) -> NodeTimeout:
        msg = (
            f'Worker "{self.name}" was busy for {format_duration(seconds)}. It works on; '
            f"`%hive interrupt {self.name}` stops what it runs."
        )
        return NodeTimeout(msg, node=self.name, seconds=seconds)

    async def _run_now(self, run: Run) -> Message:
        channels, process = self._channels, self._process
        assert channels is not None
        assert process is not None
        began = time.monotonic()
        timer = None
        if run.timeout is not None:
            left = max(0.0, run.timeout - run.waited)
            timer = asyncio.get_running_loop().call_later(left, run.expire)
        run.is_confined = self.policy.is_confined
        try:
            # one thing at a time goes that way
            run.go_by(process.bulk if run.subshell is None else None)
            channels.begin(run, self.config.max_output)
            lives = await self._until_over(run, channels, process)
            if not lives:
                await channels.drain()
                self._say_last_words(run, process)
        except asyncio.CancelledError:  # nobody waits any more; the next run finds it idle, or gone
            run.stop()
            await self._bring_to_a_stop(run, channels, process)
            self.breaker.withdraw()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            channels.end(run)
            await run.settle()
        if not lives:
            run.release_error()
            if run.done.done():
                self._names = variables(run.done.result(), self._names)
            if not process.exited.done():  # it hangs in the kernel, and dies when it can
                self._forget()
                self._process = None
            raise self._death(run, process)
        self._life.succeed(time.monotonic() - began)
        if asks_to_exit(run.done.result()):
            await self._see_off(run, process, began)
        else:
            self._refill_later()
        return self._conclude(run)

    async def _see_off(self, run: Run, process: Process, began: float) -> None:
        """Let a worker that ends by itself close its files, and call what was left for the end."""
        patience = self.config.interrupt_grace
        if run.timeout is not None:
            patience = min(patience, max(0.0, began + run.timeout - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await first_of(process.exited, run.stopping)
        self._say_last_words(run, process)
        await self.stop("exit")

    @staticmethod
    def _say_last_words(run: Run, process: Process) -> None:
        for name, text in process.end.last_words.items():
            run.take_output(Message("stream", {"name": name, "text": text}))

    async def _until_over(self, run: Run, channels: Channels, process: Process) -> bool:
        """
        Wait for the end of a run or of its worker; a wish to stop it brings that about.

        Returns:
            Whether the run is over and the worker lives on.
        """
        while not run.done.done() and not process.exited.done():
            await first_of(run.done, process.exited, run.stopping)
            wished = run.stopping.done() and not run.done.done() and not process.exited.done()
            if wished and not await self._bring_to_a_stop(run, channels, process):
                return False
        return run.done.done()

    async def _bring_to_a_stop(self, run: Run, channels: Channels, process: Process) -> bool:
        """
        SIGINT and a grace, then SIGKILL.

        Returns:
            Whether the worker lives on, proven idle; else it is gone, or hangs in the kernel.
        """
        run.heed()
        if run.stops == 1:
            proof = asyncio.create_task(self._interrupt(run, channels, process))
            proof.add_done_callback(note_failure)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.config.interrupt_grace):
                        await first_of(proof, process.exited, run.stopping)
            finally:
                proof.cancel()
            if proof.done() and not proof.cancelled() and proof.exception() is None:
                run.is_stopping = False
                return True
        process.kill("timeout" if run.expired else "interrupt")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEATH_PATIENCE):
                await asyncio.shield(process.exited)
        return False

    async def _interrupt(self, run: Run, channels: Channels, process: Process) -> None:
        """
        Send SIGINT; wait until the run is over and a question sent after the signal is answered.

        The question also wakes a loop that awaits: ipykernel notices SIGINT there only when
        something else happens. A late SIGINT may swallow it, so it is asked again; and a system
        call that began just then, and does not know of the signal, is ended.
        """
        # before, the signal would meet an idle worker, and the run would then go on undisturbed
        await asyncio.shield(run.begun)
        if run.subshell is not None:
            await channels.request("control", "interrupt_run_request", {"key": run.key})
            await asyncio.shield(run.done)
            return
        await self._send_interrupt(channels, process)
        patience = _PROOF_INTERVAL
        questions: set[asyncio.Task[Message]] = set()
        nudges: set[asyncio.Task[Message]] = set()
        try:
            while True:
                question = channels.request("shell", "kernel_info_request", {})
                questions.add(asyncio.create_task(question))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await first_of(*questions)
                        if run.replied and channels.is_paused and not run.expired:
                            return  # it is idle; somebody still reads what it has said
                        await asyncio.shield(run.done)
                        return
                patience = min(2 * patience, _LONGEST_PROOF_INTERVAL)
                if self.speaks_tools:
                    waking = channels.request("control", "wake_request", {})
                    nudges.add(asyncio.create_task(waking))
        finally:
            for task in questions | nudges:
                task.cancel()

    async def _send_interrupt(self, channels: Channels, process: Process) -> None:
        if self.kernel.interrupt_by_message:
            asking = asyncio.create_task(channels.request("control", "interrupt_request", {}))
            asking.add_done_callback(note_failure)
        else:
            await process.signal(signal.SIGINT)

    def _conclude(self, run: Run) -> Message:
        """The worker answered, and is idle."""
        reply = run.done.result()
        self._names = variables(reply, self._names)
        for payload in payloads(reply):
            run.take_payload(payload)
        if run.expired:
            assert run.timeout is not None
            msg = (
                f'Worker "{self.name}" was stopped after {format_duration(run.timeout)}, the time '
                f"this {run.noun} had. It is idle again and keeps its variables. --timeout gives "
                "more."
            )
            raise NodeTimeout(msg, node=self.name, seconds=run.timeout)
        if reply.content.get("status") != "ok":
            raise users_error(reply, self.name, self.policy.memory, interrupted=run.stops > 0)
        return reply

    def _death(self, run: Run, process: Process) -> NodeDied | NodeTimeout:
        """The worker ended during a run."""
        end = process.end
        error: NodeDied | NodeTimeout = self._explain(end, during=True)
        if run.expired:
            assert run.timeout is not None
            msg = (
                f'Worker "{self.name}" did not stop after {format_duration(run.timeout)}, the time '
                f"this {run.noun} had, and was killed. Your kernel is untouched. Lost: "
                f"{enumerate_names(self._names)}. {FRESH}"
            )
            error = NodeTimeout(msg, node=self.name, seconds=run.timeout)
        run.lost_its_worker = end.is_accident
        if end.by_us in ("interrupt", "stop", "restart"):
            self.breaker.withdraw()
        elif process is not self._mourned:  # several runs may have had it
            self._mourned = process
            self._life.fail(error)
        return error

    def _explain(self, end: Exit, *, during: bool) -> NodeDied:
        if not self._broke_protocol:
            return explain(self.name, end, self._names, during)
        msg = (
            f'Worker "{self.name}" broke the protocol and was killed by Hive: '
            f"{self._broke_protocol}. Your kernel is untouched. {FRESH}"
        )
        return NodeDied(msg, node=self.name, cause="protocol", lost=self._names)

    # Asking

    async def _is_repeatable(self, name: str) -> bool:
        """Whether a tool may be called again; a fresh worker knows the user's own."""
        if name not in BUILT_IN:
            with contextlib.suppress(HiveError):
                await self.list_tools()
        return name in self.tools and self.tools[name].is_repeatable

    # Ending

    def _violated(self, reason: str) -> None:
        process = self._process
        if process is None:
            return
        # one that is dead has broken off in the middle of something
        if not process.has_ended:
            self._broke_protocol = reason
            process.kill("protocol")

    def _worker_ended(self, process: Process) -> None:
        """A worker that dies between two runs is forgotten at once; a run tells its own end."""
        if process is self._process and not self._all_running():
            end = process.exited.result()
            if end.is_accident or end.by_us == "protocol":
                death = self._explain(end, during=False)
                self._life.fail(death)
                self._unsaid = death if death.lost else None
            else:
                self.breaker.withdraw()
            self._forget()

    def _forget(self) -> None:
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        self._info, self._aside = {}, None

    def _refill_later(self) -> None:
        """After a result, so that the fork does not slow down the cell that caused it."""
        server = self._server
        if server is None or self.kernel.argv or self._life.is_closed:
            return
        if self._refilling is not None and not self._refilling.done():
            return
        self._refilling = asyncio.create_task(self._refill(server))
        self._refilling.add_done_callback(note_failure)

    async def _refill(self, server: ForkServer | DaskProvisioner) -> None:
        await asyncio.sleep(_REFILL_PAUSE)
        await server.refill(self._snapshot(), self.config.spares)

    def _state(self) -> str:
        return self._life.state(
            self._process, connected=self.is_connected, busy=bool(self._all_running())
        )


def _whereabouts(servers: ForkServers | DaskProvisioner) -> str:
    return f"at {servers.place}" if isinstance(servers, DaskProvisioner) else "on this machine"
