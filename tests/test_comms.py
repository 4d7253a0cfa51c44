"""What becomes of what widgets say and hear, without processes."""

import asyncio

import pytest

from hive_jupyter.display.rules import FRAMED, TRUSTED
from hive_jupyter.errors import TransferError
from hive_jupyter.protocol import RUN_KEY
from hive_jupyter.swarm import comms as module
from hive_jupyter.swarm import late as late_module
from hive_jupyter.swarm.comms import IDLE, WorkerComms
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.messages import Message, ignore
from hive_jupyter.swarm.run import Run
from hive_jupyter.swarm.surplus import Surplus

HEADER = {"msg_id": "click", "session": "page"}


class Subshell:
    """One that is there when the test says so."""

    def __init__(self):
        self.opened = asyncio.Event()
        self.error = None

    async def name(self):
        await self.opened.wait()
        if self.error is not None:
            raise self.error
        return "aside"


class Worker:
    """The other end: what it was sent, and what it may say."""

    def __init__(self, rule=TRUSTED, folder="/nowhere"):
        self.sent = []
        self.named = []
        self.late = LateOutput(ignore)
        self.comms = WorkerComms(self.late, self.send, rule, surplus=Surplus(str(folder)))
        self.said = []

    def send(self, message, header):
        self.sent.append((message.content["data"], header))
        self.named.append(message.content["comm_id"])

    async def opens(self, name):
        """A run opens a comm and is over."""
        run = Run("", self.said.append, late=self.said.append)
        self.comms.take(opening(name), run, run.key)
        self.late.expect(run.key, self.said.append)
        return run


@pytest.fixture
async def worker():
    return Worker()


def opening(name, data=None):
    content = {"comm_id": name, "target_name": "jupyter.widget", "data": data or {}}
    return Message("comm_open", content)


def saying(name, data=None):
    return Message("comm_msg", {"comm_id": name, "data": data or {}})


async def test_words_reach_the_worker_in_order_also_while_its_subshell_opens(worker):
    await worker.opens("slider")
    subshell = worker.comms.subshell = Subshell()
    for number in range(3):
        worker.comms.pass_on(saying("slider", {"n": number}), HEADER, ignore)
    await asyncio.sleep(0)
    assert worker.sent == []

    subshell.opened.set()
    worker.comms.pass_on(saying("slider", {"n": 3}), HEADER, ignore)
    async with asyncio.timeout(10):
        while len(worker.sent) < 4:
            await asyncio.sleep(0)

    assert [data["n"] for data, _ in worker.sent] == [0, 1, 2, 3]
    headers = [header for _, header in worker.sent]
    assert {header["subshell_id"] for header in headers} == {"aside"}
    assert {header["msg_id"] for header in headers} == {"click"}
    assert len({header[RUN_KEY] for header in headers}) == 4


@pytest.mark.parametrize(
    ("module", "method", "shell"),
    [
        ("@jupyter-widgets/controls", "custom", "aside"),
        ("jupyter-matplotlib", "custom", None),
        ("jupyter-matplotlib", "update", "aside"),
        ("jupyter-matplotlib", "request_state", "aside"),
    ],
)
async def test_another_packages_own_words_wait_for_the_cell_as_at_home(
    worker, module, method, shell
):
    """A figure's arrive before the cell that makes it has done so."""
    run = Run("", worker.said.append, late=worker.said.append)
    data = {"state": {"_model_module": module}}
    worker.comms.take(opening("figure", data), run, run.key)
    worker.comms.subshell = Subshell()
    worker.comms.subshell.opened.set()

    worker.comms.pass_on(saying("figure", {"method": method}), HEADER, ignore)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)

    assert worker.sent[0][1]["subshell_id"] == shell


async def test_without_a_subshell_the_main_shell_hears(worker):
    await worker.opens("slider")
    subshell = worker.comms.subshell = Subshell()
    subshell.error = TransferError("none")
    subshell.opened.set()

    worker.comms.pass_on(saying("slider"), HEADER, ignore)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)

    assert worker.sent[0][1]["subshell_id"] is None


async def test_what_nobody_can_take_is_over_at_once(worker):
    answers = []
    worker.comms.pass_on(saying("unknown"), HEADER, answers.append)
    assert answers == [IDLE]


async def test_more_than_a_worker_takes_at_once_waits_its_turn(worker, monkeypatch):
    monkeypatch.setattr(module, "_MOST_SENT", 2)
    await worker.opens("slider")
    for number in range(5):
        worker.comms.pass_on(saying("slider", {"n": number}), HEADER, ignore)
    for number in range(1, 6):
        async with asyncio.timeout(10):
            while len(worker.sent) < min(5, number + 1):
                await asyncio.sleep(0)
        assert len(worker.sent) == min(5, number + 1)
        worker.comms.take_idle(worker.sent[number - 1][1][RUN_KEY])

    assert [data["n"] for data, _ in worker.sent] == [0, 1, 2, 3, 4]


