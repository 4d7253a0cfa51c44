"""How many items of a map go to a worker at once: pure, without clocks and I/O."""

from __future__ import annotations

import math

# Seconds of work that a worker gets at once: so much that asking for it, some 1 ms, weighs little,
# and so little that nobody waits long for the results.
WORTH = 0.125
# So much of one worker's work, in seconds, is not shared with others: that would take longer.
_LEAST_WORTH = 0.01
# As many go at once while the first one tells what they cost: to each worker another number, as all
# would else come back in the same moment, and wait for each other.
_LEAST_PROBE = 4
_PROBES = 9
# No message holds more items, or, beyond its first one, more bytes.
MOST = 2000
LARGEST = 8 * 2**20
# So much of what is known of the costs is of the latest chunk.
_WEIGHT = 0.5
# No item costs less, in seconds: not even to describe it.
_LEAST_COST = 1e-5
# How many chunks a worker may be ahead of who takes the results.
_AHEAD = 4
# How many items before anything is known.
_FIRST_AHEAD = 32
# How many, where they are dear.
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

    def size(self, waiting: int, given: float = 0, held: float = 0) -> int:
        """
        How many items the next chunk of a worker has; 0: none, as it has its share.

        The very first item goes alone, so that what they cost is known soon.

        Args:
            waiting: how many there are.
            given: how many the workers have, and have not done.
            held: how many of those this worker has.
        """
        share = round((waiting + given) / self._workers - held)
        if share <= 0:
            return 0 if held else 1
        if self._cost is None:
            return min(share, _LEAST_PROBE + int(given) % _PROBES) if given else 1
        return max(1, min(max(share, self._worth(_LEAST_WORTH)), self._worth(self._seconds)))

    def done_in(self, seconds: float) -> float:
        """How many items a worker has done after some time, as far as is known."""
        return 0.0 if self._cost is None else seconds / self._cost

    def is_worth_sharing(self, items: int) -> bool:
        """Whether others would have done so many items sooner than the one who has them."""
        return self._cost is not None and items * self._cost > 2 * _LEAST_WORTH

    @property
    def depth(self) -> int:
        """How many chunks a worker has at once: two, where to ask for one would weigh."""
        return 2 if self._cost is not None and self._cost <= WORTH else 1

    @property
    def ahead(self) -> int:
        """How many items there may be of which nobody has taken the result yet."""
        if self._cost is None:
            return self._workers * _FIRST_AHEAD
        return self._workers * max(_LEAST_AHEAD, _AHEAD * self._worth(self._seconds))

    @property
    def cost(self) -> float | None:
        """Seconds that an item takes, as measured; None: nothing is known."""
        return self._cost

    def _worth(self, seconds: float) -> int:
        """How many items are worth so much work."""
        return 1 if self._cost is None else min(MOST, int(seconds / self._cost))
