"""W-TinyLFU (Einziger et al., 2017): a small LRU for what is new, and a main part that admits by frequency."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar, Final

from cache.policies.queues import Queues, grow

WINDOW_SHARE: Final = 0.01
PROTECTED_SHARE: Final = 0.8
_MOST: Final = 15
_SAMPLE: Final = 10
"""Requests a photo that is kept, after which all counts are halved."""

_HALVED: Final = bytes(value // 2 for value in range(256))
_SEEDS: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_MASK: Final = 2**64 - 1
_LEAST_COUNTERS: Final = 4096

_WINDOW: Final = 0
_PROBATION: Final = 1
_PROTECTED: Final = 2


class Sketch:
    """Counts how often names were asked for, never too low, for all names in the same few bytes."""

    def __init__(self) -> None:
        self._rows = [bytearray(_LEAST_COUNTERS) for _ in _SEEDS]
        self._shift = 64 - (_LEAST_COUNTERS.bit_length() - 1)
        self._counted = 0
        self._sample = _SAMPLE * _LEAST_COUNTERS

    def fit(self, photos: int) -> None:
        """Have two counters a row for each photo; counting begins anew when there were fewer."""
        counters = len(self._rows[0])
        if 2 * photos <= counters:
            return
        counters = 1 << (4 * photos - 1).bit_length()
        self._rows = [bytearray(counters) for _ in _SEEDS]
        self._shift = 64 - (counters.bit_length() - 1)
        self._counted = 0
        self._sample = _SAMPLE * counters // 2

    def count(self, name_hash: int) -> None:
        shift = self._shift
        for row, seed in zip(self._rows, _SEEDS, strict=True):
            place = (name_hash * seed & _MASK) >> shift
            if row[place] < _MOST:
                row[place] += 1
        self._counted += 1
        if self._counted >= self._sample:
            self._counted //= 2
            self._rows = [row.translate(_HALVED) for row in self._rows]

    def frequency(self, name_hash: int) -> int:
        shift = self._shift
        return min(row[(name_hash * seed & _MASK) >> shift] for row, seed in zip(self._rows, _SEEDS, strict=True))


class TinyLfu:
    """What leaves the window stays only when it was asked for more often than what it would push out."""

    name: ClassVar[str] = "W-TinyLFU"
    entry_bytes: ClassVar[int] = 50

    def __init__(self) -> None:
        self._queues = Queues(3)
        self._sizes = array("I")
        self._hashes = array("Q")
        self._where = bytearray()
        self._sketch = Sketch()
        self._bytes = [0, 0, 0]
        self._count = 0
        self._window_limit_bytes = 0
        self._main_limit_bytes = 0
        self._protected_limit_bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def total_bytes(self) -> int:
        return sum(self._bytes)

    def resize(self, capacity_bytes: int) -> None:
        self._window_limit_bytes = int(capacity_bytes * WINDOW_SHARE)
        self._main_limit_bytes = capacity_bytes - self._window_limit_bytes
        self._protected_limit_bytes = int(self._main_limit_bytes * PROTECTED_SHARE)

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._sizes):
            grow(self._sizes, entry)
            grow(self._hashes, entry)
            self._where.extend(bytes(len(self._sizes) - len(self._where)))
            self._sketch.fit(len(self._sizes))
        name_hash &= _MASK
        self._sizes[entry] = size_bytes
        self._hashes[entry] = name_hash
        self._sketch.count(name_hash)
        self._count += 1
        self._put(_WINDOW, entry)
        while self._bytes[_WINDOW] > self._window_limit_bytes and self._main_has_room():
            self._move(_WINDOW, _PROBATION)

    def hits(self, entries: Iterable[int]) -> None:
        sizes, where, hashes, count = self._sizes, self._where, self._hashes, self._sketch.count
        known = len(sizes)
        for entry in entries:
            if entry >= known or not sizes[entry]:
                continue
            count(hashes[entry])
            queue = where[entry]
            self._take_out(entry)
            self._put(_WINDOW if queue == _WINDOW else _PROTECTED, entry)
        while self._bytes[_PROTECTED] > self._protected_limit_bytes:
            self._move(_PROTECTED, _PROBATION)

    def remove(self, entry: int) -> None:
        if entry < len(self._sizes) and self._sizes[entry]:
            self._take_out(entry)
            self._forget(entry)

    def victim(self) -> int | None:
        queues = self._queues
        for queue in (_PROBATION, _PROTECTED):
            entry = queues.oldest(queue)
            if entry is not None:
                break
        candidate = queues.oldest(_WINDOW)
        if candidate is not None and (entry is None or self._bytes[_WINDOW] > self._window_limit_bytes):
            frequency = self._sketch.frequency
            if entry is None or frequency(self._hashes[candidate]) <= frequency(self._hashes[entry]):
                entry = candidate
            else:
                self._move(_WINDOW, _PROBATION)
        if entry is not None:
            self._take_out(entry)
            self._forget(entry)
        return entry

    def _main_has_room(self) -> bool:
        oldest = self._queues.oldest(_WINDOW)
        wanted = 0 if oldest is None else self._sizes[oldest]
        return self._bytes[_PROBATION] + self._bytes[_PROTECTED] + wanted <= self._main_limit_bytes

    def _put(self, queue: int, entry: int) -> None:
        self._where[entry] = queue
        self._bytes[queue] += self._sizes[entry]
        self._queues.push(queue, entry)

    def _take_out(self, entry: int) -> None:
        self._bytes[self._where[entry]] -= self._sizes[entry]
        self._queues.remove(entry)

    def _move(self, source: int, target: int) -> None:
        entry = self._queues.oldest(source)
        if entry is None:
            self._bytes[source] = 0
            return
        self._take_out(entry)
        self._put(target, entry)

    def _forget(self, entry: int) -> None:
        self._count -= 1
        self._sizes[entry] = 0
