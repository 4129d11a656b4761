"""What a GET or HEAD of a photo is answered with: status, header lines, and which part. Pure.

Stores and Caches answer by this alone, so that a client cannot tell which of them it has asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from haystack.http.conditions import is_not_modified
from haystack.http.ranges import UNSATISFIABLE, ByteRange, select_range, unsatisfied_content_range
from haystack.http.request import Request
from haystack.http.response import header_block
from haystack.store.answers import etag, expiring_headers, modified_seconds, photo_headers, private_headers


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What a needle says of its photo.

    Parameters
    ----------
    raw_meta: packed metadata.
    checksum: of the needle.
    time_ms: when it was stored, milliseconds since 1970.
    expires: its end, seconds since 1970; 0 for none.
    private_until: the end of the signature that it is shown by, seconds since 1970; 0 of what everybody may see.
    data_bytes: size of the photo.
    """

    raw_meta: bytes
    checksum: int
    time_ms: int
    expires: int
    data_bytes: int
    private_until: int = 0


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """Status, header lines, and the part of the photo to send: bytes ``start`` to ``end``."""

    status: int
    headers: bytes
    start: int
    end: int


def plan_answer(request: Request, photo: PhotoFacts, now_seconds: float) -> AnswerPlan:
    """What to answer for a photo that is there. Raises InvalidRequest for a query that cannot be read.

    Parameters
    ----------
    now_seconds: since 1970; before the photo's end.
    """
    headers = request.headers
    size_bytes = photo.data_bytes
    tag = etag(photo.checksum)
    modified = modified_seconds(photo.time_ms)
    attachment = bool(request.query) and request.query_value("dl") is not None
    if photo.private_until:
        until = min(photo.private_until, photo.expires or photo.private_until)
        lines = private_headers(
            photo.raw_meta, photo.checksum, photo.time_ms, until, now_seconds, attachment=attachment
        )
    elif photo.expires:
        lines = expiring_headers(
            photo.raw_meta, photo.checksum, photo.time_ms, photo.expires, now_seconds, attachment=attachment
        )
    else:
        lines = photo_headers(photo.raw_meta, photo.checksum, photo.time_ms, attachment=attachment)
    if headers.plain:
        return AnswerPlan(200, lines, 0, size_bytes)
    if is_not_modified(headers.if_none_match, headers.if_modified_since, tag, modified):
        return AnswerPlan(304, lines, 0, 0)
    wanted = select_range(
        headers.range, headers.if_range, etag=tag, last_modified_seconds=modified, size_bytes=size_bytes
    )
    if wanted is UNSATISFIABLE:
        return AnswerPlan(416, header_block([("Content-Range", unsatisfied_content_range(size_bytes))]), 0, 0)
    if isinstance(wanted, ByteRange):
        partial = header_block([("Content-Range", wanted.content_range(size_bytes))])
        return AnswerPlan(206, lines + partial, wanted.start, wanted.end)
    return AnswerPlan(200, lines, 0, size_bytes)


def unsatisfiable(data_bytes: int) -> str:
    """The message of a 416."""
    return f"the range lies outside the photo's {data_bytes} bytes"
