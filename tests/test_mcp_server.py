"""The MCP server: its tools, both generations of the protocol, its transports, and bad clients."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)

from hive_jupyter import HiveManager, __version__, attach, mcp_server
from hive_jupyter.agents import AGENT_TOOLS, AgentSession
from hive_jupyter.errors import ConfigError, HiveError, NodeStartError, ToolError
from hive_jupyter.mcp_server import AgentServer, Progress, check
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import Tool, ToolContent, ToolResult
from tests.processes import family, wait_gone, wait_until
from tests.test_display_images import drawn, encoded

ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"
TOKEN = "a-token-of-the-tests"
# Hives in folders below /tmp are others', who test beside this.
PROGRAM = (
    "from hive_jupyter.swarm import runtime\n"
    "runtime._temporary_folders = list\n"
    "from hive_jupyter.cli import main\n"
    "main()"
)
COMMAND = (sys.executable, "-c", PROGRAM, "mcp")
OLD, NEW = "2025-11-25", "2026-07-28"
# "legacy" has a handshake; each version is tried once.
MODES = ("legacy", NEW)


@pytest.fixture(autouse=True)
def alone(monkeypatch, runtime):
    """No settings of whoever runs the tests."""
    monkeypatch.setenv("JUPYTER_NO_CONFIG", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def server_of(hive):
    return AgentServer(lambda name: AgentSession(hive, name), "Be kind.").server


def with_client(hive, use, mode="legacy"):
    """What a coroutine function gives that is given a client of the hive's server."""

    async def work():
        async with Client(server_of(hive), mode=mode) as client:
            return await use(client)

    return hive.serve(lambda _folder: work()).result(60)


def call(hive, name, arguments, mode="legacy"):
    return with_client(hive, lambda client: client.call_tool(name, arguments), mode)


# --- Tools ---


@pytest.mark.parametrize("mode", MODES)
def test_the_tools_are_listed_with_their_schemas_and_hints(hive, mode):
    listed = with_client(hive, lambda client: client.list_tools(), mode).tools

    tools = {tool.name: tool for tool in listed}
    assert {*BUILT_IN, *AGENT_TOOLS} == set(tools)
    assert dict(BUILT_IN["read_file"].input_schema) == tools["read_file"].input_schema
    assert tools["read_file"].annotations.read_only_hint
    assert tools["restart"].annotations.destructive_hint


@pytest.mark.parametrize("mode", MODES)
def test_code_is_run_and_its_results_have_structure(hive, mode):
    answer = call(hive, "execute", {"code": "print('so'); 6 * 7"}, mode)

    assert "so\n42" == answer.content[0].text
    assert {"status": "ok", "value": "42"} == answer.structured_content
    assert not answer.is_error


def test_an_image_is_an_image(hive):
    picture = drawn("image/png")
    code = f"from IPython.display import Image\nImage({picture!r}, format='png')"

    block = call(hive, "execute", {"code": code}).content[0]

    assert ("image", "image/png", encoded(picture)) == (block.type, block.mime_type, block.data)


@pytest.mark.parametrize("mode", MODES)
def test_the_server_says_who_it_is_and_what_it_is_good_for(hive, mode):
    async def ask(client):
        if mode != "legacy":
            await client.session.discover()
        return client.server_info, client.instructions

    info, instructions = with_client(hive, ask, mode if mode == "legacy" else "auto")
    assert ("hive-jupyter", __version__) == (info.name, info.version)
    assert "Be kind." == instructions


@pytest.mark.parametrize("mode", MODES)
def test_there_are_no_prompts_and_no_resources_and_both_can_be_asked_for(hive, mode):
    async def ask(client):
        lists = (
            (await client.list_prompts()).prompts,
            (await client.list_resources()).resources,
            (await client.list_resource_templates()).resource_templates,
        )
        with pytest.raises(MCPError, match='There is no prompt "x"'):
            await client.get_prompt("x")
        with pytest.raises(MCPError, match="There is no resource file:///x"):
            await client.read_resource("file:///x")
        return lists

    assert ([], [], []) == with_client(hive, ask, mode)


