"""Durations and sizes as people type them, and back; the nearest word to a mistyped one; text."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import textwrap
from numbers import Integral, Real
from typing import TYPE_CHECKING

from hive_jupyter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|sec|m|min|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([kmgt])(?:i?b)?|b)?", re.ASCII)
_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

# More than these, the operating system's own timers and limits cannot hold.
LONGEST_DURATION = 100 * 365 * 24 * 3600
LARGEST_SIZE = 2**63 - 1

_COLOUR = re.compile(r"\033\[[\d;]*m")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$<>&:@-]|(?<=www)\.)", re.IGNORECASE)

_MINUTE = 60
_HOUR = 60 * _MINUTE
_KILO = 1024
# From here on one decimal would say "1024.0".
_ROUNDS_UP = 1023.95
# Columns that also a narrow notebook shows.
_WIDTH = 80
# Of a text that stands for a longer one, in characters.
_SHOWN = 60
# Nobody mistypes a longer word, and to compare one takes long.
_LONGEST_WORD = 200


def parse_duration(text: str) -> float | None:
    """
    Read a duration.

    Args:
        text: such as "30", "30s", "1.5m", "2h", "250ms"; "none" or "0" for no limit.

    Returns:
        Seconds, or None for no limit.

    Raises:
        ConfigError: the text is no duration.
    """
    word = text.strip().lower()
    if word == "none":
        return None
    match = _DURATION.fullmatch(word)
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else math.nan
    if not seconds <= LONGEST_DURATION:  # also where it is no number
        raise _no_duration(text)
    return seconds or None


def as_seconds(value: object) -> float | None:
    """
    Take a duration as a caller gives it.

    Args:
        value: seconds, or text as ``parse_duration`` reads it; None, 0 or infinity for no limit.

    Returns:
        Seconds, or None for no limit.

    Raises:
        ConfigError: it is no duration.
    """
    if isinstance(value, str):
        return parse_duration(value)
    if value is None or value == math.inf:
        return None
    seconds = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):
        with contextlib.suppress(OverflowError):
            seconds = float(value)
    if not 0 <= seconds <= LONGEST_DURATION:  # also where it is no number
        raise _no_duration(value)
    return seconds or None


def _no_duration(value: object) -> ConfigError:
    msg = f"{value!r} is no duration. Write seconds or a unit: 30, 30s, 5m, 2h, 250ms, or none."
    return ConfigError(msg)


def parse_size(text: str) -> int | None:
    """
    Read a size.

    Args:
        text: such as "500M", "2G", "1.5GiB" or plain bytes; "none" or "0" for no limit.
            K, M, G and T are powers of 1024, as everywhere where memory is counted.

    Returns:
        Bytes, or None for no limit.

    Raises:
        ConfigError: the text is no size.
    """
    word = text.strip().lower()
    if word == "none":
        return None
    match = _SIZE.fullmatch(word)
    number = float(match[1]) * _BYTES.get(match[2], 1) if match else math.nan
    if not number < LARGEST_SIZE:  # also where it is no number
        raise _no_size(text)
    return math.ceil(number) or None


def as_bytes(value: object) -> int | None:
    """
    Take a size as a caller gives it.

    Args:
        value: bytes, or text as ``parse_size`` reads it; None or 0 for no limit.

    Returns:
        Bytes, or None for no limit.

    Raises:
        ConfigError: it is no size.
    """
    if isinstance(value, str):
        return parse_size(value)
    if value is None:
        return None
    size = int(value) if not isinstance(value, bool) and isinstance(value, Integral) else -1
    if not 0 <= size <= LARGEST_SIZE:
        raise _no_size(value)
    return size or None


def _no_size(value: object) -> ConfigError:
    msg = f"{value!r} is no size. Write bytes or a unit: 500M, 2G, 1.5GiB, or none."
    return ConfigError(msg)


def format_duration(seconds: float | None) -> str:
    """Say seconds the way a person would: "12 ms", "3.2 s", "4 min", "2 h 5 min"."""
    if seconds is None:
        return "no limit"
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / _MINUTE), _HOUR // _MINUTE)
    return " ".join([f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0))


def memory_option(size: int) -> str:
    """A size (bytes) as one types it after ``--memory``: in whole G or M, rounded up."""
    unit, letter = (2**30, "G") if size >= 2**30 and size % 2**30 == 0 else (2**20, "M")
    return f"{-(-size // unit)}{letter}" if size else "0"


def format_size(size: int | None) -> str:
    """Say bytes the way a person would: "900 B", "13.5 MB", "2 GB" (powers of 1024)."""
    if size is None:
        return "no limit"
    if size < _KILO:
        return f"{size} B"
    number = float(size)
    for unit in ("KB", "MB", "GB"):
        number /= _KILO
        if number < _ROUNDS_UP:
            return f"{number:.1f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{number / _KILO:.1f}".rstrip("0").rstrip(".") + " TB"


def wrapped(text: str) -> list[str]:
    """The lines of a text, broken between words where a front-end would break them anywhere."""
    return [textwrap.fill(line, _WIDTH, break_long_words=False) for line in text.splitlines()]


def shortened(text: str) -> str:
    """The first line of a text, cut where it is long or more follows."""
    line = text.strip().partition("\n")[0]
    if line == text.strip() and len(line) <= _SHOWN:
        return line
    return f"{line[: _SHOWN - 4]} ..."


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Help somebody who mistyped.

    Returns:
        ' Did you mean "x"?' (with a leading space) for the word in ``known`` that is most like
        ``word``, or a list of all there are, or "" where there are none.
    """
    words = sorted(known)
    close = difflib.get_close_matches(word[:_LONGEST_WORD], words, n=1)
    if close:
        return f' Did you mean "{close[0]}"?'
    return f" There are: {', '.join(words)}." if words else ""


def printable(text: str) -> str:
    """Text on one line, with a space for each character that a screen would obey or swallow."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def without_colours(text: str) -> str:
    """Text without the escape sequences that colour a terminal."""
    return _COLOUR.sub("", text)


def as_markdown(text: str) -> str:
    """Text on one line of which Markdown obeys nothing, addresses that it would link included."""
    # JupyterLab takes two backslashes before a bracket for the beginning of a formula
    return _MARKDOWN.sub(
        lambda found: "&#92;" if found[0] == "\\" else f"\\{found[0]}", printable(text)
    )


def visible(text: str, keep: str = "\n\t") -> str:
    """
    Text in which nothing hides from the reader.

    Args:
        text: with surrogates for bytes that are no UTF-8 (``errors="surrogateescape"``).
        keep: characters that stay although a screen obeys them.

    Returns:
        The text with ``<U+202E>`` for each character that a screen would obey, swallow or show
        as nothing (controls, bidirectional overrides, zero-width and tag characters, variation
        selectors, fillers, spaces other than the common one), and ``<0xFF>`` for each such byte.
    """
    return _NOT_PLAIN.sub(lambda found: _seen(found[0], keep), text)


# Printable by the Unicode tables, and yet nothing to see: fillers and variation selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufffc\U00016fe4\U0001d159")
_SELECTORS = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))


_NOT_PLAIN = re.compile("[^ -~]")


def _seen(letter: str, keep: str) -> str:
    code = ord(letter)
    if letter in keep or (letter.isprintable() and letter not in _BLANK and not _selects(code)):
        return letter
    return f"<0x{code - 0xDC00:02X}>" if 0xDC80 <= code <= 0xDCFF else f"<U+{code:04X}>"


def _selects(code: int) -> bool:
    return any(first <= code <= last for first, last in _SELECTORS)


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, as long as each other, as lines for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
