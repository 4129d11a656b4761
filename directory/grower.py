"""Makes new volumes: keeps enough writable ones, and grows on request. One growth at a time.

A volume id is reserved durably before any Store hears of it, so that a crash at any point never leads to two volumes
with one id; an id whose volume was not made is never used. A volume counts when its Store has made it. When the
Directory dies in between, the Store's next registration brings the volume along.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from uuid import uuid4

from directory.cluster import FolderName
from directory.decisions.choice import ANYWHERE, Where
from directory.decisions.growth import FolderSpace, Place, plan_growth, volumes_wanted
from directory.service import Service
from directory.settings import GROW_RETRY_SECONDS
from directory.store_client import StoreClient
from directory.tables import VolumeRecord
from haystack.errors import HaystackError, VolumeUnavailable

MAX_PARALLEL_CALLS = 8
TROUBLE_SECONDS = 30.0
"""How long a data folder is left alone after a volume could not be made in it."""

REPLICATION = "000"

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
    target: writable volumes to keep.
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
        self._top_up: asyncio.Task[Grown] | None = None
        self._rest_until_seconds = float("-inf")
        self.last_reason = ""

    def start_top_up(self) -> None:
        """Begin to make what is missing, unless that is going on already or has just failed."""
        if self._service.clock() >= self._rest_until_seconds:
            self._start()

    async def top_up(self) -> Grown:
        """Make what is missing, or join the growth that is going on, and return what came of it."""
        return await asyncio.shield(self._start())

    async def grow(self, count: int, where: Where = ANYWHERE) -> Grown:
        """Make ``count`` more volumes, as many of them as there is room for."""
        async with self._one_at_a_time:
            return await self._make(count, where)

    async def close(self) -> None:
        """End what is going on. Volumes that their Stores have made by then come with their registration."""
        if self._top_up is not None:
            self._top_up.cancel()
            await asyncio.wait([self._top_up])

    def _start(self) -> asyncio.Task[Grown]:
        if self._top_up is None or self._top_up.done():
            self._top_up = asyncio.get_running_loop().create_task(self._make_missing())
            self._top_up.add_done_callback(_report)
        return self._top_up

    async def _make_missing(self) -> Grown:
        async with self._one_at_a_time:
            wanted = volumes_wanted(self._folder_spaces(), self._target, self._max_volume_bytes)
            grown = await self._make(wanted, ANYWHERE) if wanted else Grown((), "")
        if grown.reason:
            self._rest_until_seconds = self._service.clock() + GROW_RETRY_SECONDS
        return grown

    async def _make(self, count: int, where: Where) -> Grown:
        plan = plan_growth(
            self._folder_spaces(), count, target=self._target, where=where, max_volume_bytes=self._max_volume_bytes
        )
        made: list[int] = []
        reasons = [plan.reason] if plan.reason else []
        if plan.places:
            ids = await self._service.reserve_volume_ids(len(plan.places))
            limit = asyncio.Semaphore(MAX_PARALLEL_CALLS)
            results = await asyncio.gather(
                *(self._make_one(volume, place, limit) for volume, place in zip(ids, plan.places, strict=True)),
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

    async def _make_one(self, volume: int, place: Place, limit: asyncio.Semaphore) -> None:
        store = self._service.cluster.stores[place.store_id].document
        record = VolumeRecord(
            volume=volume,
            uuid=str(uuid4()),
            replication=REPLICATION,
            epoch=1,
            primary=place.store_id,
            in_sync=(place.store_id,),
            state="writable",
            created_ms=int(self._service.wall_clock() * 1000),
            max_bytes=self._max_volume_bytes,
        )
        try:
            async with limit:
                document = await self._client.make_volume(store, place.folder, record)
        except VolumeUnavailable as error:
            until_seconds = self._service.clock() + TROUBLE_SECONDS
            self._troubles[place.store_id, place.folder] = (until_seconds, str(error))
            raise
        await self._service.volume_made(record, document)

    def _folder_spaces(self) -> list[FolderSpace]:
        now_seconds = self._service.clock()
        self._troubles = {name: t for name, t in self._troubles.items() if t[0] > now_seconds}
        troubles = {name: text for name, (_, text) in self._troubles.items()}
        return self._service.cluster.folder_spaces(now_seconds, troubles)

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
