"""``/internal/…``: what Stores say to the Directory. Signed when the cluster has a secret.

All of it is safe to repeat.
"""

from __future__ import annotations

from aiohttp import web

from directory.assigning.grower import Grower
from directory.handlers.caches import word_wanted
from directory.membership.memberships import Memberships
from directory.messages import parse_confirmation, parse_heartbeat, parse_registration, parse_suspicion
from directory.metrics import Metrics
from directory.service import Service
from directory.signed import SignedCalls
from directory.web import json_response


class InternalHandlers:
    """Handlers of the Stores' messages.

    Parameters
    ----------
    signed: checks signatures.
    heartbeat_seconds: how often Stores are told to report.
    """

    def __init__(
        self,
        memberships: Memberships,
        service: Service,
        grower: Grower,
        metrics: Metrics,
        signed: SignedCalls,
        heartbeat_seconds: float,
    ) -> None:
        self._memberships = memberships
        self._service = service
        self._grower = grower
        self._metrics = metrics
        self._document = signed.document
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
        return json_response(request, {"known": known, **word_wanted(self._service)})

    async def confirm(self, request: web.Request) -> web.Response:
        """Learn of stored and deleted needles. Answered when it is durable."""
        confirmed = await self._service.confirm(parse_confirmation(await self._document(request)))
        if confirmed.effect is not None:
            effect = confirmed.effect
            outcomes = {"stored": effect.stored, "deleted": effect.deleted, "unlisted": effect.unlisted}
            for outcome, count in outcomes.items():
                self._metrics.needles.labels(outcome).inc(count)
        return json_response(request, {"confirmedTo": confirmed.confirmed_to})

    async def suspect(self, request: web.Request) -> web.Response:
        """Hear which copies a primary cannot reach, and say which membership is in force."""
        volume = int(request.match_info["volume"])
        message = parse_suspicion(await self._document(request), volume)
        return json_response(request, await self._memberships.suspect(message))
