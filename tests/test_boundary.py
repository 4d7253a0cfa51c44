"""Which paths a policy means: what may be written, and what never."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.project import project_root
from hive_jupyter.protocol import WorkerSpec
from hive_jupyter.worker.confine.boundary import Boundary, is_below
from tests.children import in_child, place_of, users
from tests.repos import Repo


@pytest.fixture
def place(tmp_path):
    """A home, and a project in it."""
    for folder in ("user/project/src", "user/.ssh", "user/.config", "runtime/w1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "user/project/a.py").write_text("")
    return tmp_path


def of(place, folder="user/project", *, has_mounts=True, path=(), runtime="runtime/w1", **options):
    """The boundary of a worker that is started in a folder."""
    environment = {
        "HOME": str(place / "user"),
        "PATH": "/usr/bin",
        **options.pop("environment", {}),
    }
    protected, private = options.pop("protected", ()), options.pop("private", ())
    cwd = str(Path(place, folder))
    spec = WorkerSpec(
        name="coder",
        folder=str(place / runtime),
        cwd=cwd,
        path=path,
        environment=environment,
        policy=SandboxPolicy(**options),
        connection={},
        root=project_root(cwd, environment["HOME"]),
        protected=protected,
        private=private,
    )
    return Boundary.of(spec, has_mounts=has_mounts)


def may(paths, path):
    return any(is_below(str(path), each) for each in paths)


def test_a_workspace_is_the_project_and_a_temporary_folder(place):
    found = of(place)

    assert may(found.write, place / "user/project/new.py")
    assert may(found.write, found.temporary)
    assert not may(found.write, place / "user")
    assert not may(found.write, "/usr/lib")


def test_a_repository_behind_a_link_keeps_its_link(place):
    """On which nothing can be mounted."""
    Repo(place / "elsewhere")
    os.symlink(place / "elsewhere/.git", place / "user/project/.git")

    found = of(place)

    assert not may(found.write, place / "user/project/.git")
    assert not may(found.write, place / "user/project/new.py")
    assert may(found.write, place / "user/project/src/new.py")


def test_what_may_be_written_is_named_without_links(place):
    """Landlock follows none there."""
    (place / "elsewhere").mkdir()
    os.symlink(place / "runtime", place / "elsewhere/run")
    spec_folder = of(place, folder="user/project", runtime="elsewhere/run/w1")

    assert may(spec_folder.write, place / "runtime/w1/k-1")
    assert all(os.path.realpath(path) == path for path in spec_folder.write)


def test_of_a_home_only_the_project_is_read(place):
    found = of(place)

    assert may(found.read, place / "user/project/a.py")
    for secret in (".ssh", ".config/gh", ".aws", "other", ".netrc"):
        assert not may((*found.read, *found.write), place / "user" / secret)


def test_temporary_files_and_sockets_of_others_are_not_read(place):
    for path in (
        "/tmp/x",
        "/run/user/1000/bus",
        "/var/run/docker.sock",
        "/var/tmp/x",
        "/dev/pts/0",
    ):
        assert not may((*of(place).read, *of(place).write), path)


@pytest.mark.parametrize("has_mounts", [True, False])
@pytest.mark.parametrize("profile", ["workspace", "strict"])
@pytest.mark.parametrize("private", [".run", ".venv/share/jupyter"])
def test_other_workers_sockets_and_the_ledger_are_not_read(place, profile, private, has_mounts):
    """Also where the user has put them among data, into the project or into an environment."""
    project = place / "user/project"
    (project / private / "w2").mkdir(parents=True)
    (project / ".venv/lib").mkdir(parents=True, exist_ok=True)
    (project / ".venv/pyvenv.cfg").touch()

    found = of(place, profile=profile, private=(str(project / private),), has_mounts=has_mounts)

    assert not may((*found.read, *found.write), project / private / "w2/log")
    assert may(found.never, project / private) or profile == "strict"
    assert may((*found.read, *found.write), project / "a.py")
    assert may(found.read, project / ".venv/lib/os.py")


def test_strict_reads_the_project_and_writes_only_its_temporary_folder(place):
    found = of(place, profile="strict")

    assert may(found.read, place / "user/project/a.py")
    assert not may(found.write, place / "user/project/a.py")
    assert may(found.write, found.temporary)
    assert not may(found.read, "/opt/data")
    assert may(found.read, sys.base_prefix)
    assert may(found.read, "/usr/lib")


def test_a_user_can_add_folders(place):
    found = of(place, profile="strict", readable=("/data",), writable=(str(place / "out"),))

    assert may(found.read, "/data/a.csv")
    assert may(found.write, place / "out/b.csv")


@pytest.mark.parametrize("has_mounts", [True, False])
@pytest.mark.parametrize("folder", ["user/project", "user/project/src"])
def test_the_repository_is_never_written(place, folder, has_mounts):
    """Also where the notebook lies below its root."""
    Repo(place / "user/project")

    found = of(place, folder, has_mounts=has_mounts)

    assert str(place / "user/project/.git") in found.never
    assert may(found.write, place / "user/project/src/new.py")
    assert may(found.write, place / "user/project/a.py")
    assert may(found.mounted if has_mounts else found.never, place / "user/project/.git/config")
    assert has_mounts == may(found.write, place / "user/project/new.py")
    assert has_mounts == may(found.write, place / "user/project/.git/config")


@pytest.mark.parametrize("has_mounts", [True, False])
def test_submodules_and_linked_worktrees_keep_their_pointers(place, home, has_mounts):
    project = Repo(place / "user/project")
    project.commit_all("begin")
    other = Repo(place / "other")
    other.write("b.py", "")
    other.commit_all("begin")
    project("submodule", "--quiet", "add", str(other.folder), "deep/sub")
    project("worktree", "add", "--quiet", "linked")

    found = of(place, has_mounts=has_mounts)

    for pointer in ("deep/sub/.git", "linked/.git", ".git/modules/deep/sub/config"):
        assert may(found.never, place / "user/project" / pointer)
        assert has_mounts == may(found.write, place / "user/project" / pointer)
    assert may(found.write, place / "user/project/deep/sub/b.py")


@pytest.mark.parametrize("has_mounts", [True, False])
def test_what_runs_with_the_users_rights_later_is_never_written(place, has_mounts):
    project = place / "user/project"
    for folder in (".venv/lib", "venv2/lib", "bin", ".jupyter", "cache.git/objects"):
        (project / folder).mkdir(parents=True)
    (project / "venv2/pyvenv.cfg").write_text("")
    (project / "cache.git/refs").mkdir()
    (project / "cache.git/HEAD").write_text("")
    environment = {"VIRTUAL_ENV": str(project / ".venv"), "PATH": f"{project}/bin:/usr/bin:.::"}

    found = of(
        place,
        has_mounts=has_mounts,
        environment=environment,
        protected=(str(project / ".jupyter"), "/nowhere"),
    )

    for name in (
        ".venv/lib/x.pth",
        "venv2/lib/x.pth",
        "bin/git",
        ".jupyter/x.py",
        "cache.git/config",
    ):
        assert may(found.never, project / name)
        assert has_mounts == may(found.write, project / name)


def test_the_interpreters_own_folders_are_protected(tmp_path):
    """Of the very Python that runs this, whose prefix lies in a project of somebody's."""
    found = of(tmp_path, Path(sys.prefix).parent, environment={"HOME": "/nonexistent"})

    assert may(found.never, Path(sys.prefix, "lib/x.pth"))


