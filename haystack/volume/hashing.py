"""Bytes of a volume file as they are, and hashes over them, by which copies are compared. Everything here blocks."""

from __future__ import annotations

import xxhash

from haystack.errors import DiskError
from haystack.volume.files import VolumeFile

PIECE_BYTES = 2**20
"""Read at once."""


def read_exactly(file: VolumeFile, start: int, end: int) -> bytes:
    """Exactly these bytes. Raises DiskError, also when they are not there."""
    data = file.pread(end - start, start)
    if len(data) != end - start:
        raise DiskError(f"{file.path}: ends at {start + len(data)}, but bytes up to {end} were written to it")
    return data


def hash_range(file: VolumeFile, start: int, end: int) -> str:
    """xxh3-64 of a range, as 16 hex digits. Raises DiskError."""
    hasher = xxhash.xxh3_64()
    for position in range(start, end, PIECE_BYTES):
        hasher.update(read_exactly(file, position, min(position + PIECE_BYTES, end)))
    return hasher.hexdigest()


def hash_blocks(file: VolumeFile, start: int, end: int, block_bytes: int) -> list[str]:
    """:func:`hash_range` of each block of a range; the last one may be shorter. Raises DiskError."""
    return [hash_range(file, at, min(at + block_bytes, end)) for at in range(start, end, block_bytes)]
