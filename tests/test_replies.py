"""A worker's reply is believed as far as it can be true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.protocol import REPLY_METADATA
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.replies import payloads, text_of, users_error, variables


def names_of(told):
    return variables(Message("execute_reply", {}, {REPLY_METADATA: told}), ("before",))


@given(st.lists(st.text(max_size=120) | st.integers()))
def test_names_that_are_none_are_not_believed(names):
    """The worker tells them, and it ran anybody's code."""
    believed = names_of({"names": ["df", *names]})

    assert "df" == believed[0]
    assert all(name.isidentifier() and name.isprintable() for name in believed)


def test_a_name_that_is_too_long_to_be_shown_is_left_out():
    assert ("a" * 100,) == names_of({"names": ["a" * 100, "a" * 101]})


@pytest.mark.parametrize("told", [{}, {"names": None}, {"names": "df"}])
def test_a_reply_without_a_list_of_names_tells_of_none(told):
    assert () == names_of(told)


def test_a_reply_that_says_nothing_of_names_changes_nothing():
    """Another kernel's."""
    assert ("before",) == names_of(None)


@pytest.mark.parametrize("name", ["MemoryError", "_ArrayMemoryError"])
def test_a_lack_of_memory_comes_with_the_way_to_raise_its_limit(name):
    """numpy has a name of its own for it."""
    content = {"status": "error", "ename": name, "evalue": "too much", "traceback": []}
    reply = Message("execute_reply", content)
    limited = users_error(reply, "coder", 300 * 2**20, interrupted=False)
    unlimited = users_error(reply, "coder", None, interrupted=False)

    assert "restart coder --memory 600M" in str(limited)
    assert "restart coder --memory 600M" in limited.traceback[-1]
    assert "memory limit" not in str(unlimited)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"source": "page", "data": {"text/plain": "a"}}, "a\n"),
        ({"source": "page", "data": {"text/plain": ""}}, ""),
        ({"source": "set_next_input", "text": "a\n"}, "a\n"),
        ({"source": "set_next_input", "text": ""}, ""),
    ],
)
def test_what_a_payload_has_to_read_ends_its_line(part, text):
    (payload,) = payloads(Message("execute_reply", {"status": "ok", "payload": [part]}))
    assert text == text_of(payload)
