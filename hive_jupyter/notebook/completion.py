"""Tab behind ``%hive``, ``%commit`` and ``%delegate``: words, flags, and what may follow."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.notebook import compat
from hive_jupyter.notebook.magics import (
    COMMANDS,
    COMMIT,
    DELEGATE,
    KERNEL,
    PATH,
    PROFILE,
    PROGRAM,
    REQUEST,
    SETTING,
    TOOL,
    VARIABLE,
    VARIABLES,
    WORKER,
    HiveMagics,
)
from hive_jupyter.notebook.tool_view import Place
from hive_jupyter.policy import PROFILES
from hive_jupyter.toolbox import SHORT_NAMES, full_name

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from hive_jupyter.notebook.arguments import Parser
    from hive_jupyter.tools import Tool

# The magic, the words before the cursor's, and the cursor's.
_LINE = re.compile(r"\s*(%hive|%commit|%?%delegate)\s(.*?)(\S*)", re.DOTALL)
# A delegated cell: its first line, behind the magic.
_BODY = re.compile(r"%%delegate(?=\s)(.*)\n")
# The details of a tool: whole words, and the cursor's, in which a quote may be open.
_WORD = r"""(?:\\.|"[^"]*"|'[^']*'|[^\s"'\\])"""
_DETAILS = re.compile(rf"""((?:{_WORD}+\s+)*)({_WORD}*(?:"[^"]*|'[^']*)?)""", re.DOTALL)
# Words of which IPython knows more: files anywhere, and Python's names.
_PYTHONS = {PATH, PROGRAM, VARIABLE, VARIABLES}
# Names that arguments have which are paths.
_PATHS = re.compile(r"(?:\w+_)?(?:path|file|folder|dir|directory)s?")
# Of a folder: that are looked at, and that are offered.
_MOST_ENTRIES = 5000
_MOST_OFFERED = 500


@dataclass(frozen=True)
class _Offer:
    """
    What may stand where the cursor is.

    Attributes:
        words: that go on from what is typed already.
        typed: what they take the place of.
        alone: nothing else can stand there; without words, nothing is offered at all.
    """

    words: list[str]
    typed: str
    alone: bool = True


# IPython knows what can stand there.
_UNKNOWN = _Offer([], "", alone=False)


def _offer(words: Iterable[str], typed: str, *, alone: bool = True) -> _Offer:
    """Those of the words that begin with what is typed."""
    return _Offer([word for word in words if word.startswith(typed)], typed, alone)


