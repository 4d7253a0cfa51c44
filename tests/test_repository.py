"""What a human saw is what is committed, once."""

import os
import shutil
import subprocess
import threading

import pytest

from hive_jupyter.errors import (
    ConfigError,
    HiveError,
    LedgerError,
    RepositoryError,
    RequestDenied,
    Superseded,
    TokenExpired,
    TokenMismatch,
    TokenSpent,
    TooManyRequests,
)
from hive_jupyter.guard import repository
from hive_jupyter.guard.authorization import AuthorizationGuard
from tests.repos import ADDRESS, NAME, ask, commit, diverge


@pytest.mark.parametrize("paths", ["a.py", b"a.py", [""], ["a.py", ""]])
def test_what_is_no_list_of_paths_is_refused(guard, repo, paths):
    """An empty path would be the whole folder, and a text a path for each letter."""
    repo.write("a.py", "changed\n")

    with pytest.raises(ConfigError, match="are no paths"):
        ask(guard, repo, paths)


def test_what_is_committed_already_is_called_so(guard, repo):
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    made = commit(guard, request)

    for answer in (guard.approve, guard.deny):
        with pytest.raises(TokenSpent, match=f"is committed already, as {made}"):
            answer(request.id)


def test_a_refused_request_keeps_no_content(guard, repo):
    """Eight wait; a ninth leaves nothing behind."""
    repo.write("a.py", "2\n")
    for _ in range(8):
        ask(guard, repo)

    with pytest.raises(TooManyRequests):
        ask(guard, repo)

    assert 8 == len(list((guard.ledger.path.parent / "frozen").iterdir()))
    assert 0o700 == (guard.ledger.path.parent / "frozen").stat().st_mode & 0o777


def test_what_was_approved_is_committed_whatever_happened_to_the_files(guard, repo):
    """And to the index; what the user did meanwhile stays as they did it."""
    repo.write("a.py", "approved\n")
    repo.write("sub/b.txt", "approved\n")
    request = ask(guard, repo)
    repo.write("a.py", "slipped in\n")
    repo("add", "a.py")
    repo.write("sub/b.txt", "later\n")

    made = commit(guard, request)

    assert (made, request.parent) == (repo.head, repo("rev-parse", "HEAD^"))
    assert request.tree == repo("rev-parse", "HEAD^{tree}")
    assert ["approved", "approved"] == [repo.show("a.py"), repo.show("sub/b.txt")]
    assert "M  a.py\n M sub/b.txt" == repo("status", "--porcelain")
    done = guard.get(request.id)
    assert ("committed", made) == (done.state, done.commit)
    assert "+approved" in done.diff()


@pytest.mark.parametrize(
    "message", ["Title", "Title\n\nBody\n", "# not a comment\n\n  x  ", "-m", "ü\u202e"]
)
def test_the_message_is_committed_as_it_was_shown(guard, repo, message):
    """With a line end, and nothing stripped."""
    repo.write("a.py", "2\n")

    commit(guard, ask(guard, repo, message=message))

    raw = repo("cat-file", "commit", "HEAD").partition("\n\n")[2]
    assert message.rstrip("\n") == raw


def test_the_reflog_tells_the_commit(guard, repo):
    """For the one who wants to take it back."""
    repo.write("a.py", "2\n")
    commit(guard, ask(guard, repo, message="Title\n\nbody"))

    assert ["commit: Title"] * 2 == [
        repo("reflog", "-1", "--format=%gs", ref) for ref in ("HEAD", "main")
    ]
    assert [f"{NAME} <{ADDRESS}>"] == [repo("reflog", "-1", "--format=%gn <%ge>")]


def test_a_commit_leaves_nothing_beside_the_ledger_and_passes_gits_own_check(guard, repo):
    """Its content is the repository's now."""
    repo.write("new/deep/x.py", "x\n")
    commit(guard, ask(guard, repo, ["new"]))

    assert [] == list((guard.ledger.path.parent / "frozen").iterdir())
    repo("fsck", "--strict", "--full")


def test_a_token_commits_once(guard, repo):
    """Also of threads that come at the same time."""
    repo.write("a.py", "2\n")
    token = guard.approve(ask(guard, repo).id)
    outcomes, start = [], threading.Barrier(6)

    def try_it():
        start.wait()
        try:
            outcomes.append(repository.commit(guard, token).commit)
        except HiveError as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted([repo.head, *["TokenSpent"] * 5]) == sorted(outcomes)
    assert "2" == repo("rev-list", "--count", "HEAD")


