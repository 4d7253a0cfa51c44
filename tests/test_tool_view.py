"""How the host shows what tools answer: a worker's text stays text."""

import base64
import re
import time
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_jupyter.notebook.tool_view import Place, bundles
from hive_jupyter.tools import ToolContent, ToolResult
from hive_jupyter.units import visible

PLACE = Place("/work/project/notebooks", "/work/project/notebooks", "/work/project")
ALLOWED = {"div", "pre", "span", "a", "table", "thead", "tbody", "tr", "th", "td"}
PIECES = {"pre", "td", "th", "a"}
CLASSES = re.compile(r"highlight|[a-z][a-z0-9]{0,2}")
STYLES = re.compile(r"[a-zA-Z0-9:;.,() -]*")


def seen(text):
    return visible(text.replace("\r\n", "\n"))


def result(text, *notes, **structure):
    blocks = tuple(ToolContent("text", block) for block in (text, *notes))
    return ToolResult(blocks, structured_content=structure or None)


def code(text, path="a.py", **more):
    return result(text, **{"path": path, "start_line": 1, "total_lines": 1, **more})


def shown(answer, *, coloured=False):
    (data,) = bundles(answer, PLACE, coloured=coloured)
    return data


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.text = [], [], ""
        # of the cells of a table, and of the blocks of text
        self.pieces = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag in ALLOWED
        for name, value in attributes:
            if name == "href":
                assert tag == "a"
                self.links.append(value)
            elif name == "class":
                assert CLASSES.fullmatch(value)
            else:
                assert name == "style"
                assert STYLES.fullmatch(value)
        if tag in PIECES:
            is_code = ("class", "highlight") in attributes
            self.pieces.append(["code" if is_code else tag, ""])
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if PIECES.intersection(self.open):
            self.pieces[-1][1] += data

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    def texts(self, tag):
        return [text for name, text in self.pieces if name == tag]


# --- what a worker says is never markup ---

