"""A worker's limits hold in every profile, with namespaces and without; the error names them."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import NodeDied, RemoteError
from tests.processes import adopting, wait_until

WITHOUT = Path(__file__).parents[1] / "without.py"
# The profile, and what the machine lacks: containers forbid namespaces.
CASES = [
    ("open", ""),
    ("workspace", ""),
    ("workspace", "namespaces"),
    ("strict", ""),
    ("strict", "namespaces"),
]


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        hive: whose workers have one of the profiles, on a machine that may lack something.
        counted: the kernel itself keeps them from having too many processes.
        at_once: all that one of them has started can be killed at once.
    """

    hive: HiveManager
    counted: bool
    at_once: bool

    def limited(self, memory=None, **limits):
        """Give the worker these limits, and no others."""
        none = {"cpu_time": None, "file_size": None, "open_files": None, "processes": None}
        self.hive.config.change(**{**none, **limits})
        self.hive.restart(memory=memory or 0)

    def run(self, code, **options):
        return self.hive.delegate(code, timeout=60, **options)


@pytest.fixture(scope="module", params=CASES, ids=" without ".join)
def case(request, runtime, tmp_path_factory):
    profile, lacking = request.param
    python = sys.executable
    if lacking:
        python = tmp_path_factory.mktemp("bin") / "python"
        before = f'"{sys.executable}" -I -S "{WITHOUT}" {lacking}'
        python.write_text(f'#!/bin/sh\nexec {before} "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    with HiveManager(
        sandbox=profile,
        workers={"coder": {"python": str(python)}},
        spares=0,
        max_failures=1000,
        connect_timeout=60,
        interrupt_grace=30,
    ) as hive:
        hive.delegate("1")
        layers = hive.nodes.by_name["coder"]._process.confinement
        yield Case(
            hive,
            counted=layers["namespaces"] and os.geteuid() != 0,
            at_once=layers["namespaces"] or layers["landlock"] >= 6,
        )


def error_of(case, code):
    """The exception that code raises in the worker, and what its cell shows of it."""
    with pytest.raises(RemoteError) as caught:
        case.run(code)
    return caught.value, "\n".join(caught.value.traceback)


def death_of(case, code):
    with pytest.raises(NodeDied) as caught:
        case.run(code)
    assert "2" == case.run("1 + 1").value_repr
    return caught.value


# --- one process ---


def test_a_file_that_grows_too_large(case):
    case.limited(file_size="1M")
    _, shown = error_of(
        case,
        "import tempfile\n"
        "with tempfile.TemporaryFile() as file: file.write(bytes(2**21)); file.flush()",
    )

    assert "A limit of this worker: no file may be larger than 1 MB. " in shown
    assert "`%hive config file_size=...`, then `%hive restart coder`, allows more." in shown


def test_a_program_that_ends_by_a_file_too_large(case):
    """Python lives with the signal, others do not."""
    case.limited(file_size="1M")
    _, shown = error_of(
        case,
        "import subprocess, tempfile\n"
        "with tempfile.TemporaryFile() as file:\n"
        "    subprocess.run(['head', '-c', '2M', '/dev/zero'], stdout=file, check=True)",
    )

    assert "SIGXFSZ" in shown
    assert "no file may be larger than 1 MB" in shown


def test_too_many_open_files(case):
    case.limited(open_files=100)
    _, shown = error_of(case, "import os\nfor _ in range(200): os.open(os.devnull, os.O_RDONLY)")

    assert "A limit of this worker: a process may open 100 files. " in shown
    assert "%hive config open_files=..." in shown


def test_too_much_processor_time(case):
    case.limited(cpu_time=1)
    died = death_of(case, "kept = 1\nwhile True: pass")

    assert "cpu_time" == died.cause
    assert "used 1 s of processor time, its limit, and was ended by the system" in str(died)
    assert "`%hive config cpu_time=2` gives the next one more." in str(died)


def test_too_much_processor_time_by_who_ignores_the_signal(case):
    case.limited(cpu_time=1)
    died = death_of(
        case,
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
    )

    assert "cpu_time" == died.cause


def test_too_much_processor_time_of_a_program(case):
    """Each process has its own."""
    case.limited(cpu_time=2)
    _, shown = error_of(
        case,
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-S', '-c', 'while True: pass'], check=True)",
    )

    assert "A limit of this worker: a process may use 2 s of processor time. " in shown
    assert "%hive config cpu_time=..." in shown


def test_too_much_memory_of_one_process(case):
    case.limited(memory="300M")
    error, shown = error_of(case, "x = bytearray(400 * 2**20)")

    assert isinstance(error, MemoryError)
    assert "memory limit of 300 MB; `%hive restart coder --memory 600M` raises it" in shown


def test_too_much_memory_by_a_library(case):
    """numpy's error is none of Python's; mmap's has a number."""
    case.limited(memory="300M")
    _, shown = error_of(case, "import numpy; numpy.zeros(100 * 2**20)")
    assert "`%hive restart coder --memory 600M` raises it" in shown

    _, shown = error_of(case, "import mmap; mmap.mmap(-1, 400 * 2**20, mmap.MAP_PRIVATE)")
    assert "A limit of this worker: a process may have 300 MB of memory. " in shown
    assert "`%hive restart coder --memory 600M` gives it more." in shown


