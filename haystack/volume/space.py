"""Where the bytes of a volume go: what lives, what is in the trash, what has expired, what nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haystack.volume.layout import FOOTER_BYTES, HEADER_BYTES, SUPERBLOCK_BYTES, LayoutError, NeedleHeader
from haystack.volume.volume import Volume

PROGRESS_ENTRIES = 10_000
TOMBSTONE_BYTES = HEADER_BYTES + FOOTER_BYTES


@dataclass(frozen=True, slots=True)
class VolumeSpace:
    """Bytes of a volume, which add up to its size apart from the superblock, and of its index.

    Parameters
    ----------
    live_bytes: photos that can be read. expired_bytes: whose time is over.
    trash_bytes: deleted ones that can be brought back, with their tombstones.
    garbage_bytes: the rest. A compaction now would win this and what has expired.
    """

    size_bytes: int
    live_bytes: int
    expired_bytes: int
    trash_bytes: int
    garbage_bytes: int
    index_bytes: int


def space_of(volume: Volume, now_ms: int, trash_ms: int, progress: Callable[[int, int], None]) -> VolumeSpace:
    """Walk the index of a volume; photos are not read. Appends meanwhile may make the sums differ by as much.

    Parameters
    ----------
    now_ms: the moment that trash and expiry are judged by, milliseconds since 1970.
    trash_ms: how long deleted photos can be brought back.
    progress: called now and then with entries done and to do; may raise.

    Raises IndexDamaged, DiskError, and what ``progress`` raises.
    """
    state, entries = volume.state(), volume.index.count()
    expired_bytes = trash_bytes = 0
    for count, (_, _, entry) in enumerate(volume.index.entries()):
        if count % PROGRESS_ENTRIES == 0:
            progress(count, entries)
        if entry.in_trash:
            if entry.deleted_ms + trash_ms > now_ms:
                trash_bytes += entry.total_bytes + TOMBSTONE_BYTES
        elif entry.expires and not entry.deleted and _has_expired(volume, entry.offset, now_ms):
            expired_bytes += entry.total_bytes
    return VolumeSpace(
        size_bytes=state.tail,
        live_bytes=max(0, state.live_bytes - expired_bytes),
        expired_bytes=expired_bytes,
        trash_bytes=trash_bytes,
        garbage_bytes=max(0, state.tail - SUPERBLOCK_BYTES - state.live_bytes - trash_bytes),
        index_bytes=volume.index.size_bytes(),
    )


def _has_expired(volume: Volume, offset: int, now_ms: int) -> bool:
    try:
        header = NeedleHeader.unpack(volume.file.pread(HEADER_BYTES, offset), volume.seed)
    except LayoutError:
        return False  # damaged; a check tells, and mends it
    return header.expired(now_ms / 1000)
