"""Runtime folders are private, short enough for sockets, and gone when their process is."""

import asyncio
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from hive_jupyter.errors import HiveError
from hive_jupyter.procfs import read_stat
from hive_jupyter.swarm import runtime
from hive_jupyter.swarm.runtime import SOCKET_PATH, RuntimeFolder, living, remove_tree, sweep

LONG = "a-folder-with-a-rather-long-name" * 4


@pytest.fixture
def place():
    """A folder whose path is short, whatever TMPDIR says."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def temporary(place, monkeypatch):
    """No test touches the real places."""
    folder = place / "t"
    folder.mkdir()
    monkeypatch.setattr(runtime, "_temporary_folders", lambda: [folder])
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(place / "runtime"))
    return folder


@pytest.fixture
def dead():
    """Pid and start time of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ticks = read_stat(process.pid).start_ticks
        process.communicate(b"\n")
    return process.pid, ticks


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def bind(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_a_folder_is_private_and_takes_sockets(place):
    """Below Jupyter's own runtime folder, named after this process."""
    folder = RuntimeFolder.create()

    assert folder.path.parent == place / "runtime" / "hive"
    assert folder.path.name == f"{os.getpid()}-{read_stat(os.getpid()).start_ticks}"
    assert folder.sockets
    assert 0o700 == mode(folder.path) == mode(folder.path.parent)
    folder.remove()


@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_users_umask_does_not_matter(place, umask):
    """Neither opens the folder to others nor closes it to us."""
    before = os.umask(umask)
    try:
        folder = RuntimeFolder.create(place)
        worker = folder.worker_folder()
    finally:
        os.umask(before)

    assert 0o700 == mode(folder.path) == mode(worker)
    folder.remove()


def test_workers_get_numbered_private_folders(place):
    """One each, and the longest socket fits."""
    folder = RuntimeFolder.create(place)
    first, second = folder.worker_folder(), folder.worker_folder()

    assert ("w1", "w2") == (first.name, second.name)
    assert first.parent == second.parent == folder.path
    assert 0o700 == mode(first)
    bind(first / "k-5")
    folder.remove()


def test_one_process_may_have_several(place):
    """The magics' hive and one of the user's own."""
    folders = [RuntimeFolder.create(place) for _ in range(3)]

    assert 3 == len({folder.path for folder in folders})
    assert [] == sweep(place)
    for folder in folders:
        folder.remove()
    assert not [path for path in place.iterdir() if path.name != "t"]


def test_removing_takes_everything_and_can_be_repeated(place):
    """Links in it are removed and not followed."""
    precious = place / "precious"
    precious.mkdir()
    (precious / "file").touch()
    folder = RuntimeFolder.create(place)
    worker = folder.worker_folder()
    (worker / "log").write_text("x")
    (worker / "link").symlink_to(precious)
    bind(worker / "k-1")

    folder.remove()
    folder.remove()

    assert not folder.path.exists()
    assert (precious / "file").exists()


def test_a_forked_child_removes_nothing(place):
    """It has the object, and the folder is not its own."""
    program = f"""
import os, pathlib
from hive_jupyter.swarm.runtime import RuntimeFolder
folder = RuntimeFolder.create(pathlib.Path({str(place)!r}))
if os.fork() == 0:
    folder.remove()
    os._exit(0)
os.wait()
print(folder.path.exists())
folder.remove()
print(folder.path.exists())
"""
    answer = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)

    assert [b"True", b"False"] == answer.stdout.split()


def test_a_folder_that_somebody_removed_is_an_error_with_a_next_step(place):
    """Not a bare FileNotFoundError from the depth."""
    folder = RuntimeFolder.create(place)
    shutil.rmtree(folder.path)

    with pytest.raises(HiveError, match="restart your kernel"):
        folder.worker_folder()

    folder.remove()


def not_creatable(place):
    return Path("/proc/hive")


def below_a_file(place):
    (place / "file").touch()
    return place / "file" / "hive"


def a_link(place):
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to(place / "elsewhere")
    return place / "link"


def too_long(place):
    return place / LONG / "hive"


@pytest.mark.parametrize("bad", [not_creatable, below_a_file, a_link, too_long])
def test_a_place_of_no_use_gives_way_to_the_temporary_folder(place, temporary, bad):
    """Nothing is left behind in the first."""
    base = bad(place)

    folder = RuntimeFolder.create(base)

    assert folder.path.parent == temporary / f"hive-{os.geteuid()}"
    assert folder.sockets
    assert not base.exists() or not list(base.iterdir())
    folder.remove()


def test_a_full_disk_gives_way_to_the_temporary_folder(place, temporary, monkeypatch):
    """Found out by writing."""
    write = Path.write_bytes

    def full(path, data):
        if path.is_relative_to(place / "full"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)

    folder = RuntimeFolder.create(place / "full")

    assert folder.path.is_relative_to(temporary)
    assert [] == list((place / "full").iterdir())
    folder.remove()


