"""What the Directory knows of the cluster, in memory: Stores with what they reported last, and logical volumes.

The storage holds what must survive (Store documents, marks and volume records); sizes, counters and times of
heartbeats live here alone. Everything here is changed on the event loop, after the storage has committed it where it is
to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from directory.cluster.store_state import StoreState
from directory.cluster.volume_index import VolumeIndex
from directory.decisions import liveness
from directory.decisions.choice import CROWDED_FRACTION, Candidate, CopyPlace
from directory.decisions.liveness import Liveness
from directory.decisions.membership import Standing
from directory.decisions.replication import Site
from directory.decisions.spaces import FolderSpace
from directory.decisions.spreading import Place, places_of
from directory.messages import FolderDocument, Heartbeat, Registration, StoreDocument, VolumeDocument
from directory.storage.tables import VolumeRecord

FolderName = tuple[str, str]
"""Store id and folder id."""

TOLD_SECONDS = 2.0
"""Time in which Stores learn of a new membership, and say that they take photos again."""

UNHEARD_SECONDS = 30.0
"""Time that a Store has to report which volumes name, but which never registered with this storage: the Directory has
lost its disk, and the Stores find it one after another."""


_DOUBTED = "other Stores do not reach its Store"


STALE_SECONDS = 10.0
"""Silence of all copies in sync after which readers are sent to stale ones. A Store that only its own load, or a
partition, keeps from being heard takes deletes meanwhile, and a stale copy would serve what was deleted."""


class Cluster:
    """The Stores and the logical volumes.

    Parameters
    ----------
    dead_after_seconds: silence after which a Store counts as dead.
    started_seconds: monotonic time of the start of this Directory.
    """

    def __init__(self, *, dead_after_seconds: float, started_seconds: float) -> None:
        self.stores: dict[str, StoreState] = {}
        self.index = VolumeIndex()
        self.membership_changed_seconds = float("-inf")
        self.compacting: set[int] = set()
        """Volumes whose copies are compacted together: a new membership would make that begin anew."""
        self.moving: set[int] = set()
        """Volumes of which a copy is on its way to another Store by order: nobody else changes who has them."""
        self.expired_bytes: dict[int, int] = {}
        """About so many bytes of each volume's photos have expired since it was compacted."""
        self.resting: set[int] = set()
        """Volumes that are given no photos for a moment, since they are being handed over to another primary."""
        self._dead_after_seconds = dead_after_seconds
        self._started_seconds = started_seconds

    @property
    def records(self) -> Mapping[int, VolumeRecord]:
        """The records of all logical volumes."""
        return self.index.records

    def liveness(self, store_id: str, now_seconds: float) -> Liveness:
        """Return the liveness of a Store; one that never registered may be named by volumes all the same."""
        store = self.stores.get(store_id)
        patience_seconds = self._dead_after_seconds
        if store is None:
            patience_seconds = max(patience_seconds, UNHEARD_SECONDS)
        elif store.mark.mark == "removed" and not store.registered:
            return Liveness.DEAD
        last_sign_seconds = store.last_sign_seconds if store else None
        return liveness.judge(last_sign_seconds, self._started_seconds, now_seconds, patience_seconds)

    def alive(self, store_id: str, now_seconds: float) -> bool:
        """Say whether a Store is alive."""
        return self.liveness(store_id, now_seconds) is Liveness.ALIVE

    def settled(self, now_seconds: float) -> bool:
        """Say whether every Store has reported since the start, or has had its time to."""
        return not self.unheard(now_seconds)

    def unheard(self, now_seconds: float) -> list[str]:
        """Return the Stores that have yet to report; those that volumes name count, too."""
        named = (store_id for store_id, volumes in self.index.by_member.items() if volumes)
        known = dict.fromkeys([*self.stores, *named])
        return [store_id for store_id in known if self.liveness(store_id, now_seconds) is Liveness.UNKNOWN]

    def recovering(self) -> bool:
        """Say whether a Store is recovering a volume, which may take photos soon."""
        return any(volume.state == "recovering" for s in self.stores.values() for volume in s.open_volumes.values())

    def mending(self, replication: str | None, now_seconds: float) -> bool:
        """Say whether a volume that takes no photos may take some soon.

        It lacks copies, which may be back soon; or its membership has just changed, and its Stores do not know yet.
        """
        if now_seconds - self.membership_changed_seconds < TOLD_SECONDS:
            return True
        return any(_would_take_photos(self.records[v], replication) for v in self.index.untidy)

    # -- what Stores say

    def restore_store(self, document: StoreDocument) -> None:
        """Know a Store that registered before this process started, so that its volumes can be looked up at once."""
        self.stores[document.store_id] = StoreState(document)

    def register(self, message: Registration, now_seconds: float) -> None:
        """Take over a registration that the storage has committed."""
        before = self.stores.get(message.store.store_id)
        store = StoreState(
            document=message.store,
            folders={folder.id: folder for folder in message.folders},
            last_seen_seconds=now_seconds,
            alive_since_seconds=now_seconds,
        )
        if before is not None:
            store.mark = before.mark
            if self.alive(message.store.store_id, now_seconds):
                store.alive_since_seconds = before.alive_since_seconds
        for volume in message.volumes:
            store.put_volume(volume)
        self.stores[message.store.store_id] = store

    def heartbeat(self, message: Heartbeat, now_seconds: float) -> bool:
        """Take over a heartbeat. Returns False, changing nothing, when it came later than a newer one."""
        store = self.stores[message.store_id]
        if message.sequence <= store.sequence:
            return False
        written = 0
        for volume in message.volumes:
            before = store.volumes.get(volume.volume)
            # The counters of a Store that restarted begin again; that is a registration, so they never go back here.
            written += max(0, volume.writes - before.writes) if before else 0
            store.put_volume(volume)
        elapsed_seconds = now_seconds - (store.last_seen_seconds or now_seconds)
        if elapsed_seconds > 0:
            # Half old, half new: one busy second does not look like a busy Store.
            store.writes_per_second = (store.writes_per_second + written / elapsed_seconds) / 2
        for removed in message.removed:
            store.drop_volume(removed)
            store.misfits.pop(removed, None)
        if message.folders:
            store.folders = {folder.id: folder for folder in message.folders}
        store.sequence = message.sequence
        if not self.alive(message.store_id, now_seconds):
            store.alive_since_seconds = now_seconds
        store.last_seen_seconds = now_seconds
        store.doubted = False
        return True

    def hear(self, store_id: str, now_seconds: float) -> bool:
        """Note a message of a Store that is no heartbeat. Returns whether the Store had counted as dead."""
        store = self.stores.get(store_id)
        if store is None or not store.registered:
            return False  # it has to say first what it holds
        was_dead = not self.alive(store_id, now_seconds)
        if was_dead:
            store.alive_since_seconds = now_seconds
        store.heard_seconds = now_seconds
        return was_dead

    def doubt(self, store_id: str) -> None:
        """Note that a primary could not reach a Store: until its next heartbeat it takes no part in uploads."""
        if store := self.stores.get(store_id):
            store.doubted = True

    def settle(self, store_id: str, records: Iterable[VolumeRecord], standings: dict[int, Standing]) -> None:
        """Take over records that the storage has committed, and what a Store's copies were judged to be."""
        for record in records:
            before = self.records.get(record.volume)
            self.index.put(record)
            if before is not None and before.epoch != record.epoch:
                self.restand(record.volume)
        store = self.stores.get(store_id)
        if store is None:
            return
        for volume, standing in standings.items():
            if standing is Standing.MEMBER:
                store.misfits.pop(volume, None)
            else:
                store.misfits[volume] = standing

    def restand(self, volume: int) -> None:
        """Judge the copies of a volume anew whose membership has changed."""
        record = self.records[volume]
        for member in record.members:
            store = self.stores.get(member)
            if store is None or store.misfits.get(volume) is Standing.CONFLICT:
                continue
            if member in record.in_sync:
                store.misfits.pop(volume, None)
            elif volume in store.volumes:
                store.misfits[volume] = Standing.STALE
                store.shrunk.discard(volume)

    def unsettled(self, store_id: str, volumes: Iterable[VolumeDocument]) -> list[VolumeDocument]:
        """Return those reported copies that the records do not account for: new, changed in state, or misfits."""
        return [volume for volume in volumes if not self._accounted_for(store_id, volume)]

    def abandoned(self, store_id: str, volumes: Iterable[VolumeDocument]) -> frozenset[int]:
        """Return the volumes whose members have all registered and hold no copy; ``store_id`` is no member of them."""
        return frozenset(volume.volume for volume in volumes if self._is_abandoned(store_id, volume.volume))

    def promotable(self) -> list[tuple[str, list[VolumeDocument]]]:
        """Return, by Store, the extra copies of volumes that all their members have lost."""
        found = []
        for store_id, store in self.stores.items():
            extras = [store.volumes[v] for v, standing in store.misfits.items() if standing is Standing.EXTRA]
            if lost := self.abandoned(store_id, extras):
                found.append((store_id, [volume for volume in extras if volume.volume in lost]))
        return found

    def _accounted_for(self, store_id: str, volume: VolumeDocument) -> bool:
        record = self.records.get(volume.volume)
        if record is not None and store_id in record.stale:
            known = self.stores[store_id].misfits.get(volume.volume)
            return known is Standing.STALE and record.uuid == volume.uuid and volume.epoch <= record.epoch
        return (
            record is not None
            and record.uuid == volume.uuid
            and store_id in record.in_sync
            and (store_id != record.primary or record.state == volume.state)
            and volume.epoch <= record.epoch
            and volume.volume not in self.stores[store_id].misfits
        )

    def _is_abandoned(self, store_id: str, volume: int) -> bool:
        record = self.records.get(volume)
        if record is None or record.replicated or store_id in record.in_sync:
            return False
        members = [self.stores.get(member) for member in record.in_sync]
        return all(member is not None and member.registered and volume not in member.volumes for member in members)

    # -- what follows from it

    def holders(self, volume: int) -> list[StoreState]:
        """Return the members that have, or are thought to have, their copy of a volume; the primary first."""
        record = self.records.get(volume)
        if record is None:
            return []
        members = sorted(record.in_sync, key=lambda member: member != record.primary)
        states = [self.stores[member] for member in members if member in self.stores]
        return [state for state in states if not state.registered or volume in state.volumes]

    def locations(self, volume: int, now_seconds: float) -> list[StoreDocument]:
        """Return where a volume is, as :meth:`places`, whatever the weights."""
        return [place.store for place in self.places(volume, now_seconds)]

    def places(self, volume: int, now_seconds: float) -> list[Place]:
        """Return where to read a volume, with the weights of these places; the best place first if there are none.

        These are the living Stores that have it in sync, the primary first. When there is none: those that may be there
        (they have not reported since the start), then living ones with a stale copy, which may lack the newest photos
        and deletes, after :data:`STALE_SECONDS`, then the others: a Store that is silent towards the Directory may well
        answer its clients.
        """
        record = self.records.get(volume)
        holders = self.holders(volume)
        tiers: dict[Liveness, list[StoreDocument]] = {state: [] for state in Liveness}
        for state in holders:
            tiers[self.liveness(state.document.store_id, now_seconds)].append(state.document)
        if tiers[Liveness.ALIVE] or record is None:
            return places_of(record, tiers[Liveness.ALIVE])
        stale = [
            self.stores[member].document
            for member in record.stale
            if member in self.stores and volume in self.stores[member].volumes and self.alive(member, now_seconds)
        ]
        if not all(self._long_silent(holder, now_seconds) for holder in holders):
            stale = []
        if tiers[Liveness.UNKNOWN]:
            return places_of(record, tiers[Liveness.UNKNOWN], [*stale, *tiers[Liveness.DEAD]])
        return places_of(record, stale, tiers[Liveness.DEAD]) if stale else places_of(record, tiers[Liveness.DEAD])

    def _long_silent(self, store: StoreState, now_seconds: float) -> bool:
        patience_seconds = max(self._dead_after_seconds, STALE_SECONDS)
        found = liveness.judge(store.last_sign_seconds, self._started_seconds, now_seconds, patience_seconds)
        return found is Liveness.DEAD

    def site(self, store_id: str) -> Site:
        """Return where a Store stands; one that is not known stands alone."""
        store = self.stores.get(store_id)
        if store is None:
            return Site(store_id, f"?{store_id}", f"?{store_id}")
        return Site(store_id, store.document.data_center, store.document.rack)

    def has_lost(self, store_id: str, record: VolumeRecord) -> bool:
        """Say whether a Store, which has reported, lacks its copy of a volume, or cannot use it."""
        store = self.stores.get(store_id)
        if store is None or not store.registered:
            return False
        return record.volume not in store.volumes or record.volume in store.failed

    def candidates(self, now_seconds: float, replication: str | None = None) -> list[Candidate]:
        """Return the volumes that take photos now, of one replication or of all.

        Such a volume has all its promised copies, in sync on Stores that are alive, take photos and know who else has
        one.
        """
        found = []
        living = {store_id for store_id in self.stores if self.alive(store_id, now_seconds)}
        for store_id in living:
            store = self.stores[store_id]
            for volume in store.open_volumes.values():
                record = self.records.get(volume.volume)
                if record is None or record.primary != store_id or replication not in (None, record.replication):
                    continue
                if record.mark:
                    continue
                if volume.volume in self.resting:
                    continue
                copies = self._taking_copies(record, living)
                if copies:
                    found.append(_candidate(store, volume, copies))
        return found

    def open_count(self, replication: str) -> int:
        """Return how many volumes of a replication are not nearly full, whether they take photos now or not."""
        lacking = sum(_would_take_photos(self.records[volume], replication) for volume in self.index.untidy)
        return lacking + sum(
            1
            for store_id, store in self.stores.items()
            for number, volume in store.open_volumes.items()
            if (record := self.records.get(number)) is not None
            and record.replication == replication
            and record.primary == store_id
            and not record.degraded_since_ms
            and not record.mark
            and not _crowded(volume)
        )

    def folder_spaces(
        self, now_seconds: float, troubles: dict[FolderName, str], replication: str | None = None
    ) -> list[FolderSpace]:
        """Return all data folders for the planning of growth, with the troubles that each is in.

        Writable volumes are counted of one replication, or of all.
        """
        return [
            self._folder_space(store, folder, now_seconds, troubles, replication)
            for store in self.stores.values()
            for folder in store.folders.values()
        ]

    def _taking_copies(self, record: VolumeRecord, living: set[str]) -> list[tuple[StoreState, VolumeDocument]]:
        """Return the copies of a volume if it takes photos; else none."""
        if len(record.in_sync) < record.promised:
            return []
        copies = []
        for member in record.in_sync:
            if member not in living:
                return []
            store = self.stores[member]
            volume = store.volumes.get(record.volume)
            if volume is None or store.doubted or not store.accepts(volume) or not store.knows(record):
                return []
            copies.append((store, volume))
        return copies

    def _folder_space(
        self,
        store: StoreState,
        folder: FolderDocument,
        now_seconds: float,
        troubles: dict[FolderName, str],
        replication: str | None,
    ) -> FolderSpace:
        document = store.document
        counted = [
            volume
            for volume in store.open_volumes.values()
            if volume.folder == folder.id and self._counts_as_writable(store, volume, replication)
        ]
        return FolderSpace(
            store_id=document.store_id,
            url=document.url,
            data_center=document.data_center,
            rack=document.rack,
            folder=folder.id,
            path=folder.path,
            alive=self.alive(document.store_id, now_seconds),
            state=folder.state,
            free_bytes=folder.free_bytes,
            total_bytes=folder.total_bytes,
            volumes=store.volume_counts[folder.id],
            writable=len(counted),
            trouble=troubles.get((document.store_id, folder.id), _DOUBTED if store.doubted else ""),
            mark=_mark_in_words(store, folder.id),
        )

    def _counts_as_writable(self, store: StoreState, volume: VolumeDocument, replication: str | None) -> bool:
        if volume.volume in store.misfits or _crowded(volume):
            return False
        record = self.records.get(volume.volume)
        if record is None:
            return replication is None
        return not record.mark and replication in (None, record.replication) and len(record.in_sync) >= record.promised


