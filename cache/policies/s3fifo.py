"""S3-FIFO (Yang et al., SOSP 2023): three queues in the order of arrival, two bits a photo."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar, Final

from cache.policies.ghosts import Ghosts
from cache.policies.queues import Queues, grow

SMALL_SHARE: Final = 0.1
"""Share of the memory for what is new."""

MOST_COUNTED: Final = 3
_PROMOTED_AT: Final = 1
"""Hits while it was new that earn a photo a place in the main queue."""

_SMALL: Final = 0
_MAIN: Final = 1


class S3Fifo:
    """New photos come into a small queue. At its end those that were asked for move on to the main queue, the others
    go, but are remembered for a while: when such a one comes again it goes to the main queue at once. At the end of
    the main queue those that were asked for go round once more, at the price of one of their hits."""

    name: ClassVar[str] = "s3fifo"
    entry_bytes: ClassVar[int] = 44

    def __init__(self) -> None:
        self._queues = Queues(2)
        self._sizes = array("I")
        self._hashes = array("I")
        self._counts = bytearray()
        self._where = bytearray()
        self._ghosts = Ghosts()
        self._count = 0
        self._small_bytes = 0
        self._small_limit_bytes = 0
        self._main_limit_bytes = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return self._count

    def resize(self, capacity_bytes: int) -> None:
        self._small_limit_bytes = int(capacity_bytes * SMALL_SHARE)
        self._main_limit_bytes = capacity_bytes - self._small_limit_bytes

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._sizes):
            self._grow(entry)
        self._sizes[entry] = size_bytes
        self._hashes[entry] = name_hash & 0xFFFFFFFF
        self._counts[entry] = 0
        self._count += 1
        self.total_bytes += size_bytes
        if self._ghosts.take(name_hash, self._main_limit_bytes):
            self._where[entry] = _MAIN
            self._queues.push(_MAIN, entry)
        else:
            self._where[entry] = _SMALL
            self._small_bytes += size_bytes
            self._queues.push(_SMALL, entry)

    def hits(self, entries: Iterable[int]) -> None:
        counts = self._counts
        known = len(counts)
        for entry in entries:
            if entry < known and counts[entry] < MOST_COUNTED:
                counts[entry] += 1  # of an entry that is not in use it means nothing

    def remove(self, entry: int) -> None:
        if entry < len(self._sizes) and self._sizes[entry]:
            self._queues.remove(entry)
            self._forget(entry)

    def victim(self) -> int | None:
        entry = None
        if self._small_bytes >= self._small_limit_bytes:
            entry = self._victim_of_small()
        if entry is None:
            entry = self._victim_of_main()
        if entry is None:
            entry = self._victim_of_small()
        if entry is None:
            entry = self._victim_of_main()
        if entry is not None:
            self._forget(entry)
        return entry

    def _victim_of_small(self) -> int | None:
        queues, counts = self._queues, self._counts
        while (entry := queues.pop(_SMALL)) is not None:
            if counts[entry] < _PROMOTED_AT:
                self._ghosts.add(self._hashes[entry], self._sizes[entry])
                return entry
            counts[entry] = 0
            self._where[entry] = _MAIN
            self._small_bytes -= self._sizes[entry]
            queues.push(_MAIN, entry)
        return None

    def _victim_of_main(self) -> int | None:
        queues, counts = self._queues, self._counts
        while (entry := queues.pop(_MAIN)) is not None:
            if not counts[entry]:
                return entry
            counts[entry] -= 1
            queues.push(_MAIN, entry)
        return None

    def _forget(self, entry: int) -> None:
        size_bytes = self._sizes[entry]
        self._count -= 1
        self.total_bytes -= size_bytes
        if self._where[entry] == _SMALL:
            self._small_bytes -= size_bytes
        self._sizes[entry] = 0

    def _grow(self, entry: int) -> None:
        grow(self._sizes, entry)
        grow(self._hashes, entry)
        missing = len(self._sizes) - len(self._counts)
        self._counts.extend(bytes(missing))
        self._where.extend(bytes(missing))
        self._ghosts.fit(len(self._sizes))
