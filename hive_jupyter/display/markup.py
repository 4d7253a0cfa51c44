"""HTML of a worker, built anew of what can do nothing to the page around it."""

from __future__ import annotations

import base64
import html as escapes
import re

from hive_jupyter.display import images
from hive_jupyter.display.text import fetching_nothing
from hive_jupyter.display.tidy import ATTRIBUTES, TAGS, tidy

# Longer HTML is not taken apart in the host (characters), nor such that has more of these: nh3
# takes a time that grows with their square.
_LONGEST = 2**18
_MOST_ENTITIES = 20_000

_PICTURE = re.compile(r"data:(image/[a-z+]{3,8});base64,([A-Za-z0-9+/=\s]+)")
# Of these a browser runs no script and fetches nothing where they are the source of an <img>.
_DRAWING = "image/svg+xml"
_LINK = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x20]+", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,5}%?", re.ASCII)

_SIDES = r"(?:-(?:top|right|bottom|left))?"
_PROPERTY = re.compile(
    rf"color|background(?:-color)?|border{_SIDES}(?:-(?:color|style|width))?|padding{_SIDES}|"
    rf"border-(?:collapse|radius|spacing)|margin{_SIDES}|(?:(?:min|max)-)?(?:width|height)|"
    r"display|float|font-(?:family|size|style|weight)|line-height|list-style-type|"
    r"overflow(?:-[xy])?|table-layout|text-(?:align|decoration)|vertical-align|white-space|"
    r"word-break|overflow-wrap"
)
# No function but colours, no quote, nothing negative: that would lie over others.
_VALUE = re.compile(
    r"(?: [\w\#%.,/)\s] | -(?![\d.]) | (?:(?<=rgb)|(?<=hsl)|(?<=rgba)|(?<=hsla))\( )+",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)

# Where there is one of these, HTML is not what it was without its script, or its style.
_ACTIVE = re.compile(
    r"<(?:script|iframe|object|embed|applet|frameset)\b|<[a-z][^<>]*\son[a-z]{3,}\s*=",
    re.IGNORECASE,
)
_STYLED = re.compile(
    r"<(?:svg|math|input|select|button|textarea|video|audio|marquee)\b", re.IGNORECASE
)
_SHEET = re.compile(r"<style\b[^<>]*>([^<]*)", re.IGNORECASE)
# What pandas and polars call a table; JupyterLab has a style for it.
_TABLE_CLASS = "dataframe"
_ELEMENT = re.compile(r"<[^<>]*>")
# An address that is to be fetched, of an element.
PLACE = r"""(?<![\w-])src\s*=\s*["']?(?!data:)([^"'\s<>]{1,500})"""
_FETCHED_PICTURE = re.compile(rf"<img\b[^<>]*{PLACE}", re.IGNORECASE)


def clean(html: str) -> str:
    """
    Build HTML anew.

    What is left are elements that text is made of, tables, pictures that are part of it, links to
    the web, and a style that stays in its place: no script, form, frame or file from elsewhere, and
    neither class, id nor data-*, at which scripts of the page would take hold.
    """
    import nh3

    cleaned = nh3.clean(
        tidy(html),
        tags=set(TAGS),
        attributes={"*": set(ATTRIBUTES)},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer",
    )
    return fetching_nothing(cleaned)


def rebuilt(html: str) -> str:
    """HTML as ``clean`` makes it, and a line about the pictures in it that are not loaded."""
    return clean(html) + missing_pictures(html)


def missing_pictures(html: str) -> str:
    """A line about the pictures of HTML that are not part of it; "" where there are none."""
    places = dict.fromkeys(map(escapes.unescape, _FETCHED_PICTURE.findall(html)))
    if not places:
        return ""
    return note(
        f"Not loaded: {', '.join([*places][:3])}. A picture of a worker is shown where it is part "
        "of the output: Image(url=..., embed=True), or Image(filename=...)."
    )


def note(text: str) -> str:
    """HTML in which Hive says something below an output."""
    return f"<p><em>{escapes.escape(fetching_nothing(text))}</em></p>"


def text_of(html: str) -> str:
    """What there is to read in HTML that ``clean`` has made."""
    return escapes.unescape(_ELEMENT.sub("", html))


def picture(svg: str) -> str:
    """HTML that shows a drawing as a picture, in which nothing runs."""
    if "xmlns" not in svg:  # within HTML it may be missing
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    data = base64.b64encode(svg.encode(errors="replace")).decode()
    return f'<img src="data:{_DRAWING};base64,{data}">'


def is_short(html: str) -> bool:
    """Whether ``clean`` may be asked."""
    return len(html) <= _LONGEST and html.count("&") <= _MOST_ENTITIES


def needs_script(html: str) -> bool:
    """Whether HTML is likely made to run something."""
    return _ACTIVE.search(html) is not None


def needs_style(html: str) -> bool:
    """Whether HTML is likely no good without what ``clean`` takes: style sheets and drawings."""
    return _STYLED.search(html) is not None or any(
        _TABLE_CLASS not in rule.partition("{")[0]
        for sheet in _SHEET.findall(html)
        for rule in sheet.split("}")
        if "{" in rule
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    """An attribute's value as it may stay, or None."""
    match name:
        case "href":
            return value if tag == "a" and _LINK.fullmatch(value) else None
        case "src":
            return _source(value) if tag == "img" else None
        case "class":
            return _TABLE_CLASS if tag == "table" and _TABLE_CLASS in value.split() else None
        case "target":
            return value if (tag, value) == ("a", "_blank") else None
        case "style":
            return _style(value)
        case "width" | "height" | "border" | "colspan" | "rowspan" | "span":
            return value if _NUMBER.fullmatch(value) else None
    return value


def _source(value: str) -> str | None:
    """The picture that is in an address itself; what would be fetched tells where it is read."""
    found = _PICTURE.fullmatch(value)
    if found is None:
        return None
    if found[1] == _DRAWING:
        return value
    data = images.checked(found[1], found[2])
    return None if data is None else f"data:{found[1]};base64,{data}"


def _style(value: str) -> str | None:
    kept = []
    for declaration in value.split(";"):
        name, _, worth = (part.strip() for part in declaration.partition(":"))
        if _PROPERTY.fullmatch(name.lower()) and _VALUE.fullmatch(worth):
            kept.append(f"{name.lower()}: {worth}")
    return "; ".join(kept) or None
