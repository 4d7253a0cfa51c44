"""
A run's messages into the calling cell, from the calling thread.

In a kernel a message is published anew, as the output of the cell's own request; where somebody
captures the cell's output (``%%capture``, ``redirect_stdout``), and in a terminal, it is written
and displayed as the cell itself would have done it.
"""

from __future__ import annotations

import builtins
import getpass
import signal
import sys
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from hive_jupyter.errors import HiveError, NodeDied, RemoteError
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.comms import FrontEndComms, Publisher
from hive_jupyter.swarm.messages import COMMS, Message
from hive_jupyter.swarm.portal import handle_sigint
from hive_jupyter.units import without_colours

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from IPython.core.interactiveshell import InteractiveShell

    from hive_jupyter.delegation import BaseDelegation, Result
    from hive_jupyter.mapping import MapResults
    from hive_jupyter.swarm.fallback import Instructions
    from hive_jupyter.tools import ToolResult

# What code raises that Ctrl-C stopped; an awaiting cell is cancelled.
_STOPPED = ("KeyboardInterrupt", "CancelledError")
# The character with which a front-end says that there is no more input.
_END_OF_INPUT = "\x04"
# Nobody reacts faster (seconds): Ctrl-C during a shorter run was meant for the loop around it.
_REACTION = 0.3
_CLEAR_LINE = "\r\033[K"
# Messages a second on their way to the front-ends, and how many may go ahead of that.
# jupyter_server drops what reaches it above 1000 a second over three seconds, a stall of its own
# included; zmq drops that for which a slow front-end has no room.
_RATE = 500
_BURST = 300


@dataclass(frozen=True)
class Relayed:
    """
    How a run ended.

    Attributes:
        outcome: what the worker did, or what to do instead; None where nothing is known.
        error: why the run failed, as the cell is to raise it, or None.
    """

    outcome: Result | ToolResult | Instructions | dict[str, Any] | list[Any] | None
    error: BaseException | None = None


