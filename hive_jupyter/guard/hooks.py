"""
The user's hooks for commits, run over what was frozen, where the setting ``commit_hooks`` says so.

They run before a human is asked, in a confined worker that is started for it: a checkout of the
frozen tree is all that it may write. There it has git make the commit, in a repository that is
thrown away. So git itself finds the hooks and runs them (githooks(5)), and no hook reaches the
user's files, repository or network. What is committed later is what was frozen: of what hooks
change, the message alone counts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hive_jupyter.errors import HiveError, RepositoryError
from hive_jupyter.guard.configuration import Configuration, idents
from hive_jupyter.guard.files import copy_file
from hive_jupyter.guard.freeze import HOOKS, Frozen, hooks_folder
from hive_jupyter.guard.git import Git, at, common_of, split
from hive_jupyter.guard.objects import empty_tree, read_raw
from hive_jupyter.guard.private import copied, make_private, opened, outside_of
from hive_jupyter.units import format_duration, format_size, visible, without_colours

# They would run when the commit is made, and the human has not been asked yet.
_BEFORE = HOOKS[:3]

# The first version that runs hooks which are named in the configuration.
_BY_NAME = (2, 54)

# Bytes of a checkout, and what there may be in a folder of hooks.
_MOST_CHECKED_OUT = 4 * 2**30
_MOST_IN_FOLDER = 16 * 2**20
_MOST_FILES = 1000

# Characters of what hooks say, of their end.
_MOST_SAID = 6000
# Names of files that they changed.
_FILES_NAMED = 5

# Of git, in the worker: no configuration but the repository's own, and nobody is asked.
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}

# A file in the user's home, which no worker reads.
_OWN_ATTRIBUTES = "core.attributesFile"

_NO = {"false", "no", "off", "0", ""}


@dataclass(frozen=True)
class Task:
    """
    What a confined worker is to do.

    Attributes:
        folder: its working folder, and all that it may write.
        readable: folders that it may read, too.
        content: what it is asked; see ``protocol``.
        seconds: that it may take.
    """

    folder: str
    readable: tuple[str, ...]
    content: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Room:
    """
    Where hooks run.

    Attributes:
        folder: a private folder, removed afterwards.
        run: has a confined worker do a task, and ends it with all that it started. Raises a
            HiveError where there is none, or it does not come to an answer.
    """

    folder: str
    run: Callable[[Task], Mapping[str, Any]]


Rooms = Callable[[], AbstractContextManager[Room]]


def run_hooks(frozen: Frozen, message: str, rooms: Rooms, seconds: float) -> tuple[Frozen, str]:
    """
    Run the hooks that git would run before it makes a commit.

    Args:
        frozen: what is to be committed.
        message: of the commit.
        rooms: gives a place for them; raises a HiveError where there is none.
        seconds: that they may take together.

    Returns:
        The same with what became of the hooks, and the message as they leave it.

    Raises:
        RepositoryError: one of them refuses the commit or changes its files, or they cannot run.
    """
    user = at(frozen.repository, *outside_of(frozen.private))
    configuration = Configuration(user)
    place = _Place.of(user, frozen.work_tree, configuration)
    names = tuple(_that_run(user, frozen, place, configuration))
    if not names:
        return frozen, message
    said = message if message.endswith("\n") else f"{message}\n"
    conversion = configuration.conversion()
    settings = _settings(place, configuration, conversion, frozen.committer)
    try:
        with rooms() as room:
            tree = os.path.join(room.folder, "tree")
            work = _checked_out(room.folder, tree, frozen, conversion)
            repository = _repository(room.folder, tree, work, frozen, place)
            with open(os.path.join(repository, "config"), "ab") as file:
                file.write(os.fsencode(_as_config(settings)))
            content = {
                "git": work.program,
                "repository": repository,
                "hooks": [os.path.join(place.target, name) for name in names if place.has(name)],
                "message": said,
                "environment": {**_ENVIRONMENT, **idents(frozen.author, frozen.committer)},
                "seconds": seconds,
            }
            readable = (work.folder, repository, *place.readable)
            answer = _Answer.of(room.run(Task(tree, readable, content, seconds)))
            changed = _changed(work, frozen, answer)
    except RepositoryError:
        raise
    except HiveError as error:
        msg = (
            f"Your hooks for commits cannot run: {_first_sentence(error)} Nothing was asked for. "
            "%hive config commit_hooks=0 turns them off."
        )
        raise RepositoryError(msg) from error
    _refuse(names, answer, changed, seconds)
    skipped = tuple(name for name in frozen.skipped_hooks if name not in names)
    frozen = replace(frozen, skipped_hooks=skipped, passed_hooks=names, said=answer.said)
    return frozen, message if answer.message == said else answer.message.rstrip("\n")


def _first_sentence(error: HiveError) -> str:
    """What happened; what comes next is not the same for a worker that is thrown away."""
    return f"{str(error).partition('. ')[0].rstrip('.')}."


def _that_run(
    user: Git, frozen: Frozen, place: _Place, configuration: Configuration
) -> Iterator[str]:
    """Those of the user's hooks that this git runs before a commit."""
    named: set[str] = set()
    if _version(user) >= _BY_NAME:
        for name in configuration.parts("hook"):
            if (configuration.last(f"hook.{name}.enabled") or "true").lower() not in _NO:
                named.update(configuration.values(f"hook.{name}.event"))
    for name in frozen.skipped_hooks:
        if name in _BEFORE and (name in named or place.has(name)):
            yield name


