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
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from hive_jupyter.errors import RepositoryError
from hive_jupyter.units import format_duration, visible

_OUTSIDE = "outside"
_LONGEST_PATH = 2**16

_TIMEOUT = 120.0
_GRACE = 5.0
_MOST_STDERR = 4000

# What git's own helpers need to reach the user's keys, where the user has commits signed.
SIGNING_VARIABLES = (
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
# the next crash; what is in a private repository may be lost in one, and the request with it.
LASTING = {"core.fsync": "committed,reference", "core.fsyncMethod": "batch"}
_PASSING = {"core.fsync": "none"}


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
        keeps: descriptors that are open as long as it runs, whatever becomes of this process.
    """

    path: str
    folder: str
    work_tree: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    keeps: tuple[int, ...] = ()

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
        return run(whole, folder, environment, stdin, timeout=_TIMEOUT, keeps=self.keeps)


def run(
    command: tuple[str, ...],
    folder: str,
    environment: Mapping[str, str],
    stdin: bytes | IO[bytes] = b"",
    *,
    timeout: float = _TIMEOUT,
    keeps: tuple[int, ...] = (),
) -> tuple[int, bytes, bytes]:
    """
    Run a program to its end, in a process group of its own: Ctrl-C does not cut it in two.

    Args:
        command: the program's absolute path, and its arguments.
        folder: where it runs.
        environment: all of its variables.
        stdin: what it reads.
        timeout: seconds that it may take.
        keeps: descriptors that it has, too.

    Returns:
        Its exit code, and what it wrote to stdout and stderr.

    Raises:
        RepositoryError: it cannot be started, or took too long.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=keeps,
        )
    except (OSError, ValueError) as error:
        msg = f"git cannot be run in {folder!r}: {error}"
        raise RepositoryError(msg, command=command[1:]) from error
    with process:
        try:
            out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            msg = (
                f"git was stopped: it took longer than {format_duration(timeout)}. Try again when "
                "the disk is less busy. Where a filter takes its time, stage the file with git add."
            )
            raise RepositoryError(msg, command=command[1:]) from None
        except BaseException:
            _end(process)
            raise
    return process.returncode, out, err


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what was started, with a grace in which git removes its lock files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)
            return


def _failed(arguments: tuple[str, ...], stderr: bytes) -> RepositoryError:
    said = visible(stderr.decode("utf-8", "surrogateescape"))[:_MOST_STDERR].strip()
    msg = f"git {arguments[0]} failed: {said or 'it did not say why'}"
    return RepositoryError(msg, command=arguments, stderr=said)


