"""The worker's side: finding photos in the shared memory, and saying what is in use.

How a record is kept from being overwritten while it is read, see :mod:`cache.memory.photos`. In short: a worker says
which entry it is looking at before it looks, and that holds until it looks at another one; what it needs for longer,
it pins.
"""

from __future__ import annotations

from array import array

from cache.memory.layout import (
    AREA_CELLS,
    CELL_BYTES,
    COMPLETE_CELL,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_CELLS,
    FILLED_CELL,
    GRANULE_BYTES,
    HASH_BITS,
    HASH_MASK,
    LOOKING_CELL,
    MAX_PINS,
    PINS_START,
    POSITION_CELL,
    RING_ENTRIES,
    RING_MASK,
    RING_START,
    VERIFIED_CELL,
    Runs,
    data_start,
    name_bits,
)
from cache.memory.runs_of import runs_of, slices_of
from cache.memory.shared import map_shared

_unpack = DESCRIPTOR.unpack_from


class Record:
    """A photo in the shared memory, as a worker sees it.

    What :attr:`body` and :meth:`pieces` give is the shared memory itself. It may be used until the reader's next
    ``find``, ``open`` or ``valid``, and for longer only with a pin.

    Parameters
    ----------
    entry, generation: which; a generation is never given twice.
    checksum: of the needle, the photo's ETag.
    time_ms: when the needle was written; stored_ms: when it was fetched; both milliseconds since 1970.
    expires: seconds since 1970, 0 for never.
    flags: the keeper's.
    head: the prepared head, as the keeper made it.
    body: the data when it lies in one piece, else None.
    generation_cell: index of this entry's generation in ``MemoryReader.cells``.
    """

    __slots__ = (
        "_head_bytes",
        "_meta_bytes",
        "_reader",
        "_runs",
        "body",
        "checksum",
        "cookie",
        "data_bytes",
        "entry",
        "expires",
        "flags",
        "generation",
        "generation_cell",
        "head",
        "stored_ms",
        "time_ms",
    )

    def __init__(self, reader: MemoryReader, entry: int, fields: tuple[int, ...]) -> None:
        (
            self.generation,
            _volume,
            _alternate,
            _key,
            self.cookie,
            self.checksum,
            self.time_ms,
            self.stored_ms,
            self.expires,
            self.flags,
            runs,
            data_bytes,
            head_bytes,
            meta_bytes,
            first,
            granules,
            _first_1,
            _granules_1,
            _first_2,
            _granules_2,
            _check,
        ) = fields
        self._reader = reader
        self.entry = entry
        self.generation_cell = entry * DESCRIPTOR_CELLS
        self.data_bytes = data_bytes
        self._head_bytes = head_bytes
        self._meta_bytes = meta_bytes
        start = first * GRANULE_BYTES
        arena = reader.arena
        self.head = arena[start : start + head_bytes].tobytes()
        if runs == 1:
            self._runs: Runs = ((first, granules),)
            start += data_start(head_bytes, meta_bytes, 1)
            self.body: memoryview | None = arena[start : start + data_bytes]
        else:
            self.body = None
            self._runs = runs_of(arena, fields)

    @property
    def meta(self) -> bytes:
        """The needle's metadata, packed."""
        start = self._runs[0][0] * GRANULE_BYTES + self._head_bytes
        return bytes(self._reader.arena[start : start + self._meta_bytes])

    @property
    def filled_bytes(self) -> int:
        """Bytes of data that are there by now."""
        return self._reader.cells[self.generation_cell + FILLED_CELL]

    @property
    def complete(self) -> bool:
        """All data is there and was verified."""
        return self._reader.cells[self.generation_cell + COMPLETE_CELL] == 1

    @property
    def verified_ns(self) -> int:
        """Up to when the photo is known to be in force, as of now."""
        return self._reader.cells[self.generation_cell + VERIFIED_CELL]

    @property
    def in_force(self) -> bool:
        """Whether the entry still is this photo. Protects nothing, see :meth:`MemoryReader.valid`."""
        return self._reader.cells[self.generation_cell] == self.generation

    def pieces(self, start: int = 0, end: int | None = None) -> list[memoryview]:
        """Bytes ``start`` to ``end`` of the data, as views in their order; none of them is empty."""
        end = self.data_bytes if end is None else min(end, self.data_bytes)
        if self.body is not None:
            return [self.body[start:end]] if start < end else []
        skipped = data_start(self._head_bytes, self._meta_bytes, len(self._runs))
        return slices_of(self._reader.arena, self._runs, skipped, max(start, 0), end)

    def pin(self) -> None:
        """Keep the bytes as they are until :meth:`unpin`, whatever becomes of the entry.

        To be called while they may be used. Counts. Raises OverflowError beyond 65,535 pins of one entry by one worker.
        """
        pins = self._reader.pins
        count = pins[self.entry]
        if count == MAX_PINS:
            raise OverflowError(f"entry {self.entry} is pinned {MAX_PINS} times")
        pins[self.entry] = count + 1

    def unpin(self) -> None:
        """Take one :meth:`pin` back."""
        self._reader.pins[self.entry] -= 1


