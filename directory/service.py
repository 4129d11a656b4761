"""The Directory's work, without HTTP: what each call does, on top of storage, ids and the picture of the cluster."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from directory.assigning.ids import IdAllocator
from directory.caches.feed import CacheFeed
from directory.caches.registry import Caches
from directory.cluster.cluster import Cluster
from directory.decisions.choice import ANYWHERE, Candidate, Where, WriteTable
from directory.decisions.membership import Standing
from directory.decisions.spreading import Place, drawn
from directory.heat.reported import ClusterHeat
from directory.messages import Confirmation, FolderDocument, Heartbeat, Registration, StoreDocument, VolumeDocument
from directory.storage import transactions
from directory.storage.committer import Committer
from directory.storage.interface import Draft, Storage, Table, scan_all
from directory.storage.tables import (
    EXPIRED_PREFIX,
    MarkRecord,
    PhotoRecord,
    VolumeRecord,
    expired_key,
    parse_expiry_key,
    photo_key,
)
from directory.storage.transactions import Admission, Confirmed
from haystack.errors import InvalidRequest
from haystack.heat import LOAD_BYTES
from haystack.units import GIB

TABLE_AGE_SECONDS = 0.2
"""How old the weights of the volumes may get while only sizes change, and how long a volume's turn is."""

OVERFILL_BYTES = 4 * GIB
"""A volume may be longer than its limit by its last photo, and than it was reported by what came since."""

GATHERING_SECONDS = 3.0
"""How long a Directory that has lost its storage waits for all Stores before it makes volumes. They try again at every
heartbeat; one that comes later with volumes of numbers that were given anew by then could not be taken in."""

MAX_WRITE_TABLES = 64
"""Tables kept for callers that ask for a data center, a rack or a Store."""

MAX_DROPPED_EXPIRIES = 1000
"""Expired renditions that are removed from the records in one transaction."""

log = logging.getLogger(__name__)


