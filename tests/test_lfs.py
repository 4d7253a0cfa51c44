"""Files of git-lfs go the whole way, and what it takes for a pointer is one for Hive, too."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hive_jupyter.errors import RepositoryError
from hive_jupyter.guard import lfs as contents
from hive_jupyter.guard import marks, programs, repository
from hive_jupyter.guard.lfs import Pointer, read_pointer
from tests.repos import Repo, ask, commit, snapshot

OID = "ab" * 32
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 3145728\n"

POINTERS = [
    POINTER,
    POINTER.replace("\n", "\r\n"),
    f"\n {POINTER}\n\n",
    POINTER.replace("\noid", f"\next-0-x sha256:{OID}\next-1-y sha256:{OID}\noid"),
    POINTER.replace("https://git-lfs.github.com", "https://hawser.github.com"),
    POINTER.replace("https://git-lfs.github.com/spec/v1", "http://git-media.io/v/2"),
    POINTER + " " * 1024 + "what git-lfs does not read\n",
]
OTHERS = [
    "", "text\n", POINTER.replace("sha256", "sha1"), POINTER.replace("ab", "AB"),
    POINTER.replace("3145728", "-1"), POINTER.replace("size", "sise"), f"{POINTER}more\n",
    POINTER.replace("v1", "v9"), POINTER.partition("size")[0],
]  # fmt: skip


@pytest.mark.parametrize("text", POINTERS)
def test_a_pointer_is_read_and_marked(text):
    content = text.encode()

    assert Pointer(OID, 3145728) == read_pointer(content)
    assert ["kept by git-lfs: its 3 MB are not shown"] == list(marks.of_pointer(content))


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_pointer_is_not_taken_for_one(text):
    assert read_pointer(text.encode()) is None
    assert [] == list(marks.of_pointer(text.encode()))


@pytest.mark.parametrize("text", [*POINTERS, *(text for text in OTHERS if text)])
def test_git_lfs_says_the_same(text):
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")

    done = subprocess.run(
        ["git-lfs", "pointer", "--check", "--stdin"], input=text.encode(), check=False
    )

    assert (done.returncode == 0) == (text in POINTERS)


# --- the whole way ---


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


def test_what_is_handed_over_is_for_nobody_else_to_change(guard, lfs, tmp_path):
    """Also where anybody may write to the objects."""
    (lfs.folder / ".git/objects").chmod(0o777)
    lfs("config", "lfs.storage", str(tmp_path / "new/storage"))
    lfs.write("x.bin", BIG)

    commit(guard, ask_lfs(guard, lfs, ["."]))

    made = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert {0o775, 0o664} == {path.stat().st_mode & 0o7777 for path in made}


@pytest.fixture
def frozen(tmp_path):
    """A private repository in which git-lfs has kept one content, and the pointer to it."""
    (oid,) = named(BIG)
    kept = tmp_path / "private/lfs/objects" / oid[:2] / oid[2:4] / oid
    kept.parent.mkdir(parents=True)
    kept.write_bytes(BIG)
    yield str(tmp_path / "private"), [Pointer(oid, len(BIG))]
    # deeper than Python could clean up
    subprocess.run(["rm", "-rf", str(tmp_path / "deep")], check=True)


def test_a_storage_may_be_deep(frozen, tmp_path):
    storage = str(tmp_path / "deep") + "/a" * 1800

    contents.hand_over(*frozen, storage, 0o755)

    (oid,) = named(BIG)
    with open(f"{storage}/objects/{oid[:2]}/{oid[2:4]}/{oid}", "rb") as file:
        assert BIG == file.read()


def test_a_storage_that_is_too_deep_is_not_half_made(frozen, tmp_path):
    with pytest.raises(RepositoryError, match="cannot be handed over: .*too long"):
        contents.hand_over(*frozen, str(tmp_path / "deep") + "/a" * 2500, 0o755)

    assert not (tmp_path / "deep").exists()


def test_what_is_larger_than_may_be_written_is_refused(guard, lfs, tmp_path, monkeypatch):
    """A file that is all holes costs nothing, until git-lfs has filled them."""
    monkeypatch.setattr(programs, "MOST_FILE", 2**20)
    lfs.write("x.bin", "")
    os.truncate(lfs.folder / "x.bin", 2**21)

    with pytest.raises(RepositoryError, match="x.bin"):
        ask_lfs(guard, lfs, ["x.bin"])

    assert not list((tmp_path / "data" / "frozen").iterdir())


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
    kept = [BIG + bytes([number]) for number in range(5)]
    for number, content in enumerate(kept):
        lfs.write(f"x{number}.bin", content)
    lfs.write("y.bin", BIG)

    commit(guard, ask_lfs(guard, lfs, [".gitattributes", *(f"x{n}.bin" for n in range(5))]))

    assert named(*kept) == stored(lfs.folder / ".git/lfs/objects")


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
