"""Modules of a project that have the name of an installed one."""

import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import threading
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace

import pytest

from hive_jupyter import HiveManager, shadows
from hive_jupyter.shadows import ShadowFinder
from tests.hosts import play

INSTALLED, PLANTED = "where = 'installed'\n", "where = 'planted'\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """
    A project in which a worker writes, and a folder with installed modules behind it on the path.

    Whatever a test imports is forgotten after it.
    """
    folders = SimpleNamespace(project=tmp_path / "project", installed=tmp_path / "installed")
    for folder in (folders.project, folders.installed, tmp_path / "home"):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folders.project)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(folders.installed)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield folders
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def make_finder(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])

    def make(allowed=(), writable=()):
        told = []
        finder = ShadowFinder(lambda: allowed, lambda: writable, told.append)
        finder.install()
        assert told is not finder.told
        return finder

    return make


@pytest.fixture
def finder(make_finder):
    return make_finder()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()
    return path


def test_the_installed_module_is_imported_and_the_file_that_was_passed_over_is_named(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    planted = write(place.project / "aaa.py", PLANTED)

    assert "installed" == importlib.import_module("aaa").where

    (told,) = finder.told
    assert f"import aaa takes the installed module, {place.installed}/aaa.py" in told
    assert f"not {planted}, which" in told
    assert "shadowing_modules" in told


def test_without_the_finder_the_planted_one_is_imported(place):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)

    assert "planted" == importlib.import_module("aaa").where


def test_what_is_told_is_told_once(place, make_finder):
    told = []
    finder = make_finder()
    finder._tell = told.append
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)

    for _ in range(3):
        importlib.import_module("aaa")
        del sys.modules["aaa"]

    assert told == finder.told
    assert 1 == len(told)


def test_two_finders_tell_once(place, make_finder):
    finders = [make_finder(), make_finder()]
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)

    importlib.import_module("aaa")

    assert 1 == sum(len(finder.told) for finder in finders)


def test_the_standard_library_counts_as_installed(place, finder, monkeypatch):
    """Where the project comes before it on the path, as in a script."""
    write(place.project / "colorsys.py", PLANTED)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    assert hasattr(importlib.import_module("colorsys"), "rgb_to_hsv")
    assert 1 == len(finder.told)


def test_what_only_other_systems_have_stays_absent(place, make_finder):
    """The standard library itself tries to import such modules."""
    allowed = []
    finder = make_finder(allowed)
    planted = write(place.project / "_winapi.py", PLANTED)

    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="^No module named '_winapi'$") as raised:
            importlib.import_module("_winapi")
        assert "_winapi" == raised.value.name

    (told,) = finder.told
    assert (
        f"import _winapi finds nothing, as on any machine of this kind, and not {planted}" in told
    )
    allowed.append("_winapi")
    assert "planted" == importlib.import_module("_winapi").where


def test_a_module_of_the_project_alone_is_imported(place, finder):
    write(place.project / "mine.py", PLANTED)

    assert "planted" == importlib.import_module("mine").where
    assert [] == finder.told


def test_one_that_does_not_exist_is_not_found(finder):
    with pytest.raises(ModuleNotFoundError, match="No module named 'aaa'"):
        importlib.import_module("aaa")


def test_the_user_may_allow_a_name(place, make_finder):
    allowed = ["aaa"]
    finder = make_finder(allowed)
    for name in ("aaa", "bbb"):
        write(place.installed / f"{name}.py", INSTALLED)
        write(place.project / f"{name}.py", PLANTED)

    assert "planted" == importlib.import_module("aaa").where
    assert "installed" == importlib.import_module("bbb").where

    allowed.remove("aaa")
    del sys.modules["aaa"]
    assert "installed" == importlib.import_module("aaa").where
    assert 2 == len(finder.told)


def test_an_installed_module_that_comes_first_on_the_path_anyway_is_no_news(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)
    sys.path.insert(0, str(place.installed))

    assert "installed" == importlib.import_module("aaa").where
    assert [] == finder.told


@pytest.mark.parametrize("planted", ["aaa.py", "aaa/__init__.py"])
@pytest.mark.parametrize("installed", ["aaa.py", "aaa/__init__.py"])
def test_a_package_counts_like_a_module(place, finder, planted, installed):
    write(place.installed / installed, INSTALLED)
    write(place.project / planted, PLANTED)

    assert "installed" == importlib.import_module("aaa").where
    assert 1 == len(finder.told)


def test_an_extension_module_counts_like_any_other(place, finder):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / f"aaa{suffix}", "no machine runs that")

    assert "installed" == importlib.import_module("aaa").where


def test_bytecode_without_a_source_counts_like_any_other(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    (place.project / "aaa.pyc").write_bytes(b"no Python runs that")

    assert "installed" == importlib.import_module("aaa").where


def test_a_zip_file_of_the_project_counts_like_a_folder(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    with zipfile.ZipFile(place.project / "lib.zip", "w") as archive:
        archive.writestr("aaa.py", PLANTED)
    sys.path.insert(0, str(place.project / "lib.zip"))

    assert "installed" == importlib.import_module("aaa").where
    assert "lib.zip/aaa.py" in finder.told[0]


def test_a_folder_without_an_init_shadows_nothing(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa/b.py", PLANTED)

    assert "installed" == importlib.import_module("aaa").where
    assert [] == finder.told


def test_a_module_of_the_project_does_not_shadow_a_namespace_package(place, finder):
    write(place.installed / "aaa/b.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)

    assert "installed" == importlib.import_module("aaa.b").where
    assert str(place.installed / "aaa") in finder.told[0]


def test_in_a_namespace_package_the_installed_part_comes_first(place, finder):
    """Each of its folders may be the project's own, so that nothing is refused."""
    write(place.installed / "aaa/b.py", INSTALLED)
    write(place.project / "aaa/b.py", PLANTED)
    write(place.project / "aaa/c.py", PLANTED)
    write(place.installed / "aaa/deep/d.py", INSTALLED)
    write(place.project / "aaa/deep/d.py", PLANTED)

    assert "installed" == importlib.import_module("aaa.b").where
    assert "planted" == importlib.import_module("aaa.c").where
    assert "installed" == importlib.import_module("aaa.deep.d").where
    assert [] == finder.told


