"""Arrays of numpy."""

from __future__ import annotations

import importlib
import math
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

_ELEMENT = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV][0-9]{1,10}"
    r"|[mM]8(?:\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
# No numpy takes more.
_MOST_SIDES = 64
# numpy makes room for one element more where it fills in what is missing (bytes).
_LARGEST_ABSENT = 2**20
_HIGHEST_CHARACTER = 0x10FFFF


def numpy() -> Any:
    """The library."""
    return importlib.import_module("numpy")


def _pack_numpy(packer: Packer, value: Any) -> list[Any]:
    np = numpy()
    if isinstance(value, np.generic):
        return ["scalar", pack_array(packer, np.asarray(value))]
    packer.meet(value)
    if type(value) is np.ma.MaskedArray:
        return _pack_masked(packer, value)
    if type(value) is np.memmap:
        value = value.view(np.ndarray)
    if type(value) is not np.ndarray:
        raise NoFormError(of_type(value))
    return pack_array(packer, value)


def pack_array(packer: Packer, array: Any) -> list[Any]:
    """Describe an array: its memory as it is, where its axes in some order lie without gaps."""
    np = numpy()
    element = _describe_element(array.dtype)
    axes: list[int] | None = None
    if not array.flags.c_contiguous:
        axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        turned = array.transpose(axes)
        if turned.flags.c_contiguous:
            array = turned
        else:
            packer.allow(array.nbytes)
            array, axes = np.array(array, order="C"), None
    memory = array.reshape(-1).view(np.uint8) if array.nbytes else b""
    return ["array", element, list(array.shape), axes, packer.buffer(memory)]


def _pack_masked(packer: Packer, value: Any) -> list[Any]:
    np = numpy()
    mask = np.ma.getmask(value)
    return [
        "masked",
        pack_array(packer, value.data),
        None if mask is np.ma.nomask else pack_array(packer, mask),
        pack_array(packer, np.asarray(value.fill_value, value.dtype)),
        bool(value.hardmask),
    ]


def _describe_element(dtype: Any) -> Any:
    if dtype.hasobject:
        raise NoFormError("an array of Python objects")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["of", _describe_element(base), list(shape)]
    if dtype.names is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        if sum(field[0].itemsize for field in fields) > dtype.itemsize:
            raise NoFormError("an array of fields that share memory")
        return {
            "names": list(dtype.names),
            "formats": [_describe_element(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "titles": [exactly(field[2], str) if field[2:] else None for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if not _ELEMENT.fullmatch(dtype.str):
        msg = f"an array of {dtype}"
        raise NoFormError(msg)
    return dtype.str


def _read_element(told: Any, depth: int = 0) -> Any:
    np = numpy()
    if depth > DEEPEST:
        raise LieError("elements that are nested too deep")
    if isinstance(told, str):
        if not _ELEMENT.fullmatch(told):
            raise LieError("elements of a type that does not travel")
        return np.dtype(told)
    if isinstance(told, list):
        tag, base, shape = told
        if tag != "of" or not _is_shape(shape):
            raise LieError("elements of no type")
        return np.dtype((_read_element(base, depth + 1), tuple(shape)))
    formats = [_read_element(part, depth + 1) for part in told["formats"]]
    names, offsets = told["names"], told["offsets"]
    if not all(isinstance(name, str) for name in names) or not all(map(is_count, offsets)):
        raise LieError("fields without names or places")
    # numpy adds these up in 32 bits; where many fields share memory, it is looked at for each
    itemsize, sizes = told["itemsize"], [part.itemsize for part in formats]
    ends = map(sum, zip(offsets, sizes, strict=True))
    if not is_count(itemsize) or max([sum(sizes), *ends]) > itemsize:
        raise LieError("fields that do not fit into their element")
    titles = [title if title is None else exactly(title, str) for title in told["titles"]]
    layout = {"names": names, "formats": formats, "offsets": offsets, "titles": titles}
    return np.dtype({**layout, "itemsize": itemsize}, align=told["aligned"] is True)


def _read_any_array(reader: Reader, told: Any, shape: Any, axes: Any, number: Any) -> Any:
    np = numpy()
    dtype = _read_element(told)
    if dtype.hasobject:  # the list above knows of none
        raise LieError("an array of Python objects")
    if not _is_shape(shape):
        raise LieError("a shape that is none")
    memory = reader.buffer(number)
    if math.prod(shape) * dtype.itemsize != memory.nbytes:
        raise LieError("a shape of another size")
    if dtype.itemsize > max(memory.nbytes, _LARGEST_ABSENT):
        raise LieError("large elements of which there is none")
    if not memory.nbytes:
        reader.allow_empty(math.prod(shape))
        array = np.zeros(shape, dtype)
    else:
        array = np.frombuffer(memory, np.uint8).view(dtype.base if dtype.subdtype else dtype)
        array = array.reshape(shape)
    if not (array.flags.aligned and array.flags.writeable):
        array = array.copy()
    _check_elements(array)
    if axes is None:
        return array
    if sorted(axes) != list(range(array.ndim)):
        raise LieError("axes that are none")
    return array.transpose([axes.index(axis) for axis in range(array.ndim)])


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_SIDES and all(map(is_count, value))


def _check_elements(array: Any) -> None:
    """See that the elements are such that numpy's own code can rely on."""
    np = numpy()
    if array.dtype.names is not None:
        for name in array.dtype.names:
            _check_elements(array[name])
    elif array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise LieError("a bool that is neither true nor false")
    elif array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        letters = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
        if letters.max() > _HIGHEST_CHARACTER:
            raise LieError("a character that there is not")


def _read_masked(reader: Reader, data: Any, mask: Any, fill: Any, hard: Any) -> Any:
    np = numpy()
    values = read_array(reader, data)
    masked = np.ma.nomask if mask is None else read_array(reader, mask)
    if mask is not None and masked.shape != values.shape:
        raise LieError("a mask of another shape")
    filler = read_array(reader, fill)
    return np.ma.MaskedArray(values, mask=masked, fill_value=filler[()], hard_mask=hard is True)


def read_array(reader: Reader, told: Any) -> Any:
    """An array, and nothing else."""
    tag, *parts = told
    if tag != "array":
        raise LieError("something else than an array")
    return _read_any_array(reader, *parts)


PACKERS: dict[type | str, Callable[[Packer, Any], Any]] = {"numpy": _pack_numpy}

READERS: dict[str, Callable[..., Any]] = {
    "array": _read_any_array,
    "masked": _read_masked,
    "scalar": lambda reader, told: read_array(reader, told)[()],
}
