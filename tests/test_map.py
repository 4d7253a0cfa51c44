"""Maps over real workers."""

import ctypes
import gc
import io
import itertools
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from hive_jupyter import HiveManager
from hive_jupyter.errors import (
    ConfigError,
    HiveError,
    NodeDied,
    NodeStartError,
    NodeTimeout,
    RemoteError,
    TransferError,
)
from hive_jupyter.swarm.chunks import MOST
from hive_jupyter.swarm.items import taken
from hive_jupyter.swarm.pool_node import PoolNode
from tests.hosts import play
from tests.processes import wait_until


@pytest.fixture(scope="module")
def confined(runtime):
    """A hive whose workers are as users have them, but patient."""
    with HiveManager(interrupt_grace=30, connect_timeout=60) as hive:
        yield hive


def triple(number):
    return 3 * number


def workers_of(hive):
    return hive.nodes.staff


# --- results ---


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(confined, workers):
    assert [triple(n) for n in range(300)] == [
        *confined.map(lambda n: 3 * n, range(300), workers=workers)
    ]


def test_a_map_of_nothing_is_empty(confined):
    assert [] == list(confined.map(abs, []))


def test_they_come_as_they_are_completed(confined, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def wait_for_gate(item):
        if item == 0:
            with open(gate) as file:
                file.read()
        return item

    with confined.map(wait_for_gate, range(3), workers=2, ordered=False, sandbox="open") as results:
        first = {next(results), next(results)}
        gate.write_text("")
        assert ({1, 2}, [0]) == (first, list(results))


def test_what_is_done_does_not_wait_for_a_dear_item_of_its_chunk(confined, tmp_path):
    """Nor is it run again when the chunk comes to its end."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def wait_for_gate(item):
        with open(tmp_path / "ran", "a") as ran:
            ran.write(f"{item}\n")
        if item == 4:
            with open(gate) as file:
                file.read()
        return item

    options = {"workers": 1, "ordered": False, "sandbox": "open", "timeout": 60}
    with confined.map(wait_for_gate, range(6), **options) as results:
        first = [next(results) for _ in range(4)]
        gate.write_text("")
        assert ([0, 1, 2, 3], [4, 5]) == (first, list(results))

    assert [*"012345"] == (tmp_path / "ran").read_text().split()


def test_values_with_memory_of_their_own_come_and_go(confined):
    arrays = [np.full((100, 100), n) for n in range(20)]
    for n, doubled in enumerate(confined.map(lambda array: 2 * array, arrays, workers=2)):
        np.testing.assert_array_equal(2 * arrays[n], doubled)
        assert doubled.flags.writeable


def test_a_result_is_what_it_was_when_its_item_ended(confined):
    seen = []

    def keep(number):
        seen.append(number)
        if len(seen) == 1:
            seen.append(np.zeros(20_000))
        seen[1] += 1
        return seen[1]

    results = list(confined.map(keep, range(50), workers=1))

    assert all((result == result[0]).all() for result in results)
    assert [*range(1, 51)] == [int(result[0]) for result in results]


def test_the_function_takes_along_what_it_refers_to(confined):
    factor = 7
    local = type("Local", (), {"times": lambda self, n: factor * n})

    assert [0, 7, 14] == list(confined.map(lambda n: local().times(n), range(3), workers=2))


def test_it_finds_no_event_loop_as_in_any_process(confined):
    def run(number):
        import asyncio

        async def work():
            return number

        return asyncio.run(work())

    assert [0, 1] == list(confined.map(run, range(2), workers=1))


def test_open_workers_give_whatever_can_be_pickled(confined):
    results = confined.map(lambda n: slice, range(2), workers=1, sandbox="open")

    assert [slice, slice] == list(results)


def test_what_items_print_is_printed_here(confined, capsys):
    list(confined.map(lambda n: print(f"item {n}"), range(3), workers=1))

    assert "item 0\nitem 1\nitem 2\n" == capsys.readouterr().out


# --- items ---


def test_items_are_taken_as_they_are_needed(confined):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    with confined.map(lambda n: n, endless(), workers=2) as results:
        assert [*range(100)] == list(itertools.islice(results, 100))
        # what four of the largest chunks for each worker hold, however fast they are
        assert len(taken) <= 100 + 2 * 4 * MOST


def test_a_generator_that_raises_does_so_after_what_came_before(confined):
    def items():
        yield 1
        yield 2
        raise LookupError("no more")

    results = confined.map(lambda n: n, items(), workers=1)

    assert [1, 2] == [next(results), next(results)]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert [] == list(results)


@pytest.mark.parametrize("item", [lambda: (yield), threading.Lock(), sys.stdout.__class__])
def test_an_item_that_cannot_be_packed_fails_alone(confined, item):
    item = item() if callable(item) and not isinstance(item, type) else item
    if isinstance(item, type):
        item = io.TextIOWrapper(io.BytesIO())
    results = list(confined.map(lambda n: 1, [0, item, 2], workers=1, return_exceptions=True))

    assert [1, 1] == [results[0], results[2]]
    assert isinstance(results[1], TransferError)
    assert 1 == results[1].index


def test_functions_are_items_too(confined):
    assert [2, 3] == list(confined.map(lambda f: f(1), [lambda x: x + 1, lambda x: x + 2]))


# --- errors ---


def test_an_error_names_its_item_and_the_others_go_on(confined):
    results = confined.map(lambda n: 6 // n, [3, 0, 2], workers=1)

    assert 2 == next(results)
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert isinstance(caught.value, RemoteError)
    assert (1, ["item 1: 0"]) == (caught.value.index, caught.value.__notes__)
    assert "6 // n" in "".join(caught.value.traceback) or caught.value.traceback
    assert [3] == list(results)


def test_exceptions_can_be_results(confined):
    results = list(confined.map(lambda n: 6 // n, [3, 0, 2], workers=2, return_exceptions=True))

    assert [2, 3] == [results[0], results[2]]
    assert isinstance(results[1], ZeroDivisionError)


def test_each_of_many_errors_is_its_own(confined):
    results = list(confined.map(lambda n: 1 // n, [0, 0], workers=1, return_exceptions=True))

    assert [["item 0: 0"], ["item 1: 0"]] == [error.__notes__ for error in results]


def test_leaving_python_is_an_error_of_its_item(confined):
    results = confined.map(sys.exit, [3], workers=1, return_exceptions=True)

    assert ["SystemExit"] == [error.ename for error in results]


def test_what_has_no_safe_form_fails_its_item_and_says_what_to_do(confined):
    results = list(
        confined.map(lambda n: object() if n else n, [0, 1], workers=1, return_exceptions=True)
    )

    assert 0 == results[0]
    assert isinstance(results[1], TransferError)
    assert "sandbox='open'" in str(results[1])


def test_a_function_that_cannot_be_pickled_is_told_at_once(confined):
    lock = threading.Lock()
    with pytest.raises(TransferError, match="cannot be pickled"):
        confined.map(lambda n: lock, [1])


def test_a_function_that_cannot_be_had_there_is_told(confined, tmp_path, monkeypatch):
    (tmp_path / "gone_module.py").write_text("def gone(n): return n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone_module

    os.unlink(tmp_path / "gone_module.py")
    results = list(confined.map(gone_module.gone, [1, 2], workers=1, return_exceptions=True))

    assert [TransferError] * 2 == [type(error) for error in results]
    assert "cannot take the function" in str(results[0])


@pytest.mark.parametrize("function", [5, "abs", None])
def test_what_is_no_function_is_refused(confined, function):
    with pytest.raises(ConfigError, match="cannot be called"):
        confined.map(function, [1])


def test_nobody_is_idle_while_items_wait_behind_a_dear_one(confined, tmp_path):
    """One item of many cheap ones ends only when all behind it have, in other workers."""
    ran = tmp_path / "ran"
    ran.mkdir()

    def work(number):
        (ran / str(number)).touch()
        while number == 100 and len(os.listdir(ran)) < 300:
            time.sleep(0.01)
        return number

    results = confined.map(work, range(300), workers=2, sandbox="open", ordered=False, timeout=60)

    assert [*range(300)] == sorted(results)


def test_a_chunk_that_has_not_begun_is_taken_over_at_once(confined, tmp_path, monkeypatch):
    """The first item keeps its worker; what that got while others told the cost is for them."""
    # the last few are not worth it, and may wait until their chunk is late
    monkeypatch.setattr("hive_jupyter.swarm.pool._LATE", 5.0)
    ran = tmp_path / "ran"
    ran.mkdir()

    def work(number):
        (ran / str(number)).touch()
        while number == 0 and len(os.listdir(ran)) < 100:
            time.sleep(0.01)
        time.sleep(0.005)
        return number

    results = confined.map(work, range(100), workers=2, sandbox="open", timeout=60)

    assert [*range(100)] == list(results)


def test_what_a_worker_gives_back_to_a_map_that_was_stopped_runs_nowhere(
    confined, tmp_path, monkeypatch
):
    give_back, ran_before = PoolNode.take_back, []

    async def stopped_meanwhile(node, chunk):
        first = await give_back(node, chunk)
        if not ran_before:
            ran_before.append({*os.listdir(tmp_path)})
            results._crew.pool.cancel()
        return first

    monkeypatch.setattr(PoolNode, "take_back", stopped_meanwhile)

    def work(number):
        (tmp_path / str(number)).touch()
        while number == 100:
            time.sleep(0.01)

    options = {"workers": 2, "sandbox": "open", "return_exceptions": True}
    with confined.map(work, range(300), **options) as results:
        assert 300 == len(list(results))

    assert [{*os.listdir(tmp_path)}] == ran_before


# --- deaths ---


def exits():
    os._exit(7)


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults():
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("dies", "cause"), [(exits, "exit"), (kills_itself, "killed"), (segfaults, "signal")]
)
def test_a_crash_costs_its_item_alone_and_no_other_runs_twice(confined, tmp_path, dies, cause):
    file = tmp_path / "ran"

    def work(number):
        with open(file, "a") as ran:
            ran.write(f"{number}\n")
        if number == 150:
            dies()
        return number

    results = list(
        confined.map(work, range(200), workers=2, return_exceptions=True, sandbox="open")
    )

    assert [n for n in range(200) if n != 150] == [each for each in results if each in range(200)]
    death = results[150]
    assert isinstance(death, NodeDied)
    assert (cause, 150, ["item 150: 150"]) == (death.cause, death.index, death.__notes__)
    ran = [*map(int, file.read_text().split())]
    assert [*range(200)] == sorted(ran)


def test_a_pool_outlives_more_deaths_than_a_worker_may_die(confined):
    results = list(
        confined.map(
            lambda n: os._exit(1) if n % 2 else n, range(12), workers=2, return_exceptions=True
        )
    )

    assert [0, 2, 4, 6, 8, 10] == results[::2]
    assert all(isinstance(error, NodeDied) for error in results[1::2])


def test_a_worker_that_dies_while_it_waits_is_replaced(confined):
    pids = set(confined.map(lambda n: os.getpid(), range(4), workers=2))
    with confined.map(lambda n: (n, os.getpid()), range(4), workers=2) as results:
        for node, _ in [*workers_of(confined)._idle]:
            os.kill(node._process.pid, signal.SIGKILL)
        assert [0, 1, 2, 3] == [n for n, _ in results]
    assert pids


def test_an_item_beyond_its_time_is_stopped_and_the_others_go_on(confined):
    def work(number):
        if number == 5:
            while True:
                pass
        return number

    results = list(confined.map(work, range(20), workers=1, timeout=0.3, return_exceptions=True))

    assert [n for n in range(20) if n != 5] == [each for each in results if each in range(20)]
    assert isinstance(results[5], NodeTimeout)
    assert (5, 0.3) == (results[5].index, results[5].seconds)


def test_the_time_is_each_items_own(confined):
    # together they take longer than one may
    results = confined.map(lambda n: time.sleep(0.02) or n, range(60), workers=1, timeout=0.6)

    assert [*range(60)] == list(results)


def test_one_that_does_not_obey_is_killed(runtime):
    def work(number):
        if number == 1:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            while True:
                pass
        return number

    with HiveManager(interrupt_grace=0.2, connect_timeout=60) as hive:
        results = list(hive.map(work, range(4), workers=1, timeout=0.3, return_exceptions=True))

    assert [0, 2, 3] == [each for each in results if each in range(4)]
    assert isinstance(results[1], NodeTimeout)


# --- the end ---


def test_closing_stops_what_runs_and_leaves_no_process(runtime, tmp_path):
    def work(number):
        (tmp_path / f"runs {number}").touch()
        while True:
            time.sleep(1)

    with HiveManager(connect_timeout=60) as hive:
        results = hive.map(work, range(10), workers=2, sandbox="open")
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        pids = [node._process.pid for node in workers_of(hive)._nodes]
        results.close()

        assert [] == list(results)
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert 0 == len(workers_of(hive))


def test_ctrl_c_stops_what_runs(confined, tmp_path):
    def work(number):
        (tmp_path / f"runs {number}").touch()
        while True:
            time.sleep(1)

    def press():
        wait_until(lambda: list(tmp_path.iterdir()))
        os.kill(os.getpid(), signal.SIGINT)

    results = confined.map(work, range(10), workers=1, sandbox="open")
    with ThreadPoolExecutor(1) as presses:
        presses.submit(press)
        with pytest.raises(KeyboardInterrupt):
            next(results)
    assert [] == list(results)


def test_a_map_that_nobody_has_any_more_is_stopped(confined, tmp_path):
    def work(number):
        (tmp_path / f"runs {number}").touch()
        while True:
            time.sleep(1)

    results = confined.map(work, range(10), workers=1, sandbox="open")
    wait_until(lambda: list(tmp_path.iterdir()))
    del results
    gc.collect()

    wait_until(lambda: not workers_of(confined).working)


def test_a_hive_that_is_closed_meanwhile_says_so(runtime):
    hive = HiveManager(connect_timeout=60)
    results = hive.map(lambda n: time.sleep(n) or n, [0, 1000], workers=1)
    assert 0 == next(results)
    hive.close()

    with pytest.raises(HiveError, match="closed"):
        next(results)
    with pytest.raises(HiveError, match="closed"):
        hive.map(abs, [1])


def test_a_fork_of_the_host_is_told(runtime):
    play(
        "import os, sys\n"
        "from hive_jupyter import HiveManager\n"
        "from hive_jupyter.errors import HiveError\n"
        "with HiveManager(connect_timeout=60) as hive:\n"
        "    results = hive.map(abs, range(100), workers=1)\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n"
        "            list(results)\n"
        "        except HiveError as error:\n"
        "            os._exit('fork' not in str(error))\n"
        "        os._exit(2)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "    assert list(results) == [*range(100)]\n",
        options=("-W", "ignore::DeprecationWarning"),
    )


def test_where_no_worker_can_run_there_is_nothing_to_go_on_with(runtime):
    with HiveManager(direct=False) as hive, pytest.raises(NodeStartError, match="turned off"):
        hive.map(abs, [1])


def test_a_start_that_fails_is_told_of_each_item(runtime):
    with HiveManager(connect_timeout=0.0) as hive:
        results = list(hive.map(abs, [1, 2], workers=2, return_exceptions=True))

    assert [NodeStartError] * 2 == [type(error) for error in results]


# --- limits ---


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_workers_is_refused(confined, workers):
    with pytest.raises(ConfigError, match="no number of workers"):
        confined.map(abs, [1], workers=workers)


def test_more_workers_than_there_may_be_are_refused(confined):
    with pytest.raises(ConfigError, match="256, the setting max_workers"):
        confined.map(abs, [1], workers=10_000)


def test_an_engine_that_is_not_there_is_refused(confined):
    with pytest.raises(ConfigError, match="no engine 'locale'. Did you mean \"local\"?"):
        confined.map(abs, [1], engine="locale")
    with pytest.raises(ConfigError, match="no address"):
        confined.map(abs, [1], address="tcp://nowhere:1")


def test_no_more_workers_run_than_may(runtime, capfd):
    with HiveManager(max_workers=2, connect_timeout=60) as hive:
        hive.start()
        pids = set(hive.map(lambda n: time.sleep(0.02) or os.getpid(), range(10), workers=2))
        assert 1 == len(pids)
        assert "1 workers instead of 2" in capfd.readouterr().err
        with hive.map(abs, itertools.count(), workers=1) as results:
            next(results)
            wait_until(lambda: len(workers_of(hive)) == 1)


def test_a_budget_of_memory_is_shared(runtime, capfd):
    with HiveManager(memory_budget="1G", connect_timeout=60) as hive:
        results = hive.map(abs, range(10), workers=20)
        assert 4 == results._crew.pool._most
        assert 256 * 2**20 == results._crew.pool._policy.memory
        assert "4 workers instead of 20" in capfd.readouterr().err
        assert [*range(10)] == list(results)
        with pytest.raises(ConfigError, match="memory_budget"):
            hive.map(abs, [1], memory="2G")


def test_idle_workers_serve_the_next_map(confined):
    first = set(confined.map(lambda n: os.getpid(), range(4), workers=1))
    second = set(confined.map(lambda n: os.getpid(), range(4), workers=1))

    assert first == second


def test_idle_workers_are_ended_after_a_while(runtime):
    with HiveManager(pool_idle_timeout=0.05, connect_timeout=60) as hive:
        results = hive.map(abs, range(4), workers=2)
        next(results)
        pids = [node._process.pid for node in workers_of(hive)._nodes if node._process]
        assert 3 == len(list(results))
        assert pids
        wait_until(lambda: not len(workers_of(hive)))
        wait_until(lambda: not any(map(psutil.pid_exists, pids)))


def test_workers_of_pools_are_none_of_the_users(confined):
    list(confined.map(abs, range(4), workers=1))

    assert ["coder"] == confined.workers()


def test_the_status_counts_them(runtime):
    with HiveManager(connect_timeout=60) as hive:
        assert [] == hive.swarm_status()["notes"]
        with hive.map(abs, itertools.count(), workers=1) as results:
            next(results)
            assert "workers of pools: 1, 1 of them at work" in str(hive.swarm_status())


def test_named_workers_count_and_take_the_place_of_idle_ones(runtime):
    with HiveManager(max_workers=1, connect_timeout=60) as hive:
        assert [1] == list(hive.map(abs, [1], workers=1))
        assert "2" == hive.delegate("2", worker="a").value_repr
        assert not workers_of(hive)
        refused = hive.delegate("2", worker="b")
        assert '"b" could not be started: 1 workers run' in refused.reason
        with pytest.raises(ConfigError, match="max_workers"):
            hive.map(abs, [1], workers=1)
        hive.stop("a")
        assert "2" == hive.delegate("2", worker="b").value_repr


def test_idle_named_workers_are_ended_where_the_user_wants_that(runtime):
    with HiveManager(cull_idle_timeout=0.05, connect_timeout=60) as hive:
        hive.delegate("x = 1")
        wait_until(lambda: hive.swarm_status()["workers"]["coder"]["pid"] is None)
        result = hive.delegate("'x' in globals()")

    assert "False" == result.value_repr
    assert "cull_idle_timeout). Lost: x." in result.stderr


def test_as_a_rule_they_stay(runtime):
    with HiveManager(connect_timeout=60) as hive:
        hive.delegate("x = 1")
        assert hive.nodes._culling is None


def test_one_that_works_is_not_ended(runtime):
    with HiveManager(cull_idle_timeout=0.02, connect_timeout=60) as hive:
        result = hive.delegate("import time; time.sleep(0.3); 7")

    assert "7" == result.value_repr


def test_what_has_no_items_is_refused_and_leaves_no_pool(confined):
    with pytest.raises(TypeError, match="not iterable"):
        confined.map(abs, 5)
    wait_until(lambda: not confined.nodes._pools)


def test_where_nothing_more_can_be_written_all_items_are_run_once(runtime, tmp_path):
    with HiveManager(file_size=4096, sandbox="open", connect_timeout=60) as hive:
        ran = tmp_path / "ran"
        ran.mkdir()

        def work(number):
            os.mkdir(ran / str(number))
            return "x" * 900

        assert ["x" * 900] * 60 == list(hive.map(work, range(60), workers=2))


def test_results_that_are_large_go_by_themselves(confined):
    sizes = [len(result) for result in confined.map(lambda n: bytes(3 * 10**6), range(20))]

    assert [3 * 10**6] * 20 == sizes


def test_nobody_waits_while_results_are_read(confined, monkeypatch):
    """A million lists without any memory of their own take seconds, and what else is asked, too."""
    threads = set()

    def noting(*arguments, **options):
        threads.add(threading.current_thread())
        return taken(*arguments, **options)

    monkeypatch.setattr("hive_jupyter.swarm.pool.taken", noting)

    assert [[0], [1]] == list(confined.map(lambda number: [number], range(2), workers=1))
    assert confined._portal._thread not in threads
    assert threads


def test_what_cannot_even_be_sent_is_told(confined, monkeypatch):
    def broken(*_):
        raise OSError("no buffer space")

    assert [1] == list(confined.map(abs, [1], workers=1))
    for node, _ in workers_of(confined)._idle:
        if node.is_fit:
            monkeypatch.setattr(node._channels, "begin", broken)
    results = list(confined.map(abs, [1, 2], workers=1, return_exceptions=True))

    assert isinstance(results[0], HiveError)
    assert "no buffer space" in str(results[0])