def test_a_namespace_package_keeps_its_order_when_the_path_changes(place, finder, tmp_path):
    write(place.installed / "aaa/b.py", INSTALLED)
    write(place.project / "aaa/b.py", PLANTED)
    write(tmp_path / "more/aaa/e.py", INSTALLED)
    package = importlib.import_module("aaa")

    sys.path.append(str(tmp_path / "more"))

    assert "installed" == importlib.import_module("aaa.e").where
    folders = [place.installed / "aaa", tmp_path / "more/aaa", place.project / "aaa"]
    assert [*map(str, folders)] == list(package.__path__)
    assert "installed" == importlib.import_module("aaa.b").where


def test_a_namespace_package_still_has_resources(place, finder):
    write(place.installed / "aaa/b.txt", "installed")
    write(place.project / "aaa/b.txt", "planted")
    importlib.import_module("aaa")

    assert "installed" == importlib.resources.files("aaa").joinpath("b.txt").read_text()


def test_what_is_in_a_package_is_not_looked_at(place, finder):
    write(place.installed / "aaa/__init__.py", "")
    write(place.installed / "aaa/bbb.py", INSTALLED)
    write(place.project / "bbb.py", PLANTED)

    assert "installed" == importlib.import_module("aaa.bbb").where
    assert "planted" == importlib.import_module("bbb").where
    assert [] == finder.told


# --- installed from the project itself ---


def test_a_project_that_is_installed_by_a_path_file_is_imported(place, finder):
    """Its folder is an entry of sys.path, behind the notebook's."""
    write(place.project / "src/aaa/__init__.py", PLANTED)
    sys.path.append(str(place.project / "src"))

    assert "planted" == importlib.import_module("aaa").where
    assert [] == finder.told


