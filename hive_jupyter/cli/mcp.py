"""A worker's tools served to AI agents: what they are told, and over what they are served."""

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
from typing import TYPE_CHECKING, Any, NoReturn, cast

from traitlets import Bool, Unicode, default

from hive_jupyter.cli.application import App
from hive_jupyter.cli.attached import OneHiveApp, in_one_line
from hive_jupyter.config import ENVIRONMENT_PREFIX, HiveConfig
from hive_jupyter.errors import ConfigError, HiveError, SandboxUnavailable
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.units import as_seconds, printable

if TYPE_CHECKING:
    from hive_jupyter.agents import Agent
    from hive_jupyter.attach import Attachment, Identity

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
_BOUNDARIES = {
    "open": (
        'Its sandbox profile is "open": a process, limits and variables of its own, and the same '
        "rights as the user. It can read and change whatever the user can."
    ),
    "workspace": (
        'Its sandbox profile is "workspace": it reads and changes the files of the project, but '
        "not its .git, reads no secrets, and of the network reaches a few ports."
    ),
    "strict": (
        'Its sandbox profile is "strict": it reads the project, the system and Python, writes only '
        "a temporary folder, and has no network. Tools that change files of the project fail; the "
        "user can allow them by starting this server with --sandbox workspace."
    ),
}
_NUMBER = re.compile(r"[0-9]{1,5}")
_HIGHEST_PORT = 2**16 - 1
_TOKEN = re.compile(r"[!-~]{16,}")
_TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}HTTP_TOKEN"
# How often (seconds) the main thread looks up: a signal may come just before it begins to wait.
_LOOK_UP = 0.5


class McpApp(OneHiveApp):
    """Serve tools in a worker to AI agents."""

    name = "jupyter-hive mcp"
    description = """
    Serve the tools of a worker to an AI agent, as an MCP server on standard input and output, or
    over HTTP: for the configuration of the agent's program, see docs/mcp.md. The worker is one of
    its own, or with --attach that of a running notebook. Needs: pip install "hive-jupyter[mcp]".
    """
    most_words = 0
    usage = App.usage
    # Those of a hive of this process.
    classes = [HiveConfig]  # noqa: RUF012
    http = Unicode(help="Serve HTTP on this port of 127.0.0.1; 0 takes any.").tag(config=True)
    worker = Unicode(help="The worker, if not the default one.").tag(config=True)
    sandbox = Unicode(
        help="Its sandbox profile; by default that of the setting agent_sandbox: strict."
    ).tag(config=True)
    timeout = Unicode(help="Time for each call of a tool: 30, 30s, 5m, ... (2m).").tag(config=True)
    attach = Bool(help="Serve a worker of a running notebook.").tag(config=True)
    aliases = App.aliases | {
        "hive": "AttachedApp.hive",
        "http": "McpApp.http",
        "w": "McpApp.worker",
        "worker": "McpApp.worker",
        "sandbox": "McpApp.sandbox",
        "timeout": "McpApp.timeout",
        "log-level": "McpApp.log_level",
    }
    flags = App.flags | {
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
        from hive_jupyter.tools import TOOL_TIMEOUT

        config = HiveConfig(parent=self)
        sandbox = self.sandbox or config.agent_sandbox
        config.policy(sandbox)  # names the nearest profile, which the setting does not
        config.change(sandbox=sandbox, worker=self.worker or config.worker)
        with HiveManager(config) as hive:
            check_policies(config, hive.is_server(None))
            # while the SDK is imported, which takes a second
            hive.warm_up()
            profile = hive.profile_of(None)
            if self.sandbox not in ("", profile):
                msg = (
                    f'Worker "{config.worker}" is no worker of Hive\'s own, which alone can be '
                    "confined. Leave --sandbox out, and it has your rights."
                )
                raise SandboxUnavailable(msg, missing=("other programs",))
            boundaries = _BOUNDARIES[profile]
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
