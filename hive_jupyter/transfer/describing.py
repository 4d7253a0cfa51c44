"""What takes values apart and puts them together, whatever their types."""

from __future__ import annotations

import math
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from hive_jupyter.errors import TransferError
from hive_jupyter.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

# Code that cloudpickle has taken along runs in no other version.
PYTHON = "{}.{}".format(*sys.version_info)

# Containers in containers, and values in all.
DEEPEST = 50
MOST_VALUES = 10_000_000
_MOST_OF_ONE_HASH = 100


class NoFormError(Exception):
    """Something has no form here; says what, and where in the value."""


class LieError(Exception):
    """A description is not true."""


class Packer:
    """
    Describes values.

    Args:
        limit: bytes that they may take; None: any number.
        packers: what describes a value, by its type or by the library of that.

    Attributes:
        buffers: their memory.
    """

    def __init__(
        self, limit: int | None, packers: Mapping[type | str, Callable[[Packer, Any], Any]]
    ) -> None:
        self._packers = packers
        self.buffers: list[memoryview] = []
        self._left = math.inf if limit is None else limit
        self._limit = limit
        self._count = 0
        self._depth = 0
        # what can change and was met before, kept so that no other object gets its id
        self._met: dict[int, Any] = {}

    def mark(self) -> tuple[int, float]:
        """Begin a value, for ``forget``."""
        self._met.clear()
        self._depth = 0
        return len(self.buffers), self._left

    def forget(self, mark: tuple[int, float]) -> None:
        """Leave out what was described since."""
        del self.buffers[mark[0] :]
        self._left = mark[1]

    def value(self, value: Any) -> Any:
        """Describe a value."""
        kind = type(value)
        self._count += 1
        if self._count > MOST_VALUES:
            msg = f"it holds more than {MOST_VALUES} values. Make it an array, a frame or a file."
            raise TransferError(msg)
        if value is None or kind is bool:
            return value
        packer = self._packers.get(kind)
        if packer is None:
            packer = self._packers.get(kind.__module__.partition(".")[0])
        if packer is None:
            raise NoFormError(of_type(value))
        return packer(self, value)

    def items(self, tag: str, items: Iterable[Any]) -> list[Any]:
        """Describe what is in a container."""
        self._depth += 1
        if self._depth > DEEPEST:
            msg = f"it is nested more than {DEEPEST} levels deep"
            raise NoFormError(msg)
        described = [tag, *map(self.value, items)]
        self._depth -= 1
        return described

    def meet(self, value: Any) -> None:
        """See that something which can change is there once: what is made of it would be two."""
        if id(value) in self._met:
            msg = f"it holds {of_type(value)} twice, or in itself"
            raise NoFormError(msg)
        self._met[id(value)] = value

    def buffer(self, memory: Any) -> int:
        """Send memory along; gives the number under which the other side finds it."""
        view = memoryview(memory)
        self.allow(view.nbytes)
        self._left -= view.nbytes
        self.buffers.append(view.cast("B") if view.nbytes else memoryview(b""))
        return len(self.buffers) - 1

    def allow(self, size: int) -> None:
        """See that so many bytes more may be sent; before they are copied."""
        if size > self._left:
            msg = (
                f"it is larger than {format_size(self._limit)}, the setting max_transfer. Raise "
                "that (%hive config max_transfer=none: no limit), or write it to a file."
            )
            raise TransferError(msg)


class Reader:
    """
    Makes values of descriptions.

    Args:
        buffers: each is used once.
        loads: as for ``unpack``.
        readers: what makes a value, by the tag of its description.
    """

    def __init__(
        self,
        buffers: list[memoryview],
        loads: Callable[[list[Any]], Any] | None,
        readers: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._readers = readers
        self._buffers: list[memoryview | None] = [*buffers]
        self._loads = loads
        self._depth = 0
        self._empty = 0

    def value(self, told: Any) -> Any:
        """The value that is described."""
        if not isinstance(told, list):
            if isinstance(told, dict):
                raise LieError("an object where a value should be")
            return told
        self._depth += 1
        if self._depth > 2 * DEEPEST:
            raise LieError("it is nested too deep")
        tag, *parts = told
        value = self._readers[tag](self, *parts)
        self._depth -= 1
        return value

    def buffer(self, number: int) -> memoryview:
        """The memory with that number; only once, so that no two values share it."""
        if not is_count(number) or number >= len(self._buffers):
            raise LieError("there is no such buffer")
        buffer, self._buffers[number] = self._buffers[number], None
        if buffer is None:
            raise LieError("a buffer is used twice")
        return buffer

    def allow_empty(self, count: int) -> None:
        """See that there are not too many elements, in all, that take no memory."""
        self._empty += count
        if self._empty > MOST_VALUES:
            raise LieError("too many elements of no size")

    def pickle(self, python: str, numbers: Sequence[Any]) -> Any:
        """What somebody has pickled, where that may be opened, and by that version of Python."""
        if self._loads is None:
            raise TransferError("a value came as a pickle, which is not opened here")
        if python != PYTHON:
            msg = (
                "functions, classes and objects of other types go between Pythons of one version, "
                f"and here {exactly(python, str)[:20]!a} meets {PYTHON}"
            )
            raise TransferError(msg)
        return self._loads([self.buffer(number) for number in numbers])

    def finish(self) -> None:
        """See that nothing is left over."""
        if any(buffer is not None for buffer in self._buffers):
            raise LieError("there are buffers that belong to no value")


def of_type(value: object) -> str:
    """What to call a value that cannot be moved."""
    kind = type(value)
    home = "" if kind.__module__ == "builtins" else f" ({kind.__module__})"
    return f"a value of type {kind.__qualname__}{home}"


def exactly(value: Any, kind: type) -> Any:
    """
    A part of a description, of which a type is expected.

    Raises:
        Exception: it is another one.
    """
    if type(value) is not kind:
        msg = f"{type(value).__name__} instead of {kind.__name__}"
        raise LieError(msg)
    return value


def told_apart(values: Collection[Any]) -> Collection[Any]:
    """
    Values for a set, or keys.

    Raises:
        Exception: so many have one hash that Python would compare them for hours, and do nothing
            else meanwhile.
    """
    if max(Counter(map(hash, values)).values(), default=0) > _MOST_OF_ONE_HASH:
        raise LieError("too many values of one hash")
    return values


def is_count(value: object) -> bool:
    """Whether this can be a size, a length or a number of something."""
    return type(value) is int and 0 <= value <= 2**62