def trusted_path(*outside: str) -> str:
    """
    Say where programs may be looked for: PATH without what a worker may have written.

    Args:
        outside: folders whose programs do not count; nor do those of the temporary folder, those
            that anybody may write to, and those that depend on the current folder.

    Returns:
        Folders, as in PATH.
    """
    folders = [Path(name) for name in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    return os.pathsep.join(
        str(folder)
        for folder in folders
        if folder.is_absolute() and os.path.isdir(folder) and is_trusted(folder, *outside)
    )


def is_trusted(place: str | os.PathLike[str], *outside: str) -> bool:
    """
    Say whether no worker may have written what is there, as for ``trusted_path``.

    Args:
        place: a folder or a file; absolute.
        outside: folders in which nothing counts, nor what leads there.
    """
    home = Path("~").expanduser()
    barred = [Path(folder).resolve() for folder in (*outside, tempfile.gettempdir())]
    # Where the whole home folder is a repository, the user's own programs are no project's.
    barred = [folder for folder in barred if not home.is_relative_to(folder)]
    named, found = Path(place), Path(place).resolve()
    written = (named, found) if os.path.isdir(found) else (named, found, named.parent, found.parent)
    return not any(one.is_relative_to(bar) for bar in barred for one in (named, found)) and not any(
        os.path.exists(one) and one.stat().st_mode & stat.S_IWOTH for one in written
    )


def find_git(path: str) -> str:
    """
    Find git.

    Args:
        path: folders to look in, as in PATH.

    Returns:
        An absolute path.

    Raises:
        RepositoryError: it is not there.
    """
    program = shutil.which("git", path=path) if path else None
    if program is None:
        msg = (
            "Commits need git, and none was found on PATH, where folders of the project, the "
            "temporary one and those that anybody may write to do not count. Install git."
        )
        raise RepositoryError(msg)
    return program


def at(repository: str, *outside: str) -> Git:
    """
    Run git on a repository of the user's: no hook runs, whatever its configuration says.

    Args:
        repository: the git dir; absolute.
        outside: folders whose programs do not count, beside those that the git dir tells of.

    Raises:
        RepositoryError: there is none, or no git.
    """
    if not os.path.isabs(repository) or not Path(repository, "HEAD").is_file():
        msg = f"There is no git repository in {repository!r}."
        raise RepositoryError(msg)
    outside = tuple(sorted({*outside, *_work_trees(repository)}))
    git = Git(trusted_path(*outside), repository, outside=outside)
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
    names = git.run("config", "--list", "--name-only", "-z", "--includes").split(b"\0")
    hooks = {os.fsdecode(name.rpartition(b".")[0]) for name in names if name.startswith(b"hook.")}
    return {f"{hook}.enabled": "false" for hook in hooks if "." in hook}


@contextlib.contextmanager
def opened(repository: str, private: str | None) -> Iterator[Git]:
    """
    Open the private repository that holds what is to be committed.

    Args:
        repository: the user's git dir.
        private: the private repository's folder; None: one is made for the occasion.

    Raises:
        RepositoryError: the private repository is no more, or none can be made.
    """
    user = at(repository, *outside_of(private))
    if private is not None:
        if not Path(private, "HEAD").is_file():
            msg = "The content of this request is kept no more. Ask for the commit again."
            raise RepositoryError(msg)
        yield Git(user.path, private, settings=_PASSING)
        return
    with tempfile.TemporaryDirectory(prefix="hive-", ignore_cleanup_errors=True) as folder:
        yield make_private(user, os.path.join(folder, "private"))


def make_private(user: Git, folder: str) -> Git:
    """
    Make a private repository.

    Args:
        user: git on the user's repository, whose objects it is to see.
        folder: where; it must not exist.

    Returns:
        git on it.

    Raises:
        RepositoryError: it cannot be made.
    """
    try:
        os.makedirs(folder, mode=0o700)
    except OSError as error:
        msg = f"There is no place for a commit's content: {error}"
        raise RepositoryError(msg) from error
    git = Git(user.path, folder, settings=_PASSING)
    object_format = user.line("rev-parse", "--show-object-format")
    git.run(
        "init", "--quiet", "--bare", "--template=", "--initial-branch=none",
        f"--object-format={object_format}", folder,
    )  # fmt: skip
    info = Path(folder, "objects", "info")
    info.mkdir(exist_ok=True)
    quoted = objects_of(user).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (info / "alternates").write_bytes(os.fsencode(f'"{quoted}"\n'))
    Path(folder, _OUTSIDE).write_bytes(b"".join(os.fsencode(one) + b"\0" for one in user.outside))
    return git


def outside_of(private: str | None) -> list[str]:
    """
    Recall the folders whose programs did not count when a private repository was made.

    The work tree is among them. A git dir that is not in it does not tell where it is.
    """
    try:
        return split(Path(private, _OUTSIDE).read_bytes()) if private is not None else []
    except FileNotFoundError:
        return []


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


@contextlib.contextmanager
def regular(path: str | os.PathLike[str]) -> Iterator[int]:
    """
    Open a file for reading that somebody else may have put there.

    Args:
        path: where it is. Neither a pipe that nobody writes to nor a device without an end is read.

    Yields:
        Its descriptor.

    Raises:
        OSError: it cannot be opened.
        RepositoryError: it is something else than a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            msg = f"{os.fspath(path)!r} is no regular file, and so it is not read."
            raise RepositoryError(msg)
        yield descriptor
    finally:
        os.close(descriptor)


def copy_file(source: str, target: str | os.PathLike[str]) -> None:
    """
    Copy a file, with its time.

    Raises:
        OSError, RepositoryError: as for ``regular``.
    """
    with regular(source) as descriptor, open(target, "wb") as copied:
        with open(descriptor, "rb", closefd=False) as content:
            shutil.copyfileobj(content, copied)
        times = os.fstat(descriptor)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def split(out: bytes) -> list[str]:
    """What git listed with -z."""
    return [os.fsdecode(field) for field in out.split(b"\0")[:-1]]
