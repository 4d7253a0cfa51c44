"""
git, run so that nothing in a repository can make it run something else.

A repository's own configuration, hooks, attributes and work tree may have been written by somebody
who wants to be executed (git's documentation: githooks(5), gitattributes(5), git-config(1)). So
whatever reads files or content runs in a *private repository*: an empty one of Hive's, with a
configuration of its own, which sees the objects of the user's as an alternate. Only what must
happen in the user's repository (to ask for a branch, to move it) runs there, with hooks and
fsmonitor off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard.files import regular
from hive_jupyter.guard.programs import find_git, run_program, trusted_path
from hive_jupyter.units import visible

_LONGEST_PATH = 2**16
_MOST_STDERR = 4000

# For questions that the user's own configuration answers.
_QUESTIONS = {
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}

# For every other call. No protocol is called "none": a partial clone fetches nothing.
_ENVIRONMENT = {
    **_QUESTIONS,
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "HOME": os.devnull,  # versions before 2.32 do not know GIT_CONFIG_GLOBAL
}

_SETTINGS = {
    "advice.graftFileDeprecated": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
}

# What a branch leads to must be on the disk before the branch does. git's default leaves objects to
# the next crash.
LASTING = {"core.fsync": "committed,reference", "core.fsyncMethod": "batch"}


@dataclass(frozen=True)
class Git:
    """
    git on one repository.

    Attributes:
        path: folders in which git and its helpers are found, as in PATH.
        folder: the git dir.
        work_tree: the work tree, for what needs one.
        environment: variables beside, or instead of, those that every call gets.
        settings: configuration beside that of every call.
        outside: folders whose programs do not count, as for ``trusted_path``.
        timeout: seconds that a call may take.
        keeps: descriptors that are open as long as it runs, whatever becomes of this process.
    """

    path: str
    folder: str
    work_tree: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    keeps: tuple[int, ...] = ()
    timeout: float = 120.0

    @property
    def program(self) -> str:
        """The absolute path of git."""
        return find_git(self.path)

    def run(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        accept: tuple[int, ...] = (0,),
    ) -> bytes:
        """
        Run a git command to its end.

        Args:
            arguments: the command and its arguments.
            stdin: what it reads.
            accept: exit codes that are no failure.

        Returns:
            What it wrote to stdout.

        Raises:
            RepositoryError: it failed, or took too long.
        """
        code, out, err = self._run(arguments, stdin)
        if code not in accept:
            raise _failed(arguments, err)
        return out

    def succeeds(self, *arguments: str) -> bool:
        """
        Ask git a question that it answers by its exit code, 0 or 1.

        Raises:
            RepositoryError: it has no answer.
        """
        code, _, err = self._run(arguments, b"")
        if code not in {0, 1}:
            raise _failed(arguments, err)
        return code == 0

    def line(self, *arguments: str) -> str | None:
        """The one line that a command answers with; None where it has nothing to say."""
        answer = self.run(*arguments, accept=(0, 1))
        return os.fsdecode(answer.removesuffix(b"\n")) or None

    def _run(
        self, arguments: tuple[str, ...], stdin: bytes | IO[bytes]
    ) -> tuple[int, bytes, bytes]:
        command = [self.program]
        odd = []
        for name, value in {**_SETTINGS, **self.settings}.items():
            # -c takes a name with "=" in it apart; but versions before 2.31 know nothing else.
            if "=" in name:
                odd.append((name, value))
            else:
                command += ["-c", f"{name}={value}"]
        environment = {
            **_ENVIRONMENT,
            "GIT_DIR": self.folder,
            "PATH": self.path,
            **{name: os.environ[name] for name in ("TZ",) if name in os.environ},
            **self.environment,
        }
        if self.work_tree is not None:
            environment["GIT_WORK_TREE"] = self.work_tree
        environment["GIT_CONFIG_COUNT"] = str(len(odd))
        for number, (name, value) in enumerate(odd):
            environment[f"GIT_CONFIG_KEY_{number}"] = name
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        folder = self.work_tree or self.folder
        whole = (*command, *arguments)
        return run_program(
            whole, folder, environment, stdin, timeout=self.timeout, keeps=self.keeps
        )


def _failed(arguments: tuple[str, ...], stderr: bytes) -> RepositoryError:
    said = visible(stderr.decode("utf-8", "surrogateescape"))[:_MOST_STDERR].strip()
    msg = f"git {arguments[0]} failed: {said or 'it did not say why'}"
    return RepositoryError(msg, command=arguments, stderr=said)


def at(repository: str, *outside: str, timeout: float = 120.0) -> Git:
    """
    Run git on a repository of the user's: no hook runs, whatever its configuration says.

    Args:
        repository: the git dir; absolute.
        outside: folders whose programs do not count, beside those that the git dir tells of.
        timeout: seconds that a call may take.

    Raises:
        RepositoryError: there is none, or no git.
    """
    if not os.path.isabs(repository) or not Path(repository, "HEAD").is_file():
        msg = f"There is no git repository in {repository!r}."
        raise RepositoryError(msg)
    outside = tuple(sorted({*outside, *_work_trees(repository)}))
    git = Git(trusted_path(*outside), repository, outside=outside, timeout=timeout)
    return replace(git, settings={**LASTING, **_without_hooks(git)})


def _work_trees(repository: str) -> set[str]:
    """Folders that hold what belongs to a repository; see gitrepository-layout(5)."""
    places = [repository]
    for name in ("commondir", "gitdir"):
        with contextlib.suppress(OSError, RepositoryError), regular(Path(repository, name)) as file:
            told = os.fsdecode(os.read(file, _LONGEST_PATH)).strip()
            places.append(os.path.normpath(os.path.join(repository, told)))
    ancestors = [place for known in places for place in (Path(known), *Path(known).parents)]
    # A submodule's git dir is deep in that of the repository around it.
    return {str(place.parent) for place in ancestors if place.name == ".git"}


def _without_hooks(git: Git) -> dict[str, str]:
    """Turn off the hooks that are named in the configuration, as they can be since git 2.54."""
    asked = ("config", "--includes", "--name-only", "-z", "--get-regexp", r"^hook\.")
    names = git.run(*asked, accept=(0, 1)).split(b"\0")
    hooks = {os.fsdecode(name.rpartition(b".")[0]) for name in names}
    return {f"{hook}.enabled": "false" for hook in hooks if "." in hook}


def objects_of(git: Git) -> str:
    """The folder of a repository's objects, also where it is a linked worktree."""
    return os.path.join(git.folder, git.line("rev-parse", "--git-path", "objects") or "objects")


def common_of(user: Git) -> str:
    """The git dir that linked worktrees share."""
    return os.path.join(user.folder, user.line("rev-parse", "--git-common-dir") or "")


def tip(user: Git, ref: str) -> str | None:
    """Where a branch is; None where it has no commit yet."""
    if not ref.startswith("refs/"):
        msg = f"{visible(ref)!r} is no branch in full, such as refs/heads/main."
        raise RepositoryError(msg)
    out = user.run("for-each-ref", "--format=%(objectname) %(refname)", "--", ref)
    for line in out.splitlines():
        tip, _, name = os.fsdecode(line).partition(" ")
        if name == ref:
            return tip
    return None


def as_user() -> dict[str, str]:
    """An environment in which git reads the user's own configuration; for questions alone."""
    names = ("HOME", "XDG_CONFIG_HOME", "TZ")
    return {**_QUESTIONS, **{name: os.environ[name] for name in names if name in os.environ}}


def split(out: bytes) -> list[str]:
    """What git listed with -z."""
    return [os.fsdecode(field) for field in out.split(b"\0")[:-1]]
