"""What agents may do with a hive: their tools, the user's choice of them, and how calls end."""

import asyncio
import os
import re
import sys

import pytest

from hive_jupyter import HiveManager, agents, lookout
from hive_jupyter.agents import AGENT_TOOLS, AgentSession, claimed
from hive_jupyter.attach import AttachedAgent, AttachedHive, attachments
from hive_jupyter.commits import approve
from hive_jupyter.errors import ConfigError, NodeStartError, RequestExpired
from hive_jupyter.swarm import runtime as runtime_folders
from hive_jupyter.swarm.messages import ignore
from hive_jupyter.swarm.node import SwarmNode
from hive_jupyter.toolbox import BUILT_IN
from tests.front_end import FrontEnd
from tests.processes import wait_until
from tests.repos import with_a_change

ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"


def do(hive, work):
    """What a coroutine function gives on the loop where agents live."""
    return hive.serve(lambda _folder: work()).result(60)


def call(hive, name, agent="an agent", **arguments):
    async def work():
        return await AgentSession(hive, agent).call(name, arguments)

    return do(hive, work)


@pytest.fixture
def choosing(hive):
    """Sets what agents may call; afterwards all is as it was."""

    def choose(**policies):
        hive.config.agent_tools = policies

    yield choose
    hive.config.agent_tools = {}


def names(hive):
    async def work():
        return [tool.name for tool in await AgentSession(hive, "x").tools()]

    return do(hive, work)


def test_an_agent_gets_the_workers_tools_and_its_own(hive):
    assert {*BUILT_IN, *AGENT_TOOLS} == set(names(hive))


def test_no_tool_approves_anything_or_speaks_of_tokens(hive):
    async def work():
        return [tool.to_wire() for tool in await AgentSession(hive, "x").tools()]

    tools = do(hive, work)
    words = {word for tool in tools for word in re.split(r"[^a-z]+", tool["name"])}
    assert not words & {"approve", "allow", "deny", "spend", "policy", "token"}
    assert "token" not in str(tools).lower()


def test_code_runs_and_keeps_its_variables(hive):
    assert not call(hive, "execute", code="shared = 6").is_error

    answer = call(hive, "execute", code="print('so'); shared * 7")

    assert ("so\n42", False) == (str(answer), answer.is_error)
    assert 6 == int(hive.delegate("shared").value_repr), "the same worker as the user's"


def test_the_history_says_who_asked(hive):
    call(hive, "execute", agent="Claude\033[2J\nCode", code="1")

    assert "Claude [2J Code" == hive.history()[-1].asker
    hive.delegate("2")
    assert "" == hive.history()[-1].asker


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "an agent"), ("  \n", "an agent"), ("x" * 100, "x" * 60), ("a\tb", "a b")],
)
def test_a_name_is_a_short_claim_on_one_line(name, expected):
    assert expected == claimed(name)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("exec", {}, 'There is no tool "exec". Did you mean "execute"?'),
        ("approve", {}, 'There is no tool "approve".'),
        ("execute", {}, "execute needs code"),
        ("execute", {"code": 3}, "code has to be text"),
        ("ping", {"x": 1}, 'ping has no argument "x"'),
        ("restart", {"x": 1}, 'restart has no argument "x"'),
        ("execute", {"code": "1/0"}, "ZeroDivisionError"),
        ("execute", {"code": "import os; os._exit(3)"}, "exit code 3"),
    ],
)
def test_what_goes_wrong_is_a_result_that_helps(hive, name, arguments, expected):
    answer = call(hive, name, **arguments)

    assert answer.is_error
    assert expected in str(answer)


def test_code_of_an_agent_asks_for_no_commit_past_the_tool(hive):
    answer = call(hive, "execute", code="%commit -m x")

    assert "with the tool request_commit" in str(answer)


def test_a_tool_that_the_user_denies_is_neither_offered_nor_run(hive, choosing):
    choosing(execute="deny", restart="deny")

    assert not {"execute", "restart"} & set(names(hive))
    assert "HiveConfig.agent_tools" in str(call(hive, "execute", code="denied = 1"))
    assert call(hive, "restart").is_error
    choosing()
    assert "NameError" in str(call(hive, "execute", code="denied"))


def test_a_star_stands_for_all_that_is_not_named(hive, choosing):
    choosing(**{"*": "deny", "ping": "auto"})

    assert ["ping"] == names(hive)
    assert "pong" == str(call(hive, "ping"))


