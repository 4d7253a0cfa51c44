"""One delegated run, seen from the thread that asked for it, and what it leaves."""

from __future__ import annotations

import contextlib
import queue
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from hive_jupyter.display.rules import INERT
from hive_jupyter.errors import (
    CircuitOpen,
    ConfigError,
    HiveError,
    NodeDied,
    NodeError,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    ToolError,
)
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.mcp_node import McpNode
from hive_jupyter.swarm.messages import Message, joined
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.outputs import Outputs
from hive_jupyter.swarm.portal import LOOK_UP
from hive_jupyter.swarm.run import Run
from hive_jupyter.tools import ToolResult
from hive_jupyter.units import format_size

_T = TypeVar("_T")

Node = SwarmNode | McpNode


@dataclass(frozen=True)
class Result:
    """
    What a run left.

    Attributes:
        status: "ok" or "error".
        value_repr: the text of the last expression's value, or None.
        stdout: all that was written there, and was not cleared.
        stderr: the same.
        outputs: in order, as a notebook stores them (nbformat 4).
        seconds: it took, a start of the worker included.
        worker: its name.
        error: what the code raised, or how its worker failed; None where all went well.
    """

    status: str
    value_repr: str | None
    stdout: str
    stderr: str
    outputs: tuple[Mapping[str, Any], ...] = field(repr=False)
    seconds: float
    worker: str
    error: RemoteError | NodeError | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RunRecord:
    """
    One line of the history.

    Attributes:
        worker: its name.
        code: what was asked: code, or a tool and its arguments.
        started: Unix time in seconds.
        seconds: it took.
        status: "ok", "error", "timeout", "died" or "instructions".
        detail: the error's message, or "".
        asker: who asked, where it was not the user: the name that an agent gives itself.
    """

    worker: str
    code: str
    started: float
    seconds: float
    status: str
    detail: str
    asker: str = ""


# A message costs more than its text: so many bytes.
_MESSAGE_COST = 8192
# What is printed is shown at once, and then so often (seconds) or in such pieces (characters),
# whatever comes first: a front-end drops messages, or drowns, where each print is one of its own.
_STREAM_INTERVAL = 0.02
_LARGEST_PIECE = 2**20
# Comes after the last message.
END = Message("end", {})


