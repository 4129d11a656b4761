"""The fast ways to answer a plain GET, on the event loop and without the parser.

1. **cached**: the request line was answered before, nothing that could make the answer wrong has happened since (the
   volume's epoch is the same), and the bytes are in the page cache: verify the checksum, write. No parsing, no index.
2. **plain**: a request line of the plainest form, judged by a regular expression that accepts a part of what the strict
   parser accepts: index, one read that must not wait for the disk, checksum, write. A line that comes a second time is
   worth a cache entry.

Whatever is unusual in the slightest (unknown, deleted, wrong cookie, damaged, not in memory, large) goes the strict
way, which answers it or says what is wrong.
"""

from __future__ import annotations

import os
import re
import struct
import time

import xxhash

from haystack.errors import HaystackError
from haystack.http.connection import HttpConnection
from haystack.http.request import RequestHeaders
from haystack.http.response import prepared_head
from haystack.store.answers import photo_headers
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control import Header
from haystack.store.tally import Tally
from haystack.volume.index import KEY, VALUE
from haystack.volume.layout import ALIGNMENT, FOOTER_BYTES, HEADER, HEADER_BYTES, needle_bytes

INLINE_BYTES = 2 * 2**20
"""Photos up to this size are verified and sent on the event loop when they are in the page cache (about 0.2 ms)."""

COPIED_BYTES = 32 * 1024
"""Needles up to this size are copied out of the page cache on their first read: cheaper than asking and mapping."""

COPIED_NEW_BYTES = 256 * 1024
"""Needles up to this size are copied when they are so new that the map does not reach them yet. A client that does not
read holds on to a copy, so this bounds memory."""

MAX_ENTRIES = 32_768
"""Cached answers of a worker, about 1 KB each."""

MAX_SEEN = 131_072
"""Request lines remembered as seen once."""

_PLAIN_LINE = re.compile(rb"GET /([0-9]{1,10}),([0-9a-fA-F]{1,16})([0-9a-fA-F]{16}) HTTP/1\.1")

_clock = time.perf_counter
_digest = xxhash.xxh3_64_intdigest


class _Entry:
    """A cached answer: where it lies, how to tell that it still holds, and its head."""

    __slots__ = ("body", "body_bytes", "checked", "checksum", "epoch", "head", "offset", "seed", "served", "tick")

    def __init__(
        self,
        served: ServedVolume,
        epoch: int,
        offset: int,
        raw: memoryview,
        checked: memoryview,
        checksum: int,
        sizes_and_time: tuple[int, int, int],
    ) -> None:
        meta_bytes, data_bytes, time_ms = sizes_and_time
        start = HEADER_BYTES + meta_bytes
        self.served = served
        self.epoch = epoch
        self.offset = offset
        self.checked = checked
        self.checksum = checksum
        self.seed = served.volume.seed
        self.body = raw[start : start + data_bytes]
        self.body_bytes = data_bytes
        self.head = prepared_head(200, photo_headers(bytes(raw[HEADER_BYTES:start]), checksum, time_ms), data_bytes)
        self.tick = 0.0