class Cell:
    """
    The cell that calls: a sink for messages.

    Args:
        shell: that runs it.
        worker: that it calls.
        comms: of the hive, or None: then widgets are shown as text.

    Attributes:
        header: under which the worker is to run; None in a terminal.
        allow_stdin: whether somebody answers to ``input()``.
    """

    def __init__(
        self, shell: InteractiveShell, worker: str = "", comms: FrontEndComms | None = None
    ) -> None:
        self._shell: Any = shell
        self._kernel = compat.kernel_of(shell)
        self._parent = {} if self._kernel is None else compat.parent_of(shell)
        self._progress_id = ""
        self._next_turn = 0.0
        self.header = compat.header_of(self._parent)
        self.allow_stdin = self._kernel is None or compat.allows_stdin(self._parent)
        # late output may need it long after; the rest of the request is the cell's whole code
        self._parent = {"header": self._parent["header"]} if "header" in self._parent else {}
        self._publisher = Publisher(self._kernel, self._parent, worker, comms)
        self._sinks: dict[str, Callable[[Message], None]] = {
            "stream": self._stream,
            "display_data": self._display,
            "update_display_data": self._display,
            "clear_output": self._clear,
            "execute_result": self._result,
            "error": self._error,
            "payload": self._payload,
            "progress": self._progress,
            **dict.fromkeys(COMMS, self._comm),
        }

    def show(self, message: Message) -> None:
        """Show what a worker said, as if the cell itself had; other messages have no place here."""
        sink = self._sinks.get(message.type)
        if sink is not None:
            sink(self._publisher.without_dead_view(message))

    def show_late(self, message: Message) -> None:
        """Show what threads and tasks of the worker's code say after the cell; from any thread."""
        if self._kernel is None:
            self.show(message)
        else:
            self._publisher(message)

    def ask(self, prompt: str, *, password: bool) -> str:
        """Ask the person in front of the cell; the end of input is a character, as on the wire."""
        try:
            if self._kernel is not None:
                return compat.ask_front_end(self._kernel, prompt, password=password)
            return (getpass.getpass if password else builtins.input)(prompt)
        except EOFError:
            return _END_OF_INPUT

    def dress(self, error: BaseException) -> None:
        """Take the worker's colours off where this shell shows none."""
        if not compat.has_colours(self._shell):
            compat.render_as(error, list(map(without_colours, compat.rendered(error))))

    def progress(self, text: str) -> None:
        """Say what takes so long, in place of what was said before; "" clears it."""
        shown, self._progress_id = self._progress_id, ""
        if text:
            self._progress_id = shown or uuid.uuid4().hex
        if self._kernel is None:
            self._progress_line(text, is_shown=bool(shown))
        elif (text or shown) and compat.is_kernel_display(self._shell):
            content = {
                "data": {"text/plain": text} if text else {},
                "metadata": {},
                "transient": {"display_id": shown or self._progress_id},
            }
            kind = "update_display_data" if shown else "display_data"
            self._publish(Message(kind, content))

    def _progress(self, message: Message) -> None:
        self.progress(message.content["text"])

    @staticmethod
    def _progress_line(text: str, *, is_shown: bool) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(_CLEAR_LINE * is_shown + text)
            sys.stderr.flush()
        elif text:
            sys.stderr.write(text + "\n")

    def _stream(self, message: Message) -> None:
        name = "stderr" if message.content["name"] == "stderr" else "stdout"
        stream = getattr(sys, name)
        if self._kernel is not None and compat.is_kernel_stream(self._kernel, stream):
            self._publish(Message("stream", {"name": name, "text": message.content["text"]}))
        else:
            stream.write(message.content["text"])
            stream.flush()

    def _display(self, message: Message) -> None:
        if self._is_live():
            self._publish(message)
        else:
            content = message.content
            self._shell.display_pub.publish(
                content["data"],
                content.get("metadata") or {},
                transient=content.get("transient") or {},
                update=message.type == "update_display_data",
            )

    def _clear(self, message: Message) -> None:
        if self._is_live():
            self._publish(message)
        else:
            self._shell.display_pub.clear_output(wait=bool(message.content.get("wait")))

    def _result(self, message: Message) -> None:
        if self._is_live():
            content = {**message.content, "execution_count": compat.execution_count(self._shell)}
            self._publish(replace(message, content=content))
        elif self._kernel is None and not compat.is_capturing(self._shell):
            compat.print_result(self._shell, message.content["data"])
        else:
            self._display(message)

    def _error(self, message: Message) -> None:
        if self._is_live():
            self._publish(message)
        else:
            sys.stderr.write("\n".join(message.content["traceback"]) + "\n")

    def _comm(self, message: Message) -> None:
        if self._kernel is not None:
            self._publish(message)

    def _payload(self, message: Message) -> None:
        if self._kernel is not None:
            compat.add_payload(self._shell, message.content)
        elif message.content["source"] == "page":
            compat.page(message.content["data"])
        else:
            self._shell.set_next_input(message.content["text"])

    def _is_live(self) -> bool:
        """Whether messages go to the front-ends as they are; then what was printed goes first."""
        if self._kernel is None or not compat.is_kernel_display(self._shell):
            return False
        compat.flush_streams()
        return True

    def _publish(self, message: Message) -> None:
        self._wait_for_turn()
        self._publisher(message)

    def _wait_for_turn(self) -> None:
        """Slow down a flood; the worker's messages wait, none is lost."""
        now = time.monotonic()
        self._next_turn = max(self._next_turn, now - _BURST / _RATE) + 1 / _RATE
        if self._next_turn > now:
            time.sleep(self._next_turn - now)


def relay(
    cell: Cell, begin: Callable[[], BaseDelegation[Any]], *, worker: str, quiet: bool = False
) -> Relayed:
    """
    Run something in a worker and show in the calling cell what it says, until it is over.

    Args:
        cell: that calls.
        begin: submits the run.
        worker: its name, for prompts.
        quiet: show no output.

    Returns:
        How the run ended. Its failure is not raised but returned.

    Raises:
        ConfigError: from ``begin``.
    """
    compat.flush_streams()
    with _CtrlC() as ctrl_c:
        began = time.monotonic()
        delegation = begin()
        ctrl_c.stops(delegation.interrupt)
        try:
            for message in delegation:
                if message.type == "input_request":
                    _answer(cell, delegation, message, worker, ctrl_c)
                elif not quiet:
                    cell.show(message)
            cell.progress("")
        except BaseException:
            # The cell cannot take what the worker says (its stdout is closed): stop the run, since
            # nobody waits for it any more.
            delegation.interrupt()
            for _ in delegation:
                pass
            raise
        is_brief = time.monotonic() - began < _REACTION
        try:
            outcome = delegation.outcome()
            missed = _keyboard_interrupt("", []) if ctrl_c.pressed and is_brief else None
            return Relayed(outcome, missed)
        except HiveError as error:
            raised = _as_raised(error, by_user=ctrl_c.pressed)
            cell.dress(raised)
            return Relayed(delegation.result, raised)


