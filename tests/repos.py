"""Real git repositories for tests, and commits to them through the guard."""

import hashlib
import os
import subprocess
from pathlib import Path

from hive_jupyter.guard import repository
from hive_jupyter.guard.requests import Requester

USER = Requester("user", "ada")
NAME, ADDRESS = "Ada Lovelace", "ada@example.org"


class Repo:
    """A repository of the test's own, and git as its user has it."""

    def __init__(self, folder, *options):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self("init", "--quiet", "-b", "main", *options)

    @classmethod
    def at(cls, folder):
        """One that is there already."""
        repo = cls.__new__(cls)
        repo.folder = folder
        return repo

    def __call__(self, *arguments, check=True, stdin=b"", **environment):
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, check=False, input=stdin,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return os.fsdecode(done.stdout).rstrip("\n")

    def write(self, path, content="text\n", mode=None):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            file.chmod(mode)
        return file

    def commit_all(self, message="more"):
        self("add", "--all")
        self("commit", "--quiet", "-m", message)
        return self("rev-parse", "HEAD")

    @property
    def head(self):
        return self("rev-parse", "HEAD")

    def show(self, path, commit="HEAD"):
        return self("show", f"{commit}:{path}")

    def changed(self):
        """Paths that the last commit changed."""
        return self("show", "--name-only", "--no-renames", "--format=", "HEAD").split("\n")


def diverge(repo):
    """Make a branch "other" that changes the same line as main does."""
    repo("switch", "--quiet", "-c", "other")
    repo.write("a.py", "theirs\n")
    repo.commit_all()
    repo("switch", "--quiet", "main")
    repo.write("a.py", "ours\n")
    repo.commit_all()


def at_home(tmp_path, monkeypatch):
    """Give the test a home folder, and git no other configuration than what lies there."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder


def with_a_change(tmp_path, monkeypatch):
    """A repository with one commit and a changed file, and a ledger of the test's own."""
    at_home(tmp_path, monkeypatch)
    made = Repo(tmp_path / "repo")
    made("config", "user.name", "Ada")
    made("config", "user.email", "ada@example.org")
    made.write("a.py", "a = 1\n")
    made.commit_all("begin")
    made.write("a.py", "a = 2\n")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return made


def ask(guard, repo, paths=None, message="Change it", **options):
    """A request for a commit."""
    options = {"requester": USER, **options}
    return repository.request_commit(guard, repo.folder, message, paths=paths, **options)[0]


def commit(guard, request):
    """Approve it and make it; gives the commit's hash."""
    return repository.commit(guard, guard.approve(request.id)).commit


def snapshot(*folders):
    """
    All that is in folders, byte for byte, with modes and times of change.

    But for the times of objects, which git renews so that no collection of garbage takes them.
    """
    found = {}
    for folder in folders:
        for root, folders_in_it, files in os.walk(folder):
            for name in [*folders_in_it, *files]:
                path = os.path.join(root, name)
                is_link = os.path.islink(path)
                content = os.readlink(path) if is_link else ""
                if os.path.isfile(path) and not is_link:
                    content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                state = os.lstat(path)
                is_object = "/objects/" in path
                found[path] = (content, state.st_mode, is_object or state.st_mtime_ns)
    return found
