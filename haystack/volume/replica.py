"""Appending what another copy of the volume has written: whole needles, byte for byte, at the same offsets.

1. Structure and checksum of every needle are verified before the append lock is taken. Multi-writes must be whole.
2. Under the lock the caller judges by the tail (see ``judge``) up to where the bytes must be here already. Those are
   compared byte by byte; a difference means that the two copies have different histories, and nothing is written.
3. The rest is written and entered into the index as :mod:`haystack.volume.append` does for needles of its own, with
   the same sums, so that files and indexes of copies are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from haystack.errors import HaystackError, VolumeFileError
from haystack.volume.append import Appender
from haystack.volume.entering import enter_header
from haystack.volume.files import VolumeFile
from haystack.volume.index import IndexWriter, NeedleIndex
from haystack.volume.layout import (
    HEADER_BYTES,
    SUPERBLOCK_BYTES,
    Buffer,
    LayoutError,
    NeedleHeader,
    check_needle,
)

COMPARE_BYTES = 2**20
"""Bytes that are read at once to be compared."""

Judge = Callable[[int], int]
"""Is given the tail under the append lock; returns up to where the bytes of the batch must be here already, at most its
own end and the tail. Raises what refuses the batch."""


class BatchDamaged(VolumeFileError):
    """Bytes that were sent are not whole needles of this volume; nothing was written."""

    http_status = 400


class BatchDiverged(HaystackError):
    """This copy has other bytes than those that were sent; nothing was written.

    Parameters
    ----------
    tail: end of this copy.
    """

    http_status = 409

    def __init__(self, path: str, offset: int, tail: int) -> None:
        super().__init__(f"{path}: has other bytes from offset {offset} on than the batch that was sent")
        self.offset = offset
        self.tail = tail


class SentNeedle(NamedTuple):
    """A needle of a batch, and where it lies in the volume."""

    offset: int
    header: NeedleHeader


class Batch(NamedTuple):
    """Verified bytes of a volume.

    Parameters
    ----------
    start, end: where they lie in the volume.
    """

    start: int
    end: int
    data: memoryview
    needles: Sequence[SentNeedle]


class Landed(NamedTuple):
    """What came of a batch: end of the volume afterwards, and whether earlier answers became wrong by it."""

    tail: int
    changed: bool


def read_batch(path: str, start: int, data: Buffer, seed: int) -> Batch:
    """Verify bytes that were sent; empty ones are a batch too.

    Parameters
    ----------
    path: of the volume, for messages.
    start: where they lie in the volume.
    seed: of the volume.

    Raises BatchDamaged.
    """
    view = memoryview(data).cast("B")
    needles: list[SentNeedle] = []
    position, left_of_multi = 0, 0
    while position < len(view):
        try:
            header = NeedleHeader.unpack(view[position : position + HEADER_BYTES], seed)
            end = position + header.total_bytes
            check_needle(view[position:end], header, seed)
            left_of_multi = _next_of_multi(header, left_of_multi)
        except LayoutError as error:
            raise BatchDamaged(path, start + position, f"in a batch: {error}") from error
        needles.append(SentNeedle(start + position, header))
        position = end
    if left_of_multi:
        raise BatchDamaged(path, start + position, f"in a batch: {left_of_multi} needles of a multi-write are missing")
    if start < SUPERBLOCK_BYTES or start % 8:
        raise BatchDamaged(path, start, "no needle can begin here")
    return Batch(start, start + len(view), view, needles)


def _next_of_multi(header: NeedleHeader, left: int) -> int:
    """How many needles of the multi-write are to follow; ``left``: before this one, 0 outside of one."""
    if header.batch_index != (header.batch_size - left if left else 0):
        raise LayoutError(f"needle {header.batch_index} of {header.batch_size} of a multi-write is out of its order")
    return header.batch_size - header.batch_index - 1


class _AllThere(Exception):
    """There is nothing to write: gives up the index transaction."""


def append_batch(file: VolumeFile, index: NeedleIndex, appender: Appender, batch: Batch, judge: Judge) -> Landed:
    """Append a batch, as far as it is not there. Waits for the append lock: never call it on an event loop.

    Raises BatchDiverged, OutOfSpace, DiskError, IndexDamaged, and what ``judge`` raises.
    """
    tail = 0
    changed = False
    try:
        with index.write() as writer:
            appender.require_in_place()
            tail = writer.state.tail
            shared_to = judge(tail)
            _require_shared(file, batch, shared_to, tail)
            if shared_to == batch.end:
                raise _AllThere
            appender.begin(writer)
            new = [needle for needle in batch.needles if needle.offset >= shared_to]
            changed = _enter(writer, new)
            appender.write([batch.data[shared_to - batch.start :]], tail, batch.end - shared_to)
            writer.move_tail(batch.end)
    except _AllThere:
        return Landed(tail, False)
    appender.appended = batch.end
    return Landed(batch.end, changed)


def _require_shared(file: VolumeFile, batch: Batch, shared_to: int, tail: int) -> None:
    for offset in range(batch.start, shared_to, COMPARE_BYTES):
        size_bytes = min(COMPARE_BYTES, shared_to - offset)
        position = offset - batch.start
        if file.pread(size_bytes, offset) != batch.data[position : position + size_bytes]:
            raise BatchDiverged(file.path, offset, tail)
    if batch.start < shared_to < batch.end and all(needle.offset != shared_to for needle in batch.needles):
        raise BatchDiverged(file.path, shared_to, tail)  # it ends where the sender has no end of a needle


def _enter(writer: IndexWriter, needles: Sequence[SentNeedle]) -> bool:
    """Enter needles into the index; returns whether one of them changes what was there."""
    changed = False
    for offset, header in needles:
        changed |= enter_header(writer, offset, header)
    return changed
