"""A watch sees when all processes below it use more together than they may."""

import functools
import os
import time
from contextlib import ExitStack, contextmanager

import pytest

from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.worker import watch as watch_module
from hive_jupyter.worker.watch import Excess, Watch
from tests.children import in_child
from tests.processes import MEGABYTE, holder, wait_until

LIMIT = 160 * MEGABYTE

PRIVATE = "x = b'x' * ({} * 2**20)"
# Touched by a child that is still there, and by its parent.
SHARED = (
    "import mmap, os\nsize = {} * 2**20\nm = mmap.mmap(-1, size)\nos.fork()\nm.write(bytes(size))"
)
# A file in memory, written in pieces, as a large one would be private memory first.
MEMORY_FILE = (
    "import os\nfile = os.memfd_create('x')\nfor _ in range({}): os.write(file, bytes(2**20))\n"
)
MAPPED = f"{MEMORY_FILE}import mmap; m = mmap.mmap(file, 0); m[::4096]"


def alone(test):
    """Have a test run in a child, below which there is nothing of other tests."""

    @functools.wraps(test)
    def run(**arguments):
        in_child(functools.partial(test, **arguments))

    return run


@contextmanager
def running(*programs):
    """Processes that have run these programs, and wait."""
    with ExitStack() as stack:
        processes = [stack.enter_context(holder(program)) for program in programs]
        for process, program in zip(processes, programs, strict=True):
            for _ in range(2 ** program.count("os.fork()")):  # each of them says so
                process.stdout.readline()
        yield


def watch(kept=(), **limits):
    return Watch(SandboxPolicy(**{"processes": None, **limits}), kept=kept, own_shared_memory=False)


@pytest.mark.parametrize(
    "programs",
    [
        [PRIVATE.format(100)],
        [f"{PRIVATE.format(90)}\nimport os; os.fork(); os.fork()"],
        [SHARED.format(90)],
        [MEMORY_FILE.format(90)],
        [MAPPED.format(90)],
        [f"{MAPPED.format(90)}; os.fork()"],
    ],
    ids=["private", "forked", "shared", "a file", "a mapped file", "one of many"],
)
@alone
def test_memory_below_the_limit_is_no_excess(programs):
    """What is shared, or mapped from a file that is open, counts once."""
    with running(*programs):
        assert watch(memory=LIMIT).look() is None


@pytest.mark.parametrize(
    "programs",
    [
        [PRIVATE.format(100)] * 2,
        [f"import os; os.fork()\n{PRIVATE.format(100)}"],
        [SHARED.format(200)],
        [MEMORY_FILE.format(200)],
        [MEMORY_FILE.format(100)] * 2,
        [MAPPED.format(200)],
        [SHARED.format(100), MEMORY_FILE.format(100)],
    ],
    ids=["private", "forked", "shared", "a file", "files", "a mapped file", "of two kinds"],
)
@alone
def test_memory_above_the_limit_is_seen(programs):
    """Whoever of the family holds it, in whatever way; the sum is told."""
    with running(*programs):
        excess = watch(memory=LIMIT).look()

    assert "memory" == excess.limit
    assert 200 * MEGABYTE <= excess.used < 250 * MEGABYTE


@alone
def test_a_file_that_is_mapped_from_a_disk_is_no_memory(tmp_path):
    (tmp_path / "data").write_bytes(bytes(200 * MEGABYTE))
    program = (
        f"import mmap; file = open({str(tmp_path / 'data')!r}, 'rb')\n"
        "m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); m[::4096]"
    )
    with running(program):
        assert watch(memory=LIMIT).look() is None


THREADS = (
    "import threading\n"
    "for _ in range({}): threading.Thread(target=threading.Event().wait, daemon=True).start()"
)


@alone
def test_processes_and_threads_count_together():
    with running(THREADS.format(14)):
        assert watch(processes=32).look() is None
    with running(*[THREADS.format(14)] * 3):
        excess = watch(processes=32).look()

    assert "processes" == excess.limit
    assert excess.used > 32


@alone
def test_nothing_is_looked_at_where_there_is_nothing_to_keep():
    limits = {"memory": LIMIT, "processes": 32}

    assert watch().timeout is None
    assert watch(kept={"memory", "processes"}, **limits).timeout is None
    assert watch(kept={"memory"}, **limits).timeout == 0
    assert watch(kept={"processes"}, **limits).timeout == 0


