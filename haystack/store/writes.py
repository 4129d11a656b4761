"""Uploads and deletes of photos.

An upload is refused as early as possible (bad fid, unknown volume, full, too large): before its body is read and
before a ``100 Continue``. Its body is gathered (:mod:`haystack.store.uploads`), then one operation goes to the
committer, and the answer is written when that is durable. A client that goes away before leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import lru_cache

from haystack.errors import (
    HaystackError,
    InvalidRequest,
    NeedleNotFound,
    OutOfSpace,
    TooLarge,
    VolumeReadOnly,
    VolumeUnavailable,
)
from haystack.fid import Fid, Locator
from haystack.http.connection import HttpConnection
from haystack.http.handler import DEFERRED, Deferred
from haystack.http.handler import Outcome as BodyOutcome
from haystack.http.multipart import FilePart, MultipartParser, is_multipart, parse_boundary
from haystack.http.pages import respond_json
from haystack.http.request import Request, RequestHeaders
from haystack.http.response import JSON_TYPE
from haystack.sealed_ttl import LifeSeal
from haystack.store.answers import PAIR_NAME, PAIR_PREFIX
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control_cells import Histogram, Reason, VolumeCell, VolumeState
from haystack.store.names import clean_name, name_in_disposition
from haystack.store.photo_types import photo_type
from haystack.store.replication.admission import kind_of
from haystack.store.replication.copying import Unconfirmed
from haystack.store.replication.deciding import Decider
from haystack.store.replication.rules import Kind
from haystack.store.sinks import BufferedSink
from haystack.store.tally import Tally
from haystack.store.targets import Target
from haystack.store.uploads import HEAD_BYTES, UploadMemory
from haystack.ttl import expiry, parse_ttl
from haystack.volume.layout import Flags, NeedleMeta
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

_WRITES, _BYTES_WRITTEN, _WRITE = VolumeCell.WRITES, VolumeCell.BYTES_WRITTEN, Histogram.WRITE
"""Looking up a member of an enumeration costs as much as counting."""

MAX_PAIRS = 32
UNPACKED_AT_ONCE = 4
"""Large multi-uploads that are unpacked, and so in memory, at the same time."""

ROOM_BYTES = 2**20
"""Uploads of this size are refused before their body when the volume has no room for it; the append refuses others."""

_YES, _NO = ("", "1", "true", "yes"), ("0", "false", "no")

FORM_OVERHEAD_BYTES = 128 * 1024
"""What a form may have around its file."""


NOT_TAKING = {
    Reason.DEGRADED: "has fewer copies in sync than promised; get a new fid from /dir/assign",
    Reason.REPLICA: "is led by another Store; get a new fid from /dir/assign",
    Reason.STALE: "is out of date here; get a new fid from /dir/assign",
    Reason.UNTOLD: "has copies that the Directory has not named here yet; try again soon",
}
"""Why a copy of a volume takes no uploads itself."""


class Writer:
    """Answers PUT, POST and DELETE for needles.

    Parameters
    ----------
    max_photo_bytes: largest photo that is accepted.
    trash_retention_ms: how long a deleted photo can be brought back.
    seal: reads lives out of cookies.
    decider: brings deletes to their end that not all copies have yet.
    """

    def __init__(
        self,
        catalog: Catalog,
        tally: Tally,
        memory: UploadMemory,
        *,
        max_photo_bytes: int,
        trash_retention_ms: int,
        seal: LifeSeal,
        decider: Decider | None = None,
    ) -> None:
        self.catalog = catalog
        self._seal = seal
        self._trash_retention_ms = trash_retention_ms
        self._decider = decider
        self._deciding: set[asyncio.Task[None]] = set()
        self.tally = tally
        self.memory = memory
        self.max_photo_bytes = max_photo_bytes
        self.unpacking = asyncio.Semaphore(UNPACKED_AT_ONCE)

    def begin_upload(self, connection: HttpConnection, request: Request, target: Target) -> PhotoSink:
        """The sink for one photo. Raises what refuses the upload before its body."""
        if target.offset is not None:
            raise InvalidRequest("a locator names what is stored; upload to a fid from /dir/assign")
        served = self.writable(target.fid.volume)
        ttl_seconds = requested_ttl(request)
        flags = int(Flags.SIGNED) if is_set(request, "signed") else 0
        sink = PhotoSink(self, connection, request, served, target.fid, ttl_seconds, flags)
        declared_bytes = request.headers.content_length or 0
        if declared_bytes > sink.max_bytes:
            raise TooLarge(f"the body is larger than the limit of {sink.max_bytes} bytes")
        if declared_bytes >= ROOM_BYTES:
            _require_room(served, declared_bytes)
        return sink

    def expires(self, key: int, cookie: int, ttl_seconds: int | None, moment_ms: int) -> int:
        """The second from which on what is stored now is gone; 0 for never. Raises InvalidRequest beyond 2106.

        Parameters
        ----------
        ttl_seconds: that was asked for, 0 for ever; None: what the assign of the name has asked for.
        """
        return expiry(self._seal.ttl_seconds(key, cookie) if ttl_seconds is None else ttl_seconds, moment_ms)

    def delete(self, connection: HttpConnection, request: Request, target: Target) -> Deferred:
        """Delete a needle and answer. Raises what refuses it."""
        fid = target.fid
        delete = Delete(fid.key, fid.cookie, now_ms(), fid.alternate, is_set(request, "now"))
        self._mark(connection, self.catalog.get(fid.volume), delete, 202)
        return DEFERRED

    def undelete(self, connection: HttpConnection, target: Target) -> Deferred:
        """Bring a needle back out of the trash and answer. Raises what refuses it."""
        fid = target.fid
        undelete = Undelete(fid.key, fid.cookie, now_ms(), fid.alternate, self._trash_retention_ms)
        self._mark(connection, self.catalog.get(fid.volume), undelete, 200)
        return DEFERRED

    def _mark(self, connection: HttpConnection, served: ServedVolume, marker: Delete | Undelete, status: int) -> None:
        started = time.perf_counter()
        _require_alive(served)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, NeedleNotFound):
                # Clients of the SeaweedFS API tell by the size whether there was something to delete.
                respond_json(connection, 404, {"error": str(outcome), "size": 0})
                return
            if isinstance(outcome, HaystackError):
                count_error(served, outcome)
                raise outcome
            assert isinstance(outcome, Deleted | Undeleted)
            served.count(VolumeCell.DELETES if isinstance(outcome, Deleted) else _WRITES)
            self.tally.took(Histogram.DELETE, time.perf_counter() - started)
            respond_json(connection, status, {"size": outcome.data_bytes})

        self.commit_soon(connection, served, marker, done)

    async def put(self, served: ServedVolume, put: Put, started: float) -> list[Stored]:
        """Store needles as durably as the Store promises. Raises what refuses them, or what failed.

        Parameters
        ----------
        started: when the request was complete, by ``time.perf_counter``.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            served.unpin()
            if not future.done():
                future.set_result(outcome)

        served.pin()
        served.lane.submit(served, put, done)
        stored = await future
        if isinstance(stored, HaystackError):
            count_error(served, stored)
            raise stored
        assert isinstance(stored, list)
        self.count_stored(served, stored, started)
        return stored

    def commit_soon(
        self, connection: HttpConnection, served: ServedVolume, operation: Operation, then: Callable[[Outcome], None]
    ) -> None:
        """Carry out an operation for a request whose handler returns ``DEFERRED``.

        Parameters
        ----------
        then: answers. An operation's error that it does not handle itself is answered as what it is.
        """

        def done(outcome: Outcome) -> None:
            undecided = isinstance(outcome, Unconfirmed | NeedleNotFound) and kind_of(operation) is Kind.DELETE
            if undecided and self._decider is not None:
                task = asyncio.get_running_loop().create_task(decide(self._decider, outcome))
                self._deciding.add(task)
                task.add_done_callback(self._deciding.discard)
            else:
                end(outcome)

        async def decide(decider: Decider, outcome: Outcome) -> None:
            if isinstance(outcome, Unconfirmed):
                end(await decider.decide(outcome))
            elif isinstance(outcome, NeedleNotFound):
                end(await decider.known_everywhere(served, outcome))

        def end(outcome: Outcome) -> None:
            served.unpin()
            try:
                then(outcome)
            except Exception as error:
                connection.finish_deferred(error)
            else:
                connection.finish_deferred()

        served.pin()
        served.lane.submit(served, operation, done)

    def count_stored(self, served: ServedVolume, stored: list[Stored], started: float) -> None:
        """Count what was stored; ``started`` as for :meth:`put`."""
        served.count(_WRITES, len(stored))
        served.count(
            _BYTES_WRITTEN, stored[0].data_bytes if len(stored) == 1 else sum(one.data_bytes for one in stored)
        )
        self.tally.took(_WRITE, time.perf_counter() - started)

    def writable(self, volume: int) -> ServedVolume:
        """The volume, if it takes uploads now. Raises VolumeNotFound, VolumeUnavailable, VolumeReadOnly, OutOfSpace."""
        served = self.catalog.get(volume)
        if served.writable:
            return served
        _require_alive(served)
        if served.state is VolumeState.READONLY:
            reason = served.control.reason(served.slot)
            if reason in NOT_TAKING:
                raise VolumeUnavailable(f"volume {volume} {NOT_TAKING[reason]}")
            if reason is Reason.DISK_FULL:
                raise OutOfSpace(f"the disk of volume {volume} is full; get a new fid from /dir/assign")
            raise VolumeReadOnly(f"volume {volume} takes no more photos; get a new fid from /dir/assign")
        return served


