"""
Tools for the MCP server of a Jupyter server, and so for Jupyter AI.

``jupyter-server-mcp`` finds them through the entry point ``jupyter_server_mcp.tools`` and takes
functions. Each is made here of a tool's description, is called hive_ and the tool's name, and runs
the tool in a worker of the Jupyter server's own hive.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

from hive_jupyter.agents import AGENT_TOOLS, AgentSession
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ToolError
from hive_jupyter.manager import HiveManager
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import Tool

_PREFIX = "hive_"
_AGENT = "Jupyter AI"
_TYPES: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}
_TOOLS = {f"{_PREFIX}{name}": tool for name, tool in {**BUILT_IN, **AGENT_TOOLS}.items()}


def tools() -> list[str]:
    """Where the functions are: what the entry point promises."""
    return [f"{__name__}:{name}" for name in _TOOLS]


def __getattr__(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    if name not in _TOOLS:
        raise AttributeError(name)
    return _function(name, _TOOLS[name])


def _function(name: str, tool: Tool) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(**arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        return await _called(tool.name, given)

    parameters = [_parameter(tool, argument) for argument in tool.arguments]
    described: Any = call
    described.__name__ = described.__qualname__ = name
    described.__doc__ = tool.description
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _parameter(tool: Tool, name: str) -> inspect.Parameter:
    schema = tool.arguments[name]
    kind: Any = _TYPES[schema["type"]]
    default = inspect.Parameter.empty if name in tool.required else schema.get("default")
    if default is None:
        kind |= None
    annotation: Any = Annotated[kind, schema["description"]]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


async def _called(name: str, arguments: Mapping[str, Any]) -> Any:
    """
    What a tool answers, as blocks of MCP's content.

    Raises:
        ToolError: it failed; says why.
    """
    # already imported by whoever calls this
    from hive_jupyter.mcp_server import as_mcp

    hive = _home()
    work = hive.serve(lambda _folder: AgentSession(hive, _AGENT).call(name, arguments))
    result = await asyncio.wrap_future(work)
    if result.is_error:
        raise ToolError(str(result))
    return as_mcp(result).content


@functools.cache
def _home() -> HiveManager:
    """The hive of this process, which serves agents alone."""
    config = HiveConfig()
    return HiveManager(config, sandbox=config.agent_sandbox)
