"""MCP servers of others as workers, with real processes: well-behaved ones and hostile ones."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import (
    CircuitOpen,
    HiveError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    SandboxUnavailable,
    ToolError,
)
from hive_jupyter.swarm import life, mcp_session
from hive_jupyter.swarm import mcp_node as module
from hive_jupyter.swarm.mcp_node import McpNode
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.runtime import RuntimeFolder
from hive_jupyter.tools import LARGEST_RESULT, MOST_BLOCKS, Tool
from tests import hosts
from tests.processes import family, rested, stopped, wait_gone, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("hostile_mcp_server.py")))
FILESYSTEM, EVERYTHING = "2026.8.31", "2026.8.31"


@pytest.fixture(scope="module")
def folder(runtime):
    folder = RuntimeFolder.create()
    yield folder
    folder.remove()


@pytest_asyncio.fixture(loop_scope="module")
async def make_node(folder):
    """Makes nodes for a hostile server of given habits, or for a command; closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*habits, command=None, environment=None, **settings):
            # on a machine that stands still for a while, what is in order is not fast either
            patient = {"interrupt_grace": 30, "connect_timeout": 60}
            node = McpNode(
                "m",
                config=HiveConfig(**{**patient, **settings}),
                command=command or (*SERVER, *habits),
                runtime=folder,
                environment=environment,
            )
            return await stack.enter_async_context(node)

        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def node(make_node):
    return await make_node()


async def echo(node, text="hello"):
    result = await node.call_tool("echo", {"text": text})
    assert (text, False) == (str(result), result.is_error)


async def logged(node, text):
    async with asyncio.timeout(30):
        while text not in node.log(1000):
            await asyncio.sleep(0.01)


async def begun(node, name, *, text="", said=None, timeout=120.0):
    """A call that the server has taken up, as a task, and its run."""
    await echo(node)
    runs = []
    sink = (said if said is not None else []).append
    call = node.call_tool(name, {"text": text}, timeout, sink=sink, began=runs.append)
    task = asyncio.create_task(call)
    while not runs:
        await asyncio.sleep(0)
    await echo(node)  # the server reads one line after the other
    return task, runs[0]


def pid_of(node):
    return node.status().pid


# What it is for


async def test_a_server_lists_its_tools_and_serves_calls(node):
    assert "cold" == node.status().state
    assert await node.connect()
    listed = await node.list_tools()

    assert "echo" in [tool["name"] for tool in listed]
    assert {"name", "description", "inputSchema", "annotations"} == set(listed[0])
    assert Tool.from_wire(listed[0]) == node.tools[listed[0]["name"]]
    assert () == node.tool_problems
    await echo(node)
    status = node.status()
    assert ("idle", "closed", "open", 0) == (
        status.state,
        status.circuit,
        status.sandbox,
        status.queue,
    )
    assert "MCP server hostile 1.0" == status.kernel
    assert status.memory > 2**20
    assert status.uptime >= 0
    assert () == status.drift
    assert (2, 2, 0) == (status.metrics.calls, status.metrics.successes, status.metrics.failures)
    assert "idle" == await node.health_check()


async def test_fifty_callers_at_once_start_one_server_and_are_served_together(node):
    assert all(await asyncio.gather(*(node.connect() for _ in range(50))))
    first = pid_of(node)
    results = await asyncio.gather(node.call_tool("meet"), node.call_tool("meet"))

    assert ["met", "met"] == list(map(str, results))
    assert (0, first) == (node.metrics.restarts, pid_of(node))


async def test_a_server_of_the_newest_protocol_alone_is_understood(make_node):
    node = await make_node("modern")
    await node.list_tools()

    assert "echo" in node.tools
    assert "idle" == await node.health_check()


async def test_how_far_a_call_is_goes_to_its_sink_and_not_too_often(node):
    said = []
    task, run = await begun(node, "steps", said=said)
    run.stop()
    with pytest.raises(RemoteError):
        await task

    first, *_, last = said
    assert Message("progress", {"text": "step  [31m1 (1 of 3)", "progress": 1, "total": 3}) == first
    assert Message("progress", {"text": ""}) == last
    assert 2 == len(said)


