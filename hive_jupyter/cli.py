"""The command line: ``jupyter hive``."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
import textwrap
from collections.abc import Generator
from pathlib import Path
from typing import Any, NoReturn

from jupyter_core.application import JupyterApp, base_flags
from traitlets import Bool, Unicode
from traitlets.config.loader import KVArgParseConfigLoader

from hive_jupyter import __version__
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.manager import HiveManager
from hive_jupyter.units import nearest

QUICKSTART = "01_quickstart.ipynb"

SEEN = """
What you saw: a kernel that handed its cells to workers, processes of their own that printed, drew,
raised, hung and crashed, while the kernel kept every variable it had. To try it yourself, open a
notebook of yours, run `%load_ext hive_jupyter`, and put `%%delegate` at the top of a cell.
`jupyter hive doctor` tells what Hive can do on this machine. The notebook that you saw is
`{notebook}`.
"""

_HELP = ("-h", "--help", "--help-all", "-V", "--version")


class _Loader(KVArgParseConfigLoader):
    """Reads a command line; a wrong one is a ConfigError and no page of usage."""

    def _create_parser(self) -> None:
        super()._create_parser()
        self.parser.error = _refuse  # type: ignore[method-assign]


def _refuse(message: str) -> NoReturn:
    msg = f"{message[:1].upper()}{message[1:]}."
    raise ConfigError(msg)


class _App(JupyterApp):
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
            self._check_options(words)
        super().parse_command_line(words)
        if self.extra_args:
            word = self.extra_args[0]
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
        for name, trait in self.aliases.items():
            yield f"  {f'--{name} VALUE':<18}  {self.traits()[trait.partition('.')[2]].help}"
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
        except BrokenPipeError:
            # The reader of our output went away; so that nothing is written at exit:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 1
        self.exit(status)

    def work(self) -> int:
        """What the command does; the result is its exit status."""
        self.print_help()
        return 0

    def fail(self, error: HiveError) -> NoReturn:
        """Say what is wrong, and exit: 2 for what the user typed or configured, 1 otherwise."""
        print(f"{self.called}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)

    def _create_loader(self, argv: Any, aliases: Any, flags: Any, classes: Any) -> _Loader:
        return _Loader(argv, aliases, flags, classes=classes, log=self.log)

    def _check_options(self, words: list[str]) -> None:
        aliases = {f"--{name}" for name in self.aliases}
        own = {*aliases, *map(_dashed, self.flags), *_HELP}
        settings = {
            f"--HiveConfig.{name}"
            for name in HiveConfig.class_trait_names(config=True)
            if HiveConfig in self.classes
        }
        for word, following in itertools.zip_longest(words, words[1:], fillvalue="-"):
            option = word.partition("=")[0]
            if option.startswith("-") and option not in own | settings:
                known = settings if settings and option.startswith("--Hive") else own
                msg = f'There is no option "{option}".{nearest(option, known)}'
                raise ConfigError(msg)
            if word in aliases and following.startswith("-"):
                msg = f"{option} needs a value."
                raise ConfigError(msg)


def _dashed(option: str) -> str:
    return f"--{option}" if len(option) > 1 else f"-{option}"


class DemoApp(_App):
    """Play the quickstart notebook in this terminal."""

    name = "jupyter-hive demo"
    description = """
    Run the quickstart notebook cell by cell and show each cell and its output as it happens. The
    exit status is 0 if every cell did what it promised. Needs: pip install "hive-jupyter[demo]".
    """
    # The notebook's kernel reads the settings of notebooks.
    classes = []  # noqa: RUF012
    notebook = Unicode(help="Play this notebook instead of the quickstart.").tag(config=True)
    aliases = _App.aliases | {"notebook": "DemoApp.notebook"}

    def work(self) -> int:
        try:
            from hive_jupyter.demo import Screen, play
        except ModuleNotFoundError as error:
            msg = (
                f'The demo needs "{error.name}", which is not installed here. Install it with: '
                f'{sys.executable} -m pip install "hive-jupyter[demo]"'
            )
            raise HiveError(msg) from None
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        screen = Screen.of(sys.stdout)
        notebook = Path(self.notebook).resolve() if self.notebook else quickstart()
        status = play(notebook, screen)
        if status == 0 and not self.notebook:
            screen.say()
            screen.markdown(SEEN.format(notebook=notebook))
        return status


class DoctorApp(_App):
    """Tell what Hive can do on this machine."""

    name = "jupyter-hive doctor"
    description = """
    Tell what Hive can do on this machine with this configuration, and what is missing.
    """
    as_json = Bool(help="Print the report as JSON.").tag(config=True)
    flags = _App.flags | {
        "json": ({"DoctorApp": {"as_json": True}}, "Print the report as JSON."),
    }

    def work(self) -> int:
        with HiveManager(HiveConfig(parent=self)) as hive:
            report = hive.doctor()
        facts = {**dataclasses.asdict(report), "missing": report.missing}
        print(json.dumps(facts, indent=2) if self.as_json else report)
        return 0


class HiveApp(_App):
    """The command itself; its subcommands do the work."""

    name = "jupyter-hive"
    description = """
    Hive for Jupyter: a second, disposable Python for every notebook.
    """
    flags = _App.flags | {
        "generate-config": (
            base_flags["generate-config"][0],
            "Write jupyter_hive_config.py, with all settings to edit.",
        ),
        "y": (base_flags["y"][0], "Overwrite it without asking."),
    }
    usage = "COMMAND [options]"
    subcommands = {  # noqa: RUF012
        "demo": (DemoApp, "Play the quickstart notebook in this terminal."),
        "doctor": (DoctorApp, "Tell what Hive can do on this machine."),
    }


def quickstart() -> Path:
    """
    The quickstart notebook: a wheel brings it inside the package, a checkout has it beside.

    Raises:
        HiveError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder / QUICKSTART
    msg = (
        f"The quickstart notebook ({QUICKSTART}) is neither in {package / 'notebooks'} nor beside "
        "the package. Name it with --notebook, or install hive-jupyter anew."
    )
    raise HiveError(msg)


def main(argv: list[str] | None = None) -> None:
    """The command ``jupyter-hive``."""
    HiveApp.launch_instance(argv)
