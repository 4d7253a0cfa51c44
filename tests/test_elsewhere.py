"""Workers where the system is not Linux: the same cells, by what POSIX knows alone."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import contextmanager

import psutil
import pytest

from hive_jupyter import HiveManager, NodeDied, NodeTimeout, RemoteError, SandboxUnavailable
from hive_jupyter.config import HiveConfig
from hive_jupyter.policy import SandboxPolicy
from hive_jupyter.protocol import SERVER
from hive_jupyter.swarm import system
from hive_jupyter.swarm.forkserver import make_server
from hive_jupyter.swarm.launch import Launch
from hive_jupyter.swarm.runtime import RuntimeFolder
from tests.hosts import play
from tests.processes import (
    adopting,
    family,
    send,
    start_host,
    stopped,
    titled,
    wait_gone,
    wait_until,
)

POSIX_ALONE = "from hive_jupyter.swarm import system; system.IS_LINUX = False\n"


@pytest.fixture(scope="module", autouse=True)
def _posix_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "IS_LINUX", False)
        yield


@pytest.fixture
def left():
    """Lists what a test's hosts have left behind."""
    with adopting() as left:
        yield left


def said(result):
    return result.stdout, result.stderr


# A cell


def test_what_python_and_c_print_comes_in_order_and_so_does_the_result(hive):
    result = hive.delegate(
        "import os, sys\nprint('one')\nos.system('echo two; echo three >&2')\nprint('four')\n6 * 7"
    )

    assert ("one\ntwo\nfour\n", "three\n", "42") == (*said(result), result.value_repr)


def test_an_exception_is_raised_as_what_it_is(hive):
    with pytest.raises(ZeroDivisionError) as raised:
        hive.delegate("1 / 0")

    assert isinstance(raised.value, RemoteError)


def test_a_worker_is_started_for_itself_and_leads_a_session(hive):
    worker = psutil.Process(wait_until(lambda: hive.start().pid))

    assert worker.pid == os.getsid(worker.pid) == os.getpgid(worker.pid)
    # between the two is a supervisor, and no zygote
    assert os.getpid() == worker.parent().ppid()


@pytest.mark.parametrize(
    "code",
    ["print('up')\nwhile True: pass", "import asyncio\nprint('up')\nawait asyncio.sleep(1000)"],
    ids=["runs", "awaits"],
)
def test_an_interrupted_cell_stops_and_keeps_the_variables(hive, code):
    hive.delegate("kept = 1")
    delegation = hive.begin(code)
    messages = iter(delegation)
    wait_until(lambda: "up" in str(next(messages).content))
    hive.interrupt()

    with pytest.raises(RemoteError) as raised:
        delegation.outcome()
    assert "KeyboardInterrupt" == raised.value.ename
    assert "1" == hive.delegate("kept").value_repr


def test_time_that_is_over_ends_a_cell(hive):
    hive.delegate("kept = 2")
    with pytest.raises(NodeTimeout, match="keeps its variables"):
        hive.delegate("import time; time.sleep(1000)", timeout=0.5)

    assert "2" == hive.delegate("kept").value_repr


def test_what_does_not_stop_is_killed_with_what_it_started(hive):
    stubborn = (
        "import signal, subprocess, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "_ = subprocess.Popen(['sleep', '1000'])\n"
        "while True: time.sleep(1000)"
    )
    before = hive.config.interrupt_grace
    hive.config.interrupt_grace = 0.2
    try:
        with pytest.raises(NodeTimeout, match="was killed"):
            hive.delegate(stubborn, timeout=0.5)
    finally:
        hive.config.interrupt_grace = before

    wait_until(lambda: not titled(family(), "sleep"))


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"SIGSEGV \(segmentation fault\).*Lost: df"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
    ids=["signal", "exit"],
)
def test_a_death_is_told_with_its_cause(hive, code, cause):
    hive.delegate("df = 1")

    with pytest.raises(NodeDied, match=cause):
        hive.delegate(code)
    assert "2" == hive.delegate("1 + 1").value_repr


def test_the_last_words_of_c_code_are_heard(hive):
    delegation = hive.begin("import ctypes, os; ctypes.CDLL(None).perror(b'last'); os.abort()")
    words = "".join(message.content.get("text", "") for message in delegation)

    with pytest.raises(NodeDied, match="SIGABRT"):
        delegation.outcome()
    assert words.startswith("last: ")


