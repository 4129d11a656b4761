"""The web application of a front end: API, pages, what the intakes tell, health."""

from __future__ import annotations

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from frontend.api.handling import CALL_NAME, add_api, api_errors
from frontend.internal import add_internal
from frontend.metrics import FrontendMetrics, add_metrics
from frontend.pages import add_pages
from frontend.services.site import Site
from frontend.web.keys import ERROR_PAGE, SITE
from haystack.errors import HaystackError
from haystack.internal_http import json_errors

__all__ = ["ERROR_PAGE", "SITE", "make_app"]

MAX_BODY_BYTES = 1024 * 1024
"""Of JSON and of forms without files; uploads are bounded where they are taken in."""

_log = logging.getLogger(__name__)


def make_app(site: Site) -> web.Application:
    """The application around the services."""
    metrics = FrontendMetrics(site)
    app = web.Application(middlewares=[_counting(metrics), _errors], client_max_size=MAX_BODY_BYTES)
    app[SITE] = site
    app.on_response_prepare.append(_headers)
    add_internal(app)
    add_metrics(app, metrics)
    add_api(app)
    add_pages(app)
    return app


async def _headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "haystack"  # and not the versions of what it is made with
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("X-Frame-Options", "DENY")


def _counting(metrics: FrontendMetrics) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            metrics.took(request.get(CALL_NAME, "other"), status, time.perf_counter() - started)

    return count


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the form that the one who asks expects: a problem, JSON among machines, or a page."""
    if request.path.startswith("/api/"):
        return await api_errors(request, handler)
    if request.path.startswith("/internal/"):
        return await json_errors(request, handler)
    try:
        return await handler(request)
    except HaystackError as error:
        if error.http_status >= 500:
            _log.warning("%s %s: %s", request.method, request.path, error)
        return await _page(request, error.http_status, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return await _page(request, error.status, error.reason)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        return await _page(request, 500, "This did not work. The log of the front end has the details.")


async def _page(request: web.Request, status: int, message: str) -> web.StreamResponse:
    make = request.app.get(ERROR_PAGE)
    return web.Response(status=status, text=f"{message}\n") if make is None else await make(request, status, message)
