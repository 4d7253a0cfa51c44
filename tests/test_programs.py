"""No program runs that a worker may have written, and none for ever."""

import os
import resource
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


def run(folder, script, **options):
    return programs.run_program(("/bin/sh", "-c", script), str(folder), {}, **options)


def test_a_program_reads_and_writes_at_the_same_time(tmp_path):
    """More than a pipe holds, in both directions."""
    given = b"0123456789abcdef\n" * 40_000

    code, out, err = run(tmp_path, "tee /dev/stderr; exit 3", stdin=given)

    assert (3, given, given) == (code, out, err)
    assert (0, b"x\n", b"") == run(tmp_path, "exec <&-; echo x", stdin=given)


@pytest.mark.parametrize(
    ("limit", "script"), [("MOST_OUTPUT", "exec yes"), ("MOST_ERRORS", "exec yes >&2")]
)
def test_what_says_more_than_anybody_takes_is_ended(tmp_path, monkeypatch, limit, script):
    monkeypatch.setattr(programs, limit, 100_000)

    with pytest.raises(RepositoryError, match=r"git was stopped: it wrote more than 97\.7 KB"):
        run(tmp_path, f"echo $$ > pid; {script}")

    assert has_ended(int((tmp_path / "pid").read_text()))


def test_what_a_program_has_started_ends_with_it(tmp_path, monkeypatch):
    """Also where it does not listen, and does not stop to write."""
    monkeypatch.setattr(programs, "MOST_OUTPUT", 100_000)

    with pytest.raises(RepositoryError, match="git was stopped"):
        run(tmp_path, "trap '' TERM; yes & echo $! > pid; trap - TERM; wait")

    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: has_ended(child))


def test_a_file_without_an_end_ends_its_program(tmp_path, monkeypatch):
    """Also one that is all holes, and one that a child writes."""
    monkeypatch.setattr(programs, "MOST_FILE", 2**20)

    with pytest.raises(RepositoryError, match="ended by SIGXFSZ: .* file of more than 1 MB"):
        run(tmp_path, "read -r go; exec cat /dev/zero > big", stdin=b"go\n")
    code, _, _ = run(tmp_path, "read -r go; cat /dev/zero > big; exit 3", stdin=b"go\n")

    assert 3 == code
    assert 2**20 == (tmp_path / "big").stat().st_size


def test_memory_is_bounded(tmp_path, monkeypatch):
    """And never above a limit that there was."""
    show = "read -r go; ulimit -Sd; ulimit -Hd"
    monkeypatch.setattr(programs, "MOST_MEMORY", 2**29)
    assert (0, b"524288\n524288\n", b"") == run(tmp_path, show, stdin=b"go\n")

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (2**28, before[1]))
    try:
        assert (0, b"262144\n524288\n", b"") == run(tmp_path, show, stdin=b"go\n")
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_a_program_that_is_ended_by_a_signal_is_said_to_be(tmp_path):
    with pytest.raises(RepositoryError, match="git was ended by SIGKILL") as caught:
        run(tmp_path, "echo why >&2; kill -KILL $$")

    assert "why" == caught.value.stderr


def test_a_program_that_anybody_may_put_another_in_the_place_of_is_not_trusted(
    tmp_path, monkeypatch
):
    """However deep it is; but for where nobody may rename what is another's."""
    monkeypatch.setattr(programs.tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    folder = tmp_path / "open/in/bin"
    folder.mkdir(parents=True)
    (folder / "git-lfs").touch()
    assert all(map(programs.is_trusted, (folder, folder / "git-lfs")))

    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(folder)
    assert not any(map(programs.is_trusted, (folder, folder / "git-lfs", tmp_path / "link")))
    (tmp_path / "open").chmod(0o1777)
    assert all(map(programs.is_trusted, (folder, folder / "git-lfs")))
    folder.chmod(0o1777)
    assert not any(map(programs.is_trusted, (folder, folder / "git-lfs")))
