"""A ProcessPoolExecutor of one process."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


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
