"""The layout of the control block: which cell means what (see :mod:`haystack.store.control`)."""

from __future__ import annotations

import enum
from typing import Final

MAGIC: Final = 0x4B434F4C42534148  # b"HASBLOCK"
LAYOUT_VERSION: Final = 6
CELL_BYTES: Final = 8
MAX_VOLUMES: Final = 8192
"""Volumes of one Store; 256 TiB at 32 GiB each."""

MAX_FOLDERS: Final = 256
"""Data folders of one Store."""

HEADER_CELLS: Final = 16
FOLDER_CELLS: Final = 4
SLOT_CELLS: Final = 24
VOLUME_CELLS: Final = 9
HISTOGRAM_BUCKETS: Final = 26
"""Bucket i counts latencies below 2**i microseconds; the last one counts the rest (above 16 s)."""

STATUSES: Final = (
    200, 201, 202, 204, 206, 301, 302, 304,
    400, 401, 404, 405, 408, 409, 411, 412, 413, 414, 416, 417, 431,
    500, 501, 503, 505, 507,
)  # fmt: skip
"""HTTP statuses that are counted one by one; any other counts with the last of its hundred that is listed here."""


class Header(enum.IntEnum):
    """Cells of the header."""

    MAGIC = 0
    VERSION = 1
    CATALOG = 2
    SLOTS = 3
    WORKERS = 4
    READY = 5
    STOPPING = 6
    RESTARTS = 7  # of workers
    COMPACTIONS = 8  # of copies of volumes, that came to their end
    COMPACTIONS_FAILED = 9
    COMPACTED_BYTES = 10  # won by them
    COMPACTION_PAUSES_MICROSECONDS = 11  # for which nobody could append
    COMPACTION_LONGEST_PAUSE_MICROSECONDS = 12
    BELL = 13  # descriptor of the eventfd with which workers wake the supervisor; the same in all processes
    LISTENING = 14  # the supervisor wants to be woken


class FolderCell(enum.IntEnum):
    """Cells of a data folder: sizes in bytes, and a :class:`FolderState`."""

    TOTAL_BYTES = 0
    FREE_BYTES = 1
    STATE = 2


class FolderState(enum.IntEnum):
    """How a data folder is; FULL takes no photos, FAILED is not used any more until the Store is restarted."""

    OK = 0
    FULL = 1
    FAILED = 2


@enum.unique
class Slot(enum.IntEnum):
    """Cells of a volume's slot. From SIZE_BYTES on: what the supervisor last saw, for metrics."""

    VOLUME = 0
    FOLDER = 1
    STATE = 2
    EPOCH = 3
    MAX_BYTES = 4
    STANDING = 5  # epoch and duty of the membership, see haystack.store.replication.rules; 0: there is none
    REASON = 6
    FAILED_ONCE = 7
    SIZE_BYTES = 8
    LIVE_COUNT = 9
    LIVE_BYTES = 10
    DELETED_COUNT = 11
    DELETED_BYTES = 12
    INDEX_BYTES = 13
    DAMAGE_BYTES = 14  # found by the recovery at this start
    REIGN = 15
    MEMBERS_VERSION = 16  # rises with every change of the membership, by two; odd while it is being changed
    MEMBERS_CHANGED_MS = 17  # when that was, by the monotonic clock
    SCRUBBED_MS = 18  # end of the last full pass, milliseconds since 1970
    BROKEN_BYTES = 19  # damaged, and no copy could mend them
    MENDED = 20  # ranges mended
    GENERATION = 22  # of the volume's file that is in force
    COMPACTING = 23  # a CompactionPhase
    COMMITTED_BASE = 21  # committed tail as the supervisor knows it, apart from what the workers have published


class CompactionPhase(enum.IntEnum):
    """What a compaction of a volume is at; READY has everything copied, and waits for the Directory's word."""

    NONE = 0
    WAITING = 1
    COPYING = 2
    READY = 3


class VolumeState(enum.IntEnum):
    """What a volume of this Store can do now."""

    GONE = 0
    RECOVERING = 1
    WRITABLE = 2
    READONLY = 3
    FAILED = 4


