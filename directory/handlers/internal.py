"""``/internal/…``: what Stores say to the Directory. Signed when the cluster has a secret.

All of it is safe to repeat.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.grower import Grower
from directory.messages import parse_confirmation, parse_heartbeat, parse_json, parse_registration
from directory.metrics import Metrics
from directory.service import Service
from directory.settings import MAX_INTERNAL_BODY_BYTES
from directory.web import json_response, read_body
from haystack.errors import AuthenticationError
from haystack.security import AUTH_HEADER, Verifier


class InternalHandlers:
    """Handlers of the Stores' messages.

    Parameters
    ----------
    verifier: checks signatures; None takes unsigned calls.
    heartbeat_seconds: how often Stores are told to report.
    """

    def __init__(
        self, service: Service, grower: Grower, metrics: Metrics, verifier: Verifier | None, heartbeat_seconds: float
    ) -> None:
        self._service = service
        self._grower = grower
        self._metrics = metrics
        self._verifier = verifier
        self._heartbeat_seconds = heartbeat_seconds

    async def register(self, request: web.Request) -> web.Response:
        """Take a Store in."""
        await self._service.register(parse_registration(await self._document(request)))
        if self._service.cluster.settled(self._service.clock()):
            self._grower.start_top_up()
        return json_response(
            request, {"clusterId": self._service.cluster_id, "heartbeatSeconds": self._heartbeat_seconds}
        )

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Hear that a Store is alive, and what changed there."""
        known = await self._service.heartbeat(parse_heartbeat(await self._document(request)))
        return json_response(request, {"known": known})

    async def confirm(self, request: web.Request) -> web.Response:
        """Learn of stored and deleted needles. Answered when it is durable."""
        confirmed = await self._service.confirm(parse_confirmation(await self._document(request)))
        if confirmed.effect is not None:
            effect = confirmed.effect
            outcomes = {"stored": effect.stored, "deleted": effect.deleted, "unlisted": effect.unlisted}
            for outcome, count in outcomes.items():
                self._metrics.needles.labels(outcome).inc(count)
        return json_response(request, {"confirmedTo": confirmed.confirmed_to})

    async def _document(self, request: web.Request) -> Any:
        header = request.headers.get(AUTH_HEADER)
        if self._verifier is not None and header is None:
            # Before the body is read: who does not even claim to be a Store gets no memory for it.
            raise AuthenticationError(f"this call must be signed: header {AUTH_HEADER} is missing")
        body = await read_body(request, MAX_INTERNAL_BODY_BYTES)
        if self._verifier is not None:
            self._verifier.verify(header, request.method, request.raw_path, body)
        return parse_json(body, request.path)
