"""Values as buffers and back: what is kept, and what a liar gets."""

import contextlib
import datetime as dt
import decimal
import json
import math
import pathlib
import subprocess
import sys
import threading
import uuid
import zoneinfo
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from polars.testing import assert_frame_equal as assert_polars_equal

from hive_jupyter import transfer
from hive_jupyter.errors import TransferError
from hive_jupyter.transfer import describing
from hive_jupyter.transfer import parts as parts_module
from hive_jupyter.transfer.parts import from_parts, in_parts


def sent(values, **options):
    """What ``pack`` gives, as it arrives on the other side."""
    told, parts = transfer.pack(values, **options)
    text = json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
    return json.loads(text), [bytearray(part) for part in parts]


def moved(value, **options):
    return transfer.unpack(*sent({"x": value}), **options)["x"]


def same(value, other):
    """Equal in type, too, and all through."""
    assert type(value) is type(other)
    if isinstance(value, np.ndarray):
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(value, other)
    elif isinstance(value, list | tuple):
        assert len(value) == len(other)
        for one, another in zip(value, other, strict=True):
            same(one, another)
    elif isinstance(value, dict):
        same(list(value.items()), list(other.items()))
    elif isinstance(value, float | decimal.Decimal):
        assert repr(value) == repr(other)
    else:
        assert value == other or repr(value) == repr(other)


# --- plain data ---

ZONES = st.none() | st.sampled_from(
    [dt.UTC, zoneinfo.ZoneInfo("Europe/Berlin"), dt.timezone(dt.timedelta(hours=-3.5), "here")]
)
KEYS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.dates()
    | st.uuids()
)
SCALARS = (
    KEYS
    | st.floats()
    | st.complex_numbers()
    | st.decimals()
    | st.datetimes(timezones=ZONES)
    | st.times(timezones=st.none())
    | st.timedeltas()
    | st.binary().map(bytearray)
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
    ),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=150)
def test_plain_data_comes_back_as_it_was(value):
    same(value, moved(value))


@pytest.mark.parametrize(
    "value",
    [
        *(2**53, -(2**53), 2**200, -0.0, math.nan, -math.inf, complex(math.nan, 1)),
        *("\ud800 half", "x" * 5000, "", b"", range(3, 1, -1), slice(None, 5)),
        *(pathlib.Path("/a/b"), pathlib.PurePosixPath("c"), decimal.Decimal("-1.50"), uuid.uuid4()),
        dt.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.time(1, 2, 3, 4, dt.timezone(dt.timedelta(seconds=-1))),
    ],
)
def test_what_is_rare_comes_back_too(value):
    back = moved(value)

    same(value, back)
    assert repr(value) == repr(back)


def test_a_pickle_that_is_bytes_stays_bytes():
    trap = b"cos\nsystem\n(S'touch /tmp/it-ran'\ntR."

    assert trap == moved(trap)


def test_arrays_are_found_in_containers():
    value = {"a": [np.arange(3), (np.float32(2), {"b": np.zeros((0, 2))})]}

    same(value, moved(value))


class Sub(dict):
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "object"),
        (Sub(), "Sub"),
        (len, "builtin_function_or_method"),
        (Sub, "type"),
        (np.array([object()]), "Python objects"),
        (np.zeros(2, [("a", "i4"), ("b", "O")]), "Python objects"),
        (pd.Series([{}]), "a pandas column of objects"),
        (pd.arrays.SparseArray([0, 1]), "Sparse"),
        (pl.Series([object()], dtype=pl.Object), "Python objects"),
        (pa.scalar(1), "Int64Scalar"),
        (SimpleNamespace(), "SimpleNamespace"),
        (dt.datetime(2020, 1, 1, tzinfo=type("Mine", (dt.tzinfo,), {})()), "time zone"),
    ],
)
def test_what_has_no_form_is_named_inside_of_what(value, said):
    with pytest.raises(TransferError, match=f'"it" cannot.*{said}.*What travels'):
        transfer.pack({"fine": 1, "it": [value]})


def in_itself():
    value = []
    value.append({"again": value})
    return value


def twice():
    value = np.arange(2)
    return [value, value]


