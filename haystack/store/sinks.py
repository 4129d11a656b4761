"""Bodies of uploads on their way from the connection into an :class:`~haystack.store.uploads.UploadBody`."""

from __future__ import annotations

import asyncio
import time

from haystack.http.connection import HttpConnection
from haystack.http.handler import Outcome
from haystack.store.catalog import ServedVolume
from haystack.store.control_cells import Counter
from haystack.store.tally import Tally
from haystack.store.uploads import UploadBody, UploadMemory

_BYTES_IN = Counter.BYTES_IN


class BufferedSink:
    """A :class:`~haystack.http.handler.BodySink` that gathers the body and spills it when it is large.

    Subclasses pass what belongs to the photo to :meth:`_keep`, and in :meth:`_store` store it and answer.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_ended",
        "_failure",
        "_received_bytes",
        "_served",
        "_spilling",
        "_tally",
        "_waiting",
    )

    def __init__(self, connection: HttpConnection, served: ServedVolume, memory: UploadMemory, tally: Tally) -> None:
        self._connection = connection
        self._served = served
        self._tally = tally
        self._body = UploadBody(memory, served.lane.folder)
        self._received_bytes = 0
        self._ended = 0.0
        self._spilling: asyncio.Future[None] | None = None
        self._waiting: list[bytes] = []
        self._failure: BaseException | None = None

    # What the connection calls.

    def data(self, piece: bytes) -> None:
        """The next piece of the request's body."""
        self._received_bytes += len(piece)
        self._take(piece)

    def end(self) -> Outcome:
        """All of it is here."""
        self._note_end()
        return self._finish()

    def _note_end(self) -> None:
        self._ended = time.perf_counter()
        self._tally.add(_BYTES_IN, self._received_bytes)

    def abort(self) -> None:
        """The client went away or was refused: free everything."""
        self._tally.add(Counter.BYTES_IN, self._received_bytes)
        self._tally.add(Counter.ABORTED_UPLOADS)
        self._release()

    # What subclasses do.

    def _take(self, piece: bytes) -> None:
        self._keep(piece)

    async def _store(self) -> None:
        """Store the body, which is complete and settled, and answer."""
        raise NotImplementedError

    # Gathering.

    async def _finish(self) -> None:
        try:
            await self._settled()
            await self._store()
        finally:
            self._release()

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
            self._tally.add(Counter.SPILLED_UPLOADS)
        self._served.pin()
        loop = asyncio.get_running_loop()
        self._spilling = loop.run_in_executor(self._served.lane.spillers, self._body.spill)
        self._spilling.add_done_callback(self._spill_done)

    def _spill_done(self, spilling: asyncio.Future[None]) -> None:
        self._served.unpin()
        self._spilling = None
        self._failure = spilling.exception()
        if self._body.closed:
            self._release()
            return
        if self._failure is None:
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

    def _release(self) -> None:
        """Free memory and spill file, now or when the thread that is writing to it has ended."""
        self._waiting.clear()
        self._body.close(still_spilling=self._spilling is not None)
