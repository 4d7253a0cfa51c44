"""What git says about the project; it changes nothing, and nothing of the repository's runs."""

import os

import pytest

from hive_jupyter.worker.tools import programs


@pytest.fixture
def repository(project):
    """A project with a commit."""
    project.write("a.py", "one\n")
    project.write("sub/b.py", "one\n")
    project.commit()
    return project


def files(result):
    return {
        entry["path"]: entry["index"] + entry["worktree"]
        for entry in result.structured_content["files"]
    }


# git_status


def test_the_branch_and_what_is_changed_are_told(repository):
    head = repository.git("rev-parse", "HEAD").decode().strip()
    repository.write("a.py", "two\n")
    repository.write("new ö.py", "")
    repository.write("staged.py", "")
    repository.git("add", "staged.py")
    repository.git("mv", "sub/b.py", "sub/c.py")

    result = repository.ok("git_status")

    assert {
        "a.py": " M",
        "new ö.py": "??",
        "staged.py": "A ",
        "sub/c.py": "R ",
    } == files(result)
    facts = result.structured_content
    assert ("main", head, ".") == (facts["branch"], facts["commit"], facts["root"])
    assert "On branch main.\n M a.py\n" in str(result)
    assert "R  sub/b.py -> sub/c.py" in str(result)


def test_nothing_changed_is_told(repository):
    assert "On branch main.\nNothing is changed." == str(repository.ok("git_status"))


def test_a_status_of_a_folder_or_a_file(repository):
    repository.write("a.py", "two\n")
    repository.write("sub/b.py", "two\n")

    assert {"sub/b.py": " M"} == files(repository.ok("git_status", path="sub"))
    assert {"a.py": " M"} == files(repository.ok("git_status", path="a.py"))


def test_a_status_before_the_first_commit_and_off_any_branch(project):
    project.git("init", "--quiet", "--initial-branch=main")
    project.write("a.py", "one\n")

    assert "On branch main, with no commit yet." in str(project.ok("git_status"))
    project.commit()
    project.git("checkout", "--quiet", "--detach")
    head = project.git("rev-parse", "HEAD").decode()
    assert f"On commit {head[:12]}." in str(project.ok("git_status"))


def test_the_distance_from_another_branch_is_told(repository):
    repository.git("branch", "there")
    repository.git("branch", "--set-upstream-to=there")
    repository.commit()

    result = repository.ok("git_status")

    assert "On branch main, 1 ahead and 0 behind there." in str(result)
    assert (1, 0) == (result.structured_content["ahead"], result.structured_content["behind"])


def test_a_conflict_is_told(repository):
    repository.git("checkout", "--quiet", "-b", "other")
    repository.write("a.py", "two\n")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.write("a.py", "three\n")
    repository.commit()
    with pytest.raises(Exception, match="merge"):
        repository.git("merge", "other")

    assert "UU" == files(repository.ok("git_status"))["a.py"]


# git_diff


def test_what_has_changed_is_shown(repository):
    repository.write("a.py", "two\n")
    repository.write("sub/b.py", "two\n")
    repository.git("add", "sub/b.py")

    result = repository.ok("git_diff")

    diff = result.structured_content["diff"]
    assert diff.count("\n-one\n+two\n") == 2
    assert "--- a/a.py\n+++ b/a.py\n" in diff
    assert diff == str(result)
    assert "a.py" not in repository.ok("git_diff", staged=True).structured_content["diff"]
    assert "sub" not in repository.ok("git_diff", path="a.py").structured_content["diff"]


def test_a_deleted_file_can_be_asked_for(repository):
    os.unlink(repository.root / "a.py")

    assert "-one\n" in str(repository.ok("git_diff", path="a.py"))
    assert {"a.py": " D"} == files(repository.ok("git_status", path="a.py"))


def test_another_commit_can_be_compared(repository):
    repository.git("tag", "first")
    repository.write("a.py", "two\n")
    repository.commit()

    assert "Nothing has changed." == str(repository.ok("git_diff"))
    assert "-one\n+two\n" in str(repository.ok("git_diff", commit="first"))


def test_before_the_first_commit_all_is_new(project):
    project.git("init", "--quiet")
    project.write("a.py", "one\n")
    project.git("add", "a.py")

    assert "+one\n" in str(project.ok("git_diff"))


@pytest.mark.parametrize("commit", ["nothing", "", "--output=stolen", "-p", "main..main", "a b"])
def test_what_is_no_commit_is_an_error(repository, commit):
    assert "There is no commit or branch" in repository.error("git_diff", commit=commit)
    assert not (repository.root / "stolen").exists()


