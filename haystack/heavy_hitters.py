"""The items that come most often in a stream, in bounded memory: the Space-Saving algorithm. Pure.

After A. Metwally, D. Agrawal, A. El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams, ICDT
2005. With ``m`` counters and a stream of the total weight ``N``, at every moment:

- the counts add up to ``N``;
- for an item that is counted: ``count - error <= true weight <= count``;
- an item that is not counted has at most the smallest count, which is at most ``N / m``; so each item with more than
  ``N / m`` is counted.

Halving all counts (:meth:`SpaceSaving.scale`) leaves this true of a stream whose past counts half: it follows a change.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heapreplace, nlargest
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Hitter(Generic[T]):
    """An item with its count, which is too high by at most ``error``."""

    item: T
    count: float
    error: float

    @property
    def certain(self) -> float:
        """What the item has for certain."""
        return self.count - self.error


class SpaceSaving(Generic[T]):
    """At most ``capacity`` counters for a stream of weighted items.

    Parameters
    ----------
    capacity: at least 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a sketch needs at least one counter, not {capacity}")
        self._capacity = capacity
        self._counts: dict[T, float] = {}
        self._errors: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        """One entry a counter, with its count as it was at some time: it has only grown since, so the smallest entry
        that is still true is the smallest counter. The number in the middle keeps items from being compared."""
        self._number = 0
        self.total = 0.0

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[Hitter[T]]:
        return (Hitter(item, count, self._errors[item]) for item, count in self._counts.items())

    def add(self, item: T, weight: float = 1.0) -> None:
        """Count an item. Raises ValueError for a weight that is not above 0."""
        if not weight > 0.0:
            raise ValueError(f"an item of weight {weight} cannot be counted")
        self.total += weight
        if item in self._counts:
            self._counts[item] += weight
            return
        self._number += 1
        if len(self._counts) < self._capacity:
            self._counts[item], self._errors[item] = weight, 0.0
            self._heap.append((weight, self._number, item))
            if len(self._counts) == self._capacity:
                heapify(self._heap)
            return
        least = self._settle_least()
        victim = self._heap[0][2]
        del self._counts[victim], self._errors[victim]
        self._counts[item], self._errors[item] = least + weight, least
        heapreplace(self._heap, (least + weight, self._number, item))

    def least(self) -> float:
        """Return what an item that is not counted may have at most: 0 while no counter was ever given away."""
        return self._settle_least() if len(self._counts) == self._capacity else 0.0

    def top(self, most: int) -> list[Hitter[T]]:
        """Return the items with the highest counts, highest first; equal ones in the order in which they came in."""
        return nlargest(most, self, key=lambda one: one.count)

    def scale(self, factor: float) -> None:
        """Multiply everything by a factor above 0 and at most 1. Raises ValueError."""
        if not 0.0 < factor <= 1.0:
            raise ValueError(f"counts can be scaled by more than 0 and at most 1, not by {factor}")
        self.total *= factor
        for counts in (self._counts, self._errors):
            for item in counts:
                counts[item] *= factor
        self._heap = [(self._counts[item], number, item) for _, number, item in self._heap]
        heapify(self._heap)

    def _settle_least(self) -> float:
        """Bring the smallest counter to the top of the heap and return its count."""
        heap = self._heap
        while True:
            noted, number, item = heap[0]
            count = self._counts[item]
            if count == noted:
                return count
            heapreplace(heap, (count, number, item))
