"""How far a map is, for who looks on."""

import io
import sys
import threading

import pytest
import tqdm.std

from hive_jupyter import mapping
from hive_jupyter.mapping import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(clock, monkeypatch):
    """A terminal, once the test itself runs; before, pytest puts its own in the place."""
    terminal = Terminal()
    monkeypatch.setattr(mapping, "sys", Streams(terminal))
    return terminal


class Streams:
    modules = sys.modules

    def __init__(self, stderr):
        self.stderr = stderr


@pytest.fixture
def clock(monkeypatch):
    """What the time is, for the bar."""
    clock = [100.0]
    monkeypatch.setattr(mapping.time, "monotonic", lambda: clock[0])
    return clock


def test_what_is_soon_over_has_no_bar(terminal, clock):
    bar = Bar(3)
    clock[0] += 0.9
    bar.move(3)
    bar.close()

    assert "" == terminal.getvalue()


@pytest.mark.parametrize("total", [10, None])
def test_the_bar_of_tqdm_comes_after_a_second_and_is_gone_at_the_end(
    terminal, clock, monkeypatch, total
):
    # which one it is, tqdm finds out where it is imported first, which is another test's
    monkeypatch.setitem(sys.modules, "tqdm.auto", tqdm.std)
    before = set(threading.enumerate())
    bar = Bar(total)
    clock[0] += 1.1
    bar.move(4)

    assert ("4/10" if total else "4item") in terminal.getvalue()
    assert bar.pause > 0
    bar.close()
    assert "" == terminal.getvalue().rpartition("\r")[2].strip()
    assert before == set(threading.enumerate())


@pytest.mark.parametrize(("total", "shown"), [(10, "4 of 10 items"), (None, "4 items")])
def test_without_tqdm_it_is_text(terminal, clock, monkeypatch, total, shown):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    bar = Bar(total)
    clock[0] += 1.1
    bar.move(4)

    assert shown in terminal.getvalue()
    bar.clear()
    bar.close()
    assert "" == terminal.getvalue().rpartition("\r")[2].strip()


def test_it_is_drawn_no_more_often_than_eyes_can_follow(terminal, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    bar = Bar(None)
    clock[0] += 1.1
    for done in range(1000):
        bar.move(done)
    bar.close()

    assert terminal.getvalue().count("items") <= 2


def test_a_log_file_gets_none(monkeypatch, clock):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.delitem(sys.modules, "ipykernel.kernelapp", raising=False)
    bar = Bar(3)
    clock[0] += 2
    bar.move(2)
    bar.close()

    assert "" == log.getvalue()
