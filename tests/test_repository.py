"""What a human saw is what is committed, and nothing of a repository's gets to run."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
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
from hive_jupyter.guard import configuration, freeze, index, programs, repository
from hive_jupyter.guard import git as gits
from hive_jupyter.guard.authorization import AuthorizationGuard
from hive_jupyter.guard.repository import Made
from hive_jupyter.guard.requests import Requester
from tests import hosts
from tests.processes import wait_until
from tests.repos import Repo, at_home

USER = Requester("user", "ada")
NAME, ADDRESS = "Ada Lovelace", "ada@example.org"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user with a name, and no other configuration than a test's."""
    folder = at_home(tmp_path, monkeypatch)
    (folder / ".gitconfig").write_text(
        f'[user]\n name = {NAME}\n email = {ADDRESS}\n[protocol "file"]\n allow = always\n'
    )
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """What each test's repository is a copy of."""
    made = Repo(tmp_path_factory.mktemp("template") / "repo")
    made("config", "user.name", NAME)
    made("config", "user.email", ADDRESS)
    made.write("a.py", "a = 1\n")
    made.write("sub/b.txt", "b\n" * 10)
    made.commit_all("begin")
    made("config", "--remove-section", "user")
    return made.folder


@pytest.fixture
def repo(tmp_path, template):
    shutil.copytree(template, tmp_path / "repo", symlinks=True)
    return Repo.at(tmp_path / "repo")


@pytest.fixture
def guard(tmp_path):
    return AuthorizationGuard(tmp_path / "data" / "ledger.sqlite")


def ask(guard, repo, paths=None, message="Change it", **options):
    options = {"requester": USER, **options}
    return repository.request_commit(guard, repo.folder, message, paths=paths, **options)[0]


def commit(guard, request):
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


# --- asking ---


def test_asking_leaves_the_repository_as_it_was_to_the_last_byte(guard, repo):
    """Index, objects and files, in each of the three ways to say what."""
    repo.write("a.py", "a = 2\n")
    repo.write("new.py", "new\n")
    before = snapshot(repo.folder)
    for paths in (None, ["a.py", "new.py"]):
        ask(guard, repo, paths).diff()
    assert before == snapshot(repo.folder)

    repo("add", "a.py")
    before = snapshot(repo.folder)
    ask(guard, repo).diff()
    assert before == snapshot(repo.folder)


def test_without_paths_it_is_what_is_staged(guard, repo):
    """As it was staged, whatever the file says by now; and the rest stays as it is."""
    repo.write("a.py", "staged\n")
    repo.write("fresh.py", "fresh\n")
    repo("add", "a.py", "fresh.py")
    repo.write("a.py", "later\n")
    repo.write("sub/b.txt", "not staged\n")

    request, frozen = repository.request_commit(guard, repo.folder, "m", requester=USER)
    commit(guard, request)

    assert "what is staged" == frozen.content
    assert ["a.py", "fresh.py"] == repo.changed()
    assert ("staged", " M a.py\n M sub/b.txt") == (repo.show("a.py"), repo("status", "--porcelain"))


def test_without_paths_and_with_nothing_staged_it_is_what_is_tracked(guard, repo):
    """Changed, deleted and made executable; nothing new."""
    repo.write("a.py", "a = 2\n", 0o755)
    (repo.folder / "sub/b.txt").unlink()
    repo.write("new.py")

    request, frozen = repository.request_commit(guard, repo.folder, "m", requester=USER)
    commit(guard, request)

    assert "the changes of tracked files" == frozen.content
    assert ["a.py", "sub/b.txt"] == repo.changed()
    assert "100755" == repo("ls-tree", "HEAD", "a.py")[:6]
    assert "?? new.py" == repo("status", "--porcelain")


def test_with_paths_it_is_their_present_content_and_nothing_else(guard, repo):
    """New files included, what is staged elsewhere not; and it stays staged."""
    repo.write("a.py", "staged first\n")
    repo("add", "a.py")
    repo.write("a.py", "now\n")
    repo.write("sub/b.txt", "staged\n")
    repo("add", "sub/b.txt")
    repo.write("sub/deep/new.txt", "new\n")

    commit(guard, ask(guard, repo, ["a.py", "sub/deep"]))

    assert ["a.py", "sub/deep/new.txt"] == repo.changed()
    assert ("now", "M  sub/b.txt") == (repo.show("a.py"), repo("status", "--porcelain"))


def test_paths_are_relative_to_the_folder_and_taken_by_the_letter(guard, repo):
    """A star is a name here; and a file that was deleted can be named, too."""
    repo.write("sub/*.py", "star\n")
    repo.write("sub/x.py", "not this\n")
    (repo.folder / "a.py").unlink()

    request, _ = repository.request_commit(
        guard, repo.folder / "sub", "m", requester=USER, paths=["*.py", "../a.py"]
    )
    commit(guard, request)

    assert ["a.py", "sub/*.py"] == repo.changed()
    assert "?? sub/x.py" == repo("status", "--porcelain")