def test_the_news_of_a_death_waits_for_no_child(hive):
    """It has the pipes' reading ends, which it can make wait for everybody."""
    waits = (
        "import fcntl, os\n"
        "ends = [int(fd) for fd in os.listdir('/dev/fd')]\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        "        for fd in ends:\n"
        "            try: fcntl.fcntl(fd, fcntl.F_SETFL, 0)\n"
        "            except OSError: pass\n"
        "os.abort()"
    )
    with pytest.raises(NodeDied, match="SIGABRT"):
        hive.delegate(waits)


def test_a_python_that_does_not_start_is_told_with_what_it_said(hive, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'no luck today' >&2\nexit 3\n")
    program.chmod(0o700)
    hive.add("unlucky", python=str(program))

    assert "no luck today" in str(hive.delegate("1", worker="unlucky"))


def test_a_restart_forgets_and_two_workers_know_nothing_of_each_other(hive):
    hive.delegate("mine = 1")
    hive.delegate("mine = 2", worker="second")

    assert ["1", "2"] == [
        hive.delegate("mine", worker=name).value_repr for name in ("coder", "second")
    ]
    hive.restart()
    with pytest.raises(NameError):
        hive.delegate("mine")
    hive.stop("second")


def test_another_kernel_runs_there_too(hive):
    hive.add("kernel", kernel="python3")

    assert "4" == hive.delegate("2 + 2", worker="kernel").value_repr
    hive.stop("kernel")


async def test_a_server_has_pipes_to_the_host_and_a_log(runtime, tmp_path):
    """What it started goes with it."""
    folder = RuntimeFolder.create()
    server = make_server(HiveConfig(), sys.executable, folder)
    launch = Launch(
        interpreter="",
        argv=("/bin/sh", "-c", "echo said >&2; sleep 1000 & exec cat"),
        cwd=str(tmp_path),
        path=(),
        environment=(("PATH", os.environ["PATH"]),),
        policy=SandboxPolicy("open"),
        role=SERVER,
    )
    process = await server.spawn(launch, "server")
    given, answer = process.take_pipes()
    with given, answer:
        given.write(b"echo\n")

        assert b"echo\n" == await asyncio.to_thread(answer.readline)
        wait_until(lambda: process.log_tail() == "said")
        started = [psutil.Process(process.supervisor_pid), *family(process.supervisor_pid)]
        await process.stop()
    wait_gone(started)
    assert (3, "stop") == (len(started), process.end.by_us)
    await server.close()
    folder.remove()


# Ends


def test_a_killed_supervisor_takes_its_worker_along(hive):
    worker = psutil.Process(hive.start().pid)
    delegation = hive.begin("print('up')\nimport time; time.sleep(1000)")
    wait_until(lambda: "up" in str(next(iter(delegation)).content))
    send(worker.parent(), signal.SIGKILL)

    with pytest.raises(NodeDied, match="watches over it was killed"):
        delegation.outcome()
    wait_gone([worker])
    assert "2" == hive.delegate("1 + 1").value_repr


def test_a_stopped_supervisor_does_not_save_its_worker(hive):
    worker = psutil.Process(hive.start().pid)
    supervisor = worker.parent()
    stopped(supervisor.pid)
    hive.stop()

    wait_gone([worker, supervisor])


HELD = """
import sys, threading
from hive_jupyter import HiveManager
hive = HiveManager(sandbox="open")
running = hive.begin(
    "import ctypes, subprocess\\n_ = subprocess.Popen(['sleep', '1000'])\\n"
    "print('up', flush=True); ctypes.PyDLL(None).sleep(1000)"
)
next(message for message in running if "up" in str(message.content))
"""


@contextmanager
def begun(then, runtime):
    """A host whose worker holds its interpreter's lock."""
    wait = "\nprint('up'); threading.Event().wait()"
    with start_host(f"{POSIX_ALONE}{HELD}{then}{wait}", runtime) as host:
        try:
            assert "up\n" == host.stdout.readline()
            yield host
        finally:
            host.kill()


def test_a_host_that_is_killed_leaves_nothing(runtime, left):
    """Not what a worker started, and not one that holds the interpreter's lock."""
    with begun("", runtime) as host:
        assert 1 == len(titled(left(), "sleep"))
        host.kill()

    wait_until(lambda: not left())


def test_a_host_that_forks_and_is_killed_leaves_only_its_fork(runtime, left):
    """Which keeps the supervisor's socket open."""
    with begun("import os, time; os.fork() or time.sleep(1000)", runtime) as host:
        (fork,) = [p for p in family(host.pid) if p.cmdline() == psutil.Process(host.pid).cmdline()]
        host.kill()

    wait_until(lambda: left() == [fork])


def test_a_hive_that_is_closed_leaves_no_process_and_no_folder():
    """Watched by whoever becomes the parent of what is left."""
    program = """
import os, pathlib
from hive_jupyter import HiveManager
folders = pathlib.Path(os.environ["JUPYTER_RUNTIME_DIR"], "hive")
with HiveManager(sandbox="open") as hive:
    hive.delegate("import subprocess; _ = subprocess.Popen(['sleep', '1000'])")
    print(len(list(folders.iterdir())))
print(len(list(folders.iterdir())))
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        assert "1\n0\n" == play(POSIX_ALONE + program, JUPYTER_RUNTIME_DIR=folder)


# What is said


@pytest.fixture(scope="module")
def confined(runtime):
    with HiveManager(memory="1G", file_size="1M", connect_timeout=60) as hive:
        yield hive


def test_what_is_not_enforced_is_said_once(confined):
    first, second = confined.delegate("1"), confined.delegate("2")

    assert "cannot confine files, system calls and sockets, TCP ports, signals" in first.stderr
    assert "--memory does not hold here" in first.stderr
    assert "" == second.stderr


def test_strict_is_refused_with_what_is_missing(confined):
    with pytest.raises(SandboxUnavailable, match="--sandbox workspace") as refused:
        confined.delegate("1", worker="other", sandbox="strict")

    assert {"files", "TCP ports", "signals"} < {*refused.value.missing}


def test_doctor_and_status_say_what_less_there_is(confined):
    report, status = confined.doctor(), confined.swarm_status()
    rows = {row.capability: row for row in report.rows}

    assert ["missing", "missing"] == [rows[f"sandbox {p}"].state for p in ("workspace", "strict")]
    assert "confined by nothing" in rows["sandbox workspace"].detail
    assert "refused" in rows["sandbox strict"].detail
    assert not any(row.profile for row in report.rows)
    assert system.NOTE in status.notes()


def test_limits_that_each_process_has_for_itself_hold(confined, tmp_path):
    with pytest.raises(OSError, match="File too large"):
        confined.delegate(f"open({str(tmp_path / 'large')!r}, 'wb').write(bytes(2**21))")


# Without Linux


HIDDEN = """
import sys, pathlib
from tests import elsewhere
sys.executable = elsewhere.interpreter(pathlib.Path(sys.argv[1]))
elsewhere.hide()
from hive_jupyter import HiveManager
with HiveManager(sandbox="open") as hive:
    shown = hive.delegate(
        "import os, sys\\nprint(sys.platform, hasattr(os, 'pidfd_open'), os.path.exists('/proc'))"
        "\\nos.system('echo from C')\\n6 * 7"
    )
    print(shown.stdout, shown.value_repr)
    try:
        hive.delegate("import time; time.sleep(1000)", timeout=0.5)
    except Exception as error:
        print(type(error).__name__)
    for tool, arguments in (
        ("save_file", {"path": "a/b.py", "content": "x = 1\\n"}),
        ("read_file", {"path": "a/b.py"}),
        ("list_files", {}),
        ("search_files", {"pattern": "x"}),
    ):
        print(hive.delegate_to_coder(tool, arguments).is_error)
    print(hive.health(), hive.requests(), hive.swarm_status()["workers"]["coder"]["memory"])
    print(*hive.doctor().missing, sep="; ")
"""


def test_no_cell_needs_what_linux_alone_has(runtime, tmp_path):
    folders = {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    played = play(HIDDEN, tmp_path, cwd=tmp_path, options=(), **folders)

    assert [
        "freebsd14 False False",
        "from C",
        " 42",
        "NodeTimeout",
        *["False"] * 4,
        "idle [] None",
    ] == played.splitlines()[:-1]
    assert played.splitlines()[-1].startswith("Linux; fork;")
