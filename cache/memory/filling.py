"""A photo on its way into the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.memory.descriptors import NewPhoto
from cache.memory.layout import GRANULE_BYTES, INLINE_RUNS, RUN, Runs, data_start, table_start
from cache.memory.runs_of import slices_of

if TYPE_CHECKING:
    from cache.memory.photos import PhotoMemory

Buffer = bytes | bytearray | memoryview


class Filling:
    """Takes the data of one photo, from ``PhotoMemory.begin`` to :meth:`finish` or :meth:`abandon`, exactly one of
    them.

    Workers that are told ``entry`` and ``generation`` see the data as it comes.
    """

    def __init__(self, memory: PhotoMemory, entry: int, photo: NewPhoto, runs: Runs, arena: memoryview) -> None:
        self._memory = memory
        self.entry = entry
        self.photo = photo
        self.runs = runs
        self.generation = 0
        self.dropped = False
        """The photo was deleted or purged meanwhile: it will not be kept."""
        self.filled_bytes = 0
        self.data_bytes = photo.data_bytes
        self._views = _lay_out(photo, runs, arena)
        self._current = 0
        self._offset = 0

    def buffer(self) -> memoryview:
        """Where the next bytes belong, as much as lies together; empty when all are there. See :meth:`advance`."""
        if self._current == len(self._views):
            return memoryview(b"")
        return self._views[self._current][self._offset :]

    def advance(self, count: int) -> None:
        """So many bytes were put into :meth:`buffer`; workers see them now."""
        self._step(count)
        self._memory.descriptors.set_filled(self.entry, self.filled_bytes)

    def write(self, data: Buffer) -> None:
        """Copy the next bytes. Raises ValueError when they are more than were announced; then nothing was copied."""
        left = self.data_bytes - self.filled_bytes
        if len(data) > left:
            raise ValueError(f"{len(data)} bytes for entry {self.entry}, which only {left} are missing from")
        source = memoryview(data)
        while len(source):
            target = self.buffer()
            count = min(len(target), len(source))
            target[:count] = source[:count]
            self._step(count)
            source = source[count:]
        self._memory.descriptors.set_filled(self.entry, self.filled_bytes)

    def views(self) -> list[memoryview]:
        """The data that is there, in its order."""
        views = self._views[: self._current]
        if self._offset:
            views.append(self._views[self._current][: self._offset])
        return views

    def finish(self) -> bool:
        """All data is there and the caller has verified it: keep the photo, in place of an older one of its name.

        Returns False when it is not kept (it was dropped meanwhile): workers that have it open may send it to its end.
        Raises ValueError when bytes are missing.
        """
        if self.filled_bytes != self.data_bytes:
            raise ValueError(f"entry {self.entry} has {self.filled_bytes} of {self.data_bytes} bytes")
        return self._memory.finish(self)

    def abandon(self) -> None:
        """The data does not come, or is wrong: workers that have it open see it going out of force."""
        self._memory.abandon(self)

    def _step(self, count: int) -> None:
        self._offset += count
        self.filled_bytes += count
        if self._offset > len(self._views[self._current]):
            raise ValueError(f"{count} bytes do not fit into the buffer that was given")
        if self._offset == len(self._views[self._current]):
            self._current += 1
            self._offset = 0


def _lay_out(photo: NewPhoto, runs: Runs, arena: memoryview) -> list[memoryview]:
    """Put head, metadata and the table of runs into their places; returns those of the data."""
    start = runs[0][0] * GRANULE_BYTES
    head_bytes, meta_bytes = len(photo.head), len(photo.meta)
    arena[start : start + head_bytes] = photo.head
    arena[start + head_bytes : start + head_bytes + meta_bytes] = photo.meta
    if len(runs) > INLINE_RUNS:
        position = start + table_start(head_bytes, meta_bytes)
        for run in runs:
            RUN.pack_into(arena, position, *run)
            position += RUN.size
    return slices_of(arena, runs, data_start(head_bytes, meta_bytes, len(runs)), 0, photo.data_bytes)