@pytest.mark.parametrize("repository", [False, True])
def test_of_a_home_only_what_is_visible_is_a_project(place, repository):
    """A repository of dotfiles, and Binder's home, included."""
    if repository:
        Repo(place / "user")
    (place / "user/notebooks").mkdir()

    found = of(place, "user")

    assert may(found.write, place / "user/notebooks/new.py")
    assert may(found.write, place / "user/project/new.py")
    for secret in (".ssh/id", ".git/config", ".bashrc", "new.py"):
        assert not may((*found.write, *found.read), place / "user" / secret)
    assert "Work in a folder below it" in " ".join(found.notes)


def test_of_the_root_of_the_file_system_nothing_of_the_systems_is_a_project(place):
    found = of(place, "/")

    for path in ("/etc/passwd", "/usr/bin/x", "/home/x", "/root/x", "/tmp/x", "/new", "/opt/x"):
        assert not may(found.write, path)
    assert "Work in a folder below it" in " ".join(found.notes)


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp"])
def test_where_everybody_has_files_there_is_no_project(place, folder):
    found = of(place, folder, path=(folder,))

    assert not may((*found.read, *found.write), f"{folder}/somebodys")
    assert "is no project" in " ".join(found.notes)


def test_a_folder_above_the_home_is_no_project(place):
    found = of(place, ".")

    assert not may(found.write, place / "user/.bashrc")
    assert not may(found.write, place / "user")


