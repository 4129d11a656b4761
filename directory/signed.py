"""Calls that only members of the cluster may make: Stores, and the operator's tools."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.fields import parse_json
from directory.settings import MAX_INTERNAL_BODY_BYTES
from directory.web import read_body
from haystack.errors import AuthenticationError
from haystack.security import AUTH_HEADER, Verifier


class SignedCalls:
    """Checks signatures.

    Parameters
    ----------
    verifier: None takes unsigned calls.
    """

    def __init__(self, verifier: Verifier | None) -> None:
        self._verifier = verifier

    async def body(self, request: web.Request, most_bytes: int = MAX_INTERNAL_BODY_BYTES) -> bytes:
        """Return the body of a call that is signed. Raises AuthenticationError, TooLarge, InvalidRequest."""
        header = request.headers.get(AUTH_HEADER)
        if self._verifier is not None and header is None:
            # Before the body is read: who does not even claim to be one of us gets no memory for it.
            raise AuthenticationError(f"this call must be signed: header {AUTH_HEADER} is missing")
        body = await read_body(request, most_bytes)
        if self._verifier is not None:
            self._verifier.verify(header, request.method, request.raw_path, body)
        return body

    async def document(self, request: web.Request, most_bytes: int = MAX_INTERNAL_BODY_BYTES) -> Any:
        """Return the JSON of a call that is signed. Raises as :meth:`body`."""
        return parse_json(await self.body(request, most_bytes), request.path)
