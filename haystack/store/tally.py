"""What a worker counts: plain integers here, moved into the control block a few times a second."""

from __future__ import annotations

from haystack.store.control import ControlBlock
from haystack.store.control_cells import (
    HISTOGRAM_BUCKETS,
    HISTOGRAM_CELLS,
    HISTOGRAM_START,
    STATUS_CELL,
    Counter,
    Histogram,
)

_READ = int(Histogram.READ)
_WRITE = int(Histogram.WRITE)
_LAST_BUCKET = HISTOGRAM_BUCKETS - 1


class Tally:
    """Counters of one worker, for its event loop; ``add`` and ``set`` may be used by its threads too."""

    __slots__ = (
        "_base",
        "_buckets",
        "_cells",
        "_fast_buckets",
        "_read_bytes",
        "_read_seconds",
        "_sums",
        "_write_bytes",
        "_write_count",
    )

    def __init__(self, control: ControlBlock, worker: int) -> None:
        self._cells = control.cells
        self._base = control.worker_base(worker)
        # Lists, because an enum's hash is made in Python: a dictionary would cost more than all the rest of this.
        self._buckets = [[0] * HISTOGRAM_BUCKETS for _ in Histogram]
        self._sums = [0.0 for _ in Histogram]
        self._fast_buckets = [0] * HISTOGRAM_BUCKETS
        """Of reads on a fast way: they are no more than what these add up to, and need no count of their own."""
        self._read_bytes = 0
        self._read_seconds = 0.0
        self._write_count = 0
        self._write_bytes = 0

    def add(self, cell: int, amount: int = 1) -> None:
        """Count something that is rare enough to go straight into the control block."""
        self._cells[self._base + cell] += amount

    def set(self, cell: int, value: int) -> None:
        """Publish a value."""
        self._cells[self._base + cell] = value

    def fast_read(self, seconds: float, size_bytes: int) -> None:
        """Count a GET that was answered with 200 on a fast way."""
        self._read_bytes += size_bytes
        self._read_seconds += seconds
        bucket = int(seconds * 1e6).bit_length()
        self._fast_buckets[bucket if bucket < _LAST_BUCKET else _LAST_BUCKET] += 1

    def fast_write(self, seconds: float, size_bytes: int) -> None:
        """Count an upload that was answered with 201 on a fast way."""
        self._write_count += 1
        self._write_bytes += size_bytes
        self._buckets[_WRITE][min(int(seconds * 1e6).bit_length(), _LAST_BUCKET)] += 1
        self._sums[_WRITE] += seconds

    def took(self, kind: Histogram, seconds: float) -> None:
        """Note how long an operation took."""
        self._buckets[kind][min(int(seconds * 1e6).bit_length(), _LAST_BUCKET)] += 1
        self._sums[kind] += seconds

    def responded(self, status: int) -> None:
        """Count an answer by its status."""
        cell = STATUS_CELL.get(status) or STATUS_CELL[max(known for known in STATUS_CELL if known <= status)]
        self.add(cell)

    def flush(self) -> None:
        """Move what was gathered into the control block."""
        if read_count := sum(self._fast_buckets):
            self.add(Counter.GET, read_count)
            self.add(Counter.BYTES_OUT, self._read_bytes)
            self.add(STATUS_CELL[200], read_count)
            self._sums[_READ] += self._read_seconds
            self._read_bytes, self._read_seconds = 0, 0.0
            self._flush_buckets(_READ, self._fast_buckets)
        if self._write_count:
            self.add(Counter.PUT, self._write_count)
            self.add(Counter.BYTES_IN, self._write_bytes)
            self.add(STATUS_CELL[201], self._write_count)
            self._write_count = self._write_bytes = 0
        for kind in Histogram:
            self._flush_buckets(kind, self._buckets[kind])
            whole_microseconds = int(self._sums[kind] * 1e6)
            self.add(HISTOGRAM_START + kind * HISTOGRAM_CELLS + HISTOGRAM_BUCKETS, whole_microseconds)
            self._sums[kind] -= whole_microseconds / 1e6

    def _flush_buckets(self, kind: int, buckets: list[int]) -> None:
        start = HISTOGRAM_START + kind * HISTOGRAM_CELLS
        for index, count in enumerate(buckets):
            if count:
                self.add(start + index, count)
                buckets[index] = 0
