"""The worker's table of tools, called in this process."""

import pytest

from hive_jupyter.worker import tools


@pytest.fixture
def table(monkeypatch):
    """A table of its own."""
    monkeypatch.setattr(tools, "_TABLE", dict(tools._TABLE))


def text(result):
    (block,) = result["content"]
    assert "text" == block["type"]
    return block["text"]


def test_ping_answers_pong():
    result = tools.call_tool("ping", {})

    assert "pong" == text(result)
    assert not result["isError"]


def test_each_tool_has_a_description_and_a_schema_that_refuses_the_unknown():
    for tool in tools.list_tools():
        assert {"name", "description", "inputSchema"} == set(tool)
        assert tool["description"].endswith(".")
        assert "object" == tool["inputSchema"]["type"]
        assert tool["inputSchema"]["additionalProperties"] is False


def test_an_unknown_tool_is_an_error_that_names_the_nearest():
    result = tools.call_tool("pign", {})

    assert result["isError"]
    assert '"pign"' in text(result)
    assert "ping" in text(result)


def test_an_unknown_argument_is_an_error_that_names_it():
    result = tools.call_tool("ping", {"loud": True})

    assert result["isError"]
    assert '"loud"' in text(result)


def test_a_tool_that_fails_is_a_result(table):
    @tools.tool("Fail.", path={"type": "string"})
    def fail(path):
        raise FileNotFoundError(path)

    result = tools.call_tool("fail", {"path": "a.csv"})

    assert result["isError"]
    assert "fail failed: FileNotFoundError: a.csv" == text(result)


def test_a_missing_argument_is_a_result(table):
    @tools.tool("Need.", path={"type": "string"})
    def need(path):
        return path

    assert tools.call_tool("need", {})["isError"]
    assert "here" == text(tools.call_tool("need", {"path": "here"}))
    assert "need" in [tool["name"] for tool in tools.list_tools()]
