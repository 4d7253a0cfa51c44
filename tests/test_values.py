"""Variables between a notebook and real workers."""

import gc
import os
import signal
import threading
import weakref

import numpy as np
import psutil
import pytest

from hive_jupyter import HiveManager, Instructions
from hive_jupyter.errors import (
    ConfigError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    TransferError,
)
from hive_jupyter.swarm import values as values_module
from hive_jupyter.transfer import describing
from tests.front_end import FrontEnd
from tests.processes import stopped, wait_until

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def confined(runtime):
    """A hive whose workers are as users have them, but patient."""
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive


def value_of(hive, code):
    return hive.delegate(code).value_repr


# --- there and back ---


def test_values_come_to_a_worker_and_back(confined):
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4).T
    plain = {"a": [1, (2.5, None)], b"b": {"x", "y"}, "half": "\ud800"}
    confined.push(array=array, plain=plain)

    assert "(4, 3, 2)" == value_of(confined, "array.shape")
    confined.delegate("array = array * 2")
    back = confined.pull("array", "plain")

    assert ["array", "plain"] == list(back)
    np.testing.assert_array_equal(2 * array, back["array"])
    assert array.strides == back["array"].strides
    assert plain == back["plain"]


def test_what_was_pulled_can_be_written_to_and_is_nobody_elses(confined):
    confined.delegate("import numpy as np; big = np.zeros(10**6)")
    big = confined.pull("big")["big"]
    big += 1
    confined.push(big=big)
    big += 1

    assert "1.0" == value_of(confined, "float(big.max())")
    confined.delegate("big += 1")
    assert (2, 2) == (confined.pull("big")["big"].min(), big.max())


def test_functions_and_classes_of_the_notebook_come_to_a_worker(confined):
    factor = 3
    names = {"__name__": "__main__"}
    exec("class Local:\n    def double(self, x): return 2 * x", names)
    confined.push(triple=lambda x: factor * x, Local=names["Local"])

    assert "30" == value_of(confined, "triple(Local().double(5))")


def test_names_that_are_arguments_can_be_pushed(confined):
    confined.push({"worker": 1, "timeout": 2}, values=3)

    assert "(1, 2, 3)" == value_of(confined, "worker, timeout, values")


def test_values_wait_for_their_turn(hive):
    running = hive.begin("import time\nfirst = 1\ntime.sleep(0.3)\nfirst = 2")

    assert {"first": 2} == hive.pull("first")
    running.outcome()


# --- what cannot be moved ---


@pytest.mark.parametrize("name", ["", "a b", "class", "1", "a.b"])
def test_what_is_no_name_is_refused(confined, name):
    with pytest.raises(ConfigError, match="variable"):
        confined.push({name: 1})
    with pytest.raises(ConfigError, match="variable"):
        confined.pull(name)


def test_nothing_is_refused_too(confined):
    for move in (confined.push, confined.pull):
        with pytest.raises(ConfigError, match="at least one"):
            move()


def test_a_variable_that_there_is_not_is_named_with_the_nearest(confined):
    confined.delegate("scores = 1")
    with pytest.raises(TransferError, match='has no variable "score".* mean "scores"'):
        confined.pull("score")


def test_what_has_no_safe_form_is_named_with_what_to_do(confined):
    confined.delegate("class Model: pass\nmodel, fine = Model(), 1")
    with pytest.raises(TransferError, match=r'"model".*Model.*file.*allow_pickle'):
        confined.pull("fine", "model")


def test_a_confined_workers_pickle_is_never_opened(confined):
    with pytest.raises(ConfigError, match=r"confined \(sandbox workspace\)"):
        confined.pull("anything", allow_pickle=True)


def test_an_open_workers_pickle_is_opened_where_somebody_says_so(hive):
    hive.delegate("from fractions import Fraction\nhalf = Fraction(1, 2)")
    with pytest.raises(TransferError, match="Fraction.*Save it to a file.*allow_pickle=True"):
        hive.pull("half")

    assert "Fraction(1, 2)" == repr(hive.pull("half", allow_pickle=True)["half"])


