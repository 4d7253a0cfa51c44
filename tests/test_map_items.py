"""What a worker says of its items, and what of it is believed."""

import json
import os
import sys
import threading
import time

import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import HiveError, NodeDied, TransferError
from hive_jupyter.protocol import JOURNAL, JOURNAL_HEAD, JOURNAL_LENGTH
from hive_jupyter.swarm.items import Chunk, Function, Task
from hive_jupyter.swarm.messages import Message, ignore
from hive_jupyter.swarm.staff import allowed, overdue
from hive_jupyter.transfer import describing
from hive_jupyter.units import parse_size

VALUE = {"sizes": [], "values": {"result": 1}}
ENTRY = ["value", VALUE, 0]


@pytest.fixture
async def chunk():
    function = Function.of(abs)
    tasks = [Task(n, n, function, id) for n in range(3)]
    for task in tasks:
        task.pack(None)
    return Chunk(tasks, seconds=1.0, sends_function=True, pickles=False, limit=10**6, sink=ignore)


def reply(*parts, **content):
    told = {"results": [], "stopped": None, "seconds": 0.1, "status": "ok", **content}
    return Message("map_reply", told, buffers=parts)


# --- replies ---


async def test_a_reply_tells_what_came_of_the_first_items(chunk):
    report = chunk.report(reply(b"x", results=[ENTRY, ["value", VALUE, 1]]))

    assert [1, 1] == [outcome.body["values"]["result"] for outcome in report.outcomes]
    assert (None, 0.1) == (report.running, report.seconds)


@pytest.mark.parametrize(
    "told",
    [
        reply(),
        reply(results=[ENTRY] * 4),
        reply(results=ENTRY),
        reply(results={"0": ENTRY}),
        reply(results=None),
        reply(results=[["value", VALUE, 1]]),
        reply(results=[["value", VALUE, -1]]),
        reply(results=[["value", VALUE, "1"]]),
        reply(results=[["value", VALUE]]),
        reply(results=[["secret", VALUE, 0]]),
        reply(results=[["error", ["E", "text", "line", 3], 0]]),
        reply(results=[["error", ["E", 5, []], 0]]),
        reply(results=[["error", ["E", "text", [None]], 0]]),
        reply(results=[["error", 5, 0]]),
        reply(b"more", results=[ENTRY]),
        reply(results=[ENTRY], stopped=1),
        reply(results=[ENTRY], stopped="x"),
        reply(results=[], stopped=0),
        reply(unknown=True),
        Message("map_reply", {"status": "ok"}),
        Message("map_reply", {"status": "ok", "results": [ENTRY], "stopped": None}),
        Message("map_reply", reply(results=[ENTRY]).content, size=10**9),
    ],
)
async def test_a_reply_that_makes_no_sense_is_refused(chunk, told):
    with pytest.raises(TransferError):
        chunk.report(told)


async def test_one_that_was_to_give_back_its_items_may_have_begun_none(chunk):
    """It hears of it in the moment in which it would begin."""
    chunk.is_asked_back = True
    report = chunk.report(reply())
    assert ((), None) == (tuple(report.outcomes), report.running)


async def test_one_that_was_to_stop_may_have_done_nothing(chunk):
    chunk.stop()

    assert ((), None) == (tuple(chunk.report(reply()).outcomes), chunk.report(reply()).running)
    assert 1 == chunk.report(reply(results=[ENTRY], stopped=1)).running


async def test_a_time_that_cannot_be_is_no_time(chunk):
    report = chunk.report(reply(results=[ENTRY], seconds="long"))

    assert report.seconds != report.seconds


# --- files ---


def record(*told, parts=b""):
    line = json.dumps(told).encode()
    return JOURNAL_LENGTH.pack(len(line)) + line + parts


def leave(folder, chunk, running, *records, number=None):
    head = JOURNAL_HEAD.pack(chunk.number if number is None else number, running, 1.0)
    (folder / f"{JOURNAL}0").write_bytes(head + b"".join(records))
    return chunk.left(folder)


FIRST = record(0, "value", VALUE, [])
SECOND = record(1, "value", VALUE, [3], parts=b"abc")


async def test_a_file_tells_what_ended_and_what_ran(chunk, tmp_path):
    report = leave(tmp_path, chunk, 2, FIRST, SECOND)

    assert (2, 2) == (len(report.outcomes), report.running)
    assert [b"abc"] == [*map(bytes, report.outcomes[1].buffers)]


