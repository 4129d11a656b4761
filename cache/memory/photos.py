"""The keeper's side of the shared memory: what is kept, and when space may be used again.

Invariants

- **Nothing is overwritten while somebody may be reading it.** A worker says which entry it is looking at (one cell of
  its area), and only then compares the entry's generation. The keeper first voids the generation, then lets a grace
  pass in which stores become visible everywhere, then looks at what the workers are looking at, and a grace later at
  what they have pinned. So either the worker sees that the entry is void, or the keeper sees the worker. Only then
  descriptor and granules are given to another photo.
- **What the table gives is verified.** A photo comes into the table when all of its data is there and its checksum was
  compared; until then it can be opened only by a worker that the keeper told about it.
- **A generation is never given twice**, so (entry, generation) names one photo for ever.
- **A name is in the table at most once**; the newest photo takes the place of an older one in one step.
- **The sum is kept**: see :mod:`cache.memory.plan`.

One thread, one process. Workers come in through :mod:`cache.memory.reader`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cache.memory.areas import WorkerArea
from cache.memory.descriptors import Descriptors, Kept, NewPhoto
from cache.memory.filling import Filling
from cache.memory.layout import (
    DESCRIPTOR_BYTES,
    GRANULE_BYTES,
    MAX_HEAD_BYTES,
    MAX_META_BYTES,
    Runs,
    granules,
    index_bytes,
    name_bits,
)
from cache.memory.limbo import Limbo
from cache.memory.plan import MemoryPlan
from cache.memory.runs_of import data_views, meta_of, runs_of
from cache.memory.shared import SharedMemory
from cache.memory.space import Space
from cache.memory.table import NameTable
from cache.policies.policy import Policy
from haystack.errors import TooLarge

FREE_ENTRIES: Final = 64
"""Entries that are kept free, as ``plan.reserve_granules`` are."""

OPEN_AT_ONCE: Final = 4096
"""Photos that are on their way into the arena at the same time."""


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What a worker needs to come in: descriptors of the arena, the index and its own area, for ``MemoryReader``."""

    fds: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """How the memory is used. Bytes; counts since the start.

    Parameters
    ----------
    entries: photos that are kept; data_bytes: their data.
    arena_used_bytes: what they, and what waits, take of the arena; arena_bytes: its size now.
    waiting_bytes: what was taken out and is still in use; pinned_bytes: of that, what workers have pinned.
    overhead_bytes: what entries that were ever used take beside the arena, and the table.
    total_bytes: everything, with the allowance for the processes.
    holes: free runs of the arena.
    refused: photos that found no room. hits_lost: hits that workers could not note.
    """

    limit_bytes: int
    total_bytes: int
    entries: int
    data_bytes: int
    arena_bytes: int
    arena_used_bytes: int
    waiting_bytes: int
    pinned_bytes: int
    overhead_bytes: int
    holes: int
    evictions: int
    evicted_bytes: int
    dropped: int
    refused: int
    hits_lost: int


