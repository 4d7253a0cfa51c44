"""Frames, series and indexes of pandas."""

from __future__ import annotations

import importlib
import itertools
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from hive_jupyter.transfer.arrays import numpy, pack_array, read_array
from hive_jupyter.transfer.arrow import arrow, pack_chunked, read_chunked
from hive_jupyter.transfer.describing import (
    LieError,
    NoFormError,
    Packer,
    Reader,
    exactly,
    of_type,
    told_apart,
)
from hive_jupyter.transfer.plain import describe_zone, read_zone

if TYPE_CHECKING:
    from collections.abc import Callable

# As pandas writes a frequency, or a type of periods. It takes long text apart for hours, while
# nobody else runs.
_FREQUENCY = re.compile(r"[\w+-]{1,40}|period\[[\w+-]{1,40}\]")
_STORAGES = ("python", "pyarrow")
# What an entry of a column of objects is: text, or one of these.
_TEXT, _NONE, _NAN, _NA = range(4)


def _pandas() -> Any:
    return importlib.import_module("pandas")


def _pack_pandas(packer: Packer, value: Any) -> Any:
    pd = _pandas()
    if value is pd.NaT:
        return ["NaT"]
    if value is pd.NA:
        return ["NA"]
    if type(value) is pd.Timestamp:
        moment = value if value.tz is None else value.tz_convert("UTC").tz_localize(None)
        return ["timestamp", pack_array(packer, moment.asm8), describe_zone(value.tz), value.fold]
    if type(value) is pd.Timedelta:
        return ["pandas_timedelta", pack_array(packer, value.asm8)]
    packer.meet(value)
    if type(value) is pd.DataFrame:
        columns = [_pack_column(packer, value.iloc[:, at].array) for at in range(value.shape[1])]
        labels = [_pack_labels(packer, axis) for axis in (value.columns, value.index)]
        return ["frame", *labels, columns]
    if type(value) is pd.Series:
        column, labels = _pack_column(packer, value.array), _pack_labels(packer, value.index)
        return ["series", column, labels, packer.value(value.name)]
    if isinstance(value, pd.Index):
        return ["labels", _pack_labels(packer, value)]
    return ["column", _pack_column(packer, value)]


def _pack_labels(packer: Packer, index: Any) -> list[Any]:
    """Describe an index."""
    pd = _pandas()
    if type(index) is pd.RangeIndex:
        return ["range", index.start, index.stop, index.step, packer.value(index.name)]
    if type(index) is pd.MultiIndex:
        levels = [_pack_values(packer, level) for level in index.levels]
        codes = [pack_array(packer, numpy().asarray(code)) for code in index.codes]
        return ["multi", levels, codes, packer.items("list", index.names)]
    return ["values", *_pack_values(packer, index)]


def _pack_values(packer: Packer, index: Any) -> list[Any]:
    """Describe an index by what is in it."""
    frequency = getattr(index, "freqstr", None)
    if frequency is not None and not _FREQUENCY.fullmatch(frequency):
        msg = f"a pandas index with the frequency {frequency}"
        raise NoFormError(msg)
    if index.dtype == numpy().dtype(object) and set(map(type, index)) != {str}:
        column = ["plain", packer.items("list", index)]  # there are few labels, of many kinds
    else:
        column = _pack_column(packer, index.array)
    return [column, packer.value(index.name), frequency]


def _pack_column(packer: Packer, array: Any) -> list[Any]:
    """Describe what a column or an index holds."""
    pd, np = _pandas(), numpy()
    if type(array) is pd.arrays.NumpyExtensionArray:
        array = array.to_numpy()
    kind = array.dtype
    if isinstance(kind, np.dtype):
        if kind == np.dtype(object):
            return _pack_texts(packer, np.asarray(array, object), "object", "")
        return pack_array(packer, np.asarray(array))
    if isinstance(kind, pd.CategoricalDtype):
        categories = _pack_values(packer, kind.categories)
        return ["categorical", pack_array(packer, array.codes), categories, bool(kind.ordered)]
    if isinstance(kind, pd.DatetimeTZDtype):
        moments = pd.DatetimeIndex(array).tz_convert("UTC").tz_localize(None)
        return ["zoned", pack_array(packer, np.asarray(moments)), describe_zone(kind.tz)]
    if isinstance(kind, pd.StringDtype):
        missing = "NA" if kind.na_value is pd.NA else "nan"
        if kind.storage == "pyarrow":
            return ["strings", missing, *pack_chunked(packer, _arrow_of(array))]
        return _pack_texts(packer, np.asarray(array, object), kind.storage, missing)
    if isinstance(kind, pd.ArrowDtype):
        return ["arrow_column", *pack_chunked(packer, _arrow_of(array))]
    if isinstance(kind, pd.PeriodDtype):
        return ["period", pack_array(packer, array.asi8), kind.name]
    if isinstance(kind, pd.IntervalDtype):
        ends = [_pack_values(packer, end) for end in (array.left, array.right)]
        return ["interval", *ends, array.closed]
    return _pack_nullable(packer, array)


