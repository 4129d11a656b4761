"""Compaction of all copies of a volume to byte-identical files of the next generation.

1. *pin*: a membership that names the generation of the files, so that from now on no file of another one takes part;
2. *prepare*: every copy is given the same order, the primary first, one after the other. Each writes the next
   generation up to the same cut, carries over what comes in, and waits. All must agree on the hash up to the cut;
3. *commit*: the volume's record gets the next epoch **with the next generation**. This transaction is the one commit
   point of the set. Before it everything is given up by forgetting it;
4. *swap*: that membership is pushed, to the primary first. Each copy carries over the rest, renames, and takes the
   membership, under its append lock. What was acknowledged before is in every copy, of either generation; and nothing
   is acknowledged under the new epoch without every copy in sync having come to it. So a copy that cannot (it was
   killed, and has nothing prepared any more) may be left out of the in-sync set and copied anew; and when none can, the
   record gets the old generation back under one more epoch (``Memberships.sweep``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from directory.cluster.cluster import Cluster
from directory.cluster.store_client import StoreClient
from directory.cluster.store_state import StoreState
from directory.membership.memberships import Memberships
from directory.messages import VolumeTail
from directory.service import Service
from directory.snapshots.snapshots import Move, Snapshots
from directory.storage.tables import VolumeRecord
from haystack.errors import CompactionFailed, HaystackError, VolumeUnavailable

POLL_SECONDS = 0.1
SETTLE_SECONDS = 20.0
"""How long what a primary has appended may take to be on all copies: only that is compacted."""

TOLD_SECONDS = 30.0
"""How long the Stores have to take a membership."""

GIVE_UP_SECONDS = 5.0
"""How long giving up may take; this Directory may be about to stop."""

AGREED = ("generation", "cut", "newCut", "prefixHash", "ends")
"""What copies must say alike of what they have prepared."""

Job = dict[str, Any]

log = logging.getLogger(__name__)


def obstacle_to_joint(cluster: Cluster, record: VolumeRecord, now_seconds: float, *, prepared: bool = False) -> str:
    """Return why the copies of a volume cannot be compacted together now; or nothing.

    Parameters
    ----------
    prepared: they have written what they need room for.
    """
    if record.volume in cluster.moving:
        return "a copy of it is being moved"
    if record.degraded_since_ms or record.stale or len(record.in_sync) < record.promised:
        return "not all its copies are in sync; they are repaired first"
    silent = [member for member in record.in_sync if not cluster.alive(member, now_seconds)]
    if silent:
        return f"Store {silent[0]} is silent"
    for member in record.in_sync:
        store = cluster.stores[member]
        known = store.volumes.get(record.volume)
        if known is None or known.state not in ("writable", "readonly"):
            return f"its copy on {store.document.url} is {known.state if known else 'not there'}"
        folder = store.folders.get(known.folder)
        if not prepared and (folder is None or folder.free_bytes < known.live_bytes):
            return f"there is no room for it on the disk of {store.document.url}"
    return ""


class JointCompaction:
    """Compacts the copies of one volume after the other.

    Parameters
    ----------
    busy: says whether repair is at work on a volume.
    """

    def __init__(
        self,
        service: Service,
        client: StoreClient,
        memberships: Memberships,
        snapshots: Snapshots,
        busy: Callable[[int], bool],
    ) -> None:
        self._service = service
        self._client = client
        self._memberships = memberships
        self._snapshots = snapshots
        self._busy = busy

    async def run(self, volume: int, *, now: bool, tell: Callable[[Job], None]) -> None:
        """Compact a volume.

        Parameters
        ----------
        now: what is in the trash goes too.
        tell: is given how far it is, as one Store would say it.

        Raises CompactionFailed, VolumeUnavailable: the copies are of the old generation, or go back to it.
        """
        self._service.cluster.compacting.add(volume)
        try:
            await self._run(volume, now=now, tell=tell)
        finally:
            self._service.cluster.compacting.discard(volume)

    async def _run(self, volume: int, *, now: bool, tell: Callable[[Job], None]) -> None:
        record = await self._pinned(volume)
        stores = self._stores(record)
        try:
            jobs = await self._prepare(record, stores, now=now, tell=tell)
            await self._snapshots.intend(volume, Move.of(jobs[0]))
            committed = await self._commit(record, jobs[0])
        except BaseException:
            await self._give_up(volume, stores)
            raise
        # From here on nothing is given up: the Stores have it, or the sweep finds that they cannot.
        job = await self._swapped(committed, stores[0], jobs[0])
        await self._snapshots.moved(volume, Move.of(jobs[0]))
        tell(job)
        log.info("volume %d: %d copies were compacted to generation %s", volume, len(stores), committed.generation)

    # -- the steps

    async def _pinned(self, volume: int) -> VolumeRecord:
        """Return the record, which names the generation of all copies, when all its Stores know it."""
        record = self._require_fit(volume)
        tails = [await self._client.tail(store.document, volume) for store in self._stores(record)]
        generations = {tail.generation for tail in tails}
        if len(generations) != 1 or record.generation not in (None, *generations):
            raise CompactionFailed(f"volume {volume}: its copies are of the generations {sorted(generations)}")
        if record.generation is None:
            record = await self._change(record, replace(record, epoch=record.epoch + 1, generation=generations.pop()))
        await self._until_told(record)
        return record

    async def _prepare(
        self, record: VolumeRecord, stores: Sequence[StoreState], *, now: bool, tell: Callable[[Job], None]
    ) -> list[Job]:
        """Have every copy prepare the next generation; returns what they say of it, which is the same."""
        volume, generation = record.volume, record.generation or 0
        for store in stores:
            await self._client.cancel_compaction(store.document, volume)
        tail = await self._settled_tail(stores[0], volume)
        order: dict[str, Any] = {
            "nowMs": int(self._service.wall_clock() * 1000),
            "trashMs": 0 if now else None,
            "snapshots": [end for end in self._snapshots.held(volume, generation) if end <= tail.committed],
            "cut": tail.committed,
            "hold": True,
        }
        jobs: list[Job] = []
        for index, store in enumerate(stores):
            begun = await self._client.compact(store.document, volume, order)
            order["trashMs"] = begun.get("trashMs")  # of the primary, for all
            jobs = await self._until_ready(record, stores[: index + 1], tell)
        told = [{name: job.get(name) for name in AGREED} for job in jobs]
        if any(one != told[0] or one["generation"] != generation + 1 for one in told):
            raise CompactionFailed(f"volume {volume}: its copies came to different bytes; scrub them: {told}")
        return jobs

    async def _settled_tail(self, primary: StoreState, volume: int) -> VolumeTail:
        """Wait until all copies have what the primary has now; right after a change of membership they may not."""
        deadline = self._service.clock() + SETTLE_SECONDS
        first = tail = await self._client.tail(primary.document, volume)
        while tail.committed < first.tail:
            if self._service.clock() > deadline:
                raise CompactionFailed(
                    f"volume {volume}: bytes {tail.committed} to {first.tail} are not on all copies; try again later"
                )
            await asyncio.sleep(POLL_SECONDS)
            tail = await self._client.tail(primary.document, volume)
        return tail

    async def _commit(self, record: VolumeRecord, job: Job) -> VolumeRecord:
        """Let the next generation be the volume's. The one commit point."""
        self._require_fit(record.volume, prepared=True)
        generation = int(job["generation"])
        return await self._change(record, replace(record, epoch=record.epoch + 1, generation=generation))

    async def _swapped(self, record: VolumeRecord, primary: StoreState, prepared: Job) -> Job:
        """Wait until everybody who counts has come to it; returns how it went at the primary."""
        told = await self._until_told(record)
        if told.generation != record.generation:
            raise CompactionFailed(f"volume {record.volume}: no copy came to its next generation; try again")
        try:
            job = await self._client.compaction(primary.document, record.volume)
        except VolumeUnavailable:
            job = prepared
        if job["state"] != "done":  # it was restarted meanwhile, or another one leads
            return prepared | {"state": "done", "oldBytes": prepared["cut"], "newBytes": prepared["newCut"]}
        return job

    # -- inside

    def _require_fit(self, volume: int, *, prepared: bool = False) -> VolumeRecord:
        """Return the record if the volume can be compacted now. Raises CompactionFailed."""
        cluster = self._service.cluster
        record = cluster.records[volume]
        obstacle = obstacle_to_joint(cluster, record, self._service.clock(), prepared=prepared)
        if obstacle or self._busy(volume):
            raise CompactionFailed(f"volume {volume}: {obstacle or 'it is being repaired'}; try again later")
        return record

    def _stores(self, record: VolumeRecord) -> list[StoreState]:
        """The Stores that count, the primary first."""
        members = sorted(record.in_sync, key=lambda member: member != record.primary)
        return [self._service.cluster.stores[member] for member in members]

    async def _change(self, known: VolumeRecord, wanted: VolumeRecord) -> VolumeRecord:
        """Grant a membership, unless another one was granted meanwhile. Raises CompactionFailed."""

        def decide(record: VolumeRecord) -> VolumeRecord:
            if (record.epoch, record.in_sync, record.generation) != (known.epoch, known.in_sync, known.generation):
                return record
            return replace(record, epoch=wanted.epoch, generation=wanted.generation)

        if not await self._memberships.change([known.volume], decide):
            raise CompactionFailed(f"volume {known.volume}: its membership has changed meanwhile; try again")
        return self._service.cluster.records[known.volume]

    async def _until_told(self, record: VolumeRecord) -> VolumeRecord:
        """Wait until all who count under the membership in force know it; returns that. Raises CompactionFailed."""
        deadline = self._service.clock() + TOLD_SECONDS
        while True:
            now = self._service.cluster.records[record.volume]
            if all(store.knows(now) for store in self._stores(now)):
                return now
            if self._service.clock() > deadline:
                raise CompactionFailed(f"volume {record.volume}: not all Stores have taken its membership in time")
            await asyncio.sleep(POLL_SECONDS)

    async def _until_ready(
        self, record: VolumeRecord, stores: Sequence[StoreState], tell: Callable[[Job], None]
    ) -> list[Job]:
        """Wait until the last one is prepared; asking the others keeps what they have."""
        while True:
            jobs = [await self._client.compaction(store.document, record.volume) for store in stores]
            for store, job in zip(stores, jobs, strict=True):
                if job["state"] not in ("waiting", "running", "ready"):
                    raise CompactionFailed(f"Store {store.document.url}: {job['error'] or 'it is not prepared'}")
            tell(jobs[-1] | {"state": "running"})
            if all(job["state"] == "ready" for job in jobs):
                return jobs
            if self._service.cluster.records[record.volume].epoch != record.epoch:
                raise CompactionFailed(f"volume {record.volume}: its membership has changed meanwhile; try again")
            await asyncio.sleep(POLL_SECONDS)

    async def _give_up(self, volume: int, stores: Sequence[StoreState]) -> None:
        """Have what was prepared forgotten; a Store that cannot be asked forgets it by itself."""

        async def give_up(store: StoreState) -> None:
            with suppress(HaystackError):
                await self._client.cancel_compaction(store.document, volume)

        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await asyncio.gather(*(give_up(store) for store in stores))
