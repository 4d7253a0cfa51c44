"""Tab behind ``%hive`` and ``%delegate``: commands, flags, and what may follow them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from hive_jupyter.errors import ConfigError
from hive_jupyter.notebook.magics import (
    COMMANDS,
    DELEGATE,
    KERNEL,
    PROFILE,
    SETTING,
    WORKER,
    HiveMagics,
)
from hive_jupyter.policy import PROFILES
from hive_jupyter.toolbox import SHORT_NAMES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from hive_jupyter.notebook.arguments import Parser

# The magic, the words before the cursor's, and the cursor's.
_LINE = re.compile(r"\s*(%hive|%?%delegate)\s(.*?)(\S*)", re.DOTALL)


@dataclass(frozen=True)
class _Offer:
    """
    What may stand where the cursor is.

    Attributes:
        words: all that fit in the place, whatever is typed already.
        typed: what of the word is typed already.
        alone: nothing else can stand there.
    """

    words: Iterable[str]
    typed: str
    alone: bool = True


_NOTHING = _Offer((), "", alone=False)


class HiveCompleter:
    """Knows the words of the magics of one shell."""

    def __init__(self, magics: HiveMagics) -> None:
        self._magics = magics

    @context_matcher()  # type: ignore[untyped-decorator]
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """IPython's protocol: what the word at the cursor could become."""
        line = context.text_until_cursor
        match = _LINE.fullmatch(line)
        offer = _NOTHING
        if match and (context.cursor_line == 0 or not match[1].startswith("%%")):
            magic, before, typed = match.groups()
            try:
                offer = (self._hive if magic == "%hive" else self._delegate)(before, typed)
            except ConfigError:
                # The words before make no sense; the magic will say so.
                offer = _NOTHING
        fitting = [word for word in offer.words if word.startswith(offer.typed)]
        return {
            "completions": [SimpleCompletion(word, type="param") for word in fitting],
            "suppress": offer.alone and bool(fitting),
            "matched_fragment": offer.typed,
        }

    def _hive(self, before: str, typed: str) -> _Offer:
        command, *words = before.split() or [""]
        if not command:
            return _Offer(COMMANDS, typed)
        if command not in COMMANDS:
            return _NOTHING
        parser = COMMANDS[command]
        if offer := self._flag(parser, words, typed):
            return offer
        return self._values(parser.positionals[0], typed) if parser.positionals else _NOTHING

    def _delegate(self, before: str, typed: str) -> _Offer:
        words, code = DELEGATE.options_of(before)
        if code or "--" in words:
            return _NOTHING
        if offer := self._flag(DELEGATE, words, typed):
            return offer
        return _Offer((*SHORT_NAMES, *self._magics.manager.known_tools()), typed, alone=False)

    def _flag(self, parser: Parser, words: list[str], typed: str) -> _Offer | None:
        """A flag, or the value of one."""
        if parser.awaits_value(words):
            return self._values(parser.flags[words[-1]], typed)
        flag, is_value, value = typed.partition("=")
        if is_value and flag in parser.flags:
            return self._values(parser.flags[flag], value)
        return _Offer(parser.flags, typed) if typed.startswith("-") else None

    def _values(self, action: argparse.Action, typed: str) -> _Offer:
        kind = action.metavar
        if kind == WORKER:
            return _Offer(self._magics.manager.workers(), typed)
        if kind == PROFILE:
            return _Offer(PROFILES, typed)
        if kind == KERNEL:
            return _Offer(_kernels(), typed)
        if kind == SETTING:
            traits = self._magics.manager.config.traits(config=True)
            # what is read when the hive starts can be shown only
            shown = (n if t.metadata.get("at_start") else f"{n}=" for n, t in traits.items())
            return _Offer(sorted(shown), typed)
        return _NOTHING


def _kernels() -> list[str]:
    from jupyter_client.kernelspec import KernelSpecManager

    return sorted(KernelSpecManager().find_kernel_specs())
