"""One run, and the sockets to a worker: against a peer that a test makes say what it wants."""

import asyncio
import json

import pytest
import pytest_asyncio
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from hive_jupyter.swarm import channels as channels_module
from hive_jupyter.swarm import run as run_module
from hive_jupyter.swarm.channels import Channels, Context, context_for
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.run import Run

KEY = "0" * 64

WRONG = (
    "nothing",
    "no delimiter",
    "only a delimiter",
    "too short",
    "another's signature",
    "no signature",
    "a changed content",
    "a changed parent",
    "a header that is no JSON",
    "a header that is no object",
    "a header without a type",
    "a type that is no text",
    "a content that is no object",
    "a parent that is no object",
    "metadata that are no object",
    "bytes that are no UTF-8",
    "nesting without an end",
)


class Peer:
    """A worker without a kernel: bound sockets, and a session that signs with the right key."""

    def __init__(self, folder):
        self._context = zmq.asyncio.Context()
        self._address = f"ipc://{folder}/k"
        self.session = Session(key=KEY.encode())
        self.identities = {}
        self.shell = self._bind(zmq.ROUTER, 1)
        self.iopub = self._bind(zmq.XPUB, 2)
        self.stdin = self._bind(zmq.ROUTER, 3)
        self.control = self._bind(zmq.ROUTER, 4)
        self.hb = self._bind(zmq.ROUTER, 5)
        names = ("shell", "iopub", "stdin", "control", "hb")
        ports = {f"{name}_port": number for number, name in enumerate(names, 1)}
        self.connection = {**ports, "transport": "ipc", "ip": f"{folder}/k", "key": KEY}

    def _bind(self, kind, number):
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.sndhwm = 0
        socket.bind(f"{self._address}-{number}")
        return socket

    async def hears(self):
        """Wait until what is published is heard."""
        assert b"\x01" == await self.iopub.recv()

    async def receive(self, channel="shell"):
        identities, frames = self.session.feed_identities(
            await getattr(self, channel).recv_multipart()
        )
        self.identities[channel] = identities
        return self.session.deserialize(frames)

    def frames(self, kind, content, parent=None, **options):
        return self.session.serialize(self.session.msg(kind, content, parent, **options))

    async def publish(self, kind, content, parent=None, **options):
        await self.iopub.send_multipart([b"topic", *self.frames(kind, content, parent, **options)])

    async def reply(self, kind, content, parent, channel="shell", **options):
        frames = self.frames(kind, content, parent, **options)
        await getattr(self, channel).send_multipart([*self.identities[channel], *frames])

    def close(self):
        self._context.destroy(linger=0)


@pytest_asyncio.fixture
async def peer(tmp_path):
    peer = Peer(tmp_path)
    yield peer
    peer.close()


@pytest_asyncio.fixture
async def violations():
    return []


@pytest_asyncio.fixture
async def channels(peer, violations):
    context = Context()
    channels = Channels(context, peer.connection, "coder", violations.append)
    await peer.hears()
    yield channels
    channels.close()
    context.term()


@pytest.fixture
def heard():
    return []


@pytest_asyncio.fixture
async def run(heard):
    return Run("1", heard.append)


def reply(**content):
    return Message("execute_reply", {"status": "ok", **content})


def error(name="ValueError", traceback=("line",)):
    content = {"ename": name, "evalue": "", "traceback": list(traceback)}
    return Message("error", content)


