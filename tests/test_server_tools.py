"""The tools as Jupyter AI finds them: through jupyter-server-mcp and its entry point."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hive_jupyter import server_tools
from hive_jupyter.agents import AGENT_TOOLS
from hive_jupyter.toolbox import BUILT_IN
from tests.processes import ROOT

PACKAGE = "jupyter_server_mcp==0.4.1"

# What the extension does when a Jupyter server starts it, without the server.
PROGRAM = """
import asyncio, json
from fastmcp import Client
from jupyter_server_mcp.extension import MCPExtensionApp
from jupyter_server_mcp.mcp_server import MCPServer

async def main():
    app = MCPExtensionApp()
    app.mcp_server_instance = MCPServer(name="a test", port=0)
    app._register_tools(app._discover_entrypoint_tools())
    async with Client(app.mcp_server_instance.mcp) as client:
        tools = {tool.name: tool for tool in await client.list_tools()}
        print(json.dumps({"tools": list(tools), "schema": tools["hive_read_file"].input_schema}))
        for arguments in ({"code": "print('so'); 6 * 7"}, {"code": "1/0"}, {"cod": "1"}):
            answer = await client.call_tool("hive_execute", arguments, raise_on_error=False)
            print(json.dumps([answer.is_error, answer.content[0].text]))

asyncio.run(main())
"""


def test_the_entry_point_leads_to_functions():
    (entry,) = importlib.metadata.entry_points(group="jupyter_server_mcp.tools", name="hive")

    names = [spec.partition(":")[2] for spec in entry.load()()]

    assert {f"hive_{name}" for name in {*BUILT_IN, *AGENT_TOOLS}} == set(names)
    assert all(callable(getattr(server_tools, name)) for name in names)
    with pytest.raises(AttributeError):
        _ = server_tools.hive_approve


@pytest.fixture
def extension():
    """
    A folder with the real extension.

    Not in the tests' own environment: every Jupyter server there would start it, on one port.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    major, minor = sys.version_info[:2]
    folder = Path(base, "hive-jupyter", f"{PACKAGE.replace('==', '-')}-py{major}.{minor}")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            installing = [sys.executable, "-m", "pip", "install", "-q", "--target", new, PACKAGE]
            installed = subprocess.run(installing, capture_output=True, text=True, check=False)
            if installed.returncode:
                pytest.skip(f"pip cannot install {PACKAGE}: {installed.stderr.strip()[-300:]}")
            if not folder.exists():
                shutil.copytree(new, folder)
    return folder


@pytest.mark.timeout(600)
def test_jupyter_ai_finds_the_tools_and_calls_them(extension, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, extension))),
            "JUPYTER_RUNTIME_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    listed, good, bad, wrong = map(json.loads, ran.stdout.splitlines())
    assert {"hive_execute", "hive_status"} < set(listed["tools"])
    assert ["path"] == listed["schema"]["required"]
    assert (
        BUILT_IN["read_file"].arguments["path"]["description"]
        == (listed["schema"]["properties"]["path"]["description"])
    )
    assert [False, "so\n42"] == good
    assert bad[0]
    assert "ZeroDivisionError: division by zero" in bad[1]
    assert wrong[0]
