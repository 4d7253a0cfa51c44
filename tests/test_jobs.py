"""Jobs: runs that nobody waits for, in real workers."""

import asyncio
import concurrent.futures
import os
import signal
import threading

import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import ConfigError, NodeDied, NodeTimeout, RemoteError, TransferError
from hive_jupyter.swarm.fallback import Instructions
from tests.processes import wait_until

FOR_EVER = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"


@pytest.fixture(scope="module")
def shared():
    with HiveManager(sandbox="open") as hive:
        yield hive


@pytest.fixture
def hive(shared):
    """A hive in which no job is left."""
    yield shared
    jobs = list(shared.jobs)
    for job in jobs:
        job.cancel()
    assert not concurrent.futures.wait(jobs, 60).not_done


def begun(job):
    wait_until(lambda: "begun" in job.stdout)
    return job


def test_what_a_job_leaves_is_there_when_it_is_over(hive):
    job = hive.submit("print('said')\n6 * 7")

    result = job.result(60)

    assert ("ok", "42", "said\n") == (result.status, result.value_repr, result.stdout)
    assert ("ok", "said\n") == (job.state, job.stdout)
    assert "said\n42\n" == job.text
    assert "said\n6 * 7" not in repr(job)
    assert f"Job {job.id} ok" in repr(job)


def test_jobs_of_one_worker_run_in_the_order_in_which_they_were_asked_for(hive):
    hive.delegate("order = []")
    jobs = [hive.submit(f"order.append({number})\nlist(order)") for number in range(5)]

    assert not concurrent.futures.wait(jobs, 60).not_done
    assert "[0, 1, 2, 3, 4]" == jobs[-1].result().value_repr


def test_a_job_waits_while_another_runs_and_says_so(hive):
    first = begun(hive.submit(FOR_EVER))
    second = hive.submit("1")

    assert ("running", "queued") == (first.state, second.state)
    assert first.running()
    assert not second.running()
    with pytest.raises(TimeoutError):
        second.result(0)
    assert not second.wait(0)

    assert first.cancel()
    assert "1" == second.result(60).value_repr
    assert "cancelled" == first.state


def test_a_job_that_waits_is_cancelled_without_ever_having_run(hive):
    hive.delegate("ran = False")
    first = begun(hive.submit(FOR_EVER))
    second = hive.submit("ran = True")

    assert second.cancel()
    assert second.wait(60)
    assert second.cancelled()
    assert not second.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        second.result()

    first.cancel()
    assert "False" == hive.delegate("ran").value_repr


def test_who_stops_a_job_lets_it_clean_up(hive):
    job = begun(hive.submit(f"try:\n    exec({FOR_EVER!r})\nfinally:\n    print('clean')"))
    job.cancel()
    assert job.wait(60)
    assert "begun\nclean\n" == job.stdout


def test_to_cancel_a_job_again_takes_no_time_from_it(hive, tmp_path):
    """Two who await it and are cancelled do so, for one."""
    cleans = (
        "import pathlib\n"
        f"try:\n    exec({FOR_EVER!r})\n"
        "finally:\n    print('cleaning', flush=True)\n"
        f"    while not pathlib.Path({str(tmp_path / 'go on')!r}).exists(): time.sleep(0.01)\n"
        "    print('clean')"
    )
    hive.delegate("kept = 5")
    job = begun(hive.submit(cleans))
    assert job.cancel()
    wait_until(lambda: "cleaning" in job.stdout)

    assert job.cancel()
    (tmp_path / "go on").touch()
    assert job.wait(60)
    assert "begun\ncleaning\nclean\n" == job.stdout
    assert "5" == hive.delegate("kept").value_repr


def test_an_exception_is_raised_by_result_as_by_any_call(hive):
    job = hive.submit("1 / 0")

    with pytest.raises(ZeroDivisionError) as raised:
        job.result(60)
    assert "error" == job.state
    assert raised.value is job.exception()


