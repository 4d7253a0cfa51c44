"""An MCP server on standard input and output, driven as an agent's program does."""

import asyncio
import sys
import time
from pathlib import Path

from mcp import Client, StdioServerParameters

_WARM_UP = 3
_PATIENCE = 60


def execute_through(command, arguments, tool, size):
    """
    How long a call of a tool takes that runs ``1+1``, from request to result.

    Args:
        command: name of the server's program, which stands beside this Python.
        arguments: of the program.
        tool: that takes ``code``.
        size: how many calls.

    Returns:
        A sample in seconds for each call.
    """
    server = StdioServerParameters(
        command=str(Path(sys.executable).with_name(command)), args=list(arguments)
    )
    return asyncio.run(_execute_through(server, tool, size))


async def _execute_through(server, tool, size):
    samples = []
    async with Client(server, read_timeout_seconds=_PATIENCE) as client:
        for _ in range(_WARM_UP + size):
            began = time.perf_counter()
            answer = await client.call_tool(tool, {"code": "1+1"})
            samples.append(time.perf_counter() - began)
            assert "2" in answer.content[0].text, answer
    return samples[_WARM_UP:]