def test_a_project_that_is_installed_by_a_finder_is_imported(place, finder):
    source = write(place.project / "src/aaa/__init__.py", PLANTED)
    sys.meta_path.append(Editable("aaa", source))
    write(place.project / "aaa.py", "where = 'beside'")

    assert "beside" == importlib.import_module("aaa").where
    assert [] == finder.told


def test_what_a_finder_has_from_elsewhere_counts_as_installed(place, finder, tmp_path):
    sys.meta_path.append(Editable("aaa", write(tmp_path / "other/aaa.py", INSTALLED)))
    write(place.project / "aaa.py", PLANTED)

    assert "installed" == importlib.import_module("aaa").where


def test_a_mere_folder_does_not_shadow_what_a_finder_has(place, finder, tmp_path):
    sys.meta_path.append(Editable("aaa", write(tmp_path / "other/aaa.py", INSTALLED)))
    write(place.project / "aaa/b.py", PLANTED)

    assert "installed" == importlib.import_module("aaa").where


def test_a_link_to_the_project_is_no_installed_module(place, finder):
    write(place.project / "aaa/__init__.py", PLANTED)
    (place.installed / "aaa").symlink_to(place.project / "aaa")

    assert str(place.project) in importlib.import_module("aaa").__file__
    assert [] == finder.told


def test_a_link_to_the_installed_module_is_no_news(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    (place.project / "aaa.py").symlink_to(place.installed / "aaa.py")

    assert "installed" == importlib.import_module("aaa").where
    assert [] == finder.told


class Editable:
    """As setuptools installs for a project that is under way."""

    def __init__(self, name, source):
        self._name, self._source = name, source

    def find_spec(self, name, _path=None, _target=None):
        if name == self._name:
            return importlib.util.spec_from_file_location(name, self._source)
        return None


# --- where a worker may write ---


def test_an_environment_within_the_project_is_no_place_of_workers(place, finder, monkeypatch):
    library = place.project / ".venv/lib"
    write(library / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)
    finder._library |= {str(place.project / ".venv")}
    sys.path.append(str(library))

    assert "installed" == importlib.import_module("aaa").where
    assert 1 == len(finder.told)


def test_the_interpreters_own_folders_are_no_places_of_workers():
    library = shadows._library()

    for name in (os.__file__, pytest.__file__, sys.executable):
        assert shadows._innermost(os.path.abspath(name), library) > 0
    assert -1 == shadows._innermost("/usr/share/nobody", {"/usr/lib", "/usr/share/no"})


def test_a_project_within_the_interpreters_prefix_is_a_place_of_workers(place, finder):
    finder._library |= {str(place.project.parent)}
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)

    assert "installed" == importlib.import_module("aaa").where


def test_folders_that_the_user_lets_workers_write_count_too(place, make_finder, tmp_path):
    make_finder(writable=[str(tmp_path / "shared")])
    write(tmp_path / "shared/aaa.py", PLANTED)
    write(place.installed / "aaa.py", INSTALLED)
    sys.path.insert(0, str(tmp_path / "shared"))

    assert "installed" == importlib.import_module("aaa").where


def test_a_folder_outside_of_the_project_is_the_users_own(place, finder, tmp_path):
    write(tmp_path / "own/aaa.py", "where = 'own'")
    write(place.installed / "aaa.py", INSTALLED)
    sys.path.insert(0, str(tmp_path / "own"))

    assert "own" == importlib.import_module("aaa").where


def test_the_whole_project_counts_whatever_the_working_folder(place, finder, monkeypatch):
    subprocess.run(["git", "init", "-q", str(place.project)], check=True)
    write(place.project / "lib/aaa.py", PLANTED)
    write(place.installed / "aaa.py", INSTALLED)
    (place.project / "notebooks").mkdir()
    monkeypatch.chdir(place.project / "notebooks")
    sys.path.insert(0, "../lib")

    assert "installed" == importlib.import_module("aaa").where


