"""What Hive can do here: told by this process, or by a running hive of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from traitlets import Unicode

from hive_jupyter.cli.application import App
from hive_jupyter.cli.attached import OneHiveApp, in_one_line
from hive_jupyter.config import HiveConfig

if TYPE_CHECKING:
    from hive_jupyter.attach import Attachment, Identity


class DoctorApp(OneHiveApp):
    """Tell what Hive can do on this machine."""

    name = "jupyter-hive doctor"
    description = """
    Tell what Hive can do on this machine with this configuration, and what is missing. With --hive,
    a running notebook tells it of its own process.
    """
    most_words = 0
    usage = App.usage
    # Those of a hive of this process.
    classes = [HiveConfig]  # noqa: RUF012
    hive = Unicode(help="Ask the running hive with this ID; status lists them.").tag(config=True)

    def work(self) -> int:
        if self.hive:
            return super().work()
        from hive_jupyter.manager import HiveManager

        with HiveManager(HiveConfig(parent=self)) as hive:
            report = hive.doctor()
        if self.as_json:
            self.print_json(report.facts())
        else:
            print(report)
        return 0

    def ask(self, hive: Attachment, identity: Identity) -> int:
        from hive_jupyter.swarm.report import Report

        answer = hive.ask("doctor")
        self.say(identity, answer, f"{in_one_line(identity)}\n{Report.of(answer)}")
        return 0
