"""The byte layout of a volume file, format version 1. Pure: no I/O, no clock.

A volume is a superblock of 64 bytes followed by needles, each 8-byte aligned:

    header 56 | metadata | data | footer 16 (padding comes before the footer so that all of it stays aligned)

All integers are little-endian. ``docs/format.md`` has the byte table and a worked example that a test executes.

Invariants
- A needle's bytes do not depend on its position, so a compaction may copy them in the kernel and replicas are
  byte-identical.
- The checksum covers everything of the needle before the footer, the zero padding included.
- Header check and checksum are seeded with the volume's uuid, so that the bytes of a photo, even one that was made to
  look like needles, are never taken for needles of this volume when a scan has to search for the next one.
- The header carries a check of its own, so that a scan can trust the sizes of a needle whose data is damaged and report
  its exact extent, and step over a needle without reading its data.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgpack
import xxhash

from haystack.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview

FORMAT_VERSION: Final = 1
SUPERBLOCK_MAGIC: Final = b"HAYSTACK"
NEEDLE_MAGIC: Final = 0x4C44454E  # b"NEDL"
FOOTER_MAGIC: Final = 0x444E4548  # b"HEND"
NEEDLE_MAGIC_BYTES: Final = NEEDLE_MAGIC.to_bytes(4, "little")
NEEDLE_TYPE: Final = "application/vnd.haystack.needle"
"""The media type of one needle, header to footer."""

SUPERBLOCK: Final = struct.Struct("<8sHHI16sQIHHQQ")
HEADER: Final = struct.Struct("<IHHIIQQQIHHII")
FOOTER: Final = struct.Struct("<IIQ")
HEADER_CHECK: Final = struct.Struct("<I")

SUPERBLOCK_BYTES: Final = 64
HEADER_BYTES: Final = 56
FOOTER_BYTES: Final = 16
ALIGNMENT: Final = 8
HEADER_CHECK_OFFSET: Final = 52

MAX_VOLUME_BYTES: Final = 2**43
MAX_DATA_BYTES: Final = 2**32 - 1
MAX_META_BYTES: Final = 8 * 1024
MAX_BATCH_NEEDLES: Final = 256
UNKNOWN_DISTANCE: Final = 2**32 - 1
"""Value of ``durable_distance`` when nothing, or nothing near enough, was known to be durable."""

for _struct, _bytes in ((SUPERBLOCK, SUPERBLOCK_BYTES), (HEADER, HEADER_BYTES), (FOOTER, FOOTER_BYTES)):
    if _struct.size != _bytes or _bytes % ALIGNMENT:
        raise ImportError(f"{_struct.format} is {_struct.size} bytes, expected {_bytes}")
if MAX_VOLUME_BYTES // ALIGNMENT > 2**40:
    raise ImportError("an offset in units of 8 bytes must fit the 5 bytes that the index gives it")


class Flags(enum.IntFlag):
    """What kind of needle it is."""

    NONE = 0
    TOMBSTONE = 1  # deletes its key and alternate key; has no data
    NOW = 2  # of a tombstone: what it deletes cannot be brought back
    UNDELETE = 4  # takes back the last deletion of its key and alternate key; has no data
    SIGNED = 8  # a photo that is given to signed URLs alone


_TOMBSTONE: Final = int(Flags.TOMBSTONE)
_NOW: Final = int(Flags.NOW)
_UNDELETE: Final = int(Flags.UNDELETE)
_SIGNED: Final = int(Flags.SIGNED)
KNOWN_FLAGS: Final = frozenset((0, _TOMBSTONE, _TOMBSTONE | _NOW, _UNDELETE, _SIGNED))
PHOTO_FLAGS: Final = frozenset((0, _SIGNED))
MARKER_FLAGS: Final = _TOMBSTONE | _UNDELETE
"""Of needles that say something of an earlier one and are no photos themselves."""


class LayoutError(ValueError):
    """Bytes do not follow the layout. The reader adds file and offset and raises one of ``haystack.errors``."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """The first 64 bytes of a volume.

    Parameters
    ----------
    volume: logical volume id.
    uuid: 16 bytes that tell this logical volume from any other with the same id.
    created_ms: creation time, milliseconds since 1970.
    generation: how often the volume was compacted.
    replication: copies as three decimal digits XYZ, here as a number 0 … 999.
    compacted_bytes: end of the part that a compaction wrote; it was durable before the volume came to be, and in it
        batches may have lost members.
    """

    volume: int
    uuid: bytes
    created_ms: int
    generation: int = 0
    replication: int = 0
    compacted_bytes: int = 0

    @property
    def seed(self) -> int:
        """Seed of the checks of this volume's needles: the first half of its uuid."""
        return int.from_bytes(self.uuid[:8], "little")

    def pack(self) -> bytes:
        """The 64 bytes, checksum included."""
        body = SUPERBLOCK.pack(
            SUPERBLOCK_MAGIC,
            FORMAT_VERSION,
            SUPERBLOCK_BYTES,
            self.volume,
            self.uuid,
            self.created_ms,
            self.generation,
            self.replication,
            0,
            self.compacted_bytes,
            0,
        )[:-8]
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")

    @classmethod
    def unpack(cls, raw: Buffer) -> Superblock:
        """Read a superblock. Raises :class:`LayoutError` naming what is wrong (an unknown version by its number)."""
        if len(raw) < SUPERBLOCK_BYTES:
            raise LayoutError(f"a superblock has {SUPERBLOCK_BYTES} bytes, found {len(raw)}")
        magic, version, size, volume, uuid, created, generation, replication, reserved, compacted, check = (
            SUPERBLOCK.unpack_from(raw)
        )
        if magic != SUPERBLOCK_MAGIC:
            raise LayoutError(f"not a Haystack volume: starts with {bytes(magic)!r}, expected {SUPERBLOCK_MAGIC!r}")
        if version != FORMAT_VERSION:
            raise LayoutError(
                f"volume format version {version} is unknown; this release reads version {FORMAT_VERSION}"
            )
        if xxhash.xxh3_64_intdigest(raw[: SUPERBLOCK_BYTES - 8]) != check:
            raise LayoutError("the superblock does not agree with its checksum")
        if size != SUPERBLOCK_BYTES or reserved:
            raise LayoutError(f"superblock size {size} or reserved field {reserved} is not of version {FORMAT_VERSION}")
        return cls(volume, uuid, created, generation, replication, compacted)


