"""Snapshots of the whole cluster: a copy of the Directory's storage, and one end offset a volume.

The order is what makes them consistent. The storage is copied first; then each primary is asked how far its volume is
the same on all copies. A photo that the copy names was confirmed by then, so it lies below that end. What a volume has
between what the copy knows and its end (photos, deletes) is confirmed to whoever starts from the copy, as after any
restart. A volume that is compacted between the two makes all of it begin anew: its tombstones may be gone, and the copy
would go on naming what they deleted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from directory.cluster.store_client import StoreClient
from directory.errors import DirectoryBusy, NotPossibleNow
from directory.service import Service
from directory.snapshots.files import SnapshotFiles
from directory.storage.interface import Draft, Table, scan_all
from directory.storage.tables import HeldVolume, SnapshotRecord, VolumeRecord, ends_key
from haystack.errors import InvalidRequest, VolumeNotFound, VolumeUnavailable
from haystack.lifetime import end_tasks

MAX_SNAPSHOTS = 32
MAX_HOLD_SECONDS = 10 * 365 * 86400
MAX_ASKED_AT_ONCE = 32
"""Volumes whose ends are asked for at the same time."""

TAKE_ATTEMPTS = 5
PRIMARY_SECONDS = 20.0
"""How long a volume may be without a primary that answers, and its last appends without being on all copies."""

POLL_SECONDS = 0.1
FOLLOW_SECONDS = 5.0
FOLLOW_ATTEMPTS = 10
"""Looks at volumes whose generation has changed, and how many fail before it counts as lost what was held there."""

BEHIND_ALL = 2**63 - 1
"""An offset that no volume has."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = logging.getLogger(__name__)


class SnapshotNotFound(VolumeNotFound):
    """No such snapshot."""


@dataclass(frozen=True, slots=True)
class Move:
    """Where a compaction brings the ends that snapshots hold.

    Parameters
    ----------
    generation: from which; to the next one.
    ends: new offsets by old ones, of those that :meth:`Snapshots.held` gave for it.
    cut, new_cut: what lay behind ``cut`` was copied as it was, and lies behind ``new_cut``. That is how ends are found
        of snapshots that were taken while the compaction ran.
    """

    generation: int
    ends: dict[int, int]
    cut: int
    new_cut: int

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Move:
        """What a Store says of a compaction that is prepared or done."""
        ends = {int(old): int(new) for old, new in job["ends"].items()}
        return cls(int(job["generation"]) - 1, ends, int(job["cut"]), int(job["newCut"]))


class _Compacted(Exception):
    """A volume was compacted while the snapshot was taken."""


