"""The needles of a piece of a volume in memory, as columns: for those who go through millions of small ones.

Nothing is checked here. Whoever uses what a header says has to hold the needle's checksum, or the header's, against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from struct import Struct

from haystack.volume.index_records import KEY
from haystack.volume.layout import ALIGNMENT, FOOTER_BYTES, HEADER, HEADER_BYTES, needle_bytes

RawHeader = tuple[int, ...]
"""The fields of a header in the order of the layout."""

FLAGS, META_BYTES, DATA_BYTES, ALTERNATE, PHOTO, _COOKIE, TIME_MS, EXPIRES, INDEX, COUNT, _DISTANCE, CHECK = range(
    1, 13
)
"""Places in a :data:`RawHeader`, behind the magic."""

_SIZES = Struct("<6xHI")
if _SIZES.unpack_from(HEADER.pack(*range(13))) != (META_BYTES, DATA_BYTES):
    raise ImportError("the sizes are elsewhere in a header")

_sizes = _SIZES.unpack_from
_FIXED_BYTES = needle_bytes(0, 0)
if _FIXED_BYTES != HEADER_BYTES + FOOTER_BYTES:
    raise ImportError(f"an empty needle takes {_FIXED_BYTES} bytes, not header and footer")


@dataclass(slots=True)
class Walked:
    """Needles that lie in a window as a whole.

    Parameters
    ----------
    starts, ends: where they begin and end, from the window's begin on; each begins where the one before it ends.
    headers: of each.
    raw_keys: of each, as the index has it.
    """

    starts: list[int]
    ends: list[int]
    headers: list[RawHeader]
    raw_keys: list[bytes]


def walk(window: memoryview) -> Walked:
    """Find the needles of a window that begins with one."""
    last = len(window) - HEADER_BYTES
    starts: list[int] = []
    position = 0
    while position <= last:
        starts.append(position)
        meta_bytes, data_bytes = _sizes(window, position)
        position += (meta_bytes + data_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT + _FIXED_BYTES
    ends = [*starts[1:], position]
    if position > len(window):
        ends.pop()
        if starts:
            starts.pop()
    headers = list(map(HEADER.unpack_from, repeat(window), starts))
    raw_keys = [KEY.pack(header[PHOTO], header[ALTERNATE]) for header in headers]
    return Walked(starts, ends, headers, raw_keys)
