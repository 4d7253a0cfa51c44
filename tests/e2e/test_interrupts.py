"""Interrupts at any moment: the run ends, nothing hangs, and all else is as it was."""

import random
import threading

import pytest

from hive_jupyter import NodeDied, RemoteError
from hive_jupyter.delegation import Result
from tests.processes import family, titled, wait_until

RUNS = 450
SEED = 20_261_122

# What somebody may interrupt. Each ends by itself soon, so that a late interrupt meets its end too.
CODE = (
    "end = time.monotonic() + 0.12\nwhile time.monotonic() < end: pass",
    "time.sleep(0.12)",
    "for i in range(2000): print(i, flush=True)",
    "for i in range(20_000): print(i)",
    "await asyncio.sleep(0.12)",
    "for i in range(200): await asyncio.sleep(0.001)",
    "_ = subprocess.run(['sleep', '0.12'])",
    "sorted([str(i) for i in range(30_000)], reverse=True)[0]",
    "sum(range(2_000_000))",
    "try:\n    time.sleep(0.12)\nfinally:\n    done = True",
    "pass",
    "display('shown'); 1/1",
)
# These end by an interrupt only: each of them proves that it hit, however fast the machine is.
ENDLESS = (
    "while True: pass",
    "time.sleep(1000)",
    "await asyncio.sleep(1000)",
    "while True: print('x' * 100)",
)


def test_450_interrupts_at_random_moments_leave_everything_in_order(hive):
    """Each run ends as it would have anyway, or with KeyboardInterrupt; then all is as before."""
    chance = random.Random(SEED)
    hive.delegate("import asyncio, subprocess, time\nfrom IPython.display import display")
    hive.delegate("kept = list(range(1000))")
    pid = worker_pid(hive)
    for number in range(RUNS):
        endless = number % 10 == 0
        code = chance.choice(ENDLESS if endless else CODE)
        moment = chance.choice((0, 0.002, chance.uniform(0, 0.02), chance.uniform(0, 0.15)))
        told = f"run {number} of seed {SEED}: {code!r} interrupted after {moment * 1000:.1f} ms"
        delegation = hive.begin(code, timeout=None)
        timer = threading.Timer(moment, delegation.interrupt)
        timer.start()
        try:
            outcome = delegation.outcome()
            assert isinstance(outcome, Result), told
            assert not endless, told
        except NodeDied as died:
            raise AssertionError(told) from died
        except RemoteError as error:
            assert error.ename == "KeyboardInterrupt", told
        finally:
            timer.cancel()
            timer.join()
        if number % 15 == 0:
            assert "ok" == hive.delegate("'ok'").value_repr.strip("'"), told

    late = hive.begin("'in time'")
    assert "'in time'" == late.outcome().value_repr
    late.interrupt()
    assert pid == worker_pid(hive)
    assert "499500" == hive.delegate("sum(kept)").value_repr
    # a child that was interrupted while it started may take a moment to go
    wait_until(lambda: not titled(family(), "sleep"))
    assert 1 == len(titled(family(), "hive: worker coder"))


def worker_pid(hive):
    return int(hive.delegate("import os; os.getpid()").value_repr)


def test_an_interrupt_that_ipython_takes_for_a_callbacks_error_ends_the_run(hive):
    """It shows the error and goes on, at home too."""
    pid = worker_pid(hive)
    hive.delegate(
        "import signal\n"
        "def press(_info):\n"
        "    get_ipython().events.unregister('pre_run_cell', press)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "get_ipython().events.register('pre_run_cell', press)"
    )
    with pytest.raises(RemoteError) as caught:
        hive.delegate("while True: pass", timeout=60)

    assert "KeyboardInterrupt" == caught.value.ename
    assert "after" == hive.delegate("'after'").value_repr.strip("'")
    assert pid == worker_pid(hive)


def test_code_that_catches_an_interrupt_goes_on(hive):
    """Also with its last line, which IPython runs apart from the others."""
    caught = hive.delegate(
        "import signal\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: caught = True\n"
        "caught"
    )

    assert "True" == caught.value_repr
    assert "default_int_handler" in hive.delegate("signal.getsignal(2)").value_repr


def test_a_system_call_that_began_with_the_interrupt_is_ended(hive):
    """
    The signal comes after Python's last look and before the call, which then does not know of it.

    Another thread takes it here: the one that waits is not woken either.
    """
    pid = worker_pid(hive)
    delegation = hive.begin(
        "import signal, threading, time\n"
        "main = threading.get_ident()\n"
        "def take():\n"
        "    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(1000)\n"
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "try:\n"
        "    threading.Thread(target=take, daemon=True).start()\n"
        "    time.sleep(1000)\n"
        "finally: _ = signal.pthread_sigmask(signal.SIG_SETMASK, before)"
    )
    for message in delegation:
        if message.type == "stream":
            delegation.interrupt()
    with pytest.raises(RemoteError) as caught:
        delegation.outcome()

    assert "KeyboardInterrupt" == caught.value.ename
    assert pid == worker_pid(hive)