class Snapshots:
    """The snapshots that are held.

    Parameters
    ----------
    data: the Directory's data folder.
    """

    def __init__(self, service: Service, client: StoreClient, data: Path) -> None:
        self._service = service
        self._client = client
        self._files = SnapshotFiles(data)
        self._changing = asyncio.Lock()
        self._records: dict[str, SnapshotRecord] = {}
        self._followed_seconds = float("-inf")
        self._unfollowed: Counter[int] = Counter()
        self.taking = False
        """Whether one is being taken: a compaction that begins now makes that begin anew."""

    async def start(self) -> None:
        """Know those that are held, and tidy up what a crash left. Raises DiskError."""
        storage = self._service.storage
        known = {
            key.decode(): SnapshotRecord.unpack(key.decode(), stored.value)
            for key, stored in scan_all(storage, Table.SNAPSHOTS)
        }
        there = await asyncio.to_thread(self._files.tidy, known.keys())
        self._records = {name: record for name, record in known.items() if name in there}
        for name in known.keys() - there:
            log.warning("snapshot %s is given up: its copy of the storage is not here", name)
            await self._forget(name)

    # -- what is held

    def all(self) -> list[SnapshotRecord]:
        """Return them, the oldest first."""
        return sorted(self._records.values(), key=lambda one: (one.created_ms, one.name))

    def get(self, name: str) -> SnapshotRecord:
        """Return one. Raises SnapshotNotFound."""
        record = self._records.get(name)
        if record is None:
            raise SnapshotNotFound(f"there is no snapshot {name[:64]!r}; GET /cluster/snapshots lists those there are")
        return record

    def path(self, name: str) -> Path:
        """Where the copy of the storage is that belongs to one. Raises SnapshotNotFound."""
        return self._files.path(self.get(name).name)

    def held(self, volume: int, generation: int) -> list[int]:
        """Return the ends of a volume that snapshots hold in this generation: a compaction must respect them."""
        held = (record.volumes.get(volume) for record in self._records.values())
        return sorted({one.end for one in held if one is not None and one.generation == generation and not one.lost})

    async def moved(self, volume: int, move: Move) -> None:
        """Note where a compaction has brought the ends of a volume that are held; repeating it does no harm.

        Raises DiskError, OutOfSpace.
        """
        async with self._changing:
            for record in self.all():
                held = record.volumes.get(volume)
                if held is None or held.generation != move.generation or held.lost:
                    continue
                if held.end in move.ends:
                    now = replace(held, generation=move.generation + 1, end=move.ends[held.end])
                elif held.end >= move.cut:
                    now = replace(held, generation=move.generation + 1, end=held.end - move.cut + move.new_cut)
                else:
                    now = replace(held, lost=True)
                    log.error("snapshot %s: volume %d was compacted without regard to it", record.name, volume)
                await self._write(replace(record, volumes={**record.volumes, volume: now}))

    async def intend(self, volume: int, move: Move) -> None:
        """Note durably where a compaction brings the ends, should the volume come to its next generation.

        Raises DiskError, OutOfSpace.
        """
        if self._records or self.taking:
            await self._service.committer.run(lambda draft: draft.put(Table.META, ends_key(volume), asdict(move)))

    async def follow_all(self) -> None:
        """As :meth:`follow`, for all volumes that are held; not too often. Raises DiskError, OutOfSpace."""
        if self._service.clock() - self._followed_seconds < FOLLOW_SECONDS:
            return
        self._followed_seconds = self._service.clock()
        for volume in {volume for record in self._records.values() for volume in record.volumes}:
            await self.follow(volume)

    async def follow(self, volume: int) -> None:
        """Note where the ends of a volume lie that has come to its next generation without this having been seen here.

        Raises DiskError, OutOfSpace.
        """
        generation = self._reported_generation(volume) if volume in self._service.cluster.records else None
        held = [one for record in self._records.values() if (one := record.volumes.get(volume)) and not one.lost]
        for before in {one.generation for one in held if generation is not None and one.generation < generation}:
            move = await self._move_from(volume, before)
            if move is None:
                self._unfollowed[volume] += 1
                if self._unfollowed[volume] < FOLLOW_ATTEMPTS:
                    continue
                move = Move(before, {}, BEHIND_ALL, 0)
            del self._unfollowed[volume]
            await self.moved(volume, move)

    async def _move_from(self, volume: int, generation: int) -> Move | None:
        """Where a compaction of this generation has brought the ends; None when nobody knows."""
        for move in (self._intended(volume), await self._told(volume)):
            if move is not None and move.generation == generation:
                return move
        return None

    def _intended(self, volume: int) -> Move | None:
        stored = self._service.storage.get(Table.META, ends_key(volume))
        if stored is None:
            return None
        ends = {int(old): int(new) for old, new in stored.value["ends"].items()}
        return Move(**{**stored.value, "ends": ends})

    async def _told(self, volume: int) -> Move | None:
        """What the Store says that compacted a volume of one copy; it knows until its next start."""
        store = self._service.cluster.stores[self._service.cluster.records[volume].primary]
        try:
            job = await self._client.compaction(store.document, volume)
        except VolumeUnavailable as error:
            log.warning(
                "volume %d: nobody tells where its compaction has brought what snapshots hold: %s", volume, error
            )
            return None
        return Move.of(job) if job["state"] == "done" else None

    # -- taking and giving up

    async def take(self, name: str, hold_seconds: float | None = None) -> SnapshotRecord:
        """Take a snapshot; it is held durably when this returns.

        Parameters
        ----------
        hold_seconds: when it is given up by itself; None: never.

        Raises
        ------
        InvalidRequest: a name that is none.
        NotPossibleNow: there is one of that name, or there are too many.
        DirectoryBusy: another one is being taken, or volumes are compacted all the time.
        VolumeUnavailable: a volume whose end nobody can tell.
        DiskError, OutOfSpace: no copy of the storage can be made.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"snapshot name {name[:80]!r}: at most 64 letters, digits, dots, hyphens and underscores are allowed, "
                "a letter or a digit first"
            )
        if self._changing.locked():
            raise DirectoryBusy("a snapshot is being taken or given up already; try again when that is done")
        async with self._changing:
            if name in self._records:
                raise NotPossibleNow(f"there is a snapshot {name} already; delete it, or choose another name")
            if len(self._records) >= MAX_SNAPSHOTS:
                raise NotPossibleNow(f"{MAX_SNAPSHOTS} snapshots are held already, the most there may be; delete some")
            self.taking = True
            try:
                return await self._take(name, hold_seconds)
            except BaseException:
                await asyncio.to_thread(self._files.remove, name)
                raise
            finally:
                self.taking = False

    async def delete(self, name: str) -> None:
        """Give a snapshot up. Raises SnapshotNotFound, DiskError, OutOfSpace."""
        async with self._changing:
            self.get(name)
            # The record first: a copy without one is removed at the next start.
            await self._forget(name)
            await asyncio.to_thread(self._files.remove, name)
            log.info("snapshot %s is given up", name)

    async def expire(self) -> None:
        """Give up those whose time is over. Raises DiskError, OutOfSpace."""
        now_ms = self._now_ms()
        for record in self.all():
            if 0 < record.expires_ms <= now_ms:
                await self.delete(record.name)

    async def _take(self, name: str, hold_seconds: float | None) -> SnapshotRecord:
        for _ in range(TAKE_ATTEMPTS):
            created_ms = self._now_ms()
            before = {volume: self._reported_generation(volume) for volume in self._service.cluster.records}
            copied = await asyncio.to_thread(self._files.copy, name, self._service.storage)
            try:
                volumes = await self._ends(copied.volumes, before)
            except _Compacted as error:
                log.info("snapshot %s is begun anew: %s", name, error)
                await asyncio.sleep(POLL_SECONDS)
                continue
            await asyncio.to_thread(self._files.keep, name)
            expires_ms = 0 if hold_seconds is None else created_ms + int(hold_seconds * 1000)
            record = SnapshotRecord(name, created_ms, expires_ms, copied.size_bytes, copied.checksum, volumes)
            await self._write(record)
            log.info("snapshot %s holds %d volumes", name, len(volumes))
            return record
        raise DirectoryBusy("volumes are compacted all the time; try again when that is done")

    async def _ends(
        self, volumes: Mapping[int, VolumeRecord], before: Mapping[int, int | None]
    ) -> dict[int, HeldVolume]:
        asking = asyncio.Semaphore(MAX_ASKED_AT_ONCE)

        async def ask(record: VolumeRecord) -> tuple[int, HeldVolume]:
            async with asking:
                return record.volume, await self._end(record, before.get(record.volume))

        tasks = [asyncio.create_task(ask(record)) for record in volumes.values()]
        try:
            return dict(await asyncio.gather(*tasks))
        finally:
            await end_tasks(tasks)

    async def _end(self, record: VolumeRecord, generation: int | None) -> HeldVolume:
        """Return how far the volume is the same everywhere, everything that was acknowledged before included."""
        wanted: int | None = None
        problem = ""
        for _ in range(round(PRIMARY_SECONDS / POLL_SECONDS)):
            # Its primary may be another one by now.
            known = self._service.cluster.records.get(record.volume, record)
            store = self._service.cluster.stores.get(known.primary)
            if store is None:
                raise VolumeUnavailable(f"volume {record.volume}: its Store {known.primary} is not known")
            try:
                said = await self._client.tail(store.document, record.volume)
            except VolumeUnavailable as error:
                problem = str(error)
            else:
                if said.uuid != record.uuid:
                    raise VolumeUnavailable(f"volume {record.volume}: Store {store.document.url} has another one")
                if said.generation != (said.generation if generation is None else generation):
                    raise _Compacted(f"volume {record.volume} was compacted")
                wanted = said.tail if wanted is None else wanted
                if said.committed >= wanted:
                    return HeldVolume(record.uuid, said.generation, said.committed)
                problem = f"bytes {said.committed} to {wanted} are not on all copies yet"
            await asyncio.sleep(POLL_SECONDS)
        raise VolumeUnavailable(f"volume {record.volume}: nobody can tell how far it is: {problem}")

    def _reported_generation(self, volume: int) -> int | None:
        known = self._service.cluster.records[volume]
        store = self._service.cluster.stores.get(known.primary)
        reported = store.volumes.get(volume) if store else None
        return reported.generation if reported else None

    async def _write(self, record: SnapshotRecord) -> None:
        def write(draft: Draft) -> None:
            draft.put(Table.SNAPSHOTS, record.name.encode(), record.pack())

        def know(_: None) -> None:
            self._records[record.name] = record

        await self._service.committer.run(write, know)

    async def _forget(self, name: str) -> None:
        def forget(draft: Draft) -> None:
            draft.delete(Table.SNAPSHOTS, name.encode())

        await self._service.committer.run(forget)
        self._records.pop(name, None)

    def _now_ms(self) -> int:
        return int(self._service.wall_clock() * 1000)
