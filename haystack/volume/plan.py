"""Laying out any operations behind the tail of a volume, one after the other, each with its own verdict."""

from __future__ import annotations

from haystack.errors import (
    CookieMismatch,
    DamagedNeedle,
    DiskError,
    InvalidRequest,
    NeedleNotFound,
    TooLarge,
    VolumeReadOnly,
)
from haystack.fid import MAX_ALTERNATE, MAX_COOKIE, MAX_KEY
from haystack.volume.files import VolumeFile
from haystack.volume.index import IndexWriter
from haystack.volume.index_records import IndexEntry, entry_flags
from haystack.volume.layout import (
    ALIGNMENT,
    HEADER_BYTES,
    MAX_BATCH_NEEDLES,
    MAX_DATA_BYTES,
    MAX_META_BYTES,
    PHOTO_FLAGS,
    UNKNOWN_DISTANCE,
    Buffer,
    Flags,
    LayoutError,
    NeedleHeader,
    enclose,
    needle_bytes,
    pack_header,
    pack_needle,
    padding_bytes,
)
from haystack.volume.operations import (
    Delete,
    Deleted,
    NewNeedle,
    Operation,
    Outcome,
    Put,
    Stored,
    Undelete,
    Undeleted,
)

MAX_TIME_MS = 2**64 - 1

_OF_ONE = (CookieMismatch, DamagedNeedle, DiskError, InvalidRequest, NeedleNotFound, TooLarge, VolumeReadOnly)
"""Errors that concern one operation; a DiskError while planning is one of reading the needle of the same name."""


