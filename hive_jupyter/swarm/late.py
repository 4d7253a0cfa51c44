"""What the threads and tasks of a run say after its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hive_jupyter.swarm.messages import OUTPUTS, Message, Sink, joined

log = logging.getLogger(__name__)

# How many runs of a worker may still say something after their end.
_REMEMBERED = 1000
# It is handed on so often (seconds), and so many messages at a time: above 1000 a second
# jupyter_server drops some.
_INTERVAL = 0.05
_BATCH = 25
_RATE = _BATCH / _INTERVAL
# So much may wait (messages and bytes) before no more is read from the worker. While a run is on
# it is read all the same: then the oldest output is left out once twice as much waits.
_MOST_MESSAGES = 4000
_MOST_BYTES = 32 * 2**20
# Text is joined up to here (bytes).
_LARGEST_PIECE = 2**20

# A value and an exception belong to a run that has not ended.
_LATE = OUTPUTS - {"execute_result", "error"}


@dataclass
class LateOutput:
    """
    Hands late messages on at a pace that every front-end can follow. Belongs to one loop.

    Args:
        hold: is called with True when too much waits, and with False when it does no more.
    """

    hold: Callable[[bool], None]
    _sinks: dict[str, Sink] = field(default_factory=dict)
    _waiting: deque[tuple[Sink, Message]] = field(default_factory=deque)
    _bytes: int = 0
    _timer: asyncio.TimerHandle | None = None
    _next_turn: float = 0.0
    _holds: bool = False
    _left_out: int = 0

    def expect(self, key: str, sink: Sink) -> None:
        """From now on the run of that key is over; what it still says goes to ``sink``."""
        self._sinks[key] = sink
        if len(self._sinks) > _REMEMBERED:
            del self._sinks[next(iter(self._sinks))]

    def sink_of(self, key: str) -> Sink | None:
        """Who takes what the run of that key still says."""
        return self._sinks.get(key)

    def take(self, key: str, message: Message) -> None:
        """Hand a message on soon, if it belongs to one of these runs."""
        sink = self._sinks.get(key)
        if sink is not None and message.type in _LATE:
            self.add(sink, message)

    def add(self, sink: Sink, message: Message) -> None:
        """Hand a message on soon; what is no output at once, for somebody moves a slider."""
        self._waiting.append((sink, message))
        self._bytes += message.size
        if message.type not in OUTPUTS and len(self._waiting) == 1 and self._is_slow():
            self._hand_on_next()
        elif self._timer is None:
            self._hand_on_later()
        if self._is_more_than(1):
            self._holds = True
            self.hold(True)
        while self._is_more_than(2) and self._leave_out_oldest():
            self._left_out += 1

    def has_room(self) -> bool:
        """Whether more can wait; what is not added because it cannot is told of as left out."""
        is_full = self._is_more_than(2)
        self._left_out += is_full
        return not is_full

    def close(self) -> None:
        """Hand on what waits; nothing more will come."""
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            self._hand_on_next()

    def _is_more_than(self, times: int) -> bool:
        messages, size = len(self._waiting), self._bytes
        return messages > times * _MOST_MESSAGES or size > times * _MOST_BYTES

    def _leave_out_oldest(self) -> bool:
        """Only output: a front-end waits for ever for the rest."""
        for place, (_, message) in enumerate(self._waiting):
            if message.type in OUTPUTS:
                self._bytes -= message.size
                del self._waiting[place]
                return True
        return False

    def _is_slow(self) -> bool:
        """Whether one more at once is not too many."""
        now = time.monotonic()
        self._next_turn = max(self._next_turn, now - _INTERVAL) + 1 / _RATE
        return self._next_turn <= now

    def _hand_on_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._hand_on)

    def _hand_on(self) -> None:
        self._timer = None
        for _ in range(_BATCH):
            if self._waiting:
                self._hand_on_next()
        if self._waiting:
            self._hand_on_later()
        elif self._holds:
            self._holds = False
            self.hold(False)

    def _hand_on_next(self) -> None:
        sink, message = self._waiting.popleft()
        messages, size = [message], message.size
        while self._waiting and size < _LARGEST_PIECE and self._continues(sink, message):
            messages.append(self._waiting.popleft()[1])
            size += messages[-1].size
        self._bytes -= size
        left_out, self._left_out = self._left_out, 0
        try:
            if left_out:
                text = (
                    f"{left_out} messages came faster than they can be shown, and are left out.\n"
                )
                sink(Message("stream", {"name": "stderr", "text": text}))
            sink(joined(messages))
        except Exception as error:  # the cell's kernel is going, its stdout was closed
            log.info("late output was lost: %s", error)

    def _continues(self, sink: Sink, message: Message) -> bool:
        next_sink, following = self._waiting[0]
        return next_sink == sink and following.continues(message)