def deep():
    value = []
    for _ in range(100):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "said"), [(in_itself, "twice, or in itself"), (twice, "twice"), (deep, "levels deep")]
)
def test_what_is_no_tree_is_refused(make, said):
    with pytest.raises(TransferError, match=said):
        transfer.pack({"x": make()})


def test_what_grows_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(describing, "MOST_VALUES", 1000)
    value = ()
    for _ in range(40):
        value = (value, value)
    with pytest.raises(TransferError, match="more than"):
        transfer.pack({"x": value})


def test_what_has_no_form_is_pickled_where_that_is_allowed():
    array = np.arange(1000.0)
    told, parts = sent({"x": [array, array], "y": 5}, dumps=transfer.pickled)
    with pytest.raises(TransferError, match="pickle, which is not opened here"):
        transfer.unpack(told, deepcopy(parts))
    back = transfer.unpack(told, parts, loads=transfer.unpickled)

    assert back["x"][0] is back["x"][1]
    np.testing.assert_array_equal(array, back["x"][0])
    assert 5 == back["y"]


def test_what_cannot_be_pickled_either_is_named():
    with pytest.raises(TransferError, match='"lock" cannot be pickled: TypeError'):
        transfer.pack({"lock": threading.Lock()}, dumps=transfer.pickled)


def test_without_cloudpickle_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TransferError, match="need cloudpickle: pip install"):
        transfer.pack({"f": lambda: 1}, dumps=transfer.pickled)


def test_no_library_is_imported_that_no_value_is_of():
    code = (
        "import sys; from hive_jupyter import transfer\n"
        "transfer.unpack(*transfer.pack({'x': [1, 'a', {2: b'c'}]}))\n"
        "print({'numpy', 'pandas', 'polars', 'pyarrow', 'cloudpickle'} & {*sys.modules})"
    )
    played = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "set()\n" == played.stdout


def test_a_library_that_is_not_here_is_named(monkeypatch):
    told, parts = sent({"x": pl.DataFrame({"a": [1]})})
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(TransferError, match="package polars"):
        transfer.unpack(told, parts)


# --- arrays ---

ELEMENTS = (
    npst.scalar_dtypes()
    | npst.byte_string_dtypes()
    | npst.unicode_string_dtypes()
    | npst.array_dtypes(npst.integer_dtypes() | npst.boolean_dtypes(), allow_subarrays=False)
)


@given(st.data())
@settings(max_examples=150)
def test_arrays_come_back_as_they_were(data):
    dtype = data.draw(ELEMENTS)
    array = data.draw(npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=4)))
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))
    if view.ndim and data.draw(st.booleans()):
        view = view[:: data.draw(st.sampled_from([-2, -1, 2]))]
    back = moved(view)

    assert (view.dtype, view.shape) == (back.dtype, back.shape)
    assert view.tobytes() == back.tobytes()
    assert back.flags.writeable
    assert back.flags.aligned


@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_lie_in_memory_as_they_did(order):
    array = np.arange(24.0).reshape(2, 3, 4).copy(order)
    turned = array.transpose(1, 2, 0)

    assert array.strides == moved(array).strides
    assert turned.strides == moved(turned).strides


def test_contiguous_memory_is_not_copied():
    array = np.arange(100_000).reshape(100, 1000).T
    _, parts = transfer.pack({"x": array})
    array[0, 0] = 77
    back = transfer.unpack(*transfer.pack({"x": array}))["x"]

    assert 77 == parts[0].cast("q")[0]
    assert np.shares_memory(array, back)


def test_a_view_that_is_larger_than_its_memory_is_not_unrolled():
    with pytest.raises(TransferError, match="larger than 1 MB"):
        transfer.pack({"x": np.broadcast_to(np.arange(3), (10**15, 3))}, limit=2**20)


@pytest.mark.parametrize("mask", [np.ma.nomask, [0, 1, 0]])
def test_masked_arrays_keep_mask_and_filling(mask):
    array = np.ma.MaskedArray([1.5, 2, 3], mask=mask, fill_value=7, hard_mask=True)
    back = moved(array)

    assert repr(array) == repr(back)
    assert back.hardmask
    assert (array.mask is np.ma.nomask) == (back.mask is np.ma.nomask)


