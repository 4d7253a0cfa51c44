"""Text of a worker, without what a terminal would obey."""

from __future__ import annotations

import re

from hive_jupyter.units import printable

# ECMA-48 and what xterm makes of it (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html). The
# sequences of one and of two characters (ESC [ and U+009B) mean the same. What begins a string
# ends another one, so that each character is looked at once.
_OBEYED = re.compile(
    r"""
      (?P<colour> \x1b\[ [\d;:]{0,64} m )
    | (?: \x1b\[ | \x9b ) [0-?]* [\x20-/]* [@-~]
    | (?: \x1b[PX\]^_] | [\x90\x98\x9d-\x9f] ) [^\x07\x1b\x80-\x9f]* (?: \x07 | \x1b\\ | \x9c )
    | \x1b [\x20-/]* [0-~]
    | [\x00-\x07\x0b-\x0c\x0e-\x1f\x7f-\x9f]
    """,
    re.VERBOSE,
)
# Nearly all text has nothing of that, or colours alone: to look is ten times faster.
_COLOUR = re.compile(r"\x1b\[[\d;:]{0,64}m")
_SUSPECT = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# These put a style or a picture into a formula, and MathJax in the browser fetches the address in
# them: of `cursor: url(...)`, or of an <mglyph>.
_FETCHING = re.compile(r"\\(?=(?:style|bbox|mmlToken)(?![a-zA-Z]))")


def plain(text: str) -> str:
    """
    Text of which a terminal, or a front-end that plays one, obeys only colours.

    What moves within a line stays (tab, backspace, carriage return), for progress bars are made of
    it; it reaches no other line. What moves the cursor, clears the screen, sets a title or makes a
    link goes, with its arguments.
    """
    if _SUSPECT.search(text) is None or _SUSPECT.search(_COLOUR.sub("", text)) is None:
        return text
    return _OBEYED.sub(lambda found: found["colour"] or "", text)


def line(text: str, most: int) -> str:
    """At most so many characters of a text, on one line, with nothing to obey."""
    cut = printable(plain(text[: 2 * most]))
    return cut if len(cut) <= most else f"{cut[: most - 4]} ..."


def fetching_nothing(text: str) -> str:
    """Text in which no formula of TeX makes a browser fetch what tells where it is read."""
    # a character of no width: it looks the same where it is no formula
    return _FETCHING.sub("\\\\\u200b", text)
