"""Hosts that fork, have no descriptors left, share a hive among threads, or forget to close it."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import hosts

# From 3.12 on Python itself warns of what these hosts do on purpose.
FORKING = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


@pytest.fixture
def place(monkeypatch):
    """A folder for runtime files, whose path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="h") as folder:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
        yield Path(folder)


# --- forks ---


def test_a_fork_of_the_host_is_told_so_and_the_workers_stay(place):
    """Whether it ends as Python does, with exit handlers and collected garbage, or at once."""
    program = """
import gc, os, sys
from hive_jupyter import HiveError, HiveManager
hive = HiveManager()
hive.delegate("kept = 1")
for way in ("exit", "quick", "error"):
    pid = os.fork()
    if pid == 0:
        for refused in (lambda: hive.delegate("1"), hive.start, lambda: hive.logs("coder"),
                        lambda: hive.begin("1").outcome(), hive.swarm_status):
            try:
                refused()
            except HiveError as error:
                assert "is a fork of the one that owns the hive" in str(error), error
                assert "make a HiveManager here" in str(error), error
            else:
                print("no error from", refused)
        hive.close()
        gc.collect()
        sys.stdout.flush()
        if way == "quick":
            os._exit(0)
        if way == "error":
            raise SystemExit(3)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), hive.delegate("kept").value_repr)
hive.close()
"""
    assert hosts.play(program, options=FORKING).splitlines() == ["0 1", "0 1", "3 1"]


def test_a_fork_can_have_a_hive_of_its_own(place):
    program = """
import os
from hive_jupyter import HiveManager
hive = HiveManager()
hive.delegate("kept = 1")
pid = os.fork()
if pid == 0:
    with HiveManager() as own:
        print(own.delegate("2 + 2").value_repr, flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), hive.delegate("kept").value_repr)
hive.close()
"""
    assert hosts.play(program, options=FORKING).split() == ["4", "0", "1"]


def test_a_pool_of_multiprocessing_beside_the_hive(place):
    """While a cell runs; the fork neither stops it nor keeps anything alive after the host."""
    program = """
import multiprocessing
from hive_jupyter import HiveManager
hive = HiveManager()
hive.delegate("kept = 1")
running = hive.begin("total = sum(range(10_000_000)); print(total)")
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(sum(pool.map(abs, range(-5, 5))))
print(running.outcome().stdout.strip(), hive.delegate("kept").value_repr)
multiprocessing.get_context("fork").Process(target=print, args=("child",)).start()
"""
    printed = hosts.play(program, options=FORKING).splitlines()

    assert sorted(printed) == sorted(["25", f"{sum(range(10_000_000))} 1", "child"])


