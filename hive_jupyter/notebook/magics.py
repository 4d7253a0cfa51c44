"""``%delegate``, ``%%delegate``, ``%commit`` and ``%hive``."""

from __future__ import annotations

import builtins
import difflib
import keyword
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.magic import (
    Magics,
    line_cell_magic,
    line_magic,
    magics_class,
    no_var_expand,
)
from IPython.display import display
from traitlets import TraitError

from hive_jupyter.config import ENVIRONMENT_PREFIX, Duration, Entries, Size
from hive_jupyter.errors import (
    ConfigError,
    HiveError,
    NodeError,
    RemoteError,
    ToolError,
    TransferError,
)
from hive_jupyter.notebook import compat, for_each
from hive_jupyter.notebook.arguments import REST, Parser, UsageError, count, variables
from hive_jupyter.notebook.background import Background, JobCell
from hive_jupyter.notebook.relay import Cell, Relayed, relay
from hive_jupyter.notebook.tables import Table, table_of_arguments, table_of_tools
from hive_jupyter.notebook.tool_view import Place, bundles
from hive_jupyter.policy import PROFILES
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.swarm.dask import place_of
from hive_jupyter.swarm.fallback import Instructions
from hive_jupyter.swarm.messages import Message, ignore
from hive_jupyter.toolbox import SHORT_NAMES, read_details
from hive_jupyter.tools import Tool, ToolResult
from hive_jupyter.units import format_duration, format_size, nearest, shortened, visible

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell

    from hive_jupyter.delegation import (
        Delegation,
        RunRecord,
        ToolDelegation,
        ValuesDelegation,
    )
    from hive_jupyter.jobs import Job
    from hive_jupyter.manager import HiveManager
    from hive_jupyter.notebook.approval import Approvals
    from hive_jupyter.notebook.comms import FrontEndComms
    from hive_jupyter.swarm.life import NodeStatus

_HISTORY_SHOWN = 20
_LOG_LINES_SHOWN = 50
_REQUESTS_SHOWN = 20
# How a run ends; see RunRecord.
_ENDS = ("ok", "error", "timeout", "died", "instructions")

# What --no-raise-error forgives: what happened to the code, not how it was asked for.
_FAILURES = (NodeError, RemoteError, ToolError, TransferError)

# What stands for what in the parsers below; completion.py knows the same words.
WORKER, KERNEL, PATH, PROFILE, SETTING = "NAME", "KERNELSPEC", "PATH", "PROFILE", "SETTING[=VALUE]"
TOOL, REQUEST, VARIABLE, PROGRAM, JOB = "TOOL", "ID", "VARIABLE", "PROGRAM", "JOB"
VARIABLES = "VARIABLE[,VARIABLE]"

# Tags of a cell, and the options that they stand for.
_TAGS = {"hive-timeout": "timeout", "hive-worker": "worker"}

# With these a line fails that was to be a tool and is no code either.
_NO_CODE = ("SyntaxError", "NameError")
# From here on a word is taken for a mistyped one.
_ALIKE = 0.75