@alone
def test_a_look_is_due_from_time_to_time():
    looking = watch(memory=LIMIT)
    with running(*[PRIVATE.format(80)] * 2):
        assert isinstance(looking.look(), Excess)
        assert looking.timeout is None

    looking = watch(memory=LIMIT)
    assert looking.look() is None
    with running(*[PRIVATE.format(80)] * 2):
        wait_until(lambda: looking.timeout == 0)
        assert isinstance(looking.look(), Excess)


@alone
def test_the_next_look_comes_sooner_where_little_is_left():
    far, near = watch(memory=2**40), watch(memory=LIMIT)
    with running(PRIVATE.format(110)):
        assert far.look() is None
        assert near.look() is None

        assert near.timeout < far.timeout / 2


@alone
def test_who_does_nothing_is_looked_at_at_leisure():
    """However little is left."""
    looking = watch(memory=LIMIT)
    with running(PRIVATE.format(110)):
        looking.look()

        def rested():
            time.sleep(looking.timeout / 1000)
            assert looking.look() is None
            return looking.timeout > 150

        wait_until(rested, 5)


@alone
def test_a_file_behind_many_descriptors_is_found_by_and_by(monkeypatch):
    """Each look goes on where the last one stopped, also where the worker has come to rest."""
    monkeypatch.setattr(watch_module, "_MOST_DESCRIPTORS", 50)
    many = "import os\nfor _ in range(120): os.dup(0)\n"
    with running(f"{many}{MEMORY_FILE.format(160)}", f"{many}{MEMORY_FILE.format(1)}"):
        looking = watch(memory=LIMIT)
        assert looking.look() is None
        excess = wait_until(looking.look)

    assert 160 * MEGABYTE <= excess.used < 210 * MEGABYTE


def test_a_file_that_was_closed_counts_until_all_were_looked_at_again(monkeypatch):
    monkeypatch.setattr(watch_module, "_MOST_DESCRIPTORS", 50)
    files = watch_module._MemoryFiles()
    kept = [os.dup(0) for _ in range(120)]
    kept.append(os.memfd_create("x"))
    os.write(kept[-1], bytes(MEGABYTE))
    file = os.fstat(kept[-1])
    key = (file.st_dev, file.st_ino)
    wait_until(lambda: key in files.look([os.getpid()]))
    for descriptor in kept:
        os.close(descriptor)

    wait_until(lambda: key not in files.look([os.getpid()]))


# Of each two pages that follow each other one may be written: each is a mapping of its own.
MAPPINGS = (
    "import ctypes, mmap\n"
    "libc = ctypes.CDLL(None)\n"
    "libc.mmap.restype = ctypes.c_void_p\n"
    "start = libc.mmap(None, ctypes.c_size_t({0} * 4096), 1, 0x22, -1, 0)\n"
    "for page in range(0, {0}, 2):\n"
    "    libc.mprotect(ctypes.c_void_p(start + page * 4096), 4096, 3)\n"
)


@alone
def test_a_count_that_takes_too_long_is_given_up(monkeypatch):
    """Else a worker with many mappings has its supervisor wait for minutes, and is not limited."""
    monkeypatch.setattr(watch_module, "_LONGEST_COUNT", 0.05)
    with running(f"{MAPPINGS.format(30_000)}{MAPPED.format(90)}"):
        excess = watch(memory=LIMIT).look()

    assert "memory" == excess.limit
    assert 180 * MEGABYTE < excess.used < 210 * MEGABYTE  # what is mapped and open counts twice


@alone
def test_after_a_count_that_took_long_the_next_one_is_not_put_off_for_long():
    with running(f"{MAPPINGS.format(30_000)}{MAPPED.format(90)}"):
        looking = watch(memory=LIMIT)
        began = time.monotonic()
        assert looking.look() is None

        assert time.monotonic() - began > 0.1
        assert 500 < looking.timeout <= 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root has to be watched")
@alone
def test_processes_of_others_than_root_are_counted_once_a_second():
    """The kernel keeps the worst away."""
    looking = watch(processes=1000)
    looking.look()

    assert 500 < looking.timeout <= 1000
