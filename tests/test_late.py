"""What runs say after their end is handed on whole, in order, and not too fast."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.swarm import late
from hive_jupyter.swarm.late import LateOutput
from hive_jupyter.swarm.messages import Message


def stream(text, name="stdout", size=1):
    return Message("stream", {"name": name, "text": text}, size=size)


def display(text):
    return Message("display_data", {"data": {"text/plain": text}}, size=1)


@pytest.fixture
def holds():
    return []


@pytest.fixture
def output(holds, monkeypatch):
    monkeypatch.setattr(late, "_INTERVAL", 0.001)
    return LateOutput(holds.append)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_what_is_printed_late_arrives_joined(output):
    heard = []
    output.expect("a", heard.append)
    for number in range(100):
        output.take("a", stream(f"{number} "))
    output.take("a", display("end"))
    await until(lambda: len(heard) == 2)

    assert list(map(str, range(100))) == heard[0].content["text"].split()
    assert "display_data" == heard[1].type


async def test_each_run_gets_its_own(output):
    heard = {"a": [], "b": []}
    for key, sink in heard.items():
        output.expect(key, sink.append)
    for _ in range(3):
        output.take("a", stream("a"))
        output.take("b", stream("b"))
    await until(lambda: all(len(said) == 3 for said in heard.values()))

    assert {"a"} == {message.content["text"] for message in heard["a"]}


async def test_a_run_that_nobody_expects_and_a_value_after_the_end_are_dropped(output):
    heard = []
    output.expect("a", heard.append)
    output.take("b", stream("b"))
    output.take("a", Message("execute_result", {"data": {}}))
    output.take("a", display("x"))
    await until(lambda: heard)

    assert ["display_data"] == [message.type for message in heard]


async def test_a_flood_stops_the_reading_until_it_has_been_handed_on(output, holds):
    heard = []
    output.expect("a", heard.append)
    for number in range(late._MOST_MESSAGES + 1):
        output.take("a", display(str(number)))
    assert [True] == holds

    await until(lambda: holds == [True, False])
    assert late._MOST_MESSAGES + 1 == len(heard)


async def test_where_the_reading_goes_on_the_oldest_are_left_out_and_counted(output):
    """A run is on, say; its own output must not wait."""
    heard = []
    output.expect("a", heard.append)
    most = 2 * late._MOST_MESSAGES
    for number in range(most + 7):
        output.take("a", display(str(number)))
    output.close()

    assert "7 messages" in heard[0].content["text"]
    assert [str(n) for n in range(7, most + 7)] == [
        message.content["data"]["text/plain"] for message in heard[1:]
    ]


async def test_large_messages_stop_the_reading_too(output, holds):
    output.expect("a", lambda _: None)
    output.take("a", stream("x", size=late._MOST_BYTES + 1))
    await until(lambda: holds == [True, False])


async def test_no_more_than_a_batch_goes_at_once(output):
    heard = []
    output.expect("a", heard.append)
    for number in range(100):
        output.take("a", display(str(number)))
    output._timer.cancel()
    output._hand_on()

    assert late._BATCH == len(heard)
    output.close()


async def test_a_sink_that_fails_holds_up_nobody(output):
    heard = []
    output.expect("bad", lambda _: 1 / 0)
    output.expect("good", heard.append)
    output.take("bad", display("x"))
    output.take("good", display("y"))
    await until(lambda: heard)


async def test_the_end_hands_on_what_waits(output):
    heard = []
    output.expect("a", heard.append)
    output.take("a", display("x"))
    output.close()

    assert heard


async def test_the_oldest_runs_are_forgotten(output):
    for number in range(late._REMEMBERED + 1):
        output.expect(str(number), lambda _: None)

    assert late._REMEMBERED == len(output._sinks)
    assert "0" not in output._sinks


said = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["stdout", "stderr", "display"]), st.text()),
    max_size=30,
)


@given(said)
def test_nothing_is_lost_and_each_runs_order_is_kept(said):
    async def play():
        heard = {"a": [], "b": []}
        output = LateOutput(lambda _: None)
        for key, sink in heard.items():
            output.expect(key, sink.append)
        for key, kind, text in said:
            output.take(key, display(text) if kind == "display" else stream(text, kind))
        output.close()
        return heard

    def flat(pieces):
        return [(kind, character) for kind, text in pieces for character in text]

    heard = asyncio.run(play())
    for key, messages in heard.items():
        pieces = [
            (
                message.content.get("name", "display"),
                message.content.get("text")
                or message.content.get("data", {}).get("text/plain", ""),
            )
            for message in messages
        ]
        assert flat([(kind, text) for to, kind, text in said if to == key]) == flat(pieces)
