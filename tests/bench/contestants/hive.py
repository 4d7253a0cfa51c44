"""Hive with its defaults: through HiveManager, and through the magic in a stock kernel."""

import os
import time
from contextlib import suppress
from statistics import median

from hive_jupyter import HiveManager
from hive_jupyter.errors import NodeDied
from tests.bench import work
from tests.bench.mcp_client import execute_through
from tests.bench.notebook_kernel import kernel
from tests.without import take_away

_DELEGATE = "get_ipython().run_cell_magic('delegate', '', 'pass')"
_LOAD = "get_ipython().run_line_magic('load_ext', 'hive_jupyter')"


def _have_zygote(hive):
    """As some time after ``%load_ext``, which starts it in the background."""
    hive._portal.call(hive.nodes.warm_up())


def _have_spare(hive):
    """As some time after a first cell; a spare is on the list once it is ready."""
    deadline = time.monotonic() + 30
    while not any(server._spares for server in hive.nodes.servers):
        assert time.monotonic() < deadline, "no spare was forked"
        time.sleep(0.005)


def cold_start(_size):
    with HiveManager() as hive:
        _have_zygote(hive)
        return [work.timed(lambda: hive.delegate("1 + 1"))]


def spare_start(size):
    with HiveManager() as hive:
        hive.delegate("1 + 1")
        return [_start_from_spare(hive, f"w{number}") for number in range(size)]


def _start_from_spare(hive, name):
    _have_spare(hive)
    return work.timed(lambda: hive.delegate("1 + 1", worker=name))


def first_delegate(_size):
    with kernel() as home:
        return work.samples(home.run(work.in_kernel("", f"{_LOAD}; {_DELEGATE}", 1, warm_up=0)))


def warm_magic(size):
    with kernel() as home:
        return work.samples(home.run(work.in_kernel(_LOAD, _DELEGATE, size)))


def warm_call(size):
    with HiveManager() as hive:
        return work.repeated(lambda: hive.delegate("pass"), size)


def mcp_execute(size):
    return execute_through("jupyter-hive", ["mcp"], "execute", size)


def recovery(size):
    return _recoveries(HiveManager(), size)


def recovery_without_spare(size):
    return _recoveries(HiveManager(spares=0), size)


def _recoveries(manager, count):
    file = os.path.abspath("died")
    samples = []
    with manager as hive:
        for _ in range(count):
            hive.delegate("1 + 1")
            if hive.config.spares:
                _have_spare(hive)
            with suppress(NodeDied):
                hive.delegate(work.suicide(file))
            hive.delegate("1 + 1")
            samples.append(work.since_death(file))
    return samples


def confined_start(size):
    return _added_by_the_boundary(_fresh_start, size)


def confined_start_without_namespaces(size):
    take_away("namespaces")
    return _added_by_the_boundary(_fresh_start, size)


def confined_spare(size):
    return _added_by_the_boundary(
        lambda hive, number: _start_from_spare(hive, f"w{number}"), size, spares=1
    )


def confined_call(size):
    return _added_by_the_boundary(lambda hive, _: work.timed(lambda: hive.delegate("pass")), size)


def confined_prints(size):
    code = work.prints(size)
    return _added_by_the_boundary(lambda hive, _: _seconds_of_printing(hive, code), 3)


def _added_by_the_boundary(measure, count, spares=0):
    """The difference of two medians, of samples that take turns."""
    free = HiveManager(sandbox="open", spares=spares)
    confined = HiveManager(sandbox="workspace", spares=spares)
    with free, confined:
        for hive in (free, confined):
            hive.delegate("pass")

        def in_quiet(hive, number):
            for each in (free, confined) if spares else ():
                _have_spare(each)
            return measure(hive, number)

        pairs = [(in_quiet(free, n), in_quiet(confined, n)) for n in range(count)]
    without, with_boundary = map(median, zip(*pairs, strict=True))
    return [with_boundary - without]


def _fresh_start(hive, number):
    seconds = work.timed(lambda: hive.delegate("1 + 1", worker=f"w{number}"))
    hive.stop(f"w{number}")
    return seconds


def lines(size):
    return _stream(work.lines(size))


def prints(size):
    return _stream(work.prints(size))


def _stream(code):
    with HiveManager(max_output=None) as hive:
        hive.delegate("1 + 1")
        return [_seconds_of_printing(hive, code)]


def _seconds_of_printing(hive, code):
    printed = work.Printed()
    seconds = work.timed(lambda: _read(hive.begin(code, collect=False), printed))
    printed.check(code)
    return seconds


def _read(delegation, printed, pause=0.0):
    for message in delegation:
        if message.type == "stream":
            printed.take(message.content["text"])
            time.sleep(pause)
    delegation.outcome()


def cell_prints(size):
    code = work.prints(size)
    printed = work.Printed()
    with kernel() as home:
        home.run(f"{_LOAD}\n%hive config max_output=none\n{_DELEGATE}")
        seconds = work.timed(lambda: home.run(f"%%delegate\n{code}", printed.take))
    printed.check(code)
    return [seconds]


def print_cost(size):
    with HiveManager() as hive:
        hive.delegate("1 + 1")
        return [float(hive.delegate(work.timed_prints(size)).value_repr) / size]


def idle_memory(size):
    with HiveManager() as hive:
        for number in range(size):
            hive.delegate("1 + 1", worker=f"w{number}")
        _have_spare(hive)
        pids = []
        for node in hive.nodes.by_name.values():
            pids += [node._process.pid, node._process.supervisor_pid]
        return [work.memory(pids) / size]


def crowd_memory(size):
    return [size * sample for sample in idle_memory(size)]


def flood_unread(size):
    return _flood(size, lambda delegation, printed: (work.settle(), _read(delegation, printed)))


def flood_slow(size):
    return _flood(size, lambda delegation, printed: _read(delegation, printed, work.SLOW))


def _flood(size, read):
    code = work.lines(size)
    printed = work.Printed()
    with HiveManager(max_output=None) as hive:
        hive.delegate("1 + 1")
        grown = work.growth(lambda: read(hive.begin(code, collect=False), printed))
    printed.check(code)
    return [grown]


def load(_size):
    with kernel() as home:
        return work.samples(home.run(work.in_kernel("", _LOAD, 1, warm_up=0)))


def import_package(_size):
    with kernel() as home:
        return work.samples(home.run(work.in_kernel("", "import hive_jupyter", 1, warm_up=0)))


def push(size):
    from tests.bench import values

    value = values.made(size)
    with HiveManager() as hive:
        hive.delegate("import pandas")
        samples = values.moved(lambda: hive.push(x=value), value)
        values.check_moved(value, hive.pull("x")["x"])
        return samples


def pull(size):
    from tests.bench import values

    value = values.made(size)
    with HiveManager() as hive:
        hive.push(x=value)
        values.check_moved(value, hive.pull("x")["x"])
        return values.moved(lambda: hive.pull("x"), value)


def noops_2(size):
    return _mapped(2, work.noops, size)


def noops_8(size):
    return _mapped(8, work.noops, size)


def naps_2(size):
    return _mapped(2, work.naps, size)


def naps_8(size):
    return _mapped(8, work.naps, size)


def _mapped(workers, measure, size):
    with HiveManager() as hive:
        return measure(lambda f, items: list(hive.map(f, items, workers=workers)), size)


def cluster_noops(size):
    from distributed import LocalCluster

    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, HiveManager() as hive:
        on_cluster = {"engine": "dask", "address": cluster.scheduler_address}

        def mapped():
            assert [*range(size)] == list(hive.map(abs, range(size), **on_cluster))

        mapped()
        return work.repeated(mapped, 5)
