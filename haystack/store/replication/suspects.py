"""Stores that did not answer a worker: for a while they are not waited for again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SUSPECT_MS = 3000
"""A suspect is given another chance after so long, when the Directory did not decide meanwhile."""


def monotonic_ms() -> int:
    """Milliseconds by the clock that all processes of the machine share."""
    return time.monotonic_ns() // 1_000_000


class Suspects:
    """For any thread.

    Parameters
    ----------
    clock: monotonic milliseconds.
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ms) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since_ms: dict[str, int] = {}

    def add(self, url: str) -> None:
        """It did not answer."""
        with self._lock:
            self._since_ms[url] = self._clock()

    def clear(self, url: str) -> None:
        """It has answered."""
        if self._since_ms:
            with self._lock:
                self._since_ms.pop(url, None)

    def has(self, url: str, changed_ms: int) -> bool:
        """Whether to fail at once.

        Parameters
        ----------
        changed_ms: when the membership was granted that counts it in; one that is newer than the suspicion knew of it.
        """
        since_ms = self._since_ms.get(url)
        return since_ms is not None and changed_ms <= since_ms and self._clock() - since_ms < SUSPECT_MS