DELEGATE = (
    Parser(
        "%delegate",
        "[options] CODE   or   %delegate [options] TOOL [DETAILS]\n"
        "       %%delegate [options]   and the code below it\n"
        "       %%delegate [options] TOOL [DETAILS]   and a text below it",
        "Run code in a worker: a Python process of its own that may crash or hang\n"
        "without taking your kernel with it. What it displays is displayed here.",
        "Options end at the first word that is none, or at --; the rest of the line is\n"
        "the code as it stands. The magic itself returns None; see -o.\n"
        "\n"
        "A line whose first word is a tool calls the tool; -- before it makes it code.\n"
        "The details are key=value words, with quotes around spaces, or JSON, or the one\n"
        "obvious argument. What is below %%delegate TOOL is the argument that is missing,\n"
        "such as a file's content. %hive tools lists the tools; read, search and write\n"
        "are short for read_file, search_files and save_file.\n"
        "\n"
        "Cell tags hive-timeout=30 and hive-worker=NAME stand for --timeout and --worker.\n"
        "With --map the code is run for each item of a variable of yours, and finds it as\n"
        "item. The value of the code's last line is the item's result; -o binds the list\n"
        "of them, in the order of the items, with an exception where an item failed.\n"
        "\n"
        "examples:\n"
        "  %%delegate -w train --timeout 5m --memory 2G\n"
        "  model = fit(data)\n"
        "\n"
        "  %%delegate --push data,labels --pull scores\n"
        "  scores = evaluate(data, labels)\n"
        "\n"
        "  %%delegate --map files -n 4 -o sizes\n"
        "  len(open(item).read())\n"
        "\n"
        "  %%delegate --bg -w train -o job\n"
        "  for epoch in range(100): train()\n"
        "\n"
        "  %delegate -w train model.score()\n"
        "  %delegate read src/model.py start_line=10 end_line=30\n"
        "  %delegate search TODO glob=*.py\n"
        "  %delegate -o found ast_search 'print($$$ARGS)'\n"
        "\n"
        "  %%delegate write notes.txt\n"
        "  the file's content\n",
    )
    .option(
        "-w",
        "--worker",
        "-t",
        "--targets",
        metavar=WORKER,
        help="the worker that runs it; a new name starts another one",
    )
    .option("--timeout", metavar="TIME", help="stop it after 30, 30s, 5m, ...; none: never")
    .option("--memory", metavar="SIZE", help="limit of a worker that is not started yet: 500M, 2G")
    .option("--sandbox", metavar=PROFILE, help=f"what the worker may touch: {', '.join(PROFILES)}")
    .option(
        "--on", metavar="ADDRESS", help="a Dask cluster: tcp://host:8786, local, a client's name"
    )
    .option(
        "--push",
        metavar=VARIABLES,
        type=variables,
        action="append",
        help="give the worker these variables before it runs the code",
    )
    .option(
        "--pull",
        metavar=VARIABLES,
        type=variables,
        action="append",
        help="take over these variables of the worker, if the code ended without an error",
    )
    .option(
        "--allow-pickle",
        action="store_true",
        help="with --pull: unpickle what is no plain data; for workers of the profile open",
    )
    .option(
        "--map",
        metavar=VARIABLE,
        help="run the code for each item of this variable, as item, in many workers",
    )
    .option(
        "-n",
        "--workers",
        dest="count",
        type=count,
        metavar="WORKERS",
        help="with --map: how many at most; without: as many as there are processors",
    )
    .option(
        "--bg",
        action="store_true",
        help="make it a job: go on at once; what it says comes into this cell when it says it",
    )
    .option(
        "--concurrent",
        action="store_true",
        help="do not wait for the worker's turn: run in a thread beside what it runs",
    )
    .option(
        "-o",
        "--out",
        metavar=VARIABLE,
        help="put the Result into this variable here, or with --bg the Job",
    )
    .option("--no-raise-error", action="store_true", help="show an error, but let the cell succeed")
    .option("-q", "--quiet", action="store_true", help="show no output; errors are shown")
)

COMMIT = (
    Parser(
        "%commit",
        "-m MESSAGE [-o VARIABLE] [PATH ...]",
        "Ask for a commit to git. What is to be committed is frozen now; nothing is\n"
        "committed before you have seen it and said yes: %hive approve, or jupyter hive\n"
        "approve in a terminal.",
        "With paths: what these files and folders are now, new files included. Without:\n"
        "what is staged, or, with nothing staged, the changes of tracked files.\n"
        "\n"
        "example: %commit -m 'Read the header once' src/reader.py tests",
    )
    .option(
        "-m",
        "--message",
        metavar="MESSAGE",
        action="append",
        help="of the commit, in quotes; each further -m begins a paragraph",
    )
    .option(
        "--supersedes",
        metavar=REQUEST,
        help="the waiting request that this one replaces; {x} puts in a variable",
    )
    .option("-o", "--out", metavar=VARIABLE, help="put the CommitRequest into this variable here")
    .option("paths", nargs="*", metavar=PATH, help="relative to the working folder")
)

