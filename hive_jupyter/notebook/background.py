"""
Jobs in a notebook: what they say lands in the cell that started them, whatever else runs.

A front-end with a person before it takes what comes for a cell at any time. A program that executes
a notebook (nbclient, papermill, myst-nb) takes only what belongs to the cell that it executes now,
and updates of what has a name. So a job's cell shows something that has a name, and with each later
cell that is updated to all that the job has said.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hive_jupyter.notebook import compat
from hive_jupyter.notebook.relay import Cell
from hive_jupyter.swarm.messages import COMMS, OUTPUTS, Message
from hive_jupyter.swarm.outputs import plain_text, whole
from hive_jupyter.units import format_duration, without_colours

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from hive_jupyter.jobs import Job
    from hive_jupyter.notebook.comms import FrontEndComms

_SHOWN = OUTPUTS | COMMS


class Background:
    """
    The cells of one shell that started jobs.

    Args:
        shell: that runs them.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._unattended: list[JobCell] = []

    def add(self, cell: JobCell, job: Job) -> None:
        """Have a job tell in its cell how it is, from now on."""
        cell.begin(job)
        if cell.is_unattended:
            if not self._unattended:
                self._shell.events.register("post_run_cell", self._fill)
            self._unattended.append(cell)

    def close(self) -> None:
        """Leave the shell alone."""
        if self._unattended:
            self._unattended.clear()
            self._shell.events.unregister("post_run_cell", self._fill)

    def _fill(self, _result: object = None) -> None:
        """At the end of a cell, put into those of before what their jobs have said meanwhile."""
        parent = compat.parent_of(self._shell)
        left = [cell for cell in self._unattended if not cell.fill(parent)]
        if not left:
            self.close()
        self._unattended = left


class JobCell:
    """
    The cell that starts a job: a sink for its messages, from any thread.

    Args:
        shell: that runs it.
        worker: of the job.
        comms: of the hive, or None: then widgets are shown as text.
        quiet: show errors alone.

    Attributes:
        cell: the cell.
    """

    def __init__(
        self, shell: InteractiveShell, worker: str, comms: FrontEndComms | None, *, quiet: bool
    ) -> None:
        self.cell = Cell(shell, worker, comms)
        self._count = compat.execution_count(shell)
        self._kernel = compat.kernel_of(shell)
        self._shown = {"error"} if quiet else _SHOWN
        self._name = "" if quiet else uuid.uuid4().hex
        self._job: Job | None = None
        self._filled: dict[str, str] = {}

    @property
    def is_unattended(self) -> bool:
        """Whether a program executes the notebook, and takes nothing for a cell that is over."""
        return self._kernel is not None and not self.cell.allow_stdin

    def show(self, message: Message) -> None:
        """Show what the job said."""
        if message.type not in self._shown:
            return
        if message.type == "execute_result":
            content = {**message.content, "execution_count": self._count}
            message = replace(message, content=content)
        self.cell.show_late(message)

    def begin(self, job: Job) -> None:
        """Say that the job is on its way; and how it ended, when it has."""
        self._job = job
        if self._name:
            self._tell("display_data", {"text/plain": _state_of(job)})
            job.add_done_callback(
                lambda _: self._tell("update_display_data", {"text/plain": _state_of(job)})
            )

    def fill(self, parent: dict[str, Any]) -> bool:
        """
        Put all that the job has said into the cell, by way of the request ``parent``.

        Returns:
            Whether that was all.
        """
        job = self._job
        assert job is not None
        is_all = job.done()
        data = {"text/plain": f"{_state_of(job)}\n{job.text}", "text/html": _as_html(job)}
        if self._name and data != self._filled:
            self._filled = data
            content = _with_name(self._name, data)
            compat.publish(self._kernel, "update_display_data", content, parent=parent)
        return is_all

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self.cell.show_late(Message(kind, _with_name(self._name, data)))


def _with_name(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": dict(data), "metadata": {}, "transient": {"display_id": name}}


def _state_of(job: Job) -> str:
    if job.done():
        return f'Job {job.id}, worker "{job.worker}": {job.state} after {_took(job)}.'
    return f'Job {job.id} is on its way in worker "{job.worker}". %hive jobs tells how it is.'


def _took(job: Job) -> str:
    return format_duration(job.seconds)


def _as_html(job: Job) -> str:
    return "\n".join([_pre(_state_of(job)), *map(_output_as_html, job.outputs)])


def _output_as_html(output: Mapping[str, Any]) -> str:
    """One output, as a notebook stores it; what of it is HTML has been checked as any output is."""
    if output["output_type"] == "stream":
        return _pre(output["text"])
    if output["output_type"] == "error":
        return _pre("\n".join(output["traceback"]))
    data = output["data"]
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            return whole(data[kind])
    for kind in ("image/png", "image/jpeg", "image/gif"):
        if kind in data:
            return f'<img src="data:{kind};base64,{html.escape(whole(data[kind]))}">'
    return _pre(plain_text(data))


def _pre(text: str) -> str:
    return f"<pre>{html.escape(without_colours(text))}</pre>"
