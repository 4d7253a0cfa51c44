"""``hive.map(..., engine="dask")``: a small hive in each Dask worker."""

import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client

from hive_jupyter import ConfigError, HiveManager, NodeDied, NodeStartError, NodeTimeout
from tests.dask_clusters import cluster
from tests.processes import has_ended, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def hive(runtime, dask_cluster):
    with HiveManager(connect_timeout=60, sandbox="open") as made:
        yield made


@pytest.fixture
def over(hive, dask_cluster):
    """A map over items on the cluster."""

    def mapped(function, items, **options):
        return hive.map(function, items, engine="dask", address=dask_cluster.address, **options)

    return mapped


def square(number):
    return number * number


def test_results_come_in_order(over):
    assert [number * number for number in range(500)] == list(over(square, range(500)))


def test_results_come_as_they_are_completed(over):
    assert {0, 1, 4, 9} == set(over(square, range(4), ordered=False))


def test_items_run_in_workers_of_the_dask_workers(over, dask_cluster):
    def parents(_):
        import os

        return os.getpid(), os.getppid()

    with Client(dask_cluster.address, set_as_default=False) as client:
        dask_workers = set(client.run(os.getpid).values())
    for pid, parent in over(parents, range(20)):
        above = {process.pid for process in psutil.Process(parent).parents()}
        assert pid not in dask_workers
        assert dask_workers & above


def test_arrays_go_and_come(over):
    arrays = [np.full((100, 100), number) for number in range(5)]
    doubled = list(over(lambda array: 2 * array, arrays))
    assert all(
        np.array_equal(2 * array, other) for array, other in zip(arrays, doubled, strict=True)
    )


def test_a_crash_costs_one_item(over, dask_cluster):
    def crash(number):
        import os

        if number == 7:
            os.kill(os.getpid(), 11)
        return number

    with Client(dask_cluster.address, set_as_default=False) as client:
        before = client.run(os.getpid)
        results = list(over(crash, range(20), return_exceptions=True))
        assert before == client.run(os.getpid)
    assert isinstance(results[7], NodeDied)
    assert "SIGSEGV" in str(results[7])
    assert 7 == results[7].index
    assert [*range(7), *range(8, 20)] == [each for each in results if isinstance(each, int)]


def test_an_exception_is_the_items_own(over):
    def fail(number):
        return 1 / number

    results = over(fail, [1, 0, 2])
    assert 1 == next(results)
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert 1 == caught.value.index
    assert 0.5 == next(results)


def test_an_item_has_its_time(over):
    def sleep(seconds):
        import time

        time.sleep(seconds)
        return seconds

    quick, slow = over(sleep, [0, 600], timeout=0.5, return_exceptions=True)
    assert 0 == quick
    assert isinstance(slow, NodeTimeout)


def test_what_items_print_is_shown(over, capsys):
    list(over(print, ["here"]))
    assert "here\n" == capsys.readouterr().out


def test_a_result_that_dask_cannot_send(over):
    def no_pickle(number):
        return (each for each in [number])

    (result,) = over(no_pickle, [1], return_exceptions=True)
    assert isinstance(result, Exception)
    assert [4] == list(over(square, [2]))


def test_cancelled(over, tmp_path):
    def begin(path):
        import time
        from pathlib import Path

        Path(path).touch()
        time.sleep(600)

    marks = [str(tmp_path / str(number)) for number in range(3)]
    results = over(begin, marks)
    wait_until(lambda: all(Path(mark).exists() for mark in marks))
    results.close()
    assert [] == list(results)
    assert [9] == list(over(square, [3]))


def test_a_map_that_nobody_wants_takes_no_place(runtime, tmp_path):
    def sleep(seconds):
        import time

        time.sleep(seconds)

    with cluster(tmp_path) as made, HiveManager(connect_timeout=60, sandbox="open") as hive:
        made.add_worker("alice", threads=1)
        hive.map(sleep, [600], engine="dask", address=made.address).close()
        assert [4] == list(hive.map(square, [2], engine="dask", address=made.address))


def test_few_at_once(over):
    assert [0, 1, 4] == list(over(square, range(3), workers=1))