async def soon(condition):
    """Wait until something that the loop will do has happened."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


# A run


@pytest.mark.parametrize("order", ["reply first", "idle first"])
async def test_a_run_is_over_when_reply_and_idle_are_in(run, order):
    steps = [lambda: run.take_reply(reply()), run.take_idle]
    first, second = steps if order == "reply first" else reversed(steps)
    first()

    assert not run.done.done()
    second()
    assert run.done.done()


async def test_two_runs_never_have_the_same_key(heard):
    assert Run("1", heard.append).key != Run("1", heard.append).key


async def test_the_runs_own_error_is_kept_back_for_the_reply_brings_it(run, heard):
    run.say(error())
    run.take_idle()
    run.take_reply(Message("execute_reply", {"status": "error", **error().content}))

    assert run.done.done()
    assert [] == heard


async def test_an_error_that_is_not_the_replys_own_is_shown(run, heard):
    """A magic that shows a traceback itself, say."""
    run.say(error("Shown"))
    run.take_reply(reply())
    run.take_idle()

    assert ["Shown"] == [message.content["ename"] for message in heard]


async def test_of_two_errors_none_is_lost(run, heard):
    run.say(error("First", ["a"]))
    run.say(error("Second", ["b"]))
    run.take_reply(Message("execute_reply", {"status": "error", "traceback": ["c"]}))
    run.take_idle()

    assert ["First", "Second"] == [message.content["ename"] for message in heard]


async def test_an_error_that_something_follows_keeps_its_place(run, heard):
    """An object that cannot be shown: the cell goes on."""
    run.say(error("Shown"))
    run.say(Message("stream", {"name": "stdout", "text": "after"}))

    assert ["error", "stream"] == [message.type for message in heard]


async def test_figures_at_the_end_of_a_cell_do_not_repeat_its_error(run, heard):
    run.say(error())
    run.say(Message("display_data", {"data": {}}))
    run.take_reply(Message("execute_reply", {"status": "error", **error().content}))
    run.take_idle()

    assert ["display_data"] == [message.type for message in heard]


async def test_the_error_is_called_as_it_was_shown(run):
    """Of a value whose repr fails, ipykernel's reply names another exception."""
    run.say(error("ZeroDivisionError"))
    content = {**error().content, "ename": "NoneType", "evalue": "None"}
    run.take_reply(Message("execute_reply", {"status": "error", **content}))
    run.take_idle()

    assert "ZeroDivisionError" == run.done.result().content["ename"]
    assert "error" == run.done.result().content["status"]


async def test_an_error_is_shown_where_the_worker_dies_before_its_reply(run, heard):
    run.say(error())
    run.release_error()
    run.release_error()

    assert 1 == len(heard)


async def test_idle_without_a_reply_is_an_interrupt(run, monkeypatch):
    """The kernel loses its reply when SIGINT arrives in its own dispatch code."""
    monkeypatch.setattr(run_module, "_REPLY_PATIENCE", 0.01)
    run.stop()
    run.take_idle()
    result = await asyncio.wait_for(run.done, 10)

    assert "error" == result.content["status"]
    assert "KeyboardInterrupt" == result.content["ename"]


async def test_idle_without_a_reply_is_the_error_that_was_shown_before(run, monkeypatch):
    monkeypatch.setattr(run_module, "_REPLY_PATIENCE", 0.01)
    run.say(error("ZeroDivisionError"))
    run.take_idle()
    run.stop()

    assert "ZeroDivisionError" == (await asyncio.wait_for(run.done, 10)).content["ename"]


async def test_a_reply_that_idle_overtakes_is_waited_for(run, monkeypatch):
    """They come by two sockets; where nobody interrupted, a busy worker lets the one wait."""
    monkeypatch.setattr(run_module, "_REPLY_PATIENCE", 0.01)
    run.take_idle()
    await asyncio.sleep(0.05)
    run.take_reply(reply(execution_count=7))

    assert 7 == (await run.done).content["execution_count"]


async def test_each_wish_to_stop_is_counted(run):
    run.stop()
    run.stop()

    assert 2 == run.stops
    assert run.stopping.done()
    assert not run.expired


async def test_a_run_that_is_stopping_has_its_grace_also_when_its_time_is_over(run):
    run.stop()
    run.heed()
    run.expire()

    assert run.expired
    assert 1 == run.stops


async def test_a_run_that_goes_on_after_a_stop_ends_when_its_time_is_over(run):
    """It obeyed; what it had said was still to be read."""
    run.stop()
    run.heed()
    run.is_stopping = False
    run.expire()

    assert 2 == run.stops
    assert run.stopping.done()