class UploadFields:
    """What the header fields of an upload say about the photo.

    Parameters
    ----------
    pairs: the user's own, name and value.
    """

    __slots__ = ("_meta", "declared_type", "is_form", "name", "pairs", "quoted_name")

    def __init__(self, name: str, declared_type: str, pairs: tuple[tuple[str, str], ...]) -> None:
        self.name = name
        self.declared_type = declared_type
        self.pairs = pairs
        self.is_form = is_multipart(declared_type)
        self.quoted_name = _quoted(name).encode()
        # The type is as they say, or as the name says: then all photos with these fields have the same metadata.
        kind = "" if self.is_form else photo_type(declared_type, name, b"")
        self._meta = packed_meta(name, kind, pairs) if kind else None

    def meta_for(self, head: bytes) -> bytes:
        """The metadata of a photo that begins with ``head``. Raises InvalidRequest."""
        if self._meta is not None:
            return self._meta
        return packed_meta(self.name, photo_type(self.declared_type, self.name, head[:HEAD_BYTES]), self.pairs)


def _fields_of(headers: RequestHeaders) -> UploadFields:
    """Worked out once for each header section that clients repeat. Raises InvalidRequest."""
    known = headers.notes
    if isinstance(known, UploadFields):
        return known
    name = name_in_disposition(headers.get("content-disposition"))
    headers.notes = fields = UploadFields(name, headers.content_type or "", _pairs(headers))
    return fields