class PhotoMemory:
    """Keeps photos; see the module's text.

    Parameters
    ----------
    policy: empty; what goes first when space is needed.
    clock: seconds, monotonic.

    ``evicted`` may be set to a function that is called with what the policy gives up and views of its data, before the
    data goes.
    """

    def __init__(self, plan: MemoryPlan, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan = plan
        self.policy = policy
        self.evicted: Callable[[Kept, list[memoryview]], None] | None = None
        self._clock = clock
        self._arena = SharedMemory("haystack-cache-arena", plan.arena_bytes)
        self.arena = self._arena.view
        self._index = SharedMemory("haystack-cache-index", index_bytes(plan.max_entries))
        border = plan.max_entries * DESCRIPTOR_BYTES
        self.descriptors = Descriptors(self._index.view[:border])
        self._table = NameTable(self._index.view[border:].cast("Q"))
        self._space = Space(plan, policy.entry_bytes, self._arena.give_back)
        self._limbo = Limbo(self._space.give)
        self._areas: dict[int, WorkerArea] = {}
        self._fillings: dict[int, Filling] = {}
        self._entries = self._data_bytes = 0
        self.filled = 0
        """Photos that were ever kept."""
        self._evictions = self._evicted_bytes = self._dropped = self._refused = self._hits_lost = 0
        self._fit_policy()

    def close(self) -> None:
        """Give all of it back. Workers that have it mapped keep it until they end."""
        for worker in list(self._areas):
            self.close_worker(worker)
        self._arena.close()
        self._index.close()

    # -- workers

    def open_worker(self, worker: int) -> WorkerShare:
        """Before a worker is started, or started again: what it needs. What the former one had pinned is given up."""
        self.close_worker(worker)
        area = self._areas[worker] = WorkerArea(self.plan.max_entries)
        return WorkerShare((self._arena.read_fd, self._index.read_fd, area.fd))

    def close_worker(self, worker: int) -> None:
        """A worker has ended: its process is gone for certain."""
        area = self._areas.pop(worker, None)
        if area is not None:
            self.policy.hits(area.take_hits())
            self._hits_lost += area.lost_hits
            area.close()

    def take_hits(self) -> int:
        """Tell the policy what the workers were asked for; returns how many hits that were."""
        count = 0
        for area in self._areas.values():
            hits = area.take_hits()
            self.policy.hits(hits)
            count += len(hits)
        return count

    # -- keeping

    def begin(self, photo: NewPhoto) -> Filling | None:
        """Room for a photo, for which others are evicted as needed.

        None when there is no room now (``waiting_bytes`` tells whether there soon may be), or it is larger than
        ``plan.max_photo_bytes``. Raises TooLarge when head or metadata are longer than allowed.
        """
        if len(photo.head) > MAX_HEAD_BYTES or len(photo.meta) > MAX_META_BYTES:
            raise TooLarge(
                f"photo {photo.key:x}: a head of {len(photo.head)} and metadata of {len(photo.meta)} bytes; at most "
                f"{MAX_HEAD_BYTES} and {MAX_META_BYTES} can be kept. Pass it through"
            )
        if photo.data_bytes > self.plan.max_photo_bytes or len(self._fillings) >= OPEN_AT_ONCE:
            self._refused += 1
            return None
        sizes = len(photo.head), len(photo.meta), photo.data_bytes
        wanted = granules(sum(sizes)) + 1
        self._make_room(wanted)
        place = self._space.take(*sizes)
        if place is None:
            self.reclaim()
            place = self._space.take(*sizes)
        if place is None:
            self._make_fit(wanted)
            self._refused += 1
            return None
        entry, runs = place
        filling = Filling(self, entry, photo, runs, self.arena)
        filling.generation = self.descriptors.write(entry, photo, runs)
        self._fillings[entry] = filling
        return filling

    def finish(self, filling: Filling) -> bool:
        """See :meth:`Filling.finish`."""
        entry, photo = filling.entry, filling.photo
        del self._fillings[entry]
        self.descriptors.set_complete(entry)
        bits = self._bits(photo.volume, photo.key, photo.alternate)
        if filling.dropped or not self._publish(bits, entry, photo):
            self._void(entry, filling.runs)
            return False
        self._entries += 1
        self.filled += 1
        self._data_bytes += photo.data_bytes
        self.policy.add(entry, hash((photo.volume, photo.key, photo.alternate)), _size_of(filling.runs))
        return True

    def abandon(self, filling: Filling) -> None:
        """See :meth:`Filling.abandon`."""
        del self._fillings[filling.entry]
        self._void(filling.entry, filling.runs)

    def touched(self, entry: int) -> None:
        """The photo was asked for, as the keeper itself knows."""
        self.policy.hits((entry,))

    # -- looking

    def find(self, volume: int, key: int, alternate: int = 0) -> Kept | None:
        """The photo of that name, if it is kept, whatever its cookie."""
        entry = self._entry_of(volume, key, alternate)
        return None if entry is None else self.descriptors.kept(entry)

    def views(self, kept: Kept) -> list[memoryview]:
        """The data of a photo, until the next call that may evict; empty when it is gone."""
        if self.descriptors.generation(kept.entry) != kept.generation:
            return []
        return data_views(self.arena, self.descriptors.fields(kept.entry))

    def meta(self, kept: Kept) -> bytes:
        """The packed metadata of a photo; empty when it is gone."""
        if self.descriptors.generation(kept.entry) != kept.generation:
            return b""
        return meta_of(self.arena, self.descriptors.fields(kept.entry))

    def set_verified(self, entry: int, generation: int, verified_ns: int) -> bool:
        """The photo is known to be in force up to that moment; False when it is not kept any more."""
        if self.descriptors.generation(entry) != generation:
            return False
        self.descriptors.set_verified(entry, verified_ns)
        return True

    def entries(self) -> Iterator[Kept]:
        """All that is kept. What comes or goes meanwhile may be missing."""
        for entry in range(self._space.opened_entries):
            if self.descriptors.generation(entry) and self.descriptors.is_complete(entry):
                yield self.descriptors.kept(entry)

    # -- taking out

    def drop(self, volume: int, key: int, alternate: int | None = None) -> int:
        """Take out a photo (all its alternate keys when None is given), so that no look-up finds it from now on.

        What is on its way will not be kept. Returns how many were taken out.
        """
        for filling in self._fillings.values():
            photo = filling.photo
            if (photo.volume, photo.key) == (volume, key) and alternate in (None, photo.alternate):
                filling.dropped = True
        bits = self._bits(volume, key, alternate or 0)
        found = []
        for entry in self._table.candidates(bits, alternates=alternate is None):
            _, its_volume, its_alternate, its_key = self.descriptors.fields(entry)[:4]
            if (its_volume, its_key) == (volume, key) and alternate in (None, its_alternate):
                found.append(entry)
        return self._drop_entries(found)

    def drop_volume(self, volume: int) -> int:
        """Take out all photos of a volume; takes a third of a microsecond for each photo that is kept."""
        for filling in self._fillings.values():
            filling.dropped |= filling.photo.volume == volume
        fields, generation = self.descriptors.fields, self.descriptors.generation
        opened = range(self._space.opened_entries)
        return self._drop_entries([entry for entry in opened if generation(entry) and fields(entry)[1] == volume])

    def drop_all(self) -> int:
        """Take out everything."""
        for filling in self._fillings.values():
            filling.dropped = True
        return self._drop_entries([e for e in range(self._space.opened_entries) if self.descriptors.generation(e)])

    def reclaim(self) -> int:
        """Free what was taken out and nobody uses any more; returns bytes. To be called every few milliseconds while
        :attr:`waiting_bytes` is not 0."""
        if not len(self._limbo):
            return 0
        now = self._clock()
        areas = self._areas.values()
        looking_at = {area.looking_at() for area in areas}
        freed = self._limbo.release(looking_at, lambda entry: any(area.pins(entry) for area in areas), now)
        return freed * GRANULE_BYTES

    @property
    def waiting_bytes(self) -> int:
        """What was taken out and may still be in use."""
        return self._limbo.granules * GRANULE_BYTES

    @property
    def allocated_bytes(self) -> int:
        """What the shared memory takes of the machine's memory, as the kernel counts it."""
        areas_bytes = sum(area.allocated_bytes for area in self._areas.values())
        return self._arena.allocated_bytes + self._index.allocated_bytes + areas_bytes

    def usage(self) -> MemoryUsage:
        """How the memory is used now."""
        plan, space = self.plan, self._space
        overhead = plan.table_bytes + space.opened_entries * (plan.entry_bytes + self.policy.entry_bytes)
        touched = min(space.touched, space.arena_granules) * GRANULE_BYTES
        return MemoryUsage(
            limit_bytes=plan.limit_bytes,
            total_bytes=plan.processes_bytes + overhead + touched,
            entries=self._entries,
            data_bytes=self._data_bytes,
            arena_bytes=space.arena_granules * GRANULE_BYTES,
            arena_used_bytes=(space.arena_granules - space.free_granules) * GRANULE_BYTES,
            waiting_bytes=self.waiting_bytes,
            pinned_bytes=self._limbo.pinned_granules * GRANULE_BYTES,
            overhead_bytes=overhead,
            holes=space.holes,
            evictions=self._evictions,
            evicted_bytes=self._evicted_bytes,
            dropped=self._dropped,
            refused=self._refused,
            hits_lost=self._hits_lost + sum(area.lost_hits for area in self._areas.values()),
        )

    # -- within

    def _bits(self, volume: int, key: int, alternate: int) -> int:
        return name_bits(volume, key, alternate, self._table.shift)

    def _entry_of(self, volume: int, key: int, alternate: int) -> int | None:
        name = (volume, alternate, key)
        for entry in self._table.candidates(self._bits(volume, key, alternate)):
            if self.descriptors.fields(entry)[1:4] == name:
                return entry
        return None

    def _publish(self, bits: int, entry: int, photo: NewPhoto) -> bool:
        older = self._entry_of(photo.volume, photo.key, photo.alternate)
        if older is None:
            return self._table.put(bits, entry)
        self._table.replace(bits, older, entry)
        self.policy.remove(older)
        self._retire(older)
        return True

    def _drop_entries(self, entries: Iterable[int]) -> int:
        count = 0
        for entry in entries:
            if entry in self._fillings:
                continue
            self.policy.remove(entry)
            self._unpublish(entry)
            count += 1
        self._dropped += count
        return count

    def _unpublish(self, entry: int) -> None:
        _, volume, alternate, key = self.descriptors.fields(entry)[:4]
        self._table.remove(self._bits(volume, key, alternate), entry)
        self._retire(entry)

    def _retire(self, entry: int) -> None:
        """An entry that is not in the table any more goes out of force."""
        fields = self.descriptors.fields(entry)
        self._entries -= 1
        self._data_bytes -= fields[11]
        self._void(entry, runs_of(self.arena, fields))

    def _void(self, entry: int, runs: Runs) -> None:
        self.descriptors.void(entry)
        self._limbo.add(entry, runs, self._clock())

    def _make_room(self, wanted: int) -> None:
        """Evict until so many granules beyond the reserve, and some entries, are free or will be."""
        space, limbo = self._space, self._limbo
        goal = wanted + self.plan.reserve_granules
        while space.free_granules + limbo.soon_granules < goal and self._evict():
            pass
        while not space.may_open and space.free_entries + len(limbo) < FREE_ENTRIES and self._evict():
            pass
        self._fit_policy()

    def _make_fit(self, wanted: int) -> None:
        """What is free is in pieces that are too small, or owed for another block of entries: evict as much again."""
        goal = self._limbo.soon_granules + wanted
        if self._space.free_granules >= wanted and self._limbo.soon_granules < 2 * wanted:
            while self._limbo.soon_granules < goal and self._evict():
                pass

    def _evict(self) -> bool:
        entry = self.policy.victim()
        if entry is None:
            return False
        kept = self.descriptors.kept(entry)
        if self.evicted is not None:
            self.evicted(kept, data_views(self.arena, self.descriptors.fields(entry)))
        self._evictions += 1
        self._evicted_bytes += kept.data_bytes
        self._unpublish(entry)
        return True

    def _fit_policy(self) -> None:
        self.policy.resize((self._space.arena_granules - self.plan.reserve_granules) * GRANULE_BYTES)


def _size_of(runs: Runs) -> int:
    return sum(length for _, length in runs) * GRANULE_BYTES
