"""The command line: ``jupyter hive``."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import signal
import stat
import sys
from collections.abc import Callable, Coroutine
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from jupyter_core.application import base_flags
from traitlets import Bool, Unicode, default

from hive_jupyter.cli.application import _App
from hive_jupyter.cli.attached import _OneHiveApp, in_one_line
from hive_jupyter.cli.run import RunApp
from hive_jupyter.cli.workers import InterruptApp, LogsApp, RestartApp, StatusApp
from hive_jupyter.config import ENVIRONMENT_PREFIX, HiveConfig
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.units import (
    as_seconds,
    in_columns,
    printable,
)

if TYPE_CHECKING:
    from hive_jupyter.agents import Agent
    from hive_jupyter.attach import Attachment, Identity
    from hive_jupyter.commits import Commits
    from hive_jupyter.showing import Listed

QUICKSTART = "01_quickstart.ipynb"

SEEN = """
What you saw: a kernel that handed its cells to workers, processes of their own that printed, drew,
raised, hung and crashed, while the kernel kept every variable it had. To try it yourself, open a
notebook of yours, run `%load_ext hive_jupyter`, and put `%%delegate` at the top of a cell.
`jupyter hive doctor` tells what Hive can do on this machine. The notebook that you saw is
`{notebook}`.
"""

# What the ledger says of an answer given here.
_ORIGIN = "terminal"

# What `jupyter hive mcp` tells the agents, and the person who starts it.
_INSTRUCTIONS = (
    "Tools that read, search, change and run Python code in a worker: a process of its own, whose "
    "working folder is the user's project. execute keeps its variables from call to call, as a "
    "notebook does; a crash costs them, and nothing else. interrupt stops what runs, restart gives "
    "a fresh worker, status tells how it is. "
    "Commits are the human's: request_commit asks for one, commit_status tells what became of it."
)
_OWN = "The worker is yours alone."
_SHARED = (
    'The worker is shared with a person who works in the notebook "{title}": you see and change '
    "each other's variables, and what you run stands in their history. Do not overwrite, reset, "
    "interrupt or restart what is theirs unless they ask for it."
)
_NO_BOUNDARY = (
    "the worker has a process, limits and variables of its own, and the same rights as the user: "
    "it can read and change whatever the user can. This version of Hive cannot confine it."
)
_BOUNDARIES = {
    "open": f'Its sandbox profile is "open": {_NO_BOUNDARY}',
    "workspace": f'Its sandbox profile is "workspace", which is not enforced: {_NO_BOUNDARY}',
}
_NUMBER = re.compile(r"[0-9]{1,5}")
_HIGHEST_PORT = 2**16 - 1
_TOKEN = re.compile(r"[!-~]{16,}")
_TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}HTTP_TOKEN"
# How often (seconds) the main thread looks up: a signal may come just before it begins to wait.
_LOOK_UP = 0.5


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


class RequestsApp(_App):
    """List what waits for a yes."""

    name = "jupyter-hive requests"
    description = """
    List the commits, and calls of tools, that wait for your yes. No notebook has to be running.
    """
    all = Bool(help="Also those that had an answer, the last first.").tag(config=True)
    number = Unicode("20", help="How many, with --all (20).").tag(config=True)
    as_json = Bool(help="Print one JSON document.").tag(config=True)
    aliases = _App.aliases | {"n": "RequestsApp.number", "requests": "RequestsApp.number"}
    flags = _App.flags | {
        "all": ({"RequestsApp": {"all": True}}, "Also those that had an answer, the last first."),
        "json": ({"RequestsApp": {"as_json": True}}, "Print one JSON document."),
    }

    def work(self) -> int:
        from hive_jupyter.showing import COLUMNS

        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        try:
            listed = self._listed()
        except HiveError as error:
            if self.as_json:
                print(json.dumps({"error": str(error)}, indent=2))
            raise
        rows = [COLUMNS, *(tuple(map(printable, request.row)) for request in listed)]
        if self.as_json:
            print(json.dumps({"requests": [request.facts for request in listed]}, indent=2))
        else:
            nothing = "Nothing was ever asked for." if self.all else "Nothing waits."
            print("\n".join(in_columns(rows)) if listed else nothing)
        return 0

    def _listed(self) -> list[Listed]:
        from hive_jupyter.showing import Listed

        if not (self.number.isascii() and self.number.isdecimal() and int(self.number)):
            msg = f'"{self.number}" is no number of requests.'
            raise ConfigError(msg)
        commits = _commits(self)
        requests = commits.open()
        if self.all:
            requests = commits.guard.latest(int(self.number))
        return [Listed.of(commits.guard, request) for request in requests]


class _AnswerApp(_App):
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
    flags = _App.flags | {
        "token": (
            {"ApproveApp": {"token": True}},
            "Print the token instead of using it, for HiveManager.commit(token).",
        ),
    }

    def work(self) -> int:
        from hive_jupyter.commits import approve
        from hive_jupyter.showing import Showing
        from hive_jupyter.terminal import Terminal, has_confirmed

        request_id = self.request
        guard = _commits(self).guard
        with Terminal() as terminal:
            showing = Showing.of(guard.awaiting(request_id))
            if not has_confirmed(terminal, showing):
                msg = f"Nothing was approved: that is not how the digest of {request_id} begins."
                raise HiveError(msg)
        print(approve(guard, showing.request, origin=_ORIGIN, wants_token=self.token))
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


def _commits(app: _App) -> Commits:
    """
    The requests of this user.

    Raises:
        AuthorizationError: this is a worker.
    """
    from hive_jupyter.commits import Commits

    return Commits(HiveConfig(parent=app).approval_expiry)


class DoctorApp(_OneHiveApp):
    """Tell what Hive can do on this machine."""

    name = "jupyter-hive doctor"
    description = """
    Tell what Hive can do on this machine with this configuration, and what is missing. With --hive,
    a running notebook tells it of its own process.
    """
    most_words = 0
    usage = _App.usage
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
        from hive_jupyter.swarm.enforcement import Report

        answer = hive.ask("doctor")
        self.say(identity, answer, f"{in_one_line(identity)}\n{Report.of(answer)}")
        return 0


class McpApp(_OneHiveApp):
    """Serve tools in a worker to AI agents."""

    name = "jupyter-hive mcp"
    description = """
    Serve the tools of a worker to an AI agent, as an MCP server on standard input and output, or
    over HTTP: for the configuration of the agent's program, see docs/mcp.md. The worker is one of
    its own, or with --attach that of a running notebook. Needs: pip install "hive-jupyter[mcp]".
    """
    most_words = 0
    usage = _App.usage
    # Those of a hive of this process.
    classes = [HiveConfig]  # noqa: RUF012
    http = Unicode(help="Serve HTTP on this port of 127.0.0.1; 0 takes any.").tag(config=True)
    worker = Unicode(help="The worker, if not the default one.").tag(config=True)
    sandbox = Unicode(
        help="Its sandbox profile; by default the strongest that is enforced: open."
    ).tag(config=True)
    timeout = Unicode(help="Time for each call of a tool: 30, 30s, 5m, ... (2m).").tag(config=True)
    attach = Bool(help="Serve a worker of a running notebook.").tag(config=True)
    aliases = _App.aliases | {
        "hive": "AttachedApp.hive",
        "http": "McpApp.http",
        "w": "McpApp.worker",
        "worker": "McpApp.worker",
        "sandbox": "McpApp.sandbox",
        "timeout": "McpApp.timeout",
        "log-level": "McpApp.log_level",
    }
    flags = _App.flags | {
        "attach": (
            {"McpApp": {"attach": True}},
            "Serve a worker of a running notebook: you and the agent share its variables.",
        ),
    }

    @default("log_level")
    def _log_what_matters(self) -> int:
        return logging.WARNING

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        super().parse_command_line(argv)
        self.check()
        # nothing that this process starts is to have it
        self._token = os.environ.pop(_TOKEN_VARIABLE, "")
        if self._token and not _TOKEN.fullmatch(self._token):
            msg = (
                f"{_TOKEN_VARIABLE} has to be at least 16 letters, digits or signs, without "
                "spaces. Leave it out to be given one."
            )
            raise ConfigError(msg)
        if not self.http:
            # before any file of settings is run, which may print
            self._wire = _take_standard_streams()

    def check(self) -> None:
        if self.http and not (_NUMBER.fullmatch(self.http) and int(self.http) <= _HIGHEST_PORT):
            msg = f'"{self.http}" is no port. Say a number, such as --http 8765; 0 takes any.'
            raise ConfigError(msg)
        if self.sandbox and self._is_attached:
            msg = "The notebook has chosen its workers' sandbox; leave --sandbox out."
            raise ConfigError(msg)
        as_seconds(self.timeout or None)

    @property
    def _is_attached(self) -> bool:
        return self.attach or bool(self.hive)

    def work(self) -> int:
        logging.basicConfig(
            level=cast("int", self.log_level), format="jupyter hive mcp: %(name)s: %(message)s"
        )
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        if WORKER_VARIABLE in os.environ:
            msg = "This is a worker already, and workers have no workers. Serve from outside."
            raise HiveError(msg)
        return super().work() if self._is_attached else self._serve_own_hive()

    def _serve_own_hive(self) -> int:
        from hive_jupyter.agents import AgentSession, check_policies
        from hive_jupyter.manager import HiveManager
        from hive_jupyter.policy import SandboxPolicy
        from hive_jupyter.tools import TOOL_TIMEOUT

        config = HiveConfig(parent=self)
        SandboxPolicy(self.sandbox or config.sandbox, config.memory)
        config.change(sandbox=self.sandbox or config.sandbox, worker=self.worker or config.worker)
        with HiveManager(config) as hive:
            check_policies(config, hive.is_server(None))
            # while the SDK is imported, which takes a second
            hive.warm_up()
            boundaries = _BOUNDARIES[config.sandbox]
            serving = self._serving(
                lambda name: AgentSession(hive, name, timeout=self.timeout or TOOL_TIMEOUT),
                f"{_INSTRUCTIONS} {_OWN} {boundaries}",
            )
            self._say(f'Serving worker "{config.worker}", which is started when it is needed.')
            self._say(boundaries)
            _wait_for(hive.serve(lambda _folder: serving()))
        return 0

    def ask(self, hive: Attachment, identity: Identity) -> int:
        from hive_jupyter.attach import AttachedAgent, AttachedHive

        attached = AttachedHive(hive)
        hive.close()
        serving = self._serving(
            lambda name: AttachedAgent(
                attached, name, worker=self.worker or None, timeout=self.timeout or None
            ),
            f"{_INSTRUCTIONS} {_SHARED.format(title=printable(identity.title))}",
        )
        self._say(f"Serving {'worker ' + self.worker if self.worker else 'the worker'} of:")
        self._say(in_one_line(identity))
        asyncio.run(serving())
        return 0

    def _serving(
        self, agent_named: Callable[[str], Agent], instructions: str
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Open what is served over; gives the work of serving."""
        try:
            from hive_jupyter import mcp_server
        except ModuleNotFoundError as error:
            msg = (
                f'An MCP server needs more packages ("{error.name}" is missing). Install them '
                f'with: {sys.executable} -m pip install "hive-jupyter[mcp]"'
            )
            raise HiveError(msg) from None
        server = mcp_server.AgentServer(agent_named, instructions).server
        if not self.http:
            return lambda: mcp_server.over_stdio(server, self._wire)
        listener = mcp_server.listen(int(self.http))
        host, port = listener.getsockname()
        token = self._token or secrets.token_urlsafe(32)
        shown = f"${{{_TOKEN_VARIABLE}}}" if self._token else token
        entry = {
            "type": "http",
            "url": f"http://{host}:{port}{mcp_server.PATH}",
            "headers": {"Authorization": f"Bearer {shown}"},
        }
        self._say("For the configuration of your agent's program:")
        self._say(json.dumps({"mcpServers": {"hive": entry}}, indent=2))
        return lambda: mcp_server.over_http(mcp_server.guarded(server, token), listener)

    @staticmethod
    def _say(text: str) -> None:
        """Tell the person; standard output is the agent's."""
        print(text, file=sys.stderr, flush=True)