def test_the_history_names_the_client(hive):
    call(hive, "execute", {"code": "1"})

    assert "mcp" == hive.history()[-1].asker


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("exec", {}, 'There is no tool "exec". Did you mean "execute"?'),
        ("read_file", {}, "read_file needs path. Its arguments: path, [start_line]"),
        ("read_file", {"path": "x", "paht": 1}, 'has no argument "paht". Did you mean "path"?'),
        ("read_file", {"path": 3}, "path has to be text, and not 3."),
        ("read_file", {"path": "x", "start_line": 0}, "start_line has to be at least 1"),
        ("read_file", {"path": "x", "start_line": "1"}, "start_line has to be a whole number"),
        ("restart", {"now": True}, 'restart has no argument "now"'),
        ("execute", {"code": "1/0"}, "ZeroDivisionError: division by zero"),
        ("execute", {"code": " "}, ""),
    ],
)
def test_a_wrong_call_is_a_result_that_an_agent_can_read(hive, name, arguments, expected):
    answer = call(hive, name, arguments)

    assert answer.is_error == bool(expected)
    assert expected in answer.content[0].text


def test_a_result_that_is_too_large_says_what_was_cut(hive):
    answer = call(hive, "execute", {"code": "print('x' * 10**7)"})

    assert len(answer.model_dump_json()) < 300_000
    assert "Cut:" in answer.content[-1].text


def test_a_printing_tool_costs_nothing_but_its_prints(hive, capfd):
    call(hive, "execute", {"code": "import os; os.write(1, b'x'); print('y')"})

    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize("mode", MODES)
def test_progress_is_told_while_a_tool_runs(hive, mode, monkeypatch):
    async def slow(self, *arguments, sink, **options):
        for done in (1, 2, 2, 3):
            content = {"text": f"step {done}", "progress": done, "total": 3}
            sink(Message("progress", content))
        return await call_tool(self, *arguments, sink=sink, **options)

    call_tool, heard = SwarmNode.call_tool, []
    monkeypatch.setattr(SwarmNode, "call_tool", slow)

    async def hear(progress, total, message):
        heard.append((progress, total, message))

    answer = with_client(
        hive, lambda client: client.call_tool("ping", {}, progress_callback=hear), mode
    )
    assert "pong" == answer.content[0].text
    assert [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")] == heard


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ([{}, {}], [(0.001, None), (0.002, None)]),
        ([{"progress": 1, "total": 4}, {}], [(1, 4), (1.001, None)]),
        ([{"progress": 2}, {"progress": 1}, {"progress": 2}], [(2, None)]),
        ([{"progress": float("nan")}, {"progress": float("inf")}], []),
        ([{"progress": "far"}, {"progress": 10**400}, {"progress": []}], []),
        ([{"progress": 1, "total": float("nan")}, {"progress": 1, "total": "all"}], []),
        ([{"progress": -1}, {"progress": 0}], []),
        ([{"progress": 1}, {"text": ""}], [(1, None)]),
    ],
)
def test_progress_only_grows_whatever_a_worker_says(contents, expected):
    progress = Progress()

    steps = [progress.step(Message("progress", {"text": "x", **each})) for each in contents]

    assert expected == [step[:2] for step in steps if step is not None]


def test_only_progress_is_progress():
    assert None is Progress().step(Message("stream", {"name": "stdout", "text": "1"}))


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_a_client_takes_back_is_interrupted(hive, mode):
    async def take_back(client):
        running = asyncio.create_task(client.call_tool("execute", {"code": ENDLESS}))
        while "busy" != await hive.nodes.by_name["coder"].health_check():
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return await client.call_tool("ping", {})

    call(hive, "ping", {}, mode)  # a worker that lists its tools is busy, too
    assert "pong" == with_client(hive, take_back, mode).content[0].text
    assert "KeyboardInterrupt" in hive.history()[-2].detail