class HiveCompleter:
    """Knows the words of the magics of one shell."""

    def __init__(self, magics: HiveMagics) -> None:
        self._magics = magics
        self._offers = {"%hive": self._hive, "%commit": self._commit}

    @context_matcher()  # type: ignore[untyped-decorator]
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """IPython's protocol: what the word at the cursor could become."""
        line = context.text_until_cursor
        if context.cursor_line > 0 and (body := _BODY.match(context.full_text)):
            return self._in_worker(body[1], context)
        match = _LINE.fullmatch(line)
        offer = _UNKNOWN
        if match and (context.cursor_line == 0 or not match[1].startswith("%%")):
            magic, before, typed = match.groups()
            try:
                offer = self._offers.get(magic, self._delegate)(before, typed)
            except ConfigError:
                # The words before make no sense; the magic will say so.
                offer = _UNKNOWN
        return {
            "completions": (
                [SimpleCompletion(word, type="param") for word in offer.words]
                or (compat.NO_COMPLETIONS if offer.alone else [])
            ),
            "suppress": offer.alone,
            "matched_fragment": offer.typed,
        }

    def _in_worker(self, line: str, context: CompletionContext) -> SimpleMatcherResult:
        """What a name in a delegated cell could become, as its worker knows it."""
        lines = context.full_text.split("\n")[1:]
        before = sum(len(one) + 1 for one in lines[: context.cursor_line - 1])
        code, position = "\n".join(lines), before + context.cursor_position
        worker = self._worker_of(line)
        found = worker and self._magics.manager.complete(worker, code, position)
        if not found:
            return {"completions": [], "suppress": False}
        return {
            "completions": [SimpleCompletion(word, type=kind) for word, kind in found.words]
            or compat.NO_COMPLETIONS,
            "suppress": True,
            "matched_fragment": code[found.start : position],
        }

    def inspect(self, code: str, position: int, detail: int) -> str | None:
        """
        What a name in a delegated cell is, as its worker knows it.

        Args:
            code: of the whole cell.
            position: of the cursor, in characters.
            detail: 0, or 1 for its source.

        Returns:
            Text; None where this is no delegated cell, or its worker does not tell.
        """
        match = _BODY.match(code)
        if match is None or position < match.end():
            return None
        worker, body = self._worker_of(match[1]), code[match.end() :]
        if worker is None:
            return None
        return self._magics.manager.inspect(worker, body, position - match.end(), detail)

    def _worker_of(self, line: str) -> str | None:
        """The worker of a delegated cell by its first line; None where it runs no code."""
        try:
            words, task = DELEGATE.options_of(line)
            worker: str | None = DELEGATE.parse_args(words).worker
        except ConfigError:  # the magic will say so
            return None
        return None if task else worker or self._magics.manager.config.worker

    def _hive(self, before: str, typed: str) -> _Offer:
        command, *words = before.split() or [""]
        if not command:
            return _offer(COMMANDS, typed)
        if command not in COMMANDS:
            return _offer((), typed)
        parser = COMMANDS[command]
        if any(parser.takes_the_rest(word) for word in words):
            return _UNKNOWN
        if offer := self._flag(parser, words, typed):
            return offer
        action = parser.next_positional(words)
        return self._values(action, typed) if action else _offer((), typed)

    def _commit(self, before: str, typed: str) -> _Offer:
        match = _DETAILS.fullmatch(before + typed)
        if match is None:
            return _UNKNOWN
        before, typed = match.groups()
        if offer := self._flag(COMMIT, shlex.split(before), typed):
            return offer
        return _Offer(_paths(typed, Place.here(self._magics.notebook)), typed)

    def _delegate(self, before: str, typed: str) -> _Offer:
        words, code = DELEGATE.options_of(before)
        if "--" in words:
            return _UNKNOWN
        if code:
            # the spaces behind it belong to it
            line = before[len(before.rstrip()) - len(code) :] + typed
            return self._details(self._tools(words), line)
        if offer := self._flag(DELEGATE, words, typed):
            return offer
        return _offer((*SHORT_NAMES, *self._tools(words)), typed, alone=False)

    def _details(self, tools: Mapping[str, Tool], line: str) -> _Offer:
        name, details = line.split(maxsplit=1) if line.split()[1:] else (line.strip(), "")
        tool = tools.get(full_name(name))
        match = _DETAILS.fullmatch(details)
        if tool is None or tool.obvious == "code" or match is None or details.startswith("="):
            return _UNKNOWN
        place = Place.here(self._magics.notebook)
        before, typed = match.groups()
        key, is_named, value = typed.partition("=")
        if is_named and key in tool.arguments:
            return _values_of(key, tool.arguments[key], value, place)
        given: set[str | None] = {word.partition("=")[0] for word in shlex.split(before)}
        if not given <= set(tool.arguments):
            given |= {tool.obvious}
        names = _offer([f"{name}=" for name in tool.arguments if name not in given], typed)
        if tool.obvious is None or before:
            return names
        obvious = _values_of(tool.obvious, tool.arguments[tool.obvious], typed, place)
        return _Offer([*names.words, *obvious.words], typed)

    def _tools(self, options: list[str]) -> Mapping[str, Tool]:
        """The tools that are known of the worker that the options name; it is not started."""
        return self._magics.manager.known_tools(DELEGATE.parse_args(options).worker)

    def _flag(self, parser: Parser, words: list[str], typed: str) -> _Offer | None:
        """A flag, or the value of one."""
        if parser.awaits_value(words):
            return self._values(parser.flags[words[-1]], typed)
        flag, is_value, value = typed.partition("=")
        if is_value and flag in parser.flags:
            return self._values(parser.flags[flag], value)
        return _offer(parser.flags, typed) if typed.startswith("-") else None

    def _values(self, action: argparse.Action, typed: str) -> _Offer:
        kind = action.metavar
        if kind in _PYTHONS or typed.startswith(("{", "$")):
            return _UNKNOWN
        return _offer(self._known(kind), typed)

    def _known(self, kind: str | tuple[str, ...] | None) -> Iterable[str]:
        """All that can be told of one kind of word."""
        if kind == WORKER:
            return self._magics.manager.workers()
        if kind == TOOL:
            return (*SHORT_NAMES, *self._magics.manager.known_tools())
        if kind == PROFILE:
            return PROFILES
        if kind == KERNEL:
            return _kernels()
        if kind == REQUEST:
            return self._requests()
        if kind == SETTING:
            traits = self._magics.manager.config.traits(config=True)
            # what is read when the hive starts can be shown only
            return sorted(n if t.metadata.get("at_start") else f"{n}=" for n, t in traits.items())
        return ()

    def _requests(self) -> list[str]:
        try:
            return [request.id for request in self._magics.manager.guard.open()]
        except HiveError:  # the magic will say so
            return []


def _values_of(name: str, schema: Any, typed: str, place: Place) -> _Offer:
    """What an argument of a tool may be."""
    schema = schema if isinstance(schema, dict) else {}
    if _PATHS.fullmatch(name):
        return _Offer(_paths(typed, place), typed)
    if schema.get("type") == "boolean":
        return _offer(("true", "false"), typed)
    choices = schema.get("enum")
    return _offer(map(str, choices if isinstance(choices, list) else ()), typed)


def _paths(typed: str, place: Place) -> list[str]:
    """Files and folders of the project that a path can go on to, with quotes where they need it."""
    quote = typed[:1] if typed[:1] in ("'", '"') else ""
    try:
        (path,) = shlex.split(typed + quote) or [""]
    except ValueError:
        return []
    above, name = os.path.split(path)
    try:
        names = _names_in(os.path.join(place.folder, above), name, place.root)
    except (OSError, ValueError):  # there is no such folder, or none can have this name
        return []
    found = sorted(os.path.join(above, name) for name in names)
    return [_quoted(path) for path in found[:_MOST_OFFERED]]


def _names_in(folder: str, begin: str, root: str) -> list[str]:
    """What is in a folder of the project; a folder's name ends with a slash."""
    folder = os.path.realpath(folder)
    if not _is_below(folder, root):
        return []
    with os.scandir(folder) as entries:
        return [
            entry.name + "/" * entry.is_dir()
            for entry in islice(entries, _MOST_ENTRIES)
            if entry.name.startswith(begin)
            and (begin.startswith(".") or not entry.name.startswith("."))
            and (not entry.is_symlink() or _is_below(os.path.realpath(entry.path), root))
        ]


def _is_below(path: str, root: str) -> bool:
    return os.path.commonpath((path, root)) == root


def _quoted(path: str) -> str:
    """A word for shlex; a folder's quote stays open, so that typing can go on."""
    word = shlex.quote(path)
    return word.removesuffix("'") if word != path and path.endswith("/") else word


def _kernels() -> list[str]:
    from jupyter_client.kernelspec import KernelSpecManager

    return sorted(KernelSpecManager().find_kernel_specs())