NASTY = st.sampled_from(
    [
        *("<script>alert(1)</script>", '"><img src=x onerror=f()>', "</pre>", "&lt;", "&#60;b>"),
        *("<!--", "]]>", "javascript:f()", "' style='x", "\033[2J", "\u202e", "\0", "\ud800"),
        *("\r", "\x85", "\u2028"),
    ]
)
TEXT = st.lists(NASTY | st.text(max_size=8) | st.sampled_from("\n\t @+-"), max_size=8).map("".join)
LINE = TEXT.map(lambda text: text.replace("\n", " ").replace("\r", " "))
NUMBER = st.integers() | st.floats() | st.none() | st.booleans() | TEXT
JSON = st.recursive(
    NUMBER, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


@given(TEXT, st.sampled_from(["a.py", "b.md", "c", "d.html", "e.sql"]))
def test_code_is_shown_as_it_is(text, path):
    data = shown(code(text, path))

    page = Page(data["text/html"])
    (numbers,), (block,) = page.texts("pre"), page.texts("code")
    assert seen(text).removesuffix("\n") == block.removesuffix("\n")
    lines = seen(text).removesuffix("\n").split("\n")
    assert [*map(str, range(1, len(lines) + 1))] == numbers.split("\n")
    assert lines == [line[len(str(len(lines))) + 2 :] for line in data["text/plain"].split("\n")]


@given(st.lists(st.tuples(LINE, st.integers(1, 10**6), LINE), min_size=1, max_size=5))
def test_lines_that_were_found_are_shown_as_they_are(found):
    matches = [
        {"path": path, "line": line, "column": 1, "text": text} for path, line, text in found
    ]
    page = Page(shown(result("", matches=matches, truncated=False))["text/html"])

    lines = [line for block in page.texts("code") for line in block.split("\n")]
    assert [seen(text) for _, _, text in found] == lines


@given(st.lists(LINE, min_size=1, max_size=8))
def test_a_diff_is_shown_as_it_is(lines):
    text = "--- a/x\n" + "\n".join(lines)
    data = shown(result(f"Replaced once.\n{text}", diff=text))

    about, diff = Page(data["text/html"]).texts("pre")
    assert about == "Replaced once."
    assert seen(text).removesuffix("\n") + "\n" == diff
    assert data["text/plain"] == f"{about}\n{diff}".removesuffix("\n")


@given(st.lists(st.dictionaries(TEXT, NUMBER, max_size=4), min_size=1, max_size=4))
def test_a_table_is_only_a_table(rows):
    data = shown(result("said", rows=rows, truncated=False, total=3))

    page = Page(data.get("text/html", ""))
    names = {name for row in rows for name in row}
    assert len(page.texts("th")) == len(names)
    assert len(page.texts("td")) == len(names) * len(rows)
    assert not re.search(r"[^\n\x20-\x7e]", page.text) or page.text.replace("\n", "").isprintable()


@settings(max_examples=50)
@given(
    TEXT,
    TEXT,
    st.dictionaries(
        st.sampled_from(["path", "start_line", "total_lines", "matches", "diff", "rows"]) | TEXT,
        JSON | st.lists(st.dictionaries(st.sampled_from(["path", "line", "text", "size"]), JSON)),
        max_size=5,
    ),
)
def test_whatever_a_worker_answers_is_shown_and_is_text(text, note, structure):
    for coloured in (False, True):
        data = shown(result(text, note, **structure), coloured=coloured)

        Page(data.get("text/html", ""))
        plain = re.sub(r"\033\[[\d;]*m", "", data["text/plain"]) if coloured else data["text/plain"]
        assert re.sub(r"[\n\t]", "", plain).isprintable()


# --- links ---


@pytest.mark.parametrize(
    ("path", "line", "link"),
    [
        ("a.py", None, "a.py"),
        ("a.py", 12, "a.py#line=11"),
        ("../src/a b.py", 1, "../src/a%20b.py#line=0"),
        ("/work/project/x.py", None, "../x.py"),
        ("50%#?.txt", None, "50%25%23%3F.txt"),
        ("javascript:alert(1)", None, "javascript%3Aalert%281%29"),
        ("http://evil.example/x", None, "http%3A/evil.example/x"),
        ("//evil.example/x", None, None),
        ("..//..//project//x", None, "../x"),
        ('"><b>', None, "%22%3E%3Cb%3E"),
        ("a\\b", None, "a%5Cb"),
        ("caf\u00e9.py", None, "caf%C3%A9.py"),
        ("\udce9.py", None, "%E9.py"),
        ("\ud800.py", None, None),
        ("a\0b", None, None),
        ("../../other/x", None, None),
        ("../../../etc/passwd", None, None),
        ("/work/project2/x", None, None),
        ("/etc/passwd", None, None),
    ],
)
def test_a_link_leads_to_a_file_of_the_project_or_nowhere(path, line, link):
    assert PLACE.link(path, line) == link


@given(TEXT, st.none() | st.integers(1, 10**9 - 1))
def test_a_link_is_relative_and_leads_to_what_was_named(path, line):
    link = PLACE.link(path, line)
    if link is None:
        return

    assert re.fullmatch(r"[\w.~/%-]*(#line=\d+)?", link, re.ASCII)
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.query) == ("", "", "")
    assert not link.startswith("/")
    there = Place("/work/project/notebooks", "/", "/")
    told = f"{PLACE.notebook}/{unquote(parts.path, errors='surrogateescape')}"
    assert there.link(told) == there.link(f"{PLACE.folder}/{path}")


def test_a_link_begins_at_the_notebook_and_not_at_the_working_folder():
    place = Place("/work/project/notebooks", "/work/project", "/work/project")

    assert place.link("src/a.py") == "../src/a.py"


def test_hits_lead_to_their_lines():
    matches = [
        {"path": "../src/a.py", "line": 3, "text": "x"},
        {"path": "../src/a.py", "line": 7, "text": "if x:\n    y"},
        {"path": "/etc/passwd", "line": 1, "text": "root"},
    ]
    data = shown(result("", matches=matches))

    page = Page(data["text/html"])
    assert page.links == ["../src/a.py", "../src/a.py#line=2", "../src/a.py#line=6"]
    assert page.texts("a")[:3] == ["../src/a.py", "3\n", "7\n8"]
    assert data["text/plain"].split("\n") == [
        *("../src/a.py", "3  x", "7  if x:", "8      y", ""),
        *("/etc/passwd", "1  root"),
    ]


def test_paths_in_a_table_are_links_and_sizes_are_said():
    rows = [
        {"path": "src", "kind": "folder", "size": 0},
        {"path": "src/a.py", "kind": "file", "size": 2048},
    ]
    page = Page(shown(result("src/\nsrc/a.py  (2 KB)", entries=rows, truncated=False))["text/html"])

    assert page.links == ["src", "src/a.py"]
    assert page.texts("td")[1:] == ["folder", "", "", "file", "2 KB"]


# --- what is shown of a result ---


def test_code_has_colours_numbers_and_a_link():
    answer = code("def f():\n    pass\n", "src/a.py", start_line=9, total_lines=10)

    data = shown(answer)

    assert '<span class="k">def</span>' in data["text/html"]
    assert Page(data["text/html"]).links == ["src/a.py#line=8"]
    assert data["text/plain"] == " 9  def f():\n10      pass"
    assert "\033[" in shown(answer, coloured=True)["text/plain"]