def test_where_the_worker_cannot_start_its_tools_are_listed_all_the_same(runtime, monkeypatch):
    async def refuse(*_):
        raise NodeStartError("No worker today.", node="coder")

    monkeypatch.setattr(SwarmNode, "_ensure_ready", refuse)
    with HiveManager() as hive:
        assert with_client(hive, lambda client: client.list_tools()).tools
        answer = call(hive, "execute", {"code": "1"})

    assert "No worker did this. No worker today." == answer.content[0].text


# --- Schemas and results that others have made ---


def made_of(schema):
    return Tool("t", "", {"type": "object", **schema})


@pytest.mark.parametrize(
    ("schema", "arguments", "expected"),
    [
        ({"properties": {"n": {"multipleOf": 2}}}, {"n": 3}, "t: n: 3 is not a multiple of 2."),
        ({"properties": {"a": {"items": {"minLength": 2}}}}, {"a": ["x"]}, "t: a.0: 'x' is too"),
        ({"minProperties": 1}, {}, "t: {} "),
        ({"properties": {"n": {"const": "x" * 10**4}}}, {"n": 1}, "was expected"),
    ],
)
def test_what_only_a_validator_knows_is_said_in_its_words(schema, arguments, expected):
    if expected == "was expected":
        expected = "t: n: 'xxx"
    with pytest.raises(ToolError) as wrong:
        check(made_of(schema), arguments)

    assert expected in str(wrong.value)
    assert len(str(wrong.value)) < 600


DRAFT = "https://json-schema.org/draft/2020-12/schema"
DOUBLING = {
    **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)},
    "d40": {"type": "object"},
}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"properties": {"x": {"$ref": "#/nowhere"}}},
        {"properties": {"x": {"pattern": "(a+)+$"}}},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
        {"properties": {"x": {"$schema": DRAFT, "pattern": "(a+)+$"}}},
        {"$defs": DOUBLING, "allOf": [{"$ref": "#/$defs/d0"}]},
        {"$defs": DOUBLING, "allOf": [{"$ref": "#/$defs/d0"}], "unevaluatedProperties": True},
        {"patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
        {"allOf": [{"patternProperties": {"(a+)+$": {}}}], "unevaluatedProperties": False},
    ],
)
def test_a_schema_of_a_hostile_worker_leads_nowhere(schema):
    check(made_of(schema), {"x": "a" * 50 + "b"})
    check(made_of({**schema, "properties": {}}), {"a" * 50 + "b": 1})


def test_an_argument_that_another_schema_does_not_have_is_named():
    with pytest.raises(ToolError, match="no argument"):
        check(made_of({"properties": {"x": {}}, "additionalProperties": False}), {"y": 1})


class Offering:
    """An agent whose worker says what a test wants it to say."""

    def __init__(self, *tools, result=None):
        self._tools, self._result = tools, result

    async def tools(self):
        return list(self._tools)

    async def call(self, name, arguments, *, sink=None):
        return self._result


async def offered(agent, use, mode="legacy"):
    async with Client(AgentServer(lambda _: agent, "").server, mode=mode) as client:
        return await use(client)


async def test_a_tool_that_has_changed_is_asked_for_again():
    agent = Offering(Tool("t", "", {**SCHEMA, "required": ["a"]}), result=ToolResult.of("done"))

    async def use(client):
        refused = await client.call_tool("t", {})
        agent._tools = (Tool("t", "", SCHEMA),)
        return refused, await client.call_tool("t", {})

    refused, taken = await offered(agent, use)
    assert refused.is_error
    assert "done" == taken.content[0].text


async def test_a_tool_whose_schema_is_none_does_not_cost_the_others():
    agent = Offering(made_of({"properties": {"x": {"type": "txet"}}}), Tool("good", "", SCHEMA))

    listed = await offered(agent, lambda client: client.list_tools())

    assert ["good"] == [tool.name for tool in listed.tools]


SCHEMA = {"type": "object", "properties": {}}


