"""A node's numbers add up."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.swarm.metrics import REMEMBERED, Metrics, MetricsSnapshot


def test_nothing_happened_yet():
    """No latency is not a latency of zero."""
    assert Metrics().snapshot() == MetricsSnapshot(0, 0, 0, 0, None, None, None)


def test_everything_is_counted():
    """Each event in its own place."""
    metrics = Metrics()
    for seconds in (1.0, 2.0, 3.0):
        metrics.call()
        metrics.success(seconds)
    metrics.call()
    metrics.failure("it died")
    metrics.restart()

    assert metrics.snapshot() == MetricsSnapshot(
        calls=4, successes=3, failures=1, restarts=1, p50=2.0, p95=3.0, last_error="it died"
    )


def test_a_snapshot_stays_as_it_was():
    """It crosses to another thread."""
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.call()

    assert 0 == before.calls
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.calls = 5


def test_only_the_latest_latencies_count():
    """A slow start long ago is forgotten, and memory does not grow."""
    metrics = Metrics()
    metrics.success(1000.0)
    for _ in range(REMEMBERED):
        metrics.success(1.0)

    assert (1.0, 1.0) == (metrics.snapshot().p50, metrics.snapshot().p95)
    assert REMEMBERED + 1 == metrics.snapshot().successes


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_what_they_say(latencies):
    """They are latencies that happened, and so many of 100 are not above them."""
    metrics = Metrics()
    for seconds in latencies:
        metrics.success(seconds)
    snapshot = metrics.snapshot()

    for percent, value in ((50, snapshot.p50), (95, snapshot.p95)):
        assert value in latencies
        assert 100 * sum(seconds <= value for seconds in latencies) >= percent * len(latencies)
        assert 100 * sum(seconds < value for seconds in latencies) < percent * len(latencies)