def _pack_nullable(packer: Packer, array: Any) -> list[Any]:
    pd, np = _pandas(), numpy()
    kinds = (pd.arrays.IntegerArray, pd.arrays.FloatingArray, pd.arrays.BooleanArray)
    if not isinstance(array, kinds):
        msg = f"a pandas column of type {array.dtype}"
        raise NoFormError(msg)
    values = array.to_numpy(array.dtype.numpy_dtype, na_value=False)
    return ["nullable", pack_array(packer, values), pack_array(packer, np.asarray(array.isna()))]


def _arrow_of(array: Any) -> Any:
    pa = arrow()
    held = array.__arrow_array__()
    return held if isinstance(held, pa.ChunkedArray) else pa.chunked_array([held])


def _pack_texts(packer: Packer, texts: Any, storage: str, missing: str) -> list[Any]:
    """Describe a column of text: where each ends, all of it in UTF-8, and which are missing."""
    pd, np = _pandas(), numpy()
    items = texts.tolist()
    marks = None
    if set(map(type, items)) - {str}:
        marks = np.fromiter((_mark(pd, item) for item in items), np.uint8, len(items))
        items = [item if type(item) is str else "" for item in items]
    whole = "".join(items)
    if whole.isascii():
        data, lengths = whole.encode(), map(len, items)
    else:
        encoded = [item.encode(errors="surrogatepass") for item in items]
        data, lengths = b"".join(encoded), map(len, encoded)
    offsets = np.zeros(len(items) + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, len(items)), out=offsets[1:])
    described = None if marks is None else pack_array(packer, marks)
    text = [pack_array(packer, offsets), packer.buffer(data)]
    return ["texts", storage, missing, text, described]


def _mark(pd: Any, item: Any) -> int:
    if type(item) is str:
        return _TEXT
    if item is None:
        return _NONE
    if item is pd.NA:
        return _NA
    if type(item) is float and math.isnan(item):
        return _NAN
    msg = f"a pandas column of objects, among which there is {of_type(item)}"
    raise NoFormError(msg)


def _read_frame(reader: Reader, labels: Any, index: Any, columns: Any) -> Any:
    pd = _pandas()
    arrays = [_read_column(reader, column) for column in columns]
    names, rows = (_read_labels(reader, axis) for axis in (labels, index))
    if len(names) != len(arrays):
        raise LieError("columns without names")
    if any(len(array) != len(rows) for array in arrays):
        raise LieError("columns that are not as long as their index")
    frame = pd.DataFrame(dict(enumerate(arrays)), index=rows, copy=False)
    frame.columns = names
    return frame


def _read_series(reader: Reader, column: Any, labels: Any, name: Any) -> Any:
    array, rows = _read_column(reader, column), _read_labels(reader, labels)
    if len(array) != len(rows):
        raise LieError("a series that is not as long as its index")
    return _pandas().Series(array, index=rows, name=reader.value(name), copy=False)


def _read_labels(reader: Reader, told: Any) -> Any:
    pd = _pandas()
    tag, *parts = told
    if tag == "range":
        *ends, name = parts
        start, stop, step = (exactly(end, int) for end in ends)
        return pd.RangeIndex(start, stop, step, name=reader.value(name))
    if tag == "multi":
        levels, codes, names = parts
        return pd.MultiIndex(
            [_read_values(reader, *level) for level in levels],
            [read_array(reader, code) for code in codes],
            names=reader.value(names),
        )
    if tag != "values":
        raise LieError("an index of no kind")
    return _read_values(reader, *parts)


def _read_values(reader: Reader, column: Any, name: Any, frequency: Any) -> Any:
    index = _pandas().Index(_read_column(reader, column), name=reader.value(name), copy=False)
    if frequency is not None and hasattr(index, "freq") and index.freq is None:
        index.freq = _read_frequency(frequency)
    return index


def _read_frequency(told: Any) -> str:
    if not _FREQUENCY.fullmatch(told):
        raise LieError("a frequency that is none")
    return str(told)


def _read_column(reader: Reader, told: Any) -> Any:
    tag, *parts = told
    if tag == "array":
        array = read_array(reader, told)
        if array.ndim != 1:
            raise LieError("a column of several dimensions")
        return array
    return _COLUMNS[tag](reader, *parts)


def _read_categorical(reader: Reader, codes: Any, categories: Any, ordered: Any) -> Any:
    return _pandas().Categorical.from_codes(
        read_array(reader, codes), _read_values(reader, *categories), ordered=ordered is True
    )


def _read_zoned(reader: Reader, moments: Any, zone: Any) -> Any:
    index = _pandas().DatetimeIndex(read_array(reader, moments))
    return index.tz_localize("UTC").tz_convert(read_zone(zone)).array


def _read_strings(reader: Reader, missing: Any, kind: Any, chunks: Any) -> Any:
    texts = read_chunked(reader, kind, chunks)
    types = arrow().types
    if not (types.is_string(texts.type) or types.is_large_string(texts.type)):
        raise LieError("text that is none")
    return _string_kind("pyarrow", missing).__from_arrow__(texts)