def test_the_whole_folder_can_be_named(guard, repo):
    """With what is new in it, and without what git ignores or is a repository of its own."""
    for name in ("ignored.log", "excluded.log", "hidden.log", "new.py"):
        repo.write(name)
    repo.write(".gitignore", "ignored.log\n")
    (repo.folder / ".git/info").mkdir(exist_ok=True)
    (repo.folder / ".git/info/exclude").write_text("excluded.log\n")
    ignore = repo.folder.parent / "home/.config/git/ignore"
    ignore.parent.mkdir(parents=True)
    ignore.write_text("hidden.log\n")
    Repo(repo.folder / "nested").write("inside.py")
    repo("-C", "nested", "commit", "--allow-empty", "-qm", "x")

    commit(guard, ask(guard, repo, ["."]))

    assert [".gitignore", "new.py"] == repo.changed()
    assert "?? nested/" == repo("status", "--porcelain")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing.py", '"missing.py" does not exist'),
        ("*.py", "does not exist. Patterns are taken by the letter"),
        ("ignored.log", '"ignored.log" has nothing to commit: it is empty, or ignored'),
        ("nested", '"nested" is, or is in, a repository of its own'),
        ("nested/inside.py", '"nested/inside.py" is, or is in, a repository of its own'),
        (".git/config", "has nothing to commit"),
    ],
)
def test_a_path_with_nothing_to_commit_is_named(guard, repo, path, why):
    """And nothing is asked."""
    repo.write("a.py", "changed\n")
    repo.write("ignored.log")
    repo.write(".gitignore", "*.log\n")
    Repo(repo.folder / "nested").write("inside.py")
    repo("-C", "nested", "commit", "--allow-empty", "-qm", "x")

    with pytest.raises(RepositoryError, match=re.escape(why)):
        ask(guard, repo, ["a.py", path])

    assert [] == guard.pending()
    assert not any((guard.ledger.path.parent / "frozen").iterdir())


@pytest.mark.parametrize("paths", ["a.py", b"a.py", [""], ["a.py", ""]])
def test_what_is_no_list_of_paths_is_refused(guard, repo, paths):
    """An empty path would be the whole folder, and a text a path for each letter."""
    repo.write("a.py", "changed\n")

    with pytest.raises(ConfigError, match="are no paths"):
        ask(guard, repo, paths)


def test_where_only_new_files_are_they_have_to_be_named(guard, repo):
    repo.write("new.py")

    with pytest.raises(RepositoryError, match="New files have to be named"):
        ask(guard, repo)


def test_a_path_outside_is_refused(guard, repo, tmp_path):
    """Also by way of a link."""
    (repo.folder / "out").symlink_to(tmp_path)

    for path in ("../elsewhere", tmp_path / "x", "out/x"):
        with pytest.raises(RepositoryError, match="not in the repository's work tree"):
            ask(guard, repo, [path])


def test_nothing_to_commit_is_told(guard, repo):
    """Touched files are no change."""
    os.utime(repo.folder / "a.py", (1, 1))

    for paths in (None, ["a.py"]):
        with pytest.raises(RepositoryError, match="nothing to commit"):
            ask(guard, repo, paths)


def test_what_a_file_becomes_is_taken_as_it_is(guard, repo):
    """A link, a folder in place of a file and the other way round."""
    (repo.folder / "a.py").unlink()
    repo.write("a.py/inside.txt", "in\n")
    shutil.rmtree(repo.folder / "sub")
    (repo.folder / "sub").symlink_to("/etc")
    request = ask(guard, repo, ["."])
    assert {"a.py: deleted", "a.py/inside.txt: new", "sub: new", "sub/b.txt: deleted"} == {
        f"{change.name}: {change.what}" for change in request.changes()
    }

    commit(guard, request)

    assert ["120000", "/etc"] == [repo("ls-tree", "HEAD", "sub")[:6], repo.show("sub")]
    assert "" == repo("status", "--porcelain")


def test_a_tracked_folder_behind_a_link_counts_as_gone(guard, repo, tmp_path):
    """What is outside is never read."""
    shutil.move(repo.folder / "sub", tmp_path / "outside")
    (tmp_path / "outside/b.txt").write_text("secret\n")
    (repo.folder / "sub").symlink_to(tmp_path / "outside")

    request = ask(guard, repo)

    assert [("D", "sub/b.txt")] == [(one.raw.status, one.raw.path) for one in request.changes()]


def test_line_ends_are_converted_as_git_would(guard, repo):
    """By the repository's attributes and configuration, which name no program."""
    repo("config", "core.autocrlf", "input")
    repo.write(".gitattributes", "*.keep -text\n")
    (repo.folder / ".git/info/attributes").write_text("*.bat eol=crlf\n")
    for name in ("x.txt", "x.keep", "x.bat"):
        repo.write(name, "a\r\nb\r\n")
    request = ask(guard, repo, ["."])
    commit(guard, request)

    assert {"x.txt": "a\nb", "x.keep": "a\r\nb\r", "x.bat": "a\nb"} == {
        name: repo.show(name) for name in ("x.txt", "x.keep", "x.bat")
    }
    assert "" == repo("status", "--porcelain")


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.txt", "ü\u202e.py".encode(), b'q"uo\te\\.txt', b"new\nline", b"-rf", b"tab\tbed"],
)
def test_any_file_name_is_committed_and_shown_without_harm(guard, repo, name):
    """Git takes all but NUL and the slash."""
    path = os.fsdecode(name)
    with open(os.path.join(os.fsencode(repo.folder), name), "w") as file:
        file.write("content\n")

    request = ask(guard, repo, [path])
    assert [path] == [change.raw.path for change in request.changes()]
    text = request.diff()
    commit(guard, request)

    assert "+content" in text
    assert all(letter.isprintable() or letter in "\n\t" for letter in text)
    assert path in repo("ls-tree", "-z", "--name-only", "HEAD").split("\0")
    assert "" == repo("status", "--porcelain")


def test_who_commits_is_whom_git_knows(guard, repo):
    """The repository may know somebody else than the user's own configuration."""
    repo("config", "user.name", "Countess")
    repo.write("a.py", "2\n")

    request = ask(guard, repo)
    time_of_it = request.author.split(">")[1]
    commit(guard, request)

    assert f"Countess <{ADDRESS}>{time_of_it}" == request.author == request.committer
    assert request.author == repo("log", "-1", "--date=raw", "--format=%an <%ae> %ad")


