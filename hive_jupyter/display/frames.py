"""What is no good without its style or its script: shown in a frame of its own."""

from __future__ import annotations

import functools
import html as escapes
import json
import re
from pathlib import Path

from hive_jupyter.display import markup

# The frame of a page at rest takes this over from the page around it, and so does what becomes of
# it: no script, no form, nothing fetched, and no link that leads anywhere, as that no frame may be
# fetched keeps the page from going elsewhere.
_STILL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "frame-src 'none'; form-action 'none'; base-uri 'none'"
)
# The frame of a running page takes this over from the page around it. What it holds may run, and
# nothing is fetched; that no frame may be fetched also keeps the page from going elsewhere.
_RUNNING_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; "
    "worker-src data: blob:; frame-src 'none'; form-action 'none'; base-uri 'none'"
)
_STILL_AROUND = (
    f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{_STILL_POLICY}">'
    "<style>html, body { height: 100%; margin: 0; overflow: hidden } "
    "iframe { border: 0; display: block; height: 100%; width: 100% }</style>"
    "<iframe sandbox=\"\" srcdoc='$PAGE'></iframe>"
)
_STILL_HEAD = (
    '<meta http-equiv="x-dns-prefetch-control" content="off">'
    "<style>body { background: white; color: black; font: 13px sans-serif; margin: 4px }</style>"
)
# These tell a name server where they are read, whatever the policy says.
_HINTS = re.compile(r"<(?=(?:link|meta|base)\b)", re.IGNORECASE)

# Heights in pixels. A page at rest cannot say how high it is: it is guessed from what is in it.
_LOWEST, _HIGHEST, _LINE, _BOX, _EDGE = 60, 400, 24, 8, 24
_RUNNING = 450
_LINES = re.compile(r"<(?:br|dd|dt|h\d|li|p|pre|tr)\b", re.IGNORECASE)
_HIGH = re.compile(r"<svg\b[^<>]*\bheight=[\"']?(\d{1,4})", re.IGNORECASE)
_MOST_TEXT = 2000
_OBJECT = re.compile(r"<IPython\.core\.display\.\w+ object>")

_TRUST = (
    "This part of the output is shown in a trusted notebook only: use Trust Notebook in the "
    "notebook's commands."
)
_WIDGET = "application/vnd.jupyter.widget-view+json"
_LIVELESS = (
    "This is what the widget said of itself when it was shown. In a notebook those of ipywidgets "
    "are live, and any other in a worker of the profile open."
)
_EVERYTHING = (
    "`%hive config outputs=trusted`, then `%hive restart`, shows everything; docs/outputs.md tells "
    "what that allows."
)
_NO_PROGRAM = (
    "The rest of this output is a program in JavaScript, which is not run here. A picture of "
    "it can be shown, PNG for instance."
)
_HOST = r"(?:https?:)?//([\w.-]{1,100})"
_PAGE = re.compile(rf"<iframe\b[^<>]*{markup.PLACE}", re.IGNORECASE)
_REMOTE = [
    re.compile(rf"<script\b[^<>]*\bsrc\s*=\s*[\"']?{_HOST}", re.IGNORECASE),
    re.compile(rf"from\s*[\"']{_HOST}"),
    re.compile(rf"import\(?\s*[\"']{_HOST}"),
]
# How those who load a script from elsewhere put it into their HTML instead.
_SELF_CONTAINED = {
    "plotly": "display(HTML(figure.to_html(include_plotlyjs=True)))",
    "bokeh": "display(HTML(bokeh.embed.file_html(plot, bokeh.resources.INLINE)))",
    "vega": "display(HTML(chart.to_html(inline=True)))",
}


def framed(html: str, text: str) -> str:
    """
    HTML to show in place of HTML that is made to run.

    Args:
        html: of a worker.
        text: the same as text, or "".
    """
    return _still(html, text) + (_page_from_elsewhere(html) or _to_run(html))


