"""A process that dies leaves one truth, and settling finds it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hive_jupyter.errors import TokenSpent
from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
from tests import hosts
from tests.processes import has_ended, wait_until
from tests.repos import USER, ask, commit

CUT_OFF = """
import os, signal, sys
from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
ledger, token, step = sys.argv[1:]
guard = AuthorizationGuard(ledger)
module, _, name = step.rpartition(".")
home = guard if module == "guard" else repository
function = getattr(home, name)
when, _, name = name.partition("!")

def cut(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(home, name or when, cut)
repository.commit(guard, token)
"""

# What is called next, and what has become of the request when the process dies at that point.
STEPS = [
    ("_commit_tree", "approved", None),
    ("_hand_over", "approved", None),
    ("_hand_over_large", "approved", None),
    ("guard.spend", "approved", None),
    ("_move_branch", "void", None),
    ("update_index", "committed", "committed"),
    ("guard.conclude", "committed", "committed"),
]


@pytest.mark.parametrize(("step", "state", "has_it"), STEPS)
def test_a_process_that_is_killed_at_any_step_leaves_one_truth(guard, repo, step, state, has_it):
    """The branch has the commit and the ledger says so, or neither; and nothing is done again."""
    repo.write("a.py", "2\n")
    repo.write("new.py", "n\n")
    request = ask(guard, repo, ["a.py", "new.py"])
    token = guard.approve(request.id)
    ended = subprocess.run(
        [sys.executable, "-c", CUT_OFF, str(guard.ledger.path), token, step],
        env=hosts.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert -signal.SIGKILL == ended.returncode, ended.stderr

    settled = repository.settle(guard)

    assert state == guard.get(request.id).state
    assert ([request.id] if state != "approved" else []) == [one.id for one in settled]
    assert ("2" if has_it else "1") == repo("rev-list", "--count", "HEAD")
    assert [] == repository.settle(guard)
    if has_it:
        assert "" == repo("status", "--porcelain")
    if state == "approved":
        assert repository.commit(guard, token).commit == repo.head
    else:
        with pytest.raises(TokenSpent):
            repository.commit(guard, token)
    repo("fsck", "--strict")


GIT_GOES_ON = """
import sys
from hive_jupyter.guard import git, repository
from hive_jupyter.guard.authorization import AuthorizationGuard
ledger, token, said, gate = sys.argv[1:]
run = git.run_program

def held_up(command, *arguments, **options):
    if "update-ref" in command:
        wait = 'echo $$ > "$0"; read -r _ < "$1"; shift; exec "$@"'
        command = ("/bin/sh", "-c", wait, said, gate, *command)
    return run(command, *arguments, **options)

git.run_program = held_up
repository.commit(AuthorizationGuard(ledger), token)
"""


def test_a_git_that_outlives_its_host_is_still_a_commit_under_way(guard, repo, tmp_path):
    """Nobody calls it void while it moves the branch."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    said, gate = tmp_path / "said", tmp_path / "gate"
    os.mkfifo(gate)
    host = subprocess.Popen(
        [sys.executable, "-c", GIT_GOES_ON, str(guard.ledger.path), guard.approve(request.id),
         str(said), str(gate)],
        env=hosts.environment(),
    )  # fmt: skip
    wait_until(lambda: said.exists() and said.read_text().strip())
    host.kill()
    host.wait()

    assert [] == repository.settle(guard)
    assert "spent" == guard.get(request.id).state
    gate.write_text("go on\n")
    wait_until(lambda: has_ended(int(said.read_text())))
    repository.settle(guard)
    assert "committed" == guard.get(request.id).state
    assert guard.get(request.id).commit == repo.head


def test_a_commit_that_was_cut_off_counts_where_the_branch_went_on(guard, repo):
    """It is in its history."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    made = commit(guard, request)
    later = guard.request(
        repository=request.repository, ref=request.ref, parent=request.parent, tree=request.tree,
        message="m", requester=USER,
    )  # fmt: skip
    guard.spend(guard.approve(later.id), commit=made)
    repo("commit", "--allow-empty", "-qm", "more")

    assert ["committed"] == [one.state for one in repository.settle(guard)]


@pytest.mark.parametrize("gone", ["repository", "branch"])
def test_a_commit_that_was_cut_off_is_void_where_its_place_is_gone(guard, repo, gone):
    """There is nothing that could have it."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    guard.spend(guard.approve(request.id), commit="c" * 40)
    if gone == "repository":
        shutil.rmtree(repo.folder)
    else:
        repo("update-ref", "-d", "refs/heads/main")

    assert ["void"] == [one.state for one in repository.settle(guard)]


def test_settling_tells_which_requests_a_moved_branch_has_overtaken(guard, repo):
    """So that nobody is asked about them; where it cannot be told, they stay."""
    repo.write("a.py", "2\n")
    request, approved = ask(guard, repo), ask(guard, repo)
    guard.approve(approved.id)
    assert [] == repository.settle(guard)
    repo("commit", "-qam", "by hand")

    settled = repository.settle(guard)

    assert {(request.id, "superseded"), (approved.id, "superseded")} == {
        (one.id, one.state) for one in settled
    }


def test_settling_leaves_a_commit_under_way_alone(guard, repo, monkeypatch):
    """Its process holds a lock until it is done."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    move, seen = repository._move_branch, []

    def move_and_look(*arguments):
        seen.append(repository.settle(AuthorizationGuard(guard.ledger.path)))
        move(*arguments)

    monkeypatch.setattr(repository, "_move_branch", move_and_look)

    assert commit(guard, request) == repo.head
    assert [[]] == seen
    assert "committed" == guard.get(request.id).state


def test_settling_forgets_content_that_nobody_waits_for(guard, repo):
    """At once where its request has ended; after an hour where one may be on its way."""
    repo.write("a.py", "2\n")
    kept, denied = (ask(guard, repo) for _ in range(2))
    guard.deny(denied.id)
    fresh, old = (Path(kept.private).with_name(name) for name in ("fresh", "old"))
    for folder in (fresh, old):
        folder.mkdir()
    for folder in (kept.private, old):
        os.utime(folder, (1, 1))

    repository.settle(guard)

    places = (kept.private, denied.private, fresh, old)
    assert [True, False, True, False] == list(map(os.path.isdir, places))


def test_settling_without_a_ledger_makes_none(guard):
    """There is nothing to settle."""
    assert [] == repository.settle(guard)
    assert not guard.ledger.path.parent.exists()


def test_a_ledger_that_fails_after_the_branch_moved_does_not_say_that_nothing_was_done(
    guard, repo, monkeypatch, caplog
):
    """The hash is returned, and the next look at the branch makes up for it."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)

    def fails(*_):
        raise repository.LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "conclude", fails)
        made = commit(guard, request)

    assert (made, "spent") == (repo.head, guard.get(request.id).state)
    assert "the disk is full" in caplog.text
    assert ["committed"] == [one.state for one in repository.settle(guard)]