def test_a_link_in_the_project_leads_nowhere_else(place):
    """Landlock follows links; what they lead to is not the project's."""
    os.symlink(place / "user/.ssh", place / "user/project/keys")
    Repo(place / "user/project")

    for has_mounts in (True, False):
        found = of(place, has_mounts=has_mounts)
        assert str(place / "user/.ssh") not in map(os.path.realpath, (*found.write, *found.read))


@pytest.mark.parametrize("profile", ["workspace", "strict"])
@pytest.mark.parametrize("through", ["direct", "chain", "from outside"])
def test_what_a_worker_may_have_put_in_the_place_of_a_module_is_not_read(place, profile, through):
    """The host's sys.path names a folder of the project, as for an editable install."""
    project = place / "user/project"
    (project / "src").rmdir()
    entry = project / "src/package"
    if through == "chain":
        os.symlink("pointer", project / "src")
        os.symlink(place / "user", project / "pointer")
        entry = project / "src/.ssh"
    elif through == "from outside":
        os.symlink(place / "user/.ssh", project / "src")
        os.symlink(project / "src", place / "library")
        entry = place / "library"
    else:
        (place / "user/.ssh/package").mkdir()
        os.symlink(place / "user/.ssh", project / "src")

    found = of(place, profile=profile, path=(str(entry),))

    assert not any(
        is_below(os.path.realpath(each), str(place / "user/.ssh")) for each in found.read
    )


def test_a_module_behind_a_link_that_no_worker_made_is_read(place):
    (place / "sources/module").mkdir(parents=True)
    os.symlink(place / "sources", place / "library")

    found = of(place, path=(str(place / "library/module"),))

    assert may(found.read, place / "library/module/a.py")


@pytest.mark.parametrize("setting", ["readable", "writable"])
def test_a_folder_behind_a_link_in_the_project_is_to_be_named_itself(place, setting):
    """A worker could have the link lead to the user's keys."""
    link = place / "user/project/data"
    os.symlink(place / "user/.ssh", link)

    found = of(place, **{setting: (str(link),)})

    paths = map(os.path.realpath, (*found.read, *found.write))
    assert not may(paths, place / "user/.ssh/id")
    assert f"{link} leads through a symbolic link" in " ".join(found.notes)


@pytest.mark.parametrize("has_mounts", [True, False])
def test_an_environment_in_a_folder_to_write_is_read(place, has_mounts):
    environment = place / "shared/.venv"
    environment.mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()

    found = of(
        place,
        has_mounts=has_mounts,
        writable=(str(place / "shared"),),
        environment={"VIRTUAL_ENV": str(environment)},
    )

    assert may(found.read, environment / "lib/a.py")


