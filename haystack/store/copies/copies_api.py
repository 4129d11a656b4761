"""``POST /admin/volumes/<id>/follow`` and ``DELETE /admin/volumes/<id>``."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from haystack.errors import InvalidRequest, VolumeExists, VolumeNotFound
from haystack.store.admin_requests import body_of, uuid, volume_of, whole
from haystack.store.copies.jobs import FollowJobs
from haystack.store.copies.progress import Order
from haystack.store.copies.removal import remove_unfinished, remove_volume
from haystack.store.documents import Document
from haystack.store.replication.membership import MAX_EPOCH, parse_member
from haystack.store.replication.memberships import Memberships, NewerEpoch
from haystack.store.replication.rules import may_delete
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

MAX_RATE = 2**50


class CopiesApi:
    """Both calls."""

    def __init__(self, volumes: StoreVolumes, memberships: Memberships, jobs: FollowJobs) -> None:
        self._volumes = volumes
        self._memberships = memberships
        self._jobs = jobs

    def add_routes(self, app: web.Application) -> None:
        """Add them to the admin API."""
        app.router.add_post("/admin/volumes/{volume}/follow", self._follow)
        app.router.add_delete("/admin/volumes/{volume}", self._delete)

    async def _follow(self, request: web.Request) -> web.Response:
        order = parse_order(volume_of(request), await body_of(request))
        try:
            job = await self._jobs.follow(order)
        except NewerEpoch as error:
            return web.json_response({"error": str(error), "epoch": error.epoch}, status=409)
        return web.json_response(job.document(), status=202)

    async def _delete(self, request: web.Request) -> web.Response:
        volume, document = volume_of(request), await body_of(request)
        wanted, epoch = uuid(document.get("uuid")), whole(document, "epoch", MAX_EPOCH)
        await self._require_given_up(volume, wanted, epoch)
        await self._jobs.end(volume)
        entry = await self._require_given_up(volume, wanted, epoch)
        if entry is None:
            for folder in self._volumes.folders:
                if not folder.failed:
                    await folder.run(remove_unfinished, folder.path, volume)
            raise VolumeNotFound(f"volume {volume} is not on this Store")
        await remove_volume(self._volumes, entry)
        await self._memberships.forget(entry.folder, volume)
        return web.json_response({"volume": volume})

    async def _require_given_up(self, volume: int, wanted: UUID, epoch: int) -> StoreVolume | None:
        """The volume, if it may be deleted; None when it is not here. Raises VolumeExists, NewerEpoch."""
        try:
            entry = self._volumes.get(volume)
        except VolumeNotFound:
            return None
        if entry.superblock is not None and UUID(bytes=entry.superblock.uuid) != wanted:
            raise VolumeExists(f"volume {volume} is another one here; nothing was deleted")
        if not may_delete(entry.membership, self._memberships.store_id, epoch, entry.epoch):
            raise NewerEpoch(volume, entry.membership.epoch if entry.membership is not None else entry.epoch)
        return entry


def parse_order(volume: int, document: Document) -> Order:
    """Read what is to be followed. Raises InvalidRequest, naming the field."""
    replication = document.get("replication", "000")
    if not (isinstance(replication, str) and len(replication) == 3 and replication.isascii() and replication.isdigit()):
        raise InvalidRequest(f"replication must be three digits such as 001, not {replication!r:.40}")
    folder = document.get("folder")
    if folder is not None and not isinstance(folder, str):
        raise InvalidRequest("folder must be the id of a data folder, or null")
    rate = document.get("bytesPerSecond")
    return Order(
        volume,
        uuid(document.get("uuid")),
        whole(document, "epoch", MAX_EPOCH),
        int(replication),
        None if document.get("maxBytes") is None else whole(document, "maxBytes", 2**63 - 1),
        folder or None,
        parse_member(document.get("source"), "source"),
        None if not rate else whole(document, "bytesPerSecond", MAX_RATE),
        None if document.get("generation") is None else whole(document, "generation", MAX_EPOCH),
    )
