"""Machines in the order of a number that changes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence


class Ranking:
    """The lowest first; equals by number."""

    def __init__(self, machines: Iterable[int], values: Sequence[float]) -> None:
        self._value = {m: values[m] for m in machines}
        self._order = sorted((value, m) for m, value in self._value.items())

    def __iter__(self) -> Iterator[int]:
        for _, m in self._order:
            yield m

    def remove(self, m: int) -> None:
        """Take a machine out for good, if it is there."""
        value = self._value.pop(m, None)
        if value is not None:
            self._order.pop(bisect_left(self._order, (value, m)))

    def put(self, m: int, value: float) -> None:
        """Put a machine where its new value belongs; one that is not ranked stays out."""
        before = self._value.get(m)
        if before is None or before == value:
            return
        self._order.pop(bisect_left(self._order, (before, m)))
        self._value[m] = value
        insort(self._order, (value, m))
