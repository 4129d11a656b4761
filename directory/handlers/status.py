"""Status, health and metrics."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory import page, status
from directory.compaction.automatic import AutoCompaction
from directory.metrics import CONTENT_TYPE, Metrics
from directory.repair.healer import Healer
from directory.service import Service
from directory.web import json_response
from haystack.addresses import is_wildcard


class StatusHandlers:
    """Handlers that tell how the Directory and its cluster are.

    Parameters
    ----------
    host: the address that the Directory listens on.
    """

    def __init__(
        self, service: Service, healer: Healer, compacting: AutoCompaction, metrics: Metrics, host: str
    ) -> None:
        self._compacting = compacting
        self._service = service
        self._healer = healer
        self._metrics = metrics
        self._host = host

    async def index(self, request: web.Request) -> web.Response:
        """The page for people."""
        headers = {"Content-Security-Policy": page.CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
        text = page.render(self._service, self._healer, self._address(request))
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def directory(self, request: web.Request) -> web.Response:
        """Everything, as JSON."""
        return json_response(request, self._with_compaction(status.directory_status(self._service, self._healer)))

    async def cluster(self, request: web.Request) -> web.Response:
        """Who leads, and how the cluster is."""
        document = status.cluster_status(self._service, self._healer, self._address(request))
        return json_response(request, self._with_compaction(document))

    async def healthz(self, request: web.Request) -> web.Response:
        """Alive: this answer proves it."""
        return json_response(request, {"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready: the storage reads, and takes changes."""
        failure = self._service.storage.failure
        if failure:
            return json_response(request, {"ready": False, "error": failure}, 503)
        return json_response(request, {"ready": True, **status.counts(self._service)})

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    def _with_compaction(self, document: dict[str, Any]) -> dict[str, Any]:
        return document | {"Compaction": self._compacting.status}

    def _address(self, request: web.Request) -> str:
        socket_name = request.transport.get_extra_info("sockname") if request.transport else None
        if is_wildcard(self._host) or not socket_name:
            return request.host
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{socket_name[1]}"
