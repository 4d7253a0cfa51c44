"""
Comms: what a worker's widgets say to front-ends, and hear from them.

The protocol is Jupyter's
(https://jupyter-client.readthedocs.io/en/stable/messaging.html#custom-messages). What a front-end
says goes to a subshell of the worker, so that it is heard while a cell runs. It keeps its header,
by which widgets know the answer to what they said, and gets a key as a run does: what the worker
says then finds its way by that.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hive_jupyter.display import traits
from hive_jupyter.display.rules import TRUSTED
from hive_jupyter.display.widgets import METADATA, Models
from hive_jupyter.protocol import RUN_KEY
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.messages import OUTPUTS, Message, Sink
from hive_jupyter.swarm.outlet import Outlet, View
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.subshell import Subshell
from hive_jupyter.swarm.surplus import Surplus

log = logging.getLogger(__name__)

# So much of what front-ends say may be with the worker, or on its way: zmq takes little more, and
# loses the rest. More waits here, for a page that is loaded again asks each model at once.
_MOST_SENT = 500
_MOST_WAITING = 20_000
# Such a page shows nobody's widgets, the notebook's own included, before each model has told its
# state. A worker that does not tell it in this time (seconds) is spoken for.
_PATIENCE = 10.0
# Of so many words the threads that they began may say something after the worker has dealt with it.
_REMEMBERED = 100
# Kinds of widgets that are told of as not shown.
_MOST_TOLD = 50

# What front-ends wait for before they say more.
IDLE = Message("status", {"execution_state": "idle"})

_SILENT = "This widget's worker does not answer. Load the page again when it does."

Send = Callable[[Message, Mapping[str, Any]], None]


@dataclass
class _Word:
    """
    What a front-end said.

    Attributes:
        message: a comm_msg or comm_close.
        header: that it came with.
        sink: takes what the worker says because of it, and at last that it is idle.
        outlet: through which that goes.
        is_dealt_with: the worker has said that it is idle.
        asks: for the state of the comm's model, which the worker has not told.
    """

    message: Message
    header: Mapping[str, Any]
    sink: Sink
    outlet: Outlet
    is_dealt_with: bool = False
    asks: bool = False

    def is_answered_by(self, message: Message) -> bool:
        """Whether a message tells the state of the comm's model."""
        named = message.content["comm_id"] == self.message.content["comm_id"]
        return named and _method(message) == "update"


