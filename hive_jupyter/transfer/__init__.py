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

import importlib
import pickle
from typing import TYPE_CHECKING, Any

from hive_jupyter.errors import TransferError
from hive_jupyter.transfer import arrays, arrow, pandas, plain, polars
from hive_jupyter.transfer.bulk import SMALLEST, BulkSocket
from hive_jupyter.transfer.describing import PYTHON, Packer, Reader
from hive_jupyter.transfer.parts import LARGEST_PART, are_sizes, from_parts, in_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "LARGEST_PART",
    "SMALLEST",
    "BulkSocket",
    "are_sizes",
    "pack",
    "pickled",
    "unpack",
    "unpickled",
]

WHAT_TRAVELS = (
    "What travels: None, numbers, text, bytes, dates, lists, tuples, sets and dicts of such, numpy "
    "arrays, pandas and polars frames, Arrow tables"
)

_TO_A_FILE = (
    "Save it to a file in the project and read it here, or have a worker of the profile open, "
    "which can do what you can, and allow pickles (--allow-pickle, allow_pickle=True)."
)

_MODULES = (plain, arrays, arrow, polars, pandas)
_PACKERS = {kind: packer for module in _MODULES for kind, packer in module.PACKERS.items()}
_READERS = {tag: reader for module in _MODULES for tag, reader in module.READERS.items()}


def _is_composed(told: Any) -> bool:
    return isinstance(told, list | dict)


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
    packer = Packer(limit, _PACKERS)
    described = {}
    for name, value in values.items():
        mark = packer.mark()
        try:
            described[name] = packer.value(value)
        except TransferError as error:
            msg = f'"{name}" cannot be moved: {error}'
            raise TransferError(msg) from None
        except Exception as lack:  # also what a library's own types do not let themselves be asked
            packer.forget(mark)
            if dumps is None:
                msg = f'"{name}" cannot be handed over safely: {lack}. {WHAT_TRAVELS}. {_TO_A_FILE}'
                raise TransferError(msg) from None
            described[name] = [
                "pickle",
                PYTHON,
                *map(packer.buffer, _dumped(name, value, dumps)),
            ]
    sizes = [buffer.nbytes for buffer in packer.buffers]
    return {"sizes": sizes, "values": described}, in_parts(packer.buffers)


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
        sizes, described = description["sizes"], description["values"]
        if not sizes and not parts and not any(map(_is_composed, described.values())):
            return {str(name): value for name, value in described.items()}
        reader = Reader(from_parts(sizes, list(parts)), loads, _READERS)
        values = {str(name): reader.value(told) for name, told in described.items()}
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
        msg = "functions, classes and objects of other types need cloudpickle: pip install it."
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
        why = f"{type(error).__name__}: {str(error)[:200]}".removesuffix(".")
        msg = f'"{name}" cannot be pickled: {why}. Send what it is made of, and make it there.'
        raise TransferError(msg) from None
