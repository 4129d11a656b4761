"""The log on the SSD: where the next needle goes, and what goes for it. Pure.

Positions count on for ever; a position's place in the file is its rest by the size of the log. The log is divided into
segments. Entering a segment gives up all that was there: the oldest of the log. Needles are gathered into chunks, which
are written whole, begin with a block, and lie in one segment.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is to be written: ``size_bytes`` (whole blocks) from ``start`` on."""

    start: int
    size_bytes: int


class Log:
    """Gives out positions, and remembers which slots of the index have been given some.

    Parameters
    ----------
    chunk_bytes: most of a chunk; at most a segment, and whole blocks, as segments are.
    """

    def __init__(self, segments: int, segment_bytes: int, chunk_bytes: int, block_bytes: int) -> None:
        self.size_bytes = segments * segment_bytes
        self.chunk_bytes = chunk_bytes
        self._segments = segments
        self._segment_bytes = segment_bytes
        self._block_bytes = block_bytes
        self._slots: list[array[int]] = [array("I") for _ in range(segments)]
        self._positions: list[array[int]] = [array("Q") for _ in range(segments)]
        self._start = 0
        """Of the chunk that is being gathered."""
        self._used = 0
        self._oldest = 0
        """Number of the oldest segment that has not been given up, counted on as positions are."""
        self._newest = 0

    @property
    def gathered_bytes(self) -> int:
        """Of the chunk that is being gathered."""
        return self._used

    @property
    def chunk_start(self) -> int:
        return self._start

    @property
    def oldest_given_up(self) -> bool:
        """Whether only the segment is left that is being written to."""
        return self._oldest >= self._newest

    def fits(self, size_bytes: int) -> bool:
        """Whether a needle fits into the chunk that is being gathered."""
        room = min(self.chunk_bytes, (self._newest + 1) * self._segment_bytes - self._start)
        return self._used + size_bytes <= room

    def place(self, size_bytes: int) -> int:
        """The position of a needle that fits."""
        position = self._start + self._used
        self._used += size_bytes
        return position

    def note(self, slot: int, position: int) -> None:
        """The needle at this position is in that slot of the index."""
        number = position // self._segment_bytes % self._segments
        self._slots[number].append(slot)
        self._positions[number].append(position)

    def seal(self) -> Chunk:
        """The chunk is complete. Call :meth:`begin` for the next one."""
        chunk = Chunk(self._start, -(-self._used // self._block_bytes) * self._block_bytes)
        self._start += chunk.size_bytes
        self._used = 0
        return chunk

    def begin(self, size_bytes: int) -> list[tuple[int, int]]:
        """Begin a chunk for a needle of this size; returns (slot, position) of what is given up for it."""
        gone: list[tuple[int, int]] = []
        if self._start + size_bytes > (self._newest + 1) * self._segment_bytes:
            self._newest += 1
            self._start = self._newest * self._segment_bytes
            while self._newest - self._oldest >= self._segments:
                gone += self.give_up_oldest()
        return gone

    def give_up_oldest(self) -> list[tuple[int, int]]:
        """Give up the oldest segment: (slot, position) of what was noted there."""
        number = self._oldest % self._segments
        gone = list(zip(self._slots[number], self._positions[number], strict=True))
        self._slots[number], self._positions[number] = array("I"), array("Q")
        self._oldest += 1
        return gone

    def age(self, position: int) -> float:
        """How far a position has come on its way to being given up: 0 of what was just written, 1 at the end."""
        return (self._start + self._used - position) / self.size_bytes
