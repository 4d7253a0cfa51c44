"""
Values as buffers and back, for host and worker.

``pack`` takes values apart into a description, which is plain enough for JSON, and the memory of
their arrays, as it lies there. ``unpack`` puts them together again, and trusts nothing: a
description that lies about shapes, types, sizes or offsets ends in a TransferError, and nothing
that is made of it can be more than data. Whatever has no form of its own here has no safe one; who
trusts the other side may have it pickled.

What is described, in JSON: None, bool, int, float and str stand for themselves, everything else is
a list that begins with a tag: ``["list", 1, 2]``, ``["array", "<f8", [2, 3], null, 0]`` (the last
is the number of a buffer). No module of these types is imported before a value asks for it.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib
import math
import pathlib
import pickle
import re
import uuid
from typing import TYPE_CHECKING, Any

from hive_jupyter.errors import TransferError
from hive_jupyter.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# No message part is larger: the host's sockets take none that is.
LARGEST_PART = 2**30
# Smaller buffers share a part; and so do those beyond so many, as a message has few thousand parts.
_LARGE = 2**16
_MOST_PARTS = 1000
# Where a buffer that shares a part begins: at a multiple of this, in bytes.
_ALIGNMENT = 16

# Containers in containers, and values in all.
_DEEPEST = 50
_MOST_VALUES = 10_000_000
# Longer text is a buffer; so is what holds half a character, which JSON cannot.
_LONGEST_TEXT = 1000
_LARGEST_NUMBER = 2**53

WHAT_TRAVELS = (
    "What travels: None, numbers, text, bytes, dates, lists, tuples, sets and dicts of such, numpy "
    "arrays, pandas and polars frames, Arrow tables"
)


class _NoFormError(Exception):
    """Something has no form here; says what, and where in the value."""


class _LieError(Exception):
    """A description is not true."""


# --- whole values ---


def pack(
    values: Mapping[str, Any],
    *,
    limit: int | None = None,
    dumps: Callable[[Any], list[Any]] | None = None,
) -> tuple[dict[str, Any], list[memoryview]]:
    """
    Take values apart. Memory is not copied where it is contiguous.

    Args:
        values: by name.
        limit: bytes that they may take; None: any number.
        dumps: makes buffers of what has no form here, as ``pickled``; None: that is an error.

    Returns:
        The description, which JSON can hold, and the parts of a message to go with it. They are
        the values' own memory: leave it as it is until they have been sent.

    Raises:
        TransferError: a value has no form, is in itself, or is too large; names it.
    """
    packer = _Packer(limit)
    described = {}
    for name, value in values.items():
        mark = packer.mark()
        try:
            described[name] = packer.value(value)
        except _NoFormError as lack:
            packer.forget(mark)
            if dumps is None:
                msg = f'"{name}" cannot be handed over safely: {lack}. {WHAT_TRAVELS}.'
                raise TransferError(msg) from None
            described[name] = ["pickle", *map(packer.buffer, _dumped(name, value, dumps))]
        except TransferError as error:
            msg = f'"{name}" cannot be moved: {error}'
            raise TransferError(msg) from None
    sizes = [buffer.nbytes for buffer in packer.buffers]
    return {"sizes": sizes, "values": described}, _parts(packer.buffers)


def unpack(
    description: Any,
    parts: Sequence[Any],
    *,
    loads: Callable[[list[Any]], Any] | None = None,
) -> dict[str, Any]:
    """
    Put values together, whoever described them. Arrays can be written to.

    Args:
        description: from ``pack``, or from somebody who only says so.
        parts: of the message; large arrays use this memory, so it must be nobody else's.
        loads: the inverse of ``dumps``; None: a pickle is an error.

    Returns:
        The values, by name.

    Raises:
        TransferError: something is not what it says that it is, or its library is missing.
    """
    try:
        buffers = _buffers(description["sizes"], list(parts))
        reader = _Reader(buffers, loads)
        values = {str(name): reader.value(told) for name, told in description["values"].items()}
        reader.finish()
    except TransferError:
        raise
    except ModuleNotFoundError as error:
        msg = f"a value needs the package {error.name}, which is not installed here"
        raise TransferError(msg) from None
    except Exception as error:
        msg = f"a value is not what it says that it is ({type(error).__name__}: {str(error)[:200]})"
        raise TransferError(msg) from error
    return values


def pickled(value: Any) -> list[Any]:
    """
    Pickle a value, functions and classes of a notebook included: the pickle, and its buffers.

    Raises:
        TransferError: cloudpickle is not installed.
    """
    try:
        cloudpickle: Any = importlib.import_module("cloudpickle")
    except ImportError:
        msg = "functions, classes and objects of other types need cloudpickle: pip install it"
        raise TransferError(msg) from None
    aside: list[Any] = []
    head = cloudpickle.dumps(value, protocol=5, buffer_callback=aside.append)
    return [head, *(buffer.raw() for buffer in aside)]


def unpickled(buffers: list[Any]) -> Any:
    """The inverse of ``pickled``; runs whatever the pickle says."""
    return pickle.loads(buffers[0], buffers=buffers[1:])  # noqa: S301  its callers ask for that


def _dumped(name: str, value: Any, dumps: Callable[[Any], list[Any]]) -> list[Any]:
    try:
        return dumps(value)
    except TransferError as error:
        msg = f'"{name}" cannot be moved: {error}'
        raise TransferError(msg) from None
    except Exception as error:
        msg = f'"{name}" cannot be pickled: {type(error).__name__}: {str(error)[:200]}'
        raise TransferError(msg) from None


# --- the parts of a message ---


def _parts(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Large buffers as they are, the others joined in front of them; see ``_buffers``."""
    alone = _alone([buffer.nbytes for buffer in buffers])
    joined = bytearray()
    parts: list[memoryview] = []
    for number, buffer in enumerate(buffers):
        if number in alone:
            parts += _pieces(buffer)
        else:
            joined += buffer
            joined += bytes(-len(joined) % _ALIGNMENT)
    return [*_pieces(memoryview(joined)), *parts]


