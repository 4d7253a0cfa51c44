"""How much of what a run says is shown, and where the rest is."""

import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.display.rules import FRAMED, INERT
from hive_jupyter.swarm import outlet as outlet_module
from hive_jupyter.swarm import surplus as surplus_module
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.outlet import Outlet
from hive_jupyter.swarm.surplus import Surplus

MOST = 1000


def stream(text, name="stdout"):
    return Message("stream", {"name": name, "text": text}, size=len(text) + 700)


def display(size, name="", kind="display_data"):
    transient = {"display_id": name} if name else {}
    content = {"data": {"text/plain": "x"}, "metadata": {}, "transient": transient}
    return Message(kind, content, size=size)


def text_of(messages, name="stdout"):
    said = [message.content for message in messages if message.type == "stream"]
    return "".join(content["text"] for content in said if content["name"] == name)


@pytest.fixture
def outlet(tmp_path):
    return Outlet(most=MOST, surplus=Surplus(str(tmp_path)))


@pytest.fixture
def kept(tmp_path):
    """What the file holds for which there is no room; there is one at most."""

    def read():
        paths = list(tmp_path.iterdir())
        assert len(paths) <= 1
        return paths[0].read_text() if paths else ""

    return read


# Rules


def test_without_a_rule_and_a_limit_a_message_is_what_it_was():
    message = stream("\x1b[2J" * 1000)
    assert [message] == Outlet().passed(message)


@pytest.mark.parametrize("rule", [FRAMED, INERT])
def test_nothing_of_a_message_passes_but_its_content(rule):
    said = Message("display_data", {"data": {}}, {"own": 1}, (b"buffer",), 10)
    (shown,) = Outlet(rule, "coder").passed(said)
    assert ({}, (), 10) == (shown.metadata, shown.buffers, shown.size)


def test_a_reply_tells_an_exception_as_it_was_shown():
    """So the one that was held back is known again."""
    error = {"ename": "E", "evalue": "\x07", "traceback": ["\x1b[2Jline"]}
    outlet = Outlet(FRAMED, "coder")
    (shown,) = outlet.passed(Message("error", error))
    reply = outlet.reply(Message("execute_reply", {"status": "error", "own": 1, **error}))

    assert {**shown.content, "status": "error", "own": 1} == reply.content


def test_a_reply_without_an_exception_stays_as_it_is():
    reply = Message("execute_reply", {"status": "ok", "evalue": "\x07"})
    assert reply is Outlet(FRAMED).reply(reply)


# How much


def test_what_fits_is_shown_and_no_file_made(outlet, kept):
    messages = [stream("x" * 899), display(50), display(50)]
    assert messages == [shown for message in messages for shown in outlet.passed(message)]
    assert [] == outlet.close()
    assert "" == kept()


def test_what_is_printed_beyond_that_is_in_a_file_that_is_named_once(outlet, kept, tmp_path):
    shown = [*outlet.passed(stream("a" * 2000)), *outlet.passed(stream("b" * 2000))]
    (path,) = tmp_path.iterdir()

    assert "a" * 900 == text_of(shown)
    assert 1 == text_of(shown, "stderr").count(str(path))
    assert "max_output" in text_of(shown, "stderr")
    assert "a" * 1100 + "b" * 2000 == kept()


