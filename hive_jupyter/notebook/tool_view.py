"""
How the host shows what a tool answered.

A worker's text stays text: it is escaped here, and the markup around it is the host's. Front-ends
sanitize the HTML of a notebook that they do not trust; what is used here outlives that: the classes
of Pygments, which JupyterLab, Notebook 7 and nbconvert have colours for, and plain inline styles
that suit light and dark.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from hive_jupyter.project import project_root
from hive_jupyter.tools import ToolContent, ToolResult
from hive_jupyter.units import LARGEST_SIZE, format_size, printable, visible

# To colour more takes longer than somebody wants to wait (characters).
_MOST_COLOURED = 30_000
# Of a table's cell, in characters.
_LONGEST_CELL = 500
_MOST_COLUMNS = 20
# More than that is no line's number.
_LAST_LINE = 10**9
_IMAGES = ("image/png", "image/jpeg")
# Possessive, since blanks could otherwise be shared out in quadratically many ways.
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*+={0,2}\s*+", re.ASCII)
# Of use to who calls a tool again, and not to who looks on.
_DIGEST = re.compile(r" \[digest [0-9a-f]{64}\]|, digest [0-9a-f]{64}(?=\])")
_LANGUAGES = {
    "bash": "bash",
    "c": "c",
    "cfg": "ini",
    "cpp": "cpp",
    "css": "css",
    "go": "go",
    "h": "c",
    "hpp": "cpp",
    "html": "html",
    "ini": "ini",
    "ipynb": "json",
    "java": "java",
    "jl": "julia",
    "js": "javascript",
    "json": "json",
    "py": "python",
    "pyi": "python",
    "r": "r",
    "rs": "rust",
    "sh": "bash",
    "sql": "sql",
    "toml": "toml",
    "ts": "typescript",
    "xml": "xml",
    "yaml": "yaml",
    "yml": "yaml",
}

_FRAME = "display:flex;overflow:auto;max-height:40em"
_FONT = "font-family:Menlo,Consolas,monospace;font-size:0.93em"
_BLOCK = f"{_FONT};margin:0;padding:0;white-space:pre;overflow:visible"
_NUMBERS = f"{_BLOCK};flex:none;padding-right:1em;text-align:right;opacity:0.6;user-select:none"
_CELL = "text-align:left;vertical-align:top"
_QUIET = f"{_FONT};margin:0;padding:0;opacity:0.7"
_HEADING = "margin-top:0.3em"

# How the lines of a diff are shown: what they begin with, in HTML, and in a terminal.
_DIFF_BEGINS = re.compile(r"^(diff --git |--- )", re.MULTILINE)
_DIFF_STYLES = (
    (("diff ", "--- ", "+++ "), "font-weight:bold", "1"),
    (("@@",), "opacity:0.7", "36"),
    (("+",), "background-color:rgba(46,160,67,0.2)", "32"),
    (("-",), "background-color:rgba(248,81,73,0.2)", "31"),
)
_BOLD, _FAINT = "1", "2"


@dataclass(frozen=True)
class Place:
    """
    Where a call was made.

    Attributes:
        notebook: folder of the notebook; what front-ends take links from.
        folder: where a tool's relative paths begin.
        root: the project's.
    """

    notebook: str
    folder: str
    root: str

    @classmethod
    def here(cls, notebook: str) -> Place:
        """The working folder, as a worker takes it over."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = notebook
        return cls(notebook, folder, project_root(folder, os.path.expanduser("~")))

    def link(self, path: str, line: int | None = None) -> str | None:
        """
        The address of a file of the project, relative to the notebook; None for any other.

        ``#line=`` counts from 0, as JupyterLab does. The percent encoding leaves no character that
        could end an attribute or begin a scheme.
        """
        target = os.path.normpath(os.path.join(self.folder, path))
        if "\0" in path or not Path(target).is_relative_to(self.root):
            return None
        try:
            name = os.fsencode(os.path.relpath(target, self.notebook))
        except UnicodeEncodeError:
            return None
        return quote(name) + (f"#line={line - 1}" if line else "")


class _View(Protocol):
    """A part of an answer."""

    def text(self, *, coloured: bool) -> str:
        """For a terminal."""

    def html(self, place: Place) -> str:
        """For a notebook."""


def bundles(result: ToolResult, place: Place | None, *, coloured: bool) -> list[dict[str, str]]:
    """
    What to display of a result.

    Args:
        result: of a tool, of any worker.
        place: where it was called; None where no HTML is shown.
        coloured: in the text there may be colours.

    Returns:
        Data by MIME type, for one display after the other.
    """
    shown: list[dict[str, str]] = []
    for is_picture, group in groupby(_views(result), lambda view: isinstance(view, _Picture)):
        parts = list(group)
        if is_picture:
            shown += [part.bundle() for part in parts if isinstance(part, _Picture)]
        else:
            views = [part for part in parts if not isinstance(part, _Picture)]
            shown.append(_bundle(views, place, coloured=coloured))
    return shown