def relay_results(
    cell: Cell,
    begin: Callable[[Callable[[Message], object]], MapResults],
    *,
    show: Callable[[Message], object],
) -> Relayed:
    """
    Take all results of a map.

    Args:
        cell: that calls.
        begin: begins the map, given what is to be called with what its items say.
        show: shows that.

    Returns:
        The list of results; or the KeyboardInterrupt of the user's own.

    Raises:
        HiveError: from ``begin``, or the hive was closed.
    """
    compat.flush_streams()
    with _CtrlC() as ctrl_c:
        results = begin(show)
        ctrl_c.stops(results.cancel)
        with results:
            taken = list(results)
        cell.progress("")
        return Relayed(taken, _keyboard_interrupt("", []) if ctrl_c.pressed else None)


def _answer(
    cell: Cell, delegation: BaseDelegation[Any], request: Message, worker: str, ctrl_c: _CtrlC
) -> None:
    prompt = f"[{worker}] {request.content.get('prompt', '')}"
    question = _Question(ctrl_c)
    delegation.when_over(question.withdraw)
    answer = question.put(lambda: cell.ask(prompt, password=bool(request.content.get("password"))))
    if answer is not None:
        delegation.answer(answer)


def _as_raised(error: HiveError, *, by_user: bool) -> BaseException:
    """What the cell raises: after the user's own Ctrl-C a real KeyboardInterrupt."""
    if isinstance(error, RemoteError):
        if by_user and error.ename in _STOPPED:
            return _keyboard_interrupt(error.evalue, error.traceback)
        return error
    if by_user and isinstance(error, NodeDied) and error.cause == "killed":
        return _keyboard_interrupt(str(error), [str(error)])
    compat.render_briefly(error)
    return error


def _keyboard_interrupt(text: str, traceback: list[str]) -> KeyboardInterrupt:
    """A KeyboardInterrupt that IPython shows with the worker's traceback."""
    kind = type("KeyboardInterrupt", (KeyboardInterrupt,), {"__module__": "builtins"})
    error: KeyboardInterrupt = kind(text)
    compat.render_as(error, traceback or ["KeyboardInterrupt"])
    return error


class _CtrlC:
    """
    While entered, Ctrl-C is an event and no exception.

    An exception raised by a signal can hit any line, the relay's and the portal's own included, and
    has been seen to leave a wait hanging. Only the main thread gets signals; elsewhere this does
    nothing, as a cell's own code in that thread would not be interrupted either.

    Attributes:
        pressed: whether the user pressed it.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._stop: Callable[[], None] | None = None
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._previous = handle_sigint(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        handle_sigint(self._previous)

    def stops(self, stop: Callable[[], None]) -> None:
        """Say what to call from now on; also for a Ctrl-C that came before."""
        self._stop = stop
        if self.pressed:
            stop()

    def press(self) -> None:
        """What Ctrl-C does."""
        self.pressed = True
        if self._stop is not None:
            self._stop()

    def _handler(self, _number: int, _frame: FrameType | None) -> None:
        self.press()


class _Question:
    """
    What the person at the cell is asked.

    Nothing but an exception ends the wait for an answer, so while somebody is asked Ctrl-C raises
    after all, and so does the end of the run: a worker that is gone needs no answer.
    """

    def __init__(self, ctrl_c: _CtrlC) -> None:
        self._ctrl_c = ctrl_c
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._is_open = False
        self._is_asking = False
        self._is_withdrawn = False

    def put(self, ask: Callable[[], str]) -> str | None:
        """Ask; None where Ctrl-C or the end of the run came first."""
        previous = handle_sigint(self._handler)
        try:
            with self._lock:
                self._is_open = previous is not None
                self._is_asking = not self._is_withdrawn
            answer = ask() if self._is_asking else None
            self._is_asking = False
        except KeyboardInterrupt:
            self._is_asking = False
            if not self._is_withdrawn:
                self._ctrl_c.press()
            return None
        else:
            return answer
        finally:
            # From here on there is no signal on its way.
            with self._lock:
                self._is_open = False
            handle_sigint(previous)

    def withdraw(self) -> None:
        """End the wait; from any thread."""
        with self._lock:
            self._is_withdrawn = True
            if self._is_open:
                signal.pthread_kill(self._thread, signal.SIGINT)

    def _handler(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_asking:
            raise KeyboardInterrupt
        if not self._is_withdrawn:
            self._ctrl_c.press()