def test_a_digest_is_for_who_calls_again():
    digest = "0123456789abcdef" * 4
    answers = [
        code("x\n", digest=digest),
        result(f"a.py is new. [2 B, digest {digest}]", path="a.py", digest=digest),
        result(f"Replaced once in a.py. [digest {digest}]\n--- a/a.py\n", diff="--- a/a.py\n"),
    ]
    answers[0] = ToolResult(
        (
            *answers[0].content,
            ToolContent("text", f"[a.py: lines 1 to 1 of 1. utf-8, digest {digest}]"),
        ),
        structured_content=answers[0].structured_content,
    )
    for answer in answers:
        assert all(digest not in text for text in shown(answer).values())

    assert shown(answers[1]) == {"text/plain": "a.py is new. [2 B]"}
    assert shown(answers[0])["text/plain"].endswith("[a.py: lines 1 to 1 of 1. utf-8]")


def test_a_digest_in_a_file_is_the_files():
    text = f"x  # [digest {'0' * 64}]\n"

    assert text.strip() in Page(shown(code(text))["text/html"]).text


def test_what_was_cut_is_told_below():
    note = "[Cut after 1. Or give a larger limit.]"
    data = shown(result("", note, matches=[{"path": "a", "line": 1, "text": "x"}]))

    assert data["text/plain"].endswith(note)
    assert Page(data["text/html"]).texts("pre")[-1] == note


def test_plain_text_needs_no_html():
    assert shown(result("pong")) == {"text/plain": "pong"}


def test_without_a_notebook_there_is_no_html():
    (data,) = bundles(code("x"), None, coloured=False)

    assert set(data) == {"text/plain"}


def test_pictures_are_displayed_between_texts():
    png = base64.b64encode(b"\x89PNG...").decode()
    blocks = [
        ToolContent("text", "before"),
        ToolContent("image", data=png, mime_type="image/png"),
        ToolContent("text", "after"),
        ToolContent("resource_link", uri="file:///x"),
    ]

    assert bundles(ToolResult(tuple(blocks)), PLACE, coloured=False) == [
        {"text/plain": "before"},
        {"image/png": png, "text/plain": "[image/png]"},
        {"text/plain": "after\nfile:///x"},
    ]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("image/svg+xml", base64.b64encode(b"<svg onload='f()'/>").decode()),
        ("text/html", "PGI+"),
        ("image/png", '"><script>f()</script>'),
        ("image/png", "AAAA\u0661"),
        ("image/png", "AAAA\u2028"),
    ],
)
def test_what_is_no_picture_is_only_named(kind, data):
    block = ToolContent("image", data=data, mime_type=kind)

    assert bundles(ToolResult((block,)), PLACE, coloured=False) == [
        {"text/plain": f"[image, {kind}]"}
    ]


def test_nothing_is_shown_of_nothing():
    assert bundles(ToolResult(()), PLACE, coloured=False) == []


def test_a_table_of_too_many_columns_stays_text():
    rows = [{f"column {number}": 1} for number in range(100)]

    assert shown(result("said", rows=rows)) == {"text/plain": "said"}


def test_a_number_that_is_no_lines_is_not_believed():
    for line in (0, -1, True, 1.5, "1", 10**100):
        entry = {"path": "a", "line": line, "text": "x"}
        assert shown(result("said", matches=[entry])) == {"text/plain": "said"}


@pytest.mark.parametrize(
    "answer",
    [
        code("".join(f"def f{number}(a, b): return a + '{number}'\n" for number in range(6000))),
        code("(" * 200_000),
        code('"""\n' * 50_000),
        code("\033" * 200_000),
        result("--- a/x\n" + "+x\n" * 70_000, diff="--- a/x\n"),
        result("", matches=[{"path": f"{n}.py", "line": n, "text": "x"} for n in range(1, 4000)]),
        result("", rows=[{"path": f"{n}.py", "size": n} for n in range(4000)]),
        ToolResult((ToolContent("image", data=" " * 30_000 + "!", mime_type="image/png"),)),
    ],
    ids=["code", "brackets", "quotes", "escapes", "diff", "hits", "rows", "blanks"],
)
def test_the_largest_answers_are_shown_quickly(answer):
    """In 0.1 s on an idle machine; a tenfold of the time would be another kind of algorithm."""
    began = time.process_time()
    shown(answer)

    assert time.process_time() - began < 1
