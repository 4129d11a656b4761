"""How large the log of the second level is, and what the level takes of the node's memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.memory.layout import CELL_BYTES, table_cells
from cache.ssd.index import ENTRY_BYTES
from haystack.units import MIB

BLOCK_BYTES: Final = 4096
"""Reads and writes past the page cache are whole blocks; suits all disks."""

CHUNK_BYTES: Final = 2 * MIB
"""Most that is written at once; larger needles are not kept here."""

READING_BYTES: Final = 8 * MIB
"""Of reads under way; what is asked for beyond that is fetched from Stores."""

BYTES_AN_ENTRY_AT_LEAST: Final = 8192
MEMORY_SHARE: Final = 1 / 16
"""Of the node's memory, the most that the index may take."""

LEAST_ENTRIES: Final = 1024
_BESIDE_ENTRY_BYTES: Final = 14 + 16
"""What an entry has in the lists of the log, and among the names that are remembered."""


@dataclass(frozen=True, slots=True)
class SsdPlan:
    """What the level may use.

    Parameters
    ----------
    log_bytes: of the file, behind a first block that says what it is.
    max_entries: photos at most.
    memory_bytes: for index, names that are remembered, and buffers.
    """

    log_bytes: int
    max_entries: int
    memory_bytes: int

    @property
    def file_bytes(self) -> int:
        return BLOCK_BYTES + self.log_bytes


def plan_ssd(ssd_bytes: int, memory_bytes: int) -> SsdPlan:
    """Plan for a file of at most so many bytes (at least 16 MiB).

    Parameters
    ----------
    memory_bytes: of the whole node.
    """
    log_bytes = (ssd_bytes // BLOCK_BYTES - 1) * BLOCK_BYTES
    most = int(memory_bytes * MEMORY_SHARE) // (ENTRY_BYTES + _BESIDE_ENTRY_BYTES + 3 * CELL_BYTES)
    max_entries = max(LEAST_ENTRIES, min(ssd_bytes // BYTES_AN_ENTRY_AT_LEAST, most))
    index_bytes = max_entries * (ENTRY_BYTES + _BESIDE_ENTRY_BYTES) + table_cells(max_entries) * CELL_BYTES
    return SsdPlan(log_bytes, max_entries, index_bytes + 2 * CHUNK_BYTES + READING_BYTES)