@pytest.mark.parametrize(
    "value", [np.float64(3), np.int8(-3), np.datetime64("NaT"), np.str_("x"), np.bool_(0)]
)
def test_numpys_scalars_stay_such(value):
    same(value, moved(value))


def test_elements_with_gaps_and_fields_of_fields_come_back():
    inner = np.dtype([("flag", "?"), ("text", "<U3")])
    layout = {"names": ["a", "b"], "formats": [">i4", (inner, (2,))], "offsets": [4, 16]}
    array = np.zeros(3, np.dtype({**layout, "itemsize": 64}))
    array["b"]["text"] = "äß"
    back = moved(array)

    assert array.dtype == back.dtype
    assert repr(array) == repr(back)


# --- frames ---


def frame():
    return pd.DataFrame(
        {
            "int": [1, 2, 3, 4],
            "float": [1.0, math.nan, 3, 4],
            "bool": [True, False] * 2,
            "text": ["a", "é", None, ""],
            "object": pd.Series(["a", None, math.nan, pd.NA], dtype=object),
            "half": pd.Series(["\ud800", "b", "c", "d"], dtype=object),
            "category": pd.Categorical(["x", "y", "x", None]),
            "ordered": pd.Categorical([1, 2, 1, 2], ordered=True),
            "cut": pd.cut([1, 2, 3, 4], 2),
            "time": pd.date_range("2020", periods=4),
            "berlin": pd.date_range("2020", periods=4, tz="Europe/Berlin"),
            "utc": pd.date_range("2020", periods=4, tz="UTC").as_unit("s"),
            "offset": pd.to_datetime(["2020-01-01T00:00+05:00"] * 4),
            "delta": pd.to_timedelta([1, 2, 3, 4], "s"),
            "Int": pd.array([1, None, 3, 4], "Int32"),
            "boolean": pd.array([True, None] * 2, "boolean"),
            "Float": pd.array([1.5, None] * 2, "Float64"),
            "period": pd.period_range("2020-01", periods=4, freq="M"),
            "interval": pd.interval_range(0, 4),
            "python": pd.array(["a", None, "é", "\U0001f600"], pd.StringDtype("python")),
            "pyarrow": pd.array(["a", None, "é", ""], pd.StringDtype("pyarrow")),
            "lists": pd.array([[1], None, [], [2, 3]], pd.ArrowDtype(pa.list_(pa.int64()))),
            "complex": np.arange(4) + 1j,
            "half float": np.arange(4, dtype="f2"),
        }
    )


INDEXES = (
    pd.Index(list("abcd"), name="n"),
    pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["q", None]),
    pd.date_range("2020", periods=4, freq="D", tz="UTC"),
    pd.period_range("2020", periods=4, freq="Y"),
    pd.CategoricalIndex(list("abab")),
    pd.interval_range(0, 4),
    pd.timedelta_range("1s", periods=4),
    pd.Index([1.5, 2, 3, 4]),
    pd.RangeIndex(3, 11, 2, name="a"),
    pd.Index([1, 2, 3, 4], dtype="int8"),
    pd.Index([1, None, 3, 4], dtype="Int64"),
    pd.Index(["a", 1, dt.date(2020, 1, 1), ("b", 2)], tupleize_cols=False),
    pd.Index([None, "a", "b", "c"], dtype=object),
)


@pytest.mark.parametrize(
    "cut", [slice(None), slice(0), slice(1, 3), slice(None, None, -2)], ids=str
)
def test_frames_of_pandas_come_back_as_they_were(cut):
    part = frame().iloc[cut]
    back = moved(part)

    pd.testing.assert_frame_equal(part, back)
    back["int"] += 1
    pd.testing.assert_frame_equal(frame().iloc[cut], part)


def test_a_frequency_that_has_no_name_is_refused():
    index = pd.date_range("2020", periods=2, freq=pd.DateOffset(months=1))
    with pytest.raises(TransferError, match="frequency <DateOffset: months=1>"):
        transfer.pack({"x": index})