class Reason(enum.IntEnum):
    """Why a volume is ``READONLY``; the value of ``Slot.REASON``, which is set with the state."""

    NONE = 0
    VOLUME_FULL = 1
    DISK_FULL = 2
    MARKED = 3
    DEGRADED = 4
    REPLICA = 5
    STALE = 6
    UNTOLD = 7
    INDEX = 8  # of a volume that is FAILED: nothing but its index is damaged


class Counter(enum.IntEnum):
    """Counters of a worker; statuses and histograms follow them."""

    CONNECTIONS_OPEN = 0
    CONNECTIONS_TOTAL = 1
    CONNECTIONS_REFUSED = 2
    GET = 3
    HEAD = 4
    PUT = 5
    DELETE = 6
    OTHER = 7
    BYTES_IN = 8
    BYTES_OUT = 9
    COLD_READS = 10
    CACHED_ENTRIES = 11
    TIMEOUTS = 12
    ABORTED_UPLOADS = 13
    DAMAGED_READS = 14
    DISK_ERRORS = 15
    UPLOAD_MEMORY_BYTES = 16
    SPILLED_UPLOADS = 17
    PID = 18
    STARTED_MS = 19
    BATCHES_SENT = 20
    BATCH_BYTES_SENT = 21
    BATCHES_RECEIVED = 22
    BATCH_BYTES_RECEIVED = 23
    COPY_FAILURES = 24
    COPY_WAIT_MICROSECONDS = 25
    PASSED_ON = 26
    DAMAGED = 29  # the needle with wrong bytes that it met last, see pack_damaged
    REPAIRED_READS = 30
    TOUCHED = 31  # 1 + slot of the volume whose index was looked at last


@enum.unique
class VolumeCell(enum.IntEnum):
    """Cells of one volume in a worker's region."""

    READS = 0
    BYTES_READ = 1
    WRITES = 2
    BYTES_WRITTEN = 3
    DELETES = 4
    ERRORS = 5
    DURABLE_TAIL = 6
    COMMITTED_TAIL = 7  # acknowledged by all copies; volumes without copies do not use it
    READ_MICROSECONDS = 8  # time spent on reads


class Histogram(enum.IntEnum):
    """Latency histograms of a worker; each has its buckets and then the sum in microseconds."""

    READ = 0
    WRITE = 1
    DELETE = 2


COUNTER_CELLS: Final = 32
STATUS_START: Final = COUNTER_CELLS
HISTOGRAM_START: Final = STATUS_START + 32
HISTOGRAM_CELLS: Final = 32
WORKER_CELLS: Final = HISTOGRAM_START + 4 * HISTOGRAM_CELLS
SAMPLES: Final = 2048
"""Reads that a worker's ring of samples holds; see :mod:`haystack.store.sampling`."""

SAMPLE_CELLS: Final = 2
SAMPLES_START: Final = WORKER_CELLS + MAX_VOLUMES * VOLUME_CELLS
REGION_CELLS: Final = SAMPLES_START + 1 + SAMPLES * SAMPLE_CELLS
FOLDERS_START: Final = HEADER_CELLS
SLOTS_START: Final = FOLDERS_START + MAX_FOLDERS * FOLDER_CELLS
REGIONS_START: Final = SLOTS_START + MAX_VOLUMES * SLOT_CELLS

STATUS_CELL: Final = {status: STATUS_START + index for index, status in enumerate(STATUSES)}

TAIL_BITS: Final = 44
_GENERATION_BITS: Final = 20


def tagged_tail(generation: int, tail: int) -> int:
    """A tail of a volume together with its generation; the larger of two is of the later generation."""
    return generation % 2**_GENERATION_BITS << TAIL_BITS | tail


_OFFSET_BITS: Final = 40
_SLOT_BITS: Final = 13


def pack_damaged(sequence: int, slot: int, offset: int) -> int:
    """A damaged needle as one number: which report of a worker it is, the volume's slot, and its byte offset."""
    return sequence % 2048 << _SLOT_BITS + _OFFSET_BITS | slot << _OFFSET_BITS | offset // 8


def unpack_damaged(value: int) -> tuple[int, int]:
    """Slot and byte offset of :func:`pack_damaged`."""
    return value >> _OFFSET_BITS & (1 << _SLOT_BITS) - 1, (value & (1 << _OFFSET_BITS) - 1) * 8