def test_nobody_commits_under_a_guessed_name(guard, repo, home):
    """As git would do it with the host's name."""
    (home / ".gitconfig").write_text("")
    repo.write("a.py", "2\n")

    with pytest.raises(RepositoryError, match="git config --global user.name"):
        ask(guard, repo)


def test_what_is_committed_already_is_called_so(guard, repo):
    repo.write("a.py", "2\n")
    request = ask(guard, repo)
    made = commit(guard, request)

    for answer in (guard.approve, guard.deny):
        with pytest.raises(TokenSpent, match=f"is committed already, as {made}"):
            answer(request.id)


@pytest.mark.parametrize("named", [(), ("post-commit",)])
def test_hooks_that_do_not_run_are_named(guard, repo, named):
    """To who asks and to who answers."""
    repo.write(".git/hooks/pre-commit", "#!/bin/sh\ntouch ran\n", 0o755)
    repo.write(".git/hooks/commit-msg", "", 0o644)
    repo.write("a.py", "2\n")

    repo("config", "core.hooksPath", ".git/hooks")
    if named:
        repo("config", "hook.check.command", "true")
        repo("config", "--add", "hook.check.event", "post-commit")
        repo("config", "--add", "hook.check.event", "pre-push")
    request = ask(guard, repo)

    assert ("pre-commit", *named) == request.skipped_hooks == guard.get(request.id).skipped_hooks
    assert f"not run    hooks of yours: {', '.join(request.skipped_hooks)}\n" in request.text()


def test_a_refused_request_keeps_no_content(guard, repo):
    """Eight wait; a ninth leaves nothing behind."""
    repo.write("a.py", "2\n")
    for _ in range(8):
        ask(guard, repo)

    with pytest.raises(TooManyRequests):
        ask(guard, repo)

    assert 8 == len(list((guard.ledger.path.parent / "frozen").iterdir()))
    assert 0o700 == (guard.ledger.path.parent / "frozen").stat().st_mode & 0o777


# --- committing ---


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


# --- kinds of repositories ---


def test_the_first_commit_of_a_repository(guard, tmp_path):
    """It has no parent; two requests for it are rivals as any others."""
    repo = Repo(tmp_path / "fresh")
    repo.write("a.py", "1\n")
    request, other = ask(guard, repo, ["a.py"]), ask(guard, repo, ["."])
    assert (None, "refs/heads/main") == (request.parent, request.ref)
    assert "+1" in request.diff()

    commit(guard, request)

    assert ("1", "") == (repo("rev-list", "--count", "HEAD"), repo("status", "--porcelain"))
    assert "superseded" == guard.get(other.id).state


def test_a_first_commit_that_somebody_else_made_first(guard, tmp_path):
    """The branch is there by now."""
    repo = Repo(tmp_path / "fresh")
    repo.write("a.py", "1\n")
    token = guard.approve(ask(guard, repo, ["a.py"]).id)
    repo("commit", "--allow-empty", "-qm", "first")

    with pytest.raises(Superseded):
        repository.commit(guard, token)


def test_a_sha256_repository(guard, tmp_path):
    """Its hashes are longer."""
    repo = Repo(tmp_path / "long", "--object-format=sha256")
    repo.write("a.py", "1\n")
    repo.write("b.py", "1\n")
    repo.commit_all()
    repo.write("a.py", "2\n")
    (repo.folder / "b.py").unlink()
    for paths in (["a.py", "b.py"], None):
        request = ask(guard, repo, paths)
        assert (64, 64) == (len(request.tree), len(request.parent))
        assert "+2" in request.diff()

    assert 64 == len(commit(guard, request))
    assert "" == repo("status", "--porcelain")
    repo("fsck", "--strict")