@pytest.mark.parametrize("mode", MODES)
async def test_a_list_that_cannot_be_had_is_an_error_that_says_why(mode, monkeypatch):
    async def gone(_self):
        raise HiveError("The notebook has ended.")

    monkeypatch.setattr(Offering, "tools", gone)

    async def use(client):
        with pytest.raises(MCPError, match=r"The notebook has ended\."):
            await client.list_tools()
        return await client.call_tool("x", {})

    answer = await offered(Offering(), use, mode)
    assert (True, "The notebook has ended.") == (answer.is_error, answer.content[0].text)


@pytest.mark.parametrize("mode", MODES)
async def test_what_json_cannot_hold_is_replaced(mode):
    text, structure = "half a character: \ud800", {"\udfff": [float("nan"), float("inf")]}
    half = ToolResult((ToolContent("text", text),), structured_content=structure)
    agent = Offering(Tool("odd", "\ud800", SCHEMA), result=half)

    async def use(client):
        return (await client.list_tools()).tools[0], await client.call_tool("odd", {})

    tool, answer = await offered(agent, use, mode)
    assert ("?", "half a character: ?") == (tool.description, answer.content[0].text)
    assert {"?": [None, None]} == answer.structured_content
    answer.model_dump_json()


# --- Standard input and output ---