COMMANDS = {
    "status": Parser("%hive status", "", "Every worker: how it is, what it did, what it costs."),
    "start": Parser("%hive start", "[NAME]", "Start a worker before the first cell needs it."),
    "stop": Parser("%hive stop", "[NAME]", "End a worker; its variables are lost."),
    "restart": Parser(
        "%hive restart",
        "[NAME] [--memory SIZE] [--sandbox PROFILE]",
        "End a worker and start it again, with other limits if you say so.",
    )
    .option("--memory", metavar="SIZE", help="500M, 2G, ...; none: no limit")
    .option("--sandbox", metavar=PROFILE, help=f"what it may touch: {', '.join(PROFILES)}"),
    "interrupt": Parser("%hive interrupt", "[NAME]", "Stop what a worker runs; it stays."),
    "workers": Parser("%hive workers", "", "The names of all workers."),
    "tools": Parser(
        "%hive tools",
        "[TOOL] [-w NAME]",
        "The tools that a worker offers to %delegate; or one of them in full.",
    )
    .option("tool", nargs="?", metavar=TOOL, help="the one to explain")
    .option("-w", "--worker", "-t", "--targets", metavar=WORKER, help="the worker; else coder"),
    "agents": Parser(
        "%hive agents",
        "[--off]",
        "Show here, from now on, what agents ask the workers for, and what that says.",
    ).option("--off", action="store_true", help="show it no more"),
    "add": Parser(
        "%hive add",
        "NAME --python PATH | NAME --kernel KERNELSPEC | NAME --mcp PROGRAM [ARGUMENT ...]",
        "Make a worker of another Python, of an installed kernel, or of an MCP server.",
    )
    .option("--python", metavar=PATH, help="the interpreter's executable; it needs ipykernel")
    .option("--kernel", metavar=KERNEL, help="a name from: jupyter kernelspec list")
    .option("--mcp", nargs=REST, metavar=PROGRAM, help="a program, and all its arguments"),
    "logs": Parser("%hive logs", "[NAME] [-n LINES]", "The last lines that a worker logged.")
    .option("-n", "--lines", type=count, default=_LOG_LINES_SHOWN, metavar="LINES", help="how many")
    .option("-w", "--worker", "-t", "--targets", metavar=WORKER, help="the same as NAME"),
    "jobs": Parser(
        "%hive jobs", "", "What was started with %%delegate --bg: how it is, and how far."
    ),
    "result": Parser(
        "%hive result", "ID", "Wait for a job, and show here what it said and how it ended."
    ).option("id", nargs="?", metavar=JOB, help="the job"),
    "cancel": Parser(
        "%hive cancel", "ID", "Stop a job: an interrupt, a grace, then its worker's death."
    ).option("id", nargs="?", metavar=JOB, help="the job"),
    "history": Parser(
        "%hive history",
        "[-n LINES]",
        "The last runs, and what the ledger keeps of all your hives: commits that were asked\n"
        "for, answers, and workers' deaths; the latest last.",
    ).option(
        "-n",
        "--lines",
        "--runs",
        type=count,
        default=_HISTORY_SHOWN,
        metavar="LINES",
        help="how many of each",
    ),
    "stats": Parser("%hive stats", "", "How often runs succeeded and how long they took."),
    "config": Parser(
        "%hive config",
        "[SETTING[=VALUE] ...]",
        "Every setting, its value and where it came from; or set some for this session.",
        "example: %hive config timeout=30s spares=2",
    ).option("settings", nargs="*", metavar=SETTING, help="one to show, or one to set"),
    "requests": Parser(
        "%hive requests",
        "[--all [-n REQUESTS]]",
        "The commits, and calls of tools, that wait for your yes.",
    )
    .option("--all", action="store_true", help="also those that had an answer, the last first")
    .option(
        "-n",
        "--requests",
        type=count,
        default=_REQUESTS_SHOWN,
        metavar="REQUESTS",
        help="how many, with --all",
    ),
    "approve": Parser(
        "%hive approve",
        "ID [DIGEST] [--all] [--token]",
        "Show what somebody asks for; with the digest's first characters, say yes to it.",
        "A commit is made at once.",
    )
    .option("id", nargs="?", metavar=REQUEST, help="the request")
    .option("digest", nargs="?", metavar="DIGEST", help="of the request, as it was shown")
    .option("--all", action="store_true", help="show all of it, however long; approve nothing")
    .option("--token", action="store_true", help="show the token, for HiveManager.commit(token)"),
    "deny": Parser("%hive deny", "ID [REASON]", "Say no to what somebody asks for.")
    .option("id", nargs="?", metavar=REQUEST, help="the request")
    .option("reason", nargs="*", metavar="REASON", help="for who asked"),
    "panel": Parser(
        "%hive panel",
        "",
        "A live view of workers and requests, with buttons that work while a cell runs.",
    ),
    "doctor": Parser("%hive doctor", "", "What Hive can do on this machine, and what it cannot."),
}
for _name in ("start", "stop", "restart", "interrupt", "logs"):
    COMMANDS[_name].option("name", nargs="?", metavar=WORKER, help="the worker; without: coder")
COMMANDS["add"].option("name", nargs="?", metavar="NEW", help="how it is to be called")

_HIVE = "\n".join(
    [
        "Manage the workers.",
        "",
        "usage: %hive COMMAND [...]   (%hive COMMAND -h explains one; alone: status)",
        "",
        *(f"  {name:10} {parser.description}" for name, parser in COMMANDS.items()),
    ]
)


