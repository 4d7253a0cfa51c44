"""Jobs: runs that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any

from hive_jupyter.delegation import Delegation, Result
from hive_jupyter.errors import ConfigError, NodeDied, NodeTimeout, RemoteError
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.messages import Message, Sink
from hive_jupyter.swarm.outputs import Outputs, plain_text
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.units import format_duration, printable, shortened, without_colours, wrapped

# So many that are over are remembered, with all that they said.
_REMEMBERED = 30
# Of the line that a job wrote last, in characters; of what it wrote, as much is looked at.
_LONGEST_LINE = 200
_TAIL = 4096
_CLOSED = "Job {} is stopped, because its hive is closed."


class JobDelegation(Delegation):
    """
    A run whose output is handed on as it comes, at a pace that front-ends can follow.

    Args:
        sink: takes it, on the portal's thread; must not block.
    """

    def __init__(self, *args: Any, sink: Sink, **options: Any) -> None:
        super().__init__(*args, **options)
        assert self._outputs is not None
        self.said: Outputs = self._outputs
        self._sink = sink
        self._paced = LateOutput(self._hold)

    def say(self, message: Message) -> None:
        """The run's sink, called on the portal's loop."""
        self.said.take(message)
        self._paced.add(self._sink, message)

    def add(self, message: Message) -> None:
        """Show something after all that was said; from any thread."""
        if self._run is None:  # no worker can be had, and there may be no loop
            self._sink(message)
        else:
            self._post(lambda: self._paced.add(self._sink, message))

    def show_all(self) -> None:
        """Show at once what waits, on the portal's loop, which is about to end."""
        self._paced.close()

    @property
    def has_begun(self) -> bool:
        """Whether its turn has come."""
        return self._run is not None and self._run.since is not None

    def _hold(self, holds: bool) -> None:
        if holds:
            self._pause()
        else:
            self._resume()


