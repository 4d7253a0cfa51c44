"""What comes into a project that the user's tools act on by themselves."""

import contextlib
import itertools
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.leftovers import watch
from hive_jupyter.leftovers.aside import set_aside
from hive_jupyter.leftovers.kinds import KINDS, LAYOUT, REPOSITORY, kind_of_file, kind_of_folder
from hive_jupyter.leftovers.report import report, summary
from hive_jupyter.leftovers.watch import Finding, Watch
from tests.processes import wait_until
from tests.repos import at_home

NOBODY = 65534


class Project:
    """A folder and its watch."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.watch = Watch(str(folder), str(folder.parent / "home"), **options)
        self.watch.accept()

    def write(self, name, text="", mode=0o644):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def found(self):
        """The paths that a look finds, and how each changed."""
        return {finding.path: finding.change for finding in self.watch.look()}

    def renamed(self, name):
        """What something is called since it was set aside."""
        (path,) = self.folder.glob(f"{name}-set-aside-by-hive-*")
        return path


@pytest.fixture
def place(tmp_path):
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def as_nobody():
    """Root may go everywhere; others see what a mode forbids."""
    user = os.geteuid()

    @contextlib.contextmanager
    def became(folder):
        if user == 0:
            for path in (folder, *folder.parents):
                if path.owner() == "root" and str(path).startswith(tempfile.gettempdir()):
                    path.chmod(path.stat().st_mode | 0o755)
            for path, _, _ in os.walk(folder):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(user)

    return became


# --- what counts ---


@pytest.mark.parametrize(
    "path",
    [
        ".envrc",
        "sub/deep/.envrc",
        ".vscode/tasks.json",
        "sub/.vscode/deeper/still.json",
        "my.code-workspace",
        ".github/workflows/ci.yml",
        "sub/.cargo/config.toml",
        "jupyter_notebook_config.py",
        "lib/evil.pth",
        ".ENVRC",
        "agents.md",
        ".Vscode/settings.json",
        "hive_jupyter/__init__.py",
        ".hg/hgrc",
        ".hg/hgrc-not-shared",
        "evil-1.0.dist-info/entry_points.txt",
    ],
)
def test_what_tools_act_on_by_themselves_counts_wherever_it_is(place, path):
    place.write(path)

    assert {path: "new"} == place.found()
    assert {} == place.found()


@pytest.mark.parametrize(
    "path",
    [
        "a.py",
        "Makefile",
        ".github/ISSUE_TEMPLATE.md",
        "workflows/ci.yml",
        "cargo/config.toml",
        "config.toml",
        "vscode/tasks.json",
        "envrc",
        "a.pth.txt",
        "HEAD",
        "__init__.py",
        ".cargo/registry/x",
        "pattern0",
    ],
)
def test_other_files_do_not(place, path):
    place.write(path)

    assert {} == place.found()


def test_every_pattern_is_found_and_belongs_to_one_kind():
    seen = {}
    for kind in KINDS:
        for pattern in kind.patterns:
            name = pattern.replace("*", "x")
            *folder, last = name.rstrip("/").split("/")
            assert seen.setdefault(pattern, kind) is kind
            if pattern.endswith("/"):
                assert kind is kind_of_folder(("above", *folder, last))
            assert kind is kind_of_file(("above", *folder), last)


def test_a_link_in_the_place_of_a_folder_counts(place):
    for name, link in (("a", ".vscode"), ("b", ".github"), ("c", "sub/.cargo")):
        (place.folder / name).mkdir()
        (place.folder / link).parent.mkdir(exist_ok=True)
        (place.folder / link).symlink_to(place.folder / name)

    assert {".vscode", ".github", "sub/.cargo"} == set(place.found())


def test_what_was_there_before_is_the_users(tmp_path):
    folder = tmp_path / "project"
    for name in (".vscode", "sub/.git", "bare/refs", "bare/objects"):
        (folder / name).mkdir(parents=True)
    for name in (".envrc", ".vscode/a.json", "bare/HEAD"):
        (folder / name).touch()

    assert {} == Project(folder).found()


def test_what_comes_before_it_is_accepted_again_is_the_users(place):
    place.write(".envrc")
    (place.folder / ".git").mkdir()

    place.watch.accept()

    assert {} == place.found()
    assert (place.folder / ".git").is_dir()


# --- changes ---


def test_a_changed_file_is_found_also_where_its_time_is_set_back(place):
    path = place.write(".vscode/tasks.json", "{}")
    place.watch.accept()
    before = path.stat()

    path.write_text("[]")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert {".vscode/tasks.json": "changed"} == place.found()
    assert {} == place.found()


def test_a_file_that_was_put_in_the_place_of_another_is_found(place):
    place.write(".envrc", "a")
    place.watch.accept()
    other = place.write("other", "a")

    other.rename(place.folder / ".envrc")

    assert {".envrc": "changed"} == place.found()


def test_what_is_deleted_is_not_told_and_what_comes_back_is(place):
    place.write(".envrc")
    place.watch.accept()
    (place.folder / ".envrc").unlink()
    assert {} == place.found()

    place.write(".envrc")

    assert {".envrc": "new"} == place.found()


def test_a_folder_whose_time_is_set_back_is_listed_all_the_same(place, monkeypatch):
    """Its time of change cannot be set."""
    monkeypatch.setattr(watch, "_TICK", -(2**62))  # rely on all times
    (place.folder / "sub").mkdir()
    place.watch.accept()
    before = (place.folder / "sub").stat()
    place.write("sub/.envrc")
    os.utime(place.folder / "sub", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert {"sub/.envrc": "new"} == place.found()


def test_a_folder_that_did_not_change_is_not_listed_again(place, monkeypatch):
    monkeypatch.setattr(watch, "_TICK", -(2**62))
    place.write("sub/deep/.envrc")
    place.watch.accept()
    listed = []
    monkeypatch.setattr(Watch, "_entries", lambda _, path: listed.append(path) or {})

    assert {} == place.found()
    assert [] == listed


def test_a_folder_that_changed_a_moment_ago_is_listed_again(place, monkeypatch):
    """Within one tick of the disk's clock it may have changed once more."""
    (place.folder / "sub").mkdir()
    place.watch.accept()
    stamp = os.lstat(place.folder / "sub")
    real = os.lstat

    def standing(path, **options):
        return stamp if str(path).endswith("/sub") else real(path, **options)

    place.write("sub/.envrc")
    monkeypatch.setattr(os, "lstat", standing)

    assert {"sub/.envrc": "new"} == place.found()


