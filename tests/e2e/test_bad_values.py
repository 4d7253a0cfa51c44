"""Values that cannot be moved, each named, with nothing lost; real workers."""

import gc

import numpy as np
import pandas as pd
import psutil
import pytest

from hive_jupyter import HiveManager, TransferError

SETUP = """
import numpy as np, pandas as pd
fine = 1
generator = (number for number in range(3))
file = open(__import__("os").devnull)
function = lambda: 1
objects = np.array([object(), 1], dtype=object)
recursive = []
recursive.append(recursive)
looped = {}
looped["self"] = [looped]
sparse = pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])})
cells = pd.DataFrame({"thing": [object(), {1: 2}]})
"""


@pytest.fixture(scope="module")
def hive():
    with HiveManager(max_transfer="2G", connect_timeout=60) as hive:
        hive.delegate(SETUP)
        yield hive


@pytest.mark.parametrize(
    "name",
    ["generator", "file", "function", "objects", "recursive", "looped", "sparse", "cells"],
)
def test_what_cannot_be_pulled_is_named_and_nothing_else_is_lost(hive, name):
    with pytest.raises(TransferError, match=f'"{name}"'):
        hive.pull("fine", name)
    assert {"fine": 1} == hive.pull("fine")


def recursive():
    made = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("generator", lambda: (number for number in range(3))),
        ("deep", lambda: pd.DataFrame({"a": [(number for number in "ab")]})),
        ("held", lambda: np.array([(number for number in "ab")], dtype=object)),
    ],
)
def test_what_cannot_be_pushed_is_named_and_nothing_is_pushed(hive, name, make):
    with pytest.raises(TransferError, match=name):
        hive.push(also=1, **{name: make()})
    assert "False" == hive.delegate("'also' in globals()").value_repr


def test_a_structure_that_holds_itself_goes_to_the_worker_as_it_is(hive):
    """The worker may unpickle what comes from here."""
    hive.push(round_trip=recursive())
    assert "True" == hive.delegate("round_trip[0] is round_trip").value_repr


def test_three_gigabytes_do_not_go_into_a_limit_of_two(hive):
    """Said before anything is sent or allocated, on both ways."""
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(TransferError, match=r'"big".*max_transfer'):
        hive.push(big=np.broadcast_to(np.uint8(0), 3 * 10**9))
    hive.delegate("big = np.broadcast_to(np.uint8(0), 3 * 10**9)")
    with pytest.raises(TransferError, match=r'"big".*max_transfer'):
        hive.pull("big")
    gc.collect()
    assert process.memory_info().rss < before + 200 * 2**20
