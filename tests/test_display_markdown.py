"""Markdown of a worker becomes HTML of the host's making."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.display import markup
from hive_jupyter.display.markdown import rendered
from tests.markup_soup import SOUPS, words
from tests.test_display_markup import check_harmless

PIECES = words("# - * > ` ** _ [a]( ) ![ ]( < > $ $$ | \\ javascript:alert(1) <script> &#106; x 1.")
PIECES |= words("<javascript:1> \ue0f0 \ue0f10\ue0f1 \\begin{a} \\end{a}")
PIECES |= st.sampled_from(["```\n", "|-|-|\n", "\n", "\n\n", "    ", "- ", "[a]: javascript:1\n"])
MARKDOWN = st.lists(PIECES | SOUPS, max_size=12).map("".join)


@given(MARKDOWN)
def test_no_markdown_takes_hold_of_the_page(text):
    check_harmless(rendered(text))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# a\n\n*b* **c** ~~d~~", "<h1>a</h1>\n<p><em>b</em> <strong>c</strong> <s>d</s></p>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("a <b>b</b> <script>c</script>", "<p>a <b>b</b> </p>\n"),
        ("`a < b`", "<p><code>a &lt; b</code></p>\n"),
        ("![a]()", '<p><img alt="a"></p>\n'),
        ("[a](javascript:1)", "<p>[a](javascript:1)</p>\n"),
    ],
)
def test_what_becomes_of_it(text, html):
    assert html == rendered(text)


def test_a_picture_from_elsewhere_is_named_and_not_loaded():
    html = rendered("![a](https://x.y/?secret)")
    assert html.startswith('<p><img alt="a"></p>\n<p><em>Not loaded: https://x.y/?secret. ')


def test_a_table_is_one():
    assert "<td>1</td>" in rendered("|a|b|\n|-|-|\n|1|2|")


@pytest.mark.parametrize(
    "formula",
    [
        "$a_1 * b_2 * c$",
        "$$\nx\n=\n- y\n\\\\\n+ z\n$$",
        "\\begin{align}\na &= b_1 \\\\\n- c\n\\end{align}",
        "$a < b$",
    ],
)
def test_a_formula_is_left_to_the_front_end(formula):
    shown = markup.text_of(rendered(f"before {formula} after"))
    assert f"before {formula} after" == shown.strip()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it costs $5 or *$10*", "it costs $5 or $10"),
        ("`$a_1` and `$b_1`", "$a_1 and $b_1"),
        ("`$a$`", "$a$"),
    ],
)
def test_what_only_looks_like_a_formula_is_markdown(text, shown):
    assert shown == markup.text_of(rendered(text)).strip()


def test_long_markdown_is_shown_as_it_is_written():
    text = "*a* <script>" * 10_000
    assert text == markup.text_of(rendered(text))
    assert "<script" not in rendered(text)


BOMBS = [
    "[",
    "](",
    "**a",
    "> ",
    "`a``",
    "- a\n  ",
    "![",
    "|a|b|\n|-|-|\n",
    "\\begin{a}",
    "a\n=\n",
    "[[]",
]


@pytest.mark.parametrize("piece", BOMBS)
def test_a_bomb_takes_a_time_and_space_that_its_length_bounds(piece):
    text = piece * (50_000 // len(piece))
    began = time.process_time()
    html = rendered(text)
    assert time.process_time() - began < 5
    assert len(html) < 20 * len(text)


def test_a_table_of_missing_cells_is_bounded():
    columns, rows = 6_000, 6_000
    head, line, body = "|a" * columns, "|-" * columns, "x\n" * rows
    html = rendered(f"{head}\n{line}\n{body}")
    assert len(html) < 3_000_000
