"""Photo ids: 64-bit numbers that are never handed out twice.

Directory k of N hands out the numbers that leave the rest k when divided by N, so that several need not talk to each
other. A block is reserved durably before the first id of it is handed out; a restart goes on behind the last reserved
block. Id 0 is never used.

Uploads may carry keys of the client's own choice, and a Directory may have lost its disk. So a Store reports the
highest key of each of its volumes, and the sequence goes on above it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from directory.errors import NothingWritable
from directory.storage.committer import Committer
from directory.storage.interface import Draft, Storage, Table, scan_all
from directory.storage.tables import IDS_PREFIX, ids_key

BLOCK_IDS = 10_000
MAX_ID = 2**62
"""Ids stay below it. At a million a second this lasts for 146,000 years."""

MAX_JUMP = 2**48
"""A reported key farther above the sequence than this is a client's own invention: ids never get there by counting, and
following it would let one upload use up the numbers."""

LOSS_MARGIN = 2**32
"""Distance kept from a reported key that the reservations do not account for. It means that they were lost, and other
Stores, which have not reported yet, may hold higher keys."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Block:
    """Reserved ids: those of this Directory's rest class from ``start`` up to, but without, ``end``."""

    start: int
    end: int


def first_at_or_above(number: int, index: int, count: int) -> int:
    """Return the lowest id above 0 that is at least ``number`` and leaves the rest ``index`` divided by ``count``."""
    number = max(number, 1)
    return number + (index - number) % count


def reserve_block(draft: Draft, index: int, count: int, floor: int, block_ids: int = BLOCK_IDS) -> Block:
    """Reserve the next ``block_ids`` ids at or above ``floor``. Raises NothingWritable when there are none left."""
    key = ids_key(index, count)
    start = first_at_or_above(max(draft.get(Table.META, key) or 0, floor), index, count)
    end = start + block_ids * count
    if end > MAX_ID:
        raise NothingWritable("the photo ids of this cluster are used up; no photo can be added")
    draft.put(Table.META, key, end)
    return Block(start, end)


def reserved_by_others(storage: Storage, index: int, count: int) -> int:
    """Return the lowest id that no reservation made with another number of Directories covers.

    When the number of Directories changes, the rest classes change, and what was reserved under the old ones is avoided
    as a whole.
    """
    own_suffix = f"/{count}"
    ends = [
        stored.value
        for key, stored in scan_all(storage, Table.META)
        if (name := key.decode()).startswith(IDS_PREFIX) and not name.endswith(own_suffix)
    ]
    return max(ends, default=0)


class IdSequence:
    """The ids that are reserved and not handed out yet. Without I/O."""

    def __init__(self, index: int, count: int, floor: int = 0) -> None:
        self._index = index
        self._count = count
        self._blocks: deque[Block] = deque()
        self._next = first_at_or_above(floor, index, count)

    @property
    def next_id(self) -> int:
        """The lowest id that may still be handed out."""
        return self._next

    @property
    def reserved_end(self) -> int:
        """The end of the last reserved block, 0 without any."""
        return self._blocks[-1].end if self._blocks else 0

    @property
    def remaining(self) -> int:
        """The number of ids that can be taken without a further reservation."""
        total = 0
        for block in self._blocks:
            total += max(0, block.end - max(block.start, self._next) + self._count - 1) // self._count
        return total

    def add(self, block: Block) -> None:
        """Add a block that has been reserved durably, above all earlier ones."""
        if block.start < self.reserved_end:
            raise ValueError(f"block {block} begins below the reserved end {self.reserved_end}")
        self._blocks.append(block)

    def take(self) -> int | None:
        """Return an id, or None when a block must be reserved first."""
        while self._blocks:
            block = self._blocks[0]
            taken = self._next if self._next >= block.start else block.start
            if taken < block.end:
                self._next = taken + self._count
                return taken
            self._blocks.popleft()
        return None

    def raise_above(self, key: int) -> None:
        """Hand out only ids above ``key`` from now on."""
        if key >= self._next:
            self._next = first_at_or_above(key + 1, self._index, self._count)


class IdAllocator:
    """Hands out ids and reserves the blocks for them, the next one before the last is used up."""

    def __init__(self, storage: Storage, committer: Committer, *, index: int = 0, count: int = 1) -> None:
        self._committer = committer
        self._index = index
        self._count = count
        own_end = storage.get(Table.META, ids_key(index, count))
        floor = max(own_end.value if own_end else 0, reserved_by_others(storage, index, count))
        self._sequence = IdSequence(index, count, floor)
        self._refill: asyncio.Task[None] | None = None

    @property
    def next_id(self) -> int:
        """The lowest id that may still be handed out."""
        return self._sequence.next_id

    def take_now(self) -> int | None:
        """Return an id if one is reserved. Usually one is: this is the way without a switch of tasks."""
        taken = self._sequence.take()
        if self._low():
            self._start_refill()
        return taken

    async def take(self) -> int:
        """Return an id, after reserving a block if need be. Raises what the storage raises, and NothingWritable."""
        while True:
            taken = self.take_now()
            if taken is not None:
                return taken
            await asyncio.shield(self._start_refill())

    def raise_above(self, keys: Iterable[int]) -> None:
        """Go on above keys that are in use; those that are absurdly high do not count."""
        highest = max((key for key in keys if self._credible(key)), default=0)
        self._sequence.raise_above(highest)

    def raise_above_reported(self, key: int) -> None:
        """As :meth:`raise_above`, for the highest key of a volume that registers: it also shows when we lost track."""
        if not self._credible(key):
            log.warning("key %x is far above all photo ids (next: %x): not counted as one", key, self.next_id)
            return
        # With several Directories a key beyond our own blocks is an ordinary one of another Directory.
        lost_track = self._count == 1 and key >= max(self._sequence.reserved_end, self._sequence.next_id)
        self._sequence.raise_above(key + LOSS_MARGIN if lost_track and key else key)

    async def close(self) -> None:
        """Wait for a reservation that is under way."""
        if self._refill is not None:
            await asyncio.wait([self._refill])

    def _credible(self, key: int) -> bool:
        return key - self._sequence.next_id <= MAX_JUMP

    def _low(self) -> bool:
        return (self._sequence.reserved_end - self._sequence.next_id) // self._count < BLOCK_IDS // 2

    def _start_refill(self) -> asyncio.Task[None]:
        if self._refill is None or self._refill.done():
            self._refill = asyncio.get_running_loop().create_task(self._reserve())
            self._refill.add_done_callback(_report)
        return self._refill

    async def _reserve(self) -> None:
        floor = self._sequence.next_id
        index, count = self._index, self._count
        await self._committer.run(lambda draft: reserve_block(draft, index, count, floor), self._sequence.add)


def _report(task: asyncio.Task[None]) -> None:
    """Log a reservation that failed: perhaps nobody waits for it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cannot reserve photo ids: %s", error)