def inert(html: str, text: str) -> str:
    """The same, where nothing may run."""
    return _still(html, text) + (_page_from_elsewhere(html) or markup.note(_NO_PROGRAM))


def instead(kinds: list[str], text: str) -> str:
    """HTML that says what is not shown, below what is: a text."""
    names = ", ".join(kinds)
    why = _LIVELESS if kinds == [_WIDGET] else _EVERYTHING
    return _preformatted(text) + markup.note(f"Not shown: {names}.{_advice(names)} {why}")


def at_rest(html: str, text: str) -> str:
    """A frame in which nothing runs, for HTML that has its own style."""
    page = _STILL_HEAD + _HINTS.sub("<x-", html)
    # no more than must be, as all is written out once more
    around = _STILL_AROUND.replace("$PAGE", page.replace("&", "&amp;").replace("'", "&#39;"))
    fallback = f"{text[:_MOST_TEXT]}\n{_TRUST}".strip()
    return (
        f'<iframe sandbox="" srcdoc="{escapes.escape(around)}" title="Output of a worker" '
        f'style="border: 1px solid #ccc; box-sizing: border-box; resize: vertical; width: 100%; '
        f'height: {_height(html)}px">{escapes.escape(fallback)}</iframe>'
    )


def _height(html: str) -> int:
    opened = "".join(part.rpartition("</details>")[2] for part in html.split("<details"))
    written = _LINE * len(_LINES.findall(opened)) + _BOX * opened.count("<div")
    drawn = max([0, *map(int, _HIGH.findall(html))])
    return min(_HIGHEST, max(_LOWEST, _EDGE + max(written, drawn)))


def _still(html: str, text: str) -> str:
    """What there is to see of HTML before it runs."""
    if markup.is_short(html):
        seen = markup.clean(html)
        if markup.text_of(seen).strip() or "<img" in seen:
            return at_rest(html, text) if markup.needs_style(html) else f"<div>{seen}</div>"
    return _preformatted(text)


def _page_from_elsewhere(html: str) -> str:
    """A line, where all that runs in HTML is a page that cannot be loaded."""
    found = _PAGE.search(html)
    if found is None or markup.needs_script(_PAGE.sub("", html)):
        return ""
    return markup.note(
        f"Not loaded: {escapes.unescape(found[1])}. What a worker made loads no page; your browser "
        "can open it."
    )


def _to_run(html: str) -> str:
    hosts = sorted({host for way in _REMOTE for host in way.findall(html)})
    if hosts:
        return markup.note(
            f"This output wants to load a program from {', '.join(hosts[:3])}, and what a worker "
            f"made loads nothing.{_advice(html)}"
        )
    # In a saved notebook that is not trusted the frame goes, and the text in it stays.
    return (
        "<details><summary>Run this output</summary>"
        f'<div style="height: {_RUNNING}px; overflow: hidden; resize: vertical">'
        f'<iframe sandbox="allow-scripts" srcdoc="{escapes.escape(_running(html))}" '
        f'title="Output of a worker" style="border: 0; height: 100%; width: 100%">{_TRUST}</iframe>'
        "</div></details>"
    )


def _running(html: str) -> str:
    """The page that runs HTML once the reader has opened it."""
    page = json.dumps(html).replace("<", "\\u003c")
    return _template().replace("$POLICY", _RUNNING_POLICY).replace("$PAGE", page)


@functools.cache
def _template() -> str:
    return Path(__file__).with_name("frame.html").read_text(encoding="utf-8")


def _preformatted(text: str) -> str:
    if not text or _OBJECT.fullmatch(text):
        return ""
    cut = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} ..."
    return f"<pre>{escapes.escape(cut)}</pre>"


def _advice(of: str) -> str:
    """What to write instead, where the maker is known."""
    for name, way in _SELF_CONTAINED.items():
        if name in of.lower():
            return f" This does the same and loads nothing: {way}"
    return ""
