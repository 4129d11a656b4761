"""Needles that come as bytes from another copy of a volume, piece by piece: which of them are here, and whole. Pure."""

from __future__ import annotations

from haystack.errors import DamagedNeedle
from haystack.volume.layout import HEADER_BYTES, Buffer, LayoutError, NeedleHeader, check_needle
from haystack.volume.recovery import continues_batch
from haystack.volume.scan import ScannedNeedle


def verified_needles(raw: Buffer, seed: int, start: int, source: str) -> list[ScannedNeedle]:
    """The whole needles at the beginning of ``raw``, each verified; what follows them is the beginning of one more.

    Parameters
    ----------
    start: offset in the volume at which ``raw`` begins.
    source: where the bytes are from, for the message.

    Raises DamagedNeedle.
    """
    view = memoryview(raw)
    found: list[ScannedNeedle] = []
    position = 0
    while position + HEADER_BYTES <= len(view):
        try:
            header = NeedleHeader.unpack(view[position : position + HEADER_BYTES], seed)
            end = position + header.total_bytes
            if end > len(view):
                break
            checksum = check_needle(view[position:end], header, seed)
        except LayoutError as error:
            raise DamagedNeedle(source, start + position, str(error)) from error
        found.append(ScannedNeedle(start + position, header, checksum))
        position = end
    return found


def whole_batches(needles: list[ScannedNeedle], *, is_end: bool) -> list[ScannedNeedle]:
    """Without the last multi-write when more of it may follow.

    Parameters
    ----------
    is_end: nothing follows.
    """
    count = len(needles)
    if is_end or not count or needles[-1].header.batch_index == needles[-1].header.batch_size - 1:
        return needles
    while count > 1 and continues_batch(needles[count - 2], needles[count - 1]):
        count -= 1
    return needles[: count - 1]