def test_a_job_may_be_over_before_anybody_can_wait_for_it(hive, monkeypatch):
    add, heard = hive.jobs.add, []

    def add_late(code, delegation):
        concurrent.futures.wait([delegation.future], 60)
        return add(code, delegation)

    monkeypatch.setattr(hive.jobs, "add", add_late)
    job = hive.submit("1 / 0", sink=heard.append)

    assert job.done()
    assert "error" == job.state
    wait_until(lambda: heard and heard[-1].type == "error")


def test_a_job_that_takes_its_worker_along_says_what_of(hive):
    heard = []
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    job = hive.submit(kill, sink=heard.append)

    with pytest.raises(NodeDied, match="SIGKILL"):
        job.result(60)
    assert "died" == job.state
    wait_until(lambda: heard and heard[-1].type == "error")
    lines = "\n".join(heard[-1].content["traceback"]).split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert "1" == hive.submit("1").result(60).value_repr


def test_a_jobs_time_begins_with_its_turn(hive):
    first = begun(hive.submit(FOR_EVER))
    second = hive.submit(FOR_EVER, timeout=0.2)
    assert not second.wait(0.4)
    first.cancel()

    with pytest.raises(NodeTimeout):
        second.result(60)
    assert "timeout" == second.state


def test_the_last_line_is_how_far_a_job_is(hive):
    job = hive.submit("print('a\\nb')\nprint('\\r10%', end='\\r50% half')\nprint('\\n')")
    job.result(60)
    assert "50% half" == job.progress


def test_a_job_is_awaited_like_any_future(hive):
    async def both():
        first, second = hive.submit("1"), hive.submit("1 / 0")
        assert "1" == (await first).value_repr
        with pytest.raises(ZeroDivisionError):
            await second
        return await asyncio.gather(hive.submit("2"), asyncio.wrap_future(hive.submit("3")))

    assert ["2", "3"] == [result.value_repr for result in asyncio.run(both())]


def test_who_is_cancelled_while_it_awaits_a_job_stops_it(hive):
    job = begun(hive.submit(FOR_EVER))

    async def impatient():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 0.1)

    asyncio.run(impatient())
    assert job.wait(60)
    assert "cancelled" == job.state


