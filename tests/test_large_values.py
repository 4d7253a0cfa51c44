"""Values whose memory goes past the messages, between a notebook and real workers."""

import os
import signal
import threading

import numpy as np
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import NodeDied, NodeTimeout, RemoteError, TransferError
from hive_jupyter.swarm import values
from hive_jupyter.transfer import SMALLEST, BulkSocket
from tests.processes import stopped, wait_until

MEGABYTE = 10**6
# More than the sockets hold.
LARGE = 50 * MEGABYTE
MAKE = f"import numpy as np; x = np.arange({LARGE}, dtype=np.uint8)"
KERNEL = "kernel = get_ipython().kernel; end = kernel.bulk._socket.fileno()\n"


@pytest.fixture(scope="module")
def shared(runtime):
    """A hive whose workers are as users have them, but patient."""
    with HiveManager(interrupt_grace=30, connect_timeout=60, spares=0) as hive:
        yield hive


@pytest.fixture
def fresh(shared):
    """With a worker of whose way nobody has heard."""
    shared.stop()
    return shared


@pytest.fixture
def moved(monkeypatch):
    """How much the host has sent and received past the messages, call by call."""
    calls = []
    send, receive = BulkSocket.send, BulkSocket.receive

    def told_send(own, parts, over):
        calls.append(("send", sum(part.nbytes for part in parts)))
        send(own, parts, over)

    def told_receive(own, sizes, over):
        calls.append(("receive", sum(sizes)))
        return receive(own, sizes, over)

    monkeypatch.setattr(BulkSocket, "send", told_send)
    monkeypatch.setattr(BulkSocket, "receive", told_receive)
    return calls


@pytest.fixture
def gate(monkeypatch):
    """The host receives nothing before it is opened."""
    begun, opened = threading.Event(), threading.Event()
    receive = BulkSocket.receive

    def waiting(own, sizes, over):
        begun.set()
        wait_until(lambda: opened.is_set() or over() or own._socket.fileno() < 0, 60)
        return receive(own, sizes, over)

    monkeypatch.setattr(BulkSocket, "receive", waiting)
    return begun, opened


def way(hive):
    return hive.nodes.by_name["coder"]._process.bulk


def array():
    return np.arange(LARGE, dtype=np.uint8)


def works(hive):
    """Whichever way they go: what is moved is what comes."""
    hive.push(back=array()[::-1].copy())
    np.testing.assert_array_equal(array()[::-1], hive.pull("back")["back"])
    return True


# --- there and back ---


