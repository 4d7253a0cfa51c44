"""The tools that a worker offers: an own table with JSON Schemas, results in the shape of MCP's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hive_jupyter.protocol import Tool
from hive_jupyter.units import nearest

_Function = Callable[..., str]

_TABLE: dict[str, tuple[Tool, _Function]] = {}


def tool(description: str, **properties: dict[str, Any]) -> Callable[[_Function], _Function]:
    """
    Put a function into the table under its own name.

    Args:
        description: for a person and an agent.
        properties: JSON Schema of each argument.
    """

    def register(function: _Function) -> _Function:
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        name = function.__name__
        _TABLE[name] = (Tool(name, description, schema), function)
        return function

    return register


@tool("Answer at once: proves that the worker is there and idle.")
def ping() -> str:
    """Return "pong"."""
    return "pong"


def list_tools() -> list[dict[str, Any]]:
    """All tools, in the shape of MCP's ``tools/list``."""
    return [entry.to_wire() for entry, _ in _TABLE.values()]


def call_tool(name: object, arguments: object) -> dict[str, Any]:
    """
    Run one tool.

    Args:
        name: of the tool.
        arguments: by name.

    Returns:
        The shape of MCP's ``tools/call`` result: ``content`` blocks and ``isError``. A wrong call
        and a failing tool are results too, with a text that helps to correct the call.
    """
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return _result("A tool's name is text, and its arguments are an object.", failed=True)
    if name not in _TABLE:
        return _result(f'There is no tool "{name}".{nearest(name, _TABLE)}', failed=True)
    entry, function = _TABLE[name]
    known = entry.input_schema["properties"]
    for argument in arguments:
        if argument not in known:
            text = f'{name} has no argument "{argument}".{nearest(argument, known)}'
            return _result(text, failed=True)
    try:
        return _result(function(**arguments))
    except Exception as error:
        return _result(f"{name} failed: {type(error).__name__}: {error}", failed=True)


def _result(text: str, failed: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": failed}