def test_a_project_that_was_left_still_counts(place, finder, monkeypatch, tmp_path):
    write(place.project / "aaa.py", PLANTED)
    write(place.installed / "aaa.py", INSTALLED)
    sys.path.insert(0, str(place.project))
    importlib.util.find_spec("bbb")
    (tmp_path / "next").mkdir()

    monkeypatch.chdir(tmp_path / "next")

    assert "installed" == importlib.import_module("aaa").where


def test_a_link_into_the_project_leads_into_it(place, finder, tmp_path):
    write(place.project / "aaa.py", PLANTED)
    write(place.installed / "aaa.py", INSTALLED)
    (tmp_path / "link").symlink_to(place.project)
    sys.path.insert(0, str(tmp_path / "link"))

    assert "installed" == importlib.import_module("aaa").where


# --- loading again ---


def test_loading_again_does_not_take_what_came_meanwhile(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    module = importlib.import_module("aaa")
    write(place.project / "aaa.py", PLANTED)

    assert "installed" == importlib.reload(module).where
    assert 1 == len(finder.told)


def test_what_was_the_projects_before_is_loaded_again_from_there(place, make_finder):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)
    module = importlib.import_module("aaa")

    finder = make_finder()
    write(place.project / "aaa.py", "where = 'edited'")

    assert "edited" == importlib.reload(module).where
    assert [] == finder.told


# --- a guest in the import system ---


def test_it_stands_before_pythons_finder_and_goes_without_a_trace(make_finder):
    before = [*sys.meta_path]

    finder = make_finder()
    assert sys.meta_path.index(finder) + 1 == sys.meta_path.index(PathFinder)

    finder.remove()
    finder.remove()
    assert before == sys.meta_path


def test_it_stands_somewhere_where_there_is_no_such_finder(place, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [])
    finder = ShadowFinder(list, list, print)

    finder.install()

    assert [finder] == sys.meta_path


def test_nothing_that_fails_in_it_breaks_an_import(place, finder, monkeypatch):
    write(place.project / "aaa.py", PLANTED)

    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(shadows, "project_root", fail)

    assert "planted" == importlib.import_module("aaa").where


def test_who_cannot_be_told_is_protected_all_the_same(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)
    finder._tell = None

    assert "installed" == importlib.import_module("aaa").where


@pytest.mark.parametrize("odd", [b"bytes", Path("path"), None, 7, "\0", "/no/such/folder"])
def test_whatever_is_on_the_path_imports_work(place, finder, odd):
    write(place.installed / "aaa.py", INSTALLED)
    write(place.project / "aaa.py", PLANTED)
    sys.path.append(odd)

    assert "installed" == importlib.import_module("aaa").where


def test_a_working_folder_that_was_deleted_breaks_no_import(place, finder, tmp_path, monkeypatch):
    write(place.installed / "aaa.py", INSTALLED)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert "installed" == importlib.import_module("aaa").where


def test_threads_may_import_at_once(place, finder):
    names = [f"aaa{number}" for number in range(40)]
    for name in names:
        write(place.installed / f"{name}.py", INSTALLED)
        write(place.project / f"{name}.py", PLANTED)
    seen = []

    def load():
        seen.extend(importlib.import_module(name).where for name in names)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["installed"] * 320 == seen
    assert 40 == len(finder.told)


def test_a_strange_name_is_shown_so_that_it_hides_nothing(place, finder):
    write(place.installed / "aaa.py", INSTALLED)
    strange = place.project / "a\x1b[2Jb"
    write(strange / "aaa.py", PLANTED)
    sys.path.insert(0, str(strange))

    importlib.import_module("aaa")

    assert "\x1b" not in finder.told[0]


# --- a hive ---


