"""Folders, disks and environments as they should not be: workers run there, or say why not."""

import os
import shlex
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests import hosts

LONG = "a-folder-with-a-rather-long-name" * 4

DELEGATE = """
from hive_jupyter import HiveManager
with HiveManager() as hive:
    print(hive.delegate("6 * 7"))
    for server in hive.nodes.servers:
        print(server.runtime.path, server.runtime.sockets)
"""


@pytest.fixture
def place():
    """A folder whose path is short, whatever TMPDIR says."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="h") as folder:
        yield Path(folder)


def mounted(*mounts):
    """A command that mounts and then runs the interpreter, with mounts of its own."""
    own = hosts.own_mounts_or(pytest.skip)
    script = " && ".join([*(shlex.join(map(str, mount)) for mount in mounts), 'exec "$@"'])
    return [*own, "sh", "-c", script, "sh"]


def read_only(folder):
    """Mounts that make a folder read-only."""
    return ("mount", "--bind", folder, folder), ("mount", "-o", "remount,ro,bind", folder)


def ran(printed):
    """The runtime folder, and whether sockets were used, of a host that got its answer."""
    result, where = printed.splitlines()
    assert "value_repr='42'" in result
    folder, sockets = where.rsplit(" ", 1)
    return Path(folder), sockets == "True"


def test_a_read_only_home_is_left_alone(place):
    """Runtime files go to the temporary folder."""
    home = place / "home"
    home.mkdir()
    at_home = {"HOME": str(home), "JUPYTER_RUNTIME_DIR": None, "JUPYTER_DATA_DIR": None}
    elsewhere = {"XDG_DATA_HOME": None, "XDG_RUNTIME_DIR": None, "IPYTHONDIR": None}

    printed = hosts.play(
        DELEGATE, before=mounted(*read_only(home)), TMPDIR=str(place), **at_home, **elsewhere
    )

    assert ran(printed) == (ran(printed)[0], True)
    assert ran(printed)[0].is_relative_to(place / f"hive-{os.geteuid()}")
    assert list(home.iterdir()) == []


def test_a_runtime_folder_below_a_file_is_replaced(place):
    (place / "file").touch()

    printed = hosts.play(
        DELEGATE, JUPYTER_RUNTIME_DIR=str(place / "file" / "run"), TMPDIR=str(place)
    )

    assert ran(printed)[0].is_relative_to(place / f"hive-{os.geteuid()}")


def test_a_runtime_folder_on_a_full_disk_is_replaced(place):
    disk = place / "disk"
    disk.mkdir()

    printed = hosts.play(
        DELEGATE,
        before=mounted(("mount", "-t", "tmpfs", "-o", "size=32k", "none", disk)),
        JUPYTER_RUNTIME_DIR=str(disk),
        TMPDIR=str(place),
    )

    assert ran(printed)[0].is_relative_to(place / f"hive-{os.geteuid()}")


def test_without_any_place_to_write_there_are_instructions(place):
    """They name the variables that help; nothing is raised."""
    printed = hosts.play(
        "from hive_jupyter import HiveManager\n"
        "with HiveManager() as hive:\n"
        "    hive.warm_up()\n"
        "    print(hive.delegate('6 * 7'))\n"
        "    print(hive.swarm_status())\n",
        before=mounted(*read_only("/tmp"), *read_only("/var/tmp")),
        cwd=place,
        JUPYTER_RUNTIME_DIR=str(place / "run"),
        TMPDIR=str(place),
    )

    assert "No worker did this" in printed
    assert "Read-only file system" in printed
    assert "Set JUPYTER_RUNTIME_DIR or TMPDIR to a folder that you own" in printed
    assert "6 * 7" in printed


def test_a_disk_that_fills_up_later_takes_no_worker_and_no_host(place):
    """What runs goes on; a start that fails says why; with space again the next cell runs."""
    program = """