ASKING = {"method": "request_state"}


def told(answers):
    """The states that a page was told, and when it may go on."""
    return [
        message.content["data"]["state"].get("value") if message.type == "comm_msg" else "idle"
        for message in answers
    ]


async def test_who_asks_for_a_state_is_answered_in_any_case(worker, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    await worker.opens("slider")
    unknown, silent, lost = [], [], []
    worker.comms.pass_on(saying("unknown", ASKING), HEADER, unknown.append)
    worker.comms.pass_on(saying("slider", ASKING), HEADER, silent.append)
    async with asyncio.timeout(10):
        while not silent:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(module, "_PATIENCE", 60)
    worker.comms.pass_on(saying("slider", ASKING), HEADER, lost.append)
    worker.comms.close()

    for answers in (unknown, silent, lost):
        first, last = told(answers)
        assert "does not answer" in first
        assert last == "idle"


async def test_a_worker_that_tells_its_state_is_not_spoken_for(worker):
    await worker.opens("slider")
    answers = []
    worker.comms.pass_on(saying("slider", ASKING), HEADER, answers.append)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)
    key = worker.sent[0][1][RUN_KEY]
    worker.comms.take(updating("slider", value=3), None, key)
    worker.comms.take_idle(key)
    worker.late.close()

    assert told(answers) == [3, "idle"]


async def test_where_a_subshell_cannot_be_asked_for_the_main_shell_hears(worker):
    await worker.opens("slider")
    subshell = worker.comms.subshell = Subshell()
    subshell.error = BlockingIOError("the queue is full")
    subshell.opened.set()

    worker.comms.pass_on(saying("slider"), HEADER, ignore)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)


async def test_a_worker_that_hears_nothing_is_not_flooded(worker, monkeypatch):
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    await worker.opens("slider")
    answers = []
    for _ in range(5):
        worker.comms.pass_on(saying("slider"), HEADER, answers.append)
    assert answers == [IDLE, IDLE]


async def test_the_end_of_the_worker_ends_what_waits_and_what_is_shown(worker):
    await worker.opens("slider")
    worker.comms.subshell = Subshell()
    answers = []
    worker.comms.pass_on(saying("slider"), HEADER, answers.append)

    worker.comms.close()

    assert answers == [IDLE]
    assert worker.said[-1] == Message("comm_lost", {"comm_id": "slider"})
    worker.comms.close()
    assert len(worker.said) == 2


async def test_a_sink_that_fails_keeps_the_others_from_nothing(worker):
    def broken(_message):
        raise ValueError

    await worker.opens("slider")
    worker.comms.pass_on(saying("slider"), HEADER, broken)

    worker.comms.close()

    assert worker.said[-1].type == "comm_lost"


async def test_what_is_said_of_a_comm_that_nobody_opened_is_not_handed_on(worker):
    run = await worker.opens("slider")
    for message in (saying("other"), Message("comm_close", {"comm_id": "other"})):
        worker.comms.take(message, run, run.key)
        worker.comms.take(message, None, run.key)
    worker.comms.take(opening("slider"), run, run.key)

    assert [message.type for message in worker.said] == ["comm_open"]


async def test_where_nobody_shows_widgets_none_is_opened(worker):
    run = Run("", worker.said.append)
    worker.comms.take(opening("slider"), run, run.key)
    worker.comms.take(saying("slider"), run, run.key)
    assert worker.said == []


async def test_answers_come_to_who_asked_and_the_rest_to_who_opened(worker):
    run = await worker.opens("slider")
    answers = []
    worker.comms.pass_on(saying("slider"), HEADER, answers.append)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)
    key = worker.sent[0][1][RUN_KEY]

    worker.comms.take(saying("slider", {"method": "echo_update"}), None, key)
    worker.comms.take(saying("slider", {"method": "update"}), None, "a thread of nobody's")
    worker.comms.take_idle(key)
    worker.comms.take_idle(key)
    assert not worker.comms.take_output(Message("stream", {}), run.key)

    assert [message.type for message in answers] == ["comm_msg", "status"]
    assert worker.said[-1].content["data"] == {"method": "update"}


