"""What can be asked of a human: a commit, or a call of a tool."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Literal, get_args

from hive_jupyter.errors import ConfigError
from hive_jupyter.guard.diff import FileChange, compare
from hive_jupyter.guard.lines import render
from hive_jupyter.units import visible

State = Literal[
    "pending", "approved", "denied", "expired", "superseded", "spent", "committed", "void"
]
Kind = Literal["user", "worker", "agent"]

_DATED = re.compile(r"(?P<who>.*>) (?P<seconds>[0-9]{1,12}) (?P<zone>[+-][0-9]{4})", re.DOTALL)

_LONGEST_NAME = 200
_LONGEST_MESSAGE = 64 * 2**10
_LONGEST_ARGUMENTS = 2**20


@dataclass(frozen=True)
class Requester:
    """
    Who asks.

    Attributes:
        kind: "user" for the user's own magic or command; "worker" for a delegated cell, whose
            worker the host knows; "agent" for a program that says itself what it is called.
        name: of the user, the worker, or whatever the agent calls itself.
    """

    kind: Kind
    name: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            msg = f"{self.kind!r} is no kind of requester. There are: {', '.join(get_args(Kind))}."
            raise ConfigError(msg)
        _text("name of the requester", self.name, _LONGEST_NAME)

    def __str__(self) -> str:
        name = visible(self.name, keep="")
        if self.kind == "agent":
            return f'an agent that claims to be "{name}"'
        return f'worker "{name}"' if self.kind == "worker" else f"user {name}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Request:
    """
    Something that a human must allow; the ledger keeps it as it was asked.

    Attributes:
        id: short, to be typed.
        requester: who asks.
        time: when, as Unix time in seconds.
        state: "pending" until a human answers; "approved" until the token is used; then "spent",
            and of a commit "committed" or, where the branch never got it, "void". Or "denied",
            "expired" or "superseded".
    """

    kind: ClassVar[str]

    id: str
    requester: Requester
    time: float = field(default_factory=time.time)
    state: State = "pending"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} {self.state}, digest {self.digest}>"

    @property
    def content(self) -> dict[str, Any]:
        """All that was asked, as JSON can hold it; what has become of it is not in it."""
        values = asdict(self)
        for name in ("state", "commit"):
            values.pop(name, None)
        # a request of before there were such things keeps its digest
        for name in ("source", "skipped_hooks", "passed_hooks", "asked_message"):
            if not values.get(name):
                values.pop(name, None)
        return {"kind": self.kind, **values}

    @property
    def digest(self) -> str:
        """SHA-256 over the content, in hexadecimal digits."""
        written = json.dumps(self.content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(written.encode("ascii")).hexdigest()

    def text(self) -> str:
        """What the digest covers, to be read by the human who decides; nothing in it hides."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, repr=False)
class CommitRequest(Request):
    """
    A commit that somebody wants.

    Attributes:
        repository: path of the git dir.
        ref: the branch, in full: "refs/heads/main".
        parent: the commit that the branch is to be at; None for a repository's first commit.
        tree: what is to be committed, as the hash of a tree.
        message: the commit's.
        author: as git writes it, "Name <email> seconds zone"; None: git's configuration says it
            when the commit is made.
        committer: likewise.
        private: the folder that holds the content until it is committed; None: the repository
            has it already.
        source: where the content is from, in words: "what is staged"; "" where nobody said so.
        skipped_hooks: names of the user's hooks for commits that did not run.
        passed_hooks: names of those that ran, confined, and let it pass.
        asked_message: the message that was asked for, where a hook has changed it; else "".
        commit: the hash of the commit that was made, once a token was spent for it.
    """

    kind: ClassVar[str] = "commit"

    repository: str
    ref: str
    parent: str | None
    tree: str
    message: str
    author: str | None = None
    committer: str | None = None
    private: str | None = None
    source: str = ""
    skipped_hooks: tuple[str, ...] = ()
    passed_hooks: tuple[str, ...] = ()
    asked_message: str = ""
    commit: str | None = None

    def __post_init__(self) -> None:
        _text("repository", self.repository)
        _text("ref", self.ref)
        _text("tree", self.tree)
        for name in ("parent", "author", "committer", "private"):
            if getattr(self, name) is not None:
                _text(name, getattr(self, name))
        for hooks in ("skipped_hooks", "passed_hooks"):
            object.__setattr__(self, hooks, tuple(getattr(self, hooks)))
        said = filter(None, [self.source])
        for name in (*self.skipped_hooks, *self.passed_hooks, *said):
            _text("hooks and source", name)
        for message in (self.message, *filter(None, [self.asked_message])):
            check_message(message)

    def diff(self) -> str:
        """
        What the commit changes: a summary, what deserves a close look, and the patch.

        Made from the frozen objects alone; attributes and configuration hide nothing, and what
        a screen would obey or swallow is visible.

        Raises:
            RepositoryError: git fails, the content is kept no more, or it is too much to be read.
        """
        return render(self.changes())

    def changes(self) -> tuple[FileChange, ...]:
        """
        The same file by file.

        Raises:
            RepositoryError: as for ``diff``.
        """
        private = None if self.state == "committed" else self.private
        return compare(self.repository, private, self.parent, self.tree)

    def text(self) -> str:
        """What the digest covers, to be read by the human who decides; nothing in it hides."""
        first = [
            ("Commit to", f"{self.ref} of {self.repository}"),
            ("asked by", str(self.requester)),
            ("asked at", _when(self.time)),
        ]
        rest = [
            ("author", _person(self.author)),
            ("committer", _person(self.committer)),
            ("parent", self.parent or "none: the first commit"),
            ("tree", self.tree),
            ("digest", self.digest),
        ]
        if self.source:
            first.append(("content", self.source))
        if self.skipped_hooks:
            rest.insert(0, ("not run", f"hooks of yours: {', '.join(self.skipped_hooks)}"))
        if self.passed_hooks:
            passed = f"of yours, run confined: {', '.join(self.passed_hooks)}"
            rest.insert(0, ("hooks", passed))
        messages = [_block("message", self.message)]
        if self.asked_message:
            messages.append(_block("before your hooks changed it", self.asked_message))
        return "\n".join([_head(first), *messages, _head(rest)])