async def test_a_run_that_is_over_does_not_expire(run):
    run.take_reply(reply())
    run.take_idle()
    run.expire()

    assert not run.expired
    assert 0 == run.stops


# Receiving


async def test_a_message_of_endless_parts_breaks_the_protocol(channels, peer, violations):
    await peer.iopub.send_multipart([b""] * 20_000)
    await soon(lambda: violations)

    assert "parts" in violations[0]
    assert channels.is_closed


# Sending


async def test_the_probe_waits_until_the_worker_is_heard_on_iopub(channels, peer):
    """An answer on shell alone proves nothing: output might still be lost."""
    probing = asyncio.create_task(channels.probe())
    for _ in range(2):
        request = await peer.receive()
        await peer.reply("kernel_info_reply", {"name": "x"}, request)

    assert not probing.done()
    request = await peer.receive()
    await peer.publish("status", {"execution_state": "idle"}, request)
    await peer.reply("kernel_info_reply", {"name": "x"}, request)
    assert {"name": "x"} == await asyncio.wait_for(probing, 10)


async def test_a_cells_header_goes_along_with_the_runs_key(channels, peer, heard):
    header = {"msg_id": "cell", "session": "front", "username": "u", "custom": 1}
    run = Run("1 + 1", heard.append, header=header, allow_stdin=True)
    channels.begin(run)
    request = await peer.receive()

    assert header.items() <= request["header"].items()
    assert run.key == request["header"]["hive_run"]
    assert "coder" == request["header"]["hive_worker"]
    assert "execute_request" == request["header"]["msg_type"]
    assert "1 + 1" == request["content"]["code"]
    assert request["content"]["allow_stdin"]
    assert not request["content"]["stop_on_error"]


async def test_a_kernel_that_knows_only_the_standard_header_reaches_its_run(channels, peer, heard):
    """Its answers name the cell's msg_id, and no key of ours."""
    run = Run("1", heard.append, header={"msg_id": "cell"})
    channels.begin(run)
    request = await peer.receive()
    del request["header"]["hive_run"]
    await peer.publish("stream", {"name": "stdout", "text": "x"}, request)
    await peer.publish("status", {"execution_state": "idle"}, request)
    await peer.reply("execute_reply", {"status": "ok"}, request)

    assert "ok" == (await asyncio.wait_for(run.done, 10)).content["status"]
    assert ["x"] == [message.content["text"] for message in heard]


async def test_the_hosts_subshell_is_not_the_workers(channels, peer, heard):
    channels.begin(Run("1", heard.append, header={"msg_id": "cell", "subshell_id": "host's"}))
    request = await peer.receive()

    assert "subshell_id" not in request["header"]


async def test_a_request_gets_its_own_reply(channels, peer):
    """Also where the replies come in another order."""
    first = asyncio.create_task(channels.request("control", "a_request", {}))
    second = asyncio.create_task(channels.request("control", "b_request", {}))
    requests = [await peer.receive("control") for _ in range(2)]
    for request in reversed(requests):
        kind = request["header"]["msg_type"]
        await peer.reply("x_reply", {"to": kind}, request, "control")

    assert "a_request" == (await first).content["to"]
    assert "b_request" == (await second).content["to"]


async def test_an_answer_goes_to_a_run_that_asked_and_only_once(channels, peer, heard):
    run = Run("1", heard.append, allow_stdin=True)
    run.allow_stdin = True
    channels.answer(run, "nobody asked")
    channels.begin(run)
    request = await peer.receive()
    peer.identities["stdin"] = peer.identities["shell"]
    await peer.reply("input_request", {"prompt": "?", "password": False}, request, "stdin")
    await soon(lambda: heard)
    channels.answer(run, "yes")
    channels.answer(run, "again")
    channels.answer(run, "and again")
    received = await peer.receive("stdin")

    assert "input_request" == heard[0].type
    assert "yes" == received["content"]["value"]
    assert 0 == await peer.stdin.poll(50)


ASKED = {"id": "1", "message": "m", "paths": []}


async def answer_of(peer):
    return (await peer.receive("control"))["content"]


