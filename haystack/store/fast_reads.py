"""The fast ways to answer a plain GET, on the event loop and without the parser.

1. **cached**: the request line was answered before, nothing that could make the answer wrong has happened since (the
   volume's epoch is the same), and the bytes are in the page cache: verify the checksum, write. No parsing, no index.
2. **plain**: a request line of the plainest form, judged by a regular expression that accepts a part of what the strict
   parser accepts: index, one read that must not wait for the disk, checksum, write. Of a small photo nothing is made
   that outlives the answer, for among millions of photos nearly every read is the first one of its photo. A line that
   comes a second time is worth a cache entry.

Whatever is unusual in the slightest (unknown, deleted, wrong cookie, damaged, not in memory, large) goes the strict
way, which answers it or says what is wrong.
"""

from __future__ import annotations

import os
import re
import struct
import time
from array import array

import xxhash

from haystack.bounded import BoundedCache
from haystack.errors import HaystackError
from haystack.http.answering import JOINED_ANSWER_BYTES
from haystack.http.connection import HttpConnection
from haystack.http.request import RequestHeaders
from haystack.store.answers import photo_head
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.cold_reads import SMALL_BYTES
from haystack.store.control_cells import Header
from haystack.store.fast_cold import FastColdReads, PlainRead
from haystack.store.sampling import ReadSampler
from haystack.store.tally import Tally
from haystack.volume.index_records import KEY, VALUE
from haystack.volume.layout import (
    ALIGNMENT,
    FOOTER,
    FOOTER_BYTES,
    FOOTER_MAGIC,
    HEADER_BYTES,
    NEEDLE_MAGIC,
    NEEDLE_TYPE,
    needle_bytes,
)

INLINE_BYTES = 2 * 2**20
"""Photos up to this size are verified and sent on the event loop when they are in the page cache (about 0.2 ms)."""

REUSED_BYTES = JOINED_ANSWER_BYTES
"""Needles up to this size are copied out of the page cache on their first read, which is cheaper than asking whether
they are there; into one buffer for all, since answers of this size are sent as a copy anyway."""

COPIED_NEW_BYTES = 256 * 1024
"""Needles up to this size are copied when they are so new that the map does not reach them yet. A client that does not
read holds on to a copy, so this bounds memory."""

MAX_ENTRIES = 32_768
"""Cached answers of a worker, about 1 KB each."""

SEEN_SLOTS = 2**17
"""Slots for hashes of request lines that were answered once, each holding the last one that fell into it. Two lines of
one hash only earn the second an early cache entry."""

_PLAIN_LINE = re.compile(rb"GET /([0-9]{1,10}),([0-9a-fA-F]{17,32}) HTTP/1\.1")
"""Key and cookie are one group, since a regular expression that has to find their border takes four times as long."""

_COOKIE_BITS = 64
_COOKIE_MASK = 2**_COOKIE_BITS - 1

_NEEDLE = struct.Struct("<IHHIIQQQI")
"""A needle's header without its last fields: magic, flags, bytes of metadata and data, alternate, key, cookie, time,
end. Needles that have an end go the strict way: no cached answer can outlive them."""

_CATALOG_CELL = int(Header.CATALOG)

_clock = time.perf_counter
_digest = xxhash.xxh3_64_intdigest
_preadv = os.preadv
_NOWAIT = os.RWF_NOWAIT
_needle = _NEEDLE.unpack_from
_footer = FOOTER.unpack_from


class _Entry:
    """A cached answer: where it lies, how to tell that it still holds, and its head."""

    __slots__ = (
        "body",
        "body_bytes",
        "checked",
        "checksum",
        "epoch",
        "head",
        "key",
        "offset",
        "seed",
        "served",
        "tick",
    )

    def __init__(
        self,
        served: ServedVolume,
        key: int,
        epoch: int,
        offset: int,
        head: bytes,
        body: memoryview,
        checked: memoryview,
        checksum: int,
        tick: float,
    ) -> None:
        self.served = served
        self.key = key
        self.epoch = epoch
        self.offset = offset
        self.head = head
        self.body = body
        self.body_bytes = len(body)
        self.checked = checked
        self.checksum = checksum
        self.seed = served.volume.seed
        self.tick = tick


