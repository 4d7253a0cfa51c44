"""What is no good without its style or its script is shown in a frame of its own."""

import html as escapes
import json
import re

import pytest
from hypothesis import given

from hive_jupyter.display import frames
from tests.markup_soup import SOUPS
from tests.test_display_markup import Elements

SCRIPT = "<script>draw()</script>"
STYLED = "<style>#a { color: red }</style><p id='a'>styled</p>"


def frame(html):
    """The attributes of the only frame in HTML."""
    (found,) = re.findall("<iframe (.*?)>", html, re.DOTALL)
    return dict(re.findall('([a-z-]+)="(.*?)"', found, re.DOTALL))


def page(html):
    """What a frame shows."""
    return escapes.unescape(frame(html)["srcdoc"])


def still(html):
    """What the frame within the frame of a page at rest shows."""
    (found,) = re.findall("<iframe sandbox=\"\" srcdoc='(.*?)'></iframe>", page(html), re.DOTALL)
    return escapes.unescape(found)


def running(html):
    """What a frame runs once it is opened."""
    (text,) = re.findall('id="page">(.*?)</script>', page(html), re.DOTALL)
    return json.loads(text)


def test_a_page_that_runs_waits_behind_what_the_reader_opens():
    html = frames.framed(SCRIPT, "a figure")
    assert "<pre>a figure</pre><details><summary>Run this output</summary>" in html
    assert "allow-scripts" == frame(html)["sandbox"]
    assert SCRIPT == running(html)


def test_what_there_is_to_see_without_its_script_is_seen_at_once():
    html = frames.framed(f"<p onclick=x>seen</p>{SCRIPT}", "text")
    assert html.startswith("<div><p>seen</p></div><details>")


def test_of_a_page_with_a_style_what_is_seen_is_a_frame_too():
    html = frames.framed(STYLED + SCRIPT, "text")
    still, runs = re.findall('<iframe sandbox="(.*?)"', html)
    assert ("", "allow-scripts") == (still, runs)


def test_where_nothing_may_run_it_is_said():
    html = frames.inert(SCRIPT, "a figure")
    assert "<pre>a figure</pre>" in html
    assert "not run here" in html
    assert "<iframe" not in html


def test_what_only_needs_its_style_is_shown_at_once():
    html = frames.at_rest(STYLED, "text")
    assert "" == frame(html)["sandbox"]
    assert still(html).endswith(STYLED)
    assert "<details" not in html


@given(SOUPS)
def test_no_html_gets_out_of_its_frame(html):
    made = Elements(frames.at_rest(html, html) + frames._to_run(f"<script>{html}"))
    assert set(made.tags) <= {"iframe", "details", "summary", "div", "p", "em"}
    assert made.tags.count("iframe") <= 2


@given(SOUPS)
def test_a_page_that_runs_is_the_workers_whole_page(html):
    made = frames._running(html)
    (text,) = re.findall('id="page">(.*?)</script>', made, re.DOTALL)
    assert html == json.loads(text)


@pytest.mark.parametrize("hint", ["link rel=dns-prefetch", "LINK", "meta http-equiv=x", "base"])
def test_a_page_at_rest_asks_no_name_server(hint):
    made = still(frames.at_rest(f"a<{hint} href='//x.y'>b", ""))
    assert f"a<x-{hint}" in made


def test_a_page_at_rest_is_the_workers_whole_page():
    html = "<p title='a' class=\"b\">it's &amp;#39; &lt;&#39;</iframe>"
    assert still(frames.at_rest(html, "")).endswith(html)


@pytest.mark.parametrize("html", [frames.at_rest(STYLED, ""), frames.framed(SCRIPT, "")])
def test_a_page_fetches_nothing_and_goes_nowhere(html):
    """The frame in the frame has the same policy, and cannot leave that."""
    made = page(html)
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', made)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert "'none'" == rules["default-src"] == rules["frame-src"] == rules["form-action"]
    assert not re.search(r"https?:|\*|'self'", policy)


@pytest.mark.parametrize(
    ("html", "advice"),
    [
        (
            '<script src="https://cdn.plot.ly/plotly-3.0.1.min.js"></script>',
            "include_plotlyjs=True",
        ),
        ("<script src='https://cdn.bokeh.org/bokeh.js'></script>", "INLINE"),
        ('<script src="https://cdn.jsdelivr.net/npm/vega@5"></script>', "inline=True"),
        ('<script type=module>import x from "https://esm.sh/x"</script>', "esm.sh"),
        ('<script>await import("//x.example/y.js")</script>', "x.example"),
    ],
)
def test_what_loads_a_program_from_elsewhere_says_what_to_do(html, advice):
    made = frames.framed(html, "text")
    assert advice in made
    assert "Run this output" not in made


def test_an_address_in_a_comment_loads_nothing():
    html = "<script>/* adapted from https://x.example */ run() // import //y</script>"
    assert "Run this output" in frames.framed(html, "")


def test_a_form_that_is_not_shown_is_named():
    made = frames.instead(["application/vnd.plotly.v1+json"], "Figure")
    assert "<pre>Figure</pre>" in made
    assert "Not shown: application/vnd.plotly.v1+json" in made
    assert "include_plotlyjs=True" in made


def test_a_stripped_frame_says_how_to_trust_the_notebook():
    for html in (frames.at_rest(STYLED, "my text"), frames.framed(SCRIPT, "")):
        left = re.sub("</?iframe.*?>", "", html)
        assert "use Trust Notebook" in left
    assert "my text" in re.sub("</?iframe.*?>", "", frames.at_rest(STYLED, "my text"))


@pytest.mark.parametrize(
    ("html", "height"),
    [
        ("<p>x", 60),
        ("<table>" + "<tr><td>x" * 10, 264),
        ("<table>" + "<tr><td>x" * 1000, 400),
        ("<svg height='200'>", 224),
        ("<svg height=9999>", 400),
        ("<details>" + "<p>x" * 100 + "</details><p>x", 60),
    ],
)
def test_a_frame_is_about_as_high_as_what_is_in_it(html, height):
    assert f"height: {height}px" in frame(frames.at_rest(html, ""))["style"]
