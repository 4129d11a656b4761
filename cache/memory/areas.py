"""What the keeper sees of a worker: what it looks at, what it has pinned, what was asked of it."""

from __future__ import annotations

from cache.memory.layout import (
    AREA_CELLS,
    CELL_BYTES,
    LOOKING_CELL,
    PINS_START,
    POSITION_CELL,
    RING_ENTRIES,
    RING_MASK,
    RING_START,
    area_bytes,
)
from cache.memory.shared import SharedMemory


class WorkerArea:
    """The keeper's end of one worker's area. A worker that is started anew gets a new one, so its pins are gone."""

    def __init__(self, max_entries: int) -> None:
        self._shared = SharedMemory("haystack-cache-worker", area_bytes(max_entries))
        view = self._shared.view
        self._cells = view[: AREA_CELLS * CELL_BYTES].cast("Q")
        self._ring = view[RING_START:PINS_START].cast("I")
        self._pins = view[PINS_START:].cast("H")
        self._read = 0
        self.lost_hits = 0

    @property
    def fd(self) -> int:
        return self._shared.fd

    @property
    def allocated_bytes(self) -> int:
        """What it takes of the machine's memory."""
        return self._shared.allocated_bytes

    def looking_at(self) -> int:
        """The entry that the worker may be reading without a pin; -1 for none."""
        return int(self._cells[LOOKING_CELL]) - 1

    def pins(self, entry: int) -> int:
        """How often it has pinned the entry."""
        return int(self._pins[entry])

    def take_hits(self) -> list[int]:
        """The entries that were asked for since the last call, oldest first, but for what the ring could not hold."""
        position = int(self._cells[POSITION_CELL])
        count = position - self._read
        if count > RING_ENTRIES:
            self.lost_hits += count - RING_ENTRIES
            self._read = position - RING_ENTRIES
        start, end = self._read & RING_MASK, position & RING_MASK
        if position == self._read:
            return []
        self._read = position
        if start < end:
            return self._ring[start:end].tolist()
        return self._ring[start:].tolist() + self._ring[:end].tolist()

    def close(self) -> None:
        self._shared.close()
