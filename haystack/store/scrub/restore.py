"""Writing good bytes over damaged ones, in place. Everything here blocks.

Readers verify what they read and appends go to the tail alone, so nobody is kept waiting: a reader sees the old bytes,
the new ones, or something in between that it refuses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from haystack.errors import DiskError
from haystack.volume import NeedleHeader, ScannedNeedle, Volume
from haystack.volume.hashing import read_exactly
from haystack.volume.index_records import IndexEntry
from haystack.volume.layout import SUPERBLOCK_BYTES
from haystack.volume.past_cache import PastCache

MAX_LIES = 3
"""How often bytes may come back otherwise than they were written before the disk counts as broken."""

MAX_ATTEMPTS = 10
"""How often they are written when somebody else changes them again; whoever looks next finds that."""


def restore(volume: Volume, start: int, raw: bytes) -> bool:
    """Make the volume have these bytes at ``start``, durably, and read them back; returns whether it had others.

    Raises DiskError: then nobody knows what is there.
    """
    if not _differs(volume, start, raw):
        return False
    lies = 0
    for _ in range(MAX_ATTEMPTS):
        volume.file.pwrite([raw], start)
        volume.file.sync()
        if _on_disk(volume, start, len(raw)) == raw:
            return True
        # Memory has what was written last. When that is something else, it was not the disk that changed it.
        lies += volume.file.pread(len(raw), start) == raw
        if lies >= MAX_LIES:
            break
    else:
        return True
    raise DiskError(f"{volume}: bytes at offset {start} do not come back as they were written; replace the disk")


def restore_superblock(volume: Volume) -> bool:
    """:func:`restore` the superblock, as it was when the volume was opened. Raises DiskError."""
    raw = volume.superblock.pack()
    assert len(raw) == SUPERBLOCK_BYTES
    return restore(volume, 0, raw)


def index_lacks(volume: Volume, needles: Sequence[ScannedNeedle]) -> bool:
    """Whether the index was made when one of these needles could not be read, and does not know what it did."""
    for needle in needles:
        header = needle.header
        entry = volume.index.get(header.key, header.alternate)
        if header.is_marker:
            if entry is not None and entry.offset < needle.offset and _contradicts(header, entry):
                return True
        elif entry is None or entry.offset < needle.offset:
            return True
    return False


def _contradicts(marker: NeedleHeader, entry: IndexEntry) -> bool:
    """Whether an entry says otherwise than a marker behind its needle; a later marker may be why."""
    if marker.is_undelete:
        return entry.in_trash
    return not entry.deleted or (marker.skips_trash and entry.in_trash)


def _on_disk(volume: Volume, start: int, size_bytes: int) -> bytes:
    """What the disk has, also where it cannot be read past the page cache."""
    if volume.file.direct_fd() < 0:
        os.posix_fadvise(volume.file.read_fd, start, size_bytes, os.POSIX_FADV_DONTNEED)
    return read_exactly(PastCache(volume.file), start, start + size_bytes)


def _differs(volume: Volume, start: int, raw: bytes) -> bool:
    try:
        return any(read_exactly(file, start, start + len(raw)) != raw for file in (volume.file, PastCache(volume.file)))
    except DiskError:
        return True  # it cannot be read; a disk often finds another place for a sector that is written anew
