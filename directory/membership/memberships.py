"""Changes of memberships: each is decided in a transaction on the record as it is then, and told to the Stores.

The decisions are pure (:mod:`directory.decisions.failure`); what they need to know of the Stores is noted before on the
event loop. Many volumes at once, as when a Store is lost, go in transactions of :data:`BATCH_VOLUMES`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from directory.cluster.store_client import StoreClient
from directory.decisions import failure
from directory.decisions.liveness import Liveness
from directory.membership.pusher import Pusher, membership_document
from directory.messages import Suspicion
from directory.service import Service
from directory.storage.interface import Draft, Table
from directory.storage.tables import VolumeRecord, volume_key
from haystack.errors import VolumeNotFound

BATCH_VOLUMES = 500
"""Volumes that one transaction gives new memberships. Assigns and confirmations wait for it."""

RETURN_SECONDS = 1.5
"""Time that a Store must have been back before the others of its volumes are given up on: when a rack returns, its
machines come one after another."""

YOUNG_SECONDS = 10.0
"""Age at which a volume that its Store does not report counts as lost: a report may be older than the volume."""

Decide = Callable[[VolumeRecord], VolumeRecord]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A record before and after a decision."""

    before: VolumeRecord
    record: VolumeRecord


class Memberships:
    """Decides, writes down and tells. Make it inside the event loop; end it with :meth:`close`."""

    def __init__(self, service: Service, client: StoreClient) -> None:
        self._service = service
        self.pusher = Pusher(service, client, self.raise_epoch)
        service.on_report = self._on_report
        service.on_new_address = self.readdress

    async def close(self) -> None:
        """End the telling."""
        await self.pusher.close()

    # -- loss

    async def sweep(self) -> int:
        """Take what is lost out of the in-sync sets; returns how many volumes have a new membership."""
        changed = await self._roll_back()
        lost = self._lost_copies()
        rest = iter(lost.items())
        while batch := dict(islice(rest, BATCH_VOLUMES)):
            changed += await self._lose(batch)
        if changed:
            log.warning("%d volumes have a new membership, without copies that were lost", changed)
        return changed

    async def suspect(self, message: Suspicion) -> dict[str, Any]:
        """Take copies out that a primary cannot reach, and return the membership that is in force then.

        Only the primary of the epoch in force is believed. A suspect outside the in-sync set was about to come in: the
        new epoch makes sure that it does not.

        Raises VolumeNotFound.
        """
        if message.volume not in self._service.cluster.records:
            raise VolumeNotFound(f"volume {message.volume} is not known: its Store must register first")
        self._service.heard(message.store_id)
        suspects = {suspect for suspect in message.suspects if suspect != message.store_id}
        if suspects:
            now_ms = self._now_ms()

            def decide(record: VolumeRecord) -> VolumeRecord:
                return failure.suspected(record, message.store_id, message.epoch, suspects, now_ms)

            if await self.change([message.volume], decide):
                log.warning(
                    "volume %d: its primary %s has given up on %s: %s",
                    message.volume,
                    message.store_id,
                    ", ".join(sorted(suspects)),
                    message.reason,
                )
                for suspect in suspects:
                    self._service.cluster.doubt(suspect)
                self._service.cluster_changed()
        return membership_document(self._service, self._service.cluster.records[message.volume])

    # -- changes that the healer and the operator want

    async def admit(self, volume: int, store_id: str, epoch: int) -> bool:
        """Let a copy count that the primary waits for under ``epoch``; False when the membership has changed since."""
        now_ms = self._now_ms()
        now_seconds = self._service.clock()
        cluster = self._service.cluster
        known = cluster.records[volume]
        gone = {
            member
            for member in known.stale
            if cluster.liveness(member, now_seconds) is Liveness.DEAD or cluster.has_lost(member, known)
        }

        def decide(record: VolumeRecord) -> VolumeRecord:
            if record.epoch != epoch:
                return record
            return failure.admitted(record, store_id, gone=gone, now_ms=now_ms)

        return bool(await self.change([volume], decide))

    async def give_up(self, volume: int, store_id: str, *, allowed: Callable[[VolumeRecord], bool]) -> bool:
        """Let a copy count no more. ``allowed`` has the last word, on the record as it is then."""
        tails, led = self._tails([volume]), Counter(self._service.cluster.index.led)
        now_ms = self._now_ms()

        def decide(record: VolumeRecord) -> VolumeRecord:
            if not allowed(record):
                return record
            return failure.given_up(record, store_id, tails=tails.get(volume, {}), led=led, now_ms=now_ms)

        return bool(await self.change([volume], decide))

    async def forget(self, volumes: Collection[int], store_id: str) -> None:
        """Let a Store be no member any more of volumes that it has no copy of that counts."""
        await self.change(volumes, lambda record: failure.forgotten(record, store_id))

    async def readdress(self, store_id: str) -> None:
        """Tell everybody a Store's new addresses, by new epochs: the same epoch never says two things."""
        volumes = list(self._service.cluster.index.shared[store_id])
        await self.change(volumes, lambda record: failure.raised(record, 0) if store_id in record.in_sync else record)

    async def change(self, volumes: Collection[int], decide: Decide) -> list[Change]:
        """Decide on the records of volumes, write down what differs, tell the Stores; returns the changes."""
        changes: list[Change] = []
        rest = iter(volumes)
        while batch := list(islice(rest, BATCH_VOLUMES)):
            changed: list[Change] = await self._service.committer.run(_changer(batch, decide), self._apply)
            changes += changed
        return changes

    # -- inside

    async def _roll_back(self) -> int:
        """Give volumes their old generation back that no copy has left; returns how many."""
        found: dict[int, dict[str, tuple[int, int]]] = {}
        for store_id, store in self._service.cluster.stores.items():
            for volume, refused in store.left_behind.items():
                found.setdefault(volume, {})[store_id] = refused
        records = self._service.cluster.records
        wanted = [v for v in found if v in records and failure.rolled_back(records[v], found[v]) != records[v]]
        return len(await self.change(wanted, lambda record: failure.rolled_back(record, found[record.volume])))

    def _is_left_behind(self, store_id: str, volume: int) -> bool:
        """Say whether a Store could not take the generation in force, and another one in sync has it."""
        cluster, record = self._service.cluster, self._service.cluster.records[volume]
        if cluster.stores[store_id].left_behind.get(volume, (0, 0))[0] != record.epoch:
            return False
        others = [cluster.stores[other] for other in record.in_sync if other != store_id and other in cluster.stores]
        return any(other.knows(record) for other in others)

    def _lost_copies(self) -> dict[int, set[str]]:
        """Return, by volume, the in-sync copies that cannot be counted on, of volumes that have others."""
        cluster, now_seconds = self._service.cluster, self._service.clock()
        lost: dict[int, set[str]] = {}
        for store_id in [*cluster.index.shared]:
            shared = cluster.index.shared[store_id]
            if not shared:
                continue
            state = cluster.liveness(store_id, now_seconds)
            if state is Liveness.DEAD:
                found: Iterable[int] = list(shared)
            elif state is Liveness.ALIVE:
                found = [volume for volume in shared if self._copy_is_lost(store_id, volume)]
            else:
                continue
            for volume in found:
                lost.setdefault(volume, set()).add(store_id)
        return {volume: stores for volume, stores in lost.items() if self._may_change(volume, stores, now_seconds)}

    def _copy_is_lost(self, store_id: str, volume: int) -> bool:
        store = self._service.cluster.stores[store_id]
        if volume in store.failed or volume in store.shrunk or self._is_left_behind(store_id, volume):
            return True
        if volume in store.volumes:
            return False
        age_ms = self._now_ms() - self._service.cluster.records[volume].created_ms
        return age_ms > YOUNG_SECONDS * 1000

    def _may_change(self, volume: int, lost: set[str], now_seconds: float) -> bool:
        """Say whether somebody is left who has it, and has been there for a moment."""
        cluster = self._service.cluster
        return any(
            now_seconds - cluster.stores[member].alive_since_seconds >= RETURN_SECONDS
            for member in self._ready(volume, now_seconds) - lost
        )

    def _ready(self, volume: int, now_seconds: float) -> set[str]:
        """Return the members in sync that are there, and say themselves that they have it.

        One that was named as a member may never have got its copy: a partition can end the making of a volume half-way.
        """
        cluster = self._service.cluster
        return {
            member
            for member in cluster.records[volume].in_sync
            if cluster.alive(member, now_seconds) and volume in cluster.stores[member].volumes
        }

    async def _lose(self, lost: Mapping[int, set[str]]) -> int:
        cluster, now_seconds = self._service.cluster, self._service.clock()
        ready = {volume: self._ready(volume, now_seconds) for volume in lost}
        tails, now_ms = self._tails(lost), self._now_ms()
        led_before = Counter(cluster.index.led)

        def decide_all(draft: Draft) -> list[Change]:
            # Counted anew each time: the storage may have this decided again after a conflict.
            led = Counter(led_before)

            def decide(record: VolumeRecord) -> VolumeRecord:
                after = failure.without(
                    record,
                    lost[record.volume],
                    ready=ready[record.volume].__contains__,
                    tails=tails.get(record.volume, {}),
                    led=led,
                    now_ms=now_ms,
                )
                led[record.primary] -= 1
                led[after.primary] += 1
                return after

            return _changer(list(lost), decide)(draft)

        changes: list[Change] = await self._service.committer.run(decide_all, self._apply)
        return len(changes)

    async def raise_epoch(self, volume: int, known_epoch: int) -> None:
        """Take a higher epoch than one that a Store knows; the membership stays."""

        def decide(record: VolumeRecord) -> VolumeRecord:
            return failure.raised(record, known_epoch) if record.epoch <= known_epoch else record

        await self.change([volume], decide)

    def _apply(self, changes: list[Change]) -> None:
        index = self._service.cluster.index
        for change in changes:
            known = index.records.get(change.record.volume, change.record)
            # Sizes and the like are newer in memory.
            index.put(
                replace(
                    change.record,
                    size_bytes=known.size_bytes,
                    live_bytes=known.live_bytes,
                    live_count=known.live_count,
                )
            )
            self._service.cluster.restand(change.record.volume)
        for change in changes:
            self.pusher.changed(change.before, change.record)
        if changes:
            self._service.cluster.membership_changed_seconds = self._service.clock()
            self._service.cluster_changed()

    def _on_report(self, store_id: str, volumes: Iterable[int]) -> None:
        """A Store has said something of these volumes, or is back."""
        self.pusher.look_at(volumes)
        self.pusher.store_is_back(store_id)

    def _tails(self, volumes: Iterable[int]) -> dict[int, dict[str, int]]:
        cluster = self._service.cluster
        return {
            volume: {
                member: store.volumes[volume].size_bytes
                for member in cluster.records[volume].members
                if (store := cluster.stores.get(member)) is not None and volume in store.volumes
            }
            for volume in volumes
            if volume in cluster.records
        }

    def _now_ms(self) -> int:
        return int(self._service.wall_clock() * 1000)


def _changer(volumes: Collection[int], decide: Decide) -> Callable[[Draft], list[Change]]:
    """Return the transaction that decides on the records of volumes."""

    def run(draft: Draft) -> list[Change]:
        changes = []
        for volume in volumes:
            key = volume_key(volume)
            packed = draft.get(Table.VOLUMES, key)
            if packed is None:
                continue
            before = VolumeRecord.unpack(volume, packed)
            after = decide(before)
            if after != before:
                draft.put(Table.VOLUMES, key, after.pack())
                changes.append(Change(before, after))
        return changes

    return run
