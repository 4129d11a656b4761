"""From a request to the handler of its call and back: limits, who asks, forged requests, checks, errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from frontend.api.calls import CALLS
from frontend.api.docs_page import add_docs
from frontend.api.problems import problem, problem_of
from frontend.api.reading import body_of, query_of
from frontend.api.spooling import MAX_SPOOLED, SLOTS
from frontend.api.table import PREFIX, Asking, Call, Reply, Who
from frontend.services.errors import NotLoggedIn, TooMany
from frontend.services.limits import ANY, SEARCH, Standing
from frontend.web.csrf import check_csrf
from frontend.web.keys import SITE
from frontend.web.who import Asked, address_of, asked_by
from haystack.errors import HaystackError

CALL_NAME = web.RequestKey("call", str)
STANDING = web.RequestKey("standing", Standing)
"""How the client's address stands with the limit of all requests."""

_UNSIGNED = ("signUp", "logIn", "makeToken")
"""Calls that nobody needs to be logged in for, but that another site must not make a browser do either."""

_log = logging.getLogger(__name__)


def add_api(app: web.Application) -> None:
    """Put all calls, the OpenAPI document and the page that shows it into an application."""
    app[SLOTS] = asyncio.Semaphore(MAX_SPOOLED)
    for call in CALLS:
        app.router.add_route(call.method, call.route, _handler(call))
        if call.method == "GET":
            app.router.add_route("HEAD", call.route, _handler(call))
    add_docs(app)


def _handler(call: Call) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        request[CALL_NAME] = call.name
        return await _answer(request, call)

    return handle


async def _answer(request: web.Request, call: Call) -> web.Response:
    site = request.app[SITE]
    address = address_of(request)
    # An address is counted before anybody is asked for: guessing tokens must not be free.
    request[STANDING] = site.limits.take(ANY, address)
    asked = await asked_by(request)
    if call.query.__name__ == "SearchQuery":
        site.limits.take(SEARCH, address if asked.user is None else f"#{asked.user.id}")
    if call.changes:
        await _check_origin(request, call, asked)
    if call.who is Who.USER and asked.user is None:
        raise NotLoggedIn("log in first: send the session's cookie, or Authorization: Bearer with an API token")
    query = query_of(request, call.query)
    body = None if call.body is None else await body_of(request, call.body)
    reply = await call.handle(Asking(request, site, asked.user, query, body, address))
    return _response(call, reply)


async def _check_origin(request: web.Request, call: Call, asked: Asked) -> None:
    said = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if asked.by_cookie or (said and call.name in _UNSIGNED):
        await check_csrf(request)


def _response(call: Call, reply: Reply) -> web.Response:
    response = web.Response(status=reply.status or call.status, headers=reply.headers)
    if reply.document is not None:
        response.body = reply.document.model_dump_json(by_alias=True).encode()
        response.content_type = "application/json"
    response.headers.setdefault("Cache-Control", "no-store")
    if reply.decorate is not None:
        reply.decorate(response)
    return response


def _tell_limits(response: web.StreamResponse, standing: Standing) -> None:
    rule = standing.rule
    response.headers["RateLimit-Policy"] = f'"{rule.name}";q={rule.count};w={rule.window_seconds}'
    response.headers["RateLimit"] = f'"{rule.name}";r={standing.remaining};t={standing.reset_seconds}'


async def api_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer a request below ``/api/``; what fails becomes a problem."""
    try:
        response = await handler(request)
    except HaystackError as error:
        response = problem_of(error, f"{request.method} {request.path}")
        if isinstance(error, TooMany) and STANDING not in request:
            _tell_limits(response, Standing(ANY, 0, error.retry_after_seconds))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = problem(error.status, _words(request, error))
        for name in ("Allow", "Retry-After"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
    except asyncio.CancelledError:
        raise
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        response = problem(500, "this did not work; the log of the front end has the details")
    if STANDING in request:
        _tell_limits(response, request[STANDING])
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response


def _words(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"there is nothing at {request.path[:200]}; see {PREFIX}/docs"
    if error.status == 405:
        return f"{request.method} does nothing here"
    if error.status == 413:
        return "the body is too large"
    return error.reason
