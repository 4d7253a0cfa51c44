"""The demo shows a notebook in a terminal, and says whether it kept its promises."""

import io
import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat.v4
import psutil
import pytest

from hive_jupyter.demo import Screen, described, play, promises, shown_text
from hive_jupyter.errors import ConfigError


def screen(*, colour=False, width=60):
    return Screen(io.StringIO(), colour=colour, width=width)


def written(path: Path, *cells):
    """A notebook of cells; a text that begins with "#" or "**" is Markdown."""
    made = [
        nbformat.v4.new_markdown_cell(cell)
        if cell.startswith(("#", "**"))
        else nbformat.v4.new_code_cell(
            cell, metadata={"tags": ["raises-exception"]} if "# fails" in cell else {}
        )
        for cell in cells
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return path


# --- what is shown ---


def test_output_stands_beside_a_line_however_it_is_cut_into_pieces():
    shown = screen()

    for piece in ("one", " line\nand ", "another\n"):
        shown.output(piece)

    assert "  │ one line\n  │ and another\n" == shown.stream.getvalue()


def test_a_carriage_return_begins_the_line_anew():
    """A progress bar overwrites itself and not the margin."""
    shown = screen()

    shown.output("10 %\r20 %")
    shown.end_output()

    assert "  │ 10 %\r  │ 20 %\n" == shown.stream.getvalue()


def test_a_long_line_that_stands_alone_is_folded_beside_the_margin():
    shown = screen(width=14)

    shown.output("begun")
    shown.block("one line too long\na  row  of a table")

    expected = "  │ begun\n  │ one line\n  │ too long\n  │ a  row  of a table\n"
    assert expected == shown.stream.getvalue()


def test_without_colours_there_are_no_escapes():
    shown = screen()

    shown.output("\x1b[31mred\x1b[0m\n")
    shown.code("[1/1]", "%load_ext x\nprint('y')")
    shown.markdown("**bold** and `code`")

    assert "\x1b" not in shown.stream.getvalue()
    assert "bold and `code`" in shown.stream.getvalue()


def test_with_colours_code_is_highlighted_and_stays_itself():
    plain, coloured = screen(), screen(colour=True)
    source = "%%delegate -w a\n\nfor x in y:\n    %time f'{x}'\n"

    plain.code("[1/1]", source)
    coloured.code("[1/1]", source)

    assert "\x1b[34mfor\x1b" in coloured.stream.getvalue()
    assert plain.stream.getvalue() == shown_text(
        {"output_type": "stream", "text": coloured.stream.getvalue()}
    )


def test_markdown_is_filled_to_the_width():
    shown = screen(width=30)

    shown.markdown("# Title\n\nA [link](https://x.y) and words that go on\nand on.\n\n- an item")

    expected = """\
        Title

        A link and words that go on
        and on.

        - an item

        """
    assert textwrap.dedent(expected) == shown.stream.getvalue()


def test_no_color_is_respected_in_a_terminal(monkeypatch):
    leader, follower = pty.openpty()
    with os.fdopen(leader), os.fdopen(follower, "w") as terminal:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        assert Screen.of(terminal).colour

        monkeypatch.setenv("NO_COLOR", "1")
        assert not Screen.of(terminal).colour


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"image/png": "A" * 16384, "text/plain": "<Figure>"}, "(picture, 12 KB)"),
        ({"image/svg+xml": "<svg/>", "text/plain": "x"}, "(picture, 6 B)"),
        ({"text/html": "<table>", "text/plain": "a  b"}, "a  b"),
        (
            {"text/html": "<b>", "text/plain": "<IPython.core.display.HTML object>"},
            "(HTML, 3 B)",
        ),
        (
            {"text/markdown": "# m", "text/plain": "<IPython.core.display.Markdown object>"},
            "# m",
        ),
        ({"application/json": {}}, "(application/json)"),
    ],
)
def test_a_display_is_described_by_what_a_terminal_can_show(data, expected):
    assert expected == described(data)


def test_promises_are_the_code_in_the_sentence_that_begins_with_you_should_see():
    markdown = "Call `f`.\n\n**You should see** `1`\nand `2 3`.\n\nNot `4`."

    assert ["1", "2 3"] == promises(markdown)


# --- playing, with real kernels ---


def test_a_notebook_that_keeps_its_word_is_a_success(tmp_path):
    notebook = written(
        tmp_path / "good.ipynb",
        "# A title\n\n**You should see** `3` and `Path`.",
        "import os, sys\nprint(1 + 2)\nos.getcwd(), sys.executable, 'Path'",
        "1 / 0  # fails",
    )
    shown = screen(width=80)

    assert 0 == play(notebook, shown)
    text = shown.stream.getvalue()
    assert "[1/2]" in text
    assert "│ 3\n" in text
    assert repr(str(tmp_path)) in text
    assert repr(sys.executable) in text
    assert "ZeroDivisionError: division by zero" in text
    assert "All 2 cells did what they promised" in text


def test_broken_promises_are_named_and_the_rest_still_runs(tmp_path):
    notebook = written(
        tmp_path / "bad.ipynb", "**You should see** `4`.", "print(5)", "6  # fails", "print(7)"
    )
    shown = screen(width=80)

    assert 1 == play(notebook, shown)
    text = shown.stream.getvalue()
    assert "its output has no '4'" in text
    assert "it was to end with an exception, and did not" in text
    assert "│ 7" in text
    assert "Not as promised: cell 1, 2." in text


def test_an_unexpected_error_ends_the_play(tmp_path):
    notebook = written(tmp_path / "bad.ipynb", "undefined", "print('never')")
    shown = screen(width=80)

    assert 1 == play(notebook, shown)
    text = shown.stream.getvalue()
    assert "not as promised: an unexpected NameError" in text
    assert "never" not in text
    assert "Not as promised: cell 1." in text


def test_a_kernel_that_dies_ends_the_play(tmp_path):
    notebook = written(tmp_path / "bad.ipynb", "import os\nos._exit(3)", "print('never')")
    shown = screen(width=80)

    assert 1 == play(notebook, shown)
    assert "Kernel died" in shown.stream.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_play_and_leaves_nothing(tmp_path, number):
    """Ctrl-C while a cell runs: the kernel and all its children are gone when the demo ends."""
    notebook = written(
        tmp_path / "long.ipynb",
        "import subprocess, time\nprint('begun', flush=True)\ntime.sleep(60)",
    )
    program = (
        "import sys; from pathlib import Path; from hive_jupyter.demo import Screen, play; "
        f"sys.exit(play(Path({str(notebook)!r}), Screen.of(sys.stdout)))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as demo:
        text = ""
        while "│ begun" not in text:
            text += demo.stdout.readline()
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        text += demo.stdout.read()

    assert 128 + number == demo.returncode
    assert "Stopped." in text
    assert "not as promised" not in text
    assert children
    assert not any(child.is_running() for child in children)
    assert [] == list(tmp_path.glob("hive-demo-*"))


@pytest.mark.parametrize("content", [None, "{", '{"cells": 3}'])
def test_what_is_no_notebook_is_named(tmp_path, content):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=r"x\.ipynb"):
        play(path, screen())