class Wire:
    """A real server, and a client that says what a test wants it to say."""

    def __init__(self, *words, **environment):
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self._number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def say(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def begin(self, method, **params):
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self.say(json.dumps(request).encode() + b"\n")
        return self._number

    def ask(self, method, **params):
        number = self.begin(method, **params)
        while (answer := self.hear())["id"] != number:
            pass
        return answer

    def greet(self, version=OLD):
        info = {"name": "a test", "version": "1"}
        return self.ask("initialize", protocolVersion=version, capabilities={}, clientInfo=info)[
            "result"
        ]

    def execute(self, code):
        return self.ask("tools/call", name="execute", arguments={"code": code})["result"]


@pytest.fixture(scope="module")
def wire(runtime):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patch.setenv("JUPYTER_NO_CONFIG", "1")
        with Wire() as wire:
            assert OLD == wire.greet()["protocolVersion"]
            yield wire


@pytest.mark.parametrize(
    ("said", "code", "identity"),
    [
        (b"hello\n", -32700, None),
        (b"\xff\xfe\x00\n", -32700, None),
        (b"[" * 10**5 + b"\n", -32700, None),
        (b"{}\n", -32600, None),
        (b"[]\n", -32600, None),
        (b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}\n', -32600, 7),
        (b'{"jsonrpc": "2.0", "id": "x", "method": 3}\n', -32600, "x"),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "no/such"}\n', -32601, 7),
        (b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call"}\n', -32602, 7),
        (
            b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": 3}}\n',
            -32602,
            7,
        ),
    ],
)
def test_what_is_no_request_is_answered_with_what_is_wrong(wire, said, code, identity):
    wire.say(said)

    answer = wire.hear()
    assert (code, identity) == (answer["error"]["code"], answer["id"])
    assert {} == wire.ask("ping")["result"]


def test_empty_lines_and_unasked_answers_are_let_pass(wire):
    wire.say(b'\n  \n{"jsonrpc": "2.0", "id": 99, "result": {}}\n')

    assert {} == wire.ask("ping")["result"]


def test_a_request_of_100_mb_is_refused_and_not_kept(wire):
    before = psutil.Process(wire.process.pid).memory_info().rss
    wire.say(b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "')
    for _ in range(100):
        wire.say(b"x" * 2**20)
    wire.say(b'"}}\n')

    assert f"{mcp_server.LONGEST_REQUEST} bytes" in wire.hear()["error"]["message"]
    assert {} == wire.ask("ping")["result"]
    assert psutil.Process(wire.process.pid).memory_info().rss - before < 60 * 2**20


def test_the_worker_is_another_process_and_does_not_hold_the_wire(wire):
    listing = (
        "import os\n"
        "{os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{fd}')}"
    )
    pipe = os.readlink(f"/proc/{os.getpid()}/fd/{wire.process.stdout.fileno()}")

    assert pipe not in wire.execute(listing)["content"][0]["text"]
    for process in family(wire.process.pid):
        files = Path(f"/proc/{process.pid}/fd")
        assert pipe not in [os.readlink(file) for file in files.iterdir() if file.exists()]


def test_prints_of_a_worker_do_not_reach_the_wire(wire):
    said = wire.execute("import os; os.system('echo a child'); os.write(1, b'C'); print('Python')")

    assert not said["isError"]
    assert {} == wire.ask("ping")["result"]


def test_several_calls_are_served_at_once(wire):
    long = wire.begin("tools/call", name="execute", arguments={"code": ENDLESS})
    while (
        "busy"
        != wire.ask("tools/call", name="status", arguments={})["result"]["structuredContent"][
            "workers"
        ]["coder"]["state"]
    ):
        pass
    stopping = wire.begin("tools/call", name="interrupt", arguments={})

    answers = {answer["id"]: answer["result"] for answer in (wire.hear(), wire.hear())}
    assert "was interrupted" in answers[stopping]["content"][0]["text"]
    assert answers[long]["isError"]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", OLD])
def test_every_version_with_a_handshake_is_spoken(hive, version):
    ours, theirs = os.pipe(), os.pipe()
    work = hive.serve(lambda _folder: mcp_server.over_stdio(server_of(hive), (ours[0], theirs[1])))
    client = Wire.__new__(Wire)
    client._number = 0
    with os.fdopen(ours[1], "wb") as said, os.fdopen(theirs[0], "rb") as heard:
        client.process = type("Pipes", (), {"stdin": said, "stdout": heard})
        assert version == client.greet(version)["protocolVersion"]
        assert "42" == client.execute("6 * 7")["content"][0]["text"]
    work.result(30)
    os.close(ours[0])
    os.close(theirs[1])


def close_stdin(process):
    process.stdin.close()


ENDINGS = {
    "its client closes the pipe": (close_stdin, 0),
    "it is told to": (lambda process: process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
    "Ctrl-C": (lambda process: process.send_signal(signal.SIGINT), 128 + signal.SIGINT),
    "it is killed": (lambda process: process.kill(), -signal.SIGKILL),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_server_ends_without_a_stray_worker_when(ending, tmp_path):
    """Nor does what a file of settings prints reach its client."""
    (tmp_path / "jupyter_hive_config.py").write_text(
        "import os\nprint('from a file')\nos.system('echo from a child')\n"
        "c.HiveConfig.history_size = 10\n"
    )
    end, status = ENDINGS[ending]
    with Wire(JUPYTER_CONFIG_DIR=str(tmp_path), JUPYTER_NO_CONFIG="") as wire:
        wire.greet()
        wire.begin("tools/call", name="execute", arguments={"code": ENDLESS})
        while (
            "busy"
            != wire.ask("tools/call", name="status", arguments={})["result"]["structuredContent"][
                "workers"
            ]["coder"]["state"]
        ):
            pass
        processes = family(wire.process.pid)
        assert len(processes) >= 3, "zygote, supervisor, worker"

        end(wire.process)

        assert status == wire.process.wait(20)
        wait_gone(processes)
        said = wire.process.stderr.read().decode()
    assert "Traceback" not in said
    assert "from a file\n" in said
    assert "from a child\n" in said
    assert 'sandbox profile is "strict"' in said
    assert "--sandbox workspace" in said


def run(*words, stdin=subprocess.DEVNULL, **environment):
    """The command, run to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("words", "environment", "status", "expected"),
    [
        ((), {}, 2, "An MCP client speaks through pipes"),
        (
            ("--http", "0", "--sandbox", "strict", "--worker", "other"),
            {"HIVE_JUPYTER_WORKERS": '{"other": {"kernel": "python3"}}'},
            1,
            "no worker of Hive's own",
        ),
        (("--http", "0", "--sandbox", "stritc"), {}, 2, 'Did you mean "strict"?'),
        (("--http", "0", "--worker", "../x"), {}, 2, "../x"),
        (("--http", "0"), {"HIVE_JUPYTER_AGENT_TOOLS": "execute=asks"}, 2, "agent_tools"),
        (("--http", "0"), {"HIVE_JUPYTER_HTTP_TOKEN": "short"}, 2, "at least 16"),
        (("--http", "0"), {"HIVE_JUPYTER_IN_WORKER": "x"}, 1, "This is a worker already"),
        (("--http", "http"), {}, 2, '"http" is no port'),
        (("--http", "65536"), {}, 2, '"65536" is no port'),
        (("--timeout", "soon"), {}, 2, "'soon' is no duration"),
        (("--attach", "--sandbox", "open"), {}, 2, "leave --sandbox out"),
        (("--http", "0", "--attach"), {}, 1, "No hive is running"),
        (("--http", "0", "--hive", "1"), {}, 1, "No hive is running"),
        (("coder",), {}, 2, '"coder" is one word too many'),
    ],
)
def test_what_cannot_be_served_is_said_at_once(words, environment, status, expected, tmp_path):
    ended = run(*words, JUPYTER_RUNTIME_DIR=str(tmp_path), TMPDIR=str(tmp_path), **environment)

    assert status == ended.returncode, ended.stderr
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "" == ended.stdout


def test_where_the_extra_is_missing_the_command_says_what_to_install():
    program = "import sys; sys.modules['mcp'] = None; from hive_jupyter.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "mcp", "--http", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 1 == ended.returncode
    assert '"mcp" is missing' in ended.stderr
    assert '-m pip install "hive-jupyter[mcp]"' in ended.stderr


def test_the_server_serves_a_running_notebook(hive, tmp_path):
    attach.serve(hive, "a notebook")
    wait_until(lambda: [each.close() or each for each in attach.attachments()])
    hive.delegate("shared = 'of the notebook'")
    with Wire("--hive", str(os.getpid())) as wire:
        instructions = wire.greet()["instructions"]
        answer = wire.execute("shared")
        wire.process.stdin.close()
        assert 0 == wire.process.wait(20)
        said = wire.process.stderr.read().decode()

    assert "'of the notebook'" == answer["content"][0]["text"]
    assert 'the notebook "a notebook"' in instructions
    assert "a notebook" in said
    assert "a test" == hive.history()[-1].asker


# --- HTTP ---


@pytest.fixture(scope="module")
def port(hive):
    listener = mcp_server.listen(0)
    app = mcp_server.guarded(server_of(hive), TOKEN)
    hive.serve(lambda _folder: mcp_server.over_http(app, listener))
    return listener.getsockname()[1]


def post(port, message, *, token=TOKEN, read=True, **headers):
    """The status and the answer to a POST; with ``read=False`` the open connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **({} if token is None else {"Authorization": f"Bearer {token}"}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    connection.request("POST", mcp_server.PATH, data, given)
    if not read:
        return connection
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def modern(method, **params):
    """A request without a handshake, and its headers."""
    meta = {
        PROTOCOL_VERSION_META_KEY: NEW,
        CLIENT_INFO_META_KEY: {"name": "a test", "version": "1"},
        CLIENT_CAPABILITIES_META_KEY: {},
    }
    headers = {"MCP_Protocol_Version": NEW, "Mcp_Method": method}
    if "name" in params:
        headers["Mcp_Name"] = params["name"]
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return message, headers


PING, PINGS_HEADERS = modern("tools/call", name="ping", arguments={})


def test_who_knows_the_token_is_served(port):
    status, answer = post(port, PING, **PINGS_HEADERS)

    assert 200 == status
    assert "pong" in answer


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "\xff"],
)
def test_who_does_not_know_the_token_is_told_to_send_it(port, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}

    status, answer = post(port, PING, token=None, **headers, **PINGS_HEADERS)

    assert 401 == status
    assert "Authorization: Bearer" in answer
    assert TOKEN not in answer


def test_two_tokens_are_one_too_many(port):
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        line = f"Authorization: Bearer {TOKEN}\r\n"
        client.sendall(f"GET /mcp HTTP/1.1\r\nHost: localhost:{port}\r\n{line}{line}\r\n".encode())
        assert b"401" in client.recv(100)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://localhost:1.evil.example"}, 403),
    ],
)
@pytest.mark.parametrize("generation", [PINGS_HEADERS, {}])
def test_a_foreign_host_or_origin_is_refused_even_with_the_token(
    port, headers, expected, generation
):
    assert expected == post(port, PING, **headers, **generation)[0]


@pytest.mark.parametrize(("path", "expected"), [("/", 404), ("/mcp/approve", 404), ("/mcp", 406)])
def test_there_is_nothing_else(port, path, expected):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert expected == connection.getresponse().status
    connection.close()


@pytest.mark.parametrize("said", [b"hello", b"", b"[1", b"[]", b"{}", b"\xff" * 100])
@pytest.mark.parametrize("generation", [PINGS_HEADERS, {}])
def test_what_is_no_json_rpc_is_a_bad_request(port, said, generation):
    assert 400 == post(port, said, **generation)[0]
    assert "pong" in post(port, PING, **PINGS_HEADERS)[1]


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_request_of_100_mb_is_refused_without_being_read(port, has_token, is_chunked):
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {100 * 2**20}"
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: localhost:{port}\r\n{length}\r\n"
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        f"{f'Authorization: Bearer {TOKEN}' if has_token else 'X: y'}\r\n\r\n"
    )
    piece = b"x" * 2**20
    sent = 0
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(head.encode())
        with contextlib.suppress(OSError):
            while sent < 100:
                client.sendall(b"100000\r\n" + piece + b"\r\n" if is_chunked else piece)
                sent += 1
        with contextlib.suppress(ConnectionResetError):
            assert (b"413" if has_token else b"401") in client.recv(100)

    assert sent < 100
    assert "pong" in post(port, PING, **PINGS_HEADERS)[1]


