"""Values on their way to a worker and back: what is sent, and what the answer means."""

from __future__ import annotations

import asyncio
import contextlib
import keyword
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hive_jupyter import shadows, transfer
from hive_jupyter.errors import ConfigError, TransferError
from hive_jupyter.swarm.messages import Message, Sink
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


class Push(Request):
    """
    The giving of variables to a worker.

    Args:
        names: of the variables.
        told: their description.
        buffers: their memory.
        timeout: as of a Request.
        sink: as of a Request.
    """

    noun = "transfer"

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

    @property
    def title(self) -> str:
        """What is moved."""
        return f"push {', '.join(self.names)}"

    @property
    def size(self) -> int:
        """Bytes of their memory."""
        return sum(part.nbytes for part in self.buffers)

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


class Pull(Request):
    """
    The taking over of a worker's variables.

    Args:
        names: of the variables.
        timeout: as of a Request.
        sink: as of a Request.
        limit: bytes that they may take; None: any number.
        allow_pickle: what has no safe form may come as a pickle.
    """

    noun = "transfer"

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
        loads = transfer.unpickled if self._allow_pickle and not self.is_confined else None
        try:
            with shadows.installed_only(writable):
                values = transfer.unpack(content.get("values"), reply.buffers, loads=loads)
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
