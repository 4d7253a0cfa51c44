"""How workers are, and how they are stopped: status, logs, interrupt, restart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from traitlets import Unicode

from hive_jupyter.cli.attached import AttachedApp, OneHiveApp, in_one_line
from hive_jupyter.errors import ConfigError, HiveError

if TYPE_CHECKING:
    from hive_jupyter.attach import Attachment, Identity


class StatusApp(AttachedApp):
    """Tell how the workers of running hives are."""

    name = "jupyter-hive status"
    description = """
    Tell which hives are running, and how the workers of each of them are.
    """

    def speak(self, hives: list[Attachment]) -> int:
        reports = [self._report(hive) for hive in hives]
        if self.as_json:
            self.print_json({"hives": [document for document, _ in reports]})
        else:
            print("\n\n".join(text for _, text in reports))
        return 0 if all("error" not in document for document, _ in reports) else 1

    @staticmethod
    def _report(hive: Attachment) -> tuple[dict[str, Any], str]:
        from hive_jupyter.status import SwarmStatus

        try:
            status = SwarmStatus(hive.ask("status"))
        except HiveError as error:
            return {"id": hive.id, "error": str(error)}, str(error)
        identity = hive.identity
        assert identity is not None
        return {**dataclasses.asdict(identity), **status}, f"{in_one_line(identity)}\n{status}"


class LogsApp(OneHiveApp):
    """Show what a worker logged."""

    name = "jupyter-hive logs"
    description = """
    Show the last lines of a worker's own log; without WORKER, of the notebook's default one.
    """
    lines = Unicode("50", help="How many lines (50).").tag(config=True)
    aliases = AttachedApp.aliases | {"n": "LogsApp.lines", "lines": "LogsApp.lines"}

    def check(self) -> None:
        if not (self.lines.isascii() and self.lines.isdecimal()):
            msg = f'"{self.lines}" is no number of lines.'
            raise ConfigError(msg)

    def ask(self, hive: Attachment, identity: Identity) -> int:
        answer = hive.ask("logs", worker=self.word, lines=int(self.lines))
        self.say(identity, answer, answer["log"] or "Nothing was logged.")
        return 0


class InterruptApp(OneHiveApp):
    """Stop what a worker runs."""

    name = "jupyter-hive interrupt"
    description = """
    Stop what a worker runs now, as Ctrl-C does; the worker stays. Without WORKER: the notebook's
    default one.
    """

    def ask(self, hive: Attachment, identity: Identity) -> int:
        answer = hive.ask("interrupt", worker=self.word)
        said = "was interrupted" if answer["interrupted"] else "runs nothing"
        self.say(identity, answer, f'Worker "{answer["worker"]}" {said}.')
        return 0


class RestartApp(OneHiveApp):
    """End a worker and start it anew."""

    name = "jupyter-hive restart"
    description = """
    End a worker, with what it runs and all its variables, and start it anew. Without WORKER: the
    notebook's default one.
    """

    def ask(self, hive: Attachment, identity: Identity) -> int:
        answer = hive.ask("restart", patient=True, worker=self.word)
        text = f'Worker "{answer["worker"]}" is {answer["state"]}, process {answer["pid"]}.'
        self.say(identity, answer, text)
        return 0
