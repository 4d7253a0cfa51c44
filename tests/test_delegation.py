"""One run, seen from the thread that asked for it."""

import signal
import threading
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.delegation import Delegation, ValuesDelegation
from hive_jupyter.errors import (
    CircuitOpen,
    HiveError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    TransferError,
)
from hive_jupyter.errors import remote_error as error_of
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message

OK = Message("execute_reply", {"status": "ok"})


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

    def delegation(self, *messages, error=None, collect=True, kind=Delegation, answer=OK):
        delegation = kind(
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
            future.set_result(answer)
        else:
            future.set_exception(error)
        return delegation

    def pause_output(self, run):
        self.paused.append(True)

    def resume_output(self, run):
        self.paused.append(False)


@pytest.fixture
def portal():
    return Portal()


def stream(text, name="stdout"):
    return Message("stream", {"name": name, "text": text}, size=len(text))


def display(text, display_id=None, kind="display_data"):
    transient = {} if display_id is None else {"display_id": display_id}
    content = {"data": {"text/plain": text}, "metadata": {}, "transient": transient}
    return Message(kind, content, size=len(text))


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


def test_what_is_cleared_is_kept_nowhere(portal):
    """Else a cell that shows how far it is, and clears that, takes ever more memory."""
    delegation = portal.delegation(stream("a"), stream("b", "stderr"), CLEAR, stream("c"))

    outcome = delegation.outcome()

    assert ("c", "") == (outcome.stdout, outcome.stderr)


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
    """However often somebody asks for its outcome."""
    delegation = portal.delegation()
    assert delegation.outcome().status == delegation.outcome().status
    (record,) = portal.records

    assert ("coder", "1 + 1", "ok", "") == (
        record.worker, record.code, record.status, record.detail
    )  # fmt: skip
    assert record.started > 0


@pytest.mark.parametrize("error", [None, TransferError("no such variable")])
def test_values_are_handed_over_once(portal, error):
    """Who asks again learns that, and is not told that all went well."""
    delegation = portal.delegation(error=error, kind=ValuesDelegation, answer={"x": 1})
    if error is None:
        assert {"x": 1} == delegation.outcome()
    else:
        with pytest.raises(TransferError, match="no such variable"):
            delegation.outcome()

    with pytest.raises(HiveError, match="was asked for already"):
        delegation.outcome()
    assert ["ok" if error is None else "error"] == [record.status for record in portal.records]


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


def test_what_is_printed_one_after_the_other_comes_in_one_piece(portal):
    """Each print may be a message; a front-end that gets thousands of them drops some."""
    lines = [stream(f"{number}\n") for number in range(1000)]
    got = list(portal.delegation(*lines, stream("!", "stderr"), display("x"), stream("end")))

    assert ["stream", "stream", "display_data", "stream"] == [message.type for message in got]
    assert "".join(f"{number}\n" for number in range(1000)) == got[0].content["text"]
    assert ["stdout", "stderr", "stdout"] == [
        message.content["name"] for message in got if message.type == "stream"
    ]


def test_a_piece_of_what_is_printed_does_not_grow_without_end(portal):
    got = list(portal.delegation(*[stream("x" * 2**18) for _ in range(10)]))

    assert 10 * 2**18 == sum(len(message.content["text"]) for message in got)
    assert max(len(message.content["text"]) for message in got) <= 2 * 2**20


@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr", "display"]), st.text(max_size=3)),
        max_size=30,
    )
)
def test_joining_loses_nothing_and_keeps_the_order(said):
    messages = [display(text) if kind == "display" else stream(text, kind) for kind, text in said]
    heard = [
        (message.content.get("name", "display"), character)
        for message in Portal().delegation(*messages)
        for character in [
            *message.content.get("text", ""),
            *message.content.get("data", {}).get("text/plain", ""),
        ]
    ]
    assert [(kind, character) for kind, text in said for character in text] == heard


def test_what_is_updated_is_kept_as_it_was_last(portal):
    delegation = portal.delegation(
        display("a", "1"), display("b", "2"), display("c", "1", "update_display_data")
    )

    assert ["c", "b"] == [output["data"]["text/plain"] for output in delegation.outcome().outputs]
    assert not any("transient" in output for output in delegation.result.outputs)


def running(portal, monkeypatch):
    """A delegation whose run goes on, where ten bytes may wait for the reader."""
    monkeypatch.setattr("hive_jupyter.delegation._MESSAGE_COST", 0)
    monkeypatch.setattr(Delegation, "most_waiting", 10)
    monkeypatch.setattr(Delegation, "few_waiting", 5)
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
        delegation.say(display("1234"))
    assert [True] == portal.paused

    got = iter(delegation)
    for _ in range(4):
        next(got)
    assert [True, False] == portal.paused


def test_a_reader_that_catches_up_while_reading_is_stopped_is_not_forgotten(portal, monkeypatch):
    """The last message may be taken between the count and the pause: nobody would resume later."""
    delegation, _ = running(portal, monkeypatch)

    def pause_while_the_other_thread_takes_everything(run):
        portal.paused.append(True)
        delegation._taken = delegation._said

    monkeypatch.setattr(portal, "pause_output", pause_while_the_other_thread_takes_everything)
    delegation.say(display("x" * 20))

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


def test_a_signal_that_does_not_wake_the_reader_is_noticed_all_the_same(portal, monkeypatch):
    """It came just before the wait began; here another thread gets it, which is the same."""
    delegation, run = running(portal, monkeypatch)

    reads, over = threading.Event(), threading.Event()
    get = delegation._get

    def noted_get(timeout):
        reads.set()
        return get(timeout)

    def send_to_this_thread():
        reads.wait(60)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        over.wait(60)

    monkeypatch.setattr(delegation, "_get", noted_get)
    other = threading.Thread(target=send_to_this_thread)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        delegation.outcome()
    over.set()
    other.join()

    assert 1 == run.stops


class Interrupted:
    def get(self, timeout):
        raise KeyboardInterrupt

    def put(self, message):
        pass
