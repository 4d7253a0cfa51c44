"""What is frozen is what was asked for, and nothing of the repository changes by it."""

import os
import re
import shutil

import pytest

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import repository
from tests.repos import ADDRESS, USER, Repo, ask, commit, diverge, snapshot


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
    diverge(repo)
    repo.write("a.py", "ours again\n")
    repo.commit_all()
    repo(*command, check=False)

    with pytest.raises(RepositoryError, match="under way in this repository. Finish or abort"):
        ask(guard, repo)


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
