"""The table of ``docs/security.md``, from what is expected of the probes."""

from itertools import groupby
from pathlib import Path

from tests.security.probe import COLUMNS, OPEN
from tests.security.probes import PROBES

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN = "<!-- the table: make security SECURITY_ARGS=--write -->\n"
END = "<!-- end of the table -->\n"
_HEADS = ("open", "workspace", "workspace, no namespaces", "strict", "strict, no namespaces")


def expected():
    """The table as Markdown."""
    return "\n".join(_lines())


def of_page():
    """What the page has."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def write():
    """Put the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    PAGE.write_text(before + BEGIN + expected() + after, encoding="utf-8")


def _lines():
    for topic, probes in groupby(PROBES.values(), lambda probe: probe.topic):
        yield f"\n### {topic}\n"
        yield f"| a cell that ... | {' | '.join(_HEADS)} | because |"
        yield f"|---|{'---|' * len(_HEADS)}---|"
        for probe in probes:
            cells = [probe.title, *(_cell(probe, column) for column in COLUMNS), probe.why]
            yield f"| {' | '.join(cells)} |"
    yield ""


def _cell(probe, column):
    if column in probe.holes:
        return "**possible** (a hole)"
    if column in probe.possible:
        return "possible" if column == OPEN else "**possible**"
    return "stopped"
