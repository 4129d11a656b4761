"""Appending to a volume: many operations, one lock, one write, one commit.

Order of things, and what a crash between them leaves:

1. take the index's write transaction (the append lock of all processes);
2. cut off what a process that died here before had written behind the tail;
3. mark the index dirty (``<id>.dirty``), once until the next checkpoint;
4. write all needles at the tail with one ``pwritev``: a crash leaves a torn tail, which recovery cuts;
5. commit the index with the new tail: a crash before leaves a torn tail, after it a needle that nobody was promised;
6. (the caller) ``fdatasync``, then acknowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from haystack.errors import DiskError, HaystackError, InvalidRequest, VolumeMoved
from haystack.volume.dirty import DirtyMarker
from haystack.volume.files import VolumeFile
from haystack.volume.index import IndexWriter, NeedleIndex
from haystack.volume.layout import Buffer, Superblock
from haystack.volume.new_needles import lay_out_new
from haystack.volume.operations import Appended, Operation, Written
from haystack.volume.plan import Plan
from haystack.volume.writeback import begin_writeback

Guard = Callable[[], None]
"""Says whether an append may go on, by raising when it may not."""


class _NotNew(Exception):
    """The operations are not just new photos: gives up the index transaction."""


class Appender:
    """Appends to one volume from this process.

    Parameters
    ----------
    max_bytes: size that puts may not go beyond; deletes may.
    dirty: the volume's dirty marker.
    """

    def __init__(
        self, file: VolumeFile, index: NeedleIndex, superblock: Superblock, dirty: DirtyMarker, *, max_bytes: int
    ) -> None:
        self._file = file
        self._index = index
        self._seed = superblock.seed
        self._max_bytes = max_bytes
        self._dirty = dirty
        self._durable: int | None = None
        self.appended = 0
        """Tail after the last append of this process."""

    def append(self, operations: Sequence[Operation], guard: Guard | None = None) -> Appended:
        """Carry out operations in order. Waits for the append lock: never call it on an event loop.

        Parameters
        ----------
        guard: called under the append lock before anything is written; what it raises ends the append.

        Raises OutOfSpace or DiskError when nothing at all was stored; an error of a single operation is its outcome.
        """
        appended = self._append_new(operations, guard) or self._append_any(operations, guard)
        self.appended = appended.tail
        return appended

    def _append_new(self, operations: Sequence[Operation], guard: Guard | None) -> Appended | None:
        """Store new photos; None, and nothing is changed, when the operations are something else as well."""
        try:
            with self._index.write() as writer:
                if guard is not None:
                    guard()
                tail = self.begin(writer)
                new = lay_out_new(operations, self._seed, tail, self._durable, self._max_bytes)
                if new is None:
                    raise _NotNew
                if not writer.add_new(new.entries, new.tail - tail, new.largest_key, new.last_ms):
                    raise _NotNew
                self.write(new.pieces, tail, new.tail - tail)
                writer.move_tail(new.tail)
        except _NotNew:
            return None
        return Appended(new.outcomes, new.tail, False, (Written(tail, new.pieces),))

    def _append_any(self, operations: Sequence[Operation], guard: Guard | None) -> Appended:
        with self._index.write() as writer:
            if guard is not None:
                guard()
            tail = self.begin(writer)
            plan = Plan(self._file, writer, self._seed, tail, self._durable, self._max_bytes)
            outcomes = [plan.add(operation) for operation in operations]
            if plan.pieces:
                self.write(plan.pieces, tail, plan.tail - tail)
                writer.move_tail(plan.tail)
        written = (Written(tail, plan.pieces),) if plan.pieces else ()
        return Appended(outcomes, plan.tail, plan.changed, written)

    def begin(self, writer: IndexWriter) -> int:
        """Make sure that an append may begin, under its lock; returns where.

        Raises VolumeMoved, DiskError, OutOfSpace.
        """
        self.require_in_place()
        tail = writer.state.tail
        self._require_tail(tail)
        self._dirty.set()
        return tail

    def require_in_place(self) -> None:
        """Whether this still is the volume, under the append lock: what a compaction replaced takes nothing any more.

        Raises VolumeMoved.
        """
        if not self._file.is_in_place():
            raise VolumeMoved(f"{self._file.path}: compacted meanwhile, or removed; open it anew")

    @property
    def unsure(self) -> bool:
        """Whether nothing is known to be durable yet."""
        return self._durable is None

    def is_durable(self, tail: int) -> bool:
        """Whether everything below ``tail`` is known to be durable."""
        return self._durable is not None and tail <= self._durable

    def durable(self, tail: int) -> None:
        """Note that everything below ``tail`` has been made durable."""
        if self._durable is None or tail > self._durable:
            self._durable = tail

    def _require_tail(self, tail: int) -> None:
        size_bytes = self._file.size_bytes()
        if size_bytes > tail:
            # A process died between its write and its commit. Nobody was promised these bytes, and whole needles among
            # them must not come back to life when the index is rebuilt one day.
            self._file.truncate(tail)
        elif size_bytes < tail:
            raise DiskError(
                f"{self._file.path}: has {size_bytes} bytes, but {tail} were written; somebody shortened it. "
                "Restart the Store to recover what is there"
            )

    def write(self, pieces: list[Buffer], tail: int, size_bytes: int) -> None:
        """Write at the tail; leaves nothing behind when that fails. Raises OutOfSpace, DiskError, InvalidRequest."""
        try:
            written = self._file.pwrite(pieces, tail)
            if written != size_bytes:
                # Data that was changed meanwhile, or a memoryview of items that are no bytes.
                raise InvalidRequest(f"{written} bytes of data were given where {size_bytes} were announced")
        except HaystackError:
            self._file.truncate(tail)
            raise
        begin_writeback(self._file.sync_fd, tail, size_bytes)