def hang_up_in(hive, connection):
    wait_until(lambda: hive.health() == "busy", 60)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    wait_until(lambda: hive.health() == "idle", 60)
    return wait_until(lambda: [run for run in hive.history() if "while True" in run.code])[-1]


def test_a_client_that_disconnects_has_interrupted_its_call(hive, port):
    message, headers = modern("tools/call", name="execute", arguments={"code": ENDLESS})

    last = hang_up_in(hive, post(port, message, read=False, **headers))

    assert ("a test", "KeyboardInterrupt: ") == (last.asker, last.detail)


def test_so_has_one_of_a_version_with_a_handshake(hive, port):
    before = len(hive.history())
    greeting = {
        "protocolVersion": OLD,
        "capabilities": {},
        "clientInfo": {"name": "an old test", "version": "1"},
    }
    connection = post(
        port,
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting},
        read=False,
    )
    response = connection.getresponse()
    session = {"Mcp_Session_Id": response.headers["Mcp-Session-Id"], "MCP_Protocol_Version": OLD}
    response.read()
    connection.close()
    post(port, {"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
    params = {"name": "execute", "arguments": {"code": ENDLESS}}
    request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}

    last = hang_up_in(hive, post(port, request, read=False, **session))

    assert len(hive.history()) > before
    assert ("an old test", "KeyboardInterrupt: ") == (last.asker, last.detail)


@contextlib.contextmanager
def http_server(**environment):
    """A real server over HTTP, its process, and what it said for a client's configuration."""
    with subprocess.Popen(
        [*COMMAND, "--http", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            said = ""
            while not said.endswith("\n}\n"):
                said += process.stderr.readline()
            yield process, json.loads(said[said.index("{\n") :])["mcpServers"]["hive"]
        finally:
            process.kill()


def test_the_command_gives_a_token_and_serves_who_brings_it():
    with http_server() as (process, entry):
        token = entry["headers"]["Authorization"].removeprefix("Bearer ")
        port = int(entry["url"].split(":")[2].partition("/")[0])

        assert len(token) >= 32
        assert "pong" in post(port, PING, token=token, **PINGS_HEADERS)[1]
        assert 401 == post(port, PING, token="x", **PINGS_HEADERS)[0]
        processes = family(process.pid)
        process.send_signal(signal.SIGTERM)
        printed, said = process.communicate(timeout=20)

    assert (128 + signal.SIGTERM, "") == (process.returncode, printed)
    assert "Traceback" not in said
    wait_gone(processes)


def test_a_token_of_the_users_own_is_not_shown_and_no_worker_has_it():
    """The entry for a configuration is the one that docs/mcp.md shows."""
    with http_server(HIVE_JUPYTER_HTTP_TOKEN=TOKEN) as (process, entry):
        port = int(entry["url"].split(":")[2].partition("/")[0])
        (shown,) = (each for each in entries() if "url" in each)
        assert shown == {**entry, "url": entry["url"].replace(str(port), "8765")}
        code = "import os; [name for name in os.environ if 'TOKEN' in name]"
        message, headers = modern("tools/call", name="execute", arguments={"code": code})
        assert '"[]"' in post(port, message, **headers)[1]
        process.send_signal(signal.SIGINT)
        assert TOKEN not in "".join(process.communicate(timeout=20))


def test_a_port_that_somebody_else_has_is_named(port):
    with pytest.raises(ConfigError, match=f"Port {port} cannot be opened: Address already"):
        mcp_server.listen(port)


# --- docs/mcp.md ---

PAGE = (Path(__file__).parents[1] / "docs" / "mcp.md").read_text(encoding="utf-8")


def entries():
    """The servers that the page's snippets configure."""
    blocks = re.findall(r"^```(json|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for language, text in blocks:
        found = json.loads(text) if language == "json" else tomllib.loads(text)
        (servers,) = found.values()
        yield servers["hive"]


def commands():
    """The command lines among them, and those that are given to a program's own command."""
    for entry in entries():
        if "command" in entry:
            words = entry["command"]
            yield tuple(words) if isinstance(words, list) else (words, *entry["args"])
    for text in re.findall(r"`\w+ mcp add hive -- (.*?)`", PAGE):
        yield tuple(text.split())


COMMANDS = sorted(set(commands()))


def test_the_page_has_a_command_for_each_kind_of_client():
    assert [
        ("env", "-C", "/path/to/project", "/path/to/bin/jupyter-hive", "mcp"),
        ("jupyter-hive", "mcp"),
        ("jupyter-hive", "mcp", "--attach"),
    ] == COMMANDS
    assert 8 == len([*commands()])


@pytest.mark.parametrize("words", COMMANDS)
async def test_a_command_of_the_page_serves_a_client_of_either_generation(words, hive, tmp_path):
    folder = Path(sys.executable).parent
    words = [
        word.replace("/path/to/project", str(tmp_path)).replace("/path/to/bin", str(folder))
        for word in words
    ]
    if "--attach" in words:
        attach.serve(hive, "a notebook")
        await asyncio.to_thread(wait_until, lambda: len(hive._serving) and found())
        words += ["--hive", found()[0]]
    passed = ("JUPYTER_RUNTIME_DIR", "PYTHONPATH", "JUPYTER_NO_CONFIG")
    server = StdioServerParameters(
        command=words[0],
        args=words[1:],
        env={
            **{name: os.environ[name] for name in passed},
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        },
    )

    async def answer(mode):
        async with Client(server, mode=mode) as client:
            code = "import os; os.getcwd()"
            return (await client.call_tool("execute", {"code": code})).content[0].text

    where = str(tmp_path) if words[0] == "env" else os.getcwd()
    assert [repr(where)] * 2 == await asyncio.gather(answer("legacy"), answer("auto"))


def found():
    """IDs of the hives that can be attached to."""
    attachments = attach.attachments()
    for each in attachments:
        each.close()
    return [each.id for each in attachments]
