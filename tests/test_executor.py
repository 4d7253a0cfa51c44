"""An executor over real workers."""

import asyncio
import concurrent.futures
import os
import threading
import time

import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import HiveError, NodeDied, NodeTimeout, TransferError
from tests.processes import wait_until


@pytest.fixture(scope="module")
def confined(runtime):
    """A hive whose workers are as users have them, but patient."""
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive


@pytest.fixture
def executor(confined):
    with confined.executor(2) as executor:
        yield executor


def gate(path):
    """What waits until somebody writes to a named pipe."""
    os.mkfifo(path)

    def wait(number):
        with open(path) as file:
            file.read()
        return number

    return wait


def test_it_is_an_executor_as_any(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert 8 == executor.submit(pow, 2, 3).result()
    assert "a-b" == executor.submit("{x}-{y}".format, x="a", y="b").result()
    assert [1, 8, 9] == list(executor.map(pow, [1, 2, 3], [1, 3, 2]))


def test_futures_can_be_waited_for(executor):
    futures = [executor.submit(abs, -n) for n in range(20)]

    assert {*range(20)} == {
        future.result() for future in concurrent.futures.as_completed(futures, timeout=60)
    }


async def test_asyncio_takes_it(executor):
    loop = asyncio.get_running_loop()
    results = await asyncio.gather(*(loop.run_in_executor(executor, abs, -n) for n in range(5)))

    assert [0, 1, 2, 3, 4] == results


def test_joblib_and_the_like_may_submit_from_many_threads(executor):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = threads.map(lambda n: executor.submit(pow, n, 2).result(), range(100))
        assert [n * n for n in range(100)] == list(results)


def test_errors_are_the_futures(executor):
    future = executor.submit(divmod, 1, 0)
    assert isinstance(future.exception(), ZeroDivisionError)
    with pytest.raises(TransferError, match="cannot be pickled"):
        executor.submit(lambda: lock).result()
    with pytest.raises(TransferError, match="cannot be pickled"):
        executor.submit(id, lock).result()
    with pytest.raises(NodeDied):
        executor.submit(os._exit, 3).result()
    assert 5 == executor.submit(abs, -5).result()


lock = threading.Lock()


def test_a_function_is_what_it_is_when_it_is_submitted(executor):
    box = [1]
    futures = []
    for number in range(4):
        box[0] = number
        futures.append(executor.submit(lambda: box[0]))

    assert [0, 1, 2, 3] == [future.result() for future in futures]


def test_a_call_beyond_its_time_is_stopped(confined):
    with confined.executor(1, timeout=0.3) as executor:
        with pytest.raises(NodeTimeout):
            executor.submit(time.sleep, 100).result()
        assert 1 == executor.submit(abs, 1).result()


def test_shutdown_waits_for_all(confined):
    with confined.executor(2) as executor:
        futures = [executor.submit(time.sleep, 0.01) for _ in range(20)]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_shutdown_need_not_wait(confined, tmp_path):
    wait = gate(tmp_path / "gate")
    executor = confined.executor(1, sandbox="open")
    future = executor.submit(wait, 7)
    executor.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "gate").write_text("")

    assert 7 == future.result()


def test_shutdown_cancels_what_has_not_begun(confined, tmp_path):
    wait = gate(tmp_path / "gate")
    executor = confined.executor(1, sandbox="open")
    running = executor.submit(wait, 1)
    wait_until(running.running)
    others = [executor.submit(abs, n) for n in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "gate").write_text("")
    concurrent.futures.wait(others, timeout=60)

    assert all(future.cancelled() for future in others)
    assert 1 == running.result()


def test_a_future_can_be_cancelled_before_it_begins(confined, tmp_path):
    wait = gate(tmp_path / "gate")
    with confined.executor(1, sandbox="open") as executor:
        running = executor.submit(wait, 1)
        wait_until(running.running)
        other = executor.submit(os._exit, 1)
        assert other.cancel()
        (tmp_path / "gate").write_text("")
        last = executor.submit(abs, -2)
        assert (1, 2) == (running.result(), last.result())


def test_what_has_not_begun_can_be_cancelled_however_much_there_is(confined, tmp_path):
    go = tmp_path / "go"

    def wait(number):
        while not os.path.exists(go):
            time.sleep(0.01)
        return number

    with confined.executor(2, sandbox="open") as executor:
        futures = [executor.submit(wait, n) for n in range(20)]
        wait_until(futures[1].running)
        cancelled = [future.cancel() for future in futures[2:]]
        go.touch()
        assert all(cancelled)
        assert [0, 1] == [future.result() for future in futures[:2]]


def test_what_was_handed_out_in_the_moment_of_the_end_is_answered(confined, tmp_path, monkeypatch):
    wait = gate(tmp_path / "gate")
    executor = confined.executor(1, sandbox="open")
    executor.submit(abs, 1).result()  # its cost: from now on a worker may have two
    running = executor.submit(wait, 1)
    wait_until(running.running)
    pool = executor._crew.pool
    put = pool.put

    def put_and_cancel(tasks):
        put(tasks)
        pool.cancel()

    monkeypatch.setattr(pool, "put", put_and_cancel)
    other = executor.submit(abs, -2)

    for future in (running, other):
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=30)


def test_a_hive_that_is_closed_ends_it(runtime):
    hive = HiveManager(connect_timeout=60)
    executor = hive.executor(1)
    future = executor.submit(time.sleep, 1000)
    wait_until(future.running)
    hive.close()

    with pytest.raises(HiveError, match="closed"):
        future.result()
    with pytest.raises(HiveError, match="closed"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_callbacks_may_submit_more(executor):
    done = concurrent.futures.Future()
    first = executor.submit(abs, -1)
    first.add_done_callback(
        lambda future: executor.submit(abs, -2).add_done_callback(
            lambda other: done.set_result((future.result(), other.result()))
        )
    )

    assert (1, 2) == done.result(timeout=60)