async def test_a_request_for_a_commit_is_passed_on_and_answered(channels, peer, heard):
    requests = []
    run = Run("1", heard.append, commit_requests=requests.append)
    channels.begin(run)
    await peer.publish("commit_request", ASKED, (await peer.receive())["header"])
    await soon(lambda: requests)
    channels.answer_commit(run, requests[0], {"text": "asked"})

    assert {"id": "1", "text": "asked"} == await answer_of(peer)
    assert [] == heard


async def test_of_many_requests_for_commits_one_is_passed_on(channels, peer, heard):
    """The next one is once that is answered."""
    requests = []
    run = Run("1", heard.append, commit_requests=requests.append)
    channels.begin(run)
    parent = (await peer.receive())["header"]
    for number in ("1", "2", "3"):
        await peer.publish("commit_request", {**ASKED, "id": number}, parent)

    refused = [await answer_of(peer), await answer_of(peer)]
    assert ["2", "3"] == [answer["id"] for answer in refused]
    assert all("one at a time" in answer["error"] for answer in refused)
    channels.answer_commit(run, requests[0], {"text": "asked"})
    assert {"id": "1", "text": "asked"} == await answer_of(peer)
    await peer.publish("commit_request", {**ASKED, "id": "4"}, parent)
    await soon(lambda: len(requests) == 2)


@pytest.mark.parametrize("whose", ["one that may not ask", "one that is over", "nobody's"])
async def test_a_request_that_nobody_passes_on_is_refused_at_once(channels, peer, heard, whose):
    requests = []
    may_ask = {} if whose == "one that may not ask" else {"commit_requests": requests.append}
    run = Run("1", heard.append, **may_ask)
    channels.begin(run)
    parent = (await peer.receive())["header"]
    if whose == "one that is over":
        channels.end(run)
    await peer.publish("commit_request", ASKED, None if whose == "nobody's" else parent)

    assert "Only a delegated cell" in (await answer_of(peer))["error"]
    assert [] == requests


async def test_who_asks_without_an_end_and_reads_no_answer_harms_nobody(channels, peer, heard):
    run = Run("1", heard.append)
    channels.begin(run)
    parent = (await peer.receive())["header"]
    for _ in range(5000):
        await peer.publish("commit_request", ASKED, parent)
    await peer.publish("stream", {"name": "stdout", "text": "still heard"}, parent)
    await soon(lambda: heard)

    assert "still heard" == heard[0].content["text"]


async def test_a_request_with_a_long_id_breaks_the_protocol(channels, peer, violations):
    await peer.publish("commit_request", {**ASKED, "id": "x" * 1000})
    await soon(lambda: violations)

    assert "long id" in violations[0]


async def test_the_heartbeat_is_heard(channels, peer):
    beating = asyncio.create_task(channels.beat(10))
    await peer.hb.send_multipart(await peer.hb.recv_multipart())

    assert await beating


async def test_a_silent_heartbeat_is_noticed_and_its_late_echo_is_no_later_one(channels, peer):
    assert not await channels.beat(0.02)
    await peer.hb.send_multipart(await peer.hb.recv_multipart())

    assert not await channels.beat(0.1)


# Routing


async def test_two_runs_of_one_cell_are_told_apart_by_the_key(channels, peer):
    first, second = [], []
    header = {"msg_id": "cell"}
    channels.begin(Run("1", first.append, header=header))
    channels.begin(Run("2", second.append, header=header))
    requests = [await peer.receive() for _ in range(2)]
    await peer.publish("stream", {"name": "stdout", "text": "two"}, requests[1])
    await peer.publish("stream", {"name": "stdout", "text": "one"}, requests[0])
    await soon(lambda: first and second)

    assert ["one"] == [message.content["text"] for message in first]
    assert ["two"] == [message.content["text"] for message in second]


