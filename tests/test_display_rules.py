"""What may pass of each kind of message, by the rule for the worker's outputs."""

import json

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import IFrame, YouTubeVideo
from sklearn.linear_model import LogisticRegression

from hive_jupyter.display.rules import FRAMED, INERT, RULES, TRUSTED, passed, stricter
from hive_jupyter.policy import OUTPUT_RULES
from tests.markup_soup import SOUPS, words
from tests.test_display_images import drawn, encoded
from tests.test_display_markup import check_harmless

PNG = encoded(drawn("image/png"))


def display(data, kind="display_data", rule=FRAMED, **rest):
    return passed(rule, kind, {"data": data, "metadata": {}, **rest}, "coder")


def test_the_rules_are_those_of_the_policies():
    assert RULES == tuple(OUTPUT_RULES.values())


def test_of_two_rules_the_stricter_one_counts():
    assert [TRUSTED, FRAMED, INERT] == sorted(RULES, key=RULES.index)
    assert INERT == stricter(INERT, FRAMED) == stricter(TRUSTED, INERT)
    assert FRAMED == stricter(TRUSTED, FRAMED)


@pytest.mark.parametrize("kind", ["stream", "display_data", "error", "clear_output"])
def test_of_a_trusted_worker_all_passes_as_it_is(kind):
    content = {"text": "\x1b[2J", "data": {"text/html": "<script>"}, "own": 1}
    assert content is passed(TRUSTED, kind, content, "coder")


# Text


def test_a_stream_is_text_with_colours():
    said = {"name": "stdout", "text": "\x1b[2J\x1b[31mred", "more": 1}
    assert {"name": "stdout", "text": "\x1b[31mred"} == passed(FRAMED, "stream", said, "coder")


@pytest.mark.parametrize("name", ["stderr", "stdout", "other", ""])
def test_a_stream_is_one_of_two(name):
    shown = passed(INERT, "stream", {"name": name, "text": ""}, "coder")
    assert ("stderr" if name == "stderr" else "stdout") == shown["name"]


def test_clearing_says_only_whether_it_waits():
    assert {"wait": True} == passed(INERT, "clear_output", {"wait": True, "x": 1}, "coder")
    assert {"wait": False} == passed(INERT, "clear_output", {}, "coder")


def test_a_prompt_is_one_line_of_bounded_length():
    asked = {"prompt": "\x1b[2JYour\npassword?" + "x" * 1000, "password": True, "x": 1}
    shown = passed(FRAMED, "input_request", asked, "coder")
    assert shown["prompt"].startswith("Your password?")
    assert 500 == len(shown["prompt"])
    assert shown.keys() == {"prompt", "password"}


def test_an_error_keeps_its_colours_and_is_bounded():
    said = {
        "ename": "Bad\nName" * 100,
        "evalue": "\x1b]0;title\x07" + "v" * 100_000,
        "traceback": ["\x1b[31mred\x1b[0m\x1b[2J", "x" * 10_000_000],
    }
    shown = passed(FRAMED, "error", said, "coder")
    assert shown["ename"].isprintable()
    assert len(shown["ename"]) == 100
    assert 9_000 < len(shown["evalue"]) < 11_000
    assert "\x1b[31mred\x1b[0m" == shown["traceback"][0]
    assert len(shown["traceback"][1]) < 2**20


def test_of_a_long_traceback_the_middle_is_left_out():
    said = {"ename": "E", "evalue": "", "traceback": [str(n) for n in range(1_000_000)]}
    shown = passed(INERT, "error", said, "coder")["traceback"]
    assert 2001 == len(shown)
    assert ("0", "999999") == (shown[0], shown[-1])
    assert "998000 parts" in shown[1000]


@pytest.mark.parametrize("reply", [{}, {"traceback": None}, {"ename": 5, "traceback": [1, None]}])
def test_an_error_that_lacks_its_parts_is_one(reply):
    shown = passed(FRAMED, "error", reply, "coder")
    assert shown.keys() == {"ename", "evalue", "traceback"}
    json.dumps(shown)


# Displays


@pytest.mark.parametrize("rule", [FRAMED, INERT])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text/plain", "text"),
        ("text/latex", "$x$"),
        ("image/png", PNG),
        ("application/json", {"a": [1, None, "b"]}),
        ("text/html", "<b>bold</b>"),
    ],
)
def test_what_only_is_looked_at_passes(rule, kind, value):
    assert {kind: value} == display({kind: value}, rule=rule)["data"]


def test_a_formula_fetches_nothing():
    shown = display({"text/latex": r"$\style{cursor: url(//x.y)}{x}$"})["data"]
    assert "\\style" not in shown["text/latex"]


