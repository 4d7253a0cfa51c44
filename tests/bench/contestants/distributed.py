"""Dask's LocalCluster with worker processes."""

import os
import time
from contextlib import contextmanager

from distributed import Client, LocalCluster

from tests.bench import work


@contextmanager
def _cluster(workers=1):
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def cold_start(_size):
    began = time.perf_counter()
    with _cluster() as client:
        client.submit(abs, 1).result()
        return [time.perf_counter() - began]


def warm_call(size):
    with _cluster() as client:
        return work.repeated(lambda: client.submit(abs, 1, pure=False).result(), size)


def recovery(size):
    file = os.path.abspath("died")
    samples = []
    for _ in range(size):
        with _cluster() as client:
            client.submit(abs, 1).result()
            # it runs the code a second time, in silence, which is its next result
            client.submit(exec, work.suicide(file)).result()
            samples.append(work.since_death(file))
    return samples


def idle_memory(size):
    with _cluster(size) as client:
        pids = client.run(os.getpid).values()
        return [work.memory(pids) / size]


def push(size):
    from tests.bench import values

    value = values.made(size)
    with _cluster() as client:
        samples = values.moved(lambda: client.scatter(value, hash=False), value)
        values.check_moved(value, client.scatter(value, hash=False).result())
        return samples


def pull(size):
    from tests.bench import values

    value = values.made(size)
    with _cluster() as client:
        future = client.scatter(value, hash=False)
        values.check_moved(value, future.result())
        return values.moved(future.result, value)


def noops_2(size):
    return _mapped(2, work.noops, size)


def noops_8(size):
    return _mapped(8, work.noops, size)


def naps_2(size):
    return _mapped(2, work.naps, size)


def naps_8(size):
    return _mapped(8, work.naps, size)


def _mapped(workers, measure, size):
    with _cluster(workers) as client:
        return measure(lambda f, items: client.gather(client.map(f, items, pure=False)), size)


def cluster_noops(size):
    with _cluster(2) as client:

        def mapped():
            assert [*range(size)] == client.gather(client.map(abs, range(size), pure=False))

        mapped()
        return work.repeated(mapped, 5)
