"""What a worker says arrives whole and in order."""

import pytest

from hive_jupyter.delegation import _BACKLOG_HIGH, Delegation
from hive_jupyter.swarm.channels import Message


def test_c_code_children_and_python_keep_their_order(hive):
    """What was written to the descriptor first is shown first."""
    code = (
        "import ctypes, os\n"
        "os.write(1, b'write\\n')\n"
        "print('print')\n"
        "os.system('echo child')\n"
        "ctypes.CDLL(None).printf(b'printf\\n')\n"
    )

    result = hive.delegate(code)

    assert "write\nprint\nchild\nprintf\n" == result.stdout


def test_what_c_code_writes_last_belongs_to_its_own_cell(hive):
    """Output of a descriptor never arrives after its cell."""
    hive.delegate("import os")
    written = [f"line {number}" for number in range(100)]

    seen = [hive.delegate(f"os.write(1, {line.encode()!r})").stdout for line in written]

    assert written == seen


def test_a_character_that_comes_in_two_writes_stays_whole(hive):
    """UTF-8 is decoded across reads; what is none becomes a replacement character."""
    result = hive.delegate(
        "import os, sys\n"
        "os.write(1, '\\u20ac'.encode()[:2]); sys.stdout.flush()\n"
        "os.write(1, '\\u20ac'.encode()[2:]); os.write(1, b'\\xff')"
    )

    assert "\u20ac\ufffd" == result.stdout


def test_the_streams_are_told_apart_and_stay_in_order(hive):
    """A notebook stores stdout and stderr as they alternated."""
    result = hive.delegate(
        "import sys\n"
        "for number in range(3):\n"
        "    print(number, flush=True)\n"
        "    print(number, file=sys.stderr, flush=True)\n"
    )

    assert [("stdout", "0\n"), ("stderr", "0\n"), ("stdout", "1\n")] == [
        (output["name"], output["text"]) for output in result.outputs[:3]
    ]


def test_a_flood_arrives_complete_and_in_order(hive):
    """Nothing is lost and nothing is reordered."""
    result = hive.delegate("for number in range(100_000): print(f'{number:099d}')")

    assert list(range(100_000)) == [int(line) for line in result.stdout.splitlines()]


def test_many_small_messages_arrive_complete_and_in_order(hive):
    """A flush after each line is a message each."""
    result = hive.delegate("for number in range(3000): print(number, flush=True)")

    assert list(range(3000)) == [int(line) for line in result.stdout.splitlines()]


def test_a_large_display_arrives(hive):
    """A message of 50 MB is a message."""
    result = hive.delegate(
        "from IPython.display import display\ndisplay({'text/plain': 'x' * 50_000_000}, raw=True)"
    )

    assert 50_000_000 == len(result.outputs[0]["data"]["text/plain"])


class _Node:
    """Notes whether its output is read."""

    reading = True

    def pause_output(self):
        self.reading = False

    def resume_output(self):
        self.reading = True


class _Run:
    def stop(self):
        raise AssertionError


@pytest.fixture
def node():
    return _Node()


@pytest.fixture
def delegation(node):
    delegation = Delegation(
        "coder",
        "pass",
        post=lambda action: action(),
        fall_back=lambda error: error,
        remember=lambda record: None,
        collect=False,
    )
    delegation.attach(_Run(), node)
    return delegation


def test_a_slow_reader_stops_the_reading_and_a_quick_one_starts_it_again(delegation, node):
    """The host holds a bounded backlog; the rest waits in the worker."""
    for _ in range(5):
        delegation.say(Message("stream", {}, size=_BACKLOG_HIGH // 4))

    assert not node.reading

    messages = iter(delegation)
    for _ in range(5):
        next(messages)
    delegation.say(Message("stream", {}, size=1))
    next(messages)

    assert node.reading


def test_a_reader_that_catches_up_while_reading_is_stopped_is_not_forgotten(delegation, node):
    """The last message may be taken between the count and the pause: nobody would resume later."""
    messages = iter(delegation)

    def pause_while_the_other_thread_takes_everything():
        node.reading = False
        delegation._taken = delegation._said

    node.pause_output = pause_while_the_other_thread_takes_everything
    delegation.say(Message("stream", {}, size=_BACKLOG_HIGH * 2))

    assert node.reading
    assert "stream" == next(messages).type