def test_what_is_large_goes_past_the_messages(fresh, moved):
    small = bytes(SMALLEST // 2)
    fresh.push(x=array(), small=small)
    fresh.delegate("x = x[::-1].copy(); first = x[:4]")
    back = fresh.pull("x", "small", "first")

    assert [("send", LARGE + SMALLEST // 2), ("receive", LARGE + SMALLEST // 2 + 16)] == moved
    np.testing.assert_array_equal(array()[::-1], back["x"])
    assert (small, 4) == (back["small"], len(back["first"]))
    assert back["x"].flags.writeable
    assert way(fresh).is_in_step()


def test_what_is_small_goes_with_them(fresh, moved):
    fresh.push(x=bytes(1000), y=1)

    assert {"x": bytes(1000), "y": 1} == fresh.pull("x", "y")
    assert [] == moved


def test_what_a_worker_refuses_leaves_the_way_as_it_was(fresh):
    """Read it has; so the next value goes the same way."""
    names = {"__name__": "gone"}
    exec("class Gone:\n    def __reduce__(self): return int, ('no number',)", names)
    with pytest.raises(TransferError, match="ValueError"):
        fresh.push(x=array(), gone=names["Gone"]())

    assert way(fresh).is_in_step()
    assert works(fresh)


def test_what_goes_beside_a_run_does_not_meet_its_values(fresh, gate):
    """On a subshell, while the worker sends something else."""
    fresh.delegate(MAKE)
    pulling = fresh.begin_pull(["x"])
    assert gate[0].wait(60)
    fresh.submit("total = int(y[:4].sum())", values={"y": array()}, concurrent=True).result(60)
    gate[1].set()

    np.testing.assert_array_equal(array(), pulling.outcome()["x"])
    assert {"total": 6} == fresh.pull("total")
    assert way(fresh).is_in_step()


@pytest.mark.parametrize(
    "settings", [{"start_method": "exec"}, {"transport": "tcp"}, {"sandbox": "strict"}]
)
def test_however_a_worker_is_started_it_has_the_way(runtime, moved, settings):
    with HiveManager(connect_timeout=60, spares=0, **settings) as hive:
        assert works(hive)

    assert ["send", "receive"] == [kind for kind, _ in moved]


def test_workers_leave_no_descriptor_in_the_host(runtime):
    with HiveManager(connect_timeout=60, spares=0) as hive:
        before = 0
        for number in range(5):
            hive.push(x=array())
            hive.pull("x")
            hive.stop()
            if number == 0:
                before = len(os.listdir("/proc/self/fd"))
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


# --- broken off ---


def test_a_worker_killed_while_it_sends_is_told(fresh, gate):
    fresh.delegate(MAKE)
    pulling = fresh.begin_pull(["x"])
    assert gate[0].wait(60)
    os.kill(fresh.swarm_status()["workers"]["coder"]["pid"], signal.SIGKILL)
    with pytest.raises(NodeDied, match="SIGKILL"):
        pulling.outcome()
    gate[1].set()

    assert works(fresh)


def test_a_worker_killed_while_it_is_sent_something_is_told(fresh):
    stopped(pid := fresh.start().pid)
    pushing = fresh.begin_push({"x": array()})
    wait_until(lambda: fresh.swarm_status()["workers"]["coder"]["state"] == "busy")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NodeDied, match="SIGKILL"):
        pushing.outcome()

    assert works(fresh)


@pytest.mark.parametrize("move", ["push", "pull"])
def test_a_worker_that_is_stopped_is_waited_for_no_longer_than_that(runtime, gate, move):
    with HiveManager(interrupt_grace=0.5, connect_timeout=60, spares=0) as hive:
        hive.delegate(MAKE)
        worker = hive.swarm_status()["workers"]["coder"]["pid"]
        if move == "push":
            stopped(worker)
            gate[1].set()
            moving = hive.begin_push({"x": array()}, timeout=1)
        else:
            moving = hive.begin_pull(["x"], timeout=5)
            assert gate[0].wait(60)
            stopped(worker)
            gate[1].set()
        with pytest.raises(NodeTimeout, match="was killed"):
            moving.outcome()

        assert works(hive)


def test_an_interrupted_pull_is_never_taken_for_another_value(fresh, gate):
    fresh.delegate(MAKE)
    pulling = fresh.begin_pull(["x"])
    assert gate[0].wait(60)
    pulling.interrupt()
    with pytest.raises(RemoteError) as caught:
        pulling.outcome()
    gate[1].set()

    assert "KeyboardInterrupt" == caught.value.ename
    assert not way(fresh).is_in_step()
    assert works(fresh)


def test_an_interrupted_push_is_never_taken_for_another_value(fresh, monkeypatch):
    send, sent = BulkSocket.send, threading.Event()

    def half(own, parts, over):
        send(own, [part[: part.nbytes // 2] for part in parts], over)
        sent.set()
        wait_until(over)
        send(own, [part[part.nbytes // 2 :] for part in parts], over)

    fresh.delegate("x = 'as it was'")
    with monkeypatch.context() as patch:
        patch.setattr(BulkSocket, "send", half)
        pushing = fresh.begin_push({"x": array()})
        assert sent.wait(60)
        pushing.interrupt()
        with pytest.raises(RemoteError) as caught:
            pushing.outcome()

    assert "KeyboardInterrupt" == caught.value.ename
    assert not way(fresh).is_in_step()
    assert {"x": "as it was"} == fresh.pull("x")
    assert works(fresh)


# --- a worker that lies ---

# It announces some memory, writes by hand, and says that it is idle.
FORGED = (
    KERNEL
    + """
import os
async def forged(stream, ident, parent):
    told = {{"status": "ok", "values": {told!r}, "bulk": {announced}}}
    kernel.session.send(stream, "pull_reply", told, parent, ident=ident)
    left = memoryview(bytes({written}))
    try:
        while left:
            left = left[os.write(end, left):]
    except OSError:
        pass
honest = kernel.shell_handlers["pull_request"]
kernel.shell_handlers["pull_request"] = forged
"""
)
TOLD = {"sizes": [LARGE], "values": {"x": ["array", "|u1", [LARGE], None, 0]}}


@pytest.mark.parametrize(
    ("announced", "written"),
    [
        ([LARGE], 0),
        ([LARGE], LARGE - 1),
        ([LARGE], LARGE + 1),
        ([LARGE], LARGE + 10 * MEGABYTE),
        ([LARGE - 1], LARGE - 1),
        ([LARGE, 1], LARGE + 1),
        ([-1], LARGE),
        (["1"], LARGE),
        ("'x'", LARGE),
        ([2**40], LARGE),
        ("[2**30] * 1000", 100),
        ("[0] * 20_000", 0),
        (False, 0),
    ],
)
def test_a_worker_that_lies_gets_a_transfer_error_and_no_more(fresh, announced, written):
    fresh.delegate(FORGED.format(told=TOLD, announced=announced, written=written))
    with pytest.raises((TransferError, NodeDied), match='orker "coder"'):
        fresh.pull("x")
    fresh.delegate("'honest' in globals() and kernel.shell_handlers.update(pull_request=honest)")

    assert works(fresh)


@pytest.mark.parametrize("read", [0, 1000])
def test_a_worker_that_only_says_that_it_took_a_value_is_found_out(fresh, read):
    fresh.delegate(
        KERNEL + "import os\nasync def forged(stream, ident, parent):\n"
        f"    os.read(end, {read})\n"
        "    kernel.session.send(stream, 'push_reply', {'status': 'ok'}, parent, ident=ident)\n"
        "honest = kernel.shell_handlers['push_request']\n"
        "kernel.shell_handlers['push_request'] = forged"
    )
    with pytest.raises(TransferError, match="did not take all of x"):
        fresh.push(x=array())
    fresh.delegate("kernel.shell_handlers.update(push_request=honest)")

    assert works(fresh)


def test_where_no_thread_is_to_be_had_nobody_waits(fresh, monkeypatch):
    fresh.delegate(MAKE)
    with monkeypatch.context() as patch:

        async def refused(_):
            raise RuntimeError("can't start new thread")

        patch.setattr(values, "apart", refused)
        with pytest.raises(TransferError, match="can't start new thread"):
            fresh.pull("x")

    assert works(fresh)


def test_gigabytes_that_are_only_announced_are_not_taken(runtime):
    with HiveManager(max_transfer=None, connect_timeout=60) as hive:
        hive.delegate(FORGED.format(told=TOLD, announced="[2**30] * 1000", written=LARGE))
        before = peak()
        with pytest.raises(TransferError, match="whole"):
            hive.pull("x")

        assert peak() < before + 4 * LARGE


def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


# --- code that finds the descriptor ---


@pytest.mark.parametrize(
    "done",
    [
        "import os; os.write(end, b'rubbish')",
        "import os; os.close(end)",
        "import os; os.dup2(os.open('/dev/null', os.O_RDWR), end)",
        "import os, socket; a, b = socket.socketpair(); os.dup2(a.fileno(), end)",
        "import socket; socket.socket(fileno=end).shutdown(socket.SHUT_RDWR)",
        "import socket; socket.socket(fileno=end).shutdown(socket.SHUT_RD)",
        "import socket; socket.socket(fileno=end).shutdown(socket.SHUT_WR)",
        "import os; os.set_blocking(end, False)",
        "import socket; socket.send_fds(socket.socket(fileno=end), [b'x'], [0] * 100)",
        "import socket; socket.socket(fileno=end).send(b'x', socket.MSG_OOB)",
        "import socket; socket.socket(fileno=end).setsockopt(1, socket.SO_SNDBUF, 1)",
        "kernel.bulk.close()",
    ],
)
def test_whatever_code_does_to_the_descriptor_values_come_as_they_are(fresh, done):
    fresh.delegate(KERNEL)
    fresh.push(small=bytes(1000))  # zmq opens something once, too
    before = len(os.listdir("/proc/self/fd"))
    fresh.delegate(done)

    assert works(fresh)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_code_that_reads_what_is_not_its_own_is_stopped_as_any(fresh):
    """The worker waits for what is gone, for ever."""
    fresh.delegate(
        KERNEL + "import os, threading\n"
        "def steal():\n    while True:\n        try: return os.read(end, 1)\n"
        "        except BlockingIOError: pass\n"
        "threading.Thread(target=steal, daemon=True).start()"
    )
    with pytest.raises(NodeTimeout, match="transfer had"):
        fresh.push(x=array(), timeout=3)

    assert works(fresh)


@pytest.mark.parametrize(
    "start",
    [
        "child = os.fork()\nif not child: look()\nos.waitpid(child, 0)",
        "p = multiprocessing.get_context('fork').Process(target=look); p.start(); p.join()",
        "subprocess.run([sys.executable, '-c', program, there, str(inode)])",
        "subprocess.run([sys.executable, '-c', program, there, str(inode)], close_fds=False)",
    ],
)
def test_no_child_of_a_worker_has_the_descriptor(fresh, tmp_path, start):
    program = (
        "import os, sys\n"
        "def inode_of(fd):\n"
        "    try: return os.stat(f'/proc/self/fd/{fd}').st_ino\n"
        "    except OSError: return 0\n"
        "found = [inode_of(fd) for fd in os.listdir('/proc/self/fd')]\n"
        "open(sys.argv[1], 'w').write(str(int(sys.argv[2]) in found))"
    )
    fresh.delegate(
        KERNEL + f"import multiprocessing, os, subprocess, sys, tempfile\nprogram = {program!r}\n"
        "inode = os.fstat(end).st_ino\nthere = tempfile.mktemp()\n"
        "def look():\n    sys.argv[1:] = there, str(inode)\n    exec(program, {})\n"
        "    os._exit(0)\n" + start
    )

    assert "'False'" == fresh.delegate("open(there).read()").value_repr
    assert works(fresh)
