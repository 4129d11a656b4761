"""``/files``: uploads that go on after a broken connection, by the tus protocol 1.0 (https://tus.io/protocols).

Extensions: creation, creation-with-upload, termination, expiration, checksum. The ticket is asked for at every call; an
upload is named by it, so the same ticket always has the same upload.

The call that brings the last byte is answered when the photo is stored, with its id in ``Haystack-Photo``. When that
fails for a reason that may pass (503), the upload stays, complete: HEAD then tries again, so that a client never hears
that everything has come of a photo that is nowhere.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
from typing import Any

from aiohttp import web

from frontend.intake.desk import Desk, continued, on_thread, photo_name, require_plain
from frontend.intake.errors import Unsupported, UploadNotFound, WrongChecksum, WrongLength, WrongOffset, WrongProtocol
from frontend.intake.receiving import CHECKSUMS, hasher_of
from frontend.intake.uploads import Upload
from frontend.records import Record
from frontend.tickets import Ticket
from haystack.errors import InvalidRequest

VERSION = "1.0.0"
EXTENSIONS = ("creation", "creation-with-upload", "termination", "expiration", "checksum")
BODY_TYPE = "application/offset+octet-stream"
PHOTO_HEADER = "Haystack-Photo"
PATH = "/files"
_NUMBER = re.compile(r"[0-9]{1,15}")


class TusHandler:
    """The calls of the protocol.

    Parameters
    ----------
    max_bytes: of one upload, told to clients.
    """

    def __init__(self, desk: Desk, max_bytes: int) -> None:
        self._desk = desk
        self._max_bytes = max_bytes

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_options(PATH, self.options)
        app.router.add_options(PATH + "/{id}", self.options)
        app.router.add_post(PATH, self.create, expect_handler=self.expected)
        app.router.add_post(PATH + "/{id}", self.overridden, expect_handler=self.expected)
        app.router.add_head(PATH + "/{id}", self.head)
        app.router.add_patch(PATH + "/{id}", self.patch, expect_handler=self.expected)
        app.router.add_delete(PATH + "/{id}", self.delete)

    async def options(self, request: web.Request) -> web.Response:
        """What this server can do."""
        headers = {
            "Tus-Resumable": VERSION,
            "Tus-Version": VERSION,
            "Tus-Extension": ",".join(EXTENSIONS),
            "Tus-Max-Size": str(self._max_bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        return web.Response(status=204, headers=headers)

    async def create(self, request: web.Request) -> web.Response:
        """Begin an upload, perhaps with its first bytes."""
        ticket = self._check(request)
        if "Upload-Defer-Length" in request.headers:
            raise InvalidRequest("Upload-Defer-Length is not supported; the ticket's size is known, send Upload-Length")
        length = _number(request, "Upload-Length")
        if length != ticket.size_bytes:
            raise WrongLength(f"Upload-Length is {length}, the ticket is for {ticket.size_bytes} bytes")
        location = {"Location": f"{PATH}/{ticket.id.hex()}"}
        known = await self._desk.before(ticket)
        if known is not None:
            return _answer(201, ticket, ticket.size_bytes, known, location)
        upload = await on_thread(self._desk.uploads.begin, ticket)
        if not request.can_read_body:
            return _answer(201, ticket, upload.offset, None, location)
        async with self._desk.held(request, upload):
            if upload.offset:  # begun before: the client learns where it is, and goes on from there
                return _answer(201, ticket, upload.offset, None, location)
            record = await self._append(request, ticket, upload)
            return _answer(201, ticket, upload.offset, record, location)

    async def head(self, request: web.Request) -> web.Response:
        """Say how much has come."""
        ticket = self._check(request)
        length = {"Upload-Length": str(ticket.size_bytes), "Cache-Control": "no-store"}
        known = await self._desk.before(ticket)
        if known is not None:
            return _answer(200, ticket, ticket.size_bytes, known, length)
        async with self._desk.held(request, self._desk.uploads.find(ticket.id.hex())) as upload:
            record = (await self._desk.finish(ticket, upload)).record if upload.complete else None
            return _answer(200, ticket, upload.offset, record, length)

    async def patch(self, request: web.Request) -> web.Response:
        """Take further bytes."""
        ticket = self._check(request)
        offset = _number(request, "Upload-Offset")
        known = await self._desk.before(ticket)
        if known is not None:
            if offset != ticket.size_bytes:
                raise WrongOffset("the whole upload has come, and its photo is stored")
            return _answer(204, ticket, offset, known)
        async with self._desk.held(request, self._desk.uploads.find(ticket.id.hex())) as upload:
            if offset != upload.offset:
                raise WrongOffset(f"the upload is at {upload.offset}, not at {offset}")
            record = await self._append(request, ticket, upload)
            return _answer(204, ticket, upload.offset, record)

    async def delete(self, request: web.Request) -> web.Response:
        """End an upload that is not complete."""
        ticket = self._check(request)
        async with self._desk.held(request, self._desk.uploads.find(ticket.id.hex())) as upload:
            await on_thread(self._desk.uploads.remove, upload)
        return web.Response(status=204, headers={"Tus-Resumable": VERSION})

    async def overridden(self, request: web.Request) -> web.Response:
        """PATCH or DELETE for clients that can only POST."""
        method = request.headers.get("X-HTTP-Method-Override", "").upper()
        acts = {"PATCH": self.patch, "DELETE": self.delete}
        if method not in acts:
            raise web.HTTPMethodNotAllowed("POST", ["HEAD", "PATCH", "DELETE", "OPTIONS"])
        return await acts[method](request)

    async def expected(self, request: web.Request) -> web.Response | None:
        """For ``Expect: 100-continue``."""
        return continued(request, self._check)

    def _check(self, request: web.Request) -> Ticket:
        if request.headers.get("Tus-Resumable") != VERSION:
            raise WrongProtocol(f"Tus-Resumable must be {VERSION}")
        ticket = self._desk.ticket(request)
        named = request.match_info.get("id")
        if named is not None and named != ticket.id.hex():
            raise UploadNotFound("this upload is not the ticket's")
        return ticket

    async def _append(self, request: web.Request, ticket: Ticket, upload: Upload) -> Record | None:
        """Take the body, and when that was the last of it, the photo."""
        if request.content_type != BODY_TYPE:
            raise Unsupported(f"Content-Type must be {BODY_TYPE}")
        require_plain(request)
        length = request.content_length
        if length is not None and upload.offset + length > upload.size_bytes:
            raise WrongLength(f"{length} bytes from {upload.offset} on are more than the {upload.size_bytes} announced")
        checksum = request.headers.get("Upload-Checksum")
        if checksum is None:
            await self._desk.receive(upload, request.content.readany)
        else:
            await self._receive_checked(request, upload, *_checksum(checksum))
        return (await self._desk.finish(ticket, upload)).record if upload.complete else None

    async def _receive_checked(self, request: web.Request, upload: Upload, hasher: Any, wanted: bytes) -> None:
        """Take a body that counts only when it is what its checksum says."""
        uploads, offset = self._desk.uploads, upload.offset
        mark = await on_thread(uploads.doubt, upload)
        right = False
        try:
            await self._desk.receive(upload, request.content.readany, hasher)
            right = hasher.digest() == wanted
            if not right:
                raise WrongChecksum("the checksum of these bytes is another one; send them again")
        finally:
            if not right:
                await on_thread(uploads.cut, upload, offset)
            await on_thread(uploads.believe, mark)


def _answer(
    status: int, ticket: Ticket, offset: int, record: Record | None, more: dict[str, str] | None = None
) -> web.Response:
    headers = {"Tus-Resumable": VERSION, "Upload-Offset": str(offset), **(more or {})}
    if record is None:
        headers["Upload-Expires"] = email.utils.formatdate(ticket.expires, usegmt=True)
    else:
        headers[PHOTO_HEADER] = photo_name(record)
    return web.Response(status=status, headers=headers)


def _number(request: web.Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{name} must be a number of bytes")
    return int(text)


def _checksum(header: str) -> tuple[Any, bytes]:
    name, _, text = header.partition(" ")
    hasher = hasher_of(name)
    if hasher is None:
        raise InvalidRequest(f"Upload-Checksum: known are {', '.join(CHECKSUMS)}")
    try:
        return hasher, base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("Upload-Checksum must be the name of the algorithm, a space, and base64") from None
