"""
Requests, a human's answers, and what follows from them: what all fronts do in the same way.

git and the ledger block, so this is called above the portal; an async caller needs a thread for it.
"""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hive_jupyter import procfs
from hive_jupyter.config import HiveConfig
from hive_jupyter.errors import (
    AuthorizationError,
    ConfigError,
    RepositoryError,
    RequestUnknown,
)
from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AnyRequest, AuthorizationGuard
from hive_jupyter.guard.freeze import Frozen
from hive_jupyter.guard.hooks import Rooms
from hive_jupyter.guard.repository import Made
from hive_jupyter.guard.requests import CallRequest, CommitRequest, Requester
from hive_jupyter.listing import place
from hive_jupyter.protocol import KERNEL, WORKER_VARIABLE
from hive_jupyter.toolbox import BUILT_IN
from hive_jupyter.tools import LARGEST_RESULT, ToolContent, ToolResult, within
from hive_jupyter.units import visible

log = logging.getLogger(__name__)

# How Hive's own processes are called; see ``worker.confine.prctl.set_title``.
_TITLE = "hive: "
# Seconds for what is written beside: nobody waits for it gladly.
_SHORT_WAIT = 2.0
# Of a commit that is asked for; approving shows them all.
_FILES_NAMED = 5
# Bytes of what is told of a request besides its files.
_SHORT_STRUCTURE = 200


