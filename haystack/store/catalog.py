"""The volumes that a worker serves: opened when first asked for, found again by the control block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haystack.errors import HaystackError, VolumeNotFound, VolumeUnavailable
from haystack.store.control import ControlBlock, VolumeCell, VolumeState
from haystack.volume.append import Appended, Operation
from haystack.volume.mapping import VolumeMap
from haystack.volume.volume import Volume


class ServedVolume:
    """One volume as a worker has it open.

    ``reads`` and ``bytes_read`` are counted here and moved into the control block by :meth:`Catalog.flush`: the hot
    path then costs no shared memory.
    """

    __slots__ = (
        "bytes_read",
        "control",
        "epoch_cell",
        "folder",
        "map",
        "number",
        "reads",
        "slot",
        "stats_base",
        "synced",
        "volume",
    )

    def __init__(
        self,
        number: int,
        slot: int,
        folder: Path,
        volume: Volume,
        control: ControlBlock,
        *,
        worker: int,
        synced: bool,
    ) -> None:
        self.number = number
        self.slot = slot
        self.folder = folder
        self.volume = volume
        self.map = VolumeMap(volume.file.read_fd)
        self.control = control
        self.epoch_cell = control.epoch_cell(slot)
        self.stats_base = control.volume_base(worker, slot)
        self.synced = synced
        self.reads = 0
        self.bytes_read = 0

    def __str__(self) -> str:
        return str(self.volume)

    @property
    def epoch(self) -> int:
        """Cache epoch: read it before looking anything up, and keep it with what was found."""
        return self.control.cells[self.epoch_cell]

    def count(self, cell: VolumeCell, amount: int = 1) -> None:
        self.control.cells[self.stats_base + cell] += amount

    # What the committer calls, on its threads.

    def append(self, operations: Sequence[Operation]) -> Appended:
        """Append, and void what the workers have cached when it changed earlier answers."""
        appended = self.volume.append(operations)
        if appended.changed:
            self.control.cells[self.epoch_cell] = appended.tail
        if not self.synced:
            self._publish(appended.tail)
        return appended

    def sync(self, tail: int) -> None:
        """Make durable and publish how far; a failure sets the volume aside for all workers."""
        try:
            self.volume.sync(tail)
        except HaystackError:
            self.control.set_state(self.slot, VolumeState.FAILED)
            raise
        self._publish(tail)

    def _publish(self, tail: int) -> None:
        cell = self.stats_base + VolumeCell.DURABLE_TAIL
        if tail > self.control.cells[cell]:
            self.control.cells[cell] = tail


class Catalog:
    """All volumes of the Store by number.

    Parameters
    ----------
    folders: data folders in the order in which the control block numbers them.
    worker: this worker's number.
    synced: appends are followed by a sync, so an append alone is not yet to be told to the Directory.
    """

    def __init__(self, control: ControlBlock, folders: Sequence[Path], *, worker: int, synced: bool) -> None:
        self.control = control
        self._folders = tuple(folders)
        self._worker = worker
        self._synced = synced
        self._seen_catalog = -1
        self._slots: dict[int, int] = {}
        self.open: dict[int, ServedVolume] = {}

    def get(self, number: int) -> ServedVolume:
        """The volume, opened if need be.

        Raises VolumeNotFound when this Store has no such volume, VolumeUnavailable when it cannot serve now, DiskError.
        """
        served = self.open.get(number)
        if served is not None and self._seen_catalog == self.control.catalog:
            return served
        self._refresh()
        served = self.open.get(number)
        return served if served is not None else self._open(number)

    def flush(self) -> None:
        """Move what was counted since the last time into the control block."""
        cells = self.control.cells
        for served in self.open.values():
            if served.reads:
                cells[served.stats_base + VolumeCell.READS] += served.reads
                cells[served.stats_base + VolumeCell.BYTES_READ] += served.bytes_read
                served.reads = served.bytes_read = 0

    def close(self) -> None:
        """Close all volumes."""
        self.flush()
        for served in self.open.values():
            served.volume.close()
        self.open.clear()

    def _refresh(self) -> None:
        catalog = self.control.catalog
        if catalog == self._seen_catalog:
            return
        self._slots = {view.volume: view.slot for view in self.control.slots()}
        self._seen_catalog = catalog
        for number, served in list(self.open.items()):
            if self._slots.get(number) != served.slot:
                del self.open[number]
                served.volume.close()

    def _open(self, number: int) -> ServedVolume:
        slot = self._slots.get(number)
        if slot is None:
            raise VolumeNotFound(
                f"volume {number} is not on this Store; ask the Directory: /dir/lookup?volumeId={number}"
            )
        view = self.control.slot(slot)
        if view.state is VolumeState.RECOVERING:
            raise VolumeUnavailable(f"volume {number} is being recovered; try again soon")
        if view.state is VolumeState.GONE:
            raise VolumeNotFound(f"volume {number} is not on this Store any more")
        folder = self._folders[view.folder]
        volume = Volume.attach(folder / f"{number}.vol", max_bytes=view.max_bytes)
        served = self.open[number] = ServedVolume(
            number, slot, folder, volume, self.control, worker=self._worker, synced=self._synced
        )
        return served
