"""LRU in two segments: what was asked for once goes first, then what was not asked for again longest."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar, Final

from cache.policies.queues import Queues, grow

PROTECTED_SHARE: Final = 0.8
"""Share of the memory for photos that were asked for again."""

ORDER_PARTS: Final = 64

_PROBATION: Final = 0
_PROTECTED: Final = 1


class SegmentedLru:
    """Two lists: a photo that is asked for again moves to the protected one, whose oldest fall back. So what is asked
    for once only, however much of it, pushes nothing out that was asked for twice."""

    name: ClassVar[str] = "lru"
    entry_bytes: ClassVar[int] = 19

    def __init__(self) -> None:
        self._queues = Queues(2)
        self._sizes = array("I")
        self._where = bytearray()
        self._moved = bytearray()
        """Which photos were moved to the front of the protected list since a 64th of all photos was added. Where they
        stand among those makes no difference worth its price: a hit that moves nothing costs a sixth."""
        self._added = 0
        self._count = 0
        self._protected_bytes = 0
        self._protected_limit_bytes = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return self._count

    def resize(self, capacity_bytes: int) -> None:
        self._protected_limit_bytes = int(capacity_bytes * PROTECTED_SHARE)

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._sizes):
            grow(self._sizes, entry)
            self._where.extend(bytes(len(self._sizes) - len(self._where)))
            self._moved.extend(bytes(len(self._sizes) - len(self._moved)))
        self._sizes[entry] = size_bytes
        self._where[entry] = _PROBATION
        self._queues.push(_PROBATION, entry)
        self._count += 1
        self.total_bytes += size_bytes
        self._added += 1
        if self._added * ORDER_PARTS > self._count:
            self._added = 0
            self._moved = bytearray(len(self._moved))

    def hits(self, entries: Iterable[int]) -> None:
        queues, sizes, where, moved = self._queues, self._sizes, self._where, self._moved
        known = len(sizes)
        for entry in entries:
            if entry >= known or moved[entry] or not sizes[entry]:
                continue
            queues.remove(entry)
            queues.push(_PROTECTED, entry)
            moved[entry] = True
            if where[entry] == _PROBATION:
                where[entry] = _PROTECTED
                self._protected_bytes += sizes[entry]
                if self._protected_bytes > self._protected_limit_bytes:
                    self._fall_back()

    def remove(self, entry: int) -> None:
        if entry < len(self._sizes) and self._sizes[entry]:
            self._queues.remove(entry)
            self._forget(entry)

    def victim(self) -> int | None:
        entry = self._queues.pop(_PROBATION)
        if entry is None:
            entry = self._queues.pop(_PROTECTED)
        if entry is not None:
            self._forget(entry)
        return entry

    def _fall_back(self) -> None:
        while self._protected_bytes > self._protected_limit_bytes:
            entry = self._queues.pop(_PROTECTED)
            if entry is None:
                break
            self._where[entry] = _PROBATION
            self._moved[entry] = False
            self._protected_bytes -= self._sizes[entry]
            self._queues.push(_PROBATION, entry)

    def _forget(self, entry: int) -> None:
        size_bytes = self._sizes[entry]
        self._count -= 1
        self.total_bytes -= size_bytes
        if self._where[entry] == _PROTECTED:
            self._protected_bytes -= size_bytes
        self._moved[entry] = False
        self._sizes[entry] = 0
