"""
The items of a map on their way to a worker, and what came of them on the way back.

::

    Task ──▶ Chunk (one request) ──▶ worker ──▶ its reply; where it died: the file that it left
                                                       └──▶ Outcome, of each item

Reply and file are untrusted alike: counts, places and kinds are checked, and a value is data.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hive_jupyter import transfer
from hive_jupyter.display.text import plain
from hive_jupyter.errors import RemoteError, TransferError, remote_error
from hive_jupyter.protocol import JOURNAL, JOURNAL_HEAD, JOURNAL_LENGTH
from hive_jupyter.swarm.messages import Message, Sink
from hive_jupyter.swarm.run import Request
from hive_jupyter.units import format_size, printable

# More than a worker leaves in its file: bytes, and parts of memory, which cost more than they hold.
_LARGEST_JOURNAL = 16 * 2**20
_MOST_PARTS = 10_000
# Of an exception: lines of its traceback, characters of one, and of its text.
_MOST_LINES = 250
_LONGEST_LINE = 10_000
_LONGEST_TEXT = 100_000
_LONGEST_NAME = 300
# Of what a worker says why it does not hand something over, in characters.
_LONGEST_REASON = 600
# Bytes of a reply that are no value's memory.
_BESIDE = 64 * 2**20
# The nature of what an item left.
VALUE, ERROR, REFUSED = "value", "error", "refused"


@dataclass(frozen=True)
class Function:
    """
    What is called for each item.

    Attributes:
        name: for people.
        key: the same for the same function.
        told: its description; or the code of a cell, and the description of its variables.
        buffers: its memory.
        spread: an item is what it is called with, ``(args, kwargs)``.
    """

    name: str
    key: str
    told: Any
    buffers: tuple[memoryview, ...] = ()
    spread: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any], *, spread: bool = False) -> Function:
        """
        Take a function along, with what it refers to.

        Raises:
            TransferError: it cannot be pickled.
        """
        name = str(getattr(function, "__qualname__", None) or type(function).__name__)
        try:
            told, parts = transfer.pack({"item": function}, dumps=transfer.pickled)
        except TransferError as error:
            raise TransferError(str(error).replace('"item"', f'"{name}"', 1)) from None
        digest = hashlib.sha256(repr((told, spread)).encode())
        for part in parts:
            digest.update(part)
        return cls(name, digest.hexdigest(), [told, len(parts)], tuple(parts), spread)

    @classmethod
    def of_cell(cls, code: str, values: Mapping[str, Any], limit: int | None) -> Function:
        """
        Take the code of a cell along.

        Args:
            code: of the cell.
            values: variables that it needs.
            limit: bytes that they may take; None: any number.

        Raises:
            TransferError: a value cannot be sent.
        """
        told, parts = transfer.pack(values, limit=limit, dumps=transfer.pickled)
        # fresh for each map: to compare the values would take longer than to send them
        return cls("cell", secrets.token_hex(16), [code, [told, len(parts)]], tuple(parts))


def _wanted() -> bool:
    return True


@dataclass(eq=False)
class Task:
    """
    One item.

    Attributes:
        index: its place among the items.
        item: itself, for who tells about it.
        function: that is called for it.
        answer: is called on the loop, once, when ``error`` or ``value`` is there; must not block.
        claim: is called on the loop whenever it goes to a worker; False: nobody wants it any more.
        told: its description.
        buffers: its memory.
        tries: how often it was sent to a worker that never began it.
        value: what came of it.
        error: what came of it instead.
        is_over: one of them is there.
    """

    index: int
    item: Any
    function: Function
    answer: Callable[[Task], object]
    claim: Callable[[], bool] = _wanted
    told: Any = None
    buffers: tuple[memoryview, ...] = ()
    tries: int = 0
    value: Any = None
    error: BaseException | None = None
    is_over: bool = False

    @property
    def is_revocable(self) -> bool:
        """Whether somebody may cancel it, as long as it has not gone to a worker."""
        return self.claim is not _wanted

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        """Say what came of it; only the first time counts."""
        if not self.is_over:
            self.value, self.error, self.is_over = value, error, True
            self.told, self.buffers = None, ()
            self.answer(self)

    def pack(self, limit: int | None) -> None:
        """
        Describe it.

        Raises:
            TransferError: it cannot be sent.
        """
        told, parts = transfer.pack({"item": self.item}, limit=limit, dumps=transfer.pickled)
        self.told, self.buffers = [told, len(parts)], tuple(parts)

    @property
    def size(self) -> int:
        """Bytes of its memory."""
        return sum(part.nbytes for part in self.buffers)


@dataclass(frozen=True)
class Outcome:
    """
    What a worker says that came of an item.

    Attributes:
        kind: VALUE, ERROR or REFUSED.
        body: a description, [name, text, lines] of an exception, or a reason.
        buffers: the value's memory.
    """

    kind: str
    body: Any
    buffers: Sequence[Any] = ()

    @property
    def is_scalar(self) -> bool:
        """Whether it is a number, a text, or nothing."""
        values = self.body.get("values") if isinstance(self.body, dict) else None
        value = values.get("result", []) if isinstance(values, dict) else []
        return self.kind == VALUE and not isinstance(value, list | dict)


@dataclass(frozen=True)
class Report:
    """
    What a worker says of a chunk.

    Attributes:
        outcomes: of its first items.
        running: the number of the item that was stopped, or that it died of; None: none ran.
        seconds: they took.
        unknown: it does not have the function any more.
        refused: why it can do nothing with the function, or None.
    """

    outcomes: Sequence[Outcome] = ()
    running: int | None = None
    seconds: float = math.nan
    unknown: bool = False
    refused: str | None = None


class Chunk(Request):
    """
    Some items that go to a worker at once; they are of one function.

    Args:
        tasks: the items.
        seconds: after so much work no further item is begun.
        sends_function: the worker does not have it yet.
        slot: 0 or 1, in turn: a worker may have two chunks, and has a file for each.
        pickles: results that have no safe form may come as pickles.
        limit: bytes that a result may have; None: any number.
        sink: as of a Request.

    Attributes:
        number: by which the worker's file is known to be this one's.
        overran: an item had more than its time.
        is_over: nothing more comes of it.
        is_first: its worker had nothing else to do before.
        is_late: it takes longer than it should.
        is_asked_back: its worker is to begin no further item, and may have begun none.
        count: how many items it has; fewer once its worker has given some back.
    """

    noun = "item"

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        seconds: float,
        sends_function: bool,
        slot: int = 0,
        pickles: bool,
        limit: int | None,
        sink: Sink,
    ) -> None:
        function = tasks[0].function
        self.number = secrets.randbits(62)
        self.overran = False
        self.is_first = True
        self.is_late = False
        self.is_asked_back = False
        self.is_over = False
        self._name = function.name
        self._limit = limit
        self._file = f"{JOURNAL}{slot}"
        self._sends_function = sends_function
        self.count = len(tasks)
        content = {
            "number": self.number,
            "slot": slot,
            "key": function.key,
            "function": function.told if sends_function else None,
            "spread": function.spread,
            "items": [task.told for task in tasks],
            "seconds": seconds,
            "pickles": pickles,
            "limit": limit,
        }
        super().__init__("map_request", content, None, sink)
        first = function.buffers if sends_function else ()
        self.buffers = (*first, *(part for task in tasks for part in task.buffers))

    @property
    def title(self) -> str:
        """What it runs."""
        return f"map {self._name}"

    @property
    def may_do_nothing(self) -> bool:
        """Whether somebody wanted its worker to begin no item."""
        return self.stops > 0 or self.is_asked_back

    def take_reply(self, message: Message) -> None:
        """The worker's reply; where nothing was published, that it is idle does not come either."""
        self._idle = message.content.get("silent") is True or self._idle
        super().take_reply(message)

    def report(self, reply: Message) -> Report:
        """
        What a reply says.

        Raises:
            TransferError: it makes no sense.
        """
        content = reply.content
        if content.get("refused") is not None:
            return Report(refused=reason(content["refused"]))
        if content.get("unknown") is True:
            if self._sends_function:
                _lie("it says that it does not have the function, which came with its items")
            return Report(unknown=True)
        if self._limit is not None and reply.size > self._limit + _BESIDE:
            msg = f"it sent more than {format_size(self._limit)}"
            raise TransferError(msg)
        with _told_as_lies():
            outcomes = _outcomes(content["results"], list(reply.buffers), self.count)
            running, seconds = content["stopped"], content["seconds"]
            if running is not None and (running != len(outcomes) or not self.stops):
                _lie("it says that it was stopped in an item in which it was not")
            if self.count and not outcomes and running is None and not self.may_do_nothing:
                _lie("it says that it has done nothing")
            seconds = float(seconds) if isinstance(seconds, int | float) else math.nan
        return Report(outcomes, running, seconds)

    def left(self, folder: str | os.PathLike[str]) -> Report:
        """
        What a worker without a reply left in its file; nothing where it began nothing.

        Args:
            folder: the worker's private one.

        Raises:
            TransferError: it makes no sense.
        """
        with _told_as_lies():
            data = _journal(os.path.join(folder, self._file), _LARGEST_JOURNAL)
            if len(data) < JOURNAL_HEAD.size:
                return Report()
            number, running, _ = JOURNAL_HEAD.unpack_from(data)
            if number != self.number:
                return Report()
            outcomes = _kept(data[JOURNAL_HEAD.size :], self.count)
            if not 0 <= running < self.count or running not in (
                len(outcomes),
                len(outcomes) - 1,
            ):
                _lie("it says that it ran another item than it can have run")
            return Report(outcomes, running if running == len(outcomes) else None)

    def done_before(self, running: int, folder: str | os.PathLike[str]) -> Sequence[Outcome]:
        """
        What came of the items before the one that runs, as far as the file tells by now.

        Args:
            running: the number of that one.
            folder: the worker's private one.

        Raises:
            TransferError: it makes no sense.
        """
        with _told_as_lies():
            data = _journal(os.path.join(folder, self._file), _LARGEST_JOURNAL)
            if len(data) < JOURNAL_HEAD.size or JOURNAL_HEAD.unpack_from(data)[0] != self.number:
                return ()
            return _kept(data[JOURNAL_HEAD.size :], self.count)[:running]

    def began(self, folder: str | os.PathLike[str]) -> tuple[int, float] | None:
        """The item that runs, and since when (``time.monotonic``), as its worker says; or None."""
        with contextlib.suppress(OSError):
            head = _journal(os.path.join(folder, self._file), JOURNAL_HEAD.size)
            if len(head) == JOURNAL_HEAD.size:
                number, running, since = JOURNAL_HEAD.unpack(head)
                if number == self.number and 0 <= running < self.count and math.isfinite(since):
                    return running, since
        return None


