"""Where everything lies in the memory that a Cache's processes share. Pure: sizes, structs, indexes.

Three kinds of memfd:

- the **arena**: granules of 512 bytes. A photo lies in one or more *runs* of granules; at the beginning of the first
  are the prepared head of its answer, its metadata and, when there are more than three runs, the table of all runs;
  then comes its data, which goes on in the other runs in their order.
- the **index**: one *descriptor* of 128 bytes an entry, then the hash table, cells of 64 bits.
- an **area** for each worker: the entry that it is looking at, the ring of its hits, and a counter of pins an entry.

The arena and the index are written by the keeper alone, an area by its worker alone. Whatever is shared is an aligned
cell that is written and read whole, so nothing is ever torn within a cell; what belongs together across cells is
guarded by the order described in :mod:`cache.memory.photos`.

Numbers are in the machine's byte order, since all processes run on one machine.
"""

from __future__ import annotations

import struct
from typing import Final

Runs = tuple[tuple[int, int], ...]
"""Runs of granules, as (first granule, granules)."""

GRANULE_BYTES: Final = 512
CELL_BYTES: Final = 8
PAGE_BYTES: Final = 4096

DESCRIPTOR: Final = struct.Struct("@QIIQQQQQIHHIHHIIIIIIq")
"""The constant part of a descriptor: generation; volume, alternate; key; cookie; checksum; time and moment of the fetch
(ms); expires (s), flags, number of runs; bytes of data, head, metadata; three runs as (first granule, granules); check.

The check is the hash of all fields before it."""

DESCRIPTOR_CELLS: Final = 16
DESCRIPTOR_BYTES: Final = DESCRIPTOR_CELLS * CELL_BYTES
KEY_CELL: Final = 2
"""The photo's key, which is in the constant part."""

ALTERNATE: Final = struct.Struct("@I")
ALTERNATE_OFFSET: Final = 12
"""The alternate key, which is in the constant part, too."""

FILLED_CELL: Final = 13
"""Bytes of data that are there."""

COMPLETE_CELL: Final = 14
"""1 when all data is there and was verified."""

VERIFIED_CELL: Final = 15
"""Up to when it is known that the photo is in force; ns, of the clock that the node uses."""

INLINE_RUNS: Final = 3
RUN: Final = struct.Struct("@II")
MAX_RUNS: Final = 512
"""Runs of one photo. With more, a photo is not kept before more space is free."""

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_META_BYTES: Final = 8 * 1024
MAX_DATA_BYTES: Final = 2**32 - 1
MAX_ENTRIES: Final = 2**31 - 1

HASH_BITS: Final = 32
HASH_MASK: Final = 2**HASH_BITS - 1
ALTERNATE_MIX: Final = 0x9E3779B1
"""Odd, so that no two alternate keys of a photo get the same bits."""

RING_ENTRIES: Final = 2**16
"""Hits that a worker notes before the oldest are lost; at 50,000 a second more than a second's."""

RING_MASK: Final = RING_ENTRIES - 1
LOOKING_CELL: Final = 0
"""1 + the entry that the worker is looking at; 0 for none."""

POSITION_CELL: Final = 8
"""Hits that the worker has noted so far. On another cache line than ``LOOKING_CELL``, which the keeper reads too."""

AREA_CELLS: Final = 16
RING_START: Final = AREA_CELLS * CELL_BYTES
PINS_START: Final = RING_START + 4 * RING_ENTRIES
"""Pins: 16 bits an entry."""

MAX_PINS: Final = 2**16 - 1

for _struct, _bytes in ((DESCRIPTOR, FILLED_CELL * CELL_BYTES), (RUN, CELL_BYTES)):
    if _struct.size != _bytes:
        raise ImportError(f"{_struct.format} is {_struct.size} bytes, expected {_bytes}")


def name_bits(volume: int, key: int, alternate: int, shift: int) -> int:
    """The 32 bits of a name's hash that the table keeps. Their low ``shift`` bits are the same for all alternate keys.

    Python's hash of a tuple of numbers is the same in all processes of one interpreter.
    """
    bits = hash((volume, key))
    if alternate:
        bits ^= alternate * ALTERNATE_MIX << shift
    return bits & HASH_MASK


def table_cells(max_entries: int) -> int:
    """Cells of the hash table: a power of two, at most two thirds of which are ever used."""
    return 1 << (max(64, max_entries * 3 // 2) - 1).bit_length()


def index_bytes(max_entries: int) -> int:
    """Size of the index."""
    return max_entries * DESCRIPTOR_BYTES + table_cells(max_entries) * CELL_BYTES


def area_bytes(max_entries: int) -> int:
    """Size of a worker's area."""
    return PINS_START + 2 * max_entries


def granules(size_bytes: int) -> int:
    """Granules that so many bytes need."""
    return -(-size_bytes // GRANULE_BYTES)


def data_start(head_bytes: int, meta_bytes: int, runs: int) -> int:
    """Where the data begins in the first run, bytes from its start."""
    start = (head_bytes + meta_bytes + CELL_BYTES - 1) // CELL_BYTES * CELL_BYTES
    return start + runs * RUN.size if runs > INLINE_RUNS else start


def table_start(head_bytes: int, meta_bytes: int) -> int:
    """Where the table of all runs begins in the first run, when there is one."""
    return (head_bytes + meta_bytes + CELL_BYTES - 1) // CELL_BYTES * CELL_BYTES
