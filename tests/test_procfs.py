"""What ``/proc`` tells about processes."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hive_jupyter import procfs
from tests.processes import wait_until

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
    assert stat.resident > 2**20
    assert stat.cpu_seconds > 0
    assert child.pid in procfs.children(os.getpid())


def test_start_times_tell_two_processes_apart(child):
    assert procfs.read_stat(child.pid).start_ticks >= procfs.read_stat(os.getpid()).start_ticks
    assert procfs.read_stat(child.pid).start_ticks == procfs.read_stat(child.pid).start_ticks


def test_a_process_that_is_gone_is_none():
    assert procfs.read_stat(GONE) is None
    assert [] == procfs.children(GONE)
    assert [] == procfs.descendants(GONE)
    assert 0 == procfs.resident_memory([GONE])
    assert 0 == procfs.proportional_memory([GONE])


def test_a_zombie_is_one(child):
    child.kill()
    wait_until(lambda: procfs.read_stat(child.pid).state == "Z")

    assert 0 == procfs.resident_memory([child.pid])


def test_a_name_with_brackets_and_spaces_confuses_nobody(tmp_path):
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        wait_until(lambda: "a) S (b" in Path(f"/proc/{process.pid}/stat").read_text())
        stat = procfs.read_stat(process.pid)
        process.kill()

    assert os.getpid() == stat.parent


def test_descendants_are_found_through_generations():
    code = "import subprocess; subprocess.Popen(['sleep', '1000']); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        (grandchild,) = psutil.Process(process.pid).children()
        found = procfs.descendants(os.getpid())
        grandchild.kill()

    assert {process.pid, grandchild.pid} <= set(found)
    assert os.getpid() not in found


def test_shared_pages_count_once():
    """Proportional memory of a family is at most what its members hold resident."""
    me = [os.getpid()]

    assert 2**20 < procfs.proportional_memory(me) <= 1.1 * procfs.resident_memory(me)


def test_memory_that_may_not_be_read_is_taken_as_resident(monkeypatch, child):
    def refuse(*_):
        raise PermissionError

    resident = procfs.resident_memory([child.pid])
    monkeypatch.setattr(procfs, "open", refuse, raising=False)
    monkeypatch.setattr(procfs, "resident_memory", lambda pids: resident)

    assert resident == procfs.proportional_memory([child.pid])


def test_the_count_of_oom_kills_never_raises(monkeypatch):
    assert procfs.oom_kills() >= 0

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(procfs, "open", refuse, raising=False)
    assert 0 == procfs.oom_kills()
