"""Entries that are out of force, and when their space may be used again. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from cache.memory.layout import Runs

GRACE_SECONDS: Final = 0.002
"""After so long every processor has seen that an entry is out of force, and we see who had begun to look at it before.
Stores become visible within a microsecond; a process that is held up has made its stores visible before."""


class Limbo:
    """First an entry waits until nobody looks at it who may have found it while it was in force, and then until nobody
    has it pinned. Pins are looked at a grace later than the lookers, because a worker pins before it looks elsewhere.

    Parameters
    ----------
    free: called with entry and runs when both may be used again.
    """

    def __init__(self, free: Callable[[int, Runs], None]) -> None:
        self._free = free
        self._voided: deque[tuple[float, int, Runs, int]] = deque()
        self._unseen: deque[tuple[float, int, Runs, int]] = deque()
        self.granules = 0
        self.pinned_granules = 0
        """Of what waits, what waits for pins as far as the last look showed."""

    @property
    def soon_granules(self) -> int:
        """What waits, without what readers may hold on to for as long as they like."""
        return self.granules - self.pinned_granules

    def __len__(self) -> int:
        return len(self._voided) + len(self._unseen)

    def add(self, entry: int, runs: Runs, now: float) -> None:
        """An entry was voided right now."""
        granules = sum(length for _, length in runs)
        self._voided.append((now, entry, runs, granules))
        self.granules += granules

    def release(self, looking_at: Collection[int], pinned: Callable[[int], bool], now: float) -> int:
        """Free what nobody can be using any more; returns the number of granules.

        Parameters
        ----------
        looking_at: entries that workers are looking at, read after ``now``.
        pinned: whether any worker has an entry pinned.
        """
        freed = self._free_unpinned(pinned, now)
        for _ in range(len(self._voided)):
            voided = self._voided[0]
            if voided[0] + GRACE_SECONDS > now:
                break
            self._voided.popleft()
            if voided[1] in looking_at:
                self._voided.append((now, *voided[1:]))  # its turn comes again in a grace
            else:
                self._unseen.append((now, *voided[1:]))
        return freed

    def _free_unpinned(self, pinned: Callable[[int], bool], now: float) -> int:
        freed = held = 0
        for _ in range(len(self._unseen)):
            since, entry, runs, granules = self._unseen.popleft()
            if since + GRACE_SECONDS <= now and not pinned(entry):
                self.granules -= granules
                freed += granules
                self._free(entry, runs)
            else:
                self._unseen.append((since, entry, runs, granules))
                if since + GRACE_SECONDS <= now:
                    held += granules
        self.pinned_granules = held
        return freed
