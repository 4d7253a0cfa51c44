"""Values on their way to a worker and back: what is sent, and what the answer means."""

from __future__ import annotations

import asyncio
import contextlib
import keyword
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hive_jupyter import shadows, transfer
from hive_jupyter.errors import ConfigError, TransferError, remote_error
from hive_jupyter.swarm.messages import Message, Sink
from hive_jupyter.swarm.portal import apart
from hive_jupyter.swarm.process import note_failure
from hive_jupyter.swarm.run import Request
from hive_jupyter.units import format_duration, format_size, nearest, printable

# What takes longer is spoken of, and then so often (seconds).
PROGRESS_AFTER = 1.0
# Of what a worker says why it does not hand something over, in characters.
_LONGEST_REASON = 600
# Bytes of a message that are no value's memory: its description, and what small buffers are padded
# with.
_BESIDE = 64 * 2**20


def checked_names(names: Iterable[object]) -> list[str]:
    """
    Take the names of variables.

    Raises:
        ConfigError: there are none, or something is no name.
    """
    checked = []
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            msg = f"{name!r} cannot be the name of a variable."
            raise ConfigError(msg)
        checked.append(name)
    if not checked:
        raise ConfigError("Name at least one variable.")
    return checked


def check_pickles(worker: str, profile: str) -> None:
    """
    See that a worker's pickles may be opened.

    Raises:
        ConfigError: it is confined.
    """
    if profile != "open":
        msg = (
            f'Worker "{worker}" is confined (sandbox {profile}), and to open its pickle would run '
            "here, in your own process, whatever code it holds. Only those of a worker of the "
            "profile open are opened, which can do what you can in any case."
        )
        raise ConfigError(msg)


def packed(values: Mapping[str, Any], limit: int | None) -> tuple[Any, list[memoryview]]:
    """
    What goes to a worker, which may unpickle what comes from here.

    Raises:
        TransferError: a value cannot be sent; names it.
    """
    return transfer.pack(values, limit=limit, dumps=transfer.pickled)


class Packed(NamedTuple):
    """Variables on their way: names, their description, and their memory."""

    names: tuple[str, ...]
    told: Any
    buffers: list[memoryview]


def packed_copies(values: Mapping[str, Any], limit: int | None) -> Packed:
    """
    What goes to a worker later: values as they are now.

    Raises:
        ConfigError: something is no name of a variable.
        TransferError: a value cannot be sent; names it.
    """
    names = checked_names(values)
    told, buffers = packed(values, limit)
    return Packed(tuple(names), told, [memoryview(bytes(part)) for part in buffers])


class Transfer(Request):
    """
    The moving of variables, whose memory may go past the messages. Arguments are a Request's.

    Attributes:
        names: of the variables.
        broken: why not all of it came through, or "".
    """

    noun = "transfer"
    names: tuple[str, ...] = ()
    broken = ""
    _bulk: transfer.BulkSocket | None = None
    _moving: asyncio.Future[list[memoryview] | str] | None = None
    _is_over = False
    _parts: list[memoryview] | None = None

    def _move(self, bulk: transfer.BulkSocket, work: Callable[[], list[memoryview]]) -> None:
        """Begin to send or receive, on a thread of its own."""

        def moved() -> list[memoryview] | str:
            try:
                return work()
            except TransferError as error:  # whose traceback would keep the memory
                return str(error)

        async def moving() -> list[memoryview] | str:
            try:
                return await apart(moved)
            except RuntimeError as error:  # there is no thread to be had, and the worker waits
                bulk.close()
                return str(error)

        self._moving = asyncio.ensure_future(moving())
        self._moving.add_done_callback(note_failure)

    async def settle(self) -> None:
        """
        Have an end of it: an honest worker that has had its say has read or written all by now.

        The socket is closed where it is not sure that both sides are at the same place.
        """
        bulk, moving = self._bulk, self._moving
        if bulk is None:
            return
        in_step = False
        try:
            if moving is not None:
                self._is_over = True
                await asyncio.wait({moving})
                self._take(moving.result(), bulk)
            answered = self._reply is not None and self._reply.content.get("status") == "ok"
            in_step = answered and not self.broken
        finally:
            self._bulk = self._moving = None
            if not in_step:
                bulk.close()

    def _take(self, outcome: list[memoryview] | str, bulk: transfer.BulkSocket) -> None:
        """Take what has come, or why it has not."""
        if isinstance(outcome, str):
            self.broken = outcome
        elif not bulk.is_in_step():
            self.broken = "more came than was announced"
        else:
            self._parts = outcome


class Push(Transfer):
    """
    The giving of variables to a worker.

    Args:
        names: of the variables.
        told: their description.
        buffers: their memory.
        timeout: as of a Request.
        sink: as of a Request.

    Attributes:
        size: bytes of their memory.
    """

    def __init__(
        self,
        names: Iterable[str],
        told: Any,
        buffers: list[memoryview],
        timeout: float | None,
        sink: Sink,
    ) -> None:
        super().__init__("push_request", {"values": told}, timeout, sink)
        self.names = tuple(names)
        self.buffers = tuple(buffers)
        self.size = sum(part.nbytes for part in buffers)

    @property
    def title(self) -> str:
        """What is moved."""
        return f"push {', '.join(self.names)}"

    def go_by(self, bulk: transfer.BulkSocket | None) -> None:
        """Begin to send what is large, where there is a way for it."""
        # on a subshell it would meet one whose turn it is
        if bulk is None or self.subshell or self.size < transfer.SMALLEST:
            return
        if not bulk.is_in_step():
            return
        parts, self.buffers = self.buffers, ()

        def work() -> list[memoryview]:
            bulk.send(parts, lambda: self._is_over)
            return []

        self.content = {**self.content, "bulk": [part.nbytes for part in parts]}
        self._bulk = bulk
        self._move(bulk, work)

    def check(self, reply: Message, worker: str) -> None:
        """
        See that the worker has them.

        Raises:
            TransferError: it has not, and why.
        """
        refused = reply.content.get("refused")
        if refused is not None:
            msg = f'Worker "{worker}" could not take {", ".join(self.names)}: {_reason(refused)}.'
            raise TransferError(msg)
        if self.broken:
            msg = f'Worker "{worker}" did not take all of {", ".join(self.names)}: {self.broken}.'
            raise TransferError(msg)


