"""
Widgets of workers, live in the notebook.

A worker's comms are opened in the front-end by the kernel of the notebook, which lists them among
its own. What the front-end says to them goes to the worker at once, past whatever the kernel runs.
When a page is loaded again it asks each comm for its state, so that the worker alone keeps that.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hive_jupyter.notebook import compat
from hive_jupyter.swarm.messages import COMMS, Message, Sink

VIEW = "application/vnd.jupyter.widget-view+json"

# Through it a page that was loaded again asks a kernel for all models at once.
_CONTROL = "jupyter.widget.control"
# Of what a display says beside its widget, for when that has ended (characters).
_LONGEST_TEXT = 2000

_OF_COMMS = COMMS | {"comm_lost"}

PassOn = Callable[[str, Message, Mapping[str, Any], Sink], None]


class FrontEndComms:
    """
    The comms of all workers of a hive, as a notebook's kernel has them.

    Args:
        kernel: of the notebook.
        pass_on: passes what a front-end says on to a worker, with its header; what comes back goes
            to a sink, on any thread.
    """

    def __init__(self, kernel: Any, pass_on: PassOn) -> None:
        self._kernel = kernel
        self._pass_on = pass_on
        # Workers speak on the main thread and on the portal's, front-ends on the shell channel's.
        self._lock = threading.Lock()
        # The worker of each comm that is open.
        self._open: dict[str, str] = {}
        # By display id: the comm whose widget is shown there; by comm: the texts of its displays.
        self._views: dict[str, str] = {}
        self._texts: dict[str, dict[str, str]] = {}
        # Of comms that ended before the cell got to open them.
        self._ended: set[str] = set()
        self._controls: set[str] = set()
        compat.hear_comms_first(kernel, self._hear)

    def close(self) -> None:
        """Hear nothing more."""
        compat.hear_comms_no_more(self._kernel)
        with self._lock:
            for comm in list(self._open):
                self._forget(comm)

    def publisher(self, worker: str, parent: dict[str, Any]) -> Publisher:
        """What publishes that worker's messages as the output of the request ``parent``."""
        return Publisher(self._kernel, parent, worker, self)

    def knows(self, worker: str, data: Mapping[str, Any]) -> bool:
        """Whether what is displayed is the view of a widget that is open and the worker's."""
        view = data.get(VIEW)
        comm = view.get("model_id") if isinstance(view, dict) else None
        return isinstance(comm, str) and self._open.get(comm) == worker

    def take(self, worker: str, message: Message, publish: Sink) -> None:
        """
        Publish a worker's message, and note what front-ends then know.

        Of comms, nothing is published where they are not the worker's own.
        """
        with self._lock:
            for each in self._taken(worker, message):
                publish(each)

    def _taken(self, worker: str, message: Message) -> list[Message]:
        if message.type not in _OF_COMMS:
            return [self._noting_display(worker, without_dead_view(message, worker, self))]
        comm = message.content["comm_id"]
        if message.type == "comm_open":
            return [message] if self._begin(worker, comm, message) else []
        if self._open.get(comm) != worker:
            if message.type != "comm_msg":
                self._ended.add(comm)
            return []
        if message.type == "comm_msg":
            return [message]
        texts = self._forget(comm)
        return [message] if message.type == "comm_close" else _endings(worker, comm, texts)

    def _begin(self, worker: str, comm: str, message: Message) -> bool:
        if comm in self._ended:
            self._ended.discard(comm)
            return False
        if compat.has_comm(self._kernel, comm):
            return False
        self._open[comm] = worker
        compat.add_comm(self._kernel, comm, message.content["target_name"])
        return True

    def _forget(self, comm: str) -> dict[str, str]:
        """Know a comm no more; the displays that show it, and their text."""
        self._open.pop(comm, None)
        compat.remove_comm(self._kernel, comm)
        texts = self._texts.pop(comm, {})
        for display in texts:
            del self._views[display]
        return texts

    def _noting_display(self, worker: str, message: Message) -> Message:
        """Give a widget's display a name, so that it can be told when its worker has ended."""
        data, transient = message.content.get("data"), dict(message.content.get("transient") or {})
        if not isinstance(data, dict):
            return message
        display = str(transient.get("display_id") or uuid.uuid4().hex)
        if display in self._views:
            del self._texts[self._views.pop(display)][display]
        if not self.knows(worker, data):
            return message
        comm, text = data[VIEW]["model_id"], str(data.get("text/plain", ""))
        self._views[display] = comm
        self._texts.setdefault(comm, {})[display] = text[:_LONGEST_TEXT]
        content = {key: part for key, part in message.content.items() if key != "execution_count"}
        # front-ends let no result be updated, only a display
        kind = "display_data" if message.type == "execute_result" else message.type
        transient["display_id"] = display
        return replace(message, type=kind, content={**content, "transient": transient})

    # On the thread of the kernel's shell channel

    def _hear(self, said: Mapping[str, Any]) -> bool:
        """Take what is for a worker's comm."""
        kind, content, header = said["msg_type"], said["content"], said["header"]
        comm = str(content.get("comm_id"))
        if self._is_control(comm, kind, content):
            self._decline(comm, header)
            return True
        worker = self._open.get(comm)
        if worker is None or kind == "comm_open":
            return False
        if kind == "comm_close":
            with self._lock:
                self._forget(comm)
        buffers = tuple(map(bytes, said["buffers"]))
        message = Message(kind, content, said["metadata"], buffers)
        publisher = self.publisher(worker, {"header": header})
        self._pass_on(worker, message, header, publisher)
        return True

    def _is_control(self, comm: str, kind: str, content: Mapping[str, Any]) -> bool:
        """Whether somebody asks for all models, of which the kernel knows only its own."""
        if kind == "comm_open" and content.get("target_name") == _CONTROL and self._open:
            self._controls.add(comm)
        return comm in self._controls

    def _decline(self, comm: str, header: Mapping[str, Any]) -> None:
        """Close the way to all models at once: front-ends then ask each for its state."""
        for kind, content in (
            ("comm_close", {"comm_id": comm, "data": {}}),
            ("status", {"execution_state": "idle"}),
        ):
            compat.publish(self._kernel, kind, content, parent={"header": header})


