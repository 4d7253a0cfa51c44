"""Plain data: numbers, text, containers, dates."""

from __future__ import annotations

import datetime as dt
import decimal
import importlib
import math
import pathlib
import re
import uuid
from typing import TYPE_CHECKING, Any

from hive_jupyter.transfer.describing import (
    LieError,
    NoFormError,
    Packer,
    Reader,
    exactly,
    of_type,
    told_apart,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer text is a buffer; so is what holds half a character, which JSON cannot.
_LONGEST_TEXT = 1000
_LARGEST_NUMBER = 2**53


def _pack_int(_packer: Packer, value: int) -> Any:
    return value if -_LARGEST_NUMBER < value < _LARGEST_NUMBER else ["int", hex(value)]


def _pack_float(_packer: Packer, value: float) -> Any:
    return value if math.isfinite(value) else ["float", repr(value)]


def _pack_text(packer: Packer, value: str) -> Any:
    if len(value) <= _LONGEST_TEXT:
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    return ["text", packer.buffer(value.encode(errors="surrogatepass"))]


def _pack_container(packer: Packer, value: Any) -> list[Any]:
    kind = type(value)
    if kind not in (tuple, frozenset):
        packer.meet(value)
    if kind is dict:
        return packer.items("dict", (item for pair in value.items() for item in pair))
    return packer.items(kind.__name__, value)


def _pack_date(_packer: Packer, value: dt.date) -> list[Any]:
    return ["date", value.toordinal()]


def _pack_time(_packer: Packer, value: dt.time) -> list[Any]:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return ["time", *clock, value.fold, describe_zone(value.tzinfo)]


def _pack_datetime(_packer: Packer, value: dt.datetime) -> list[Any]:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return ["datetime", value.toordinal(), *clock, value.fold, describe_zone(value.tzinfo)]


def describe_zone(zone: Any) -> Any:
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
    msg = f"a time zone without a name of its own ({of_type(zone)})"
    raise NoFormError(msg)


def read_zone(told: Any) -> Any:
    """The inverse of ``describe_zone``."""
    if told is None:
        return None
    tag, *parts = told
    if tag == "offset":
        days, seconds, microseconds, *name = parts
        names = [exactly(part, str) for part in name]
        return dt.timezone(dt.timedelta(days, seconds, microseconds), *names)
    (key,) = parts
    if not _ZONE.fullmatch(key):
        raise LieError("this is no time zone")
    if tag == "zone":
        return importlib.import_module("zoneinfo").ZoneInfo(key)
    if tag == "pytz":
        return importlib.import_module("pytz").timezone(key)
    raise LieError("this is no time zone")


_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,3}")


def _read_datetime(_reader: Reader, day: Any, *clock: Any) -> dt.datetime:
    hour, minute, second, micro, fold, zone = clock
    time = dt.time(hour, minute, second, micro, read_zone(zone), fold=fold)
    return dt.datetime.combine(dt.date.fromordinal(day), time)


def _read_dict(reader: Reader, *items: Any) -> dict[Any, Any]:
    if len(items) % 2:
        raise LieError("a key without a value")
    values = [reader.value(item) for item in items]
    return dict(zip(told_apart(values[::2]), values[1::2], strict=True))


PACKERS: dict[type | str, Callable[[Packer, Any], Any]] = {
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

READERS: dict[str, Callable[..., Any]] = {
    "int": lambda _, text: int(exactly(text, str), 16),
    "float": lambda _, text: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text],
    "complex": lambda reader, real, imag: complex(
        exactly(reader.value(real), float), exactly(reader.value(imag), float)
    ),
    "text": lambda reader, number: str(reader.buffer(number), "utf-8", "surrogatepass"),
    "bytes": lambda reader, number: bytes(reader.buffer(number)),
    "bytearray": lambda reader, number: bytearray(reader.buffer(number)),
    "list": lambda reader, *items: [reader.value(item) for item in items],
    "tuple": lambda reader, *items: tuple([reader.value(item) for item in items]),
    "set": lambda reader, *items: set(told_apart([reader.value(item) for item in items])),
    "frozenset": lambda reader, *items: frozenset(told_apart([*map(reader.value, items)])),
    "dict": _read_dict,
    "range": lambda reader, *ends: range(*(exactly(reader.value(end), int) for end in ends)),
    "slice": lambda reader, start, stop, step: slice(*map(reader.value, (start, stop, step))),
    "date": lambda _, day: dt.date.fromordinal(day),
    "time": lambda _, hour, minute, second, micro, fold, zone: dt.time(
        hour, minute, second, micro, read_zone(zone), fold=fold
    ),
    "datetime": _read_datetime,
    "timedelta": lambda _, days, seconds, micro: dt.timedelta(days, seconds, micro),
    "decimal": lambda _, text: decimal.Decimal(exactly(text, str)),
    "uuid": lambda _, text: uuid.UUID(hex=exactly(text, str)),
    "path": lambda reader, text: pathlib.PosixPath(exactly(reader.value(text), str)),
    "pure_path": lambda reader, text: pathlib.PurePosixPath(exactly(reader.value(text), str)),
    "pickle": lambda reader, python, *numbers: reader.pickle(python, numbers),
}
