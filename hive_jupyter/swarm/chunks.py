"""How many items of a map go to a worker at once: pure, without clocks and I/O."""

from __future__ import annotations

import math

# Seconds of work that a worker gets at once: so much that asking for it, some 2 ms, weighs little,
# and so little that nobody waits long for the last one.
WORTH = 0.05
# So much of one worker's work, in seconds, is not shared with others: that would take longer.
_LEAST_WORTH = 0.01
# No message holds more items, or, beyond its first one, more bytes.
MOST = 2000
LARGEST = 8 * 2**20
# So much of what is known of the costs is of the latest chunk.
_WEIGHT = 0.5
# No item costs less, in seconds: not even to describe it.
_LEAST_COST = 1e-5
# How many chunks a worker may be ahead of who takes the results.
_AHEAD = 4
# How many items, where they are dear.
_LEAST_AHEAD = 16


class Pace:
    """
    What the items of a map cost, as measured, and how many go at once for that.

    Args:
        workers: how many there may be.
        worth: seconds of work that one of them gets at once.
    """

    def __init__(self, workers: int, worth: float = WORTH) -> None:
        self._workers = workers
        self._seconds = worth
        self._cost: float | None = None

    def learn(self, items: int, seconds: float) -> None:
        """
        Take note of a chunk.

        Args:
            items: that were finished.
            seconds: that they took together.
        """
        if items < 1 or not 0 <= seconds < math.inf:
            return
        cost = max(seconds / items, _LEAST_COST)
        if self._cost is not None:
            cost = _WEIGHT * cost + (1 - _WEIGHT) * self._cost
        self._cost = cost

    def size(self, waiting: int) -> int:
        """
        How many items the next chunk has: 1 while nothing is known.

        Args:
            waiting: how many there are; no worker takes more than its share of them.
        """
        share = math.ceil(waiting / self._workers)
        return max(1, min(max(share, self._worth(_LEAST_WORTH)), self._worth(self._seconds)))

    @property
    def depth(self) -> int:
        """How many chunks a worker has at once: two, unless to ask for one does not weigh."""
        return 2 if self._cost is None or self._cost <= WORTH else 1

    @property
    def ahead(self) -> int:
        """How many items there may be of which nobody has taken the result yet."""
        return self._workers * max(_LEAST_AHEAD, _AHEAD * self._worth(self._seconds))

    @property
    def cost(self) -> float | None:
        """Seconds that an item takes, as measured; None: nothing is known."""
        return self._cost

    def _worth(self, seconds: float) -> int:
        """How many items are worth so much work."""
        return 1 if self._cost is None else min(MOST, int(seconds / self._cost))
