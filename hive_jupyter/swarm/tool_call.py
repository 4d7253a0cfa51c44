"""One call of a tool: what is sent to the worker, and what its answer means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hive_jupyter.errors import RemoteError, ToolError
from hive_jupyter.swarm.messages import Message, Sink
from hive_jupyter.swarm.outputs import Outputs, plain_text
from hive_jupyter.swarm.run import Request, execute_content
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import LARGEST_RESULT, Tool, ToolContent, ToolResult, within
from hive_jupyter.units import printable, without_colours

_IMAGES = ("image/png", "image/jpeg")
_MOST_TOOLS = 500
_MOST_PROBLEMS = 20
_LONGEST_COMPLAINT = 500
_LONGEST_DESCRIPTION = 10_000
# Bytes of JSON; the door of a hive sends a few times as much in one line.
_LARGEST_LIST = 2 * 2**20
# Bytes of output that are kept, so that JSON's escapes and a traceback find their place beside it.
_MOST_OUTPUT = LARGEST_RESULT * 3 // 4
_SAYS_NOTHING = "The code ran; it printed and returned nothing."
_REST = "Print less, or write it to a file and read that in parts."


class ToolCall:
    """
    One attempt at a call.

    Args:
        name: of the tool.
        arguments: by name.
        timeout: seconds it may take, waiting for its turn included.
        sink: is called with what the tool says; must not block.

    Attributes:
        run: what the worker is asked.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], timeout: float, sink: Sink) -> None:
        self._outputs = Outputs(_MOST_OUTPUT) if _is_code(name, arguments) else None
        if self._outputs is None:
            content = {"name": name, "arguments": dict(arguments), "limit": LARGEST_RESULT}
            self.run = Request("call_tool_request", content, timeout, sink)
        else:
            content = execute_content(arguments["code"])
            self.run = Request("execute_request", content, timeout, self._take)
        self._sink = sink

    def result(self, reply: Message) -> ToolResult:
        """What the reply says."""
        if self._outputs is not None:
            return _result_of_code(self._outputs)
        return within(ToolResult.from_wire(reply.content), LARGEST_RESULT)

    def failure(self, error: RemoteError) -> ToolResult:
        """What an exception says."""
        return _result_of_code(self._outputs or Outputs(), error)

    def _take(self, message: Message) -> None:
        assert self._outputs is not None
        self._outputs.take(message)
        self._sink(message)


def _is_code(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether code is to be run, as a cell is; what is wrong with a call the worker explains."""
    code = arguments.get("code")
    return name == "execute" and set(arguments) == {"code"} and isinstance(code, str)


def _result_of_code(outputs: Outputs, error: RemoteError | None = None) -> ToolResult:
    blocks: list[ToolContent] = []
    for output in outputs.all:
        blocks += _blocks(output)
    if outputs.left_out:
        note = f"[Cut: {outputs.left_out} bytes more were printed or displayed. {_REST}]"
        blocks.append(ToolContent("text", note))
    structure: dict[str, Any] = {"status": "ok", "value": outputs.value_repr}
    if error is not None:
        if not any(output["output_type"] == "error" for output in outputs.all):
            lines = error.traceback or [f"{error.ename}: {error.evalue}"]
            blocks.append(ToolContent("text", without_colours("\n".join(lines))))
        structure |= {"status": "error", "ename": error.ename, "evalue": error.evalue}
    blocks = _joined(blocks) or [ToolContent("text", _SAYS_NOTHING)]
    return within(ToolResult(tuple(blocks), error is not None, structure), LARGEST_RESULT, _REST)


def _blocks(output: Mapping[str, Any]) -> list[ToolContent]:
    if output["output_type"] == "stream":
        return [ToolContent("text", output["text"])]
    if output["output_type"] == "error":
        return [ToolContent("text", without_colours("\n".join(output["traceback"])))]
    data = output["data"]
    for kind in _IMAGES:
        if isinstance(data.get(kind), str):
            return [ToolContent("image", data=data[kind].replace("\n", ""), mime_type=kind)]
    return [ToolContent("text", plain_text(data))]


def _joined(blocks: list[ToolContent]) -> list[ToolContent]:
    """Texts that follow each other in one block."""
    joined: list[ToolContent] = []
    for block in blocks:
        if joined and block.type == joined[-1].type == "text":
            before = joined.pop().text
            between = "" if before.endswith("\n") else "\n"
            joined.append(ToolContent("text", f"{before}{between}{block.text}"))
        else:
            joined.append(block)
    return joined


def listed_tools(reply: Message) -> tuple[dict[str, Tool], tuple[str, ...]]:
    """
    The tools that a worker says it has.

    What it says of Hive's own is not believed: an agent reads it.

    Returns:
        The tools by name, and why some are missing.
    """
    offered, problems = reply.content.get("tools"), reply.content.get("problems")
    told = problems if isinstance(problems, list) else []
    missing = [printable(str(text)[:_LONGEST_COMPLAINT]) for text in told[:_MOST_PROBLEMS]]
    tools: dict[str, Tool] = {}
    left: float = _LARGEST_LIST
    for wire in (offered if isinstance(offered, list) else [])[:_MOST_TOOLS]:
        try:
            tool = Tool.from_wire(wire if isinstance(wire, dict) else {})
        except ToolError as error:
            missing.append(printable(str(error)[:_LONGEST_COMPLAINT]))
        else:
            tool = replace(tool, description=tool.description[:_LONGEST_DESCRIPTION])
            tool = BUILT_IN.get(tool.name, tool)
            left -= _size(tool)
            if left < 0:
                missing.append(f"The tool {tool.name} is left out: the list is too large.")
                break
            tools[tool.name] = tool
    return tools, tuple(missing)


def _size(tool: Tool) -> float:
    try:
        return len(json.dumps(tool.to_wire()))
    except RecursionError:
        return math.inf
