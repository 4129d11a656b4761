"""Needles that come as bytes from another copy of a volume: verified, and appended as they are.

The bytes of a needle do not depend on where it lies, so a copy is made by appending the same bytes in the same order.
"""

from __future__ import annotations

from haystack.errors import DamagedNeedle, InvalidRequest
from haystack.volume.layout import HEADER_BYTES, Buffer, LayoutError, NeedleHeader, check_needle
from haystack.volume.recovery import continues_batch, enter_needle
from haystack.volume.scan import ScannedNeedle
from haystack.volume.volume import Volume


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


def missing_bytes(raw: Buffer, seed: int) -> int:
    """How many bytes the first needle of ``raw`` lacks. Raises LayoutError when none begins there."""
    if len(raw) < HEADER_BYTES:
        return HEADER_BYTES - len(raw)
    return max(0, NeedleHeader.unpack(memoryview(raw)[:HEADER_BYTES], seed).total_bytes - len(raw))


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


def append_verified(volume: Volume, raw: Buffer, needles: list[ScannedNeedle]) -> int:
    """Append needles that were verified, as they are; returns the new tail. Not yet durable: see ``Volume.sync``.

    Parameters
    ----------
    raw: their bytes.

    Raises InvalidRequest when they do not begin at the tail, OutOfSpace, DiskError.
    """
    with volume.index.write() as writer:
        tail = writer.state.tail
        if not needles or needles[0].offset != tail or needles[-1].end - tail != len(raw):
            raise InvalidRequest(f"{volume}: these needles do not begin at its tail, {tail}")
        if volume.file.size_bytes() > tail:
            volume.file.truncate(tail)  # of a process that died between its write and its commit
        volume.dirty.set()
        try:
            volume.file.pwrite([raw], tail)
        except BaseException:
            volume.file.truncate(tail)
            raise
        for needle in needles:
            enter_needle(writer, needle)
        writer.move_tail(needles[-1].end)
    return needles[-1].end
