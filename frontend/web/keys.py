"""What the application keeps, and what a request gets on its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from frontend.services.site import Site

SITE = web.AppKey("site", Site)
ERROR_PAGE: web.AppKey[Callable[[web.Request, int, str], Awaitable[web.StreamResponse]]] = web.AppKey("error_page")
"""Makes the page that tells a person of an error: request, status, what is wrong. Set by the pages."""
