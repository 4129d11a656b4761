"""Tells Stores the memberships that are in force, until each has acknowledged.

What is to be told follows from the records and from what Stores have reported and acknowledged
(:meth:`~directory.cluster.store_state.StoreState.knows`), so nothing of it needs to be kept: after a restart the
Stores' reports show who does not know the latest. Those who lose something (a primary, or a copy that counts no more)
are told first; the others wait for that as long as they answer, but not longer than :data:`LOSERS_FIRST_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from directory.cluster.store_client import StoreClient
from directory.errors import NewerEpoch, OtherGeneration
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import HaystackError, VolumeNotFound
from haystack.lifetime import end_tasks

PARALLEL_PER_STORE = 16
LOSERS_FIRST_SECONDS = 1.0
RETRY_SECONDS = 0.5
MEMBERSHIP_FORMAT = 1

log = logging.getLogger(__name__)


def membership_document(service: Service, record: VolumeRecord) -> dict[str, Any]:
    """Return a volume's membership as Stores are told it."""
    return {
        "format": MEMBERSHIP_FORMAT,
        "volume": record.volume,
        "uuid": record.uuid,
        "epoch": record.epoch,
        "primary": record.primary,
        "copies": record.promised,
        "inSync": [member_document(service, member) for member in record.in_sync],
        **({} if record.generation is None else {"generation": record.generation}),
    }


def member_document(service: Service, store_id: str) -> dict[str, str]:
    """Return a Store as memberships name it; without addresses when none are known (yet)."""
    state = service.cluster.stores.get(store_id)
    url, admin_url = (state.document.url, state.document.admin_url) if state else ("", "")
    return {"storeId": store_id, "url": url, "adminUrl": admin_url}


class Pusher:
    """Queues of what each Store is to be told. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    raise_epoch: called with volume and epoch when a Store knows a higher epoch than the record's.
    """

    def __init__(
        self, service: Service, client: StoreClient, raise_epoch: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self._service = service
        self._client = client
        self._raise_epoch = raise_epoch
        self._queues: defaultdict[str, dict[int, None]] = defaultdict(dict)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._first: dict[int, tuple[set[str], asyncio.Event]] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many memberships have yet to be told."""
        return sum(len(queue) for queue in self._queues.values())

    def changed(self, before: VolumeRecord | None, record: VolumeRecord) -> None:
        """A membership is in force now that was not before."""
        if before is not None:
            now_seconds = self._service.clock()
            losers = {member for member in before.in_sync if member not in record.in_sync}
            if before.primary != record.primary:
                losers.add(before.primary)
            if before.generation != record.generation:
                # What is on its way from the primary to the copies shall arrive under the old generation.
                losers.add(record.primary)
            losers = {member for member in losers if self._service.cluster.alive(member, now_seconds)}
            if losers:
                self._first[record.volume] = losers, asyncio.Event()
        self.look_at([record.volume])

    def look_at(self, volumes: Iterable[int]) -> None:
        """Tell the members of these volumes what they do not know."""
        cluster = self._service.cluster
        now_seconds = self._service.clock()
        for volume in volumes:
            record = cluster.records.get(volume)
            if record is None or not record.replicated or not all(m in cluster.stores for m in record.in_sync):
                continue  # nobody can be told of a Store whose address is not known (any more)
            for member in record.members:
                store = cluster.stores.get(member)
                if store is None or not store.registered or volume not in store.volumes or store.knows(record):
                    continue
                self._queues[member][volume] = None
                if cluster.alive(member, now_seconds):
                    self._start(member)

    def store_is_back(self, store_id: str) -> None:
        """Go on telling a Store that was silent."""
        if self._queues[store_id]:
            self._start(store_id)

    async def tell(self, store_id: str, record: VolumeRecord) -> None:
        """Tell one Store now. Raises VolumeUnavailable, NewerEpoch, OtherGeneration, VolumeNotFound."""
        store = self._service.cluster.stores[store_id]
        await self._client.put_membership(store.document, record.volume, membership_document(self._service, record))
        state = self._service.cluster.stores.get(store_id)
        if state is not None and state.told.get(record.volume, 0) < record.epoch:
            state.told[record.volume] = record.epoch
            state.left_behind.pop(record.volume, None)

    async def close(self) -> None:
        """End what is going on. What was not told is found again by the next Directory."""
        self._closed = True
        await end_tasks(self._tasks.values())

    def _start(self, store_id: str) -> None:
        task = self._tasks.get(store_id)
        if not self._closed and (task is None or task.done()):
            self._tasks[store_id] = asyncio.get_running_loop().create_task(self._work(store_id))

    async def _work(self, store_id: str) -> None:
        """Tell a Store everything that is queued for it, as long as it is there."""
        queue = self._queues[store_id]
        while queue and self._service.cluster.alive(store_id, self._service.clock()):
            batch = [queue.popitem() for _ in range(min(PARALLEL_PER_STORE, len(queue)))]
            volumes = [volume for volume, _ in batch]
            told = await asyncio.gather(*(self._tell_quietly(store_id, volume) for volume in volumes))
            if any(told):
                self._service.cluster_changed()
            failed = [volume for volume, done in zip(volumes, told, strict=True) if not done]
            queue.update(dict.fromkeys(failed))
            if failed:
                await asyncio.sleep(RETRY_SECONDS)

    async def _tell_quietly(self, store_id: str, volume: int) -> bool:
        """Tell a Store the newest of one volume; returns whether there is nothing left to tell."""
        try:
            await self._wait_for_losers(store_id, volume)
            record = self._service.cluster.records[volume]
            store = self._service.cluster.stores[store_id]
            if store.knows(record) or store_id not in record.members:
                return True
            await self.tell(store_id, record)
            return self._service.cluster.records[volume].epoch == record.epoch
        except NewerEpoch as error:
            known = self._service.cluster.records[volume]
            if error.known_epoch == known.epoch and store_id not in known.in_sync:
                # It follows under this epoch, and so knows that it does not count.
                self._service.cluster.stores[store_id].told[volume] = known.epoch
                return True
            log.warning("%s: taking a higher one", error)
            await self._raise_epoch(volume, error.known_epoch)
            return True
        except OtherGeneration as error:
            # What follows from that is decided by the next sweep.
            self._service.cluster.stores[store_id].left_behind[volume] = record.epoch, error.generation
            log.warning("%s", error)
            return True
        except VolumeNotFound:
            # What it has lost will be in its next report; then its copy counts no more.
            return True
        except HaystackError as error:
            log.info("the membership of volume %d is not told yet: %s", volume, error)
            return False
        finally:
            self._heard(store_id, volume)

    async def _wait_for_losers(self, store_id: str, volume: int) -> None:
        first = self._first.get(volume)
        if first is None or store_id in first[0]:
            return
        try:
            async with asyncio.timeout(LOSERS_FIRST_SECONDS):
                await first[1].wait()
        except TimeoutError:
            self._first.pop(volume, None)

    def _heard(self, store_id: str, volume: int) -> None:
        first = self._first.get(volume)
        if first is not None:
            first[0].discard(store_id)
            if not first[0]:
                first[1].set()
                del self._first[volume]
