"""The control block: the memory that the supervisor of a Store and its workers share.

One memfd, mapped by all. A header, some cells a data folder, one slot a volume, one region a worker; every cell is an
unsigned 64-bit number, so a cell is read and written whole. A worker adds only to its own region, the supervisor writes
the rest, readers sum over the regions: nobody needs a lock. Two cells of a slot may be written by workers too, in a way
that bears it:

- ``EPOCH``: set after a commit to the tail that this commit made, a value that no other commit has. Answers cached
  under another epoch are void, so an old value that arrives late can only cost a cache entry.
- Tails that workers publish carry the volume's generation (``tagged_tail``), so that what was durable of a file that a
  compaction has replaced says nothing of the one that is there now.
- ``STATE``: a worker may only set ``FAILED``, which nothing but a restart of the Store takes back (unless the volume
  was never open). ``set_state`` then sets ``FAILED_ONCE`` too, so that the supervisor, which may write another state at
  that moment, cannot undo it.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from haystack.errors import OutOfSpace
from haystack.store.control_cells import (
    CELL_BYTES,
    FOLDER_CELLS,
    FOLDERS_START,
    HEADER_CELLS,
    HISTOGRAM_BUCKETS,
    HISTOGRAM_CELLS,
    HISTOGRAM_START,
    LAYOUT_VERSION,
    MAGIC,
    MAX_VOLUMES,
    REGION_CELLS,
    REGIONS_START,
    SAMPLES_START,
    SLOT_CELLS,
    SLOTS_START,
    TAIL_BITS,
    VOLUME_CELLS,
    WORKER_CELLS,
    FolderCell,
    Header,
    Histogram,
    Reason,
    Slot,
    VolumeCell,
    VolumeState,
    tagged_tail,
)


@dataclass(frozen=True, slots=True)
class SlotView:
    """A volume's slot as read at one moment."""

    slot: int
    volume: int
    folder: int
    state: VolumeState
    epoch: int
    max_bytes: int
    standing: int
    reason: Reason


