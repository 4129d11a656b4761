"""``/cluster/nodes`` and ``/cluster/repair``: what the operator looks at and decides. What changes it is signed."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from directory.cluster import nodes_status
from directory.cluster.nodes import MarkOrder, Nodes
from directory.fields import Fields
from directory.repair import status as repair_status
from directory.repair.healer import Healer
from directory.service import Service
from directory.settings import MAX_PUBLIC_BODY_BYTES, MAX_VOLUMES_PER_STORE
from directory.signed import SignedCalls
from directory.web import json_response
from haystack.errors import InvalidRequest


class ClusterHandlers:
    """Handlers for the operator's tools."""

    def __init__(self, service: Service, healer: Healer, nodes: Nodes, signed: SignedCalls) -> None:
        self._service = service
        self._healer = healer
        self._nodes = nodes
        self._signed = signed

    async def nodes(self, request: web.Request) -> web.Response:
        """All Stores, their marks, and how far a drain is."""
        return json_response(request, nodes_status.nodes_document(self._service, self._healer))

    async def mark(self, request: web.Request) -> web.Response:
        """Mark a Store or one of its disks; with ``dryRun`` only say what that comes to."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "mark")
        order = MarkOrder(
            mark=fields.text("mark"),
            folder=fields.text("folder") if fields.has("folder") else None,
            accept_loss=fields.flag("acceptLoss"),
        )
        store = self._nodes.find(request.match_info["store"])
        dry_run = fields.flag("dryRun")
        plan = self._nodes.plan(store, order) if dry_run else await self._nodes.apply(store, order)
        return json_response(
            request,
            {
                "storeId": store.document.store_id,
                "url": store.document.url,
                "mark": order.mark,
                "folder": order.folder,
                "applied": not dry_run,
                "steps": list(plan.steps),
                "stale": {str(volume): member for volume, member in plan.stale.items()},
                "lost": list(plan.lost),
            },
        )

    async def repair(self, request: web.Request) -> web.Response:
        """What lacks copies, what is done about it, and what waits."""
        return json_response(request, repair_status.repair_document(self._service, self._healer))

    async def repair_now(self, request: web.Request) -> web.Response:
        """Wait no longer for lost copies to come back; with ``dryRun`` only say what would be done."""
        fields = Fields(await self._signed.document(request, MAX_INTERNAL_BYTES), "repair")
        volumes = self._wanted(fields)
        if fields.flag("dryRun"):
            plan = self._healer.preview({*self._healer.urgent, *volumes})
            document = repair_status.repair_document(self._service, self._healer, plan)
            return json_response(request, {**document, "applied": False})
        self._healer.hurry(volumes)
        return json_response(request, {**repair_status.repair_document(self._service, self._healer), "applied": True})

    def _wanted(self, fields: Fields) -> set[int]:
        if not fields.has("volumes"):
            return set(self._service.cluster.index.untidy)
        volumes: list[Any] = fields.items("volumes", MAX_VOLUMES_PER_STORE)
        for volume in volumes:
            if type(volume) is not int or volume not in self._service.cluster.records:
                raise InvalidRequest(f"volume {str(volume)[:40]} is not known")
        return set(volumes)


MAX_INTERNAL_BYTES = 1024 * 1024
"""A list of volumes."""