def test_fields_that_share_memory_are_refused():
    union = np.dtype({"names": ["a", "b"], "formats": ["<i4", "<f4"], "offsets": [0, 0]})
    with pytest.raises(TransferError, match="fields that share memory"):
        transfer.pack({"x": np.zeros(1, union)})


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: type(index).__name__)
def test_indexes_of_pandas_come_back_as_they_were(index):
    part = frame()[["int", "text"]].set_index(index)
    back = moved(index)

    pd.testing.assert_index_equal(index, back, exact=True)
    assert getattr(index, "freq", None) == getattr(back, "freq", None)
    pd.testing.assert_frame_equal(part, moved(part))
    pd.testing.assert_series_equal(part["int"], moved(part["int"]))


@pytest.mark.parametrize(
    "part",
    [
        pd.DataFrame(),
        pd.DataFrame({"a": []}),
        pd.DataFrame(index=[1, 2]),
        pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
        pd.DataFrame(np.eye(2), columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    ],
    ids=["nothing", "no rows", "no columns", "one name twice", "names in levels"],
)
def test_frames_of_odd_shapes_come_back_as_they_were(part):
    pd.testing.assert_frame_equal(part, moved(part))


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2020").as_unit("s"),
        pd.Timedelta("3s"),
        pd.NaT,
        pd.NA,
    ],
    ids=str,
)
def test_scalars_of_pandas_come_back_as_they_were(value):
    back = moved(value)

    assert (type(value), str(value)) == (type(back), str(back))
    assert getattr(value, "unit", None) == getattr(back, "unit", None)


def arrays():
    return [
        pa.array([1, None, 3]),
        pa.array([]),
        pa.nulls(3),
        pa.array(["a", None, "é"]),
        pa.array(["a", "b"] * 10).dictionary_encode(),
        pa.array([[1], [2, None], None]),
        pa.array([{"a": 1, "b": "x"}, None]),
        pa.array([True, None]),
        pa.array([decimal.Decimal("1.5"), None]),
        pa.array([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], pa.timestamp("us", "Europe/Berlin")),
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)),
        pa.array([b"abc", None], pa.binary(3)),
        pa.array([b"x", None], pa.large_binary()),
        pa.array([dt.time(1, 2)]),
        pa.array([dt.timedelta(3)]),
        pa.array([dt.date(2020, 1, 1)]),
    ]


@pytest.mark.parametrize("array", arrays(), ids=lambda array: str(array.type))
def test_arrays_of_arrow_come_back_as_they_were(array):
    chunked = pa.chunked_array([array, array.slice(1)])
    table = pa.table({"a": chunked}).replace_schema_metadata({"k": "v"})

    for value in (array, array.slice(1), chunked, table, pa.record_batch([array], ["a"])):
        back = moved(value)
        assert type(value) is type(back)
        assert value.equals(back)
    assert {b"k": b"v"} == moved(table).schema.metadata


def test_a_slice_does_not_bring_the_whole():
    whole = pa.array(range(100_000))
    _, parts = transfer.pack({"x": whole.slice(5, 10)})

    assert sum(part.nbytes for part in parts) < 1000


def test_frames_of_polars_come_back_as_they_were():
    part = pl.DataFrame(
        {
            "int": [1, None],
            "text": ["x", None],
            "time": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * 2,
            "list": [[1], [2, 3]],
            "struct": [{"x": 1}, {"x": 2}],
            "bytes": [b"x", b""],
            "delta": [dt.timedelta(1)] * 2,
            "decimal": pl.Series([decimal.Decimal("1.2")] * 2, dtype=pl.Decimal(38, 1)),
            "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
            "null": [None, None],
        }
    ).with_columns(berlin=pl.col("time").dt.convert_time_zone("Europe/Berlin"))

    for value in (part, part.head(0), pl.DataFrame()):
        assert_polars_equal(value, moved(value))
    series = pl.Series("", ["a", None])
    assert ("", series.to_list()) == (moved(series).name, moved(series).to_list())


@pytest.mark.parametrize("kind", [pl.Enum(["a", "b"]), pl.Categorical])
def test_no_type_of_polars_becomes_another_one(kind):
    """Arrow has not all of them, and older versions do not say which it was."""
    series = pl.Series("a", ["a", "b"], dtype=kind)
    with contextlib.suppress(TransferError):
        back = moved(series)
        assert (series.dtype, ["a", "b"]) == (back.dtype, back.to_list())