def test_text_may_come_in_lines():
    shown = display({"text/plain": ["a\n", "b"], "text/html": ["<b>", "x</b>"]})["data"]
    assert {"text/plain": "a\nb", "text/html": "<b>x</b>"} == shown


@pytest.mark.parametrize("rule", [FRAMED, INERT])
@pytest.mark.parametrize(
    "kind",
    [
        "application/javascript",
        "text/javascript",
        "application/vnd.plotly.v1+json",
        "application/vnd.vegalite.v5+json",
        "application/vnd.bokehjs_exec.v0+json",
        "application/geo+json",
        "application/pdf",
        "text/css",
        "unheard/of",
        "TEXT/HTML",
        "",
    ],
)
def test_what_does_more_does_not_pass_and_is_named(rule, kind):
    shown = display({kind: "x", "text/plain": "its text"}, rule=rule)["data"]
    assert {"text/plain", "text/html"} == shown.keys()
    assert "its text" == shown["text/plain"]
    assert f"Not shown: {kind}" in shown["text/html"]


def test_what_is_shown_otherwise_is_not_excused():
    shown = display({"application/javascript": "x", "image/png": PNG})["data"]
    assert {"image/png": PNG} == shown


@pytest.mark.parametrize("rule", [FRAMED, INERT])
def test_of_a_widget_that_may_not_pass_its_text_is_shown_and_which_may(rule):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "Slider"}
    shown = display(data, rule=rule)["data"]
    assert "Slider" == shown["text/plain"]
    assert "<pre>Slider</pre>" in shown["text/html"]
    assert "those of ipywidgets" in shown["text/html"]
    assert "trusted" not in shown["text/html"]


@pytest.mark.parametrize("kind", ["application/javascript", "application/vnd.plotly.v1+json"])
def test_what_is_not_shown_comes_with_the_way_to_see_it(kind):
    shown = display({kind: "x"})["data"]["text/html"]
    assert "`%hive config outputs=trusted`" in shown


@pytest.mark.parametrize("rule", [FRAMED, INERT])
@pytest.mark.parametrize(
    "data",
    [
        {"text/html": '<img src="https://x.y/a.png?b=1&amp;c"/>'},
        {"text/html": "<p>text<IMG alt=a SRC=https://x.y/a.png?b=1&amp;c>"},
        {"text/html": "<svg/><img src='https://x.y/a.png?b=1&amp;c'>"},
        {"text/markdown": "![a](https://x.y/a.png?b=1&c)"},
    ],
)
def test_a_picture_from_elsewhere_is_named(rule, data):
    shown = display(data, rule=rule)["data"]["text/html"]
    assert "Not loaded: https://x.y/a.png?b=1&amp;c." in shown
    assert "embed=True" in shown


@pytest.mark.parametrize(
    "html", [f'<img src="data:image/png;base64,{PNG}">', "<img data-src=a.png>", "<b>src=a.png</b>"]
)
def test_no_other_picture_is_named(html):
    assert "Not loaded" not in display({"text/html": html})["data"]["text/html"]


@pytest.mark.parametrize("rule", [FRAMED, INERT])
@pytest.mark.parametrize(
    "page", [IFrame("https://x.y/z?a=1", 400, 300), YouTubeVideo("abc"), IFrame("a.html", 1, 2)]
)
def test_a_page_from_elsewhere_is_named_and_offers_nothing_to_run(rule, page):
    shown = display({"text/html": page._repr_html_()}, rule=rule)["data"]["text/html"]
    assert f"Not loaded: {page.src}" in shown
    assert "Run this output" not in shown
    assert "JavaScript" not in shown


def test_a_page_that_is_part_of_the_output_can_be_run():
    html = "<iframe srcdoc='<script>1</script>' src=https://x.y></iframe>"
    for page in (html.replace(" src=https://x.y", ""), f"<script>1</script>{html}"):
        assert "Run this output" in display({"text/html": page})["data"]["text/html"]


@pytest.mark.parametrize("value", ["AAAA", encoded(drawn("image/gif")), 5, None, {}, ["x", 1]])
def test_a_picture_that_is_none_is_named(value):
    assert "Not shown: image/png" in display({"image/png": value})["data"]["text/html"]


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "text/markdown", "image/svg+xml"])
@pytest.mark.parametrize("value", [5, None, {"a": 1}, ["x", 1], [[]]])
def test_what_is_no_text_where_text_belongs_does_not_pass(kind, value):
    assert kind not in display({kind: value})["data"]


