"""HTML is made well-nested, at a cost that its length bounds."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.display import markup
from hive_jupyter.display.tidy import TAGS, tidy
from tests.markup_soup import SOUPS

VOID = {"br", "col", "hr", "img"}


class Nesting(HTMLParser):
    """Holds that all that is opened is closed, in order."""

    def __init__(self, html):
        super().__init__()
        self.open = []
        self.deepest = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, _attrs):
        assert tag in TAGS
        if tag not in VOID:
            self.open.append(tag)
            self.deepest = max(self.deepest, len(self.open))

    def handle_endtag(self, tag):
        assert tag == self.open.pop()


@pytest.mark.parametrize(
    ("html", "tidied"),
    [
        ("a < b & c &amp; d", "a &lt; b &amp; c &amp; d"),
        ("<P Title=x>a</P>", '<p title="x">a</p>'),
        ("<b>a<i>b</b>c</i>", "<b>a<i>b</i></b>c"),
        ("<b>a<div>b</div></b>", "<b>a</b><div>b</div>"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        (
            "<table><tr><td>a<td>b<tr><td>c</table>",
            "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>",
        ),
        ("<table><p>x</p><tr><td>y</table>", "<table>x<tr><td>y</td></tr></table>"),
        ("<td><b>x</td>y</b>", "<td><b>x</b></td>y"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "<dl><dt>a</dt><dd>b</dd><dt>c</dt></dl>"),
        ("<a>1<a target=x>2", '<a target="_blank">1</a><a target="_blank">2</a>'),
        ("a<!-- <b> -->b<!>c<?x?>d</ e>f", "abcdf"),
        ("a<script>b</script>c<STYLE>d</style >e", "ace"),
        ("a<svg><g>b</g></svg>c", "ac"),
        ("a<blink>b</blink>c", "abc"),
        ("a<style>never closed", "a"),
        ("a<p never closed", "a&lt;p never closed"),
        ("""<p title='a "b"' onclick="<b>">c""", '<p title="a &quot;b&quot;">c</p>'),
        ('<p data-x="title=no" title="yes" title="again">', '<p title="yes"></p>'),
        ("<br></br><hr/>x", "<br><hr>x"),
    ],
)
def test_what_becomes_of_it(html, tidied):
    assert tidied == tidy(html)


@given(SOUPS)
def test_all_is_closed_in_order(html):
    nesting = Nesting(tidy(html))
    assert [] == nesting.open
    assert nesting.deepest <= 100


@given(SOUPS)
def test_what_is_tidy_stays_as_it_is(html):
    tidied = tidy(html)
    assert tidied == tidy(tidied)


@given(st.text())
def test_text_stays_text(text):
    assert "<" not in tidy(text.replace("<", "< "))


def unclosed(tag, number):
    return "".join(f"<{tag} title={n}>" for n in range(number))


MANY = 20_000
BOMBS = {
    "in each paragraph anew": f"<p>{unclosed('b', 3000)}" + "</p><p>x" * MANY,
    "closed where it does not count": "".join(
        f"<b title={n}><table><tr><td></b></table>" for n in range(2000)
    )
    + "</p><p>x" * MANY,
    "closed out of order": "".join(f"<b title={n}><p>" for n in range(3000)) + "</b></p>" * 9000,
    "deep": "<div>" * MANY,
    "deep tables": "<table><tr><td>" * 10_000,
    "moved out of a table": "<table>" + "<hr>" * MANY,
    "text out of a table": "<table>" + "x<tr>" * MANY,
    "ampersands": "&" * MANY,
    "tags without an end": "<a " * MANY,
    "quotes without an end": "<a \"'" * MANY,
    "comments without an end": "<!--" * MANY,
    "styles without an end": "<style>" * MANY,
    "attributes": f"<p {'a=1 ' * MANY}>",
    "styles": "<p style='color: red; width: 1px'>" * 7000,
    "a long style": f"<p style='{'a' * 100_000}: {' ' * 100_000}!'>",
    "pictures": "<img src='data:image/png;base64,AAAA'>" * 6000,
    "entities": "<p title='&lt;&#60;'>&lt;" * 6000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_takes_a_time_and_space_that_its_length_bounds(bomb):
    """40 KB of unclosed tags became 80 MB and took a gigabyte of memory."""
    assert markup.is_short(bomb)
    began = time.process_time()
    made = markup.clean(bomb)
    assert time.process_time() - began < 3
    assert len(made) < 10 * len(bomb)
