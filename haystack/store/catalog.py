"""The volumes that a worker serves: opened when first asked for, found again by the control block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from haystack.errors import DiskError, HaystackError, IndexDamaged, VolumeMoved, VolumeNotFound, VolumeUnavailable
from haystack.store.control import ControlBlock
from haystack.store.control_cells import (
    Counter,
    FolderCell,
    FolderState,
    Reason,
    Slot,
    VolumeCell,
    VolumeState,
    tagged_tail,
)
from haystack.store.lanes import Lane
from haystack.store.replication.admission import MembershipChanged, merged, refusals
from haystack.store.replication.rules import Standing
from haystack.store.replication.served import ServedMembership
from haystack.volume.append import Guard
from haystack.volume.commit import Done, Submission
from haystack.volume.files import disk_error
from haystack.volume.index_records import IndexEntry
from haystack.volume.mapping import VolumeMap
from haystack.volume.operations import Appended, Operation, Outcome
from haystack.volume.volume import Volume

_log = logging.getLogger(__name__)

_WRITABLE = int(VolumeState.WRITABLE)

MAX_LOOKS = 8
"""Looks at a membership that changes all the time."""

MAX_OPEN_RANGES = 1024
"""Committed ranges behind a gap; the supervisor closes gaps that stay, so losing some costs a little time."""


class ServedVolume:
    """One volume as a worker has it open.

    ``reads``, ``bytes_read`` and ``busy_seconds`` (spent on reads) are counted here and moved into the control block by
    :meth:`Catalog.flush`: the hot path then costs no shared memory. Whoever uses the volume on a thread pins it
    meanwhile: closing a descriptor under a thread would let it read, or write, whatever file gets that number next.
    """

    __slots__ = (
        "_committing",
        "_open_ranges",
        "busy_seconds",
        "bytes_read",
        "control",
        "epoch_cell",
        "generation",
        "lane",
        "map",
        "membership",
        "moved",
        "number",
        "pins",
        "reads",
        "reign",
        "retired",
        "slot",
        "state_cell",
        "stats_base",
        "synced",
        "tag",
        "touched_cell",
        "volume",
    )

    def __init__(
        self,
        number: int,
        slot: int,
        lane: Lane,
        volume: Volume,
        control: ControlBlock,
        *,
        worker: int,
        synced: bool,
    ) -> None:
        self.number = number
        self.slot = slot
        self.lane = lane
        self.volume = volume
        self.generation = volume.superblock.generation
        self.tag = tagged_tail(self.generation, 0)
        self.moved = False
        """Another generation has taken its place."""
        self.map = VolumeMap(volume.file.read_fd)
        self.control = control
        self.epoch_cell = control.epoch_cell(slot)
        self.state_cell = control.slot_cell(slot, Slot.STATE)
        self.stats_base = control.volume_base(worker, slot)
        self.touched_cell = control.worker_base(worker) + Counter.TOUCHED
        self.membership = ServedMembership(control, slot, Path(volume.file.path), worker, self.generation)
        self.synced = synced
        self.reads = 0
        self.bytes_read = 0
        self.busy_seconds = 0.0
        self.pins = 0
        self.retired = False
        self.reign = 0
        """Under which the last append was made."""
        self._committing = threading.Lock()
        self._open_ranges: list[tuple[int, int]] = []
        """What all copies have, behind something that they may not have."""

    def __str__(self) -> str:
        return str(self.volume)

    @property
    def state(self) -> VolumeState:
        return self.control.state(self.slot)

    @property
    def writable(self) -> bool:
        """Whether its state is WRITABLE; cheaper than :attr:`state`."""
        return bool(self.control.cells[self.state_cell] == _WRITABLE)

    def count(self, cell: VolumeCell, amount: int = 1) -> None:
        """Count for this volume; on the event loop alone, or two threads would lose each other's counts."""
        self.control.cells[self.stats_base + cell] += amount

    def find(self, key: int, alternate: int) -> IndexEntry | None:
        """The index entry of a needle, deleted ones included. Raises IndexDamaged, which sets the volume aside."""
        self.control.cells[self.touched_cell] = self.slot + 1
        try:
            return self.volume.find(key, alternate)
        except IndexDamaged as error:
            self.set_aside(error)
            raise

    def set_aside(self, error: Exception) -> None:
        """Refuse writes in all workers from now on, until the Store has recovered the volume.

        It does that at its next start, and at once when nothing but the index is damaged.
        """
        if self.state is not VolumeState.FAILED:
            _log.error("volume %d is set aside: %s", self.number, error)
        reason = Reason.INDEX if isinstance(error, IndexDamaged) else Reason.NONE
        self.control.set_state(self.slot, VolumeState.FAILED, reason)

    def pin(self) -> None:
        """Keep it open until :meth:`unpin`."""
        self.pins += 1

    def unpin(self) -> None:
        self.pins -= 1
        if self.retired and not self.pins:
            self.volume.close()

    def retire(self) -> None:
        """Close it as soon as nobody has it pinned."""
        self.retired = True
        self.map.release()
        if not self.pins:
            self.volume.close()

    # What the committer calls, on its threads.

    def append(self, operations: Sequence[Operation]) -> Appended:
        """Append, and void what the workers have cached when it changed earlier answers.

        A disk that fails to write, or an index that cannot be trusted, sets the volume aside for all workers.
        Raises VolumeMoved when it was compacted meanwhile; see :meth:`Catalog.submit_again`.
        """
        if self.moved:
            raise VolumeMoved(f"volume {self.number}: compacted meanwhile")
        try:
            appended = self._append_as_member(operations)
        except (DiskError, IndexDamaged) as error:
            self.set_aside(error)
            raise
        if appended.changed:
            self.void_answers(appended.tail)
        if not self.synced:
            self.publish(appended.tail)
        return appended

    def _append_as_member(self, operations: Sequence[Operation]) -> Appended:
        """Append what the membership allows; it is looked at again under the append lock."""
        cells, cell = self.control.cells, self.membership.standing_cell
        for _ in range(MAX_LOOKS):
            packed = cells[cell]

            def guard(packed: int = packed) -> None:
                if cells[cell] != packed:
                    raise MembershipChanged(f"volume {self.number}: its membership has changed; try again")

            try:
                if not packed:
                    return self.volume.append(operations, guard)
                return self._append_some(operations, Standing.unpack(packed), guard)
            except MembershipChanged:
                continue
        raise MembershipChanged(f"volume {self.number}: its membership changes too often; try again")

    def _append_some(self, operations: Sequence[Operation], standing: Standing, guard: Guard) -> Appended:
        refused = refusals(operations, standing, self.number, self._hopeless)
        allowed = [operation for operation, error in zip(operations, refused, strict=True) if error is None]
        if not allowed:
            assert refused[0] is not None
            raise refused[0]
        self.reign = self.membership.reign
        appended = self.volume.append(allowed, guard)
        return replace(appended, outcomes=merged(refused, appended.outcomes))

    def _hopeless(self) -> str:
        now = self.membership.now()
        return self.lane.copies.hopeless(now) if now is not None and self.lane.copies is not None else ""

    def commit(self, start: int, end: int) -> None:
        """All copies have bytes ``start`` to ``end``; what was open behind an earlier gap may be closed by that."""
        with self._committing:
            self._open_ranges.append((start, end))
            self._open_ranges.sort()
            while self._open_ranges and self.membership.commit(*self._open_ranges[0]):
                self._open_ranges.pop(0)
            del self._open_ranges[:-MAX_OPEN_RANGES]

    def close_ranges(self) -> None:
        """Look whether another process has closed the gap before what was committed here."""
        if self._open_ranges:
            self.commit(self.membership.committed, self.membership.committed)

    def void_answers(self, tail: int) -> None:
        """What the workers have cached of it became wrong by the append that ended at ``tail``."""
        self.control.cells[self.epoch_cell] = self.tag | tail

    def sync(self, tail: int) -> None:
        """Make durable and publish how far; a failure sets the volume aside for all workers."""
        try:
            self.volume.sync(tail)
        except DiskError as error:
            self.set_aside(error)
            raise
        self.publish(tail)

    def begin_sync(self, tail: int) -> int:
        """The descriptor to be synced, see ``Volume.begin_sync``; -1 when there is nothing to do."""
        fd = self.volume.begin_sync(tail)
        if fd < 0:
            self.publish(tail)
        return fd

    def end_sync(self, tail: int, problem: int) -> None:
        """As :meth:`sync`, when the caller has called fdatasync; see ``Volume.end_sync``."""
        try:
            self.volume.end_sync(problem)
        except DiskError as error:
            self.set_aside(error)
            raise
        self.publish(tail)

    def publish(self, tail: int) -> None:
        """Note that everything below ``tail`` is durable."""
        cell = self.stats_base + VolumeCell.DURABLE_TAIL
        if self.tag | tail > self.control.cells[cell]:
            self.control.cells[cell] = self.tag | tail
            self.control.ring()


