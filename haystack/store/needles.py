"""Walking a volume needle by needle for others: for confirmations and for exports. Everything here blocks."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.fid import Fid
from haystack.volume import Damage, NeedleHeader, NeedleMeta, ScannedNeedle, Volume
from haystack.volume.layout import FOOTER, FOOTER_BYTES, FOOTER_MAGIC, HEADER_BYTES, SUPERBLOCK_BYTES, LayoutError
from haystack.volume.scan import scan

MAX_BATCH_NEEDLES = 1000
MAX_WALKED_NEEDLES = 20_000
"""Needles that one page of an export looks at, dead ones included."""

STORED, DELETED = 0, 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Needles between two offsets, as rows of a confirmation."""

    start: int
    end: int
    rows: list[list[object]]


@dataclass(frozen=True, slots=True)
class Page:
    """Live needles for an export, and where the next page begins (None: this was the last)."""

    needles: list[dict[str, object]]
    next: int | None


def read_batch(volume: Volume, start: int, end: int, most: int = MAX_BATCH_NEEDLES) -> Batch:
    """The next needles from ``start`` on, tombstones included; damage is stepped over.

    What was brought back out of the trash is told of as stored once more.

    Parameters
    ----------
    start: what is confirmed so far; 0 at first.
    end: how far the volume is durable.

    Raises DiskError.
    """
    rows: list[list[object]] = []
    position = max(start, SUPERBLOCK_BYTES)
    for item in scan(volume.file, volume.seed, position, end, verify=False):
        if isinstance(item, Damage):
            position = item.offset + item.length
            continue
        row = _brought_back(volume, item) if item.header.is_undelete else _row(item.header, _checksum(volume, item))
        if row is not None:
            rows.append(row)
        position = item.end
        if len(rows) >= most:
            break
    return Batch(start, position, rows)


def read_page(volume: Volume, after: int, most: int = MAX_BATCH_NEEDLES, *, now_seconds: float) -> Page:
    """Live needles that begin at ``after`` or behind it, in the order of the volume. Raises DiskError, IndexDamaged.

    Parameters
    ----------
    now_seconds: since 1970; what has expired by then is left out.
    """
    needles: list[dict[str, object]] = []
    end = volume.tail()
    start = max(after, SUPERBLOCK_BYTES)
    for walked, item in enumerate(scan(volume.file, volume.seed, start, end, verify=False), 1):
        if isinstance(item, ScannedNeedle):
            if _is_live(volume, item, now_seconds):
                needles.append(_describe(volume, item))
            start = item.end
        else:
            start = item.offset + item.length
        if len(needles) >= most or walked >= MAX_WALKED_NEEDLES:
            return Page(needles, start if start < end else None)
    return Page(needles, None)


def _row(header: NeedleHeader, checksum: int) -> list[object]:
    row: list[object] = [
        f"{header.key:x}",
        header.alternate,
        f"{header.cookie:016x}",
        header.data_bytes,
        f"{checksum:016x}",
        header.time_ms,
        DELETED if header.is_tombstone else STORED,
    ]
    return [*row, header.expires] if header.expires else row


def _brought_back(volume: Volume, undelete: ScannedNeedle) -> list[object] | None:
    """The row of the needle that an undelete is about; None when a later one of its name says what there is."""
    key, alternate = undelete.header.key, undelete.header.alternate
    entry = volume.index.get(key, alternate)
    if entry is None or entry.offset > undelete.offset:
        return None
    try:
        header = NeedleHeader.unpack(volume.file.pread(HEADER_BYTES, entry.offset), volume.seed)
    except LayoutError:
        return None  # damaged: it cannot be read either, and the scrub will see to it
    return _row(header, _checksum(volume, ScannedNeedle(entry.offset, header, 0)))


def _checksum(volume: Volume, needle: ScannedNeedle) -> int:
    """What the footer says; 0 when there is none (a damaged needle was stored all the same)."""
    footer = volume.file.pread(FOOTER_BYTES, needle.end - FOOTER_BYTES)
    if len(footer) < FOOTER_BYTES:
        return 0
    magic, _, checksum = FOOTER.unpack(footer)
    return int(checksum) if magic == FOOTER_MAGIC else 0


def _is_live(volume: Volume, needle: ScannedNeedle, now_seconds: float) -> bool:
    header = needle.header
    if header.is_marker or header.expired(now_seconds):
        return False
    entry = volume.index.get(header.key, header.alternate)
    return entry is not None and entry.offset == needle.offset and not entry.deleted


def _describe(volume: Volume, needle: ScannedNeedle) -> dict[str, object]:
    header = needle.header
    meta = _meta(volume, needle)
    document: dict[str, object] = {
        "fid": str(Fid(volume.superblock.volume, header.key, header.cookie, header.alternate)),
        "size": header.data_bytes,
        "name": meta.name,
        "mime": meta.mime,
        "timeMs": header.time_ms,
        "offset": needle.offset,
        "checksum": f"{_checksum(volume, needle):016x}",
    }
    return document | {"expires": header.expires} if header.expires else document


def _meta(volume: Volume, needle: ScannedNeedle) -> NeedleMeta:
    raw = volume.file.pread(needle.header.meta_bytes, needle.offset + HEADER_BYTES)
    try:
        return NeedleMeta.unpack(raw)
    except LayoutError:
        return NeedleMeta()  # damaged: whoever reads the needle itself is told so
