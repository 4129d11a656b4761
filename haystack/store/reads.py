"""Reads of photos that go through the strict parser: everything that :mod:`haystack.store.fast_reads` leaves.

Locators, names, alternates, ranges, conditions, HEAD of anything; photos that are not in the page cache (read by another
thread, so that a slow disk never stalls the loop) or too large to be verified on the event loop; and all errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from haystack.errors import DamagedNeedle, DiskError, NeedleNotFound, WrongNeedle
from haystack.http.conditions import is_not_modified
from haystack.http.connection import HttpConnection
from haystack.http.ranges import UNSATISFIABLE, ByteRange, select_range, unsatisfied_content_range
from haystack.http.request import Request
from haystack.http.response import header_block
from haystack.store.answers import etag, photo_headers
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control import Counter, Histogram, VolumeCell
from haystack.store.fast_reads import INLINE_BYTES
from haystack.store.tally import Tally
from haystack.store.targets import Target
from haystack.volume.index import IndexEntry
from haystack.volume.layout import HEADER_BYTES
from haystack.volume.scan import CHUNK_BYTES
from haystack.volume.volume import Needle

STREAM_BYTES = 8 * 2**20
"""Larger photos are verified by a thread, then sent piece by piece, so that memory stays bounded."""

SHARED_BYTES = 64 * 1024
"""Photos from this size on that had to be read from disk are sent out of the page cache."""


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
