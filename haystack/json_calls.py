"""Calls between the parts of a cluster: JSON over HTTP, signed where there is a secret; one wording for what fails."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from haystack.errors import HaystackError
from haystack.security import AUTH_HEADER, sign

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_ERROR_CHARS = 500

CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)
"""What aiohttp raises when a connection cannot be made, breaks, or falls silent."""


class NoAnswer(HaystackError):
    """A server was not reached, fell silent, or broke the connection. The call may have been done, or not."""

    http_status = 503


class AnswerTooLarge(HaystackError):
    """A server answered with more than is expected of anybody."""

    http_status = 502


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An answer of any status.

    Parameters
    ----------
    document: the value of its JSON; None when it is none.
    body: its bytes.
    """

    status: int
    document: Any
    body: bytes

    @property
    def reason(self) -> str:
        """What the server says went wrong."""
        return reason_given(self.body, self.status)


async def json_call(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    document: object = None,
    *,
    secret: bytes | None = None,
    timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - for aiohttp, which cancels better
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    now: Callable[[], float] = time.time,
) -> JsonAnswer:
    """Make one call.

    Parameters
    ----------
    url: encoded already, as it is to be sent and signed.
    document: the body, as JSON; None for none.
    secret: of the cluster; None for an unsigned call.
    timeout: by default the session's.
    now: unix seconds, for the signature.

    Raises
    ------
    NoAnswer: its text is the reason alone; the caller knows best who was asked for what.
    AnswerTooLarge: above ``max_answer_bytes``.
    """
    target = URL(url, encoded=True)
    body = b"" if document is None else json.dumps(document, separators=(",", ":")).encode()
    headers = signed_headers(secret, method, target, body, now=now)
    if body:
        headers["Content-Type"] = "application/json"
    extra: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    try:
        async with session.request(
            method, target, data=body or None, headers=headers, allow_redirects=False, **extra
        ) as response:
            raw = await read_limited(response, max_answer_bytes)
            return JsonAnswer(response.status, parsed(raw), raw)
    except CONNECTION_ERRORS as error:
        silence = timeout or session.timeout
        raise NoAnswer(in_words(error, silence.total or silence.sock_read)) from error


def signed_headers(
    secret: bytes | None, method: str, url: URL, body: bytes, *, now: Callable[[], float] = time.time
) -> dict[str, str]:
    """Headers for an internal call; none when there is no secret."""
    if secret is None:
        return {}
    return {AUTH_HEADER: sign(secret, method, url.raw_path_qs, body, now=now())}


async def read_limited(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the whole body. Raises AnswerTooLarge, and any of CONNECTION_ERRORS."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > max_bytes:
            raise AnswerTooLarge(f"{response.method} {response.url}: the answer is larger than {max_bytes} bytes")
    return bytes(body)


def parsed(body: bytes) -> Any:
    """Return the JSON value of a body, None when it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def reason_given(body: bytes, status: int) -> str:
    """Return why a server refused: the ``error`` of its JSON, else the beginning of what it sent."""
    document = parsed(body)
    said = document.get("error") if isinstance(document, Mapping) else None
    if isinstance(said, str) and said:
        return said[:MAX_ERROR_CHARS]
    text = body[:MAX_ERROR_CHARS].decode(errors="replace").strip()
    return text or f"status {status} without a reason"


def in_words(error: BaseException, silence_seconds: float | None = None) -> str:
    """Return why a call got no answer, in words.

    Parameters
    ----------
    error: one of CONNECTION_ERRORS.
    silence_seconds: how long was waited, if that is known.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        # The error's own text differs from one event loop to the other.
        number = error.os_error.errno
        reason = os.strerror(number) if number and number > 0 else error.os_error.strerror or str(error.os_error)
        return f"cannot connect: {reason}"
    if isinstance(error, TimeoutError):
        limit = f" for {silence_seconds:g} s" if silence_seconds is not None else " in time"
        return f"no answer or no progress{limit}"
    return f"the connection broke: {str(error) or type(error).__name__}"
