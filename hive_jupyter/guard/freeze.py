"""
Freezing what is to be committed, with the index and the work tree left as they are.

All that reads files runs in a private repository, over a copy of the index.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import lfs
from hive_jupyter.guard.configuration import Configuration, ident
from hive_jupyter.guard.files import copy_file
from hive_jupyter.guard.filters import Filters, choose
from hive_jupyter.guard.git import Git, as_user, at, common_of, split, tip
from hive_jupyter.guard.index import copy_index, on_index, remember_index, set_entries
from hive_jupyter.guard.objects import (
    GITLINK,
    NO_FILE,
    RawChange,
    empty_tree,
    raw_changes,
    read_raw,
)
from hive_jupyter.guard.private import make_private, verified
from hive_jupyter.guard.programs import find_git, run_program, trusted_path
from hive_jupyter.units import visible

# git keeps these while something else is under way; see gitrepository-layout(5) and sequencer.
_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}

_STAGED = "what is staged"

# Those that git runs for a commit, in their order.
HOOKS = ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit")


@dataclass(frozen=True)
class Frozen:
    """
    Content that is to be committed, and no change of files can reach any more.

    Attributes:
        repository, ref, parent, tree, author, committer, private: as a request has them.
        work_tree: the top of the work tree that it is from.
        content: what it is, in words: "what is staged".
        files: paths of what changes, relative to the top of the work tree.
        submodules: paths of those that were not looked at.
        skipped_hooks: names of the user's hooks for commits that did not run.
        passed_hooks: names of those that ran, and let it pass.
        said: what these said.
    """

    repository: str
    ref: str
    parent: str | None
    tree: str
    author: str
    committer: str
    private: str
    work_tree: str
    content: str
    files: tuple[str, ...]
    submodules: tuple[str, ...]
    skipped_hooks: tuple[str, ...]
    passed_hooks: tuple[str, ...] = ()
    said: str = ""


def freeze(
    folder: str | os.PathLike[str],
    private: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]] | None = None,
    filters: Collection[str] = (),
    root: str | None = None,
) -> Frozen:
    """
    Write the tree of a commit without touching the repository.

    Args:
        folder: in the work tree; paths are relative to it.
        private: where the content goes; the folder must not exist.
        paths, filters, root: as for ``request_commit``.

    Raises:
        RepositoryError: there is nothing to commit, or something of it cannot be committed here.
    """
    home = Path(folder).resolve()
    user, top = _find(home)
    if root is not None and not os.path.samefile(top, root):
        msg = f"{root!r} is no git repository of its own, but in {top!r}, which is not the project."
        raise RepositoryError(msg)
    refuse_what_is_under_way(user)
    ref, parent = _head(user)
    configuration = Configuration(user)
    git = make_private(user, os.fspath(private))
    chosen = choose(user, configuration, filters)
    settings = {**git.settings, **configuration.conversion(), **chosen.settings}
    work = replace(git, work_tree=top, settings=settings)
    old = parent or empty_tree(git)
    copy_index(user, git)
    names = [_below(top, home, path) for path in paths or ()]
    _refuse_conflicts(work, names)
    submodules = _submodules(work, names)
    with _attributes(user, git):
        content, tree = _selected(
            user, git, work, old=old, names=names, configuration=configuration
        )
        changed = raw_changes(git, old, tree)
        if content != _STAGED:
            _refuse_what_needs_more(work, chosen, changed)
    if not changed:
        msg = f"There is nothing to commit: {content} would change nothing."
        if not names:
            msg += " New files have to be named."
        raise RepositoryError(msg)
    with verified(git, parent, tree):  # who asks is told at once where that cannot be
        pass
    remember_index(git, changed)
    lfs.remember(git.folder)
    return Frozen(
        repository=user.folder,
        ref=ref,
        parent=parent,
        tree=tree,
        author=ident(user, "GIT_AUTHOR_IDENT"),
        committer=ident(user, "GIT_COMMITTER_IDENT"),
        private=git.folder,
        work_tree=top,
        content=content,
        files=tuple(change.path for change in changed),
        submodules=() if content == _STAGED else submodules,
        skipped_hooks=_hooks(user, top, configuration),
    )


def _find(folder: Path) -> tuple[Git, str]:
    """The repository that a folder is in, and the top of its work tree."""
    around = next((str(one) for one in (folder, *folder.parents) if (one / ".git").exists()), "")
    program = find_git(trusted_path(*([around] if around else [])))
    git_dir = _discovered(program, folder, "--absolute-git-dir")
    top = _discovered(program, folder, "--show-toplevel")
    if not folder.is_relative_to(top):
        msg = (
            f"The repository of {str(folder)!r} says that its files are in {top!r}. Hive commits "
            "only from where the repository is; use git."
        )
        raise RepositoryError(msg)
    return at(git_dir, top), top


def _discovered(program: str, folder: Path, question: str) -> str:
    """Git's own search, with its own rules of whose repositories are safe to enter."""
    arguments = ("-c", "safe.bareRepository=explicit", "rev-parse", question)
    code, out, err = run_program((program, *arguments), str(folder), as_user())
    if code:
        said = visible(err.decode("utf-8", "surrogateescape")).strip()
        way_out = " git init makes one." if "not a git repository" in said else ""
        msg = f"{str(folder)!r} is in no work tree that can be committed from: {said}.{way_out}"
        raise RepositoryError(msg, command=arguments, stderr=said)
    return os.fsdecode(out.removesuffix(b"\n"))