def _version(user: Git) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", user.line("version") or "")[:2]))


@dataclass(frozen=True)
class _Place:
    """
    Where a repository's hooks are, and where git will find them in the checkout.

    Attributes:
        source: the folder that they are in, free of links.
        target: the folder for git, relative to the checkout, or absolute where it stays in place.
        is_copied: they are copied into the repository that is thrown away.
        readable: what of the user's has to be readable for that.
    """

    source: str
    target: str
    is_copied: bool = False
    readable: tuple[str, ...] = ()

    @classmethod
    def of(cls, user: Git, top: str, configuration: Configuration) -> _Place:
        """
        Find them.

        Those in the git dir are copied. Those among the project's files run as they were frozen.
        Others stay where they are; the user's own word has them read, and not that of the
        repository, nor a link in it.
        """
        source = os.path.realpath(hooks_folder(user, top, configuration))
        if Path(source).is_relative_to(os.path.realpath(common_of(user))):
            return cls(source, os.path.join(".git", "hooks"), is_copied=True)
        if Path(source).is_relative_to(top):
            return cls(source, os.path.relpath(source, top))
        own = configuration.last("core.hookspath", of_user=True) or ""
        named = Path(os.path.normpath(os.path.expanduser(own)))
        is_own = (
            own == configuration.last("core.hookspath")
            and named.is_absolute()
            and not any(parent.resolve().is_relative_to(top) for parent in named.parents)
        )
        return cls(source, source, readable=(source,) if is_own else ())

    def has(self, name: str) -> bool:
        """Whether there is a hook of that name that git would run."""
        return os.access(os.path.join(self.source, name), os.X_OK)


# --- the checkout ---


def _checked_out(folder: str, tree: str, frozen: Frozen, conversion: Mapping[str, str]) -> Git:
    """
    Check the frozen tree out, with git's own conversions and no filter.

    Args:
        folder: for copies of the objects.
        tree: for the files; must not exist.
        frozen: what is to be committed.
        conversion: settings that say how content is converted.

    Returns:
        git on the checkout, with an index that the worker does not reach.
    """
    with opened(frozen.repository, frozen.private) as private:
        store = copied(private, os.path.join(folder, "store"), _wanted(private, frozen))
    _refuse_large(store, frozen.tree)
    os.mkdir(tree, mode=0o700)
    work = replace(store, work_tree=tree, settings={**store.settings, **conversion})
    work.run("read-tree", frozen.tree)
    work.run("checkout-index", "--all", "--force", "--index")
    return work


