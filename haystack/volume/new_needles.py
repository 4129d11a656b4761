"""Laying out many needles at once, for what a store does most: uploads of new photos, one needle each.

What this module cannot lay out (deletes, several needles in one write, anything out of range, a full volume) it leaves
to :mod:`haystack.volume.append`, which goes needle by needle and says what is wrong with which.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from haystack.volume.index_records import KEY, entry_flags, pack_entry
from haystack.volume.layout import (
    ALIGNMENT,
    MAX_DATA_BYTES,
    MAX_META_BYTES,
    PHOTO_FLAGS,
    UNKNOWN_DISTANCE,
    Buffer,
    enclose,
    needle_bytes,
    pack_header,
    padding_bytes,
)
from haystack.volume.operations import Operation, Outcome, Put, Stored

JOINED_APPEND_BYTES = 2**20
"""Appends below this size are written from one buffer: copying costs less than having the kernel gather pieces."""


@dataclass(slots=True)
class NewNeedles:
    """Needles as they would lie behind the tail.

    Parameters
    ----------
    pieces: what to write.
    tail: end of the volume after them.
    entries: key and value of each in the index, in the order of keys.
    largest_key, last_ms: the largest photo id and time among them.
    """

    pieces: list[Buffer]
    tail: int
    entries: list[tuple[bytes, bytes]]
    outcomes: list[Outcome]
    largest_key: int
    last_ms: int


def lay_out_new(
    operations: Sequence[Operation], seed: int, tail: int, durable: int | None, max_bytes: int
) -> NewNeedles | None:
    """Lay out operations behind the tail if each stores one needle, and all have names of their own; else None.

    Parameters
    ----------
    seed: of the volume.
    durable: what is known to be durable, None when nothing is.
    max_bytes: limit of the volume.
    """
    entries: dict[bytes, bytes] = {}
    pieces: list[Buffer] = []
    outcomes: list[Outcome] = []
    largest_key = last_ms = 0
    offset = tail
    try:
        for operation in operations:
            if type(operation) is not Put or len(operation.needles) != 1:
                return None
            key, cookie, data, time_ms, alternate, meta, expires, flags = operation.needles[0]
            data_bytes, meta_bytes = _size_of(data), len(meta)
            if not 0 <= data_bytes <= MAX_DATA_BYTES or meta_bytes > MAX_META_BYTES or flags not in PHOTO_FLAGS:
                return None
            distance = UNKNOWN_DISTANCE if durable is None else min((offset - durable) // ALIGNMENT, UNKNOWN_DISTANCE)
            head = pack_header(
                seed, key, cookie, alternate, data_bytes, meta_bytes, time_ms, flags, expires, 0, 1, distance
            )
            needle, checksum = enclose(head + meta, data, padding_bytes(meta_bytes, data_bytes), seed)
            pieces += needle
            entries[KEY.pack(key, alternate)] = pack_entry(offset, data_bytes, meta_bytes, entry_flags(expires, flags))
            outcomes.append([Stored(offset, data_bytes, checksum)])
            offset += needle_bytes(meta_bytes, data_bytes)
            if key > largest_key:
                largest_key = key
            if time_ms > last_ms:
                last_ms = time_ms
    except struct.error:  # something is out of range
        return None
    if offset > max_bytes or len(entries) != len(outcomes):
        return None
    if offset - tail < JOINED_APPEND_BYTES:
        pieces = [b"".join(pieces)]
    return NewNeedles(pieces, offset, sorted(entries.items()), outcomes, largest_key, last_ms)


def _size_of(data: Sequence[Buffer]) -> int:
    """Bytes of data; -1 when a piece has items that are no bytes."""
    size_bytes = 0
    for piece in data:
        if type(piece) is memoryview and piece.itemsize != 1:
            return -1
        size_bytes += len(piece)
    return size_bytes
