"""How the memory of a node is shared out. Pure.

The limit covers everything that the node's processes take, as seen from outside: their own memory (Python, connections,
the workers' dictionaries of hot records), the page tables of what they map, the hash table, what one entry costs beside
its bytes, and the arena. What entries cost is set aside as they come to be, block by block, at the arena's expense: a
node with few large photos does not pay for many small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.memory.layout import (
    CELL_BYTES,
    DESCRIPTOR_BYTES,
    GRANULE_BYTES,
    MAX_DATA_BYTES,
    MAX_ENTRIES,
    PAGE_BYTES,
    PINS_START,
    table_cells,
)
from haystack.errors import ConfigError
from haystack.units import MIB, format_size

KEEPER_BYTES: Final = 38 * MIB
"""What the keeper takes beside what is counted here: interpreter and libraries (30 MiB, measured), and fetches."""

WORKER_BYTES: Final = 22 * MIB
"""What each worker takes beside what is counted here: interpreter and libraries (measured: 18 MiB), connections."""

HOT_RECORD_BYTES: Final = 1800
"""What a record takes that a worker keeps in a dictionary of its own, with the prepared head and the request's line."""

HOT_SHARE: Final = 0.01
MIN_HOT_RECORDS: Final = 1024
MAX_HOT_RECORDS: Final = 32_768

BYTES_AN_ENTRY_AT_LEAST: Final = 4096
"""Entries are limited to one for so many bytes: a node full of smaller photos does not use all of its memory."""

PAGE_TABLE_SHARE: Final = CELL_BYTES / PAGE_BYTES
"""A process that maps a page has 8 bytes in its page tables for it."""

MIN_ARENA_BYTES: Final = 8 * MIB
RESERVE_PART: Final = 64
"""One part of so many of the arena is kept free."""

ENTRY_BLOCK: Final = 1024
"""So many entries are opened at once, and their memory set aside."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a limit is shared out; see :func:`plan_memory`.

    Parameters
    ----------
    limit_bytes: everything.
    processes_bytes: allowance for keeper and workers, their hot records and page tables.
    table_bytes: the hash table and the workers' rings.
    entry_bytes: what one entry takes beside the arena, without the policy's part.
    arena_granules: the arena, when no entry was opened yet.
    max_photo_bytes: data of the largest photo that is kept.
    hot_records: how many records each worker may keep for itself.
    """

    limit_bytes: int
    workers: int
    processes_bytes: int
    table_bytes: int
    entry_bytes: int
    max_entries: int
    arena_granules: int
    max_photo_bytes: int
    hot_records: int

    @property
    def arena_bytes(self) -> int:
        return self.arena_granules * GRANULE_BYTES

    @property
    def reserve_granules(self) -> int:
        """Granules that are kept free, so that a photo need not wait until what is evicted for it is out of use."""
        return self.arena_granules // RESERVE_PART


def plan_memory(memory_bytes: int, workers: int, max_share: float = 1 / 64, *, beside_bytes: int = 0) -> MemoryPlan:
    """Share out the memory of a node.

    Parameters
    ----------
    memory_bytes: the limit for all processes of the node together.
    workers: at least 1.
    max_share: photos larger than this share of the memory are not kept.
    beside_bytes: what the keeper needs for other things, such as a second level.

    Raises ConfigError when the processes would leave too little for photos.
    """
    hot_records = int(memory_bytes * HOT_SHARE / workers / HOT_RECORD_BYTES)
    hot_records = max(MIN_HOT_RECORDS, min(hot_records, MAX_HOT_RECORDS))
    page_tables_bytes = int(memory_bytes * PAGE_TABLE_SHARE * (workers + 1))
    processes_bytes = KEEPER_BYTES + workers * (WORKER_BYTES + hot_records * HOT_RECORD_BYTES) + page_tables_bytes
    processes_bytes += beside_bytes
    max_entries = min(MAX_ENTRIES, max(ENTRY_BLOCK, memory_bytes // BYTES_AN_ENTRY_AT_LEAST))
    table_bytes = table_cells(max_entries) * CELL_BYTES + workers * PINS_START
    arena_bytes = memory_bytes - processes_bytes - table_bytes
    if arena_bytes < MIN_ARENA_BYTES:
        raise ConfigError(
            f"[cache] memory of {format_size(memory_bytes)} is too little for {workers} worker(s): the processes take "
            f"{format_size(processes_bytes + table_bytes)} of it. Set at least "
            f"{format_size(memory_bytes - arena_bytes + 4 * MIN_ARENA_BYTES)}, or fewer workers"
        )
    return MemoryPlan(
        limit_bytes=memory_bytes,
        workers=workers,
        processes_bytes=processes_bytes,
        table_bytes=table_bytes,
        entry_bytes=DESCRIPTOR_BYTES + 2 * workers + 4,
        max_entries=max_entries,
        arena_granules=arena_bytes // GRANULE_BYTES,
        max_photo_bytes=max(0, min(int(memory_bytes * max_share), arena_bytes // 8, MAX_DATA_BYTES)),
        hot_records=hot_records,
    )
