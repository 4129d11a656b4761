"""Health and metrics of a front end."""

from __future__ import annotations

from collections import Counter

from aiohttp import web
from sqlalchemy import Connection, text

from frontend.services.site import Site
from haystack.errors import HaystackError
from haystack.metrics_page import CONTENT_TYPE, MetricsPage

_BUCKETS = 26
"""Powers of two of microseconds: up to 34 s, and all that takes longer."""


class FrontendMetrics:
    """What was asked and how long it took, and what the services count."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._requests: Counter[tuple[str, int]] = Counter()
        self._times: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()

    def took(self, call: str, status: int, seconds: float) -> None:
        """Count a request. ``call``: one of the API's, or ``other``."""
        self._requests[call, status] += 1
        microseconds = int(seconds * 1e6)
        buckets = self._times.setdefault(call, [0] * (_BUCKETS + 1))
        buckets[min(max(0, microseconds - 1).bit_length(), _BUCKETS)] += 1
        self._sums[call] += microseconds

    def page(self) -> bytes:
        """All of it for Prometheus."""
        page = MetricsPage("haystack_frontend_")
        page.counter(
            "requests",
            "Requests by call and status.",
            [(f'call="{call}",status="{status}"', count) for (call, status), count in sorted(self._requests.items())],
        )
        page.histogram(
            "request_seconds",
            "Time to answer.",
            [(call, buckets, self._sums[call]) for call, buckets in sorted(self._times.items())],
            "call",
        )
        keeping = self.site.housekeeping
        page.counter("removals", "Photos whose needles were removed.", [("", keeping.removed)])
        page.counter("chores_failed", "Attempts at work in the store that have to be repeated.", [("", keeping.failed)])
        page.counter("views", "Views that the Stores and Caches told of.", [("", keeping.views)])
        return page.bytes()


def add_metrics(app: web.Application, metrics: FrontendMetrics) -> None:
    """Put ``/healthz``, ``/readyz`` and ``/metrics`` into an application."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        try:
            await metrics.site.database.read(_ask)
        except HaystackError as error:
            return web.json_response({"ready": False, "error": str(error)}, status=503)
        return web.json_response({"ready": True})

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show)


def _ask(connection: Connection) -> None:
    connection.execute(text("SELECT 1 FROM users LIMIT 1"))
