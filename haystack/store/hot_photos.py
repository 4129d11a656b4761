"""Which photos of this Store are read most, and how often each was read, from the samples of its workers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from haystack.heavy_hitters import SpaceSaving

COUNTERS: Final = 1024
"""Photos that are counted at once: one with more than a thousandth of the reads is among them for certain."""

HALVED_SECONDS: Final = 300.0
"""How often the past comes to count half, as a rule."""

MIN_READS: Final = 2.0
"""Photos with fewer reads, for certain, are not told of."""


class HotPhotos:
    """The photos that are read most.

    Parameters
    ----------
    now_seconds: the time at which the counting begins, by a clock that never goes back.
    halved_seconds: how often the past comes to count half.
    """

    def __init__(self, now_seconds: float, halved_seconds: float = HALVED_SECONDS) -> None:
        self._halved_seconds = halved_seconds
        self._sketch = SpaceSaving[int](COUNTERS)
        self._seen_seconds = 0.0
        """Time that the counts are of; it is halved with them, so that count over time is a rate at any moment."""
        self._last_seconds = now_seconds
        self._halve_seconds = now_seconds + halved_seconds

    def take(self, samples: Iterable[tuple[int, int]], now_seconds: float) -> None:
        """Count what was sampled up to now: keys, and how many reads each stands for."""
        self._seen_seconds += max(0.0, now_seconds - self._last_seconds)
        self._last_seconds = max(self._last_seconds, now_seconds)
        while now_seconds >= self._halve_seconds:
            self._sketch.scale(0.5)
            self._seen_seconds /= 2
            self._halve_seconds += self._halved_seconds
        for key, weight in samples:
            if weight > 0:
                self._sketch.add(key, weight)

    def rates(self, most: int) -> dict[int, float]:
        """Return reads a second by key, of those that are read most, as far as they are certain."""
        if self._seen_seconds <= 0.0:
            return {}
        found = sorted(self._sketch, key=lambda one: -one.certain)[:most]
        return {one.item: one.certain / self._seen_seconds for one in found if one.certain >= MIN_READS}


class Hits:
    """Views by photo since they were last told, approximately.

    Parameters
    ----------
    capacity: photos that are kept; reads of others are not counted until there is room.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._hits: dict[int, int] = {}

    def take(self, samples: Iterable[tuple[int, int]]) -> None:
        """Count what was sampled: keys, and how many reads each stands for."""
        hits = self._hits
        for key, weight in samples:
            if key in hits or len(hits) < self._capacity:
                hits[key] = hits.get(key, 0) + weight

    def peek(self, most: int) -> list[tuple[int, int]]:
        """Return hits by photo, those that have waited longest first."""
        return [row for row, _ in zip(self._hits.items(), range(most), strict=False)]

    def told(self, rows: Iterable[tuple[int, int]]) -> None:
        """Take off what was told; what came meanwhile is kept for the next time."""
        for key, hits in rows:
            left = self._hits.pop(key, 0) - hits
            if left > 0:
                self._hits[key] = left
