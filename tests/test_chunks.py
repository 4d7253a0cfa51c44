"""How many items go at once: pure."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.swarm.chunks import MOST, WORTH, Pace

costs = st.floats(1e-7, 1e4)
counts = st.integers(1, 300)


def learned(workers, *chunks):
    pace = Pace(workers)
    for items, seconds in chunks:
        pace.learn(items, seconds)
    return pace


def test_nothing_is_known_of_the_first_ones_so_each_goes_alone():
    assert 1 == Pace(4).size(1000)


def test_cheap_items_go_many_at_a_time_and_dear_ones_alone():
    assert 10 == learned(2, (1, 0.005)).size(1000)
    assert 1 == learned(2, (1, 1.0)).size(1000)


@given(counts, costs, st.integers(0, 10**6))
def test_no_worker_takes_more_than_its_share(workers, cost, waiting):
    size = learned(workers, (1, cost)).size(waiting)

    assert 1 <= size <= MOST
    # but for what is done sooner than shared
    assert size <= max(1, math.ceil(waiting / workers)) or size * cost <= WORTH / 4


@given(counts, costs)
def test_a_chunk_is_worth_no_more_than_it_should_be_and_not_much_less(workers, cost):
    size = learned(workers, (1, cost)).size(10**9)

    assert size == 1 or size * cost <= WORTH * 1.001
    assert size == MOST or (size + 1) * max(cost, 1e-5) > WORTH * 0.999


@given(counts, st.lists(st.tuples(st.integers(1, 1000), costs), min_size=1))
def test_enough_is_ahead_for_each_worker_and_never_without_bounds(workers, chunks):
    pace = learned(workers, *chunks)

    assert 2 * workers <= pace.ahead <= 4 * MOST * workers
    assert pace.ahead >= workers * pace.depth * pace.size(10**9)


def test_the_next_chunk_is_there_before_it_is_asked_for_where_that_would_weigh():
    assert 2 == learned(2).depth
    assert 2 == learned(2, (1, WORTH / 10)).depth
    assert 1 == learned(2, (1, WORTH * 10)).depth


@given(costs, costs)
def test_what_was_measured_last_weighs_most(before, after):
    pace = learned(1, (1, before), *[(1, after)] * 60)

    assert pace.size(10**9) in {learned(1, (1, after)).size(10**9) + step for step in (-1, 0, 1)}


@given(st.sampled_from([math.nan, math.inf, -1.0]), st.integers(-1, 5))
def test_what_cannot_be_is_not_believed(seconds, items):
    pace = learned(2, (items, seconds), (0, 1.0))

    assert 1 == pace.size(1000)
