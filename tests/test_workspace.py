"""The files that tools may touch: what lies outside stays out of reach, whoever moves what when."""

import os
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_jupyter.errors import ToolError
from hive_jupyter.worker.tools import workspace
from tests.worker_tools import Project

SECRET = "a secret of somebody else\n"


@pytest.fixture
def outside(project):
    """A folder outside the project, with a file."""
    folder = project.root.parent / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


WRITING = [("save_file", {"content": "mine\n"}), ("edit_file", {"old_text": "a", "new_text": "b"})]
READING = [
    ("read_file", {}),
    ("search_files", {"pattern": "secret"}),
    ("list_files", {}),
    ("ast_search", {"pattern": "a", "language": "python"}),
]


@pytest.mark.parametrize(("tool", "arguments"), READING + WRITING)
@pytest.mark.parametrize("way", ["above", "absolute", "link", "folder link", "descriptor"])
def test_a_path_outside_is_refused(project, outside, tool, arguments, way):
    os.symlink(outside / "secret.txt", project.root / "link")
    os.symlink(outside, project.root / "folder")
    descriptor = os.open(outside / "secret.txt", os.O_RDONLY)
    path = {
        "above": "../outside/secret.txt",
        "absolute": str(outside / "secret.txt"),
        "link": "link",
        "folder link": "folder/secret.txt",
        "descriptor": f"/proc/self/fd/{descriptor}",
    }[way]

    said = project.error(tool, path=path, **arguments)

    os.close(descriptor)
    assert "outside the project" in said
    assert SECRET not in said
    assert SECRET == (outside / "secret.txt").read_text()


def test_a_new_file_or_folder_outside_is_refused(project, outside):
    os.symlink(outside, project.root / "folder")

    for path in ("folder/new.py", "../outside/a/b.py", "folder/a/b/c.py", "../new.py"):
        assert "outside the project" in project.error("save_file", path=path, content="")

    assert ["secret.txt"] == os.listdir(outside)
    assert not (project.root.parent / "new.py").exists()


def test_links_within_the_project_lead_on(project):
    project.write("real/a.py", "a\n")
    os.symlink(project.root / "real", project.root / "absolute")
    os.symlink("real", project.root / "relative")

    assert "real/a.py" == project.ok("read_file", path="absolute/a.py").structured_content["path"]
    project.ok("save_file", path="relative/b.py", content="b\n")
    assert "b\n" == (project.root / "real/b.py").read_text()


def test_a_link_to_itself_is_an_error(project):
    os.symlink("loop", project.root / "loop")

    assert "loop" in project.error("read_file", path="loop")
    assert project.error("save_file", path="loop", content="")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc/self/mem", "/dev/stdin"])
def test_a_device_is_refused_and_not_opened(project, path):
    assert "outside the project" in project.error("read_file", path=path)


def test_relative_paths_begin_at_the_working_folder(tmp_path, project):
    inner = Project(project.root, "notebooks")
    inner.write("src/a.py", "a\n")
    inner.write("notebooks/b.py", "b\n")

    assert "b.py" == inner.ok("read_file", path="b.py").structured_content["path"]
    assert "../src/a.py" == inner.ok("read_file", path="../src/a.py").structured_content["path"]
    listed = inner.ok("list_files", path="..").structured_content["entries"]
    assert "../src/a.py" in [entry["path"] for entry in listed]
    for entry in listed:
        if entry["kind"] == "file":
            inner.ok("read_file", path=entry["path"])


def test_the_worker_may_have_gone_elsewhere(project, outside, monkeypatch):
    project.write("a.py", "a\n")
    monkeypatch.chdir(outside)

    project.ok("read_file", path="a.py")
    project.error("read_file", path="secret.txt")


@pytest.mark.parametrize(
    "path",
    [".git/config", ".git", "sub/.git/config", ".GIT/hooks/x", "new/.git", "link/config"],
)
def test_gits_own_files_are_not_written(project, path):
    project.write("a.py", "a\n")
    project.commit()
    os.symlink(".git", project.root / "link")
    before = (project.root / ".git/config").read_bytes()

    assert project.error("save_file", path=path, content="[core]\n")
    assert before == (project.root / ".git/config").read_bytes()
    assert not (project.root / "sub").exists() or not (project.root / "sub/.git").exists()


def test_a_read_only_file_is_left_alone(project, monkeypatch):
    path = project.write("a.py", "a\n")
    path.chmod(0o444)
    # nothing is read-only to root
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert "read-only" in project.error("save_file", path="a.py", content="b\n")
    assert "a\n" == path.read_text()


