"""
HiveManager: what a caller asks of workers, and falling back. The holder of the portal.

Everything here is called on the caller's thread; nodes and their state are touched on the portal's
loop alone, so there are no locks.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from traitlets import TraitError

from hive_jupyter.config import TURNED_OFF, HiveConfig, checked_worker
from hive_jupyter.dask_map import DaskCrew, Work, check_profile
from hive_jupyter.delegation import (
    BaseDelegation,
    Delegation,
    Result,
    RunRecord,
    ToolDelegation,
    ValuesDelegation,
    check_code,
    check_length,
)
from hive_jupyter.errors import (
    CircuitOpen,
    ConfigError,
    HiveError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    ToolError,
)
from hive_jupyter.jobs import Job, JobDelegation, Jobs
from hive_jupyter.mapping import (
    Crew,
    HiveExecutor,
    LocalCrew,
    MapResults,
    check_engine,
    checked_count,
)
from hive_jupyter.nodes import Nodes, warn
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.shadows import ShadowFinder
from hive_jupyter.status import SwarmStatus, plain_values
from hive_jupyter.swarm import confinement, kernels, system
from hive_jupyter.swarm.aside import Completions
from hive_jupyter.swarm.dask import LOCAL, DaskProvisioner, Place, place_of
from hive_jupyter.swarm.descriptors import lack_of_descriptors
from hive_jupyter.swarm.enforcement import examine
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.items import Function
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.launch import Kernel, first_policy, worker_environment
from hive_jupyter.swarm.life import NodeStatus, never_used
from hive_jupyter.swarm.messages import Message, Sink, ignore
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.portal import Portal, apart, deferring_sigint
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.report import Report
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.runtime import remove_tree
from hive_jupyter.swarm.targets import Targets
from hive_jupyter.swarm.throwaway import ask_throwaway
from hive_jupyter.swarm.values import Packed, Push, check_pickles, checked_names, packed_copies
from hive_jupyter.toolbox import BUILT_IN, SHORT_NAMES, full_name, read_details, spelled_out
from hive_jupyter.tools import TOOL_TIMEOUT, Tool, ToolResult, check_sendable
from hive_jupyter.units import as_bytes, as_seconds, nearest

if TYPE_CHECKING:
    from hive_jupyter.commits import Commits
    from hive_jupyter.guard.authorization import AnyRequest, AuthorizationGuard
    from hive_jupyter.guard.hooks import Room, Task
    from hive_jupyter.guard.requests import CommitRequest, Requester
    from hive_jupyter.panel import Panel
    from hive_jupyter.panel.feed import Feed

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Under which those who watch agents are known.
_AGENTS = "agents"

# What the worker is called in which hooks for commits run.
_HOOKS = "hooks"

# What the portal's event loop opens, and what asking for it opens.
_LOOPS_DESCRIPTORS = 5
# Who presses Tab waits no longer for a worker (seconds).
_AT_ONCE = 0.1
# So long after a death it is written down (seconds).
_QUIET = 1.0
# As much of an error is told to a worker (characters).
_LONGEST_ANSWER = 10_000


class HiveManager:
    """
    The host's set of workers.

    It starts them when they are first needed, routes to them, and falls back to instructions where
    none can run.

    Args:
        config: the settings; by default from the environment.
        settings: single settings by name, see ``HiveConfig``.

    Attributes:
        config: the settings.
        jobs: those that were started here; iterate over them, or ``jobs.get(id)``.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """

    def __init__(self, config: HiveConfig | None = None, **settings: Any) -> None:
        self.config = config or HiveConfig(**settings)
        if config is not None:
            self._set(settings)
        self._portal = Portal()
        self._pid = os.getpid()
        self._kernels: dict[str, Kernel] = {}
        self.nodes = Nodes(self.config, self._kernels, self._keep_death)
        self._serving: set[asyncio.Task[Any]] = set()
        self._watching = LateOutput(lambda _holds: None)
        self._hooks_turn = asyncio.Lock()
        self._in_rooms: dict[Path, asyncio.Task[Any]] = {}
        self._history: deque[RunRecord] = deque()
        self.jobs = Jobs()
        self._feed: tuple[Feed, Future[None]] | None = None
        self._closed = False
        self.config.policy()
        for name, entry in self.config.workers.items():
            self._add_configured(name, entry)
        self._shadows = ShadowFinder(
            allowed=lambda: self.config.shadowing_modules,
            writable=lambda: self.config.writable_paths,
            tell=warn,
        )
        self._shadows.install()
        atexit.register(self.close)

    def _set(self, settings: Mapping[str, Any]) -> None:
        names = self.config.trait_names(config=True)
        for name, value in settings.items():
            if name not in names:
                msg = f'Hive has no setting "{name}".{nearest(name, names)}'
                raise ConfigError(msg)
            try:
                setattr(self.config, name, value)
            except TraitError as error:
                raise ConfigError(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm_up(self) -> None:
        """Start the zygote in the background; returns at once."""
        if self._refusal() is None:
            self._start_in_background(self.nodes.warm_up())

    def serve(self, server: Callable[[Path], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """
        Run a server on the portal's loop; returns at once.

        Args:
            server: is given the hive's private runtime folder, and is cancelled when the hive is
                closed.

        Returns:
            What it comes to; a NodeStartError where this process can have no workers, so that there
            is nothing to serve.
        """
        inability = self._inability()
        if inability is not None:
            return _failed(NodeStartError(inability, node=self.config.worker))
        return self._start_in_background(self._serve(server))

    def _start_in_background(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        try:
            future = self._portal.submit(work)
        except RuntimeError as error:  # the system gives no further thread
            return _failed(error)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def begin(
        self,
        code: str,
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        memory: int | str | None = None,
        sandbox: str | None = None,
        header: Mapping[str, Any] | None = None,
        allow_stdin: bool = False,
        collect: bool = True,
        late: Sink | None = None,
        asker: str = "",
        concurrent: bool = False,
        given: Packed | None = None,
        kind: Callable[..., Delegation] = Delegation,
        on: object = None,
    ) -> Delegation:
        """
        Start a run and return at once.

        Args:
            code: to be run.
            worker: its name; by default the configured one. A name that is new is a new worker.
            timeout: seconds or such as "5m"; None: no limit; by default as configured.
            memory: bytes or such as "2G" for the worker with all its descendants.
            sandbox: a profile.
            header: of the cell that the output belongs to.
            allow_stdin: the code may ask the user.
            collect: keep the output for ``Result``.
            late: is called on the portal's thread with what threads and tasks of the code say after
                its end; must not block. By default that is dropped.
            asker: who asks, where it is not the user: the name that an agent gives itself.
            concurrent: run it beside what the worker runs, on a subshell of its kernel.
            given: variables that the worker is given right before.
            kind: makes what is returned, with the arguments of a Delegation.
            on: where a worker that has not started lives: the address of a Dask scheduler, "local",
                a Dask client or its name; "here": this machine, as by default.

        Raises:
            ConfigError: an argument is wrong, or the worker lives elsewhere or with another policy.
            SandboxUnavailable: the worker's kind cannot be confined. Where this machine cannot
                enforce the profile, the run ends with it.
        """
        name = checked_worker(self.config.worker if worker is None else worker)
        seconds = self._checked_timeout(timeout)
        check_code(code, self.config.max_cell_bytes)
        size = _chosen_size(memory)
        self._check_runs_code(name)
        if name not in self.nodes.by_name:
            self._check_policy(size, sandbox)
        place = None if on is None else place_of(on)
        delegation = kind(
            name,
            code,
            post=self._portal.post,
            fall_back=lambda error: self._instructions(name, code, error),
            remember=self._remember,
            collect=collect,
            asker=asker,
        )

        def new_run(ask_for_commit: Sink) -> Run:
            run = Run(
                code,
                delegation.say,
                header=header,
                timeout=seconds,
                allow_stdin=allow_stdin,
                late=late,
                commit_requests=ask_for_commit,
            )
            run.is_concurrent = concurrent
            run.before = None if given is None else Push(*given, seconds, run.say)
            return run

        def submit() -> Future[Message]:
            if place is not None:
                self._portal.call(self.nodes.move(name, place))
            if size is not None or sandbox is not None:
                self._portal.call(self.nodes.change_policy(name, size, sandbox))
            return self._portal.submit(self._run(delegation, name, new_run))

        self._follow(delegation, name, submit)
        return delegation

    def submit(
        self,
        code: str,
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        memory: int | str | None = None,
        sandbox: str | None = None,
        values: Mapping[str, Any] | None = None,
        concurrent: bool = False,
        header: Mapping[str, Any] | None = None,
        sink: Sink = ignore,
        late: Sink | None = None,
        on: object = None,
    ) -> Job:
        """
        Start a job and return at once: a run that nobody waits for.

        Args:
            code: as for ``begin``, and so are the next ones.
            worker: its name.
            timeout: once its turn has come.
            memory: of the worker.
            sandbox: of the worker.
            values: variables that the worker is given right before, as they are now, by name.
            concurrent: do not wait for a turn; run beside what the worker runs.
            header: of the cell that the output belongs to.
            sink: is called on the portal's thread with what it says; must not block.
            late: is called with what its threads and tasks say after its end.
            on: where a worker that has not started lives.

        Raises:
            ConfigError: an argument is wrong, or the worker lives with another policy.
            TransferError: a value cannot be moved.
        """
        given = packed_copies(values, self.config.max_transfer) if values else None
        delegation = self.begin(
            code,
            worker=worker,
            timeout=timeout,
            memory=memory,
            sandbox=sandbox,
            header=header,
            late=late,
            concurrent=concurrent,
            given=given,
            kind=partial(JobDelegation, sink=sink),
            on=on,
        )
        assert isinstance(delegation, JobDelegation)
        job = self.jobs.add(code, delegation)
        delegation.when_over(job.conclude)
        return job

    def begin_tool(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        worker: str | None = None,
        timeout: float | str | None = TOOL_TIMEOUT,
        asker: str = "",
        kind: type[ToolDelegation] = ToolDelegation,
    ) -> ToolDelegation:
        """
        Call a tool and return at once.

        Args:
            tool: its name.
            arguments: by name.
            worker: its name; by default the configured one.
            timeout: seconds or such as "5m".
            asker: who asks, where it is not the user: the name that an agent gives itself.
            kind: the class of what is returned.

        Raises:
            ConfigError: the worker's name or the timeout is wrong, or code is too long.
        """
        name = checked_worker(self.config.worker if worker is None else worker)
        seconds = self._checked_timeout(timeout) or TOOL_TIMEOUT
        if tool == "execute" and isinstance(arguments.get("code"), str):
            check_length(arguments["code"], self.config.max_cell_bytes)
        asked = spelled_out(tool, arguments)
        delegation = kind(
            name,
            asked,
            post=self._portal.post,
            fall_back=lambda error: self._instructions(name, asked, error, language=""),
            remember=self._remember,
            collect=False,
            asker=asker,
        )

        if tool == "request_commit" and not self.is_server(name):
            delegation.follow(self._ask_for_commit(arguments))
            return delegation

        def submit() -> Future[ToolResult]:
            check_sendable(tool, arguments)
            return self._portal.submit(self._call(delegation, name, tool, arguments, seconds))

        self._follow(delegation, name, submit)
        return delegation

    def delegate(
        self,
        code: str,
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        sandbox: str | None = None,
        memory: int | str | None = None,
        raise_error: bool = True,
        on: object = None,
    ) -> Result | Instructions:
        """
        Run code in a worker and wait for it; arguments as ``begin``.

        Args:
            raise_error: False: an exception of the code is in ``Result.error`` only.

        Returns:
            What the run left, or Instructions where no worker could run it.

        Raises:
            RemoteError: the code raised; also an instance of the builtin exception of that name.
            NodeDied, NodeTimeout: the worker died, or the run reached its time limit.
            ConfigError: an argument is wrong.
        """

        def begin() -> Delegation:
            chosen: dict[str, Any] = {"sandbox": sandbox, "memory": memory, "on": on}
            return self.begin(code, worker=worker, timeout=timeout, **chosen)

        return _wait_for(begin, forgives=() if raise_error else RemoteError)

    def delegate_to_coder(
        self,
        task: str,
        details: str | Mapping[str, Any] = "",
        timeout: float | str | None = TOOL_TIMEOUT,
        *,
        worker: str | None = None,
    ) -> ToolResult | Instructions:
        """
        Have a worker run one of its tools.

        Args:
            task: the tool's name; read, search and write are short for read_file, search_files and
                save_file.
            details: its arguments, as a dict; or as text: ``key=value`` words with shell quoting,
                a JSON object, or the one obvious argument.
            timeout: seconds or such as "5m".
            worker: its name; by default the configured one.

        Returns:
            The tool's result, or Instructions where no worker could run it.

        Raises:
            ConfigError: the details make no sense.
            NodeDied, NodeTimeout: the worker died, or the tool took too long.
        """
        _check_task(task, details)
        refusal = self._refusal()
        if refusal is not None:
            shown = details if isinstance(details, str) else spelled_out("", details)
            return Instructions(f"{task} {shown}".strip(), refusal, language="")
        try:
            tool = self.find_tool(task, worker)
        except ToolError as error:
            return ToolResult.failure(str(error))
        arguments = read_details(tool, details) if isinstance(details, str) else details
        return _wait_for(
            lambda: self.begin_tool(tool.name, arguments, worker=worker, timeout=timeout)
        )

    def begin_push(
        self,
        values: Mapping[str, Any],
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        memory: int | str | None = None,
        sandbox: str | None = None,
        task: str = "",
        on: object = None,
    ) -> ValuesDelegation:
        """
        Give variables to a worker and return at once.

        Args:
            values: by name; leave them as they are until the end.
            worker: its name; by default the configured one. A name that is new is a new worker.
            timeout: seconds or such as "5m"; None: no limit; by default as configured.
            memory: as for ``begin``.
            sandbox: as for ``begin``.
            task: what they are for: the code that is shown where no worker can run.
            on: as for ``begin``.

        Raises:
            ConfigError: an argument is wrong, or the worker lives with another policy.
        """
        names = checked_names(values)

        def move(node: SwarmNode, seconds: float | None, **ears: Any) -> Coroutine[Any, Any, None]:
            return node.push(values, seconds, **ears)

        asked = f"push {', '.join(names)}"
        return self._begin_values(
            asked,
            move,
            worker=worker,
            timeout=timeout,
            memory=memory,
            sandbox=sandbox,
            task=task,
            place=None if on is None else place_of(on),
        )

    def begin_pull(
        self,
        names: Sequence[str],
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        allow_pickle: bool = False,
    ) -> ValuesDelegation:
        """
        Take over variables of a worker and return at once.

        Args:
            names: of the variables.
            worker: its name; by default the configured one.
            timeout: as for ``begin_push``.
            allow_pickle: what has no safe form is unpickled; for a worker of the profile open.

        Raises:
            ConfigError: an argument is wrong, or the worker is confined and its pickles are not
                opened.
        """
        names = checked_names(names)
        if allow_pickle:
            self.check_pickles(worker)

        def move(
            node: SwarmNode, seconds: float | None, **ears: Any
        ) -> Coroutine[Any, Any, dict[str, Any]]:
            return node.pull(names, seconds, allow_pickle=allow_pickle, **ears)

        return self._begin_values(f"pull {', '.join(names)}", move, worker=worker, timeout=timeout)

    def push(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        worker: str | None = None,
        timeout: float | str | None = "default",
        **named: Any,
    ) -> None:
        """
        Give variables to a worker: all of them, or none.

        Args:
            values: by name, for names that are arguments here, too.
            worker: its name; by default the configured one. A name that is new is a new worker.
            timeout: seconds or such as "5m"; None: no limit; by default as configured.
            named: further values.

        Raises:
            ConfigError: an argument is wrong.
            TransferError: a value cannot be moved.
            NodeStartError, CircuitOpen: no worker can run.
            NodeDied, NodeTimeout: the worker died, or it took too long.
        """
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(
                "Give values with their names: push(data=data), push({'data': data})."
            )
        given = {**(values or {}), **named}
        self._moved(lambda: self.begin_push(given, worker=worker, timeout=timeout), worker)

    def pull(
        self,
        *names: str,
        worker: str | None = None,
        timeout: float | str | None = "default",
        allow_pickle: bool = False,
    ) -> dict[str, Any]:
        """
        Take over variables of a worker: all of them, or none.

        Args:
            names: of the variables.
            worker: its name; by default the configured one.
            timeout: seconds or such as "5m"; None: no limit; by default as configured.
            allow_pickle: what has no safe form is unpickled, which runs what the worker wants;
                only for a worker of the profile open.

        Returns:
            The values, by name.

        Raises:
            ConfigError: an argument is wrong, or the worker is confined and its pickles are not
                opened.
            TransferError: there is no such variable, or it cannot be moved.
            NodeStartError, CircuitOpen: no worker can run.
            NodeDied, NodeTimeout: the worker died, or it took too long.
        """

        def begin() -> ValuesDelegation:
            return self.begin_pull(names, worker=worker, timeout=timeout, allow_pickle=allow_pickle)

        return self._moved(begin, worker)

    def check_pickles(self, worker: str | None, sandbox: str | None = None) -> None:
        """
        See that a worker's pickles may be opened.

        Args:
            worker: its name; None: the configured one.
            sandbox: the profile that is chosen for it, if any.

        Raises:
            ConfigError: it is confined.
        """
        name = self.config.worker if worker is None else worker
        node = self.nodes.by_name.get(name)
        lives_under = node.policy.profile if isinstance(node, SwarmNode) else self.profile_of(name)
        check_pickles(name, sandbox or lives_under)

    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        workers: int | None = None,
        timeout: float | str | None = "default",
        ordered: bool = True,
        return_exceptions: bool = False,
        sandbox: str | None = None,
        memory: int | str | None = None,
        progress: bool = True,
        engine: str = "local",
        address: object = None,
        pure: bool = False,
    ) -> MapResults:
        """
        Call a function with each of some items, in many workers.

        Args:
            function: is called with one item; it goes to each worker once, with what it refers to.
            items: taken as they are needed, so there may be any number.
            workers: at most so many; by default as many as this process has processors.
            timeout: seconds or such as "5m" for each item; None: no limit; by default as
                configured.
            ordered: results come in the order of the items; else as they are completed.
            return_exceptions: what an item raised is its result, and is not raised.
            sandbox: a profile.
            memory: bytes or such as "2G" for each worker with all its descendants.
            progress: show how far it is, where it takes more than a second.
            engine: who runs the workers: "local", this hive; or "dask", a hive in each Dask worker
                of a cluster, whose results Dask unpickles here.
            address: of the cluster, as ``on`` of ``begin``; by default "local".
            pure: of a cluster: an item may be run again where a machine was lost with it.

        Returns:
            The results, one after the other. To ask for one may raise what its item raised, with
            the place of the item in ``index``, and go on afterwards. Results of confined workers
            are data; those of the profile open may be anything that can be pickled.

        Raises:
            ConfigError: an argument is wrong, or there is no room for a worker.
            TransferError: the function cannot be pickled.
            NodeStartError: no worker can run.
        """
        _check_callable(function)
        taken = Function.of(function)
        limits: dict[str, Any] = {"timeout": timeout, "sandbox": sandbox, "memory": memory}
        crew = self._crew(engine, address, workers=workers, pure=pure, **limits)
        return MapResults(
            crew,
            taken,
            items,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    def map_cell(
        self,
        code: str,
        items: Iterable[Any],
        *,
        values: Mapping[str, Any] | None = None,
        workers: int | None = None,
        timeout: float | str | None = "default",
        sandbox: str | None = None,
        memory: int | str | None = None,
        progress: bool = True,
        show: Callable[[Message], object] | None = None,
    ) -> MapResults:
        """
        Run code for each of some items, in many workers.

        Args:
            code: finds its item as ``item``; the value of its last expression is the result.
            items: as for ``map``.
            values: variables that each worker gets.
            workers: as for ``map``.
            timeout: as for ``map``.
            sandbox: as for ``map``.
            memory: as for ``map``.
            progress: as for ``map``.
            show: is called with what the code says; by default what it prints is printed.

        Returns:
            The results; what an item raised is its result.

        Raises:
            ConfigError: an argument is wrong, or there is no room for a worker.
            TransferError: a value cannot be sent.
            NodeStartError: no worker can run.
        """
        check_code(code, self.config.max_cell_bytes)
        limits: dict[str, Any] = {"timeout": timeout, "sandbox": sandbox, "memory": memory}
        function = Function.of_cell(code, values or {}, self.config.max_transfer)
        crew = self._crew("local", None, workers=workers, **limits)
        return MapResults(
            crew, function, items, return_exceptions=True, progress=progress, show=show
        )

    def executor(
        self,
        workers: int | None = None,
        *,
        timeout: float | str | None = "default",
        sandbox: str | None = None,
        memory: int | str | None = None,
        engine: str = "local",
        address: object = None,
    ) -> HiveExecutor:
        """
        An executor over many workers, for code that takes one; arguments as ``map``.

        Raises:
            ConfigError: an argument is wrong, or there is no room for a worker.
            NodeStartError: no worker can run.
        """
        limits: dict[str, Any] = {"timeout": timeout, "sandbox": sandbox, "memory": memory}
        return HiveExecutor(self._crew(engine, address, workers=workers, **limits))

    def known_tools(self, worker: str | None = None) -> Mapping[str, Tool]:
        """The tools of a worker by name, as far as they are known without asking it."""
        name = self.config.worker if worker is None else worker
        if name in self.nodes.by_name:
            return self.nodes.by_name[name].tools
        return {} if self.is_server(name) else BUILT_IN

    def list_tools(self, worker: str | None = None) -> list[Tool]:
        """
        Ask a worker for its tools, starting it where it has not started.

        Raises:
            ConfigError: there is no such worker.
            ToolError: it does not speak tools.
            NodeStartError, CircuitOpen, NodeDied, NodeTimeout: it cannot answer.
        """
        return self._on_worker(worker, self.nodes.tools, starts=True)

    def tool_problems(self, worker: str | None = None) -> tuple[str, ...]:
        """Why some tools were missing when a worker was last asked for them."""
        node = self.nodes.by_name.get(self.config.worker if worker is None else worker)
        return () if node is None else node.tool_problems

    def find_tool(self, task: str, worker: str | None = None) -> Tool:
        """
        The tool that a word means.

        Raises:
            ToolError: there is none; names the nearest.
        """
        known = self.known_tools(worker)
        name = task if self.is_server(worker) else full_name(task)
        has_more = self.is_server(worker) or (known is BUILT_IN and self.config.tool_modules)
        if name not in known and has_more:
            known = {tool.name: tool for tool in self.list_tools(worker)}
        if name not in known:
            problems = " ".join(["", *self.tool_problems(worker)])
            words = {*known} if self.is_server(worker) else {*known, *SHORT_NAMES}
            msg = f'There is no tool "{task}".{nearest(task, words)}{problems}'
            raise ToolError(msg)
        return known[name]

    def add(
        self,
        name: str,
        *,
        python: str | None = None,
        kernel: str | None = None,
        mcp: Sequence[str] | None = None,
    ) -> None:
        """
        Make a worker known that runs something else than this Python.

        Args:
            name: of the worker.
            python: path of another interpreter that has ipykernel.
            kernel: name of an installed kernelspec.
            mcp: the program, and its arguments, of an MCP server that talks through its standard
                input and output.

        Raises:
            ConfigError: not exactly one of them is given, it does not exist, or the name is taken.
        """
        checked_worker(name)
        if [python, kernel, mcp].count(None) != 2:
            msg = (
                f"Say what worker {name!r} runs: --python PATH, --kernel KERNELSPEC or "
                "--mcp PROGRAM [ARGUMENT ...]."
            )
            raise ConfigError(msg)
        if python is not None:
            chosen = kernels.of_interpreter(python)
        elif kernel is not None:
            chosen = kernels.of_kernelspec(kernel)
        else:
            chosen = kernels.of_server(mcp or (), worker_environment(self.config))
        known = self._kernels.get(name)
        if known == chosen:
            return
        if known is not None or name in self.nodes.by_name:
            msg = f'There is a worker "{name}" already, that runs something else. Rename one.'
            raise ConfigError(msg)
        self._kernels[name] = chosen

    def is_server(self, name: str | None) -> bool:
        """Whether a worker is an MCP server, which has tools alone."""
        kernel = self._kernels.get(self.config.worker if name is None else name)
        return kernel is not None and kernel.protocol == "mcp"

    def profile_of(self, name: str | None) -> str:
        """The sandbox profile that a worker is started with where none is chosen for it."""
        kernel = self._kernels.get(self.config.worker if name is None else name, Kernel())
        return first_policy(kernel, self.config).profile

    def watch_agents(self, sink: Sink) -> None:
        """
        Have one sink told what agents ask for from now on, and what that says.

        Args:
            sink: is called on the portal's thread, at a pace that front-ends can follow; must not
                block. ``ignore`` ends the watching.
        """

        async def watch() -> None:
            self._watching.expect(_AGENTS, sink)

        self._portal.call(watch())

    def start(self, name: str | None = None) -> NodeStatus:
        """
        Have a worker ready.

        Raises:
            NodeStartError, CircuitOpen: it could not be started; the message says why.
        """
        return self._on_worker(name, self.nodes.start, starts=True)

    def stop(self, name: str | None = None) -> None:
        """End a worker; the next cell for it starts a new one."""
        self._on_worker(name, self.nodes.stop)

    def restart(
        self,
        name: str | None = None,
        *,
        memory: int | str | None = None,
        sandbox: str | None = None,
    ) -> NodeStatus:
        """
        End a worker and start it anew, with another policy where one is given.

        Raises:
            ConfigError: there is no such policy; the worker lives on.
            NodeStartError, CircuitOpen: it could not be started; the message says why.
        """
        size = _chosen_size(memory)

        async def again(worker: str) -> NodeStatus:
            node = self.nodes.get(worker)
            node.policy = node.changed_policy(size, sandbox)
            return await self.nodes.restart(worker)

        return self._on_worker(name, again, starts=True)

    def interrupt(self, name: str | None = None) -> bool:
        """Stop what a worker runs now, as Ctrl-C does; False where nothing runs."""
        return self._on_worker(name, self.nodes.interrupt)

    def health(self, name: str | None = None) -> str:
        """How a worker is, asked without waiting for what it runs; see SwarmNode.health_check."""
        return self._on_worker(name, self.nodes.health)

    def complete(self, name: str, code: str, position: int) -> Completions | None:
        """
        Complete a word from what a worker has, without starting it.

        Args:
            name: of the worker.
            code: with the word.
            position: of the cursor, in characters.

        Returns:
            None where the worker has not started, runs something else than Python, or does not
            answer at once.
        """
        return self._ask_aside(name, lambda node: node.complete(code, position))

    def inspect(self, name: str, code: str, position: int, detail: int = 0) -> str | None:
        """
        Tell of a name that a worker has, without starting it.

        Args:
            name: of the worker.
            code: with the name.
            position: of the cursor, in characters.
            detail: 0, or 1 for its source.

        Returns:
            Text, "" where there is nothing to tell; None as ``complete``.
        """
        return self._ask_aside(name, lambda node: node.inspect(code, position, detail))

    def pass_on(self, worker: str, message: Message, header: Mapping[str, Any], sink: Sink) -> None:
        """
        Pass on what a front-end says to a comm of a worker; returns at once.

        Args:
            worker: its name.
            message: a comm_msg or comm_close.
            header: that it came with.
            sink: is called on the portal's thread with what the worker says because of it, and at
                last with a "status" that is idle; must not block.
        """
        node = self.nodes.by_name.get(worker)
        if isinstance(node, SwarmNode):
            self._portal.post(lambda: node.pass_on(message, header, sink))

    def _ask_aside(
        self, name: str, ask: Callable[[SwarmNode], Coroutine[Any, Any, _T | None]]
    ) -> _T | None:
        node = self.nodes.by_name.get(name)
        if not isinstance(node, SwarmNode):
            return None

        async def in_time() -> _T | None:
            with contextlib.suppress(TimeoutError, HiveError):
                async with asyncio.timeout(_AT_ONCE):
                    return await ask(node)
            return None

        try:
            return self._portal.call(in_time())
        except (HiveError, RuntimeError):  # closed meanwhile; the system gives no further thread
            return None

    def workers(self) -> list[str]:
        """Names of all known workers, started or not."""
        return sorted({*self.nodes.by_name, *self._kernels, self.config.worker})

    def logs(self, name: str | None = None, lines: int = 50) -> str:
        """
        The last lines of a worker's own log, as far as they are in its last MB.

        Raises:
            ConfigError: there is no such worker, or ``lines`` is below 1.
        """
        if lines < 1:
            msg = f"{lines} is no number of lines. Say 1 or more."
            raise ConfigError(msg)
        return self._on_worker(name, lambda worker: self.nodes.log(worker, lines))

    def history(self) -> list[RunRecord]:
        """The runs of this hive, oldest first."""
        return list(self._history)[-self.config.history_size :]

    def swarm_status(self) -> SwarmStatus:
        """All workers as plain values that render themselves."""
        live = self.nodes.by_name and not self._closed
        return self._swarm_status(self._portal.call(self.nodes.statuses()) if live else [])

    @cached_property
    def commits(self) -> Commits:
        """
        What there is to do with commits; on the caller's thread, as git and the ledger block.

        Raises:
            AuthorizationError: this is a worker.
        """
        # SQLite and the guard cost as much as the rest of this module, and many never commit
        from hive_jupyter.commits import Commits

        return Commits(self.config, self._room_for_hooks)

    @property
    def guard(self) -> AuthorizationGuard:
        """The requests, and a human's answers: ``guard.approve(request.id)`` gives the token."""
        return self.commits.guard

    def request_commit(
        self,
        message: str,
        paths: Sequence[str | os.PathLike[str]] | None = None,
        *,
        requester: Requester | None = None,
        supersedes: str | None = None,
    ) -> CommitRequest:
        """
        Freeze content of the working folder's project and ask for its commit.

        Args:
            message: of the commit.
            paths: files and folders, relative to the working folder, whose present content is to
                be committed. None: what is staged, or, with nothing staged, the changes of tracked
                files.
            requester: who asks; by default the user.
            supersedes: the id of a waiting request in whose place this one comes.

        Raises:
            RepositoryError: there is nothing to commit, something of it cannot be committed, or a
                hook refuses it.
            ConfigError: the message cannot be.
            AuthorizationError: the asker may not ask for more, or this is a worker.
            LedgerError: the ledger cannot be written.
        """
        request, _ = self.commits.request(
            message, paths, requester=requester, supersedes=supersedes
        )
        return request

    def commit(self, token: str) -> str:
        """
        Make the commit that a human approved.

        Args:
            token: what ``guard.approve`` gave; it is used up.

        Returns:
            The new commit's hash. The branch has it.

        Raises:
            Superseded: the branch moved since the request was made.
            AuthorizationError: the token is not taken.
            RepositoryError: git fails. As long as the token was not spent it may be used again.
            LedgerError: the ledger cannot be written.
        """
        made = self.commits.commit(token)
        if made.left:
            warnings.warn(made.left, stacklevel=2)
        return made.commit

    def requests(self) -> list[AnyRequest]:
        """
        Requests that wait for a human, or for their approval to be used, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self.commits.open()

    def panel(self) -> Panel:
        """
        A panel for a notebook: workers, requests, and buttons that work while a cell runs.

        Any number of them show the same. In a terminal it is a table.

        Raises:
            NodeStartError: this process can have no workers, so that there is nothing to show.
            LedgerError: the ledger cannot be read.
        """
        from hive_jupyter.panel import Panel

        return Panel(self, self._feed_of_panels())

    def _feed_of_panels(self) -> Feed:
        from hive_jupyter.panel.feed import Feed

        if self._feed is None or self._feed[1].done():
            feed = Feed(self)
            self._feed = (feed, self.serve(feed.run))
        feed, running = self._feed
        if running.done():
            running.result()
        return feed

    def doctor(self) -> Report:
        """
        What this machine offers to workers and what confines them, each proven by a probe.

        A worker of each confined profile is started for that, tries what it is to be kept from, and
        is ended; no other worker is touched, and no status or history tells of them. It takes about
        two seconds, and never raises because of what it finds.
        """
        reason = self._refusal()
        if reason is None:
            try:
                return self._examine_with_workers()
            except Exception as error:  # no folder, no space, no thread, a closed hive, a fork, ...
                reason = str(error) or type(error).__name__
        return Report((*examine(), *confinement.untried(reason)))

    def checked(self, name: str | None, *, starts: bool = False) -> str:
        """
        Look up a worker's name.

        Args:
            name: of a worker; None: the configured one.
            starts: it is to be started.

        Raises:
            ConfigError: there is no worker of that name.
            NodeStartError: it is to be started, and no worker is here.
        """
        worker = self._known(name)
        refusal = self._refusal() if starts else None
        if refusal is not None:
            raise NodeStartError(refusal, node=worker)
        return worker

    def close(self) -> None:
        """End all workers and the portal. Idempotent; in a forked child it does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = self.nodes.is_closing = True
        atexit.unregister(self.close)
        self._shadows.remove()
        try:
            if self._portal.is_open:
                with contextlib.suppress(HiveError):
                    self._portal.finish(self._close())
        finally:
            self._portal.close()

    # On the portal's loop, also for a server there

    async def status_of_workers(self) -> SwarmStatus:
        """All workers as plain values."""
        return self._swarm_status(await self.nodes.statuses())

    def overhear(self, message: Message) -> None:
        """Tell whoever watches what an agent asks for, or is told."""
        self._watching.take(_AGENTS, message)

    # On any thread

    def _examine_with_workers(self) -> Report:
        if not system.IS_LINUX:
            return self._portal.call(self._examine(dict.fromkeys(confinement.PROFILES)))
        with contextlib.ExitStack() as stack:
            targets = {
                profile: stack.enter_context(confinement.new_targets())
                for profile in confinement.PROFILES
            }
            return self._portal.call(self._examine(targets))

    def _follow(
        self, delegation: BaseDelegation[Any], name: str, submit: Callable[[], Future[Any]]
    ) -> None:
        """Have a delegation follow what is submitted, or the reason why nothing can be."""
        refusal = self._refusal()
        if refusal is not None:
            delegation.follow(_failed(NodeStartError(refusal, node=name)))
            return
        try:
            delegation.follow(submit())
        except NodeStartError as error:
            delegation.follow(_failed(error))
        except ToolError as error:
            delegation.follow(_done(ToolResult.failure(str(error))))
        except RuntimeError as error:  # the system gives no further thread
            msg = f'Worker "{name}" could not be started: {error}'
            delegation.follow(_failed(NodeStartError(msg, node=name)))

    def _begin_values(
        self,
        asked: str,
        move: Callable[..., Coroutine[Any, Any, dict[str, Any] | None]],
        *,
        worker: str | None,
        timeout: float | str | None,
        memory: int | str | None = None,
        sandbox: str | None = None,
        task: str = "",
        place: Place | None = None,
    ) -> ValuesDelegation:
        name = checked_worker(self.config.worker if worker is None else worker)
        seconds = self._checked_timeout(timeout)
        size = _chosen_size(memory)
        if self.is_server(name):
            msg = f'Worker "{name}" is an MCP server: it has tools, and no variables.'
            raise ConfigError(msg)
        if name not in self.nodes.by_name:
            self._check_policy(size, sandbox)
        delegation = ValuesDelegation(
            name,
            asked,
            post=self._portal.post,
            fall_back=lambda error: self._instructions(
                name, task or asked, error, language=None if task else ""
            ),
            remember=self._remember,
            collect=False,
        )

        async def work() -> dict[str, Any]:
            node = self.nodes.running_code(name)
            moved = await move(
                node,
                seconds,
                sink=delegation.say,
                began=lambda run: delegation.attach(run, node),
            )
            return moved or {}

        def submit() -> Future[dict[str, Any]]:
            if place is not None:
                self._portal.call(self.nodes.move(name, place))
            if size is not None or sandbox is not None:
                self._portal.call(self.nodes.change_policy(name, size, sandbox))
            return self._portal.submit(work())

        self._follow(delegation, name, submit)
        return delegation

    def _moved(self, begin: Callable[[], ValuesDelegation], worker: str | None) -> dict[str, Any]:
        """What was moved; where no worker can run there is nothing to go on with."""
        outcome = _wait_for(begin)
        if not isinstance(outcome, Instructions):
            return outcome
        name = self.config.worker if worker is None else worker
        if outcome.retry_at is not None:
            raise CircuitOpen(outcome.reason, node=name, retry_at=outcome.retry_at)
        raise NodeStartError(outcome.reason, node=name)

    def _crew(
        self,
        engine: str,
        address: object,
        *,
        workers: int | None,
        timeout: float | str | None,
        sandbox: str | None,
        memory: int | str | None,
        pure: bool = False,
    ) -> Crew:
        """
        Who does the work of a map or an executor.

        Raises:
            ConfigError: an argument is wrong, or there is no room for a worker.
            NodeStartError: no worker can run.
        """
        check_engine(engine, address)
        seconds = self._checked_timeout(timeout)
        policy = self.config.policy(sandbox, _chosen_size(memory))
        refusal = self._refusal()
        if refusal is not None:
            raise NodeStartError(refusal, node="map")
        if engine == "dask":
            check_profile(sandbox)
            place = place_of(LOCAL if address is None else address)
            work = Work(policy, seconds, None if workers is None else checked_count(workers), pure)
            cluster = self._portal.call(self._cluster(place))
            return DaskCrew(self._portal, cluster, self.config, work)
        count = checked_count(workers, self.config.max_workers)
        return LocalCrew(
            self._portal,
            self.config,
            lambda sink: self.nodes.make_pool(count, policy, seconds, sink),
        )

    def _ask_for_commit(self, arguments: Mapping[str, Any]) -> Future[ToolResult]:
        """The user's own call of the tool that is the host's."""
        try:
            return _done(self.commits.serve_request(arguments))
        except HiveError as error:
            return _done(ToolResult.failure(str(error)))

    @contextlib.contextmanager
    def _room_for_hooks(self) -> Iterator[Room]:
        """
        A place for the user's hooks for commits.

        Raises:
            HiveError: there is none.
        """
        from hive_jupyter.guard.hooks import Room

        refusal = self._refusal()
        if refusal is not None:
            raise NodeStartError(refusal, node=_HOOKS)
        try:
            folder = self._portal.call(self._make_room())
        except RuntimeError as error:  # the system gives no further thread
            msg = f"No worker can be started: {error}"
            raise NodeStartError(msg, node=_HOOKS) from error

        def run(task: Task) -> Mapping[str, Any]:
            try:
                return self._portal.call(self._run_hooks(folder, task))
            except CancelledError:
                raise HiveError("This hive was closed meanwhile.") from None

        try:
            yield Room(str(folder), run)
        finally:
            with contextlib.suppress(HiveError):
                self._portal.finish(self._leave_room(folder))
            remove_tree(folder)

    def _remember(self, run: RunRecord) -> None:
        self._history.append(run)
        while len(self._history) > self.config.history_size:
            self._history.popleft()

    def _swarm_status(self, statuses: list[NodeStatus]) -> SwarmStatus:
        workers = {status.name: plain_values(status) for status in statuses}
        for name in set(self.workers()) - set(workers):
            kernel = self._kernels.get(name, Kernel())
            policy = first_policy(kernel, self.config)
            workers[name] = plain_values(never_used(name, kernel, policy))
        notes = [refusal] if (refusal := self._refusal()) else []
        notes += [] if refusal or system.IS_LINUX else [system.NOTE]
        notes += [
            f"{server.interpreter}: no zygote, so workers start slowly: {server.no_fork_because}"
            for server in self.nodes.servers or ()
            if server.no_fork_because
        ]
        if staff := self.nodes.staff:
            notes.append(f"workers of pools: {len(staff)}, {staff.working} of them at work")
        notes += [*self._shadows.told, *self.nodes.lookout.notes]
        return SwarmStatus(
            workers=dict(sorted(workers.items())), direct=self.config.direct, notes=notes
        )

    def _refusal(self) -> str | None:
        """Why no worker is to be started at all, or None."""
        inability = self._inability()
        if inability is None and not self.config.direct:
            return TURNED_OFF
        return inability

    def _inability(self) -> str | None:
        """Why this process cannot have workers, or None."""
        if os.environ.get(WORKER_VARIABLE):
            return (
                "This is a worker already, and workers do not delegate. Run the code as it is, or "
                "delegate from the notebook."
            )
        if not system.HAS_WORKERS:
            return "Workers run on Linux, macOS and the like, not on this system."
        lack = None if self._portal.is_open else lack_of_descriptors(_LOOPS_DESCRIPTORS)
        return None if lack is None else f"No worker can be started: {lack}"

    def _add_configured(self, name: str, entry: Any) -> None:
        checked_worker(name)
        if not isinstance(entry, Mapping) or set(entry) not in ({"python"}, {"kernel"}, {"mcp"}):
            msg = (
                f'The setting workers says {entry!r} of "{name}". Say what it runs: '
                '{"kernel": "KERNELSPEC"}, {"python": "/path/of/python"} or '
                '{"mcp": ["program", "argument"]}.'
            )
            raise ConfigError(msg)
        self.add(name, **entry)

    def _check_policy(self, memory: int | None, sandbox: str | None) -> None:
        """See that a new worker can have it."""
        self.config.policy(sandbox, memory)

    def _check_runs_code(self, name: str) -> None:
        if self.is_server(name):
            msg = (
                f'Worker "{name}" is an MCP server: it has tools, and runs no code. '
                f"`%delegate -w {name} TOOL ...` calls one; `%hive tools -w {name}` lists them."
            )
            raise ConfigError(msg)

    def _known(self, name: str | None) -> str:
        worker = checked_worker(self.config.worker if name is None else name)
        if worker not in self.workers():
            msg = f'There is no worker "{worker}".{nearest(worker, self.workers())}'
            raise ConfigError(msg)
        return worker

    def _checked_timeout(self, timeout: float | str | None) -> float | None:
        if timeout == "default":
            limit: float | None = self.config.timeout
            return limit
        return as_seconds(timeout)

    def _instructions(
        self, worker: str, asked: str, error: Exception, language: str | None = None
    ) -> Instructions:
        kernel = self._kernels.get(worker, Kernel())
        return Instructions(
            asked,
            str(error),
            language=kernel.language if language is None else language,
            retry_at=error.retry_at if isinstance(error, CircuitOpen) else None,
        )

    def _on_worker(
        self,
        name: str | None,
        work: Callable[[str], Coroutine[Any, Any, _T]],
        *,
        starts: bool = False,
    ) -> _T:
        worker = self.checked(name, starts=starts)
        try:
            return self._portal.call(work(worker))
        except RuntimeError as error:  # the system gives no further thread
            msg = f'Worker "{worker}" could not be reached: {error}'
            raise NodeStartError(msg, node=worker) from error

    # On the portal's loop

    async def _cluster(self, place: Place) -> DaskProvisioner:
        return self.nodes.cluster(place)

    async def _serve(self, server: Callable[[Path], Coroutine[Any, Any, _T]]) -> _T:
        with self._ended_with_the_hive():
            if self._closed:
                raise asyncio.CancelledError
            try:
                folder = self.nodes.runtime_folder().path
            except Exception as error:
                msg = f"This hive has no folder for its runtime files: {error}"
                raise NodeStartError(msg, node=self.config.worker) from error
            return await server(folder)

    @contextlib.contextmanager
    def _ended_with_the_hive(self) -> Iterator[None]:
        """While entered, closing the hive cancels this task, and waits for its end."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            yield
        finally:
            self._serving.discard(task)

    async def _run(
        self, delegation: Delegation, name: str, new_run: Callable[[Sink], Run]
    ) -> Message:
        node = self.nodes.running_code(name)
        run = new_run(lambda asked: self._take_commit_request(node, run, asked))
        delegation.attach(run, node)
        return await node.execute(run)

    def _keep_death(self, death: NodeDied | NodeTimeout) -> None:
        self._do_beside(self._record_death(death))

    async def _record_death(self, death: NodeDied | NodeTimeout) -> None:
        """Have the ledger tell of a worker's death, now where the hive is closed meanwhile."""
        with contextlib.suppress(asyncio.CancelledError):
            # the next cell's fresh worker comes first
            await asyncio.sleep(_QUIET)
        await self._record("died", death.node or "", str(death).partition(". ")[0])

    async def _record(self, event: str, worker: str, happened: str) -> None:
        try:
            await apart(lambda: self.commits.record(event, worker, happened))
        except HiveError as error:
            log.warning("the ledger does not tell: %s: %s", happened, error)

    def _take_commit_request(self, node: SwarmNode, run: Run, asked: Message) -> None:
        self._do_beside(self._ask_for_worker(node, run, asked))

    def _do_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the loop do something beside; closing the hive ends it."""
        task = asyncio.create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(note_failure)

    async def _ask_for_worker(self, node: SwarmNode, run: Run, asked: Message) -> None:
        """Ask for a commit in a worker's name; its code waits for what is answered."""
        try:
            text = await apart(
                lambda: self.commits.serve_worker(asked.content, node.name, node.root)
            )
            answer = {"text": text}
        except Exception as error:
            log.info("worker %s got no commit: %r", node.name, error)
            answer = {"error": str(error)[:_LONGEST_ANSWER]}
        node.answer_commit(run, asked, answer)

    async def _make_room(self) -> Path:
        return self.nodes.runtime_folder().worker_folder()

    async def _run_hooks(self, folder: Path, task: Task) -> Mapping[str, Any]:
        """Have the user's hooks run in a worker of their own, those of one commit at a time."""
        running = asyncio.current_task()
        assert running is not None
        self._in_rooms[folder] = running
        with self._ended_with_the_hive():
            async with self._hooks_turn:
                return await ask_throwaway(
                    _HOOKS,
                    "run_hooks_request",
                    task.content,
                    config=self.config,
                    servers=self.nodes.fork_servers(),
                    context=self.nodes.sockets(),
                    folder=task.folder,
                    readable=task.readable,
                    seconds=task.seconds,
                )

    async def _leave_room(self, folder: Path) -> None:
        """Wait for the end of a worker there, also where nobody waits for its answer any more."""
        running = self._in_rooms.pop(folder, None)
        if running is not None:
            await asyncio.wait({running})

    async def _call(
        self,
        delegation: ToolDelegation,
        name: str,
        tool: str,
        arguments: Mapping[str, Any],
        timeout: float,
    ) -> ToolResult:
        node = self.nodes.get(name)
        return await node.call_tool(
            tool,
            arguments,
            timeout,
            sink=delegation.say,
            began=lambda run: delegation.attach(run, node),
        )

    async def _examine(self, targets: Mapping[str, Targets | None]) -> Report:
        with self._ended_with_the_hive():
            return await self.nodes.examine(targets)

    async def _close(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for job in await self.jobs.stop(self.config.interrupt_grace):
            happened = f"Job {job.id} was stopped, because its hive was closed: {job.title}"
            await self._record("stopped", job.worker, happened)
        await self.nodes.close()
        self.jobs.show_all()


def _done(result: _T) -> Future[_T]:
    future: Future[_T] = Future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _chosen_size(memory: object) -> int | None:
    """Bytes; 0 for no limit; None where nothing was chosen."""
    return None if memory is None else as_bytes(memory) or 0


def _check_task(task: object, details: object) -> None:
    if not isinstance(task, str) or not isinstance(details, str | Mapping):
        wrong = details if isinstance(task, str) else task
        msg = f"A tool's name is text, its details text or a dict, and {wrong!r} is none."
        raise ConfigError(msg)


def _check_callable(function: object) -> None:
    if not callable(function):
        msg = f"A map calls a function, and {type(function).__name__!r} objects cannot be called."
        raise ConfigError(msg)


def _wait_for(
    begin: Callable[[], BaseDelegation[_T]],
    forgives: type[HiveError] | tuple[type[HiveError], ...] = (),
) -> _T | Instructions:
    """Begin something and wait for its end; what is forgiven is told by its result alone."""
    delegation = None
    try:
        with deferring_sigint():
            delegation = begin()
        return delegation.outcome()
    except forgives:
        if delegation is None or delegation.result is None:
            raise
        return delegation.result
    except KeyboardInterrupt:  # where nobody has taken note of it yet
        if delegation is not None:
            delegation.abandon()
        raise