import os, sys
from hive_jupyter import HiveManager
with HiveManager(max_failures=10) as hive:
    hive.delegate("kept = 1")
    with open(sys.argv[1] + "/ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        print(hive.delegate("print('x' * 100_000); kept").value_repr)
        print(str(hive.delegate("1", worker="other")).partition("\\n")[0])
        file.truncate(0)
    print(hive.delegate("1 + 1", worker="other").value_repr)
    print(hive.delegate("kept").value_repr)
"""
    disk = place / "disk"
    disk.mkdir()

    kept, other, *later = hosts.play(
        program,
        disk,
        before=mounted(("mount", "-t", "tmpfs", "-o", "size=1M", "none", disk)),
        JUPYTER_RUNTIME_DIR=str(disk),
    ).splitlines()

    assert kept == "1"
    assert "value_repr='1'" in other or "space" in other
    assert later == ["2", "1"]


def test_a_path_too_long_for_a_socket_is_replaced(place):
    printed = hosts.play(DELEGATE, JUPYTER_RUNTIME_DIR=str(place / LONG), TMPDIR=str(place))

    assert ran(printed) == (ran(printed)[0], True)
    assert ran(printed)[0].is_relative_to(place / f"hive-{os.geteuid()}")


def test_where_all_paths_are_too_long_the_worker_is_reached_by_tcp(place):
    """With the keys of CurveZMQ; /tmp, the last resort, is read-only here."""
    program = (
        DELEGATE
        + """
    ((_, node),) = hive.nodes.by_name.items()
    connection = node._process.connection
    print(connection["transport"], connection["ip"], len(connection["curve_publickey"]))
    print(hive.delegate("get_ipython().kernel.parent.curve_secretkey != b''").value_repr)
"""
    )
    far = place / LONG
    far.mkdir()

    printed = hosts.play(
        program,
        before=mounted(*read_only("/tmp"), ("mount", "-t", "tmpfs", "none", far)),
        JUPYTER_RUNTIME_DIR=str(far),
        TMPDIR=str(far),
    ).splitlines()

    assert ran("\n".join(printed[:2])) == (ran("\n".join(printed[:2]))[0], False)
    assert printed[2:] == ["tcp 127.0.0.1 40", "True"]


def test_a_working_folder_that_was_deleted_is_named(place):
    """Before the first start and for a later one; a worker that runs is not touched by it."""
    program = """
import os, sys
from hive_jupyter import HiveManager
gone, good = sys.argv[1:]
os.chdir(gone)
os.rmdir(gone)
with HiveManager() as hive:
    hive.warm_up()
    refusals = [str(hive.delegate("1")).partition("\\n")[0] for _ in range(5)]
    print(refusals[-1])
    print(hive.swarm_status()["workers"]["coder"]["state"])
    os.chdir(good)
    print(hive.delegate("1 + 1").value_repr)
    os.mkdir(gone)
    os.chdir(gone)
    os.rmdir(gone)
    print(hive.delegate("2 + 2").value_repr)
    print(str(hive.delegate("1", worker="other")).partition("\\n")[0])
    print(hive.swarm_status()["workers"]["coder"]["drift"])
"""
    (place / "gone").mkdir()

    first, state, two, four, second, drift = hosts.play(
        program, place / "gone", place, JUPYTER_RUNTIME_DIR=str(place)
    ).splitlines()

    for refusal in (first, second):
        assert "folder does not exist any more" in refusal
        assert "os.chdir" in refusal
    assert state in ("cold", "dead")
    assert (two, four) == ("2", "4")
    assert drift == "['working folder']"


@pytest.mark.parametrize(
    "name",
    ["with space", "ünï-\u4e2d\U0001f600", "new\nline", "'\"$(x)", os.fsdecode(b"\xff\xfe")],
    ids=ascii,
)
def test_the_worker_is_in_the_hosts_folder_whatever_its_name(place, name):
    program = """
import os
from hive_jupyter import HiveManager
with HiveManager() as hive:
    for timeout in (None, "30s"):
        print(hive.delegate("import os; ascii(os.getcwd())").value_repr == repr(ascii(os.getcwd())))
    print(hive.delegate("import here; here.there").value_repr)
"""
    folder = place / name
    folder.mkdir()
    (folder / "here.py").write_text("there = 5")

    printed = hosts.play(program, cwd=folder, JUPYTER_RUNTIME_DIR=str(place))

    assert printed.split() == ["True", "True", "5"]


def test_odd_entries_of_sys_path_do_no_harm(place):
    """What Python itself skips is skipped; a zip archive works as at home."""
    program = """
import pathlib, sys
from hive_jupyter import HiveManager
sys.path += [5, None, b"/bytes", "/no/such/folder", pathlib.Path("/some/path"), ""]
sys.path += [sys.argv[1], __import__("os").fsdecode(b"/\\xff"), "relative"]
with HiveManager() as hive:
    print(hive.delegate("import zipped; zipped.there").value_repr)
    print(hive.swarm_status()["workers"]["coder"]["drift"])
    print(hive.delegate("import sys; all(isinstance(entry, str) for entry in sys.path)").value_repr)
"""
    with zipfile.ZipFile(place / "archive.zip", "w") as archive:
        archive.writestr("zipped.py", "there = 7")

    printed = hosts.play(program, place / "archive.zip", JUPYTER_RUNTIME_DIR=str(place))

    assert printed.splitlines() == ["7", "[]", "True"]


@pytest.mark.parametrize("missing", ["HOME", "PATH"])
def test_a_host_without_home_or_path_has_workers(place, missing):
    program = DELEGATE.replace("6 * 7", f"import os; 42 if {missing!r} not in os.environ else 0")

    printed = hosts.play(
        program, JUPYTER_RUNTIME_DIR=str(place), IPYTHONDIR=str(place), **{missing: None}
    )

    assert ran(printed)[1]


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_variable_too_long_for_a_program_reaches_the_worker(place, method):
    """The kernel of Linux takes at most 128 KB for one variable of a new program."""
    program = """
import os, sys
from hive_jupyter import HiveManager
os.environ["LC_ODD"] = os.fsdecode(b"\\xff")
with HiveManager(environment={"BIG": "x" * 2**20}, start_method=sys.argv[1]) as hive:
    print(hive.delegate("import os; len(os.environ['BIG'])").value_repr)
    print(hive.delegate("os.environb[b'LC_ODD']").value_repr)
"""
    printed = hosts.play(program, method, JUPYTER_RUNTIME_DIR=str(place))

    assert printed.splitlines() == [str(2**20), r"b'\xff'"]