def test_of_a_home_folder_only_what_is_visible_counts(tmp_path, project, monkeypatch):
    monkeypatch.setenv("HOME", str(project.root))
    project.write("work/a.py", "secret\n")
    project.write("work/.config", "secret\n")
    project.write(".ssh/id", "secret\n")
    workspace.enter(str(project.root), str(project.root))

    assert "visible" in project.error("read_file", path=".ssh/id")
    assert project.error("save_file", path=".bashrc", content="")
    project.ok("read_file", path="work/a.py")
    project.ok("read_file", path="work/.config")
    listed = project.ok("list_files", hidden=True).structured_content["entries"]
    assert ["work", "work/.config", "work/a.py"] == [entry["path"] for entry in listed]
    found = project.ok("search_files", pattern="secret", hidden=True).structured_content["matches"]
    assert ["work/.config", "work/a.py"] == [match["path"] for match in found]


def test_above_a_home_folder_what_it_hides_stays_hidden(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project.root / "ann"))
    project.write("ann/.ssh/id", "secret\n")
    project.write("ann/work/a.py", "a\n")
    workspace.enter(str(project.root), str(project.root))

    assert project.error("read_file", path="ann/.ssh/id")
    project.ok("read_file", path="ann/work/a.py")


# Races: what is swapped between a look and the next step


def swap_at(monkeypatch, name, swap):
    """Have something swapped right after a function of ``os`` was called for the first time."""
    function = getattr(os, name)
    calls = []

    def called(*arguments, **options):
        result = function(*arguments, **options)
        if not calls:
            calls.append(arguments)
            swap()
        return result

    monkeypatch.setattr(os, name, called)
    return calls


def test_a_link_that_is_swapped_after_the_check_leads_nowhere_else(project, outside, monkeypatch):
    path = project.write("a.py", "mine\n")

    def swap():
        path.unlink()
        path.symlink_to(outside / "secret.txt")

    calls = swap_at(monkeypatch, "readlink", swap)

    result = project.ok("read_file", path="a.py")

    assert calls
    assert "mine\n" == str(result.content[0])


def test_a_folder_that_is_swapped_while_a_file_is_written_leads_nowhere_else(
    project, outside, monkeypatch
):
    project.write("sub/a.py", "mine\n")

    def swap():
        os.rename(project.root / "sub", project.root / "moved")
        os.symlink(outside, project.root / "sub")

    calls = swap_at(monkeypatch, "fsync", swap)

    project.ok("save_file", path="sub/a.py", content="new\n")

    assert calls
    assert "new\n" == (project.root / "moved/a.py").read_text()
    assert ["secret.txt"] == os.listdir(outside)


def test_a_folder_that_is_swapped_while_folders_are_made_leads_nowhere_else(
    project, outside, monkeypatch
):
    def swap():
        os.rename(project.root / "a", project.root / "moved")
        os.symlink(outside, project.root / "a")

    calls = swap_at(monkeypatch, "mkdir", swap)

    project.call("save_file", path="a/b/c.py", content="new\n")

    assert calls
    assert ["secret.txt"] == os.listdir(outside)


def test_a_file_that_becomes_a_pipe_after_the_check_does_not_block(project, monkeypatch):
    path = project.write("a.py", "mine\n")

    def swap():
        path.unlink()
        os.mkfifo(path)

    swap_at(monkeypatch, "readlink", swap)

    assert "mine\n" == str(project.ok("read_file", path="a.py").content[0])


def test_a_socket_that_somebody_listens_on_is_no_file(project):
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(project.root)
        try:
            listening.bind("thing")
        finally:
            os.chdir(here)
        listening.listen()

        assert "a socket" in project.error("read_file", path="thing")


# Forests of links


part = st.sampled_from(["a", "b", "c", "..", ".", "out"])
paths = st.lists(part, min_size=1, max_size=5).map("/".join)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(
    links=st.lists(st.tuples(paths, paths, st.booleans()), max_size=8),
    asked=st.lists(paths, min_size=1, max_size=4),
)
def test_no_forest_of_links_leads_out(project, links, asked):
    top = project.root.parent / f"forest{time.monotonic_ns()}"
    root, outside = top / "root", top / "outside"
    for folder in (root / "a/b", root / "c", outside / "a/b"):
        folder.mkdir(parents=True)
    (outside / "a/b/c").write_text(SECRET)
    (root / "c/a").write_text("mine\n")
    os.symlink(outside, root / "out")
    for place, leads_to, absolute in links:
        place_in = os.path.normpath(f"{root}/{place}")
        if os.path.realpath(os.path.dirname(place_in)).startswith(str(root)):
            try:
                os.symlink(f"{root}/{leads_to}" if absolute else leads_to, place_in)
            except OSError:
                continue
    workspace.enter(str(root), str(root))
    before = sorted((name, sorted(inside)) for name, _, inside in os.walk(outside))

    for path in asked:
        result = project.call("read_file", path=path)
        assert SECRET not in str(result)
        project.call("save_file", path=path, content="new\n")
        project.call("save_file", path=f"{path}/deep/er", content="new\n")
        try:
            with workspace.opened(path) as there:
                assert os.path.realpath(there.place).startswith(str(root))
        except ToolError:
            continue

    assert before == sorted((name, sorted(inside)) for name, _, inside in os.walk(outside))
    assert SECRET == (outside / "a/b/c").read_text()
    assert {"root", "outside"} == set(os.listdir(top))
