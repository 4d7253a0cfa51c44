"""Frames and series of polars, which are Arrow's tables."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hive_jupyter.transfer.arrow import pack_table, read_table
from hive_jupyter.transfer.describing import LieError, NoFormError, Packer, Reader, exactly, of_type

if TYPE_CHECKING:
    from collections.abc import Callable


def _polars() -> Any:
    return importlib.import_module("polars")


def _pack_polars(packer: Packer, value: Any) -> list[Any]:
    pl = _polars()
    packer.meet(value)
    if type(value) not in (pl.DataFrame, pl.Series):
        raise NoFormError(of_type(value))
    is_frame = type(value) is pl.DataFrame
    frame = value if is_frame else value.to_frame()
    if any(kind.base_type() is pl.Object for kind in frame.dtypes):
        raise NoFormError("a polars column of Python objects")
    try:
        table = frame.to_arrow()
    except ModuleNotFoundError:
        raise NoFormError("a polars frame, where pyarrow is not installed") from None
    kept = pl.from_arrow(table).dtypes if frame.width else []
    for there, back in zip(frame.dtypes, kept, strict=True):
        if there.base_type() is not back.base_type():  # Enum, with older versions
            msg = f"a polars column of type {there}, which Arrow has not"
            raise NoFormError(msg)
    described = pack_table(packer, table)
    return ["polars_frame", *described] if is_frame else ["polars_series", value.name, *described]


def _read_polars(reader: Reader, *parts: Any) -> Any:
    table = read_table(reader, *parts)
    try:
        return _polars().from_arrow(table)
    except BaseException as error:
        # what is a bug in Rust is none of Python's common exceptions
        if type(error).__name__ == "PanicException":
            raise LieError("polars cannot take it") from None
        raise


PACKERS: dict[type | str, Callable[[Packer, Any], Any]] = {"polars": _pack_polars}

READERS: dict[str, Callable[..., Any]] = {
    "polars_frame": _read_polars,
    "polars_series": lambda reader, name, *parts: (
        _read_polars(reader, *parts).to_series().alias(exactly(name, str))
    ),
}