def test_a_hive_protects_its_process_until_it_is_closed(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for name in ("aaa", "bbb", "ccc"):
        write(place.installed / f"{name}.py", INSTALLED)
        write(place.project / f"{name}.py", PLANTED)

    with HiveManager(shadowing_modules=["bbb"]) as hive:
        assert "installed" == importlib.import_module("aaa").where
        assert "planted" == importlib.import_module("bbb").where
        notes = hive.swarm_status()["notes"]

    assert "planted" == importlib.import_module("ccc").where
    told = capsys.readouterr().err
    assert told.startswith("Hive: import aaa takes the installed module")
    assert told.strip() in notes


def test_a_project_may_have_tests_of_its_own(place, monkeypatch):
    """Packages install such folders by accident, and the standard library has a "test"."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    write(place.project / "test.py", PLANTED)
    sys.modules.pop("test", None)

    with HiveManager():
        assert "planted" == importlib.import_module("test").where


# A worker's answer by hand: an empty frame, for which the host imports pandas, and all that pandas
# looks for.
FRAME = """
async def forged(stream, ident, parent):
    told = ["frame", *[["range", 0, 0, 1, None]] * 2, []]
    content = {"status": "ok", "values": {"sizes": [], "values": {"frame": told}}}
    kernel.session.send(stream, "pull_reply", content, parent, ident=ident)
kernel = get_ipython().kernel
kernel.shell_handlers["pull_request"] = forged
"""
NOT_INSTALLED = ("bottleneck", "numexpr", "polars_of_mine")

LOADS_NOTHING_OF_THE_PROJECT = f"""
import sys
from hive_jupyter import HiveManager
with HiveManager() as hive:
    hive.delegate("1")
    sys.path.insert(0, "")
    hive.guard
    hive.swarm_status()._repr_markdown_()
    import pygments, sqlite3, IPython, ipywidgets, mcp, uvicorn, jsonschema
    hive.delegate({FRAME!r})
    assert hive.pull("frame")["frame"].empty
    hive.doctor()
"""


def test_what_a_worker_has_the_host_import_is_installed(place):
    """Whatever the worker names, and whatever that imports itself; in this thread alone."""
    write(place.installed / "library.py", f"{INSTALLED}import left_by_a_worker\n")
    write(
        place.installed / "careful.py", "try:\n import left_by_a_worker\nexcept ImportError:\n pass"
    )
    write(place.project / "left_by_a_worker.py", PLANTED)
    found = []

    with shadows.installed_only([]):
        with pytest.raises(ModuleNotFoundError, match="left_by_a_worker"):
            importlib.import_module("library")
        importlib.import_module("careful")
        other = threading.Thread(
            target=lambda: found.append(importlib.import_module("left_by_a_worker").where)
        )
        other.start()
        other.join()
    del sys.modules["left_by_a_worker"]

    assert ["planted"] == found
    assert "planted" == importlib.import_module("left_by_a_worker").where


def test_a_folder_that_workers_may_write_is_no_place_for_libraries(place, tmp_path, monkeypatch):
    write(tmp_path / "shared" / "library.py", PLANTED)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "shared")])
    with (
        shadows.installed_only([str(tmp_path / "shared")]),
        pytest.raises(ModuleNotFoundError, match="No module named 'library' is installed"),
    ):
        importlib.import_module("library")


def test_what_a_host_imports_at_its_leisure_is_never_the_projects(tmp_path):
    """With a trap for each name that there is, in the first place to look at."""
    (tmp_path / "ran").mkdir()
    names = {*sys.stdlib_module_names, *top_levels_of_site_packages(), *NOT_INSTALLED}
    for name in names - {"hive_jupyter"}:
        mark = tmp_path / "ran" / name
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\nraise SystemExit")

    with pytest.raises(AssertionError, match="takes the installed module"):  # it says so
        play(LOADS_NOTHING_OF_THE_PROJECT, cwd=tmp_path, options=("-P",))

    assert [] == os.listdir(tmp_path / "ran")


def top_levels_of_site_packages():
    for entry in os.listdir(sysconfig.get_path("purelib")):
        name = entry.partition(".")[0]
        if name.isidentifier():
            yield name