class Commits:
    """
    What a host has to do with commits.

    Args:
        config: the settings; how long an approval lasts is read now.
        rooms: gives the user's hooks a place to run; None: this host asks for no commits.

    Raises:
        AuthorizationError: this is a worker.
    """

    def __init__(self, config: HiveConfig, rooms: Rooms | None = None) -> None:
        refuse_in_worker()
        self._config = config
        self._rooms = rooms
        self.guard = AuthorizationGuard(expiry=config.approval_expiry)

    def request(
        self,
        message: str,
        paths: Sequence[str | os.PathLike[str]] | None = None,
        *,
        requester: Requester | None = None,
        supersedes: str | None = None,
        root: str | None = None,
    ) -> tuple[CommitRequest, Frozen]:
        """
        Ask for a commit; see ``repository.request_commit``.

        Args:
            message: of the commit.
            paths: relative to the working folder, or to ``root``.
            requester: who asks; by default the user.
            supersedes: the id of a waiting request in whose place this one comes.
            root: the top of the work tree; by default that of the working folder.
        """
        return repository.request_commit(
            self.guard,
            root or _working_folder(),
            message,
            requester=requester or _user(),
            paths=paths,
            root=root,
            supersedes=supersedes,
            filters=self._config.commit_filters,
            hooks=self._rooms if self._config.commit_hooks else None,
            hook_timeout=self._config.hook_timeout,
        )

    def request_call(
        self, tool: str, arguments: Mapping[str, Any], *, worker: str, agent: str
    ) -> CallRequest:
        """Ask for a call that an agent wants to make; see ``AuthorizationGuard.request_call``."""
        return self.guard.request_call(
            tool=tool, arguments=arguments, worker=worker, requester=Requester("agent", agent)
        )

    def serve_request(self, arguments: Mapping[str, Any], agent: str | None = None) -> ToolResult:
        """
        Serve the tool ``request_commit``; answers at once.

        Args:
            arguments: of the tool.
            agent: what the agent that asks calls itself; None: the user asks.

        Raises:
            HiveError: as ``request``; and ToolError where the arguments are wrong.
        """
        given = BUILT_IN["request_commit"].check(arguments)
        requester = _user() if agent is None else Requester("agent", agent)
        request, frozen = self.request(
            given["message"],
            given.get("paths"),
            requester=requester,
            supersedes=given.get("supersedes"),
        )
        names = [visible(path, keep="") for path in frozen.files]
        teller = "%hive requests --all" if agent is None else "commit_status"
        lines = [
            f"Request {request.id}: {frozen.content}, for {place(request)}, waits for a human.",
            f"`%hive approve {request.id}` in a notebook shows the change and takes the answer,",
            f"and so does `jupyter hive approve {request.id}` in a terminal.",
            f"Nothing is committed before; {teller} tells what became of it.",
            *_more_of(request, frozen),
            "Files that it changes:",
            *names,
        ]
        structure = {"request": request.id, "state": request.state, "files": names}
        text = "\n".join(lines)
        answer = ToolResult((ToolContent("text", text),), structured_content=structure)
        kept = within(answer, LARGEST_RESULT - _SHORT_STRUCTURE)
        if kept.structured_content is not None:
            return kept
        # too many files; who asked needs the rest of it to ask further
        return replace(kept, structured_content={**structure, "files": []})

    def serve_worker(self, asked: Mapping[str, Any], worker: str, root: str) -> str:
        """
        Serve what a worker's code asks for, with all of it checked.

        Args:
            asked: message, paths and supersedes, as a worker sent them.
            worker: its name.
            root: of the project that it was started in; nothing else is committed.

        Returns:
            What to show.

        Raises:
            HiveError: as ``request``; and ToolError where it makes no sense.
        """
        given = BUILT_IN["request_commit"].check(
            {name: asked[name] for name in ("message", "paths", "supersedes") if asked.get(name)}
        )
        request, frozen = self.request(
            given["message"],
            given.get("paths"),
            requester=Requester("worker", worker),
            supersedes=given.get("supersedes"),
            root=root,
        )
        return asked_for(request, frozen)

    def serve_status(self, request_id: str) -> ToolResult:
        """
        Serve the tool ``commit_status``, of commits that agents have asked for.

        Raises:
            AuthorizationError: there is no such request.
            LedgerError: the ledger cannot be read.
        """
        self.settle()
        request = self.guard.get(request_id)
        if not isinstance(request, CommitRequest) or request.requester.kind != "agent":
            msg = f"No agent has asked for a commit {visible(request_id, keep='')!r}."
            raise RequestUnknown(msg, request=request_id)
        state = "approved" if request.state == "spent" else request.state
        made = request.commit if state == "committed" else None
        text = {
            "pending": f"Request {request.id} waits for the human's answer.",
            "approved": f"Request {request.id} is approved, and not committed yet.",
            "committed": f"Request {request.id} is committed as {request.commit}.",
        }.get(state) or self._why_not(request)
        structure = {"request": request.id, "state": state, "commit": made}
        return ToolResult((ToolContent("text", text),), structured_content=structure)

    def _why_not(self, request: CommitRequest) -> str:
        try:
            self.guard.awaiting(request.id)
        except AuthorizationError as error:
            return str(error)
        return f"Request {request.id} is {request.state}."

    def record(self, event: str, worker: str, happened: str) -> None:
        """
        Keep in the ledger what happened to a worker, or to what it ran.

        Args:
            event: "died" or "stopped".
            worker: its name.
            happened: in a sentence.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        # a hive that is closed waits for this
        guard = AuthorizationGuard(self.guard.ledger.path, timeout=_SHORT_WAIT)
        guard.record(event, {"worker": worker, "happened": happened})

    def commit(self, token: str) -> Made:
        """Make the commit that a token was given for; see ``repository.commit``."""
        return repository.commit(self.guard, token)

    def withdraw(self, request_id: str) -> None:
        """
        Wait for an answer no more. Returns where a human allowed it in the last moment.

        Raises:
            RequestDenied, RequestExpired, Superseded: it is not allowed.
            LedgerError: the ledger cannot be written.
        """
        self.guard.conclude(request_id, "expired", "who asked waits no more")
        self.guard.is_allowed(request_id)

    def settle(self) -> None:
        """Hold the ledger against the branches: an earlier process may have been killed."""
        repository.settle(self.guard)

    def open(self) -> list[AnyRequest]:
        """Requests that wait for a human, or for their approval to be used, oldest first."""
        self.settle()
        return self.guard.open()


def asked_for(request: CommitRequest, frozen: Frozen) -> str:
    """What to say to who asked for a commit, in a cell."""
    shown = [visible(path, keep="") for path in frozen.files[:_FILES_NAMED]]
    more = len(frozen.files) - len(shown)
    files = ", ".join(shown) + (f" and {more} more" if more else "")
    return "\n".join(
        [
            f"Request {request.id}: commit {frozen.content} to {place(request)}: {files}.",
            f"Nothing is committed yet. %hive approve {request.id} shows what would be, and asks.",
            *_more_of(request, frozen),
        ]
    )


def _more_of(request: CommitRequest, frozen: Frozen) -> Iterator[str]:
    """Sentences on what a commit is made without, and on what hooks made of it."""
    if frozen.submodules:
        names = visible(", ".join(frozen.submodules), keep="")
        yield f"Submodules are not looked at: {names}. git add stages a new commit of one."
    if frozen.skipped_hooks:
        hooks = ", ".join(frozen.skipped_hooks)
        yield f"Your hooks are not run: {hooks}. Run what they check yourself."
    if frozen.passed_hooks:
        said = f" They said:\n{frozen.said}" if frozen.said else ""
        yield f"Your hooks ran, confined, and let it pass: {', '.join(frozen.passed_hooks)}.{said}"
    if request.asked_message:
        lines = visible(request.message).split("\n")
        yield "They changed the message:\n" + "\n".join(f"  | {line}" for line in lines)


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        msg = "The working folder does not exist any more. Go to another one: %cd FOLDER"
        raise RepositoryError(msg) from None


def _user() -> Requester:
    """The user, by name, or by number where the system knows no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Requester("user", name)