def test_a_branch_that_moved_is_superseded_and_never_merged(guard, repo):
    """Found out before the token is used, and the token is no good afterwards."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    token = guard.approve(request.id)
    repo.write("sub/b.txt", "other\n")
    repo("commit", "-qm", "meanwhile", "sub/b.txt")
    head = repo.head

    for _ in range(2):
        with pytest.raises(Superseded, match="superseded"):
            repository.commit(guard, token)

    assert (head, "superseded") == (repo.head, guard.get(request.id).state)
    assert "spent" not in [entry.event for entry in guard.history(request=request.id)]


def test_a_branch_that_moves_at_the_last_moment_is_superseded(guard, repo, monkeypatch):
    """Between spending and moving it, git compares."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    token = guard.approve(request.id)
    spend = guard.spend

    def spend_and_lose_the_race(*arguments, **options):
        spent = spend(*arguments, **options)
        repo("commit", "-qm", "meanwhile", "--allow-empty")
        return spent

    monkeypatch.setattr(guard, "spend", spend_and_lose_the_race)
    with pytest.raises(Superseded):
        repository.commit(guard, token)

    assert ("meanwhile", "superseded") == (
        repo("log", "-1", "--format=%s"),
        guard.get(request.id).state,
    )
    assert " M a.py" == repo("status", "--porcelain")


def test_a_branch_that_git_has_locked_is_not_moved_and_the_request_is_void(guard, repo):
    """Its token is spent: what went wrong after that is never tried again by itself."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    (repo.folder / ".git/refs/heads/main.lock").touch()

    with pytest.raises(RepositoryError, match="main.lock") as caught:
        commit(guard, request)

    assert "update-ref" == caught.value.command[0]
    assert f"request {request.id} is void. Ask again" in str(caught.value)
    assert "void" == guard.get(request.id).state
    with pytest.raises(TokenSpent, match="is void: its approval was used, and its branch did not"):
        guard.approve(request.id)
    assert "1" == repo("rev-list", "--count", "HEAD")


def test_an_expired_token_commits_nothing(tmp_path, repo):
    """And is not called denied."""
    now = [1000.0]
    guard = AuthorizationGuard(tmp_path / "l", lambda: now[0], lambda: now[0])
    repo.write("a.py", "2\n")
    token = guard.approve(ask(guard, repo).id)
    now[0] += 300

    with pytest.raises(TokenExpired):
        repository.commit(guard, token)
    assert "1" == repo("rev-list", "--count", "HEAD")
    assert ["refused", "expired"] == [entry.event for entry in guard.history(2)]
    assert "TokenExpired" == guard.history(1)[0].details["error"]


def test_the_token_of_a_call_commits_nothing(guard, repo):
    """And is recorded as refused."""
    asked = guard.request_call(tool="t", arguments={}, worker="w", requester="agent")
    token = guard.approve(asked.id)

    with pytest.raises(TokenMismatch, match="for a call, not for a commit"):
        repository.commit(guard, token)
    assert "refused" == guard.history()[0].event


def test_a_request_made_by_hand_is_committed_too(guard, repo):
    """The public contract, with a tree that the repository has already."""
    repo.write("a.py", "2\n")
    repo("add", "a.py")
    tree = repo("write-tree")
    request = guard.request(
        repository=repo.folder / ".git", ref="refs/heads/main", parent=repo.head, tree=tree,
        message="By hand", requester="x",
    )  # fmt: skip

    assert "+2" in request.diff()
    assert commit(guard, request) == repo.head
    assert "" == repo("status", "--porcelain")


@pytest.mark.parametrize(
    "changes",
    [
        {"tree": "HEAD"}, {"parent": "--help"}, {"ref": "HEAD"}, {"ref": "refs/../x"},
        {"repository": "/nowhere"}, {"repository": "."}, {"author": "nobody"}, {"tree": "0" * 40},
    ],
)  # fmt: skip
def test_a_request_that_git_cannot_carry_out_spends_nothing(guard, repo, changes):
    """Nor does git take any of it for an option or an expression."""
    repo.write("a.py", "2\n")
    repo("add", "a.py")
    values = {
        "repository": repo.folder / ".git", "ref": "refs/heads/main", "parent": repo.head,
        "tree": repo("write-tree"), "message": "m", "requester": "x", **changes,
    }  # fmt: skip
    token = guard.approve(guard.request(**values).id)

    with pytest.raises((RepositoryError, Superseded)):
        repository.commit(guard, token)

    assert "spent" not in [entry.event for entry in guard.history()]
    assert "1" == repo("rev-list", "--count", "--all")


def test_content_that_was_changed_after_it_was_frozen_never_gets_in(guard, repo):
    """An object that does not have the content of its name is found before anything is spent."""
    repo.write("a.py", "approved\n")
    request = ask(guard, repo)
    token = guard.approve(request.id)
    blob = repo("hash-object", "a.py")
    evil = repo.folder.parent / "evil"
    evil.write_text("evil\n")
    other = repo("hash-object", "-w", str(evil))
    stored = os.path.join(request.private, "objects", blob[:2], blob[2:])
    os.chmod(stored, 0o644)
    shutil.copyfile(repo.folder / f".git/objects/{other[:2]}/{other[2:]}", stored)

    with pytest.raises(RepositoryError):
        repository.commit(guard, token)

    assert "approved" == guard.get(request.id).state
    assert "1" == repo("rev-list", "--count", "HEAD")


def test_a_request_whose_content_is_gone_says_so(guard, repo):
    """In its diff, too."""
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    shutil.rmtree(request.private)

    for use in (request.diff, lambda: commit(guard, request)):
        with pytest.raises(RepositoryError, match="kept no more. Ask for the commit again"):
            use()


def test_commits_are_signed_where_the_user_has_them_signed(guard, repo, home):
    """By the user's own program, never by one that the repository names."""
    key = home / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (home / "allowed").write_text(f"{ADDRESS} {(home / 'key.pub').read_text()}")
    with (home / ".gitconfig").open("a") as file:
        file.write(
            f"[commit]\n gpgsign = true\n[gpg]\n format = ssh\n[user]\n signingkey = {key}\n"
        )
        file.write(f'[gpg "ssh"]\n allowedSignersFile = {home / "allowed"}\n')
    evil = repo.write("evil", "#!/bin/sh\ntouch ran\nexit 1\n", 0o755)
    repo("config", "gpg.ssh.program", str(evil))
    repo("config", "gpg.ssh.defaultKeyCommand", str(evil))
    repo("config", "commit.gpgsign", "false")
    repo.write("a.py", "2\n")

    commit(guard, ask(guard, repo))

    repo("config", "--unset", "gpg.ssh.program")
    repo("config", "--unset", "commit.gpgsign")
    assert "G" == repo("log", "-1", "--format=%G?")
    assert not list(repo.folder.parent.rglob("ran"))


