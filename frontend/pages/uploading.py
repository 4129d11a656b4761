"""The page to upload from. With script, files go straight to the intake; this takes what comes without."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from frontend.api.spooling import PIECE_BYTES, SLOTS, STALL_SECONDS, read_field, spool
from frontend.database.people import User
from frontend.pages.common import errors_of, needed_user, show
from frontend.pages.rendering import Look, Origins
from frontend.services.errors import Busy, Conflict, Invalid, NotFound, UploadRefused
from frontend.services.names import clean_tags, parse_photo_id, parse_visibility, split_tags
from frontend.services.uploads import Wish
from frontend.web.csrf import check_csrf
from frontend.web.keys import SITE
from haystack.errors import InvalidRequest, TooLarge

MAX_FILES = 20
"""Of one form without script; each waits on the disk until the whole form is there."""
MAX_PARTS = MAX_FILES + 10
_FILES = "photos"
_FIELDS = ("tags", "visibility")


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size_bytes: int
    content_hash: str
    file: IO[bytes]

    async def pieces(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self.file.seek, 0)
        while piece := await asyncio.to_thread(self.file.read, PIECE_BYTES):
            yield piece


@dataclass(slots=True)
class _Sent:
    """A form that is coming: its texts, its files, and what of those was not taken."""

    texts: dict[str, str] = field(default_factory=dict)
    files: list[_File] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


async def upload_page(request: web.Request) -> web.Response:
    """Where one chooses photos."""
    return await _form(request, {"tags": "", "visibility": "public", "keep_place": "yes"}, {}, 200)


async def uploaded(request: web.Request) -> web.Response:
    """Whether a photo that went straight to an intake is there by now, and how many of one's others look like it."""
    user = await needed_user(request)
    photos = request.app[SITE].photos
    headers = {"Cache-Control": "no-store"}
    try:
        found = await photos.get(user, parse_photo_id(request.match_info["photo_id"]))
    except NotFound:
        # Not an error: the script asks until it is there.
        return web.json_response({"there": False, "alike": 0}, headers=headers)
    alike = await photos.alike(user, found) if found.owner_id == user.id else []
    return web.json_response({"there": True, "alike": len(alike)}, headers=headers)


async def upload(request: web.Request) -> web.Response:
    """Take a form with photos in it, and pass them on to the intake."""
    user = await needed_user(request)
    slots = request.app[SLOTS]
    if slots.locked():
        raise Busy("too many uploads come in at the same time; try again in a moment")
    if request.content_type != "multipart/form-data":
        raise InvalidRequest("photos are sent by the form of this page")
    async with slots:
        with ExitStack() as open_files:
            sent = await _read(request, open_files)
            return await _take(request, user, sent)


async def _take(request: web.Request, user: User, sent: _Sent) -> web.Response:
    problem = _problem(sent)
    if problem is not None:
        values = {name: sent.texts.get(name, "") for name in (*_FIELDS, "keep_place")}
        return await _form(request, values, errors_of(problem, ("tags",)), problem.http_status)
    done: list[tuple[str, int]] = []
    refused = list(sent.refused)
    for file in sent.files:
        try:
            done.append((file.name, await _pass_on(request, user, sent.texts, file)))
        except (UploadRefused, Invalid, Conflict, Busy) as error:
            refused.append((file.name, str(error)))
    values_shown = {"done": done, "refused": refused}
    return await show(request, Look("uploaded.html", values_shown, status=200 if done else 422))


def _problem(sent: _Sent) -> Invalid | None:
    try:
        clean_tags(split_tags(sent.texts.get("tags", "")))
        parse_visibility(sent.texts.get("visibility", "public"))
    except Invalid as error:
        return error
    if not sent.files and not sent.refused:
        return Invalid(_FILES, "choose one photo or more")
    return None


async def _pass_on(request: web.Request, user: User, texts: dict[str, str], file: _File) -> int:
    uploads = request.app[SITE].uploads
    wish = Wish(
        size_bytes=file.size_bytes,
        name=file.name,
        tags=clean_tags(split_tags(texts.get("tags", ""))),
        visibility=texts.get("visibility", "public"),
        keep_place=texts.get("keep_place") == "yes",
        content_hash=file.content_hash,
    )
    offer = await uploads.offer(user, wish)
    record = await uploads.pass_on(offer, file.pieces, file.size_bytes)
    return record.photo_id


async def _read(request: web.Request, open_files: ExitStack) -> _Sent:
    """Take the form in. The token comes first: nothing of a form that is not ours is kept."""
    sent, checked = _Sent(), False
    most_bytes = request.app[SITE].uploads.max_bytes
    try:
        reader = await request.multipart()
        for _ in range(MAX_PARTS):
            async with asyncio.timeout(STALL_SECONDS):
                part = await reader.next()
            if not isinstance(part, BodyPartReader):
                if isinstance(part, MultipartReader):
                    raise InvalidRequest("a form in a form is not taken")
                break
            token = await read_field(part) if part.name == "csrf" else None
            if not checked:
                await check_csrf(request, form_token=token)
                checked = True
            if part.name == _FILES:
                await _read_file(part, sent, most_bytes, open_files)
            elif part.name is not None and token is None:
                sent.texts[part.name] = await read_field(part)
        else:
            raise InvalidRequest(f"send at most {MAX_FILES} photos at once this way")
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="The upload made no progress.") from None
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise InvalidRequest(f"this is no well-formed multipart/form-data: {error}") from error
    return sent


async def _read_file(part: BodyPartReader, sent: _Sent, most_bytes: int, open_files: ExitStack) -> None:
    if len(sent.files) >= MAX_FILES:
        raise InvalidRequest(f"send at most {MAX_FILES} photos at once this way")
    file = open_files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
    name = part.filename or ""
    try:
        size_bytes, content_hash = await spool(part, most_bytes, file)
    except TooLarge as error:
        await part.release()
        sent.refused.append((name, str(error)))
        return
    if name or size_bytes:  # a browser sends an empty file without a name when none was chosen
        sent.files.append(_File(name, size_bytes, content_hash, file))


async def _form(request: web.Request, values: dict[str, str], errors: dict[str, str], status: int) -> web.Response:
    await needed_user(request)
    site = request.app[SITE]
    shown = {"values": values, "errors": errors, "most_bytes": site.uploads.max_bytes}
    origins = Origins(uploads=await site.pictures.intake_origins())
    return await show(request, Look("upload.html", shown, origins, status))