def refuse_what_is_under_way(user: Git) -> None:
    """
    See that no merge, rebase or the like waits to be finished; a commit would get in between.

    Raises:
        RepositoryError: one does.
    """
    for name, what in _UNDER_WAY.items():
        if os.path.lexists(os.path.join(user.folder, name)):
            msg = f"{what.capitalize()} is under way in this repository. Finish or abort it first."
            raise RepositoryError(msg)


def _head(user: Git) -> tuple[str, str | None]:
    """The branch, in full, and the commit that it is at."""
    ref = user.line("symbolic-ref", "--quiet", "HEAD")
    if ref is None:
        msg = (
            "No branch is checked out (HEAD is detached), so a commit would be lost. Make a branch "
            "first: git switch -c NAME"
        )
        raise RepositoryError(msg)
    return ref, tip(user, ref)


def _hooks(user: Git, top: str, configuration: Configuration) -> tuple[str, ...]:
    """The user's hooks that ``git commit`` would run."""
    folder = hooks_folder(user, top, configuration)
    found = {name for name in HOOKS if os.access(os.path.join(folder, name), os.X_OK)}
    for name in configuration.parts("hook"):
        found.update(configuration.values(f"hook.{name}.event"))
    return tuple(name for name in HOOKS if name in found)


def hooks_folder(user: Git, top: str, configuration: Configuration) -> str:
    """Where git looks for hooks; absolute."""
    folder = configuration.last("core.hookspath") or os.path.join(common_of(user), "hooks")
    return os.path.join(top, os.path.expanduser(folder))


@contextlib.contextmanager
def _attributes(user: Git, git: Git) -> Iterator[None]:
    """The repository's attributes count while content is read, and not when it is shown."""
    copied = Path(git.folder, "info", "attributes")
    copied.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        copy_file(os.path.join(common_of(user), "info", "attributes"), copied)
    try:
        yield
    finally:
        copied.unlink(missing_ok=True)


def _below(top: str, home: Path, path: str | os.PathLike[str]) -> str:
    """A path as git has it: from the top, with the links on the way resolved, but not the last."""
    named = os.path.normpath(os.path.join(home, path))
    parent, name = os.path.split(named)
    found = os.path.join(os.path.realpath(parent), name)
    if not Path(found).is_relative_to(top):
        msg = f"{os.fspath(path)!r} is not in the repository's work tree {top!r}."
        raise RepositoryError(msg)
    return os.path.relpath(found, top)


def _selected(
    user: Git, git: Git, work: Git, *, old: str, names: list[str], configuration: Configuration
) -> tuple[str, str]:
    """What is to be committed: in words, and as the hash of a tree."""
    if names:
        return "the named files", _named(work, old, names, _ignored(user, configuration))
    if git.run("diff-index", "--cached", "--raw", "-z", old):
        return _STAGED, _written_tree(git)
    return "the changes of tracked files", _tracked(work, old)


def _tracked(work: Git, old: str) -> str:
    changed = read_raw(work.run("diff-files", "-z", "--raw", "--ignore-submodules=all"))
    for change in changed:
        _refuse_submodule(change)
    return _taken_in(work, old, {change.path for change in changed})


def _named(work: Git, old: str, names: list[str], ignored: list[str]) -> str:
    changed = [
        *read_raw(work.run("diff-files", "-z", "--raw", "--ignore-submodules=all", "--", *names)),
        *read_raw(work.run("diff-index", "-z", "--raw", "--cached", old, "--", *names)),
    ]
    for change in changed:
        _refuse_submodule(change)
    # Nested repositories end with a slash, and are no files of this one.
    new = {
        path
        for path in split(work.run("ls-files", "-z", "--others", *ignored, "--", *names))
        if not path.endswith("/")
    }
    tracked = [
        (line[0], line[2:]) for line in split(work.run("ls-files", "-z", "-v", "--", *names))
    ]
    paths = {change.path for change in changed}
    _refuse_unknown(work, names, paths | new | {path for _, path in tracked})
    # What a sparse checkout leaves out is not gone.
    paths -= {path for tag, path in tracked if tag in "Ss"}
    target = on_index(work, "named")
    target.run("read-tree", old)
    return _taken_in(target, old, paths | new)


