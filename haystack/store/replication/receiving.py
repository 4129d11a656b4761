"""What a worker answers to other Stores: sessions, and batches of volumes that it has a copy of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from haystack.errors import HaystackError, InvalidRequest, NeedleNotFound, VolumeMoved, VolumeUnavailable
from haystack.http.connection import HttpConnection
from haystack.http.handler import BodySink
from haystack.http.handler import Outcome as BodyOutcome
from haystack.http.pages import respond_json
from haystack.http.request import Request
from haystack.security import AUTH_HEADER
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control_cells import Counter
from haystack.store.replication.landing import Arrived, BatchRefused, LandedOrNot
from haystack.store.replication.membership import MAX_EPOCH
from haystack.store.replication.rules import Verdict
from haystack.store.replication.sessions import Sessions
from haystack.store.replication.wire import FRAME_HEADER, SESSION_PATH, Frame, parse_batch_path
from haystack.store.tally import Tally
from haystack.units import MIB
from haystack.volume.commit import ROUND_BYTES
from haystack.volume.layout import MAX_VOLUME_BYTES
from haystack.volume.replica import BatchDiverged, Landed

PREFIX = "/internal/"

BATCH_SLACK_BYTES = 16 * MIB
"""What a round has beside its photos: headers and metadata."""

MAX_RECEIVING_BYTES = 512 * MIB
"""Batches that a worker has in memory at the same time."""

MAX_SESSION_BODY_BYTES = 1024

GAP_SECONDS = 0.25
"""How long a batch waits for another one, which it overtook, to arrive."""

BEHIND_SECONDS = 1.0
"""How long a batch waits for the Directory to tell its epoch here as well."""

WAIT_POLL_SECONDS = 0.003
"""How often a batch that waits is tried again: what it waits for may happen in another process."""


class Receiver:
    """Takes batches.

    Parameters
    ----------
    max_photo_bytes: largest photo; a batch has at most a round and one of them.
    """

    def __init__(self, catalog: Catalog, tally: Tally, sessions: Sessions, *, max_photo_bytes: int) -> None:
        self.catalog = catalog
        self.tally = tally
        self.sessions = sessions
        self.max_batch_bytes = ROUND_BYTES + max_photo_bytes + BATCH_SLACK_BYTES
        self.receiving_bytes = 0

    def begin(self, connection: HttpConnection, request: Request) -> BodySink:
        """The sink for a call below ``PREFIX``. Raises what refuses it before its body."""
        if request.method == "POST" and request.path == SESSION_PATH:
            return _SessionSink(self, connection, request)
        volume = parse_batch_path(request.path)
        if request.method != "POST" or volume is None:
            raise NeedleNotFound(f"there is no call {request.method} {request.path[:100]}")
        frame = self.sessions.expect(request.headers.get(FRAME_HEADER.lower()))
        return _BatchSink(self, connection, request, volume, frame)

    async def take(self, arrived: Arrived) -> tuple[Landed, ServedVolume]:
        """Append a batch durably; one that came too early waits a moment. Returns also the volume that has it.

        Raises BatchRefused, BatchDiverged, BatchDamaged, VolumeUnavailable, OutOfSpace, DiskError.
        """
        began = time.monotonic()
        while True:
            if arrived.served.retired:  # while it waited: compacted, and closed since
                arrived = arrived._replace(served=self.catalog.successor(arrived.served))
            landed = await self._land(arrived)
            if isinstance(landed, Landed):
                return landed, arrived.served
            if isinstance(landed, VolumeMoved):  # compacted, together with the primary's
                arrived = arrived._replace(served=self.catalog.successor(arrived.served))
                continue
            patience_seconds = _patience_seconds(landed)
            if time.monotonic() - began >= patience_seconds:
                raise landed
            await asyncio.sleep(WAIT_POLL_SECONDS)

    async def _land(self, arrived: Arrived) -> LandedOrNot:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[LandedOrNot] = loop.create_future()
        served = arrived.served

        def done(outcome: LandedOrNot) -> None:
            loop.call_soon_threadsafe(partial(_settle, served, future, outcome))

        served.pin()
        served.lane.landings.submit(arrived, done)
        return await future


def _settle(served: ServedVolume, future: asyncio.Future[LandedOrNot], outcome: LandedOrNot) -> None:
    served.unpin()
    if not future.done():
        future.set_result(outcome)


def _patience_seconds(error: HaystackError) -> float:
    if not isinstance(error, BatchRefused):
        return 0.0
    return {Verdict.GAP: GAP_SECONDS, Verdict.BEHIND: BEHIND_SECONDS}.get(error.verdict, 0.0)


class _SessionSink:
    """The body of a call that begins a session."""

    max_bytes = MAX_SESSION_BODY_BYTES

    def __init__(self, receiver: Receiver, connection: HttpConnection, request: Request) -> None:
        self._receiver = receiver
        self._connection = connection
        self._auth = request.headers.get(AUTH_HEADER.lower())
        self._body = b""

    def data(self, piece: bytes) -> None:
        self._body += piece

    def end(self) -> BodyOutcome:
        respond_json(self._connection, 200, self._receiver.sessions.begin(self._auth, self._body))
        return None

    def abort(self) -> None:
        """Nothing was begun."""


class _BatchSink:
    """The body of a batch."""

    def __init__(
        self, receiver: Receiver, connection: HttpConnection, request: Request, volume: int, frame: Frame | None
    ) -> None:
        self._receiver = receiver
        self._connection = connection
        self._target = request.target.decode("latin-1")
        self._volume = volume
        self._epoch = _number(request, "epoch", MAX_EPOCH)
        self._start = _number(request, "from", MAX_VOLUME_BYTES)
        self._committed = _number(request, "committed", MAX_VOLUME_BYTES)
        said = request.query_value("generation") is not None
        self._generation = _number(request, "generation", MAX_EPOCH) if said else None
        self._frame = frame
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self.max_bytes = receiver.max_batch_bytes

    def data(self, piece: bytes) -> None:
        receiver = self._receiver
        if receiver.receiving_bytes + len(piece) > MAX_RECEIVING_BYTES:
            raise VolumeUnavailable("too many batches are arriving; try again")
        receiver.receiving_bytes += len(piece)
        self._held_bytes += len(piece)
        self._pieces.append(piece)

    def end(self) -> BodyOutcome:
        return self._finish()

    def abort(self) -> None:
        self._release()

    async def _finish(self) -> None:
        receiver = self._receiver
        try:
            receiver.sessions.verify(self._frame, "POST", self._target, self._pieces)
            receiver.tally.add(Counter.BATCHES_RECEIVED)
            receiver.tally.add(Counter.BATCH_BYTES_RECEIVED, self._held_bytes)
            served = receiver.catalog.get(self._volume)
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces = []
            await self._answer(served, Arrived(served, self._epoch, self._start, data, self._generation))
        finally:
            self._release()

    async def _answer(self, served: ServedVolume, arrived: Arrived) -> None:
        refused: Callable[[dict[str, object]], None] = partial(respond_json, self._connection, 409)
        try:
            landed, served = await self._receiver.take(arrived)
        except BatchRefused as error:
            refused({"reason": error.verdict.value, "epoch": error.epoch, "tail": error.tail, "error": str(error)})
        except BatchDiverged as error:
            refused({"reason": Verdict.DIVERGED.value, "tail": error.tail, "error": str(error)})
        else:
            served.membership.note_committed(self._committed, landed.tail)
            respond_json(self._connection, 200, {"tail": landed.tail})

    def _release(self) -> None:
        self._pieces = []
        self._receiver.receiving_bytes -= self._held_bytes
        self._held_bytes = 0


def _number(request: Request, name: str, most: int) -> int:
    text = request.query_value(name)
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most):
        raise InvalidRequest(f"parameter {name} must be a whole number from 0 to {most}")
    return int(text)