def _buffers(sizes: Any, parts: list[Any]) -> list[memoryview]:
    """
    The inverse of ``_parts``: no two buffers share memory, and each can be written to.

    Raises:
        Exception: there is not exactly as much as was said.
    """
    if not isinstance(sizes, list) or not all(map(_is_count, sizes)):
        raise _LieError("the sizes are no sizes")
    alone = _alone(sizes)
    shared = sum(
        size + -size % _ALIGNMENT for number, size in enumerate(sizes) if number not in alone
    )
    parts.reverse()
    joined = _whole(parts, shared)
    buffers, start = [], 0
    for number, size in enumerate(sizes):
        if number in alone:
            buffers.append(_whole(parts, size))
        else:
            # a value that stays must not keep all others
            buffers.append(memoryview(bytearray(joined[start : start + size])))
            start += size + -size % _ALIGNMENT
    if parts:
        raise _LieError("there is more than was said")
    return buffers


def _alone(sizes: Sequence[int]) -> frozenset[int]:
    """The numbers of the buffers that have parts of their own."""
    large = [number for number, size in enumerate(sizes) if size >= _LARGE]
    return frozenset(large[:_MOST_PARTS])


def _pieces(buffer: memoryview) -> list[memoryview]:
    return [buffer[start : start + LARGEST_PART] for start in range(0, buffer.nbytes, LARGEST_PART)]


def _whole(parts: list[Any], size: int) -> memoryview:
    """Take as many parts from the end as make up this size."""
    if size == 0:
        return memoryview(bytearray())
    if size <= LARGEST_PART:
        part = memoryview(parts.pop()).cast("B")
        if part.nbytes != size:
            msg = f"{part.nbytes} bytes instead of {size}"
            raise _LieError(msg)
        return part
    if sum(memoryview(part).nbytes for part in parts) < size:
        raise _LieError("there is less than was said")
    whole, start = memoryview(bytearray(size)), 0
    while start < size:
        length = min(size - start, LARGEST_PART)
        whole[start : start + length] = memoryview(parts.pop()).cast("B")
        start += length
    return whole


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 2**62