def _bundle(views: Sequence[_View], place: Place | None, *, coloured: bool) -> dict[str, str]:
    data = {"text/plain": "\n".join(view.text(coloured=coloured) for view in views)}
    if place is not None and not all(isinstance(view, _Plain) for view in views):
        data["text/html"] = "\n".join(view.html(place) for view in views)
    return data


def _views(result: ToolResult) -> Iterator[_View | _Picture]:
    """The parts; the first text is shown by the structure, which says the same as data."""
    structure = result.structured_content or {}
    for block in result.content:
        if block.type == "image" and _is_picture(block):
            yield _Picture(block.mime_type, block.data)
        elif block.type == "text":
            yield _structured(block.text, structure)
            structure = {}
        else:
            yield _Plain(str(block))


def _structured(text: str, structure: Mapping[str, Any]) -> _View:
    path, first = structure.get("path"), _line_number(structure.get("start_line"))
    if isinstance(path, str) and first and "total_lines" in structure:
        return _Code(text, path, first)
    if matches := _dicts(structure.get("matches")):
        hits = [hit for entry in matches if (hit := _Hit.of(entry))]
        return _Hits(hits) if len(hits) == len(matches) else _Plain(text)
    if isinstance(structure.get("diff"), str):
        return _Diff(text)
    # what is said of them beside, such as their number, is in the text, too
    lists = [value for value in structure.values() if not isinstance(value, int)]
    if len(lists) == 1 and (rows := _dicts(lists[0])):
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if len(columns) <= _MOST_COLUMNS:
            return _Rows(text, rows, sorted(columns, key=lambda name: name == "text"))
    return _Plain(text)


def _dicts(value: object) -> list[dict[str, Any]]:
    """A list of nothing but objects, or nothing."""
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    return []


def _line_number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LAST_LINE:
        return value
    return None


def _is_picture(block: ToolContent) -> bool:
    return block.mime_type in _IMAGES and bool(_BASE64.fullmatch(block.data))


@dataclass(frozen=True)
class _Picture:
    kind: str
    data: str

    def bundle(self) -> dict[str, str]:
        return {self.kind: self.data, "text/plain": f"[{self.kind}]"}


@dataclass(frozen=True)
class _Plain:
    said: str

    def text(self, *, coloured: bool) -> str:  # noqa: ARG002
        return _seen(_DIGEST.sub("", self.said))

    def html(self, place: Place) -> str:  # noqa: ARG002
        return f'<pre style="{_QUIET}">{html.escape(self.text(coloured=False))}</pre>'


@dataclass(frozen=True)
class _Code:
    code: str
    path: str
    first: int

    def text(self, *, coloured: bool) -> str:
        code = _seen(self.code)
        lines = (_ansi(code, self.path) if coloured else code).removesuffix("\n").split("\n")
        return "\n".join(_numbered(enumerate(lines, self.first), coloured=coloured))

    def html(self, place: Place) -> str:
        code = _seen(self.code)
        numbers = range(self.first, self.first + code.removesuffix("\n").count("\n") + 1)
        block = _beside("\n".join(map(str, numbers)), _markup(code, self.path))
        return _headed(_linked(self.path, place, self.first), block)


@dataclass(frozen=True)
class _Hit:
    path: str
    line: int
    found: str

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Hit | None:
        path, line, text = entry.get("path"), _line_number(entry.get("line")), entry.get("text")
        if not isinstance(path, str) or line is None or not isinstance(text, str):
            return None
        return cls(path, line, text)

    def lines(self) -> Iterable[tuple[int, str]]:
        return enumerate(_seen(self.found).removesuffix("\n").split("\n"), self.line)


@dataclass(frozen=True)
class _Hits:
    hits: Sequence[_Hit]

    def text(self, *, coloured: bool) -> str:
        parts = []
        for path, hits in groupby(self.hits, lambda hit: hit.path):
            name = printable(path)
            lines = _numbered((line for hit in hits for line in hit.lines()), coloured=coloured)
            parts.append("\n".join([_painted(name, _BOLD) if coloured else name, *lines]))
        return "\n\n".join(parts)

    def html(self, place: Place) -> str:
        return "\n".join(
            self._file(path, list(hits), place)
            for path, hits in groupby(self.hits, lambda hit: hit.path)
        )

    @staticmethod
    def _file(path: str, hits: list[_Hit], place: Place) -> str:
        numbers, found = [], []
        for hit in hits:
            for line, text in hit.lines():
                is_first = line == hit.line
                numbers.append(_anchor(str(line), path, place, line) if is_first else str(line))
                found.append(html.escape(text))
        block = _beside("\n".join(numbers), "\n".join(found))
        return _headed(_linked(path, place), block)


