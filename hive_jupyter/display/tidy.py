"""
HTML made well-nested, so that to parse it takes no more than its length.

A browser's way to parse HTML repeats unclosed tags (``<b>``, ``<a>``) in each paragraph that
follows: 40 KB can become 80 MB (https://html.spec.whatwg.org/#reconstruct-the-active-formatting-elements).
Here every tag is closed where it has to be, unknown ones go, and depth is bounded. This makes
nothing safe to show; ``markup`` does.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Repeated by parsers where they are not closed in time.
_FORMATTING = _words("a b code em i s small strike strong tt u")
# No <wbr>: MathJax reads over it, and would see one command where here are two pieces.
_INLINE = _words(
    "abbr bdi bdo br cite del dfn img ins kbd mark meter progress q samp span sub sup time var"
)
_BLOCKS = _words(
    "address article aside blockquote caption center col colgroup dd details div dl dt figcaption "
    "figure footer h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section summary table tbody td "
    "tfoot th thead tr ul"
)
# What ends where a block begins.
_LINES = _FORMATTING | {"p"}
TAGS = _FORMATTING | _INLINE | _BLOCKS
_VOID = _words("br col hr img")
ATTRIBUTES = _words(
    "align alt border class colspan dir height href lang max open reversed rowspan scope span src "
    "start style target title type valign value width"
)
# What is in these is not for reading, or means nothing without them.
_DROPPED = _words(
    "audio canvas iframe math noembed noframes noscript object plaintext script select style svg "
    "template textarea title video xmp"
)
# What an element ends that was left open, if nothing of the second set is between them.
_ENDS = {
    "li": (_words("li"), _words("ul ol")),
    "dt": (_words("dt dd"), _words("dl")),
    "dd": (_words("dt dd"), _words("dl")),
    "td": (_words("td th"), _words("tr table")),
    "th": (_words("td th"), _words("tr table")),
    "tr": (_words("tr"), _words("table")),
    "tbody": (_words("thead tbody tfoot"), _words("table")),
    "tfoot": (_words("thead tbody tfoot"), _words("table")),
    "a": (_words("a"), _words("table")),
}
# Where nothing but parts of a table may stand: parsers move what else is there before the table.
_ROWS = _words("table tbody tfoot thead tr")
_PARTS = _words("caption col colgroup tbody td tfoot th thead tr")
_DEEPEST = 100
# Each tag without an end has all that follows it searched.
_MOST_UNFINISHED = 50

_TAG = re.compile(
    r"""< (/?) ([a-zA-Z][^\s/>]*+) ([^>"']*+ (?:(?:"[^"]*+"|'[^']*+') [^>"']*+)*+) >""", re.VERBOSE
)
_ATTRIBUTE = re.compile(
    r"""([^\s"'<>/=]++) (?: \s*+ = \s*+ ("[^"]*+"|'[^']*+'|[^\s"'<>=`]++) )?""", re.VERBOSE
)
_NO_ENTITY = re.compile(r"&(?!(?:\#\d{1,7}|\#[xX][\da-fA-F]{1,6}|[a-zA-Z][a-zA-Z\d]{1,31});)")


def tidy(html: str) -> str:
    """HTML of known tags and attributes in which all that is open is closed in order."""
    return _Tidier(html).result()


class _Tidier:
    def __init__(self, html: str) -> None:
        self._html = html
        self._parts: list[str] = []
        self._open: list[str] = []
        # How many of those open are closed by a block.
        self._lines = 0

    def result(self) -> str:
        html, place, unfinished = self._html, 0, 0
        while unfinished < _MOST_UNFINISHED and (start := html.find("<", place)) >= 0:
            self._text(html[place:start])
            found = _TAG.match(html, start)
            if found is not None:
                place = self._tag(found)
            elif html[start + 1 : start + 2] in ("!", "?", "/"):
                place = self._after_comment(start)
            else:
                unfinished += html[start + 1 : start + 2].isalpha()
                place = start + 1
                self._parts.append("&lt;")
        self._text(html[place:])
        self._close_down_to(0)
        return "".join(self._parts)

    def _text(self, text: str) -> None:
        if "&" in text:
            text = _NO_ENTITY.sub("&amp;", text)
        self._parts.append(text.replace("<", "&lt;"))

    def _after_comment(self, start: int) -> int:
        mark = "-->" if self._html.startswith("<!--", start) else ">"
        end = self._html.find(mark, start + 2)
        return len(self._html) if end < 0 else end + len(mark)

    def _tag(self, found: re.Match[str]) -> int:
        """Take a tag; says where what follows begins."""
        name = found[2].lower()
        if name in TAGS:
            if found[1]:
                self._close(name)
            else:
                self._begin(name, found[3])
        elif name in _DROPPED and not found[1]:
            end = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(self._html, found.end())
            return len(self._html) if end is None else end.start()
        return found.end()

    def _begin(self, name: str, attributes: str) -> None:
        if self._lines and name in _BLOCKS:
            self._end_lines()
        if name in _ENDS:
            self._end_siblings(*_ENDS[name])
        misplaced = self._open and self._open[-1] in _ROWS and name not in _PARTS
        if misplaced or len(self._open) >= _DEEPEST:
            return
        self._parts.append(f"<{name}{_attributes(name, attributes)}>")
        if name not in _VOID:
            self._open.append(name)
            self._lines += name in _LINES

    def _end_lines(self) -> None:
        """Close what cannot hold a block."""
        self._close_down_to(next(n for n, name in enumerate(self._open) if name in _LINES))

    def _end_siblings(self, ended: frozenset[str], bounds: frozenset[str]) -> None:
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth] in bounds:
                return
            if self._open[depth] in ended:
                self._close_down_to(depth)
                return

    def _close(self, name: str) -> None:
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth] == name:
                self._close_down_to(depth)
                return
            if self._open[depth] == "table":
                return

    def _close_down_to(self, depth: int) -> None:
        while len(self._open) > depth:
            name = self._open.pop()
            self._lines -= name in _LINES
            self._parts.append(f"</{name}>")


def _attributes(name: str, text: str) -> str:
    # a link is no reason to leave the notebook
    found = {"target": "_blank"} if name == "a" else {}
    for word, value in _ATTRIBUTE.findall(text):
        if word.lower() in ATTRIBUTES:
            bare = value[1:-1] if value[:1] in ("'", '"') else value
            found.setdefault(word.lower(), bare.replace('"', "&quot;"))
    return "".join(f' {word}="{value}"' for word, value in found.items())