def test_markdown_becomes_html():
    shown = display({"text/markdown": "*a* <script>1</script>", "text/plain": "t"})["data"]
    assert {"text/plain": "t", "text/html": "<p><em>a</em> </p>\n"} == shown


def test_a_drawing_becomes_a_picture_where_there_is_no_html():
    data = {"image/svg+xml": "<svg/>", "text/plain": "t"}
    assert display(data)["data"]["text/html"].startswith('<img src="data:image/svg+xml;base64,')
    assert "<b>x</b>" == display({**data, "text/html": "<b>x</b>"})["data"]["text/html"]


def test_whether_a_page_may_run_depends_on_the_rule():
    data = {"text/html": "<script>1</script>"}
    assert "Run this output" in display(data, rule=FRAMED)["data"]["text/html"]
    assert "iframe" not in display(data, rule=INERT)["data"]["text/html"]


TABLE = {"a": [1, 2], "b": ["x", "<y>"]}
# What people show most, and what is to be read of it in the notebook's own page.
LIBRARIES = {
    "pandas": (pd.DataFrame, "<td>&lt;y&gt;</td>"),
    "polars": (pl.DataFrame, 'class="dataframe"'),
    "pandas, styled": (
        lambda table: pd.DataFrame(table).style.highlight_max(),
        '<iframe sandbox=""',
    ),
    "scikit-learn": (lambda _: LogisticRegression(), '<iframe sandbox=""'),
}


@pytest.mark.parametrize("rule", [FRAMED, INERT])
@pytest.mark.parametrize(("make", "seen"), LIBRARIES.values(), ids=LIBRARIES)
def test_what_libraries_show_is_seen_without_a_click(rule, make, seen):
    shown = display({"text/html": make(TABLE)._repr_html_(), "text/plain": "text"}, rule=rule)[
        "data"
    ]
    assert seen in shown["text/html"].partition("<details")[0]


def test_html_that_is_too_long_to_be_built_anew_is_framed():
    shown = display({"text/html": "<p>x</p>" * 100_000})["data"]["text/html"]
    assert shown.startswith('<iframe sandbox=""')


def test_of_metadata_only_what_a_front_end_needs_passes():
    said = {
        "image/png": {"width": 10, "height": 20.5, "unconfined": True},
        "application/json": {"expanded": True, "root": "x"},
        "text/html": {"isolated": True},
        "own": {"a": 1},
    }
    data = {"image/png": PNG, "application/json": {}, "text/html": "x"}
    shown = passed(FRAMED, "display_data", {"data": data, "metadata": said}, "coder")["metadata"]
    assert {
        "image/png": {"width": 10, "height": 20.5},
        "application/json": {"expanded": True},
        "text/html": {},
    } == shown


@pytest.mark.parametrize("said", [None, 5, "x", {"width": "5"}, {"width": True}, {"height": 1e9}])
def test_strange_metadata_do_not_pass(said):
    content = {"data": {"image/png": PNG}, "metadata": {"image/png": said}}
    assert {"image/png": {}} == passed(FRAMED, "display_data", content, "coder")["metadata"]


def test_the_name_of_a_display_is_the_workers_own():
    shown = display({}, transient={"display_id": "x", "own": 1})
    assert {"display_id": "coder/x"} == shown["transient"]
    updated = display({}, "update_display_data", transient={"display_id": "x"})
    assert shown["transient"] == updated["transient"]


@pytest.mark.parametrize("name", ["", "x" * 1000, 5, None, ["x"]])
def test_a_display_without_a_proper_name_has_none(name):
    assert "transient" not in display({}, transient={"display_id": name})


def test_a_value_keeps_its_number():
    assert 7 == display({}, "execute_result", execution_count=7)["execution_count"]
    assert "execution_count" not in display({}, "execute_result", execution_count="7")


KINDS = words(
    "text/plain text/html text/markdown text/latex image/svg+xml image/png application/json "
    "application/javascript x"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | SOUPS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from([FRAMED, INERT]), st.dictionaries(KINDS, JSON, max_size=4), JSON)
def test_whatever_is_displayed_passes_as_json_or_not_at_all(rule, data, strange):
    content = {
        "data": data,
        "metadata": {"text/html": strange},
        "transient": {"display_id": strange},
    }
    shown = passed(rule, "display_data", content, "coder")
    json.dumps(shown)
    assert shown["data"].keys() <= {*data, "text/html"}
    assert not {"text/markdown", "image/svg+xml", "application/javascript"} & shown["data"].keys()
    html = shown["data"].get("text/html", "")
    if "<iframe" not in html and "<summary" not in html:
        check_harmless(html)
