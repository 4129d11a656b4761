"""``POST /admin/volumes/<id>/scrub`` starts a walk, ``GET`` tells how far it is; ``…/index`` makes the index anew."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from haystack.errors import VolumeUnavailable
from haystack.store.admin_requests import volume_of
from haystack.store.documents import Document
from haystack.store.scrub.mending import rebuild_index
from haystack.store.scrub.scrubber import Scrubber
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes


class ScrubApi:
    """All three calls.

    Parameters
    ----------
    scrubbers: one for each data folder, in their order.
    """

    def __init__(self, volumes: StoreVolumes, scrubbers: Sequence[Scrubber]) -> None:
        self._volumes = volumes
        self._scrubbers = scrubbers

    def add_routes(self, app: web.Application) -> None:
        """Add them to the admin API."""
        app.router.add_get("/admin/volumes/{volume}/scrub", self._show)
        app.router.add_post("/admin/volumes/{volume}/scrub", self._start)
        app.router.add_post("/admin/volumes/{volume}/index", self._rebuild)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(await self._document(self._volumes.get(volume_of(request))))

    async def _start(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        entry.require_open()
        if entry.folder.failed:
            raise VolumeUnavailable(f"volume {entry.id}: its data folder has failed: {entry.folder.error}")
        self._scrubbers[entry.folder.number].start_now(entry)
        return web.json_response(await self._document(entry), status=202)

    async def _rebuild(self, request: web.Request) -> web.Response:
        """Answered when the volume is in service again."""
        entry = self._volumes.get(volume_of(request))
        await rebuild_index(self._volumes, entry, "an operator asked for it")
        volume = entry.require_open()
        return web.json_response({"volume": entry.id, "lines": volume.report.lines()})

    async def _document(self, entry: StoreVolume) -> Document:
        scrubber = self._scrubbers[entry.folder.number]
        record = await scrubber.record(entry)
        return {
            "volume": entry.id,
            "running": scrubber.is_running(entry),
            "positionBytes": record.position,
            "finishedMs": record.finished_ms,
            "mended": record.mended,
            "broken": record.broken,
            "diverged": record.diverged,
            "problem": record.problem(),
        }
