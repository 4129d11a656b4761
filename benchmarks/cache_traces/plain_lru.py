"""LRU in one list, which the segmented one and Varnish are measured against."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar

from cache.policies.queues import Queues, grow


class PlainLru:
    """The one that was not asked for longest goes."""

    name: ClassVar[str] = "plain LRU"
    entry_bytes: ClassVar[int] = 16

    def __init__(self) -> None:
        self._queues = Queues(1)
        self._sizes = array("I")
        self._count = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return self._count

    def resize(self, capacity_bytes: int) -> None:
        """Nothing depends on it."""

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._sizes):
            grow(self._sizes, entry)
        self._sizes[entry] = size_bytes
        self._queues.push(0, entry)
        self._count += 1
        self.total_bytes += size_bytes

    def hits(self, entries: Iterable[int]) -> None:
        sizes, newer, older = self._sizes, self._queues.newer, self._queues.older
        known = len(sizes)
        for entry in entries:
            if entry >= known or not sizes[entry]:
                continue
            node = entry + 1
            after = newer[node]
            if after:  # else it is the newest already
                before = older[node]
                newer[before], older[after] = after, before
                last = older[0]
                newer[node], older[node] = 0, last
                newer[last] = older[0] = node

    def remove(self, entry: int) -> None:
        if entry < len(self._sizes) and self._sizes[entry]:
            self._queues.remove(entry)
            self._forget(entry)

    def victim(self) -> int | None:
        entry = self._queues.pop(0)
        if entry is not None:
            self._forget(entry)
        return entry

    def _forget(self, entry: int) -> None:
        self._count -= 1
        self.total_bytes -= self._sizes[entry]
        self._sizes[entry] = 0
