"""What both ways of uploading do with a request: whose it is, its bytes into a file, and the photo out of that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from frontend.images.errors import ImageRefused, ImageWorkFailed
from frontend.intake.errors import Unsupported
from frontend.intake.receiving import Pace, Piece, receive
from frontend.intake.store import NotStored
from frontend.intake.taking import Taken, Taker
from frontend.intake.uploads import Upload, Uploads
from frontend.records import Record
from frontend.tickets import Ticket, TicketRefused
from haystack.errors import HaystackError
from haystack.internal_http import error_response

Result = TypeVar("Result")

_FINAL = (ImageRefused, ImageWorkFailed, NotStored)
"""The same bytes with the same ticket would fail again: the upload is of no more use."""
OUTCOMES = ("stored", "again", "refused", "failed")


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    received_bytes: int = 0
    work_seconds: float = 0.0


class Desk:
    """Takes requests for uploads.

    Parameters
    ----------
    taker: makes photos of complete uploads.
    uploads: those that are on their way.
    """

    def __init__(self, taker: Taker, uploads: Uploads) -> None:
        self.taker = taker
        self.uploads = uploads
        self.counts = Counts()

    def ticket(self, request: web.Request) -> Ticket:
        """The ticket of a request. Raises TicketRefused."""
        kind, _, text = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise TicketRefused("a ticket is needed: Authorization: Bearer …; the front end gives it out")
        return self.taker.check(text.strip())

    async def before(self, ticket: Ticket) -> Record | None:
        """The photo that was stored with this ticket before."""
        return await self.taker.before(ticket)

    @asynccontextmanager
    async def held(self, request: web.Request, upload: Upload) -> AsyncIterator[Upload]:
        """Hold an upload for a request; raises as :meth:`~frontend.intake.uploads.Uploads.held`."""
        transport = request.transport
        async with self.uploads.held(upload, transport.abort if transport else _nothing):
            yield upload

    async def receive(self, upload: Upload, piece: Piece, hasher: Any | None = None) -> None:
        """Append a body; raises as :func:`~frontend.intake.receiving.receive`."""
        before = upload.offset
        try:
            await receive(upload, piece, Pace(asyncio.get_running_loop().time()), hasher)
        finally:
            self.counts.received_bytes += max(0, upload.offset - before)

    async def finish(self, ticket: Ticket, upload: Upload) -> Taken:
        """Make a photo of a complete upload that is held. It ends with that, unless it is worth coming again.

        Raises as :meth:`~frontend.intake.taking.Taker.take`.
        """
        upload.break_off = None  # from here on nobody ends this call
        started, outcome = time.monotonic(), "failed"
        try:
            taken = await self.taker.take(ticket, upload.path)
            outcome = "again" if taken.again else "stored"
        except _FINAL as error:
            outcome = "refused" if isinstance(error, ImageRefused | ImageWorkFailed) else "failed"
            await on_thread(self.uploads.remove, upload)
            raise
        finally:
            self.counts.outcomes[outcome] += 1
            self.counts.work_seconds += time.monotonic() - started
        await on_thread(self.uploads.remove, upload)
        return taken


async def on_thread(act: Callable[..., Result], *args: object) -> Result:
    """A short call of the file system, off the event loop."""
    return await asyncio.to_thread(act, *args)


def continued(request: web.Request, check: Callable[[web.Request], object]) -> web.Response | None:
    """Answer ``Expect: 100-continue``: who will be refused need not send anything.

    Parameters
    ----------
    check: raises a HaystackError for a request that will be refused.
    """
    try:
        check(request)
    except HaystackError as error:
        return error_response(error.http_status, str(error))
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def require_plain(request: web.Request) -> None:
    """Raises Unsupported for a body that is compressed for the way."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Unsupported(f"Content-Encoding: {encoding} is not taken here; send the photo as it is")


def photo_name(record: Record) -> str:
    """A photo's id as the front end writes it."""
    return f"{record.photo_id:x}"


def _nothing() -> None:
    """For a connection that has ended already."""