def test_a_linked_worktree_has_its_own_branch_and_index(guard, repo, tmp_path):
    """The main one does not notice."""
    repo("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    linked = Repo.at(tmp_path / "linked")
    linked.write("a.py", "side\n")
    linked.write("n.py", "n\n")
    before = snapshot(repo.folder / "sub"), (repo.folder / ".git/index").read_bytes(), repo.head

    request = ask(guard, linked, ["."])
    assert "refs/heads/side" == request.ref
    commit(guard, request)

    assert before == (
        snapshot(repo.folder / "sub"), (repo.folder / ".git/index").read_bytes(), repo.head,
    )  # fmt: skip
    assert "" == linked("status", "--porcelain") == repo("status", "--porcelain")
    assert ["a.py", "n.py"] == linked.changed()


def test_a_detached_head_is_refused_with_the_way_out(guard, repo):
    """A commit on it would be lost."""
    repo("switch", "--quiet", "--detach")
    repo.write("a.py", "2\n")

    with pytest.raises(RepositoryError, match="git switch -c NAME"):
        ask(guard, repo)


@pytest.mark.parametrize(
    "command",
    [("merge", "other"), ("cherry-pick", "other"), ("rebase", "other"), ("revert", "HEAD~1")],
)
def test_what_is_under_way_is_finished_first(guard, repo, command):
    """Its conflicts are the user's."""
    repo("switch", "--quiet", "-c", "other")
    repo.write("a.py", "theirs\n")
    repo.commit_all()
    repo("switch", "--quiet", "main")
    repo.write("a.py", "ours\n")
    repo.commit_all()
    repo.write("a.py", "ours again\n")
    repo.commit_all()
    repo(*command, check=False)

    with pytest.raises(RepositoryError, match="under way in this repository. Finish or abort"):
        ask(guard, repo)


@pytest.mark.parametrize("command", ["merge", "rebase", "rebase --apply"])
def test_what_began_since_the_request_is_finished_first(guard, repo, command):
    """A rebase that waits for the user could not go on where a commit got in between."""
    repo("switch", "--quiet", "-c", "other")
    repo.write("a.py", "theirs\n")
    repo.commit_all()
    repo("switch", "--quiet", "main")
    repo.write("a.py", "ours\n")
    repo.commit_all()
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


def test_files_in_conflict_are_refused(guard, repo):
    """As a stash leaves them, with nothing else under way."""
    repo.write("a.py", "stashed\n")
    repo("stash", "--quiet")
    repo.write("a.py", "committed\n")
    repo.commit_all()
    repo("stash", "pop", check=False)

    for paths in (None, ["."], ["a.py"]):
        with pytest.raises(RepositoryError, match="a.py is in conflict"):
            ask(guard, repo, paths)
    repo.write("sub/b.txt", "new\n")
    assert ["sub/b.txt"] == [change.name for change in ask(guard, repo, ["sub"]).changes()]


def submodule(repo, tmp_path):
    inner = Repo(tmp_path / "inner")
    inner.write("x.py", "1\n")
    inner.commit_all()
    repo("submodule", "--quiet", "add", str(inner.folder), "module")
    repo.commit_all()
    return Repo.at(repo.folder / "module")


def test_a_submodules_new_commit_is_shown_where_it_was_staged_and_not_taken_otherwise(
    guard, repo, tmp_path
):
    """Hive does not go into it."""
    inside = submodule(repo, tmp_path)
    inside.write("x.py", "2\n")
    made = inside.commit_all()
    repo.write("a.py", "2\n")
    for paths in (None, ["."]):
        request, frozen = repository.request_commit(
            guard, repo.folder, "m", paths=paths, requester=USER
        )
        assert ("module",) == frozen.submodules
        assert ["a.py"] == [change.name for change in request.changes()]
    for path in ("module", "module/x.py"):
        with pytest.raises(RepositoryError, match="module is a submodule"):
            ask(guard, repo, [path])

    repo("add", "module")
    with pytest.raises(RepositoryError, match="module is a submodule"):
        ask(guard, repo, ["."])
    request = ask(guard, repo)

    assert f"+Subproject commit {made}" in request.diff()
    assert ("is a submodule",) == request.changes()[0].marks
    commit(guard, request)
    assert " M a.py" == repo("status", "--porcelain")


def test_a_commit_inside_of_a_submodule(guard, repo, tmp_path):
    """Its git dir is elsewhere."""
    inside = submodule(repo, tmp_path)
    inside.write("x.py", "2\n")

    request = ask(guard, inside)
    assert str(repo.folder / ".git/modules/module") == request.repository
    commit(guard, request)

    assert ("", " M module") == (inside("status", "--porcelain"), repo("status", "--porcelain"))


def test_a_file_that_became_a_repository_is_refused(guard, repo):
    """It would be committed as a submodule that there is not."""
    (repo.folder / "a.py").unlink()
    nested = Repo(repo.folder / "a.py")
    nested.write("x")
    nested.commit_all()

    for paths in (None, ["."]):
        with pytest.raises(RepositoryError, match="a.py is a submodule"):
            ask(guard, repo, paths)


@pytest.mark.parametrize("index", ["--no-sparse-index", "--sparse-index"])
def test_a_sparse_checkout_deletes_nothing(guard, repo, index):
    """What is not checked out is not gone."""
    repo.write("out/c.txt", "c\n")
    repo.write("in/d.txt", "d\n")
    repo.commit_all()
    repo("sparse-checkout", "set", "--cone", index, "in")
    assert not (repo.folder / "out").exists()
    repo.write("in/d.txt", "d2\n")

    for paths in (None, ["."], ["in"]):
        request = ask(guard, repo, paths)
        assert ["in/d.txt"] == [change.name for change in request.changes()]
    commit(guard, request)

    assert ("", "c") == (repo("status", "--porcelain"), repo.show("out/c.txt"))


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


def test_a_shallow_clone(guard, repo, tmp_path):
    """Its history ends somewhere."""
    for number in range(3):
        repo.write("a.py", f"{number}\n")
        repo.commit_all()
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", f"file://{repo.folder}", str(tmp_path / "clone")],
        check=True,
    )
    clone = Repo.at(tmp_path / "clone")
    clone.write("a.py", "shallow\n")

    commit(guard, ask(guard, clone))

    assert "2" == clone("rev-list", "--count", "HEAD")
    clone("fsck")


def test_replaced_objects_are_seen_as_they_are(guard, repo):
    """Neither refs nor grafts show another parent or another content."""
    (repo.folder / "evil").write_text("shown instead\n")
    evil = repo("hash-object", "-w", "evil")
    repo.write("a.py", "the truth\n")
    truth = repo("hash-object", "-w", "a.py")
    repo("replace", truth, evil)
    repo("add", "a.py")

    assert "+the truth" in ask(guard, repo).diff()


def test_a_file_that_is_left_out_of_the_work_tree_is_not_deleted_though_it_was_staged(guard, repo):
    """Its content is in the index alone, where it stays."""
    repo.write("sub/b.txt", "staged\n")
    repo("add", "sub/b.txt")
    repo("update-index", "--skip-worktree", "sub/b.txt")
    (repo.folder / "sub/b.txt").unlink()
    repo.write("a.py", "2\n")

    request = ask(guard, repo, ["."])
    commit(guard, request)

    assert ["a.py"] == repo.changed()
    assert "M  sub/b.txt" == repo("status", "--porcelain")


@pytest.mark.parametrize("kind", ["none", "bare", "inside"])
def test_what_is_no_work_tree_is_refused(guard, repo, tmp_path, kind):
    """With git's reason."""
    folder = {"none": tmp_path, "bare": tmp_path / "bare", "inside": repo.folder / ".git"}[kind]
    if kind == "bare":
        Repo(folder, "--bare")

    with pytest.raises(RepositoryError, match="in no work tree that can be committed from"):
        repository.request_commit(guard, folder, "m", requester=USER)