class ControlBlock:
    """The shared memory of one Store; make it with :meth:`create` in the supervisor, :meth:`attach` in a worker.

    ``cells`` is the whole block as a memoryview of 64-bit numbers: the hot path counts with ``cells[i] += 1``.
    """

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._map = mmap.mmap(fd, _block_bytes(workers))
        self.cells = memoryview(self._map).cast("Q")
        self.bell_fd = self.cells[Header.BELL]
        self._made_here = False

    @classmethod
    def create(cls, workers: int) -> ControlBlock:
        """A new block for this many workers; its descriptors are inheritable by them."""
        fd = os.memfd_create("haystack-control", 0)
        os.ftruncate(fd, _block_bytes(workers))
        block = cls(fd, workers)
        block.bell_fd = block.cells[Header.BELL] = os.eventfd(0, os.EFD_NONBLOCK)
        block._made_here = True
        block.cells[Header.MAGIC] = MAGIC
        block.cells[Header.VERSION] = LAYOUT_VERSION
        block.cells[Header.WORKERS] = workers
        return block

    @classmethod
    def attach(cls, fd: int) -> ControlBlock:
        """Open the block behind an inherited descriptor. Raises ValueError when it is none."""
        head = memoryview(os.pread(fd, HEADER_CELLS * CELL_BYTES, 0)).cast("Q")
        if len(head) != HEADER_CELLS or head[Header.MAGIC] != MAGIC or head[Header.VERSION] != LAYOUT_VERSION:
            raise ValueError(f"descriptor {fd} is no control block of this release")
        return cls(fd, head[Header.WORKERS])

    def close(self) -> None:
        """Unmap and close."""
        self.cells.release()
        self._map.close()
        os.close(self.fd)
        if self._made_here:  # whoever attached shares the number
            os.close(self.bell_fd)

    # -- waking the supervisor

    def listen(self) -> None:
        """Have the next :meth:`ring` of a worker wake us (supervisor). Look afterwards: what came before is silent."""
        self.cells[Header.LISTENING] = 1

    def ring(self) -> None:
        """Wake the supervisor if it listens (worker, any thread): there is something new to look at."""
        if self.cells[Header.LISTENING]:
            self.cells[Header.LISTENING] = 0
            os.eventfd_write(self.bell_fd, 1)

    # -- volumes

    @property
    def catalog(self) -> int:
        """Rises with every volume added, removed or taken out of service."""
        return self.cells[Header.CATALOG]

    def add_volume(self, volume: int, folder: int, state: VolumeState, *, max_bytes: int) -> int:
        """Give a volume a slot (supervisor), without a membership. Raises OutOfSpace when all are taken."""
        slot = self._free_slot()
        base = _slot_base(slot)
        cells = self.cells
        cells[base + Slot.FOLDER] = folder
        cells[base + Slot.EPOCH] = _void_epoch()
        cells[base + Slot.MAX_BYTES] = max_bytes
        for cell in range(base + Slot.REASON, base + SLOT_CELLS):
            cells[cell] = 0
        cells[base + Slot.STANDING] = 0
        cells[base + Slot.STATE] = state
        for worker in range(self.workers):
            start = self.volume_base(worker, slot)
            for cell in range(start, start + VOLUME_CELLS):
                cells[cell] = 0
        cells[base + Slot.VOLUME] = volume  # last: a slot with a volume id is complete
        cells[Header.CATALOG] += 1
        return slot

    def remove_volume(self, slot: int) -> None:
        """Take a volume out (supervisor); what the workers have cached of it is void."""
        base = _slot_base(slot)
        self.cells[base + Slot.STATE] = VolumeState.GONE
        self.cells[base + Slot.VOLUME] = 0
        self.cells[Header.CATALOG] += 1
        self.cells[base + Slot.EPOCH] = _void_epoch()

    def take_out(self, slot: int) -> None:
        """Have all workers close a volume (supervisor); they look at the catalog a few times a second, also when idle.

        In this order: whoever sees the new epoch must look at the catalog before it opens anything again.
        """
        base = _slot_base(slot)
        self.cells[base + Slot.REASON] = Reason.NONE
        self.cells[base + Slot.STATE] = VolumeState.RECOVERING
        self.cells[Header.CATALOG] += 1
        self.cells[base + Slot.EPOCH] = _void_epoch()

    def generation(self, slot: int) -> int:
        """Generation of the volume's file."""
        return self.cells[_slot_base(slot) + Slot.GENERATION]

    def set_generation(self, slot: int, generation: int) -> None:
        """Say of which generation a volume's file is (supervisor), before anybody uses it."""
        self.cells[_slot_base(slot) + Slot.GENERATION] = generation

    def next_generation(self, slot: int, generation: int) -> None:
        """Have all workers open a volume anew, since another file has taken its place.

        To be called before anybody can append to that. By the supervisor, on any thread; by a worker when the
        supervisor has died before it could. In this order, see :meth:`take_out`.
        """
        self.set_generation(slot, generation)
        self.cells[Header.CATALOG] += 1
        self.cells[_slot_base(slot) + Slot.EPOCH] = _void_epoch()

    def forget_tails(self, slot: int) -> None:
        """Forget how far a volume was durable (supervisor), while no worker has it open: it is to be changed.

        What all copies have is kept, see :meth:`limit_committed`.
        """
        self.cells[_slot_base(slot) + Slot.COMMITTED_BASE] = self.committed_tail(slot)
        for worker in range(self.workers):
            for cell in (VolumeCell.DURABLE_TAIL, VolumeCell.COMMITTED_TAIL):
                self.cells[self.volume_base(worker, slot) + cell] = 0
        # What is written down on disk is taken up again if it still holds, see haystack.store.replication.committed.
        self.cells[_slot_base(slot) + Slot.COMMITTED_BASE] = 0

    def limit_committed(self, slot: int, tail: int) -> None:
        """After :meth:`forget_tails`: the volume ends at ``tail`` now."""
        cell = _slot_base(slot) + Slot.COMMITTED_BASE
        self.cells[cell] = min(self.cells[cell], tagged_tail(self.generation(slot), tail))

    def slots(self) -> Iterator[SlotView]:
        """All volumes."""
        for slot in range(self.cells[Header.SLOTS]):
            view = self.slot(slot)
            if view.volume:
                yield view

    def slot(self, slot: int) -> SlotView:
        """One slot as it is now."""
        base = _slot_base(slot)
        row = self.cells[base : base + SLOT_CELLS]
        return SlotView(
            slot,
            row[Slot.VOLUME],
            row[Slot.FOLDER],
            VolumeState(row[Slot.STATE]),
            row[Slot.EPOCH],
            row[Slot.MAX_BYTES],
            row[Slot.STANDING],
            Reason(row[Slot.REASON]),
        )

    def state(self, slot: int) -> VolumeState:
        return VolumeState(self.cells[_slot_base(slot) + Slot.STATE])

    def reason(self, slot: int) -> Reason:
        return Reason(self.cells[_slot_base(slot) + Slot.REASON])

    def set_state(self, slot: int, state: VolumeState, reason: Reason = Reason.NONE) -> None:
        """Set a volume's state; FAILED stays, whatever is set afterwards."""
        base = _slot_base(slot)
        cells = self.cells
        if state == VolumeState.FAILED:
            if reason is Reason.INDEX and cells[base + Slot.STATE] == VolumeState.FAILED:
                return  # what it failed of before may be worse, and is not mended by another index
            cells[base + Slot.FAILED_ONCE] = 1
        cells[base + Slot.REASON] = reason
        cells[base + Slot.STATE] = state
        if cells[base + Slot.FAILED_ONCE]:
            cells[base + Slot.STATE] = VolumeState.FAILED

    def try_again(self, slot: int) -> None:
        """Take FAILED back (supervisor), of a volume that nobody could open: what kept it from that is mended."""
        base = _slot_base(slot)
        self.cells[base + Slot.FAILED_ONCE] = 0
        self.cells[base + Slot.STATE] = VolumeState.RECOVERING

    def set_standing(self, slot: int, standing: int, reign: int) -> None:
        """Publish a change of a volume's membership (supervisor), also one that leaves both numbers as they are.

        Appends look at it under their lock: who takes and releases that lock afterwards knows that none goes on under
        the membership before.
        """
        base, cells = _slot_base(slot), self.cells
        cells[base + Slot.MEMBERS_VERSION] += 1
        cells[base + Slot.REIGN] = reign
        cells[base + Slot.STANDING] = standing
        cells[base + Slot.MEMBERS_CHANGED_MS] = time.monotonic_ns() // 1_000_000
        cells[base + Slot.MEMBERS_VERSION] += 1

    def standing(self, slot: int) -> tuple[int, int, int]:
        """Standing, reign and version of a volume's membership, as they belong together."""
        base, cells = _slot_base(slot), self.cells
        while True:
            version = cells[base + Slot.MEMBERS_VERSION]
            found = cells[base + Slot.STANDING], cells[base + Slot.REIGN], version
            if not version & 1 and cells[base + Slot.MEMBERS_VERSION] == version:
                return found

    def slot_cell(self, slot: int, cell: Slot) -> int:
        """Index into ``cells`` of a cell of a volume's slot."""
        return _slot_base(slot) + cell

    def epoch_cell(self, slot: int) -> int:
        """Index into ``cells`` of a slot's cache epoch."""
        return _slot_base(slot) + Slot.EPOCH

    def void_caches(self) -> None:
        """Make every cached entry of every worker void, e.g. after a worker died between a commit and its epoch."""
        for slot in range(self.cells[Header.SLOTS]):
            self.cells[self.epoch_cell(slot)] = _void_epoch()

    def _free_slot(self) -> int:
        used = self.cells[Header.SLOTS]
        for slot in range(used):
            if not self.cells[_slot_base(slot) + Slot.VOLUME]:
                return slot
        if used >= MAX_VOLUMES:
            raise OutOfSpace(f"this Store has {MAX_VOLUMES} volumes, the most that it can keep; add another Store")
        self.cells[Header.SLOTS] = used + 1
        return used

    # -- data folders

    def folder_cell(self, folder: int, cell: FolderCell) -> int:
        """Index into ``cells`` of a cell of a data folder; folders are numbered as the Store was given them."""
        return FOLDERS_START + folder * FOLDER_CELLS + cell

    # -- workers

    def worker_base(self, worker: int) -> int:
        """Index into ``cells`` of a worker's counters."""
        return REGIONS_START + worker * REGION_CELLS

    def volume_base(self, worker: int, slot: int) -> int:
        """Index into ``cells`` of a worker's cells for a volume."""
        return self.worker_base(worker) + WORKER_CELLS + slot * VOLUME_CELLS

    def samples_base(self, worker: int) -> int:
        """Index into ``cells`` of a worker's ring of samples: how many it ever held, then the ring."""
        return self.worker_base(worker) + SAMPLES_START

    def counter(self, counter: int) -> int:
        """A counter (or status cell) summed over the workers."""
        return sum(self.cells[self.worker_base(worker) + counter] for worker in range(self.workers))

    def histogram(self, histogram: Histogram) -> tuple[list[int], int]:
        """Buckets and sum (microseconds) over the workers."""
        start = HISTOGRAM_START + histogram * HISTOGRAM_CELLS
        buckets = [self.counter(start + index) for index in range(HISTOGRAM_BUCKETS)]
        return buckets, self.counter(start + HISTOGRAM_BUCKETS)

    def volume_sum(self, slot: int, cell: VolumeCell) -> int:
        """A volume's cell summed over the workers."""
        return sum(self.cells[self.volume_base(worker, slot) + cell] for worker in range(self.workers))

    def durable_tail(self, slot: int) -> int:
        """How far the volume is known to be durable; 0 before the first append since the Store's start."""
        cells = self.cells
        found = max(cells[self.volume_base(worker, slot) + VolumeCell.DURABLE_TAIL] for worker in range(self.workers))
        generation_tag = tagged_tail(self.generation(slot), 0)
        return found - generation_tag if found >> TAIL_BITS == generation_tag >> TAIL_BITS else 0

    def committed_tail(self, slot: int) -> int:
        """Below this all copies in sync are known to be equal; 0 when nothing is known."""
        cells = self.cells
        base = cells[_slot_base(slot) + Slot.COMMITTED_BASE]
        published = (
            cells[self.volume_base(worker, slot) + VolumeCell.COMMITTED_TAIL] for worker in range(self.workers)
        )
        found = max(base, *published)
        generation_tag = tagged_tail(self.generation(slot), 0)
        return found - generation_tag if found >> TAIL_BITS == generation_tag >> TAIL_BITS else 0


def _void_epoch() -> int:
    """A value that no cached answer has: tails are multiples of 8, so an odd one differs from all past and future."""
    return int.from_bytes(os.urandom(7), "little") << 1 | 1


def _slot_base(slot: int) -> int:
    return SLOTS_START + slot * SLOT_CELLS


def _block_bytes(workers: int) -> int:
    return (REGIONS_START + workers * REGION_CELLS) * CELL_BYTES
