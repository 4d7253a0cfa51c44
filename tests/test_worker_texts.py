"""Replacements in a text and their diff, line ends, encodings."""

import subprocess

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_jupyter.worker.tools import texts

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)

some_text = st.text("ab\n\r", max_size=60)


@st.composite
def edited(draw):
    """A text and edits in it, in order and without overlap."""
    text = draw(some_text)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    edits = [
        texts.Edit(start, end, draw(st.text("xyab\n", max_size=4)))
        for start, end in zip(places[::2], places[1::2], strict=False)
    ]
    return text, edits


@shared
@given(edited())
def test_git_makes_of_a_diff_what_the_edits_made(tmp_path, example):
    text, edits = example
    after = texts.apply(text, edits)
    diff = texts.unified_diff("a.txt", text, edits)

    assert bool(diff) is (text != after)
    if diff:
        path = tmp_path / "a.txt"
        path.write_bytes(text.encode())
        command = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "-"]
        subprocess.run(command, cwd=tmp_path, input=diff.encode(), check=True)
        assert after.encode() == (path.read_bytes() if path.exists() else b"")


def test_a_diff_of_many_edits_shows_each_with_what_is_around():
    text = "".join(f"{number}\n" for number in range(1, 31))
    edits = [texts.Edit(2, 3, "x"), texts.Edit(text.index("30"), text.index("30") + 2, "y")]

    assert (
        "--- a/a\n+++ b/a\n@@ -1,5 +1,5 @@\n 1\n-2\n+x\n 3\n 4\n 5\n"
        "@@ -27,4 +27,4 @@\n 27\n 28\n 29\n-30\n+y\n"
    ) == texts.unified_diff("a", text, edits)


@given(some_text)
def test_lines_are_counted_as_git_does(text):
    assert texts.lines_of(text) == [
        line.removesuffix("\n").removesuffix("\r") for line in text.splitlines(keepends=True)
    ] or "\r" in text.replace("\r\n", "")


@given(some_text, st.sampled_from(["\n", "\r\n"]))
def test_a_kind_of_line_ends_given_is_the_one_found(text, end):
    given_ends = texts.with_line_end(text.replace("\r", ""), end)

    assert texts.line_end(given_ends) == (end if "\n" in text else "")


@given(st.binary(max_size=200))
def test_any_bytes_have_an_encoding_or_are_no_text(data):
    encoding = texts.Encoding.of(data)
    try:
        text = encoding.decode(data)
    except ValueError:
        return
    if encoding.name in ("utf-8", "utf-16-le", "utf-16-be", "latin-1"):
        assert data == encoding.encode(text)
