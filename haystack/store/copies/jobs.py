"""Copies that follow another one, as jobs of the supervisor: started by the Directory, asked about, ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp

from haystack.errors import HaystackError, VolumeExists, VolumeNotFound, VolumeUnavailable
from haystack.lifetime import end_tasks
from haystack.store.copies.bandwidth import Bandwidth
from haystack.store.copies.follow import bring_up
from haystack.store.copies.fresh import make_copy, put_in_place
from haystack.store.copies.peer import Peer
from haystack.store.copies.progress import FollowFailed, Order, Progress
from haystack.store.copies.removal import remove_index_files
from haystack.store.out_of_service import withdrawn
from haystack.store.replication.membership import following, promised_copies
from haystack.store.replication.memberships import Memberships, NewerEpoch
from haystack.store.replication.rules import may_follow
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

_log = logging.getLogger(__name__)

MAX_JOBS = 8
"""Copies that are made at the same time."""


@dataclass(slots=True)
class Job:
    """One copy that follows.

    Parameters
    ----------
    order: as last given; the epoch and the rate may change while it runs.
    error: why it failed.
    """

    order: Order
    progress: Progress = field(default_factory=Progress)
    state: str = "running"
    error: str = ""
    task: asyncio.Task[None] | None = None

    def document(self) -> dict[str, Any]:
        """As the call answers."""
        return {
            "state": self.state,
            "copiedBytes": self.progress.copied_bytes,
            "totalBytes": self.progress.total_bytes,
            "error": self.error,
        }


class FollowJobs:
    """All such jobs of a Store.

    Parameters
    ----------
    secret: of the cluster, None for unsigned calls.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        memberships: Memberships,
        session: aiohttp.ClientSession,
        secret: bytes | None,
        *,
        bandwidth: Callable[[int | None], Bandwidth] = Bandwidth,
    ) -> None:
        self._volumes = volumes
        self._memberships = memberships
        self._session = session
        self._secret = secret
        self._bandwidth = bandwidth
        self._jobs: dict[int, Job] = {}

    async def follow(self, order: Order) -> Job:
        """Start a job, or tell of the one that runs. The end of a job is told once, the next call starts anew.

        Raises NewerEpoch (the copy counts here), VolumeExists, VolumeUnavailable (too many jobs).
        """
        job = self._jobs.get(order.volume)
        if job is not None and (job.order.uuid, job.order.source) == (order.uuid, order.source):
            job.order = order if order.epoch >= job.order.epoch else job.order
            job.progress.bandwidth.limit(job.order.bytes_per_second)
            if job.state != "running":
                del self._jobs[order.volume]
            return job
        self._require_allowed(order)
        if job is not None:
            await self.end(order.volume)
        if sum(one.state == "running" for one in self._jobs.values()) >= MAX_JOBS:
            raise VolumeUnavailable(f"{MAX_JOBS} copies are being made here; try again when one is done")
        job = self._jobs[order.volume] = Job(order)
        job.progress.bandwidth = self._bandwidth(order.bytes_per_second)
        job.task = asyncio.create_task(self._run(job))
        return job

    async def end(self, volume: int) -> None:
        """End the job of a volume, if there is one. What was copied stays."""
        job = self._jobs.pop(volume, None)
        if job is not None and job.task is not None:
            await end_tasks((job.task,))

    async def close(self) -> None:
        """End all of them."""
        for volume in list(self._jobs):
            await self.end(volume)

    def _require_allowed(self, order: Order) -> None:
        entry = self._find(order.volume)
        if entry is None:
            return
        if entry.superblock is None or UUID(bytes=entry.superblock.uuid) != order.uuid:
            raise VolumeExists(f"volume {order.volume} is here already, and it is another one")
        known = entry.membership
        own_epoch = known.epoch if known is not None else entry.epoch
        # Without a membership the copy may be the only one: only a newer epoch says that it is not.
        is_newer = known is not None or order.epoch > own_epoch
        if not is_newer or not may_follow(known, self._memberships.store_id, order.epoch):
            raise NewerEpoch(order.volume, own_epoch)

    def _find(self, volume: int) -> StoreVolume | None:
        try:
            return self._volumes.get(volume)
        except VolumeNotFound:
            return None

    async def _run(self, job: Job) -> None:
        try:
            await self._follow(job)
            job.state = "done"
            _log.info("volume %d has followed %s", job.order.volume, job.order.source.admin_url)
        except HaystackError as error:
            job.state, job.error = "failed", str(error)
            _log.warning("volume %d does not follow: %s", job.order.volume, error)
        except Exception as error:
            job.state, job.error = "failed", f"unexpected {type(error).__name__}: {error}"
            _log.exception("volume %d does not follow", job.order.volume)

    async def _follow(self, job: Job) -> None:
        order = job.order
        peer = Peer(self._session, order.source, order.volume, self._secret)
        await _require_same(order, peer)
        entry = self._find(order.volume)
        if entry is None:
            entry = await self._make(job, peer)
        await self._note(entry, job.order)
        self._memberships.unfollow(entry)
        if await _is_of_another_generation(entry, peer):
            entry = await self._make_anew(job, peer, entry)
        # What is compacted meanwhile has other offsets: it is refused from here on, and followed anew.
        generation = entry.require_open().superblock.generation
        peer = Peer(self._session, order.source, order.volume, self._secret, generation)
        await bring_up(self._volumes, entry, peer, job.progress)
        # The Directory may have granted a newer epoch meanwhile; what was compared is still the primary's.
        await self._note(entry, job.order)
        known = entry.membership
        if known is None or known.primary != order.source.store_id:
            raise FollowFailed(f"volume {order.volume}: {peer} is not its primary any more; follow the one that is")
        self._memberships.followed(entry, known.epoch)

    async def _note(self, entry: StoreVolume, order: Order) -> None:
        """Note durably that the copy does not count under the epoch of the order."""
        known = entry.membership
        if known is None or known.epoch < order.epoch:
            await self._memberships.follow(entry.folder, entry.id, entry, _membership(order))
        elif known.counts(self._memberships.store_id):
            raise NewerEpoch(entry.id, known.epoch)

    async def _make_anew(self, job: Job, peer: Peer, entry: StoreVolume) -> StoreVolume:
        """Copy the whole source, then put that in the place of a copy of another generation."""
        order, folder = job.order, entry.folder
        _log.info("volume %d: %s was compacted; it is copied anew", order.volume, peer)
        path = await make_copy(folder, order, peer, job.progress)
        async with withdrawn(self._volumes, entry, "it is replaced by a copy of another generation"):
            await folder.run(remove_index_files, entry.path)
            self._volumes.forget(entry)
        return await self._volumes.adopt(
            order.volume, folder, lambda: put_in_place(path, order.volume), order.max_bytes, order.epoch
        )

    async def _make(self, job: Job, peer: Peer) -> StoreVolume:
        order = job.order
        folder = self._volumes.folder_for(order.folder)
        path = await make_copy(folder, order, peer, job.progress)
        # Before it can be taken for a volume: alone it would take uploads.
        await self._memberships.follow(folder, order.volume, None, _membership(job.order))
        return await self._volumes.adopt(
            order.volume, folder, lambda: put_in_place(path, order.volume), order.max_bytes, order.epoch
        )


def _membership(order: Order) -> Any:
    return following(str(order.uuid), order.epoch, order.source, promised_copies(order.replication), order.generation)


async def _is_of_another_generation(entry: StoreVolume, peer: Peer) -> bool:
    return (await peer.document()).get("generation") != entry.require_open().superblock.generation


async def _require_same(order: Order, peer: Peer) -> None:
    found = (await peer.document()).get("uuid")
    if found != str(order.uuid):
        raise FollowFailed(f"{peer} has another volume under the number {order.volume}: {found}")