def test_a_lost_dask_worker_costs_its_items_once(runtime, tmp_path):
    """Dask itself would run them again, in silence."""

    def note(folder):
        import os
        import time

        open(f"{folder}/{os.getpid()}", "w").close()
        time.sleep(600)

    with cluster(tmp_path) as made, HiveManager(connect_timeout=60, sandbox="open") as hive:
        made.add_worker("alice", threads=1)
        folder = tmp_path / "m"
        folder.mkdir()
        results = hive.map(note, [str(folder)], engine="dask", address=made.address)
        (mark,) = wait_until(lambda: list(folder.iterdir()))
        made.add_worker("bob", threads=1)
        above = psutil.Process(int(mark.name)).parents()
        with Client(made.address, set_as_default=False) as client:
            pids = set(client.run(os.getpid).values())
        next(each for each in above if each.pid in pids).kill()
        with pytest.raises(NodeDied, match="not run again") as caught:
            next(results)
        assert "lost" == caught.value.cause
        assert 1 == len(list(folder.iterdir()))


def test_what_is_pure_runs_again(runtime, tmp_path):
    def once(folder):
        import os
        import time

        marks = os.listdir(folder)
        open(f"{folder}/{os.getpid()}", "w").close()
        if not marks:
            time.sleep(600)
        return "again"

    with cluster(tmp_path) as made, HiveManager(connect_timeout=60, sandbox="open") as hive:
        made.add_worker("alice", threads=1)
        folder = tmp_path / "m"
        folder.mkdir()
        results = hive.map(once, [str(folder)], engine="dask", address=made.address, pure=True)
        (mark,) = wait_until(lambda: list(folder.iterdir()))
        made.add_worker("bob", threads=1)
        above = psutil.Process(int(mark.name)).parents()
        with Client(made.address, set_as_default=False) as client:
            pids = set(client.run(os.getpid).values())
        next(each for each in above if each.pid in pids).kill()
        assert ["again"] == list(results)


def test_the_workers_there_are_confined(runtime, dask_cluster):
    def connect(address):
        import socket

        socket.create_connection(address)

    host, port = dask_cluster.address.removeprefix("tcp://").split(":")
    with HiveManager(connect_timeout=60, sandbox="strict") as hive:
        results = hive.map(
            connect, [(host, int(port))], engine="dask", address=dask_cluster.address
        )
        with pytest.raises(PermissionError):
            next(results)


@pytest.mark.parametrize("profile", ["workspace", "strict"])
def test_guarantees_of_a_profile_are_refused(hive, dask_cluster, profile):
    with pytest.raises(ConfigError, match="Dask unpickles here"):
        hive.map(abs, [1], engine="dask", address=dask_cluster.address, sandbox=profile)


def test_an_executor(hive, dask_cluster):
    with hive.executor(2, engine="dask", address=dask_cluster.address) as pool:
        assert [1, 2, 3] == list(pool.map(abs, [-1, -2, -3]))


def test_a_cluster_that_is_none(hive):
    hive.config.connect_timeout = 1.0
    try:
        began = time.monotonic()
        with pytest.raises(NodeStartError, match="does not answer"):
            hive.map(abs, [1], engine="dask", address="tcp://127.0.0.1:1")
        assert time.monotonic() - began < 10
    finally:
        hive.config.connect_timeout = 60.0


def test_a_cluster_without_workers(runtime, tmp_path):
    with cluster(tmp_path) as empty, HiveManager(connect_timeout=1.0) as hive:
        with pytest.raises(NodeStartError, match="has no workers"):
            hive.map(abs, [1], engine="dask", address=empty.address)
        hive.config.connect_timeout = 60.0
        empty.start("worker", empty.address, "--local-directory", ".")
        assert [1] == list(hive.map(abs, [1], engine="dask", address=empty.address))


def test_engines_and_addresses(hive):
    with pytest.raises(ConfigError, match="no engine 'dusk'. Did you mean"):
        hive.map(abs, [1], engine="dusk")
    with pytest.raises(ConfigError, match="takes no address"):
        hive.map(abs, [1], address="local")


def test_nothing_is_left(runtime, dask_cluster):
    def pid(_):
        import os

        return os.getpid()

    with HiveManager(connect_timeout=60, sandbox="open") as hive:
        pids = set(hive.map(pid, range(8), engine="dask", address=dask_cluster.address))
    wait_until(lambda: all(map(has_ended, pids)))
