"""Filters run where they are the user's own and allowed, and nowhere else."""

import os
import shutil
import sys

import pytest

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import git as gits
from hive_jupyter.guard import repository
from tests.processes import has_ended, wait_until
from tests.repos import ask, commit, snapshot


def test_what_the_users_git_filtered_is_committed_as_it_was_staged(guard, repo):
    """The way around for git-lfs and nbstripout."""
    repo("config", "filter.up.clean", "tr a-z A-Z")
    repo.write(".gitattributes", "x.txt filter=up\n")
    repo.write("x.txt", "loud\n")
    repo("add", "x.txt", ".gitattributes")

    commit(guard, ask(guard, repo))

    assert ("LOUD", "") == (repo.show("x.txt"), repo("status", "--porcelain"))


def test_a_filter_that_nobody_configured_is_none(guard, repo):
    """As for git."""
    repo.write(".gitattributes", "*.txt filter=nobody's\n")
    repo.write("x.txt", "plain\n")

    commit(guard, ask(guard, repo, ["x.txt"]))

    assert "plain" == repo.show("x.txt")


@pytest.fixture
def strip(repo, home):
    """A filter such as nbstripout, in a place whose name the shell would take apart."""
    program = home / "my 'own' bin" / "strip it"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nsed s/secret//; printf "%s\\n" "$@"\n')
    program.chmod(0o755)
    repo("config", "--global", "filter.strip.clean", f'"{program}" %f')
    repo.write(".gitattributes", "*.nb filter=strip\n")
    return program


def test_a_filter_of_the_users_own_runs_where_it_is_named(guard, repo, strip, monkeypatch):
    """When it is asked, and at no other time; its outcome is what is shown and committed."""
    path = "it's; touch ran; $(touch ran).nb"
    repo.write(path, "secret text\n")
    before = snapshot(repo.folder)
    for paths in (["."], [path]):
        request = ask(guard, repo, paths, filters=["strip"])
    assert before == snapshot(repo.folder)
    strip.unlink()

    diff = request.diff()
    commit(guard, request)
    repository.settle(guard)

    assert f" text\n{path}" == repo.show(path)
    assert "+ text\n" in diff
    assert "secret" not in diff
    assert not list(repo.folder.parent.rglob("ran"))


def test_a_filter_that_the_setting_does_not_name_stays_off(guard, repo, strip):
    repo.write("x.nb", "secret\n")

    with pytest.raises(RepositoryError, match="'strip'.*the setting commit_filters does not name"):
        ask(guard, repo, ["x.nb"], filters=["lfs"])


@pytest.mark.parametrize("key", ["clean", "process", "required", "smudge"])
def test_a_repositorys_filter_of_the_same_name_does_not_win(guard, repo, strip, trap, key):
    """Not even where the user's own lacks a command that it has."""
    repo("config", f"filter.strip.{key}", "false" if key == "required" else "./trap.sh")
    repo.write("x.nb", "secret\n")

    commit(guard, ask(guard, repo, ["x.nb"], filters=["strip"]))

    assert "\nx.nb" == repo.show("x.nb")


def test_a_filter_that_the_repository_alone_configures_stays_off(guard, repo, trap):
    repo("config", "filter.mine.clean", str(repo.folder / "trap.sh"))
    repo.write(".gitattributes", "*.nb filter=mine\n")
    repo.write("x.nb")

    with pytest.raises(RepositoryError, match="your own configuration of git .* has no command"):
        ask(guard, repo, ["x.nb"], filters=["mine"])


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("./trap.sh", "not found"), ("trap.sh", "not found"), ("{repo}/trap.sh", "not found"),
        ("{home}/link", "not found"), ("{home}/open/trap.sh", "not found"),
        ("no-such-program", "not found"), ("X=1 {repo}/trap.sh", "not found"),
        ("/bin/sh {repo}/trap.sh", "where a worker may write"),
        ("cat; ./trap.sh", "more than"), ("cat $(./trap.sh)", "more than"),
        ("cat | ./trap.sh", "more than"), ("cat `./trap.sh`", "more than"),
        ("cat\n./trap.sh", "more than"), ("cat '", "more than"), ("cat '%f'x", "more than"),
        ("~/trap.sh", "more than"), (" ", "more than"),
    ],
)  # fmt: skip
def test_a_filter_that_a_worker_may_have_written_stays_off(
    guard, repo, trap, home, monkeypatch, command, why
):
    """Nor is one run that only a shell understands."""
    (home / "link").symlink_to(repo.folder / "trap.sh")
    (home / "open").mkdir()
    shutil.copy(repo.folder / "trap.sh", home / "open")
    (home / "open").chmod(0o777)
    monkeypatch.setenv("PATH", f"{repo.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(repo.folder)
    text = command.format(repo=repo.folder, home=home)
    repo("config", "--global", "filter.mine.clean", text)
    repo.write(".gitattributes", "*.nb filter=mine\n")
    repo.write("x.nb")

    with pytest.raises(RepositoryError, match=f"'mine'(.|\n)*{why}"):
        ask(guard, repo, ["x.nb"], filters=["mine"])


def test_a_filter_imports_nothing_of_the_work_tree(guard, repo, trap):
    """Python looks in the current folder first for what -m names, and for what that imports."""
    trap("json.py")
    trap("argparse.py")
    repo("config", "--global", "filter.mine.clean", f'"{sys.executable}" -m json.tool --compact')
    repo.write(".gitattributes", "*.nb filter=mine\n")
    repo.write("x.nb", '{"a": 1}')

    commit(guard, ask(guard, repo, ["x.nb"], filters=["mine"]))

    assert '{"a":1}' == repo.show("x.nb")


def test_a_filter_finds_its_own_settings(guard, repo, strip):
    """Those that are the user's; nbstripout has some."""
    strip.write_text("#!/bin/sh\ncat; git config filter.strip.keys\n")
    repo("config", "--global", "filter.strip.keys", "a b")
    repo("config", "filter.strip.keys", "of the repository")
    repo.write("x.nb", "text\n")

    commit(guard, ask(guard, repo, ["x.nb"], filters=["strip"]))

    assert "text\na b" == repo.show("x.nb")


def test_what_a_filter_fails_on_is_not_committed_as_it_is(guard, repo, strip, tmp_path):
    """Though git would, where the filter is not said to be required."""
    strip.write_text("#!/bin/sh\necho this is no notebook >&2\nexit 1\n")
    repo.write("x.nb", "secret\n")

    with pytest.raises(RepositoryError, match=r"this is no notebook(.|\n)*x.nb.*'strip' failed"):
        ask(guard, repo, ["x.nb"], filters=["strip"])

    assert not list((tmp_path / "data" / "frozen").iterdir())


def test_a_filter_that_hangs_is_ended(guard, repo, strip, tmp_path, monkeypatch):
    """With all that it started."""
    strip.write_text(f"#!/bin/sh\nsleep 600 & echo $! > '{tmp_path}/pid'\nwait\n")
    repo.write("x.nb", "secret\n")
    run = gits.run_program

    def impatient(command, *arguments, **options):
        options["timeout"] = 5.0 if "update-index" in command else 120.0
        return run(command, *arguments, **options)

    monkeypatch.setattr(gits, "run_program", impatient)

    with pytest.raises(RepositoryError, match="git was stopped: it took longer than 5 s"):
        ask(guard, repo, ["x.nb"], filters=["strip"])

    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: has_ended(child))
    assert not list((tmp_path / "data" / "frozen").iterdir())
