"""The volumes of a Store as its supervisor has them: found in the data folders, recovered, made, watched, closed.

The supervisor keeps every volume open as its owner (locked, and recovered by it); the workers attach to them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from haystack.errors import (
    FolderError,
    HaystackError,
    IndexDamaged,
    InvalidRequest,
    OutOfSpace,
    VolumeExists,
    VolumeNotFound,
    VolumeUnavailable,
)
from haystack.store.control import ControlBlock
from haystack.store.control_cells import MAX_VOLUMES, FolderState, Reason, Slot, VolumeState
from haystack.store.folder import DataFolder
from haystack.store.replication.duties import assign_duty, standing_of
from haystack.store.replication.members_file import read_members
from haystack.store.states import Room, best_folder, state_of_copy, volume_state
from haystack.store.store_volume import (
    NewVolume,
    StoreStopping,
    StoreVolume,
    checkpoint_volume,
    make_volume,
    open_volume,
    superblock_of,
)
from haystack.store.tables import VOLUMES_FILE, read_table, write_table
from haystack.volume import Superblock, Volume, VolumeStat
from haystack.volume.dirty import DirtyMarker

_log = logging.getLogger(__name__)

MAX_REPORT_LINES = 20
"""Lines of one volume's recovery report that are logged; of the rest only the number is."""

DOUBTFUL = "doubtful"
"""Stands in a dirty marker for a boot that never was: the index is rebuilt at the next start."""

_REASONS = {
    Reason.NONE: "",
    Reason.VOLUME_FULL: "full",
    Reason.DISK_FULL: "the disk is full",
    Reason.MARKED: "marked read-only",
    Reason.DEGRADED: "degraded",
    Reason.REPLICA: "replica",
    Reason.STALE: "stale",
    Reason.UNTOLD: "the Directory has not told its membership yet",
}


class StoreVolumes:
    """All volumes of a Store.

    Parameters
    ----------
    max_volume_bytes: size limit of volumes that have none of their own.
    on_change: called when a volume was added, or its state changed.
    """

    def __init__(
        self,
        folders: Sequence[DataFolder],
        control: ControlBlock,
        *,
        max_volume_bytes: int,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.folders = folders
        self.control = control
        self._max_volume_bytes = max_volume_bytes
        self._on_change = on_change
        self._by_id: dict[int, StoreVolume] = {}
        self._by_slot: dict[int, StoreVolume] = {}
        self._creating = asyncio.Lock()
        self._stopping = False

    # -- looking

    def __iter__(self) -> Iterator[StoreVolume]:
        return iter(list(self._by_id.values()))

    def get(self, volume: int) -> StoreVolume:
        """A volume by id. Raises VolumeNotFound."""
        entry = self._by_id.get(volume)
        if entry is None:
            raise VolumeNotFound(f"volume {volume} is not on this Store; GET /admin/volumes lists those that are")
        return entry

    def at(self, slot: int) -> StoreVolume | None:
        """The volume in a slot."""
        return self._by_slot.get(slot)

    def of(self, folder: DataFolder) -> list[StoreVolume]:
        """The volumes of one data folder."""
        return [entry for entry in self._by_id.values() if entry.folder is folder]

    def state(self, entry: StoreVolume) -> VolumeState:
        """The volume's state now."""
        return self.control.state(entry.slot)

    # -- opening

    def register(self) -> None:
        """Find the volumes of all folders and give each its slot. Blocks; for the start, before anything else runs.

        A folder that cannot be listed is marked as failed. Raises OutOfSpace when there are more than slots.
        """
        for folder in self.folders:
            if folder.failed:
                continue
            try:
                found = folder.volumes()
            except FolderError as error:
                folder.fail(str(error))
                continue
            settings = read_table(folder.path / VOLUMES_FILE)
            for volume, path in found:
                self._register(volume, folder, path, settings.get(volume, {}))

    def _register(self, volume: int, folder: DataFolder, path: Path, settings: dict[str, object]) -> None:
        twin = self._by_id.get(volume)
        if twin is not None:
            # Which of them has the newest photos nobody can tell, and serving both as one would mix them.
            self.fail(twin, f"there are two: {twin.path} and {path}; move one of them away and restart the Store")
            return
        max_bytes, epoch = settings.get("maxBytes"), settings.get("epoch")
        entry = self._add(
            volume,
            folder,
            path,
            max_bytes if isinstance(max_bytes, int) else self._max_volume_bytes,
            epoch if isinstance(epoch, int) else 1,
        )
        entry.membership = read_members(path)
        self._set_superblock(entry, superblock_of(path))

    def _add(self, volume: int, folder: DataFolder, path: Path, max_bytes: int, epoch: int) -> StoreVolume:
        slot = self.control.add_volume(volume, folder.number, VolumeState.RECOVERING, max_bytes=max_bytes)
        entry = StoreVolume(volume, slot, folder, path, max_bytes, epoch)
        self._by_id[volume] = self._by_slot[slot] = entry
        return entry

    def _set_superblock(self, entry: StoreVolume, superblock: Superblock | None) -> None:
        """Note it, and what this Store has to do with the volume; before the volume is used."""
        entry.superblock = superblock
        self.control.set_generation(entry.slot, superblock.generation if superblock is not None else 0)
        assign_duty(entry, entry.folder.identity.store_id)
        standing = standing_of(entry)
        entry.reign = standing.epoch
        self.control.set_standing(entry.slot, standing.pack(), entry.reign)

    async def recover_all(self) -> None:
        """Open all volumes that are still to be recovered, several of each folder at the same time."""
        waiting = [entry for entry in self if self.state(entry) is VolumeState.RECOVERING]
        await asyncio.gather(*(self.recover(entry) for entry in waiting))

    async def recover(self, entry: StoreVolume) -> None:
        """Open one volume; when that fails it is set aside, with the reason."""
        entry.waits_for_space = False
        try:
            volume, stat = await entry.folder.run(open_volume, entry, self.progress)
        except StoreStopping:
            return
        except OutOfSpace as error:
            entry.waits_for_space = True
            entry.reason = f"waits for space on the disk: {error}"
            entry.revision += 1
            _log.error("volume %d %s", entry.id, entry.reason)
            return
        except HaystackError as error:
            self.fail(entry, str(error))
            return
        except Exception as error:  # one volume that nobody can explain must not keep the others from being served
            _log.exception("volume %d cannot be recovered", entry.id)
            self.fail(entry, f"unexpected {type(error).__name__}: {error}")
            return
        if entry.superblock is None:
            self._set_superblock(entry, volume.superblock)
        entry.volume, entry.durable_tail, entry.superblock = volume, stat.size_bytes, volume.superblock
        self._publish_damage(entry, volume)
        self._note(entry, stat)
        self.judge(entry)

    def replace(self, entry: StoreVolume, volume: Volume) -> None:
        """Go on with the next generation of a volume, which is durable as it is; the workers know of it already."""
        entry.volume, entry.superblock = volume, volume.superblock
        entry.durable_tail = volume.tail()
        self._note(entry, volume.stat())
        self.judge(entry)
        self._on_change()

    def progress(self, done_bytes: int, all_bytes: int) -> None:
        """For those who walk over a whole volume. Raises StoreStopping when they should not go on."""
        if self._stopping:
            raise StoreStopping("the Store is stopping")

    def _publish_damage(self, entry: StoreVolume, volume: Volume) -> None:
        lines = volume.report.lines()
        for line in lines[:MAX_REPORT_LINES]:
            _log.warning("volume %d: %s", entry.id, line)
        if len(lines) > MAX_REPORT_LINES:
            _log.warning("volume %d: %d more such messages are left out", entry.id, len(lines) - MAX_REPORT_LINES)
        cell = self.control.slot_cell(entry.slot, Slot.DAMAGE_BYTES)
        self.control.cells[cell] = sum(damage.length for damage in volume.report.damage)

    # -- watching

    async def refresh(self, entry: StoreVolume) -> None:
        """Look at sizes and counts of a volume and judge its state by them."""
        volume = entry.volume
        if volume is None:
            return
        try:
            stat = await entry.run(Volume.stat)
        except IndexDamaged as error:
            self.fail(entry, str(error), Reason.INDEX)
            return
        except HaystackError as error:
            self.fail(entry, str(error))
            return
        if entry.volume is not volume:
            return  # compacted meanwhile: this is of the file before
        self._note(entry, stat)
        self.judge(entry)

    def _note(self, entry: StoreVolume, stat: VolumeStat) -> None:
        if stat != entry.stat:
            entry.stat = stat
            entry.revision += 1
        cells, base = self.control.cells, self.control.slot_cell(entry.slot, Slot.SIZE_BYTES)
        values = (
            stat.size_bytes,
            stat.live_count,
            stat.live_bytes,
            stat.deleted_count,
            stat.deleted_bytes,
            stat.index_bytes,
        )
        for index, value in enumerate(values):
            cells[base + index] = value

    def judge(self, entry: StoreVolume) -> None:
        """Set the state that follows from the volume's size and its folder, and notice what a worker has set."""
        state = self.state(entry)
        if state is VolumeState.FAILED:
            if not entry.reason and self.control.reason(entry.slot) is Reason.INDEX:
                self.fail(entry, "its index is damaged", Reason.INDEX)
            elif not entry.reason:
                self.fail(entry, "a write could not be made durable; restart the Store to recover it")
            return
        if entry.volume is None or entry.stat is None:
            return
        wanted, reason = volume_state(entry.stat.size_bytes, entry.max_bytes, entry.folder.state)
        wanted, reason = state_of_copy(wanted, reason, entry.duty)
        if wanted is state and self.control.reason(entry.slot) is reason:
            return
        self.control.set_state(entry.slot, wanted, reason)
        entry.reason = _REASONS[reason]
        entry.revision += 1
        if state is not VolumeState.RECOVERING:
            _log.info("volume %d is %s%s", entry.id, wanted.name.lower(), f": {entry.reason}" if entry.reason else "")
        self._on_change()

    def changed(self) -> None:
        """Something that others should know soon has changed."""
        self._on_change()

    def fail(self, entry: StoreVolume, reason: str, kind: Reason = Reason.NONE) -> None:
        """Set a volume aside until the Store is restarted; or, for ``Reason.INDEX``, until its index was made anew."""
        self.control.set_state(entry.slot, VolumeState.FAILED, kind)
        entry.reason = reason
        entry.revision += 1
        entry.dirty_since = None
        _log.error("volume %d is set aside: %s", entry.id, reason)
        if entry.volume is not None:
            # It is not checkpointed any more: an fsync after a failed one may report success and mean nothing.
            entry.volume.failed = reason
        self._on_change()

    def fail_folder(self, folder: DataFolder, reason: str) -> None:
        """Set a folder with its volumes aside until the Store is restarted."""
        folder.fail(reason)
        _log.error("data folder %s is set aside: %s", folder.path, reason)
        for entry in self.of(folder):
            if self.state(entry) is not VolumeState.FAILED:
                self.fail(entry, f"data folder {folder.path}: {reason}")
        self._on_change()

    async def checkpoint(self, entry: StoreVolume) -> None:
        """Make volume and index durable. A failure sets the volume aside."""
        volume = entry.volume
        if volume is None or volume.failed is not None:
            return
        entry.dirty_since = None
        try:
            tail = await entry.run(checkpoint_volume)
        except OutOfSpace as error:
            _log.warning("volume %d: no checkpoint now: %s", entry.id, error)
            return
        except HaystackError as error:
            self.fail(entry, str(error))
            return
        if entry.volume is not volume:
            return  # compacted meanwhile: this is of the file before
        known = max(entry.durable_tail, self.control.durable_tail(entry.slot))
        entry.durable_tail = max(entry.durable_tail, tail)
        if tail > known:
            # A worker died before it could tell; these needles are to be confirmed too.
            self._on_change()

    async def doubt(self, entry: StoreVolume) -> None:
        """Have the index of a failed volume rebuilt at the next start: nobody knows what a failed fsync lost."""
        entry.doubted = True
        try:
            await entry.folder.run(DirtyMarker(entry.path, DOUBTFUL).renew)
        except HaystackError as error:
            _log.error("volume %d: check it after the next start: %s", entry.id, error)

    async def forget_dead_readers(self) -> None:
        """After a worker has died: let the indexes use the pages again that it was reading."""
        for entry in self:
            if entry.volume is None or entry.folder.failed:
                continue
            try:
                await entry.run(_forget_dead_readers)
            except HaystackError as error:
                self.fail(entry, str(error))

    # -- making

    async def create(self, new: NewVolume) -> tuple[StoreVolume, bool]:
        """Make a volume; returns it, and whether it is new (False: it was there with this uuid already).

        Raises VolumeExists, VolumeUnavailable, InvalidRequest, OutOfSpace, DiskError.
        """
        async with self._creating:
            existing = self._by_id.get(new.volume)
            if existing is not None:
                if existing.require_open().superblock.uuid != new.uuid.bytes:
                    raise VolumeExists(f"volume {new.volume} is here already, and it is another one")
                return existing, False
            if len(self._by_id) >= MAX_VOLUMES:
                raise OutOfSpace(f"this Store has {MAX_VOLUMES} volumes, the most that it can keep; add another Store")
            folder = self.folder_for(new.folder)
            path = folder.path / f"{new.volume}.vol"
            max_bytes = new.max_bytes if new.max_bytes is not None else self._max_volume_bytes
            volume, stat = await folder.run(make_volume, path, new, max_bytes, folder.identity.store_id)
            entry = self._add(new.volume, folder, path, max_bytes, new.epoch)
            entry.membership = new.membership
            self._set_superblock(entry, volume.superblock)
            entry.volume, entry.durable_tail = volume, stat.size_bytes
            self._note(entry, stat)
            self.judge(entry)
            _log.info("volume %d made in %s", new.volume, folder.path)
            return entry, True

    async def adopt(
        self, volume: int, folder: DataFolder, put_in_place: Callable[[], Path], max_bytes: int | None, epoch: int
    ) -> StoreVolume:
        """Take in a volume whose file was made by somebody else, and open it.

        Parameters
        ----------
        put_in_place: gives the file its name, on a thread; what else is known of the volume is there already.

        Raises VolumeExists, OutOfSpace, DiskError.
        """
        async with self._creating:
            if volume in self._by_id:
                raise VolumeExists(f"volume {volume} is here already")
            if len(self._by_id) >= MAX_VOLUMES:
                raise OutOfSpace(f"this Store has {MAX_VOLUMES} volumes, the most that it can keep; add another Store")
            limit = max_bytes if max_bytes is not None else self._max_volume_bytes
            settings: dict[str, object] = {"maxBytes": limit, "epoch": epoch}
            await folder.run(_note_settings, folder.path / VOLUMES_FILE, volume, settings)
            path = await folder.run(put_in_place)
            self._register(volume, folder, path, settings)
            entry = self.get(volume)
        await self.recover(entry)
        self._on_change()
        return entry

    def forget(self, entry: StoreVolume) -> None:
        """Take a volume out of all lists; its files are gone, and no worker has it open."""
        self.control.remove_volume(entry.slot)
        del self._by_id[entry.id], self._by_slot[entry.slot]
        self._on_change()

    def folder_for(self, folder_id: str | None) -> DataFolder:
        """The data folder for a new volume. Raises OutOfSpace, VolumeUnavailable, InvalidRequest."""
        if folder_id is None:
            rooms = (Room(one.number, one.state, one.free_bytes, len(self.of(one))) for one in self.folders)
            number = best_folder(rooms)
            if number is None:
                raise OutOfSpace("no data folder of this Store has room for a volume: each is full or has failed")
            return self.folders[number]
        for folder in self.folders:
            if folder.id == folder_id:
                if folder.state is FolderState.FULL:
                    raise OutOfSpace(f"data folder {folder.path} is full")
                if folder.failed:
                    raise VolumeUnavailable(f"data folder {folder.path} has failed: {folder.error}")
                return folder
        raise InvalidRequest(f"this Store has no data folder with id {folder_id[:40]}")

    # -- closing

    def stop_walks(self) -> None:
        """Have recoveries and checks end soon; what a recovery did not finish is done at the next start."""
        self._stopping = True

    async def close(self) -> None:
        """Checkpoint and close all volumes, except those of folders that have failed: their disks may not answer."""
        await asyncio.gather(*(self._close(entry) for entry in self if not entry.folder.failed))

    async def _close(self, entry: StoreVolume) -> None:
        if entry.volume is None:
            return
        try:
            if entry.volume.failed is not None and not entry.doubted:
                await self.doubt(entry)
            await entry.folder.run(entry.volume.close)
        except HaystackError as error:
            _log.error("volume %d was not closed cleanly: %s", entry.id, error)


def _forget_dead_readers(volume: Volume) -> None:
    volume.index.forget_dead_readers()


def _note_settings(table: Path, volume: int, settings: dict[str, object]) -> None:
    write_table(table, read_table(table) | {volume: settings})
