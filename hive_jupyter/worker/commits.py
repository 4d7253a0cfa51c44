"""
Commits that code in a worker asks for: ``%commit`` there.

The host freezes what is to be committed and asks the human. The worker is told the request's id,
and has no say in what becomes of it.
"""

from __future__ import annotations

import argparse
import os
import queue
import secrets
import shlex
import threading
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.getipython import get_ipython
from IPython.core.magic import no_var_expand
from IPython.core.magic_arguments import MagicArgumentParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class CommitRequests:
    """
    What this worker's code has asked the host for, and waits to be answered.

    Args:
        publish: tells the host.
    """

    def __init__(self, publish: Callable[[dict[str, Any]], None]) -> None:
        self._publish = publish
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._waiting: dict[str, queue.SimpleQueue[Mapping[str, Any]]] = {}

    def request_commit(
        self, message: str, paths: Sequence[str] = (), supersedes: str | None = None
    ) -> str:
        """
        Ask for a commit, and wait until the host has frozen its content; from any thread.

        Args:
            message: of the commit.
            paths: files and folders, relative to the working folder, whose present content is to
                be committed; none: what is staged, or else the changes of tracked files.
            supersedes: the id of this worker's waiting request in whose place this one comes.

        Returns:
            What to show.

        Raises:
            UsageError: the host refuses; the message says why.
        """
        if os.getpid() != self._pid:
            msg = "A process that the worker started cannot ask for a commit. Ask in the cell."
            raise UsageError(msg)
        content = {
            "id": secrets.token_hex(8),
            "message": message,
            "paths": list(map(os.path.abspath, paths)),
            "supersedes": supersedes,
        }
        with self._turn:
            answer = self._asked(content)
        if "error" in answer:
            raise UsageError(answer["error"])
        return str(answer["text"])

    def _asked(self, content: dict[str, Any]) -> Mapping[str, Any]:
        answers = self._waiting[content["id"]] = queue.SimpleQueue()
        try:
            self._publish(content)
            return answers.get()
        finally:
            del self._waiting[content["id"]]

    def take_reply(self, answer: Mapping[str, Any]) -> None:
        """The host's answer; who was interrupted waits for it no more."""
        waiting = self._waiting.get(answer["id"])
        if waiting is not None:
            waiting.put(answer)


_PARSER = MagicArgumentParser(
    "%commit",
    description="Ask for a commit to git, which a human sees before it is made.",
    formatter_class=argparse.HelpFormatter,  # IPython's own writes for docstrings
)
_PARSER.add_argument("-h", "--help", action="store_true", help="show this and do nothing else")
_PARSER.add_argument(
    "-m",
    "--message",
    action="append",
    help="of the commit, in quotes; each further -m begins a paragraph",
)
_PARSER.add_argument("--supersedes", metavar="ID", help="the waiting request that this replaces")
_PARSER.add_argument("paths", nargs="*", metavar="PATH", help="relative to the working folder")


@no_var_expand
def commit(line: str) -> None:
    """Ask for a commit to git: ``%commit -m MESSAGE [PATH ...]``; a human sees it before."""
    options = _PARSER.parse_args(_words(line))
    if options.help:
        _say(_PARSER.format_help())
        return
    if not options.message:
        _PARSER.error("%commit: say what the commit is for: -m MESSAGE. %commit -h explains it.")
    shell: Any = get_ipython()
    if options.supersedes is not None:
        # with the names that IPython would take: those of whoever calls the magic
        options.supersedes = shell.var_expand(options.supersedes, depth=2)
    message = "\n\n".join(options.message)
    _say(shell.kernel.commit_requests.request_commit(message, options.paths, options.supersedes))


def _say(text: str) -> None:
    print(text)  # noqa: T201  what a magic answers


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        msg = "%commit: a quote is not closed."
        raise UsageError(msg) from None
