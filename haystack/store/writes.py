"""Uploads and deletes of photos.

An upload is refused as early as possible (bad fid, unknown volume, full, too large): before its body is read and
before a ``100 Continue``. Its body is gathered (:mod:`haystack.store.uploads`), then one operation goes to the
committer, and the answer is written when that is durable. A client that goes away before leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any
from urllib.parse import unquote

import msgpack

from haystack.errors import HaystackError, InvalidRequest, OutOfSpace, TooLarge, VolumeReadOnly, VolumeUnavailable
from haystack.fid import Fid, Locator
from haystack.http.connection import HttpConnection
from haystack.http.multipart import FilePart, MultipartParser, is_multipart, parse_boundary
from haystack.http.request import Request
from haystack.http.response import JSON_TYPE
from haystack.store.answers import PAIR_PREFIX
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control import Counter, Histogram, Reason, VolumeCell, VolumeState
from haystack.store.photo_types import photo_type
from haystack.store.tally import Tally
from haystack.store.targets import Target
from haystack.store.uploads import UploadBody, UploadMemory
from haystack.volume.append import Delete, Deleted, NewNeedle, Operation, Outcome, Put, Stored
from haystack.volume.commit import Committer
from haystack.volume.layout import MAX_BATCH_NEEDLES, NeedleMeta

MAX_NAME_CHARACTERS = 1024
MAX_PAIRS = 32
FORM_OVERHEAD_BYTES = 128 * 1024
"""What a form may have around its file."""


class Writer:
    """Answers PUT, POST and DELETE for needles.

    Parameters
    ----------
    max_photo_bytes: largest photo that is accepted.
    executor: threads for spilling large uploads.
    """

    def __init__(
        self,
        catalog: Catalog,
        committer: Committer,
        tally: Tally,
        memory: UploadMemory,
        executor: Executor,
        *,
        max_photo_bytes: int,
    ) -> None:
        self.catalog = catalog
        self.committer = committer
        self.tally = tally
        self.memory = memory
        self.executor = executor
        self.max_photo_bytes = max_photo_bytes

    def begin_upload(self, connection: HttpConnection, request: Request, target: Target) -> PhotoSink:
        """The sink for one photo. Raises what refuses the upload before its body."""
        if target.offset is not None:
            raise InvalidRequest("a locator names what is stored; upload to a fid from /dir/assign")
        served = self.writable(target.fid.volume)
        sink = PhotoSink(self, connection, request, served, target.fid)
        sink.require_fitting()
        return sink

    def begin_multi(self, connection: HttpConnection, request: Request, volume: int) -> MultiSink:
        """The sink for several needles at once. Raises what refuses them before the body."""
        return MultiSink(self, connection, self.writable(volume))

    async def delete(self, connection: HttpConnection, target: Target) -> None:
        """Delete a needle and answer."""
        started = time.perf_counter()
        fid = target.fid
        served = self.catalog.get(fid.volume)
        _require_alive(served)
        outcome = await self.commit(served, Delete(fid.key, fid.cookie, _now_ms(), fid.alternate))
        assert isinstance(outcome, Deleted)
        served.count(VolumeCell.DELETES)
        self.tally.took(Histogram.DELETE, time.perf_counter() - started)
        respond_json(connection, 202, {"size": outcome.data_bytes})

    async def commit(self, served: ServedVolume, operation: Operation) -> list[Stored] | Deleted:
        """Carry out an operation and wait until it is as durable as the Store promises. Raises its error."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.committer.submit(served, operation, lambda outcome: _resolve(future, outcome))
        outcome = await future
        if isinstance(outcome, HaystackError):
            served.count(VolumeCell.ERRORS)
            raise outcome
        return outcome

    def writable(self, volume: int) -> ServedVolume:
        """The volume, if it takes uploads now. Raises VolumeNotFound, VolumeUnavailable, VolumeReadOnly, OutOfSpace."""
        served = self.catalog.get(volume)
        _require_alive(served)
        if served.control.state(served.slot) is VolumeState.READONLY:
            if served.control.reason(served.slot) is Reason.DISK_FULL:
                raise OutOfSpace(f"the disk of volume {volume} is full; get a new fid from /dir/assign")
            raise VolumeReadOnly(f"volume {volume} takes no more photos; get a new fid from /dir/assign")
        return served

    def stored(self, served: ServedVolume, stored: Sequence[Stored], started: float) -> None:
        """Count an upload that was stored."""
        served.count(VolumeCell.WRITES, len(stored))
        served.count(VolumeCell.BYTES_WRITTEN, sum(one.data_bytes for one in stored))
        self.tally.took(Histogram.WRITE, time.perf_counter() - started)