# --- one value ---


class _Packer:
    """
    Describes values.

    Attributes:
        buffers: their memory.
    """

    def __init__(self, limit: int | None) -> None:
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
        if self._count > _MOST_VALUES:
            msg = f"it holds more than {_MOST_VALUES} values. Make it an array, a frame or a file."
            raise TransferError(msg)
        if value is None or kind is bool:
            return value
        packer = _PACKERS.get(kind) or _PACKERS_OF.get(kind.__module__.partition(".")[0])
        if packer is None:
            raise _NoFormError(_of_type(value))
        return packer(self, value)

    def items(self, tag: str, items: Iterable[Any]) -> list[Any]:
        """Describe what is in a container."""
        self._depth += 1
        if self._depth > _DEEPEST:
            msg = f"it is nested more than {_DEEPEST} levels deep"
            raise _NoFormError(msg)
        described = [tag, *map(self.value, items)]
        self._depth -= 1
        return described

    def meet(self, value: Any) -> None:
        """See that something which can change is there once: what is made of it would be two."""
        if id(value) in self._met:
            msg = f"it holds {_of_type(value)} twice, or in itself"
            raise _NoFormError(msg)
        self._met[id(value)] = value

    def buffer(self, memory: Any) -> int:
        """Send memory along; gives the number under which the other side finds it."""
        view = memoryview(memory)
        self.reserve(view.nbytes)
        self.buffers.append(view.cast("B") if view.nbytes else memoryview(b""))
        return len(self.buffers) - 1

    def reserve(self, size: int) -> None:
        """See that so many bytes more may be sent; before they are copied."""
        if size > self._left:
            msg = (
                f"it is larger than {format_size(self._limit)} (HiveConfig.max_transfer). Raise "
                "that, or write it to a file."
            )
            raise TransferError(msg)
        self._left -= size


class _Reader:
    """
    Makes values of descriptions.

    Args:
        buffers: each is used once.
        loads: as for ``unpack``.
    """

    def __init__(self, buffers: list[memoryview], loads: Callable[[list[Any]], Any] | None) -> None:
        self._buffers: list[memoryview | None] = [*buffers]
        self._loads = loads
        self._depth = 0

    def value(self, told: Any) -> Any:
        """The value that is described."""
        if not isinstance(told, list):
            if isinstance(told, dict):
                raise _LieError("an object where a value should be")
            return told
        self._depth += 1
        if self._depth > 2 * _DEEPEST:
            raise _LieError("it is nested too deep")
        tag, *parts = told
        value = _READERS[tag](self, *parts)
        self._depth -= 1
        return value

    def buffer(self, number: int) -> memoryview:
        """The memory with that number; only once, so that no two values share it."""
        if not _is_count(number) or number >= len(self._buffers):
            raise _LieError("there is no such buffer")
        buffer, self._buffers[number] = self._buffers[number], None
        if buffer is None:
            raise _LieError("a buffer is used twice")
        return buffer

    def pickle(self, numbers: Sequence[Any]) -> Any:
        """What somebody has pickled, where that may be opened."""
        if self._loads is None:
            raise TransferError("a value came as a pickle, which is not opened here")
        return self._loads([self.buffer(number) for number in numbers])

    def finish(self) -> None:
        """See that nothing is left over."""
        if any(buffer is not None for buffer in self._buffers):
            raise _LieError("there are buffers that belong to no value")


def _of_type(value: object) -> str:
    kind = type(value)
    home = "" if kind.__module__ == "builtins" else f" ({kind.__module__})"
    return f"a value of type {kind.__qualname__}{home}"


def _exactly(value: Any, kind: type) -> Any:
    """
    A part of a description, of which a type is expected.

    Raises:
        Exception: it is another one.
    """
    if type(value) is not kind:
        msg = f"{type(value).__name__} instead of {kind.__name__}"
        raise _LieError(msg)
    return value


