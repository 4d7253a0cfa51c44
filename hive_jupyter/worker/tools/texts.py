"""Bytes as text and back, line ends, and replacements in a text with their diff."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, zip_longest
from typing import Any

from hive_jupyter.errors import ToolError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_COOKIE = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLANK = re.compile(rb"[ \t\f]*(?:#.*)?\r?")
_CONTEXT = 3
# Two blocks of lines whose numbers multiply to more are not compared line by line.
_MOST_COMPARED = 10**6

_Opcode = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class Encoding:
    """
    How a text is written down.

    Attributes:
        name: a codec's, such as "utf-8".
        mark: bytes at the beginning that tell it (BOM).
    """

    name: str
    mark: bytes = b""

    @classmethod
    def of(cls, data: bytes) -> Encoding:
        """What a file's beginning says: a byte order mark, or a line as PEP 263 has it."""
        for mark, name in _MARKS:
            if data.startswith(mark):
                return cls(name, mark)
        first, _, rest = data[:1000].partition(b"\n")
        match = _COOKIE.match(first)
        if not match and _BLANK.fullmatch(first):
            match = _COOKIE.match(rest.partition(b"\n")[0])
        return cls(match[1].decode() if match and _is_text(match[1].decode()) else "utf-8")

    @classmethod
    def for_text(cls, text: str, data: bytes) -> Encoding:
        """That of a text which takes the place of other data: the mark stays, else see ``of``."""
        there = cls.of(data)
        return there if there.mark else cls.of(text[:1000].encode(errors="replace"))

    def decode(self, data: bytes) -> str:
        """
        The text.

        Raises:
            ValueError: it is no text in this encoding.
        """
        return data[len(self.mark) :].decode(self.name)

    def encode(self, text: str) -> bytes:
        """
        The bytes.

        Raises:
            ToolError: the encoding has no such characters, or there is no such encoding.
        """
        try:
            return self.mark + text.removeprefix("\ufeff" if self.mark else "").encode(self.name)
        except UnicodeEncodeError as error:
            letter = text[error.start : error.start + 1]
            msg = f"{letter!r} cannot be written in {self.name}. Use another encoding, or leave it."
            raise ToolError(msg) from None
        except (LookupError, UnicodeError):
            msg = f'There is no encoding "{self.name}". Use utf-8, say.'
            raise ToolError(msg) from None


def _is_text(name: str) -> bool:
    try:
        return isinstance("".encode(name), bytes)
    except (LookupError, UnicodeError):
        return False


