"""``/cluster/heat`` and the read weights of a volume's copies."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.cluster.nodes import Nodes
from directory.fields import Fields
from directory.heat.status import heat_document
from directory.service import Service
from directory.settings import MAX_PUBLIC_BODY_BYTES
from directory.signed import SignedCalls
from directory.web import json_response, number
from haystack.errors import InvalidRequest, VolumeNotFound

DEFAULT_LIMIT = 20
MAX_LIMIT = 1_000


class HeatHandlers:
    """Handlers for heat and weights.

    Parameters
    ----------
    signed: checks signatures of what changes something.
    """

    def __init__(self, service: Service, nodes: Nodes, signed: SignedCalls) -> None:
        self._service = service
        self._nodes = nodes
        self._signed = signed

    async def heat(self, request: web.Request) -> web.Response:
        """The hottest volumes and photos, and all machines."""
        limit = number(request.query, "limit", default=DEFAULT_LIMIT, most=MAX_LIMIT)
        return json_response(request, heat_document(self._service, limit))

    async def hits(self, request: web.Request) -> web.Response:
        """Hand over the reads by photo since the last call, about: each is told once."""
        await self._signed.body(request, MAX_PUBLIC_BODY_BYTES)
        hits = self._service.heat.take_hits()
        return json_response(request, {"hits": [[f"{photo_id:x}", count] for photo_id, count in hits.items()]})

    async def weigh(self, request: web.Request) -> web.Response:
        """Set the read weights of a volume's copies, by Store's id or address; null: all are equal."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "weights")
        volume = int(request.match_info["volume"])
        given = self._weights(fields, "weights")
        expected = self._weights(fields, "expected") if fields.has("expected") else None
        record = self._service.cluster.records.get(volume)
        if record is None:
            raise VolumeNotFound(f"volume {volume} is not known; see `haystack volume list`")
        dry_run = fields.flag("dryRun")
        before = dict(record.weights)
        after = await self._service.set_weights(volume, given, expected=expected, dry_run=dry_run)
        return json_response(
            request, {"volume": volume, "applied": not dry_run, "before": before, "weights": after.weights}
        )

    def _weights(self, fields: Fields, name: str) -> dict[str, float]:
        value: Any = fields.value(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(type(weight) in (int, float) for weight in value.values()):
            raise InvalidRequest(f"field {name!r} must be an object of numbers by Store, got {str(value)[:100]!r}")
        return {self._nodes.find(store).document.store_id: float(weight) for store, weight in value.items()}