class Service:
    """State and actions of one Directory. Make it inside the event loop.

    Parameters
    ----------
    storage: opened, and closed by whoever opened it, after :meth:`close`.
    dead_after_seconds: silence after which a Store counts as dead.
    peers_index, peers_count: this is Directory k of N.
    default_replication: of photos whose assign names none.
    cache_spread_reads_per_second: reads of one photo that one Cache is to take; 0: photos are never shared.
    load_bytes: bytes that weigh as much as a read where load is one number.
    clock: monotonic seconds. wall_clock: unix seconds. dice: random numbers in 0 ≤ x < 1.

    Raises
    ------
    FolderError: the storage is of a format that this release does not know.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        dead_after_seconds: float,
        peers_index: int = 0,
        peers_count: int = 1,
        default_replication: str = "000",
        cache_spread_reads_per_second: float = 0.0,
        load_bytes: float = LOAD_BYTES,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.wall_clock = wall_clock
        self._dice = dice
        self.cluster_id = transactions.prepare(storage)
        self._gathering_until_seconds = float("-inf")
        self.committer = Committer(storage)
        self.ids = IdAllocator(storage, self.committer, index=peers_index, count=peers_count)
        self.cluster = Cluster(dead_after_seconds=dead_after_seconds, started_seconds=clock())
        self.feed = CacheFeed(self.cluster, clock)
        self.caches = Caches(
            dead_after_seconds=dead_after_seconds,
            spread_reads_per_second=cache_spread_reads_per_second,
            clock=clock,
            dice=dice,
        )
        _load(storage, self.cluster)
        self.default_replication = default_replication
        self.heat = ClusterHeat(load_bytes)
        self.confirmed_to: dict[int, int] = {}
        self.on_new_address: Callable[[str], Awaitable[None]] = _nobody_async
        self.on_report: Callable[[str, Iterable[int]], None] = _nobody
        self._write_tables: dict[tuple[str, Where], WriteTable] = {}
        self._tables_made_seconds = float("-inf")
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Finish what is being written."""
        await self.ids.close()
        await self.committer.close()

    # -- assign

    def choose(self, where: Where = ANYWHERE, replication: str | None = None) -> Candidate | None:
        """Return a volume for a photo, None when none takes any. ``replication``: None for the default one."""
        key = (replication or self.default_replication, where)
        table = self._write_tables.get(key)
        if table is None or self.clock() - self._tables_made_seconds > TABLE_AGE_SECONDS:
            table = self._make_write_table(key)
        return table.choose(self._dice())

    def writable_count(self, replication: str | None = None) -> int:
        """Return how many volumes take photos now, of one replication or of all."""
        return len(self.cluster.candidates(self.clock(), replication))

    def cluster_changed(self) -> None:
        """Forget what was derived from the cluster's state, and wake those who wait for a change."""
        self._write_tables.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Return when the cluster's state has changed, or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            pass  # the caller looks at the state again in either case

    def _make_write_table(self, key: tuple[str, Where]) -> WriteTable:
        replication, where = key
        now_seconds = self.clock()
        if now_seconds - self._tables_made_seconds > TABLE_AGE_SECONDS or len(self._write_tables) >= MAX_WRITE_TABLES:
            self._write_tables.clear()
            self._tables_made_seconds = now_seconds
        candidates = self.cluster.candidates(now_seconds, replication)
        table = self._write_tables[key] = WriteTable(candidates, where, turn=self._dice())
        return table

    @property
    def gathering(self) -> bool:
        """A moment ago a Store brought the cluster of which nothing is known here any more.

        The others come now, and their volumes have numbers that new ones must not be given.
        """
        return self.clock() < self._gathering_until_seconds

    # -- what Stores say

    async def register(self, message: Registration) -> None:
        """Take a Store and its volumes in. Raises MembershipConflict when it belongs to another cluster."""
        store_id = message.store.store_id
        before = self.cluster.stores.get(store_id)
        # A volume loses its end only while its Store is down. A running Store registers again after a restart of the
        # Directory, and may then have confirmed more than the sizes that it had noted for the registration.
        restarted = before is None or before.document.started_ms != message.store.started_ms
        may_have_shrunk = frozenset(volume.volume for volume in message.volumes) if restarted else frozenset()
        abandoned = self.cluster.abandoned(store_id, message.volumes)
        now_ms = int(self.wall_clock() * 1000)

        def apply(decided: tuple[str, Admission]) -> None:
            cluster_id, admission = decided
            if cluster_id != self.cluster_id:
                self._gathering_until_seconds = self.clock() + GATHERING_SECONDS
            self.cluster_id = cluster_id
            # Before an id can be given out for one of these volumes.
            for volume in message.volumes:
                self.ids.raise_above_reported(volume.max_key)
            self.cluster.register(message, self.clock())
            self.heat.forget(store_id)
            self._apply(store_id, admission)
            self.on_report(store_id, list(self.cluster.index.by_member[store_id]))

        await self.committer.run(
            lambda draft: transactions.register(draft, message, abandoned, may_have_shrunk, now_ms), apply
        )
        log.info("Store %s at %s registered with %d volumes", store_id, message.store.url, len(message.volumes))
        if before is not None and _addresses(before.document) != _addresses(message.store):
            await self.on_new_address(store_id)

    async def heartbeat(self, message: Heartbeat) -> bool:
        """Take a heartbeat in. Returns False when the Store must register first."""
        store = self.cluster.stores.get(message.store_id)
        if store is None or not store.registered:
            return False
        was_alive, was_doubted = self.cluster.alive(message.store_id, self.clock()), store.doubted
        unsettled = self.cluster.unsettled(message.store_id, message.volumes)
        recovered = frozenset(v for v, known in store.open_volumes.items() if known.state == "recovering")
        folders_before = store.folders
        if not self.cluster.heartbeat(message, self.clock()):
            return True
        self.heat.take(message.store_id, message.heat, self.clock())
        self.heat.drop(message.store_id, message.removed)
        self.ids.raise_above(volume.max_key for volume in message.volumes)
        if unsettled:
            await self._settle(message.store_id, unsettled, recovered)
        self._report_on(message, was_alive=was_alive)
        news = message.removed or not was_alive or was_doubted
        if news or _folder_states(store.folders) != _folder_states(folders_before):
            self.cluster_changed()
        return True

    def heard(self, store_id: str) -> None:
        """Take a message of a Store that is no heartbeat for a sign of life.

        After a partition its heartbeat may hang for long on a connection from before, while it learns by other messages
        that it leads a volume. It has to count as alive then: readers would be sent to a stale copy otherwise.
        """
        if self.cluster.hear(store_id, self.clock()):
            self.on_report(store_id, list(self.cluster.index.by_member[store_id]))
            self.cluster_changed()

    def _report_on(self, message: Heartbeat, *, was_alive: bool) -> None:
        """Say which memberships may have to be told again."""
        if not was_alive:
            self.on_report(message.store_id, list(self.cluster.index.by_member[message.store_id]))
        elif volumes := [volume.volume for volume in message.volumes]:
            self.on_report(message.store_id, volumes)

    async def promote_extras(self) -> None:
        """Let extra copies take the place of copies that their Stores have lost."""
        for store_id, volumes in self.cluster.promotable():
            await self._settle(store_id, volumes, frozenset())

    async def confirm(self, message: Confirmation) -> Confirmed:
        """Take the needles of a volume into the map of photos.

        Raises
        ------
        VolumeNotFound: the volume was never registered.
        MembershipConflict: the Store is not the volume's primary.
        InvalidRequest: the volume cannot be that long.
        """
        self.heard(message.store_id)
        self._check_end(message)

        def apply(outcome: Confirmed) -> None:
            if outcome.effect is not None:
                self.feed.confirmed(message.volume, outcome.effect)

        confirmed = await self.committer.run(lambda draft: transactions.confirm(draft, message), apply)
        self.confirmed_to[message.volume] = confirmed.confirmed_to
        self.ids.raise_above(needle.key for needle in message.needles)
        if confirmed.effect and confirmed.effect.unlisted:
            log.warning(
                "volume %d: %d needles have keys of photos that are elsewhere; they are kept, but not listed",
                message.volume,
                confirmed.effect.unlisted,
            )
        return confirmed

    def _check_end(self, message: Confirmation) -> None:
        """Refuse an offset that no volume has: what lies below it would never be told again."""
        store = self.cluster.stores.get(message.store_id)
        reported = store.volumes.get(message.volume) if store else None
        if reported is not None and message.end > max(reported.max_bytes, reported.size_bytes) + OVERFILL_BYTES:
            raise InvalidRequest(
                f"volume {message.volume} is confirmed up to {message.end} bytes, but is limited to "
                f"{reported.max_bytes}: its Store keeps a wrong tail"
            )

    # -- volumes

    async def reserve_volume_ids(self, count: int) -> range:
        """Return volume ids that were never used and never will be reserved again, whatever happens to the caller."""
        return await self.committer.run(lambda draft: transactions.reserve_volume_ids(draft, count))

    async def volume_made(self, record: VolumeRecord, documents: Mapping[str, VolumeDocument]) -> None:
        """Take a volume into use that Stores have just made; ``documents`` as each of them describes it."""

        def apply(kept: VolumeRecord) -> None:
            self.cluster.settle(record.primary, [kept], {})
            for store_id, document in documents.items():
                store = self.cluster.stores.get(store_id)
                if store is not None and kept.uuid == document.uuid and document.volume not in store.volumes:
                    store.put_volume(document)
            self.cluster.restand(kept.volume)
            for store_id in documents:
                self.on_report(store_id, [kept.volume])
            self.cluster_changed()

        await self.committer.run(lambda draft: transactions.volume_made(draft, record), apply)

    def places(self, volume: int) -> list[Place]:
        """Return where to read a volume, in the order in which one reader is to try; drawn anew each time."""
        return drawn(self.cluster.places(volume, self.clock()), self._dice)

    async def set_weights(
        self,
        volume: int,
        weights: Mapping[str, float],
        *,
        expected: Mapping[str, float] | None = None,
        dry_run: bool = False,
    ) -> VolumeRecord:
        """Give the copies of a volume read weights; none: all are equal. Returns the record as it is kept.

        Parameters
        ----------
        weights: by Store; what is left out counts as the mean of the others.
        expected: the weights that must be in force; None: any.
        dry_run: change nothing, only say what the record would be, or what is wrong.

        Raises
        ------
        VolumeNotFound: no such volume.
        InvalidRequest: the volume cannot have such weights.
        NotPossibleNow: others are in force than expected.
        """

        if dry_run:
            return transactions.set_weights(Draft(self.storage), volume, weights, expected)

        def apply(record: VolumeRecord) -> None:
            known = self.cluster.records[volume]
            self.cluster.index.put(replace(known, weights=record.weights))
            self.cluster_changed()

        return await self.committer.run(lambda draft: transactions.set_weights(draft, volume, weights, expected), apply)

    # -- photos

    def photo(self, photo_id: int) -> PhotoRecord | None:
        """Return what is known of a photo, without renditions that have expired."""
        stored = self.storage.get(Table.PHOTOS, photo_key(photo_id))
        return PhotoRecord.unpack(stored.value).at(self.wall_clock()) if stored else None

    async def drop_expired(self) -> int:
        """Remove some of the renditions that have expired; returns the number of entries that were worked off."""
        now_seconds = self.wall_clock()
        first = self.storage.scan(Table.EXPIRIES, limit=1)
        if not first or parse_expiry_key(first[0][0])[0] > now_seconds:
            return 0
        rows = self.storage.scan(Table.EXPIRIES, limit=MAX_DROPPED_EXPIRIES)
        due = [key for key, _ in rows if parse_expiry_key(key)[0] <= now_seconds]
        await self.committer.run(
            lambda draft: transactions.drop_expired(draft, due, now_seconds), self.cluster.expired_bytes.update
        )
        return len(due)

    async def forget_expired(self, volume: int) -> None:
        """Note that a volume was compacted: what had expired in it is gone."""
        if self.cluster.expired_bytes.pop(volume, 0):
            await self.committer.run(lambda draft: draft.delete(Table.META, expired_key(volume)))

    async def _settle(self, store_id: str, volumes: Sequence[VolumeDocument], may_have_shrunk: frozenset[int]) -> None:
        abandoned = self.cluster.abandoned(store_id, volumes)
        now_ms = int(self.wall_clock() * 1000)
        await self.committer.run(
            lambda draft: transactions.admit_all(draft, store_id, volumes, abandoned, may_have_shrunk, now_ms),
            lambda admission: self._apply(store_id, admission),
        )

    def _apply(self, store_id: str, admission: Admission) -> None:
        store = self.cluster.stores.get(store_id)
        known_misfits = dict(store.misfits) if store else {}
        self.cluster.settle(store_id, admission.records, admission.standings)
        if store := self.cluster.stores.get(store_id):
            store.shrunk |= admission.shrunk
        for volume, warning in admission.warnings.items():
            # A misfit is reported with each change of its counters; saying it once is enough.
            standing = admission.standings[volume]
            if standing is Standing.MEMBER or standing is not known_misfits.get(volume):
                log.warning("%s", warning)
        self.cluster_changed()


def _load(storage: Storage, cluster: Cluster) -> None:
    for key, stored in scan_all(storage, Table.META):
        if (name := key.decode()).startswith(EXPIRED_PREFIX):
            cluster.expired_bytes[int(name.removeprefix(EXPIRED_PREFIX))] = stored.value
    for _, stored in scan_all(storage, Table.STORES):
        cluster.restore_store(StoreDocument(**stored.value))
    for key, stored in scan_all(storage, Table.VOLUMES):
        cluster.index.put(VolumeRecord.unpack(int.from_bytes(key, "big"), stored.value))
    for key, stored in scan_all(storage, Table.MARKS):
        if (store := cluster.stores.get(key.decode())) is not None:
            store.mark = MarkRecord.unpack(stored.value)


def _nobody(store_id: str, volumes: Iterable[int]) -> None:
    """Replication is looked after by whoever puts something else in the place of this."""


async def _nobody_async(store_id: str) -> None:
    """As :func:`_nobody`."""


def _addresses(document: StoreDocument) -> tuple[str, str]:
    return document.url, document.admin_url


def _folder_states(folders: dict[str, FolderDocument]) -> dict[str, str]:
    return {folder.id: folder.state for folder in folders.values()}
