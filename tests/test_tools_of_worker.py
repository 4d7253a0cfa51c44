"""The worker's table of tools, called in this process."""

import json
import sys

import pytest

from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import LARGEST_RESULT, REGISTERED, Call, ToolResult
from hive_jupyter.worker import tools
from hive_jupyter.worker.tools import Toolbox

HOSTS = {"execute", "request_commit"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module with tools of the user's own, and forget it at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(REGISTERED)

    def make(name, code):
        (tmp_path / f"{name}.py").write_text(
            f"from hive_jupyter.tools import ToolResult, tool\n{code}"
        )
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    yield make
    REGISTERED.clear()
    REGISTERED.update(before)


def call(name, arguments, *modules, limit=LARGEST_RESULT):
    wire = Toolbox(modules).call_tool(name, arguments, Call(limit, lambda *_: None))
    assert len(json.dumps(wire)) <= limit
    return ToolResult.from_wire(wire)


def test_ping_answers_pong():
    result = call("ping", {})

    assert "pong" == str(result)
    assert not result.is_error


def test_each_tool_is_served_by_the_worker_or_by_the_host():
    assert BUILT_IN.keys() == tools._FUNCTIONS.keys() | HOSTS
    assert not tools._FUNCTIONS.keys() & HOSTS
    for name in HOSTS:
        result = call(name, {"code": "1"} if name == "execute" else {"message": "m"})
        assert result.is_error
        assert "host" in str(result)


def test_each_function_takes_what_its_schema_says():
    for name, function in tools._FUNCTIONS.items():
        code = function.__code__
        taken = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert tuple(BUILT_IN[name].arguments) == taken


def test_each_default_is_the_one_in_the_schema():
    for name, function in tools._FUNCTIONS.items():
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        positional = function.__defaults__ or ()
        defaults = dict(zip(names[len(names) - len(positional) :], positional, strict=True))
        defaults.update(function.__kwdefaults__ or {})
        for argument, schema in BUILT_IN[name].arguments.items():
            if "default" in schema:
                assert defaults[argument] == schema["default"]
            assert (argument in BUILT_IN[name].required) is (argument not in defaults)


def test_the_list_has_the_shape_of_mcp():
    listed = Toolbox(()).list_tools()

    assert list(BUILT_IN) == [tool["name"] for tool in listed["tools"]]
    assert [] == listed["problems"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("pign", {}, 'There is no tool "pign". Did you mean "ping"?'),
        ("ping", {"loud": True}, 'ping has no argument "loud". It takes none.'),
        ("read_file", {}, "read_file needs path. Its arguments: path, [start_line]"),
        ("read_file", {"pth": "a"}, 'no argument "pth". Did you mean "path"?'),
        ("read_file", {"path": 1}, "path has to be text, and not 1."),
        ("read_file", {"path": "a", "start_line": "1"}, "start_line has to be a whole number"),
        ("read_file", {"path": "a", "start_line": 0}, "start_line has to be at least 1"),
        ("read_file", {"path": "a", "start_line": True}, "start_line has to be a whole number"),
        ("list_files", {"hidden": 1}, "hidden has to be true or false"),
        (1, {}, "A tool's name is text"),
        ("ping", [], "its arguments are an object"),
    ],
)
def test_a_wrong_call_is_an_error_that_helps(name, arguments, said):
    result = call(name, arguments)

    assert result.is_error
    assert said in str(result)


def test_tools_of_the_users_own_are_there_too(module):
    name = module(
        "mine",
        "@tool(read_only=True)\ndef twice(text: str):\n    'Say it twice.'\n    return text * 2\n",
    )

    assert "abab" == str(call("twice", {"text": "ab"}, name))
    assert "twice needs text" in str(call("twice", {}, name))
    assert "twice" in [tool["name"] for tool in Toolbox((name,)).list_tools()["tools"]]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise FileNotFoundError('a.csv')", "failing failed: FileNotFoundError: a.csv"),
        ("raise SystemExit(3)", "failing failed: SystemExit: 3"),
        ("return 3", "it returned int; a tool returns text, a dict or a ToolResult"),
        ("return {'a': {1, 2}}", "it returned a dict that is no JSON"),
        ("return ToolResult('a')", "failing failed: "),
        ("return ToolResult((), structured_content={'a': {1}})", "failing failed: TypeError"),
    ],
)
def test_a_tool_that_fails_is_a_result(module, code, said):
    name = module("failing_tools", f"@tool\ndef failing():\n    'Fail.'\n    {code}\n")

    result = call("failing", {}, name)

    assert result.is_error
    assert said in str(result)


def test_an_interrupt_ends_a_tool(module):
    name = module("stopped", "@tool\ndef stopped():\n    'Stop.'\n    raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        call("stopped", {}, name)


@pytest.mark.parametrize("code", ["1 / 0\n", "raise SystemExit\n", "this is no Python\n"])
def test_a_module_that_cannot_be_imported_costs_only_its_own_tools(module, code):
    name = module("broken", code)
    toolbox = Toolbox((name, "nowhere_to_be_found"))

    first, second = toolbox.list_tools()["problems"]

    assert "The tools of broken are missing:" in first
    assert "nowhere_to_be_found" in second
    assert "pong" == str(call("ping", {}, name))
    assert "broken" in str(call("mine", {}, name))


def test_a_tool_cannot_take_the_place_of_hives_own(module):
    name = module("impostor", "@tool\ndef ping():\n    'Lie.'\n    return 'lie'\n")
    toolbox = Toolbox((name,))

    assert "another name" in toolbox.list_tools()["problems"][0]
    assert "pong" == str(call("ping", {}, name))


def test_a_large_result_is_cut(module):
    name = module("large", "@tool\ndef large():\n    'Much.'\n    return 'line\\n' * 10_000\n")

    result = call("large", {}, name, limit=5000)

    assert str(result).startswith("line\nline\n")
    assert "[Cut:" in str(result)