def _ignored(user: Git, configuration: Configuration) -> list[str]:
    """What new files git does not want, as options for ls-files."""
    files = [
        os.path.join(common_of(user), "info", "exclude"),
        configuration.file("core.excludesfile", "ignore"),
    ]
    return [
        "--exclude-per-directory=.gitignore",
        *(f"--exclude-from={path}" for path in files if os.path.isfile(path)),
    ]


def _taken_in(work: Git, old: str, paths: set[str]) -> str:
    """The index's tree with the present content of some files, or without those that are gone."""
    there = {path for path in paths if _is_there(work, path)}
    gone = [(NO_FILE, "0" * len(old), path) for path in paths - there]
    set_entries(work, gone)
    names = b"".join(os.fsencode(path) + b"\0" for path in sorted(there))
    work.run("update-index", "-z", "--add", "--replace", "--remove", "--stdin", stdin=names)
    return _written_tree(work)


def _written_tree(git: Git) -> str:
    try:
        return git.run("write-tree").decode().strip()
    except RepositoryError as error:
        msg = f"The content cannot be committed as it is: {error.stderr or error}"
        raise RepositoryError(msg, command=error.command, stderr=error.stderr) from None


def _is_there(work: Git, path: str) -> bool:
    """Whether a file is there: no folder, and not seen through a link."""
    found = os.path.join(work.work_tree or "", path)
    parent = os.path.dirname(found)
    is_beyond_link = os.path.realpath(parent) != parent
    return (
        not is_beyond_link
        and os.path.lexists(found)
        and (os.path.islink(found) or not os.path.isdir(found))
    )


def _refuse_submodule(change: RawChange) -> None:
    if GITLINK in {change.old_mode, change.new_mode}:
        raise _is_submodule(change.path)


def _is_submodule(path: str) -> RepositoryError:
    msg = (
        f"{visible(path, keep='')} is a submodule, whose content Hive does not look at. Stage it "
        "with git add, and ask for the commit without paths."
    )
    return RepositoryError(msg)


def _refuse_unknown(work: Git, names: list[str], known: set[str]) -> None:
    there = known | {str(parent) for path in known for parent in PurePosixPath(path).parents}
    for name in names:
        if name not in there:
            msg = f'"{visible(name, keep="")}" {_why_unknown(work, name)}'
            raise RepositoryError(msg)


def _why_unknown(work: Git, name: str) -> str:
    """Why there is nothing to commit of a path, which git does not know."""
    top = Path(work.work_tree or "")
    path = top / name
    if not os.path.lexists(path):
        by_letter = " Patterns are taken by the letter." if set("*?[").intersection(name) else ""
        return f"does not exist.{by_letter}"
    around = [one for one in (path, *path.parents) if one != top and one.is_relative_to(top)]
    if any(os.path.lexists(one / ".git") for one in around):
        return "is, or is in, a repository of its own."
    return "has nothing to commit: it is empty, or ignored by git."


def _refuse_conflicts(work: Git, names: list[str]) -> None:
    """Files that a merge, a stash or the like left for the user to decide."""
    lines = split(work.run("ls-files", "-z", "--unmerged", "--", *names))
    if lines:
        path = lines[0].partition("\t")[2]
        msg = f"{visible(path, keep='')} is in conflict. Resolve that, and git add it."
        raise RepositoryError(msg)


def _submodules(work: Git, names: list[str]) -> tuple[str, ...]:
    """
    The submodules among what is to be committed, which are not looked at.

    Raises:
        RepositoryError: one of them is named, or something in it.
    """
    lines = [line.partition("\t") for line in split(work.run("ls-files", "-z", "--stage"))]
    modules = [path for entry, _, path in lines if entry.startswith(GITLINK)]
    for name in names:
        for path in modules:
            if name == path or name.startswith(f"{path}/"):
                raise _is_submodule(path)
    return tuple(
        path
        for path in modules
        if not names or any(name == "." or path.startswith(f"{name}/") for name in names)
    )


def _refuse_what_needs_more(work: Git, filters: Filters, changed: list[RawChange]) -> None:
    """Submodules, and files that git would have a program convert that is not run here."""
    for change in changed:
        _refuse_submodule(change)
    paths = [change.path for change in changed if change.new_mode != NO_FILE]
    if not filters.refused or not paths:
        return
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)
    answers = split(work.run("check-attr", "-z", "--stdin", "filter", stdin=names))
    for path, value in zip(answers[::3], answers[2::3], strict=True):
        if value in filters.refused:
            msg = (
                f"{visible(path, keep='')} goes through the filter {visible(value)!r} (see "
                f".gitattributes), which Hive does not run: {filters.refused[value]}. Stage the "
                "file with git add, and ask for the commit without paths."
            )
            raise RepositoryError(msg)
