"""The tools of a worker: Hive's own, and those of modules that the user's settings name."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from hive_jupyter.errors import ToolError
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import REGISTERED, Call, Tool, ToolResult, serve, within
from hive_jupyter.units import nearest
from hive_jupyter.worker.tools.files import edit_file, list_files, read_file, save_file
from hive_jupyter.worker.tools.git import git_diff, git_status
from hive_jupyter.worker.tools.namespace import ping, reset, variables
from hive_jupyter.worker.tools.search import search_files
from hive_jupyter.worker.tools.structure import ast_rewrite, ast_search

log = logging.getLogger(__name__)

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        ping,
        read_file,
        list_files,
        search_files,
        save_file,
        edit_file,
        ast_search,
        ast_rewrite,
        reset,
        variables,
        git_status,
        git_diff,
    )
}


class Toolbox:
    """
    The tools of one worker.

    Args:
        modules: names of modules with tools of the user's own; imported at the first use.
        folder: where they are looked for too, after all else: the project's root.
        reason: gives a line that says why something was refused, or None.
    """

    def __init__(
        self,
        modules: tuple[str, ...],
        folder: str = "",
        reason: Callable[[BaseException], str | None] = lambda _: None,
    ) -> None:
        self._reason = reason
        self._to_import = list(modules)
        self._folder = folder
        # Why a module's tools are not there.
        self._problems: list[str] = []

    def list_tools(self) -> dict[str, Any]:
        """All tools in the shape of MCP's ``tools/list``; ``problems`` says which are missing."""
        tools = [tool.to_wire() for tool in self._tools().values()]
        return {"tools": tools, "problems": list(self._problems)}

    def call_tool(self, name: object, arguments: object, call: Call) -> dict[str, Any]:
        """
        Run one tool.

        Args:
            name: of the tool.
            arguments: by name.
            call: whom it serves.

        Returns:
            The shape of MCP's ``tools/call`` result. A wrong call and a failing tool are results
            too, with a text that helps to correct the call.
        """
        try:
            return within(self._call(name, arguments, call), call.limit).to_wire()
        except ToolError as error:
            told = filter(None, (str(error), self._reason(error)))
            result = ToolResult.failure(" ".join(told))
        except (Exception, SystemExit) as error:
            result = ToolResult.failure(f"{name} failed: {type(error).__name__}: {error}")
        return within(result, call.limit).to_wire()

    def _call(self, name: object, arguments: object, call: Call) -> ToolResult:
        if not isinstance(name, str) or not isinstance(arguments, dict):
            msg = "A tool's name is text, and its arguments are an object."
            raise ToolError(msg)
        tools = self._tools()
        if name not in tools:
            problems = " ".join(["", *self._problems])
            msg = f'There is no tool "{name}".{nearest(name, tools)}{problems}'
            raise ToolError(msg)
        arguments = tools[name].check(arguments)
        if name in REGISTERED:
            return serve(call, REGISTERED[name][1], arguments)
        if name not in _FUNCTIONS:
            msg = f"{name} is served by the host; ask the host for it."
            raise ToolError(msg)
        return serve(call, _FUNCTIONS[name], arguments)

    def _tools(self) -> Mapping[str, Tool]:
        while self._to_import:
            self._import(self._to_import.pop(0))
        return {**{name: tool for name, (tool, _) in REGISTERED.items()}, **BUILT_IN}

    def _import(self, module: str) -> None:
        if self._folder not in ("", *sys.path):
            sys.path.append(self._folder)
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            problem = f"The tools of {module} are missing: {type(error).__name__}: {error}."
            log.warning("%s", problem, exc_info=True)
            self._problems.append(problem)
        for name in BUILT_IN.keys() & REGISTERED.keys():
            del REGISTERED[name]
            self._problems.append(f'"{name}" is a tool of Hive\'s own; call yours another name.')