@dataclass(frozen=True)
class _Diff:
    said: str

    def text(self, *, coloured: bool) -> str:
        about, diff = self._parts()
        lines = [_painted_line(line) if coloured else line for line in diff]
        return "\n".join([*about, *lines])

    def html(self, place: Place) -> str:
        about, diff = self._parts()
        parts = [_Plain("\n".join(about)).html(place)] if about else []
        if diff:
            lines = "".join(self._alike(style, group) for style, group in groupby(diff, _style))
            parts.append(_framed(f'<pre style="{_BLOCK};flex:1">{lines}</pre>'))
        return "\n".join(parts)

    @staticmethod
    def _alike(style: str, lines: Iterable[str]) -> str:
        # the last line end of a block ends the block and shows no line
        text = "".join(f"{html.escape(line)}\n" for line in lines)
        return f'<span style="display:block;{style}">{text}</span>' if style else text

    def _parts(self) -> tuple[list[str], list[str]]:
        """The lines before the diff, and the diff's."""
        text = _seen(self.said).removesuffix("\n")
        begins = _DIFF_BEGINS.search(text)
        start = begins.start() if begins else len(text)
        about = _DIGEST.sub("", text[:start]).removesuffix("\n")
        return about.split("\n") if about else [], text[start:].split("\n") if begins else []


@dataclass(frozen=True)
class _Rows:
    said: str
    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str]

    def text(self, *, coloured: bool) -> str:
        return _Plain(self.said).text(coloured=coloured)

    def html(self, place: Place) -> str:
        head = "".join(f'<th style="{_CELL}">{_escaped(name)}</th>' for name in self.columns)
        body = "".join(
            f"<tr>{''.join(self._cell(name, row, place) for name in self.columns)}</tr>"
            for row in self.rows
        )
        return (
            f'<div style="{_FRAME}"><table style="margin:0"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    @staticmethod
    def _cell(name: str, row: Mapping[str, Any], place: Place) -> str:
        said = _worded(name, row)
        is_path = name == "path" and said == row.get(name)
        content = _linked(said, place) if is_path else _escaped(said)
        return f'<td style="{_CELL}">{content}</td>'


def _worded(name: str, row: Mapping[str, Any]) -> str:
    """A value of a row, as a person would say it."""
    value = row.get(name)
    if value is None:
        return ""
    if name == "size" and isinstance(value, int) and 0 <= value < LARGEST_SIZE:
        return format_size(value) if row.get("kind") != "folder" else ""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        text = "..."
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]} ..."


# Colours


def _lexer(path: str) -> Any | None:
    from pygments.lexers import get_lexer_by_name

    language = _LANGUAGES.get(path.rpartition(".")[2].lower())
    if language is None:
        return None
    return get_lexer_by_name(language, stripnl=False, ensurenl=False)


def _coloured_part(code: str) -> tuple[str, str]:
    """As many whole lines as are coloured, and the rest."""
    if len(code) <= _MOST_COLOURED:
        return code, ""
    end = code.rfind("\n", 0, _MOST_COLOURED) + 1
    return code[:end], code[end:]


def _markup(code: str, path: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter

    lexer = _lexer(path)
    if lexer is None:
        return html.escape(code)
    head, rest = _coloured_part(code)
    return f"{highlight(head, lexer, HtmlFormatter(nowrap=True))}{html.escape(rest)}"


def _ansi(code: str, path: str) -> str:
    from pygments import highlight
    from pygments.formatters import TerminalFormatter

    lexer = _lexer(path)
    if lexer is None:
        return code
    head, rest = _coloured_part(code)
    return f"{highlight(head, lexer, TerminalFormatter())}{rest}"


def _painted(text: str, colour: str) -> str:
    return f"\033[{colour}m{text}\033[0m"


def _painted_line(line: str) -> str:
    for begins, _, colour in _DIFF_STYLES:
        if line.startswith(begins):
            return _painted(line, colour)
    return line


def _style(line: str) -> str:
    return next((style for begins, style, _ in _DIFF_STYLES if line.startswith(begins)), "")


# Pieces


def _seen(text: str) -> str:
    return visible(text.replace("\r\n", "\n"))


def _numbered(lines: Iterable[tuple[int, str]], *, coloured: bool) -> Iterator[str]:
    rows = [(str(number), line) for number, line in lines]
    width = max(len(number) for number, _ in rows)
    for number, line in rows:
        margin = _painted(number.rjust(width), _FAINT) if coloured else number.rjust(width)
        yield f"{margin}  {line}" if line else margin


def _beside(numbers: str, code: str) -> str:
    """Lines and their numbers; only the lines are selected and copied."""
    return _framed(
        f'<pre style="{_NUMBERS}">{numbers}</pre>'
        f'<pre class="highlight" style="{_BLOCK};flex:1">{code}</pre>'
    )


def _headed(heading: str, block: str) -> str:
    return f'<div style="{_HEADING}">{heading}</div>\n{block}'


def _framed(block: str) -> str:
    return f'<div style="{_FRAME}">{block}</div>'


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _linked(path: str, place: Place, line: int | None = None) -> str:
    return _anchor(printable(path), path, place, line)


def _anchor(text: str, path: str, place: Place, line: int | None) -> str:
    link = place.link(path, line)
    if link is None:
        return html.escape(text)
    return f'<a href="{link}">{html.escape(text)}</a>'