NAMES = st.sampled_from(["a", "b", ".envrc", ".vscode", "x.pth", "conftest.py"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(st.tuples(st.sampled_from(["write", "delete", "move"]), PATHS, PATHS), max_size=12)


def counting(folder):
    """What counts, found the long way."""
    found = {}
    for above, folders, files in os.walk(folder):
        parts = Path(above).relative_to(folder).parts
        inside = any(kind_of_folder(parts[: n + 1]) for n in range(len(parts)))
        for name in files:
            if inside or kind_of_file(parts, name):
                status = os.lstat(os.path.join(above, name))
                found[os.path.join(*parts, name)] = (status.st_ino, status.st_ctime_ns)
        assert folders is not None
    return found


@given(st.lists(STEPS, min_size=1, max_size=4))
def test_it_finds_what_one_finds_who_looks_at_everything(rounds):
    with tempfile.TemporaryDirectory() as folder:
        place = Project(Path(folder))
        before = counting(folder)
        for steps in rounds:
            for step, one, other in steps:
                with contextlib.suppress(OSError, shutil.Error):
                    take(place, step, one, other)
            now = counting(folder)
            expected = {
                path: "changed" if path in before else "new"
                for path, stamp in now.items()
                if before.get(path) != stamp
            }
            assert expected == place.found()
            before = now


def take(place, step, one, other):
    if step == "write":
        place.write(one, other)
    elif step == "delete":
        path = place.folder / one
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        (place.folder / one).rename(place.folder / other)


# --- repositories ---


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Run git as the user does; what runs of the project's leaves a mark."""
    at_home(tmp_path, monkeypatch)

    def run(folder, *words):
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def evil(place, tmp_path):
    """A program that leaves a mark, and how to tell whether it ran."""
    mark = tmp_path / "it ran"
    place.write("evil.sh", f'#!/bin/sh\ntouch "{mark}"\n', 0o755)

    def ran():
        found = mark.exists()
        mark.unlink(missing_ok=True)
        return found

    return ran


def plant(place, git, folder, *words):
    """A repository whose configuration names a program."""
    (place.folder / folder).mkdir(parents=True, exist_ok=True)
    assert git(place.folder / folder, "init", "-q", *words).returncode == 0
    program = str(place.folder / "evil.sh")
    git(place.folder / folder, "config", "core.fsmonitor", program)
    git(place.folder / folder, "config", "core.pager", program)


def test_a_repository_below_the_project_is_set_aside_before_it_runs_anything(place, git, evil):
    plant(place, git, "sub")
    git(place.folder / "sub", "status")
    assert evil()

    (finding,) = place.watch.look()

    assert ("sub/.git", "new", REPOSITORY, "") == (
        finding.path,
        finding.change,
        finding.kind,
        finding.problem,
    )
    for folder in (place.folder / "sub", place.renamed("sub/git")):
        assert "not a git repository" in git(folder, "status").stderr
        assert not evil()
    assert {} == place.found()


def test_what_was_set_aside_is_got_back_by_the_command_that_is_told(place, git):
    plant(place, git, "a folder")
    findings = place.watch.look()
    text = report(findings, ["coder"], str(place.folder))
    command = text.splitlines()[-1].strip()
    assert command.startswith("mv -- ")

    subprocess.run(command, shell=True, cwd=place.folder, check=True)

    assert git(place.folder / "a folder", "rev-parse", "--git-dir").stdout == ".git\n"


def test_a_bare_repository_loses_its_head(place, git, evil):
    plant(place, git, "bare", "--bare")
    git(place.folder / "bare", "-c", "core.bare=false", "--work-tree=.", "status")
    assert evil()

    assert {"bare/HEAD": "new"} == place.found()

    assert "not a git repository" in git(place.folder / "bare", "status").stderr
    git(place.folder / "bare", "-c", "core.bare=false", "--work-tree=.", "status")
    assert not evil()
    assert place.renamed("bare/HEAD").read_text().startswith("ref: ")
    assert {} == place.found()


def test_a_layout_in_the_users_own_folder_leaves_that_where_it_is(place, git, evil):
    place.write("src/a.py", "a = 1")
    place.watch.accept()
    plant(place, git, "src", "--bare")

    assert {"src/HEAD": "new"} == place.found()
    assert (place.folder / "src/a.py").exists()


def test_the_project_itself_does_not_become_a_repository(place, git, evil):
    for words in ((), ("--bare",)):
        plant(place, git, ".", *words)

    assert {".git": "new", "HEAD": "new"} == place.found()
    assert "not a git repository" in git(place.folder, "status").stderr


def test_a_layout_that_has_its_objects_elsewhere_is_one(place, git, tmp_path, evil):
    """As in a linked work tree."""
    plant(place, git, "x")
    assert {"x/.git": "new"} == place.found()
    (place.folder / "y").mkdir()
    shutil.copy(next(place.renamed("x/git").glob("HEAD*")), place.folder / "y/HEAD")
    (place.folder / "y/commondir").write_text(f"{place.renamed('x/git')}\n")
    (place.folder / "y/config").touch()
    assert git(place.folder / "y", "rev-parse", "--git-dir").stdout

    assert {"y/HEAD": "new"} == place.found()

    assert "not a git repository" in git(place.folder / "y", "status").stderr


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_pointer_to_a_repository_is_set_aside(place, git, tmp_path, kind):
    plant(place, git, "hidden")
    place.watch.look()
    (place.folder / "sub").mkdir()
    if kind == "file":
        place.write("sub/.git", f"gitdir: {place.renamed('hidden/git')}\n")
    else:
        (place.folder / "sub/.git").symlink_to(place.renamed("hidden/git"))

    assert {"sub/.git": "new"} == place.found()
    assert not os.path.lexists(place.folder / "sub/.git")
    assert "not a git repository" in git(place.folder / "sub", "status").stderr


def test_one_that_is_put_back_is_set_aside_again(place, git, evil):
    plant(place, git, "sub")
    place.watch.look()
    moved = place.renamed("sub/git")
    next(moved.glob("HEAD-*")).rename(moved / "HEAD")
    assert {f"{moved.relative_to(place.folder)}/HEAD": "new"} == place.found()

    moved.rename(place.folder / "sub/.git")

    assert {"sub/.git": "new"} == place.found()


def test_ones_own_repository_may_be_used_and_moved(place, git):
    plant(place, git, "own")
    plant(place, git, "bare", "--bare")
    place.watch.accept()
    git(place.folder / "own", "config", "a.b", "c")
    git(place.folder / "bare", "symbolic-ref", "HEAD", "refs/heads/other")
    assert {"bare/config"} >= set(place.found())

    (place.folder / "own").rename(place.folder / "elsewhere")
    (place.folder / "bare").rename(place.folder / "naked")

    assert {} == {path: how for path, how in place.found().items() if "config" not in path}
    assert (place.folder / "elsewhere/.git/HEAD").exists()
    assert (place.folder / "naked/HEAD").exists()


def test_a_repository_in_the_place_of_ones_own_is_told_and_left(place, git):
    """No worker gets at the project's; so it may well be the user who began anew."""
    plant(place, git, ".")
    place.watch.accept()
    (place.folder / ".git").rename(place.folder / "kept")
    place.watch.look()
    plant(place, git, ".")

    (finding,) = place.watch.look()

    assert (".git", "replaced", ()) == (finding.path, finding.change, finding.moves)
    assert (place.folder / ".git").is_dir()
    assert {} == place.found()


def test_an_inode_that_is_used_again_proves_nothing(place, git, monkeypatch):
    plant(place, git, "own")
    place.watch.accept()
    identity = watch._identity(str(place.folder / "own/.git"))
    shutil.rmtree(place.folder / "own/.git")
    place.watch.look()
    plant(place, git, "sub")
    real = watch._identity
    monkeypatch.setattr(
        watch, "_identity", lambda path: identity if path.endswith("sub/.git") else real(path)
    )
    monkeypatch.setattr(watch, "set_aside", lambda *_: (("sub/.git", "sub/moved"),))

    assert {"sub/.git": "new"} == place.found()


def test_orders_in_ones_own_bare_repository_count(place, git):
    """Nothing else protects it."""
    plant(place, git, "bare", "--bare")
    place.watch.accept()
    place.write("bare/config", "[core]\nfsmonitor = evil")
    place.write("bare/hooks/post-checkout", "", 0o755)

    found = place.watch.look()

    assert {("bare/config", "changed", LAYOUT), ("bare/hooks/post-checkout", "new", LAYOUT)} == {
        (finding.path, finding.change, finding.kind) for finding in found
    }


def test_git_on_a_disk_that_does_not_tell_letters_case(place):
    (place.folder / "sub/.GIT").mkdir(parents=True)

    assert {"sub/.GIT": "new"} == place.found()


def test_what_is_in_a_repository_is_none_of_its_business(place, git):
    plant(place, git, "own")
    place.watch.accept()
    place.write("own/.git/.envrc")

    assert {} == place.found()


# --- somebody hostile, at the same time ---


def test_a_link_in_the_place_of_a_folder_leads_nowhere(place, tmp_path):
    """Not even where it comes between finding a repository and renaming it."""
    other = tmp_path / "others/.git"
    other.mkdir(parents=True)
    (place.folder / "sub").symlink_to(tmp_path / "others")

    with pytest.raises(OSError, match="Not a directory"):
        set_aside(str(place.folder), "sub/.git", watch._identity(str(other)))

    assert {} == place.found()
    assert other.is_dir()


def test_a_folder_is_swapped_for_a_link_in_the_middle_of_a_look(place, tmp_path, monkeypatch):
    other = tmp_path / "others/.git"
    other.mkdir(parents=True)
    (place.folder / "sub/.git").mkdir(parents=True)
    real = watch.set_aside

    def late(*arguments):
        (place.folder / "sub").rename(place.folder / "away")
        (place.folder / "sub").symlink_to(tmp_path / "others")
        return real(*arguments)

    monkeypatch.setattr(watch, "set_aside", late)
    (finding,) = place.watch.look()
    monkeypatch.undo()

    assert other.is_dir()
    assert ("sub/.git", (), "Not a directory") == (finding.path, finding.moves, finding.problem)
    assert {"away/.git": "new"} == place.found()


def test_something_else_that_is_there_by_now_is_left_and_found_next_time(place, monkeypatch):
    (place.folder / "sub/.git").mkdir(parents=True)
    real = watch.set_aside

    def late(*arguments):
        (place.folder / "sub/.git").rename(place.folder / "sub/first")
        (place.folder / "sub/.git").mkdir()
        return real(*arguments)

    monkeypatch.setattr(watch, "set_aside", late)
    assert {} == place.found()
    monkeypatch.undo()

    assert {"sub/.git": "new"} == place.found()


def test_one_that_vanishes_meanwhile_is_no_news(place, monkeypatch):
    (place.folder / "sub/.git").mkdir(parents=True)
    real = watch.set_aside

    def late(*arguments):
        shutil.rmtree(place.folder / "sub")
        return real(*arguments)

    monkeypatch.setattr(watch, "set_aside", late)

    assert {} == place.found()


def test_a_folder_that_was_away_for_a_moment_is_looked_at_again(place, monkeypatch):
    place.write("sub/a.py")
    place.watch.accept()
    real = Watch._entries

    def late(self, folder):
        names = real(self, folder)
        if folder == str(place.folder):
            (place.folder / "sub").rename(place.folder.parent / "away")
        return names

    monkeypatch.setattr(Watch, "_entries", late)
    assert {} == place.found()
    monkeypatch.undo()
    (place.folder.parent / "away").rename(place.folder / "sub")
    place.write("sub/.envrc")
    (place.folder / "sub/.git").mkdir()

    assert {"sub/.envrc": "new", "sub/.git": "new"} == place.found()


def test_nothing_is_lost_while_a_hostile_thread_renames_and_links(place, tmp_path):
    """Whoever wins: what is outside of the project stays as it is."""
    outside = tmp_path / "outside"
    for number in range(3):
        (outside / f"{number}/.git").mkdir(parents=True)
        (outside / f"{number}/.git/HEAD").write_text("own")
    before = sorted(outside.rglob("*"))
    over = threading.Event()

    def spoil():
        for number in itertools.cycle(range(60)):  # so that there are few folders to look at
            if over.is_set():
                return
            sub, away = place.folder / f"{number % 3}", place.folder / f"away{number}"
            shutil.rmtree(away, ignore_errors=True)
            with contextlib.suppress(OSError):
                (sub / ".git").mkdir(parents=True)
            with contextlib.suppress(OSError):
                sub.rename(away)
                sub.symlink_to(outside / sub.name)
            with contextlib.suppress(OSError):
                sub.unlink()

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        wait_until(lambda: sum(len(finding.moves) for finding in place.watch.look()) > 2)
        for _ in range(100):
            place.watch.look()
    finally:
        over.set()
        thread.join()
    place.watch.look()

    assert before == sorted(outside.rglob("*"))
    assert [] == [path for path in place.folder.rglob(".git") if path.is_dir()]


def test_a_folder_that_nobody_may_list_hides_no_repository(place, as_nobody):
    """git needs to enter it only."""
    sub = place.folder / "sub"
    (sub / ".git").mkdir(parents=True)
    with as_nobody(place.folder):
        sub.chmod(0o300)
        found = place.found()
        sub.chmod(0o700)

        assert {"sub/.git": "new"} == found
        assert not (sub / ".git").exists()
        assert "cannot be read" in place.watch.unwatched


def test_a_folder_that_nobody_may_write_keeps_no_repository(place, as_nobody):
    sub = place.folder / "sub"
    (sub / ".git").mkdir(parents=True)
    (sub / ".git/HEAD").touch()
    with as_nobody(place.folder):
        (sub / ".git").chmod(0o500)
        sub.chmod(0o500)

        assert {"sub/.git": "new"} == place.found()

        assert 0o500 == stat.S_IMODE(sub.stat().st_mode)
        moved = place.renamed("sub/git")
        assert 0o500 == stat.S_IMODE(moved.stat().st_mode)
        assert not (moved / "HEAD").exists()


def test_what_came_behind_a_closed_door_is_found_when_that_opens(place, as_nobody):
    sub = place.folder / "sub"
    (sub / "deep/.git").mkdir(parents=True)
    with as_nobody(place.folder):
        sub.chmod(0)
        assert {} == place.found()

        sub.chmod(0o700)

        assert {"sub/deep/.git": "new"} == place.found()


def test_one_that_cannot_be_renamed_is_told_once_with_the_reason(place, monkeypatch):
    (place.folder / "sub/.git").mkdir(parents=True)

    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", fail)

    (finding,) = place.watch.look()
    assert ("Read-only file system", ()) == (finding.problem, finding.moves)
    assert {} == place.found()


# --- bounds ---


def test_a_project_with_too_many_folders_is_watched_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "MOST_FOLDERS", 10)
    for number in range(30):
        (tmp_path / f"project/{number}/below").mkdir(parents=True)
    place = Project(tmp_path / "project")
    watched = {path for path in place.watch._folders if path}
    assert "more than 10 folders" in place.watch.unwatched
    assert 10 == len(place.watch._folders)

    for number in range(30):
        (tmp_path / f"project/{number}/.git").mkdir()

    assert {f"{path}/.git" for path in watched} == set(place.found())


def test_a_slow_disk_is_watched_in_part(tmp_path, monkeypatch):
    """The rest is read with the next worker's begin."""
    monkeypatch.setattr(watch, "PATIENCE", -1)
    (tmp_path / "project/a/b").mkdir(parents=True)
    place = Project(tmp_path / "project")
    assert {""} == set(place.watch._folders)
    assert "more than are read in" in place.watch.unwatched
    (tmp_path / "project/new").mkdir()
    (tmp_path / "project/new/.envrc").touch()
    assert {"new/.envrc": "new"} == place.found()
    monkeypatch.undo()

    place.watch.accept()

    assert ({"", "a", "a/b", "new"}, "") == (set(place.watch._folders), place.watch.unwatched)


def test_of_what_was_not_watched_no_repository_is_touched(tmp_path, monkeypatch):
    """It may have been moved within the project, by its owner."""
    monkeypatch.setattr(watch, "MOST_FOLDERS", 3)
    for name in ("a/x", "a/y", "a/z/own/.git"):
        (tmp_path / "project" / name).mkdir(parents=True)
    place = Project(tmp_path / "project")
    monkeypatch.setattr(watch, "MOST_FOLDERS", 10)

    shutil.move(place.folder / "a/z", place.folder / "moved")

    (finding,) = place.watch.look()
    assert ("moved/own/.git", ()) == (finding.path, finding.moves)
    assert "not all of this project is watched" in finding.problem
    assert (place.folder / "moved/own/.git").is_dir()
    assert {} == place.found()


def test_many_new_folders_do_not_push_out_those_that_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "MOST_FOLDERS", 10)
    (tmp_path / "project/z/deep").mkdir(parents=True)
    place = Project(tmp_path / "project")
    for number in range(30):
        (place.folder / f"{number}").mkdir()
    assert {} == place.found()

    (place.folder / "z/deep/.git").mkdir()

    assert {"z/deep/.git": "new"} == place.found()
    assert "more than 10 folders" in place.watch.unwatched