# --- plain data ---


def _pack_int(_packer: _Packer, value: int) -> Any:
    return value if -_LARGEST_NUMBER < value < _LARGEST_NUMBER else ["int", hex(value)]


def _pack_float(_packer: _Packer, value: float) -> Any:
    return value if math.isfinite(value) else ["float", repr(value)]


def _pack_text(packer: _Packer, value: str) -> Any:
    if len(value) <= _LONGEST_TEXT:
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    return ["text", packer.buffer(value.encode(errors="surrogatepass"))]


def _pack_container(packer: _Packer, value: Any) -> list[Any]:
    kind = type(value)
    if kind not in (tuple, frozenset):
        packer.meet(value)
    if kind is dict:
        return packer.items("dict", (item for pair in value.items() for item in pair))
    return packer.items(kind.__name__, value)


def _pack_date(_packer: _Packer, value: dt.date) -> list[Any]:
    return ["date", value.toordinal()]


def _pack_time(_packer: _Packer, value: dt.time) -> list[Any]:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return ["time", *clock, value.fold, _zone(value.tzinfo)]


def _pack_datetime(_packer: _Packer, value: dt.datetime) -> list[Any]:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return ["datetime", value.toordinal(), *clock, value.fold, _zone(value.tzinfo)]


def _zone(zone: Any) -> Any:
    """Describe a time zone."""
    kind = type(zone)
    if zone is None:
        return None
    if kind is dt.timezone:
        offset, *name = zone.__getinitargs__()
        return ["offset", offset.days, offset.seconds, offset.microseconds, *name]
    if kind.__module__ == "zoneinfo" and isinstance(zone.key, str):
        return ["zone", zone.key]
    if kind.__module__.partition(".")[0] == "pytz" and isinstance(zone.zone, str):
        return ["pytz", zone.zone]
    msg = f"a time zone without a name of its own ({_of_type(zone)})"
    raise _NoFormError(msg)


def _read_zone(told: Any) -> Any:
    if told is None:
        return None
    tag, *parts = told
    if tag == "offset":
        days, seconds, microseconds, *name = parts
        names = [_exactly(part, str) for part in name]
        return dt.timezone(dt.timedelta(days, seconds, microseconds), *names)
    (key,) = parts
    if not _ZONE.fullmatch(key):
        raise _LieError("this is no time zone")
    if tag == "zone":
        return importlib.import_module("zoneinfo").ZoneInfo(key)
    if tag == "pytz":
        return importlib.import_module("pytz").timezone(key)
    raise _LieError("this is no time zone")


_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,3}")


def _read_datetime(_reader: _Reader, day: Any, *clock: Any) -> dt.datetime:
    hour, minute, second, micro, fold, zone = clock
    time = dt.time(hour, minute, second, micro, _read_zone(zone), fold=fold)
    return dt.datetime.combine(dt.date.fromordinal(day), time)


def _read_dict(reader: _Reader, *items: Any) -> dict[Any, Any]:
    if len(items) % 2:
        raise _LieError("a key without a value")
    values = iter([reader.value(item) for item in items])
    return dict(zip(values, values, strict=True))


_PACKERS: dict[type, Callable[[_Packer, Any], Any]] = {
    int: _pack_int,
    float: _pack_float,
    complex: lambda packer, value: ["complex", packer.value(value.real), packer.value(value.imag)],
    str: _pack_text,
    bytes: lambda packer, value: ["bytes", packer.buffer(value)],
    bytearray: lambda packer, value: ["bytearray", packer.buffer(value)],
    list: _pack_container,
    tuple: _pack_container,
    set: _pack_container,
    frozenset: _pack_container,
    dict: _pack_container,
    range: lambda packer, value: packer.items("range", (value.start, value.stop, value.step)),
    slice: lambda packer, value: packer.items("slice", (value.start, value.stop, value.step)),
    dt.date: _pack_date,
    dt.time: _pack_time,
    dt.datetime: _pack_datetime,
    dt.timedelta: lambda _, value: ["timedelta", value.days, value.seconds, value.microseconds],
    decimal.Decimal: lambda _, value: ["decimal", str(value)],
    uuid.UUID: lambda _, value: ["uuid", value.hex],
    pathlib.PosixPath: lambda packer, value: ["path", packer.value(str(value))],
    pathlib.PurePosixPath: lambda packer, value: ["pure_path", packer.value(str(value))],
}

