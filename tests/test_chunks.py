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


def test_the_very_first_item_goes_alone_and_then_some_until_their_cost_is_known():
    pace, given, sizes = Pace(8), 0, []
    for _ in range(8):
        sizes.append(pace.size(1000 - given, given))
        given += sizes[-1]

    assert 1 == sizes[0]
    assert all(4 <= size <= 12 for size in sizes[1:])
    # not all come back at once
    assert len(set(sizes)) > 4
    assert 2 == pace.size(15, 1)


def test_cheap_items_go_many_at_a_time_and_dear_ones_alone():
    assert WORTH / 0.005 == learned(2, (1, 0.005)).size(1000)
    assert 1 == learned(2, (1, 1.0)).size(1000)


@given(counts, costs, st.integers(0, 10**6))
def test_no_worker_takes_more_than_its_share(workers, cost, waiting):
    size = learned(workers, (1, cost)).size(waiting)

    assert 1 <= size <= MOST
    # but for what is done sooner than shared
    assert size <= max(1, math.ceil(waiting / workers)) or size * cost <= WORTH / 4


@given(st.integers(1, 20), costs, st.integers(1, 3000), st.integers(1, 2))
def test_who_deals_in_turn_leaves_nobody_without_and_nobody_with_much_more(
    workers, cost, items, depth
):
    pace = learned(workers, (1, cost))
    held = [0] * workers
    for _ in range(depth):
        for number in range(workers):
            waiting = items - sum(held)
            size = pace.size(waiting, sum(held), held[number]) if waiting else 0
            assert size or not waiting or held[number]
            held[number] += min(size, waiting)

    share = items / workers
    assert max(held) <= max(1, share + 0.5, 2 * WORTH / 10 / cost)


def test_a_worker_that_has_its_share_gets_no_more():
    assert 0 == learned(2, (1, 0.005)).size(1, given=9, held=8)
    assert 3 == learned(2, (1, 0.005)).size(1, given=9, held=2)


def test_what_a_worker_has_done_by_now_is_guessed_from_the_costs():
    assert 0 == Pace(2).done_in(10)
    assert 20 == learned(2, (10, 0.05)).done_in(0.1)


def test_little_is_not_worth_sharing():
    assert not Pace(2).is_worth_sharing(1000)
    assert not learned(2, (1, 0.005)).is_worth_sharing(2)
    assert learned(2, (1, 0.005)).is_worth_sharing(10)


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
    assert 1 == learned(2).depth
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