def test_a_signature_that_cannot_be_made_spends_nothing(guard, repo, home):
    """The user may mend it and use the token."""
    program = home / "gpg"
    program.write_text("#!/bin/sh\necho no key >&2\nexit 2\n")
    program.chmod(0o755)
    with (home / ".gitconfig").open("a") as file:
        file.write(f"[commit]\n gpgsign = true\n[gpg]\n program = {program}\n")
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    token = guard.approve(request.id)

    with pytest.raises(RepositoryError, match="gpg failed to sign"):
        repository.commit(guard, token)
    assert "approved" == guard.get(request.id).state

    repo("config", "--global", "commit.gpgsign", "false")
    assert repository.commit(guard, token).commit == repo.head


@pytest.mark.parametrize("command", ["merge", "rebase", "rebase --apply"])
def test_what_began_since_the_request_is_finished_first(guard, repo, command):
    """A rebase that waits for the user could not go on where a commit got in between."""
    diverge(repo)
    repo.write("new.py")
    token = guard.approve(ask(guard, repo, ["new.py"]).id)
    (repo.folder / "new.py").unlink()
    repo(*command.split(), "other", check=False)
    before = repo("rev-parse", "main")

    with pytest.raises(RepositoryError, match="is under way in this repository"):
        repository.commit(guard, token)
    assert before == repo("rev-parse", "main")
    repo(command.split()[0], "--abort")
    assert repository.commit(guard, token).commit == repo.head


def test_what_is_denied_while_it_is_signed_leaves_nothing_in_the_repository(
    guard, repo, monkeypatch
):
    """Objects become part of the repository with the commit only."""
    repo.write("a.py", "never seen there\n")
    request = ask(guard, repo)
    make = repository._commit_tree

    def deny_meanwhile(*arguments):
        guard.deny(request.id)
        return make(*arguments)

    monkeypatch.setattr(repository, "_commit_tree", deny_meanwhile)
    with pytest.raises(RequestDenied):
        commit(guard, request)

    blob = repo("hash-object", "a.py")
    assert "missing" in repo("cat-file", "--batch-check", stdin=blob.encode())


def test_a_commit_waits_for_another_one_for_a_while(guard, repo, monkeypatch):
    """And not for ever: the other process may be stopped."""
    repo.write("a.py", "2\n")
    token = guard.approve(ask(guard, repo).id)
    monkeypatch.setattr(repository, "_PATIENCE", 0.05)

    with (
        repository._lock(guard, wait=0),
        pytest.raises(LedgerError, match="Another commit has been under way"),
    ):
        repository.commit(guard, token)

    assert repository.commit(guard, token).commit == repo.head