_READERS: dict[str, Callable[..., Any]] = {
    "int": lambda _, text: int(_exactly(text, str), 16),
    "float": lambda _, text: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
    "complex": lambda reader, real, imag: complex(
        _exactly(reader.value(real), float), _exactly(reader.value(imag), float)
    ),
    "text": lambda reader, number: str(reader.buffer(number), "utf-8", "surrogatepass"),
    "bytes": lambda reader, number: bytes(reader.buffer(number)),
    "bytearray": lambda reader, number: bytearray(reader.buffer(number)),
    "list": lambda reader, *items: [reader.value(item) for item in items],
    "tuple": lambda reader, *items: tuple([reader.value(item) for item in items]),
    "set": lambda reader, *items: {reader.value(item) for item in items},
    "frozenset": lambda reader, *items: frozenset([reader.value(item) for item in items]),
    "dict": _read_dict,
    "range": lambda reader, *ends: range(*(_exactly(reader.value(end), int) for end in ends)),
    "slice": lambda reader, start, stop, step: slice(*map(reader.value, (start, stop, step))),
    "date": lambda _, day: dt.date.fromordinal(day),
    "time": lambda _, hour, minute, second, micro, fold, zone: dt.time(
        hour, minute, second, micro, _read_zone(zone), fold=fold
    ),
    "datetime": _read_datetime,
    "timedelta": lambda _, days, seconds, micro: dt.timedelta(days, seconds, micro),
    "decimal": lambda _, text: decimal.Decimal(_exactly(text, str)),
    "uuid": lambda _, text: uuid.UUID(hex=_exactly(text, str)),
    "path": lambda reader, text: pathlib.PosixPath(_exactly(reader.value(text), str)),
    "pure_path": lambda reader, text: pathlib.PurePosixPath(_exactly(reader.value(text), str)),
    "pickle": lambda reader, *numbers: reader.pickle(numbers),
}

# Packers for all types of a library, by its name.
_PACKERS_OF: dict[str, Callable[[_Packer, Any], Any]] = {}


# --- numpy ---

# What an element of an array may be: no objects, and nothing that this list does not name.
_ELEMENT = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV][0-9]{1,10}"
    r"|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_HIGHEST_CHARACTER = 0x10FFFF


def _numpy() -> Any:
    return importlib.import_module("numpy")


def _pack_numpy(packer: _Packer, value: Any) -> list[Any]:
    np = _numpy()
    if isinstance(value, np.generic):
        return ["scalar", _pack_array(packer, np.asarray(value))]
    packer.meet(value)
    if type(value) is np.ma.MaskedArray:
        return _pack_masked(packer, value)
    if type(value) is np.memmap:
        value = value.view(np.ndarray)
    if type(value) is not np.ndarray:
        raise _NoFormError(_of_type(value))
    return _pack_array(packer, value)


def _pack_array(packer: _Packer, array: Any) -> list[Any]:
    """Describe an array: its memory as it is, where its axes in some order lie without gaps."""
    np = _numpy()
    element = _describe_element(array.dtype)
    axes: list[int] | None = None
    if not array.flags.c_contiguous:
        axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        turned = array.transpose(axes)
        if turned.flags.c_contiguous:
            array = turned
        else:
            packer.reserve(array.nbytes)
            packer.reserve(-array.nbytes)
            array, axes = np.array(array, order="C"), None
    memory = array.reshape(-1).view(np.uint8) if array.nbytes else b""
    return ["array", element, list(array.shape), axes, packer.buffer(memory)]


