"""The virtual clock: what is to happen, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

START_MS = 1_767_225_600_000
"""Unix time, in milliseconds, at which every simulation begins: records carry such times."""


@dataclass(slots=True)
class Timer:
    """Something that will happen, unless it is cancelled."""

    action: Callable[[], None]
    cancelled: bool = False


@dataclass(slots=True)
class Clock:
    """Seconds since the start, and the events to come. What is due at the same moment happens in the order given."""

    now_seconds: float = 0.0
    events: int = 0
    _queue: list[tuple[float, int, Timer]] = field(default_factory=list)
    _count: int = 0

    @property
    def now_ms(self) -> int:
        """The time as records carry it."""
        return START_MS + int(self.now_seconds * 1000)

    def at(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Have something happen at a time, now if that is over."""
        timer = Timer(action)
        self._count += 1
        heapq.heappush(self._queue, (max(seconds, self.now_seconds), self._count, timer))
        return timer

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Have something happen after a while."""
        return self.at(self.now_seconds + seconds, action)

    def run_until(self, end_seconds: float) -> None:
        """Let everything happen that is due up to a time."""
        while self._queue and self._queue[0][0] <= end_seconds:
            self.now_seconds, _, timer = heapq.heappop(self._queue)
            if not timer.cancelled:
                self.events += 1
                timer.action()
        self.now_seconds = end_seconds