# --- the parts of a message ---


@given(st.lists(st.integers(0, 40)), st.integers(1, 20), st.integers(0, 4), st.integers(5, 50))
def test_buffers_come_out_of_parts_as_they_went_in(sizes, large, most, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "_LARGE", large)
        patch.setattr(parts_module, "_MOST_PARTS", most)
        patch.setattr(parts_module, "LARGEST_PART", piece)
        buffers = [memoryview(bytes([n % 256]) * size) for n, size in enumerate(sizes)]
        parts = in_parts(buffers)
        back = from_parts(sizes, [bytearray(part) for part in parts])

    assert [bytes(buffer) for buffer in buffers] == [bytes(buffer) for buffer in back]
    assert all(part.nbytes <= piece for part in parts)


# --- liars ---


def lie(told, *numbers, sizes=None):
    """What a worker might say instead, with so many bytes in each buffer."""
    sizes = list(numbers) if sizes is None else sizes
    parts = in_parts([memoryview(bytes(n)) for n in numbers])
    return {"sizes": sizes, "values": {"x": told}}, [bytearray(part) for part in parts]


def array(element, shape, axes=None, number=0):
    return ["array", element, shape, axes, number]


def fields(*formats, offset=0, itemsize):
    """Elements of fields that all lie at one place."""
    names = [str(number) for number in range(len(formats))]
    return {
        "names": names,
        "formats": [*formats],
        "offsets": [offset] * len(formats),
        "itemsize": itemsize,
        "titles": [None] * len(formats),
        "aligned": False,
    }


NODE = [3, [None, 0, 1], []]
# All of one hash: to compare each with each takes longer than anybody waits.
ALIKE = [number * (2**61 - 1) for number in range(300_000)]