async def test_the_words_of_a_long_evening_are_forgotten(worker, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    await worker.opens("slider")
    for number in range(5):
        worker.comms.pass_on(saying("slider"), HEADER, ignore)
        async with asyncio.timeout(10):
            while len(worker.sent) <= number:
                await asyncio.sleep(0)
        worker.comms.take_idle(worker.sent[-1][1][RUN_KEY])
    keys = [header[RUN_KEY] for _, header in worker.sent]
    text = Message("stream", {"name": "stdout", "text": "late"})
    assert [worker.comms.take_output(text, key) for key in keys] == [False] * 3 + [True] * 2


OUTPUT = {
    "_model_module": "@jupyter-widgets/output",
    "_model_module_version": "1.0.0",
    "_model_name": "OutputModel",
}


def updating(name, **state):
    return saying(name, {"method": "update", "state": state, "buffer_paths": []})


def captures(said):
    """What an Output is to take, message by message."""
    states = [message.content["data"]["state"] for message in said if message.type == "comm_msg"]
    return [state["msg_id"] for state in states if "msg_id" in state]


async def test_no_output_takes_what_comes_after_the_end_of_its_run():
    worker = Worker(FRAMED)
    old = Run("", worker.said.append, late=worker.said.append)
    data = {"state": OUTPUT, "buffer_paths": []}
    output = {"comm_id": "0", "target_name": "jupyter.widget", "data": data}
    worker.comms.take(Message("comm_open", output), old, old.key)
    worker.late.expect(old.key, worker.said.append)
    run = Run("", worker.said.append, header={"msg_id": "cell"}, late=worker.said.append)

    worker.comms.take(updating("0", msg_id="cell"), run, run.key)
    # a thread of a run before says it, too, but it is handed on later
    worker.comms.take(updating("0", tabbable=True), None, old.key)
    worker.comms.take(updating("0", msg_id="cell"), None, old.key)
    worker.comms.release("cell", run.say)
    worker.late.close()

    assert captures(worker.said)[0] == "cell"
    assert captures(worker.said)[-1] == ""


async def test_a_run_that_shows_no_widgets_moves_those_of_others(worker):
    await worker.opens("slider")
    said = []
    run = Run("", said.append)

    worker.comms.take(saying("slider", {"n": 1}), run, run.key)
    worker.late.close()

    assert said == []
    assert worker.said[-1].content["data"] == {"n": 1}


async def test_a_confined_workers_comms_have_other_names_in_the_page():
    worker = Worker(FRAMED)
    run = Run("", worker.said.append, late=worker.said.append)
    data = {"state": OUTPUT, "buffer_paths": []}
    opened = {"comm_id": "0", "target_name": "jupyter.widget", "data": data}
    worker.comms.take(Message("comm_open", opened), run, run.key)
    name = worker.said[0].content["comm_id"]
    for kind in ("comm_msg", "comm_close"):
        worker.comms.pass_on(Message(kind, {"comm_id": name, "data": {}}), HEADER, ignore)
    async with asyncio.timeout(10):
        while len(worker.named) < 2:
            await asyncio.sleep(0)

    assert name != "0"
    assert worker.named == ["0", "0"]


async def test_what_a_page_waits_for_is_not_left_out_where_too_much_is_said(worker, monkeypatch):
    monkeypatch.setattr(late_module, "_MOST_MESSAGES", 10)
    await worker.opens("slider")
    thread = Run("", worker.said.append, late=worker.said.append)
    worker.late.expect(thread.key, worker.said.append)
    answers = []
    worker.comms.pass_on(saying("slider", ASKING), HEADER, answers.append)
    async with asyncio.timeout(10):
        while not worker.sent:
            await asyncio.sleep(0)
    key = worker.sent[0][1][RUN_KEY]

    def floods():
        for _ in range(50):
            worker.late.add(worker.said.append, Message("display_data", {"data": {}}))
            worker.comms.take(saying("slider"), None, thread.key)

    floods()
    worker.comms.take(opening("new"), None, thread.key)
    worker.comms.take(updating("slider", value=3), None, key)
    worker.comms.take_idle(key)
    floods()
    worker.comms.take(Message("comm_close", {"comm_id": "slider"}), None, thread.key)
    worker.late.close()

    assert told(answers) == [3, "idle"]
    kinds = [message.type for message in worker.said]
    assert kinds.count("comm_msg") <= 21
    assert kinds.count("comm_open") == 1
    assert kinds[-1] == "comm_close"


async def test_what_a_click_causes_is_shown_up_to_a_limit_and_the_rest_kept(tmp_path):
    worker = Worker(folder=tmp_path)
    await worker.opens("slider")
    answers = []
    for _ in range(2):
        worker.comms.pass_on(saying("slider"), HEADER, answers.append, 1000)
    async with asyncio.timeout(10):
        while len(worker.sent) < 2:
            await asyncio.sleep(0)
    for _, header in worker.sent:
        text = Message("stream", {"name": "stdout", "text": "x" * 5000}, size=5000)
        assert worker.comms.take_output(text, header[RUN_KEY])
    worker.late.close()

    assert sum(message.content["text"].count("x") for message in answers) < 2000
    assert "The rest is in" in answers[-1].content["text"]
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_size > 8000
    worker.comms.close()


async def test_what_is_not_shown_is_told_of_no_more_than_anybody_reads():
    worker = Worker(FRAMED)
    run = Run("", worker.said.append, late=worker.said.append)
    for number in range(500):
        kind = {"_model_name": f"No{number}", "_model_module": "m", "_model_module_version": "1"}
        content = {"comm_id": f"{number}", "target_name": "jupyter.widget", "data": {"state": kind}}
        worker.comms.take(Message("comm_open", content), run, run.key)

    assert len(worker.said) == 50
