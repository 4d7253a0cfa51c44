"""What all commands share: their configuration, their options and help, and how they fail."""

from __future__ import annotations

import itertools
import json
import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import Generator, Mapping
from typing import Any, NoReturn, TextIO

from jupyter_core.application import JupyterApp, base_flags
from traitlets.config.loader import KVArgParseConfigLoader

from hive_jupyter import __version__
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.units import nearest

_HELP = ("-h", "--help", "--help-all", "-V", "--version")


class _Loader(KVArgParseConfigLoader):
    """Reads a command line; a wrong one is a ConfigError and no page of usage."""

    def _create_parser(self) -> None:
        super()._create_parser()
        self.parser.error = _refuse  # type: ignore[method-assign]


def _refuse(message: str) -> NoReturn:
    msg = f"{message[:1].upper()}{message[1:]}."
    raise ConfigError(msg)


class App(JupyterApp):
    """What all commands share: their configuration, and how they fail."""

    version = __version__
    config_file_name = "jupyter_hive_config"
    # traitlets wants these as plain attributes of the class.
    classes = [HiveConfig]  # noqa: RUF012
    aliases = {}  # noqa: RUF012
    flags = {  # noqa: RUF012
        "debug": (
            base_flags["debug"][0],
            "Log in detail, such as which files of settings are read.",
        )
    }

    usage = "[options]"
    # How many words may stand there that are no options.
    most_words = 0

    @property
    def called(self) -> str:
        """The command as people type it."""
        return self.name.replace("-", " ", 1)

    def migrate_config(self) -> None:
        """Hive has no files from the days of IPython 3."""

    def initialize(self, argv: list[str] | None = None) -> None:
        try:
            super().initialize(argv)
        except ConfigError as error:
            self.fail(error)

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        words = sys.argv[1:] if argv is None else argv
        if not (words and words[0] in self.subcommands):
            command = next((word for word in words if word in self.subcommands), None)
            if command is not None and words[0].startswith("-"):
                msg = f'Put "{command}" first, and the options after it: {self.called} {command}'
                raise ConfigError(msg)
            self._check_options(words)
        super().parse_command_line(words)
        if len(self.extra_args) > self.most_words:
            self.refuse_word(self.extra_args[self.most_words])

    def refuse_word(self, word: str) -> NoReturn:
        """
        Say that a word is one too many.

        Raises:
            ConfigError: always.
        """
        msg = f'"{word}" is one word too many.'
        if self.subcommands:
            msg = f'There is no command "{word}".{nearest(word, self.subcommands)}'
        raise ConfigError(msg)

    def emit_help(self, classes: bool = False) -> Generator[str, None, None]:
        if classes:
            yield from super().emit_help(classes)
            return
        yield f"usage: {self.called} {self.usage}"
        yield ""
        yield textwrap.fill(" ".join(self.description.split()), 80)
        yield ""
        for name, (_, text) in self.subcommands.items():
            yield f"  {name:<18}  {text}"
        if self.subcommands:
            yield ""
        spellings = defaultdict(list)
        for name, trait in self.aliases.items():
            spellings[trait.partition(".")[2]].append(_dashed(name))
        for trait, names in spellings.items():
            yield f"  {', '.join(names) + ' VALUE':<18}  {self.traits()[trait].help}"
        for option, (_, text) in self.flags.items():
            yield f"  {_dashed(option):<18}  {text}"
        if self.classes != [type(self)]:
            yield f"  {'--HiveConfig.X=...':<18}  Set the setting X; --help-all lists them."

    def start(self) -> None:
        try:
            super().start()
            status = self.work()
        except HiveError as error:
            self.fail(error)
        except KeyboardInterrupt:
            status = 130
        except EOFError:  # jupyter_core asks whether to overwrite, and nobody is there
            self.fail(ConfigError("The file is there already; with -y it is overwritten."))
        except BrokenPipeError:
            # The reader of our output went away; so that nothing is written at exit:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        self.exit(status)

    def work(self) -> int:
        """What the command does; the result is its exit status."""
        self.print_help()
        return 0

    def print_json(self, document: Mapping[str, Any]) -> None:
        print(json.dumps(dict(document), indent=2))

    def fail(self, error: HiveError) -> NoReturn:
        """Say what is wrong, and exit: 2 for what the user typed or configured, 1 otherwise."""
        print(f"{self.called}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)

    def _create_loader(self, argv: Any, aliases: Any, flags: Any, classes: Any) -> _Loader:
        return _Loader(argv, aliases, flags, classes=classes, log=self.log)

    def _check_options(self, words: list[str]) -> None:
        aliases = set(map(_dashed, self.aliases))
        words = list(itertools.takewhile(lambda word: word != "--", words))
        own = {*aliases, *map(_dashed, self.flags), *_HELP}
        settings = {
            f"--HiveConfig.{name}"
            for name in HiveConfig.class_trait_names(config=True)
            if HiveConfig in self.classes
        }
        for word, following in itertools.zip_longest(words, words[1:], fillvalue="-"):
            option = word.partition("=")[0]
            if option.startswith("-") and option not in own | settings | {"-"}:
                known = settings if settings and option.startswith("--Hive") else own
                msg = f'There is no option "{option}".{nearest(option, known)}'
                raise ConfigError(msg)
            if word in aliases and following.startswith("-"):
                msg = f"{option} needs a value."
                raise ConfigError(msg)


def replace_unencodable(*streams: TextIO) -> None:
    """Have these show "?" for what their encoding has no character for, and raise nothing."""
    for stream in streams:
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined]


def _dashed(option: str) -> str:
    return f"--{option}" if len(option) > 1 else f"-{option}"
