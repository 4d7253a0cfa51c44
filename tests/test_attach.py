"""The door of a running hive: who is let in, what is answered, and what strangers can do."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from hive_jupyter import HiveManager, attach
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.procfs import read_stat
from hive_jupyter.swarm import node
from hive_jupyter.swarm import runtime as runtime_folders
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.swarm.report import Report
from hive_jupyter.swarm.runtime import RuntimeFolder
from tests.hosts import play
from tests.processes import wait_until

ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"


@pytest.fixture(autouse=True)
def alone(monkeypatch, runtime, tmp_path):
    """No hives but those of the test."""
    monkeypatch.setattr(runtime_folders, "_temporary_folders", lambda: [tmp_path])


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A worker on a machine that stands still for a while counts as busy, and not as mute."""
    monkeypatch.setattr(node, "_HEALTH_PATIENCE", 15)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Whatever comes through the door, the host's log stays empty."""
    caplog.set_level(logging.WARNING)
    yield
    assert "" == caplog.text


@pytest.fixture(scope="module")
def door(hive):
    """The path of the socket of an open door."""
    attach.serve(hive, "a test")
    return opened(hive)


def opened(hive):
    """The path of its socket, as soon as somebody is behind it."""
    path = wait_until(lambda: hive.nodes.runtime).path / "attach"
    wait_until(lambda: can_connect(path))
    return path


def can_connect(path):
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        return True


class Line:
    """A client that says what a test wants it to say."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hang_up()

    def hang_up(self):
        self.file.close()
        self.socket.close()

    def read(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def write(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def ask(self, **request):
        """The last line that comes."""
        return self.ask_all(**request)[-1]

    def ask_all(self, **request):
        """All lines, but for those that tell of a slow start."""
        self.read()
        self.write(**request)
        lines = map(json.loads, self.file)
        return [line for line in lines if line.get("say") != "progress"]


def ask(path, **request):
    with Line(path) as client:
        return client.ask(**request)


def is_answered(path):
    """Whether the door has room for one more."""
    with contextlib.suppress(OSError):
        return "answer" in ask(path, verb="status")


def begun(path, code=ENDLESS, **request):
    """A client whose run is known to have begun."""
    client = Line(path)
    client.read()
    client.write(verb="run", code=code, **request)
    while "begun" not in str(client.read()["text"]):
        pass
    return client


def value(path, code, **request):
    """What an expression is in the worker."""
    with Line(path) as client:
        said = client.ask_all(verb="run", code=code, **request)
    return "".join(line["text"] for line in said if line.get("say") == "result")


def run_is_over(hive):
    wait_until(lambda: hive.health() != "busy", 60)


# --- The door itself ---


def test_there_are_these_verbs_and_none_of_them_approves_anything(hive, door):
    verbs = ("status", "logs", "run", "interrupt", "restart", "doctor", "tools", "call")
    assert verbs == attach.VERBS
    served = attach._Door(hive, "", door.parent)._answers
    assert attach.VERBS == tuple(served)


def test_the_socket_is_this_users_alone(door):
    assert stat.S_ISSOCK(door.lstat().st_mode)
    assert 0o600 == stat.S_IMODE(door.lstat().st_mode)
    assert 0o700 == stat.S_IMODE(door.parent.stat().st_mode)


def test_the_door_greets_with_who_it_is_and_how_it_speaks(door):
    with Line(door) as client:
        greeting = client.read()

    assert attach.VERSION == greeting["attach"]
    assert (os.getpid(), "a test", os.getcwd()) == (
        greeting["pid"],
        greeting["title"],
        greeting["folder"],
    )
    assert ["coder"] == greeting["workers"]


def test_the_door_is_closed_with_its_hive(runtime):
    with HiveManager() as hive:
        attach.serve(hive, "another")
        path = opened(hive)
        run = begun(path)
        waiting = Line(path)

    assert not path.exists()
    assert not path.parent.exists()
    assert None is run.read()
    waiting.read()
    assert None is waiting.read()
    run.hang_up()
    waiting.hang_up()


# A host with an open door and a client whose run has begun; both end with the program.
ENDING = """
import sys, time
from hive_jupyter import HiveManager, attach
hive = HiveManager()
attach.serve(hive, "a script")
while not (found := attach.attachments()):
    time.sleep(0.01)