async def test_all_that_a_run_shows_arrives_in_order(channels, peer, run, heard):
    channels.begin(run)
    request = await peer.receive()
    for number in range(3000):
        await peer.publish("stream", {"name": "stdout", "text": f"{number} "}, request)
    await peer.publish("status", {"execution_state": "idle"}, request)
    await peer.reply("execute_reply", {"status": "ok"}, request)
    await asyncio.wait_for(run.done, 20)

    assert list(map(str, range(3000))) == "".join(m.content["text"] for m in heard).split()


async def test_output_that_waits_is_not_lost(channels, peer, run, heard):
    """A reader that does not keep up pauses the sockets; what comes meanwhile arrives later."""
    channels.begin(run)
    request = await peer.receive()
    channels.pause("a run")
    for number in range(200):
        await peer.publish("stream", {"name": "stdout", "text": f"{number} "}, request)
    asking = asyncio.create_task(channels.request("shell", "x_request", {}))
    await peer.reply("x_reply", {}, await peer.receive())
    await asking

    assert [] == heard
    channels.resume("a run")
    await soon(lambda: len(heard) == 200)


async def test_what_a_dead_worker_said_last_may_take_a_moment(channels, peer, run, heard):
    """zmq's thread in the host waits for a processor, say."""
    channels.begin(run)
    header = (await peer.receive())["header"]
    draining = asyncio.create_task(channels.drain())
    await asyncio.sleep(0.15)
    assert not draining.done()

    await peer.publish("stream", {"name": "stdout", "text": "last words"}, header)
    await soon(lambda: heard)
    peer.iopub.close()
    await draining
    assert ["last words"] == [message.content["text"] for message in heard]


async def test_who_cannot_take_output_holds_it_until_the_last_of_them_can(channels):
    """A run that is over, say, and one that goes on."""
    channels.pause("one")
    channels.pause("other")
    channels.resume("one")
    assert channels.is_paused

    channels.resume("other")
    assert not channels.is_paused


async def test_buffers_and_metadata_come_along(channels, peer, run, heard):
    channels.begin(run)
    request = await peer.receive()
    message = peer.session.msg("display_data", {"data": {}}, request, metadata={"a": 1})
    frames = peer.session.serialize(message)
    await peer.iopub.send_multipart([b"topic", *frames, b"\x00\x01"])
    await soon(lambda: heard)

    assert {"a": 1} == heard[0].metadata
    assert [b"\x00\x01"] == [bytes(buffer) for buffer in heard[0].buffers]


@pytest.mark.parametrize(
    "kind", ["comm_info_reply", "shutdown_reply", "unheard_of", "iopub_welcome"]
)
async def test_what_is_no_output_is_not_passed_on(channels, peer, run, heard, violations, kind):
    channels.begin(run)
    request = await peer.receive()
    await peer.publish(kind, {}, request)
    await peer.publish("stream", {"name": "stdout", "text": "end"}, request)
    await soon(lambda: heard)

    assert ["stream"] == [message.type for message in heard]
    assert [] == violations


async def test_what_belongs_to_no_run_is_dropped(channels, peer, run, heard, violations):
    """Output of a run that is over, or of nobody."""
    over = Run("0", heard.append)
    channels.begin(over)
    old = await peer.receive()
    channels.end(over)
    channels.begin(run)
    request = await peer.receive()
    await peer.publish("stream", {"name": "stdout", "text": "old"}, old)
    await peer.publish("stream", {"name": "stdout", "text": "nobody's"}, None)
    await peer.reply("execute_reply", {"status": "ok"}, old)
    await peer.publish("stream", {"name": "stdout", "text": "mine"}, request)
    await soon(lambda: heard)

    assert ["mine"] == [message.content["text"] for message in heard]
    assert [] == violations


async def test_a_kernel_that_hands_back_only_standard_keys_is_understood(
    channels, peer, run, heard
):
    channels.begin(run)
    request = await peer.receive()
    parent = {"header": {"msg_id": request["header"]["msg_id"]}}
    message = peer.session.msg("stream", {"name": "stdout", "text": "here"})
    message["parent_header"] = parent["header"]
    await peer.iopub.send_multipart([b"topic", *peer.session.serialize(message)])
    await soon(lambda: heard)

    assert "here" == heard[0].content["text"]


