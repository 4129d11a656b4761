"""Cutting the end off a volume, for a copy that has other needles there than its primary.

The caller has the volume locked alone (``Volume.lock_alone``) and opens it anew afterwards.
"""

from __future__ import annotations

import heapq
import time
from pathlib import Path

from haystack.errors import InvalidRequest
from haystack.volume.layout import MAX_BATCH_NEEDLES, SUPERBLOCK_BYTES, NeedleHeader
from haystack.volume.recovery import continues_batch, save_range, torn_name
from haystack.volume.scan import Damage, ScannedNeedle, scan
from haystack.volume.volume import Volume


def boundary_before(volume: Volume, limit: int) -> int:
    """The last offset up to ``limit`` where no needle and no multi-write is cut through. Raises DiskError."""
    tail = volume.tail()
    if limit >= tail:
        return tail
    boundary = start = _walk_from(volume, limit)
    last: ScannedNeedle | Damage | None = None
    for item in scan(volume.file, volume.seed, start, tail, verify=False):
        if item.offset > limit:
            break
        if last is None or not continues_batch(last, item):
            boundary = item.offset
        last = item
    return boundary


def _walk_from(volume: Volume, limit: int) -> int:
    """Where a needle surely begins, at least one multi-write before ``limit``: the index knows where needles are.

    Searching backwards in the file would be quicker, but might take the content of a photo for needles.
    """
    most = MAX_BATCH_NEEDLES + 1
    before = heapq.nlargest(most, (entry.offset for _, _, entry in volume.index.entries() if entry.offset <= limit))
    return before[-1] if len(before) == most else SUPERBLOCK_BYTES


def cut(volume: Volume, at: int, *, now: float | None = None) -> Path | None:
    """Save what lies behind ``at`` beside the volume, then cut it off, durably in that order.

    Parameters
    ----------
    at: a boundary between needles, see :func:`boundary_before`.
    now: seconds since 1970, for the name of the saved bytes.

    Returns where they are, None when there were none. Raises DiskError, OutOfSpace (nothing was cut), InvalidRequest.
    """
    end = volume.file.size_bytes()
    tail = volume.tail()
    if not SUPERBLOCK_BYTES <= at <= tail:
        raise InvalidRequest(f"{volume}: cannot be cut at {at}; it has {tail} bytes")
    if at == end:
        return None
    trusted = not volume.dirty.from_another_boot()
    lost = _simple(volume, at, tail) if trusted else None
    saved = torn_name(Path(volume.file.path), at, now if now is not None else time.time())
    save_range(volume.file, at, end, saved)
    # Until the index says the same as the file again, a stop of any kind has it rebuilt.
    volume.dirty.distrust()
    volume.file.truncate(at)
    volume.file.sync()
    if lost is not None:
        _take_back(volume, at, lost)
        volume.dirty.renew()
    return saved


def _simple(volume: Volume, at: int, tail: int) -> list[tuple[int, NeedleHeader]] | None:
    """Offsets and headers of the needles to be cut, or None when only a rebuild tells what was before them.

    That is when something in this volume was superseded, or is deleted or damaged in that part.
    """
    state = volume.state()
    if state.live_count + state.deleted_count != volume.index.count():
        return None
    found = []
    for item in scan(volume.file, volume.seed, at, tail, verify=False):
        if isinstance(item, Damage) or item.header.is_marker:
            return None
        entry = volume.index.get(item.header.key, item.header.alternate)
        if entry is None or entry.deleted or entry.offset != item.offset:
            return None
        found.append((item.offset, item.header))
    return found


def _take_back(volume: Volume, at: int, lost: list[tuple[int, NeedleHeader]]) -> None:
    with volume.index.write() as writer:
        for _, header in lost:
            entry = writer.get(header.key, header.alternate)
            if entry is not None:
                writer.take_back(header.key, header.alternate, entry)
        writer.move_tail(at)