def _pack_masked(packer: _Packer, value: Any) -> list[Any]:
    np = _numpy()
    mask = np.ma.getmask(value)
    return [
        "masked",
        _pack_array(packer, value.data),
        None if mask is np.ma.nomask else _pack_array(packer, mask),
        _pack_array(packer, np.asarray(value.fill_value, value.dtype)),
        bool(value.hardmask),
    ]


def _describe_element(dtype: Any) -> Any:
    if dtype.hasobject:
        raise _NoFormError("an array of Python objects")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["of", _describe_element(base), list(shape)]
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [_describe_element(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if not _ELEMENT.fullmatch(dtype.str):
        msg = f"an array of {dtype}"
        raise _NoFormError(msg)
    return dtype.str


def _read_element(told: Any, depth: int = 0) -> Any:
    np = _numpy()
    if depth > _DEEPEST:
        raise _LieError("elements that are nested too deep")
    if isinstance(told, str):
        if not _ELEMENT.fullmatch(told):
            raise _LieError("elements of a type that does not travel")
        return np.dtype(told)
    if isinstance(told, list):
        tag, base, shape = told
        if tag != "of" or not all(map(_is_count, shape)):
            raise _LieError("elements of no type")
        return np.dtype((_read_element(base, depth + 1), tuple(shape)))
    formats = [_read_element(part, depth + 1) for part in told["formats"]]
    names, offsets = told["names"], told["offsets"]
    if not all(isinstance(name, str) for name in names) or not all(map(_is_count, offsets)):
        raise _LieError("fields without names or places")
    layout = {"names": names, "formats": formats, "offsets": offsets}
    return np.dtype({**layout, "itemsize": told["itemsize"]}, align=told["aligned"] is True)


def _read_array(reader: _Reader, told: Any, shape: Any, axes: Any, number: Any) -> Any:
    np = _numpy()
    dtype = _read_element(told)
    if dtype.hasobject:  # the list above knows of none
        raise _LieError("an array of Python objects")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise _LieError("a shape that is none")
    memory = reader.buffer(number)
    if math.prod(shape) * dtype.itemsize != memory.nbytes:
        raise _LieError("a shape of another size")
    if not memory.nbytes:
        if math.prod(shape) > _MOST_VALUES:
            raise _LieError("too many elements of no size")
        array = np.zeros(shape, dtype)
    else:
        array = np.frombuffer(memory, np.uint8).view(dtype.base if dtype.subdtype else dtype)
        array = array.reshape(shape)
    if not (array.flags.aligned and array.flags.writeable):
        array = array.copy()
    _check_elements(array)
    return array if axes is None else array.transpose(np.argsort(axes))


def _check_elements(array: Any) -> None:
    """See that the elements are such that numpy's own code can rely on."""
    np = _numpy()
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_elements(array[name])
    elif array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise _LieError("a bool that is neither true nor false")
    elif array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        letters = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
        if letters.max() > _HIGHEST_CHARACTER:
            raise _LieError("a character that there is not")


def _read_masked(reader: _Reader, data: Any, mask: Any, fill: Any, hard: Any) -> Any:
    np = _numpy()
    values = _array(reader, data)
    masked = np.ma.nomask if mask is None else _array(reader, mask)
    if mask is not None and masked.shape != values.shape:
        raise _LieError("a mask of another shape")
    filler = _array(reader, fill)
    return np.ma.MaskedArray(values, mask=masked, fill_value=filler[()], hard_mask=hard is True)


def _array(reader: _Reader, told: Any) -> Any:
    """An array, and nothing else."""
    tag, *parts = told
    if tag != "array":
        raise _LieError("something else than an array")
    return _read_array(reader, *parts)


_PACKERS_OF["numpy"] = _pack_numpy
_READERS["array"] = _read_array
_READERS["masked"] = _read_masked
_READERS["scalar"] = lambda reader, told: _array(reader, told)[()]