def _wait_for(serving: futures.Future[None]) -> None:
    """
    Wait for the end of what is served.

    Raises:
        NodeStartError: this process can have no workers.
    """
    while not serving.done():
        futures.wait((serving,), _LOOK_UP)
    serving.result()


def _take_standard_streams() -> tuple[int, int]:
    """
    Keep standard input and output for an MCP client alone.

    Whatever else reads there finds nothing, and whatever else is printed goes to standard error.

    Returns:
        The descriptors that lead to the client.

    Raises:
        ConfigError: they lead to no client.
    """
    if not all(map(_can_be_waited_for, (0, 1))):
        msg = (
            "An MCP client speaks through pipes, and standard input or output is none. Have your "
            "agent's program start this command (docs/mcp.md), or serve it over HTTP: --http 8765"
        )
        raise ConfigError(msg)
    wire = (
        fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3),
        fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3),
    )
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    with contextlib.suppress(OSError):  # there may be no standard error
        os.dup2(nothing, 1)
        os.dup2(2, 1)
    os.close(nothing)
    sys.stdout = sys.stderr
    return wire


def _can_be_waited_for(descriptor: int) -> bool:
    """Whether it is a pipe, a socket or a terminal: files and /dev/null never keep one waiting."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _end(number: int, _frame: object) -> NoReturn:
    """End politely; whoever is in a hurry may end it again."""
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


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
        "status": (StatusApp, "Tell which hives are running, and how their workers are."),
        "logs": (LogsApp, "Show the last lines that a worker logged."),
        "run": (RunApp, "Run code in a worker of a running notebook."),
        "interrupt": (InterruptApp, "Stop what a worker runs; it stays."),
        "restart": (RestartApp, "End a worker and start it anew."),
        "mcp": (McpApp, "Serve the tools of a worker to an AI agent."),
        "requests": (RequestsApp, "List the commits and calls that wait for your yes."),
        "approve": (ApproveApp, "Show a request, and say yes to it."),
        "deny": (DenyApp, "Say no to a request."),
        "demo": (DemoApp, "Play the quickstart notebook in this terminal."),
        "doctor": (DoctorApp, "Tell what Hive can do on this machine."),
    }


def quickstart() -> Path:
    """
    The quickstart notebook: a wheel brings it inside the package, a checkout has it beside.

    Raises:
        HiveError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
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
