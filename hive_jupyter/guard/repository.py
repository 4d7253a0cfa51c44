"""
A commit through the guard: freeze what is to be committed, and commit exactly that.

Everything that reads files or content runs in a private repository (see ``private``). The user's
index and work tree are not touched by a request; a commit moves the branch, and then the index's
entries for what was committed, as ``git commit`` would have left them.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hive_jupyter.errors import ConfigError, LedgerError, RepositoryError, Superseded
from hive_jupyter.guard import lfs
from hive_jupyter.guard.authorization import AnyRequest, AuthorizationGuard
from hive_jupyter.guard.configuration import Configuration, ident, idents
from hive_jupyter.guard.freeze import Frozen, freeze, refuse_what_is_under_way
from hive_jupyter.guard.git import LASTING, Git, at, common_of, objects_of, tip
from hive_jupyter.guard.hooks import Rooms, run_hooks
from hive_jupyter.guard.index import refuse_locked, update_index
from hive_jupyter.guard.objects import (
    GITLINK,
    NO_FILE,
    TREE,
    RawChange,
    as_lines,
    checked_hash,
    empty_tree,
    raw_changes,
    small_contents,
)
from hive_jupyter.guard.private import opened, outside_of, verified
from hive_jupyter.guard.requests import CommitRequest, Requester, check_message
from hive_jupyter.units import format_duration, format_size, visible

log = logging.getLogger(__name__)

# Folders without a request that are younger than this belong to a request on its way.
_ABANDONED = 3600.0

# Of a request; folders stand for what is in them.
_MOST_PATHS = 1000

# Bytes of all that waits to be committed together.
_MOST_FROZEN = 4 * 2**30

# Ended requests whose content is forgotten at once; others are by the next look but one.
_RECENT = 100

# So long git may take to tell what became of a branch (seconds), where nobody asked for that.
_SHORT = 10.0

# So long a commit waits for another one (seconds), and so often it looks.
_PATIENCE = 300.0
_LOOK = 0.02

# What git's own helpers need to reach the user's keys, where the user has commits signed.
_SIGNING_VARIABLES = (
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GNUPGHOME",
    "GPG_AGENT_INFO",
    "HOME",
    "SSH_AUTH_SOCK",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
)


def request_commit(
    guard: AuthorizationGuard,
    folder: str | os.PathLike[str],
    message: str,
    *,
    requester: Requester | str,
    paths: Sequence[str | os.PathLike[str]] | None = None,
    supersedes: str | None = None,
    filters: Collection[str] = (),
    root: str | None = None,
    hooks: Rooms | None = None,
    hook_timeout: float = 60.0,
) -> tuple[CommitRequest, Frozen]:
    """
    Freeze content of a work tree and ask for its commit.

    Args:
        guard: keeps the request; the content is kept beside its ledger.
        folder: in the work tree; paths are relative to it.
        message: of the commit.
        requester: who asks.
        paths: files and folders whose present content is to be committed, new files included.
            None: what is staged, or, with nothing staged, the changes of tracked files.
        supersedes: the id of a waiting request in whose place this one comes.
        filters: names of filters that may run, where the commands are the user's own.
        root: what the top of the work tree has to be; None: anything.
        hooks: gives a place in which the user's hooks run; None: they do not.
        hook_timeout: seconds that they may take together.

    Returns:
        The request, and what was frozen for it.

    Raises:
        RepositoryError: there is nothing to commit, something of it cannot be committed here, or a
            hook refuses it.
        ConfigError, AuthorizationError, LedgerError: as for ``AuthorizationGuard.request``.
    """
    if isinstance(paths, str | bytes) or not all(map(os.fspath, paths or ())):
        msg = f"{paths!r} are no paths: give a list of files and folders, none of them empty."
        raise ConfigError(msg)
    if paths is not None and len(paths) > _MOST_PATHS:
        msg = f"More than {_MOST_PATHS} paths are named. Name the folders that they are in."
        raise ConfigError(msg)
    check_message(message)
    with _lock(guard, wait=0) as lock:
        if lock:
            _forget(guard)
    private = _private_folder(guard) / secrets.token_hex(8)
    _make_folders(private.parent)
    try:
        frozen = freeze(folder, private, paths, filters, root)
        _refuse_too_much(private.parent)
        changed = message
        if hooks is not None:
            frozen, changed = run_hooks(frozen, message, hooks, hook_timeout)
        request = guard.request(
            repository=frozen.repository,
            ref=frozen.ref,
            parent=frozen.parent,
            tree=frozen.tree,
            message=changed,
            asked_message="" if changed == message else message,
            requester=requester,
            author=frozen.author,
            committer=frozen.committer,
            private=frozen.private,
            source=frozen.content,
            skipped_hooks=frozen.skipped_hooks,
            passed_hooks=frozen.passed_hooks,
            supersedes=supersedes,
        )
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    return request, frozen


@dataclass(frozen=True)
class Made:
    """
    A commit that was made.

    Attributes:
        commit: its hash. The branch has it.
        left: what is left for the user to do, in a sentence; "" as a rule.
    """

    commit: str
    left: str


def commit(guard: AuthorizationGuard, token: str, *, request: str | None = None) -> Made:
    """
    Make the commit that a token was given for.

    Args:
        guard: that gave it.
        token: is used up by this.
        request: the id of the request that it must be for; None: any.

    Raises:
        Superseded: the branch is not where the request saw it.
        AuthorizationError: the token is not taken; see ``AuthorizationGuard.spend``.
        RepositoryError: git fails. As long as the token was not spent it may be used again.
        LedgerError: the ledger cannot be written.
    """
    with _lock(guard, wait=_PATIENCE) as lock:
        asked = guard.check(token, request=request, kind="commit")
        assert isinstance(asked, CommitRequest)
        user = at(asked.repository, *outside_of(asked.private))
        if tip(user, asked.ref) != asked.parent:
            raise _superseded(guard, asked)
        refuse_what_is_under_way(user)
        refuse_locked(user, asked.ref)
        with (
            opened(asked.repository, asked.private) as private,
            verified(private, asked.parent, asked.tree) as git,
        ):
            made = _commit_tree(user, git, asked)
            # signing may have taken a while, and what is denied is nothing to hand over
            guard.check(token, request=asked.id)
            changed = _hand_over(user, git, asked, made)
            _hand_over_large(user, git, changed, private.folder)
            guard.spend(token, request=asked.id, commit=made)
            _move_branch(guard, replace(user, keeps=lock), asked, made)
            left = update_index(user, asked.ref, changed, private.folder)
        try:
            guard.conclude(asked.id, "committed")
        except LedgerError as error:  # what it says would be wrong now; settle() makes up for it
            log.warning("%s is committed, and the ledger does not say so: %s", made, error)
        if asked.private is not None:
            shutil.rmtree(asked.private, ignore_errors=True)
    return Made(made, left)


def settle(guard: AuthorizationGuard) -> list[CommitRequest]:
    """
    Hold the ledger against the branches, and forget content that nobody waits for.

    A commit that was cut off after its token was spent is recorded if the branch has it, and void
    otherwise; it is never finished. Requests whose branch moved are superseded.

    Args:
        guard: whose ledger.

    Returns:
        The requests whose state changed; none where another process commits just now.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with _lock(guard, wait=0) as lock:
        if not lock:
            return []
        users: dict[str, Git | None] = {}
        ends = [
            (asked, _outcome(asked, _user(asked, users)), "cut off")
            for asked in guard.interrupted()
        ]
        ends += [
            (asked, "superseded", f"{asked.ref} moved")
            for asked in guard.open()
            if isinstance(asked, CommitRequest) and _has_moved(asked, _user(asked, users))
        ]
        settled = [
            guard.conclude(request.id, outcome, reason)
            for request, outcome, reason in ends
            if outcome is not None
        ]
        _forget(guard)
    return [request for request in settled if isinstance(request, CommitRequest)]


