"""How fast a long walk over a volume may go, and whether it may go on. For threads; blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Cancelled(Exception):
    """Somebody wants the walk to end."""


class Pace:
    """A token bucket that can be stopped: a fiftieth of a second's bytes at once, then no more than the rate.

    Parameters
    ----------
    bytes_per_second: the rate, None for no limit.
    clock: monotonic seconds.
    wait: waits for that many seconds, or until :meth:`stop` if that is earlier.
    """

    BURST_SECONDS = 0.02

    def __init__(
        self,
        bytes_per_second: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._stopped = threading.Event()
        self._clock = clock
        self._wait = wait or self._stopped.wait
        self._rate = bytes_per_second
        self._tokens = (bytes_per_second or 0.0) * self.BURST_SECONDS
        self._filled_at = clock()

    def stop(self) -> None:
        """Have the next :meth:`check` or :meth:`take` raise; from any thread."""
        self._stopped.set()

    def check(self) -> None:
        """Raises Cancelled after :meth:`stop`."""
        if self._stopped.is_set():
            raise Cancelled

    def due_seconds(self, count: int) -> float:
        """Take ``count`` bytes; returns for how long to wait before they are used."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        most = self._rate * self.BURST_SECONDS
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self._rate) - count
        self._filled_at = now
        return max(0.0, -self._tokens / self._rate)

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may be used. Raises Cancelled."""
        seconds = self.due_seconds(count)
        if seconds > 0:
            self._wait(seconds)
        self.check()