class MemoryReader:
    """Maps the shared memory in a worker. For one thread.

    ``cells`` is the index as 64-bit cells, ``pins`` this worker's pins. A hot path may do by itself what :meth:`valid`
    does, in this order: ``reader.area[LOOKING_CELL] = record.entry + 1``, and then
    ``reader.cells[record.generation_cell] == record.generation``.

    Parameters
    ----------
    arena_fd, index_fd, area_fd: what ``PhotoMemory.open_worker`` gave; they may be closed afterwards.
    """

    def __init__(self, arena_fd: int, index_fd: int, area_fd: int) -> None:
        self.arena = map_shared(arena_fd)
        index = map_shared(index_fd)
        area = map_shared(area_fd, writable=True)
        max_entries = (len(area) - PINS_START) // 2
        self._descriptors = index[: max_entries * DESCRIPTOR_BYTES]
        self.cells = self._descriptors.cast("Q")
        self._table = index[max_entries * DESCRIPTOR_BYTES :].cast("Q")
        self._mask = len(self._table) - 1
        self._shift = self._mask.bit_length()
        self.area = area[: AREA_CELLS * CELL_BYTES].cast("Q")
        self._ring = area[RING_START:PINS_START].cast("I")
        self.pins = area[PINS_START:].cast("H")
        self._position = self.area[POSITION_CELL]

    def find(self, volume: int, key: int, cookie: int, alternate: int = 0) -> Record | None:
        """The photo of that name and cookie, if it is kept. The record is protected until the next look-up."""
        bits = name_bits(volume, key, alternate, self._shift)
        table, mask = self._table, self._mask
        place = bits & mask
        while cell := table[place]:
            if cell >> HASH_BITS == bits:
                entry = (cell & HASH_MASK) - 1
                fields = self._look(entry)
                if fields is not None and fields[1:4] == (volume, alternate, key):
                    return Record(self, entry, fields) if fields[4] == cookie else None
            place = (place + 1) & mask
        return None

    def open(self, entry: int, generation: int) -> Record | None:
        """The photo that the keeper named, also while it is being fetched; None when it is gone already."""
        fields = self._look(entry)
        if fields is None or fields[0] != generation:
            return None
        return Record(self, entry, fields)

    def valid(self, record: Record) -> bool:
        """Whether the record is still in force; if so, it is protected until the next look-up."""
        self.area[LOOKING_CELL] = record.entry + 1
        return self.cells[record.generation_cell] == record.generation

    def hit(self, record: Record, count: int = 1) -> None:
        """Note how often the photo was asked for. Never waits; old notes are lost when the keeper does not read them.

        Parameters
        ----------
        count: at least 1; of more than the ring holds, only so many are noted.
        """
        position, ring = self._position, self._ring
        if count == 1:
            ring[position & RING_MASK] = record.entry
        else:
            count = min(count, RING_ENTRIES)
            start = position & RING_MASK
            notes = array("I", (record.entry,)) * count
            before_end = min(count, RING_ENTRIES - start)
            ring[start : start + before_end] = notes[:before_end]
            ring[: count - before_end] = notes[before_end:]
        self._position = self.area[POSITION_CELL] = position + count

    def rest(self) -> None:
        """Nothing is being looked at: to be called now and then when there is nothing to do."""
        self.area[LOOKING_CELL] = 0

    def _look(self, entry: int) -> tuple[int, ...] | None:
        """The fields of a descriptor, protected from now on; None when the entry is not in use."""
        self.area[LOOKING_CELL] = entry + 1
        fields = _unpack(self._descriptors, entry * DESCRIPTOR_BYTES)
        # A worker that was held up right before it said what it looks at may see a descriptor being written.
        if not fields[0] or fields[-1] != hash(fields[:-1]):
            return None
        return fields