class BufferedSink:
    """A body on its way into an :class:`UploadBody`, spilling it with back-pressure."""

    def __init__(self, writer: Writer, connection: HttpConnection, served: ServedVolume) -> None:
        self._writer = writer
        self._connection = connection
        self._served = served
        self._body = UploadBody(writer.memory, served.folder)
        self._started = time.perf_counter()
        self._spilling: asyncio.Future[None] | None = None
        self._waiting: list[bytes] = []
        self._failure: BaseException | None = None

    def _keep(self, piece: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._spilling is not None:
            self._waiting.append(piece)  # at most what one read from the socket gave before the pause took hold
        elif self._body.add(piece):
            self._begin_spill()

    def _begin_spill(self) -> None:
        self._connection.pause_body()
        if not self._body.spilled:
            self._writer.tally.add(Counter.SPILLED_UPLOADS)
        loop = asyncio.get_running_loop()
        self._spilling = loop.run_in_executor(self._writer.executor, self._body.spill)
        self._spilling.add_done_callback(self._spill_done)

    def _spill_done(self, spilling: asyncio.Future[None]) -> None:
        self._spilling = None
        if self._body.closed:
            self._body.close()
            return
        self._failure = spilling.exception()
        if self._failure is not None:
            self._connection.resume_body()
            return
        self._body.spilled_to_disk()
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            self._keep(piece)
        if self._spilling is None:
            self._connection.resume_body()

    async def _settled(self) -> None:
        """Wait until everything is where it belongs. Raises what spilling raised."""
        while self._spilling is not None:
            await asyncio.wait([self._spilling])
            await asyncio.sleep(0)  # lets _spill_done go first
        if self._failure is not None:
            raise self._failure

    def abort(self) -> None:
        """The client went away or was refused: free everything."""
        self._writer.tally.add(Counter.ABORTED_UPLOADS)
        self._body.close(still_spilling=self._spilling is not None)


class PhotoSink(BufferedSink):
    """One photo: a raw body or a form with one file."""

    def __init__(
        self, writer: Writer, connection: HttpConnection, request: Request, served: ServedVolume, fid: Fid
    ) -> None:
        super().__init__(writer, connection, served)
        self._request = request
        self._fid = fid
        self._form: MultipartParser | None = None
        self._name = _header_name(request.headers.get("content-disposition"))
        self._declared_type = request.headers.content_type or ""
        if is_multipart(request.headers.content_type):
            self._form = MultipartParser(parse_boundary(self._declared_type), self)
            self._declared_type = ""

    @property
    def max_bytes(self) -> int:
        return self._writer.max_photo_bytes + (FORM_OVERHEAD_BYTES if self._form else 0)

    def require_fitting(self) -> None:
        """Refuse at once what the volume has no room for. Raises VolumeReadOnly."""
        declared_bytes = self._request.headers.content_length or 0
        limit_bytes = self._served.volume.max_bytes
        if self._served.volume.tail() + declared_bytes > limit_bytes:
            raise VolumeReadOnly(
                f"volume {self._served.number} has no room for {declared_bytes} bytes; get a new fid from /dir/assign"
            )
        pairs(self._request)

    # The body of the request.

    def data(self, piece: bytes) -> None:
        if self._form is not None:
            self._form.feed(piece)
        else:
            self._keep(piece)

    def end(self) -> Coroutine[Any, Any, None]:
        return self._store()

    # The file of a form.

    def file_begin(self, part: FilePart) -> None:
        self._name = part.file_name or self._name
        self._declared_type = part.content_type or ""

    def file_data(self, piece: bytes) -> None:
        if self._body.size_bytes + len(piece) > self._writer.max_photo_bytes:
            raise TooLarge(f"the photo is larger than the limit of {self._writer.max_photo_bytes} bytes")
        self._keep(piece)

    async def _store(self) -> None:
        try:
            if self._form is not None:
                self._form.finish()
            head = self._body.head
            await self._settled()
            name = self._name[:MAX_NAME_CHARACTERS]
            meta = NeedleMeta(name, photo_type(self._declared_type, name, head), pairs(self._request))
            needle = NewNeedle(
                self._fid.key, self._fid.cookie, self._body.data(), _now_ms(), self._fid.alternate, meta.pack()
            )
            stored = await self._writer.commit(self._served, Put((needle,)))
            assert isinstance(stored, list)
            self._writer.stored(self._served, stored, self._started)
            respond_json(self._connection, 201, answer(self._fid, name, stored[0]))
        finally:
            self._body.close()


class MultiSink(BufferedSink):
    """Several needles of one volume, all or nothing: a msgpack list of maps.

    Each map has ``fid`` and ``data``, and may have ``name``, ``mime`` and ``pairs``.
    """

    @property
    def max_bytes(self) -> int:
        return self._writer.max_photo_bytes

    def data(self, piece: bytes) -> None:
        self._keep(piece)

    def end(self) -> Coroutine[Any, Any, None]:
        return self._store()

    async def _store(self) -> None:
        try:
            await self._settled()
            fids, names, needles = self._unpack()
            stored = await self._writer.commit(self._served, Put(tuple(needles)))
            assert isinstance(stored, list)
            self._writer.stored(self._served, stored, self._started)
            answers = [answer(*one) for one in zip(fids, names, stored, strict=True)]
            respond_json(self._connection, 201, {"needles": answers})
        finally:
            self._body.close()

    def _unpack(self) -> tuple[list[Fid], list[str], list[NewNeedle]]:
        raw = b"".join(self._body.data())
        try:
            items = msgpack.unpackb(raw, raw=False, max_array_len=MAX_BATCH_NEEDLES, max_map_len=MAX_PAIRS)
            now_ms = _now_ms()
            parsed = [_parse_item(item, self._served.number, now_ms) for item in items]
        except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            raise InvalidRequest(
                "the body must be a msgpack list of at most "
                f"{MAX_BATCH_NEEDLES} maps with fid and data, and optionally name, mime and pairs: {error}"
            ) from error
        fids, names, needles = zip(*parsed, strict=True) if parsed else ((), (), ())
        return list(fids), list(names), list(needles)


def _parse_item(item: dict[str, Any], volume: int, now_ms: int) -> tuple[Fid, str, NewNeedle]:
    fid = Fid.parse(item["fid"])
    if fid.volume != volume:
        raise InvalidRequest(f"{fid} is of another volume than {volume}, to which the request was sent")
    data = item["data"]
    if not isinstance(data, bytes):
        raise TypeError("data must be bytes")
    name = str(item.get("name", ""))[:MAX_NAME_CHARACTERS]
    kind = photo_type(str(item.get("mime", "")), name, data[:32])
    meta = NeedleMeta(name, kind, tuple((str(key), str(value)) for key, value in item.get("pairs", {}).items()))
    return fid, name, NewNeedle(fid.key, fid.cookie, (data,), now_ms, fid.alternate, meta.pack())


def answer(fid: Fid, name: str, stored: Stored) -> dict[str, object]:
    """What an upload is answered with."""
    return {
        "name": name,
        "size": stored.data_bytes,
        "eTag": f"{stored.checksum:016x}",
        "fid": str(fid),
        "locator": str(Locator(fid, stored.offset)),
    }


def respond_json(connection: HttpConnection, status: int, content: object) -> None:
    """Answer with JSON."""
    connection.respond(status, JSON_TYPE, json.dumps(content, ensure_ascii=False).encode() + b"\n")


def pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """The user's own pairs of an upload, from its ``X-Haystack-Meta-…`` fields. Raises InvalidRequest."""
    prefix = PAIR_PREFIX.lower()
    found = tuple((name[len(prefix) :], value) for name, value in request.headers.items() if name.startswith(prefix))
    if len(found) > MAX_PAIRS:
        raise InvalidRequest(f"{len(found)} {PAIR_PREFIX}… fields; at most {MAX_PAIRS} are kept")
    return found


def _header_name(disposition: str | None) -> str:
    """File name of a raw upload's Content-Disposition."""
    if not disposition:
        return ""
    parameters = {
        part.partition("=")[0].strip().lower(): part.partition("=")[2].strip().strip('"')
        for part in disposition.split(";")[1:]
    }
    extended = parameters.get("filename*", "")
    if extended.lower().startswith("utf-8''"):
        return unquote(extended[7:])
    return parameters.get("filename", "").encode("latin-1").decode("utf-8", "replace")


def _require_alive(served: ServedVolume) -> None:
    if served.control.state(served.slot) is VolumeState.FAILED:
        raise VolumeUnavailable(f"volume {served.number} was set aside after a disk error; it takes no writes")


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
