"""Taking a whole needle out of one Store's answer, and verifying it.

The answer is the needle as it lies in the volume: header and metadata, which say how much room it needs, the data,
which is received straight to where it stays, and the end with the checksum over all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import xxhash

from cache.memory import Filling
from cache.store_connection import StoreSilent
from haystack.errors import HaystackError, NeedleNotFound, VolumeUnavailable
from haystack.fid import Fid
from haystack.json_calls import reason_given
from haystack.store.answers import etag
from haystack.volume.layout import (
    FOOTER_BYTES,
    HEADER_BYTES,
    NEEDLE_TYPE,
    LayoutError,
    NeedleHeader,
    check_footer,
    padding_bytes,
)

MAX_REFUSAL_BYTES = 64 * 1024
_SCRAP = memoryview(bytearray(64 * 1024))


class FetchedPhoto(Protocol):
    """The fetch that an answer is for; others may have given a part of the photo before.

    Parameters
    ----------
    received_bytes: of needles, from all Stores.
    mixed: what was wrong came from several Stores: the last one may be right.
    """

    fid: Fid
    received_bytes: int
    mixed: bool

    def begin_filling(self, header: NeedleHeader, meta: bytes, checksum: int) -> Filling:
        """Room for the photo. Raises a HaystackError when there is none."""

    def grew(self) -> None:
        """More of the photo is there."""

    def give_up(self) -> None:
        """Nothing of what has come is to be used."""


class NeedleTaker:
    """Takes one Store's answer for a fetch: a :class:`~cache.store_connection.Taker`."""

    def __init__(self, fetch: FetchedPhoto, address: str, seed: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetch = fetch
        self._address = address
        self._seed = seed
        self._status = 0
        self._refusal: memoryview | None = None
        self._total_bytes = 0
        self._tag = ""
        self._prefix = bytearray(HEADER_BYTES)
        self._header: NeedleHeader | None = None
        self._filling: Filling | None = None
        self._tail = bytearray()
        self._have = 0
        """Bytes of the part that is being received: prefix, data or tail."""
        self._goes_on = False
        """Others have given the first bytes."""
        self._skipped = 0

    def begin(self, status: int, fields: Mapping[str, str], body_bytes: int) -> None:
        self._status = status
        if status == 200 and fields.get("content-type") == NEEDLE_TYPE:
            self._total_bytes, self._tag = body_bytes, fields.get("etag", "")
            if body_bytes < HEADER_BYTES + FOOTER_BYTES:
                raise self._strange(f"{body_bytes} bytes are no needle")
        else:
            if body_bytes > MAX_REFUSAL_BYTES:
                raise self._strange(f"status {status} with {body_bytes} bytes")
            self._refusal = memoryview(bytearray(body_bytes))

    def buffer(self) -> memoryview:
        if self._refusal is not None:
            return self._refusal[self._have :]
        if self._filling is None:
            return memoryview(self._prefix)[self._have :]
        if self._skipped < self._filling.filled_bytes:
            return _SCRAP[: self._filling.filled_bytes - self._skipped]
        if self._filling.filled_bytes < self._filling.data_bytes:
            return self._filling.buffer()
        return memoryview(self._tail)[self._have :]

    def received(self, count: int) -> None:
        if self._refusal is not None:
            self._have += count
            return
        self._fetch.received_bytes += count
        filling = self._filling
        if filling is None:
            self._have += count
            if self._have == len(self._prefix):
                self._read_prefix()
        elif self._skipped < filling.filled_bytes:
            self._skipped += count
        elif filling.filled_bytes < filling.data_bytes:
            filling.advance(count)
            self._skipped += count
            self._fetch.grew()
        else:
            self._have += count

    def end(self) -> None:
        if self._refusal is not None:
            self._settle(self._refused(bytes(self._refusal)))
            return
        try:
            self._verify()
        except HaystackError as error:
            self._settle(error)
        else:
            self._settle(None)

    def failed(self, error: HaystackError) -> None:
        self._settle(error)

    def _read_prefix(self) -> None:
        if self._header is None:
            try:
                header = self._header = NeedleHeader.unpack(self._prefix, self._seed)
            except LayoutError as error:
                raise self._strange(str(error)) from error
            fid = self._fetch.fid
            if (header.key, header.alternate, header.cookie) != (fid.key, fid.alternate, fid.cookie):
                raise self._strange(f"the needle is of photo {header.key:x}, alternate {header.alternate}")
            if header.is_marker or header.total_bytes != self._total_bytes:
                raise self._strange(f"the needle has {header.total_bytes} bytes, the answer {self._total_bytes}")
            self._prefix = self._prefix + bytes(header.meta_bytes)  # the former one is still lent out
            if header.meta_bytes:
                return
        header = self._header
        try:
            checksum = int(self._tag.strip('"'), 16)
        except ValueError:
            raise self._strange(f"the ETag {self._tag!r} is none of a needle") from None
        self._filling = self._fetch.begin_filling(header, bytes(self._prefix[HEADER_BYTES:]), checksum)
        self._goes_on = self._filling.filled_bytes > 0
        self._tail = bytearray(padding_bytes(header.meta_bytes, header.data_bytes) + FOOTER_BYTES)
        self._have = 0

    def _verify(self) -> None:
        filling = self._filling
        if filling is None or filling.filled_bytes != filling.data_bytes or self._have != len(self._tail):
            raise self._strange("the needle is cut off")
        hasher = xxhash.xxh3_64(self._prefix, self._seed)
        for view in filling.views():
            hasher.update(view)
        hasher.update(self._tail[:-FOOTER_BYTES])
        try:
            checksum = check_footer(self._tail[-FOOTER_BYTES:], hasher.intdigest())
        except LayoutError as error:
            self._discard()
            raise self._strange(str(error)) from error
        if etag(checksum) != self._tag:
            self._discard()
            raise self._strange(f"the needle's checksum is {checksum:016x}, the ETag says {self._tag}")

    def _discard(self) -> None:
        """What has come is wrong: nothing of it may be gone on with."""
        self._fetch.mixed = self._goes_on
        self._fetch.give_up()

    def _refused(self, body: bytes) -> HaystackError:
        reason = reason_given(body, self._status)
        if self._status == 404:
            return NeedleNotFound(reason)
        return VolumeUnavailable(f"Store {self._address} answers {self._status}: {reason}")

    def _strange(self, what: str) -> StoreSilent:
        return StoreSilent(f"Store {self._address} gives no good needle {self._fetch.fid}: {what}")

    def _settle(self, error: HaystackError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