def test_what_cannot_even_be_pickled_is_named(confined):
    with pytest.raises(TransferError, match='"lock" cannot be pickled.*, and make it there'):
        confined.push(fine=1, lock=threading.Lock())


def test_values_without_names_are_not_pushed(confined):
    with pytest.raises(ConfigError, match="push\\(data=data\\)"):
        confined.push("data")


def test_a_worker_that_cannot_take_a_value_has_none_of_them(confined):
    names = {"__name__": "gone"}
    exec("class Gone:\n    def __reduce__(self): return int, ('no number',)", names)
    with pytest.raises(TransferError, match="could not take before, gone.*ValueError"):
        confined.push(before=1, gone=names["Gone"]())

    assert "False" == value_of(confined, "'before' in globals()")


def test_more_than_is_allowed_is_refused_on_both_ways(runtime):
    with HiveManager(max_transfer=MEGABYTE, sandbox="open") as hive:
        hive.delegate("big = bytes(2 * 10**6)\nwide = __import__('numpy').broadcast_to(0, 10**12)")
        for move in (lambda: hive.push(big=bytes(2 * MEGABYTE)), lambda: hive.pull("big")):
            with pytest.raises(TransferError, match='"big".*976.6 KB.*max_transfer') as error:
                move()
            assert "pickle" not in str(error.value)
        with pytest.raises(TransferError, match="max_transfer"):
            hive.pull("wide")


def test_more_than_a_worker_may_hold_is_not_sent(runtime):
    with HiveManager(memory="200M", spares=0) as hive:
        with pytest.raises(TransferError, match="--memory"):
            hive.push(big=np.zeros(10**8))
        hive.push(small=1)
        assert "1" == value_of(hive, "small")


def test_where_no_worker_can_run_there_is_nothing_to_go_on_with(runtime):
    with HiveManager(direct=False) as hive:
        with pytest.raises(NodeStartError, match="turned off"):
            hive.push(a=1)
        with pytest.raises(NodeStartError, match="turned off"):
            hive.pull("a")


def test_other_kernels_and_servers_take_no_values(runtime):
    with HiveManager(sandbox="open", connect_timeout=60) as hive:
        hive.add("stock", kernel="python3")
        hive.add("server", mcp=["cat"])
        with pytest.raises(TransferError, match="takes values"):
            hive.push(a=1, worker="stock")
        with pytest.raises(ConfigError, match="no variables"):
            hive.pull("a", worker="server")


# --- as any run ---


# What a worker does while it takes a value apart, in the place of its own code.
INSTEAD = """
import os, time, hive_jupyter.transfer as transfer
x, pack = 1, transfer.pack
def instead(*_, **__):
    {}
transfer.pack = instead
"""


def test_a_value_that_does_not_come_in_time_is_given_up(hive):
    hive.delegate(INSTEAD.format("time.sleep(60)"))
    with pytest.raises(NodeTimeout, match="transfer had"):
        hive.pull("x", timeout=0.3)
    hive.delegate("transfer.pack = pack")

    assert {"x": 1} == hive.pull("x")


def test_a_transfer_can_be_interrupted(hive):
    hive.delegate(INSTEAD.format("print('begun', flush=True)\n    time.sleep(60)"))
    delegation = hive.begin_pull(["x"])
    next(iter(delegation))
    delegation.interrupt()
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()
    hive.delegate("transfer.pack = pack")

    assert "KeyboardInterrupt" == caught.value.ename
    assert {"x": 1} == hive.pull("x")