async def test_one_that_died_between_two_items_had_none(chunk, tmp_path):
    report = leave(tmp_path, chunk, 0, FIRST)

    assert (1, None) == (len(report.outcomes), report.running)


async def test_what_is_cut_off_is_no_result(chunk, tmp_path):
    for cut in range(1, len(SECOND)):
        report = leave(tmp_path, chunk, 1, FIRST, SECOND[:-cut])
        assert (1, 1) == (len(report.outcomes), report.running)


async def test_where_nothing_began_there_is_nothing(chunk, tmp_path):
    assert 0 == len(chunk.left(tmp_path).outcomes)
    report = leave(tmp_path, chunk, 1, FIRST, number=chunk.number + 1)
    assert (0, None) == (len(report.outcomes), report.running)


@pytest.mark.parametrize(
    ("running", "records"),
    [
        (0, [FIRST, SECOND]),
        (2, [FIRST]),
        (-1, []),
        (3, [FIRST, SECOND, record(2, "value", VALUE, [])]),
        (2**62, [FIRST]),
        (1, [SECOND]),
        (1, [FIRST, FIRST]),
        (1, [record(0, "value", VALUE)]),
        (1, [record(0, "value", VALUE, [-1])]),
        (1, [record(0, "value", VALUE, ["a"])]),
        (1, [record(0, "what", VALUE, [])]),
        (1, [JOURNAL_LENGTH.pack(3) + b"[0,"]),
        (1, [JOURNAL_LENGTH.pack(200_000) + b"[" * 200_000]),
    ],
)
async def test_a_file_that_makes_no_sense_is_refused(chunk, tmp_path, running, records):
    with pytest.raises(TransferError):
        leave(tmp_path, chunk, running, *records)


@pytest.mark.parametrize("size", [b"0", b"1"])
async def test_a_file_brings_no_more_parts_than_a_reply_can(chunk, tmp_path, size):
    """Each of them costs the host a hundred times what it costs the worker."""
    count = 100_000
    line = b'[0,"value",1,[' + b",".join([size] * count) + b"]]"
    first = JOURNAL_LENGTH.pack(len(line)) + line + bytes(int(size) * count)

    with pytest.raises(TransferError):
        leave(tmp_path, chunk, 1, first)


@pytest.mark.parametrize("running", [-1, 3, 2**62])
async def test_an_item_that_a_chunk_does_not_have_has_not_begun(chunk, tmp_path, running):
    leave(tmp_path, chunk, 1, FIRST)
    assert (1, 1.0) == chunk.began(tmp_path)
    (tmp_path / f"{JOURNAL}0").write_bytes(JOURNAL_HEAD.pack(chunk.number, running, 1.0))

    assert chunk.began(tmp_path) is None


async def test_what_is_no_file_is_not_read(chunk, tmp_path):
    os.mkfifo(tmp_path / f"{JOURNAL}0")
    assert 0 == len(chunk.left(tmp_path).outcomes)
    os.unlink(tmp_path / f"{JOURNAL}0")
    secret = tmp_path / "secret"
    secret.write_bytes(JOURNAL_HEAD.pack(chunk.number, 1, 1.0) + FIRST)
    (tmp_path / f"{JOURNAL}0").symlink_to(secret)
    assert 0 == len(chunk.left(tmp_path).outcomes)


# --- staff ---


def test_those_who_were_idle_for_long_are_told_with_the_time_of_the_next():
    idle = [("a", 0.0), ("b", 5.0), ("c", 8.0)]

    assert (["a"], 5.0) == overdue(idle, 10.0, 10.0)
    assert (["a", "b", "c"], None) == overdue(idle, 18.0, 10.0)
    assert ([], None) == overdue([], 18.0, 10.0)


@pytest.mark.parametrize(
    ("options", "workers", "each"),
    [
        ({}, 8, None),
        ({"most": 10, "others": 5}, 5, None),
        ({"budget": "4G"}, 8, "512M"),
        ({"budget": "4G", "used": parse_size("2G")}, 8, "256M"),
        ({"budget": "512M"}, 2, "256M"),
    ],
)
def test_a_pool_gets_what_is_left(options, workers, each):
    with HiveManager() as hive:
        policy = hive.config.policy()
    given = {"most": 100, "others": 0, "used": 0, "budget": None, **options}
    given["budget"] = given["budget"] and parse_size(given["budget"])
    allowance = allowed(8, policy, **given)

    assert (workers, each and parse_size(each)) == (allowance.workers, allowance.policy.memory)
    assert bool(allowance.note) == (workers < 8)