class Overseer:
    """
    Looks that no item of a chunk takes more than its time.

    Args:
        chunk: that runs.
        folder: the private one of its worker.
        seconds: that each item has.
    """

    def __init__(self, chunk: Chunk, folder: os.PathLike[str], seconds: float) -> None:
        self._chunk = chunk
        self._folder = folder
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._running = -1
        self._since = 0.0

    def begin(self) -> None:
        """The chunk has begun."""
        self._since = time.monotonic()
        self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """The chunk is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        began = self._chunk.began(self._folder)
        # a worker can lie about it, and gains no more than this once for each of its items
        if began is not None and began[0] > self._running:
            self._running = began[0]
            self._since = min(max(began[1], self._since), now)
        left = self._since + self._seconds - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif not self._chunk.done.done():
            self._chunk.overran = True
            self._chunk.stop()


def taken(
    outcome: Outcome, worker: str, *, loads: Callable[[list[Any]], Any] | None
) -> tuple[Any, BaseException | None]:
    """
    The value of an item, or the error in its place.

    Args:
        outcome: of the item.
        worker: its name.
        loads: opens pickles; None: there are none.
    """
    if outcome.kind == REFUSED:
        msg = f'Worker "{worker}": {reason(outcome.body)}.'
        return None, TransferError(msg)
    if outcome.kind == ERROR:
        return None, _error(outcome.body)
    try:
        values = transfer.unpack(outcome.body, outcome.buffers, loads=loads)
        return values["result"], None
    except (TransferError, KeyError) as error:
        msg = f'What worker "{worker}" sent for the item cannot be taken: {reason(error)}.'
        return None, TransferError(msg)


def reason(told: object) -> str:
    """What a worker gives as its reason, as a part of a sentence."""
    return printable(str(told)[:_LONGEST_REASON]).removesuffix(".")


def _error(body: Any) -> RemoteError:
    name, text, lines = body
    return remote_error(
        printable(name[:_LONGEST_NAME]),
        plain(text[:_LONGEST_TEXT]),
        [plain(line[:_LONGEST_LINE]) for line in lines[-_MOST_LINES:]],
    )


def _outcomes(told: Any, parts: list[Any], most: int) -> list[Outcome]:
    """The outcomes of a reply."""
    if not isinstance(told, list) or len(told) > most:
        _lie("it sent more results than there are items")
    parts.reverse()
    outcomes = []
    for kind, body, count in told:
        if not isinstance(count, int) or not 0 <= count <= len(parts):
            _lie("a result has another size than it says")
        outcomes.append(_outcome(kind, body, [parts.pop() for _ in range(count)]))
    if parts:
        _lie("it sent more than it says")
    return outcomes


def _outcome(kind: Any, body: Any, buffers: Sequence[Any]) -> Outcome:
    if kind == ERROR:
        name, text, lines = body
        if not all(isinstance(each, str) for each in (name, text, *lines)):
            _lie("an exception is none")
    elif kind not in (VALUE, REFUSED):
        _lie("a result is of no kind that there is")
    return Outcome(kind, body, buffers)


def _kept(data: memoryview, most: int) -> list[Outcome]:
    """The outcomes in a file, but for a last one in which its worker was cut off."""
    outcomes: list[Outcome] = []
    parts = 0
    while len(data) >= JOURNAL_LENGTH.size:
        (length,) = JOURNAL_LENGTH.unpack_from(data)
        start = JOURNAL_LENGTH.size
        if len(data) < start + length:
            break
        index, kind, body, sizes = json.loads(bytes(data[start : start + length]))
        parts += len(sizes)
        if parts > _MOST_PARTS or not all(isinstance(size, int) and size >= 0 for size in sizes):
            _lie("a size is none, or there are too many")
        start += length
        if len(data) < start + sum(sizes):
            break
        if index != len(outcomes) or index >= most:
            _lie("a result is in another place than it says")
        buffers = []
        for size in sizes:
            buffers.append(memoryview(bytearray(data[start : start + size])))
            start += size
        outcomes.append(_outcome(kind, body, buffers))
        data = data[start:]
    return outcomes


def _journal(path: str, most: int) -> memoryview:
    """The first bytes of the file; its folder is the worker's, who may put anything there."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return memoryview(b"")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return memoryview(b"")
        pieces, left = [], most
        while left > 0 and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece)
    return memoryview(b"".join(pieces))


@contextlib.contextmanager
def _told_as_lies() -> Iterator[None]:
    try:
        yield
    except TransferError:
        raise
    except Exception as error:  # of whatever type it is instead
        msg = f"it sent something else than results ({type(error).__name__})"
        raise TransferError(msg) from error


def _lie(what: str) -> NoReturn:
    raise TransferError(what)
