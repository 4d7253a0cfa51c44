"""What ``/proc`` tells about processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hive_jupyter import procfs
from tests.processes import MEGABYTE, holder, wait_until

GONE = 2**22 + 1  # above the largest pid that Linux gives


@pytest.fixture
def child():
    """A process that waits; killed after the test."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_this_process_is_described(child):
    stat = procfs.read_stat(os.getpid())

    assert stat.state in "RS"
    assert os.getppid() == stat.parent
    assert stat.threads == len(os.listdir("/proc/self/task"))
    assert stat.cpu_seconds > 0
    assert not stat.has_ended


def test_start_times_tell_two_processes_apart(child):
    assert procfs.read_stat(child.pid).start_ticks >= procfs.read_stat(os.getpid()).start_ticks
    assert procfs.read_stat(child.pid).start_ticks == procfs.read_stat(child.pid).start_ticks


def test_a_process_that_is_gone_is_none():
    assert procfs.read_stat(GONE) is None
    assert {} == procfs.descendants(GONE)
    assert {GONE: 0} == procfs.family(GONE)
    assert 0 == procfs.held_memory([GONE])
    assert 0 == procfs.used_memory([GONE])
    assert 0 == procfs.mapped_memory([GONE], lambda *_: True)


def test_a_zombie_has_ended_and_holds_nothing(child):
    child.kill()
    wait_until(lambda: procfs.read_stat(child.pid).has_ended)

    assert 0 == procfs.held_memory([child.pid])
    assert 0 == procfs.used_memory([child.pid])


def test_a_name_with_brackets_and_spaces_confuses_nobody(tmp_path):
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        wait_until(lambda: "a) S (b" in Path(f"/proc/{process.pid}/stat").read_text())
        stat = procfs.read_stat(process.pid)
        process.kill()

    assert os.getpid() == stat.parent


@pytest.fixture
def parent():
    """A process with a child of its own, and that child."""
    code = "import subprocess; subprocess.Popen(['sleep', '1000']); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        (grandchild,) = psutil.Process(process.pid).children()
        yield process, grandchild
        grandchild.kill()


def test_descendants_are_found_through_generations(parent):
    process, grandchild = parent
    found = procfs.descendants(os.getpid())

    assert {process.pid, grandchild.pid} <= set(found)
    assert process.pid == found[grandchild.pid].parent
    assert os.getpid() not in found


def test_who_is_spared_is_left_out_with_all_below(parent, child):
    process, grandchild = parent
    found = procfs.descendants(os.getpid(), spared={process.pid})

    assert child.pid in found
    assert not {process.pid, grandchild.pid} & set(found)


@pytest.fixture(params=["listed", "looked for"])
def way(request, monkeypatch):
    """How children are found: not every kernel lists them."""
    if request.param == "looked for":
        monkeypatch.setattr(procfs, "_LISTS_CHILDREN", False)
    elif not procfs._LISTS_CHILDREN:
        pytest.skip("this kernel lists no children")


def test_a_family_is_a_process_and_all_below_with_their_threads(way, parent):
    process, grandchild = parent
    found = procfs.family(process.pid)

    assert {process.pid: 1, grandchild.pid: 1} == found


