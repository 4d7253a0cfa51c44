"""
Looking for lines in files: with ripgrep where it is, else with Python's ``re``.

ripgrep (https://github.com/BurntSushi/ripgrep) is fast, and its time is linear in what it reads.
Python's expressions may take exponential time; they run in a process of their own, with a deadline.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from hive_jupyter.errors import ToolError
from hive_jupyter.tools import ToolResult
from hive_jupyter.worker.tools import matching, programs, texts, walk, workspace
from hive_jupyter.worker.tools.answers import Progress, Row, listing

# Seconds that Python's expressions have for all files together.
DEADLINE = 30.0

_LONGEST_LINE = 400
_BEFORE_MATCH = 100
# Of a file: to know that it is no text.
_BEGINNING = 8192


@dataclass(frozen=True)
class Search:
    """
    What is looked for.

    Attributes:
        pattern: a text, or a regular expression.
        regex: which of the two.
        ignore_case: upper and lower case are the same.
        glob: pattern for the paths of files, or None for all.
        hidden: also in what begins with a dot, or git ignores.
        limit: so many matches are of interest.
    """

    pattern: str
    regex: bool
    ignore_case: bool
    glob: str | None
    hidden: bool
    limit: int


@dataclass(frozen=True)
class Match:
    """
    A line that matches.

    Attributes:
        name: the file's, from the folder on that is searched.
        line: its number, from 1 on.
        column: of the first match in the line, in characters, from 1 on.
        text: the line.
    """

    name: str
    line: int
    column: int
    text: str


class _NotForRipgrep(Exception):
    """It knows no such expression."""


def search_files(
    pattern: str,
    path: str = ".",
    *,
    glob: str | None = None,
    regex: bool = False,
    ignore_case: bool = False,
    hidden: bool = False,
    limit: int = 200,
) -> ToolResult:
    """Find lines that hold a text, or match a regular expression."""
    if not pattern:
        msg = "The pattern is empty. list_files shows which files there are."
        raise ToolError(msg)
    if "\n" in pattern:
        msg = "Lines are looked at one by one: look for one of the pattern's lines."
        raise ToolError(msg)
    wanted = Search(pattern, regex, ignore_case, glob, hidden, limit)
    with workspace.opened(path) as there:
        return listing(
            _rows(there, wanted),
            key="matches",
            limit=limit,
            none="Nothing found.",
            narrow="Give a folder, a glob, or a more exact pattern.",
        )


def _rows(there: workspace.Opened, wanted: Search) -> Iterator[Row]:
    for match in _found(there, wanted):
        path = workspace.shown(os.path.join(there.path, match.name) if match.name else there.path)
        line = _shortened(match)
        facts = {"path": path, "line": match.line, "column": match.column, "text": line}
        yield f"{path}:{match.line}: {line}", facts


def _shortened(match: Match) -> str:
    if len(match.text) <= _LONGEST_LINE:
        return match.text
    begin = max(match.column - 1 - _BEFORE_MATCH, 0)
    end = begin + _LONGEST_LINE
    left, right = "... " * (begin > 0), " ..." * (end < len(match.text))
    return f"{left}{match.text[begin:end]}{right}"


def _found(there: workspace.Opened, wanted: Search) -> Iterator[Match]:
    program = programs.find("rg")
    if program is not None:
        try:
            yield from _by_ripgrep(program, there, wanted)
        except _NotForRipgrep:
            pass
        else:
            return
    yield from _by_python(there, wanted)


# ripgrep: https://docs.rs/grep-printer/latest/grep_printer/struct.JSON.html


def _by_ripgrep(program: str, there: workspace.Opened, wanted: Search) -> Iterator[Match]:
    """
    Look with ripgrep. It opens files itself, and follows no link.

    Raises:
        _NotForRipgrep: it could not begin.
        ToolError: the one file that was asked for is no text.
    """
    command = [program, *_options(wanted), "--regexp", wanted.pattern, "--"]
    if there.is_folder:
        with programs.running([*command, "./"], folder=there) as process:
            yield from _read(process, there, wanted)
        return
    source = _text_file(there)
    try:
        with programs.running([*command, "-"], source=source) as process:
            yield from _read(process, there, wanted)
    finally:
        os.close(source)


def _options(wanted: Search) -> list[str]:
    # a glob of ripgrep's would bring back what git ignores; a type does not
    types = [f"--type-add=asked:{name}" for name in walk.last_parts(wanted.glob or "*")]
    return [
        *("--no-config", "--json", "--sort=path", "--no-messages", "--crlf", "--no-ignore-dot"),
        f"--max-filesize={workspace.LARGEST_FILE}",
        *(["--hidden", "--no-ignore", "--glob=!.git"] if wanted.hidden else []),
        *([] if wanted.regex else ["--fixed-strings"]),
        *(["--ignore-case"] if wanted.ignore_case else []),
        *([] if wanted.glob is None else [*types, "--type=asked"]),
    ]


def _text_file(there: workspace.Opened) -> int:
    """
    A descriptor of a file that is asked for by its name.

    Raises:
        ToolError: it is no text.
    """
    descriptor = there.reopened()
    try:
        beginning = os.pread(descriptor, _BEGINNING, 0)
    except OSError:
        beginning = b""
    if b"\0" in beginning and not texts.Encoding.of(beginning).mark:
        os.close(descriptor)
        msg = f"{workspace.shown(there.path)} is a binary file, and no text."
        raise ToolError(msg)
    return descriptor


def _read(program: programs.Program, there: workspace.Opened, wanted: Search) -> Iterator[Match]:
    progress = Progress()
    some = 0
    for line in program.output:
        message = json.loads(line)
        if message["type"] != "match":
            continue
        some += 1
        match = _match(message["data"])
        progress(some, None, f"lines found, now in {match.name or there.path}")
        if match.name and not _is_meant(match.name, there, wanted):
            continue
        yield match
    # 1: nothing found; 2: some file could not be read, or (said then) it could not begin
    if program.process.wait() not in (0, 1) and not some and program.said:
        raise _NotForRipgrep


def _is_meant(name: str, there: workspace.Opened, wanted: Search) -> bool:
    # a type, like a glob, brings back what is hidden
    if not wanted.hidden and walk.is_hidden(name):
        return False
    inside = workspace.is_inside(os.path.join(there.path, name))
    return inside and (wanted.glob is None or walk.matches(name, wanted.glob))


def _match(data: dict[str, Any]) -> Match:
    line = _bytes(data["lines"])
    start = data["submatches"][0]["start"] if data["submatches"] else 0
    name = os.fsdecode(_bytes(data["path"]))
    return Match(
        name="" if name == "<stdin>" else name.removeprefix("./"),
        line=data["line_number"],
        column=len(line[:start].decode(errors="replace")) + 1,
        text=line.decode(errors="replace").rstrip("\r\n"),
    )


def _bytes(field: dict[str, str]) -> bytes:
    return field["text"].encode() if "text" in field else base64.b64decode(field["bytes"])


# Python


def _by_python(there: workspace.Opened, wanted: Search) -> Iterator[Match]:
    pattern = wanted.pattern if wanted.regex else re.escape(wanted.pattern)
    command = [sys.executable, "-I", matching.__file__]
    with programs.running(command, source=subprocess.PIPE) as program:
        matcher = _Matcher(program, pattern, ignore_case=wanted.ignore_case)
        if not there.is_folder:
            content, _ = texts.decode(there.read(), workspace.shown(there.path))
            yield from matcher.found("", content, wanted.limit)
            return
        progress = Progress()
        for number, entry in enumerate(walk.walk(there, hidden=wanted.hidden)):
            progress(number, None, f"files looked at, now {entry.name}")
            if entry.kind != walk.FILE or entry.size > workspace.LARGEST_FILE:
                continue
            if wanted.glob is not None and not walk.matches(entry.name, wanted.glob):
                continue
            try:
                with workspace.opened(os.path.join(there.path, entry.name)) as file:
                    content, _ = texts.decode(file.read(), entry.name)
            except ToolError:  # no text, or gone: the others are still there
                continue
            yield from matcher.found(entry.name, content, wanted.limit)


class _Matcher:
    """The program ``matching``, asked by this process."""

    def __init__(self, program: programs.Program, pattern: str, *, ignore_case: bool) -> None:
        self._output = program.output
        self._input: IO[bytes] = program.process.stdin  # type: ignore[assignment]
        self._until = time.monotonic() + DEADLINE
        error = self._ask(json.dumps([pattern, ignore_case]).encode() + b"\n", "itself")["error"]
        if error:
            msg = f"The pattern is no regular expression: {error}."
            raise ToolError(msg)

    def found(self, name: str, content: str, most: int) -> Iterator[Match]:
        """
        The lines of a text that match.

        Args:
            name: of its file.
            content: the text.
            most: so many are of interest; one more is looked for.

        Raises:
            ToolError: it takes too long.
        """
        data = content.encode(errors="replace")
        answer = self._ask(b"%d %d\n" % (len(data), most + 1) + data, name or "this file")
        for line, column, found in answer:
            yield Match(name, line, column, found)

    def _ask(self, request: bytes, where: str) -> Any:
        try:
            self._input.write(request)
            self._input.flush()
        except BrokenPipeError:
            raise self._ended(where) from None
        left = max(self._until - time.monotonic(), 0)
        if not select.select([self._output], [], [], left)[0]:
            msg = (
                f"The search took longer than {DEADLINE:g} s and was ended, in {where}. Some "
                "expressions take exponential time, such as (a+)+$. Write a simpler one, give a "
                "glob or a folder, or install ripgrep (pip install ripgrep), which is not so."
            )
            raise ToolError(msg)
        answer = self._output.readline()
        if not answer:
            raise self._ended(where)
        return json.loads(answer)

    def _ended(self, where: str) -> ToolError:
        msg = f"The process that searches was ended, in {where}: perhaps for want of memory."
        return ToolError(msg)