class Pull(Transfer):
    """
    The taking over of a worker's variables.

    Args:
        names: of the variables.
        timeout: as of a Request.
        sink: as of a Request.
        limit: bytes that they may take; None: any number.
        allow_pickle: what has no safe form may come as a pickle.
    """

    def __init__(
        self,
        names: Iterable[str],
        timeout: float | None,
        sink: Sink,
        *,
        limit: int | None,
        allow_pickle: bool,
    ) -> None:
        self.names = tuple(names)
        content = {"names": list(self.names), "limit": limit, "pickles": allow_pickle}
        super().__init__("pull_request", content, timeout, sink)
        self._limit = limit
        self._allow_pickle = allow_pickle

    @property
    def title(self) -> str:
        """What is moved."""
        return f"pull {', '.join(self.names)}"

    def go_by(self, bulk: transfer.BulkSocket | None) -> None:
        """Let the worker send what is large past the messages, where there is a way for it."""
        if bulk is not None and bulk.is_in_step():
            self.content = {**self.content, "bulk": True}
            self._bulk = bulk

    def take_reply(self, message: Message) -> None:
        """The worker's reply; what it announces comes from now on, before the worker is idle."""
        bulk, sizes = self._bulk, message.content.get("bulk")
        if bulk is not None and self._moving is None and sizes is not None:
            self._move(bulk, lambda: self._received(bulk, sizes))
        super().take_reply(message)

    def _received(self, bulk: transfer.BulkSocket, sizes: Any) -> list[memoryview]:
        try:
            self._check_announced(sizes)
        except TransferError:
            bulk.close()  # its worker waits, and learns by this that nobody reads
            raise
        return bulk.receive(sizes, lambda: self._is_over)

    def _check_announced(self, sizes: Any) -> None:
        if not transfer.are_sizes(sizes):
            raise TransferError("it announced memory of sizes that are none")
        if self._limit is not None and sum(sizes) > self._limit + _BESIDE:
            msg = f"it announced more than {format_size(self._limit)}"
            raise TransferError(msg)

    def values(
        self, reply: Message, worker: str, known: Iterable[str], writable: Iterable[str]
    ) -> dict[str, Any]:
        """
        The values that a reply brings; nothing of it is believed.

        It takes its time: not on the loop.

        Args:
            reply: of the worker.
            worker: its name.
            known: names of variables that it is known to have.
            writable: folders that workers may write to; no library is imported from there.

        Raises:
            TransferError: there is no such variable, it has no safe form, or the worker lies.
            RemoteError: it was interrupted; named KeyboardInterrupt.
        """
        content = reply.content
        absent = content.get("missing")
        missing = [name for name in self.names if isinstance(absent, list) and name in absent]
        if missing:
            msg = f'Worker "{worker}" has no variable "{missing[0]}".{nearest(missing[0], known)}'
            raise TransferError(msg)
        if content.get("refused") is not None:
            msg = f'Worker "{worker}": {_reason(content["refused"])}.'
            raise TransferError(msg)
        if self._limit is not None and reply.size > self._limit + _BESIDE:
            msg = f'Worker "{worker}" sent more than {format_size(self._limit)}.'
            raise TransferError(msg)
        if self.broken and self.stops:
            raise remote_error("KeyboardInterrupt", "", [])
        if self.broken:
            msg = f'What worker "{worker}" sent for {", ".join(self.names)} did not come whole: '
            raise TransferError(msg + _reason(self.broken) + ".")
        parts = reply.buffers if self._parts is None else self._parts
        loads = transfer.unpickled if self._allow_pickle and not self.is_confined else None
        try:
            with shadows.installed_only(writable):
                values = transfer.unpack(content.get("values"), parts, loads=loads)
        except TransferError as error:
            msg = f'What worker "{worker}" sent for {", ".join(self.names)} cannot be taken: '
            raise TransferError(msg + _reason(error) + ".") from error
        if set(values) != set(self.names):
            msg = f'Worker "{worker}" sent other variables than {", ".join(self.names)}.'
            raise TransferError(msg)
        return {name: values[name] for name in self.names}


@contextlib.contextmanager
def telling(run: Push | Pull, worker: str) -> Iterator[None]:
    """Have a run say that it is on its way, where that takes long."""
    told: list[str] = []
    task = asyncio.create_task(_tell(run, worker, told))
    try:
        yield
    finally:
        task.cancel()
        if told:
            run.say(Message("progress", {"text": ""}))


async def _tell(run: Push | Pull, worker: str, told: list[str]) -> None:
    what = f"{run.title} ({format_size(run.size)})" if isinstance(run, Push) else run.title
    while True:
        await asyncio.sleep(PROGRESS_AFTER)
        if run.since is not None:  # its turn has come, and its worker is there
            seconds = format_duration(round(time.monotonic() - run.since))
            told.append(f'{what}, worker "{worker}" ... {seconds}')
            run.say(Message("progress", {"text": told[-1]}))


def _reason(told: object) -> str:
    return printable(str(told)[:_LONGEST_REASON]).removesuffix(".")
