"""
The panel: a hive's workers, jobs and requests in a notebook, live, with buttons.

An ipywidgets widget with a module of its own (anywidget): ``panel.js``, and ``panel.css``. What is
shown and what is done is ``Feed``'s; here is what belongs to one panel in one notebook.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from traitlets import Dict

from hive_jupyter.panel import board

if TYPE_CHECKING:
    from hive_jupyter.manager import HiveManager
    from hive_jupyter.panel.feed import Feed

_HERE = Path(__file__).parent


class Panel(anywidget.AnyWidget):
    """
    One panel.

    Args:
        manager: of the hive.
        feed: of all its panels.

    Attributes:
        still: what it showed when it was made, for where no kernel answers.
    """

    _esm = _HERE / "panel.js"
    _css = _HERE / "panel.css"
    still = Dict().tag(sync=True)

    def __init__(self, manager: HiveManager, feed: Feed) -> None:
        self._manager = manager
        self._feed = feed
        self._name = uuid.uuid4().hex
        super().__init__(still={"text": self._text()})
        self.on_msg(self._take)
        _answer_at_once(self.comm)
        feed.join(self._name, self._say)

    def close(self) -> None:
        """Show nothing more."""
        self._feed.leave(self._name)
        super().close()

    def __str__(self) -> str:
        return self._text()

    def __repr__(self) -> str:
        return self._text()

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        self._feed.hear(self._name, content)

    def _say(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(Exception):  # a kernel that ends has closed its sockets
            self.send(message)

    def _text(self) -> str:
        requests = self._manager.requests()
        lines = [
            f"{board.title_of(request)}: %hive approve {request.id}"
            for request in requests
            if request.state == "pending"
        ]
        jobs = [
            f'Job {job.id} in worker "{job.worker}", {job.state}: {job.title}'
            for job in self._manager.jobs
            if not job.done()
        ]
        return "\n".join([str(self._manager.swarm_status()), *jobs, *lines])


def _answer_at_once(comm: Any) -> None:
    """
    Have clicks taken while a cell runs.

    ipykernel 7.4 hands a comm's messages to the thread that opened the comm, which is the one that
    runs cells; front-ends send them to another one.
    """
    if hasattr(comm, "_reply_subshell_for"):
        setattr(comm, "_reply_subshell_for", lambda _data, default: default)  # noqa: B010