def test_a_repository_that_points_elsewhere_is_refused(guard, repo, tmp_path):
    """Its configuration may name any folder as its work tree."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    repo("config", "core.worktree", str(elsewhere))

    with pytest.raises(RepositoryError, match="says that its files are in"):
        ask(guard, repo)


# --- attacks ---


@pytest.fixture
def trap(repo, tmp_path):
    """A program that leaves a mark when it runs, and where it is to be put."""
    mark = tmp_path / "it ran"
    script = f'#!/bin/sh\ntouch "{mark}"\ncat\n'
    repo.write("trap.sh", script, 0o755)
    repo("add", "trap.sh")
    repo("commit", "-qm", "trap")
    yield lambda path, mode=0o755: repo.write(path, script, mode)
    assert not mark.exists()


def whole_way(guard, repo, monkeypatch, folder=None):
    """Ask in all ways, look, be refused, commit, and look for cut-off ones, as a host would."""
    monkeypatch.chdir(folder or repo.folder)
    repo.write("a.py", "changed\n")
    for paths in (None, ["a.py"], ["."]):
        request = ask(guard, repo, paths)
        assert "+changed" in request.diff()
    other = guard.get(ask(guard, repo, ["a.py"]).id)
    made = commit(guard, request)
    repository.settle(guard)
    with pytest.raises(Superseded):
        guard.approve(other.id)
    return made


HOOKS = (
    "reference-transaction", "post-index-change", "pre-commit", "commit-msg", "post-commit",
    "prepare-commit-msg", "pre-auto-gc", "post-checkout", "post-rewrite", "fsmonitor-watchman",
)  # fmt: skip


@pytest.mark.parametrize("where", [".git/hooks", ".", "hooks"])
def test_no_hook_runs(guard, repo, trap, monkeypatch, where):
    """Neither one in its place, nor by a relative core.hooksPath that the work tree fills."""
    if where != ".git/hooks":
        repo("config", "core.hooksPath", where)
    for hook in HOOKS:
        trap(f"{where}/{hook}")
    (repo.folder / ".gitignore").write_text("/*-*\nhooks\n")

    whole_way(guard, repo, monkeypatch)


@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_no_filter_runs(guard, repo, trap, monkeypatch, scope):
    """A relative command in the work tree, chosen by the work tree's own attributes."""
    for name in ("clean", "smudge", "process"):
        repo("config", scope, f"filter.evil.{name}", "./trap.sh")
    repo("config", scope, "filter.evil.required", "true")
    repo.write(".gitattributes", "*.txt filter=evil\n")
    (repo.folder / ".git/info/attributes").write_text("*.dat filter=evil\n")
    repo.write("x.dat", "x\n")

    repo.write("sub/b.txt", "changed\n")
    for paths in (["sub"], ["x.dat"], None):
        with pytest.raises(RepositoryError, match="goes through the filter 'evil'"):
            ask(guard, repo, paths)
    (repo.folder / "sub/b.txt").unlink()
    (repo.folder / "x.dat").unlink()
    (repo.folder / ".gitattributes").unlink()
    whole_way(guard, repo, monkeypatch)


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


@pytest.mark.parametrize("attribute", ["binary", "diff=evil"])
def test_attributes_hide_no_line_and_name_no_program(guard, repo, trap, monkeypatch, attribute):
    """Of the work tree, the index, the repository, and the user."""
    for name in ("textconv", "command"):
        repo("config", f"diff.evil.{name}", "./trap.sh")
    repo("config", "diff.external", "./trap.sh")
    repo.write(".gitattributes", f"*.py {attribute}\n")
    (repo.folder / ".git/info/attributes").write_text(f"*.py {attribute}\n")
    repo.commit_all()
    home = repo.folder.parent / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/attributes").write_text(f"*.py {attribute}\n")

    whole_way(guard, repo, monkeypatch)


def test_no_configured_program_runs(guard, repo, trap, monkeypatch):
    """fsmonitor, signing, pagers, editors, askpass, ssh, and hooks by name (git 2.54)."""
    for name in (
        "core.fsmonitor", "core.pager", "core.editor", "core.askPass", "core.sshCommand",
        "core.gitProxy", "core.alternateRefsCommand", "gpg.program", "credential.helper",
        "sequence.editor", "interactive.diffFilter", "uploadpack.packObjectsHook",
        "trailer.x.command", "merge.x.driver", "alias.diff-tree", "alias.update-ref",
        "pager.diff-tree", "hook.evil.command", "hook.e=vil.command",
    ):  # fmt: skip
        value = str(repo.folder / "trap.sh")
        repo("config", name, f"!{value}" if name.startswith("alias") else value)
    repo("config", "hook.evil.event", "reference-transaction")
    repo("config", "hook.e=vil.event", "post-index-change")
    repo("config", "user.signingkey", "x")

    whole_way(guard, repo, monkeypatch)


def test_hooks_by_name_are_turned_off_by_name(repo):
    """As git 2.54 runs them; this one may be older."""
    repo("config", "hook.e=v.il.event", "reference-transaction")

    settings = gits.at(str(repo.folder / ".git")).settings

    assert {**gits.LASTING, "hook.e=v.il.enabled": "false"} == settings


def test_a_bare_layout_in_a_subfolder_is_not_entered(guard, repo, trap, monkeypatch):
    """Files that look like a repository are files; its fsmonitor is one of them."""
    for name in ("config", "HEAD"):
        repo.write(f"sub/{name}", (repo.folder / ".git" / name).read_bytes())
    for name in ("objects/x", "refs/x"):
        repo.write(f"sub/{name}")
    with (repo.folder / "sub/config").open("a") as file:
        file.write(
            f"[core]\n bare = false\n worktree = {repo.folder}\n hooksPath = .\n"
            f" fsmonitor = {repo.folder}/trap.sh\n"
        )

    with pytest.raises(RepositoryError, match="in no work tree that can be committed from"):
        repository.request_commit(guard, repo.folder / "sub", "m", requester=USER)
    whole_way(guard, repo, monkeypatch, repo.folder / "sub")
    assert "sub/HEAD" in repo.changed()


