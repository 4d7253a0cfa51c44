"""What waits for a human's yes, and the answers to it: requests, approve, deny."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from traitlets import Bool, Unicode

from hive_jupyter.cli.application import App, replace_unencodable
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.units import in_columns, printable

if TYPE_CHECKING:
    from hive_jupyter.commits import Commits
    from hive_jupyter.listing import Listed

# What the ledger says of an answer given here.
_ORIGIN = "terminal"


class RequestsApp(App):
    """List what waits for a yes."""

    name = "jupyter-hive requests"
    description = """
    List the commits, and calls of tools, that wait for your yes. No notebook has to be running.
    """
    all = Bool(help="Also those that had an answer, the last first.").tag(config=True)
    number = Unicode("20", help="How many, with --all (20).").tag(config=True)
    as_json = Bool(help="Print one JSON document.").tag(config=True)
    aliases = App.aliases | {"n": "RequestsApp.number", "requests": "RequestsApp.number"}
    flags = App.flags | {
        "all": ({"RequestsApp": {"all": True}}, "Also those that had an answer, the last first."),
        "json": ({"RequestsApp": {"as_json": True}}, "Print one JSON document."),
    }

    def work(self) -> int:
        from hive_jupyter.listing import COLUMNS

        replace_unencodable(sys.stdout)
        try:
            listed = self._listed()
        except HiveError as error:
            if self.as_json:
                self.print_json({"error": str(error)})
            raise
        rows = [COLUMNS, *(tuple(map(printable, request.row)) for request in listed)]
        if self.as_json:
            self.print_json({"requests": [request.facts for request in listed]})
            return 0
        nothing = "Nothing was ever asked for." if self.all else "Nothing waits."
        print("\n".join(in_columns(rows)) if listed else nothing)
        if any(one.request.state == "pending" for one in listed):
            print("jupyter hive approve REQUEST shows one, and asks.")
        return 0

    def _listed(self) -> list[Listed]:
        from hive_jupyter.listing import Listed

        if not (self.number.isascii() and self.number.isdecimal() and int(self.number)):
            msg = f'"{self.number}" is no number of requests.'
            raise ConfigError(msg)
        commits = _commits(self)
        requests = commits.open()
        if self.all:
            requests = commits.guard.latest(int(self.number))
        return [Listed.of(commits.guard, request) for request in requests]


class _AnswerApp(App):
    """An answer to a request."""

    most_words = 1

    @property
    def request(self) -> str:
        """
        The id that was typed.

        Raises:
            ConfigError: there is none.
        """
        if not self.extra_args:
            msg = "Say which request; jupyter hive requests lists them."
            raise ConfigError(msg)
        request: str = self.extra_args[0]
        return request


class ApproveApp(_AnswerApp):
    """Say yes to what somebody asks for."""

    name = "jupyter-hive approve"
    description = """
    Show all of a request on this terminal and ask for your yes; a commit is made at once. No
    notebook has to be running. The answer is read from the terminal, never from standard input.
    """
    usage = "ID [options]"
    token = Bool(help="Print the token instead of using it.").tag(config=True)
    flags = App.flags | {
        "token": (
            {"ApproveApp": {"token": True}},
            "Print the token instead of using it, for HiveManager.commit(token).",
        ),
    }

    def work(self) -> int:
        from hive_jupyter.commits import approve, approve_for_token
        from hive_jupyter.showing import Showing
        from hive_jupyter.terminal import Terminal, ask

        request_id = self.request
        commits = _commits(self)
        guard = commits.guard
        with Terminal() as terminal:
            commits.settle()
            showing = Showing.of(guard.awaiting(request_id))
            if objection := ask(terminal, showing):
                raise HiveError(objection)
        answer = approve_for_token if self.token else approve
        print(answer(guard, showing.request, origin=_ORIGIN))
        return 0


class DenyApp(_AnswerApp):
    """Say no to what somebody asks for."""

    name = "jupyter-hive deny"
    description = """
    Refuse a request, also one that is approved and not carried out yet. REASON is for who asked.
    """
    usage = "ID [REASON]"
    most_words = sys.maxsize

    def work(self) -> int:
        request_id = self.request
        reason = " ".join(self.extra_args[1:])
        request = _commits(self).guard.deny(request_id, reason, origin=_ORIGIN)
        print(f"Request {request.id} is denied.")
        return 0


def _commits(app: App) -> Commits:
    """
    The requests of this user.

    Raises:
        AuthorizationError: this is a worker.
    """
    from hive_jupyter.commits import Commits

    return Commits(HiveConfig(parent=app))