# What may be shown


@pytest_asyncio.fixture
async def watched(peer, violations, tmp_path):
    """Makes channels with a rule for what the worker shows."""
    context = Context()
    made = []

    async def make(rule):
        channels = Channels(
            context, peer.connection, "coder", violations.append, rule=rule, folder=str(tmp_path)
        )
        made.append(channels)
        await peer.hears()
        return channels

    yield make
    for channels in made:
        channels.close()
    context.term()


@pytest.mark.parametrize("rule", ["framed", "inert"])
async def test_all_that_a_run_shows_is_held_against_the_rule(watched, peer, run, heard, rule):
    channels = await watched(rule)
    channels.begin(run)
    header = (await peer.receive())["header"]
    data = {"text/html": "<b id=x>b</b>", "application/javascript": "x"}
    for kind, content in {
        "stream": {"name": "stdout", "text": "\x1b[2Ja"},
        "display_data": {"data": data, "metadata": {}, "transient": {"display_id": "x"}},
        "update_display_data": {"data": data, "transient": {"display_id": "x"}},
        "execute_result": {"data": data, "metadata": {}, "execution_count": 1},
        "clear_output": {"wait": True, "own": 1},
    }.items():
        await peer.publish(kind, content, header, metadata={"own": 1})
    await soon(lambda: len(heard) == 5)

    assert {"name": "stdout", "text": "a"} == heard[0].content
    for shown in heard[1:4]:
        assert {"text/html": "<b>b</b>"} == shown.content["data"]
    assert {"display_id": "coder/x"} == heard[1].content["transient"]
    assert heard[1].content["transient"] == heard[2].content["transient"]
    assert {"wait": True} == heard[4].content
    assert all({} == shown.metadata for shown in heard)


async def test_an_exception_is_shown_and_raised_the_same(watched, peer, run, heard):
    channels = await watched("framed")
    channels.begin(run)
    request = await peer.receive()
    told = {"ename": "E", "evalue": "\x1b[2Jv", "traceback": ["\x1b[31mline\x1b[0m\x07"]}
    await peer.publish("error", told, request)
    await peer.publish("status", {"execution_state": "idle"}, request)
    await peer.reply("execute_reply", {"status": "error", **told}, request)
    reply = await asyncio.wait_for(run.done, 10)

    assert [] == heard
    assert ("v", ["\x1b[31mline\x1b[0m"]) == (reply.content["evalue"], reply.content["traceback"])


async def test_a_run_may_have_a_stricter_rule_than_its_worker(watched, peer, run, heard):
    """An agent's."""
    channels = await watched("trusted")
    run.rule = "inert"
    channels.begin(run)
    header = (await peer.receive())["header"]
    await peer.publish("stream", {"name": "stdout", "text": "\x1b[2Ja"}, header)
    await soon(lambda: heard)

    assert "a" == heard[0].content["text"]


async def test_what_comes_late_is_held_against_the_rule_too(watched, peer, heard):
    channels = await watched("framed")
    run = Run("1", heard.append, late=heard.append)
    channels.begin(run, 1000)
    header = (await peer.receive())["header"]
    channels.end(run)
    await peer.publish("stream", {"name": "stdout", "text": f"\x1b[2J{'x' * 5000}"}, header)
    await soon(lambda: heard)

    assert "x" * 900 == heard[0].content["text"]


async def test_much_output_goes_to_a_file(watched, peer, run, heard, tmp_path):
    channels = await watched("trusted")
    channels.begin(run, 1000)
    header = (await peer.receive())["header"]
    await peer.publish("stream", {"name": "stdout", "text": "x" * 5000}, header)
    await soon(lambda: len(heard) == 2)
    (path,) = tmp_path.glob("output-*")

    assert "x" * 900 == heard[0].content["text"]
    assert str(path) in heard[1].content["text"]
    assert "x" * 4100 == path.read_text()