def _string_kind(storage: Any, missing: Any) -> Any:
    """The type of a column of text; before 2.3 a name says what stands for a missing one."""
    pd, np = _pandas(), numpy()
    if storage not in _STORAGES:
        raise LieError("text that is kept nowhere")
    if missing == "NA":
        return pd.StringDtype(storage)
    try:
        return pd.StringDtype(storage, na_value=np.nan)
    except TypeError:
        return pd.StringDtype("pyarrow_numpy")


def _read_texts(reader: Reader, storage: Any, missing: Any, text: Any, described: Any) -> Any:
    pd, np = _pandas(), numpy()
    told, number = text
    offsets, data = read_array(reader, told), reader.buffer(number)
    if offsets.ndim != 1 or offsets.dtype != np.int64 or not len(offsets):
        raise LieError("text without offsets")
    if offsets[0] or offsets[-1] != data.nbytes or (offsets[1:] < offsets[:-1]).any():
        raise LieError("text with offsets that lead elsewhere")
    texts = _split(offsets, data)
    if described is not None:
        marks = read_array(reader, described)
        if marks.shape != texts.shape:
            raise LieError("marks for other texts")
        for mark, stand_in in ((_NONE, None), (_NAN, math.nan), (_NA, pd.NA)):
            texts[marks == mark] = stand_in
    if storage == "object":
        return pd.Index(texts, dtype=object)  # of an array pandas would guess what is in it
    return pd.array(texts, _string_kind(storage, missing))


def _split(offsets: Any, data: memoryview) -> Any:
    """An array of objects: the text between each two offsets."""
    np, pa = numpy(), sys.modules.get("pyarrow")
    count = len(offsets) - 1
    if pa is not None and data.nbytes:  # three times as fast, where pandas has it in any case
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        try:
            array = pa.Array.from_buffers(pa.large_string(), count, buffers)
            array.validate(full=True)
        except pa.ArrowInvalid:  # half a character, say
            pass
        else:
            return array.to_numpy(zero_copy_only=False)
    memory, ends = bytes(data), offsets.tolist()
    texts = np.empty(count, object)
    spans = itertools.pairwise(ends)
    texts[:] = [str(memory[start:end], "utf-8", "surrogatepass") for start, end in spans]
    return texts


def _read_plain(reader: Reader, told: Any) -> Any:
    values = told_apart(exactly(reader.value(told), list))
    array = numpy().empty(len(values), object)
    array[:] = values
    return _pandas().Index(array, dtype=object, tupleize_cols=False)


def _read_arrow_column(reader: Reader, kind: Any, chunks: Any) -> Any:
    return _pandas().arrays.ArrowExtensionArray(read_chunked(reader, kind, chunks))


def _read_nullable(reader: Reader, told: Any, missing: Any) -> Any:
    arrays = _pandas().arrays
    values, mask = read_array(reader, told), read_array(reader, missing)
    kinds = {"b": arrays.BooleanArray, "f": arrays.FloatingArray}
    kind = kinds.get(values.dtype.kind, arrays.IntegerArray)
    if values.ndim != 1 or values.shape != mask.shape:
        raise LieError("a mask of another length")
    return kind(values, mask)


def _read_period(reader: Reader, told: Any, frequency: Any) -> Any:
    pd = _pandas()
    kind = pd.PeriodDtype(_read_frequency(frequency))
    return pd.arrays.PeriodArray(read_array(reader, told), kind)


def _read_interval(reader: Reader, left: Any, right: Any, closed: Any) -> Any:
    ends = (_read_values(reader, *left), _read_values(reader, *right))
    return _pandas().arrays.IntervalArray.from_arrays(*ends, closed=closed)


def _read_timestamp(reader: Reader, told: Any, zone: Any, fold: Any) -> Any:
    moment = _pandas().Timestamp(read_array(reader, told)[()])
    if zone is None:
        return moment.replace(fold=fold) if fold else moment
    return moment.tz_localize("UTC").tz_convert(read_zone(zone))


_COLUMNS: dict[str, Callable[..., Any]] = {
    "categorical": _read_categorical,
    "zoned": _read_zoned,
    "strings": _read_strings,
    "texts": _read_texts,
    "plain": _read_plain,
    "arrow_column": _read_arrow_column,
    "nullable": _read_nullable,
    "period": _read_period,
    "interval": _read_interval,
}


PACKERS: dict[type | str, Callable[[Packer, Any], Any]] = {"pandas": _pack_pandas}

READERS: dict[str, Callable[..., Any]] = {
    "frame": _read_frame,
    "series": _read_series,
    "labels": _read_labels,
    "column": _read_column,
    "timestamp": _read_timestamp,
    "pandas_timedelta": lambda reader, told: _pandas().Timedelta(read_array(reader, told)[()]),
    "NaT": lambda _: _pandas().NaT,
    "NA": lambda _: _pandas().NA,
}