def decode(data: bytes, path: str, encoding: str | None = None) -> tuple[str, Encoding]:
    """
    Read a file's content as text.

    Args:
        data: the content.
        path: of the file, for the error.
        encoding: its name, where the beginning does not tell it.

    Raises:
        ToolError: it is no text.
    """
    chosen = Encoding.of(data) if encoding is None else Encoding(encoding)
    try:
        text = chosen.decode(data)
    except (LookupError, UnicodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            msg = f"{path} is no text in {chosen.name}: {_binary(data)}."
        else:
            msg = f'There is no encoding "{chosen.name}". Use utf-8, say.'
        raise ToolError(msg) from None
    if "\0" in text:
        msg = f"{path} is a binary file ({len(data)} bytes, some of them zero), and no text."
        raise ToolError(msg)
    return text, chosen


def _binary(data: bytes) -> str:
    if b"\0" in data:
        return f"a binary file of {len(data)} bytes"
    return "name its encoding, such as latin-1, or take it for a binary file"


# Line ends


def line_end(text: str) -> str:
    r"""How lines end: "\\n", "\\r\\n", or "" where they differ or there is but one line."""
    ends, windows = text.count("\n"), text.count("\r\n")
    if not ends or windows not in (0, ends):
        return ""
    return "\r\n" if windows else "\n"


def with_line_end(text: str, end: str) -> str:
    """The text with one kind of line ends; with "" as it is."""
    return text.replace("\r\n", "\n").replace("\n", end) if end else text


def lines_of(text: str) -> list[str]:
    """The lines as git, grep and editors count them, without their ends."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


# Replacements


@dataclass(frozen=True)
class Edit:
    """
    A piece of text that another one takes the place of.

    Attributes:
        start: index of its first character.
        end: index after its last one.
        text: the new one.
    """

    start: int
    end: int
    text: str


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text after edits, which are in order and do not overlap."""
    pieces, done = [], 0
    for edit in edits:
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join([*pieces, text[done:]])


class _Known(SequenceMatcher[str]):
    """A comparison whose outcome is known: to search for it would take quadratic time."""

    def __init__(self, opcodes: list[_Opcode]) -> None:
        super().__init__(None, "", "")
        self._known = opcodes

    def get_opcodes(self) -> list[Any]:
        return self._known


def unified_diff(path: str, text: str, edits: Sequence[Edit]) -> str:
    """
    What edits change, in the format of ``diff -u``; "" where they change nothing.

    Args:
        path: of the file, for the header.
        text: before the edits.
        edits: in order, without overlap.
    """
    old, new = _with_ends(text), _with_ends(apply(text, edits))
    if old == new:
        return ""
    lines = [f"--- a/{path}\n", f"+++ b/{path}\n"]
    for group in _Known(_opcodes(old, new, edits)).get_grouped_opcodes(_CONTEXT):
        first, last = group[0], group[-1]
        lines.append(f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[i1:i2]]
            else:
                lines += [f"-{line}" for line in old[i1:i2]]
                lines += [f"+{line}" for line in new[j1:j2]]
    unended = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + unended for line in lines)


def _opcodes(old: list[str], new: list[str], edits: Sequence[Edit]) -> list[_Opcode]:
    """How the lines differ, looked for only where the edits are."""
    opcodes: list[_Opcode] = []
    i = j = 0
    for i1, i2, grown in _blocks(old, edits):
        j1 = j + i1 - i
        j2 = j1 + i2 - i1 + grown
        opcodes.append(("equal", i, i1, j, j1))
        opcodes += _compared(old, new, (i1, i2, j1, j2))
        i, j = i2, j2
    opcodes.append(("equal", i, len(old), j, len(new)))
    return [code for code in opcodes if code[2] > code[1] or code[4] > code[3]]


def _blocks(old: list[str], edits: Sequence[Edit]) -> list[tuple[int, int, int]]:
    """The lines that edits touch, from and to, and how many they become more."""
    starts = [0, *accumulate(map(len, old))]
    text = "".join(old)
    blocks: list[tuple[int, int, int]] = []
    together: list[Edit] = []
    for edit, following in zip_longest(edits, edits[1:]):
        together.append(edit)
        end = min(bisect_right(starts, edit.end), len(old))
        if following is not None and following.start <= starts[end]:
            continue
        begin = max(min(bisect_right(starts, together[0].start), len(old)) - 1, 0)
        piece = text[starts[begin] : starts[end]]
        inside = [Edit(e.start - starts[begin], e.end - starts[begin], e.text) for e in together]
        grown = len(_with_ends(apply(piece, inside))) - (end - begin)
        blocks.append((begin, end, grown))
        together = []
    return blocks


def _compared(old: list[str], new: list[str], block: tuple[int, int, int, int]) -> list[_Opcode]:
    i1, i2, j1, j2 = block
    size = (i2 - i1) * (j2 - j1)
    if size > _MOST_COMPARED or size == 1:
        return [("replace", i1, i2, j1, j2)]
    matcher = SequenceMatcher(None, old[i1:i2], new[j1:j2], autojunk=False)
    return [(tag, i1 + a, i1 + b, j1 + c, j1 + d) for tag, a, b, c, d in matcher.get_opcodes()]


def _range(start: int, stop: int) -> str:
    """Lines as the header of a hunk has them, counted from 1."""
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _with_ends(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [f"{line}\n" for line in lines] + ([last] if last else [])