def _would_take_photos(record: VolumeRecord, replication: str | None) -> bool:
    """Say whether a volume that lacks copies has room, so that it takes photos when they are back."""
    return (
        record.degraded_since_ms > 0
        and not record.mark
        and replication in (None, record.replication)
        and (record.max_bytes is None or record.size_bytes < record.max_bytes * CROWDED_FRACTION)
    )


def _crowded(volume: VolumeDocument) -> bool:
    return volume.size_bytes >= volume.max_bytes * CROWDED_FRACTION


def _mark_in_words(store: StoreState, folder: str) -> str:
    mark = store.mark
    if mark.mark != "none":
        return f"the Store is marked {mark.mark}"
    return "the folder is being drained" if mark.draining(folder) else ""


def _candidate(store: StoreState, volume: VolumeDocument, copies: list[tuple[StoreState, VolumeDocument]]) -> Candidate:
    document = store.document
    return Candidate(
        volume=volume.volume,
        store_id=document.store_id,
        url=document.url,
        public_url=document.public_url,
        data_center=document.data_center,
        rack=document.rack,
        folder=volume.folder,
        size_bytes=volume.size_bytes,
        max_bytes=volume.max_bytes,
        folder_free_bytes=_free_bytes(store, volume),
        store_writes_per_second=store.writes_per_second,
        others=tuple(
            CopyPlace(other.document.store_id, copy.folder, _free_bytes(other, copy), other.writes_per_second)
            for other, copy in copies
            if other is not store
        ),
    )


def _free_bytes(store: StoreState, volume: VolumeDocument) -> int:
    folder = store.folders.get(volume.folder)
    return folder.free_bytes if folder else 0