def test_a_folder_with_too_many_files_is_looked_at_in_part(place, monkeypatch):
    monkeypatch.setattr(watch, "MOST_ENTRIES", 10)
    for number in range(30):
        place.write(f"sub/{number}")

    assert {} == place.found()
    assert "10 files or more" in place.watch.unwatched


def test_depth_is_no_problem(place):
    path = str(place.folder)
    for _ in range(200):
        path += "/aaaaaaaaaa"
    os.makedirs(f"{path}/.git")
    here = os.open(path, os.O_RDONLY)
    try:
        for _ in range(300):  # beyond what one path can name
            os.mkdir("aaaaaaaaaa", dir_fd=here)
            deeper = os.open("aaaaaaaaaa", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.mkdir(".git", dir_fd=here)
    finally:
        os.close(here)

    (found,) = place.found()

    assert found.endswith("a/.git")
    assert "File name too long" in place.watch.unwatched
    subprocess.run(["rm", "-rf", place.folder], check=True)


def test_folders_in_which_no_worker_writes_are_not_entered(tmp_path):
    (tmp_path / "project/.venv/lib").mkdir(parents=True)
    place = Project(tmp_path / "project", excluded=[str(tmp_path / "project/.venv")])

    place.write(".venv/lib/a.pth")

    assert {} == place.found()


def test_of_a_home_folder_the_hidden_files_are_no_projects(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    place = Project(home)

    for name in (".npmrc", ".config/a/.envrc", "work/.npmrc"):
        place.write(name)
    (home / ".git").mkdir()

    assert {"work/.npmrc": "new"} == place.found()
    assert (home / ".git").is_dir()


def test_a_project_that_is_gone_for_a_while_keeps_its_repositories(place, git):
    """A disk that was unmounted, say."""
    plant(place, git, "own")
    plant(place, git, ".")
    place.watch.accept()
    place.folder.rename(place.folder.with_name("away"))
    assert {} == place.found()
    place.folder.mkdir()
    assert {} == place.found()
    place.folder.rmdir()
    place.folder.with_name("away").rename(place.folder)

    assert {".git": "replaced", "own/.git": "replaced"} == {
        path: how for path, how in place.found().items() if path.endswith(".git")
    }
    assert (place.folder / "own/.git").is_dir()


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path, path)])
def test_odd_files_are_only_named(place, make):
    make(str(place.folder / ".envrc"))
    (place.folder / "sub").mkdir()
    make(str(place.folder / "sub/.git"))

    assert {".envrc": "new", "sub/.git": "new"} == place.found()


