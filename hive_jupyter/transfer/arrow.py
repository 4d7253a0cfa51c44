"""Tables and arrays of Arrow."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from hive_jupyter.transfer.describing import (
    DEEPEST,
    LieError,
    NoFormError,
    Packer,
    Reader,
    exactly,
    is_count,
    of_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ARROW_TYPES = (
    *("null", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "string", "large_string", "binary", "large_binary"),
    *("date32", "date64", "month_day_nano_interval"),
)
_ZONE = re.compile(r"[A-Za-z0-9_+:/-]{1,64}")
_EXTENSION = b"ARROW:extension"
# A sliced array whose memory is this much larger than what it shows is copied.
_WORTH_A_COPY = 1.2
_LITTLE = 2**16
_WIDEST = 2**24


def arrow() -> Any:
    """The library."""
    return importlib.import_module("pyarrow")


def _pack_arrow(packer: Packer, value: Any) -> list[Any]:
    pa = arrow()
    packer.meet(value)
    if isinstance(value, pa.Table) and type(value) is pa.Table:
        return ["table", *pack_table(packer, value)]
    if type(value) is pa.RecordBatch:
        return ["batch", *pack_table(packer, pa.Table.from_batches([value]))]
    if type(value) is pa.ChunkedArray:
        return ["chunked", *pack_chunked(packer, value)]
    if isinstance(value, pa.Array):
        return ["chunk", *pack_chunked(packer, pa.chunked_array([value]))]
    raise NoFormError(of_type(value))


def pack_table(packer: Packer, table: Any) -> list[Any]:
    """Describe a table."""
    fields = [_describe_field(field) for field in table.schema]
    chunks = [[_pack_chunk(packer, chunk) for chunk in column.chunks] for column in table.columns]
    return [fields, _describe_metadata(table.schema.metadata), chunks]


def pack_chunked(packer: Packer, value: Any) -> list[Any]:
    """Describe an array in chunks."""
    return [_describe_type(value.type), [_pack_chunk(packer, chunk) for chunk in value.chunks]]


def _pack_chunk(packer: Packer, array: Any) -> list[Any]:
    """Describe an array: its length, its own buffers, and the arrays that it consists of."""
    pa = arrow()
    shown, held = array.nbytes, array.get_total_buffer_size()
    if array.offset or held > _WORTH_A_COPY * shown + _LITTLE:
        packer.allow(shown)
        array = pa.concat_arrays([array, array.slice(0, 0)])
    return _pack_node(packer, array)


def _pack_node(packer: Packer, array: Any) -> list[Any]:
    kind = array.type
    if array.offset:
        raise NoFormError("an Arrow array that begins inside of another")
    own = [] if _is_dictionary(kind) else array.buffers()[: kind.num_buffers]
    numbers = [None if buffer is None else packer.buffer(buffer) for buffer in own]
    return [len(array), numbers, [_pack_node(packer, child) for child in _children(array)]]


def _is_dictionary(kind: Any) -> bool:
    return bool(arrow().types.is_dictionary(kind))


def _children(array: Any) -> list[Any]:
    types, kind = arrow().types, array.type
    if types.is_dictionary(kind):
        return [array.indices, array.dictionary]
    if types.is_struct(kind):
        return [array.field(number) for number in range(kind.num_fields)]
    return [array.values] if _is_list(kind) else []


def _is_list(kind: Any) -> bool:
    types = arrow().types
    # before 16, one of them is not called nested
    return bool(types.is_nested(kind) or types.is_fixed_size_list(kind))


def _describe_type(kind: Any) -> Any:
    """Describe a type; those that carry code of their own, or could, are none."""
    pa = arrow()
    for name in _ARROW_TYPES:
        if kind == getattr(pa, name)():
            return name
    for question, describe in _WITH_PARAMETERS.items():
        if getattr(pa.types, f"is_{question}")(kind):
            return describe(kind)
    msg = f"an Arrow array of type {kind}"
    raise NoFormError(msg)


def _describe_struct(kind: Any) -> list[Any]:
    fields = [kind.field(number) for number in range(kind.num_fields)]
    return ["struct", [_describe_field(field) for field in fields]]


# The others, by the question that tells them.
_WITH_PARAMETERS: dict[str, Callable[[Any], list[Any]]] = {
    "timestamp": lambda kind: ["timestamp", kind.unit, kind.tz],
    "time": lambda kind: [f"time{kind.bit_width}", kind.unit],
    "duration": lambda kind: ["duration", kind.unit],
    "decimal": lambda kind: [f"decimal{kind.bit_width}", kind.precision, kind.scale],
    "fixed_size_binary": lambda kind: ["binary", kind.byte_width],
    "dictionary": lambda kind: [
        *("dictionary", _describe_type(kind.index_type), _describe_type(kind.value_type)),
        kind.ordered,
    ],
    "struct": _describe_struct,
    "map": lambda kind: [
        *("map", _describe_field(kind.key_field), _describe_field(kind.item_field)),
        kind.keys_sorted,
    ],
    "fixed_size_list": lambda kind: ["list_of", _describe_field(kind.value_field), kind.list_size],
    "list": lambda kind: ["list_", _describe_field(kind.value_field)],
    "large_list": lambda kind: ["large_list", _describe_field(kind.value_field)],
}


def _describe_field(field: Any) -> list[Any]:
    metadata = _describe_metadata(field.metadata)
    return [field.name, _describe_type(field.type), field.nullable, metadata]


def _describe_metadata(metadata: Any) -> Any:
    pairs = (metadata or {}).items()
    kept = [(key, value) for key, value in pairs if not key.startswith(_EXTENSION)]
    return [[key.decode("latin-1"), value.decode("latin-1")] for key, value in kept] or None


def _read_type(told: Any, depth: int = 0) -> Any:
    pa = arrow()
    if depth > DEEPEST:
        raise LieError("a type that is nested too deep")
    if isinstance(told, str):
        if told not in _ARROW_TYPES:
            raise LieError("an Arrow type that does not travel")
        return getattr(pa, told)()
    tag, *parts = told
    if tag in _NESTED:
        return _NESTED[tag](depth + 1, *parts)
    if tag == "timestamp":
        unit, zone = parts
        if zone is not None and not _ZONE.fullmatch(zone):
            raise LieError("this is no time zone")
        return pa.timestamp(unit, zone)
    if tag == "binary":
        return pa.binary(_width(*parts))
    if tag not in _FACTORIES:
        raise LieError("an Arrow type that does not travel")
    return getattr(pa, tag)(*parts)


def _width(told: Any) -> int:
    """The bytes or items in each element; pyarrow makes room for missing ones, in 32 bits."""
    if not is_count(told) or told > _WIDEST:
        raise LieError("elements without a width")
    return int(told)


# Types with parameters that are plain.
_FACTORIES = frozenset(
    {"time32", "time64", "duration"} | {"decimal32", "decimal64", "decimal128", "decimal256"}
)


def _read_dictionary(depth: int, index: Any, values: Any, ordered: Any) -> Any:
    kinds = (_read_type(index, depth), _read_type(values, depth))
    return arrow().dictionary(*kinds, ordered=ordered is True)


def _read_map(depth: int, key: Any, item: Any, is_sorted: Any) -> Any:
    fields = (_read_field(key, depth), _read_field(item, depth))
    return arrow().map_(*fields, keys_sorted=is_sorted is True)


# Types that consist of others.
_NESTED: dict[str, Callable[..., Any]] = {
    "dictionary": _read_dictionary,
    "map": _read_map,
    "struct": lambda depth, fields: arrow().struct([_read_field(told, depth) for told in fields]),
    "list_of": lambda depth, told, size: arrow().list_(_read_field(told, depth), _width(size)),
    "list_": lambda depth, told: arrow().list_(_read_field(told, depth)),
    "large_list": lambda depth, told: arrow().large_list(_read_field(told, depth)),
}


def _read_field(told: Any, depth: int = 0) -> Any:
    name, kind, nullable, metadata = told
    return arrow().field(
        exactly(name, str),
        _read_type(kind, depth),
        nullable=nullable is True,
        metadata=_read_metadata(metadata),
    )


def _read_metadata(told: Any) -> dict[bytes, bytes] | None:
    if told is None:
        return None
    pairs = {key.encode("latin-1"): value.encode("latin-1") for key, value in told}
    if any(key.startswith(_EXTENSION) for key in pairs):
        raise LieError("an Arrow type that is somebody's own")
    return pairs


def read_table(reader: Reader, fields: Any, metadata: Any, columns: Any) -> Any:
    """A table; what is in it has been looked at, see ``_read_chunks``."""
    pa = arrow()
    schema = pa.schema([_read_field(field) for field in fields], _read_metadata(metadata))
    if len(columns) != len(schema):
        raise LieError("columns without fields")
    arrays = [
        _read_chunks(reader, field.type, chunks)
        for field, chunks in zip(schema, columns, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    table.validate()
    return table


def _read_batch(reader: Reader, *parts: Any) -> Any:
    table = read_table(reader, *parts)
    (batch,) = table.to_batches() or [arrow().RecordBatch.from_pylist([], schema=table.schema)]
    return batch


def read_chunked(reader: Reader, kind: Any, chunks: Any) -> Any:
    """An array in chunks, the same way."""
    return _read_chunks(reader, _read_type(kind), chunks)


def _read_chunk(reader: Reader, kind: Any, chunks: Any) -> Any:
    (array,) = read_chunked(reader, kind, chunks).chunks
    return array


def _read_chunks(reader: Reader, kind: Any, chunks: Any) -> Any:
    """
    Arrays of one type; what is in them is looked at, too: offsets, indices, text, numbers.

    The memory is nobody else's, so that it stays as it was seen.
    """
    arrays = [_read_node(reader, kind, chunk) for chunk in chunks]
    for array in arrays:
        array.validate(full=True)
    return arrow().chunked_array(arrays, kind)


def _read_node(reader: Reader, kind: Any, told: Any, depth: int = 0) -> Any:
    pa = arrow()
    length, numbers, children = told
    if not is_count(length) or depth > DEEPEST:
        raise LieError("an Arrow array without a length")
    if _is_dictionary(kind):
        indices, dictionary = children
        return pa.DictionaryArray.from_arrays(
            _checked_node(reader, kind.index_type, indices, depth + 1),
            _checked_node(reader, kind.value_type, dictionary, depth + 1),
            ordered=kind.ordered,
        )
    memory = [None if number is None else reader.buffer(number) for number in numbers]
    size = sum(buffer.nbytes for buffer in memory if buffer is not None)
    # what takes no memory could be as long as it likes, but for what its parts bound
    if length > 8 * size and not _is_bound_by_parts(kind):
        reader.allow_empty(length)
    buffers = [None if buffer is None else pa.py_buffer(buffer) for buffer in memory]
    kinds = [field.type for field in _fields(kind)]
    if len(kinds) != len(children) or len(buffers) != kind.num_buffers:
        raise LieError("an Arrow array with other parts than its type has")
    parts = [
        _checked_node(reader, part, child, depth + 1)
        for part, child in zip(kinds, children, strict=True)
    ]
    # pyarrow looks at these itself, and ends the process where they are not as they should be
    if pa.types.is_map(kind) and (parts[0].null_count or parts[0].field(0).null_count):
        raise LieError("an Arrow map without keys")
    return pa.Array.from_buffers(kind, length, buffers, children=parts)


def _is_bound_by_parts(kind: Any) -> bool:
    types = arrow().types
    if types.is_fixed_size_list(kind):
        return bool(kind.list_size)
    return bool(types.is_struct(kind) and kind.num_fields)


def _checked_node(reader: Reader, kind: Any, told: Any, depth: int) -> Any:
    array = _read_node(reader, kind, told, depth)
    array.validate(full=True)
    return array


def _fields(kind: Any) -> list[Any]:
    """The fields of what an array of this type consists of."""
    pa = arrow()
    if pa.types.is_map(kind):
        return [pa.field("entries", pa.struct([kind.key_field, kind.item_field]))]
    if pa.types.is_struct(kind):
        return [kind.field(number) for number in range(kind.num_fields)]
    return [kind.value_field] if _is_list(kind) else []


PACKERS: dict[type | str, Callable[[Packer, Any], Any]] = {"pyarrow": _pack_arrow}

READERS: dict[str, Callable[..., Any]] = {
    "table": read_table,
    "batch": _read_batch,
    "chunked": read_chunked,
    "chunk": _read_chunk,
}