def _repository(folder: str, tree: str, work: Git, frozen: Frozen, place: _Place) -> str:
    """
    Make the repository that is thrown away: the commit before, the frozen tree in the index.

    Args:
        folder: around it.
        tree: the checkout.
        work: git on that.
        frozen: what is to be committed.
        place: of the hooks.

    Returns:
        Its folder; the worker takes a copy, which sees the objects of ``work``.
    """
    git = make_private(work, os.path.join(folder, "git"))
    shutil.copy2(os.path.join(work.folder, "index"), git.folder)
    git.run("symbolic-ref", "HEAD", frozen.ref)
    if frozen.parent is not None:
        git.run("update-ref", "--no-deref", frozen.ref, frozen.parent)
        Path(git.folder, "shallow").write_text(f"{frozen.parent}\n", encoding="ascii")
    if place.is_copied:
        _copy_hooks(place.source, os.path.join(git.folder, "hooks"), frozen.work_tree, tree)
    return git.folder


def _settings(
    place: _Place, configuration: Configuration, conversion: Mapping[str, str], committer: str
) -> Iterator[tuple[str, str]]:
    """What git knows there of the user's configuration."""
    yield "core.bare", "false"
    if not place.is_copied:
        yield "core.hooksPath", place.target
    yield "gc.auto", "0"
    yield "maintenance.auto", "false"
    who = idents(committer, committer)
    yield "user.name", who["GIT_COMMITTER_NAME"]
    yield "user.email", who["GIT_COMMITTER_EMAIL"]
    yield from ((name, value) for name, value in conversion.items() if name != _OWN_ATTRIBUTES)
    yield from configuration.entries("hook", "hooks")


def _wanted(private: Git, frozen: Frozen) -> set[str]:
    """All objects of the frozen tree, and of the commit before."""
    trees = [frozen.tree, *([f"{frozen.parent}^{{tree}}"] if frozen.parent else [])]
    listed = private.run("rev-list", "--objects", "--no-object-names", *trees).decode().split()
    parents = {frozen.parent} if frozen.parent else set()
    return {*listed, *parents} - {empty_tree(private)}


def _refuse_large(store: Git, tree: str) -> None:
    """
    See that the checkout does not fill the disk: one small object may stand for many files.

    Raises:
        RepositoryError: it would be too large.
    """
    lines = split(store.run("ls-tree", "-r", "-l", "-z", "--full-tree", tree))
    sizes = [line.partition("\t")[0].rpartition(" ")[2] for line in lines]
    total = sum(int(size) for size in sizes if size.isdigit())
    if total > _MOST_CHECKED_OUT:
        msg = (
            f"Your hooks for commits cannot run: the project's files are {format_size(total)}, "
            f"and {format_size(_MOST_CHECKED_OUT)} are checked out for hooks at most. Nothing was "
            "asked for. %hive config commit_hooks=0 turns them off."
        )
        raise RepositoryError(msg)


def _copy_hooks(source: str, target: str, top: str, tree: str) -> None:
    """
    Copy a folder of hooks, with its links.

    Args:
        source: the folder.
        target: where to; must not exist.
        top: of the user's work tree.
        tree: the checkout, to which links lead that led there.

    Raises:
        RepositoryError: it is too much for a folder of hooks.
    """
    room, files = _MOST_IN_FOLDER, _MOST_FILES
    for folder, folders, names in os.walk(source):
        made = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        os.mkdir(made, mode=0o700)
        for name in (*folders, *names):
            path, copy = os.path.join(folder, name), os.path.join(made, name)
            files -= 1
            if os.path.islink(path):
                os.symlink(_led(os.readlink(path), top, tree), copy)
            elif os.path.isfile(path):
                room -= os.path.getsize(path)
                _refuse_many(source, room, files)
                copy_file(path, copy)
                os.chmod(copy, os.stat(path).st_mode & 0o700)
            _refuse_many(source, room, files)


def _led(link: str, top: str, tree: str) -> str:
    """Where a link leads that is one of a hook: into the checkout instead of the work tree."""
    if not os.path.isabs(link) or not Path(os.path.normpath(link)).is_relative_to(top):
        return link
    return os.path.join(tree, os.path.relpath(link, top))


