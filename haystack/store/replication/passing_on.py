"""Passing uploads and deletes on to the primary, for clients that came to another copy.

One hop: the header below marks what was passed on. Two Stores with different ideas of who leads would otherwise send a
request in circles.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from haystack.addresses import split
from haystack.errors import VolumeUnavailable
from haystack.http.connection import HttpConnection
from haystack.http.handler import BodySink
from haystack.http.handler import Outcome as BodyOutcome
from haystack.http.request import Request
from haystack.http.response import header_block
from haystack.store.answers import PAIR_PREFIX
from haystack.store.catalog import Catalog, ServedVolume
from haystack.store.control_cells import Counter
from haystack.store.replication.rules import LEADING, Standing
from haystack.store.tally import Tally
from haystack.units import MIB

PASSED_ON_HEADER = "X-Haystack-Passed-On"

BUFFER_BYTES = 1 * MIB
"""What is kept of a body that comes faster than the primary takes it."""

CONNECT_SECONDS = 1.5
STALL_SECONDS = 30.0
"""Longest wait for the primary to take a piece of the body, or to answer."""

MAX_ANSWER_BYTES = 1 * MIB
MAX_HEAD_BYTES = 64 * 1024

_FIELDS = ("content-type", "content-disposition")
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]{1,9})\r\n", re.IGNORECASE)
_TYPE = re.compile(rb"\r\nContent-Type: ([ -~]{1,200})\r\n", re.IGNORECASE)


class Passed(NamedTuple):
    """What the primary answered."""

    status: int
    content_type: str
    body: bytes


class Forwarder:
    """Decides what is passed on, and does it.

    Parameters
    ----------
    max_body_bytes: of one request.
    """

    def __init__(self, catalog: Catalog, tally: Tally, *, max_body_bytes: int) -> None:
        self._catalog = catalog
        self._tally = tally
        self.max_body_bytes = max_body_bytes

    def begin(
        self, connection: HttpConnection, request: Request, volume: int
    ) -> BodySink | Coroutine[Any, Any, None] | None:
        """What passes a request on; None when it is to be carried out, or refused, here.

        Raises VolumeUnavailable, VolumeNotFound.
        """
        served = self._catalog.get(volume)
        packed = served.control.cells[served.membership.standing_cell]
        if not packed or Standing.unpack(packed).duty in LEADING:
            return None
        if not Standing.unpack(packed).epoch:
            return None  # nobody has told who leads
        if request.headers.get(PASSED_ON_HEADER.lower()) is not None:
            raise VolumeUnavailable(f"volume {volume} is led by another Store; get a new fid from /dir/assign")
        self._tally.add(Counter.PASSED_ON)
        sink = _PassingSink(self, connection, request, served)
        return sink if request.method != "DELETE" else sink.without_body()


class _PassingSink:
    """The body of a request on its way to the primary."""

    def __init__(
        self, forwarder: Forwarder, connection: HttpConnection, request: Request, served: ServedVolume
    ) -> None:
        self._connection = connection
        self._request = request
        self._served = served
        self._chunked = request.headers.chunked
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._more = asyncio.Event()
        self._task: asyncio.Task[Passed] | None = None
        self.max_bytes = forwarder.max_body_bytes

    def data(self, piece: bytes) -> None:
        self._begin()
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        self._more.set()
        if self._held_bytes > BUFFER_BYTES:
            self._connection.pause_body()

    def end(self) -> BodyOutcome:
        self._begin()
        self._ended = True
        self._more.set()
        return self._answer()

    def abort(self) -> None:
        self._pieces.clear()
        if self._task is not None:
            self._task.cancel()

    async def without_body(self) -> None:
        """Pass on a request that has no body."""
        self._ended = True
        self._begin()
        await self._answer()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._pass_on())
            self._task.add_done_callback(self._failed_early)

    def _failed_early(self, task: asyncio.Task[Passed]) -> None:
        """Let the body come, to nowhere: the reason is answered at its end."""
        if not task.cancelled() and task.exception() is not None and not self._ended:
            self._pieces.clear()
            self._connection.resume_body()

    async def _answer(self) -> None:
        assert self._task is not None
        passed = await self._task
        self._connection.respond(passed.status, header_block([("Content-Type", passed.content_type)]), passed.body)

    async def _pass_on(self) -> Passed:
        now = await asyncio.to_thread(self._served.membership.now)
        if now is None:
            raise VolumeUnavailable(f"volume {self._served.number}: who leads it is not known here; try again soon")
        url = now.membership.leader.url
        try:
            async with _connected(url) as (reader, writer):
                writer.write(self._head(url))
                with contextlib.suppress(ConnectionError):  # refused before its end: the answer says why
                    await self._send_body(writer)
                async with asyncio.timeout(STALL_SECONDS):
                    return await _read_answer(reader)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            reason = str(error) or "no answer in time"
            raise VolumeUnavailable(
                f"volume {self._served.number}: its primary {url} fails ({reason}); get a new fid from /dir/assign"
            ) from error

    def _head(self, url: str) -> bytes:
        request = self._request
        lines = [f"{request.method} {request.target.decode('latin-1')} HTTP/1.1", f"Host: {url}", "Connection: close"]
        lines.append(f"{PASSED_ON_HEADER}: 1")
        if self._chunked:
            lines.append("Transfer-Encoding: chunked")
        elif request.headers.content_length is not None:
            lines.append(f"Content-Length: {request.headers.content_length}")
        prefix = PAIR_PREFIX.lower()
        lines += [
            f"{name}: {value}" for name, value in request.headers.items() if name in _FIELDS or name.startswith(prefix)
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _send_body(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._more.clear()
            pieces, self._pieces, self._held_bytes = self._pieces, [], 0
            for piece in pieces:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            async with asyncio.timeout(STALL_SECONDS):
                await writer.drain()
            if pieces and not self._ended:
                self._connection.resume_body()
            if self._ended and not self._pieces:
                break
            if not self._pieces:
                await self._more.wait()
        if self._chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(*split(url), limit=MAX_HEAD_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> Passed:
    """Read the answer. Raises ValueError when it is none of a Store."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, length, kind = _STATUS.match(head), _LENGTH.search(head), _TYPE.search(head)
    if status is None or length is None or int(length[1]) > MAX_ANSWER_BYTES:
        raise ValueError("its answer is not that of a Store")
    body = await reader.readexactly(int(length[1]))
    return Passed(int(status[1]), kind[1].decode("ascii") if kind else "application/json", body)
