"""What stands in a needle index: keys, entries of needles, and the state of the whole; packed and unpacked."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from haystack.errors import IndexDamaged
from haystack.volume.layout import ALIGNMENT, Flags, needle_bytes

INDEX_VERSION = 2

KEY = struct.Struct(">QI")
VALUE = struct.Struct("<IBIHB")
DELETED_VALUE = struct.Struct("<IBIHBQ")
STATE = struct.Struct("<H16sIQQQQQQQ")
STATE_KEY = b"\0"

DELETED = 1
"""Flag of an entry whose needle a tombstone deleted; the offset stays, so that a deletion can be taken back. The
time of the deletion is behind such an entry, so that it can be told whether it still may."""
DELETED_NOW = 2
"""Flag beside :data:`DELETED`: it cannot be taken back."""
EXPIRES = 4
"""Flag of an entry whose needle has an end. When that is, its header says."""
SIGNED = 8
"""Flag of an entry whose needle is given to signed URLs alone."""

_SIGNED_NEEDLE = int(Flags.SIGNED)


class IndexEntry(NamedTuple):
    """Where a needle is: byte offset, sizes of data and metadata in bytes, flags, time of its deletion in ms."""

    offset: int
    data_bytes: int
    meta_bytes: int
    flags: int
    deleted_ms: int = 0

    @property
    def total_bytes(self) -> int:
        return needle_bytes(self.meta_bytes, self.data_bytes)

    @property
    def deleted(self) -> bool:
        return bool(self.flags & DELETED)

    @property
    def in_trash(self) -> bool:
        """Whether it is deleted, but not for good."""
        return self.flags & (DELETED | DELETED_NOW) == DELETED

    @property
    def expires(self) -> bool:
        return bool(self.flags & EXPIRES)

    def pack(self) -> bytes:
        return pack_entry(*self)

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> IndexEntry:
        deleted_ms = 0
        if len(raw) == VALUE.size:
            low, high, data_bytes, meta_bytes, flags = VALUE.unpack(raw)
        elif len(raw) == DELETED_VALUE.size:
            low, high, data_bytes, meta_bytes, flags, deleted_ms = DELETED_VALUE.unpack(raw)
        else:
            raise IndexDamaged(f"an index entry has {len(raw)} bytes, expected {VALUE.size} or {DELETED_VALUE.size}")
        if (len(raw) == DELETED_VALUE.size) != bool(flags & DELETED):
            raise IndexDamaged(f"an index entry with flags {flags} has {len(raw)} bytes")
        return cls((high << 32 | low) * ALIGNMENT, data_bytes, meta_bytes, flags, deleted_ms)


def entry_flags(expires: int, needle_flags: int) -> int:
    """Flags of the entry of a photo that was just stored, whose header has these."""
    if not needle_flags:
        return EXPIRES if expires else 0
    return (EXPIRES if expires else 0) | (SIGNED if needle_flags & _SIGNED_NEEDLE else 0)


def pack_entry(offset: int, data_bytes: int, meta_bytes: int, flags: int, deleted_ms: int = 0) -> bytes:
    """The LMDB value of a needle, see :class:`IndexEntry`. Raises struct.error when a number is out of range."""
    unit = offset // ALIGNMENT
    if flags & DELETED:
        return DELETED_VALUE.pack(unit & 0xFFFFFFFF, unit >> 32, data_bytes, meta_bytes, flags, deleted_ms)
    return VALUE.pack(unit & 0xFFFFFFFF, unit >> 32, data_bytes, meta_bytes, flags)


@dataclass(slots=True)
class IndexState:
    """What the index covers and the sums over it.

    Parameters
    ----------
    uuid, generation: of the volume that it belongs to.
    tail: end of what is covered; the next needle goes there. Bytes from the start of the file.
    live_count, live_bytes: needles that can be read, and the bytes that they take in the volume.
    deleted_count, deleted_bytes: needles that are deleted or superseded, markers included in the bytes.
    max_key: largest photo id stored.
    last_append_ms: time of the last needle, milliseconds since 1970.
    """

    uuid: bytes
    generation: int
    tail: int
    live_count: int = 0
    live_bytes: int = 0
    deleted_count: int = 0
    deleted_bytes: int = 0
    max_key: int = 0
    last_append_ms: int = 0

    def pack(self) -> bytes:
        return STATE.pack(
            INDEX_VERSION,
            self.uuid,
            self.generation,
            self.tail,
            self.live_count,
            self.live_bytes,
            self.deleted_count,
            self.deleted_bytes,
            self.max_key,
            self.last_append_ms,
        )

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> IndexState:
        if len(raw) != STATE.size:
            raise IndexDamaged(f"the index state has {len(raw)} bytes, expected {STATE.size}")
        version, *fields = STATE.unpack(raw)
        if version != INDEX_VERSION:
            raise IndexDamaged(f"index version {version}, expected {INDEX_VERSION}")
        return cls(*fields)