# --- committing ---


def _commit_tree(user: Git, git: Git, asked: CommitRequest) -> str:
    signing = Configuration(user).signing()
    environment = _idents(user, asked)
    command = ["commit-tree", checked_hash(asked.tree)]
    if asked.parent is not None:
        command += ["-p", checked_hash(asked.parent)]
    if signing is not None:
        command.append("-S")
        environment |= {name: os.environ[name] for name in _SIGNING_VARIABLES if name in os.environ}
    message = asked.message if asked.message.endswith("\n") else f"{asked.message}\n"
    signer = replace(git, environment=environment, settings={**git.settings, **(signing or {})})
    return signer.run(*command, "-F", "-", stdin=message.encode()).decode().strip()


def _idents(user: Git, asked: CommitRequest) -> dict[str, str]:
    """Who commits and when, as git takes it from its environment."""
    return idents(
        asked.author or ident(user, "GIT_AUTHOR_IDENT"),
        asked.committer or ident(user, "GIT_COMMITTER_IDENT"),
    )


def _hand_over(user: Git, git: Git, asked: CommitRequest, made: str) -> list[RawChange]:
    """
    Copy the commit and what is new in it into the user's repository; no branch leads to it yet.

    The reader of the pack compares each object with the one of the same name that is there.

    Returns:
        What the commit changes.
    """
    changed = raw_changes(git, asked.parent or empty_tree(git), asked.tree, "-t")
    new = {change.new_id for change in changed if change.new_mode not in {NO_FILE, GITLINK}}
    pack = os.path.join(git.folder, "handed-over")
    names = as_lines({made, asked.tree, *new} - {empty_tree(git)})
    name = git.run("pack-objects", "--quiet", pack, stdin=names).decode().strip()
    shared = Configuration(user).last("core.sharedrepository")
    target = replace(
        git,
        environment={"GIT_OBJECT_DIRECTORY": objects_of(user)},
        settings={**LASTING, **({} if shared is None else {"core.sharedRepository": shared})},
    )
    with Path(f"{pack}-{name}.pack").open("rb") as content:
        target.run("index-pack", "--stdin", "--strict", stdin=content)
    return [change for change in changed if TREE not in {change.old_mode, change.new_mode}]


