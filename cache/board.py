"""The board: the small memory that the keeper of a Cache and its workers share, beside the photos.

One memfd of 64-bit cells, mapped by all. The keeper writes the header and its own counters, each worker its own region;
readers sum over the regions, so nobody needs a lock. What the header says of vouching is explained in
:mod:`cache.feed_state`; it is written so that a worker that reads in between believes too little, never too much.
"""

from __future__ import annotations

import enum
import mmap
import os
from collections.abc import Mapping
from typing import Final

MAGIC: Final = 0x4452414F42434148  # b"HACBOARD"
CELL_BYTES: Final = 8
HEADER_CELLS: Final = 16
MAX_SPECIAL_VOLUMES: Final = 512
"""Volumes that are vouched for by a rule of their own; when there are more, workers ask about every photo."""

ALL_SPECIAL: Final = 2**64 - 1
NEVER_NS: Final = 2**63 - 1

HISTOGRAM_BUCKETS: Final = 26
"""Bucket i counts latencies below 2**i microseconds; the last one counts the rest (above 16 s)."""

STATUSES: Final = (200, 206, 304, 400, 404, 405, 408, 414, 416, 431, 500, 501, 502, 503, 505)
"""HTTP statuses that are counted one by one; any other counts with the last of its hundred that is listed here."""


class Cell(enum.IntEnum):
    """Cells of the header."""

    MAGIC = 0
    WORKERS = 1
    READY = 2
    STOPPING = 3
    RESTARTS = 4  # of workers
    KEEPER_NS = 5  # when the keeper last turned, by cache.clock
    FRESH_UNTIL_NS = 6
    VOUCHING = 7  # changes with what follows; odd while it is being changed
    HORIZON_NS = 8
    SPECIAL_COUNT = 9
    STARTED_MS = 10


class KeeperCell(enum.IntEnum):
    """Counters of the keeper, and what it last saw of the photos' memory."""

    FETCHES = 0
    FETCH_FAILURES = 1
    FETCHED_BYTES = 2
    FETCH_MICROSECONDS = 3
    COALESCED = 4
    REVALIDATIONS = 5
    PURGED = 6
    NOT_KEPT = 7  # passed through: too large, not admitted, or no room
    FAILOVERS = 8
    DELETES_TAKEN = 9
    SSD_HITS = 10
    SSD_HIT_BYTES = 11
    SSD_WRITTEN = 12
    SSD_WRITTEN_BYTES = 13
    SSD_NOT_WRITTEN = 14
    SSD_EVICTIONS = 15
    LIMIT_BYTES = 16
    USED_BYTES = 17
    DATA_BYTES = 18
    ENTRIES = 19
    EVICTIONS = 20
    EVICTED_BYTES = 21
    WAITING_BYTES = 22
    HITS_LOST = 23
    FETCHING = 24
    NEGATIVE_ENTRIES = 25
    SSD_FAILURES = 26
    SSD_ENTRIES = 27
    SSD_BYTES = 28
    SSD_LIMIT_BYTES = 29  # 0 without a second level
    SSD_ON = 30


class Counter(enum.IntEnum):
    """Counters and gauges of a worker; statuses and histograms follow them."""

    PID = 0
    TICK_NS = 1  # when its event loop last turned, by cache.clock
    CONNECTIONS_OPEN = 2
    CONNECTIONS_TOTAL = 3
    CONNECTIONS_REFUSED = 4
    TIMEOUTS = 5
    GET = 6
    HEAD = 7
    OTHER = 8
    HITS = 9
    MISSES = 10
    STALE = 11
    PASSED = 12
    NEGATIVE = 13
    HIT_BYTES = 14
    MISS_BYTES = 15
    STALE_BYTES = 16
    PASSED_BYTES = 17
    REFUSED = 18
    WAITING = 19
    HOT_RECORDS = 20
    PASSING = 21
    BROKEN_OFF = 22


GAUGES: Final = (Counter.PID, Counter.CONNECTIONS_OPEN, Counter.WAITING, Counter.HOT_RECORDS, Counter.PASSING)
"""Cells that mean nothing when their worker has ended."""


