"""
The items of a map: a function, or the code of a cell, is called for each of them.

What came of an item is in a file before the next one begins, so that it outlives the worker: the
host reads it there where no reply comes any more. See ``protocol`` for its form.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from hive_jupyter import transfer
from hive_jupyter.errors import TransferError
from hive_jupyter.protocol import JOURNAL, JOURNAL_HEAD, JOURNAL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType

# Results of so many bytes are enough for one reply; the items behind them come again.
_ENOUGH = 8 * 2**20
# Of an exception: lines of its traceback, and characters of its text.
_MOST_LINES = 200
# Requests that are to stop: a worker has two at most.
_REMEMBERED = 8
_LONGEST_TEXT = 100_000

_NO_FORM = (
    "it has no safe form. {}. Return what it is made of; or have workers of the profile open "
    "(sandbox='open'), whose results may be anything that can be pickled"
)


class Items:
    """
    Runs items.

    Args:
        folder: the worker's private one, for the file.
        shell: whose namespace the code of a cell has.
    """

    def __init__(self, folder: str, shell: Any) -> None:
        self._journals = [_Journal(os.path.join(folder, f"{JOURNAL}{slot}")) for slot in range(2)]
        self._shell = shell
        self._key = ""
        self._function: Callable[[Any], Any] = id
        self._number = 0
        self._unwanted: deque[int] = deque(maxlen=_REMEMBERED)
        self._returned: deque[int] = deque(maxlen=_REMEMBERED)
        # the latest item of each request, begun or about to
        self._reached: dict[int, int] = {}
        self._is_calling = False

    def stop(self, number: int) -> None:
        """
        Stop a request, also one that has not begun; from another thread.

        A signal may come when the next request runs already, which is not meant.
        """
        self._unwanted.append(number)
        if self._number == number:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def give_back(self, number: int) -> int:
        """
        Begin no further item of a request; from another thread.

        Returns:
            The place of the first item that is not begun any more.
        """
        # in this order: the other thread does the opposite, so one of them sees what the other did
        self._returned.append(number)
        return self._reached.get(number, -1) + 1

    def run(
        self, content: dict[str, Any], buffers: Sequence[Any]
    ) -> tuple[dict[str, Any], list[memoryview]]:
        """
        Run the items of a request.

        Args:
            content: of the request.
            buffers: its binary parts.

        Returns:
            The content of the reply, and its binary parts.
        """
        parts = list(reversed(buffers))
        refusal = self._take_function(content, parts)
        if refusal is not None:
            return refusal, []
        self._number = content["number"]
        loop = asyncio._get_running_loop()  # noqa: SLF001  as functions find it in any other process
        noting = signal.signal(signal.SIGINT, self._interrupt)
        asyncio._set_running_loop(None)  # noqa: SLF001
        try:
            return self._run(content, parts)
        finally:
            self._number = 0
            asyncio._set_running_loop(loop)  # noqa: SLF001
            signal.signal(signal.SIGINT, noting)

    def _take_function(self, content: dict[str, Any], parts: list[Any]) -> dict[str, Any] | None:
        """Have the function of a request; else what to reply."""
        if content["key"] == self._key:
            return None
        told = content["function"]
        if told is None:
            return {"unknown": True}
        try:
            if isinstance(told[0], str):
                code, values = told
                self._shell.user_ns.update(_unpacked(values, parts))
                self._function = _of_cell(self._shell, code)
            else:
                taken = _taken(told, parts)
                self._function = _spread(taken) if content["spread"] else taken
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {error}"}
        self._key = content["key"]
        return None

    def _run(
        self, content: dict[str, Any], parts: list[Any]
    ) -> tuple[dict[str, Any], list[memoryview]]:
        results: list[Any] = []
        kept: list[memoryview] = []
        stopped = None
        size = 0
        began = time.monotonic()
        self._reached = dict([*self._reached.items()][1 - _REMEMBERED :])
        journal = self._journals[content["slot"]]
        journal.take(self._number)
        for index, told in enumerate(content["items"]):
            late = index > 0 and time.monotonic() - began > content["seconds"]
            self._reached[self._number] = index
            if late or self._is_unwanted() or self._number in self._returned:
                break
            if not journal.begin(index):
                break
            kind, body, own = self._outcome(told, parts, content)
            if self._is_unwanted():
                stopped = index
                break
            results.append([kind, body, len(own)])
            line = json.dumps([index, kind, body, [part.nbytes for part in own]]).encode()
            size += len(line) + sum(part.nbytes for part in own)
            if size > _ENOUGH:
                kept += own
                break
            # it is the value's own memory, which the next item may change
            kept += [memoryview(bytes(part)) for part in own]
            if not journal.keep(line, own):
                break
        seconds = time.monotonic() - began
        return {"results": results, "stopped": stopped, "seconds": seconds}, kept

    def _outcome(
        self, told: Any, parts: list[Any], content: dict[str, Any]
    ) -> tuple[str, Any, list[memoryview]]:
        """What comes of one item: its kind, description and memory."""
        try:
            try:
                self._is_calling = True
                return self._value(_taken(told, parts), content)
            finally:
                self._is_calling = False
        except _RefusedError as refusal:
            return "refused", str(refusal), []
        except BaseException as error:
            self._is_calling = False
            return "error", self._described(error), []

    def _value(self, item: Any, content: dict[str, Any]) -> tuple[str, Any, list[memoryview]]:
        value = self._function(item)
        try:
            dumps = transfer.pickled if content["pickles"] else _no_form
            told, own = transfer.pack({"result": value}, limit=content["limit"], dumps=dumps)
        except TransferError as error:
            raise _RefusedError(str(error)) from None
        return "value", told, own

    def _described(self, error: BaseException) -> list[Any]:
        name = type(error).__name__
        try:
            text = str(error)
        except Exception:
            text = ""
        try:
            reason = self._shell.reason(error)
            lines = _lines(error)
            lines += [reason] if reason else []
        except Exception:
            lines = [f"{name}: {text}"]
        return [name, text[:_LONGEST_TEXT], lines]

    def _is_unwanted(self) -> bool:
        return self._number in self._unwanted

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_calling and self._is_unwanted():
            raise KeyboardInterrupt


class _RefusedError(Exception):
    """A result cannot be handed over."""


class _Journal:
    """
    The file of one request after the other.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._file: os.stat_result | None = None
        self._number = 0
        self._end = 0

    def take(self, number: int) -> None:
        """Forget the request before."""
        self._have_open()
        os.ftruncate(self._descriptor, 0)
        self._number = number
        self._end = JOURNAL_HEAD.size

    def begin(self, index: int) -> bool:
        """Say that an item begins; False where the disk is full, and no second one may begin."""
        head = JOURNAL_HEAD.pack(self._number, index, time.monotonic())
        try:
            return os.pwrite(self._descriptor, head, 0) == len(head) or index == 0
        except OSError:
            return index == 0

    def keep(self, line: bytes, parts: Sequence[memoryview]) -> bool:
        """Keep what came of an item; False where the disk is full."""
        try:
            self._have_open()
            for part in (memoryview(JOURNAL_LENGTH.pack(len(line)) + line), *parts):
                written = 0
                while written < part.nbytes:
                    written += os.pwrite(self._descriptor, part[written:], self._end + written)
                self._end += written
        except OSError:
            return False
        return True

    def _have_open(self) -> None:
        """
        See that the descriptor is this file's: what runs here may have closed it.

        To open it for each request would take 0.2 ms on a disk: what was emptied is flushed there.
        """
        with contextlib.suppress(OSError):
            if self._file is not None and os.path.samestat(os.fstat(self._descriptor), self._file):
                return
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fstat(self._descriptor)


