"""A ProcessPoolExecutor."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.bench import work


def _pool():
    return ProcessPoolExecutor(1, get_context("spawn"))


def push(size):
    from tests.bench import values

    value = values.made(size)
    with _pool() as pool:
        samples = values.moved(lambda: pool.submit(values.keep, value).result(), value)
        values.check_moved(value, pool.submit(values.give).result())
        return samples


def pull(size):
    from tests.bench import values

    value = values.made(size)
    with _pool() as pool:
        pool.submit(values.keep, value).result()
        values.check_moved(value, pool.submit(values.give).result())
        return values.moved(lambda: pool.submit(values.give).result(), value)


def noops_2(size):
    return _mapped(2, work.noops, size)


def noops_8(size):
    return _mapped(8, work.noops, size)


def naps_2(size):
    return _mapped(2, work.naps, size)


def naps_8(size):
    return _mapped(8, work.naps, size)


def _mapped(workers, measure, size):
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        return measure(lambda f, items: list(pool.map(f, items)), size)
