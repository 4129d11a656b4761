"""Compaction of volumes: what it would win, and having their Stores do it.

A Store is given one volume at a time, with the ends that snapshots hold of it; when its generation has changed, the
snapshots are told where those ends lie now. Volumes with a membership take all their copies along
(:mod:`directory.compaction.joint`), one such volume at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from directory.cluster.cluster import Cluster
from directory.cluster.store_client import StoreClient
from directory.compaction.joint import JointCompaction, obstacle_to_joint
from directory.messages import StoreDocument, VolumeDocument
from directory.service import Service
from directory.snapshots.snapshots import Move, Snapshots
from haystack.errors import HaystackError, InvalidRequest, VolumeNotFound, VolumeUnavailable
from haystack.lifetime import end_tasks

EXPECTED_BYTES_PER_SECOND = 200 * 2**20
"""What a compaction is taken to do, for the time in a plan."""

POLL_SECONDS = 0.2
SNAPSHOT_POLLS = 150
"""How often to look whether a snapshot that is being taken is there; one that is not by then begins anew."""

SILENCE_SECONDS = 60.0
"""How long a Store may be away before it is no longer waited for; its compaction may go on."""

MAX_KEPT = 1000
"""Compactions that are over and still told of."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """What compacting one volume comes to.

    Parameters
    ----------
    gain_bytes: deleted, superseded and expired, at most what is won: what is in the trash stays.
    needed_bytes: room that it takes beside the volume. free_bytes: of its data folder.
    obstacle: why it is not done; or nothing.
    copies: that are compacted; each takes, and wins, as much.
    """

    volume: int
    store: StoreDocument | None
    generation: int
    size_bytes: int
    gain_bytes: int
    needed_bytes: int
    free_bytes: int
    obstacle: str = ""
    copies: int = 1

    @property
    def seconds(self) -> float:
        """How long it is expected to take; copies are prepared one after the other."""
        return self.copies * (self.size_bytes + self.needed_bytes) / EXPECTED_BYTES_PER_SECOND / 2

    def document(self) -> dict[str, Any]:
        """As the calls answer."""
        return {
            "volume": self.volume,
            "store": self.store.url if self.store is not None else None,
            "sizeBytes": self.size_bytes,
            "gainBytes": self.gain_bytes,
            "neededBytes": self.needed_bytes,
            "freeBytes": self.free_bytes,
            "copies": self.copies,
            "seconds": round(self.seconds, 1),
            "obstacle": self.obstacle,
        }


def plan_compactions(
    cluster: Cluster, now_seconds: float, volumes: Collection[int] | None, least_share: float
) -> list[Planned]:
    """Plan; most gain first.

    Parameters
    ----------
    volumes: of which; None: of all that have something to win.
    least_share: leave out volumes of which less than this share is garbage.

    Raises VolumeNotFound.
    """
    for volume in volumes or ():
        if volume not in cluster.records:
            raise VolumeNotFound(f"volume {volume} is not known; `haystack volume list` shows all")
    planned = [_plan(cluster, now_seconds, volume) for volume in (cluster.records if volumes is None else volumes)]
    if volumes is None:
        planned = [one for one in planned if one.gain_bytes > 0 and one.gain_bytes >= least_share * one.size_bytes]
    return sorted(planned, key=lambda one: (-one.gain_bytes, one.volume))


def _plan(cluster: Cluster, now_seconds: float, volume: int) -> Planned:
    record = cluster.records[volume]
    state = cluster.stores.get(record.primary)
    known = state.volumes.get(volume) if state is not None else None
    if state is None or known is None or not cluster.alive(record.primary, now_seconds):
        return Planned(volume, None, 0, 0, 0, 0, 0, "its Store is not there")
    folder = state.folders.get(known.folder)
    free_bytes = folder.free_bytes if folder is not None else 0
    obstacle = "a copy of it is being moved" if volume in cluster.moving else ""
    if record.replicated:
        obstacle = obstacle or obstacle_to_joint(cluster, record, now_seconds)
    obstacle = obstacle or _obstacle(known, free_bytes)
    return Planned(
        volume,
        state.document,
        known.generation,
        known.size_bytes,
        min(known.size_bytes, known.deleted_bytes + cluster.expired_bytes.get(volume, 0)),
        known.live_bytes,
        free_bytes,
        obstacle,
        len(record.in_sync),
    )


def _obstacle(known: VolumeDocument, free_bytes: int) -> str:
    if known.state not in ("writable", "readonly"):
        return f"it is {known.state}"
    if known.live_bytes > free_bytes:
        return "there is no room for it on its disk"
    return ""


class Compactor:
    """Has volumes compacted."""

    def __init__(self, service: Service, client: StoreClient, snapshots: Snapshots, joint: JointCompaction) -> None:
        self._joint = joint
        self._joint_turn = asyncio.Lock()
        self._service = service
        self._client = client
        self._snapshots = snapshots
        self._turns: dict[str, asyncio.Lock] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._told: dict[int, dict[str, Any]] = {}
        self.counts = Counter[str]()
        """Volumes by how compacting them ended (``done``, ``failed``), and ``wonBytes`` of one copy each."""

    def plan(self, volumes: Collection[int] | None, least_share: float = 0.0) -> list[Planned]:
        """See :func:`plan_compactions`. Raises VolumeNotFound, InvalidRequest."""
        if not 0 <= least_share <= 1:
            raise InvalidRequest(f"garbageThreshold must be between 0 and 1, not {least_share}")
        return plan_compactions(self._service.cluster, self._service.clock(), volumes, least_share)

    def start(self, planned: Collection[Planned], *, now: bool) -> None:
        """Begin to compact those without an obstacle that are not being compacted.

        Parameters
        ----------
        now: what is in the trash goes too.
        """
        for one in planned:
            # A move may have begun since it was planned.
            if one.obstacle or one.volume in self._tasks or one.volume in self._service.cluster.moving:
                continue
            self._told.pop(one.volume, None)  # the newest at the end
            self._told[one.volume] = {"volume": one.volume, "state": "waiting", "error": ""}
            task = asyncio.get_running_loop().create_task(self._run(one, now))
            self._tasks[one.volume] = task
            task.add_done_callback(partial(self._ended, one.volume))
        for volume in [volume for volume in self._told if volume not in self._tasks][:-MAX_KEPT]:
            del self._told[volume]

    def _ended(self, volume: int, task: asyncio.Task[None]) -> None:
        del self._tasks[volume]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("compacting volume %d failed", volume, exc_info=error)
            self._told[volume] |= {"state": "failed", "error": f"unexpected {type(error).__name__}: {error}"}

    @property
    def under_way(self) -> int:
        """How many volumes are being compacted, or wait for their turn."""
        return len(self._tasks)

    def is_at(self, volume: int) -> bool:
        """Say whether a volume is being compacted, or waits for its turn."""
        return volume in self._tasks

    def has_failed(self, volume: int) -> bool:
        """Say whether the last compaction of a volume since this Directory's start has failed."""
        return bool(self._told.get(volume, {}).get("state") == "failed")

    def documents(self) -> list[dict[str, Any]]:
        """Those under way, and those that were since this Directory's start."""
        return list(self._told.values())

    async def close(self) -> None:
        """Wait for nothing more; the Stores go on."""
        await end_tasks(self._tasks.values())

    async def _run(self, one: Planned, now: bool) -> None:
        assert one.store is not None
        try:
            if self._service.cluster.records[one.volume].replicated:
                async with self._joint_turn:
                    await self._await_snapshot(one.volume)
                    await self._joint.run(one.volume, now=now, tell=partial(self._tell, one.volume))
            else:
                async with self._turns.setdefault(one.store.store_id, asyncio.Lock()):
                    await self._compact(one, one.store, now)
        except HaystackError as error:
            log.warning("volume %d is not compacted: %s", one.volume, error)
            self._told[one.volume] |= {"state": "failed", "error": str(error)}
        told = self._told[one.volume]
        self.counts[told["state"]] += 1
        if told["state"] == "done":
            await self._service.forget_expired(one.volume)
            self.counts["wonBytes"] += max(0, told["oldBytes"] - told["newBytes"])

    async def _compact(self, one: Planned, store: StoreDocument, now: bool) -> None:
        await self._await_snapshot(one.volume)
        held = self._snapshots.held(one.volume, one.generation)
        order = {
            "nowMs": int(self._service.wall_clock() * 1000),
            "trashMs": 0 if now else None,
            "snapshots": held,
        }
        job = await self._client.compact(store, one.volume, order)
        job = await self._until_over(one, store, job)
        if job["state"] == "done":
            await self._snapshots.moved(one.volume, Move.of(job))
            log.info("volume %d was compacted from %d to %d bytes", one.volume, job["oldBytes"], job["newBytes"])
        self._told[one.volume] = job

    async def _await_snapshot(self, volume: int) -> None:
        await self._snapshots.follow(volume)
        for _ in range(SNAPSHOT_POLLS):
            if not self._snapshots.taking:
                break
            await asyncio.sleep(POLL_SECONDS)

    def _tell(self, volume: int, job: dict[str, Any]) -> None:
        self._told[volume] = job

    async def _until_over(self, one: Planned, store: StoreDocument, job: dict[str, Any]) -> dict[str, Any]:
        heard_seconds = self._service.clock()
        while job["state"] in ("waiting", "running"):
            self._told[one.volume] = job
            await asyncio.sleep(POLL_SECONDS)
            try:
                job = await self._client.compaction(store, one.volume)
                heard_seconds = self._service.clock()
            except VolumeUnavailable:
                if self._service.clock() - heard_seconds > SILENCE_SECONDS:
                    raise
        return job