def test_a_truly_full_disk_is_noticed(place):
    """On a small file system of its own, where this machine lets us make one."""
    program = f"""
from pathlib import Path
from hive_jupyter.swarm import runtime
base, spare = Path({str(place)!r}, "disk"), Path({str(place)!r}, "t")
runtime._temporary_folders = lambda: [spare]
folder = runtime.RuntimeFolder.create(base)
print(folder.path.is_relative_to(spare), len(list(base.iterdir())))
folder.remove()
"""
    (place / "disk").mkdir(mode=0o700)
    mount = 'mount -t tmpfs -o size=32k,mode=700 none "$1" && exec "$2" -c "$3"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.call([*command[:4], "true"]):
        pytest.skip("no namespaces of our own here")

    answer = subprocess.run(
        [*command, place / "disk", sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout.split() == ["True", "0"]


def test_without_a_short_path_there_are_no_sockets(place, monkeypatch):
    """The place asked for is kept, and TCP is used."""
    far = place / LONG
    far.mkdir()
    monkeypatch.setattr(runtime, "_temporary_folders", lambda: [far])

    folder = RuntimeFolder.create(place / LONG / "hive")

    assert not folder.sockets
    assert folder.path.parent == place / LONG / "hive"
    assert [folder.path] == [path for path in far.glob("*/*") if path.is_dir()]
    folder.remove()


def test_the_longest_path_that_is_accepted_fits(place):
    """To the byte; umlauts are two."""
    own = len(RuntimeFolder.create(place).path.name)
    for extra in range(60, 90):
        base = place / ("ü" + "x" * (extra - len(os.fsencode(place)) - 1))
        folder = RuntimeFolder.create(base)
        fits = len(os.fsencode(base)) + 1 + own + len("/w999999/k-5") <= SOCKET_PATH
        assert fits == (folder.path.parent == base)
        folder.remove()


def test_where_nothing_can_be_written_the_error_says_what_to_do(monkeypatch):
    """And why each place was refused."""
    monkeypatch.setattr(runtime, "_temporary_folders", lambda: [Path("/proc")])

    with pytest.raises(HiveError, match=r"/proc/hive: .*Set JUPYTER_RUNTIME_DIR or TMPDIR"):
        RuntimeFolder.create(Path("/proc/hive"))


def squat_with_a_link(path):
    (path.parent / "trap").mkdir()
    path.symlink_to(path.parent / "trap")


def squat_with_a_file(path):
    path.touch()


def squat_as_another_user(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    path.mkdir()
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize("squat", [squat_with_a_link, squat_with_a_file, squat_as_another_user])
def test_a_name_that_somebody_took_in_the_temporary_folder_is_left_alone(temporary, squat):
    """A fresh one is made, and found again the next time, and swept."""
    taken = temporary / f"hive-{os.geteuid()}"
    squat(taken)

    first = RuntimeFolder.create(Path("/proc/hive"))
    second = RuntimeFolder.create(Path("/proc/hive"))
    stale = first.path.parent / "1-1"
    stale.mkdir()

    assert first.path.parent == second.path.parent != taken
    assert 0o700 == mode(first.path.parent)
    assert [stale] == sweep()
    assert not (temporary / "trap").exists() or not list((temporary / "trap").iterdir())
    first.remove()
    second.remove()


def test_a_folder_of_ours_that_stands_open_is_closed(place):
    """An older umask may have left it so."""
    base = place / "base"
    base.mkdir()
    base.chmod(0o777)

    folder = RuntimeFolder.create(base)

    assert 0o700 == mode(base)
    folder.remove()


def test_sweeping_goes_by_pid_and_start_time(place, dead):
    """A pid that lives again as something else does not save a folder."""
    pid, ticks = dead
    me, now = os.getpid(), read_stat(os.getpid()).start_ticks
    stale = [place / f"{pid}-{ticks}", place / f"{pid}-{ticks}-2", place / f"{me}-{now - 1}"]
    kept = [place / f"{me}-{now}", place / f"{me}-{now}-7", place / "notes", place / f"{pid}-x"]
    for path in [*stale, *kept]:
        (path / "w1").mkdir(parents=True)
    a_file = place / f"{pid}-{ticks}-3"
    a_file.touch()

    assert sorted(stale) == sorted(sweep(place))
    assert not [path for path in stale if path.exists()]
    assert all(path.exists() for path in [*kept, a_file])


def test_a_killed_process_leaves_a_folder_that_is_swept(place):
    """The whole way, with a process of its own, which is not reaped yet at first."""
    program = f"""
import pathlib, signal, sys
from hive_jupyter.swarm.runtime import RuntimeFolder
print(RuntimeFolder.create(pathlib.Path({str(place)!r})).worker_folder(), flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        worker = Path(process.stdout.readline().decode().strip())
        assert [] == sweep(place)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert [worker.parent] == sweep(place)


def test_a_folder_that_is_in_use_elsewhere_is_kept(place, dead):
    """Another machine or container that shares the home has pids of its own."""
    path = place / "{}-{}".format(*dead)
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert [] == sweep(place)
    finally:
        os.close(descriptor)

    assert [path] == sweep(place)


def test_sweeping_follows_no_link(place, dead):
    """Neither as a folder, nor within one, nor as the base."""
    precious = place / "precious"
    (precious / "1-1").mkdir(parents=True)
    base = place / "base"
    stale = base / "{}-{}".format(*dead)
    stale.mkdir(parents=True)
    (stale / "link").symlink_to(precious)
    link = base / "{}-{}-2".format(*dead)
    link.symlink_to(precious)
    (place / "base-link").symlink_to(precious)

    assert [stale] == sweep(base)
    assert [] == sweep(place / "base-link")
    assert link.is_symlink()
    assert (precious / "1-1").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("whose", ["base", "folder"])
def test_sweeping_leaves_what_another_user_owns(place, dead, whose):
    """Even root's."""
    base = place / "base"
    stale = base / "{}-{}".format(*dead)
    stale.mkdir(parents=True)
    os.chown(base if whose == "base" else stale, 12345, 12345)

    assert [] == sweep(base)
    assert stale.exists()


def test_sweeping_what_is_not_there_is_fine(place):
    """The first start of all."""
    assert [] == sweep(place / "nothing")
    assert [] == sweep()


def test_without_proc_the_pid_alone_tells_who_lives(place, dead, monkeypatch):
    """Elsewhere than on Linux: another process that has that pid by now passes for its owner."""
    gone, taken = (place / f"{pid}-0" for pid in (dead[0], os.getppid()))
    gone.mkdir()
    taken.mkdir()
    monkeypatch.setattr(runtime, "read_stat", lambda pid: None)

    assert [taken] == living(place)
    assert [gone] == sweep(place)


def test_several_may_sweep_at_once(place, dead):
    """Each folder goes exactly once, and nobody stumbles."""
    for number in range(2, 40):
        (place / "{}-{}-{}".format(*dead, number) / "w1" / "profile").mkdir(parents=True)
    program = f"""
import pathlib
from hive_jupyter.swarm.runtime import sweep
input()
print(len(sweep(pathlib.Path({str(place)!r}))))
"""
    sweepers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for sweeper in sweepers:
        sweeper.stdin.write(b"\n")
        sweeper.stdin.flush()
    answers = [sweeper.communicate() for sweeper in sweepers]

    assert [b""] * 3 == [errors for _, errors in answers]
    assert 38 == sum(int(removed) for removed, _ in answers)
    assert ["t"] == [path.name for path in place.iterdir()]


def test_the_folders_of_those_that_live_are_found(place, dead):
    """Neither those of the dead, nor what a link shows, nor what only looks like one."""
    mine = RuntimeFolder.create(place)
    second = RuntimeFolder.create(place)
    (place / f"{dead[0]}-{dead[1]}").mkdir()
    (place / f"{mine.path.name}-3").symlink_to(mine.path)
    (place / f"{mine.path.name}-4").touch()
    (place / "coder").mkdir()

    assert [mine.path, second.path] == runtime.living(place)
    (place / "link").symlink_to(place)
    assert [] == runtime.living(place / "link")
    mine.remove()
    assert [second.path] == runtime.living(place)
    second.remove()


def test_the_living_are_found_everywhere_where_folders_are_made(place, temporary):
    usual = RuntimeFolder.create()
    below_temporary = RuntimeFolder.create(temporary / f"hive-{os.geteuid()}")

    assert {usual.path, below_temporary.path} == set(runtime.living())
    usual.remove()
    below_temporary.remove()


def test_a_folder_that_was_exchanged_for_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis").write_text("results")
    (tmp_path / "w1").symlink_to(tmp_path / "victim")
    remove_tree(tmp_path / "w1")

    assert not (tmp_path / "w1").is_symlink()
    assert "results" == (tmp_path / "victim" / "thesis").read_text()


def test_folders_of_any_mode_are_removed(tmp_path):
    (tmp_path / "w1" / "closed" / "inner").mkdir(parents=True)
    (tmp_path / "w1" / "closed").chmod(0)
    remove_tree(tmp_path / "w1")

    assert not (tmp_path / "w1").exists()


def test_names_that_are_taken_keep_no_folder(tmp_path):
    """A worker knows the pid of its host."""
    (tmp_path / "w1/a/b").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"w1/.removing-{os.getpid()}-{number}/taken").mkdir(parents=True)
    remove_tree(tmp_path / "w1")

    assert not (tmp_path / "w1").exists()


async def test_what_takes_long_to_remove_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(runtime, "_PATIENCE", 0.01)
    go, over = threading.Event(), threading.Event()

    def remove():
        go.wait(60)
        over.set()

    await runtime.remove_apart(remove)
    assert not over.is_set()
    go.set()
    assert await asyncio.to_thread(over.wait, 60)


async def test_without_another_thread_a_folder_is_removed_here(tmp_path, monkeypatch):
    async def apart(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(runtime, "apart", apart)
    (tmp_path / "w1").mkdir()
    await runtime.remove_apart(lambda: remove_tree(tmp_path / "w1"))

    assert not (tmp_path / "w1").exists()
