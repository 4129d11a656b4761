"""Makes new volumes: keeps enough writable ones, and grows on request. One growth at a time.

A volume id is reserved durably before any Store hears of it, so that a crash at any point never leads to two volumes
with one id; an id whose volume was not made is never used. A volume counts when its Store has made it. When the
Directory dies in between, the Store's next registration brings the volume along.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from uuid import uuid4

from directory.cluster.cluster import FolderName
from directory.cluster.store_client import StoreClient
from directory.decisions.choice import ANYWHERE, Where
from directory.decisions.failure import tidy
from directory.decisions.growth import plan_growth, volumes_wanted
from directory.decisions.replication import parse_replication
from directory.decisions.spaces import FolderSpace, Place
from directory.membership.pusher import membership_document
from directory.messages import VolumeDocument
from directory.service import Service
from directory.settings import GROW_RETRY_SECONDS
from directory.storage.tables import VolumeRecord
from haystack.errors import HaystackError, VolumeUnavailable
from haystack.lifetime import end_tasks

MAX_PARALLEL_CALLS = 8
TROUBLE_SECONDS = 30.0
"""How long a data folder is left alone after a volume could not be made in it."""

SILENCE_POLL_SECONDS = 0.1
"""How often it is looked whether a Store that makes a volume is still there."""

TELL_SECONDS = 2.0
"""Time that a growth waits for the Stores to know the membership of a new volume."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grown:
    """The volumes that were made, and why there are fewer than were wanted (empty when there are not)."""

    volumes: tuple[int, ...]
    reason: str


