"""A multipart form with a photo, as it comes: the file goes to disk piece by piece, however large it is said to be.

It waits there until all of it has come: its size stands in the ticket, and a form's other fields may come behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Generic, TypeVar

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel

from frontend.api.reading import checked
from frontend.services.errors import Busy, Invalid
from haystack.errors import InvalidRequest, TooLarge

PIECE_BYTES = 256 * 1024
MAX_FIELD_BYTES = 16 * 1024
MAX_PARTS = 20
STALL_SECONDS = 30.0
MAX_SPOOLED = 64
"""Forms that are taken in at the same time."""

SLOTS = web.AppKey("spooling_slots", asyncio.Semaphore)

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form(Generic[Fields]):
    """A form that has come.

    Parameters
    ----------
    name: of the file, as the client has it.
    content_hash: SHA-256 of the file, hex.
    """

    fields: Fields
    name: str
    size_bytes: int
    content_hash: str
    file: IO[bytes]

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file from its beginning."""
        await asyncio.to_thread(self.file.seek, 0)
        while piece := await asyncio.to_thread(self.file.read, PIECE_BYTES):
            yield piece


@asynccontextmanager
async def spooled_form(request: web.Request, model: type[Fields], max_bytes: int) -> AsyncIterator[Form[Fields]]:
    """Take in a form with one file and the fields of a model; the file is gone at the end of the block.

    Parameters
    ----------
    max_bytes: of the file.

    Raises
    ------
    InvalidRequest, Invalid: it is no such form. TooLarge. Busy: too many come at the same time.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(reason="send a form: multipart/form-data with a field file")
    slots = request.app[SLOTS]
    if slots.locked():
        raise Busy("too many uploads come in at the same time; try again in a moment")
    async with slots:
        with tempfile.TemporaryFile() as file:
            yield await _read(request, model, max_bytes, file)


async def _read(request: web.Request, model: type[Fields], max_bytes: int, file: IO[bytes]) -> Form[Fields]:
    texts: dict[str, str] = {}
    found: tuple[str, int, str] | None = None
    try:
        reader = await request.multipart()
        for _ in range(MAX_PARTS):
            async with asyncio.timeout(STALL_SECONDS):
                part = await reader.next()
            if part is None:
                break
            if isinstance(part, MultipartReader):
                raise InvalidRequest("a form in a form is not taken")
            if part.name == "file":
                if found is not None:
                    raise Invalid("file", "one photo at a time")
                found = (part.filename or "", *await spool(part, max_bytes, file))
            elif part.name is not None:
                texts[part.name] = await read_field(part)
        else:
            raise InvalidRequest(f"a form has at most {MAX_PARTS} parts")
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the upload made no progress") from None
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise InvalidRequest(f"this is no well-formed multipart/form-data: {error}") from error
    if found is None:
        raise Invalid("file", "the form has no field file with the photo in it")
    name, size_bytes, content_hash = found
    return Form(checked(model, texts), name, size_bytes, content_hash, file)


async def spool(part: BodyPartReader, max_bytes: int, file: IO[bytes]) -> tuple[int, str]:
    """Write a form's file to ``file``; its size and SHA-256 as hex. Raises TooLarge, TimeoutError."""
    size, digest = 0, hashlib.sha256()
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            piece = await part.read_chunk(PIECE_BYTES)
        if not piece:
            return size, digest.hexdigest()
        size += len(piece)
        if size > max_bytes:
            raise TooLarge(f"a photo has at most {max_bytes:,} bytes")
        digest.update(piece)
        await asyncio.to_thread(file.write, piece)


async def read_field(part: BodyPartReader) -> str:
    """The text of a form's field. Raises Invalid when it is too long, ValueError, TimeoutError."""
    raw = bytearray()
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            piece = await part.read_chunk(PIECE_BYTES)
        if not piece:
            return bytes(raw).decode("utf-8")
        raw += piece
        if len(raw) > MAX_FIELD_BYTES:
            raise Invalid(str(part.name)[:60], f"a field has at most {MAX_FIELD_BYTES:,} bytes")
