"""A human's yes: asked for, given or refused, and used once."""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hive_jupyter.errors import (
    AuthorizationError,
    ConfigError,
    LedgerError,
    RequestDenied,
    RequestExpired,
    RequestUnknown,
    Superseded,
    TokenExpired,
    TokenMalformed,
    TokenMismatch,
    TokenSpent,
    TokenUnknown,
    TooManyRequests,
)
from hive_jupyter.guard.ledger import Entries, Entry, Ledger, Moment
from hive_jupyter.guard.requests import CallRequest, CommitRequest, Requester, State, from_content
from hive_jupyter.units import format_duration, visible

# Nothing that looks like something else, and no vowels: ids are typed, and spell nothing.
_ALPHABET = "23456789bcdfghjkmnpqrstvwxyz"
_ID_LENGTH = 6
_LONGEST_ID = 32
_ID = re.compile(r"[a-z0-9]{1,32}")
_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

# What an entry makes of its request; other entries only tell.
_STATES: dict[str, State] = {
    "requested": "pending",
    "approved": "approved",
    "denied": "denied",
    "expired": "expired",
    "superseded": "superseded",
    "spent": "spent",
    "committed": "committed",
    "void": "void",
}

# From where a request may come to its end otherwise than by a human or a clock.
_CONCLUDED_FROM: dict[str, tuple[State, ...]] = {
    "expired": ("pending", "approved"),
    "superseded": ("pending", "approved", "spent"),
    "committed": ("spent",),
    "void": ("spent",),
}

# Linux' own; what macOS calls monotonic counts its sleep, too.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

AnyRequest = CommitRequest | CallRequest
_Asked = TypeVar("_Asked", CommitRequest, CallRequest)


def boot_clock() -> float:
    """Seconds since the machine started, those of its sleep included."""
    return time.clock_gettime(_SINCE_BOOT)