class Publisher:
    """
    Publishes what a worker says, as the output of one request. From any thread.

    Args:
        kernel: that publishes.
        parent: the request.
        worker: its name.
        comms: of the hive, or None where front-ends cannot be heard: then widgets are text.
    """

    def __init__(
        self, kernel: Any, parent: dict[str, Any], worker: str, comms: FrontEndComms | None
    ) -> None:
        self._kernel = kernel
        self._parent = parent
        self._worker = worker
        self._comms = comms

    def __call__(self, message: Message) -> None:
        if self._comms is not None:
            self._comms.take(self._worker, message, self._publish)
        elif message.type not in _OF_COMMS:
            self._publish(self.without_dead_view(message))

    def without_dead_view(self, message: Message) -> Message:
        """Leave a widget's text, where it has one, of a model that the front-end does not know."""
        return without_dead_view(message, self._worker, self._comms)

    def _publish(self, message: Message) -> None:
        compat.publish(
            self._kernel,
            message.type,
            message.content,
            parent=self._parent,
            metadata=message.metadata,
            buffers=message.buffers,
        )


def without_dead_view(message: Message, worker: str, comms: FrontEndComms | None) -> Message:
    """See ``Publisher.without_dead_view``."""
    data = message.content.get("data")
    if not isinstance(data, dict) or VIEW not in data or len(data) == 1:
        return message
    if comms is not None and comms.knows(worker, data):
        return message
    shown = {kind: part for kind, part in data.items() if kind != VIEW}
    return replace(message, content={**message.content, "data": shown})


def _endings(worker: str, comm: str, texts: Mapping[str, str]) -> list[Message]:
    """What tells a front-end that a widget's worker has ended."""
    ended = f'(Its worker "{worker}" has ended. Run the cell again.)'
    told = [
        Message(
            "update_display_data",
            {
                "data": {"text/plain": f"{text}\n{ended}".lstrip()},
                "metadata": {},
                "transient": {"display_id": display},
            },
        )
        for display, text in texts.items()
    ]
    return [*told, Message("comm_close", {"comm_id": comm, "data": {}})]