def test_a_nested_repository_is_not_entered(guard, repo, trap, monkeypatch):
    """git status of the outer one would run the fsmonitor of the inner one."""
    inside = Repo(repo.folder / "nested")
    inside.write("x.py")
    inside.commit_all()
    repo("submodule", "--quiet", "add", "./nested", "nested", check=False)
    repo("add", "nested")
    repo.commit_all()
    inside.write("x.py", "dirty\n")
    inside("config", "core.fsmonitor", str(repo.folder / "trap.sh"))
    inside("config", "core.hooksPath", str(repo.folder))
    trap("post-index-change")
    (repo.folder / ".gitignore").write_text("post-index-change\n")

    monkeypatch.chdir(repo.folder)
    repo.write("a.py", "changed\n")
    commit(guard, ask(guard, repo))
    commit(guard, ask(guard, repo, ["trap.sh", ".gitignore"]))


def test_a_pointer_to_a_repository_of_a_workers_is_no_way_in(
    guard, repo, trap, monkeypatch, tmp_path
):
    """A file .git may lead anywhere; nothing of what it leads to runs."""
    shutil.move(repo.folder / ".git", repo.folder / "planted")
    repo.write(".git", "gitdir: planted\n")
    repo.write(".gitignore", "planted\n")
    repo("config", "core.fsmonitor", "./trap.sh")
    for hook in HOOKS:
        trap(f"planted/hooks/{hook}")

    whole_way(guard, repo, monkeypatch)


def test_a_repository_beside_its_pointer_names_no_programs(guard, repo, trap, monkeypatch):
    """Neither git nor what it calls is taken from the work tree, which is not beside a .git."""
    shutil.move(repo.folder / ".git", repo.folder.parent / "planted")
    repo.write(".git", "gitdir: ../planted\n")
    (repo.folder.parent / "planted/info/exclude").write_text(".venv\n")
    trap(".venv/bin/git")
    monkeypatch.setenv("PATH", f"{repo.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}")
    real = programs.find_git(programs.trusted_path(str(repo.folder)))
    subprocess.run([real, "status"], cwd=repo.folder, check=True, capture_output=True)

    monkeypatch.chdir(repo.folder)
    repo.write("a.py", "changed\n")
    request = ask(guard, repo)
    assert "+changed" in request.diff()
    commit(guard, request)
    repository.settle(guard)


@pytest.mark.parametrize("name", ["index", "sharedindex.x", "info/attributes"])
def test_a_pipe_in_the_place_of_a_file_is_not_read(guard, repo, name):
    """Whoever reads one that nobody writes to waits for ever."""
    place = repo.folder / ".git" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    repo.write("a.py", "changed\n")

    with pytest.raises(RepositoryError, match=f"{name}' is no regular file"):
        ask(guard, repo, ["a.py"])


def test_a_pipe_in_a_place_that_git_does_not_read_stops_nobody(guard, repo):
    """Where a work tree is, is told by a file that the main one does not have."""
    os.mkfifo(repo.folder / ".git/gitdir")
    repo.write("a.py", "changed\n")

    commit(guard, ask(guard, repo, ["a.py"]))

    assert "changed" == repo.show("a.py")