def test_a_fork_that_outlives_the_host_keeps_no_worker(place):
    """It has inherited the sockets, whose end is therefore not seen."""
    program = """
import os, sys
from hive_jupyter import HiveManager
hive = HiveManager()
watch = os.pidfd_open(hive.start().pid)
read, write = os.pipe()
if os.fork() == 0:
    os.close(write)
    os.read(read, 1)
    import select
    print(bool(select.select([watch], [], [], 30)[0]), flush=True)
    os._exit(0)
os.close(read)
os.kill(os.getpid(), 9)
"""
    played = subprocess.run(
        hosts.command(program, options=FORKING),
        env=hosts.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (played.returncode, played.stdout, played.stderr) == (128 + 9, "True\n", "")


# --- descriptors ---


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", ">&-"])
@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_host_without_standard_streams_has_workers(place, closed, method):
    """What the host opens then may get the numbers 0 to 2."""
    program = f"""
import os, sys
from hive_jupyter import HiveManager
with HiveManager(start_method={method!r}) as hive:
    one = hive.delegate("import os; print(6); os.write(2, b'e'); 6 * 7")
    two = hive.delegate("import subprocess; subprocess.run(['echo', '8']).returncode")
with open({str(place / "answer")!r}, "w") as answer:
    print(one, two, file=answer)
"""
    hosts.play(program, before=("sh", "-c", f'exec "$@" {closed}', "sh"))

    shown = (place / "answer").read_text()
    assert "value_repr='42', stdout='6\\n', stderr='e'" in shown
    assert "value_repr='0', stdout='8\\n'" in shown


@pytest.mark.parametrize("method", ["fork", "exec"])
def test_a_low_limit_of_descriptors_is_enough(place, method):
    program = f"""
from hive_jupyter import HiveManager
with HiveManager(start_method={method!r}) as hive:
    print(hive.delegate("6 * 7").value_repr)
    print(hive.delegate("import resource as r; r.getrlimit(r.RLIMIT_NOFILE)[0]").value_repr)
"""
    printed = hosts.play(program, before=("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh"))

    assert printed.split() == ["42", "64"]


def test_a_host_without_free_descriptors_survives_and_says_so(place):
    """At each number of free descriptors; then, with some closed, the next cell runs."""
    program = """
import os, sys
from hive_jupyter import HiveError, HiveManager, Instructions
def exhaust(spare):
    files = []
    try:
        while True:
            files.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(spare):
        os.close(files.pop())
    return files
with HiveManager(max_failures=1000) as living:
    living.delegate("kept = 1")
    seen = set()
    for spare in range(0, 40):
        with HiveManager() as hive:
            files = exhaust(spare)
            try:
                answer = hive.delegate("6 * 7")
                other = living.delegate("kept")
                new = living.delegate("8", worker="other")
                health = living.health()
            finally:
                for file in files:
                    os.close(file)
            assert other.value_repr == "1", other
            for shown in (answer, new):
                if isinstance(shown, Instructions):
                    assert "open files (ulimit -n)" in shown.reason, shown.reason
            seen.add(type(answer).__name__)
            if spare % 8 == 0:
                assert hive.delegate("6 * 7").value_repr == "42"
                assert living.delegate("8", worker="other").value_repr == "8"
            living.stop("other")
print(*sorted(seen))
"""
    printed = hosts.play(program, before=("sh", "-c", 'ulimit -n 200 && exec "$@"', "sh"))

    assert printed.split() == ["Instructions", "Result"]


# --- many hives ---


def test_many_hives_one_after_the_other_leave_nothing(place):
    program = """
import os, threading
from pathlib import Path
from hive_jupyter import HiveManager, procfs
def left():
    for thread in threading.enumerate():  # one that has removed a folder is about to end
        if thread is not threading.current_thread():
            thread.join(10)
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(procfs.descendants(os.getpid())),
        len(list(Path(os.environ["JUPYTER_RUNTIME_DIR"], "hive").glob("*"))),
    )
def use(number):
    with HiveManager() as hive:
        if number % 40 == 0:
            assert hive.delegate("1 + 1").value_repr == "2"
        elif number % 40 == 1:
            hive.warm_up()
        elif number % 3 == 0:
            hive.swarm_status()
            hive.logs()
use(0)
before = left()
for number in range(200):
    use(number)
print(before == left(), before, left())
"""
    assert hosts.play(program).startswith("True")


def test_two_hives_do_not_disturb_each_other(place):
    program = """
from hive_jupyter import HiveManager
with HiveManager() as one, HiveManager(worker="other", timeout=5) as two:
    one.delegate("name = 'one'")
    two.delegate("name = 'two'")
    print(one.delegate("name").value_repr, two.delegate("name").value_repr)
    print(one.workers(), two.workers())
    one.close()
    print(two.delegate("name").value_repr)
    print(two.delegate("1", worker="coder").value_repr)
"""
    assert hosts.play(program).splitlines() == [
        "'one' 'two'",
        "['coder'] ['other']",
        "'two'",
        "1",
    ]


def test_closing_again_and_using_what_is_closed(place):
    program = """
from hive_jupyter import HiveError, HiveManager
for used in (False, True):
    hive = HiveManager()
    if used:
        hive.delegate("1")
    hive.close()
    hive.close()
    with hive:
        pass
    for refused in (lambda: hive.delegate("1"), hive.start, lambda: hive.delegate_to_coder("ping"),
                    hive.stop, hive.restart, hive.interrupt, hive.logs):
        try:
            refused()
        except HiveError as error:
            assert "This hive is closed. Load the extension again" in str(error), error
        else:
            print("no error from", refused)
    print(sorted(hive.swarm_status()["workers"]), len(hive.history()) > used, hive.workers())
"""
    assert hosts.play(program).splitlines() == ["['coder'] False ['coder']"] * 2


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "del hive; gc.collect()", "os._exit(0)"])
def test_a_hive_that_nobody_closes_ends_with_its_host(place, end):
    """Silently, and with it the worker, a run in it, the zygote and the spare."""
    program = f"""
import gc, os, sys
from hive_jupyter import HiveManager
hive = HiveManager()
hive.delegate("1")
hive.begin("while True: pass")
for _ in range(20):
    HiveManager()
HiveManager().warm_up()
{end}
"""
    hosts.play(program)


# --- threads ---


