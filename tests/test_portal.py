"""The only door between blocking callers and the loop."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from hive_jupyter.errors import HiveError
from hive_jupyter.swarm.portal import Portal, apart


@pytest.fixture
def portal():
    portal = Portal()
    yield portal
    portal.close()


async def current_thread():
    return threading.current_thread()


def test_there_is_no_thread_before_the_first_call():
    before = threading.active_count()
    portal = Portal()

    assert before == threading.active_count()
    portal.close()


def test_a_call_runs_on_the_portals_thread_and_returns_its_result(portal):
    thread = portal.call(current_thread())

    assert "hive portal" == thread.name
    assert thread.daemon


def test_all_calls_share_one_thread(portal):
    """Also the first ones, when many callers come at once."""
    gate = threading.Barrier(20)
    seen = []

    def call():
        gate.wait()
        seen.append(portal.call(current_thread()))

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 20 == len(seen)
    assert 1 == len(set(seen))


def test_a_call_raises_what_its_work_raises(portal):
    async def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        portal.call(fail())


def test_submit_returns_before_the_work_is_done(portal):
    gate = threading.Event()

    async def wait():
        await asyncio.to_thread(gate.wait)
        return "done"

    future = portal.submit(wait())

    assert not future.done()
    gate.set()
    assert "done" == future.result(10)


def test_a_signal_that_does_not_wake_the_waiting_thread_is_noticed_all_the_same(portal):
    """It came just before the wait began; here another thread gets it, which is the same."""

    async def signal_the_loops_thread():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        portal.call(signal_the_loops_thread())


async def test_an_async_caller_awaits_a_submitted_future(portal):
    thread = await asyncio.wrap_future(portal.submit(current_thread()))

    assert thread is not threading.current_thread()


def test_a_call_from_the_portals_own_thread_raises_and_does_not_deadlock(portal):
    async def call_again():
        portal.call(current_thread())

    with pytest.raises(HiveError, match="own thread"):
        portal.call(call_again())


def test_a_post_runs_on_the_loop(portal):
    portal.call(current_thread())
    arrived = threading.Event()
    portal.post(arrived.set)

    assert arrived.wait(10)


def test_a_post_before_the_first_call_and_after_close_is_dropped(portal):
    called = []
    portal.post(lambda: called.append("early"))
    portal.call(current_thread())
    portal.close()
    portal.post(lambda: called.append("late"))

    assert [] == called


def test_a_closed_portal_refuses_and_says_what_to_do(portal):
    portal.close()

    with pytest.raises(HiveError, match="closed"):
        portal.call(current_thread())


def test_close_ends_the_thread_and_may_be_repeated(portal):
    thread = portal.call(current_thread())
    portal.close()
    portal.close()

    assert not thread.is_alive()


def test_close_ends_work_that_still_runs(portal):
    ended = threading.Event()

    async def for_ever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = portal.submit(for_ever())
    portal.call(asyncio.sleep(0))
    portal.close()

    assert ended.is_set()
    assert future.cancelled()


def test_work_that_ends_in_the_loops_last_moment_is_told(portal):
    """Whoever waits for it would wait for ever."""

    async def work():
        asyncio.get_running_loop().stop()
        return 1

    assert 1 == portal.submit(work()).result(10)


def test_close_from_the_portals_own_thread_does_not_wait_for_itself(portal):
    thread = portal.call(current_thread())

    async def close():
        portal.close()

    portal.submit(close())
    thread.join(10)

    assert not thread.is_alive()


def test_a_forked_child_gets_an_error_instead_of_a_deadlock(portal):
    portal.call(current_thread())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            portal.post(lambda: None)
            portal.close()
            portal.call(current_thread())
        except HiveError as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)

    assert 0 == os.waitstatus_to_exitcode(status)
    assert portal.call(current_thread()).is_alive()


ABANDONED = """
import asyncio, threading
from hive_jupyter.swarm.portal import apart
started = threading.Event()

async def work():
    task = asyncio.create_task(apart(lambda: started.set() or threading.Event().wait()))
    await asyncio.to_thread(started.wait)
    task.cancel()

asyncio.run(work())
"""


def test_what_blocks_in_a_thread_does_not_hold_up_the_end_of_the_process():
    """Where nobody waits for it any more."""
    subprocess.run([sys.executable, "-c", ABANDONED], timeout=60, check=True)


@pytest.mark.parametrize("error", [None, KeyError("x")])
def test_a_thread_for_the_moment_gives_back_what_came_of_it(portal, error):
    def work():
        if error is not None:
            raise error
        return threading.current_thread()

    if error is None:
        thread = portal.call(apart(work))
        assert thread is not portal.call(current_thread())
        thread.join(10)
        assert not thread.is_alive()
    else:
        with pytest.raises(type(error)):
            portal.call(apart(work))