# --- a worker that lies ---

FORGED = """
def forge(_):
    import gc, os, struct
    from IPython import get_ipython
    kernel = get_ipython().kernel
    async def forged(stream, ident, parent):
        told, parts = {}
        kernel.session.send(
            stream, "map_reply", {{"status": "ok", **told}}, parent, ident=ident, buffers=parts
        )
    kernel.shell_handlers["map_request"] = forged
    return 0
"""


def lie(hive, told, parts="[]", items=(1, 2)):
    """The results of items whose worker answers by hand."""
    names = {"__name__": "__main__"}
    exec(FORGED.format(f"({told!r}, {parts})"), names)
    with hive.map(names["forge"], iter([0, *items]), workers=1, return_exceptions=True) as results:
        return list(results)


@pytest.fixture
def patient(runtime):
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive


def told(*results, **more):
    return {"results": [*results], "stopped": None, "seconds": 0.1, **more}


def value(described, *sizes, count=0):
    return ["value", {"sizes": [*sizes], "values": {"result": described}}, count]


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        (told(), "[]"),
        (told(*[value(1)] * 100), "[]"),
        (told(value(1), value(2), stopped=0), "[]"),
        (told(value(1, count=1)), "[]"),
        (told(value(1)), "[b'more']"),
        ({}, "[]"),
    ],
)
def test_a_worker_that_forges_replies_is_told_and_ended(patient, answer, parts):
    first, error = lie(patient, answer, parts, items=[1])

    assert 0 == first
    assert isinstance(error, TransferError)
    assert "cannot be taken" in str(error)
    assert [1, 2] == list(patient.map(abs, [-1, -2], workers=1))


@pytest.mark.parametrize(
    ("described", "sizes", "parts"),
    [
        (["array", "<f8", [10**12], None, 0], [8 * 10**12], "[bytes(8)]"),
        (["array", "|O", [1], None, 0], [8], "[bytes(16)]"),
        (["secret"], [], "[]"),
        (["pickle", describing.PYTHON, 0], [16], "[bytes(16)]"),
    ],
)
def test_a_value_that_is_a_lie_is_the_error_of_its_item(patient, described, sizes, parts):
    count = 0 if parts == "[]" else 1
    answer = told(value(described, *sizes, count=count))
    _, *errors = lie(patient, answer, parts)

    assert {TransferError} == {type(error) for error in errors}


def test_a_confined_workers_pickle_is_never_opened(patient, tmp_path):
    mark = tmp_path / "ran"
    pickle = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    described = value(["pickle", describing.PYTHON, 0], len(pickle), count=1)
    lie(patient, told(described), f"[{pickle!r} + bytes({-len(pickle) % 16})]")

    assert not mark.exists()


def test_an_exception_shows_as_text(patient):
    error = ["error", ["Bad\033[2J", "text\033]0;title\007", ["line\033[2J"]], 0]
    _, first, _ = lie(patient, told(error))

    shown = "".join([str(first), first.ename, *first.traceback])
    assert "\033" not in shown


def test_a_worker_that_refuses_for_ever_is_given_up(patient):
    # with a second item, that one may be left for an honest worker
    _, error = lie(patient, {"unknown": True}, items=[1])

    assert isinstance(error, TransferError)
    assert "does not have the function, which came" in str(error)


def test_a_file_that_was_forged_before_a_death_is_told(patient):
    def forge(number):
        import glob

        if number == 3:
            for folder in glob.glob("/proc/self/fd/*"):
                path = os.path.realpath(folder)
                if "/items" in path:
                    with open(path, "r+b") as file:
                        head = file.read(24)
                        file.write(b"\4\0\0\0[0,[")
                        assert head
            os._exit(1)
        return number

    results = list(patient.map(forge, range(6), workers=1, return_exceptions=True))

    assert 6 == len(results)
    assert all(
        isinstance(result, NodeDied | TransferError) or result in range(6) for result in results
    )
    assert isinstance(results[3], NodeDied | TransferError)