@dataclass(frozen=True, slots=True)
class NeedleHeader:
    """The header of a needle; what each field protects against is in ``docs/format.md``.

    Sizes are in bytes, ``time_ms`` in milliseconds since 1970, ``expires`` in seconds since 1970 (0: never),
    ``durable_distance`` in units of 8 bytes back from the needle.
    """

    key: int
    cookie: int
    alternate: int
    data_bytes: int
    meta_bytes: int
    time_ms: int
    flags: int = 0
    expires: int = 0
    batch_index: int = 0
    batch_size: int = 1
    durable_distance: int = UNKNOWN_DISTANCE

    @property
    def is_tombstone(self) -> bool:
        return bool(self.flags & _TOMBSTONE)

    @property
    def skips_trash(self) -> bool:
        """Whether it is a tombstone that cannot be taken back."""
        return bool(self.flags & _NOW)

    @property
    def is_undelete(self) -> bool:
        return bool(self.flags & _UNDELETE)

    @property
    def is_marker(self) -> bool:
        """Whether it says something of an earlier needle (tombstone, undelete) and is no photo itself."""
        return bool(self.flags & MARKER_FLAGS)

    @property
    def is_signed(self) -> bool:
        """Whether it is a photo that is given to signed URLs alone."""
        return bool(self.flags & _SIGNED)

    def expired(self, now_seconds: float) -> bool:
        """Whether its time is over; ``now_seconds`` since 1970."""
        return self.expires != 0 and now_seconds >= self.expires

    @property
    def total_bytes(self) -> int:
        """The whole needle: header, metadata, data, padding, footer."""
        return needle_bytes(self.meta_bytes, self.data_bytes)

    def pack(self, seed: int) -> bytes:
        """The 56 bytes, header check included."""
        return pack_header(
            seed,
            self.key,
            self.cookie,
            self.alternate,
            self.data_bytes,
            self.meta_bytes,
            self.time_ms,
            self.flags,
            self.expires,
            self.batch_index,
            self.batch_size,
            self.durable_distance,
        )

    @classmethod
    def unpack(cls, raw: Buffer, seed: int) -> NeedleHeader:
        """Read a header. Raises :class:`LayoutError` when it is none or does not agree with its check."""
        if len(raw) < HEADER_BYTES:
            raise LayoutError(f"a needle header has {HEADER_BYTES} bytes, found {len(raw)}")
        (
            magic,
            flags,
            meta_bytes,
            data_bytes,
            alternate,
            key,
            cookie,
            time_ms,
            expires,
            index,
            size,
            distance,
            check,
        ) = HEADER.unpack_from(raw)
        if magic != NEEDLE_MAGIC:
            raise LayoutError(f"no needle begins here: magic 0x{magic:08x}, expected 0x{NEEDLE_MAGIC:08x}")
        if header_check(raw[:HEADER_CHECK_OFFSET], seed) != check:
            raise LayoutError("the needle header does not agree with its check")
        if flags not in KNOWN_FLAGS:
            raise LayoutError(f"needle flags 0x{flags:x} are not known to this release")
        if meta_bytes > MAX_META_BYTES or not 1 <= size <= MAX_BATCH_NEEDLES or index >= size:
            raise LayoutError(f"needle header out of range: metadata {meta_bytes} bytes, batch {index} of {size}")
        return cls(key, cookie, alternate, data_bytes, meta_bytes, time_ms, flags, expires, index, size, distance)