@magics_class
class HiveMagics(Magics):
    """
    The magics of one shell.

    Attributes:
        manager: who runs what they ask for.
        notebook: the folder of the notebook, or where IPython runs.
    """

    def __init__(
        self, shell: InteractiveShell, manager: HiveManager, comms: FrontEndComms | None = None
    ) -> None:
        super().__init__(shell)
        self.manager = manager
        self._comms = comms
        self.background = Background(shell)
        self.notebook = _notebook_folder()
        self._shell = shell
        self._set_here: dict[str, Any] = {}

    @no_var_expand
    @line_cell_magic
    def delegate(self, line: str, cell: str | None = None) -> None:
        options, rest = DELEGATE.read_options(line)
        if options.help:
            _say(DELEGATE.format_help())
            return
        if options.out is not None:
            _check_variable(options.out)
        if compat.kernel_of(self._shell) is not None:
            _take_tags(compat.tags_of(compat.parent_of(self._shell)), options)
        for_each.check(options)
        try:
            if options.bg:
                self._start_job(rest, cell, options)
                return
            relayed = self._delegated(rest, cell, options)
        except HiveError as error:
            compat.render_briefly(error)
            raise
        if isinstance(relayed.outcome, Instructions):
            self._show(relayed.outcome)
        self._finish(relayed, options)

    delegate.__doc__ = DELEGATE.format_help()

    @line_magic
    def hive(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if name in {"-h", "--help", "help"}:
            _say(_HIVE)
            return
        command = name or "status"
        if command not in COMMANDS:
            msg = f'%hive has no command "{command}".{nearest(command, COMMANDS)}'
            raise UsageError(msg)
        arguments = COMMANDS[command].read(rest)
        if arguments.help:
            _say(COMMANDS[command].format_help())
            return
        try:
            getattr(self, f"_{command}")(arguments)
        except HiveError as error:
            compat.render_briefly(error)
            raise
        if not name:
            _say("%hive -h lists what else there is.")

    hive.__doc__ = _HIVE

    def show_result(self, answer: ToolResult) -> None:
        """Display what a tool answered."""
        in_terminal = compat.kernel_of(self._shell) is None
        place = None if in_terminal else Place.here(self.notebook)
        coloured = in_terminal and compat.has_colours(self._shell) and sys.stdout.isatty()
        for data in bundles(answer, place, coloured=coloured):
            self._shell.display_pub.publish(data)

    @no_var_expand
    @line_magic
    def commit(self, line: str) -> None:
        options = COMMIT.read(line)
        if options.help:
            _say(COMMIT.format_help())
            return
        if not options.message:
            COMMIT.error("say what the commit is for: -m MESSAGE")
        if options.out is not None:
            _check_variable(options.out)
        if options.supersedes is not None:
            # with the names that IPython would take: those of whoever calls the magic
            options.supersedes = self._shell.var_expand(options.supersedes, depth=2)
        try:
            _say(self._approvals.commit(options))
        except HiveError as error:
            compat.render_briefly(error)
            raise

    commit.__doc__ = COMMIT.format_help()

    # --- %delegate ---

    def _delegated(self, rest: str, cell: str | None, options: argparse.Namespace) -> Relayed:
        if options.map is not None:
            values = self._values([*chain.from_iterable(options.push or ())])
            code = self._code(rest, cell, None)
            return for_each.run(self._shell, self.manager, code, options, values)
        word, details = _first_word(rest)
        if self._calls_tool(rest, options):
            return self._call_tool(word, details, cell, options)
        relayed = self._run(self._code(rest, cell, options.worker), options)
        if cell is None and not options.verbatim:
            self._hint(relayed.error, rest, options.worker)
        return relayed

    def _code(self, rest: str, cell: str | None, worker: str | None) -> str:
        """The code of ``%delegate`` or of ``%%delegate``."""
        if cell is None:
            if not rest:
                DELEGATE.error("there is no code to run")
            return rest
        if rest:
            msg = (
                f'%%delegate runs the cell below it; "{shortened(rest)}" on its own line is no '
                "option. Put all code below, or use %delegate, with one %, for a single line."
                f"{self._tool_meant(rest.split(maxsplit=1)[0], worker)}"
            )
            raise UsageError(msg)
        if not cell.strip():
            raise UsageError("%%delegate runs the cell below it, and that is empty.")
        return cell

    def _calls_tool(self, rest: str, options: argparse.Namespace) -> bool:
        return not options.verbatim and self._is_tool(*_first_word(rest), options.worker)

    def _is_tool(self, word: str, details: str, worker: str | None) -> bool:
        """Whether a line calls a tool; a variable of the same name can still be set."""
        if self.manager.is_server(worker):
            return bool(word)
        if not word.isidentifier() or details.startswith("="):
            return False
        try:
            self.manager.find_tool(word, worker)
        except HiveError:  # the code that the line then is will tell
            return False
        return True

    def _tool_meant(self, word: str, worker: str | None) -> str:
        """A question (with a leading space) for somebody who mistyped a tool's name, or ""."""
        if keyword.iskeyword(word) or hasattr(builtins, word):
            return ""
        names = [*SHORT_NAMES, *self.manager.known_tools(worker)]
        close = difflib.get_close_matches(word, names, n=1, cutoff=_ALIKE)
        return f' There is no tool "{word}". Did you mean "{close[0]}"?' if close else ""

    def _hint(self, error: BaseException | None, line: str, worker: str | None) -> None:
        """Say below an error of a line's code that the line may have been meant for a tool."""
        if not isinstance(error, RemoteError) or error.ename not in _NO_CODE:
            return
        word, *others = line.split(maxsplit=1)
        if error.ename == "NameError" and others:  # code, with a mistake in it
            return
        hints = [self._tool_meant(word, worker).strip(), *self.manager.tool_problems(worker)]
        compat.render_as(error, [*compat.rendered(error), *map(visible, filter(None, hints))])

    def _run(self, code: str, options: argparse.Namespace) -> Relayed:
        worker = self._worker(options)
        cell = Cell(self._shell, worker, self._comms)
        chosen = _chosen(options, self._shell.user_ns)
        values = self._values([*chain.from_iterable(options.push or ())])
        pulled = [*chain.from_iterable(options.pull or ())]
        if options.allow_pickle:
            self.manager.check_pickles(options.worker, options.sandbox)

        def begin() -> Delegation:
            return self.manager.begin(
                code,
                header=cell.header,
                allow_stdin=cell.allow_stdin,
                collect=options.out is not None,
                concurrent=options.concurrent,
                late=None if options.quiet else cell.show_late,
                **chosen,
            )

        def begin_push() -> ValuesDelegation:
            return self.manager.begin_push(values, task=code, **chosen)

        watched = {"worker": worker, "quiet": options.quiet}
        if values:
            pushed = relay(cell, begin_push, **watched)
            if pushed.error is not None or isinstance(pushed.outcome, Instructions):
                return pushed
        relayed = relay(cell, begin, **watched)
        if not pulled or relayed.error is not None or isinstance(relayed.outcome, Instructions):
            return relayed
        return self._pull(cell, pulled, relayed, options)

    def _start_job(self, rest: str, cell: str | None, options: argparse.Namespace) -> None:
        if options.pull:
            DELEGATE.error("--pull needs the end of the code, and --bg does not wait for it")
        if self._calls_tool(rest, options):
            DELEGATE.error(f"--bg goes with code, not with the tool {_first_word(rest)[0]}")
        self._submit(self._code(rest, cell, options.worker), options)

    def _submit(self, code: str, options: argparse.Namespace) -> None:
        cell = JobCell(self._shell, self._worker(options), self._comms, quiet=options.quiet)
        job = self.manager.submit(
            code,
            values=self._values([*chain.from_iterable(options.push or ())]),
            concurrent=options.concurrent,
            header=cell.cell.header,
            sink=cell.show,
            late=None if options.quiet else cell.show,
            **_chosen(options, self._shell.user_ns),
        )
        self.background.add(cell, job)
        if options.out is not None:
            self._shell.user_ns[options.out] = job

    def _values(self, names: list[str]) -> dict[str, Any]:
        """Variables of the user's own, as they are now."""
        known = self._shell.user_ns
        for name in names:
            if name not in known:
                hidden = self._shell.user_ns_hidden
                own = [each for each in known if not each.startswith("_") and each not in hidden]
                msg = f'--push: there is no variable "{name}" here.{nearest(name, own)}'
                raise UsageError(msg)
        return {name: known[name] for name in names}

    def _pull(
        self, cell: Cell, names: list[str], ran: Relayed, options: argparse.Namespace
    ) -> Relayed:
        """Bind a worker's variables here after its code ran: all of them, or none."""

        def begin() -> ValuesDelegation:
            timeout = {} if options.timeout is None else {"timeout": options.timeout}
            return self.manager.begin_pull(
                names, worker=options.worker, allow_pickle=options.allow_pickle, **timeout
            )

        pulled = relay(cell, begin, worker=self._worker(options), quiet=options.quiet)
        if pulled.error is not None:
            return Relayed(ran.outcome, pulled.error)
        if isinstance(pulled.outcome, Instructions):
            return pulled
        assert isinstance(pulled.outcome, dict)
        self._shell.user_ns.update(pulled.outcome)
        return ran

    def _call_tool(
        self, word: str, details: str, body: str | None, options: argparse.Namespace
    ) -> Relayed:
        tool = self.manager.find_tool(word, options.worker)
        arguments = read_details(tool, details)
        if body is not None:
            _take_body(tool, arguments, body)
        if tool.name == "execute" and "code" in arguments:
            return self._run(arguments["code"], options)
        for flag in ("memory", "sandbox", "on", "push", "pull"):
            if getattr(options, flag) is not None:
                DELEGATE.error(f"--{flag} goes with code, not with the tool {word}")
        timeout = {} if options.timeout is None else {"timeout": options.timeout}

        def begin() -> ToolDelegation:
            return self.manager.begin_tool(tool.name, arguments, worker=options.worker, **timeout)

        cell = Cell(self._shell)
        relayed = relay(cell, begin, worker=self._worker(options), quiet=options.quiet)
        answer = relayed.outcome
        if not isinstance(answer, ToolResult):
            return relayed
        if answer.is_error:
            return Relayed(answer, _tool_error(answer))
        if not options.quiet:
            self.show_result(answer)
        return relayed

    def _worker(self, options: argparse.Namespace) -> str:
        name: str = options.worker or self.manager.config.worker
        return name

    def _finish(self, relayed: Relayed, options: argparse.Namespace) -> None:
        """Bind and raise what is left of a run."""
        if options.out is not None:
            self._shell.user_ns[options.out] = relayed.outcome
        if relayed.error is None:
            return
        if options.no_raise_error and isinstance(relayed.error, _FAILURES):
            sys.stderr.write("\n".join(compat.rendered(relayed.error)) + "\n")
        else:
            raise relayed.error

    def _show(self, thing: Any) -> None:
        """Markdown for a notebook, text for a terminal."""
        data = {"text/plain": str(thing), "text/markdown": thing._repr_markdown_()}
        self._shell.display_pub.publish(data)

    # --- %hive ---

    def _status(self, _arguments: argparse.Namespace) -> None:
        self._show(self.manager.swarm_status())

    def _start(self, arguments: argparse.Namespace) -> None:
        _say(_sentence(self.manager.start(arguments.name)))

    def _stop(self, arguments: argparse.Namespace) -> None:
        self.manager.stop(arguments.name)
        _say(f'Worker "{self._name(arguments)}" has stopped.')

    def _restart(self, arguments: argparse.Namespace) -> None:
        status = self.manager.restart(
            arguments.name, memory=arguments.memory, sandbox=arguments.sandbox
        )
        _say(_sentence(status))

    def _interrupt(self, arguments: argparse.Namespace) -> None:
        done = self.manager.interrupt(arguments.name)
        said = "was interrupted" if done else "runs nothing"
        _say(f'Worker "{self._name(arguments)}" {said}.')

    def _workers(self, _arguments: argparse.Namespace) -> None:
        _say("\n".join(self.manager.workers()) or "There is no worker yet; %%delegate starts one.")

    def _tools(self, arguments: argparse.Namespace) -> None:
        worker = arguments.worker
        if arguments.tool is not None:
            tool = self.manager.find_tool(arguments.tool, worker)
            _say(visible(f"{tool.name}: {tool.description}"))
            self._show(table_of_arguments(tool))
            return
        tools = self.manager.list_tools(worker)
        self._show(table_of_tools(tools, self.manager.tool_problems(worker)))

    def _agents(self, arguments: argparse.Namespace) -> None:
        if arguments.off:
            self.manager.watch_agents(ignore)
            _say("What agents do is shown no more; %hive history lists it.")
        else:
            self.manager.watch_agents(Cell(self._shell).show_late)
            _say("What agents do appears here from now on.")

    def _add(self, arguments: argparse.Namespace) -> None:
        kinds = ("python", "kernel", "mcp")
        chosen = {kind: value for kind in kinds if (value := getattr(arguments, kind))}
        if not arguments.name or len(chosen) != 1:
            COMMANDS["add"].error("say a NAME and one of --python, --kernel and --mcp")
        self.manager.add(arguments.name, **chosen)
        if arguments.mcp:
            _say(f"%hive tools -w {arguments.name} lists its tools; the first call starts it.")
        else:
            _say(f"%%delegate -w {arguments.name} runs a cell there.")

    def _logs(self, arguments: argparse.Namespace) -> None:
        name, also = arguments.name, arguments.worker
        if name and also and name != also:
            COMMANDS["logs"].error(f'two workers are named, "{name}" and "{also}"')
        _say(self.manager.logs(name or also, arguments.lines) or "Nothing was logged.")

    def _history(self, arguments: argparse.Namespace) -> None:
        runs = self.manager.history()
        rows = tuple(map(_history_row, runs[max(len(runs) - arguments.lines, 0) :]))
        note = "" if runs else "Nothing was delegated yet."
        self._show(Table(("began", "by", "worker", "took", "ended", "code"), rows, note))
        kept = self._approvals.history(arguments.lines)
        if kept is not None:
            self._show(kept)

    def _jobs(self, _arguments: argparse.Namespace) -> None:
        rows = tuple(map(_job_row, self.manager.jobs))
        note = "" if rows else "There is no job; %%delegate --bg starts one."
        self._show(Table(("job", "state", "worker", "took", "last line", "code"), rows, note))

    def _result(self, arguments: argparse.Namespace) -> None:
        job = self._job(arguments, "result")
        job.wait()
        cell = Cell(self._shell, job.worker, self._comms)
        for output in job.outputs:
            cell.show(Message(output["output_type"], output))
        if job.cancelled():
            _say(f"Job {job.id} was cancelled.")
            return
        error = job.exception()
        if isinstance(error, HiveError) and not isinstance(error, RemoteError):
            compat.render_briefly(error)
        if error is not None:
            raise error
        if isinstance(job.result(), Instructions):
            self._show(job.result())

    def _cancel(self, arguments: argparse.Namespace) -> None:
        job = self._job(arguments, "cancel")
        _say(f"Job {job.id} {'is being stopped' if job.cancel() else 'is over already'}.")

    def _job(self, arguments: argparse.Namespace, command: str) -> Job:
        if not arguments.id:
            COMMANDS[command].error("say which job; %hive jobs lists them")
        return self.manager.jobs.get(arguments.id)

    def _stats(self, _arguments: argparse.Namespace) -> None:
        by_worker: dict[str, list[RunRecord]] = defaultdict(list)
        for run in self.manager.history():
            by_worker[run.worker].append(run)
        rows = tuple(_stats_row(name, runs) for name, runs in by_worker.items())
        columns = ("worker", "runs", *_ENDS, "p50", "p95", "longest", "in all")
        self._show(Table(columns, rows, "" if rows else "Nothing was delegated yet."))

    def _config(self, arguments: argparse.Namespace) -> None:
        config = self.manager.config
        traits = config.traits(config=True)
        chosen = [text.partition("=") for text in arguments.settings]
        values = {}
        for name, sets, text in chosen:
            if name not in traits:
                msg = f'Hive has no setting "{name}".{nearest(name, traits)}'
                raise ConfigError(msg)
            if sets:
                values[name] = _read_setting(traits[name], text)
        config.change(**values)
        self._set_here.update({name: getattr(config, name) for name in values})
        shown = [name for name, _, _ in chosen] or sorted(traits)
        rows = tuple(self._config_row(name) for name in shown)
        self._show(Table(("setting", "value", "from", ""), rows))

    @cached_property
    def _approvals(self) -> Approvals:
        # with the guard and SQLite, which many never need
        from hive_jupyter.notebook.approval import Approvals

        return Approvals(self._shell, self.manager)

    def _requests(self, arguments: argparse.Namespace) -> None:
        self._show(self._approvals.requests(arguments))

    def _approve(self, arguments: argparse.Namespace) -> None:
        if not arguments.id:
            COMMANDS["approve"].error("say which request; %hive requests lists them")
        if said := self._approvals.approve(arguments):
            _say(said)

    def _deny(self, arguments: argparse.Namespace) -> None:
        if not arguments.id:
            COMMANDS["deny"].error("say which request; %hive requests lists them")
        _say(self._approvals.deny(arguments))

    def _panel(self, _arguments: argparse.Namespace) -> None:
        panel = self.manager.panel()
        if compat.kernel_of(self._shell) is None:
            _say(str(panel))
        else:
            display(panel)

    def _doctor(self, _arguments: argparse.Namespace) -> None:
        self._show(self.manager.doctor())

    def _name(self, arguments: argparse.Namespace) -> str:
        name: str = arguments.name or self.manager.config.worker
        return name

    def _config_row(self, name: str) -> tuple[str, ...]:
        config = self.manager.config
        trait = config.traits()[name]
        return (name, _shown(trait, getattr(config, name)), self._origin(name), trait.help)

    def _origin(self, name: str) -> str:
        """Where a setting's value came from."""
        config = self.manager.config
        value = getattr(config, name)
        if name in self._set_here and self._set_here[name] == value:
            return "%hive config"
        if name in config.config.get("HiveConfig", {}):
            return "configuration"
        variable = ENVIRONMENT_PREFIX + name.upper()
        if os.environ.get(variable):
            return f"environment, {variable}"
        return "default" if value == config.traits()[name].default(config) else "code"


def _say(text: str) -> None:
    print(text)  # noqa: T201  what a magic answers


def _refuse(_line: str, _cell: str | None = None) -> None:
    """Explain why there is no delegating here."""
    msg = (
        f'This code runs in the worker "{os.environ[WORKER_VARIABLE]}" already, and a worker does '
        "neither delegate nor approve. Run the code here as it is, or do so in the notebook itself."
    )
    raise UsageError(msg)


# The magics inside a worker.
REFUSALS = {
    "line": {"delegate": _refuse, "hive": _refuse},
    "cell": {"delegate": _refuse},
}


def _check_variable(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        msg = f'--out: "{name}" cannot be the name of a variable.'
        raise UsageError(msg)


def _notebook_folder() -> str:
    """The folder that links in outputs begin at; jupyter_server says which notebook it is."""
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    if Path(notebook).is_absolute():
        return str(Path(notebook).parent.resolve())
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was deleted
        return "/"


def _first_word(line: str) -> tuple[str, str]:
    """It, and the rest of the line."""
    word, details = (*line.split(maxsplit=1), "", "")[:2]
    return word, details


def _chosen(options: argparse.Namespace, variables: Mapping[str, object]) -> dict[str, Any]:
    """What was said of the worker, its place and the time."""
    names = ("worker", "timeout", "memory", "sandbox")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return chosen if options.on is None else {**chosen, "on": place_of(options.on, variables)}


def _take_tags(tags: list[str], options: argparse.Namespace) -> None:
    """Let tags of the cell stand for options that are not given."""
    for tag in tags:
        name, _, value = tag.partition("=")
        if not name.startswith("hive-"):
            continue
        if name not in _TAGS or not value:
            msg = f"The cell's tag \"{tag}\" is none of Hive's. There are: hive-timeout=TIME, "
            raise UsageError(msg + "hive-worker=NAME.")
        if getattr(options, _TAGS[name]) is None:
            setattr(options, _TAGS[name], value)


def _take_body(tool: Tool, arguments: dict[str, Any], body: str) -> None:
    """Make the text below ``%%delegate TOOL`` the argument that is missing."""
    if "content" in tool.arguments:
        missing = ["content"] if "content" not in arguments else []
    else:
        missing = [name for name in (*tool.required, *tool.arguments) if name not in arguments]
        body = body.removesuffix("\n")
    if not missing:
        msg = f"{tool.name} has got all that it takes; there is no place for the text below."
        raise UsageError(msg)
    arguments[missing[0]] = body


def _tool_error(answer: ToolResult) -> ToolError:
    error = ToolError(visible(str(answer)))
    compat.render_briefly(error)
    return error


def _sentence(status: NodeStatus) -> str:
    process = f", process {status.pid}" if status.pid else ""
    return f'Worker "{status.name}" is {status.state}{process}.'


def _history_row(run: RunRecord) -> tuple[str, ...]:
    return (
        time.strftime("%H:%M:%S", time.localtime(run.started)),
        f"agent {run.asker}" if run.asker else "you",
        run.worker,
        format_duration(run.seconds),
        run.status + (f": {shortened(run.detail)}" if run.detail else ""),
        shortened(run.code),
    )


def _job_row(job: Job) -> tuple[str, ...]:
    took = format_duration(job.seconds)
    return (job.id, job.state, job.worker, took, shortened(job.progress), job.title)


def _stats_row(worker: str, runs: list[RunRecord]) -> tuple[str, ...]:
    times = sorted(run.seconds for run in runs)
    ends = [str(sum(run.status == status for run in runs)) for status in _ENDS]
    middle, late = (times[math.ceil(len(times) * part) - 1] for part in (0.5, 0.95))
    spans = map(format_duration, (middle, late, times[-1], sum(times)))
    return (worker, str(len(runs)), *ends, *spans)


def _read_setting(trait: Any, text: str) -> Any:
    """The value that ``%hive config NAME=text`` means."""
    if trait.metadata.get("at_start"):
        msg = (
            f"{trait.name} is read when the hive starts, so it cannot be set now. Set "
            f"{ENVIRONMENT_PREFIX}{trait.name.upper()} before %load_ext hive_jupyter, or "
            f"c.HiveConfig.{trait.name} in ipython_kernel_config.py."
        )
        raise ConfigError(msg)
    try:
        return trait.from_string(text)
    except (TraitError, ValueError) as error:
        msg = f"{trait.name}={text}: {error}"
        if isinstance(trait, Entries):
            example = f"{trait.name}={trait.metadata['example']}"
            msg += f" Put the whole word in quotes: %hive config '{example}'"
        raise ConfigError(msg) from None


def _shown(trait: Any, value: Any) -> str:
    if isinstance(trait, Size):
        return format_size(value)
    if isinstance(trait, Duration):
        return "no limit" if value is None else f"{value:g} s"
    return str(value)
