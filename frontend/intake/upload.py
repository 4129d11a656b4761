"""``POST /upload``: a photo in one request, as it is or as a form."""

from __future__ import annotations

import json

import aiohttp
from aiohttp import BodyPartReader, web

from frontend.intake.desk import Desk, continued, on_thread, photo_name, require_plain
from frontend.intake.errors import Unsupported, UploadInUse, UploadNotFound, WrongLength
from frontend.intake.receiving import Piece
from frontend.intake.taking import Taken
from frontend.intake.uploads import Upload
from frontend.records import Record, dump
from frontend.tickets import Ticket
from haystack.errors import InvalidRequest

MAX_FORM_FIELDS = 10
MAX_FORM_BYTES = 16 * 1024
"""What a form may have beside the file: such fields, and the boundaries and headers of them all."""


class UploadHandler:
    """Takes photos in one request each. The ticket says all that is known of the photo; a form's other fields are
    passed over.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def post(self, request: web.Request) -> web.Response:
        """Take a photo: 201, or 200 when the same ticket has stored it before."""
        ticket = self._check(request)
        known = await self._desk.before(ticket)
        if known is not None:
            return _answer(known, 200)
        try:
            taken = await self._take(request, ticket)
        except UploadNotFound:  # an earlier call with this ticket has ended just now
            raise UploadInUse("another upload with this ticket was under way; try again") from None
        return _answer(taken.record, 200 if taken.again else 201)

    async def _take(self, request: web.Request, ticket: Ticket) -> Taken:
        upload = await on_thread(self._desk.uploads.begin, ticket)
        async with self._desk.held(request, upload):
            try:
                await on_thread(self._desk.uploads.cut, upload, 0)
                await self._receive(request, ticket, upload)
                return await self._desk.finish(ticket, upload)
            finally:
                await on_thread(self._desk.uploads.remove, upload)

    def _check(self, request: web.Request) -> Ticket:
        """What is known before the body comes."""
        ticket = self._desk.ticket(request)
        require_plain(request)
        length = request.content_length
        if _is_form(request):
            if length is not None and not ticket.size_bytes <= length <= ticket.size_bytes + MAX_FORM_BYTES:
                raise WrongLength(f"a form of {length} bytes cannot have a file of {ticket.size_bytes}")
        elif length is not None and length != ticket.size_bytes:
            raise WrongLength(f"the upload has {length} bytes, the ticket is for {ticket.size_bytes}")
        return ticket

    async def expected(self, request: web.Request) -> web.Response | None:
        """For ``Expect: 100-continue``."""
        return continued(request, self._check)

    async def _receive(self, request: web.Request, ticket: Ticket, upload: Upload) -> None:
        piece = await _file_of(request) if _is_form(request) else request.content.readany
        await self._desk.receive(upload, piece)
        if not upload.complete:
            raise WrongLength(f"the upload has {upload.offset} bytes, the ticket is for {ticket.size_bytes}")


def _is_form(request: web.Request) -> bool:
    return request.content_type.startswith("multipart/")


async def _file_of(request: web.Request) -> Piece:
    """What gives the bytes of a form's file: its first part that has a file name, or is called "file"."""
    try:
        reader = await request.multipart()
        for _ in range(MAX_FORM_FIELDS):
            part = await reader.next()
            if part is None:
                break
            if not isinstance(part, BodyPartReader):
                raise Unsupported("a form within a form is not taken here")
            if part.filename is not None or part.name == "file":
                return part.read_chunk
            await _pass_over(part)
    except (ValueError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise InvalidRequest(f"this is no multipart form: {error}") from error
    raise InvalidRequest("the form has no file")


async def _pass_over(part: BodyPartReader) -> None:
    left = MAX_FORM_BYTES
    while data := await part.read_chunk():
        left -= len(data)
        if left < 0:
            raise InvalidRequest(f"the form has a field of more than {MAX_FORM_BYTES} bytes beside the file")


def _answer(record: Record, status: int) -> web.Response:
    return web.json_response({"photo": photo_name(record), "record": json.loads(dump(record))}, status=status)