def _hand_over_large(user: Git, git: Git, changed: list[RawChange], private: str) -> None:
    """Put what git-lfs kept when the commit's files were frozen where the user's git-lfs looks."""
    kept = lfs.kept(private)
    if not kept:
        return
    found = map(lfs.read_pointer, small_contents(git, changed, lfs.LONGEST_POINTER))
    pointers = [pointer for pointer in found if pointer is not None and pointer.oid in kept]
    storage = Configuration(user).last("lfs.storage") or lfs.STORAGE
    # Who may read the repository's objects may read these, too.
    mode = stat.S_IMODE(os.stat(objects_of(user)).st_mode)
    lfs.hand_over(private, pointers, os.path.join(common_of(user), storage), mode)


def _move_branch(guard: AuthorizationGuard, user: Git, asked: CommitRequest, made: str) -> None:
    git = replace(user, environment=_idents(user, asked))
    nothing = "0" * len(made)
    said = f"commit: {visible(asked.message.strip().partition(chr(10))[0], keep='')}"
    move = (asked.ref, made, asked.parent or nothing)
    try:
        git.run("update-ref", "--no-deref", "-m", said, "--", *move)
    except RepositoryError as error:
        now_at = tip(user, asked.ref)
        if now_at == made:
            return
        if now_at != asked.parent:
            raise _superseded(guard, asked) from None
        guard.conclude(asked.id, "void", "the branch could not be moved")
        msg = (
            f"{error}\nNothing was committed, and the approval is used up: request {asked.id} is "
            "void. Ask again."
        )
        raise RepositoryError(msg, command=error.command, stderr=error.stderr) from error


def _superseded(guard: AuthorizationGuard, asked: CommitRequest) -> Superseded:
    guard.conclude(asked.id, "superseded", f"{asked.ref} moved")
    msg = (
        f"Request {asked.id} is superseded: {visible(asked.ref)} moved since it was made. Nothing "
        "was committed; ask again on what there is now."
    )
    return Superseded(msg, request=asked.id, state="superseded")


