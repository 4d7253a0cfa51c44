"""
How the words behind a magic are read: argparse, with errors for people.

A magic's options are documented by the parser that reads them, completed from it and checked
against it, so the three never differ.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
from typing import Any, NoReturn

from IPython.core import error as ipython_errors

from hive_jupyter.errors import ConfigError
from hive_jupyter.notebook import compat
from hive_jupyter.swarm.values import checked_names
from hive_jupyter.units import nearest

# Of an option that takes all words that follow.
REST = argparse.REMAINDER

# One word; quotes hold spaces together.
_WORD = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[^\s"'])+)""")
# Ends the options.
_END = "--"
# -w, -wNAME, --worker, --worker=NAME; neither -1 nor - nor --.
_FLAG = re.compile(r"(--[A-Za-z][\w-]*|-[A-Za-z])(.*)", re.DOTALL)


class UsageError(ConfigError, ipython_errors.UsageError):
    """The words behind a magic make no sense; IPython shows the message alone."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        compat.render_briefly(self)


def count(text: str) -> int:
    """The type of an option that says how many: 1, 2, ..."""
    with contextlib.suppress(ValueError):
        if (number := int(text)) > 0:
            return number
    msg = f"{text!r} is no whole number from 1 on"
    raise argparse.ArgumentTypeError(msg)


def variables(text: str) -> list[str]:
    """The type of an option that names variables, as in a,b."""
    try:
        return checked_names(name.strip() for name in text.split(","))
    except ConfigError as error:
        msg = f"{error} Names are joined by commas, without spaces, as in a,b"
        raise argparse.ArgumentTypeError(msg) from None


class Parser(argparse.ArgumentParser):
    """
    The options and words of one magic or subcommand.

    Attributes:
        flags: every flag ("-w", "--worker") and its action, in the order of the help.
        positionals: the actions of the words that are no flags, in their order.
    """

    def __init__(self, magic: str, usage: str, description: str, epilog: str = "") -> None:
        self.flags: dict[str, argparse.Action] = {}
        self.positionals: list[argparse.Action] = []
        super().__init__(
            prog=magic,
            # Here, and only here, argparse reads % as the beginning of a format.
            usage=f"{magic} {usage}".strip().replace("%", "%%"),
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        # Python 3.14 colours the help, which is also a docstring.
        self.color = False
        self.option("-h", "--help", action="store_true", help="show this and do nothing else")

    def option(self, *names: str, **settings: Any) -> Parser:
        """Add a flag or a word; return the parser itself."""
        action = self.add_argument(*names, **settings)
        if not action.option_strings:
            self.positionals.append(action)
        for flag in action.option_strings:
            self.flags[flag] = action
        return self

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the program."""
        msg = f"{self.prog}: {message}. {self.prog} -h shows what there is."
        raise UsageError(msg)

    def read(self, line: str) -> argparse.Namespace:
        """
        Read a line of nothing but options and words.

        Raises:
            UsageError: the line makes no sense.
        """
        try:
            words = shlex.split(line)
        except ValueError:
            self.error("a quote is not closed")
        for word in words:
            if flag := _FLAG.fullmatch(word):
                self._known(flag[1])
                if self.takes_the_rest(flag[1]):
                    break
        return self.parse_args(words)

    def read_options(self, line: str) -> tuple[argparse.Namespace, str]:
        """
        Read the options at the front of a line.

        Returns:
            The options, and the rest of the line from the first word on that is no option, every
            quote and space of it as it was. "--" ends the options; then ``verbatim`` is True.

        Raises:
            UsageError: an option is unknown, has no value or a wrong one.
        """
        words, rest = self.options_of(line)
        verbatim = words[-1:] == [_END]
        if verbatim:
            words.pop()
        if self.awaits_value(words):
            self.error(f"{words[-1]} needs a value")
        options = self.parse_args(words)
        options.verbatim = verbatim
        return options, rest

    def options_of(self, line: str) -> tuple[list[str], str]:
        """Split a line into the words of its options, "--" included, and the rest as it is."""
        words: list[str] = []
        while match := _WORD.match(line):
            word = match[1]
            if word != _END and not self.awaits_value(words):
                flag = _FLAG.fullmatch(word)
                if flag is None:
                    break
                self._known(flag[1])
            words.append("".join(shlex.split(word)))
            line = line[match.end() :]
            if word == _END:
                break
        return words, line.strip()

    def awaits_value(self, words: list[str]) -> bool:
        """Whether the last of these words is a flag whose value is the next word."""
        if not words or (len(words) > 1 and self.awaits_value(words[:-1])):
            return False
        action = self.flags.get(words[-1])
        return action is not None and action.nargs != 0

    def takes_the_rest(self, word: str) -> bool:
        """Whether all that follows this word belongs to it."""
        return word in self.flags and self.flags[word].nargs == REST

    def next_positional(self, words: list[str]) -> argparse.Action | None:
        """What a word behind these is, where it is no flag and no flag's value; None: too many."""
        given = [
            word
            for at, word in enumerate(words)
            if not word.startswith("-") and not self.awaits_value(words[:at])
        ]
        if self.positionals and self.positionals[-1].nargs == "*":
            return self.positionals[min(len(given), len(self.positionals) - 1)]
        return self.positionals[len(given)] if len(given) < len(self.positionals) else None

    def _known(self, flag: str) -> None:
        if flag not in self.flags:
            long = [name for name in self.flags if name.startswith("--")]
            msg = f'{self.prog} has no option "{flag}".{nearest(flag, long)}'
            raise UsageError(msg)
