"""A worker's stdout and stderr, in real workers: nothing is lost, and nothing changes places."""

import hashlib
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive_jupyter.worker import streams
from hive_jupyter.worker.streams import Wire
from tests.processes import wait_until

# How a cell can write: each takes a stream's name and a text without line breaks.
WAYS = {
    "print": "print({text!r}, file=sys.{name})",
    "piecewise": "print({text!r}, end='', file=sys.{name}); print(file=sys.{name})",
    "descriptor": "os.write(sys.__{name}__.fileno(), {text!r}.encode() + b'\\n')",
    "flush": "print({text!r}, file=sys.{name}, flush=True)",
    "child": "subprocess.run(['echo', {text!r}], stdout=sys.__{name}__.fileno(), check=True)",
}

steps = st.lists(
    st.tuples(
        st.sampled_from(sorted(WAYS)),
        st.sampled_from(["stdout", "stderr"]),
        st.text("aé€", min_size=1, max_size=5),
    ),
    max_size=12,
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_however_a_cell_writes_it_arrives_in_order(hive, steps):
    lines = [WAYS[way].format(name=name, text=text) for way, name, text in steps]

    result = hive.delegate("\n".join(["import os, subprocess, sys", *lines]))

    for name in ("stdout", "stderr"):
        expected = "".join(f"{text}\n" for _, to, text in steps if to == name)
        assert expected == getattr(result, name)


def test_the_end_of_a_line_waits_for_what_the_descriptor_got(hive):
    """A print's text and its line end are two writes; what comes between stands between."""
    result = hive.delegate(
        "import os\n"
        "os.write(1, b'a'); print()\n"
        "print('b', end=''); os.write(1, b'c'); print()\n"
        "os.write(1, b'd')"
    )

    assert "a\nbc\nd" == result.stdout


def test_a_large_print_comes_in_pieces(hive):
    """Memory stays bounded, and a front-end has something to show early."""
    delegation = hive.begin("print('x' * 3_000_000)\nfor _ in range(30_000): print('y' * 99)")

    sizes = [len(message.content["text"]) for message in delegation]

    assert 6_000_001 == sum(sizes)
    assert max(sizes) < 3_000_000


def test_threads_that_print_at_once_lose_nothing(hive):
    """Each thread's lines arrive whole and in the thread's own order."""
    result = hive.delegate(
        "import sys, threading\n"
        "def work(name):\n"
        "    for number in range(3000): sys.stdout.write(f'{name} {number}\\n')\n"
        "threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )

    lines = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    for name in range(4):
        assert list(range(3000)) == [number for thread, number in lines if thread == name]


def test_a_signal_handler_may_print_and_flush_at_any_time(hive):
    """A signal arrives in the midst of a write or of a flush."""
    result = hive.delegate(
        "import signal, threading, time\n"
        "rung = 0\n"
        "def ring(*_):\n"
        "    global rung\n"
        "    rung += 1\n"
        "    print('ring', flush=rung % 2)\n"
        "before = signal.signal(signal.SIGALRM, ring)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "number = 0\n"
        "while rung < 100:\n"
        "    print('line', flush=number % 100 == 0)\n"
        "    number += 1\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "_ = signal.signal(signal.SIGALRM, before)\n"
        "number, rung\n"
    )

    printed, rung = eval(result.value_repr)
    assert "" == result.stderr
    assert printed == result.stdout.count("line")
    assert rung == result.stdout.count("ring")


def test_a_finaliser_may_print_and_flush_at_any_time(hive):
    """The garbage collector runs it in the midst of anything, on any thread."""
    result = hive.delegate(
        "import gc\n"
        "gone = []\n"
        "class Loud:\n"
        "    def __init__(self): self.me = self\n"
        "    def __del__(self): print('gone', flush=True); gone.append(1)\n"
        "before = gc.get_threshold()\n"
        "gc.set_threshold(10)\n"
        "for number in range(500): Loud(); print('line', [[]])\n"
        "gc.set_threshold(*before)\n"
        # collecting does nothing while another thread is still at it
        "while len(gone) < 500: gc.collect()\n",
        timeout=60,
    )

    assert "" == result.stderr
    assert 500 == result.stdout.count("gone")
    assert 500 == result.stdout.count("line")


def test_a_forked_child_prints_and_repeats_nothing_of_its_parents(hive):
    """What the parent has not sent yet is the parent's alone."""
    result = hive.delegate(
        "import multiprocessing, os, sys, threading\n"
        "def work(number):\n"
        "    print('child', number)\n"
        "    os.write(1, b'by descriptor\\n')\n"
        "def prattle():\n"
        "    for _ in range(20_000): sys.stdout.write('busy\\n')\n"
        "busy = threading.Thread(target=prattle)\n"
        "busy.start()\n"
        "context = multiprocessing.get_context('fork')\n"
        "for number in range(5):\n"
        "    print('before', number)\n"
        "    child = context.Process(target=work, args=(number,))\n"
        "    child.start(); child.join()\n"
        "    assert child.exitcode == 0\n"
        "busy.join()\n"
    )

    assert 20_000 == result.stdout.count("busy")
    assert 5 == result.stdout.count("by descriptor")
    said = result.stdout.replace("busy\n", "").splitlines()
    order = [(f"before {n}", f"child {n}", "by descriptor") for n in range(5)]
    assert [line for lines in order for line in lines] == said


def test_a_stream_answers_as_at_home(hive):
    """What libraries ask of sys.stdout."""
    result = hive.delegate(
        "import sys\n"
        "out = sys.stdout\n"
        "try: out.write(b'bytes')\n"
        "except TypeError as error: print(error)\n"
        "out.write('four'), out.isatty(), out.encoding, out.errors, out.writable(), out.closed"
    )

    assert "write() argument must be str, not <class 'bytes'>\nfour" == result.stdout
    assert "(4, False, 'UTF-8', None, True, False)" == result.value_repr


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_takes_no_more_and_harms_nobody(hive, name):
    """As at home: what was printed before is shown, and the next cell works."""
    result = hive.delegate(
        f"import sys\n"
        f"stream = sys.{name}\n"
        f"print('before', end='', file=stream)\n"
        f"stream.close(); stream.close(); stream.flush()\n"
        f"try: stream.write('after')\n"
        f"except ValueError as error: said = str(error)\n"
        f"stream.closed, said"
    )

    assert "before" == getattr(result, name)
    assert "(True, 'I/O operation on closed file')" == result.value_repr
    assert "5" == hive.delegate("5").value_repr
    hive.restart()


def test_a_flush_waits_for_no_other_file(hive):
    """C code that writes to a pipe which nobody reads holds the lock of its own file alone."""
    began = (
        "import ctypes, os, threading\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.popen.restype = ctypes.c_void_p\n"
        "file = ctypes.c_void_p(libc.popen(b'exec sleep 1000', b'w'))\n"
        "text = b'x' * 2**20\n"
        "write = lambda: libc.fwrite(text, 1, len(text), file)\n"
        "threading.Thread(target=write, daemon=True).start()\n"
        "while ctypes.CDLL(None).ftrylockfile(file) == 0: libc.funlockfile(file)\n"
        "print('flushed', flush=True)"
    )

    assert "flushed\n" == hive.delegate(began, timeout=30).stdout
    hive.restart()


# The thread of zmq's that a flush waits for


@pytest.fixture
def start(monkeypatch):
    """
    Starts a thread that does something and then sleeps until the end of the test.

    The host's own of zmq, which run here too, are not looked for.
    """
    monkeypatch.setattr(streams, "_WRITES", b"writes")
    over = threading.Event()
    threads = []

    def started(work=int):
        threads.append(threading.Thread(target=lambda: (work(), over.wait())))
        threads[-1].start()
        return threads[-1]

    yield started
    over.set()
    for thread in threads:
        thread.join()


def name(thread):
    Path("/proc/self/task", str(thread.native_id), "comm").write_text("writes/0")


def test_the_thread_that_writes_is_known_however_late_it_first_runs(start):
    """It names itself then; that of the heartbeat is younger, and may be quicker."""
    wire = Wire()
    writes = start()
    wire.find()
    name(start())
    wire.wait()
    assert wire.stat is None

    name(writes)
    wire.wait()
    assert str(writes.native_id) == wire.stat.parent.name


def test_a_flush_waits_until_the_thread_that_writes_has_done_so(start):
    """It may have to wait for a processor; here it computes, which looks the same."""
    took = []

    def compute():
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**6)
        took.append(time.thread_time())

    wire = Wire()
    writes = start(compute)
    name(writes)
    wire.find()
    # the kernel's number for this clock; see clock_getcpuclockid(3)
    clock = ~writes.native_id << 3 | 6
    wait_until(lambda: time.clock_gettime(clock) > 0.01)
    wire.wait()
    waited_for = time.clock_gettime(clock)
    wait_until(lambda: took)

    assert waited_for > 0.9 * took[0]


def test_a_worker_watches_the_thread_that_writes_what_it_prints(hive):
    """It wakes up for each flush; that of the heartbeat sleeps on."""
    slept = hive.delegate(
        "from hive_jupyter.worker.streams import wire\n"
        "def slept():\n"
        "    status = wire.stat.with_name('status').read_text()\n"
        "    return int(status.split('\\nvoluntary_ctxt_switches:')[1].split()[0])\n"
        "print(flush=True)\n"
        "before = slept()\n"
        "for _ in range(50): print(flush=True)\n"
        "slept() - before"
    )

    assert int(slept.value_repr) > 10