def test_the_file_is_for_its_owner_alone(outlet, tmp_path):
    outlet.passed(stream("a" * 2000))
    (path,) = tmp_path.iterdir()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_what_is_displayed_beyond_that_is_kept_as_a_notebook_stores_it(outlet, kept):
    shown = outlet.passed(display(2000, "name"))
    assert ["stream"] == [message.type for message in shown]
    stored = {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    assert stored == json.loads(kept())


def test_what_is_too_large_is_kept_without_being_looked_at(tmp_path, kept, monkeypatch):
    """To build it anew would take the longer the larger it is."""
    monkeypatch.setattr(outlet_module.rules, "passed", lambda *_: pytest.fail("it was looked at"))
    said = Message("display_data", {"data": {"text/html": "<p id=x>"}}, size=2000)
    Outlet(FRAMED, "coder", MOST, Surplus(str(tmp_path))).passed(said)
    assert {"text/html": "<p id=x>"} == json.loads(kept())["data"]


def test_a_value_is_shown_after_much_text(outlet):
    outlet.passed(stream("x" * 5000))
    value = display(90, kind="execute_result")
    assert [value] == outlet.passed(value)


def test_exceptions_count_too(outlet, kept):
    """A cell may print as many as it likes; the one that ends it comes with the reply as well."""
    outlet.passed(stream("x" * 5000))
    error = Message("error", {"ename": "E", "evalue": "", "traceback": []}, size=60)

    assert [error] == outlet.passed(error)
    assert [] == outlet.passed(error)
    assert '"ename": "E"' in kept()


def test_what_is_cleared_counts_no_more(outlet, kept):
    """A loop may show its latest table for hours."""
    clear = Message("clear_output", {"wait": True})
    for _ in range(100):
        assert [clear] == outlet.passed(clear)
        message = stream("x" * 800)
        assert [message] == outlet.passed(message)
    assert "" == kept()


def test_a_display_that_is_updated_counts_once(outlet, kept):
    outlet.passed(display(500, "a"))
    for size in (900, 100, 900):
        update = display(size, "a", "update_display_data")
        assert [update] == outlet.passed(update)
    assert ["stream"] == [message.type for message in outlet.passed(display(200))]


def test_an_update_counts_for_each_display_of_its_name(outlet):
    for _ in range(3):
        outlet.passed(display(100, "a"))
    fits, does_not = (display(size, "a", "update_display_data") for size in (300, 400))

    assert [fits] == outlet.passed(fits)
    assert ["stream"] == [message.type for message in outlet.passed(does_not)]
    assert [] == outlet.passed(display(200))


def test_a_display_that_comes_again_may_update_those_of_its_name(outlet):
    """JupyterLab does so."""
    for _ in range(3):
        outlet.passed(display(100, "a"))
    assert ["stream"] == [message.type for message in outlet.passed(display(300, "a"))]


def test_a_line_that_is_overwritten_counts_once(outlet, kept):
    """As a progress bar does it, for hours."""
    for _ in range(1000):
        bar = stream(f"\r{'#' * 70}")
        assert [bar] == outlet.passed(bar)
    assert "" == kept()


@given(st.lists(st.sampled_from(["a", "bc", "\n", "\r\n", "\rab\ncd", "\rx", ""])))
def test_what_counts_is_what_a_front_end_keeps(pieces):
    """A front-end takes away what a carriage return overwrites."""
    lines = "".join(pieces).replace("\r\n", "\n").split("\n")
    kept = "\n".join(line.rpartition("\r")[2] for line in lines)
    total = line = 0
    for piece in pieces:
        grown, line = outlet_module._growth(piece, line)
        total += grown
    assert len(kept) == total


def test_what_does_not_fit_into_the_file_is_said_at_the_end(outlet, kept, monkeypatch):
    monkeypatch.setattr(surplus_module, "_LARGEST_FILE", 1000)
    outlet._surplus._left = 1000
    outlet.passed(stream("x" * 10_000))
    (told,) = outlet.close()

    assert "Not all" in told.content["text"]
    assert "1000 B" in told.content["text"]
    assert 1000 == len(kept())


def test_where_no_file_can_be_made_it_is_said(tmp_path):
    outlet = Outlet(most=MOST, surplus=Surplus(str(tmp_path / "gone")))
    shown = outlet.passed(stream("x" * 10_000))

    assert "is lost (No such file" in text_of(shown, "stderr")
    assert "x" * 900 == text_of(shown)
    assert [] == outlet.close()


def test_the_worker_cannot_choose_the_file(outlet, tmp_path, monkeypatch):
    """It may write into that folder: a link to something of the user's, say."""
    monkeypatch.setattr(surplus_module.secrets, "token_hex", lambda _: "guessed")
    target = tmp_path.parent / "target"
    target.write_text("the user's")
    os.symlink(target, tmp_path / "output-guessed.txt")
    shown = outlet.passed(stream("x" * 10_000))

    assert "is lost" in text_of(shown, "stderr")
    assert "the user's" == target.read_text()


def test_nothing_is_kept_after_the_end_of_the_cell(outlet, kept):
    outlet.passed(stream("x" * 2000))
    before = kept()
    outlet.close()
    outlet.passed(stream("y" * 2000))
    assert before == kept()


@given(st.lists(st.text(max_size=300), max_size=20))
def test_nothing_that_is_printed_is_lost(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("outlet")
    outlet = Outlet(most=MOST, surplus=Surplus(str(folder)))
    shown = [part for text in texts for part in outlet.passed(stream(text))]
    outlet.close()
    kept = "".join(path.read_bytes().decode() for path in folder.iterdir())
    assert "".join(texts) == text_of(shown) + kept