LIES = {
    "a shape that is too large": lie(array("<i8", [10]), 8),
    "a shape that is too small": lie(array("<i8", [1]), 80),
    "a negative shape": lie(array("<i8", [-1]), 8),
    "two negative sides": lie(array("<i8", [-1, -1]), 8),
    "a shape that overflows": lie(array("<i8", [2**62, 4, 2]), 0),
    "a side of half an element": lie(array("<i8", [1.0]), 8),
    "a side that is true": lie(array("<i8", [True]), 8),
    "a shape that is text": lie(array("<i8", "8"), 8),
    "a shape of a thousand sides": lie(array("<i8", [1] * 1000), 8),
    "empty elements without an end": lie(array("<U0", [2**40]), 0),
    "axes that there are not": lie(array("<i8", [1], [5]), 8),
    "axes that are one twice": lie(array("<i8", [1, 1], [0, 0]), 8),
    "objects": lie(array("|O", [1]), 8),
    "objects as voids": lie(array("O8", [1]), 8),
    "an element that is code": lie(array("i8,O", [1]), 16),
    "objects in fields": lie(
        array(
            {
                "names": ["a"],
                "formats": ["|O"],
                "offsets": [0],
                "itemsize": 8,
                "titles": [None],
                "aligned": False,
            },
            [1],
        ),
        8,
    ),
    "fields beyond the element": lie(
        array(
            {
                "names": ["a"],
                "formats": ["<i8"],
                "offsets": [8],
                "itemsize": 8,
                "titles": [None],
                "aligned": False,
            },
            [1],
        ),
        8,
    ),
    "a field before the element": lie(
        array(
            {
                "names": ["a"],
                "formats": ["<i8"],
                "offsets": [-8],
                "itemsize": 8,
                "titles": [None],
                "aligned": False,
            },
            [1],
        ),
        8,
    ),
    "a buffer that there is not": lie(array("<i8", [1], None, 1), 8),
    "the last buffer, from behind": lie(array("<i8", [1], None, -1), 8),
    "a buffer that is true": lie(["list", array("<i8", [1]), array("<i8", [1], None, True)], 8, 8),
    "one buffer for two arrays": lie(["list", array("<i8", [1]), array("<i8", [1])], 8),
    "a buffer for nobody": lie(1, 8),
    "more memory than there is": lie(array("<i8", [10]), 8, sizes=[80]),
    "less memory than there is": lie(array("<i8", [1]), 80, sizes=[8]),
    "large memory that is not there": lie(array("<i8", [2**40]), 8, sizes=[2**43]),
    "a negative size": lie(array("<i8", [1]), 8, sizes=[-8, 16]),
    "sizes that are none": lie(1, sizes=["8"]),
    "an array that is text": lie(["masked", "abc", None, None, False]),
    "a mask of another shape": lie(
        [
            *("masked", array("<i8", [2]), array("|b1", [1], None, 1)),
            *(array("<i8", [], None, 2), False),
        ],
        *(16, 1, 8),
    ),
    "a tag that there is not": lie(["system", "ls"]),
    "a tag that is a list": lie([["list"]]),
    "no tag": lie([]),
    "an object": lie({"list": 1}),
    "a list in a set": lie(["set", ["list"]]),
    "a key without a value": lie(["dict", 1]),
    "a list as a key": lie(["dict", ["list"], 1]),
    "a pickle": lie(["pickle", describing.PYTHON, 0], 5),
    "a number that is none": lie(["int", "0x"]),
    "a day that there is not": lie(["date", 10**10]),
    "a zone that is a path": lie(["datetime", 737425, 0, 0, 0, 0, 0, ["zone", "../../etc/passwd"]]),
    "a zone that there is not": lie(["datetime", 737425, 0, 0, 0, 0, 0, ["zone", "Nowhere"]]),
    "text that is no UTF-8": (
        {"sizes": [1], "values": {"x": ["text", 0]}},
        [bytearray(b"\xff" + bytes(15))],
    ),
    "codes beyond the categories": lie(
        ["column", ["categorical", array("|i1", [3]), [array("<i8", [0], None, 1), None, None], 0]],
        *(3, 0),
    ),
    "columns of several lengths": lie(
        [
            *("frame", ["range", 0, 2, 1, None], ["range", 0, 1, 1, None]),
            [array("<i8", [1]), array("<i8", [2], None, 1)],
        ],
        *(8, 16),
    ),
    "more names than columns": lie(
        ["frame", ["range", 0, 2**50, 1, None], ["range", 0, 1, 1, None], [array("<i8", [1])]], 8
    ),
    "levels that are a range without an end": lie(
        ["labels", ["multi", [["range", 0, 2**50, 1, None]], [array("|i1", [1])], ["list", None]]],
        1,
    ),
    "codes beyond a level": lie(
        [
            *("labels",),
            [
                *("multi", [[array("<i8", [0]), None, None]]),
                *([array("|i1", [1], None, 1)], ["list", None]),
            ],
        ],
        *(0, 1),
    ),
    "text with offsets beyond it": (
        {
            "sizes": [24, 4],
            "values": {
                "x": ["column", ["texts", "object", "", [array("<i8", [3]), 1], None]],
            },
        },
        [bytearray(np.array([0, 100, 4, 0]).tobytes() + b"abcd" + bytes(12))],
    ),
    "text with offsets that go back": (
        {
            "sizes": [32, 4],
            "values": {
                "x": ["column", ["texts", "object", "", [array("<i8", [4]), 1], None]],
            },
        },
        [bytearray(np.array([0, 3, -1, 4]).tobytes() + b"abcd" + bytes(12))],
    ),
    "an Arrow type of somebody's own": lie(["chunked", "extension", []]),
    "an Arrow type with metadata that make it one": lie(
        [
            "table",
            [["a", "int8", True, [["ARROW:extension:name", "x"]]]],
            None,
            [[[1, [None, 0], []]]],
        ],
        1,
    ),
    "a function of pyarrow as a type": lie(["chunked", "system_memory_pool", []]),
    "an Arrow array that is longer than its memory": lie(
        ["chunked", "int64", [[1000, [None, 0], []]]], 8
    ),
    "an Arrow array without its buffers": lie(["chunked", "int64", [[5, [None, None], []]]]),
    "an Arrow array with too few": lie(["chunked", "int64", [[5, [None], []]]]),
    "an Arrow array of a negative length": lie(["chunked", "int64", [[-1, [None, 0], []]]], 8),
    "nothing without an end": lie(["chunked", "null", [[2**50, [None], []]]]),
    "empty bytes without an end": lie(["chunked", ["binary", 0], [[2**50, [None, 0], []]]], 0),
    "a struct of nothing without an end": lie(["chunked", ["struct", []], [[2**50, [None], []]]]),
    "a validity that is too short": lie(["chunked", "null", [[20_000_000, [0], []]]], 1),
    "Arrow text with offsets beyond it": (
        {"sizes": [16, 4], "values": {"x": ["chunked", "string", [NODE]]}},
        [bytearray(np.array([0, 1, 2, 1000], "i4").tobytes() + b"abcd" + bytes(12))],
    ),
    "Arrow text with offsets that go back": (
        {"sizes": [16, 4], "values": {"x": ["chunked", "string", [NODE]]}},
        [bytearray(np.array([0, 3, 1, 4], "i4").tobytes() + b"abcd" + bytes(12))],
    ),
    "Arrow text that is no UTF-8": (
        {"sizes": [16, 4], "values": {"x": ["chunked", "string", [NODE]]}},
        [bytearray(np.array([0, 1, 2, 4], "i4").tobytes() + b"\xff\xfe\xfdz" + bytes(12))],
    ),
    "an index beyond an Arrow dictionary": (
        {
            "sizes": [1, 8],
            "values": {
                "x": [
                    *("chunked", ["dictionary", "int8", "int64", False]),
                    [[1, [], [[1, [None, 0], []], [1, [None, 1], []]]]],
                ],
            },
        },
        [bytearray(b"\x07" + bytes(15) + bytes(16))],
    ),
    "a list beyond its values": (
        {
            "sizes": [8, 8],
            "values": {
                "x": [
                    *("chunked", ["list_", ["item", "int64", True, None]]),
                    [[1, [None, 0], [[1, [None, 1], []]]]],
                ],
            },
        },
        [bytearray(np.array([0, 9], "i4").tobytes() + bytes(8) + bytes(16))],
    ),
    "a bool that is neither": (
        {"sizes": [1], "values": {"x": array("|b1", [1])}},
        [bytearray(b"\x02" + bytes(15))],
    ),
    "a character that there is not": (
        {"sizes": [4], "values": {"x": array("<U1", [1])}},
        [bytearray(b"\xff" * 4 + bytes(12))],
    ),
    "moments of nothing": lie(
        ["masked", array(">M8[0ps]", [2]), None, array("|M8", [1], None, 1), False], 16, 8
    ),
    "fields far beyond the element": lie(
        [
            *("masked", array("<M8[s]", [1]), None),
            *(array(fields("<m8[Y]", offset=2**31 - 8, itemsize=24), [1], None, 1), False),
        ],
        *(8, 24),
    ),
    "fields that share memory": lie(array(fields("|b1", "|b1", itemsize=1), [1]), 1),
    "a frequency that takes hours": lie(
        ["labels", ["values", array("<M8[ns]", [0]), None, "1" * 1_000_000]], 0
    ),
    "periods that take hours": lie(["column", ["period", array("<i8", [0]), "1" * 1_000_000]], 0),
    "a shape that takes hours": lie(array("<i8", [2**62] * 1_000_000), 8),
    "keys that take hours": lie(["dict", *[key for n in ALIKE for key in (n, 0)]]),
    "a set that takes hours": lie(["set", *ALIKE]),
    "a frozen set that takes hours": lie(["frozenset", *ALIKE]),
    "labels that take hours": lie(
        [
            "column",
            ["categorical", array("|i1", [0]), [["plain", ["list", *ALIKE]], None, None], 0],
        ],
        0,
    ),
    "no element of two gigabytes": lie(array("|V2147483647", [0]), 0),
    "Arrow elements of two gigabytes": lie(["chunked", ["binary", 2**31 - 1], []]),
    "lists of a billion": lie(["chunked", ["list_of", ["item", "int8", True, None], 2**30], []]),
    "nothing, many times": lie(["list", *[["chunk", "null", [[10**6, [None], []]]]] * 11]),
    "empty elements, many times": lie(
        ["list", *[array("|S0", [10**6], None, number) for number in range(11)]], *[0] * 11
    ),
    "an Arrow map with a key that is missing": (
        {
            "sizes": [8, 1, 1],
            "values": {
                "x": [
                    *("chunk", ["map", ["k", "int8", False, None], ["v", "null", True, None], 0]),
                    [[1, [None, 0], [[1, [None], [[1, [1, 2], []], [1, [None], []]]]]]],
                ],
            },
        },
        [bytearray(np.array([0, 1], "i4").tobytes() + bytes(8) + bytes(32))],
    ),
    "no values": ({"sizes": []}, []),
    "a list of values": ({"sizes": [], "values": [1]}, []),
    "nothing at all": (None, []),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_told_as_such(name):
    told, parts = LIES[name]
    with pytest.raises(TransferError):
        transfer.unpack(told, list(parts))


def test_what_is_empty_takes_no_memory():
    process, count = psutil.Process(), 2_000_000
    before = process.memory_info().rss
    buffers = from_parts([0] * count, [])

    assert len(buffers) == count
    assert process.memory_info().rss < before + 50 * 10**6


def test_lists_in_lists_without_an_end_are_refused():
    told = ["list"]
    for _ in range(5000):
        told = ["list", told]
    with pytest.raises(TransferError, match="nested too deep"):
        transfer.unpack({"sizes": [], "values": {"x": told}}, [])


TRUE = [
    sent({"x": value})
    for value in (
        [1, {"a": (2.5, {"b"})}, b"bytes", "\ud800", dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        np.zeros(2, [("a", "i4"), ("b", "<U2")]),
        np.ma.array([1, 2], mask=[0, 1]),
        frame(),
        pd.Series([1, 2], INDEXES[1][:2]),
        pa.table(
            {str(number): each.slice(0, 1) for number, each in enumerate(arrays()) if len(each)}
        ),
        pl.DataFrame({"a": ["x", None], "b": [[1], []]}),
    )
]
NUMBERS = st.integers(-3, 70) | st.sampled_from([2**31, 2**62, 2**63, -(2**63)])
JUNK = st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.lists(NUMBERS, max_size=3)


def places(told):
    """Each place in a description: what holds it, and where."""
    for key in told if isinstance(told, dict) else range(len(told)):
        yield told, key
        if isinstance(told[key], dict | list):
            yield from places(told[key])


@given(st.data())
@settings(max_examples=400)
def test_whatever_is_said_ends_in_a_value_or_a_transfer_error(data):
    told, parts = deepcopy(data.draw(st.sampled_from(TRUE)))
    for _ in range(data.draw(st.integers(1, 3))):
        spots = list(places(told)) or [([None], 0)]
        holder, key = data.draw(st.sampled_from(spots))
        other, another = data.draw(st.sampled_from(spots))
        change = data.draw(st.sampled_from(["junk", "number", "swap", "drop", "bytes", "cut"]))
        if change == "junk":
            holder[key] = data.draw(JUNK)
        elif change == "number" and isinstance(holder[key], int):
            holder[key] = data.draw(NUMBERS)
        elif change == "swap":
            holder[key] = deepcopy(other[another])
        elif change == "drop":
            del holder[key]
        elif change == "bytes" and parts and parts[0]:
            place = data.draw(st.integers(0, len(parts[0]) - 1))
            parts[0][place] = data.draw(st.sampled_from([0, 1, 127, 255]))
        elif change == "cut" and parts:
            del parts[0][data.draw(st.integers(0, len(parts[0]))) :]
    with contextlib.suppress(TransferError):
        values = transfer.unpack(told, parts)
        # a lie that was believed would show when somebody looks
        with contextlib.suppress(Exception):
            repr(values)


def test_a_pickle_of_another_version_of_python_is_not_opened():
    told, parts = sent({"f": lambda: 1}, dumps=transfer.pickled)
    told["values"]["f"][1] = "2.7"

    with pytest.raises(TransferError, match=r"'2\.7' meets 3\."):
        transfer.unpack(told, parts, loads=transfer.unpickled)
