"""Sending a photo to clients while it is still being fetched.

A photo's checksum is at its end. So that no client ever gets a complete wrong photo, the last
:data:`HELD_BACK_BYTES` of what it asked for are sent when all of it was verified. When it turns out to be wrong, or its
fetch fails and no other Store can go on with it, the connection is cut: the client sees a short body.
"""

from __future__ import annotations

import asyncio

from cache.answers import MISS, answer, cache_lines, plan_for
from cache.memory import Record
from haystack.errors import HaystackError
from haystack.http.connection import HttpConnection
from haystack.http.request import Request

PIECE_BYTES = 256 * 1024
"""Most that is written at once: what a client that does not read makes the kernel and us hold on to."""

HELD_BACK_BYTES = 16 * 1024


class FetchBroken(HaystackError):
    """A photo that was being fetched did not come to its end, or was wrong."""

    http_status = 503


class Growing:
    """A photo that is being fetched, as those see it who send it on.

    Parameters
    ----------
    record: of it, pinned by the owner as long as there are users.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.generation = record.generation
        self.users = 0
        """Requests that it is sent to, those whose turn has not come yet included."""
        self._waiters: set[asyncio.Future[None]] = set()

    def grew(self) -> None:
        """More is there, or it has come to its end."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def send(self, connection: HttpConnection, request: Request, private_until: int) -> int:
        """Answer a request; returns the bytes of the body. Raises FetchBroken, ClientGone.

        Parameters
        ----------
        private_until: as of :func:`cache.answers.plan_for`.
        """
        record = self.record
        plan = plan_for(request, record, private_until)
        if plan.status in (304, 416) or connection.head_only or record.complete:
            await self._until_complete()
            return answer(connection, request, record, MISS, private_until)
        lines = plan.headers + cache_lines(record, MISS, private_until)
        connection.start_stream(plan.status, lines, plan.end - plan.start)
        held_back = min(HELD_BACK_BYTES, plan.end - plan.start)
        position = plan.start
        while position < plan.end:
            ready = self._ready(plan.end, held_back)
            if ready <= position:
                await self._more()
                continue
            for piece in record.pieces(position, min(ready, position + PIECE_BYTES)):
                await connection.send_lent(piece, record)
                position += len(piece)
        return plan.end - plan.start

    def _ready(self, end: int, held_back: int) -> int:
        record = self.record
        if record.complete:
            return end
        if not record.in_force:
            raise FetchBroken("the photo did not come to its end, or was wrong; read it again")
        return min(record.filled_bytes, end - held_back)

    async def _until_complete(self) -> None:
        while not self.record.complete:
            self._ready(0, 0)
            await self._more()

    async def _more(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
