"""What the Directory knows of the cluster, in memory: Stores with what they reported last, and logical volumes.

The storage holds what must survive (Store documents and volume records); sizes, counters and times of heartbeats live
here alone. Everything here is changed on the event loop, after the storage has committed it where it is to be kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from directory.decisions import liveness
from directory.decisions.choice import CROWDED_FRACTION, Candidate
from directory.decisions.growth import FolderSpace
from directory.decisions.liveness import Liveness
from directory.decisions.membership import Standing
from directory.messages import FolderDocument, Heartbeat, Registration, StoreDocument, VolumeDocument
from directory.tables import VolumeRecord

FolderName = tuple[str, str]
"""Store id and folder id."""

OPEN_STATES = ("writable", "recovering")


@dataclass(slots=True)
class StoreState:
    """One Store.

    Parameters
    ----------
    document: its addresses.
    folders, volumes: as reported last, by id; empty until it has registered with this Directory process.
    misfits: the copies among ``volumes`` that are not used, and why.
    last_seen_seconds: monotonic time of its last message, None before its first.
    sequence: number of its last heartbeat.
    open_volumes: the few among ``volumes`` that take photos, or will when they are recovered. Most volumes of a Store
        are full, and what is asked all the time must not walk them all.
    volume_counts: how many volumes each folder holds.
    """

    document: StoreDocument
    folders: dict[str, FolderDocument] = field(default_factory=dict)
    volumes: dict[int, VolumeDocument] = field(default_factory=dict)
    misfits: dict[int, Standing] = field(default_factory=dict)
    last_seen_seconds: float | None = None
    sequence: int = -1
    writes_per_second: float = 0.0
    open_volumes: dict[int, VolumeDocument] = field(default_factory=dict)
    volume_counts: Counter[str] = field(default_factory=Counter)

    @property
    def registered(self) -> bool:
        """Whether it has registered with this Directory process."""
        return self.last_seen_seconds is not None

    def put_volume(self, volume: VolumeDocument) -> None:
        """Take over what is reported of one volume."""
        self.drop_volume(volume.volume)
        self.volumes[volume.volume] = volume
        self.volume_counts[volume.folder] += 1
        if volume.state in OPEN_STATES:
            self.open_volumes[volume.volume] = volume

    def drop_volume(self, volume_id: int) -> None:
        """Forget a volume that the Store does not have any more."""
        volume = self.volumes.pop(volume_id, None)
        if volume is not None:
            self.volume_counts[volume.folder] -= 1
            self.open_volumes.pop(volume_id, None)


class Cluster:
    """The Stores and the logical volumes.

    Parameters
    ----------
    dead_after_seconds: silence after which a Store counts as dead.
    started_seconds: monotonic time of the start of this Directory.
    """

    def __init__(self, *, dead_after_seconds: float, started_seconds: float) -> None:
        self.stores: dict[str, StoreState] = {}
        self.records: dict[int, VolumeRecord] = {}
        self._dead_after_seconds = dead_after_seconds
        self._started_seconds = started_seconds

    def liveness(self, store_id: str, now_seconds: float) -> Liveness:
        """Return the liveness of a Store that is known."""
        last_seen_seconds = self.stores[store_id].last_seen_seconds
        return liveness.judge(last_seen_seconds, self._started_seconds, now_seconds, self._dead_after_seconds)

    def alive(self, store_id: str, now_seconds: float) -> bool:
        """Say whether a Store that is known is alive."""
        return self.liveness(store_id, now_seconds) is Liveness.ALIVE

    def settled(self, now_seconds: float) -> bool:
        """Say whether every Store has reported since the start, or has had its time to."""
        return all(self.liveness(store_id, now_seconds) is not Liveness.UNKNOWN for store_id in self.stores)

    def recovering(self) -> bool:
        """Say whether a Store is recovering a volume, which may take photos soon."""
        return any(volume.state == "recovering" for s in self.stores.values() for volume in s.open_volumes.values())

    # -- what Stores say

    def restore_store(self, document: StoreDocument) -> None:
        """Know a Store that registered before this process started, so that its volumes can be looked up at once."""
        self.stores[document.store_id] = StoreState(document)

    def register(self, message: Registration, now_seconds: float) -> None:
        """Take over a registration that the storage has committed."""
        store = StoreState(
            document=message.store,
            folders={folder.id: folder for folder in message.folders},
            last_seen_seconds=now_seconds,
        )
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
        store.last_seen_seconds = now_seconds
        return True

    def settle(self, store_id: str, records: Iterable[VolumeRecord], standings: dict[int, Standing]) -> None:
        """Take over records that the storage has committed, and what a Store's copies were judged to be."""
        for record in records:
            self.records[record.volume] = record
        store = self.stores.get(store_id)
        if store is None:
            return
        for volume, standing in standings.items():
            if standing is Standing.MEMBER:
                store.misfits.pop(volume, None)
            else:
                store.misfits[volume] = standing

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
        return (
            record is not None
            and record.uuid == volume.uuid
            and store_id in record.in_sync
            and (store_id != record.primary or record.state == volume.state)
            and volume.volume not in self.stores[store_id].misfits
        )

    def _is_abandoned(self, store_id: str, volume: int) -> bool:
        record = self.records.get(volume)
        if record is None or store_id in record.in_sync:
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
        """Return where to read a volume: the Stores that are alive, or, when none is, those that have it.

        A Store that is silent towards the Directory may well answer its clients.
        """
        holders = self.holders(volume)
        living = [state for state in holders if self.alive(state.document.store_id, now_seconds)]
        return [state.document for state in living or holders]

    def candidates(self, now_seconds: float) -> list[Candidate]:
        """Return the volumes that take photos now."""
        found = []
        for store_id, store in self.stores.items():
            if not self.alive(store_id, now_seconds):
                continue
            for volume in store.open_volumes.values():
                folder = store.folders.get(volume.folder)
                if self._takes_photos(store, volume) and (folder is None or folder.state == "ok"):
                    found.append(_candidate(store, volume, folder))
        return found

    def folder_spaces(self, now_seconds: float, troubles: dict[FolderName, str]) -> list[FolderSpace]:
        """Return all data folders for the planning of growth, with the troubles that each is in."""
        return [
            self._folder_space(store, folder, now_seconds, troubles)
            for store in self.stores.values()
            for folder in store.folders.values()
        ]

    def _takes_photos(self, store: StoreState, volume: VolumeDocument) -> bool:
        record = self.records.get(volume.volume)
        return (
            volume.state == "writable"
            and record is not None
            and record.primary == store.document.store_id
            and volume.volume not in store.misfits
        )

    def _folder_space(
        self, store: StoreState, folder: FolderDocument, now_seconds: float, troubles: dict[FolderName, str]
    ) -> FolderSpace:
        document = store.document
        open_here = [volume for volume in store.open_volumes.values() if volume.folder == folder.id]
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
            writable=sum(1 for volume in open_here if volume.volume not in store.misfits and not _crowded(volume)),
            trouble=troubles.get((document.store_id, folder.id), ""),
        )


def _crowded(volume: VolumeDocument) -> bool:
    return volume.size_bytes >= volume.max_bytes * CROWDED_FRACTION


def _candidate(store: StoreState, volume: VolumeDocument, folder: FolderDocument | None) -> Candidate:
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
        folder_free_bytes=folder.free_bytes if folder else 0,
        store_writes_per_second=store.writes_per_second,
    )
