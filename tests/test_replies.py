"""A worker's reply is believed as far as it can be true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.protocol import REPLY_METADATA
from hive_jupyter.swarm.messages import Message
from hive_jupyter.swarm.replies import variables


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
