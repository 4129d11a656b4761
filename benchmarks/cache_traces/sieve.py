"""SIEVE (Zhang et al., NSDI 2024): one list in the order of arrival, one bit a photo, one hand."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import ClassVar, Final

from cache.policies.queues import Queues, grow

_HEAD: Final = 0


class Sieve:
    """The hand goes from the oldest to the newest. What was asked for since it last came by is passed over and stays
    where it is; the first that was not goes. A hit costs one store."""

    name: ClassVar[str] = "SIEVE"
    entry_bytes: ClassVar[int] = 17

    def __init__(self) -> None:
        self._queue = Queues(1)
        self._sizes = array("I")
        self._visited = bytearray()
        self._hand = _HEAD
        """The node that is looked at next; the head: begin with the oldest."""
        self._count = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return self._count

    def resize(self, capacity_bytes: int) -> None:
        """Nothing depends on it."""

    def add(self, entry: int, name_hash: int, size_bytes: int) -> None:
        if entry >= len(self._sizes):
            grow(self._sizes, entry)
            self._visited.extend(bytes(len(self._sizes) - len(self._visited)))
        self._sizes[entry] = size_bytes
        self._visited[entry] = 0
        self._queue.push(_HEAD, entry)
        self._count += 1
        self.total_bytes += size_bytes

    def hits(self, entries: Iterable[int]) -> None:
        visited = self._visited
        known = len(visited)
        for entry in entries:
            if entry < known:  # of an entry that is not in use the bit means nothing
                visited[entry] = 1

    def remove(self, entry: int) -> None:
        if entry < len(self._sizes) and self._sizes[entry]:
            self._take_out(entry)

    def victim(self) -> int | None:
        newer, visited = self._queue.newer, self._visited
        hand = self._hand or newer[_HEAD]
        if hand == _HEAD:
            return None
        while visited[hand - 1]:
            visited[hand - 1] = 0
            hand = newer[hand] or newer[_HEAD]
        self._hand = hand
        entry = hand - 1
        self._take_out(entry)
        return entry

    def _take_out(self, entry: int) -> None:
        if self._hand == entry + 1:
            self._hand = self._queue.newer[entry + 1]
        self._queue.remove(entry)
        self._count -= 1
        self.total_bytes -= self._sizes[entry]
        self._sizes[entry] = 0
