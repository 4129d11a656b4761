"""Connections of the aiohttp services: their number and the time of their first request have a limit.

What aiohttp answers by itself, to requests that no handler has seen, is JSON as everything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from haystack.internal_http import error_response

_REFUSAL_BODY = b'{"error":"too many connections; try again in a moment"}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What clients may have of connections.

    Parameters
    ----------
    connections: that are open at the same time.
    first_request_seconds: for the first request's headers to come.
    keepalive_seconds: between requests.
    lingering_seconds: for a body that is not wanted to end, so that the client hears why.
    """

    connections: int
    first_request_seconds: float
    keepalive_seconds: float
    lingering_seconds: float = 2.0


def protocol_factory(
    manager: web.Server, loop: asyncio.AbstractEventLoop, limits: ConnectionLimits, access_log: logging.Logger
) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of each new connection."""

    def make() -> asyncio.Protocol:
        if len(manager.connections) >= limits.connections:
            return _Refusal()
        # Bodies stay as they came: signatures cover them so, and a small compressed one cannot become a large one.
        made = Connection(
            manager,
            loop=loop,
            keepalive_timeout=limits.keepalive_seconds,
            lingering_time=limits.lingering_seconds,
            access_log=access_log,
            auto_decompress=False,
        )
        made.first_request_seconds = limits.first_request_seconds
        return made

    return make


class Connection(web.RequestHandler):
    """aiohttp's connection. It has a time limit between requests, but none before the first."""

    __slots__ = ("first_request", "first_request_seconds")

    first_request: asyncio.TimerHandle | None
    first_request_seconds: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the client some time to say what it wants."""
        super().connection_made(transport)
        self.first_request = asyncio.get_running_loop().call_later(self.first_request_seconds, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the client."""
        self.request_came()
        super().connection_lost(exc)

    def request_came(self) -> None:
        """Stop waiting for the first request."""
        if self.first_request is not None:
            self.first_request.cancel()
            self.first_request = None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what no handler has seen."""
        self.request_came()
        if status == 500:
            _log.error("request from %s failed", request.remote, exc_info=exc)
            message = "internal error; the log of this process has the details"
        else:
            # One line: anybody can send rubbish, and should not fill the log with it.
            _log.info("bad request from %s: %s", request.remote, str(message).splitlines()[:1])
        response = error_response(status, message or "bad request")
        response.force_close()
        return response


@web.middleware
async def note_first_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that its client has said something."""
    if isinstance(request.protocol, Connection):
        request.protocol.request_came()
    return await handler(request)


class _Refusal(asyncio.Protocol):
    """Says that there are too many connections, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before anything is asked; waiting for it would keep the connection open."""
        if isinstance(transport, asyncio.Transport):
            transport.write(_REFUSAL)
        transport.close()