class PhotoSink(BufferedSink):
    """One photo: a raw body or a form with one file."""

    __slots__ = (
        "_declared_type",
        "_fid",
        "_file_bytes",
        "_flags",
        "_form",
        "_name",
        "_pairs",
        "_ttl_seconds",
        "_writer",
    )

    def __init__(
        self,
        writer: Writer,
        connection: HttpConnection,
        request: Request,
        served: ServedVolume,
        fid: Fid,
        ttl_seconds: int | None,
        flags: int,
    ) -> None:
        super().__init__(connection, served, writer.memory, writer.tally)
        self._flags = flags
        fields = _fields_of(request.headers)
        self._writer = writer
        self._fid = fid
        self._ttl_seconds = ttl_seconds
        self._pairs = fields.pairs
        self._form: MultipartParser | None = None
        self._file_bytes = 0
        self._name = fields.name
        self._declared_type = fields.declared_type
        if fields.is_form:
            self._form = MultipartParser(parse_boundary(self._declared_type), self)
            self._declared_type = ""

    @property
    def max_bytes(self) -> int:
        return self._writer.max_photo_bytes + (FORM_OVERHEAD_BYTES if self._form else 0)

    def _take(self, piece: bytes) -> None:
        if self._form is not None:
            self._form.feed(piece)
        else:
            self._keep(piece)

    # The file of a form.

    def file_begin(self, part: FilePart) -> None:
        self._name = clean_name(part.file_name or self._name)
        self._declared_type = part.content_type or ""

    def file_data(self, piece: bytes) -> None:
        self._file_bytes += len(piece)
        if self._file_bytes > self._writer.max_photo_bytes:
            raise TooLarge(f"the photo is larger than the limit of {self._writer.max_photo_bytes} bytes")
        self._keep(piece)

    def end(self) -> BodyOutcome:
        if self._spilling is not None:
            return super().end()
        self._note_end()
        try:
            put = self._put()
        except BaseException:
            self._release()
            raise
        self._writer.commit_soon(self._connection, self._served, put, self._committed)
        return DEFERRED

    def _put(self) -> Put:
        if self._failure is not None:
            raise self._failure
        if self._form is not None:
            self._form.finish()
        fid = self._fid
        body = self._body
        meta = packed_meta(self._name, photo_type(self._declared_type, self._name, body.head), self._pairs)
        moment_ms = now_ms()
        expires = self._writer.expires(fid.key, fid.cookie, self._ttl_seconds, moment_ms)
        return Put((NewNeedle(fid.key, fid.cookie, body.data(), moment_ms, fid.alternate, meta, expires, self._flags),))

    def _committed(self, outcome: Outcome) -> None:
        self._release()
        if isinstance(outcome, HaystackError):
            count_error(self._served, outcome)
            raise outcome
        assert isinstance(outcome, list)
        self._writer.count_stored(self._served, outcome, self._ended)
        self._answer(outcome)

    async def _store(self) -> None:
        self._answer(await self._writer.put(self._served, self._put(), self._ended))

    def _answer(self, stored: list[Stored]) -> None:
        self._connection.respond(201, JSON_TYPE, answer_body(self._fid, self._name, stored[0]))


