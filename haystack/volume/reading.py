"""Reading needles of an open volume, each verified as it is read."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.errors import DamagedNeedle, IndexDamaged, NeedleNotFound, WrongNeedle
from haystack.volume.files import VolumeFile
from haystack.volume.index import NeedleIndex
from haystack.volume.index_records import IndexEntry
from haystack.volume.layout import HEADER_BYTES, Buffer, LayoutError, NeedleHeader, NeedleMeta, check_needle
from haystack.volume.scan import verify_range

FIRST_READ_BYTES = 64 * 1024
"""What a read by offset fetches before it knows the needle's size."""


@dataclass(frozen=True, slots=True)
class Needle:
    """A needle as read and verified.

    Parameters
    ----------
    offset: where it lies, bytes from the start of the volume.
    header: its header.
    raw_meta: packed metadata; ``meta`` unpacks it.
    data: the photo; a view into the bytes that were read.
    checksum: xxh3-64 over header, metadata and data.
    """

    offset: int
    header: NeedleHeader
    raw_meta: bytes
    data: memoryview
    checksum: int

    @property
    def meta(self) -> NeedleMeta:
        return NeedleMeta.unpack(self.raw_meta)


class NeedleReader:
    """The reading half of a :class:`~haystack.volume.volume.Volume`.

    Parameters
    ----------
    file, index: of the volume, open.
    seed: of its checks.
    """

    def __init__(self, file: VolumeFile, index: NeedleIndex, seed: int) -> None:
        self.file = file
        self.index = index
        self.seed = seed

    def _distrust(self, reason: str) -> None:
        """Have the index rebuilt at the next opening."""
        raise NotImplementedError

    def get(self, key: int, cookie: int, *, alternate: int = 0) -> Needle:
        """Read a needle through the index and verify it.

        Raises NeedleNotFound (unknown, deleted or wrong cookie), DamagedNeedle, DiskError.
        """
        entry = self.find(key, alternate)
        if entry is None or entry.deleted:
            raise NeedleNotFound(f"photo {key:x}, alternate {alternate} is not here")
        needle = self.read(entry)
        if needle.header.key != key or needle.header.alternate != alternate:
            problem = f"holds photo {needle.header.key:x}, the index says {key:x}"
            raise WrongNeedle(self.file.path, entry.offset, problem)
        if needle.header.cookie != cookie:
            raise NeedleNotFound(f"photo {key:x}, alternate {alternate} is not here")
        return needle

    def find(self, key: int, alternate: int = 0) -> IndexEntry | None:
        """The index entry of a needle, deleted ones included. Raises IndexDamaged, and has the index rebuilt then."""
        try:
            return self.index.get(key, alternate)
        except IndexDamaged as error:
            self._distrust(str(error))
            raise

    def get_at(self, offset: int, key: int, cookie: int, *, alternate: int = 0) -> Needle:
        """Read a needle by its offset. The index is only asked whether it was deleted or has moved since.

        Raises as :meth:`get`.
        """
        entry = self.find(key, alternate)
        if entry is not None:
            return self.get(key, cookie, alternate=alternate)
        first = self.file.pread(FIRST_READ_BYTES, offset)
        try:
            header = NeedleHeader.unpack(first, self.seed)
        except LayoutError as error:
            raise NeedleNotFound(f"no needle at offset {offset}") from error
        if (header.key, header.alternate, header.cookie) != (key, alternate, cookie) or header.is_marker:
            raise NeedleNotFound(f"photo {key:x} is not at offset {offset}")
        return self.read(IndexEntry(offset, header.data_bytes, header.meta_bytes, 0), first)

    def read(self, entry: IndexEntry, head: bytes = b"") -> Needle:
        """Read and verify what an index entry points to. Raises DamagedNeedle or DiskError.

        Parameters
        ----------
        head: bytes of the needle's beginning that were read already.
        """
        total_bytes = entry.total_bytes
        raw = head[:total_bytes]
        if len(raw) < total_bytes:
            raw += self.file.pread(total_bytes - len(raw), entry.offset + len(raw))
        return self.parse(entry.offset, raw)

    def verify(self, entry: IndexEntry) -> Needle:
        """Verify a needle piece by piece, in bounded memory; its ``data`` is left empty.

        Raises DamagedNeedle or DiskError.
        """
        try:
            head = self.file.pread(HEADER_BYTES + entry.meta_bytes, entry.offset)
            header = NeedleHeader.unpack(head, self.seed)
            checksum = verify_range(self.file, self.seed, entry.offset, header)
        except LayoutError as error:
            raise DamagedNeedle(self.file.path, entry.offset, str(error)) from error
        return Needle(entry.offset, header, head[HEADER_BYTES:], memoryview(b""), checksum)

    def parse(self, offset: int, raw: Buffer) -> Needle:
        """Verify the bytes of a whole needle. Raises DamagedNeedle."""
        try:
            header = NeedleHeader.unpack(raw, self.seed)
            checksum = check_needle(raw, header, self.seed)
        except LayoutError as error:
            raise DamagedNeedle(self.file.path, offset, str(error)) from error
        data_start = HEADER_BYTES + header.meta_bytes
        view = memoryview(raw)
        return Needle(
            offset,
            header,
            bytes(view[HEADER_BYTES:data_start]),
            view[data_start : data_start + header.data_bytes],
            checksum,
        )