class BaseDelegation(Generic[_T]):
    """
    One run, or call of a tool, seen from the caller's thread.

    Iterate to receive what the worker says, live and in order; ``outcome`` tells how it ended.

    Args:
        worker: its name.
        code: what it is asked to run.
        post: has a function called on the portal's loop; safe from a signal handler.
        fall_back: makes Instructions of the reason why no worker could run the code.
        remember: takes the line for the history.
        collect: keep the output for ``result``.
        asker: who asked, where it is not the user.

    Attributes:
        result: what the run left, also where ``outcome`` raises RemoteError; None before the end
            and where no worker ran it.
        most_waiting: bytes of output that may wait for who shows it before no more is read from
            the worker.
        few_waiting: how few until reading goes on.
    """

    most_waiting = 32 * 2**20
    few_waiting = 8 * 2**20

    def __init__(
        self,
        worker: str,
        code: str,
        *,
        post: Callable[[Callable[[], object]], None],
        fall_back: Callable[[Exception], Instructions],
        remember: Callable[[RunRecord], object],
        collect: bool,
        asker: str = "",
    ) -> None:
        self.result: _T | None = None
        self._asker = asker
        self._worker = worker
        self._code = code
        self._post = post
        self._fall_back = fall_back
        self._remember: Callable[[RunRecord], object] | None = remember
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._last_stream = 0.0
        self._outputs = Outputs() if collect else None
        self._started = time.time()
        self._began = time.monotonic()
        self._future: Future[Any] = Future()
        self._run: Run | None = None
        self._node: Node | None = None
        self._stops = 0
        # Bytes that each side has counted alone, so that no lock is needed.
        self._said = 0
        self._taken = 0
        self._paused = False
        self._abandoned = False

    def __iter__(self) -> Iterator[Message]:
        message = self._next()
        while message is not END:
            following = None
            if message.type == "stream":
                message, following = self._with_what_follows(message)
            if self._outputs is not None:
                self._outputs.take(message)
            yield message
            self._took(message)
            message = following or self._next()
        # the end stays the end, for whoever iterates again
        self._messages.put(END)

    def follow(self, future: Future[Any]) -> None:
        """Take the future reply; its end is the end of the messages."""
        self._future = future
        future.add_done_callback(lambda _: self._messages.put(END))

    def attach(self, run: Run, node: Node) -> None:
        """On the portal's loop: learn which run it is; a wish to stop may have come before."""
        self._run, self._node = run, node
        if self._asker:
            run.rule = INERT
        for _ in range(self._stops):
            run.stop()

    def say(self, message: Message) -> None:
        """The run's sink, called on the portal's loop."""
        if self._abandoned:
            return
        message = replace(message, size=message.size + _MESSAGE_COST)
        self._messages.put(message)
        self._said += message.size
        if self._said - self._taken > self.most_waiting and not self._paused:
            self._pause()
            # the other thread may have caught up before it could see that we paused
            if self._keeps_up():
                self._resume()

    def interrupt(self) -> None:
        """
        Stop the run; safe from a signal handler and from any thread.

        The first time it gets SIGINT and a grace, the second time its worker is killed at once.
        """
        self._post(self._stop)

    def abandon(self) -> None:
        """Say that nobody waits any more: the run is stopped, if it is not over."""
        if not self._future.done():
            self._post(self._abandon)

    def answer(self, text: str) -> None:
        """Reply to an ``input_request`` message."""
        self._post(lambda: self._answer(text))

    @property
    def told(self) -> str:
        """What Hive itself had to say, while it ran."""
        return "" if self._run is None else "".join(self._run.told)

    @property
    def worker(self) -> str:
        """Its name."""
        return self._worker

    @property
    def future(self) -> Future[Any]:
        """Resolves with the end of the run."""
        return self._future

    def when_over(self, action: Callable[[], object]) -> None:
        """Have ``action`` called as soon as the run has ended, on any thread."""
        self._future.add_done_callback(lambda _: action())

    def outcome(self) -> _T | Instructions:
        """
        Wait for the end of the run.

        Returns:
            What it left, or Instructions where no worker could run it.

        Raises:
            RemoteError: the code raised, or the tool was interrupted.
            NodeDied: its worker died.
            NodeTimeout: it reached its time limit.
            HiveError: the hive was closed.
        """
        try:
            for _ in self:
                pass
            answer = self._future.result()
        except (NodeStartError, CircuitOpen, ToolError) as refusal:
            self._note("instructions", str(refusal))
            return self._fall_back(refusal)
        except RemoteError as error:
            self._note("error", f"{error.ename}: {error.evalue}")
            self.result = self._failed(error)
            raise
        except (NodeTimeout, NodeDied) as error:
            self._note("timeout" if isinstance(error, NodeTimeout) else "died", str(error))
            self.result = self._failed(error)
            raise
        except (CancelledError, FutureCancelled) as closed:
            msg = f'The run in worker "{self._worker}" was ended, because its hive was closed.'
            raise HiveError(msg) from closed
        except HiveError as error:
            self._note("error", str(error))
            raise
        except BaseException as error:  # Ctrl-C, say: nobody waits for this run any more
            self._post(self._abandon)
            self._note("error", type(error).__name__)
            raise
        self.result = self._succeeded(answer)
        return self.result

    def _next(self) -> Message:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._get(LOOK_UP)

    def _get(self, timeout: float) -> Message:
        try:
            return self._messages.get(timeout=timeout)
        except KeyboardInterrupt:  # nobody waits for this run any more
            self._post(self._abandon)
            raise

    def _with_what_follows(self, first: Message) -> tuple[Message, Message | None]:
        """
        Join what is printed one after the other.

        Returns:
            The piece, and the first message that is no part of it, or None if there is none yet.
        """
        piece, length, following = [first], len(first.content["text"]), None
        end = self._last_stream + _STREAM_INTERVAL
        while length < _LARGEST_PIECE:
            try:
                message = self._get(max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if not message.continues(first):
                following = message
                break
            piece.append(message)
            length += len(message.content["text"])
        self._last_stream = time.monotonic()
        return joined(piece), following

    def _took(self, message: Message) -> None:
        """A message was shown; reading may go on."""
        self._taken += message.size
        if self._paused and self._keeps_up():
            self._post(self._resume)

    def _keeps_up(self) -> bool:
        return self._said - self._taken < self.few_waiting

    def _pause(self) -> None:
        if self._node is not None and self._run is not None:
            self._node.pause_output(self._run)
            self._paused = True

    def _resume(self) -> None:
        self._paused = False
        if self._node is not None and self._run is not None:
            self._node.resume_output(self._run)

    def _abandon(self) -> None:
        if self._abandoned:
            return
        self._abandoned = True
        self._stop()
        if self._paused:
            self._resume()

    def _stop(self) -> None:
        self._stops += 1
        if self._run is not None:
            self._run.stop()

    def _answer(self, text: str) -> None:
        if self._run is not None and isinstance(self._node, SwarmNode):
            self._node.answer(self._run, text)

    def _note(self, status: str, detail: str) -> None:
        """Put the end into the history, once."""
        if self._remember is None:
            return
        seconds = time.monotonic() - self._began
        self._remember(
            RunRecord(self._worker, self._code, self._started, seconds, status, detail, self._asker)
        )
        self._remember = None

    def _succeeded(self, answer: Any) -> _T:
        """What a worker's answer leaves."""
        raise NotImplementedError

    def _failed(self, error: RemoteError | NodeError) -> _T | None:
        """What is left where the worker, or what it did, failed."""
        raise NotImplementedError


class Delegation(BaseDelegation[Result]):
    """One run of code, seen from the caller's thread; ``outcome`` is a Result."""

    def _succeeded(self, answer: Any) -> Result:  # noqa: ARG002  all that is of interest was said
        self._note("ok", "")
        return self._left(None)

    def _failed(self, error: RemoteError | NodeError) -> Result:
        return self._left(error)

    def _left(self, error: RemoteError | NodeError | None) -> Result:
        said = self._outputs or Outputs()
        return Result(
            status="ok" if error is None else "error",
            value_repr=said.value_repr,
            stdout=said.written("stdout"),
            stderr=said.written("stderr"),
            outputs=said.all,
            seconds=time.monotonic() - self._began,
            worker=self._worker,
            error=error,
        )


class ToolDelegation(BaseDelegation[ToolResult]):
    """The call of a tool, seen from the caller's thread; ``outcome`` is a ToolResult."""

    def _succeeded(self, answer: ToolResult) -> ToolResult:
        self._note("error" if answer.is_error else "ok", answer.trouble)
        return answer

    def _failed(self, error: RemoteError | NodeError) -> None:
        """Nothing is left of a call that failed."""


class ValuesDelegation(BaseDelegation[dict[str, Any]]):
    """The moving of variables, seen from the caller's thread; ``outcome`` is what was pulled."""

    def outcome(self) -> dict[str, Any] | Instructions:
        """
        Wait for the end, once; who gets the values is the only one to hold their memory.

        Raises:
            HiveError: the outcome was asked for already.
        """
        try:
            return super().outcome()
        finally:
            # futures and runs know their delegation, so that nothing but the garbage collector
            # would end them
            self.result = self._run = None
            self._future = Future()
            self._future.set_exception(
                HiveError(f"The outcome of {self._code} was asked for already; there is only one.")
            )

    def _succeeded(self, answer: dict[str, Any]) -> dict[str, Any]:
        self._note("ok", "")
        return answer

    def _failed(self, error: RemoteError | NodeError) -> None:
        """Nothing is left of what failed."""


def check_code(code: object, limit: int) -> None:
    """
    See that something can be run as code.

    Args:
        code: what somebody wants to run.
        limit: the most bytes that it may have.

    Raises:
        ConfigError: it is no text, empty, too long, or holds what no Python takes.
    """
    if not isinstance(code, str):
        msg = f"The code has to be text, and this is of type {type(code).__name__}."
        raise ConfigError(msg)
    if not code.strip():
        msg = "There is no code to run. Write it below the %%delegate line."
        raise ConfigError(msg)
    if "\0" in code:
        msg = "The code holds a NUL character, which Python does not take."
        raise ConfigError(msg)
    check_length(code, limit)


def check_length(code: str, limit: int) -> None:
    """
    See that code can be sent.

    Args:
        code: to be run.
        limit: the most bytes that it may have.

    Raises:
        ConfigError: it is too long, or no Unicode text.
    """
    try:
        size = len(code.encode())
    except UnicodeEncodeError as error:
        line = code.count("\n", 0, error.start) + 1
        msg = (
            f"The code holds, in line {line}, half a character (a lone surrogate, "
            f"{code[error.start]!a}), which no file and no Python can hold. Write it as an "
            "escape, or read what it came from with the right encoding."
        )
        raise ConfigError(msg) from None
    if size > limit:
        msg = (
            f"The code is {format_size(size)} long; at most {format_size(limit)} are sent to a "
            "worker (HiveConfig.max_cell_bytes). Put the data into a file and read it there."
        )
        raise ConfigError(msg)
