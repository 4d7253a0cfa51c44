"""A cluster of one engine, through the client and through ``%%px``."""

import logging
import os
from contextlib import contextmanager, suppress

import ipyparallel

from hive_jupyter import procfs
from tests.bench import work
from tests.bench.notebook_kernel import kernel

_START = (
    "import ipyparallel, logging\n"
    "_cluster = ipyparallel.Cluster(n=1, log_level=logging.ERROR)\n"
    "_client = _cluster.start_and_connect_sync(activate=True)\n"
    "_client[:].execute('pass', block=True)"
)
_PX = "get_ipython().run_cell_magic('px', '', 'pass')"


@contextmanager
def _cluster(engines=1):
    cluster = ipyparallel.Cluster(n=engines, log_level=logging.ERROR)
    try:
        client = cluster.start_and_connect_sync()
        client[:].execute("pass", block=True)
        yield cluster, client
    finally:
        cluster.stop_cluster_sync()


def cold_start(_size):
    running = []

    def start():
        cluster = ipyparallel.Cluster(n=1, log_level=logging.ERROR)
        running.append(cluster)
        cluster.start_and_connect_sync()[0].apply_sync(abs, 1)

    seconds = work.timed(start)
    running[0].stop_cluster_sync()
    return [seconds]


def warm_magic(size):
    with kernel() as home:
        try:
            return work.samples(home.run(work.in_kernel(_START, _PX, size)))
        finally:
            home.run("_cluster.stop_cluster_sync()")


def warm_call(size):
    with _cluster() as (_, client):
        view = client[0]
        return work.repeated(lambda: view.execute("pass", block=True), size)


def recovery(size):
    return [_recover() for _ in range(size)]


def _recover():
    file = os.path.abspath("died")
    with _cluster() as (cluster, client):
        with suppress(ipyparallel.error.EngineError, ipyparallel.error.RemoteError):
            client[0].execute(work.suicide(file), block=True)
        cluster.restart_engines_sync()
        client.wait_for_engines(1, timeout=60)
        client[:].apply_sync(abs, 1)
        return work.since_death(file)


def lines(size):
    return _stream(work.lines(size))


def prints(size):
    return _stream(work.prints(size))


def _stream(code):
    printed = work.Printed()
    with _cluster() as (_, client):

        def run():
            result = client[0].execute(code, block=False)
            result.get()
            result.wait_for_output()
            printed.take(result.stdout)

        seconds = work.timed(run)
    printed.check(code)
    return [seconds]


def idle_memory(size):
    with _cluster(size) as (_, client):
        engines = client[:].apply_sync(os.getpid)
        # each engine is watched by a process of its own, its nanny
        helpers = {procfs.read_stat(pid).parent for pid in engines} - {os.getpid()}
        return [work.memory([*engines, *helpers]) / size]


def load(_size):
    with kernel() as home:
        return work.samples(home.run(work.in_kernel("", "import ipyparallel", 1, warm_up=0)))


def push(size):
    from tests.bench import values

    value = values.made(size)
    with _cluster() as (_, client):
        view = client[0]
        samples = values.moved(lambda: view.push({"x": value}, block=True), value)
        values.check_moved(value, view.pull("x", block=True))
        return samples


def pull(size):
    from tests.bench import values

    value = values.made(size)
    with _cluster() as (_, client):
        view = client[0]
        view.push({"x": value}, block=True)
        values.check_moved(value, view.pull("x", block=True))
        return values.moved(lambda: view.pull("x", block=True), value)


def noops_2(size):
    return _mapped(2, work.noops, size)


def noops_8(size):
    return _mapped(8, work.noops, size)


def naps_2(size):
    return _mapped(2, work.naps, size)


def naps_8(size):
    return _mapped(8, work.naps, size)


def _mapped(workers, measure, size):
    with _cluster(workers) as (_, client):
        view = client.load_balanced_view()
        return measure(lambda f, items: list(view.map_sync(f, items)), size)