class Job(Future[Result | Instructions]):
    """
    A run that nobody waits for, as a future.

    ``result(timeout)`` waits for what it leaves, as does ``await job``, and raises what went wrong;
    ``concurrent.futures.wait`` and ``as_completed`` take it. Where an awaiting task is cancelled,
    so is the job, as with any future; ``asyncio.shield`` keeps it. What ``add_done_callback`` is
    given is called on Hive's own thread, and must not block.

    Attributes:
        id: a number as text, by which ``%hive`` knows it.
        worker: the name of its worker.
        code: that is run.
        asked: when it was, as Unix time.
    """

    def __init__(self, number: int, code: str, delegation: JobDelegation) -> None:
        super().__init__()
        self.id = str(number)
        self.worker = delegation.worker
        self.code = code
        self.asked = time.time()
        self._delegation = delegation
        self._ended: float | None = None
        self._is_unwanted = False

    def __repr__(self) -> str:
        took = format_duration(self.seconds)
        return f'<Job {self.id} {self.state}, worker "{self.worker}", {took}: {self.title}>'

    def __await__(self) -> Generator[Any, None, Result | Instructions]:
        return asyncio.wrap_future(self).__await__()

    @property
    def state(self) -> str:
        """
        How it is: "queued", "running", or how it ended.

        That is "ok", "error", "timeout", "died", "instructions" or "cancelled".
        """
        if not self.done():
            return "running" if self._delegation.has_begun else "queued"
        if self.cancelled():
            return "cancelled"
        error = self.exception()
        if error is None:
            return "instructions" if isinstance(self.result(), Instructions) else "ok"
        if isinstance(error, NodeTimeout):
            return "timeout"
        return "died" if isinstance(error, NodeDied) else "error"

    @property
    def title(self) -> str:
        """Its code on one short line."""
        return shortened(self.code)

    @property
    def seconds(self) -> float:
        """Since it was asked for, until it was over."""
        return (self._ended or time.time()) - self.asked

    @property
    def outputs(self) -> tuple[dict[str, Any], ...]:
        """What it said until now, in order, as a notebook stores it (nbformat 4)."""
        return tuple(map(dict, self._delegation.said.all))

    @property
    def stdout(self) -> str:
        """What it wrote there until now, and did not clear."""
        return self._delegation.said.written("stdout")

    @property
    def stderr(self) -> str:
        """What it wrote there until now, and did not clear."""
        return self._delegation.said.written("stderr")

    @property
    def progress(self) -> str:
        """The line that it wrote last, such as the bar of tqdm."""
        lines = self._delegation.said.last_written(_TAIL).replace("\r", "\n").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        return printable(without_colours(last).strip())[:_LONGEST_LINE]

    @property
    def text(self) -> str:
        """What it said until now, as text alone."""
        return "".join(map(_text_of, self.outputs))

    def running(self) -> bool:
        """Whether it is not over, and its turn has come."""
        return self.state == "running"

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait for its end, however that is. Ctrl-C ends the waiting, not the job.

        Args:
            timeout: seconds; None: as long as it takes.

        Returns:
            Whether it is over.
        """
        with contextlib.suppress(TimeoutError, CancelledError):
            self.exception(timeout)
        return self.done()

    def cancel(self) -> bool:
        """
        Have it stopped: it never begins, or is interrupted; after a grace its worker is killed.

        To ask again changes nothing.

        Returns:
            False where it is over already. It is over when ``wait`` says so.
        """
        if self.done():
            return False
        # to stop a run a second time is to kill it at once, and many may wait for one job
        if not self._is_unwanted:
            self._is_unwanted = True
            self._delegation.interrupt()
        return True

    def conclude(self) -> None:
        """Take note of the end of its run."""
        self._ended = time.time()
        try:
            outcome = self._delegation.outcome()
        except Exception as error:
            if self._is_unwanted:
                super().cancel()
                self.set_running_or_notify_cancel()
            else:
                self._delegation.add(_as_message(error))
                self.set_exception(error)
            return
        if isinstance(outcome, Instructions):
            data = {"text/plain": str(outcome), "text/markdown": outcome._repr_markdown_()}
            self._delegation.add(Message("display_data", {"data": data, "metadata": {}}))
        self.set_result(outcome)

    async def stop(self, why: str, patience: float) -> None:
        """
        Say why and stop it, on the portal's loop, which is about to end.

        Args:
            why: a sentence.
            patience: seconds that it has to end by itself.
        """
        self._delegation.add(Message("stream", {"name": "stderr", "text": f"{why}\n"}))
        self.cancel()
        over = asyncio.wrap_future(self._delegation.future)
        over.add_done_callback(note_failure)
        await asyncio.wait({over}, timeout=patience)

    def show_all(self) -> None:
        """Show at once what waits to be shown, on the portal's loop, which is about to end."""
        self._delegation.show_all()


class Jobs:
    """The jobs of one hive, the latest last; those that are over are forgotten in time."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, code: str, delegation: JobDelegation) -> Job:
        """Make a job of a run."""
        job = Job(next(self._numbers), code, delegation)
        self._jobs[job.id] = job
        over = [name for name, each in self._jobs.items() if each.done()]
        for name in over[:-_REMEMBERED]:
            del self._jobs[name]
        return job

    async def stop(self, patience: float) -> list[Job]:
        """
        Stop those that are not over, on the portal's loop, which is about to end.

        Args:
            patience: seconds that they have to end by themselves.

        Returns:
            Which these were.
        """
        left = [job for job in self if not job.done()]
        await asyncio.gather(*(job.stop(_CLOSED.format(job.id), patience) for job in left))
        return left

    def show_all(self) -> None:
        """Show at once what waits to be shown, on the portal's loop, which is about to end."""
        for job in self:
            job.show_all()

    def get(self, name: object) -> Job:
        """
        The job of that number.

        Raises:
            ConfigError: there is none.
        """
        job = self._jobs.get(str(name))
        if job is None:
            known = ", ".join(self._jobs) or "none"
            msg = f'There is no job "{name}"; there are: {known}.'
            raise ConfigError(msg)
        return job


def _text_of(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return str(output["text"])
    if output["output_type"] == "error":
        return "\n".join([*map(without_colours, output["traceback"]), ""])
    return f"{plain_text(output['data'])}\n"


def _as_message(error: Exception) -> Message:
    """An error as the output of a cell."""
    name, text = type(error).__name__, str(error)
    traceback = wrapped(f"{name}: {text}")
    if isinstance(error, RemoteError):
        name, text, traceback = error.ename, error.evalue, error.traceback
    return Message("error", {"ename": name, "evalue": text, "traceback": traceback})