async def test_a_call_whose_output_is_paused_tells_nothing(node):
    said = []
    await echo(node)
    call = node.call_tool("steps", {}, sink=said.append, began=node.pause_output)
    task = asyncio.create_task(call)
    while not node._silenced:
        await asyncio.sleep(0)
    await echo(node)
    await node.interrupt()
    with pytest.raises(RemoteError):
        await task

    assert [] == said


async def test_a_server_gets_what_workers_get_of_the_environment(make_node, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    node = await make_node(environment={"EXTRA": "1"})
    environment = json.loads(str(await node.call_tool("environment")))

    assert os.environ["HOME"] == environment["HOME"]
    assert ("1", "m") == (environment["EXTRA"], environment["HIVE_JUPYTER_IN_WORKER"])
    assert "MY_TOKEN" not in environment


async def test_a_question_to_the_user_is_refused(node):
    assert "not supported" in str(await node.call_tool("ask"))
    result = await node.call_tool("question")

    assert result.is_error


async def test_a_server_runs_no_code(node):
    with pytest.raises(ToolError, match="%delegate -w m TOOL"):
        await node.execute(Run("1", id))


async def test_a_changed_working_folder_is_told_as_drift(node, tmp_path, monkeypatch):
    await node.connect()
    monkeypatch.chdir(tmp_path)

    assert ("working folder",) == node.status().drift


async def test_a_policy_is_chosen_for_the_next_start(node):
    node.policy = node.changed_policy(2**30, None)
    await node.connect()

    assert 2**30 == node.status().memory_limit
    assert None is node.changed_policy(0, None).memory
    with pytest.raises(SandboxUnavailable):
        node.changed_policy(None, "strict")


# Starting


async def test_a_server_that_hangs_at_its_start_is_given_up_in_time(make_node):
    before = family()
    node = await make_node("hang", connect_timeout=0.5)
    async with asyncio.timeout(30):
        assert not await node.connect()

    assert isinstance(node.last_error, NodeStartError)
    assert "did not answer within 500 ms" in str(node.last_error)
    assert "connect_timeout" in str(node.last_error)
    assert "dead" == node.status().state
    wait_gone([process for process in family() if process not in before])


async def test_a_program_that_fetches_servers_has_more_time_and_that_is_said(
    make_node, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "FETCH_PATIENCE", 0.7)
    npx = tmp_path / "npx"
    npx.write_text("#!/bin/sh\nexec sleep 1000\n")
    npx.chmod(0o755)
    node = await make_node(command=(str(npx), "-y", "server"), connect_timeout=0.1)

    assert not await node.connect()
    assert "which may have to fetch the server first) did not answer within 700 ms" in str(
        node.last_error
    )


async def test_a_server_that_dies_at_its_start_says_why(make_node):
    node = await make_node("die")
    assert not await node.connect()

    assert "(exit code 3). It said last: no luck today" in str(node.last_error)
    assert (3, "no luck today") == (node.last_error.exit_code, node.last_error.log_tail)
    assert "no luck today" == node.log(10)
    assert 1 == node.metrics.failures


@pytest.mark.parametrize(
    ("habit", "complaint"),
    [
        ("refuse", "it refused to talk: not for you"),
        ("strange", "something that is not MCP: "),
        ("ancient", "Unsupported protocol version from the server: 1999-01-01"),
    ],
)
async def test_a_server_that_does_not_get_to_terms_says_why(make_node, habit, complaint):
    node = await make_node(habit)

    assert not await node.connect()
    assert complaint in str(node.last_error)


async def test_a_program_that_is_no_server_is_shown_with_what_it_printed(make_node):
    node = await make_node(command=("echo", "Usage: serve"))

    assert not await node.connect()
    assert "On its stdout was no MCP: Usage: serve" in str(node.last_error)


async def test_a_program_that_does_not_exist_is_no_failure_of_the_server(make_node):
    node = await make_node(command=("no-such-program",))

    assert not await node.connect()
    assert 'no program "no-such-program" on the PATH' in str(node.last_error)
    assert 0 == node.metrics.failures


async def test_a_missing_package_is_told_with_the_command_that_installs_it(make_node, monkeypatch):
    monkeypatch.delitem(sys.modules, mcp_session.__name__)
    monkeypatch.setitem(sys.modules, "mcp.client.session", None)
    node = await make_node()

    assert not await node.connect()
    assert f"{sys.executable} -m pip install 'hive-jupyter[mcp]'" in str(node.last_error)


async def test_a_working_folder_that_is_gone_is_told(node, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert not await node.connect()
    assert "working folder does not exist" in str(node.last_error)


async def test_workers_that_are_turned_off_start_no_server(make_node):
    node = await make_node(direct=False)

    with pytest.raises(NodeStartError, match="turned off"):
        await node.call_tool("echo")


async def test_a_stop_ends_a_start(make_node):
    node = await make_node("hang")
    call = asyncio.create_task(node.call_tool("echo"))
    while node._process is None:
        await asyncio.sleep(0.01)
    assert "starting" == node.status().state
    await node.stop()

    with pytest.raises(NodeStartError, match="stopped while it started"):
        await call


async def test_a_call_that_waits_for_a_start_says_so_and_can_be_stopped(make_node, monkeypatch):
    monkeypatch.setattr(life, "PROGRESS_AFTER", 0.0)
    node = await make_node("hang")
    said = []
    call = asyncio.create_task(node.call_tool("echo", {}, sink=lambda m: said.append(m.content)))
    while not said:
        await asyncio.sleep(0.01)
    assert await node.interrupt()

    with pytest.raises(RemoteError):
        await call
    assert 'Starting worker "m" ...' == said[0]["text"]


async def test_importing_the_node_does_not_import_the_sdk(tmp_path):
    code = "import sys, hive_jupyter.swarm.mcp_node; print('mcp' in sys.modules)"

    assert "False\n" == hosts.play(code)


# Hostile servers


async def test_a_flood_on_stderr_neither_stops_a_server_nor_fills_the_disk(make_node):
    node = await make_node("flood")
    await echo(node)
    await logged(node, "the end of the flood")

    log = node._process.folder / "log"
    assert log.stat().st_size < 2.5 * 2**20
    assert "the end of the flood" in node.log(3)


async def test_noise_on_stdout_is_left_out_and_shown_in_the_log(make_node):
    node = await make_node("noise")
    await echo(node)

    assert "Welcome!\n{not json}\n[1, 2]\n[31mred" in node.log(10)


async def test_a_server_that_ignores_every_wish_to_end_is_killed(make_node):
    node = await make_node("deaf", interrupt_grace=0.2)
    await node.connect()
    process = psutil.Process(pid_of(node))
    async with asyncio.timeout(30):
        await node.stop()

    wait_gone([process])
    assert "cold" == node.status().state
    await echo(node)


async def test_a_server_is_asked_to_end_before_it_is_killed(make_node, tmp_path):
    node = await make_node(f"farewell={tmp_path}/file")
    await node.connect()
    await node.stop()

    assert "goodbye" == (tmp_path / "file").read_text()
    assert 0 == node.metrics.failures


@pytest.mark.parametrize("how", ["stop", "death", "kill"])
async def test_what_a_server_started_goes_with_it(make_node, how):
    before = {process.pid for process in family()}
    node = await make_node("daemon")
    await node.connect()

    def sleepers():
        with contextlib.suppress(psutil.NoSuchProcess):
            new = [process for process in family() if process.pid not in before]
            return new if 2 == [process.name() for process in new].count("sleep") else []

    new = wait_until(sleepers)
    if how == "stop":
        await node.stop()
    elif how == "death":
        with pytest.raises(NodeDied):
            await node.call_tool("die", {"text": "0"})
    else:
        os.kill(pid_of(node), signal.SIGKILL)

    await asyncio.to_thread(wait_gone, new, 30)


async def test_a_server_does_not_outlive_its_host(tmp_path):
    """A host that is killed has no time to end anything; the witness sees what it leaves."""
    code = f"""
import asyncio, os, signal
from hive_jupyter.config import HiveConfig
from hive_jupyter.swarm.mcp_node import McpNode
from hive_jupyter.swarm.runtime import RuntimeFolder
async def main():
    config, runtime = HiveConfig(connect_timeout=60), RuntimeFolder.create()
    node = McpNode("m", config=config, command={(*SERVER, "daemon", "deaf")!r}, runtime=runtime)
    assert await node.connect()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    command = hosts.command(code, options=())
    environment = hosts.environment(JUPYTER_RUNTIME_DIR=str(tmp_path))
    played = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60
    )

    assert (128 + 9, "") == (played.returncode, played.stderr)


async def test_a_tool_that_is_described_wrongly_is_left_out_and_told(make_node):
    node = await make_node("bad-tools")
    listed = await node.list_tools()

    assert {"echo", "never", "question"} < {tool["name"] for tool in listed}
    assert 10 == len(node.tool_problems)
    for name in ("no_schema", "text_schema", "array_schema", "bad_required", "bad_properties"):
        assert any(f"The tool {name} is left out: " in text for text in node.tool_problems)
        assert name not in node.tools
    await echo(node)
    result = await node.call_tool("no_schema")
    assert result.is_error
    assert "The tool no_schema is left out: " in str(result)


async def test_an_endless_list_of_tools_ends(make_node):
    node = await make_node("endless-list")
    await node.list_tools()

    assert 500 == len(node.tools)
    assert "more than 500 tools" in node.tool_problems[-1]


async def test_a_list_that_is_none_is_an_error(make_node):
    node = await make_node("no-list")

    with pytest.raises(ToolError, match="tools/list"):
        await node.list_tools()


async def test_a_tool_that_does_not_exist_is_an_answer_that_names_the_nearest(node):
    result = await node.call_tool("ehco")

    assert result.is_error
    assert 'has no tool "ehco". Did you mean "echo"?' in str(result)


async def test_a_server_that_dies_during_calls_costs_them_an_error_and_nothing_else(node):
    other, _ = await begun(node, "never")
    with pytest.raises(NodeDied) as caught:
        await node.call_tool("die", {"text": "7"})
    with pytest.raises(NodeDied):
        await other

    text = str(caught.value)
    assert ("exit", 7) == (caught.value.cause, caught.value.exit_code)
    assert 'Worker "m" ended itself with exit code 7' in text
    assert "It said last: no luck today" in text
    assert text.endswith("Your kernel is untouched. The next call starts it again.")
    assert 1 == node.metrics.failures
    assert not node.is_connected
    await echo(node)
    assert 1 == node.metrics.restarts


async def test_a_server_that_dies_between_calls_is_a_failure_and_started_again(node):
    await echo(node)
    os.kill(pid_of(node), signal.SIGKILL)
    async with asyncio.timeout(30):
        while not node.metrics.failures:
            await asyncio.sleep(0.01)

    assert "while nobody called it" in node.metrics.last_error
    assert "dead" == await node.health_check()
    await echo(node)


async def test_an_idempotent_tool_is_tried_again_twice_at_most(make_node, tmp_path):
    node = await make_node(max_failures=10)
    said = []
    once, always = tmp_path / "once", tmp_path / "always"
    result = await node.call_tool(
        "die_safely", {"text": f"{once}*2"}, sink=lambda message: said.append(message.content)
    )
    assert "survived" == str(result)
    assert "Trying die_safely again ..." in said[0]["text"]
    with pytest.raises(NodeDied):
        await node.call_tool("die_safely", {"text": f"{always}*9"})

    assert 3 == always.stat().st_size


async def test_a_server_that_fails_again_and_again_rests(make_node):
    node = await make_node("die", max_failures=2)
    assert not await node.connect()
    assert not await node.connect()
    assert "resting" == node.status().state
    with pytest.raises(CircuitOpen, match="failed 2 times in a row"):
        await node.call_tool("echo")

    rested(node)
    node.kernel = (await make_node()).kernel
    await echo(node)
    assert "closed" == node.breaker.state


async def test_the_last_failure_before_the_rest_says_so(make_node):
    node = await make_node(max_failures=1)
    with pytest.raises(NodeDied, match="It failed once and rests for 30 s."):
        await node.call_tool("die", {"text": "1"})


async def test_a_result_of_many_blocks_does_not_take_the_loop_for_long(node):
    result = await node.call_tool("blocks", {"text": "200000"})

    assert "blocks more" in str(result)
    assert len(result.content) <= MOST_BLOCKS


@pytest.mark.parametrize("order", ["first", "last"])
async def test_a_large_result_is_cut_and_one_that_is_too_large_is_an_error(node, order):
    large = await node.call_tool("huge", {"text": f"{order}*{2 * 2**20}"})
    assert len(json.dumps(large.to_wire())) <= LARGEST_RESULT
    assert "[Cut: " in str(large)
    huge = await node.call_tool("huge", {"text": f"{order}*{40 * 2**20}"})

    assert huge.is_error
    assert "huge failed: its answer has 40 MB, and at most 8 MB are read" in str(huge)
    await echo(node)
    assert 0 == node.metrics.failures


async def test_an_answer_that_is_too_large_and_nobodys_is_noise(node):
    with pytest.raises(NodeTimeout):
        await node.call_tool("huge", {"text": f"hidden*{10 * 2**20}"}, 1.0)

    assert "[10 MB without an end of line]" in node.log(10)
    await echo(node)


async def test_a_call_that_gets_no_answer_ends_in_time_and_the_server_is_told(node):
    await echo(node)
    first = pid_of(node)
    with pytest.raises(NodeTimeout, match="within 300 ms.* told to give it up") as caught:
        await node.call_tool("never", {}, 0.3)

    assert 0.3 == caught.value.seconds
    await logged(node, "notifications/cancelled")
    assert first == pid_of(node)
    assert 0 == node.metrics.failures


async def test_a_server_that_answers_nothing_any_more_is_ended(node, monkeypatch):
    monkeypatch.setattr(module, "_HEALTH_PATIENCE", 0.2)
    await echo(node)
    process = psutil.Process(pid_of(node))
    with pytest.raises(NodeTimeout, match="nor anything else, and was ended"):
        await node.call_tool("block", {}, 0.2)

    wait_gone([process])
    assert 1 == node.metrics.failures
    await echo(node)


async def test_another_call_keeps_a_server_alive_that_answers_nothing_now(make_node, monkeypatch):
    monkeypatch.setattr(module, "_HEALTH_PATIENCE", 0.2)
    node = await make_node(interrupt_grace=0.2)
    other, _ = await begun(node, "never")
    with pytest.raises(NodeTimeout, match="lives on"):
        await node.call_tool("block", {}, 0.2)

    await node.interrupt()
    with pytest.raises(RemoteError):
        await other


async def test_an_interrupt_gives_up_the_calls_and_tells_the_server(node):
    assert not await node.interrupt()
    first, _ = await begun(node, "never")
    second, run = await begun(node, "never")
    assert "busy" == await node.health_check()
    run.stop()
    with pytest.raises(RemoteError) as caught:
        await second
    assert "KeyboardInterrupt" == caught.value.ename
    assert not first.done()
    assert await node.interrupt()
    with pytest.raises(RemoteError):
        await first

    await logged(node, "notifications/cancelled")
    await echo(node)


async def test_a_caller_that_goes_away_leaves_a_server_that_was_told(node):
    task, _ = await begun(node, "never")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await logged(node, "notifications/cancelled")
    await echo(node)


async def test_a_stop_ends_the_calls_that_run(node):
    task, _ = await begun(node, "never")
    await node.stop()
    with pytest.raises(NodeDied, match="was stopped while it served this call"):
        await task

    assert 0 == node.metrics.failures


async def test_a_server_that_closes_its_stdout_and_lives_on_is_ended(make_node, monkeypatch):
    monkeypatch.setattr(module, "_LAST_ANSWER_PATIENCE", 0.2)
    node = await make_node("deaf", interrupt_grace=0.2)
    await echo(node)
    process = psutil.Process(pid_of(node))
    with pytest.raises(NodeDied, match="stopped answering and was killed"):
        await node.call_tool("deafen")

    wait_gone([process])
    assert 1 == node.metrics.failures
    await echo(node)


async def test_a_stopped_process_is_seen_and_one_that_does_not_answer(make_node, monkeypatch):
    monkeypatch.setattr(module, "_HEALTH_PATIENCE", 0.2)
    node = await make_node(interrupt_grace=0.2)
    assert "cold" == await node.health_check()
    await node.connect()
    stopped(pid_of(node))
    assert "stopped" == await node.health_check()
    os.kill(pid_of(node), signal.SIGCONT)
    task, _ = await begun(node, "never")
    blocking = asyncio.create_task(node.call_tool("block"))
    while 2 > len(node._runs):
        await asyncio.sleep(0.01)
    assert "unresponsive" == await node.health_check()

    await node.interrupt()
    await asyncio.gather(task, blocking, return_exceptions=True)


async def test_a_refusal_and_a_nonsensical_answer_are_results(node):
    refused = await node.call_tool("refuse")
    nonsense = await node.call_tool("nonsense")

    assert "refuse failed: text is  [31mmissing" == str(refused)
    assert "nonsense answered with what is no result of a tool: " in str(nonsense)
    assert refused.is_error
    assert nonsense.is_error


@pytest.mark.parametrize("value", [object(), float, "\udc80", {1: object()}])
async def test_arguments_that_are_no_json_are_refused(node, value):
    with pytest.raises(ToolError, match="The arguments of echo"):
        await node.call_tool("echo", {"text": value})

    await echo(node)


async def test_arguments_that_are_too_large_are_refused(node):
    with pytest.raises(ToolError, match="at most 8 MB are sent"):
        await node.call_tool("echo", {"text": "x" * 9 * 2**20})

    await echo(node, "x" * 2**17)


async def test_a_server_that_chatters_does_not_hold_up_the_loop(node):
    await echo(node)
    passes = 0

    async def pass_by():
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    passing = asyncio.create_task(pass_by())
    result = await node.call_tool("chatter", {"text": "2000"})
    passing.cancel()

    assert "said" == str(result)
    assert passes > 1000


async def test_a_server_that_asks_and_does_not_read_is_not_heard_for_a_while(node, tmp_path):
    result = await node.call_tool("nag", {"text": str(tmp_path / "read")})
    waiting = node._session._dispatcher._write_stream.waiting

    assert "asked" == str(result)
    assert waiting <= mcp_session._MOST_ANSWERS + 1
    assert '"method": "ping"' in node.log(10)
    (tmp_path / "read").touch()
    await echo(node)


# The node's own rules


async def test_a_node_belongs_to_one_loop(node):
    await node.connect()

    with pytest.raises(HiveError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, node.connect())


async def test_a_closed_node_starts_nothing(node):
    await node.close()

    assert not await node.connect()
    assert "closed" in str(node.last_error)


async def test_a_node_shows_its_state(node):
    assert "<McpNode 'm' cold>" == repr(node)


# Its stdout, line by line


def message(number):
    return {"jsonrpc": "2.0", "id": number, "result": {"n": number}}


@given(st.data())
async def test_messages_are_found_whatever_is_between_them_and_however_they_come(data):
    noise = st.binary(max_size=40).filter(lambda line: b"jsonrpc" not in line)
    parts = data.draw(st.lists(st.one_of(noise, st.integers(0, 99)), max_size=12))
    lines = [
        json.dumps(message(part)).encode() if isinstance(part, int) else part for part in parts
    ]
    stream = b"".join(line + b"\n" for line in lines)
    reader = asyncio.StreamReader(limit=100)
    over = asyncio.Event()
    outgoing = mcp_session._Outgoing(None)
    incoming = mcp_session._Incoming(reader, outgoing, mcp_session.deque(maxlen=50), over)

    async def read():
        return [item.message.id async for item in incoming]

    reading = asyncio.create_task(read())
    while stream:
        size = data.draw(st.integers(1, 200))
        reader.feed_data(stream[:size])
        stream = stream[size:]
        await asyncio.sleep(0)
    reader.feed_eof()
    found = await reading

    assert [part for part in parts if isinstance(part, int)] == found
    assert over.is_set()


# Servers that people use


async def test_mcp_server_time(make_node):
    node = await make_node(command=(sys.executable, "-m", "mcp_server_time"))
    given = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    result = await node.call_tool("convert_time", given)

    assert {"get_current_time", "convert_time"} == set(node.tools)
    assert "T21:00:00+09:00" in str(result)
    wrong = await node.call_tool("get_current_time", {"timezone": "Mars"})
    assert wrong.is_error
    assert "Mars" in str(wrong)


async def test_mcp_server_git(make_node, tmp_path):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "-b", "trunk"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    node = await make_node(command=(sys.executable, "-m", "mcp_server_git", "-r", str(tmp_path)))
    result = await node.call_tool("git_log", {"repo_path": str(tmp_path)})

    assert "first" in str(result)
    assert node.tools["git_status"].read_only
    assert node.tools["git_reset"].destructive
    assert "MCP server mcp-git" in node.status().kernel


@pytest.fixture(scope="module")
def node_modules():
    """A folder with the npm servers, installed once for this machine."""
    for program in ("node", "npm", "npx"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "hive-jupyter-tests" / f"mcp-{FILESYSTEM}-{EVERYTHING}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            names = ("filesystem@" + FILESYSTEM, "everything@" + EVERYTHING)
            packages = [f"@modelcontextprotocol/server-{name}" for name in names]
            quiet = ("--no-audit", "--no-fund", "--prefix", fresh)
            try:
                subprocess.run(
                    ["npm", "install", *quiet, *packages],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=100,
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"npm cannot install the servers here: {error.stderr}")
            with contextlib.suppress(OSError):  # somebody else was quicker
                Path(fresh, "node_modules").parent.rename(folder)
                Path(fresh).mkdir()
    return folder


async def test_server_filesystem_by_npx(make_node, node_modules, tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    server = ("npx", "--no", "--prefix", str(node_modules), "mcp-server-filesystem", str(tmp_path))
    node = await make_node(command=server)
    before = {process.pid for process in family()}
    result = await node.call_tool("read_text_file", {"path": str(tmp_path / "a.txt")})

    assert ("hello", {"content": "hello"}) == (str(result), result.structured_content)
    assert node.tools["read_text_file"].read_only
    outside = await node.call_tool("read_text_file", {"path": "/etc/passwd"})
    assert outside.is_error
    assert "Access denied" in str(outside)
    started = [process for process in family() if process.pid not in before]
    await node.stop()
    await asyncio.to_thread(wait_gone, started, 30)


async def test_server_everything(make_node, node_modules):
    server = node_modules / "node_modules" / ".bin" / "mcp-server-everything"
    node = await make_node(command=(str(server), "stdio"))
    said = []
    result = await node.call_tool("echo", {"message": "hello"})
    assert "Echo: hello" == str(result)
    await node.call_tool(
        "trigger-long-running-operation", {"duration": 1, "steps": 2}, sink=said.append
    )
    image = await node.call_tool("get-tiny-image")

    assert any("1 of 2" in message.content["text"] for message in said)
    assert "image" in [block.type for block in image.content]
    assert wait_until(lambda: "idle" == node.status().state)
