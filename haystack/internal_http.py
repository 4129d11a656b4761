"""What the aiohttp services (Directory, admin API of a Store) share: errors as JSON, signed calls."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from haystack.addresses import join
from haystack.errors import ConfigError, HaystackError
from haystack.security import AUTH_HEADER, Verifier

_log = logging.getLogger(__name__)

ADMIN_SHUTDOWN_SECONDS = 1.0


@asynccontextmanager
async def serving_admin(application: web.Application, host: str, port: int, table: str) -> AsyncIterator[int]:
    """Serve a node's admin API until the end of the block; gives the port.

    Parameters
    ----------
    table: of the settings that host and port are from, for messages.

    Raises ConfigError when the address cannot be used.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=ADMIN_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"{table}.admin_port: cannot listen on {join(host, port)}: {error.strerror}; choose another port"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with its status and ``{"error": "…"}``; what nobody expected is logged and says little."""
    try:
        return await handler(request)
    except HaystackError as error:
        return error_response(error.http_status, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = error_response(error.status, f"{request.method} {request.path}: {error.reason}")
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "internal error; the log of this process has the details")


def error_response(status: int, message: str) -> web.Response:
    """An error as JSON."""
    return web.json_response({"error": message}, status=status)


def signed_calls(verifier: Verifier | None, *, is_internal: Callable[[str], bool]) -> Middleware:
    """A middleware that lets internal calls through only when they are signed.

    It reads the whole body, which the application bounds by its ``client_max_size``.

    Parameters
    ----------
    verifier: None leaves all calls unsigned (no secret is configured).
    is_internal: says of a path whether its calls are internal.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if verifier is not None and is_internal(request.path):
            header = request.headers.get(AUTH_HEADER)
            # Who does not even claim to have the secret gets no memory for a body.
            body = await request.read() if header else b""
            verifier.verify(header, request.method, request.raw_path, body)
        return await handler(request)

    return check