def refuse_in_worker() -> None:
    """
    See that this process is none of a worker's.

    This keeps nobody out who means harm: whoever runs as the user can write the ledger itself.

    Raises:
        AuthorizationError: it is.
    """
    if WORKER_VARIABLE in os.environ or _is_below_worker(os.getpid()):
        msg = (
            "This runs in a worker, and nothing is approved or committed from there. Answer in "
            "the notebook, or in a terminal of your own."
        )
        raise AuthorizationError(msg)


def _is_below_worker(pid: int) -> bool:
    """Whether an ancestor belongs to a worker; a kernel that the provisioner started is none."""
    while pid > 1 and (stat := procfs.read_stat(pid)) is not None:
        title = procfs.title(pid)
        if title.startswith(_TITLE):
            return not title.startswith(f"{_TITLE}{KERNEL} ")
        pid = stat.parent
    return False


# --- answering ---


def approve(guard: AuthorizationGuard, request: AnyRequest, *, origin: str) -> str:
    """
    Say yes in the name of a human who saw the request, and carry it out at once.

    Args:
        guard: that keeps the request.
        request: what was seen.
        origin: where the human said it, for the record.

    Returns:
        What to say: of a commit its hash; of a call that whoever waits for it goes on.

    Raises:
        AuthorizationError: it is too late, or the branch moved.
        RepositoryError: git fails; the message says whether the token is still good.
        LedgerError: the ledger is damaged or cannot be written.
    """
    token = guard.approve(request.id, digest=request.digest, origin=origin)
    if isinstance(request, CommitRequest):
        return _committed(guard, request, token)
    guard.spend(token, request=request.id)
    return f"Request {request.id} is approved; whoever waits for it goes on."


def approve_for_token(guard: AuthorizationGuard, request: AnyRequest, *, origin: str) -> str:
    """
    Say yes, and carry nothing out.

    Returns:
        The token.

    Raises:
        ConfigError: the request is for a call, which nobody carries out with a token.
        AuthorizationError, LedgerError: as ``approve``.
    """
    if not isinstance(request, CommitRequest):
        msg = "The token of a call is of use to nobody. Approve it without --token."
        raise ConfigError(msg)
    return guard.approve(request.id, digest=request.digest, origin=origin)


def _committed(guard: AuthorizationGuard, request: CommitRequest, token: str) -> str:
    try:
        made = repository.commit(guard, token, request=request.id)
    except Exception as error:
        if guard.get(request.id).state != "approved":
            raise
        msg = (
            f"{error}\nRequest {request.id} is approved and not committed. Try again with its "
            f'token, HiveManager().commit("{token}"), or deny it and ask again.'
        )
        if isinstance(error, RepositoryError):
            raise RepositoryError(msg, command=error.command, stderr=error.stderr) from error
        raise RepositoryError(msg) from error
    return f"Committed {made.commit} to {place(request)}.\n{made.left}".rstrip()
