"""What the commands share that speak to a running hive, and how a hive is called there."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Unicode

from hive_jupyter.cli.application import App, replace_unencodable
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.units import format_duration, in_columns, printable

if TYPE_CHECKING:
    from hive_jupyter.attach import Attachment, Identity

_NONE_RUNS = (
    "No hive is running. One starts in a notebook, or in IPython, with: %load_ext hive_jupyter"
)


class AttachedApp(App):
    """A command that speaks to a running hive."""

    # The hive has its own settings.
    classes = []  # noqa: RUF012
    as_json = Bool(help="Print one JSON document.").tag(config=True)
    hive = Unicode(help="The hive's ID, where several run; status lists them.").tag(config=True)
    aliases = App.aliases | {"hive": "AttachedApp.hive"}
    flags = App.flags | {
        "json": ({"AttachedApp": {"as_json": True}}, "Print one JSON document."),
    }

    def work(self) -> int:
        from hive_jupyter.attach import attachments

        replace_unencodable(sys.stdout, sys.stderr)
        self.check()
        found: list[Attachment] = []
        try:
            found = attachments()
            return self.speak(self._chosen(found))
        except HiveError as error:
            if self.as_json:
                self.print_json({"error": str(error)})
            raise
        finally:
            for attachment in found:
                attachment.close()

    def check(self) -> None:
        """
        See that the words make sense, before anybody is asked.

        Raises:
            ConfigError: they do not.
        """

    def speak(self, hives: list[Attachment]) -> int:
        """Ask the chosen hives; the result is the exit status."""
        raise NotImplementedError

    def _chosen(self, found: list[Attachment]) -> list[Attachment]:
        """
        Those to speak to.

        Raises:
            HiveError: none is running.
            ConfigError: there is none with that ID.
        """
        if not found:
            raise HiveError(_NONE_RUNS)
        if not self.hive:
            return found
        chosen = [attachment for attachment in found if attachment.id == self.hive]
        if not chosen:
            msg = f'No hive with the ID "{self.hive}" is running. These are:\n{_table(found)}'
            raise ConfigError(msg)
        return chosen


class OneHiveApp(AttachedApp):
    """A command that speaks to one running hive, mostly about one worker."""

    most_words = 1
    usage = "[WORKER] [options]"

    @property
    def word(self) -> str | None:
        """The word that is no option, such as the worker's name."""
        return self.extra_args[0] if self.extra_args else None

    def speak(self, hives: list[Attachment]) -> int:
        if len(hives) > 1:
            msg = f"Several hives are running. Choose one with --hive ID:\n{_table(hives)}"
            raise ConfigError(msg)
        (hive,) = hives
        if hive.identity is None:
            raise HiveError(hive.trouble)
        return self.ask(hive, hive.identity)

    def ask(self, hive: Attachment, identity: Identity) -> int:
        """Ask this hive; the result is the exit status."""
        raise NotImplementedError

    def say(self, identity: Identity, answer: Mapping[str, Any], text: str) -> None:
        """Print an answer, as text or as JSON."""
        if self.as_json:
            self.print_json({"hive": dataclasses.asdict(identity), **answer})
        else:
            print(text)


def in_one_line(identity: Identity) -> str:
    """A hive in one line."""
    return printable(
        f"Hive {identity.id}: {identity.title}, in {identity.folder}, since {_since(identity)}"
    )


def _since(identity: Identity) -> str:
    began = time.strftime("%H:%M", time.localtime(identity.since))
    return f"{began} ({format_duration(max(0.0, time.time() - identity.since))})"


def _table(hives: list[Attachment]) -> str:
    """Hives in columns, for somebody who has to choose one."""
    rows = [("ID", "notebook", "folder", "since", "workers")]
    for hive in hives:
        identity = hive.identity
        if identity is None:
            rows.append((hive.id, "does not answer", "", "", ""))
        else:
            workers = ", ".join(identity.workers)
            rows.append((hive.id, identity.title, identity.folder, _since(identity), workers))
    return "\n".join(in_columns([tuple(map(printable, row)) for row in rows]))
