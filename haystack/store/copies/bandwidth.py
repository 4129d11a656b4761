"""A limit on bytes a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Bandwidth:
    """A token bucket: a second's worth may be used at once, then no more than the rate.

    Parameters
    ----------
    bytes_per_second: the rate; None for no limit.
    clock: monotonic seconds.
    sleep: waits for that many seconds.
    """

    def __init__(
        self,
        bytes_per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._tokens = bytes_per_second or 0.0
        self._filled_at = clock()

    def limit(self, bytes_per_second: float | None) -> None:
        """Go on at another rate."""
        if bytes_per_second != self._rate:
            self.due_seconds(0)  # what was earned at the old one
            self._tokens = min(self._tokens, bytes_per_second or 0.0)
            self._rate = bytes_per_second

    def due_seconds(self, count: int) -> float:
        """Take ``count`` bytes; returns for how long to wait before they are used."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._filled_at) * self._rate) - count
        self._filled_at = now
        return max(0.0, -self._tokens / self._rate)

    async def take(self, count: int) -> None:
        """Wait until ``count`` bytes may be used."""
        seconds = self.due_seconds(count)
        if seconds > 0:
            await self._sleep(seconds)