class Histogram(enum.IntEnum):
    """Latencies; each has its buckets and then the sum in microseconds."""

    HIT = 0
    MISS = 1


KEEPER_CELLS: Final = 32
HISTOGRAM_CELLS: Final = 32
STATUS_START: Final = 32
HISTOGRAM_START: Final = STATUS_START + 32
REGION_CELLS: Final = HISTOGRAM_START + 2 * HISTOGRAM_CELLS
_SPECIALS_START: Final = HEADER_CELLS
KEEPER_START: Final = _SPECIALS_START + 2 * MAX_SPECIAL_VOLUMES
FETCH_HISTOGRAM_START: Final = KEEPER_START + KEEPER_CELLS
_REGIONS_START: Final = FETCH_HISTOGRAM_START + HISTOGRAM_CELLS

STATUS_CELL: Final = {status: STATUS_START + index for index, status in enumerate(STATUSES)}


class Board:
    """The shared cells; :meth:`create` in the keeper, :meth:`attach` in a worker."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._map = mmap.mmap(fd, (_REGIONS_START + workers * REGION_CELLS) * CELL_BYTES)
        self.cells = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, workers: int) -> Board:
        """A new board for so many workers."""
        fd = os.memfd_create("haystack-cache-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, (_REGIONS_START + workers * REGION_CELLS) * CELL_BYTES)
        board = cls(fd, workers)
        board.cells[Cell.MAGIC] = MAGIC
        board.cells[Cell.WORKERS] = workers
        board.cells[Cell.SPECIAL_COUNT] = ALL_SPECIAL
        board.cells[Cell.HORIZON_NS] = NEVER_NS
        return board

    @classmethod
    def attach(cls, fd: int) -> Board:
        """The board behind an inherited descriptor. Raises ValueError when it is none."""
        size = os.fstat(fd).st_size // CELL_BYTES
        workers = (size - _REGIONS_START) // REGION_CELLS
        board = cls(fd, max(workers, 0))
        if board.cells[Cell.MAGIC] != MAGIC or board.cells[Cell.WORKERS] != workers:
            raise ValueError("the inherited descriptor is no board of this release")
        return board

    def base(self, worker: int) -> int:
        """Index of a worker's region."""
        return _REGIONS_START + worker * REGION_CELLS

    def sum(self, cell: int) -> int:
        """A worker's cell, summed over all."""
        return sum(self.cells[self.base(worker) + cell] for worker in range(self.workers))

    def keeper(self, cell: KeeperCell) -> int:
        """A counter of the keeper."""
        return self.cells[KEEPER_START + cell]

    def histogram(self, kind: Histogram) -> tuple[list[int], int]:
        """Buckets of all workers, and the sum in microseconds."""
        start = HISTOGRAM_START + kind * HISTOGRAM_CELLS
        return [self.sum(start + index) for index in range(HISTOGRAM_BUCKETS)], self.sum(start + HISTOGRAM_BUCKETS)

    def fetch_histogram(self) -> tuple[list[int], int]:
        """How long fetches took: buckets, and the sum in microseconds."""
        start = FETCH_HISTOGRAM_START
        return list(self.cells[start : start + HISTOGRAM_BUCKETS]), self.keeper(KeeperCell.FETCH_MICROSECONDS)

    def forget_worker(self, worker: int) -> None:
        """Its process has ended."""
        for gauge in GAUGES:
            self.cells[self.base(worker) + gauge] = 0

    def publish_vouching(self, horizon_ns: int, special: Mapping[int, int] | None) -> None:
        """Say under which conditions photos are vouched for, while the feed is fresh.

        Parameters
        ----------
        horizon_ns: what was verified before is not.
        special: volumes with a later horizon; NEVER_NS for volumes that are not vouched for at all. None: all are.
        """
        cells = self.cells
        cells[Cell.VOUCHING] += 1
        if special is None or len(special) > MAX_SPECIAL_VOLUMES:
            cells[Cell.SPECIAL_COUNT] = ALL_SPECIAL
        else:
            for place, (volume, volume_horizon_ns) in enumerate(special.items()):
                cells[_SPECIALS_START + 2 * place] = volume
                cells[_SPECIALS_START + 2 * place + 1] = volume_horizon_ns
            cells[Cell.SPECIAL_COUNT] = len(special)
        cells[Cell.HORIZON_NS] = horizon_ns
        cells[Cell.VOUCHING] += 1

    def read_vouching(self) -> Vouched:
        """What :meth:`publish_vouching` said last; nothing is vouched for by what is read in between."""
        cells = self.cells
        version = cells[Cell.VOUCHING]
        count = cells[Cell.SPECIAL_COUNT]
        horizon_ns = cells[Cell.HORIZON_NS]
        special: dict[int, int] = {}
        if count <= MAX_SPECIAL_VOLUMES:
            start = _SPECIALS_START
            special = {cells[start + 2 * place]: cells[start + 2 * place + 1] for place in range(count)}
        else:
            horizon_ns = NEVER_NS
        if version % 2 or cells[Cell.VOUCHING] != version:
            return Vouched(-1, NEVER_NS, {})
        return Vouched(version, horizon_ns, special)


