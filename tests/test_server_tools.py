"""The tools as Jupyter AI finds them: through jupyter-server-mcp and its entry point."""

import importlib.metadata

import pytest

from hive_jupyter import server_tools
from hive_jupyter.agents import AGENT_TOOLS
from hive_jupyter.toolbox import BUILT_IN

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def home(runtime):
    """The process's own hive, which ends with the test."""
    yield
    server_tools._home()[0].close()
    server_tools._home.cache_clear()


@pytest.fixture
def extension():
    """The real extension with its MCP server, which has found the tools."""
    package = pytest.importorskip("jupyter_server_mcp.extension")
    server = pytest.importorskip("jupyter_server_mcp.mcp_server")
    app = package.MCPExtensionApp()
    app.mcp_server_instance = server.MCPServer(name="a test", port=0)
    found = [spec for spec in app._discover_entrypoint_tools() if "hive_jupyter" in spec]
    app._register_tools(found)
    return app


def test_the_entry_point_leads_to_functions():
    (entry,) = importlib.metadata.entry_points(group="jupyter_server_mcp.tools", name="hive")

    names = [spec.partition(":")[2] for spec in entry.load()()]

    assert {f"hive_{name}" for name in {*BUILT_IN, *AGENT_TOOLS} - {"request_commit"}} == set(names)
    assert all(callable(getattr(server_tools, name)) for name in names)
    with pytest.raises(AttributeError):
        _ = server_tools.hive_approve


async def test_jupyter_ai_finds_the_tools_and_calls_them(extension, home):
    from fastmcp import Client

    async with Client(extension.mcp_server_instance.mcp) as client:
        tools = {tool.name: tool for tool in await client.list_tools()}
        good = await client.call_tool("hive_execute", {"code": "print('so'); 6 * 7"})
        bad = await client.call_tool("hive_execute", {"code": "1/0"}, raise_on_error=False)
        wrong = await client.call_tool("hive_execute", {"cod": "1"}, raise_on_error=False)

    schema = tools["hive_read_file"].input_schema
    assert ["path"] == schema["required"]
    assert "Path below the project" in schema["properties"]["path"]["description"]
    assert BUILT_IN["execute"].description == tools["hive_execute"].description
    assert "so\n42" == good.content[0].text
    assert bad.is_error
    assert "ZeroDivisionError: division by zero" in bad.content[0].text
    assert wrong.is_error
    assert "Jupyter AI" == server_tools._home()[0].history()[-1].asker
