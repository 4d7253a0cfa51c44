"""Commits in repositories of every kind: new, linked, nested, sparse, shallow and with SHA-256."""

import subprocess

import pytest

from hive_jupyter.errors import RepositoryError, Superseded
from hive_jupyter.guard import repository
from tests.repos import USER, Repo, ask, commit, snapshot


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