def test_a_large_difference_is_cut(repository):
    repository.write("a.py", "a line\n" * 5000)

    result = repository.ok("git_diff", 5000)

    assert "[Cut:" in str(result)
    assert result.structured_content["truncated"]
    assert "+a line\n" in result.structured_content["diff"]


# What may go wrong


def test_outside_of_a_repository_is_an_error(project):
    assert "in no git repository" in project.error("git_status")
    assert "in no git repository" in project.error("git_diff")


def test_a_repository_around_the_project_is_none_of_its(project):
    """As that of a home folder with its dotfiles."""
    os.rename(project.root, project.root.parent / "moved")
    os.makedirs(project.root)
    project.git("-C", "..", "init", "--quiet")

    assert "in no git repository" in project.error("git_status")


def test_a_repository_whose_files_lie_outside_is_refused(repository):
    outside = repository.root.parent / "outside"
    outside.mkdir()
    repository.git("config", "core.worktree", str(outside))

    assert "outside the project" in repository.error("git_diff")


def test_a_path_outside_is_refused(repository):
    assert "outside the project" in repository.error("git_status", path="..")
    assert "outside the project" in repository.error("git_diff", path="../a.py")


def test_a_missing_git_is_told(repository, monkeypatch):
    monkeypatch.setattr(programs, "find", lambda _: None)

    assert "no git on this machine" in repository.error("git_status")


def test_a_path_is_no_pattern(repository):
    repository.write("*.py", "")
    repository.write("a.py", "two\n")

    assert {"*.py": "??"} == files(repository.ok("git_status", path="*.py"))


def test_a_look_changes_nothing(repository):
    repository.write("a.py", "two\n")
    # its time alone has changed: git would note that in the index
    os.utime(repository.root / "sub/b.py", (1, 1))

    def state():
        return {
            name: (os.stat(os.path.join(folder, name)).st_mtime_ns, folder)
            for folder, _, inside in os.walk(repository.root / ".git")
            for name in inside
        }

    before = state()
    assert {"a.py": " M"} == files(repository.ok("git_status"))
    assert "b.py" not in str(repository.ok("git_diff"))
    repository.ok("list_files")

    assert before == state()


@pytest.mark.parametrize(
    "setting",
    [
        "core.fsmonitor",
        "diff.external",
        "filter.evil.clean",
        "filter.evil.process",
        "filter.Evil.Two.clean",
        "diff.evil.textconv",
        "diff.evil.command",
        "core.pager",
        "pager.diff",
        "core.hooksPath",
    ],
)
def test_no_program_of_the_repository_runs(repository, setting):
    proof = repository.root.parent / "proof"
    program = repository.write("run", f"#!/bin/sh\ntouch {proof}\ncat\n")
    program.chmod(0o755)
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        hook_file = repository.write(f"hooks/{hook}", f"#!/bin/sh\ntouch {proof}\n")
        hook_file.chmod(0o755)
    value = "hooks" if setting == "core.hooksPath" else str(program)
    if "filter" in setting:
        repository.git("config", setting.rsplit(".", 1)[0] + ".required", "true")
    name = "Evil.Two" if "Two" in setting else "evil"
    repository.git("config", setting, value)
    repository.write(".gitattributes", f"* filter={name} diff=evil\n")
    os.utime(repository.root / "sub/b.py", (1, 1))
    repository.write("a.py", "two\n")

    repository.ok("git_status")
    repository.ok("git_diff")
    repository.ok("list_files")

    assert not proof.exists()


@pytest.mark.parametrize("tool", ["git_status", "git_diff", "list_files"])
def test_nothing_is_fetched_for_a_partial_clone(repository, tool):
    proof = repository.root.parent / "proof"
    program = repository.write("run", f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    content = repository.git("rev-parse", "HEAD:a.py").decode().strip()
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{program}",
        "protocol.ext.allow": "always",
    }
    for name, value in settings.items():
        repository.git("config", name, value)
    (repository.root / ".git/objects" / content[:2] / content[2:]).unlink()
    repository.write("a.py", "two\n")

    repository.call(tool)

    assert not proof.exists()


def test_no_variable_of_the_worker_reaches_git(repository, monkeypatch):
    proof = repository.root.parent / "proof"
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"touch {proof}")
    monkeypatch.setenv("GIT_TRACE", str(proof))
    monkeypatch.setenv("GIT_PAGER", f"touch {proof}")
    repository.write("a.py", "two\n")

    repository.ok("git_status")
    assert "+two" in str(repository.ok("git_diff"))
    assert not proof.exists()


def test_a_bare_repository_in_a_folder_is_none(repository):
    repository.git("init", "--quiet", "--bare", "sub/bare")

    said = repository.error("git_status", path="sub/bare")

    assert "bare" in said
