"""
A worker's life, as every node keeps it, whatever kind of worker it holds.

::

    cold ── begin ──▶ starting ──▶ idle ◀──▶ busy ──▶ dead ── begin ──▶ starting
                          └────── too many failures ──▶ resting
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hive_jupyter.config import TURNED_OFF, HiveConfig
from hive_jupyter.errors import CircuitOpen, HiveError, NodeDied, NodeStartError, NodeTimeout
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.swarm.breaker import CircuitBreaker
from hive_jupyter.swarm.launch import Kernel, Launch, drift, snapshot
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.metrics import Metrics, MetricsSnapshot
from hive_jupyter.swarm.process import Process, note_failure
from hive_jupyter.swarm.run import Run
from hive_jupyter.units import format_duration

log = logging.getLogger(__name__)

# A worker that is not there after this long is spoken of.
PROGRESS_AFTER = 1.0


@dataclass(frozen=True)
class NodeStatus:
    """
    A node at one moment.

    Attributes:
        name: of the worker.
        state: "cold", "starting", "idle", "busy", "dead" or "resting" (circuit open).
        kernel: what runs in it.
        sandbox: the policy's profile.
        memory_limit: bytes or None.
        pid: of the worker's process, or None.
        uptime: seconds since it was ready, or None.
        circuit: "closed", "open" or "half-open".
        retry_in: seconds until an open circuit lets a start through.
        queue: runs that wait for their turn.
        running: what it runs, in a line; of several, what it has run longest. None: nothing.
        running_for: seconds since that began, or None.
        memory: bytes of the worker and its descendants, pages of files left out, or None.
        cpu_seconds: processor time of the worker, or None.
        metrics: calls, successes, failures, restarts, latencies, last error.
        drift: what changed in the host since the worker took its snapshot.
        place: where it lives, where that is another machine; else "".
    """

    name: str
    state: str
    kernel: str
    sandbox: str
    memory_limit: int | None
    pid: int | None
    uptime: float | None
    circuit: str
    retry_in: float
    queue: int
    running: str | None
    running_for: float | None
    memory: int | None
    cpu_seconds: float | None
    metrics: MetricsSnapshot
    drift: tuple[str, ...]
    place: str = ""


class Watcher:
    """Is told when a worker's code may write files, and when it has; this one takes no notice."""

    async def begins(self, launch: Launch) -> Callable[[], None]:  # noqa: ARG002  of interest to others
        """
        A worker is being started, and runs no code of the user before this is over.

        Returns:
            What is to be called when that worker has ended, with all that it started.
        """
        return lambda: None

    def rests(self) -> None:
        """A run is over; must not block."""


