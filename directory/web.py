"""What all handlers share: parameters, bodies, JSON answers, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from directory.decisions.replication import parse_replication
from directory.metrics import Metrics
from directory.settings import BODY_TIMEOUT_SECONDS, MAX_PUBLIC_BODY_BYTES
from haystack.errors import HaystackError, InvalidRequest, TooLarge

MAX_NUMBER_DIGITS = 18
MAX_PARAMETERS = 100
RETRY_AFTER_SECONDS = 1

log = logging.getLogger(__name__)


def json_response(request: web.BaseRequest, document: Any, status: int = 200) -> web.Response:
    """Return a JSON answer without needless spaces, as SeaweedFS does; ``?pretty=y`` has it indented."""
    pretty = "pretty=" in request.query_string
    text = json.dumps(document, indent=2) if pretty else json.dumps(document, separators=(",", ":"))
    return web.Response(body=text.encode(), status=status, content_type="application/json")


def error_response(request: web.BaseRequest, status: int, message: str) -> web.Response:
    """Return the answer that says what went wrong."""
    response = json_response(request, {"error": message}, status)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """Return the body.

    Raises
    ------
    TooLarge: it is longer than ``limit_bytes``.
    InvalidRequest: it did not come within :data:`~directory.settings.BODY_TIMEOUT_SECONDS`.
    """
    if not request.can_read_body:
        return b""
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(f"the body has {request.content_length} bytes, at most {limit_bytes} are taken")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise TooLarge(f"the body is longer than {limit_bytes} bytes")
    except TimeoutError:
        raise InvalidRequest(f"the body did not come within {BODY_TIMEOUT_SECONDS:g} s") from None
    return bytes(body)


async def parameters(request: web.Request) -> Mapping[str, str]:
    """Return the parameters of the query and, for a POST, of a form in the body; the form's win, as in SeaweedFS."""
    if request.method != "POST":
        return request.query if request.query_string else {}
    body = await read_body(request, MAX_PUBLIC_BODY_BYTES)
    if not body or request.content_type != "application/x-www-form-urlencoded":
        return request.query
    try:
        form = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidRequest(f"the form in the body cannot be read: {error}") from None
    return {**request.query, **dict(form)}


def number(given: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    """Return a parameter that is a whole number. Not given, empty and 0 mean the default, as in SeaweedFS."""
    text = given.get(name, "")
    if not text:
        return default
    # Not int() alone, which takes signs, spaces, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_NUMBER_DIGITS):
        raise InvalidRequest(f"parameter {name}={text[:40]!r} is not a whole number")
    value = int(text) or default
    if value > most:
        raise InvalidRequest(f"parameter {name}={text} is too large; at most {most}")
    return value


def replication(given: Mapping[str, str]) -> str | None:
    """Return the parameter ``replication``, None when it is not given. Raises InvalidRequest for what is none."""
    text = given.get("replication", "")
    return str(parse_replication(text)) if text else None


def make_middleware(metrics: Metrics) -> Middleware:
    """Return the middleware that turns errors into JSON and counts all answers."""
    bound: dict[tuple[str, int], Any] = {}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        response = await _answer(request, handler)
        call = _call_name(request)
        children = bound.get((call, response.status))
        if children is None:
            children = metrics.requests.labels(call, str(response.status)), metrics.seconds.labels(call)
            bound[call, response.status] = children
        children[0].inc()
        children[1].observe(time.perf_counter() - began)
        return response

    return middleware


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HaystackError as error:
        if error.http_status >= 500 and error.http_status not in (501, 503):
            log.error("%s %s: %s", request.method, request.path, error)
        return error_response(request, error.http_status, str(error))
    except web.HTTPException as error:
        return _from_http_exception(request, error)
    except Exception:
        # The last resort: the client gets an answer, the log gets everything, the Directory lives on.
        log.exception("%s %s failed", request.method, request.path)
        return error_response(request, 500, "internal error; the Directory's log says more")


def _from_http_exception(request: web.Request, error: web.HTTPException) -> web.Response:
    message = error.reason
    if isinstance(error, web.HTTPNotFound):
        message = f"there is nothing at {request.path[:200]}"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        message = f"{request.method[:20]} is not possible here; possible: {', '.join(sorted(error.allowed_methods))}"
    response = error_response(request, error.status, message)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _call_name(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
