"""HTML of a worker is left with nothing that takes hold of the page."""

import base64
import re
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_jupyter.display import markup
from hive_jupyter.display.tidy import ATTRIBUTES, TAGS
from tests.markup_soup import SOUPS
from tests.test_display_images import drawn, encoded

POSITIONS = ("position", "z-index", "top", "inset", "transform", "content", "filter")


def is_harmless_style(value):
    names = [declaration.partition(":")[0].strip() for declaration in value.split(";")]
    return not set(names) & set(POSITIONS) and not re.search(
        r"url|expression|var|[\\@\"\'*]|-[\d.]", value
    )


HARMLESS = {
    "href": re.compile(r"(https?://|mailto:)", re.IGNORECASE).match,
    "src": re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,").match,
    "class": re.compile("dataframe").fullmatch,
    "target": re.compile("_blank").fullmatch,
    "rel": re.compile("noopener noreferrer").fullmatch,
    "style": is_harmless_style,
}


class Elements(HTMLParser):
    """What HTML consists of: tags, and attributes with their values."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += sorted(attributes)


def check_harmless(html):
    elements = Elements(html)
    assert set(elements.tags) <= TAGS
    for name, value in elements.attributes:
        assert name in ATTRIBUTES | {"rel"}
        if name in HARMLESS:
            assert HARMLESS[name](value or ""), (name, value)


@given(SOUPS)
@settings(max_examples=500)
def test_no_html_is_left_with_what_takes_hold_of_the_page(html):
    check_harmless(markup.clean(html))


@given(SOUPS)
def test_what_is_clean_stays_as_it_is(html):
    cleaned = markup.clean(html)
    once, twice = Elements(cleaned), Elements(markup.clean(cleaned))
    assert (once.tags, once.attributes) == (twice.tags, twice.attributes)


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("<p>a <b>b</b></p>", "<p>a <b>b</b></p>"),
        ("a<script>b</script>", "a"),
        ('<p onclick="x" id="main" class="jp-x" data-commandlinker-command="y">a</p>', "<p>a</p>"),
        ('<img src="https://x.y/?secret" alt="gone">', '<img alt="gone">'),
        ('<a href="/hub/logout">a</a>', "a"),
        ('<a href=" javascript:1">a</a>', "a"),
        ('<table class="dataframe jp-x">', "dataframe"),
        ('<p class="dataframe">', "<p></p>"),
    ],
)
def test_what_is_left(html, left):
    assert left in re.sub(r"</?a[^>]*>", "", markup.clean(html))


def test_a_link_opens_a_page_that_does_not_know_this_one():
    link = Elements(markup.clean('<a href="https://x.y/?a&b" target="_top" rel="opener">z</a>'))
    assert {
        "href": "https://x.y/?a&b",
        "target": "_blank",
        "rel": "noopener noreferrer",
    } == dict(link.attributes)


@pytest.mark.parametrize(
    ("style", "left"),
    [
        ("color: red; position: fixed", "color: red"),
        ("COLOR: Red !important", None),
        ("background: #eee; width: 50%; border: 1px solid rgba(1, 2, 3, .5)", "same"),
        ("padding: 2px 3px; text-align: right; white-space: pre-wrap", "same"),
        ("font-family: DejaVu Sans, sans-serif; font-size: 12.5px", "same"),
        ("background: url(//x.y)", None),
        ("background: u\\72l(//x.y)", None),
        ("background: image-set('//x.y' 1x)", None),
        ("background: var(--x)", None),
        ("width: calc(1px - 100px)", None),
        ("width: expression(alert(1))", None),
        ("margin: -500px", None),
        ("margin: 1px -.5em", None),
        ("margin/**/: 1px", None),
        ("content: 'x'", None),
        ("transform: scale(9)", None),
        ("behavior: x", None),
        ("--x: red", None),
        ("color", None),
    ],
)
def test_a_style_stays_in_its_place(style, left):
    kept = re.search('style="(.*?)"', markup.clean(f'<p style="{style}">x</p>'))
    expected = style if left == "same" else left
    assert expected == (kept and kept[1])


@given(
    st.lists(
        st.sampled_from(["margin", "color", "url(", ")", "-", "1", ":", ";", "/*", "\\", "rgb("])
    )
)
def test_no_style_does_more(parts):
    html = markup.clean(f'<p style="{"".join(parts)}">x</p>')
    assert all(is_harmless_style(value) for _, value in Elements(html).attributes)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_a_picture_within_the_html_stays_if_it_is_one(kind):
    source = f"data:image/{kind};base64,{encoded(drawn(f'image/{kind}'))}"
    assert f'<img src="{source}" width="5">' == markup.clean(f'<img src="{source}" width="5">')
    assert "<img>" == markup.clean(f'<img src="{source.replace(kind, "xyz")}">')


def test_what_only_says_that_it_is_a_picture_goes():
    assert "<img>" == markup.clean(f'<img src="data:image/png;base64,{encoded(b"GIF89a")}">')
    assert "<img>" == markup.clean('<img src="data:text/html;base64,AAAA">')


def test_a_table_of_pandas_is_what_it_was_but_for_its_style_sheet():
    html = pd.DataFrame({"a": [1, 2], "b": ["x", "<y>"]})._repr_html_()
    cleaned = markup.clean(html)
    (body,) = re.findall("<tbody>.*</tbody>", html, re.DOTALL)

    assert body in cleaned
    assert '<table border="1" class="dataframe">' in cleaned
    assert '<tr style="text-align: right">' in cleaned
    assert not markup.needs_style(html)


def test_a_table_with_a_style_of_its_own_needs_it():
    frame = pd.DataFrame({"a": [1.0]})
    assert markup.needs_style(frame.style.set_properties(color="red").to_html())
    assert not markup.needs_style(frame.style.to_html())


@pytest.mark.parametrize(
    ("html", "script", "style"),
    [
        ("<p>script onclick=1 <b>style</b></p>", False, False),
        ("<p online=1>", True, False),
        ("<script>1</script>", True, False),
        ("<p><iframe src=x>", True, False),
        ("<img onerror=x>", True, False),
        ("<svg><g/></svg>", False, True),
        ("<style>#a { color: red }</style>", False, True),
        ("<style>.dataframe > td { color: red } .dataframe p {}</style>", False, False),
        ("<style>.dataframe p {} .x {}</style>", False, True),
        ("<style></style>", False, False),
        ("<select><option>x</select>", False, True),
    ],
)
def test_whether_it_is_good_without_its_script_or_its_style(html, script, style):
    assert (script, style) == (markup.needs_script(html), markup.needs_style(html))


def test_a_drawing_is_shown_as_a_picture():
    html = markup.picture("<svg width='1'><script>alert(1)</script></svg>")
    (data,) = re.findall('<img src="data:image/svg.xml;base64,(.*)">', html)

    assert b"http://www.w3.org/2000/svg" in base64.b64decode(data)
    assert html == markup.clean(html)


def test_what_there_is_to_read():
    assert "a < b" == markup.text_of(markup.clean("<p>a <b>&lt;</b> b</p>"))


def test_much_html_takes_less_time_than_anybody_sees():
    """A table of 400 rows and 20 columns; what follows waits that long."""
    html = pd.DataFrame(np.zeros((400, 20))).to_html()
    began = time.process_time()
    markup.clean(html)
    assert markup.is_short(html)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "html", [r"$\style{a}{x}$", r"$\sty<wbr title='>'>le{a}{x}$", r"$&#92;st<!-- -->yle{a}{x}$"]
)
def test_a_formula_in_html_fetches_nothing(html):
    assert "$\\\u200bstyle{a}{x}$" == markup.clean(html)


def test_a_formula_in_the_name_of_what_is_not_shown_fetches_nothing():
    assert "\\style" not in markup.rebuilt(r"<img src='x$\style{cursor:url(//y)}{x}$'>")