class WorkerComms:
    """
    The comms of one worker. Belongs to one loop.

    Args:
        late: hands on what belongs to no run.
        send: sends a message with a header on the worker's shell channel.
        rule: for what may pass; one of ``display.rules.RULES``.
        worker: its name.
        surplus: takes what is not shown of what front-ends cause.

    Attributes:
        subshell: of the worker, where it has such; else its widgets hear nothing while a cell runs.
    """

    def __init__(
        self,
        late: LateOutput,
        send: Send,
        rule: str = TRUSTED,
        worker: str = "",
        surplus: Surplus | None = None,
    ) -> None:
        self.subshell: Subshell | None = None
        self._late = late
        self._send = send
        self._rule = rule
        self._worker = worker
        self._surplus = surplus or Surplus("")
        self._models = None if rule == TRUSTED else Models(rule, worker, _prefix())
        self._told: set[str] = set()
        # Of the comms that are open: where what they say goes when no run and no word is its cause.
        self._sinks: dict[str, Sink] = {}
        # Of the open ones: those of other packages than ipywidgets.
        self._others: set[str] = set()
        self._words: dict[str, _Word] = {}
        # Their keys, as long as the worker has to deal with them, and then for a while.
        self._to_send: deque[str] = deque()
        self._sent: set[str] = set()
        self._done: deque[str] = deque()
        self._may_send = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def take(self, message: Message, run: Run | None, key: str) -> None:
        """
        Hand on what a comm says: in its place among what its run says, or else soon.

        Only what has its place there can have an Output take what else is shown: the end of that
        could overtake what comes soon.

        Args:
            message: one of COMMS.
            run: that is its cause and not over, or None.
            key: of the run or word that is its cause.
        """
        comm = self._public(message.content["comm_id"])
        word = self._words.get(key)
        sink, cell = self._place(run, word, key)
        is_new = message.type == "comm_open"
        if comm in self._sinks if is_new else comm not in self._sinks:
            return
        say = sink or self._sinks.get(comm)
        if say is None or not self._has_room(message, run, word):
            return  # nobody could show a widget
        shown = self._passed(message, cell)
        if message.type == "comm_close":
            self._forget(comm)
        elif shown is not None:
            self._sinks.setdefault(comm, say)
            if is_new and not _is_of_ipywidgets(shown):
                self._others.add(comm)
        if word is not None and shown is not None and word.is_answered_by(shown):
            word.asks = False
        for each in filter(None, (*self._refusals(), shown)):
            if run is not None and run.late is not None:
                run.say(each)
            else:
                self._late.add(say, each)

    def _has_room(self, message: Message, run: Run | None, word: _Word | None) -> bool:
        """Whether a message can be handed on; of what a page waits for, all is."""
        if (run is not None and run.late is not None) or message.type == "comm_close":
            return True
        if word is not None and word.asks and _method(message) == "update":
            return True
        return self._late.has_room()

    def _place(self, run: Run | None, word: _Word | None, key: str) -> tuple[Sink | None, str]:
        """Who takes what is said for such a cause, and for which request it is in its place."""
        if word is not None:
            return word.sink, "" if word.is_dealt_with else word.header["msg_id"]
        if run is None:
            return self._late.sink_of(key), ""
        # where that shows no widgets, those of other runs go on
        return run.late, run.message_id if run.late else ""

    def _public(self, comm: str) -> str:
        return comm if self._models is None else self._models.public(comm)

    def release(self, cell: str, say: Sink) -> None:
        """
        Say what keeps Outputs from taking what else is shown for a request.

        The worker has answered it, and what comes now need not be the worker's.
        """
        for content in self._models.release(cell) if self._models else ():
            say(Message("comm_msg", content))

    def views_of(self, cell: str) -> View:
        """What tells of a widget's view that is shown for a request what of it may pass."""
        models = self._models
        return lambda value: None if models is None else models.view(value, cell)

    def take_output(self, message: Message, key: str) -> bool:
        """Hand on what else the worker says because of a word; False where none is the cause."""
        word = self._words.get(key)
        if word is None:
            return False
        if message.type in OUTPUTS:
            for shown in word.outlet.passed(message):
                self._late.add(word.sink, shown)
        return True

    def take_idle(self, key: str) -> None:
        """The worker has dealt with a word, if the key is one's."""
        word = self._words.get(key)
        if word is None or word.is_dealt_with:
            return
        word.is_dealt_with = True
        self.release(word.header["msg_id"], lambda message: self._late.add(word.sink, message))
        self._tell_no_state(word)
        self._late.add(word.sink, IDLE)
        self._sent.discard(key)
        self._may_send.set()
        self._done.append(key)
        if len(self._done) > _REMEMBERED:
            del self._words[self._done.popleft()]

    def pass_on(
        self,
        message: Message,
        header: Mapping[str, Any],
        sink: Sink,
        most_shown: int | None = None,
    ) -> None:
        """
        Pass on what a front-end says to a comm of this worker.

        Args:
            message: a comm_msg or comm_close.
            header: that it came with.
            sink: is called on the loop with what the worker says because of it, and at last, in any
                case, with a "status" that is idle; must not block.
            most_shown: bytes of output that are shown of that, about; None: no limit.
        """
        comm = message.content["comm_id"]
        if comm not in self._sinks or len(self._to_send) >= _MOST_WAITING:
            answer_for_nobody(message, sink)
            return
        key, cell = secrets.token_hex(8), header["msg_id"]
        outlet = Outlet(self._rule, self._worker, most_shown, self._surplus, self.views_of(cell))
        word = self._words[key] = _Word(message, header, sink, outlet)
        if _method(message) == "request_state":
            word.asks = True
            asyncio.get_running_loop().call_later(_PATIENCE, self._tell_no_state, word)
        self._to_send.append(key)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())
            self._sending.add_done_callback(note_failure)

    def close(self) -> None:
        """The worker hears and says nothing more: whoever shows a widget of it is told."""
        if self._sending is not None:
            self._sending.cancel()
        for word in self._words.values():
            if word.asks:
                word.asks = False
                _say(word.sink, _no_state(word.message))
            if not word.is_dealt_with:
                _say(word.sink, IDLE)
        for comm, sink in self._sinks.items():
            _say(sink, Message("comm_lost", {"comm_id": comm}))
        self._words.clear()
        self._sinks.clear()
        self._others.clear()
        self._surplus.close()

    def _tell_no_state(self, word: _Word) -> None:
        """Speak for the worker where it has not told a model's state."""
        if word.asks:
            word.asks = False
            self._late.add(word.sink, _no_state(word.message))

    def _must_wait(self, message: Message) -> bool:
        """
        Whether a package is to hear something when no cell runs, as at home.

        Figures of matplotlib fail where a page speaks to them while a cell makes them.
        """
        return message.content["comm_id"] in self._others and _method(message) == "custom"

    def _forget(self, comm: str) -> None:
        self._sinks.pop(comm, None)
        self._others.discard(comm)

    def _as_worker_knows(self, message: Message) -> Message:
        """With the name that the comm has in the worker."""
        if self._models is None:
            return message
        comm = self._models.private(message.content["comm_id"])
        return replace(message, content={**message.content, "comm_id": comm})

    def _passed(self, message: Message, cell: str = "") -> Message | None:
        """What of a message may pass."""
        if self._models is None:
            return message
        passed = self._models.passed(message.type, message.content, message.buffers, cell)
        if passed is None:
            return None
        content, buffers = passed
        metadata = METADATA if message.type == "comm_open" else {}
        return Message(message.type, content, metadata, tuple(buffers), message.size)

    def _refusals(self) -> list[Message]:
        """Say once of each kind of widget that it is not shown."""
        refused = self._models.take_refused() if self._models else []
        names = [name for name in refused if name not in self._told]
        names = names[: _MOST_TOLD - len(self._told)]
        self._told.update(names)
        if not names:
            return []
        text = (
            f"Not shown: widgets of the kind {', '.join(names)}. A confined worker shows those of "
            f"ipywidgets. `%hive restart {self._worker} --sandbox open` takes the boundary away.\n"
        )
        return [Message("stream", {"name": "stderr", "text": text})]

    async def _send_all(self) -> None:
        subshell = None
        if self.subshell is not None:
            try:
                subshell = await self.subshell.name()
            except Exception as error:  # it makes none, or takes no question
                log.warning("widgets hear nothing while a cell runs: %s", error)
        while self._to_send:
            if len(self._sent) >= _MOST_SENT:
                self._may_send.clear()
                await self._may_send.wait()
            key = self._to_send.popleft()
            word = self._words[key]
            self._sent.add(key)
            chosen = {"subshell_id": None if self._must_wait(word.message) else subshell}
            header = {**word.header, **chosen, RUN_KEY: key}
            try:
                self._send(self._as_worker_knows(word.message), header)
            except Exception as error:  # the worker takes nothing any more
                log.info("a widget's message was lost: %s", error)
                self.take_idle(key)
            if word.message.type == "comm_close":
                self._passed(word.message)
                self._forget(word.message.content["comm_id"])