@dataclass(frozen=True, kw_only=True, repr=False)
class CallRequest(Request):
    """
    A call of a tool that an agent wants.

    Attributes:
        tool: its name.
        arguments: what it is to be called with; those of an approved request are to be used, and
            no others.
        worker: the name of the worker that is to carry it out.
    """

    kind: ClassVar[str] = "call"

    tool: str
    arguments: Mapping[str, Any] = field(hash=False)
    worker: str

    def __post_init__(self) -> None:
        _text("tool", self.tool, _LONGEST_NAME)
        _text("worker", self.worker, _LONGEST_NAME)
        object.__setattr__(self, "arguments", _plain(self.arguments))

    def text(self) -> str:
        """What will be called, to be read by the human who decides; nothing in it hides."""
        lines = [
            ("Call of", f'{self.tool} on worker "{self.worker}"'),
            ("asked by", str(self.requester)),
            ("asked at", _when(self.time)),
            ("digest", self.digest),
        ]
        arguments = [
            _block(
                name,
                value
                if isinstance(value, str)
                else json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False),
            )
            for name, value in self.arguments.items()
        ]
        return "\n".join([_head(lines), *(arguments or ["no arguments"])])


def from_content(content: Mapping[str, Any]) -> CommitRequest | CallRequest:
    """
    A request as the ledger keeps it.

    Raises:
        KeyError, TypeError, ValueError: the content is not what a request wrote.
    """
    values = dict(content)
    kinds: dict[str, type[CommitRequest | CallRequest]]
    kinds = {"commit": CommitRequest, "call": CallRequest}
    kind = kinds[values.pop("kind")]
    known = {one.name for one in fields(kind)}
    if unknown := values.keys() - known:
        msg = f"unknown: {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    requester = Requester(**values.pop("requester"))
    return kind(requester=requester, **values)


def _head(lines: Sequence[tuple[str, str]]) -> str:
    """Values on a line each, behind their names."""
    return "\n".join(f"{name:9}  {visible(value, keep='')}" for name, value in lines)


def _block(name: str, text: str) -> str:
    """A value below its name, marked at each line so that it cannot pass for another value."""
    lines = visible(text).split("\n")
    return "\n".join([f"{visible(name, keep='')}:", *(f"  | {line}" for line in lines)])


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))


def _person(ident: str | None) -> str:
    """Who, and when, with the time as people read it where it can be."""
    if ident is None:
        return "as git's configuration says"
    match = _DATED.fullmatch(ident)
    if match is None:
        return ident
    try:
        zone = datetime.strptime(match["zone"], "%z").tzinfo
        moment = datetime.fromtimestamp(int(match["seconds"]), zone)
    except (ValueError, OverflowError, OSError):
        return ident
    return f"{match['who']} {moment:%F %T %z}"


def _text(name: str, value: object, longest: int = 4096) -> None:
    if not isinstance(value, str) or not value or "\0" in value or len(value) > longest:
        msg = f"The {name} of a request is text without NUL, 1 to {longest} characters long."
        raise ConfigError(msg)


def check_message(message: object) -> None:
    """
    See that a commit can have this message.

    Raises:
        ConfigError: it cannot.
    """
    if not str(message).strip():
        raise ConfigError("A commit needs a message.")
    _text("message", message, _LONGEST_MESSAGE)
    try:
        str(message).encode()
    except UnicodeEncodeError as error:
        msg = f"The message of a commit must be Unicode text: {error}"
        raise ConfigError(msg) from None


def _plain(arguments: object) -> dict[str, Any]:
    """A copy of the arguments, as JSON holds them."""
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise ConfigError("The arguments of a call are given by name.")
    try:
        written = json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"The arguments of a call must be what JSON can hold: {error}"
        raise ConfigError(msg) from None
    if len(written) > _LONGEST_ARGUMENTS:
        msg = f"The arguments of a call are at most {_LONGEST_ARGUMENTS} characters of JSON."
        raise ConfigError(msg)
    plain: dict[str, Any] = json.loads(written)
    return plain