def test_the_environment_steers_nothing(guard, repo, trap, monkeypatch, tmp_path):
    """A host that was started by a git hook has a lot of it."""
    evil = tmp_path / "other"
    Repo(evil)
    for name, value in {
        "GIT_DIR": evil / ".git", "GIT_WORK_TREE": evil, "GIT_INDEX_FILE": evil / "index",
        "GIT_OBJECT_DIRECTORY": evil / "objects", "GIT_EXTERNAL_DIFF": repo.folder / "trap.sh",
        "GIT_SSH": repo.folder / "trap.sh", "GIT_EDITOR": repo.folder / "trap.sh",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.hooksPath", "GIT_CONFIG_VALUE_0": ".",
        "GIT_AUTHOR_NAME": "Mallory", "GIT_TRACE": tmp_path / "it ran", "GIT_EXEC_PATH": evil,
        "GIT_NAMESPACE": "x", "GIT_CEILING_DIRECTORIES": repo.folder.parent, "LD_PRELOAD": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(repo.folder)
    (repo.folder / "a.py").write_text("changed\n")
    commit(guard, ask(guard, repo))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    assert ("Change it", NAME) == (
        repo("log", "-1", "--format=%s"),
        repo("log", "-1", "--format=%an"),
    )


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


def test_a_program_to_sign_with_is_not_taken_from_the_project(guard, repo, trap, home, monkeypatch):
    """An activated environment inside of it is on PATH, and a worker may write there."""
    for name in ("gpg", "ssh-keygen"):
        trap(f".venv/bin/{name}")
    (repo.folder / ".git/info/exclude").write_text(".venv\n")
    with (home / ".gitconfig").open("a") as file:
        file.write("[commit]\n gpgsign = true\n[gpg]\n program = no-such-gpg\n")
    monkeypatch.setenv("PATH", f"{repo.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}")
    trap(".venv/bin/no-such-gpg")
    repo.write("a.py", "2\n")
    token = guard.approve(ask(guard, repo).id)

    with pytest.raises(RepositoryError, match="no-such-gpg"):
        repository.commit(guard, token)


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


def has_ended(pid):
    """Whether or not somebody has waited for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- filters of the user's own ---


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


# --- git-lfs ---

BIG = b"\0big\n" * 50_000


@pytest.fixture
def lfs(repo, home):
    """The repository, with git-lfs as its users have it."""
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")
    repo("lfs", "install", "--skip-repo")
    repo.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    return repo


def ask_lfs(guard, repo, paths=None):
    return ask(guard, repo, paths, filters=["lfs"])


def stored(folder):
    """What git-lfs keeps there."""
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def named(*contents):
    return {hashlib.sha256(content).hexdigest(): content for content in contents}


def test_a_file_of_git_lfs_goes_the_whole_way(guard, lfs, tmp_path):
    """Named, then changed; git-lfs finds all in order, and so does a clone."""
    lfs.write("in/x.bin", BIG)
    before = snapshot(lfs.folder)
    first = ask_lfs(guard, lfs, ["."])
    assert before == snapshot(lfs.folder)
    assert "in/x.bin: kept by git-lfs: its 244.1 KB are not shown" in first.diff()
    commit(guard, first)
    lfs.write("in/x.bin", BIG + b"more")
    second = ask_lfs(guard, lfs)
    assert "in/x.bin: kept by git-lfs: its 244.1 KB are not shown" in second.diff()
    commit(guard, second)

    assert "" == lfs("status", "--porcelain")
    assert "Git LFS fsck OK" in lfs("lfs", "fsck")
    assert lfs("lfs", "ls-files").endswith(" * in/x.bin")
    assert named(BIG, BIG + b"more") == stored(lfs.folder / ".git/lfs/objects")
    assert {} == stored(lfs.folder / ".git/lfs/tmp")
    lfs("init", "--quiet", "--bare", str(tmp_path / "origin"))
    lfs("remote", "add", "origin", f"file://{tmp_path / 'origin'}")
    lfs("lfs", "push", "--all", "origin")
    lfs("push", "--quiet", "origin", "main")
    lfs(
        "clone", "--quiet", "--branch", "main", f"file://{tmp_path / 'origin'}", str(tmp_path / "c")
    )
    assert BIG + b"more" == (tmp_path / "c/in/x.bin").read_bytes()


def test_a_linked_worktree_shares_what_git_lfs_keeps(guard, lfs, tmp_path):
    lfs.commit_all()
    lfs("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "linked"))
    linked = Repo.at(tmp_path / "linked")
    linked.write("x.bin", BIG)

    commit(guard, ask_lfs(guard, linked, ["x.bin"]))

    assert named(BIG) == stored(lfs.folder / ".git/lfs/objects")
    assert "" == linked("status", "--porcelain")
    assert "Git LFS fsck OK" in linked("lfs", "fsck")


@pytest.mark.parametrize(
    ("place", "scope", "found"),
    [
        ("beside", "--local", "repo/.git/beside"), ("beside", "--global", "repo/.git/beside"),
        ("{}/else where", "--global", "else where"), ("", "--local", "repo/.git/lfs"),
    ],
)  # fmt: skip
def test_the_storage_of_git_lfs_is_where_the_user_has_it(guard, lfs, tmp_path, place, scope, found):
    lfs("config", scope, "lfs.storage", place.format(tmp_path))
    lfs.write("x.bin", BIG)

    request = ask_lfs(guard, lfs, ["."])
    assert not (tmp_path / found).exists()
    commit(guard, request)

    assert named(BIG) == stored(tmp_path / found / "objects")
    assert "Git LFS fsck OK" in lfs("lfs", "fsck")


def test_others_may_read_of_git_lfs_what_they_may_read_of_git(guard, lfs):
    """In a shared repository they may add to it, too."""
    for folder in [lfs.folder / ".git/objects", *(lfs.folder / ".git/objects").iterdir()]:
        folder.chmod(0o2770)
    lfs.write("x.bin", BIG)

    commit(guard, ask_lfs(guard, lfs, ["."]))

    made = sorted((lfs.folder / ".git/lfs/objects").rglob("*"))
    assert [0o2770, 0o2770, 0o660] == [path.stat().st_mode & 0o7777 for path in made]


TAMPERING = {
    "changed": lambda path: path.write_bytes(b"x" * len(BIG)),
    "cut": lambda path: path.write_bytes(BIG[:-1]),
    "longer": lambda path: path.write_bytes(BIG + b"x"),
    "gone": lambda path: path.unlink(),
    "a link": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_what_is_not_as_git_lfs_froze_it_never_gets_in(guard, lfs, how):
    """It is found before anything is spent, and nothing half is left."""
    lfs.write("x.bin", BIG)
    request = ask_lfs(guard, lfs, ["."])
    token = guard.approve(request.id)
    (content,) = [
        path for path in Path(request.private, "lfs/objects").rglob("*") if path.is_file()
    ]
    TAMPERING[how](content)

    with pytest.raises(RepositoryError, match="What git-lfs keeps of this|is no regular file"):
        repository.commit(guard, token)

    assert "approved" == guard.get(request.id).state
    assert "1" == lfs("rev-list", "--count", "HEAD")
    assert {} == stored(lfs.folder / ".git/lfs")


def test_what_git_lfs_kept_before_is_put_right(guard, lfs):
    """Something else in the place of the content does not stay there."""
    (oid,) = named(BIG)
    place = lfs.write(f".git/lfs/objects/{oid[:2]}/{oid[2:4]}/{oid}", b"x" * len(BIG))
    lfs.write("x.bin", BIG)

    commit(guard, ask_lfs(guard, lfs, ["."]))

    assert BIG == place.read_bytes()


def test_a_staged_file_of_git_lfs_is_committed_as_it_is(guard, lfs):
    """The user's git-lfs has its content already."""
    lfs.write("x.bin", BIG)
    lfs("add", ".")
    before = snapshot(lfs.folder / ".git/lfs")

    request = ask_lfs(guard, lfs)
    assert "x.bin: kept by git-lfs" in request.diff()
    commit(guard, request)

    assert before == snapshot(lfs.folder / ".git/lfs")
    assert "Git LFS fsck OK" in lfs("lfs", "fsck")


def test_a_pointer_whose_content_was_never_fetched_can_be_committed(guard, lfs):
    """As where files of git-lfs are not checked out."""
    lfs.write("x.bin", BIG)
    commit(guard, ask_lfs(guard, lfs, ["."]))
    pointer = lfs.show("x.bin")
    shutil.rmtree(lfs.folder / ".git/lfs")
    (lfs.folder / "x.bin").unlink()
    lfs.write("y.bin", f"{pointer}\n")

    commit(guard, ask_lfs(guard, lfs, ["x.bin", "y.bin"]))

    assert pointer == lfs.show("y.bin")
    assert ["x.bin", "y.bin"] == lfs.changed()


def test_what_git_lfs_cleaned_and_is_not_committed_is_not_handed_over(guard, lfs):
    """Of many named files, each has its content, those beside them have not."""
    contents = [BIG + bytes([number]) for number in range(5)]
    for number, content in enumerate(contents):
        lfs.write(f"x{number}.bin", content)
    lfs.write("y.bin", BIG)

    commit(guard, ask_lfs(guard, lfs, [".gitattributes", *(f"x{n}.bin" for n in range(5))]))

    assert named(*contents) == stored(lfs.folder / ".git/lfs/objects")


@pytest.mark.parametrize("file", [".lfsconfig", ".git/config"])
def test_nothing_that_git_lfs_reads_of_a_repository_names_a_program(guard, lfs, trap, file):
    """Neither its extensions nor its ways to transfer, nor what it takes for them."""
    settings = {
        "lfs.customtransfer.evil.path": "{}", "lfs.standalonetransferagent": "evil",
        "lfs.storage": "/nowhere", "core.sshCommand": "{}", "core.hooksPath": "{}/..",
        "core.askPass": "{}", "credential.helper": "{}", "lfs.url": "ssh://x/y",
        "core.checkRoundtripEncoding": "UTF-8\nlfs.extension.evil.clean={}\n"
        "lfs.extension.evil.priority=0",
    }  # fmt: skip
    if file == ".lfsconfig":
        settings |= {"lfs.extension.evil.clean": "{}"}
    else:
        settings |= {"include.path": "../.lfsconfig"}
        del settings["lfs.storage"]
    for name, value in settings.items():
        lfs("config", "--file", file, name, value.format(lfs.folder / "trap.sh"))
    lfs.write("x.bin", BIG)
    before = set(os.listdir(lfs.folder)), set(os.listdir(lfs.folder / ".git"))

    request = ask_lfs(guard, lfs, ["x.bin", ".gitattributes"])
    assert before == (set(os.listdir(lfs.folder)), set(os.listdir(lfs.folder / ".git")))
    commit(guard, request)

    assert named(BIG) == stored(lfs.folder / ".git/lfs/objects")


@pytest.mark.parametrize("scope", ["--local", "--global"])
def test_where_git_lfs_has_extensions_it_does_not_run(guard, lfs, trap, scope):
    """They would change what is committed, and are further programs."""
    lfs("config", scope, "lfs.extension.evil.clean", str(lfs.folder / "trap.sh"))
    lfs("config", scope, "lfs.extension.evil.priority", "0")
    lfs.write("x.bin", BIG)

    with pytest.raises(RepositoryError, match="an extension of git-lfs is configured"):
        ask_lfs(guard, lfs, ["x.bin"])


def test_every_call_of_git_is_held_to_the_rules(guard, repo, monkeypatch):
    """On the whole way: git by its path, in an environment of Hive's own, without a terminal."""
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "evil")
    calls, run = [], gits.run_program

    def noted(command, folder, environment, stdin=b"", **options):
        calls.append((command, dict(environment), stdin))
        return run(command, folder, environment, stdin, **options)

    for module in (gits, configuration, freeze):
        monkeypatch.setattr(module, "run_program", noted)
    repo.write("a.py", "2\n")
    repo.write(":(top)new", "n\n")
    request = ask(guard, repo, ["a.py", ":(top)new"])
    request.diff()
    commit(guard, request)
    repository.settle(guard)

    assert len(calls) > 20
    for command, environment, stdin in calls:
        assert command[0] == shutil.which("git")
        assert environment["GIT_TERMINAL_PROMPT"] == environment["GIT_OPTIONAL_LOCKS"] == "0"
        assert environment["GIT_NO_REPLACE_OBJECTS"] == environment["GIT_LITERAL_PATHSPECS"] == "1"
        assert not {"GIT_SEQUENCE_EDITOR", "GIT_EDITOR", "GIT_PAGER"} & set(environment)
        assert stdin is not None
        if "rev-parse" not in command and "config" not in command and "var" not in command:
            assert {"core.hooksPath=/dev/null", "core.fsmonitor=false"} <= set(command)
            assert environment["GIT_GRAFT_FILE"] == os.devnull
            assert environment["GIT_ALLOW_PROTOCOL"] == "none"
            assert environment["GIT_NO_LAZY_FETCH"] == "1"
            assert environment["GIT_DIR"]
        if {"update-ref", "unpack-objects"} & set(command):
            assert "core.fsync=committed,reference" in command
    assert {"update-ref", "unpack-objects"} <= {word for command, _, _ in calls for word in command}


# --- crashes ---


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
    """After an hour, in which a request may be on its way to the ledger."""
    repo.write("a.py", "2\n")
    kept, denied, fresh = (ask(guard, repo) for _ in range(3))
    for request in (denied, fresh):
        guard.deny(request.id)
    for request in (kept, denied):
        os.utime(request.private, (1, 1))

    repository.settle(guard)

    assert [True, False, True] == [os.path.isdir(one.private) for one in (kept, denied, fresh)]


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
