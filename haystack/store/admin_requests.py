"""Reading what a call of the admin API says: path, query and JSON body. All of it raises InvalidRequest."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from aiohttp import web

from haystack.errors import InvalidRequest, TooLarge
from haystack.fid import MAX_VOLUME_ID
from haystack.store.documents import Document

MAX_DOCUMENT_BYTES = 64 * 1024


def uuid(value: Any) -> UUID:
    """A UUID of a JSON body."""
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"uuid must be a UUID, not {value!r:.60}") from error


def whole(document: Document, name: str, most: int, default: int | None = None) -> int:
    """A whole number of a JSON body, 0 … ``most``."""
    value = document.get(name, default)
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number from 0 to {most}, not {value!r:.40}")
    return value


def volume_of(request: web.Request) -> int:
    """The volume that the path names."""
    text = request.match_info["volume"]
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_VOLUME_ID):
        raise InvalidRequest(f"{text[:40]!r} is no volume id")
    return int(text)


def number(request: web.Request, name: str, default: int, most: int) -> int:
    """A parameter of the query, 0 … ``most``."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidRequest(f"parameter {name}={text[:40]!r} is no whole number")
    if int(text) > most:
        raise InvalidRequest(f"parameter {name}={text} is too large; at most {most}")
    return int(text)


async def body_of(request: web.Request) -> Document:
    """The JSON object in the body. Raises TooLarge, too."""
    body = await request.read()
    if len(body) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"the body is too large: {len(body)} bytes, at most {MAX_DOCUMENT_BYTES} are read as JSON")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    return document
