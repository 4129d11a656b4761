"""Walking the needles of a volume file from front to back, over damage.

What lies between two valid needles is reported as :class:`Damage`. After a needle whose header is sound the walk goes
on behind it, however damaged its data is, unless a valid needle begins inside: then it was torn, and later ones were
written over what it claims. Without a sound header the next needle is searched at every aligned offset, and counts only
when all of it, data and footer, agrees with its checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from haystack.volume.files import VolumeFile
from haystack.volume.layout import (
    ALIGNMENT,
    FOOTER_BYTES,
    HEADER_BYTES,
    NEEDLE_MAGIC_BYTES,
    Buffer,
    LayoutError,
    NeedleHeader,
    check_footer,
)

CHUNK_BYTES = 4 * 2**20
"""Bytes read at once when searching or verifying; bounds the memory of a scan."""

SMALL_BYTES = 256 * 1024
"""Needles up to this size are verified inside the read-ahead window of the scan."""


@dataclass(frozen=True, slots=True)
class ScannedNeedle:
    """A valid needle: its byte offset, header and checksum (0 when the scan was told not to verify data)."""

    offset: int
    header: NeedleHeader
    checksum: int

    @property
    def end(self) -> int:
        return self.offset + self.header.total_bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no valid needle: offset and length in bytes, what is wrong, and the header where it is sound."""

    offset: int
    length: int
    problem: str
    header: NeedleHeader | None = None

    @property
    def is_needle(self) -> bool:
        """Whether these bytes are exactly one needle with a sound header and damaged data."""
        return self.header is not None and self.length == self.header.total_bytes

    @property
    def end(self) -> int:
        return self.offset + self.length

    def __str__(self) -> str:
        who = f" (needle {self.header.key:x}, alternate {self.header.alternate})" if self.header else ""
        return f"{self.length} bytes at offset {self.offset}{who}: {self.problem}"


def scan(file: VolumeFile, seed: int, start: int, end: int, *, verify: bool = True) -> Iterator[ScannedNeedle | Damage]:
    """Yield needles and damage between two offsets, in order and without a gap.

    Parameters
    ----------
    start: offset of a needle.
    end: offset to stop at, usually the end of the file.
    verify: read and check all data; otherwise only headers are read (fast, for needles that are known to be whole).

    Raises DiskError when the file cannot be read.
    """
    window = _Window(file)
    offset = start
    while offset < end:
        found = _needle_at(file, window, seed, offset, end, verify=verify)
        if isinstance(found, Damage):
            found = _bounded(file, window, seed, found, end)
        yield found
        offset = found.end


def _bounded(file: VolumeFile, window: _Window, seed: int, damage: Damage, end: int) -> Damage:
    """The same damage, ending where the next needle begins."""
    if damage.is_needle and (damage.end == end or _is_header(window.read(damage.end, HEADER_BYTES, 4096), seed)):
        return damage
    following = _find_needle(file, window, seed, damage.offset + ALIGNMENT, damage.end, end)
    return Damage(damage.offset, following - damage.offset, damage.problem, damage.header)


def _is_header(raw: Buffer, seed: int) -> bool:
    try:
        NeedleHeader.unpack(raw, seed)
    except LayoutError:
        return False
    return True


class _Window:
    """A read-ahead buffer, so that small needles do not cost a system call each."""

    def __init__(self, file: VolumeFile) -> None:
        self._file = file
        self._start = 0
        self._data = memoryview(b"")

    def read(self, offset: int, size_bytes: int, ahead_bytes: int) -> memoryview:
        begin = offset - self._start
        if begin < 0 or begin + size_bytes > len(self._data):
            self._data = memoryview(self._file.pread(max(size_bytes, ahead_bytes), offset))
            self._start, begin = offset, 0
        return self._data[begin : begin + size_bytes]


def _needle_at(
    file: VolumeFile, window: _Window, seed: int, offset: int, end: int, *, verify: bool
) -> ScannedNeedle | Damage:
    ahead_bytes = min(SMALL_BYTES * 4, end - offset) if verify else 4096
    raw = window.read(offset, min(HEADER_BYTES, end - offset), ahead_bytes)
    try:
        header = NeedleHeader.unpack(raw, seed)
    except LayoutError as error:
        return Damage(offset, end - offset, str(error))
    if offset + header.total_bytes > end:
        problem = f"the needle needs {header.total_bytes} bytes, only {end - offset} are there"
        return Damage(offset, end - offset, problem, header)
    if not verify:
        return ScannedNeedle(offset, header, 0)
    try:
        return ScannedNeedle(offset, header, _verify(file, window, seed, offset, header))
    except LayoutError as error:
        return Damage(offset, header.total_bytes, str(error), header)


def _verify(file: VolumeFile, window: _Window, seed: int, offset: int, header: NeedleHeader) -> int:
    total_bytes = header.total_bytes
    body_bytes = total_bytes - FOOTER_BYTES
    if total_bytes <= SMALL_BYTES:
        raw = window.read(offset, total_bytes, SMALL_BYTES * 4)
        return check_footer(raw[body_bytes:], xxhash.xxh3_64_intdigest(raw[:body_bytes], seed))
    return verify_range(file, seed, offset, header)


def verify_range(file: VolumeFile, seed: int, offset: int, header: NeedleHeader) -> int:
    """Verify a needle of any size in pieces of CHUNK_BYTES; returns its checksum.

    Raises LayoutError when a byte is not as it was written, DiskError.
    """
    body_bytes = header.total_bytes - FOOTER_BYTES
    hasher = xxhash.xxh3_64(seed=seed)
    for position in range(0, body_bytes, CHUNK_BYTES):
        hasher.update(file.pread(min(CHUNK_BYTES, body_bytes - position), offset + position))
    footer = file.pread(FOOTER_BYTES, offset + body_bytes)
    if len(footer) < FOOTER_BYTES:
        raise LayoutError(f"the needle needs {header.total_bytes} bytes, the file ends before")
    return check_footer(footer, hasher.intdigest())


def _find_needle(file: VolumeFile, window: _Window, seed: int, start: int, end: int, limit: int) -> int:
    """Offset of the first valid needle that begins between ``start`` and ``end``, and ends by ``limit``; or ``end``."""
    for position in range(start, end, CHUNK_BYTES):
        # A magic that straddles two chunks is found because the chunks overlap by its length.
        chunk = file.pread(min(CHUNK_BYTES + len(NEEDLE_MAGIC_BYTES), end - position), position)
        at = chunk.find(NEEDLE_MAGIC_BYTES)
        while at >= 0:
            offset = position + at
            if offset % ALIGNMENT == 0:
                found = _needle_at(file, window, seed, offset, limit, verify=True)
                if isinstance(found, ScannedNeedle):
                    return offset
            at = chunk.find(NEEDLE_MAGIC_BYTES, at + 1)
    return end
