"""Moves of copies, and marks of volumes, for the operator's tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from directory.cluster.nodes import Nodes
from directory.decisions.move_orders import MoveKind, MoveOrder
from directory.fields import Fields
from directory.membership.memberships import Memberships
from directory.moves.intake import size_of
from directory.moves.mover import Mover
from directory.moves.status import address_of, move_document, moves_document, order_in_words, stage
from directory.repair.healer import Healer
from directory.service import Service
from directory.settings import MAX_PUBLIC_BODY_BYTES
from directory.signed import SignedCalls
from directory.web import json_response
from haystack.errors import VolumeNotFound

VOLUME_MARKS = ("writable", "readonly")


class MoveHandlers:
    """Handlers for ``/cluster/moves`` and for what is ordered of one volume."""

    def __init__(
        self,
        service: Service,
        healer: Healer,
        mover: Mover,
        nodes: Nodes,
        memberships: Memberships,
        signed: SignedCalls,
    ) -> None:
        self._service = service
        self._healer = healer
        self._mover = mover
        self._nodes = nodes
        self._memberships = memberships
        self._signed = signed

    async def list(self, request: web.Request) -> web.Response:
        """Moves under way, and those that ended lately."""
        return json_response(request, moves_document(self._service, self._healer, self._mover))

    async def order(self, request: web.Request) -> web.Response:
        """Order a move, a copy more, or a copy less; with ``dryRun`` only say what that comes to."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "order")
        kind = MoveKind(request.match_info["kind"])
        source = self._store(fields, "source") if kind is not MoveKind.COPY else ""
        target = self._store(fields, "target") if kind is not MoveKind.DROP else ""
        if kind is MoveKind.DROP and not source:
            raise fields.wrong("source", "the Store whose copy is to go", None)
        order = self._mover.resolve(MoveOrder(kind, _volume(request), source, target, reason="ordered by the operator"))
        dry_run = fields.flag("dryRun")
        steps = order_in_words(self._service, self._healer, order)
        size_bytes = size_of(self._service, self._service.cluster.records[order.volume])
        move = None
        if not dry_run:
            (record,) = await self._mover.queue([order], "operator")
            move = self._document(record.number)
        return json_response(
            request,
            {
                "volume": order.volume,
                "kind": kind.value,
                "source": order.source or None,
                "target": order.target or None,
                "sourceUrl": address_of(self._service, order.source) or None,
                "targetUrl": address_of(self._service, order.target) or None,
                "bytes": 0 if kind is MoveKind.DROP else size_bytes,
                "applied": not dry_run,
                "steps": steps,
                "move": move,
            },
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Have a move undone; with ``dryRun`` only say whether it can be."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "cancel")
        number = int(request.match_info["number"])
        record = self._mover.find(number)
        self._mover.may_cancel(record)
        dry_run = fields.flag("dryRun")
        now = stage(self._service, self._healer, record)
        steps = [f"move {number} of volume {record.volume} ({now}) is ended"]
        if record.target and now != "waiting":
            steps.append(f"what was copied to {address_of(self._service, record.target)} is removed")
        if not dry_run:
            await self._mover.cancel(number)
        return json_response(
            request,
            {
                "id": number,
                "volume": record.volume,
                "applied": not dry_run,
                "steps": steps,
                "move": self._document(number),
            },
        )

    async def mark(self, request: web.Request) -> web.Response:
        """Mark a volume as one that gets no photos, or take the mark back."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "mark")
        mark, dry_run = fields.one_of("mark", VOLUME_MARKS), fields.flag("dryRun")
        volume = _volume(request)
        known = self._service.cluster.records.get(volume)
        if known is None:
            raise VolumeNotFound(f"volume {volume} is not known; `haystack volume list` shows all")
        wanted = "" if mark == "writable" else mark
        if not dry_run and known.mark != wanted:
            await self._memberships.change([volume], lambda record: replace(record, mark=wanted))
            self._service.cluster_changed()
        return json_response(
            request,
            {
                "volume": volume,
                "mark": mark,
                "applied": not dry_run,
                "steps": _mark_in_words(volume, wanted, already=known.mark == wanted),
            },
        )

    def _store(self, fields: Fields, name: str) -> str:
        return self._nodes.find(fields.text(name)).document.store_id if fields.has(name) else ""

    def _document(self, number: int) -> dict[str, Any]:
        mover = self._mover
        return move_document(self._service, self._healer, mover, mover.find(number), mover.waits())


def _volume(request: web.Request) -> int:
    return int(request.match_info["volume"])


def _mark_in_words(volume: int, mark: str, *, already: bool) -> list[str]:
    if already:
        return [f"volume {volume} is {mark or 'writable'} already"]
    if mark:
        return [f"volume {volume} gets no more photos, beyond those that have their names already; deletes go on"]
    return [f"volume {volume} gets photos again, as far as it has room and all its copies"]