@lru_cache(maxsize=1024)
def packed_meta(name: str, mime: str, pairs: tuple[tuple[str, str], ...]) -> bytes:
    """The metadata of a needle as it is stored; most photos of a client have the same. Raises InvalidRequest."""
    return NeedleMeta(name, mime, pairs).pack()


def answer(fid: Fid, name: str, stored: Stored) -> dict[str, object]:
    """What an upload is answered with."""
    return {
        "name": name,
        "size": stored.data_bytes,
        "eTag": f"{stored.checksum:016x}",
        "fid": str(fid),
        "locator": str(Locator(fid, stored.offset)),
    }


def answer_body(fid: Fid, name: str, stored: Stored) -> bytes:
    """:func:`answer` as JSON, which a test compares with it."""
    suffix = f"_{fid.alternate}" if fid.alternate else ""
    needle = f"{fid.key:x}{fid.cookie:016x}{suffix}"
    quoted = _quoted(name)
    return (
        f'{{"name": {quoted}, "size": {stored.data_bytes}, "eTag": "{stored.checksum:016x}", '
        f'"fid": "{fid.volume},{needle}", "locator": "{fid.volume}@{stored.offset:x},{needle}"}}\n'
    ).encode()


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) if name else '""'


def now_ms() -> int:
    """The time to note with a needle, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def requested_ttl(request: Request) -> int | None:
    """Seconds that what is uploaded is to live, 0 for ever; None when the request does not say.

    Raises InvalidRequest, also when it would end too late.
    """
    text = request.query_value("ttl") if request.query else None
    if not text:
        return None
    ttl_seconds = parse_ttl(text)
    expiry(ttl_seconds, now_ms())
    return ttl_seconds


def is_set(request: Request, name: str) -> bool:
    """Whether the query has a field and it says yes. Raises InvalidRequest when it says neither yes nor no."""
    value = request.query_value(name) if request.query else None
    if value is None or value in _NO:
        return False
    if value not in _YES:
        raise InvalidRequest(f"{name}={value[:40]!r} must be true or false")
    return True


def _pairs(headers: RequestHeaders) -> tuple[tuple[str, str], ...]:
    """The user's own pairs of an upload, from its ``X-Haystack-Meta-…`` fields. Raises InvalidRequest."""
    prefix = PAIR_PREFIX.lower()
    found = [(name[len(prefix) :], value) for name, value in headers.items() if name.startswith(prefix)]
    if len(found) > MAX_PAIRS:
        raise InvalidRequest(f"{len(found)} {PAIR_PREFIX}… fields; at most {MAX_PAIRS} are kept")
    for name, _ in found:
        if PAIR_NAME.fullmatch(name) is None:
            raise InvalidRequest(f"{PAIR_PREFIX}… needs a name of 1 to 256 characters, not {name[:40]!r}")
    return tuple((name, _text(value)) for name, value in found)


def _text(value: str) -> str:
    """A field value as text: UTF-8, which is what clients send in practice, else latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return value


def _require_room(served: ServedVolume, declared_bytes: int) -> None:
    if served.volume.tail() + declared_bytes > served.volume.max_bytes:
        raise VolumeReadOnly(
            f"volume {served.number} has no room for {declared_bytes} bytes; get a new fid from /dir/assign"
        )


def count_error(served: ServedVolume, error: HaystackError) -> None:
    """Count an error that is the volume's fault."""
    if error.http_status >= 500:
        served.count(VolumeCell.ERRORS)


def _require_alive(served: ServedVolume) -> None:
    if served.state is VolumeState.FAILED:
        raise VolumeUnavailable(f"volume {served.number} was set aside after a disk error; it takes no writes")
