"""Tools, called through a hive: what is asked, answered, remembered and interrupted."""

import pytest

from hive_jupyter import (
    ConfigError,
    HiveManager,
    Instructions,
    NodeDied,
    NodeTimeout,
    RemoteError,
    ToolResult,
)
from tests.hosts import play


def last(hive):
    run = hive.history()[-1]
    return run.code, run.status, run.asker


@pytest.mark.parametrize(
    "details", ["6 * 7", "code='6 * 7'", '{"code": "6 * 7"}', {"code": "6 * 7"}]
)
def test_a_task_is_given_in_words_as_json_or_as_a_dict(hive, details):
    answer = hive.delegate_to_coder("execute", details)

    assert isinstance(answer, ToolResult)
    assert ("42", False) == (answer.content[0].text, answer.is_error)
    assert ("execute 6 * 7", "ok", "") == last(hive)


def test_tools_and_cells_share_variables(hive):
    hive.delegate("shared = 'by a cell'")

    assert "'by a cell'" == str(hive.delegate_to_coder("execute", "shared"))


def test_a_tool_names_its_worker(hive):
    hive.delegate("where = 'here'", worker="other")

    assert "'here'" == str(hive.delegate_to_coder("execute", "where", worker="other"))
    assert hive.delegate_to_coder("execute", "where").is_error


def test_what_a_tool_does_not_do_in_time_is_stopped(hive):
    hive.delegate("kept = 1")
    with pytest.raises(NodeTimeout):
        hive.delegate_to_coder("execute", "import time; time.sleep(1000)", timeout="500ms")

    assert "timeout" == hive.history()[-1].status
    assert "1" == str(hive.delegate_to_coder("execute", "kept"))


def test_a_call_is_read_while_it_runs_and_can_be_interrupted(hive):
    delegation = hive.begin_tool(
        "execute", {"code": "import time\nprint('begun', flush=True)\ntime.sleep(1000)"}
    )
    said = next(message.content["text"] for message in delegation if message.type == "stream")
    delegation.interrupt()
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()

    assert "begun\n" == said
    assert "KeyboardInterrupt" == caught.value.ename


def test_the_history_says_which_agent_asked(hive):
    hive.begin_tool("ping", {}, asker="somebody's agent").outcome()

    assert ("ping", "ok", "somebody's agent") == last(hive)


def test_a_long_argument_is_shortened_in_the_history(hive):
    hive.begin_tool("save_file", {"path": "a", "contnet": "x" * 10**6}).outcome()
    code, status, _ = last(hive)

    assert "error" == status
    assert code.startswith("save_file path=a contnet='xxx")
    assert len(code) < 1000


def test_a_tool_of_the_users_own_is_found_once_the_worker_was_asked(runtime, tmp_path, monkeypatch):
    (tmp_path / "mytools.py").write_text(
        "from hive_jupyter import tool\n"
        "@tool(read_only=True)\n"
        "def twice(word: str) -> str:\n"
        "    'Say it twice.'\n"
        "    return word * 2\n"
    )
    monkeypatch.chdir(tmp_path)
    with HiveManager(tool_modules=["mytools", "absent"]) as hive:
        assert "twice" not in hive.known_tools()
        assert "hoho" == str(hive.delegate_to_coder("twice", "ho"))
        assert "twice" in hive.known_tools()
        assert hive.find_tool("twice").read_only
        assert "absent" in str(hive.delegate_to_coder("thrice"))
        assert "twice" in [tool.name for tool in hive.list_tools()]


def test_a_call_that_cannot_be_sent_is_answered_with_what_is_wrong(runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with HiveManager(max_cell_bytes=1000) as hive:
        answer = hive.delegate_to_coder("write", {"path": "a", "content": "\ud800"})
        with pytest.raises(ConfigError, match="max_cell_bytes"):
            hive.delegate_to_coder("execute", {"code": "x" * 2000})

    assert answer.is_error
    assert "half a character" in str(answer)
    assert [] == list(tmp_path.iterdir())


def test_where_the_circuit_is_open_a_tool_is_answered_with_instructions(runtime):
    with HiveManager(max_failures=1) as hive:
        with pytest.raises(NodeDied, match="SIGABRT"):
            hive.delegate_to_coder("execute", "import os; os.abort()")
        answer = hive.delegate_to_coder("ping")

    assert isinstance(answer, Instructions)
    assert "ping" == answer.task


CTRL_C = """
import os, signal, sys, threading
from hive_jupyter import HiveManager
with HiveManager(sandbox="open") as hive:
    hive.delegate("kept = 1")
    def press():
        while not os.path.exists(sys.argv[1]):
            pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press).start()
    code = f"open({sys.argv[1]!r}, 'w').close()\\nimport time\\ntime.sleep(1000)"
    try:
        hive.delegate_to_coder("execute", {"code": code})
    except KeyboardInterrupt:
        print("interrupted", hive.delegate_to_coder("execute", "kept"))
"""


def test_ctrl_c_in_a_script_interrupts_the_tool(tmp_path):
    assert "interrupted 1\n" == play(CTRL_C, tmp_path / "begun")


def test_an_mcp_server_is_a_worker_with_tools_alone(runtime):
    with HiveManager(workers={"time": {"mcp": ["mcp-server-time"]}}, connect_timeout=60) as hive:
        assert {} == hive.known_tools("time")
        noon = hive.delegate_to_coder("convert_time", NOON, worker="time")
        unknown = hive.delegate_to_coder("read", "path=a", worker="time")
        with pytest.raises(ConfigError, match="runs no code"):
            hive.delegate("1", worker="time")
        hive.add("time", mcp=["mcp-server-time"])
        status = hive.swarm_status()["workers"]["time"]

    assert "T13:00:00" in str(noon)
    assert 'no tool "read". There are: convert_time, get_current_time.' in str(unknown)
    assert "mcp-time" in status["kernel"]
    assert ("idle", 0) == (status["state"], status["failures"])


NOON = "source_timezone=UTC time=12:00 target_timezone=Africa/Lagos"


@pytest.mark.parametrize(
    ("mcp", "message"),
    [(["no-such-server"], "no program"), ([], "command"), (None, "--mcp PROGRAM")],
)
def test_an_mcp_server_that_cannot_be_is_refused_when_it_is_added(hive, mcp, message):
    with pytest.raises(ConfigError, match=message):
        hive.add("broken", mcp=mcp)

    assert "broken" not in hive.workers()
