"""Nothing of a repository's gets to run, and nothing that it says hides a change."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from hive_jupyter.errors import ConfigError, RepositoryError, Superseded
from hive_jupyter.guard import programs, repository
from tests.repos import NAME, USER, Repo, ask, commit


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


@pytest.mark.parametrize("name", ["index", "info/attributes"])
def test_a_pipe_in_the_place_of_a_file_is_not_read(guard, repo, name):
    """Whoever reads one that nobody writes to waits for ever."""
    place = repo.folder / ".git" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    repo.write("a.py", "changed\n")

    with pytest.raises(RepositoryError, match=f"{name}' is no regular file"):
        ask(guard, repo, ["a.py"])


@pytest.mark.parametrize("name", ["gitdir", "sharedindex.x", f"sharedindex.{'a' * 40}"])
def test_a_pipe_in_a_place_that_git_does_not_read_stops_nobody(guard, repo, name):
    """Where a work tree is, say, is told by a file that the main one does not have."""
    os.mkfifo(repo.folder / ".git" / name)
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


# --- what costs nothing to make and much to read ---


@pytest.mark.parametrize("name", ["index", "info/attributes"])
def test_a_hole_is_not_copied(guard, repo, name):
    """It would fill the disk."""
    place = repo.folder / ".git" / name
    place.touch()
    os.truncate(place, 2**40)
    repo.write("a.py", "changed\n")

    with pytest.raises(RepositoryError, match="is larger than"):
        ask(guard, repo, ["a.py"])
    assert not any((guard.ledger.path.parent / "frozen").iterdir())


def test_what_waits_does_not_fill_the_disk(guard, repo, monkeypatch):
    """Nor what waits no more: a worker may replace its own request without an end."""
    monkeypatch.setattr(repository, "_MOST_FROZEN", 2**20)
    repo.write("a.bin", os.urandom(600_000))
    request = ask(guard, repo, ["a.bin"])
    repo.write("b.bin", os.urandom(600_000))
    with pytest.raises(RepositoryError, match="What waits to be committed is"):
        ask(guard, repo, ["b.bin"])

    for _ in range(5):
        guard.deny(request.id)
        request = ask(guard, repo, ["b.bin"])
    assert [request.private] == [
        str(one) for one in (guard.ledger.path.parent / "frozen").iterdir()
    ]


def test_more_paths_than_anybody_names_are_refused(guard, repo):
    """Each is looked for."""
    with pytest.raises(ConfigError, match="More than 1000 paths are named"):
        ask(guard, repo, [f"{number}" for number in range(1001)])


def test_a_configuration_that_cannot_be_read_does_not_hold_up_what_is_asked(
    guard, repo, monkeypatch
):
    """Of several requests for one repository the first is enough; and none is called superseded."""
    repo.write("a.py", "changed\n")
    requests = [ask(guard, repo, message=str(number)) for number in range(3)]
    (repo.folder / ".git/config").unlink()
    os.mkfifo(repo.folder / ".git/config")
    monkeypatch.setattr(repository, "_SHORT", 0.2)
    began = time.monotonic()

    assert [] == repository.settle(guard)
    assert time.monotonic() - began < 30
    assert "denied" == guard.deny(requests[0].id).state
    assert 2 == len(guard.pending())


def test_a_worker_asks_for_its_own_project_alone(guard, repo):
    """Not for a repository around it, such as one of dotfiles."""
    inner = repo.folder / "inner"
    inner.mkdir()
    repo.write("a.py", "changed\n")

    with pytest.raises(RepositoryError, match="is no git repository of its own"):
        repository.request_commit(
            guard, inner, "m", paths=["../a.py"], requester=USER, root=str(inner)
        )


# --- objects that lie about their names ---

GOOD, EVIL = b"a = 2  # harmless\n", b"import os; os.system('evil')\n"


def name_of(content, kind=b"blob"):
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(content), content)).hexdigest()


def put(objects, name, content, kind=b"blob"):
    """Store an object under a name, be it its own or not."""
    path = Path(objects, name[:2], name[2:])
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(zlib.compress(b"%s %d\0%s" % (kind, len(content), content)))


@pytest.fixture
def objects(repo):
    return repo.folder / ".git" / "objects"


@pytest.mark.parametrize("way", ["staged", "named"])
def test_an_object_that_lies_about_its_name_is_not_shown_for_another(guard, repo, objects, way):
    """git does not look; what is there when it is shown may be something else afterwards."""
    put(objects, name_of(EVIL), GOOD)
    if way == "staged":
        repo("update-index", "--cacheinfo", f"100644,{name_of(EVIL)},a.py")
    else:
        repo.write("a.py", EVIL)

    with pytest.raises(RepositoryError, match="does not have the content that its name says"):
        ask(guard, repo, ["a.py"] if way == "named" else None)
    assert [] == guard.pending()


def test_a_tree_that_lies_about_its_name_hides_no_file(guard, repo, objects):
    repo.write("pkg/ok.py", GOOD)
    repo.write("pkg/conftest.py", EVIL)
    entry = b"100644 %s\0%s"
    known = entry % (b"ok.py", bytes.fromhex(name_of(GOOD)))
    tree = entry % (b"conftest.py", bytes.fromhex(name_of(EVIL))) + known
    put(objects, name_of(tree, b"tree"), known, b"tree")

    with pytest.raises(RepositoryError, match="does not have the content that its name says"):
        ask(guard, repo, ["pkg"])


def test_an_index_of_packs_that_lies_shows_nothing_else(guard, repo, objects):
    """The user's own git is told not to read it."""
    for content in (GOOD, EVIL):
        repo("hash-object", "-w", "--stdin", stdin=content)
    repo("update-index", "--cacheinfo", f"100644,{name_of(EVIL)},a.py")
    repo("tag", "kept", name_of(GOOD))
    repo("repack", "-adq")
    repo("multi-pack-index", "write")
    repo("tag", "-d", "kept")
    path = objects / "pack" / "multi-pack-index"
    index = bytearray(path.read_bytes())
    # gitformat-pack(5): a table of chunks; OIDL has the names in order, OOFF an offset for each
    chunks = {
        bytes(index[at : at + 4]): int.from_bytes(index[at + 4 : at + 12], "big")
        for at in range(12, 12 * (index[6] + 2), 12)
    }
    count = int.from_bytes(index[chunks[b"OIDF"] + 1020 :][:4], "big")
    names = [index[chunks[b"OIDL"] + 20 * n :][:20].hex() for n in range(count)]
    good, evil = (chunks[b"OOFF"] + 8 * names.index(name_of(one)) for one in (GOOD, EVIL))
    index[evil : evil + 8] = index[good : good + 8]
    index[-20:] = hashlib.sha1(index[:-20]).digest()
    path.chmod(0o644)
    path.write_bytes(index)
    repo("config", "core.multiPackIndex", "false")

    # git may well get hold of the right one, by the pack's own index
    with contextlib.suppress(RepositoryError):
        assert "+import os; os.system('evil')" in ask(guard, repo).diff()


def test_a_lie_beside_the_frozen_content_is_found_when_it_is_shown(guard, repo):
    repo("hash-object", "-w", "--stdin", stdin=EVIL)
    repo.write("a.py", EVIL)
    request = ask(guard, repo)
    token = guard.approve(request.id)
    put(Path(request.private, "objects"), name_of(EVIL), GOOD)

    with pytest.raises(RepositoryError, match="does not have the content that its name says"):
        request.diff()
    with pytest.raises(RepositoryError, match="does not have the content that its name says"):
        repository.commit(guard, token)
    assert "approved" == guard.get(request.id).state


def test_a_lie_that_comes_into_the_repository_before_the_commit_is_found(guard, repo, objects):
    repo.write("a.py", EVIL)
    request = ask(guard, repo)
    token = guard.approve(request.id)
    put(objects, name_of(EVIL), GOOD)

    with pytest.raises(RepositoryError, match="COLLISION"):
        repository.commit(guard, token)
    assert "approved" == guard.get(request.id).state
    assert "1" == repo("rev-list", "--count", "HEAD")