# --- what is told ---


def finding(path, kind=None, **more):
    return Finding(path, "new", kind or KINDS[0], **more)


def test_a_report_says_what_came_what_acts_on_it_and_how_to_get_it_back(place):
    place.write(".vscode/tasks.json")
    (place.folder / "sub/.git").mkdir(parents=True)
    text = report(place.watch.look(), ["coder"], str(place.folder))
    moved = place.renamed("sub/git").relative_to(place.folder)

    assert text == (
        f"Hive: in {place.folder} something came that your tools act on by themselves. "
        'Worker "coder" may have written it, or you have; Hive cannot tell.\n'
        "  sub/.git (a new repository): git, at any command below that folder. It is "
        f"{moved} now.\n"
        "  .vscode/tasks.json (new): Visual Studio Code and editors made from it, when they open "
        "the folder\n"
        "Nothing is deleted. What you made yourself you get back, after %hive stop coder, in that "
        "folder by:\n"
        f"  mv -- {moved} sub/.git"
    )


def test_a_report_of_much_is_short():
    many = [finding(f"{number}/.gitattributes") for number in range(1000)]
    many += [
        finding(f"{n}/.git", REPOSITORY, moves=((f"{n}/.git", f"{n}/x"),)) for n in range(1000)
    ]

    text = report(many, ["a", "b"], "/p")

    assert 'Worker "a" or "b" may have' in text
    assert "after %hive stop a and %hive stop b" in text
    assert "4/.gitattributes and 995 more (new)" in text
    assert 2 == text.count("  and 995 more")
    assert len(text) < 3000
    line = summary(many, ["a"], "/project")
    assert " and 1995 more; set aside, back in /project by: mv -- " in line
    assert line.endswith(" and 999 more")


def test_the_status_names_the_place_of_a_repository_that_was_set_aside():
    found = [finding(".git", REPOSITORY, moves=((".git", ".git.aside"),)), finding(".envrc")]

    line = summary(found, ["coder"], "/my project")

    assert ".envrc, .git; set aside, back in /my project by: mv -- .git.aside .git" in line


def test_nothing_in_a_report_hides():
    odd = finding("a\n\x1b[2J\u202e/.git", REPOSITORY, moves=(("a\n\x1b", "b\r\x1b"),))

    text = report([odd, finding("\x1b]0;x\x07/.envrc")], ["coder"], "/p\x1b[2J")

    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert 5 == len(text.splitlines())


def test_what_could_not_be_set_aside_is_left_to_the_user():
    text = report([finding("a/.git", REPOSITORY, problem="Disk full")], ["coder"], "/p")

    assert text.endswith("It could not be set aside (Disk full): do that yourself.")