class FastReader:
    """Answers plain GETs; see the module's text."""

    def __init__(self, catalog: Catalog, tally: Tally) -> None:
        self._catalog = catalog
        self._tally = tally
        self._cells = catalog.control.cells
        self._entries: dict[bytes, _Entry] = {}
        self._seen: set[bytes] = set()
        self._volumes: dict[bytes, ServedVolume] = {}
        self._volumes_catalog = -1
        self.tick = 0.0
        """Set by the worker every second: how long a page that was found resident is taken to stay so."""

    @property
    def entry_count(self) -> int:
        return len(self._entries)

    def forget_all(self) -> None:
        """Drop all cached answers and volumes."""
        self._entries.clear()
        self._seen.clear()
        self._volumes.clear()

    def fast_get(self, connection: HttpConnection, line: bytes, headers: RequestHeaders) -> bool:
        """Answer a plain GET at once, or return False. See ``haystack.http.handler.Handler.fast_get``."""
        started = _clock()
        entry = self._entries.get(line)
        if entry is None:
            return self._first_read(connection, line, started)
        served = entry.served
        if self._cells[served.epoch_cell] != entry.epoch or (entry.tick != self.tick and not self._is_resident(entry)):
            del self._entries[line]
            return self._first_read(connection, line, started)
        if _digest(entry.checked, entry.seed) != entry.checksum:
            del self._entries[line]
            return False
        connection.respond_prepared(entry.head, entry.body)
        served.reads += 1
        served.bytes_read += entry.body_bytes
        self._tally.fast_read(_clock() - started, entry.body_bytes)
        return True

    def _is_resident(self, entry: _Entry) -> bool:
        if not entry.served.map.resident(entry.offset, len(entry.checked)):
            return False
        entry.tick = self.tick
        return True

    def _first_read(self, connection: HttpConnection, line: bytes, started: float) -> bool:
        match = _PLAIN_LINE.fullmatch(line)
        served = self._volume(match[1]) if match else None
        if match is None or served is None:
            return False
        epoch = self._cells[served.epoch_cell]
        key = int(match[2], 16)
        again = line in self._seen
        try:
            value = served.volume.index.get_raw(KEY.pack(key, 0))
            if value is None:
                return False
            low, high, data_bytes, meta_bytes, flags = VALUE.unpack(value)
            if flags or data_bytes > INLINE_BYTES:
                return False
            offset = (high << 32 | low) * ALIGNMENT
            total_bytes = needle_bytes(meta_bytes, data_bytes)
            if total_bytes > COPIED_BYTES or again:
                raw = served.map.view(offset, total_bytes)
                if raw is None and total_bytes <= COPIED_NEW_BYTES and not served.map.covers(offset + total_bytes):
                    raw = self._copy(served, offset, total_bytes)
                    again = False  # a copy is too dear to be kept
            else:
                raw = self._copy(served, offset, total_bytes)
        except (HaystackError, OSError, struct.error):
            return False  # the strict way meets it too, and says what is wrong
        if raw is None:
            return False
        fields = HEADER.unpack_from(raw)
        if fields[5] != key or fields[6] != int(match[3], 16) or fields[4] or fields[3] != data_bytes or fields[1]:
            return False
        checked = raw[:-FOOTER_BYTES]
        checksum = int.from_bytes(raw[-8:], "little")
        if _digest(checked, served.volume.seed) != checksum:
            return False
        entry = _Entry(served, epoch, offset, raw, checked, checksum, (fields[2], data_bytes, fields[7]))
        connection.respond_prepared(entry.head, entry.body)
        self._remember(line, entry, again=again)
        served.reads += 1
        served.bytes_read += data_bytes
        self._tally.fast_read(_clock() - started, data_bytes)
        return True

    def look_again(self) -> None:
        """Drop everything when volumes have come, gone, or been taken out of service."""
        catalog = self._cells[Header.CATALOG]
        if catalog != self._volumes_catalog:
            self.forget_all()
            self._volumes_catalog = catalog

    def _volume(self, text: bytes) -> ServedVolume | None:
        self.look_again()
        served = self._volumes.get(text)
        if served is None:
            try:
                served = self._volumes[text] = self._catalog.get(int(text))
            except HaystackError:
                return None  # the strict way says what is wrong
        return served

    def _copy(self, served: ServedVolume, offset: int, total_bytes: int) -> memoryview | None:
        """The bytes, if the kernel can give them without waiting for the disk."""
        buffer = bytearray(total_bytes)
        try:
            count = os.preadv(served.volume.file.read_fd, (buffer,), offset, os.RWF_NOWAIT)
        except OSError:
            return None  # EAGAIN: not in memory. Anything else comes again on the strict way, which reports it.
        return memoryview(buffer) if count == total_bytes else None

    def _remember(self, line: bytes, entry: _Entry, *, again: bool) -> None:
        if not again:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(line)
            return
        if len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        entry.tick = self.tick
        self._entries[line] = entry
