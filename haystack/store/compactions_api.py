"""``POST``, ``GET`` and ``DELETE`` of ``/admin/volumes/<id>/compact``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from haystack.errors import InvalidRequest, VolumeNotFound
from haystack.store.admin_requests import body_of, volume_of, whole
from haystack.store.compactions import Compactions, Confirmed
from haystack.store.documents import Document
from haystack.store.replication.memberships import Memberships
from haystack.store.volumes import StoreVolumes
from haystack.volume.layout import MAX_VOLUME_BYTES
from haystack.volume.live import MAX_SNAPSHOTS, CompactionOrder

MAX_MS = 2**63 - 1
MAX_RATE = 2**50


class CompactionsApi:
    """The calls."""

    def __init__(self, volumes: StoreVolumes, compactions: Compactions, trash_ms: int) -> None:
        self._volumes = volumes
        self._trash_ms = trash_ms
        self._compactions = compactions

    def add_routes(self, app: web.Application) -> None:
        """Add them to the admin API."""
        path = "/admin/volumes/{volume}/compact"
        app.router.add_post(path, self._start)
        app.router.add_get(path, self._show)
        app.router.add_delete(path, self._cancel)

    async def _start(self, request: web.Request) -> web.Response:
        volume, document = volume_of(request), await body_of(request)
        given = document.get("bytesPerSecond")
        rate = None if given is None else whole(document, "bytesPerSecond", MAX_RATE)
        order, hold = parse_order(document, self._trash_ms), document.get("hold") is True
        job = self._compactions.start(volume, order, rate, hold=hold)
        return web.json_response(job.document(), status=202)

    async def _show(self, request: web.Request) -> web.Response:
        volume = volume_of(request)
        job = self._compactions.job(self._volumes.get(volume).id)
        if job is None:
            raise VolumeNotFound(f"volume {volume} was not compacted since this Store was started")
        job.asked_seconds = time.monotonic()
        return web.json_response(job.document())

    async def _cancel(self, request: web.Request) -> web.Response:
        volume = volume_of(request)
        job = await self._compactions.cancel(self._volumes.get(volume).id)
        if job is None:
            raise VolumeNotFound(f"volume {volume} was not compacted since this Store was started")
        return web.json_response(job.document())


def parse_order(document: Document, trash_ms: int) -> CompactionOrder:
    """Read what is to be kept. Raises InvalidRequest, naming the field.

    Parameters
    ----------
    trash_ms: when the order says nothing of it; copies of a volume must be told the same, one alone need not be.
    """
    snapshots = document.get("snapshots", [])
    if not isinstance(snapshots, list) or len(snapshots) > MAX_SNAPSHOTS:
        raise InvalidRequest(f"snapshots must be a list of at most {MAX_SNAPSHOTS} offsets")
    ends = [whole({"snapshots": end}, "snapshots", MAX_VOLUME_BYTES) for end in snapshots]
    return CompactionOrder(
        now_ms=whole(document, "nowMs", MAX_MS),
        trash_ms=trash_ms if document.get("trashMs") is None else whole(document, "trashMs", MAX_MS),
        snapshots=tuple(sorted(set(ends))),
        cut=None if document.get("cut") is None else whole(document, "cut", MAX_VOLUME_BYTES),
    )


@asynccontextmanager
async def compactions_service(
    volumes: StoreVolumes,
    memberships: Memberships,
    confirmed: Confirmed | None,
    *,
    trash_ms: int,
    bytes_per_second: int,
) -> AsyncIterator[CompactionsApi]:
    """Compactions for the length of a block, inside the event loop; those under way are given up at its end.

    Parameters
    ----------
    trash_ms: how long what is deleted is kept when an order says nothing of it.
    bytes_per_second: the same for the rate; 0 for no limit.
    """
    compactions = Compactions(volumes, memberships.store_id, confirmed, bytes_per_second=bytes_per_second)
    memberships.swap = compactions.swap
    try:
        yield CompactionsApi(volumes, compactions, trash_ms)
    finally:
        await compactions.close()