def _refuse_many(folder: str, room: int, files: int) -> None:
    if room < 0 or files < 0:
        msg = (
            f"Your hooks for commits cannot run: {visible(folder, keep='')!r} holds more than "
            f"{_MOST_FILES} files, or {format_size(_MOST_IN_FOLDER)}, which is no folder of hooks. "
            "Nothing was asked for."
        )
        raise RepositoryError(msg)


def _as_config(settings: Iterable[tuple[str, str]]) -> str:
    """Settings as a file of git's configuration has them; see git-config(1)."""
    lines = []
    for name, value in settings:
        section, _, rest = name.partition(".")
        subsection, _, key = rest.rpartition(".")
        head = f"{section} {_quoted(subsection)}" if subsection else section
        lines.append(f"[{head}]\n\t{key} = {_quoted(value)}\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# --- what became of it ---


@dataclass(frozen=True)
class _Answer:
    """
    What a worker says of the hooks; it may have been told so by one of them.

    Attributes:
        code: git's exit code; None: they took too long.
        said: what they said, each line marked as theirs; "" where they said nothing.
        missing: the hook that is not there.
        message: of the commit that was made.
        tree: of it.
    """

    code: int | None
    said: str
    missing: str
    message: str
    tree: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> _Answer:
        """
        Take what a worker answered.

        Raises:
            HiveError: it makes no sense.
        """
        code = answer.get("code")
        texts = {name: answer.get(name, "") for name in ("said", "missing", "message", "tree")}
        if not isinstance(code, int | None) or not all(
            isinstance(text, str) for text in texts.values()
        ):
            raise HiveError("what came back from the worker makes no sense")
        return cls(code, **{**texts, "said": _marked(texts["said"])})


def _marked(text: str) -> str:
    lines = without_colours(text[-_MOST_SAID:]).rstrip().splitlines()
    shown = visible("\n".join(lines))
    if len(shown) > _MOST_SAID or len(text) > _MOST_SAID:
        shown = f"...{shown[-_MOST_SAID:]}"
    return "\n".join(f"  | {line}" for line in shown.split("\n")) if shown else ""


def _changed(work: Git, frozen: Frozen, answer: _Answer) -> list[str]:
    """What of the checkout is not as it was frozen: paths, or "what is staged" alone."""
    work.run("update-index", "-q", "--refresh", accept=(0, 1))
    listed = ("diff-files", "-z", "--raw", "--ignore-submodules=all")
    paths = [change.path for change in read_raw(work.run(*listed))]
    return paths or (["what is staged"] if answer.tree not in {"", frozen.tree} else [])


def _refuse(names: tuple[str, ...], answer: _Answer, changed: list[str], seconds: float) -> None:
    """
    See that the hooks let the commit pass.

    Raises:
        RepositoryError: they do not.
    """
    hooks = f"hook{'s' * (len(names) > 1)} {', '.join(names)}"
    if answer.missing:
        msg = (
            f"Your hook {visible(answer.missing, keep='')} cannot run: it is not among the files "
            "to be committed, nor among those that readable_paths lets it read. Nothing was asked "
            "for. %hive config commit_hooks=0 turns hooks off."
        )
        raise RepositoryError(msg)
    sentences = []
    if answer.code is None:
        sentences.append(
            f"Your {hooks} took longer than {format_duration(seconds)}. hook_timeout is the "
            "setting for that."
        )
    elif answer.code != 0:
        sentences.append(f"Your {hooks} refused the commit.")
    if changed:
        more = len(changed) - _FILES_NAMED
        files = visible(", ".join(changed[:_FILES_NAMED]), keep="")
        files += f" and {more} more" if more > 0 else ""
        sentences.append(
            f"{'They' if sentences else f'Your {hooks}'} changed {files}, in a copy. Run them "
            "yourself, look at what they change, and ask again."
        )
    if not sentences:
        return
    sentences.append(
        "Nothing was asked for. Hooks see the files to be committed, Python and the system, and no "
        "network; readable_paths lets them read more."
    )
    said = f"\nThey said:\n{answer.said}" if answer.said else ""
    raise RepositoryError(" ".join(sentences) + said, stderr=answer.said)
