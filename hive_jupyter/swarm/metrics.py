"""What a node counts."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

# Latencies that are remembered: the latest.
REMEMBERED = 1000


@dataclass(frozen=True)
class MetricsSnapshot:
    """
    A node's numbers at one moment.

    Attributes:
        calls: runs that were asked for. Neither success nor failure are those that go on, that were
            stopped before they began, or with their worker, and that an open circuit refused.
        successes: runs that the worker answered. That the user's own code raised is an answer.
        failures: deaths of the worker that nobody asked for, during a run or between two, and
            starts that failed, whether a run waited for them or not.
        restarts: starts after the first one.
        p50: seconds that half of the latest answered runs took at most; None before the first.
        p95: the same for 95 of 100.
        last_error: the latest failure's message, or None.
    """

    calls: int
    successes: int
    failures: int
    restarts: int
    p50: float | None
    p95: float | None
    last_error: str | None


class Metrics:
    """Counts what happens to one node; ``snapshot`` shows it."""

    def __init__(self) -> None:
        self.calls = 0
        self.successes = 0
        self.failures = 0
        self.restarts = 0
        self.last_error: str | None = None
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    def call(self) -> None:
        """A run is asked for."""
        self.calls += 1

    def success(self, seconds: float) -> None:
        """The worker answered a run that took so long."""
        self.successes += 1
        self._latencies.append(seconds)

    def failure(self, error: str) -> None:
        """The worker died, and nobody asked for that, or could not be started."""
        self.failures += 1
        self.last_error = error

    def restart(self) -> None:
        """The worker was started again."""
        self.restarts += 1

    def snapshot(self) -> MetricsSnapshot:
        latencies = sorted(self._latencies)
        return MetricsSnapshot(
            calls=self.calls,
            successes=self.successes,
            failures=self.failures,
            restarts=self.restarts,
            p50=_percentile(latencies, 50),
            p95=_percentile(latencies, 95),
            last_error=self.last_error,
        )


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The smallest number that so many of 100 do not exceed (nearest rank)."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None
