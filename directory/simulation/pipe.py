"""Transfers that share a bandwidth evenly, as the copies of repair and moves do."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from directory.simulation.clock import Clock, Timer


class Pipe:
    """Transfers under way.

    All are served alike, so what each gets within a while is the same for all: it ends when that, added up since the
    beginning, has grown by its size. So a transfer that comes or goes costs no look at the others.

    Parameters
    ----------
    total_bytes_per_second: of all together. each_bytes_per_second: of one, at most.
    done: told the key of a transfer that has ended.
    """

    def __init__(
        self, clock: Clock, total_bytes_per_second: float, each_bytes_per_second: float, done: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._total = total_bytes_per_second
        self._each = each_bytes_per_second
        self._done = done
        self._served_bytes = 0.0
        self._at_seconds = 0.0
        self._queue: list[tuple[float, int, int]] = []
        self._tickets: dict[int, int] = {}
        self._count = 0
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._tickets)

    def begin(self, key: int, size_bytes: int) -> None:
        """Begin a transfer. A key has one at a time."""
        assert key not in self._tickets
        self._serve()
        self._count += 1
        self._tickets[key] = self._count
        heapq.heappush(self._queue, (self._served_bytes + size_bytes, self._count, key))
        self._schedule()

    def cancel(self, key: int) -> None:
        """End a transfer without more; it may have ended already."""
        self._serve()
        self._tickets.pop(key, None)
        self._schedule()

    def _rate(self) -> float:
        return min(self._each, self._total / max(1, len(self._tickets)))

    def _serve(self) -> None:
        self._served_bytes += (self._clock.now_seconds - self._at_seconds) * (self._rate() if self._tickets else 0.0)
        self._at_seconds = self._clock.now_seconds

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancelled = True
            self._timer = None
        while self._queue and self._tickets.get(self._queue[0][2]) != self._queue[0][1]:
            heapq.heappop(self._queue)
        if self._queue:
            left_bytes = max(0.0, self._queue[0][0] - self._served_bytes)
            self._timer = self._clock.after(left_bytes / self._rate(), self._end_first)

    def _end_first(self) -> None:
        self._timer = None
        self._serve()
        end_bytes, _, key = heapq.heappop(self._queue)
        self._served_bytes = max(self._served_bytes, end_bytes)
        del self._tickets[key]
        self._schedule()
        self._done(key)
