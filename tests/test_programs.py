"""No program runs that a worker may have written, and none for ever."""

import os
import shutil
import time

import pytest

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import programs
from tests.processes import has_ended, wait_until
from tests.repos import ask, commit


def test_a_git_that_a_worker_may_have_written_is_not_run(guard, repo, trap, monkeypatch, tmp_path):
    """Neither in the project, nor where anybody may write, nor in the current folder."""
    real = shutil.which("git")
    anybody = tmp_path / "anybody"
    anybody.mkdir()
    for place in (repo.folder / "bin/git", anybody / "git", repo.folder / "git"):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(repo.folder / "trap.sh", place)
    anybody.chmod(0o777)
    (repo.folder / ".git/info/exclude").write_text("bin\ngit\n")
    monkeypatch.setattr(programs.tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    path = [str(repo.folder / "bin"), str(anybody), "", ".", os.path.dirname(real)]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    monkeypatch.chdir(repo.folder)
    (repo.folder / "a.py").write_text("changed\n")

    commit(guard, ask(guard, repo))

    assert os.path.dirname(real) == programs.trusted_path(str(repo.folder))
    monkeypatch.setenv("PATH", os.pathsep.join(path[:-1]))
    with pytest.raises(RepositoryError, match="Install git"):
        ask(guard, repo)


def test_a_closed_folder_on_path_is_passed_over(tmp_path, monkeypatch):
    """As that of root is for everybody else."""
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0)
    monkeypatch.setenv("PATH", f"{closed / 'bin'}{os.pathsep}/usr/bin")
    user = os.geteuid()
    if user == 0:  # who may go everywhere
        os.seteuid(65534)
    try:
        assert "/usr/bin" == programs.trusted_path()
    finally:
        os.seteuid(user)
        closed.chmod(0o700)


def test_a_git_that_hangs_is_ended_with_its_children(repo):
    """Within its time."""
    began = time.monotonic()

    with pytest.raises(RepositoryError, match="longer than 2 s"):
        programs.run_program(
            ("/bin/sh", "-c", "sleep 600 & echo $! > pid; wait"), str(repo.folder), {}, timeout=2
        )

    assert time.monotonic() - began < 60
    child = int((repo.folder / "pid").read_text())
    wait_until(lambda: has_ended(child))
