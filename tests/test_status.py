"""The hive's status renders itself."""

import json

from markdown_it import MarkdownIt

from hive_jupyter.config import HiveConfig
from hive_jupyter.status import SwarmStatus, plain_values
from hive_jupyter.swarm.node import SwarmNode


def node(**values):
    status = SwarmNode("coder", config=HiveConfig()).status()
    return {**plain_values(status), **values}


def status(*notes, **workers):
    return SwarmStatus(workers=workers, direct=True, notes=list(notes))


def test_a_worker_that_never_ran_has_a_short_line():
    lines = str(status(coder=node())).splitlines()

    assert ["coder", "cold", "closed", "0", "0", "0", "0"] == lines[1].split()


def test_all_values_are_plain():
    """JSON can hold them: an agent or another program may ask."""
    shown = status(coder=node(drift=["environment"]))

    assert dict(shown) == json.loads(json.dumps(shown))


def test_a_worker_that_ran_shows_its_numbers():
    seen = node(
        state="busy", pid=123, uptime=65.0, calls=7, failures=1, restarts=2, queue=3, p50=0.01,
        p95=1.5, memory=3 * 2**20, successes=6, cpu_seconds=2.5,
    )  # fmt: skip
    line = str(status(coder=seen)).splitlines()[1]

    for word in (
        "busy, 3 waiting",
        "123",
        "1 min",
        "7",
        "10 ms",
        "1.5 s",
        "3 MB",
        "6",
        "2.5 s",
        "closed",
    ):
        assert word in line, line


def test_a_resting_worker_says_when_it_is_tried_again():
    resting = node(state="resting", circuit="open", retry_in=12.0)

    assert "resting  open for 12 s" in str(status(coder=resting))


def test_errors_drift_and_notes_stand_below_the_table():
    seen = node(last_error="it crashed", drift=["sys.path", "environment"])
    text = str(status("a note", coder=seen))

    assert "coder: last error: it crashed" in text
    assert "sys.path, environment changed" in text
    assert "%hive restart coder" in text
    assert text.endswith("a note")


def test_markdown_is_a_table_and_words_of_a_worker_are_no_markdown():
    seen = node(last_error="<script>alert(1)</script> | **bold** [x](y)\n# title")
    markdown = status(coder=seen)._repr_markdown_()

    assert markdown.startswith("| worker | state |")
    assert "<td>coder</td>" in MarkdownIt().enable("table").render(markdown)
    assert "\\<script\\>" in markdown
    assert "\\*\\*bold\\*\\*" in markdown
    assert "\n# title" not in markdown


def test_columns_of_the_text_are_aligned():
    lines = str(status(a=node(), longer_name=node())).splitlines()

    assert 1 == len({line.index("cold") for line in lines[1:]})


def test_a_terminal_shows_the_text():
    class Printer:
        def text(self, words):
            self.shown = words

    printer, shown = Printer(), status(coder=node())
    shown._repr_pretty_(printer, cycle=False)

    assert str(shown) == printer.shown