def boot_id() -> str:
    """Which start of which machine ``boot_clock`` counts from; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class AuthorizationGuard:
    """
    Requests, and a human's answers to them.

    ::

        request -> pending --approve--> approved --spend--> spent --> committed | void
                      |  |                 |  |               |
                    deny expires         deny expires       (of a commit; superseded by then, too)

    Neither notebook nor git is needed. Everything is in the ledger, so any number of threads and
    processes may each have a guard on the same one.
    """

    def __init__(
        self,
        ledger_path: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
        boot_clock: Callable[[], float] = boot_clock,
        *,
        expiry: float = 300.0,
        patience: float = 24 * 3600.0,
        max_pending: int = 8,
        timeout: float = 30.0,
    ) -> None:
        """
        Take a ledger; its file is made with the first request.

        Args:
            ledger_path: the file; by default below the user's Jupyter data folder.
            clock: returns Unix time in seconds.
            boot_clock: returns seconds since the machine started. A token is good as long as
                neither clock says that its time is over.
            expiry: seconds within which an approval must be used.
            patience: seconds that a request waits for its answer.
            max_pending: requests that one asker may have waiting.
            timeout: seconds to wait for others that write to the ledger.
        """
        if not 0 < expiry < math.inf or not 0 < patience < math.inf or max_pending < 1:
            raise ConfigError("expiry and patience are seconds above 0, max_pending is 1 or more.")
        self.ledger = Ledger(ledger_path, timeout)
        self.expiry = expiry
        self.patience = patience
        self.max_pending = max_pending
        self._clock = clock
        self._boot_clock = boot_clock
        self._boot = boot_id()

    def __repr__(self) -> str:
        return f"<AuthorizationGuard {self.ledger.path}>"

    # --- asking ---

    def request(
        self,
        *,
        repository: str | os.PathLike[str],
        ref: str,
        parent: str | None,
        tree: str,
        message: str,
        requester: Requester | str,
        author: str | None = None,
        committer: str | None = None,
        private: str | os.PathLike[str] | None = None,
        source: str = "",
        skipped_hooks: Collection[str] = (),
        passed_hooks: Collection[str] = (),
        asked_message: str = "",
        supersedes: str | None = None,
    ) -> CommitRequest:
        """
        Ask for a commit.

        Args:
            repository: the git dir.
            ref: the branch, in full.
            parent: the commit that it is at; None for a repository's first.
            tree: what is to be committed.
            message: of the commit.
            requester: who asks; a name alone counts as what an agent claims to be called.
            author: as git writes it; None: git's configuration says it later.
            committer: likewise.
            private: the folder that holds the content until then.
            source: where the content is from, in words.
            skipped_hooks: names of the user's hooks for commits that did not run.
            passed_hooks: names of those that ran, confined, and let it pass.
            asked_message: the message that was asked for, where a hook has changed it; else "".
            supersedes: the id of a waiting request of the same asker for the same branch, in
                whose place this one comes.

        Raises:
            ConfigError: something of it cannot be.
            TooManyRequests: the asker has too many waiting already.
            AuthorizationError: that other request is not one that this asker may replace.
            LedgerError: the ledger cannot be written.
        """
        asked = CommitRequest(
            id="new",
            requester=_requester(requester),
            repository=os.fspath(repository),
            ref=ref,
            parent=parent,
            tree=tree,
            message=message,
            author=author,
            committer=committer,
            private=None if private is None else os.fspath(private),
            source=source,
            skipped_hooks=tuple(skipped_hooks),
            passed_hooks=tuple(passed_hooks),
            asked_message=asked_message,
        )
        return self._ask(asked, supersedes)

    def request_call(
        self,
        *,
        tool: str,
        arguments: Mapping[str, Any],
        worker: str,
        requester: Requester | str,
    ) -> CallRequest:
        """
        Ask for a call of a tool.

        Args:
            tool: its name.
            arguments: what it is to be called with, as JSON can hold it.
            worker: the name of the worker that is to carry it out.
            requester: who asks; a name alone counts as what an agent claims to be called.

        Raises:
            ConfigError: something of it cannot be.
            TooManyRequests: the asker has too many waiting already.
            LedgerError: the ledger cannot be written.
        """
        asked = CallRequest(
            id="new",
            requester=_requester(requester),
            tool=tool,
            arguments=arguments,
            worker=worker,
        )
        return self._ask(asked, None)

    def _ask(self, asked: _Asked, supersedes: str | None) -> _Asked:
        with self.ledger.writing() as entries:
            now = self._now()
            waiting = []
            for request in self._open(entries, now):
                if request.state == "expired":
                    entries.append("expired", now, request=request.id)
                elif request.state == "pending":
                    waiting.append(request)
            replaced = self._replaceable(entries, now, supersedes, asked) if supersedes else None
            waiting = [request for request in waiting if request.id != replaced]
            mine = [one for one in waiting if _same_asker(one.requester, asked.requester)]
            if len(mine) >= self.max_pending:
                msg = (
                    f"{_upper(str(asked.requester))} has {len(mine)} requests waiting, and may "
                    "have no more. Have them answered first."
                )
                raise TooManyRequests(msg)
            asked = self._written(entries, now, replace(asked, time=now.time))
            if replaced is not None:
                details = {"reason": f"by {asked.id}"}
                entries.append("superseded", now, request=replaced, details=details)
        return asked

    def _written(self, entries: Entries, now: Moment, asked: _Asked) -> _Asked:
        while True:
            name = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
            asked = replace(asked, id=name)
            details = {"content": asked.content, "digest": asked.digest}
            if entries.append("requested", now, request=name, details=details):
                return asked

    def _replaceable(
        self, entries: Entries, now: Moment, name: str, asked: CommitRequest | CallRequest
    ) -> str:
        other = self._known(entries, now, name)
        if (
            not isinstance(other, CommitRequest)
            or not isinstance(asked, CommitRequest)
            or other.state != "pending"
            or other.requester != asked.requester
            or (other.repository, other.ref) != (asked.repository, asked.ref)
        ):
            msg = (
                f"Request {other.id} cannot be replaced: it is not a waiting one of the same asker "
                "for the same branch. Ask without replacing it."
            )
            raise AuthorizationError(msg, request=other.id, state=other.state)
        return other.id

    # --- answering ---

    def approve(self, request_id: str, *, digest: str | None = None, origin: str = "python") -> str:
        """
        Say yes, in a human's name.

        Args:
            request_id: the request's id.
            digest: of what the human saw; None: whatever the ledger holds.
            origin: where the human said it, for the record: "panel", "magic", "terminal", ...

        Returns:
            A token for this request alone, good once and for ``expiry`` seconds.

        Raises:
            RequestUnknown, RequestDenied, RequestExpired, Superseded, TokenSpent: it is too late.
            AuthorizationError: it is approved already, and its token was given out then; or it is
                not what the human saw.
            LedgerError: the ledger is damaged or cannot be written.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        with self.ledger.writing() as entries:
            now = self._now()
            entries.check()
            request = self._known(entries, now, request_id)
            refusal = self._answered(request, entries)
            if digest not in {None, request.digest}:
                raise self._changed(request.id)
            if refusal is None:
                details = {"digest": request.digest, "expiry": self.expiry, "origin": origin}
                entries.append(
                    "approved", now, request=request.id, token=_hash(token), details=details
                )
            elif request.state == "expired":
                self._expire(entries, now, request)
        if refusal is not None:
            raise refusal
        return token

    def deny(self, request_id: str, reason: str = "", *, origin: str = "python") -> AnyRequest:
        """
        Say no, also to what was approved and is not carried out yet.

        Args:
            request_id: the request's id.
            reason: why, for the asker.
            origin: where the human said it, for the record.

        Returns:
            The request, denied.

        Raises:
            RequestUnknown, RequestDenied, RequestExpired, Superseded, TokenSpent: it is too late.
            LedgerError: the ledger cannot be written.
        """
        with self.ledger.writing() as entries:
            now = self._now()
            request = self._known(entries, now, request_id)
            refusal = self._ended(request, entries)
            if refusal is None:
                details = {"reason": reason, "origin": origin}
                entries.append("denied", now, request=request.id, details=details)
            elif request.state == "expired":
                self._expire(entries, now, request)
        if refusal is not None:
            raise refusal
        return replace(request, state="denied")

    # --- using ---

    def check(
        self, token: str, *, request: str | None = None, kind: str | None = None
    ) -> AnyRequest:
        """
        Look whether a token would be taken, without using it; a refusal is recorded.

        Args:
            token: what ``approve`` returned.
            request: the id of the request that it must be for; None: any.
            kind: "commit" or "call": what it must be for; None: either.

        Returns:
            The request that it is for.

        Raises:
            AuthorizationError: as for ``spend``.
            LedgerError: the ledger cannot be written.
        """
        token = str(token).strip()
        with self.ledger.writing() as entries:
            now = self._now()
            outcome = self._examined(entries, now, token, request, kind)
            self._note(entries, now, token, outcome)
        if isinstance(outcome, AuthorizationError):
            raise outcome
        return outcome

    def spend(
        self,
        token: str,
        *,
        request: str | None = None,
        kind: str | None = None,
        commit: str | None = None,
    ) -> AnyRequest:
        """
        Use a token: of any number of callers, in any processes, one gets the request.

        Args:
            token: what ``approve`` returned.
            request: the id of the request that it must be for; None: any.
            kind: "commit" or "call": what it must be for; None: either.
            commit: the hash of the commit that it is used for; ``conclude`` tells what became of
                it.

        Returns:
            The request, spent.

        Raises:
            TokenMalformed, TokenUnknown, TokenMismatch, TokenExpired, TokenSpent: the token.
            RequestDenied, Superseded: what became of its request meanwhile.
            LedgerError: the ledger cannot be written.
        """
        token = str(token).strip()
        with self.ledger.writing() as entries:
            now = self._now()
            outcome = self._examined(entries, now, token, request, kind)
            # The constraint decides, whatever was read before.
            if not isinstance(outcome, AuthorizationError) and not entries.append(
                "spent", now, request=outcome.id, token=_hash(token), commit=commit
            ):
                outcome = _spent(outcome)
            self._note(entries, now, token, outcome)
        if isinstance(outcome, AuthorizationError):
            raise outcome
        if isinstance(outcome, CommitRequest):
            return replace(outcome, state="spent", commit=commit)
        return replace(outcome, state="spent")

    def _examined(
        self, entries: Entries, now: Moment, token: str, wanted: str | None, kind: str | None
    ) -> AnyRequest | AuthorizationError:
        if not _TOKEN.fullmatch(token):
            return TokenMalformed(
                "This is no token. A token is 43 letters, digits, - and _; copy all of it."
            )
        approval = entries.approval(_hash(token))
        if approval is None or approval.request is None:
            return TokenUnknown(
                f"No approval in {self.ledger.path} made this token. Have the request approved."
            )
        request = self._known(entries, now, approval.request)
        if wanted is not None and _typed(wanted) != request.id:
            return _mismatch(request, f"is for request {request.id}, not for {visible(wanted)}")
        if kind is not None and kind != request.kind:
            return _mismatch(request, f"is for a {request.kind}, not for a {kind}")
        if approval.details.get("digest") != request.digest:
            return _mismatch(request, "was made for other content than the request has now")
        if request.state == "expired":
            msg = (
                f"The approval of request {request.id} was not used within "
                f"{format_duration(float(approval.details['expiry']))}. It expired; nobody denied "
                "it. Ask again."
            )
            return TokenExpired(msg, request=request.id, state="expired")
        return self._ended(request, entries) or request

    def _note(
        self,
        entries: Entries,
        now: Moment,
        token: str,
        outcome: AnyRequest | AuthorizationError,
    ) -> None:
        if not isinstance(outcome, AuthorizationError):
            return
        if isinstance(outcome, TokenExpired) and outcome.request is not None:
            self._expire(entries, now, self._known(entries, now, outcome.request))
        known = outcome.request is not None
        entries.append(
            "refused",
            now,
            request=outcome.request,
            token=_hash(token) if known else None,
            details={"error": type(outcome).__name__},
        )

    def conclude(self, request_id: str, outcome: str, reason: str = "") -> AnyRequest:
        """
        Tell what became of a request otherwise than by an answer.

        Args:
            request_id: the request's id.
            outcome: "committed", "void" (its token was spent, its branch did not get the commit),
                "superseded" (its branch moved) or "expired" (its asker waits no more).
            reason: for the record.

        Returns:
            The request as it is now: what has ended already stays as it is. Others for a branch
            that got a commit are superseded.

        Raises:
            RequestUnknown: there is none of that id.
            LedgerError: the ledger cannot be written.
        """
        with self.ledger.writing() as entries:
            now = self._now()
            request = self._known(entries, now, request_id)
            if request.state in _CONCLUDED_FROM[outcome]:
                entries.append(outcome, now, request=request.id, details={"reason": reason})
                if outcome == "committed":
                    self._supersede_others(entries, now, request)
            return self._known(entries, now, request.id)

    def _supersede_others(self, entries: Entries, now: Moment, done: AnyRequest) -> None:
        for other in self._open(entries, now):
            if (
                isinstance(done, CommitRequest)
                and isinstance(other, CommitRequest)
                and other.state in {"pending", "approved"}
                and (other.repository, other.ref) == (done.repository, done.ref)
            ):
                details = {"reason": f"{done.ref} has the commit of request {done.id}"}
                entries.append("superseded", now, request=other.id, details=details)

    # --- looking ---

    def get(self, request_id: str) -> AnyRequest:
        """
        A request as it is now.

        Raises:
            RequestUnknown: there is none of that id.
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            return self._known(entries, self._now(), request_id)

    def awaiting(self, request_id: str) -> AnyRequest:
        """
        A request that can be approved now: to be shown before the question is asked.

        Raises:
            RequestUnknown, RequestDenied, RequestExpired, Superseded, TokenSpent: it is too late.
            AuthorizationError: it is approved already.
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            request = self._known(entries, self._now(), request_id)
            refusal = self._answered(request, entries)
        if refusal is not None:
            raise refusal
        return request

    def is_allowed(self, request_id: str) -> bool:
        """
        Whether the token of a request was used, so that who asked may go on; False: not yet.

        Raises:
            RequestUnknown, RequestDenied, RequestExpired, Superseded: that will never be.
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            request = self._known(entries, self._now(), request_id)
            refusal = self._ended(request, entries)
        if refusal is not None and not isinstance(refusal, TokenSpent):
            raise refusal
        return refusal is not None

    def pending(self) -> list[AnyRequest]:
        """
        Requests that wait for a human, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return [request for request in self.open() if request.state == "pending"]

    def open(self) -> list[AnyRequest]:
        """
        The same, and those that are approved and not carried out yet.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            found = self._open(entries, self._now())
        return [request for request in found if request.state in {"pending", "approved"}]

    def latest(self, limit: int = 100) -> list[AnyRequest]:
        """
        Requests in whatever state, newest first.

        Args:
            limit: of how many.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            now = self._now()
            return [self._known(entries, now, name) for name in entries.latest_requests(limit)]

    def interrupted(self) -> list[CommitRequest]:
        """
        Commits whose token was spent and whose end nobody told, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            now = self._now()
            found = [self._known(entries, now, one) for one in entries.interrupted_requests()]
        return [request for request in found if isinstance(request, CommitRequest)]

    def history(self, limit: int = 100, *, request: str | None = None) -> list[Entry]:
        """
        What the ledger says, newest first.

        Args:
            limit: of how many entries.
            request: the id of the request that they are to belong to; None: any.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self.ledger.reading() as entries:
            if request is None:
                return entries.latest(limit)
            return entries.of_request(_typed(request))[::-1][:limit]

    def record(self, event: str, details: Mapping[str, Any]) -> None:
        """
        Write down what happened beside requests, such as a worker's death.

        Args:
            event: a word for it that no request uses.
            details: as JSON can hold them.

        Raises:
            ConfigError: the word is one of the guard's own.
            LedgerError: the ledger cannot be written.
        """
        if event in _STATES or event == "refused":
            msg = f'"{event}" is an event of requests. Choose another word.'
            raise ConfigError(msg)
        with self.ledger.writing() as entries:
            entries.append(event, self._now(), details=details)

    def _now(self) -> Moment:
        return Moment(float(self._clock()), self._boot, float(self._boot_clock()))

    def _open(self, entries: Entries, now: Moment) -> list[AnyRequest]:
        return [self._known(entries, now, name) for name in entries.open_requests()]

    def _known(self, entries: Entries, now: Moment, request_id: str) -> AnyRequest:
        name = _typed(request_id)
        history = entries.of_request(name) if _ID.fullmatch(name) else []
        if not history:
            msg = (
                f"There is no request {visible(name[:_LONGEST_ID], keep='')!r}. `%hive requests` "
                "in a notebook and `jupyter hive requests` in a terminal list those that wait."
            )
            raise RequestUnknown(msg, request=name[:_LONGEST_ID])
        asked = history[0]
        try:
            request = from_content(asked.details["content"])
            digest = asked.details["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._changed(name) from error
        if asked.event != "requested" or request.digest != digest or request.id != name:
            raise self._changed(name)
        request = replace(request, state=self._state(history, now))
        spent = [entry.commit for entry in history if entry.event == "spent"]
        if isinstance(request, CommitRequest) and spent:
            return replace(request, commit=spent[0])
        return request

    def _changed(self, name: str) -> LedgerError:
        msg = (
            f"The ledger {self.ledger.path} does not hold request {visible(name, keep='')} as it "
            "was made. Nothing was approved or committed. Move the file away, and a new one is "
            "begun."
        )
        return LedgerError(msg, path=str(self.ledger.path))

    def _state(self, history: list[Entry], now: Moment) -> State:
        last = [entry for entry in history if entry.event in _STATES][-1]
        state = _STATES[last.event]
        # "not <" also where a clock gave no number
        if state == "pending" and not now.since(last.at) < self.patience:
            return "expired"
        if state == "approved" and not now.since(last.at) < float(last.details["expiry"]):
            return "expired"
        return state

    def _answered(self, request: AnyRequest, entries: Entries) -> AuthorizationError | None:
        """Why a request cannot be approved any more."""
        if request.state == "approved":
            msg = (
                f"Request {request.id} is approved already. Use the token that was made for "
                "it, or deny the request and have it made again."
            )
            return AuthorizationError(msg, request=request.id, state=request.state)
        return self._ended(request, entries)

    def _ended(self, request: AnyRequest, entries: Entries) -> AuthorizationError | None:
        """Why nothing can be done with a request any more."""
        name, state = request.id, request.state
        last = entries.of_request(name)
        reason = next(
            (str(entry.details.get("reason", "")) for entry in last[::-1] if entry.event == state),
            "",
        )
        said = f" ({visible(reason, keep='')})" if reason else ""
        if state == "denied":
            msg = f"Request {name} was denied{said}. Ask for something else."
            return RequestDenied(msg, request=name, state=state, reason=reason)
        if state == "expired":
            msg = (
                f"Request {name} expired{said}: it was not answered, or its approval not used, in "
                "time. Nobody denied it; ask again."
            )
            return RequestExpired(msg, request=name, state=state)
        if state == "superseded":
            msg = f"Request {name} is superseded{said}. Ask again on what there is now."
            return Superseded(msg, request=name, state=state)
        if state in {"spent", "committed", "void"}:
            return _spent(request)
        return None

    def _expire(self, entries: Entries, now: Moment, request: AnyRequest) -> None:
        """Write down what a clock said, so that no clock says otherwise later."""
        if all(entry.event != "expired" for entry in entries.of_request(request.id)):
            entries.append("expired", now, request=request.id)


def _requester(given: Requester | str) -> Requester:
    return Requester("agent", given) if isinstance(given, str) else given


def _same_asker(one: Requester, other: Requester) -> bool:
    # An agent's name costs nothing to change, so all agents share one allowance.
    return one == other or (one.kind == other.kind == "agent")


def _typed(request_id: str) -> str:
    """An id as somebody typed it."""
    return str(request_id).strip().lower()


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def _spent(request: AnyRequest) -> TokenSpent:
    if request.state == "committed" and isinstance(request, CommitRequest):
        msg = f"Request {request.id} is committed already, as {request.commit}."
    elif request.state == "void":
        msg = (
            f"Request {request.id} is void: its approval was used, and its branch did not get the "
            "commit. Ask again."
        )
    else:
        msg = (
            f"The approval of request {request.id} has been used already, and is good once. To "
            "have the same again, make a new request."
        )
    return TokenSpent(msg, request=request.id, state=request.state)


def _mismatch(request: AnyRequest, why: str) -> TokenMismatch:
    msg = f"This token {why}. Nothing was done; use the token of the request that you mean."
    return TokenMismatch(msg, request=request.id, state=request.state)
