"""
The worker itself and its variables.

Looking at a variable runs none of the user's code: only values of Python's own types are written
out, and only libraries known for it are asked for a shape.
"""

from __future__ import annotations

import fnmatch
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from IPython.core.getipython import get_ipython

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import ToolResult
from hive_jupyter.units import format_size
from hive_jupyter.worker.tools.answers import Row, listing

_LONGEST_TEXT = 80
_MOST_ITEMS = 5
_DEEPEST = 2
_MOST_BITS = 4096
_MOST_NAMES = 20

_PLAIN = (type(None), type(...), bool, float, complex, range)
_BRACKETS: Mapping[type, str] = {
    list: "[{}]",
    tuple: "({})",
    set: "{{{}}}",
    frozenset: "frozenset({{{}}})",
    deque: "deque([{}])",
}
_TEXTS = (str, bytes, bytearray)
_MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
# Their ``shape`` and ``nbytes`` are facts that they hold, and no computation.
_LIBRARIES = frozenset(
    {"cupy", "dask", "jax", "jaxlib", "numpy", "pandas", "polars", "scipy", "torch", "xarray"}
)


def ping() -> str:
    """Return "pong"."""
    return "pong"


def reset() -> str:
    """Forget all variables, as ``%reset -f`` does."""
    names = _names()
    _shell().reset(new_session=False)
    if not names:
        return "There were no variables."
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"Forgotten: {', '.join(names[:_MOST_NAMES])}{more}."


def variables(name: str | None = None, limit: int = 200) -> ToolResult:
    """Tell the variables' names, types, sizes and short texts."""
    names = _names()
    wanted = [word for word in names if name is None or fnmatch.fnmatchcase(word, name)]
    return listing(
        _rows(wanted),
        key="variables",
        limit=limit,
        none=f"No variable matches {name}." if names else "There are no variables.",
        narrow="Give a name, such as df*.",
        more={"total": len(names)},
    )


def _shell() -> Any:
    shell = get_ipython()
    if shell is None:
        msg = "There is no IPython shell here, and so there are no variables."
        raise ToolError(msg)
    return shell


def _names() -> list[str]:
    """The user's own, as ``%who`` has them."""
    shell = _shell()
    return sorted(
        name
        for name in list(shell.user_ns)
        if isinstance(name, str) and not name.startswith("_") and name not in shell.user_ns_hidden
    )


def _rows(names: Iterable[str]) -> Iterator[Row]:
    namespace = _shell().user_ns
    for name in names:
        try:
            facts = _facts(namespace[name])
        except Exception as error:
            # removed meanwhile by another thread; or it lies about what it is
            facts = {"type": "?", "text": f"cannot be shown: {type(error).__name__}"}
        size = f"  {format_size(facts['size'])}" if "size" in facts else ""
        yield f"{name}  {facts['type']}{size}  {facts['text']}".rstrip(), {"name": name, **facts}


def _facts(value: Any) -> dict[str, Any]:
    kind = type(value)
    facts: dict[str, Any] = {"type": _name_of(kind)}
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        return {**facts, **_measured(value)}
    if kind in _BRACKETS or kind in _MAPPINGS or kind in _TEXTS:
        facts["length"] = len(value)
        facts["size"] = sys.getsizeof(value)
    return {**facts, "text": _cut(short(value))}


def _measured(value: Any) -> dict[str, Any]:
    """What a library's own type says about its size."""
    words: list[str] = []
    facts: dict[str, Any] = {}
    shape, size, dtype, columns = (
        _attribute(value, name) for name in ("shape", "nbytes", "dtype", "columns")
    )
    if isinstance(shape, tuple) and all(isinstance(length, int) for length in shape):
        facts["shape"] = [int(length) for length in shape]
        words.append(" x ".join(map(str, shape)))
    if isinstance(size, int):
        facts["size"] = int(size)
    if dtype is not None:
        words.append(str(dtype))
    if columns is not None:
        words.append(_joined(map(short, columns), len(columns)))
    return {**facts, "text": _cut("  ".join(filter(None, words)))}


def _attribute(value: Any, name: str) -> Any:
    """What the type has under that name; a table's column may be called so, too."""
    return getattr(value, name, None) if hasattr(type(value), name) else None


def short(value: Any, depth: int = 0) -> str:
    """
    A short text of a value, for which no code of the user's runs.

    Args:
        value: whatever.
        depth: in how many collections it is.
    """
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= _MOST_BITS else f"<a number of {bits} bits>"
    if kind in _TEXTS:
        return repr(value[:_LONGEST_TEXT]) + ("..." if len(value) > _LONGEST_TEXT else "")
    if depth < _DEEPEST and kind in _BRACKETS:
        items = (short(item, depth + 1) for item in value)
        return _BRACKETS[kind].format(_joined(items, len(value)))
    if depth < _DEEPEST and kind in _MAPPINGS:
        pairs = (f"{short(k, depth + 1)}: {short(v, depth + 1)}" for k, v in value.items())
        return f"{{{_joined(pairs, len(value))}}}"
    if kind in (FunctionType, BuiltinFunctionType, ModuleType, type):
        return f"<{_name_of(kind)} {value.__name__}>"
    return f"<{_name_of(kind)}>"


def _joined(texts: Iterator[str], length: int) -> str:
    more = ", ..." if length > _MOST_ITEMS else ""
    return ", ".join(islice(texts, _MOST_ITEMS)) + more


def _name_of(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