def test_the_putting_together_of_values_can_be_interrupted(hive, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    unpack = values_module.transfer.unpack

    def slow(*arguments, **options):
        begun.set()
        may_end.wait(60)
        return unpack(*arguments, **options)

    monkeypatch.setattr(values_module.transfer, "unpack", slow)
    hive.delegate("x = 1")
    delegation = hive.begin_pull(["x"])
    assert begun.wait(30)
    delegation.interrupt()
    try:
        with pytest.raises(RemoteError) as caught:
            delegation.outcome()
        assert not may_end.is_set()
    finally:
        may_end.set()

    assert "KeyboardInterrupt" == caught.value.ename


def test_a_worker_that_dies_while_it_hands_over_is_told(hive):
    hive.delegate(INSTEAD.format("os._exit(3)"))
    with pytest.raises(NodeDied, match="exit code 3"):
        hive.pull("x")
    hive.push(x=2)

    assert {"x": 2} == hive.pull("x")


def test_what_takes_long_is_spoken_of(hive, monkeypatch, tmp_path):
    """The worker waits until it was."""
    monkeypatch.setattr(values_module, "PROGRESS_AFTER", 0.1)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hive.delegate(INSTEAD.format(f"open({str(gate)!r}).close()\n    return pack({{'x': 1}})"))
    messages = iter(hive.begin_pull(["x"]))
    first = next(messages)
    gate.open("w").close()
    *_, last = messages
    hive.delegate("transfer.pack = pack")

    assert first.content["text"].startswith('pull x, worker "coder" ... ')
    assert "" == last.content["text"]


def test_the_history_tells_of_transfers(hive):
    hive.push(one=1, two=2)
    hive.pull("one")

    assert [("push one, two", "ok"), ("pull one", "ok")] == [
        (run.code, run.status) for run in hive.history()[-2:]
    ]


# --- a worker that lies ---

# The worker answers by hand, with what it says of x and with the parts that it sends.
FORGED = """
import json, os
kernel = get_ipython().kernel
async def forged(stream, ident, parent):
    told, parts = {}
    kernel.session.send(
        stream, "pull_reply", {{"status": "ok", **told}}, parent, ident=ident, buffers=parts
    )
kernel.shell_handlers["pull_request"] = forged
"""


def values(told, *sizes):
    return {"values": {"sizes": [*sizes], "values": {"x": told}}}


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        (values(["array", "<f8", [10**12], None, 0], 8 * 10**12), "[bytes(8)]"),
        (values(["array", "<f8", [1], None, 0], 8), "[bytes(8)] * 3"),
        (values(["array", "|O", [1], None, 0], 8), "[bytes(16)]"),
        (values(["array", "<f8", [1], None, 0], 8), "[]"),
        ({"values": {"sizes": [], "values": {"y": 1}}}, "[]"),
        ({"values": {"sizes": [], "values": {"x": 1, "y": 1}}}, "[]"),
        ({"values": "x"}, "[]"),
        ({"missing": 5}, "[]"),
        ({}, "[]"),
    ],
)
def test_a_worker_that_lies_gets_a_transfer_error_and_no_more(confined, told, parts):
    confined.delegate(FORGED.format(f"({told!r}, {parts})"))
    with pytest.raises(TransferError, match='worker "coder"|Worker "coder"'):
        confined.pull("x")

    assert "2" == value_of(confined, "1 + 1")


def test_what_a_worker_gives_as_its_reason_is_shown_as_text(confined):
    reason = {"refused": "\033[2J" + "x" * 10_000}
    confined.delegate(FORGED.format(f"({reason!r}, [])"))
    with pytest.raises(TransferError) as caught:
        confined.pull("x")

    assert "\033" not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_a_pickle_that_nobody_asked_for_is_not_opened(runtime, tmp_path, allow_pickle):
    mark = tmp_path / "ran"
    pickle = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    told = values(["pickle", describing.PYTHON, 0], len(pickle))
    parts = f"[{pickle!r} + bytes({-len(pickle) % 16})]"
    with HiveManager(sandbox="open", connect_timeout=60) as hive:
        hive.delegate(FORGED.format(f"({told!r}, {parts})"))
        if allow_pickle:
            hive.pull("x", allow_pickle=True)
        else:
            with pytest.raises(TransferError, match="not opened"):
                hive.pull("x")

    assert allow_pickle == mark.exists()