async def test_a_word_of_progress_is_short(channels, peer, run, heard):
    channels.begin(run)
    header = (await peer.receive())["header"]
    await peer.publish("tool_progress", {"progress": 1, "message": "x" * 10_000}, header)
    await soon(lambda: heard)

    assert f"{'x' * 200} (1)" == heard[0].content["text"]


async def test_an_inert_worker_asks_for_no_password(watched, peer, heard):
    channels = await watched("inert")
    run = Run("1", heard.append, allow_stdin=True)
    channels.begin(run)
    request = await peer.receive()
    peer.identities["stdin"] = peer.identities["shell"]
    await peer.reply("input_request", {"prompt": "?", "password": True}, request, "stdin")

    assert "\x04" == (await peer.receive("stdin"))["content"]["value"]
    assert ["stream"] == [message.type for message in heard]
    assert "password" in heard[0].content["text"]
    await peer.reply("input_request", {"prompt": "a\nb", "password": False}, request, "stdin")
    await soon(lambda: len(heard) == 2)
    assert {"prompt": "a b", "password": False} == heard[1].content


@pytest.mark.parametrize("rule", ["trusted", "framed", "inert"])
@pytest.mark.parametrize("wrong", ["nested", "nested metadata", "many forms"])
async def test_a_display_that_no_front_end_takes_breaks_the_protocol(
    watched, peer, run, heard, violations, rule, wrong
):
    channels = await watched(rule)
    channels.begin(run)
    header = (await peer.receive())["header"]
    deep = []
    for _ in range(200):
        deep = [deep]
    data = {f"x/{n}": "" for n in range(1000)} if wrong == "many forms" else {}
    data |= {"application/json": deep} if wrong == "nested" else {}
    metadata = {"own": deep} if wrong == "nested metadata" else {}
    await peer.publish("display_data", {"data": data}, header, metadata=metadata)
    await soon(lambda: violations)

    assert "display_data" in violations[0]
    assert [] == heard


async def test_a_worker_whose_output_takes_long_leaves_the_loop_to_others(
    watched, peer, run, heard, monkeypatch
):
    monkeypatch.setattr(channels_module, "_LONGEST_BATCH", 0.0)
    channels = await watched("framed")
    channels.begin(run)
    header = (await peer.receive())["header"]
    channels.pause("a test")
    for number in range(30):
        await peer.publish("stream", {"name": "stdout", "text": f"{number} "}, header)
    channels.resume("a test")
    most = before = 0
    while before < 30:
        await asyncio.sleep(0)
        most, before = max(most, len(heard) - before), len(heard)

    assert most <= 3
    assert list(map(str, range(30))) == "".join(m.content["text"] for m in heard).split()


# A worker that breaks the protocol


def malformed(peer, request):
    """Frames that no honest worker sends, by what is wrong with them."""
    good = peer.frames("stream", {"name": "stdout", "text": "x"}, request)
    delimiter, _, header, parent, metadata, content = good
    stranger = Session(key=b"1" * 64)
    nobody = Session(key=b"")
    message = stranger.msg("stream", {"name": "stdout", "text": "x"}, request)

    def signed(*parts):
        return [delimiter, peer.session.sign(list(parts)), *parts]

    return {
        "nothing": [b""],
        "no delimiter": [b"junk"],
        "only a delimiter": [delimiter],
        "too short": good[:4],
        "another's signature": stranger.serialize(message),
        "no signature": nobody.serialize(message),
        "a changed content": [*good[:5], content.replace(b"x", b"y")],
        "a changed parent": [*good[:3], b"{}", metadata, content],
        "a header that is no JSON": signed(b"{", parent, metadata, content),
        "a header that is no object": signed(b"[]", parent, metadata, content),
        "a header without a type": signed(b"{}", parent, metadata, content),
        "a type that is no text": signed(
            json.dumps({**json.loads(header), "msg_type": [1]}).encode(), parent, metadata, content
        ),
        "a content that is no object": signed(header, parent, metadata, b"[1]"),
        "a parent that is no object": signed(header, b"[1]", metadata, content),
        "metadata that are no object": signed(header, parent, b'"x"', content),
        "bytes that are no UTF-8": signed(header, parent, metadata, b"\xff\xfe"),
        "nesting without an end": signed(header, parent, metadata, b"[" * 200_000),
    }