class Plan:
    """The needles of one append, laid out behind the tail.

    Parameters
    ----------
    durable: what is known to be durable, None when nothing is.
    """

    def __init__(
        self, file: VolumeFile, writer: IndexWriter, seed: int, tail: int, durable: int | None, max_bytes: int
    ) -> None:
        self.pieces: list[Buffer] = []
        self.tail = tail
        self.changed = False
        self._file = file
        self._writer = writer
        self._seed = seed
        self._durable = durable
        self._max_bytes = max_bytes
        self._new: dict[tuple[int, int], tuple[int, int]] = {}
        """Cookie and end of what this append itself stores."""

    def add(self, operation: Operation) -> Outcome:
        """Lay out one operation; an error that concerns it alone is its outcome."""
        try:
            if isinstance(operation, Delete):
                return self._delete(operation)
            if isinstance(operation, Undelete):
                return self._undelete(operation)
            existing = self._require_allowed(operation)
            size = len(operation.needles)
            return [
                self._store(needle, index, size, old)
                for index, (needle, old) in enumerate(zip(operation.needles, existing, strict=True))
            ]
        except _OF_ONE as error:
            return error

    def _require_allowed(self, put: Put) -> list[IndexEntry | None]:
        """Refuse the whole put before the first of its needles is laid out.

        Returns the entries that the needles supersede.
        """
        count = len(put.needles)
        if not 1 <= count <= MAX_BATCH_NEEDLES:
            raise InvalidRequest(f"{count} needles in one write; 1 to {MAX_BATCH_NEEDLES} are possible")
        if count > 1 and len({(needle.key, needle.alternate) for needle in put.needles}) != count:
            raise InvalidRequest("two needles of one write have the same key and alternate key")
        total_bytes = 0
        found: list[IndexEntry | None] = []
        for needle in put.needles:
            _require_name(needle)
            total_bytes += _require_fits(needle)
            existing = self._writer.get(needle.key, needle.alternate)
            if existing is not None and self._head_of(needle.key, needle.alternate, existing)[0] != needle.cookie:
                raise CookieMismatch(
                    f"photo {needle.key:x}, alternate {needle.alternate} exists with another cookie; "
                    "get a new fid from /dir/assign"
                )
            found.append(existing)
        if self.tail + total_bytes > self._max_bytes:
            raise VolumeReadOnly(
                f"{self._file.path}: {total_bytes} bytes more would exceed the volume's limit of {self._max_bytes}; "
                "get a new fid from /dir/assign"
            )
        return found

    def _store(self, needle: NewNeedle, index: int, size: int, old: IndexEntry | None) -> Stored:
        offset, meta, data_bytes = self.tail, needle.meta, needle.data_bytes
        meta_bytes = len(meta)
        head = pack_header(
            self._seed,
            needle.key,
            needle.cookie,
            needle.alternate,
            data_bytes,
            meta_bytes,
            needle.time_ms,
            needle.flags,
            needle.expires,
            index,
            size,
            self._distance(),
        )
        pieces, checksum = enclose(head + meta, needle.data, padding_bytes(meta_bytes, data_bytes), self._seed)
        self.pieces += pieces
        self.tail = offset + needle_bytes(meta_bytes, data_bytes)
        entry = IndexEntry(offset, data_bytes, meta_bytes, entry_flags(needle.expires, needle.flags))
        self._writer.replace(needle.key, needle.alternate, entry, needle.time_ms, old)
        if old is not None:
            self.changed = True
        self._new[needle.key, needle.alternate] = needle.cookie, needle.expires
        return Stored(offset, data_bytes, checksum)

    def _delete(self, delete: Delete) -> Deleted:
        existing = self._named(delete)
        if existing.deleted and not (delete.now and existing.in_trash):
            raise _not_here(delete)
        size_bytes = self._mark(delete, Flags.TOMBSTONE | Flags.NOW if delete.now else Flags.TOMBSTONE)
        self._writer.delete(delete.key, delete.alternate, size_bytes, delete.time_ms, now=delete.now)
        return Deleted(existing.data_bytes)

    def _undelete(self, undelete: Undelete) -> Undeleted:
        existing = self._named(undelete)
        if not existing.in_trash:
            raise NeedleNotFound(
                f"photo {undelete.key:x}, alternate {undelete.alternate} is not in the trash: "
                f"{'it was deleted for good' if existing.deleted else 'it is not deleted'}"
            )
        age_ms = undelete.time_ms - existing.deleted_ms
        if undelete.retention_ms is not None and age_ms > undelete.retention_ms:
            raise NeedleNotFound(
                f"photo {undelete.key:x}, alternate {undelete.alternate} was deleted {age_ms // 1000} s ago; "
                f"the trash keeps photos for {undelete.retention_ms // 1000} s"
            )
        size_bytes = self._mark(undelete, Flags.UNDELETE)
        self._writer.undelete(undelete.key, undelete.alternate, size_bytes, undelete.time_ms)
        return Undeleted(existing.data_bytes)

    def _named(self, operation: Delete | Undelete) -> IndexEntry:
        """The entry of the needle that an operation names, deleted or not; one that has expired is not here."""
        _require_name(operation)
        existing = self._writer.get(operation.key, operation.alternate)
        if existing is None:
            raise _not_here(operation)
        cookie, expires = self._head_of(operation.key, operation.alternate, existing)
        if cookie != operation.cookie or (expires and operation.time_ms >= expires * 1000):
            raise _not_here(operation)
        return existing

    def _mark(self, operation: Delete | Undelete, flags: Flags) -> int:
        """Lay out a needle without data; returns its bytes."""
        header = NeedleHeader(
            key=operation.key,
            cookie=operation.cookie,
            alternate=operation.alternate,
            data_bytes=0,
            meta_bytes=0,
            time_ms=operation.time_ms,
            flags=flags,
            durable_distance=self._distance(),
        )
        pieces, _ = pack_needle(header, b"", (), self._seed)
        self.pieces += pieces
        self.tail += header.total_bytes
        self.changed = True
        return header.total_bytes

    def _distance(self) -> int:
        if self._durable is None:
            return UNKNOWN_DISTANCE
        return min((self.tail - self._durable) // ALIGNMENT, UNKNOWN_DISTANCE)

    def _head_of(self, key: int, alternate: int, entry: IndexEntry) -> tuple[int, int]:
        """Cookie and end (seconds since 1970, 0 for none) of a needle."""
        known = self._new.get((key, alternate))
        if known is not None:
            return known
        try:
            header = NeedleHeader.unpack(self._file.pread(HEADER_BYTES, entry.offset), self._seed)
        except LayoutError as error:
            raise DamagedNeedle(self._file.path, entry.offset, str(error)) from error
        return header.cookie, header.expires


def _not_here(operation: Delete | Undelete) -> NeedleNotFound:
    return NeedleNotFound(f"photo {operation.key:x}, alternate {operation.alternate} is not here")


def _require_fits(needle: NewNeedle) -> int:
    """Bytes that it will take; refuses what a header cannot say, since a reader would refuse the needle."""
    data_bytes = needle.data_bytes
    if data_bytes > MAX_DATA_BYTES:
        raise TooLarge(f"{data_bytes} bytes; a needle holds at most {MAX_DATA_BYTES}")
    if len(needle.meta) > MAX_META_BYTES:
        raise InvalidRequest(f"{len(needle.meta)} bytes of metadata; at most {MAX_META_BYTES} are kept")
    for piece in needle.data:
        if isinstance(piece, memoryview) and piece.nbytes != len(piece):
            raise InvalidRequest("data in a memoryview of items that are no bytes; cast it to 'B'")
    _require_range("expires", needle.expires, 2**32 - 1)
    if needle.flags not in PHOTO_FLAGS:
        raise InvalidRequest(f"flags {needle.flags} are none of a photo")
    return needle_bytes(len(needle.meta), data_bytes)


def _require_name(operation: NewNeedle | Delete | Undelete) -> None:
    if (
        0 <= operation.key <= MAX_KEY
        and 0 <= operation.cookie <= MAX_COOKIE
        and 0 <= operation.alternate <= MAX_ALTERNATE
        and 0 <= operation.time_ms <= MAX_TIME_MS
    ):
        return
    _require_range("key", operation.key, MAX_KEY)
    _require_range("cookie", operation.cookie, MAX_COOKIE)
    _require_range("alternate key", operation.alternate, MAX_ALTERNATE)
    _require_range("time in milliseconds", operation.time_ms, MAX_TIME_MS)


def _require_range(what: str, value: int, limit: int) -> None:
    if not 0 <= value <= limit:
        raise InvalidRequest(f"{what} {value} is outside 0 … {limit}")