for attachment in found:
    for line in attachment.run(code=sys.argv[1]):
        print(line["text"] * (line["say"] == "stdout"), end="")
        if line["text"].endswith("\\n"):
            break
    attachment._socket.detach()  # open to the end
"""


def test_a_host_ends_with_an_open_door_and_a_run_in_it(runtime):
    """At once, and without a word."""
    program = f"from hive_jupyter.swarm import runtime\nruntime._temporary_folders = list\n{ENDING}"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        assert "begun\n" == play(program, ENDLESS, JUPYTER_RUNTIME_DIR=folder)
        assert [] == list(Path(folder, "hive").iterdir())


def test_a_hive_whose_workers_are_turned_off_says_so_at_its_door(runtime):
    with HiveManager(direct=False) as hive:
        attach.serve(hive, "no workers")
        path = opened(hive)

        assert "turned off" in str(ask(path, verb="status")["answer"]["notes"])
        assert "turned off" in ask(path, verb="run", code="1")["answer"]["text"]
        assert "turned off" in ask(path, verb="restart")["error"]


def test_a_worker_has_no_door(runtime, monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_IN_WORKER", "coder")

    with HiveManager() as hive:
        attach.serve(hive, "a worker")

        assert not hive._portal.is_open


def test_another_user_is_not_answered(door, monkeypatch):
    """Not even greeted."""
    monkeypatch.setattr(attach, "peer", lambda _: (1, os.geteuid() + 1))

    with Line(door) as client:
        assert None is client.read()


def test_the_system_tells_who_is_at_the_other_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert (os.getpid(), os.geteuid()) == attach.peer(ours)


# --- Requests ---


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"hello\n", "no JSON"),
        (b"\n", "no JSON"),
        (b"\xff\xfe\0\n", "no JSON"),
        (b"[" * 100_000 + b"\n", "no JSON"),
        (b"[1]\n", "no object"),
        (b"{}\n", 'no verb "None"'),
        (b'{"verb": ["run"]}\n', "This hive has no verb"),
        (
            b'{"verb": "?"}\n',
            "There are: call, doctor, interrupt, logs, restart, run, status, tools.",
        ),
        (b'{"verb": "approve"}\n', 'This hive has no verb "approve".'),
        (b'{"verb": "statsu"}\n', 'Did you mean "status"?'),
        (b'{"verb": "run"}\n', '"code" has to be text.'),
        (b'{"verb": "run", "code": 3}\n', '"code" has to be text.'),
        (b'{"verb": "run", "code": " "}\n', "There is no code to run."),
        (b'{"verb": "run", "code": "1", "worker": {}}\n', '"worker" has to be text.'),
        (b'{"verb": "run", "code": "1", "worker": "../x"}\n', "../x"),
        (b'{"verb": "run", "code": "1", "timeout": 3}\n', '"timeout" has to be text.'),
        (b'{"verb": "run", "code": "1", "timeout": "soon"}\n', "'soon' is no duration"),
        (b'{"verb": "run", "code": "\\ud800"}\n', "half a character"),
        (b'{"verb": "logs", "worker": "codr"}\n', 'Did you mean "coder"?'),
        (b'{"verb": "logs", "lines": "all"}\n', "number of lines"),
        (b'{"verb": "logs", "lines": true}\n', "number of lines"),
        (b'{"verb": "logs", "lines": 0}\n', "number of lines"),
        (b'{"verb": "interrupt", "worker": 3}\n', '"worker" has to be text.'),
        (b'{"verb": "restart", "worker": "nobody"}\n', 'There is no worker "nobody".'),
        (b'{"verb": "tools"}\n', '"agent" has to be text.'),
        (b'{"verb": "tools", "agent": "x", "worker": "../x"}\n', "../x"),
        (b'{"verb": "call", "agent": "x"}\n', '"arguments" has to be an object.'),
        (b'{"verb": "call", "agent": "x", "arguments": {}}\n', '"tool" has to be text.'),
        (
            b'{"verb": "call", "agent": "x", "tool": "ping", "arguments": {}, "timeout": "soon"}\n',
            "'soon' is no duration",
        ),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_what_is_wrong(door, said, expected):
    with Line(door) as client:
        client.read()
        client.socket.sendall(said)

        assert expected in client.read()["error"]
        assert None is client.read()


def test_a_line_without_an_end_is_cut_off(door):
    """The host keeps no more of it than a request may have."""
    with Line(door) as client:
        client.read()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                client.socket.sendall(b"x" * 2**20)
        with contextlib.suppress(ConnectionResetError):
            assert "longer than" in client.read()["error"]

    assert "answer" in ask(door, verb="status")


@pytest.mark.parametrize("said", [b"", b'{"verb": "sta'])
def test_a_client_may_go_at_any_time(door, said):
    for _ in range(2 * attach._MOST_CLIENTS):
        with Line(door) as client, contextlib.suppress(BrokenPipeError):  # one too many
            client.socket.sendall(said)
    wait_until(lambda: is_answered(door))


def test_a_client_that_says_nothing_is_sent_away(door, monkeypatch):
    monkeypatch.setattr(attach, "_CLIENTS_PATIENCE", 0.1)

    with Line(door) as client:
        client.read()

        assert None is client.read()


def test_many_at_once_are_told_that_they_are_too_many(door):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Line(door)) for _ in range(attach._MOST_CLIENTS + 3)]
        greetings = [client.read() for client in clients]

    refused = [greeting["error"] for greeting in greetings if "error" in greeting]
    assert 3 <= len(refused)
    assert "Too many" in refused[0]
    wait_until(lambda: is_answered(door))


# --- Verbs ---


def test_the_status_is_that_of_the_swarm(hive, door):
    hive.start()

    answer = ask(door, verb="status")["answer"]

    assert hive.swarm_status()["workers"]["coder"]["pid"] == answer["workers"]["coder"]["pid"]
    assert set(answer) == set(hive.swarm_status())


def test_the_log_is_the_workers_own(hive, door):
    hive.start()
    folder = hive.nodes.by_name["coder"]._process.folder
    with (folder / "log").open("a") as file:
        file.write("first\nsecond\n")

    assert "second" == ask(door, verb="logs", lines=1)["answer"]["log"]
    assert "first\nsecond" in ask(door, verb="logs")["answer"]["log"]


def test_the_longest_log_fits_into_an_answer(hive, door):
    """Also one that is no text, which JSON makes six times as long."""
    hive.start()
    folder = hive.nodes.by_name["coder"]._process.folder
    (folder / "log").write_bytes((b"\xff" * 99 + b"\n") * 2**14)
    (found,) = attach.attachments()

    assert 2**20 - 200 < len(found.ask("logs", lines=10**6)["log"]) < 2**20
    found.close()


def test_a_restart_gives_a_fresh_worker(hive, door):
    hive.delegate("x = 1")
    before = hive.swarm_status()["workers"]["coder"]["pid"]

    answer = ask(door, verb="restart")["answer"]

    assert before != answer["pid"] == hive.swarm_status()["workers"]["coder"]["pid"]
    assert "NameError" == ask(door, verb="run", code="x")["answer"]["error"]


def test_an_interrupt_stops_what_runs(hive, door):
    assert {"worker": "coder", "interrupted": False} == ask(door, verb="interrupt")["answer"]

    with begun(door) as client:
        assert ask(door, verb="interrupt")["answer"]["interrupted"]
        while "answer" not in (line := client.read()):
            pass

    assert "KeyboardInterrupt" == line["answer"]["error"]


def test_the_doctor_keeps_nobody_waiting_and_leaves_no_thread(hive, door, monkeypatch):
    report = hive.doctor()
    go, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr(HiveManager, "doctor", lambda _: go.wait(60) and report)

    with Line(door) as client:
        client.read()
        client.write(verb="doctor")
        assert "answer" in ask(door, verb="status")
        go.set()

        assert report == Report.of(client.read()["answer"])
    wait_until(lambda: set(threading.enumerate()) <= before)


# --- Runs ---


def test_a_run_tells_what_it_says_and_how_it_ended(hive, door):
    code = (
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\n"
        "display({1: 2})\nfrom IPython.display import SVG\n_ = display(SVG('<svg></svg>'))\n6 * 7"
    )
    with Line(door) as client:
        *said, last = client.ask_all(verb="run", code=code)

    texts = defaultdict(str)
    for line in said:
        texts[line["say"]] += line["text"] * (line["say"] != "display")
    del texts["display"]
    assert {"stdout": "out\n", "stderr": "err\n", "result": "42"} == texts
    shown = [line["text"] for line in said if line["say"] == "display"]
    assert "{1: 2}" == shown[0]
    assert "SVG" in shown[1]
    assert ("ok", "coder", "") == tuple(last["answer"][key] for key in ("status", "worker", "text"))
    assert code == hive.history()[-1].code


@pytest.mark.parametrize(
    ("code", "options", "status", "error", "text"),
    [
        ("1/0", {}, "error", "ZeroDivisionError", "division by zero"),
        ("import os; os._exit(3)", {}, "died", "NodeDied", "exit code 3"),
        ("import time; time.sleep(99)", {"timeout": "200ms"}, "timeout", "NodeTimeout", "200 ms"),
    ],
)
def test_a_run_that_fails_says_how(hive, door, code, options, status, error, text):
    with Line(door) as client:
        *said, last = client.ask_all(verb="run", code=code, worker="failing", **options)

    answer = last["answer"]
    assert (status, error) == (answer["status"], answer["error"])
    assert text in answer["text"]
    assert (status == "error") == ("ZeroDivisionError" in str(said))
    assert status == hive.history()[-1].status


def test_a_question_of_the_code_is_answered_by_nobody(door):
    assert "StdinNotImplementedError" == ask(door, verb="run", code="input()")["answer"]["error"]


def test_a_long_text_comes_in_pieces_and_whole(door):
    text = "".join(map(str, range(200_000)))
    with Line(door) as client:
        said = client.ask_all(verb="run", code="''.join(map(str, range(200_000)))")[:-1]

    assert repr(text) == "".join(line["text"] for line in said)
    assert max(len(line["text"]) for line in said) <= attach._PIECE
    assert [True] * (len(said) - 1) + [False] == [line["more"] for line in said]


def test_two_clients_are_served_at_once(hive, door):
    with begun(door), Line(door) as other:
        assert "busy" == other.ask(verb="status")["answer"]["workers"]["coder"]["state"]

    run_is_over(hive)


def test_two_runs_in_one_worker_come_one_after_the_other(hive, door):
    with begun(door) as first, Line(door) as second:
        second.read()
        second.write(verb="run", code="'second'")
        wait_until(lambda: hive.swarm_status()["workers"]["coder"]["queue"] == 1)
        first.write(interrupt=True)

        assert "second" in second.read()["text"]


def test_a_client_that_vanishes_has_interrupted_its_run(hive, door):
    """The worker and its variables stay."""
    value(door, "kept = 3")
    client = begun(door)

    client.hang_up()
    run_is_over(hive)

    assert "3" == value(door, "kept")
    assert "KeyboardInterrupt" in hive.history()[-2].detail


def test_a_client_that_vanishes_before_its_turn_has_withdrawn_its_run(hive, door):
    with begun(door):
        waiting = Line(door)
        waiting.read()
        waiting.write(verb="run", code="withdrawn = True")
        wait_until(lambda: hive.swarm_status()["workers"]["coder"]["queue"] == 1)
        waiting.hang_up()
        wait_until(lambda: hive.swarm_status()["workers"]["coder"]["queue"] == 0)

    assert "False" == value(door, "'withdrawn' in globals()")


def test_a_client_that_vanishes_in_a_flood_leaves_a_worker_that_works(hive, door):
    client = begun(door, "print('begun', flush=True)\nwhile True: print('x' * 1000)")
    client.hang_up()
    run_is_over(hive)

    assert "2" == value(door, "1 + 1")


def test_rubbish_during_a_run_interrupts_it(hive, door):
    with begun(door) as client:
        client.socket.sendall(b"rubbish\n")
        run_is_over(hive)

    assert "KeyboardInterrupt" in hive.history()[-1].detail


def test_a_second_interrupt_kills(hive, door):
    stubborn = (
        "import signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
        "print('begun', flush=True)\ntime.sleep(1000)"
    )
    with begun(door, stubborn) as client:
        client.write(interrupt=True)
        client.write(interrupt=True)
        while "answer" not in (line := client.read()):
            pass

    assert "died" == line["answer"]["status"]


def test_a_client_that_reads_slowly_holds_up_the_worker_and_loses_nothing(hive, door, monkeypatch):
    monkeypatch.setattr(attach._Run, "most_waiting", 2**20)
    monkeypatch.setattr(attach._Run, "few_waiting", 2**18)
    pause, paused = SwarmNode.pause_output, threading.Event()
    monkeypatch.setattr(
        SwarmNode, "pause_output", lambda self, run: (paused.set(), pause(self, run))
    )
    code = "print('begun', flush=True)\nfor _ in range(100): print('x' * 2**18)"
    with begun(door, code) as client:
        assert paused.wait(60)
        length, line = 0, {}
        while "answer" not in line:
            length += line.get("text", "").count("x")
            line = client.read()

    assert 100 * 2**18 == length
    assert "ok" == line["answer"]["status"]


# --- Agents ---


def call(path, tool, **arguments):
    with Line(path) as client:
        lines = client.ask_all(verb="call", agent="claude", tool=tool, arguments=arguments)
    return lines[-1]["answer"]["result"]


def calling(path, **arguments):
    """A client whose call is known to run in the worker."""
    client = Line(path)
    client.read()
    client.write(verb="call", agent="claude", tool="execute", arguments=arguments)
    wait_until(lambda: "busy" == ask(path, verb="status")["answer"]["workers"]["coder"]["state"])
    return client


def test_an_agent_learns_of_its_tools_and_calls_them(hive, door):
    tools = ask(door, verb="tools", agent="claude")["answer"]["tools"]

    assert {"execute", "interrupt", "status"} < {tool["name"] for tool in tools}
    assert all("inputSchema" in tool for tool in tools)
    assert [{"type": "text", "text": "42"}] == call(door, "execute", code="6 * 7")["content"]
    assert ("claude", "coder") == (hive.history()[-1].asker, hive.history()[-1].worker)


def test_an_agent_shares_the_users_variables(hive, door):
    hive.delegate("shared = 'a word'")

    assert "'a word'" == call(door, "execute", code="shared")["content"][0]["text"]


def test_an_agents_wrong_call_is_a_result(hive, door):
    answer = call(door, "exec")

    assert answer["isError"]
    assert 'Did you mean "execute"?' in answer["content"][0]["text"]


@pytest.mark.parametrize("leave", [Line.hang_up, lambda line: line.socket.sendall(b"what\n")])
def test_an_agent_that_goes_away_has_interrupted_its_call(hive, door, leave):
    client = calling(door, code=ENDLESS)

    leave(client)
    run_is_over(hive)

    last = wait_until(lambda: [run for run in hive.history() if "while True" in run.code])[-1]
    assert ("claude", "KeyboardInterrupt: ") == (last.asker, last.detail)
    client.hang_up()


def test_a_call_ends_with_its_hive(runtime):
    with HiveManager() as hive:
        attach.serve(hive, "another")
        client = calling(opened(hive), code=ENDLESS)

    said = list(iter(client.read, None))
    client.hang_up()
    assert all("progress" == line["say"] for line in said)


def attached(**options):
    """An agent of a hive that is found as the command line finds it."""
    (found,) = attach.attachments()
    found.close()
    return attach.AttachedAgent(attach.AttachedHive(found), "claude", **options)


async def test_an_agent_in_another_process_has_the_same_tools(hive, door):
    agent = attached()

    assert "execute" in [tool.name for tool in await agent.tools()]
    assert "42" == str(await agent.call("execute", {"code": "6 * 7"}))
    assert "text" in str(await agent.call("execute", {"code": 3}))
    late = await attached(timeout="200ms").call("execute", {"code": ENDLESS})
    assert "200 ms" in str(late)
    other = await attached(worker="apart").call("execute", {"code": "import os; os.getpid()"})
    assert str(other) == str(hive.swarm_status()["workers"]["apart"]["pid"])


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_hive_that_greets_late_lets_nobody_else_wait(is_cancelled):
    greeted, hung_up = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Late:
        """A hive that greets once the loop has gone on."""

        def attachment(self):
            assert greeted.wait(60)
            if not is_cancelled:
                raise HiveError("It has ended.")
            return SimpleNamespace(close=lambda: loop.call_soon_threadsafe(hung_up.set))

    calling = asyncio.create_task(attach.AttachedAgent(Late(), "claude").call("ping", {}))
    await asyncio.sleep(0)
    if is_cancelled:
        calling.cancel()
        await asyncio.wait({calling})
    greeted.set()

    if is_cancelled:
        await asyncio.wait_for(hung_up.wait(), 60)
        assert calling.cancelled()
    else:
        assert "It has ended." == str(await calling)


async def test_an_agent_in_another_process_interrupts_what_it_no_longer_wants(hive, door):
    running = asyncio.create_task(attached().call("execute", {"code": ENDLESS}))
    await asyncio.to_thread(wait_until, lambda: hive.health() == "busy")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await asyncio.to_thread(run_is_over, hive)


async def test_an_agent_hears_how_far_a_tool_is(hive, door, monkeypatch):
    async def slow(self, *arguments, sink, **options):
        sink(Message("progress", {"text": "halfway (1 of 2)", "progress": 1, "total": 2}))
        return await call_tool(self, *arguments, sink=sink, **options)

    call_tool, heard = SwarmNode.call_tool, []
    monkeypatch.setattr(SwarmNode, "call_tool", slow)

    async def hear(message):
        heard.append(message)

    assert "pong" == str(await attached().call("ping", {}, sink=hear))
    (message,) = heard
    assert ("progress", "halfway (1 of 2)", 1, 2) == (
        message.type,
        *(message.content[key] for key in ("text", "progress", "total")),
    )


async def test_an_agent_follows_a_notebook_whose_kernel_was_restarted(runtime):
    with HiveManager() as first:
        attach.serve(first, "a.ipynb")
        await asyncio.to_thread(opened, first)
        agent = await asyncio.to_thread(attached_to, "a.ipynb")
        assert "pong" == str(await agent.call("ping", {}))
    assert "a.ipynb" in str(await agent.call("ping", {}))
    assert "has ended" in str(await agent.call("ping", {}))

    with HiveManager() as second:
        attach.serve(second, "a.ipynb")
        await asyncio.to_thread(opened, second)
        assert "pong" == str(await agent.call("ping", {}))
        assert "pong" == str(await agent.call("ping", {}))


def attached_to(title):
    found = {each.identity.title: each for each in attach.attachments()}
    for each in found.values():
        each.close()
    return attach.AttachedAgent(attach.AttachedHive(found[title]), "claude")


# --- The client's side ---


def troubles(said, *, hang_up=False):
    """What a client makes of a door that says this, whatever it is asked."""
    folder = RuntimeFolder.create()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.path / "attach"))
        listener.listen()
        attachment = attach.Attachment(folder.path)
        host, _ = listener.accept()
        with host:
            host.sendall(said)
            if hang_up:
                host.close()
            attachment.read_greeting(time.monotonic() + 0.2)
        attachment.close()
    folder.remove()
    assert None is attachment.identity
    with pytest.raises(HiveError):
        attachment.ask("status")
    return attachment.trouble


GREETING = {
    "attach": attach.VERSION,
    "version": "9",
    "pid": 1,
    "title": "t",
    "folder": "/",
    "since": 0.0,
    "workers": [],
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "does not answer"),
        (b'{"attach"', "does not answer"),
        (b"SSH-2.0-OpenSSH\n", "does not speak as a hive does"),
        (b"[1]\n", "does not speak as a hive does"),
        (b"{}\n", "does not speak as a hive does"),
        (b"x" * 100, "does not answer"),
        (json.dumps({**GREETING, "since": "soon"}).encode() + b"\n", "does not speak"),
        (json.dumps({**GREETING, "workers": 3}).encode() + b"\n", "does not speak"),
        (json.dumps({**GREETING, "attach": 2}).encode() + b"\n", "is of hive-jupyter 9"),
        (b'{"error": "Too many."}\n', "Too many."),
    ],
)
def test_a_door_that_does_not_greet_as_a_hive_does_is_in_trouble(said, expected):
    assert expected in troubles(said)


def test_a_door_that_is_closing_is_in_trouble():
    assert "it is ending" in troubles(b"", hang_up=True)


def test_who_answers_in_the_name_of_another_process_is_not_believed(monkeypatch):
    """A worker may write into the folder, but cannot be the process that it is named after."""
    monkeypatch.setattr(attach, "peer", lambda _: (1, os.geteuid()))

    assert "does not speak" in troubles(json.dumps(GREETING).encode() + b"\n")


def test_a_hive_is_found_by_its_process(door):
    found = attach.attachments()

    assert [str(os.getpid())] == [attachment.id for attachment in found]
    assert "a test" == found[0].identity.title
    assert "coder" in found[0].ask("status")["workers"]
    found[0].close()


def test_two_hives_of_one_process_have_two_ids(door):
    with HiveManager() as second:
        attach.serve(second, "second")
        opened(second)
        found = attach.attachments()
        titles = {attachment.id: attachment.identity.title for attachment in found}
        for attachment in found:
            attachment.close()

    assert {str(os.getpid()): "a test", f"{os.getpid()}-2": "second"} == titles


def test_the_dead_the_false_and_the_foreign_are_left_out(door, runtime, tmp_path):
    base = runtime / "hive"
    me = read_stat(os.getpid())
    (base / f"{os.getpid()}-{me.start_ticks + 1}").mkdir(mode=0o700)  # of an earlier process
    (base / f"{os.getpid()}-{me.start_ticks}-7").symlink_to(door.parent)
    without = base / f"{os.getpid()}-{me.start_ticks}-8"
    without.mkdir(mode=0o700)
    linked = base / f"{os.getpid()}-{me.start_ticks}-9"
    linked.mkdir(mode=0o700)
    (linked / "attach").symlink_to(door)
    left = base / f"{os.getpid()}-{me.start_ticks}-10"
    left.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left / "attach"))

    found = attach.attachments()
    for attachment in found:
        attachment.close()

    assert [str(os.getpid())] == [attachment.id for attachment in found]


def test_an_interrupt_before_the_run_is_not_lost(hive, door):
    (found,) = attach.attachments()
    found.interrupt()

    *_, last = found.run(code=ENDLESS)
    found.close()

    assert "KeyboardInterrupt" == last["answer"]["error"]


def test_code_that_is_too_long_to_be_sent_is_refused_before(door, monkeypatch):
    monkeypatch.setattr(attach, "LONGEST_REQUEST", 100)
    (found,) = attach.attachments()

    with pytest.raises(ConfigError, match="too long"):
        list(found.run(code="x" * 100))
    found.close()


def test_an_answer_without_an_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(attach, "LONGEST_ANSWER", 100)

    assert "does not speak" in troubles(b"x" * 101)
