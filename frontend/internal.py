"""What the intakes tell: photos that were stored."""

from __future__ import annotations

from aiohttp import web

from frontend.records import load
from frontend.web.keys import SITE
from haystack.errors import TooLarge
from haystack.security import AUTH_HEADER, Verifier

MAX_RECORD_BYTES = 256 * 1024
PATH = "/internal/photos"


def add_internal(app: web.Application) -> None:
    """Put the calls of the cluster's machines into the application."""
    verifier = Verifier(app[SITE].secret)

    async def publish(request: web.Request) -> web.Response:
        header = request.headers.get(AUTH_HEADER)
        if (request.content_length or 0) > MAX_RECORD_BYTES:
            raise TooLarge(f"a photo's record has at most {MAX_RECORD_BYTES:,} bytes")
        # Who does not even claim to have the secret gets no memory for a body.
        body = await request.read() if header else b""
        verifier.verify(header, request.method, request.raw_path, body)
        new = await request.app[SITE].photos.publish(load(body))
        return web.json_response({"new": new}, status=201 if new else 200)

    app.router.add_post(PATH, publish)
