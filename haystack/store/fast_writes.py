"""The fast way of uploads: a plain PUT of one photo that arrived whole, of header fields that were seen before.

Everything that could refuse the upload, or make it more than a lookup, sends it the strict way
(:mod:`haystack.store.writes`), which also works out what the header fields say. The answers are the same.
"""

from __future__ import annotations

import re
import time
from functools import partial

from haystack.errors import HaystackError
from haystack.fid import MAX_ALTERNATE
from haystack.http.fast_uploads import UploadingConnection
from haystack.http.request import RequestHeaders
from haystack.http.response import JSON_TYPE, STATUS_LINES
from haystack.store.catalog import ServedVolume
from haystack.store.control_cells import Counter, VolumeCell
from haystack.store.writes import UploadFields, Writer, count_error, now_ms
from haystack.volume.operations import NewNeedle, Outcome, Put

_LINE = re.compile(
    rb"(?:PUT|POST) /([1-9][0-9]{0,9}),([1-9a-f][0-9a-f]{0,15})([0-9a-f]{16})(_[1-9][0-9]{0,9})? HTTP/1\.1"
)
"""Fids as the Directory hands them out. Those that can be written differently go the strict way."""

_HEAD = STATUS_LINES[201] + JSON_TYPE + b"Content-Length: %d\r\n"
_BODY = b'{"name": %b, "size": %d, "eTag": "%016x", "fid": "%b,%b", "locator": "%b@%x,%b"}\n'

_WRITES, _BYTES_WRITTEN = VolumeCell.WRITES, VolumeCell.BYTES_WRITTEN


class FastWriter:
    """Takes uploads of which nothing has to be found out.

    Parameters
    ----------
    writer: the strict way.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._catalog = writer.catalog
        self._tally = writer.tally
        self._memory = writer.memory

    def fast_put(self, connection: UploadingConnection, line: bytes, headers: RequestHeaders, body: bytes) -> bool:
        """Take an upload, see ``haystack.http.handler.Handler.fast_put``."""
        match = _LINE.fullmatch(line)
        fields = headers.notes
        if match is None or type(fields) is not UploadFields or fields.is_form:
            return False
        volume, key, cookie, suffix = match.groups()
        alternate = int(suffix[1:]) if suffix else 0
        size_bytes = len(body)
        if size_bytes > self._writer.max_photo_bytes or alternate > MAX_ALTERNATE:
            return False
        key_number, cookie_number, moment_ms = int(key, 16), int(cookie, 16), now_ms()
        try:
            served = self._catalog.get(int(volume))
            meta = fields.meta_for(body)
            expires = self._writer.expires(key_number, cookie_number, None, moment_ms)
        except HaystackError:
            return False  # the strict way says what is wrong
        if not served.writable or not self._memory.take(0, size_bytes):
            return False
        put = Put((NewNeedle(key_number, cookie_number, (body,), moment_ms, alternate, meta, expires),))
        done = partial(self._done, connection, served, match, fields, size_bytes, time.perf_counter())
        served.pin()
        served.lane.submit(served, put, done)
        return True

    def _done(
        self,
        connection: UploadingConnection,
        served: ServedVolume,
        match: re.Match[bytes],
        fields: UploadFields,
        size_bytes: int,
        started: float,
        outcome: Outcome,
    ) -> None:
        served.unpin()
        self._memory.give_back(size_bytes)
        if not isinstance(outcome, list):
            self._tally.add(Counter.PUT)
            self._tally.add(Counter.BYTES_IN, size_bytes)
            assert isinstance(outcome, HaystackError)
            count_error(served, outcome)
            connection.finish_deferred(outcome)
            return
        offset, _, checksum = outcome[0]
        volume, key, cookie, suffix = match.groups(b"")
        needle = key + cookie + suffix
        body = _BODY % (fields.quoted_name, size_bytes, checksum, volume, needle, volume, offset, needle)
        served.count(_WRITES)
        served.count(_BYTES_WRITTEN, size_bytes)
        self._tally.fast_write(time.perf_counter() - started, size_bytes)
        connection.finish_promised(_HEAD % len(body), body)
