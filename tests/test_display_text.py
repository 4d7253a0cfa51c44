"""Of a worker's text a terminal obeys colours, and nothing else."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.display.text import fetching_nothing, line, plain

# What terminals obey, in pieces.
PIECES = st.sampled_from(
    [*"\x1b\x9b\x9d\x9c\x07\r\n\t\b\0\x7f\x85\x0e[]0;:m?h #\\P_cJé", "31", "text"]
)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join)
COLOUR = re.compile(r"\x1b\[[\d;:]*m")


@pytest.mark.parametrize(
    "text",
    ["", "plain", "two\nlines\t.", "50%\r60%", "a\bb", "é 漢 🎉", "\x1b[1;38:5:9mred\x1b[0m"],
)
def test_text_colours_and_what_moves_within_a_line_stay(text):
    assert text == plain(text)


@pytest.mark.parametrize(
    "obeyed",
    [
        "\x1b[2J",
        "\x1b[1;1H",
        "\x1b[10A",
        "\x1b[?1049h",
        "\x1b[31;1 q",
        "\x9b2J",
        "\x1b]0;title\x07",
        "\x1b]52;c;aGk=\x1b\\",
        "\x9d0;title\x9c",
        "\x1bP+q544e\x1b\\",
        "\x1b_application\x1b\\",
        "\x1bc",
        "\x1b(0",
        "\x1b#8",
        "\x07",
        "\0",
        "\x0b",
        "\x0c",
        "\x0e",
        "\x7f",
        "\x85",
        "\x1b[" + "1;" * 100 + "m",
    ],
)
def test_what_does_more_goes_with_its_arguments(obeyed):
    assert "ab" == plain(f"a{obeyed}b")


def test_of_a_link_its_text_stays():
    assert "here" == plain("\x1b]8;;https://example.org\x1b\\here\x1b]8;;\x1b\\")


@given(TEXTS)
def test_nothing_is_left_that_a_terminal_obeys_but_colours(text):
    left = COLOUR.sub("", plain(text))
    assert not re.search(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]", left)


@given(TEXTS, TEXTS)
def test_two_texts_one_after_the_other_are_no_more_than_each(one, other):
    """So it does not matter where a worker cuts what it prints."""
    both = plain(one) + plain(other)
    assert both == plain(both)


@given(st.text())
def test_of_text_without_controls_nothing_is_lost(text):
    printed = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)
    assert printed == plain(printed)


@pytest.mark.parametrize(
    "piece", ["\x1b", "\x1b[", "\x1b[0", "\x1b]a", "\x9d", "\x9b0", "\x1bP\x9c", "\x1b ", "\x1b[1m"]
)
def test_a_flood_of_what_is_obeyed_takes_no_longer_than_its_length(piece):
    began = time.process_time()
    plain(piece * 100_000)
    assert time.process_time() - began < 2


@given(TEXTS, st.integers(10, 40))
def test_a_line_is_one_line_of_bounded_length(text, most):
    made = line(text, most)
    assert len(made) <= most
    assert made.isprintable()


def test_a_cut_line_says_so():
    assert "xxxxxx ..." == line("x" * 11, 10)


@pytest.mark.parametrize("command", ["style", "bbox", "mmlToken"])
def test_no_formula_puts_in_what_is_fetched(command):
    """MathJax fetches what a style or a picture of a formula names, in JupyterLab as well."""
    formula = rf"$\{command}{{cursor: url(//x.y)}}{{x}} \def\a{{\{command}}} \\{command}$"
    assert f"\\{command}" not in fetching_nothing(formula)
    assert formula == fetching_nothing(formula).replace("\u200b", "")


@pytest.mark.parametrize("text", [r"$\frac{a}{b} \textstyle \displaystyle \styles$", r"C:\bin", ""])
def test_another_formula_stays(text):
    assert text == fetching_nothing(text)