def _taken(told: Any, parts: list[Any]) -> Any:
    """The one value that a request brings."""
    return _unpacked(told, parts)["item"]


def _unpacked(told: Any, parts: list[Any]) -> dict[str, Any]:
    """Values that a request brings: their description, and how many parts they have."""
    description, count = told
    own = [parts.pop() for _ in range(count)]
    return transfer.unpack(description, own, loads=transfer.unpickled)


def _spread(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda item: function(*item[0], **item[1])


def _no_form(_value: Any) -> list[Any]:
    raise TransferError(_NO_FORM.format(transfer.WHAT_TRAVELS))


def _of_cell(shell: Any, code: str) -> Callable[[Any], Any]:
    """A function that runs a cell with ``item`` set; it returns the last expression's value."""
    source = shell.transform_cell(code)
    name = shell.compile.cache(source)
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    body = compile(tree, name, "exec")
    value = compile(ast.Expression(last.value), name, "eval") if last is not None else None

    def run(item: Any) -> Any:
        names = shell.user_ns
        names["item"] = item
        exec(body, names)  # noqa: S102  this is what a worker is for
        return None if value is None else eval(value, names)  # noqa: S307

    return run


def _lines(error: BaseException) -> list[str]:
    """The lines of a traceback, without those of this module."""
    told = traceback.TracebackException(type(error), error, _users(error.__traceback__))
    lines = [line for piece in told.format() for line in piece.rstrip("\n").split("\n")]
    return lines[-_MOST_LINES:]


def _users(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames
