"""The simulated cluster: machines, disks and volumes, and the snapshots that the Directory's decisions get of them.

Invariants, which :meth:`World.check` states: a disk holds as many bytes as its copies have; no Store has two copies of
a volume; every copy in sync is on a living disk; the counts that are kept beside are those that would be counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from directory.decisions.allotment import room_of
from directory.decisions.choice import CROWDED_FRACTION, Candidate, CopyPlace
from directory.decisions.liveness import Liveness
from directory.decisions.repair_views import CopyView, StoreView, VolumeView
from directory.decisions.replication import Site
from directory.decisions.room import Room
from directory.decisions.spaces import FolderSpace
from directory.simulation.parts import Disk, Machine, Volume
from directory.simulation.scenario import Scenario
from directory.storage.tables import VolumeRecord

FULL_FRACTION = 1 - 1 / 32
"""A Store reports a volume that is filled so far as full (:mod:`haystack.store.states`)."""

RESERVE_FRACTION = 0.1
"""Of a disk, at most, for the compaction of its largest volume (:mod:`haystack.store.states`)."""


@dataclass(slots=True)
class World:
    """All of it. Decisions are made elsewhere; here they are carried out.

    Parameters
    ----------
    on_copies: told of a volume when the number of its copies in sync has changed.
    """

    scenario: Scenario
    on_copies: Callable[[Volume, int], None] = lambda volume, copies: None
    machines: dict[str, Machine] = field(default_factory=dict)
    volumes: dict[int, Volume] = field(default_factory=dict)
    open: dict[int, Volume] = field(default_factory=dict)
    """Volumes that are not nearly full."""
    crowded: dict[int, Volume] = field(default_factory=dict)
    """Volumes that are nearly full, and not quite."""
    untidy: set[int] = field(default_factory=set)
    """Volumes that repair may have something to do for."""
    led: Counter[str] = field(default_factory=Counter)
    stores: dict[str, StoreView] = field(default_factory=dict)
    total_bytes: int = 0
    used_bytes: int = 0
    _spaces: dict[tuple[str, str], FolderSpace] = field(default_factory=dict)
    _stale_spaces: dict[tuple[str, str], Disk] = field(default_factory=dict)
    _moved_spaces: dict[tuple[str, str], Disk] = field(default_factory=dict)
    """Folders that are not in their place in the room yet: it is needed only when something has died."""
    _room: Room = field(default_factory=lambda: room_of(()))
    _candidates: list[Candidate] | None = None
    _next_volume: int = 1

    # -- hardware

    def add_machine(self, machine: Machine) -> None:
        """Take a machine into use; disks follow."""
        self.machines[machine.id] = machine
        site = Site(machine.id, machine.data_center, machine.rack)
        self.stores[machine.id] = StoreView(site, machine.url, Liveness.ALIVE)

    def add_disk(self, machine: Machine) -> Disk:
        """Put an empty disk into a machine."""
        scenario = self.scenario
        reserve_bytes = min(scenario.volume_bytes, int(scenario.disk_bytes * RESERVE_FRACTION))
        machine.disks_made += 1
        disk = Disk(machine, f"d{machine.disks_made}", scenario.disk_bytes, reserve_bytes)
        machine.disks[disk.folder] = disk
        self.total_bytes += disk.total_bytes
        self._stale_spaces[disk.name] = disk
        return disk

    def remove_disk(self, disk: Disk) -> list[Volume]:
        """Take a dead disk out, with its copies; returns their volumes, whose records are still as they were."""
        lost = [self.volumes[number] for number in sorted(disk.volumes)]
        for volume in lost:
            self._count(volume, counted=False)
            del volume.disks[disk.machine.id]
        self.used_bytes -= disk.used_bytes
        self.total_bytes -= disk.total_bytes
        disk.volumes.clear()
        disk.used_bytes = 0
        del disk.machine.disks[disk.folder]
        self._forget_space(disk)
        return lost

    def remove_machine(self, machine: Machine) -> list[Volume]:
        """Take a dead machine out; returns the volumes that had copies there."""
        lost = [volume for disk in list(machine.disks.values()) for volume in self.remove_disk(disk)]
        del self.machines[machine.id]
        del self.stores[machine.id]
        return lost

    # -- volumes

    def make_volume(self, places: list[Disk], luck: float, now_seconds: float, now_ms: int) -> Volume:
        """Make an empty volume with all its copies."""
        members = tuple(disk.machine.id for disk in places)
        record = VolumeRecord(
            volume=self._next_volume,
            uuid=f"volume-{self._next_volume}",
            replication=self.scenario.replication,
            epoch=1,
            primary=members[0],
            in_sync=members,
            state="writable",
            created_ms=now_ms,
            max_bytes=self.scenario.volume_bytes,
            members=members,
        )
        self._next_volume += 1
        self._candidates = None
        volume = Volume(record, {}, luck, now_seconds, now_seconds)
        self.volumes[record.volume] = self.open[record.volume] = volume
        for disk in places:
            self.put_copy(volume, disk)
        self.led[record.primary] += 1
        self._count(volume)
        return volume

    def put_copy(self, volume: Volume, disk: Disk) -> None:
        """Write a copy of what the volume has by now."""
        assert disk.machine.id not in volume.disks, f"two copies of volume {volume.number} on {disk.machine.id}"
        volume.disks[disk.machine.id] = disk
        disk.volumes.add(volume.number)
        self._use(disk, volume.size_bytes)

    def remove_copy(self, volume: Volume, store_id: str) -> None:
        """Delete a copy that does not count."""
        assert store_id not in volume.record.in_sync, f"volume {volume.number}: a copy that counts is deleted"
        disk = volume.disks.pop(store_id)
        disk.volumes.remove(volume.number)
        self._use(disk, -volume.size_bytes)

    def free(self, disk: Disk, size_bytes: int) -> None:
        """Give space back that a copy of a lost volume took."""
        self._use(disk, -size_bytes)

    def write(self, volume: Volume, size_bytes: int, now_seconds: float) -> None:
        """Append photos to all copies."""
        volume.size_bytes += size_bytes
        volume.written_seconds = now_seconds
        for disk in volume.disks.values():
            self._use(disk, size_bytes)
        if volume.size_bytes >= self.scenario.volume_bytes * FULL_FRACTION:
            self.open.pop(volume.number, None)
            self.crowded.pop(volume.number, None)
        elif volume.size_bytes >= self.scenario.volume_bytes * CROWDED_FRACTION:
            self.open.pop(volume.number, None)
            self.crowded[volume.number] = volume
        self._candidates = None
        self._count(volume)

    def put_record(self, volume: Volume, record: VolumeRecord) -> None:
        """Let a decision about a volume be in force."""
        before = volume.record
        self._count(volume, counted=False)
        self._candidates = None
        if before.primary != record.primary:
            self.led[before.primary] -= 1
            self.led[record.primary] += 1
        volume.record = record
        self._count(volume)
        if record.degraded_since_ms or record.stale or len(record.in_sync) > record.promised:
            self.untidy.add(record.volume)
        else:
            self.untidy.discard(record.volume)
        if len(before.in_sync) != len(record.in_sync):
            self.on_copies(volume, len(record.in_sync))

    def lose_volume(self, volume: Volume) -> None:
        """Take a volume out of which no copy is left."""
        assert not volume.disks, f"volume {volume.number} has copies left"
        self.on_copies(volume, 0)
        self.led[volume.record.primary] -= 1
        for kept in (self.volumes, self.open, self.crowded):
            kept.pop(volume.number, None)
        self._candidates = None
        self.untidy.discard(volume.number)

    # -- snapshots

    def spaces(self) -> list[FolderSpace]:
        """Return all data folders."""
        self._refresh()
        return list(self._spaces.values())

    def room(self) -> Room:
        """Return all data folders in the order of repair."""
        self._refresh()
        for name in self._moved_spaces:
            self._room.put(self._spaces[name])
        self._moved_spaces.clear()
        return self._room

    def view(self, volume: Volume) -> VolumeView:
        """Return a volume as repair sees it."""
        size_bytes = volume.size_bytes
        return VolumeView(
            volume.record, {store: CopyView(size_bytes, disk.folder) for store, disk in volume.disks.items()}
        )

    def candidates(self) -> list[Candidate]:
        """Return the volumes that take photos now; the nearly full ones only when there are no others.

        Photos go to those only then, so that nothing is decided otherwise by leaving them out.
        """
        if self._candidates is None:
            self._candidates = self._taking(self.open.values()) or self._taking(self.crowded.values())
        return self._candidates

    def _taking(self, volumes: Iterable[Volume]) -> list[Candidate]:
        found = []
        copies = self.scenario.promise.copies
        for volume in volumes:
            record = volume.record
            if len(record.in_sync) < copies:
                continue
            disks = [volume.disks[record.primary]]
            disks += [volume.disks[member] for member in record.in_sync if member != record.primary]
            if all(disk.total_bytes - disk.used_bytes >= disk.reserve_bytes for disk in disks):
                found.append(_candidate(volume, disks))
        return found

    def open_count(self) -> int:
        """Return how many volumes have room, whether they lack copies or not."""
        return sum(1 for volume in self.open.values() if not any(disk.full for disk in volume.disks.values()))

    def all_disks(self) -> Iterator[Disk]:
        """Yield all disks."""
        for machine in self.machines.values():
            yield from machine.disks.values()

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold."""
        used, writable, led = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[str]()
        for volume in self.volumes.values():
            record = volume.record
            assert record.primary in record.in_sync and set(record.in_sync) <= set(volume.disks) <= set(record.members)
            assert volume.counted == self._counts(volume)
            led[record.primary] += 1
            for store, disk in volume.disks.items():
                assert self.machines[store].disks[disk.folder] is disk and volume.number in disk.volumes
                used[disk.name] += volume.size_bytes
                writable[disk.name] += volume.counted and store in record.in_sync
        for disk in self.all_disks():
            assert disk.used_bytes == used[disk.name] <= disk.total_bytes, f"{disk.name}: {disk.used_bytes}"
            assert disk.writable == writable[disk.name], f"{disk.name}: {disk.writable} != {writable[disk.name]}"
        assert self.used_bytes == sum(used.values())
        assert self.total_bytes == sum(disk.total_bytes for disk in self.all_disks())
        assert +self.led == +led
        assert {space.store_id for space in self.spaces()} == {m.id for m in self.machines.values() if m.disks}

    # -- what is kept beside

    def _use(self, disk: Disk, size_bytes: int) -> None:
        disk.used_bytes += size_bytes
        self.used_bytes += size_bytes
        self._candidates = None
        self._stale_spaces[disk.name] = disk

    def _counts(self, volume: Volume) -> bool:
        record = volume.record
        return volume.number in self.open and len(record.in_sync) >= self.scenario.promise.copies

    def _count(self, volume: Volume, counted: bool | None = None) -> None:
        """Bring the numbers of writable copies of its disks up to date."""
        counted = self._counts(volume) if counted is None else counted
        if counted == volume.counted:
            return
        volume.counted = counted
        for member in volume.record.in_sync:
            disk = volume.disks[member]
            disk.writable += 1 if counted else -1
            self._stale_spaces[disk.name] = disk

    def _forget_space(self, disk: Disk) -> None:
        self._stale_spaces.pop(disk.name, None)
        self._moved_spaces.pop(disk.name, None)
        self._spaces.pop(disk.name, None)
        self._room.drop(*disk.name)

    def _refresh(self) -> None:
        for name, disk in self._stale_spaces.items():
            self._spaces[name] = _space(disk)
        self._moved_spaces.update(self._stale_spaces)
        self._stale_spaces.clear()


def _space(disk: Disk) -> FolderSpace:
    machine = disk.machine
    return FolderSpace(
        store_id=machine.id,
        url=machine.url,
        data_center=machine.data_center,
        rack=machine.rack,
        folder=disk.folder,
        path=f"/{disk.folder}",
        alive=True,
        state="full" if disk.full else "ok",
        free_bytes=disk.free_bytes,
        total_bytes=disk.total_bytes,
        volumes=len(disk.volumes),
        writable=disk.writable,
    )


def _candidate(volume: Volume, disks: list[Disk]) -> Candidate:
    first = disks[0]
    machine = first.machine
    url = machine.url
    return Candidate(
        volume.record.volume,
        machine.id,
        url,
        url,
        machine.data_center,
        machine.rack,
        first.folder,
        volume.size_bytes,
        volume.record.max_bytes or 0,
        first.total_bytes - first.used_bytes,
        machine.writes_per_second,
        tuple(
            [
                CopyPlace(
                    disk.machine.id, disk.folder, disk.total_bytes - disk.used_bytes, disk.machine.writes_per_second
                )
                for disk in disks[1:]
            ]
        ),
    )