def test_jobs_are_futures_to_those_who_wait_for_the_first(hive):
    slow = begun(hive.submit(FOR_EVER, worker="slow"))
    quick = hive.submit("1", worker="quick")

    done, left = concurrent.futures.wait(
        [slow, quick], 60, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert ({quick}, {slow}) == (done, left)
    called = threading.Event()
    slow.add_done_callback(lambda _: called.set())
    slow.cancel()
    assert [slow] == list(concurrent.futures.as_completed([slow], 60))
    assert called.wait(60)


def test_values_are_given_as_they_were_when_the_job_was_asked_for(hive):
    first = begun(hive.submit(FOR_EVER))
    values, jobs = [0], []
    for number in range(3):
        values[0] = number
        jobs.append(hive.submit("values", values={"values": values}))
    first.cancel()

    assert ["[0]", "[1]", "[2]"] == [job.result(60).value_repr for job in jobs]


def test_a_value_that_cannot_be_moved_is_told_at_once(hive):
    before = len(list(hive.jobs))
    with pytest.raises(TransferError, match="lines"):
        hive.submit("1", values={"lines": (line for line in "ab")})
    with pytest.raises(ConfigError, match="name"):
        hive.submit("1", values={"not a name": 1})
    assert len(list(hive.jobs)) == before


def test_what_a_job_says_is_handed_on_in_order_and_its_error_last(hive):
    heard = []
    job = hive.submit("print(1)\ndisplay(2)\nprint(3)\n1 / 0", sink=heard.append)
    job.wait(60)
    wait_until(lambda: heard and heard[-1].type == "error")

    said = [
        message.content.get("text") or message.content.get("data")
        for message in heard
        if message.type != "progress"
    ]
    assert ["1\n", {"text/plain": "2"}, "3\n"] == said[:-1]
    assert "ZeroDivisionError" == heard[-1].content["ename"]


def test_a_flood_is_handed_on_whole(hive):
    """However slowly: the worker waits, and nothing is left out."""
    heard, lines = [], 10_000
    code = f"""
for n in range({lines}):
    print(n, flush=True)
    if n % 50 == 0:
        display(n)"""
    hive.submit(code, sink=heard.append).result(120)
    wait_until(lambda: sum(m.content.get("text", "").count("\n") for m in heard) == lines, 60)

    text = "".join(m.content["text"] for m in heard if m.type == "stream")
    assert "".join(f"{n}\n" for n in range(lines)) == text
    assert lines // 50 == sum(message.type == "display_data" for message in heard)


# Beside what runs


def test_a_concurrent_run_sees_what_the_job_does(hive):
    job = begun(hive.submit(f"seen = 0\n{FOR_EVER.replace('time.sleep', 'seen += 1; time.sleep')}"))

    beside = hive.begin("print('beside')\nseen > 0", concurrent=True).outcome()

    assert ("beside\n", "True") == (beside.stdout, beside.value_repr)
    assert "begun\n" == job.stdout
    assert "running" == job.state


def test_concurrent_jobs_run_side_by_side_and_are_stopped_one_by_one(hive):
    jobs = [begun(hive.submit(f"a = {n}\n{FOR_EVER}", concurrent=True)) for n in range(3)]
    assert ["running"] * 3 == [job.state for job in jobs]

    jobs[1].cancel()
    assert jobs[1].wait(60)
    assert ["running", "cancelled", "running"] == [job.state for job in jobs]
    assert "2" == hive.delegate("1 + 1").value_repr


def test_a_concurrent_job_cleans_up_when_it_is_stopped(hive):
    job = begun(
        hive.submit(f"try:\n    exec({FOR_EVER!r})\nfinally:\n    print('clean')", concurrent=True)
    )
    job.cancel()
    assert job.wait(60)
    assert "begun\nclean\n" == job.stdout


def test_a_concurrent_job_has_its_time(hive):
    job = hive.submit(FOR_EVER, concurrent=True, timeout=0.2)
    with pytest.raises(NodeTimeout):
        job.result(60)
    assert "2" == hive.delegate("1 + 1").value_repr


def test_an_interrupt_of_the_worker_stops_all_that_runs_in_it(hive):
    jobs = [begun(hive.submit(FOR_EVER)), begun(hive.submit(FOR_EVER, concurrent=True))]
    assert hive.interrupt()
    for job in jobs:
        with pytest.raises(RemoteError) as raised:
            job.result(60)
        assert "KeyboardInterrupt" == raised.value.ename
    assert not hive.interrupt()


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_values_come_to_a_concurrent_job_too(hive, size):
    begun(hive.submit(FOR_EVER))
    job = hive.submit("len(given)", values={"given": bytes(size)}, concurrent=True)
    assert str(size) == job.result(60).value_repr


def test_a_worker_that_dies_ends_all_that_runs_in_it_and_counts_as_one_failure(hive):
    first = begun(hive.submit(FOR_EVER, worker="dying"))
    second = hive.submit("import os\nos._exit(3)", worker="dying", concurrent=True)
    for job in (first, second):
        with pytest.raises(NodeDied):
            job.result(60)
    assert 1 == hive.swarm_status()["workers"]["dying"]["failures"]
    assert "2" == hive.delegate("1 + 1", worker="dying").value_repr


def test_who_waits_beside_a_worker_that_breaks_the_protocol_is_told_so(hive):
    forged = """
kernel = get_ipython().kernel
async def forged(stream, ident, parent):
    kernel.session.send(kernel.iopub_socket, "stream", {"name": 5}, parent=parent)
kernel.control_handlers["create_subshell_request"] = forged
"""
    liar = begun(hive.submit(forged + FOR_EVER, worker="liar", sandbox="workspace"))
    beside = hive.submit("1", worker="liar", sandbox="workspace", concurrent=True)

    assert liar.wait(60)
    assert beside.wait(60)
    assert ["died", "died"] == [liar.state, beside.state]


HOLDS_THE_INTERPRETER = "print('begun', flush=True)\nimport re\nre.match('(a|a)*$', 'a' * 60 + 'b')"


@pytest.mark.parametrize("end", ["waits", "is stopped", "dies"])
def test_who_runs_beside_what_holds_the_interpreter_does_not_hang(runtime, end):
    with HiveManager(sandbox="open", interrupt_grace=0.2) as hive:
        job = begun(hive.submit(HOLDS_THE_INTERPRETER))
        hive.config.connect_timeout = 2
        beside = hive.submit("1", concurrent=True)
        assert not beside.wait(0.1)
        if end == "is stopped":
            beside.cancel()
        elif end == "dies":
            os.kill(hive.swarm_status()["workers"]["coder"]["pid"], signal.SIGKILL)
        assert beside.wait(30)

        expected = {"waits": "timeout", "is stopped": "cancelled", "dies": "died"}
        assert expected[end] == beside.state
        if end != "dies":
            assert "running" == job.state


def test_runs_side_by_side_do_not_mix_up_what_they_show(hive):
    """One that fails while the other's value is on its way, again and again."""
    shown = """
class Slow:
    def __repr__(self):
        {}
        return "shown"
import time
Slow()"""
    hive.delegate("import threading\nshowing, failed = threading.Event(), threading.Event()")
    for _ in range(5):
        hive.delegate("showing.clear(); failed.clear()")
        beside = hive.submit(shown.format("showing.set(); failed.wait(30)"), concurrent=True)
        with pytest.raises(ZeroDivisionError):
            hive.delegate("showing.wait(30)\n1 / 0")
        hive.delegate("failed.set()")
        assert "shown" == beside.result(60).value_repr


def test_a_job_that_nobody_knows_is_told_of(hive):
    job = hive.submit("1")
    assert job is hive.jobs.get(job.id) is hive.jobs.get(int(job.id))
    with pytest.raises(ConfigError, match='no job "999"'):
        hive.jobs.get("999")


def test_jobs_that_are_over_are_forgotten_in_time(hive):
    for _ in range(33):
        last = hive.submit("1")
    last.result(120)
    begun(hive.submit(FOR_EVER))
    assert 31 == len(list(hive.jobs))


def test_a_job_stands_in_the_history(hive):
    hive.submit("'of a job'").result(60)
    assert "'of a job'" == hive.history()[-1].code


def test_where_no_worker_can_run_a_job_brings_instructions():
    heard = []
    with HiveManager(direct=False) as hive:
        job = hive.submit("1 + 1", sink=heard.append)
        assert "instructions" == job.state
        assert isinstance(job.result(0), Instructions)
    assert "1 + 1" in heard[0].content["data"]["text/markdown"]


def test_a_hive_that_is_closed_stops_its_jobs_and_tells_of_it():
    heard = []
    with HiveManager(sandbox="open") as hive:
        code = f"try:\n    exec({FOR_EVER!r})\nfinally:\n    print('clean')"
        job = begun(hive.submit(code, sink=heard.append))
        waiting = hive.submit("1")

    assert ("cancelled", "cancelled") == (job.state, waiting.state)
    text = "".join(message.content["text"] for message in heard if message.type == "stream")
    assert f"begun\nJob {job.id} is stopped, because its hive is closed.\nclean\n" == text
    rows = [entry.details.get("happened", "") for entry in hive.guard.history(10)]
    assert any(f"Job {job.id} was stopped" in happened for happened in rows)


def test_a_job_that_does_not_stop_is_stopped_with_the_hive():
    with HiveManager(sandbox="open", interrupt_grace=0.3) as hive:
        job = hive.submit(
            "import time\nprint('begun', flush=True)\n"
            "while True:\n    try:\n        time.sleep(9)\n    except KeyboardInterrupt: pass"
        )
        begun(job)
    assert job.wait(0)
    assert "cancelled" == job.state
