"""When to stop trying a worker that keeps failing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from hive_jupyter.config import HiveConfig


class CircuitBreaker:
    """
    Opens after failures in a row, and after a rest lets one attempt through.

    ::

        closed --failures--> open --time--> half-open --success--> closed
                              ^-----------failure--------'

    Every attempt that ``allow`` let through tells its end: ``success``, ``failure`` or
    ``withdraw``.

    Attributes:
        failures: in a row, up to now.
    """

    def __init__(
        self,
        settings: HiveConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Start closed.

        Args:
            settings: hold ``max_failures`` and ``recovery_time``; a change counts at once.
            clock: returns seconds and never goes back.
        """
        self.failures = 0
        self._settings = settings
        self._clock = clock
        self._opened_at: float | None = None
        self._on_trial = False

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state}, {self.failures} failures in a row>"

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        if self._opened_at is None:
            return "closed"
        return "open" if self.retry_in > 0 else "half-open"

    @property
    def retry_in(self) -> float:
        """Seconds until an attempt may be let through; 0.0 where it is not time that forbids it."""
        if self._opened_at is None:
            return 0.0
        rest: float = self._settings.recovery_time
        return max(0.0, self._opened_at + rest - self._clock())

    def allow(self) -> bool:
        """Whether an attempt may start now; half-open, one at a time may."""
        state = self.state
        if state == "half-open" and not self._on_trial:
            self._on_trial = True
            return True
        return state == "closed"

    def success(self) -> None:
        """The worker did what it should."""
        self.failures = 0
        self._opened_at = None
        self._on_trial = False

    def failure(self) -> None:
        """The worker failed; a latecomer to an open circuit does not prolong its rest."""
        self.failures += 1
        is_one_too_many = self.failures >= self._settings.max_failures
        # a trial whose circuit is open again, as the rest was made longer meanwhile, has ended too
        if (
            self._on_trial
            or self.state == "half-open"
            or (self._opened_at is None and is_one_too_many)
        ):
            self._opened_at = self._clock()
            self._on_trial = False

    def withdraw(self) -> None:
        """An attempt was given up before it showed anything, so the next one may try instead."""
        self._on_trial = False