class FastReader:
    """Answers plain GETs; see the module's text."""

    def __init__(self, catalog: Catalog, tally: Tally, sampler: ReadSampler, cold: FastColdReads) -> None:
        self._cold = cold
        self._catalog = catalog
        self._cells = catalog.control.cells
        self._count = tally.fast_read
        self._sampler = sampler
        self._entries = BoundedCache[bytes, _Entry](MAX_ENTRIES)
        self._seen = array("q", bytes(8 * SEEN_SLOTS))
        self._small = memoryview(bytearray(REUSED_BYTES))
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
        self._volumes.clear()

    def fast_get(self, connection: HttpConnection, line: bytes, headers: RequestHeaders) -> bool:
        """Answer a plain GET at once, or return False. See ``haystack.http.handler.Handler.fast_get``."""
        if headers.accept == NEEDLE_TYPE:
            return False  # a Cache asks, for the whole needle
        started = _clock()
        entry = self._entries.get(line)
        if entry is None:
            return self._first_read(connection, line, headers, started)
        served = entry.served
        if (
            self._cells[served.epoch_cell] != entry.epoch
            # Its volume was out of service. A copy that was cut comes to the same tail again, with other needles.
            or served.retired
            or (entry.tick != self.tick and not self._is_resident(entry))
        ):
            del self._entries[line]
            return self._first_read(connection, line, headers, started)
        if _digest(entry.checked, entry.seed) != entry.checksum:
            del self._entries[line]
            return False
        size_bytes = entry.body_bytes
        connection.respond_fast(entry.head, entry.body)
        seconds = _clock() - started
        served.reads += 1
        served.bytes_read += size_bytes
        served.busy_seconds += seconds
        self._count(seconds, size_bytes)
        sampler = self._sampler
        sampler.left -= 1
        if sampler.left <= 0:
            sampler.take(entry.key)
        return True

    def _is_resident(self, entry: _Entry) -> bool:
        if not entry.served.map.resident(entry.offset, len(entry.checked)):
            return False
        entry.tick = self.tick
        return True

    def _first_read(self, connection: HttpConnection, line: bytes, headers: RequestHeaders, started: float) -> bool:
        match = _PLAIN_LINE.fullmatch(line)
        if match is None:
            return False
        number, key_and_cookie = match.groups()
        if self._cells[_CATALOG_CELL] != self._volumes_catalog:
            self.look_again()
        served = self._volumes.get(number) or self._volume(number)
        if served is None:
            return False
        epoch = self._cells[served.epoch_cell]  # before the index: what changes meanwhile voids what is made of it
        name = int(key_and_cookie, 16)
        key, cookie = name >> _COOKIE_BITS, name & _COOKIE_MASK
        self._cells[served.touched_cell] = served.slot + 1  # see haystack.store.crashes
        try:
            value = served.volume.index.get_raw(KEY.pack(key, 0))
            if value is None:
                return False
            low, high, data_bytes, meta_bytes, flags = VALUE.unpack(value)
            if flags or data_bytes > INLINE_BYTES:
                return False
            offset = (high << 32 | low) * ALIGNMENT
            total_bytes = needle_bytes(meta_bytes, data_bytes)
            again = self._was_seen(line)
            if total_bytes <= REUSED_BYTES and not again:
                raw = _copy(served, offset, self._small[:total_bytes])
            else:
                raw = served.map.view(offset, total_bytes)
                if raw is None and total_bytes <= COPIED_NEW_BYTES and not served.map.covers(offset + total_bytes):
                    raw = _copy(served, offset, memoryview(bytearray(total_bytes)))
                    again = False  # a copy is too dear to be kept
        except (HaystackError, OSError, struct.error):
            return False  # the strict way meets it too, and says what is wrong
        if raw is None:
            wanted = PlainRead(line, headers, served, key, cookie, offset, data_bytes, meta_bytes, started)
            return total_bytes > SMALL_BYTES and self._cold.begin(connection, wanted)
        header = _needle(raw)
        time_ms = header[7]
        if header != (NEEDLE_MAGIC, 0, meta_bytes, data_bytes, 0, key, cookie, time_ms, 0):
            return False
        end = total_bytes - FOOTER_BYTES
        footer_magic, reserved, checksum = _footer(raw, end)
        if footer_magic != FOOTER_MAGIC or reserved or _digest(raw[:end], served.volume.seed) != checksum:
            return False
        start = HEADER_BYTES + meta_bytes
        head = photo_head(bytes(raw[HEADER_BYTES:start]), checksum, time_ms, data_bytes)
        body = raw[start : start + data_bytes]
        connection.respond_fast(head, body)
        if again:
            self._entries.add(line, _Entry(served, key, epoch, offset, head, body, raw[:end], checksum, self.tick))
        seconds = _clock() - started
        served.reads += 1
        served.bytes_read += data_bytes
        served.busy_seconds += seconds
        self._count(seconds, data_bytes)
        sampler = self._sampler
        sampler.left -= 1
        if sampler.left <= 0:
            sampler.take(key)
        return True

    def look_again(self) -> None:
        """Drop everything when volumes have come, gone, or been taken out of service."""
        catalog = self._cells[_CATALOG_CELL]
        if catalog != self._volumes_catalog:
            self.forget_all()
            self._volumes_catalog = catalog

    def _volume(self, number: bytes) -> ServedVolume | None:
        try:
            served = self._volumes[number] = self._catalog.get(int(number))
        except HaystackError:
            return None  # the strict way says what is wrong
        return served

    def _was_seen(self, line: bytes) -> bool:
        """Whether this line was asked for before, as far as is remembered; it is remembered from now on."""
        digest = hash(line)
        slot = digest % SEEN_SLOTS
        if self._seen[slot] == digest:
            return True
        self._seen[slot] = digest
        return False


def _copy(served: ServedVolume, offset: int, buffer: memoryview) -> memoryview | None:
    """The buffer, filled from there, if the kernel can do so without waiting for the disk."""
    try:
        count = _preadv(served.volume.file.read_fd, (buffer,), offset, _NOWAIT)
    except OSError:
        return None  # EAGAIN: not in memory. Anything else comes again on the strict way, which reports it.
    return buffer if count == len(buffer) else None