def test_threads_of_a_family_count(way):
    code = (
        "import threading\n"
        "for _ in range(4): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()

        assert {process.pid: 5} == procfs.family(process.pid)


def test_children_of_a_thread_are_found():
    """The kernel lists them with the thread that started them, while it lives."""
    code = (
        "import subprocess, threading\n"
        "def start():\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    print(child.pid, flush=True); input(); child.kill()\n"
        "threading.Thread(target=start).start()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        child = int(process.stdout.readline())

        assert child in procfs.family(process.pid)


def test_of_a_family_that_is_too_large_no_more_are_looked_for(parent):
    if not procfs._LISTS_CHILDREN:
        pytest.skip("this kernel lists no children: all processes are looked at anyway")
    process, _ = parent

    assert {process.pid: 1} == procfs.family(process.pid, most=0)


def test_shared_pages_count_once():
    """Of a process and its fork, which has written to none of them."""
    code = f"x = b'x' * {100 * MEGABYTE}; import os; os.fork()"
    with holder(code) as process:
        wait_until(lambda: len(procfs.family(process.pid)) == 2)
        process.stdout.readline()
        pids = procfs.family(process.pid)
        held, used = procfs.held_memory(pids), procfs.used_memory(pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    assert held > 200 * MEGABYTE
    assert 100 * MEGABYTE < used < 130 * MEGABYTE


def test_memory_that_is_shared_by_mapping_counts():
    code = f"import mmap; m = mmap.mmap(-1, {50 * MEGABYTE}); m.write(bytes({50 * MEGABYTE}))"
    with holder(code) as process:
        process.stdout.readline()

        assert procfs.held_memory([process.pid]) > 50 * MEGABYTE
        assert procfs.used_memory([process.pid]) > 50 * MEGABYTE


def test_pages_of_a_file_do_not_count(tmp_path):
    """The system takes them back."""
    (tmp_path / "data").write_bytes(bytes(100 * MEGABYTE))
    code = (
        f"import mmap; file = open({str(tmp_path / 'data')!r}, 'rb')\n"
        "m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); m[::4096]"
    )
    with holder(code) as process:
        process.stdout.readline()

        assert psutil.Process(process.pid).memory_info().rss > 100 * MEGABYTE
        assert procfs.held_memory([process.pid]) < 50 * MEGABYTE
        assert procfs.used_memory([process.pid]) < 50 * MEGABYTE


def test_what_is_mapped_of_certain_files_is_told():
    code = (
        "import mmap, os\n"
        "files = [os.memfd_create('a') for _ in range(2)]\n"
        f"for file in files: os.truncate(file, {20 * MEGABYTE})\n"
        f"maps = [mmap.mmap(file, {20 * MEGABYTE}) for file in files]\n"
        f"for map in maps: map.write(bytes({20 * MEGABYTE}))\n"
        "print(os.fstat(files[0]).st_dev, os.fstat(files[0]).st_ino)"
    )
    with holder(code) as process:
        file = tuple(map(int, process.stdout.readline().split()))
        found = procfs.mapped_memory([process.pid], lambda *each: each == file)

    assert 20 * MEGABYTE == found


def test_memory_that_may_not_be_read_is_taken_as_held(monkeypatch):
    read = procfs._read

    def refuse(path):
        if path.endswith("smaps_rollup"):
            raise PermissionError
        return read(path)

    monkeypatch.setattr(procfs, "_read", refuse)
    with holder("") as process:
        process.stdout.readline()
        held, used = procfs.held_memory([process.pid]), procfs.used_memory([process.pid])

    assert held > 2 * MEGABYTE
    assert abs(held - used) < MEGABYTE  # it takes some more as it goes on to wait


def test_the_count_of_oom_kills_never_raises(monkeypatch):
    assert procfs.oom_kills() >= 0

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(procfs, "_read", refuse)
    assert 0 == procfs.oom_kills()


FORGED = (
    "import ctypes, mmap, os\n"
    "file = os.memfd_create('x\\rPss: 99999999 kB')\n"
    f"os.truncate(file, {20 * MEGABYTE})\n"
    f"map = mmap.mmap(file, {20 * MEGABYTE}); map.write(bytes({20 * MEGABYTE}))\n"
    "ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)  # PR_SET_NAME\n"
    "print(os.fstat(file).st_dev, os.fstat(file).st_ino)"
)


@pytest.mark.parametrize("name", [b"\rVmSwap: -99999", b"a\r\rb", b"\n\nb", b"\x0b\x1c\x0c"])
def test_whoever_chooses_a_name_adds_no_line(name):
    """A worker would say of itself how little it holds, or end its supervisor."""
    with holder(FORGED.replace("{name!r}", repr(name))) as process:
        file = tuple(map(int, process.stdout.readline().split()))
        pids = [process.pid]
        held, used = procfs.held_memory(pids), procfs.used_memory(pids)
        mapped = procfs.mapped_memory(pids, lambda *each: each == file)

    assert 20 * MEGABYTE == mapped
    assert mapped < used <= held < 100 * MEGABYTE