class Vouched:
    """Which photos are vouched for while the feed is fresh.

    Parameters
    ----------
    version: of the board's cells that this was read from; -1 when they were being changed.
    """

    __slots__ = ("horizon_ns", "special", "version")

    def __init__(self, version: int, horizon_ns: int, special: Mapping[int, int]) -> None:
        self.version = version
        self.horizon_ns = horizon_ns
        self.special = special

    def covers(self, volume: int, verified_ns: int) -> bool:
        """Whether a photo that was verified then is vouched for."""
        return verified_ns >= self.horizon_ns and verified_ns >= self.special.get(volume, 0)


class Tally:
    """Counters of one worker: plain integers here, moved to the board a few times a second."""

    __slots__ = ("_base", "_buckets", "_cells", "_hit_bytes", "_hits", "_sums")

    def __init__(self, board: Board, worker: int) -> None:
        self._cells = board.cells
        self._base = board.base(worker)
        self._buckets = [[0] * HISTOGRAM_BUCKETS for _ in Histogram]
        self._sums = [0, 0]
        self._hits = 0
        self._hit_bytes = 0

    def add(self, cell: int, amount: int = 1) -> None:
        """Count something."""
        self._cells[self._base + cell] += amount

    def set(self, cell: int, value: int) -> None:
        """Publish a value."""
        self._cells[self._base + cell] = value

    def fast_hits(self, count: int, size_bytes: int) -> None:
        """Count GETs that were answered with 200 out of memory, on the fast way."""
        self._hits += count
        self._hit_bytes += size_bytes

    def took(self, kind: Histogram, nanoseconds: int) -> None:
        """Note how long an answer took."""
        self._buckets[kind][min((nanoseconds // 1000).bit_length(), HISTOGRAM_BUCKETS - 1)] += 1
        self._sums[kind] += nanoseconds

    def responded(self, status: int) -> None:
        """Count an answer by its status."""
        self.add(STATUS_CELL.get(status) or STATUS_CELL[max(known for known in STATUS_CELL if known <= status)])

    def flush(self) -> None:
        """Move what was gathered to the board."""
        if self._hits:
            self.add(Counter.GET, self._hits)
            self.add(Counter.HITS, self._hits)
            self.add(Counter.HIT_BYTES, self._hit_bytes)
            self.add(STATUS_CELL[200], self._hits)
            self._hits = self._hit_bytes = 0
        for kind, buckets in enumerate(self._buckets):
            start = HISTOGRAM_START + kind * HISTOGRAM_CELLS
            if not self._sums[kind] and not any(buckets):
                continue
            for index, count in enumerate(buckets):
                if count:
                    self.add(start + index, count)
                    buckets[index] = 0
            self.add(start + HISTOGRAM_BUCKETS, self._sums[kind] // 1000)
            self._sums[kind] %= 1000
