"""What may pass of something displayed: its forms, by their MIME types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hive_jupyter.display import frames, images, markdown, markup
from hive_jupyter.display.text import fetching_nothing, plain

_FORMULA = "text/latex"
_TEXTS = frozenset({"text/plain", _FORMULA})
_HTML = "text/html"
_MARKDOWN = "text/markdown"
_DRAWING = "image/svg+xml"
_JSON = "application/json"
_LARGEST_SIDE = 20_000


def shown(
    data: Mapping[str, Any], metadata: Mapping[str, Any], *, runs: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    The forms of a display that may pass, and what may be said of them.

    Args:
        data: of a message, by MIME type.
        metadata: the same.
        runs: whether a page may run when the reader asks for it.
    """
    kept: dict[str, Any] = {}
    refused: list[str] = []
    for kind, value in data.items():
        passed = _passed(kind, value)
        if passed is not None:
            kept[kind] = passed
        elif kind not in (_HTML, _MARKDOWN, _DRAWING):
            refused.append(kind)
    html = _html(data, kept.get("text/plain", ""), runs=runs)
    if html is None and refused and kept.keys() <= _TEXTS:
        html = frames.instead([plain(kind)[:100] for kind in refused], kept.get("text/plain", ""))
    if html is not None:
        kept[_HTML] = html
    return kept, {kind: _metadata(metadata.get(kind)) for kind in kept if kind in metadata}


def _passed(kind: str, value: Any) -> Any:
    """One form as it may pass, or None; those that become HTML are for later."""
    if kind == _JSON:
        return value
    text = _whole(value)
    if text is None:
        return None
    if kind == _FORMULA:
        return fetching_nothing(plain(text))
    if kind in _TEXTS:
        return plain(text)
    return images.checked(kind, text) if kind in images.KINDS else None


def _html(data: Mapping[str, Any], text: str, *, runs: bool) -> str | None:
    html, marked, drawing = (_whole(data.get(kind)) for kind in (_HTML, _MARKDOWN, _DRAWING))
    if html is not None:
        html = plain(html)
        if markup.needs_script(html):
            return frames.framed(html, text) if runs else frames.inert(html, text)
        if markup.needs_style(html) or not markup.is_short(html):
            return frames.at_rest(html, text) + markup.missing_pictures(html)
        return markup.rebuilt(html)
    if marked is not None:
        return markdown.rendered(plain(marked))
    return None if drawing is None else markup.picture(plain(drawing))


def _whole(value: Any) -> str | None:
    """Text, which may come in lines; None where it is none."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def _metadata(said: Any) -> dict[str, Any]:
    if not isinstance(said, Mapping):
        return {}
    sides = {
        name: said[name]
        for name in ("width", "height")
        if type(said.get(name)) in (int, float) and 0 < said[name] <= _LARGEST_SIDE
    }
    opened = {"expanded": said["expanded"]} if isinstance(said.get("expanded"), bool) else {}
    return sides | opened