# --- after a crash ---


def _user(asked: CommitRequest, users: dict[str, Git | None]) -> Git | None:
    """Git on a request's repository, with little time; None where it does not answer."""
    if asked.repository not in users:
        users[asked.repository] = None
        with contextlib.suppress(RepositoryError):  # a folder on a network may come back
            outside = outside_of(asked.private)
            users[asked.repository] = at(asked.repository, *outside, timeout=_SHORT)
    return users[asked.repository]


def _outcome(request: CommitRequest, user: Git | None) -> str | None:
    """What became of a commit whose token was spent; None: not to be told now."""
    assert request.commit is not None
    if not os.path.isdir(request.repository):
        return "void"
    if user is None:
        return None
    try:
        now_at = tip(user, request.ref)
        if now_at is None or not user.succeeds("cat-file", "-e", f"{request.commit}^{{commit}}"):
            return "void"
        if now_at == request.commit:
            with opened(request.repository, None) as git:
                changed = raw_changes(git, request.parent or empty_tree(git), request.tree)
            if left := update_index(user, request.ref, changed, request.private):
                log.warning("%s was committed: %s", request.commit, left)
        elif not user.succeeds("merge-base", "--is-ancestor", request.commit, now_at):
            return "void"
    except RepositoryError as error:
        log.warning("what became of request %s is not known: %s", request.id, error)
        return None
    return "committed"


def _has_moved(asked: CommitRequest, user: Git | None) -> bool:
    if user is None:
        return False
    try:
        return tip(user, asked.ref) != asked.parent
    except RepositoryError:
        return False


@contextlib.contextmanager
def _lock(guard: AuthorizationGuard, *, wait: float) -> Iterator[tuple[int, ...]]:
    """
    One commit at a time, and nobody takes one that is under way for cut off.

    Args:
        guard: whose.
        wait: seconds for another to end.

    Yields:
        The lock's descriptor, which holds it as long as any process has it open; nothing where
        there is no ledger yet, or another holds it and was not to be waited for.
    """
    path = guard.ledger.path.with_name(f"{guard.ledger.path.name}.lock")
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        yield ()
        return
    except OSError as error:
        msg = f"{path} cannot be opened: {error}"
        raise LedgerError(msg, path=str(path)) from error
    try:
        deadline = time.monotonic() + wait
        while not (held := _locked(lock)) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        if wait and not held:
            msg = (
                f"Another commit has been under way for {format_duration(wait)} ({path}). Nothing "
                "was committed; try again."
            )
            raise LedgerError(msg, path=str(path))
        yield (lock,) if held else ()
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _private_folder(guard: AuthorizationGuard) -> Path:
    return guard.ledger.path.with_name("frozen")


def _make_folders(folder: Path) -> None:
    """Folders that are the user's alone."""
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        msg = f"There is no place for a commit's content: {error}"
        raise RepositoryError(msg) from error


def _forget(guard: AuthorizationGuard) -> None:
    """Remove content that nobody waits for; what no request knows may belong to one on its way."""
    needed = _privates([*guard.open(), *guard.interrupted()])
    ended = _privates(guard.latest(_RECENT)) - needed
    with contextlib.suppress(FileNotFoundError):
        for folder in _private_folder(guard).iterdir():
            is_old = time.time() - folder.stat().st_mtime > _ABANDONED
            if str(folder) in ended or (is_old and str(folder) not in needed):
                shutil.rmtree(folder, ignore_errors=True)


def _privates(requests: Iterable[AnyRequest]) -> set[str]:
    return {
        request.private
        for request in requests
        if isinstance(request, CommitRequest) and request.private
    }


def _refuse_too_much(folder: Path) -> None:
    """
    See that what waits does not fill the disk.

    Raises:
        RepositoryError: it is too much.
    """
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    if total > _MOST_FROZEN:
        msg = (
            f"What waits to be committed is {format_size(total)}, more than "
            f"{format_size(_MOST_FROZEN)}. Have other requests answered first, or ask for less."
        )
        raise RepositoryError(msg)