class Grower:
    """Makes volumes on the Stores.

    Parameters
    ----------
    target: writable volumes to keep, of each replication that is used.
    max_volume_bytes: size limit of new volumes, None for the Store's own.
    """

    def __init__(
        self, service: Service, client: StoreClient, *, target: int, max_volume_bytes: int | None = None
    ) -> None:
        self._service = service
        self._client = client
        self._target = target
        self._max_volume_bytes = max_volume_bytes
        self._one_at_a_time = asyncio.Lock()
        self._troubles: dict[FolderName, tuple[float, str]] = {}
        self._top_ups: dict[str, asyncio.Task[Grown]] = {}
        self._asked_for: set[str] = {service.default_replication}
        self._rest_until_seconds: dict[str, float] = {}
        self.last_reason = ""

    def start_top_up(self) -> None:
        """Begin to make what is missing, unless that is going on already or has just failed."""
        for replication in self._used():
            if self._service.clock() >= self._rest_until_seconds.get(replication, float("-inf")):
                self._start(replication)

    async def top_up(self, replication: str | None = None) -> Grown:
        """Make what is missing, or join the growth that is going on, and return what came of it."""
        replication = replication or self._service.default_replication
        self._asked_for.add(replication)
        return await asyncio.shield(self._start(replication))

    async def grow(self, count: int, where: Where = ANYWHERE, replication: str | None = None) -> Grown:
        """Make ``count`` more volumes, as many of them as there is room for."""
        if self._service.gathering:
            return Grown((), "the Directory has lost its storage and waits for the Stores; try again in a moment")
        async with self._one_at_a_time:
            return await self._make(count, where, replication or self._service.default_replication)

    async def close(self) -> None:
        """End what is going on. Volumes that their Stores have made by then come with their registration."""
        await end_tasks(self._top_ups.values())

    def _used(self) -> list[str]:
        known = self._service.cluster.index.replications
        return sorted(self._asked_for | {replication for replication, count in known.items() if count})

    def _start(self, replication: str) -> asyncio.Task[Grown]:
        task = self._top_ups.get(replication)
        if task is None or task.done():
            task = asyncio.get_running_loop().create_task(self._make_missing(replication))
            task.add_done_callback(_report)
            self._top_ups[replication] = task
        return task

    async def _make_missing(self, replication: str) -> Grown:
        async with self._one_at_a_time:
            wanted = 0 if self._service.gathering else self._wanted(replication)
            grown = await self._make(wanted, ANYWHERE, replication) if wanted else Grown((), "")
        if grown.reason:
            self._rest_until_seconds[replication] = self._service.clock() + GROW_RETRY_SECONDS
            known = self._service.cluster.index.replications[replication]
            if not known and replication != self._service.default_replication:
                # Somebody asked for what this cluster cannot do. It is tried again when somebody asks again.
                self._asked_for.discard(replication)
        return grown

    def _wanted(self, replication: str) -> int:
        promise = parse_replication(replication)
        spaces = self._folder_spaces(replication)
        if promise.copies == 1:
            return volumes_wanted(spaces, self._target, self._max_volume_bytes)
        return volumes_wanted(
            spaces,
            self._target,
            self._max_volume_bytes,
            replication=promise,
            writable=self._writable(replication),
            still_open=self._service.cluster.open_count(replication),
            spread=not self._service.cluster.mending(replication, self._service.clock()),
        )

    def _writable(self, replication: str) -> int:
        """Count the volumes that take photos, or will in a moment, but for those that are nearly full."""
        cluster = self._service.cluster
        candidates = cluster.candidates(self._service.clock(), replication)
        resting = sum(1 for volume in cluster.resting if cluster.records[volume].replication == replication)
        return sum(1 for candidate in candidates if not candidate.crowded) + resting

    async def _make(self, count: int, where: Where, replication: str) -> Grown:
        plan = plan_growth(
            self._folder_spaces(replication),
            count,
            target=self._target,
            where=where,
            max_volume_bytes=self._max_volume_bytes,
            replication=parse_replication(replication),
        )
        made: list[int] = []
        reasons = [plan.reason] if plan.reason else []
        if plan.volumes:
            ids = await self._service.reserve_volume_ids(len(plan.volumes))
            limit = asyncio.Semaphore(MAX_PARALLEL_CALLS)
            results = await asyncio.gather(
                *(
                    self._make_one(volume, new.places, replication, limit)
                    for volume, new in zip(ids, plan.volumes, strict=True)
                ),
                return_exceptions=True,
            )
            for volume, result in zip(ids, results, strict=True):
                if result is None:
                    made.append(volume)
                elif isinstance(result, HaystackError):
                    reasons.append(str(result))
                else:
                    raise result
        self._note(made, reasons)
        return Grown(tuple(made), "; ".join(dict.fromkeys(reasons)))

    async def _make_one(
        self, volume: int, places: tuple[Place, ...], replication: str, limit: asyncio.Semaphore
    ) -> None:
        """Have all copies made, then write the volume down.

        Copies that were made while another one could not be are kept as a volume that lacks a copy: it takes no photos
        until repair has made the missing one.
        """
        members = tuple(place.store_id for place in places)
        record = VolumeRecord(
            volume=volume,
            uuid=str(uuid4()),
            replication=replication,
            epoch=1,
            primary=members[0],
            in_sync=members,
            state="writable",
            created_ms=int(self._service.wall_clock() * 1000),
            max_bytes=self._max_volume_bytes,
            members=members,
        )
        async with limit:
            results = await asyncio.gather(*(self._make_copy(record, place) for place in places))
        documents = {p.store_id: r for p, r in zip(places, results, strict=True) if isinstance(r, VolumeDocument)}
        errors = [result for result in results if isinstance(result, VolumeUnavailable)]
        if documents:
            in_sync = tuple(member for member in members if member in documents)
            now_ms = int(self._service.wall_clock() * 1000)
            made = record
            if errors:
                # Those that have it were told of others that have not.
                made = tidy(replace(record, epoch=2, primary=in_sync[0], in_sync=in_sync, members=in_sync), now_ms)
            await self._service.volume_made(made, documents)
            if not errors:
                await self._until_told(volume)
        if errors:
            raise errors[0]

    async def _make_copy(self, record: VolumeRecord, place: Place) -> VolumeDocument | VolumeUnavailable:
        """Return the copy, or why there is none; a Store that falls silent meanwhile is not waited for."""
        store = self._service.cluster.stores[place.store_id].document
        membership = membership_document(self._service, record) if record.replicated else None
        call = asyncio.ensure_future(self._client.make_volume(store, place.folder, record, membership))
        try:
            while not (await asyncio.wait([call], timeout=SILENCE_POLL_SECONDS))[0]:
                if not self._service.cluster.alive(place.store_id, self._service.clock()):
                    raise VolumeUnavailable(f"Store {store.url} has fallen silent while it made volume {record.volume}")
            return call.result()
        except VolumeUnavailable as error:
            until_seconds = self._service.clock() + TROUBLE_SECONDS
            self._troubles[place.store_id, place.folder] = (until_seconds, str(error))
            return error
        finally:
            call.cancel()

    async def _until_told(self, volume: int) -> None:
        """Wait a moment for all Stores of a new volume to know who has it: before that it takes no photos."""
        cluster = self._service.cluster
        deadline_seconds = self._service.clock() + TELL_SECONDS
        while (left_seconds := deadline_seconds - self._service.clock()) > 0:
            record = cluster.records[volume]
            if all(store in cluster.stores and cluster.stores[store].knows(record) for store in record.in_sync):
                return
            await self._service.wait_for_change(min(left_seconds, SILENCE_POLL_SECONDS))

    def _folder_spaces(self, replication: str) -> list[FolderSpace]:
        now_seconds = self._service.clock()
        self._troubles = {name: t for name, t in self._troubles.items() if t[0] > now_seconds}
        troubles = {name: text for name, (_, text) in self._troubles.items()}
        return self._service.cluster.folder_spaces(now_seconds, troubles, replication)

    def _note(self, made: list[int], reasons: list[str]) -> None:
        if made:
            log.info("made volumes %s", ", ".join(map(str, made)))
        reason = "; ".join(dict.fromkeys(reasons))
        if reason and reason != self.last_reason and self._service.cluster.stores:
            log.warning("not all volumes could be made: %s", reason)
        self.last_reason = reason


def _report(task: asyncio.Task[Grown]) -> None:
    """Log a failure of the Directory itself: perhaps nobody waits for this growth."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("cannot make volumes: %s", error, exc_info=error)