def answer_for_nobody(message: Message, sink: Sink) -> None:
    """Say what a front-end waits for, where no worker takes what it says."""
    if _method(message) == "request_state":
        sink(_no_state(message))
    sink(IDLE)


def _is_of_ipywidgets(opening: Message) -> bool:
    data = opening.content.get("data")
    state = data.get("state") if isinstance(data, dict) else None
    module = state.get("_model_module") if isinstance(state, dict) else None
    return isinstance(module, str) and module.startswith("@jupyter-widgets/")


def _prefix() -> str:
    return f"{secrets.token_hex(8)}-"


def _no_state(message: Message) -> Message:
    """What to tell of a model's state where its worker does not: a line of text."""
    names = ("_model_module", "_model_module_version", "_view_module", "_view_module_version")
    state = dict(zip(names, 2 * traits.CONTROLS, strict=True))
    state |= {"_model_name": "LabelModel", "_view_name": "LabelView", "value": _SILENT}
    data = {"method": "update", "state": state, "buffer_paths": []}
    return Message("comm_msg", {"comm_id": message.content["comm_id"], "data": data})


def _method(message: Message) -> object:
    data = message.content.get("data")
    return data.get("method") if isinstance(data, dict) else None


def _say(sink: Sink, message: Message) -> None:
    try:
        sink(message)
    except Exception as error:  # the cell's kernel is going
        log.info("a widget's end was not told: %s", error)
