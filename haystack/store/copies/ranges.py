"""What of a volume may be read by others, and how much at a time."""

from __future__ import annotations

from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.units import MIB
from haystack.volume import Volume
from haystack.volume.hashing import hash_blocks, read_exactly

MAX_BYTES = 64 * MIB
"""Of one answer."""

MAX_HASHED_BYTES = 256 * MIB
"""Read for one answer."""

MIN_BLOCK_BYTES = 4 * 1024
PIECE_BYTES = MIB


def durable_tail(volumes: StoreVolumes, entry: StoreVolume) -> int:
    """How far a volume is known to be durable: a boundary between appends."""
    return max(entry.durable_tail, volumes.control.durable_tail(entry.slot))


def read_piece(volume: Volume, start: int, end: int) -> bytes:
    """Exactly these bytes. Blocks. Raises DiskError, also when they are not there."""
    return read_exactly(volume.file, start, end)


def block_hashes(volume: Volume, start: int, end: int, block_bytes: int) -> list[str]:
    """xxh3-64 of each block of a range. Blocks. Raises DiskError."""
    return hash_blocks(volume.file, start, end, block_bytes)
