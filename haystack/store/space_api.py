"""``GET /admin/volumes/<id>/space``: where the bytes of a volume go, trash and expired photos apart."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from haystack.errors import VolumeUnavailable
from haystack.store.admin_requests import volume_of
from haystack.store.volumes import StoreVolumes
from haystack.volume.space import space_of

MAX_WALKS = 2
"""Walks over indexes at the same time."""


class SpaceApi:
    """The call.

    Parameters
    ----------
    trash_ms: how long deleted photos can be brought back.
    clock_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        trash_ms: int,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._volumes = volumes
        self._trash_ms = trash_ms
        self._clock_ms = clock_ms
        self._walks = 0

    def add_routes(self, app: web.Application) -> None:
        """Add it to the admin API."""
        app.router.add_get("/admin/volumes/{volume}/space", self._show)

    async def _show(self, request: web.Request) -> web.Response:
        entry = self._volumes.get(volume_of(request))
        entry.require_open()
        if self._walks >= MAX_WALKS:
            raise VolumeUnavailable(f"{MAX_WALKS} indexes are walked already; try again when that is done")
        self._walks += 1
        try:
            space = await entry.run(space_of, self._clock_ms(), self._trash_ms, self._volumes.progress)
        finally:
            self._walks -= 1
        return web.json_response(
            {
                "volume": entry.id,
                "sizeBytes": space.size_bytes,
                "liveBytes": space.live_bytes,
                "expiredBytes": space.expired_bytes,
                "trashBytes": space.trash_bytes,
                "garbageBytes": space.garbage_bytes,
                "indexBytes": space.index_bytes,
            }
        )