@pytest.mark.parametrize("channel", ["iopub", "shell"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_message_that_is_not_the_protocols_is_reported_once(
    channels, peer, run, heard, violations, wrong, channel
):
    """And nothing of it, or after it on the same socket, is passed on."""
    channels.begin(run)
    request = await peer.receive()
    frames = malformed(peer, request)[wrong]
    good = peer.frames("stream", {"name": "stdout", "text": "after"}, request)
    prefix = [] if channel == "iopub" else peer.identities["shell"]
    socket = getattr(peer, channel)
    for parts in (frames, frames, good):
        await socket.send_multipart([*prefix, *parts])
    await soon(lambda: violations)
    await asyncio.sleep(0)

    assert 1 == len(violations)
    assert [] == heard
    assert not run.done.done()


async def test_a_replayed_message_is_reported(channels, peer, run, heard, violations):
    channels.begin(run)
    request = await peer.receive()
    frames = peer.frames("stream", {"name": "stdout", "text": "once"}, request)
    await peer.iopub.send_multipart([b"topic", *frames])
    await soon(lambda: heard)
    await peer.iopub.send_multipart([b"topic", *frames])
    await soon(lambda: violations)

    assert ["once"] == [message.content["text"] for message in heard]


@pytest.mark.parametrize(
    "content", [{}, {"execution_state": ["idle"]}, {"execution_state": {}}, {"execution_state": 1}]
)
async def test_a_strange_status_ends_no_run(channels, peer, run, heard, violations, content):
    channels.begin(run)
    request = await peer.receive()
    await peer.reply("execute_reply", {"status": "ok"}, request)
    await peer.publish("status", content, request)
    await peer.publish("stream", {"name": "stdout", "text": "end"}, request)
    await soon(lambda: heard or violations)

    assert not run.done.done()


@pytest.mark.parametrize("key", [["a"], {"a": 1}, 1, None])
async def test_a_strange_key_belongs_to_no_run(channels, peer, run, heard, violations, key):
    channels.begin(run)
    request = await peer.receive()
    message = peer.session.msg("stream", {"name": "stdout", "text": "foreign"})
    message["parent_header"] = {"hive_run": key, "msg_id": key}
    await peer.iopub.send_multipart([b"topic", *peer.session.serialize(message)])
    await peer.publish("stream", {"name": "stdout", "text": "end"}, request)
    await soon(lambda: heard)

    assert ["end"] == [message.content["text"] for message in heard]
    assert [] == violations


# Closing


async def test_close_may_be_repeated_and_ends_those_who_wait(channels, peer):
    asking = asyncio.create_task(channels.request("shell", "x_request", {}))
    await peer.receive()
    channels.close()
    channels.close()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_heartbeat_that_waits_survives_the_closing_of_its_sockets(channels, peer):
    """A health check may be on its way when the worker dies; what it watched is not watched on."""
    loop = asyncio.get_running_loop()
    descriptor = channels._sockets["hb"].FD
    beating = asyncio.create_task(channels.beat(0.2))
    await peer.hb.recv_multipart()
    channels.close()

    assert not await beating
    assert not loop.remove_reader(descriptor)


async def test_two_heartbeats_at_once_do_not_take_each_others_echo(channels, peer):
    first = asyncio.create_task(channels.beat(5))
    second = asyncio.create_task(channels.beat(5))

    async def echo():
        while True:
            await peer.hb.send_multipart(await peer.hb.recv_multipart())

    echoing = asyncio.create_task(echo())

    assert [True, True] == await asyncio.gather(first, second)
    echoing.cancel()


def test_there_are_sockets_for_as_many_workers_as_there_may_be():
    for workers in (1, 256, 10_000):
        context = context_for(workers)
        most = context.get(zmq.MAX_SOCKETS)
        context.term()
        assert most >= min(9 * workers, 65_000)