@dataclass(frozen=True, slots=True)
class NeedleMeta:
    """The small metadata of a needle.

    Parameters
    ----------
    name: file name as uploaded, or empty.
    mime: MIME type, or empty when unknown.
    pairs: further texts of the user; of two with the same name the later one is kept.
    """

    name: str = ""
    mime: str = ""
    pairs: tuple[tuple[str, str], ...] = ()

    def pack(self) -> bytes:
        """msgpack bytes, empty when there is nothing to keep.

        Raises InvalidRequest above MAX_META_BYTES, and for text that is no Unicode (lone surrogates).
        """
        fields: dict[str, object] = {}
        if self.name:
            fields["n"] = self.name
        if self.mime:
            fields["m"] = self.mime
        if self.pairs:
            fields["p"] = dict(self.pairs)
        if not fields:
            return b""
        try:
            raw: bytes = msgpack.packb(fields, use_bin_type=True)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"name, type or pairs cannot be written as UTF-8: {error}") from error
        if len(raw) > MAX_META_BYTES:
            raise InvalidRequest(f"name, type and pairs take {len(raw)} bytes; at most {MAX_META_BYTES} are kept")
        return raw

    @classmethod
    def unpack(cls, raw: Buffer) -> NeedleMeta:
        """Read metadata. Raises :class:`LayoutError` when it is not a map of texts."""
        if not len(raw):
            return _NO_META
        try:
            fields = msgpack.unpackb(raw, raw=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LayoutError(f"needle metadata cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise LayoutError(f"needle metadata is a {type(fields).__name__}, expected a map")
        name, mime, pairs = fields.get("n", ""), fields.get("m", ""), fields.get("p", {})
        texts = (name, mime, *pairs, *pairs.values()) if isinstance(pairs, dict) else (None,)
        if not all(isinstance(text, str) for text in texts):
            raise LayoutError("needle metadata holds something else than texts")
        return cls(name, mime, tuple(pairs.items()))


JOINED_NEEDLE_BYTES = 64 * 1024
"""Data up to this size is copied behind its header: cheaper than to hash and to write it in pieces."""

_NO_META = NeedleMeta()
_ZEROS = bytes(ALIGNMENT)


def needle_bytes(meta_bytes: int, data_bytes: int) -> int:
    """Bytes that a needle with this much metadata and data takes in the volume."""
    return (HEADER_BYTES + meta_bytes + data_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT + FOOTER_BYTES


def padding_bytes(meta_bytes: int, data_bytes: int) -> int:
    """Zero bytes between data and footer."""
    return -(meta_bytes + data_bytes) % ALIGNMENT


def header_check(raw: Buffer, seed: int) -> int:
    """Check of the first 52 bytes of a header: the low half of their seeded xxh3-64."""
    return xxhash.xxh3_64_intdigest(raw, seed) & 0xFFFFFFFF


def pack_header(
    seed: int,
    key: int,
    cookie: int,
    alternate: int,
    data_bytes: int,
    meta_bytes: int,
    time_ms: int,
    flags: int,
    expires: int,
    batch_index: int,
    batch_size: int,
    durable_distance: int,
) -> bytes:
    """The 56 bytes of a needle's header, see :class:`NeedleHeader`; without an object, for those who write many."""
    raw = HEADER.pack(
        NEEDLE_MAGIC,
        flags,
        meta_bytes,
        data_bytes,
        alternate,
        key,
        cookie,
        time_ms,
        expires,
        batch_index,
        batch_size,
        durable_distance,
        0,
    )[:HEADER_CHECK_OFFSET]
    return raw + HEADER_CHECK.pack(xxhash.xxh3_64_intdigest(raw, seed) & 0xFFFFFFFF)


def pack_needle(header: NeedleHeader, meta: bytes, data: Sequence[Buffer], seed: int) -> tuple[list[Buffer], int]:
    """A whole needle as the pieces to write, in order, and its checksum.

    Parameters
    ----------
    header: its sizes must be those of ``meta`` and ``data``.
    data: the photo in any number of pieces; large ones are not copied.
    """
    return enclose(header.pack(seed) + meta, data, padding_bytes(header.meta_bytes, header.data_bytes), seed)


def enclose(head: bytes, data: Sequence[Buffer], padding: int, seed: int) -> tuple[list[Buffer], int]:
    """As :func:`pack_needle`, with a header that was packed already and has its metadata behind it.

    Parameters
    ----------
    padding: bytes between data and footer.
    """
    if len(data) == 1 and len(data[0]) <= JOINED_NEEDLE_BYTES:
        needle = b"".join((head, data[0], _ZEROS[:padding]))
        checksum = xxhash.xxh3_64_intdigest(needle, seed)
        return [needle, FOOTER.pack(FOOTER_MAGIC, 0, checksum)], checksum
    hasher = xxhash.xxh3_64(head, seed)
    for piece in data:
        hasher.update(piece)
    if padding:
        hasher.update(_ZEROS[:padding])
    checksum = hasher.intdigest()
    return [head, *data, _ZEROS[:padding] + FOOTER.pack(FOOTER_MAGIC, 0, checksum)], checksum


def check_needle(raw: Buffer, header: NeedleHeader, seed: int) -> int:
    """Verify a whole needle, header to footer.

    Parameters
    ----------
    raw: exactly ``header.total_bytes`` bytes.

    Returns the checksum. Raises :class:`LayoutError` when any byte is not as it was written.
    """
    end = header.total_bytes - FOOTER_BYTES
    if len(raw) != end + FOOTER_BYTES:
        raise LayoutError(f"the needle has {end + FOOTER_BYTES} bytes, only {len(raw)} are there")
    return check_footer(memoryview(raw)[end:], xxhash.xxh3_64_intdigest(memoryview(raw)[:end], seed))


def check_footer(footer: Buffer, found: int) -> int:
    """Compare a footer with the checksum found over what precedes it; returns it or raises :class:`LayoutError`."""
    if len(footer) != FOOTER_BYTES:
        raise LayoutError(f"a footer has {FOOTER_BYTES} bytes, found {len(footer)}")
    magic, reserved, checksum = FOOTER.unpack(footer)
    if magic != FOOTER_MAGIC or reserved:
        raise LayoutError(f"no footer at the needle's end: 0x{magic:08x}, expected 0x{FOOTER_MAGIC:08x}")
    if found != checksum:
        raise LayoutError(f"checksum is {found:016x}, the footer says {checksum:016x}")
    return found