def test_threads_share_a_hive(place):
    """Runs of one worker take turns, several callers start one worker; nothing gets mixed up."""
    program = """
import threading
from concurrent.futures import ThreadPoolExecutor
from hive_jupyter import HiveManager
def work(number):
    worker = f"w{number % 3}"
    result = hive.delegate(f"print('{number} ' * 50); {number}", worker=worker)
    assert result.stdout.split() == [str(number)] * 50, result
    if number % 20 == 0:
        hive.swarm_status(), hive.health(worker), hive.logs(worker)
    return int(result.value_repr)
with HiveManager() as hive, ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(work, range(120))))
    print([status["restarts"] for status in hive.swarm_status()["workers"].values()])
"""
    printed = hosts.play(program).splitlines()

    assert printed == [str(sum(range(120))), "[0, 0, 0, 0]"]


def test_closing_while_threads_use_the_hive(place):
    """Each caller comes back with a result or one of Hive's errors; closing is quick."""
    program = """
import collections, threading, time
from hive_jupyter import HiveError, HiveManager
for round in range(8):
    hive = HiveManager()
    ends = collections.Counter()
    started = threading.Barrier(9)
    went = threading.Event()
    def work(number):
        started.wait()
        try:
            for turn in range(1000):
                if number == 7:
                    hive.restart()
                elif number == 6:
                    hive.delegate_to_coder("ping")
                else:
                    hive.delegate(f"import time; time.sleep(0.01)", worker=f"w{number % 2}")
                went.set()
        except HiveError as error:
            ends[type(error).__name__] += 1
        except BaseException as error:
            ends[repr(error)] += 1
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    if round % 2:
        went.wait(20)
    began = time.monotonic()
    hive.close()
    took = time.monotonic() - began
    for thread in threads:
        thread.join(20)
    alive = sum(thread.is_alive() for thread in threads)
    wrong = [end for end in ends if "(" in end]
    print(alive, sum(ends.values()), wrong, took < 15)
"""
    assert hosts.play(program, timeout=110).splitlines() == ["0 8 [] True"] * 8


# --- Ctrl-C in a plain script ---


@pytest.fixture
def meeting(place):
    """A named pipe; the worker opens it when its cell runs."""
    path = place / "meeting"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "wait",
    [
        "hive.delegate(code)",
        "hive.begin(code).outcome()",
    ],
)
def test_ctrl_c_in_a_script_raises_and_stops_the_run(place, meeting, wait):
    """The worker keeps its variables and is free for the next run."""
    program = f"""
import sys, time
from hive_jupyter import HiveManager
with HiveManager(interrupt_grace=20, sandbox="open") as hive:
    hive.delegate("kept = 1")
    code = f"open({{sys.argv[1]!r}}, 'w').close()\\nwhile True: pass"
    try:
        {wait}
    except KeyboardInterrupt:
        began = time.monotonic()
        print("KeyboardInterrupt")
    print(hive.delegate("kept").value_repr, time.monotonic() - began < 15)
    print(hive.history()[-2].status)
"""
    with hosts.started(program, meeting) as host:
        meeting.read_text()
        host.send_signal(signal.SIGINT)
        said, complaints = host.communicate(timeout=60)

    assert (host.returncode, complaints) == (0, "")
    assert said.splitlines() == ["KeyboardInterrupt", "1 True", "error"]


def test_ctrl_c_that_nobody_catches_ends_the_script(place, meeting):
    program = """
import sys
from hive_jupyter import HiveManager
hive = HiveManager(sandbox="open")
hive.delegate(f"open({sys.argv[1]!r}, 'w').close()\\nwhile True: pass")
"""
    with hosts.started(program, meeting) as host:
        meeting.read_text()
        host.send_signal(signal.SIGINT)
        _, complaints = host.communicate(timeout=60)

    assert host.returncode == -signal.SIGINT
    assert complaints.count("Traceback") == 1
    assert complaints.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("wait", ["hive.start('slow')", "hive.delegate_to_coder('ping')"])
def test_ctrl_c_while_a_worker_starts(place, meeting, wait):
    """A worker whose interpreter does not answer is given up at once, and nothing is left of it."""
    program = f"""
import sys, time
from hive_jupyter import HiveManager
with HiveManager(connect_timeout=60, worker="slow") as hive:
    hive.add("slow", python=sys.argv[1])
    try:
        {wait}
    except KeyboardInterrupt:
        began = time.monotonic()
        print("KeyboardInterrupt")
    print(hive.delegate("1", worker="coder").value_repr)
print(time.monotonic() - began < 20)
"""
    slow = place / "slow"
    slow.write_text(f"#!/bin/sh\n: > {meeting}\nexec sleep 600\n")
    slow.chmod(0o700)
    with hosts.started(program, slow) as host:
        meeting.read_text()
        host.send_signal(signal.SIGINT)
        said, complaints = host.communicate(timeout=60)

    assert (host.returncode, complaints) == (0, "")
    assert said.splitlines() == ["KeyboardInterrupt", "1", "True"]