_OF_A_LINK = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from tests.test_boundary import of
place = Path(sys.argv[2])
link = place / "user/project/.venv"
before = of(place).read
link.unlink()
link.symlink_to(place / "user/.ssh")
print(json.dumps([before, of(place).read]))
"""


def test_an_interpreter_behind_a_link_in_the_project_is_read_where_it_was_when_it_started(place):
    environment = place / "environments/one"
    (environment / "bin").mkdir(parents=True)
    os.symlink(os.path.realpath(sys.executable), environment / "bin/python")
    (environment / "pyvenv.cfg").write_text(f"home = {os.path.dirname(sys._base_executable)}\n")
    link = place / "user/project/.venv"
    link.symlink_to(environment)
    program = [link / "bin/python", "-I", "-c", _OF_A_LINK, json.dumps(sys.path), place]

    said = json.loads(subprocess.check_output(program))

    for read in said:
        assert may(read, environment / "lib/a.py")
        assert not may(map(os.path.realpath, read), place / "user/.ssh/id")


@pytest.mark.parametrize("has_mounts", [True, False])
def test_of_a_project_of_countless_folders_the_rest_is_not_written(place, monkeypatch, has_mounts):
    """A worker could make so many that a repository is not found."""
    monkeypatch.setattr("hive_jupyter.worker.confine.boundary._MOST_FOLDERS", 2)
    (place / "user/project/src/deep/deeper").mkdir(parents=True)
    (place / "user/project/src/a.py").write_text("")

    found = of(place, has_mounts=has_mounts)

    assert "more than 2 folders" in " ".join(found.notes)
    assert may(found.write, place / "user/project/src/a.py")
    assert not may(found.write, place / "user/project/src/deep/x")
    assert [] == list(found.mounted)


@pytest.mark.parametrize("closed", ["user/project", "user/project/parts"])
def test_a_folder_that_cannot_be_listed_hides_no_repository(closed):
    """A worker could close it, for the next one not to see what is in it."""
    user = users()[-1]
    with place_of(user) as beside:
        beside.folder("runtime/w1")
        for folder in ("user/project", "user/project/parts", "user/project/src"):
            beside.folder(folder)
        repository = Path(beside.folder("user/project/parts/one/.git"))

        def look():
            os.chmod(Path(beside.path, closed), 0o300)
            found = of(Path(beside.path), has_mounts=False)
            os.chmod(Path(beside.path, closed), 0o700)
            return found

        found = in_child(look, user=user)

        assert may(found.never, repository / "config")
        assert not may(found.write, repository / "config")
        assert f"{beside.path}/{closed} cannot be listed: Permission denied" in " ".join(
            found.notes
        )
        assert may(found.write, f"{beside.path}/user/project/src/a") == ("parts" in closed)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes folders of others")
def test_a_closed_folder_of_somebody_elses_hides_nothing():
    """As what the container of a database leaves in a project."""
    user = users()[-1]
    with place_of(user) as beside:
        beside.folder("runtime/w1")
        foreign = Path(beside.folder("user/project"), "database")
        foreign.mkdir(mode=0o700)

        found = in_child(lambda: of(Path(beside.path), has_mounts=False), user=user)

        assert may(found.write, foreign.parent / "new.py")
        assert "cannot be listed" not in " ".join(found.notes)


def test_of_countless_files_beside_a_repository_some_are_written(place, monkeypatch):
    monkeypatch.setattr("hive_jupyter.worker.confine.boundary._MOST_PARTS", 2)
    Repo(place / "user/project")
    (place / "user/project/b.py").write_text("")

    found = of(place, has_mounts=False)

    assert 2 == sum(path.startswith(str(place / "user/project")) for path in found.write)
    assert "Of the 3 files and folders" in " ".join(found.notes)


@pytest.mark.parametrize("has_mounts", [True, False])
def test_a_folder_on_path_that_is_not_there_cannot_be_made(place, has_mounts):
    """Programs in it would be run by the user."""
    project = place / "user/project"

    found = of(place, has_mounts=has_mounts, environment={"PATH": f"{project}/src/tools/bin:/bin"})

    assert not may(found.write, project / "src/tools/bin/git")
    assert not may(found.write, project / "src/tools")
    assert may(found.write, project / "a.py")
    assert f"{project}/src/tools/bin, which does not exist" in " ".join(found.notes)


@pytest.mark.parametrize("has_mounts", [True, False])
@pytest.mark.parametrize("target", ["user/elsewhere", "user/project/other/tools"])
def test_a_link_that_path_leads_through_stays(place, has_mounts, target):
    """Or a worker would put a folder of its own in its place."""
    project = place / "user/project"
    (place / target / "bin").mkdir(parents=True)
    os.symlink(place / target, project / "tools")

    found = of(place, has_mounts=has_mounts, environment={"PATH": f"{project}/tools/bin"})

    assert str(project / "tools") in found.never
    assert not may(found.write, project / "new")
    assert may(found.write, project / "src/new")
    assert may(found.never, place / target / "bin/git") == ("project" in target)


@pytest.mark.parametrize("has_mounts", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_link_to_an_environment_stays(place, has_mounts, named):
    """Also where the host knows nothing of it."""
    link = place / "user/project/.venv"
    (place / "environment").mkdir()
    (place / "environment/pyvenv.cfg").touch()
    os.symlink("../../environment", link)

    environment = {"VIRTUAL_ENV": str(link)} if named else {}
    found = of(place, has_mounts=has_mounts, environment=environment)

    assert str(link) in found.never
    assert not may(found.write, link)
    assert may(found.write, place / "user/project/src/new")


@pytest.mark.parametrize("has_mounts", [True, False])
def test_folders_in_one_another_without_end_keep_no_worker_from_starting(place, has_mounts):
    """More than the calls that Python allows within one another."""
    project = place / "user/project"
    folder = project / "deep"
    for _ in range(1200):
        folder.mkdir()
        folder /= "a"
    (folder.parent / ".git").touch()
    try:
        found = of(place, has_mounts=has_mounts)
    finally:
        subprocess.run(["rm", "-r", project / "deep"], check=True)

    assert str(folder.parent / ".git") in found.never
    assert may(found.write, project / "a.py")


def test_links_that_lead_round_in_a_circle_end(place):
    project = place / "user/project"
    os.symlink("two", project / "one")
    os.symlink("one", project / "two")

    found = of(place, environment={"PATH": f"{project}/one/bin"})

    assert {str(project / "one"), str(project / "two")} <= set(found.never)


def test_what_cannot_be_mounted_on_opens_nothing_beside_it(place):
    """A folder on PATH that is not there has all others granted one by one: not what is mounted."""
    project = place / "user/project"
    Repo(project)
    (project / "tools").mkdir()

    found = of(place, path=(), environment={"PATH": f"{project}/tools:{project}/later/bin"})

    assert may(found.write, project / "src/new.py")
    assert not {str(project / ".git"), str(project / "tools")} & set(found.write)
    assert {str(project / ".git"), str(project / "tools")} <= set(found.mounted)


def test_what_is_missing_below_something_protected_changes_nothing(place):
    """As share/jupyter in most environments."""
    project = place / "user/project"
    (project / ".venv").mkdir()
    (project / ".venv/pyvenv.cfg").touch()

    found = of(place, protected=(str(project / ".venv/share/jupyter"),))

    assert str(project) in found.write
    assert str(project / ".venv") in found.mounted


@given(st.lists(st.lists(st.sampled_from("ab.c"), min_size=1, max_size=4), max_size=6))
def test_what_is_granted_without_mounts_holds_nothing_that_is_protected(tmp_path_factory, paths):
    """And all the rest that there is."""
    place = tmp_path_factory.mktemp("place")
    (place / "runtime/w1").mkdir(parents=True)
    project = place / "user/project"
    for parts in paths:
        folder = project.joinpath(*(part if part != "." else ".git" for part in parts))
        folder.mkdir(parents=True, exist_ok=True)
    project.mkdir(parents=True, exist_ok=True)

    found = of(place, has_mounts=False)

    for folder, folders, _ in os.walk(project):
        for name in folders:
            path = os.path.join(folder, name)
            inside = ".git" in Path(path).relative_to(project).parts
            holds = any(".git" in below for _, below, _ in os.walk(path))
            if inside or not holds:
                assert may(found.write, path) != inside
