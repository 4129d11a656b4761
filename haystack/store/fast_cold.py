"""The fast way of a plain GET for a photo that is not in the page cache: read past it, without the parser.

As with all fast ways, whatever is unusual goes the strict way: what a direct read cannot do, or does not verify, is
read again by a thread for :class:`~haystack.store.reads.Reader`, which answers it or says what is wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import xxhash

from haystack.http.connection import HttpConnection
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import prepared_head
from haystack.store.answers import photo_headers
from haystack.store.catalog import ServedVolume
from haystack.store.cold_reads import ColdRead, ColdReads, note_problem
from haystack.store.control_cells import Counter
from haystack.store.sampling import ReadSampler
from haystack.store.tally import Tally
from haystack.store.targets import parse_target
from haystack.volume.index_records import IndexEntry
from haystack.volume.layout import FOOTER_BYTES, HEADER, HEADER_BYTES, needle_bytes

_clock = time.perf_counter
_digest = xxhash.xxh3_64_intdigest


@dataclass(slots=True)
class PlainRead:
    """A plain GET and what the index says of its photo."""

    line: bytes
    headers: RequestHeaders
    served: ServedVolume
    key: int
    cookie: int
    offset: int
    data_bytes: int
    meta_bytes: int
    started: float


class StrictReader(Protocol):
    """The part of :class:`~haystack.store.reads.Reader` that is needed here."""

    def read_again(self, cold: ColdRead) -> None:
        """Read by a thread what could not be read directly, and answer. The volume is pinned, and unpinned then."""


class FastColdReads:
    """Answers plain GETs of photos on the disk.

    Parameters
    ----------
    ways: decides which way a photo is read.
    strict: takes over what goes wrong.
    """

    def __init__(self, ways: ColdReads, strict: StrictReader, tally: Tally, sampler: ReadSampler) -> None:
        self._ways = ways
        self._strict = strict
        self._tally = tally
        self._sampler = sampler

    def begin(self, connection: HttpConnection, wanted: PlainRead) -> bool:
        """Promise an answer and begin to read, or return False when this is not the way."""
        served = wanted.served
        total_bytes = needle_bytes(wanted.meta_bytes, wanted.data_bytes)
        direct = self._ways.directly(served, wanted.offset, wanted.data_bytes, total_bytes)
        if direct is None:
            return False
        self._tally.add(Counter.COLD_READS)
        served.pin()
        request = connection.defer_get(wanted.line, wanted.headers)
        fd = served.volume.file.direct_fd()
        direct.read(fd, wanted.offset, total_bytes, partial(self._was_read, connection, request, wanted))
        return True

    def _was_read(
        self, connection: HttpConnection, request: Request, wanted: PlainRead, raw: memoryview | None, problem: int
    ) -> None:
        served = wanted.served
        head = None if raw is None else _verified_head(wanted, raw)
        if raw is None or head is None:
            note_problem(served, problem)
            self._tally.add(Counter.GET)
            entry = IndexEntry(wanted.offset, wanted.data_bytes, wanted.meta_bytes, 0)
            cold = ColdRead(connection, request, served, parse_target(request.path), entry, wanted.started)
            self._strict.read_again(cold)
            return
        served.unpin()
        start = HEADER_BYTES + wanted.meta_bytes
        connection.finish_promised(head, raw[start : start + wanted.data_bytes])
        seconds = _clock() - wanted.started
        served.reads += 1
        served.bytes_read += wanted.data_bytes
        served.busy_seconds += seconds
        self._tally.fast_read(seconds, wanted.data_bytes)
        self._sampler.count(wanted.key)


def _verified_head(wanted: PlainRead, raw: memoryview) -> bytes | None:
    """The head of the answer, or None unless this is the photo, whole and unharmed, and without an end."""
    fields = HEADER.unpack_from(raw)
    named = fields[5] == wanted.key and fields[6] == wanted.cookie and not fields[4] and not fields[1] and not fields[8]
    if not named or fields[2] != wanted.meta_bytes or fields[3] != wanted.data_bytes:
        return None
    checksum = int.from_bytes(raw[-8:], "little")
    if _digest(raw[:-FOOTER_BYTES], wanted.served.volume.seed) != checksum:
        return None
    meta = bytes(raw[HEADER_BYTES : HEADER_BYTES + wanted.meta_bytes])
    return prepared_head(200, photo_headers(meta, checksum, fields[7]), wanted.data_bytes)