def test_only_three_policies_can_be_chosen():
    with pytest.raises(ConfigError, match="agent_tools"):
        HiveManager(agent_tools={"execute": "never"})


def test_a_tool_of_the_users_own_is_offered_and_one_that_is_missing_is_explained(
    runtime, tmp_path, monkeypatch
):
    (tmp_path / "agents_own.py").write_text(
        "from hive_jupyter import tool\n"
        "@tool(read_only=True)\n"
        "def add(a: int, b: int = 1) -> str:\n"
        "    'The sum.'\n"
        "    return str(a + b)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with HiveManager(tool_modules=["agents_own", "agents_missing"]) as hive:
        assert "add" in names(hive)
        assert "3" == str(call(hive, "add", a=2))
        assert "agents_missing" in str(call(hive, "subtract", a=2))


def test_a_worker_can_be_chosen(hive):
    async def work():
        session = AgentSession(hive, "x", worker="apart")
        await session.call("execute", {"code": "only_here = 1"})
        return str(await session.call("execute", {"code": "only_here"}))

    assert "1" == do(hive, work)
    assert "NameError" in str(call(hive, "execute", code="only_here"))


def test_a_worker_that_is_an_mcp_server_offers_its_own_tools(runtime):
    command = [sys.executable, "-m", "mcp_server_time"]
    with HiveManager(
        worker="clock", workers={"clock": {"mcp": command}}, connect_timeout=60
    ) as hive:
        assert {"get_current_time", "convert_time", *AGENT_TOOLS} == set(names(hive))
        assert '"UTC"' in str(call(hive, "get_current_time", timezone="UTC"))
        assert 'There is no tool "execute".' in str(call(hive, "execute", code="1"))


def test_status_tells_how_the_worker_is(hive):
    assert "coder" in call(hive, "status").structured_content["workers"]


def test_a_restart_gives_a_worker_without_variables(hive):
    call(hive, "execute", code="lost = 1")

    assert "fresh process" in str(call(hive, "restart"))
    assert "NameError" in str(call(hive, "execute", code="lost"))


def test_one_call_interrupts_another(hive):
    async def work():
        session = AgentSession(hive, "x")
        running = asyncio.create_task(session.call("execute", {"code": ENDLESS}, sink=noting))
        await begun.wait()
        answer = await session.call("interrupt", {})
        return str(answer), await running, str(await session.call("interrupt", {}))

    begun = asyncio.Event()

    async def noting(message):
        if message.type == "stream":
            begun.set()

    said, interrupted, idle = do(hive, work)
    assert "was interrupted" in said
    assert interrupted.is_error
    assert "KeyboardInterrupt" in str(interrupted)
    assert "runs nothing" in idle


def test_a_call_that_is_cancelled_interrupts_and_stands_in_the_history(hive):
    async def work():
        running = asyncio.create_task(
            AgentSession(hive, "quitter").call("execute", {"code": ENDLESS}, sink=noting)
        )
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    begun = asyncio.Event()

    async def noting(_message):
        begun.set()

    do(hive, work)
    wait_until(lambda: hive.health() == "idle")
    last = wait_until(lambda: [run for run in hive.history() if run.asker == "quitter"])[0]
    assert "KeyboardInterrupt" in last.detail


def test_a_call_that_takes_too_long_says_so(hive):
    async def work():
        session = AgentSession(hive, "x", timeout="200ms")
        return await session.call("execute", {"code": "import time; time.sleep(60)"})

    answer = do(hive, work)
    assert answer.is_error
    assert "200 ms" in str(answer)


def test_where_no_worker_can_start_tools_are_listed_and_calls_say_why(runtime, monkeypatch):
    async def refuse(*_):
        raise NodeStartError("No worker today.", node="coder")

    monkeypatch.setattr(SwarmNode, "_ensure_ready", refuse)
    with HiveManager() as hive:
        assert "execute" in names(hive)
        answer = call(hive, "execute", code="1")

    assert answer.is_error
    assert "No worker did this. No worker today." == str(answer)


def test_a_process_that_can_have_no_workers_serves_nobody(monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_IN_WORKER", "coder")

    with HiveManager() as hive, pytest.raises(NodeStartError, match="This is a worker already"):
        hive.serve(None).result()


# Those who watch


@pytest.fixture
def watched(hive):
    """What somebody who watches agents is shown."""
    said = []
    hive.watch_agents(said.append)
    yield said
    hive.watch_agents(ignore)


def told(said):
    return "".join(message.content["text"] for message in said if message.type == "stream")


def test_who_watches_sees_what_agents_do_marked_with_their_names(hive, watched):
    call(hive, "execute", agent="Bee", code="print('hello')\ndisplay('shown')\n42")
    call(hive, "read_file", agent="Wasp", path="no such file")
    wait_until(lambda: "Wasp] got an error" in told(watched))

    assert told(watched).startswith(
        "[agent Bee] calls in coder: execute print('hello')\n    display('shown')\n    42\n"
        "hello\n42\n[agent Bee] got its answer\n"
        "[agent Wasp] calls in coder: read_file path='no such file'\n"
    )
    assert "[agent Wasp] got an error: There is no no such file" in told(watched)
    assert ["'shown'"] == [
        message.content["data"]["text/plain"]
        for message in watched
        if message.type == "display_data"
    ]


def test_an_error_is_told_in_short(hive, watched):
    call(hive, "execute", agent="Bee", code="1 / 0")
    wait_until(lambda: "got an error" in told(watched))

    assert told(watched).endswith("[agent Bee] got an error: ZeroDivisionError: division by zero\n")
    assert "ZeroDivisionError: division by zero" == hive.history()[-1].detail


def test_a_mistyped_tool_in_the_users_choice_opens_nothing(hive, choosing):
    choosing(execut="deny")

    with pytest.raises(ConfigError, match='Did you mean "execute"'):
        call(hive, "execute", code="1")


def test_nothing_that_an_agents_code_shows_runs(hive, watched):
    """Whatever the rule for the worker's outputs is: the reader did not write it."""
    code = (
        "from IPython.display import HTML\ndisplay(HTML('<script>1</script>'))\nprint('\\x1b[2J')"
    )
    call(hive, "execute", code=code)
    wait_until(lambda: "got its answer" in told(watched))
    (html,) = [
        message.content["data"]["text/html"] for message in watched if "data" in message.content
    ]

    assert "not run here" in html
    assert "\033" not in told(watched)


def test_an_agents_words_cannot_look_like_something_else(hive, watched):
    call(hive, "read_file", agent="Bee\n[agent Wasp]", path="a\n[agent Wasp] called \033[2Jb")
    wait_until(lambda: "got an error" in told(watched))

    assert "\n[agent Wasp]" not in told(watched)
    assert "\033" not in told(watched)


def test_the_users_own_runs_are_none_of_the_watchers_business(hive, watched):
    hive.delegate("print('mine')")
    hive.delegate_to_coder("execute", "print('mine')")
    call(hive, "ping")
    wait_until(lambda: "got its answer" in told(watched))

    assert "mine" not in told(watched)


def test_a_cell_shows_what_agents_do_while_others_run(runtime, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_folders, "_temporary_folders", list)
    with FrontEnd(tmp_path) as kernel:
        kernel.play("%load_ext hive_jupyter\n%delegate 1")
        watching = kernel.play("%hive agents")
        (found,) = attachments()
        asyncio.run(
            AttachedAgent(AttachedHive(found), "Bee").call("execute", {"code": "print('hello')"})
        )
        found.close()
        later = []
        while "got its answer" not in "".join(later):
            message = kernel.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream":
                assert watching.key == message["parent_header"]["msg_id"]
                later.append(message["content"]["text"])
        history = kernel.play("%hive history")

    assert "appears here" in watching.stream()
    assert "[agent Bee] calls in coder: execute" in "".join(later)
    assert "hello\n" in "".join(later)
    assert "agent Bee" in history.of("display_data")[0]["data"]["text/plain"]


# What a human answers


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A repository with a change in it, as the hive's project, and a ledger of its own."""
    made = with_a_change(tmp_path, monkeypatch)
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def here(repo, runtime):
    with HiveManager(connect_timeout=60) as hive:
        yield hive


def status_of(hive, request):
    return call(hive, "commit_status", request=request).structured_content


def test_an_agent_asks_for_a_commit_and_learns_what_became_of_it(here, repo):
    asked = call(here, "request_commit", agent="Bee", message="Change a")
    request = asked.structured_content["request"]
    (pending,) = here.guard.pending()

    assert not asked.is_error
    assert (request, "agent", "Bee") == (
        pending.id,
        pending.requester.kind,
        pending.requester.name,
    )
    assert "pending" == status_of(here, request)["state"]
    token = here.guard.approve(request)
    assert "approved" == status_of(here, request)["state"]
    made = here.commit(token)
    assert {"request": request, "state": "committed", "commit": made} == status_of(here, request)
    assert made == repo.head
    for answer in (asked, call(here, "commit_status", request=request)):
        assert token not in str(answer.to_wire())
        assert pending.digest[:8] not in str(answer.to_wire())


def test_an_agent_learns_why_its_commit_was_not_made(here, repo):
    request = call(here, "request_commit", message="Change a").structured_content["request"]
    other = call(here, "request_commit", message="Another").structured_content["request"]
    here.guard.deny(request, "not on a Friday")
    denied = call(here, "commit_status", request=request)
    repo.commit_all("meanwhile")
    superseded = call(here, "commit_status", request=other)

    assert "denied" == denied.structured_content["state"]
    assert "not on a Friday" in str(denied)
    assert "superseded" == superseded.structured_content["state"]


def test_an_agent_learns_nothing_of_others_requests(here, repo):
    users = here.request_commit("mine")
    calls = here.guard.request_call(tool="ping", arguments={}, worker="coder", requester="x")
    for request in (users.id, calls.id, "nonsense", "\033[2J"):
        answer = call(here, "commit_status", request=request)
        assert answer.is_error
        assert "\033" not in str(answer)
    assert "needs request" in str(call(here, "commit_status"))


@pytest.mark.parametrize("policy", ["auto", "ask"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("request_commit", {"message": "m", "paths": ["a.py", "x\0/b"]}),
        ("request_commit", {"message": "m", "paths": ["\ud800/b"]}),
        ("request_commit", {"message": "m\0", "paths": ["a.py"]}),
        ("request_commit", {"message": "\udc80"}),
        ("request_commit", {"message": "m", "supersedes": "\udfff"}),
        ("commit_status", {"request": "\ud800"}),
        ("commit_status", {"request": "\0"}),
    ],
)
def test_text_that_no_file_can_hold_is_a_result_that_helps(here, quick, policy, name, arguments):
    here.config.agent_tools = {name: policy}

    answer = call(here, name, **arguments)

    assert answer.is_error
    assert re.match(rf"{name}: (message|paths|supersedes|request) holds", str(answer))
    assert [] == here.guard.pending()


def test_a_path_that_is_no_utf_8_can_be_asked_for(here, repo):
    (repo.folder / os.fsdecode(b"\xff.py")).touch()

    assert not call(here, "request_commit", message="m", paths=[os.fsdecode(b"\xff.py")]).is_error


def test_without_a_repository_an_agent_is_told(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with HiveManager() as hive:
        answer = call(hive, "request_commit", message="Change a")

    assert answer.is_error
    assert "repository" in str(answer)


@pytest.fixture
def quick(monkeypatch):
    """Looks at the ledger that follow each other quickly."""
    monkeypatch.setattr(agents, "_LOOK", 0.02)


def asking(hive, name, said=None, **arguments):
    """A call that waits for the human, and what the human is asked."""

    async def work():
        async def sink(message):
            (said if said is not None else []).append(message)

        return await AgentSession(hive, "Bee").call(name, arguments, sink=sink)

    calling = hive.serve(lambda _folder: work())
    wait_until(lambda: calling.done() or hive.guard.pending())
    return calling, hive.guard.pending()


def test_a_call_that_is_to_be_asked_about_waits_for_the_human(here, quick):
    here.config.agent_tools = {"execute": "ask"}
    said = []
    calling, (request,) = asking(here, "execute", said, code="6 * 7")

    wait_until(lambda: said)
    assert not calling.done()
    assert ("execute", {"code": "6 * 7"}) == (request.tool, dict(request.arguments))
    assert f"%hive approve {request.id}" in said[0].content["text"]
    assert [] == here.history()
    approve(here.guard, request, origin="a test")
    assert "42" == str(calling.result(60))


@pytest.mark.parametrize("name", ["restart", "request_commit"])
def test_the_hosts_own_tools_can_be_asked_about_too(here, quick, name):
    here.config.agent_tools = {"*": "ask"}
    calling, (request,) = asking(here, name, **({"message": "m"} if name != "restart" else {}))
    approve(here.guard, request, origin="a test")

    assert not calling.result(60).is_error


def test_a_call_that_the_human_denies_is_not_made(here, quick):
    here.config.agent_tools = {"execute": "ask"}
    calling, (request,) = asking(here, "execute", code="1")
    here.guard.deny(request.id, "not now")
    answer = calling.result(60)

    assert answer.is_error
    assert "not now" in str(answer)
    assert [] == here.history()


def test_a_call_that_nobody_answers_is_not_made_and_asked_about_no_more(repo, runtime, quick):
    with HiveManager(approval_expiry=1) as hive:
        hive.config.agent_tools = {"execute": "ask"}
        calling, _ = asking(hive, "execute", code="1")
        answer = calling.result(60)

        assert answer.is_error
        assert "expired" in str(answer)
        assert [] == hive.guard.pending() == hive.history()


def test_a_call_that_its_agent_takes_back_is_asked_about_no_more(here, quick):
    here.config.agent_tools = {"execute": "ask"}
    calling, (request,) = asking(here, "execute", code="1")
    calling.cancel()
    wait_until(lambda: not here.guard.pending())

    with pytest.raises(RequestExpired):
        here.guard.approve(request.id)


def test_a_request_for_very_many_files_can_be_asked_about(here, repo):
    for number in range(1300):
        (repo.folder / f"{'x' * 200}{number}").touch()

    asked = call(here, "request_commit", message="Many", paths=["."])

    request = asked.structured_content["request"]
    assert "pending" == call(here, "commit_status", request=request).structured_content["state"]


def test_a_call_that_is_taken_back_while_the_human_is_asked_is_cancelled(here, quick):
    here.config.agent_tools = {"ping": "ask"}

    async def work():
        calling = asyncio.create_task(AgentSession(here, "Bee").call("ping", {}))
        while not here.guard.pending():
            await asyncio.sleep(0.01)
        calling.cancel()
        await asyncio.wait({calling})
        return calling.cancelled()

    assert do(here, work)
    wait_until(lambda: not here.guard.pending())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read" * 4 * 10**6, {}),
        ("read_file", {"path" * 3 * 10**6: "x"}),
        ("read_file", {f"k{number}": 1 for number in range(10**5)}),
    ],
)
def test_a_large_wrong_call_is_answered_and_remembered_in_short(hive, name, arguments):
    async def work():
        return await AgentSession(hive, "x").call(name, arguments)

    answer = do(hive, work)

    assert answer.is_error
    assert len(str(answer)) < 2000
    assert all(len(run.code) < 20_000 for run in hive.history())


def test_a_lying_workers_list_of_tools_is_bounded(hive):
    lie = """
box = next(o for o in vars(get_ipython().kernel).values() if type(o).__name__ == "Toolbox")
schema = {"type": "object"}
box.list_tools = lambda: {"problems": ["\\x1b[2J" * 10**5] * 100, "tools": [
    {"name": "a\\x1b[2Jb", "inputSchema": schema},
    {"name": "long", "description": "D" * 10**7, "inputSchema": schema},
    {"name": "wide", "inputSchema": {"type": "object", "title": "T" * 10**7}},
]}
"""
    try:
        hive.delegate(lie)
        do(hive, lambda: hive.nodes.tools("coder"))
        listed = [tool for tool in do(hive, AgentSession(hive, "x").tools) if "long" == tool.name]
        answer = call(hive, "no_such_tool")
        known = hive.known_tools("coder")
    finally:
        hive.restart("coder")

    assert 10_000 == len(listed[0].description)
    assert not {"wide", "a\x1b[2Jb"} & set(known)
    assert "\x1b" not in str(answer)
    assert len(str(answer)) < 20_000


def test_no_more_than_a_few_calls_wait_for_the_human(here, quick):
    here.config.agent_tools = {"execute": "ask"}
    most = here.guard.max_pending
    calls = [here.guard.request_call(**ANY_CALL) for _ in range(most)]
    calling, _ = asking(here, "execute", code="1")

    assert calling.result(60).is_error
    assert most == len(calls) == len(here.guard.pending())


ANY_CALL = {"tool": "ping", "arguments": {}, "worker": "coder", "requester": "x"}


# --- what code of agents leaves ---


@pytest.fixture
def project(tmp_path, runtime, monkeypatch):
    """A hive in a project of its own, which is looked at soon after each run."""
    monkeypatch.setattr(lookout, "_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive


PLANT = "import os; os.makedirs('sub/.git')"


@pytest.mark.parametrize(
    ("name", "arguments"), [("ping", {}), ("execute", {"code": "1"}), ("read_file", {"path": "x"})]
)
def test_an_agent_reads_what_its_code_left_in_its_next_result(project, name, arguments):
    call(project, "execute", code=PLANT)
    wait_until(lambda: project.swarm_status()["notes"])

    answer = call(project, name, **arguments)

    assert 1 == str(answer).count("sub/.git (a new repository)")
    assert answer.content[0].text.startswith("Hive: in ")
    assert "sub/.git" not in str(call(project, name, **arguments))