class Life:
    """
    The starts of one worker, what it was asked, and how often it failed.

    Belongs to the loop on which it is first asked for anything.

    Args:
        name: of the worker.
        config: the settings.
        what_next: the sentence with which the news of its death ends.
        died: is called on the loop with the news of each death that nobody wanted; must not block.
        watcher: is told what it does.

    Attributes:
        metrics: what happened to it.
        breaker: says whether it may be started.
        is_closed: it will not be started again.
    """

    def __init__(
        self,
        name: str,
        config: HiveConfig,
        what_next: str,
        died: Callable[[NodeDied | NodeTimeout], object] = id,
        watcher: Watcher | None = None,
    ) -> None:
        self._last_error: Exception | None = None
        self.metrics = Metrics()
        self.breaker = CircuitBreaker(config)
        self.is_closed = False
        self._name = name
        self._config = config
        self._what_next = what_next
        self._died = died
        self._watcher = watcher or Watcher()
        self._gone: asyncio.Event | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._launch: Launch | None = None
        self._starting: asyncio.Task[None] | None = None
        self._starts = 0
        self._ready_since = 0.0
        self._worked_last = 0.0

    @property
    def idle_since(self) -> float:
        """When it was last ready, or done with something, as ``time.monotonic``."""
        return max(self._ready_since, self._worked_last)

    @property
    def last_error(self) -> Exception | None:
        """Why the latest connect, run or call failed, or None."""
        return self._last_error

    @last_error.setter
    def last_error(self, error: Exception | None) -> None:
        # that which is raised gets a traceback, whose frames hold what it was about
        self._last_error = copy.copy(error)

    def belong_here(self) -> None:
        """
        See that this is the worker's loop; the first one is.

        Raises:
            HiveError: it is another one.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            msg = f'Worker "{self._name}" belongs to another event loop; await it there.'
            raise HiveError(msg)

    # Starting

    def require_open(self) -> None:
        """
        See that the worker may be used at all.

        Raises:
            HiveError: it is closed, or belongs to another loop.
            NodeStartError: the user has turned workers off.
        """
        self.belong_here()
        if self.is_closed:
            msg = f'Worker "{self._name}" is closed, with its hive.'
            raise HiveError(msg)
        if not self._config.direct:
            raise NodeStartError(TURNED_OFF, node=self._name)

    @property
    def is_starting(self) -> bool:
        """Whether a start is under way; there is one at a time, whoever waits for it."""
        return self._starting is not None and not self._starting.done()

    def begin(self, start: Callable[[Launch], Coroutine[Any, Any, None]], launch: Launch) -> None:
        """
        Begin a start, if the circuit lets it through; ``started`` waits for its end.

        Args:
            start: starts the worker, and tells the breaker how that ended.
            launch: what the worker takes over from the host.

        Raises:
            CircuitOpen: it failed too often, and rests.
        """
        if not self.breaker.allow():
            retry_at = time.time() + self.breaker.retry_in
            msg = (
                f'Worker "{self._name}" {self._failed_and_rests()}. '
                f"Last: {self.metrics.last_error or 'unknown'}"
            )
            raise CircuitOpen(msg, node=self._name, retry_at=retry_at)
        self._launch = launch
        self._starting = asyncio.create_task(self._start(start, launch))
        self._starting.add_done_callback(note_failure)

    async def _start(
        self, start: Callable[[Launch], Coroutine[Any, Any, None]], launch: Launch
    ) -> None:
        # beside the start, which waits for other processes; no code of the user runs before both
        beginning = asyncio.create_task(self._watcher.begins(launch))
        try:
            await start(launch)
            ended = await beginning
        except BaseException:
            if not beginning.cancel():
                beginning.result()()
            raise
        assert self._gone is not None
        watching = asyncio.create_task(self._see_end(self._gone, ended))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    @staticmethod
    async def _see_end(gone: asyncio.Event, ended: Callable[[], None]) -> None:
        await gone.wait()
        ended()

    async def started(self) -> None:
        """
        Wait for the start that is under way.

        Raises:
            NodeStartError: it failed, or the worker was stopped meanwhile.
        """
        starting = self._starting
        assert starting is not None
        await asyncio.wait({starting})
        if starting.cancelled():
            msg = f'Worker "{self._name}" was stopped while it started.'
            raise NodeStartError(msg, node=self._name)
        starting.result()

    async def give_up_start(self) -> None:
        """End the start that is under way, if there is one."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})

    def note_start(self, gone: asyncio.Event) -> None:
        """
        The worker is ready.

        Args:
            gone: is set when it has ended, with all that it started.
        """
        self._gone = gone
        if self._starts:
            self.metrics.restart()
        self._starts += 1
        self._ready_since = time.monotonic()

    async def reached(self, readiness: Awaitable[None]) -> bool:
        """Whether the worker could be had; ``last_error`` says why not."""
        self.last_error = None
        try:
            await readiness
        except HiveError as error:
            self.last_error = error
            log.info("%s", error)
            return False
        if self.breaker.state == "half-open":
            self.breaker.success()
        return True

    # Working

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Count what is asked of the worker, and keep the error in which that ends."""
        self.metrics.call()
        self.last_error = None
        try:
            yield
        except HiveError as error:
            self.last_error = error
            raise
        finally:
            self._worked_last = time.monotonic()
            self._watcher.rests()

    @contextlib.contextmanager
    def telling(self, run: Run) -> Iterator[None]:
        """Have a run say that its worker is being started, where that takes long."""
        told: list[str] = []

        def tell(text: str) -> None:
            told.append(text)
            run.say(Message("progress", {"text": text}))

        starting = f'Starting worker "{self._name}" ...'
        later = asyncio.get_running_loop().call_later(PROGRESS_AFTER, tell, starting)
        try:
            yield
        finally:
            later.cancel()
            if told:
                tell("")

    def succeed(self, seconds: float) -> None:
        """The worker answered; that the user's own code raised is an answer, too."""
        self.breaker.success()
        self.metrics.success(seconds)

    def fail(self, error: HiveError) -> None:
        """The worker failed; the error tells also where that was once too often."""
        self.breaker.failure()
        self.metrics.failure(str(error).removesuffix(self._what_next).strip())
        if isinstance(error, NodeDied | NodeTimeout):
            self._died(error)
        if self.breaker.state == "open":
            rests = f"It {self._failed_and_rests()}; until then you get instructions."
            error.args = (str(error).replace(self._what_next, rests),)
        self.last_error = error

    def _failed_and_rests(self) -> str:
        count = self.breaker.failures
        times = "once" if count == 1 else f"{count} times in a row"
        return f"failed {times} and rests for {format_duration(max(1.0, self.breaker.retry_in))}"

    # Telling

    def snapshot(self, kernel: Kernel, policy: SandboxPolicy, folder: str = "") -> Launch:
        """
        What the worker would take over from the host, now; see ``launch.snapshot``.

        Raises:
            NodeStartError: there is no working folder.
        """
        try:
            return snapshot(kernel, self._config, policy, folder)
        except FileNotFoundError:
            msg = (
                f'Worker "{self._name}" could not be started: the working folder does not exist '
                "any more. Make it again, or go to another one: os.chdir(os.path.expanduser('~'))"
            )
            raise NodeStartError(msg, node=self._name) from None

    def state(self, process: Process | None, *, connected: bool, busy: bool) -> str:
        """
        In one word how the worker is; see ``NodeStatus.state``.

        Args:
            process: its latest one; None: nothing is left of it.
            connected: it is there and answers.
            busy: something runs in it.
        """
        if self.is_starting:
            return "starting"
        if connected:
            return "busy" if busy else "idle"
        if self.breaker.state == "open":
            return "resting"
        return "cold" if process is None else "dead"

    def status(
        self,
        state: str,
        kernel: Kernel,
        policy: SandboxPolicy,
        process: Process | None,
        *,
        running: Iterable[Run],
        queue: int = 0,
    ) -> NodeStatus:
        """
        A snapshot for people and programs.

        Args:
            state: of the worker.
            kernel: what runs in it.
            policy: what it may touch.
            process: in which it runs; None: in none.
            running: what has its turn.
            queue: runs that wait for their turn.
        """
        now = time.monotonic()
        oldest = min(running, key=lambda run: run.since or now, default=None)
        usage = process.usage() if process else None
        return NodeStatus(
            name=self._name,
            state=state,
            kernel=kernel.description,
            sandbox=policy.profile,
            memory_limit=policy.memory,
            pid=process.pid if process else None,
            uptime=now - self._ready_since if process else None,
            circuit=self.breaker.state,
            retry_in=self.breaker.retry_in,
            queue=queue,
            running=oldest.title if oldest else None,
            running_for=now - (oldest.since or now) if oldest else None,
            memory=usage.memory if usage else None,
            cpu_seconds=usage.cpu_seconds if usage else None,
            metrics=self.metrics.snapshot(),
            # one that lives elsewhere has taken nothing over from here
            drift=self._drift(kernel, policy) if process and not process.place else (),
            place=process.place if process else "",
        )

    def _drift(self, kernel: Kernel, policy: SandboxPolicy) -> tuple[str, ...]:
        if self._launch is None:
            return ()
        try:
            return drift(self._launch, self.snapshot(kernel, policy))
        except NodeStartError:
            return ("working folder",)


def never_used(name: str, kernel: Kernel, policy: SandboxPolicy) -> NodeStatus:
    """The status of a worker that is known, but that nobody has used yet."""
    return NodeStatus(
        name=name,
        state="cold",
        kernel=kernel.description,
        sandbox=policy.profile,
        memory_limit=policy.memory,
        pid=None,
        uptime=None,
        circuit="closed",
        retry_in=0.0,
        queue=0,
        running=None,
        running_for=None,
        memory=None,
        cpu_seconds=None,
        metrics=Metrics().snapshot(),
        drift=(),
    )
