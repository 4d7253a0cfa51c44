"""Markdown of a worker, rendered here: a front-end would take script in it for the user's own."""

from __future__ import annotations

import functools
import html as escapes
import re
from typing import TYPE_CHECKING

from hive_jupyter.display import markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Longer Markdown is shown as it is written (characters).
_LONGEST = 50_000
# A formula is the front-end's to read, and may hold whatever means something in Markdown.
_FORMULA = re.compile(
    r"\$\$.{1,5000}?\$\$"
    r"|\\begin\{(\w{1,20}\*?)\}.{1,5000}?\\end\{\1\}"
    r"|\$(?=[^\s$])[^$`]{0,999}?(?<=\S)\$(?!\d)",
    re.DOTALL,
)
# Private-use characters, between which stands a formula's number while Markdown is read.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_PLACE = re.compile(f"{_OPEN}(\\d+){_CLOSE}", re.ASCII)


def rendered(text: str) -> str:
    """HTML, as ``markup.rebuilt`` makes it."""
    html = _html(text) if len(text) <= _LONGEST else ""
    if not html or not markup.is_short(html):
        return f"<pre>{escapes.escape(text)}</pre>"
    return markup.rebuilt(html)


def _html(text: str) -> str:
    formulas: list[str] = []

    def take(found: re.Match[str]) -> str:
        formulas.append(found[0])
        return f"{_OPEN}{len(formulas) - 1}{_CLOSE}"

    marked = _FORMULA.sub(take, text.replace(_OPEN, "").replace(_CLOSE, ""))
    html: str = _renderer().render(marked)
    return _PLACE.sub(lambda found: escapes.escape(formulas[int(found[1])]), html)


@functools.cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])