def test_where_the_machine_has_no_memory_left_a_worker_ends_before_its_host(case):
    case.limited()
    process = case.hive.nodes.by_name["coder"]._process
    score = int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())

    assert score == min(500 + int(Path("/proc/self/oom_score_adj").read_text()), 1000)


# --- all of them together ---

TAKE = "import time; x = b'x' * (150 * 2**20); print(flush=True); time.sleep(1000)"
TOGETHER = {
    "processes": (
        "import subprocess, sys\n"
        f"hogs = [subprocess.Popen([sys.executable, '-S', '-c', {TAKE!r}]) for _ in range(3)]\n"
        "wait()"
    ),
    "daemons": (
        "import os\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        x = b'x' * (100 * 2**20)\n"
        "        wait()\n"
        "wait()"
    ),
    "shared memory": (
        "import mmap\nm = mmap.mmap(-1, 400 * 2**20)\n"
        "for start in range(0, len(m), 2**20): m[start : start + 2**20] = bytes(2**20)\n"
        "wait()"
    ),
    "files in memory": (
        "import os\nfor _ in range(400): os.write(os.memfd_create('x'), bytes(2**20))\nwait()"
    ),
}


@pytest.mark.parametrize("way", TOGETHER)
def test_too_much_memory_of_all_processes_together(case, way):
    case.limited(memory="300M")
    died = death_of(case, f"import time\ndef wait(): time.sleep(1000)\n{TOGETHER[way]}")

    assert "memory" == died.cause
    assert "reached its memory limit of 300 MB (it used " in str(died)
    assert "`%hive restart coder --memory 600M` gives it more." in str(died)


def test_memory_that_is_shared_counts_once(case):
    """By mapping, by forks, and where a file in /dev/shm is open, too."""
    case.limited(memory="300M")
    try:
        case.run("open('/dev/shm/hive-test', 'w'); import os; os.unlink('/dev/shm/hive-test')")
    except PermissionError:
        pytest.skip("no shared memory in strict without namespaces")
    supervisor = psutil.Process(case.hive.nodes.by_name["coder"]._process.supervisor_pid)
    delegation = case.hive.begin(
        "import os\n"
        "from multiprocessing.shared_memory import SharedMemory\n"
        "block = SharedMemory(create=True, size=150 * 2**20)\n"
        "block.buf[:] = bytes(len(block.buf))\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        while True: block.buf[::4096] = block.buf[::4096]\n"
        "print('taken', flush=True)\n"
        "while True: pass"
    )
    next(message for message in delegation if message.type == "stream")
    looks = supervisor.num_ctx_switches().voluntary
    wait_until(lambda: supervisor.num_ctx_switches().voluntary > looks + 3)
    case.hive.restart()

    with pytest.raises(NodeDied, match="was restarted"):
        delegation.outcome()


FORKS = (
    "import os, time\n"
    "for _ in range(200):\n"
    "    if os.fork() == 0: time.sleep(1000)\n"
    "time.sleep(1000)"
)
THREADS = (
    "import threading, time\n"
    "for _ in range(200): threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\n"
    "time.sleep(1000)"
)


@pytest.mark.parametrize("code", [FORKS, THREADS], ids=["forks", "threads"])
def test_too_many_processes_and_threads(case, code):
    """The kernel refuses more where it counts the worker's own; where it does not, it ends."""
    case.limited(processes=64)
    if case.counted:
        _, shown = error_of(case, code)
        assert "A limit of this worker: the worker may have 64 processes and threads. " in shown
        assert "%hive config processes=..." in shown
        return
    died = death_of(case, code)

    assert "processes" == died.cause
    assert "had more than 64 processes and threads, its limit, and was killed" in str(died)
    assert "`%hive config processes=128` gives the next one more." in str(died)


# Each of its processes starts another, for ever.
DOUBLING = "import os\nwhile True: os.fork()"
# Each starts two, in sessions that no signal to a group reaches, and is gone.
HOPPING = (
    "import os\n"
    "if os.fork(): os._exit(0)\n"
    "while True:\n"
    "    os.setsid()\n"
    "    try:\n"
    "        if os.fork() and os.fork(): os._exit(0)\n"
    "    except OSError: pass"
)


@pytest.mark.parametrize("code", [DOUBLING, HOPPING], ids=["doubling", "hopping"])
def test_a_bomb_of_processes_ends(case, code):
    """It meets its limit, or its worker has ended before, and all is swept."""
    if code == HOPPING and os.geteuid() == 0 and not case.at_once:
        pytest.skip("nothing holds root to a number of processes while they are killed one by one")
    case.limited(processes=64)
    with adopting(reap=False) as left:
        with pytest.raises((NodeDied, RemoteError)):
            case.run(code)
        case.hive.stop()

        wait_until(lambda: not left(), 10)