# --- memory ---


def test_memory_is_freed_when_the_last_user_lets_go(hive):
    hive.delegate("import numpy as np")
    gc.disable()
    try:
        process = psutil.Process()
        before = process.memory_info().rss
        for _ in range(3):
            hive.push(a=np.ones(100 * MEGABYTE, np.uint8))
            hive.pull("a")
        wait_until(lambda: process.memory_info().rss < before + 60 * MEGABYTE)
    finally:
        gc.enable()


def test_memory_is_freed_when_the_worker_is_killed(hive):
    """One that is stopped takes no more than the socket holds; the rest waits here."""
    array = np.ones(100 * MEGABYTE, np.uint8)
    kept = weakref.ref(array)
    worker = hive.start().pid
    stopped(worker)
    pushing = hive.begin_push({"a": array})
    del array
    wait_until(lambda: hive.swarm_status()["workers"]["coder"]["state"] == "busy")
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(NodeDied):
        pushing.outcome()
    del pushing

    wait_until(lambda: kept() is None)


# --- the magics ---


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        played = front_end.play(
            "%load_ext hive_jupyter\nfrom hive_jupyter.swarm import life, values\n"
            "life.PROGRESS_AFTER = values.PROGRESS_AFTER = 1000\nimport numpy as np"
        )
        assert "ok" == played.reply["status"]
        yield front_end


def test_a_cell_takes_variables_and_leaves_some(notebook):
    notebook.play("data, factor = np.arange(5), 3")
    played = notebook.play(
        "%%delegate --push data,factor --pull total,squares\n"
        "total = int((factor * data).sum())\nsquares = data ** 2\nprint('done')"
    )
    shown = notebook.play("total, squares.tolist()")

    assert ("ok", [("stdout", "done\n")]) == (played.reply["status"], played.order)
    assert [("execute_result", "(30, [0, 1, 4, 9, 16])")] == shown.order


def test_nothing_is_bound_after_a_cell_that_fails(notebook):
    notebook.play("kept = 'as it was'")
    failed = notebook.play("%%delegate --pull kept\nkept = 1\nraise ValueError('no')")
    absent = notebook.play("%%delegate --pull kept,absent\nkept = 1")
    shown = notebook.play("kept")

    assert ["ValueError", "TransferError"] == [failed.reply["ename"], absent.reply["ename"]]
    assert [("execute_result", "'as it was'")] == shown.order


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--push absent", 'there is no variable "absent"'),
        ("--push data,", "cannot be the name"),
        ("--push data, more", "joined by commas, without spaces"),
        ("--pull 1x", "cannot be the name"),
        ("--pull x --allow-pickle", "confined"),
    ],
)
def test_what_cannot_be_asked_runs_nothing(notebook, line, said):
    notebook.play("data = 1")
    played = notebook.play(f"%%delegate {line}\nopen('it ran', 'w')")

    assert "error" == played.reply["status"]
    assert said in played.reply["evalue"] + played.stream("stderr")
    assert not (notebook.folder / "it ran").exists()


def test_who_misspells_a_variable_is_told_their_own(notebook):
    notebook.play("data = 1")
    played = notebook.play("%delegate --push xyz 1")

    said = played.reply["evalue"]
    assert "data" in said
    assert "get_ipython" not in said


def test_a_tool_takes_no_variables(notebook):
    played = notebook.play("%delegate --push data ping")

    assert "goes with code" in played.reply["evalue"] + played.stream("stderr")


def test_instructions_show_the_cell_and_not_its_transfer(runtime, shell):
    shell.run_line_magic("load_ext", "hive_jupyter")
    shell.run_line_magic("hive", "config direct=0")
    shell.user_ns["data"] = 1
    try:
        shell.run_cell_magic("delegate", "--push data -o said", "print(data)")
        said = shell.user_ns["said"]
    finally:
        shell.run_line_magic("unload_ext", "hive_jupyter")

    assert isinstance(said, Instructions)
    assert "print(data)" in said.task
