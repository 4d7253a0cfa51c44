"""A pool of processes."""

import os
from contextlib import suppress

from loky import get_reusable_executor
from loky.process_executor import TerminatedWorkerError

from tests.bench import work


def _pool(workers=1):
    return get_reusable_executor(workers, timeout=None)


def cold_start(_size):
    return [work.timed(lambda: _pool().submit(abs, 1).result())]


def warm_call(size):
    pool = _pool()
    return work.repeated(lambda: pool.submit(abs, 1).result(), size)


def recovery(size):
    file = os.path.abspath("died")
    samples = []
    for _ in range(size):
        _pool().submit(abs, 1).result()
        with suppress(TerminatedWorkerError):
            _pool().submit(exec, work.suicide(file)).result()
        _pool().submit(abs, 1).result()
        samples.append(work.since_death(file))
    return samples


recovery_without_spare = recovery


def idle_memory(size):
    pool = _pool(size)
    # each of them has worked, as with the others
    list(pool.map(abs, range(10 * size)))
    return [work.memory(pool._processes) / size]


def noops_2(size):
    return _mapped(2, work.noops, size)


def noops_8(size):
    return _mapped(8, work.noops, size)


def naps_2(size):
    return _mapped(2, work.naps, size)


def naps_8(size):
    return _mapped(8, work.naps, size)


def _mapped(workers, measure, size):
    pool = _pool(workers)
    return measure(lambda f, items: list(pool.map(f, items)), size)
