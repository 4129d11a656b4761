"""Reads of photos: the data path's hot half.

Three ways, from fast to slow:

1. **cached**: the request line was answered before, nothing that could make the answer wrong has happened since (the
   volume's epoch is the same), and the bytes are in the page cache: verify the checksum, write. No parsing, no index.
2. **plain**: a request line of the plainest form, judged by a regular expression that accepts a part of what the strict
   parser accepts: index, needle header, checksum, write; the entry is kept when the line comes a second time.
3. **strict**: everything else, through the parser: locators, names, ranges, conditions, HEAD of anything, photos that
   are not in the page cache (read by another thread) or too large to be verified on the event loop.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import xxhash

from haystack.errors import DamagedNeedle, DiskError, HaystackError, NeedleNotFound, WrongNeedle
from haystack.http.conditions import is_not_modified
from haystack.http.connection import HttpConnection
from haystack.http.ranges import UNSATISFIABLE, ByteRange, select_range, unsatisfied_content_range
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import header_block, prepared_head
from haystack.store.answers import etag, photo_headers
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control import Counter, Histogram, VolumeCell
from haystack.store.tally import Tally
from haystack.store.targets import Target
from haystack.volume.index import KEY, VALUE, IndexEntry
from haystack.volume.layout import ALIGNMENT, FOOTER_BYTES, HEADER_BYTES, NeedleHeader
from haystack.volume.scan import CHUNK_BYTES
from haystack.volume.volume import Needle

INLINE_BYTES = 2 * 2**20
"""Photos up to this size are verified and sent on the event loop when they are in the page cache (about 0.2 ms)."""

STREAM_BYTES = 8 * 2**20
"""Larger photos are verified by a thread, then sent piece by piece, so that memory stays bounded."""

SHARED_BYTES = 64 * 1024
"""Photos from this size on that had to be read from disk are sent out of the page cache."""

MAX_ENTRIES = 32_768
"""Cached answers of a worker, about 1 KB each."""

MAX_SEEN = 65_536
"""Request lines remembered as seen once; a line is worth a cache entry when it comes again."""

_PLAIN_LINE = re.compile(rb"GET /([0-9]{1,10}),([0-9a-fA-F]{1,16})([0-9a-fA-F]{16}) HTTP/1\.1")


class _Entry:
    """A cached answer: where it lies, how to tell that it still holds, and its head."""

    __slots__ = (
        "body",
        "body_bytes",
        "checked",
        "checksum",
        "epoch",
        "head",
        "resident_tick",
        "seed",
        "served",
        "span",
    )

    def __init__(self, served: ServedVolume, epoch: int, raw: memoryview, header: NeedleHeader, checksum: int) -> None:
        start = HEADER_BYTES + header.meta_bytes
        self.served = served
        self.epoch = epoch
        self.checked = raw[:-FOOTER_BYTES]
        self.checksum = checksum
        self.seed = served.volume.seed
        self.body = raw[start : start + header.data_bytes]
        self.body_bytes = header.data_bytes
        self.head = prepared_head(
            200, photo_headers(bytes(raw[HEADER_BYTES:start]), checksum, header.time_ms), header.data_bytes
        )
        self.resident_tick = 0.0
        self.span = (0, 0)


class Reader:
    """Answers GET and HEAD for needles.

    Parameters
    ----------
    executor: threads for reads that have to wait for a disk.
    """

    def __init__(self, catalog: Catalog, tally: Tally, executor: Executor) -> None:
        self._catalog = catalog
        self._tally = tally
        self._executor = executor
        self._cells = catalog.control.cells
        self._entries: dict[bytes, _Entry] = {}
        self._seen: set[bytes] = set()
        self.tick = 0.0
        """Set by the worker every second: how long a page that was found resident is taken to stay so."""

    @property
    def entry_count(self) -> int:
        return len(self._entries)

    def forget_all(self) -> None:
        """Drop all cached answers."""
        self._entries.clear()
        self._seen.clear()

    # -- the fast ways

    def fast_get(self, connection: HttpConnection, line: bytes, headers: RequestHeaders) -> bool:
        """Answer a plain GET at once, or return False. See ``haystack.http.handler.Handler.fast_get``."""
        started = time.perf_counter()
        entry = self._entries.get(line)
        if entry is None or self._cells[entry.served.epoch_cell] != entry.epoch:
            entry = self._load(line)
            if entry is None:
                return False
        elif entry.resident_tick != self.tick:
            if not entry.served.map.resident(*entry.span):
                del self._entries[line]
                return False
            entry.resident_tick = self.tick
        if xxhash.xxh3_64_intdigest(entry.checked, entry.seed) != entry.checksum:
            self._entries.pop(line, None)
            return False  # the strict way finds out what is wrong, and says it
        connection.respond_prepared(entry.head, entry.body)
        served = entry.served
        served.reads += 1
        served.bytes_read += entry.body_bytes
        self._tally.fast_read(time.perf_counter() - started, entry.body_bytes)
        return True

    def _load(self, line: bytes) -> _Entry | None:
        """Make the entry for a plain line whose photo is in the page cache; None sends it the strict way."""
        match = _PLAIN_LINE.fullmatch(line)
        if match is None:
            return None
        try:
            served = self._catalog.get(int(match[1]))
        except HaystackError:
            return None
        epoch = served.epoch
        raw_entry = served.volume.index.get_raw(KEY.pack(int(match[2], 16), 0))
        if raw_entry is None:
            return None
        low, high, data_bytes, meta_bytes, flags = VALUE.unpack(raw_entry)
        if flags or data_bytes > INLINE_BYTES:
            return None
        offset = (high << 32 | low) * ALIGNMENT
        total_bytes = IndexEntry(offset, data_bytes, meta_bytes, 0).total_bytes
        raw = served.map.view(offset, total_bytes)
        if raw is None:
            return None
        entry = self._judge(served, epoch, raw, int(match[2], 16), int(match[3], 16))
        if entry is None:
            return None
        entry.span = (offset, total_bytes)
        self._keep(line, entry)
        return entry

    def _judge(self, served: ServedVolume, epoch: int, raw: memoryview, key: int, cookie: int) -> _Entry | None:
        try:
            header = NeedleHeader.unpack(raw, served.volume.seed)
        except ValueError:
            return None
        if header.key != key or header.cookie != cookie or header.alternate or header.total_bytes != len(raw):
            return None
        return _Entry(served, epoch, raw, header, int.from_bytes(raw[-8:], "little"))

    def _keep(self, line: bytes, entry: _Entry) -> None:
        entry.resident_tick = self.tick
        if line not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(line)
            return
        if len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[line] = entry

    # -- the strict way

    def begin(self, connection: HttpConnection, request: Request, target: Target) -> Coroutine[Any, Any, None] | None:
        """Answer at once when the photo is in the page cache, otherwise return the coroutine that will.

        Raises NeedleNotFound, VolumeNotFound, VolumeUnavailable, DamagedNeedle, DiskError.
        """
        started = time.perf_counter()
        served = self._catalog.get(target.fid.volume)
        entry = served.volume.index.get(target.fid.key, target.fid.alternate)
        if entry is not None and entry.deleted:
            raise _not_found(target)
        if entry is not None and entry.data_bytes <= INLINE_BYTES:
            raw = served.map.view(entry.offset, entry.total_bytes)
            if raw is not None:
                needle = self._verified(served, target, entry, raw)
                self._respond(connection, request, served, needle)
                self._count(served, needle, started)
                return None
        return self._read_cold(connection, request, served, target, entry, started)

    async def _read_cold(
        self,
        connection: HttpConnection,
        request: Request,
        served: ServedVolume,
        target: Target,
        entry: IndexEntry | None,
        started: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._tally.add(Counter.COLD_READS)
        if entry is not None and entry.data_bytes > STREAM_BYTES:
            needle = await loop.run_in_executor(self._executor, self._verify_large, served, target, entry)
            await self._respond_large(connection, request, served, entry, needle)
        else:
            needle = await loop.run_in_executor(self._executor, self._read, served, target, entry)
            needle = _shared(served, needle)
            self._respond(connection, request, served, needle)
        self._count(served, needle, started)

    def _read(self, served: ServedVolume, target: Target, entry: IndexEntry | None) -> Needle:
        """Read and verify a whole photo; on a thread."""
        fid = target.fid
        if entry is None:
            if target.offset is None:
                raise _not_found(target)
            try:
                return served.volume.get_at(target.offset, fid.key, fid.cookie, alternate=fid.alternate)
            except NeedleNotFound:
                raise _not_found(target) from None
        raw = memoryview(bytearray(entry.total_bytes))
        try:
            served.volume.file.pread_into(raw, entry.offset)
        except DiskError:
            self._failed(served, Counter.DISK_ERRORS)
            raise
        return self._verified(served, target, entry, raw)

    def _verify_large(self, served: ServedVolume, target: Target, entry: IndexEntry) -> Needle:
        """Verify a photo that is too large to hold; the needle comes back without its data. On a thread."""
        try:
            needle = served.volume.verify(entry)
        except DiskError:
            self._failed(served, Counter.DISK_ERRORS)
            raise
        except DamagedNeedle:
            self._failed(served, Counter.DAMAGED_READS)
            raise
        _require_named(served, target, needle)
        return needle

    def _verified(self, served: ServedVolume, target: Target, entry: IndexEntry, raw: memoryview) -> Needle:
        try:
            needle = served.volume.parse(entry.offset, raw)
            _require_named(served, target, needle)
        except (DamagedNeedle, WrongNeedle):
            self._failed(served, Counter.DAMAGED_READS)
            raise
        return needle

    def _respond(self, connection: HttpConnection, request: Request, served: ServedVolume, needle: Needle) -> None:
        status, headers, start, end = _plan(request, needle, needle.header.data_bytes)
        if status == 304:
            connection.respond(status, headers)
        elif status == 416:
            connection.respond_error(status, _unsatisfiable(needle.header.data_bytes), headers)
        else:
            connection.respond(status, headers, needle.data[start:end])

    async def _respond_large(
        self, connection: HttpConnection, request: Request, served: ServedVolume, entry: IndexEntry, needle: Needle
    ) -> None:
        status, headers, start, end = _plan(request, needle, entry.data_bytes)
        if status == 304:
            connection.respond(status, headers)
        elif status == 416:
            connection.respond_error(status, _unsatisfiable(entry.data_bytes), headers)
        else:
            first = entry.offset + HEADER_BYTES + entry.meta_bytes
            pieces = self._pieces(served, first + start, first + end)
            await connection.respond_stream(status, headers, end - start, pieces)

    async def _pieces(self, served: ServedVolume, start: int, end: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        for offset in range(start, end, CHUNK_BYTES):
            count = min(CHUNK_BYTES, end - offset)
            yield await loop.run_in_executor(self._executor, served.volume.file.pread, count, offset)

    def _count(self, served: ServedVolume, needle: Needle, started: float) -> None:
        served.reads += 1
        served.bytes_read += needle.header.data_bytes
        self._tally.took(Histogram.READ, time.perf_counter() - started)

    def _failed(self, served: ServedVolume, counter: Counter) -> None:
        self._tally.add(counter)
        served.count(VolumeCell.ERRORS)


def _plan(request: Request, needle: Needle, data_bytes: int) -> tuple[int, bytes, int, int]:
    """Status, header lines, and the part of the data to send, for a needle that was found."""
    headers = request.headers
    tag = etag(needle.checksum)
    modified_seconds = needle.header.time_ms // 1000
    attachment = request.query_value("dl") is not None
    lines = photo_headers(needle.raw_meta, needle.checksum, needle.header.time_ms, attachment=attachment)
    if headers.plain:
        return 200, lines, 0, data_bytes
    if is_not_modified(headers.if_none_match, headers.if_modified_since, tag, modified_seconds):
        return 304, lines, 0, 0
    wanted = select_range(
        headers.range, headers.if_range, etag=tag, last_modified_seconds=modified_seconds, size_bytes=data_bytes
    )
    if wanted is UNSATISFIABLE:
        return 416, header_block([("Content-Range", unsatisfied_content_range(data_bytes))]), 0, 0
    if isinstance(wanted, ByteRange):
        partial = header_block([("Content-Range", wanted.content_range(data_bytes))])
        return 206, lines + partial, wanted.start, wanted.end
    return 200, lines, 0, data_bytes


def _shared(served: ServedVolume, needle: Needle) -> Needle:
    """The needle with its data in the page cache instead of in a buffer, now that it is there.

    Otherwise a slow client would hold a whole photo of our memory, and many of them all of it.
    """
    if needle.header.data_bytes < SHARED_BYTES:
        return needle
    start = needle.offset + HEADER_BYTES + needle.header.meta_bytes
    view = served.map.view(start, needle.header.data_bytes)
    return needle if view is None else replace(needle, data=view)


def _require_named(served: ServedVolume, target: Target, needle: Needle) -> None:
    fid, header = target.fid, needle.header
    if header.key != fid.key or header.alternate != fid.alternate:
        problem = f"holds photo {header.key:x}, the index says {fid.key:x}"
        raise WrongNeedle(served.volume.file.path, needle.offset, problem)
    if header.cookie != fid.cookie:
        raise _not_found(target)


def _not_found(target: Target) -> NeedleNotFound:
    return NeedleNotFound(f"{target.fid} is not here: unknown, deleted, or the cookie is wrong")


def _unsatisfiable(data_bytes: int) -> str:
    return f"the range lies outside the photo's {data_bytes} bytes"