def test_a_worker_cannot_gain_time_for_ever(patient):
    """It says of each look that the next item has just begun; there are only so many."""

    def stall(number):
        import glob
        import struct

        if number == 1:
            (path,) = {
                path
                for each in glob.glob("/proc/self/fd/*")
                if (path := os.path.realpath(each)).rpartition("/")[2].startswith("items")
            }
            with open(path, "r+b", buffering=0) as file:
                nonce, _, _ = struct.unpack("<qqd", file.read(24))
                while True:
                    file.seek(0)
                    file.write(struct.pack("<qqd", nonce, 1, time.monotonic()))
        return number

    results = list(patient.map(stall, range(3), workers=1, timeout=0.2, return_exceptions=True))

    assert [0, 2] == [results[0], results[2]]
    assert isinstance(results[1], HiveError)


def test_a_worker_that_refuses_in_turn_is_given_up(patient):
    """Of two chunks that it has, the second one is not the first; and then the other one is not."""

    def forge(_):
        import asyncio

        from IPython import get_ipython

        kernel = get_ipython().kernel

        async def forged(stream, ident, parent):
            await asyncio.sleep(0.05)
            content = {"status": "ok", "unknown": True}
            kernel.session.send(stream, "map_reply", content, parent, ident=ident)

        kernel.shell_handlers["map_request"] = forged
        return 0

    items = iter([0, 1, 2])
    with patient.map(forge, items, workers=1, return_exceptions=True) as results:
        assert 0 == next(results)
        late = threading.Timer(20, results.cancel)
        late.start()
        errors = list(results)
        late.cancel()

    assert [TransferError] * 2 == [*map(type, errors)]


def test_a_worker_that_never_says_that_it_began_has_no_more_time(runtime):
    def forge(_):
        import asyncio

        from IPython import get_ipython

        kernel = get_ipython().kernel
        send = kernel.session.send

        def forged(stream, kind, *arguments, **options):
            if kind != "status" or "busy" not in [*arguments[0].values()]:
                send(stream, kind, *arguments, **options)

        async def silent(*_):
            await asyncio.sleep(1000)

        kernel.session.send = forged
        kernel.shell_handlers["map_request"] = silent
        return 0

    options = {"workers": 1, "timeout": 0.5, "return_exceptions": True}
    with (
        HiveManager(interrupt_grace=0.2, connect_timeout=60) as hive,
        hive.map(forge, iter([0, 1]), **options) as results,
    ):
        late = threading.Timer(30, results.cancel)
        late.start()
        ended = list(results)
        late.cancel()

    assert 2 == len(ended)


def prints(_):
    print("said")


def writes_without_an_end(_):
    sys.stderr.write("said")


def writes_to_the_descriptor(_):
    os.write(1, b"said")


def shows(_):
    from IPython.display import display

    display("said")


@pytest.mark.parametrize(
    ("function", "silent"),
    [
        (abs, True),
        (prints, False),
        (writes_without_an_end, False),
        (writes_to_the_descriptor, False),
        (shows, False),
    ],
)
def test_a_reply_says_that_nothing_was_published_where_that_is_so(
    patient, monkeypatch, function, silent
):
    """Else the map would be over before all was heard."""
    told = []
    take = Chunk.take_reply

    def note(chunk, message):
        told.append(message.content["silent"])
        take(chunk, message)

    monkeypatch.setattr(Chunk, "take_reply", note)
    list(patient.map(function, [1], workers=1))

    assert [silent] == told


def test_an_item_that_takes_the_descriptor_of_its_file_loses_nothing(patient, tmp_path):
    """The file is opened again, and what the item opened in its place stays what it is."""
    mine = tmp_path / "mine"

    def take(number):
        import glob

        if number == 1:
            for each in glob.glob("/proc/self/fd/*"):
                if os.path.basename(os.path.realpath(each)).startswith("items"):
                    own = os.open(mine, os.O_RDWR | os.O_CREAT)
                    os.write(own, b"mine")
                    os.dup2(own, int(os.path.basename(each)))
        if number == 4:
            os._exit(1)
        return number

    options = {"workers": 1, "sandbox": "open", "return_exceptions": True}
    results = list(patient.map(take, range(6), **options))

    assert [0, 1, 2, 3, 5] == [result for result in results if isinstance(result, int)]
    assert isinstance(results[4], NodeDied)
    assert b"mine" == mine.read_bytes()
