"""A stock IPython kernel, as jupyter_client starts it and talks to it."""

import asyncio
import os
import random
import time

from jupyter_client.ioloop import AsyncIOLoopKernelManager

from tests.bench import work
from tests.bench.notebook_kernel import PATIENCE, Kernel, kernel

# The restarter looks for a dead kernel once in so many seconds.
_RESTARTER_INTERVAL = 3.0


def cold_start(_size):
    started = []

    def start():
        started.append(Kernel())
        started[0].run("1 + 1")

    seconds = work.timed(start)
    started[0].close()
    return [seconds]


# What Hive's spare, and its first cell after %load_ext, are compared with.
spare_start = cold_start
first_delegate = cold_start


def warm_call(size):
    with kernel() as home:
        return work.repeated(lambda: home.run("pass"), size)


def recovery(size):
    return [asyncio.run(_recover()) for _ in range(size)]


async def _recover():
    """The restarter notices; the pending request of the dead kernel is never answered."""
    file = os.path.abspath("died")
    manager = AsyncIOLoopKernelManager(autorestart=True)
    await manager.start_kernel()
    # as with a kernel that has lived for ten seconds: the new one keeps the ports
    manager._restarter.random_ports_until_alive = False
    restarting = asyncio.Event()
    manager.add_restart_callback(restarting.set, "restart")
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=PATIENCE)
    # the death may come at any moment between two looks
    await asyncio.sleep(random.uniform(0, _RESTARTER_INTERVAL))
    client.execute(work.suicide(file))
    await asyncio.wait_for(restarting.wait(), PATIENCE)
    while not await manager.is_alive():
        await asyncio.sleep(0.002)
    # a second client would have the same identity, and zmq would route its replies to the first
    await client.wait_for_ready(timeout=PATIENCE)
    await client.execute_interactive("1 + 1", timeout=PATIENCE, output_hook=lambda _: None)
    seconds = work.since_death(file)
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
    return seconds


def lines(size):
    return _stream(work.lines(size))


def prints(size):
    return _stream(work.prints(size))


# The cell at home.
cell_prints = prints


def _stream(code):
    printed = work.Printed()
    with kernel() as home:
        seconds = work.timed(lambda: home.run(code, printed.take))
    printed.check(code)
    return [seconds]


def print_cost(size):
    with kernel() as home:
        return [float(home.run(work.timed_prints(size)).splitlines()[-1]) / size]


def idle_memory(size):
    kernels = []
    try:
        for _ in range(size):
            kernels.append(Kernel())
            kernels[-1].run("1 + 1")
        return [work.memory([each.pid for each in kernels]) / size]
    finally:
        for each in kernels:
            each.close()


def crowd_memory(size):
    count = size * 130 // 200
    return [count * sample for sample in idle_memory(count)]


def flood_unread(size):
    return _flood(size, lambda home, code: (home.client.execute(code), work.settle()))


def flood_slow(size):
    def read(home, code):
        home.run(code, lambda _text: time.sleep(work.SLOW))

    return _flood(size, read)


def _flood(size, read):
    with kernel() as home:
        return [work.growth(lambda: read(home, work.lines(size)))]
