"""The intake's HTTP: its routes, what browsers of other hosts may do, and its pages for operators."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from frontend.images.pool import ImagePool
from frontend.intake.desk import OUTCOMES, Desk
from frontend.intake.outbox import Outbox
from frontend.intake.publishing import Publisher
from frontend.intake.store import StoreWriter
from frontend.intake.tus import PHOTO_HEADER, TusHandler
from frontend.intake.upload import UploadHandler
from haystack.connections import note_first_request
from haystack.internal_http import error_response, json_errors
from haystack.metrics_page import CONTENT_TYPE, MetricsPage

RETRY_SECONDS = 2
_TOLD = (
    "Location",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Expires",
    "Retry-After",
    PHOTO_HEADER,
)
_TAKEN = (
    "Authorization",
    "Content-Type",
    "Tus-Resumable",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "Upload-Checksum",
    "X-HTTP-Method-Override",
    "X-Requested-With",
)
# Any page may call: what lets somebody upload is the ticket, which no browser sends by itself.
_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": ", ".join(_TOLD)}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, HEAD, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": ", ".join(_TAKEN),
    "Access-Control-Max-Age": "7200",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What an intake consists of."""

    desk: Desk
    outbox: Outbox
    pool: ImagePool
    publisher: Publisher
    store: StoreWriter


def make_app(parts: Parts, max_bytes: int) -> web.Application:
    """The application of an intake.

    Parameters
    ----------
    max_bytes: of one upload, told to clients; the ticket says what each may have.
    """
    app = web.Application(middlewares=[note_first_request, _retry_after, json_errors])
    upload = UploadHandler(parts.desk)
    app.router.add_post("/upload", upload.post, expect_handler=upload.expected)
    app.router.add_options("/upload", _options)
    TusHandler(parts.desk, max_bytes).add_to(app)
    pages = _Pages(parts)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/metrics", pages.metrics)
    app.on_response_prepare.append(_allow_browsers)
    return app


async def _options(request: web.Request) -> web.Response:
    return web.Response(status=204)


async def _allow_browsers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_CORS)
    response.headers["Server"] = "haystack"  # and not the versions of what it is made with
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.method == "OPTIONS":
        response.headers.update(_PREFLIGHT)


@web.middleware
async def _retry_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say when to come again; end connections whose bodies are not worth waiting for."""
    response = await handler(request)
    if response.status in (423, 503):
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    if response.status in (408, 413):
        response.force_close()
    return response


class _Pages:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def healthz(self, request: web.Request) -> web.Response:
        """This process answers."""
        return web.json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """Uploads would succeed: the disk takes notes, and the Store answers."""
        await self._parts.desk.taker.on_disk(self._parts.outbox.check)
        if not await self._parts.store.ready():
            return error_response(503, "the Store beside this intake is not ready")
        return web.json_response({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.Response:
        """What has happened, for Prometheus."""
        parts, counts = self._parts, self._parts.desk.counts
        unpublished = await parts.desk.taker.on_disk(parts.outbox.unpublished)
        page = MetricsPage("haystack_intake_")
        outcomes = [(f'outcome="{name}"', counts.outcomes[name]) for name in OUTCOMES]
        page.counter("uploads", "Complete uploads, by what became of them.", outcomes)
        page.counter("received_bytes", "Bytes of uploads that came.", [("", counts.received_bytes)])
        page.counter("work_seconds", "Time from the last byte to the answer.", [("", counts.work_seconds)])
        page.counter("published", "Photos the front end was told of.", [("", parts.publisher.published)])
        page.counter("publish_failures", "Attempts in vain to tell it.", [("", parts.publisher.failures)])
        page.gauge("unpublished", "Photos that are stored and not published yet.", [("", unpublished)])
        page.gauge("images_busy", "Pictures that are worked on or wait.", [("", parts.pool.busy)])
        page.gauge("uploads_under_way", "Uploads that have begun.", [("", parts.desk.uploads.count)])
        page.gauge("uploads_announced_bytes", "Their size.", [("", parts.desk.uploads.announced_bytes)])
        return web.Response(body=page.bytes(), headers={"Content-Type": CONTENT_TYPE})
