"""``/cluster/snapshots``: snapshots are taken, listed and given up; ``/internal/snapshots/<name>``: their storage."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from directory.fields import Fields
from directory.handlers.backup import send_file
from directory.settings import MAX_PUBLIC_BODY_BYTES
from directory.signed import SignedCalls
from directory.snapshots.snapshots import MAX_HOLD_SECONDS, Snapshots
from directory.storage.tables import SnapshotRecord
from directory.web import json_response
from haystack.errors import DiskError


class SnapshotHandlers:
    """Handlers for the operator's tools."""

    def __init__(self, snapshots: Snapshots, signed: SignedCalls) -> None:
        self._snapshots = snapshots
        self._signed = signed

    async def list(self, request: web.Request) -> web.Response:
        """All that are held."""
        return json_response(request, {"snapshots": [_summary(one) for one in self._snapshots.all()]})

    async def show(self, request: web.Request) -> web.Response:
        """One, with what it holds of each volume."""
        return json_response(request, _details(self._snapshots.get(request.match_info["name"])))

    async def take(self, request: web.Request) -> web.Response:
        """Take one; ``holdSeconds``: when it is given up by itself, never by default."""
        fields = Fields(await self._signed.document(request, MAX_PUBLIC_BODY_BYTES), "snapshot")
        hold_seconds = fields.number("holdSeconds", MAX_HOLD_SECONDS) if fields.has("holdSeconds") else None
        return json_response(request, _details(await self._snapshots.take(fields.text("name"), hold_seconds)), 201)

    async def delete(self, request: web.Request) -> web.Response:
        """Give one up."""
        await self._signed.body(request)
        name = request.match_info["name"]
        await self._snapshots.delete(name)
        return json_response(request, {"name": name})

    async def storage(self, request: web.Request) -> web.StreamResponse:
        """The copy of the Directory's storage that belongs to one."""
        await self._signed.body(request)
        name = request.match_info["name"]
        record, path = self._snapshots.get(name), self._snapshots.path(name)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise DiskError(f"{path}: cannot be read: {error.strerror}; delete the snapshot") from error
        with file:
            return await send_file(request, file, record.size_bytes, record.checksum)


def _summary(record: SnapshotRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "createdMs": record.created_ms,
        "expiresMs": record.expires_ms,
        "directoryBytes": record.size_bytes,
        "volumes": len(record.volumes),
        "volumeBytes": sum(one.end for one in record.volumes.values()),
        "lost": sorted(volume for volume, one in record.volumes.items() if one.lost),
    }


def _details(record: SnapshotRecord) -> dict[str, Any]:
    held = [
        {"volume": volume, "uuid": one.uuid, "generation": one.generation, "end": one.end, "lost": one.lost}
        for volume, one in sorted(record.volumes.items())
    ]
    return {**_summary(record), "checksum": record.checksum, "held": held}
