"""One run, seen from the thread that asked for it."""

import threading
from concurrent.futures import Future

import pytest

from hive_jupyter.delegation import Delegation
from hive_jupyter.errors import CircuitOpen, HiveError, NodeDied, NodeStartError, NodeTimeout
from hive_jupyter.errors import remote_error as error_of
from hive_jupyter.swarm.channels import Message
from hive_jupyter.swarm.fallback import Instructions


class Wish:
    """Stands for a run: counts the wishes to stop."""

    stops = 0

    def stop(self):
        self.stops += 1


class Portal:
    """Stands for the loop: what is posted is called at once."""

    def __init__(self):
        self.records = []
        self.paused = []

    def delegation(self, *messages, error=None, collect=True):
        delegation = Delegation(
            "coder",
            "1 + 1",
            post=lambda action: action(),
            fall_back=lambda error: Instructions("1 + 1", str(error)),
            remember=self.records.append,
            collect=collect,
        )
        future = Future()
        delegation.follow(future)
        for message in messages:
            delegation.say(message)
        if error is None:
            future.set_result(Message("execute_reply", {"status": "ok"}))
        else:
            future.set_exception(error)
        return delegation

    def pause_output(self):
        self.paused.append(True)

    def resume_output(self):
        self.paused.append(False)


@pytest.fixture
def portal():
    return Portal()


def stream(text, name="stdout"):
    return Message("stream", {"name": name, "text": text}, size=len(text))


def result(text):
    return Message("execute_result", {"data": {"text/plain": text}, "metadata": {}})


CLEAR, CLEAR_LATER = Message("clear_output", {"wait": False}), Message("clear_output", {"wait": 1})


def test_messages_come_in_order_and_end_with_the_run(portal):
    delegation = portal.delegation(stream("a"), result("2"), stream("b"))

    assert ["stream", "execute_result", "stream"] == [message.type for message in delegation]
    assert [] == list(delegation)


def test_messages_come_live():
    """Before the run is over, on the caller's thread."""
    delegation = Delegation(
        "coder", "1", post=lambda _: None, fall_back=None, remember=[].append, collect=True
    )
    future = Future()
    delegation.follow(future)
    got = iter(delegation)
    threading.Timer(0.01, delegation.say, [stream("live")]).start()

    assert "live" == next(got).content["text"]
    future.set_result(None)
    assert "live" == delegation.outcome().stdout


def test_the_result_holds_what_a_notebook_would_store(portal):
    delegation = portal.delegation(
        stream("a"), stream("b"), stream("c", "stderr"), stream("d"), result("2")
    )
    outcome = delegation.outcome()

    assert ("ok", "2", "abd", "c", "coder") == (
        outcome.status, outcome.value_repr, outcome.stdout, outcome.stderr, outcome.worker
    )  # fmt: skip
    assert ["ab", "c", "d"] == [output["text"] for output in outcome.outputs[:3]]
    assert "execute_result" == outcome.outputs[3]["output_type"]
    assert outcome.seconds >= 0
    assert outcome is delegation.result


def test_clear_output_clears_at_once_or_with_what_comes_next(portal):
    at_once = portal.delegation(stream("a"), CLEAR).outcome()
    later = portal.delegation(stream("a"), CLEAR_LATER).outcome()
    replaced = portal.delegation(stream("a"), CLEAR_LATER, stream("b")).outcome()

    assert () == at_once.outputs
    assert ["a"] == [output["text"] for output in later.outputs]
    assert ["b"] == [output["text"] for output in replaced.outputs]


def test_nothing_is_kept_where_nobody_wants_it(portal):
    outcome = portal.delegation(stream("a"), collect=False).outcome()

    assert ("", ()) == (outcome.stdout, outcome.outputs)


@pytest.mark.parametrize(
    "refusal",
    [NodeStartError("no luck", node="coder"), CircuitOpen("it rests", node="coder", retry_at=1.0)],
)
def test_where_no_worker_can_run_it_there_are_instructions(portal, refusal):
    outcome = portal.delegation(error=refusal).outcome()

    assert isinstance(outcome, Instructions)
    assert str(refusal) in str(outcome)
    assert "instructions" == portal.records[0].status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (error_of("ZeroDivisionError", "division by zero", []), "error"),
        (NodeDied("dead", node="coder", cause="signal"), "died"),
        (NodeTimeout("late", node="coder", seconds=1), "timeout"),
    ],
)
def test_an_error_is_raised_and_what_was_said_before_is_kept(portal, error, status):
    delegation = portal.delegation(stream("before"), error=error)
    with pytest.raises(type(error)):
        delegation.outcome()

    assert "before" == delegation.result.stdout
    assert "error" == delegation.result.status
    assert status == portal.records[0].status


def test_the_history_has_one_line_for_a_run(portal):
    portal.delegation().outcome()
    (record,) = portal.records

    assert ("coder", "1 + 1", "ok", "") == (
        record.worker, record.code, record.status, record.detail
    )  # fmt: skip
    assert record.started > 0


def test_a_hive_that_is_closed_meanwhile_is_an_error_that_says_so(portal):
    delegation = Delegation(
        "coder", "1", post=lambda _: None, fall_back=None, remember=[].append, collect=True
    )
    future = Future()
    delegation.follow(future)
    future.cancel()

    with pytest.raises(HiveError, match="closed"):
        delegation.outcome()


def test_a_wish_to_stop_reaches_the_run_also_where_it_came_first(portal):
    delegation, run = portal.delegation(), Wish()
    delegation.interrupt()
    delegation.attach(run, node=portal)
    delegation.interrupt()

    assert 2 == run.stops


def running(portal, monkeypatch):
    """A delegation whose run goes on, where ten bytes may wait for the reader."""
    monkeypatch.setattr("hive_jupyter.delegation._BACKLOG_HIGH", 10)
    monkeypatch.setattr("hive_jupyter.delegation._BACKLOG_LOW", 5)
    delegation = Delegation(
        "coder", "1", post=lambda action: action(), fall_back=None, remember=[].append, collect=True
    )
    delegation.follow(Future())
    delegation.attach(run := Wish(), node=portal)
    return delegation, run


def test_a_reader_that_does_not_keep_up_pauses_the_worker(portal, monkeypatch):
    """And it goes on once the reader has caught up."""
    delegation, _ = running(portal, monkeypatch)
    for _ in range(4):
        delegation.say(stream("1234"))
    assert [True] == portal.paused

    got = iter(delegation)
    for _ in range(4):
        next(got)
    assert [True, False] == portal.paused


def test_a_reader_that_is_interrupted_stops_the_run_and_holds_up_nobody(portal, monkeypatch):
    """Ctrl-C in a script: what the run still says is dropped."""
    delegation, run = running(portal, monkeypatch)
    for _ in range(4):
        delegation.say(stream("1234"))
    monkeypatch.setattr(delegation, "_messages", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        delegation.outcome()
    for _ in range(4):
        delegation.say(stream("1234"))

    assert 1 == run.stops
    assert [True, False] == portal.paused


class Interrupted:
    def get(self):
        raise KeyboardInterrupt

    def put(self, message):
        pass
