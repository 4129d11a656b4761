"""The log on the SSD: where the next needle goes, and what goes for it. Pure.

Positions count on for ever; a position's place in the file is its rest by the size of the log. Needles are gathered
into chunks, which are written whole, begin with a block, and do not go over the end of the file. What lies where a
chunk may come is given up before: the oldest of the log, and little at a time.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

_TIDY: Final = 65_536
"""What was taken off the front of a list is removed from it when it is so much, and half of it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is to be written: ``size_bytes`` (whole blocks) from ``start`` on."""

    start: int
    size_bytes: int


class Log:
    """Gives out positions, and remembers which slots of the index have been given some.

    Parameters
    ----------
    size_bytes: whole blocks, and several chunks.
    chunk_bytes: most of a chunk; whole blocks.
    """

    def __init__(self, size_bytes: int, chunk_bytes: int, block_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.chunk_bytes = chunk_bytes
        self._block_bytes = block_bytes
        self._slots = array("I")
        self._positions = array("Q")
        self._taken = 0
        """Of these lists."""
        self._start = 0
        """Of the chunk that is being gathered."""
        self._used = 0
        self._limit = 0
        """Up to there everything was given up."""

    @property
    def gathered_bytes(self) -> int:
        """Of the chunk that is being gathered."""
        return self._used

    @property
    def chunk_start(self) -> int:
        return self._start

    def fits(self, size_bytes: int) -> bool:
        """Whether a needle fits into the chunk that is being gathered."""
        return self._start + self._used + size_bytes <= self._limit

    def place(self, size_bytes: int) -> int:
        """The position of a needle that fits."""
        position = self._start + self._used
        self._used += size_bytes
        return position

    def note(self, slot: int, position: int) -> None:
        """The needle at this position, the last that was given, is in that slot of the index."""
        self._slots.append(slot)
        self._positions.append(position)

    def seal(self) -> Chunk:
        """The chunk is complete; what comes is for the next one."""
        chunk = Chunk(self._start, -(-self._used // self._block_bytes) * self._block_bytes)
        self._start += chunk.size_bytes
        self._used = 0
        return chunk

    def begin(self, size_bytes: int) -> list[tuple[int, int]]:
        """Make room for a chunk, of which nothing was gathered, that a needle of this size fits into.

        Returns (slot, position) of what is given up for it.
        """
        end = (self._start // self.size_bytes + 1) * self.size_bytes
        if self._start + size_bytes > end:
            self._start, end = end, end + self.size_bytes
        self._limit = min(self._start + self.chunk_bytes, end)
        gone = []
        while self._taken < len(self._positions) and self._positions[self._taken] < self._limit - self.size_bytes:
            gone += self.give_up_oldest()
        return gone

    def give_up_oldest(self) -> list[tuple[int, int]]:
        """Give up the oldest needle; none when there is none."""
        if self._taken == len(self._positions):
            return []
        oldest = self._slots[self._taken], self._positions[self._taken]
        self._taken += 1
        if self._taken >= _TIDY and self._taken * 2 >= len(self._positions):
            del self._slots[: self._taken], self._positions[: self._taken]
            self._taken = 0
        return [oldest]

    def age(self, position: int) -> float:
        """How far a position has come on its way to being given up: 0 of what was just written, 1 at the end."""
        return (self._start + self._used - position) / self.size_bytes
