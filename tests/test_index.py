"""The user's index follows a commit, and is left alone otherwise."""

import pytest

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import index, repository
from hive_jupyter.guard.repository import Made
from tests.repos import ask, commit, snapshot


def test_the_index_is_left_alone_where_another_branch_is_checked_out(guard, repo):
    """The branch gets its commit all the same."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    repo("stash", "--quiet")
    repo("switch", "--quiet", "-c", "other")
    before = (repo.folder / ".git/index").read_bytes()

    made = commit(guard, request)

    assert made == repo("rev-parse", "main")
    assert before == (repo.folder / ".git/index").read_bytes()
    assert "" == repo("status", "--porcelain")


@pytest.fixture
def impatient(monkeypatch):
    """Another git has next to no time to end."""
    monkeypatch.setattr(index, "_PATIENCE", 0.01)


def test_while_another_git_is_at_work_nothing_is_committed_and_the_token_stays(
    guard, repo, impatient
):
    """A commit in an editor, say: the index could not follow."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    token = guard.approve(request.id)
    lock = repo.folder / ".git/index.lock"
    lock.touch()

    with pytest.raises(RepositoryError, match="Another git is at work"):
        repository.commit(guard, token)
    assert "approved" == guard.get(request.id).state
    lock.unlink()
    assert repository.commit(guard, token) == Made(repo.head, "")
    assert "" == repo("status", "--porcelain")


def test_another_git_that_ends_soon_is_waited_for(guard, repo, monkeypatch):
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    lock = repo.folder / ".git/index.lock"
    lock.touch()
    monkeypatch.setattr(index, "_wait", lock.unlink)

    commit(guard, request)

    assert "" == repo("status", "--porcelain")


@pytest.mark.parametrize("ends", ["soon", "late"])
def test_a_git_that_begins_while_the_branch_moves_is_waited_for_or_spoken_of(
    guard, repo, monkeypatch, impatient, ends
):
    """The commit is made, and what is left to do is said."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    lock = repo.folder / ".git/index.lock"
    move = repository._move_branch

    def move_and_lock(*arguments):
        move(*arguments)
        lock.touch()

    monkeypatch.setattr(repository, "_move_branch", move_and_lock)
    if ends == "soon":
        monkeypatch.setattr(index, "_PATIENCE", 60.0)
        monkeypatch.setattr(index, "_wait", lock.unlink)
    made = repository.commit(guard, guard.approve(request.id))

    assert made.commit == repo.head
    assert "committed" == guard.get(request.id).state
    if ends == "soon":
        assert "" == made.left
    else:
        assert "git reset -q" in made.left
        lock.unlink()
        repo("reset", "--quiet")
    assert "" == repo("status", "--porcelain")


def test_a_lock_of_another_branchs_index_is_nobodys_concern(guard, repo):
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    repo("stash", "--quiet")
    repo("switch", "--quiet", "-c", "other")
    (repo.folder / ".git/index.lock").touch()

    assert commit(guard, request) == repo("rev-parse", "main")


def test_a_split_index_is_understood(guard, repo):
    """Half of it is in another file."""
    repo("config", "core.splitIndex", "true")
    repo("update-index", "--split-index")
    assert list((repo.folder / ".git").glob("sharedindex.*"))
    repo.write("a.py", "2\n")
    before = snapshot(repo.folder)

    request = ask(guard, repo)
    assert before == snapshot(repo.folder)
    commit(guard, request)

    assert ["a.py"] == repo.changed()
    assert "" == repo("status", "--porcelain")