class Catalog:
    """All volumes of the Store by number.

    Parameters
    ----------
    lanes: one for each data folder, in the order in which the control block numbers them.
    worker: this worker's number.
    synced: appends are followed by a sync, so an append alone is not yet to be told to the Directory.
    """

    def __init__(self, control: ControlBlock, lanes: Sequence[Lane], *, worker: int, synced: bool) -> None:
        self.control = control
        self._lanes = tuple(lanes)
        self._worker = worker
        self._synced = synced
        self._seen_catalog = -1
        self._slots: dict[int, int] = {}
        self.open: dict[int, ServedVolume] = {}
        self._retired: list[ServedVolume] = []

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
                whole_microseconds = int(served.busy_seconds * 1e6)
                cells[served.stats_base + VolumeCell.READ_MICROSECONDS] += whole_microseconds
                served.busy_seconds -= whole_microseconds / 1e6
            served.close_ranges()

    def give_up(self) -> bool:
        """Close what the supervisor has taken out of service, though nobody asks for it.

        Returns whether somebody still holds on to such a volume: a thread that reads, a client that does not.
        """
        self._refresh()
        self._retired = [served for served in self._retired if served.pins or served.map.in_use]
        return bool(self._retired)

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
            if self._slots.get(number) != served.slot or served.state is VolumeState.RECOVERING:
                del self.open[number]
                served.retire()
                self._retired.append(served)
            elif self.control.generation(served.slot) > served.generation:
                self._leave(served)

    def _leave(self, served: ServedVolume) -> None:
        """Stop using a generation that was replaced. Its file stays as it is for whoever still reads it."""
        self.flush()
        del self.open[served.number]
        served.moved = True
        served.retire()

    def submit_again(self, operations: Sequence[Submission]) -> None:
        """Queue operations anew whose volume was compacted before they were carried out."""
        for appendable, operation, done in operations:
            assert isinstance(appendable, ServedVolume)
            try:
                served = self.successor(appendable)
            except HaystackError as error:
                done(error)
                continue
            served.pin()
            served.lane.submit(served, operation, partial(_unpin_and, served, done))

    def successor(self, left: ServedVolume) -> ServedVolume:
        """The volume as it is now, when ``left`` was replaced. Raises as :meth:`get`."""
        if self.open.get(left.number) is left:
            self._refresh()
        if self.open.get(left.number) is left:  # the supervisor has died before it could tell
            self._leave(left)
        served = self.get(left.number)
        if served.generation > self.control.generation(served.slot):
            self.control.next_generation(served.slot, served.generation)
        return served

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
        if self.control.cells[self.control.folder_cell(view.folder, FolderCell.STATE)] == FolderState.FAILED:
            # Opening it here could wait for that disk for ever, and with it all clients of this worker.
            raise VolumeUnavailable(f"volume {number} cannot be used: its data folder has failed")
        lane = self._lanes[view.folder]
        path = lane.folder / f"{number}.vol"
        try:
            volume = Volume.attach(path, max_bytes=view.max_bytes)
        except OSError as error:
            raise disk_error(str(path), "open it", error) from error
        served = self.open[number] = ServedVolume(
            number, slot, lane, volume, self.control, worker=self._worker, synced=self._synced
        )
        return served


def _unpin_and(served: ServedVolume, done: Done, outcome: Outcome) -> None:
    served.unpin()
    done(outcome)
