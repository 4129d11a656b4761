"""Where on the SSD each photo is. In the keeper's memory, of fixed size; nothing of it is on the disk."""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cache.memory.layout import CELL_BYTES, name_bits, table_cells
from cache.memory.table import NameTable

_FIELDS: Final = struct.Struct("<QQQQQQIIIxxxx")
ENTRY_BYTES: Final = _FIELDS.size
_POSITION: Final = struct.Struct("<Q")
_POSITION_AT: Final = 24
_VERIFIED_AT: Final = 32
_NOWHERE: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Located:
    """A photo on the SSD.

    Parameters
    ----------
    slot: in the index.
    position: of its needle in the log; never given twice.
    checksum: of the Stores' needle, which its ETag is made of.
    verified_ns, stored_ms: as in memory, see ``cache.memory.NewPhoto``.
    size_bytes: of the needle on the SSD.
    """

    slot: int
    key: int
    cookie: int
    checksum: int
    position: int
    verified_ns: int
    stored_ms: int
    volume: int
    alternate: int
    size_bytes: int


class SsdIndex:
    """The photos by name. A slot is used again; (slot, position) names one needle for ever.

    Parameters
    ----------
    max_entries: photos at most.
    """

    def __init__(self, max_entries: int) -> None:
        self._entries = mmap.mmap(-1, max_entries * ENTRY_BYTES)
        self._cells = memoryview(mmap.mmap(-1, table_cells(max_entries) * CELL_BYTES)).cast("Q")
        self._table = NameTable(self._cells)
        self._max_entries = max_entries
        self._opened = 0
        """Slots that were ever used."""
        self._free = array("I")
        self.live_bytes = 0

    def __len__(self) -> int:
        return self._opened - len(self._free)

    @property
    def full(self) -> bool:
        """Whether nothing can be added before something goes."""
        return len(self) == self._max_entries

    def find(self, volume: int, key: int, alternate: int) -> Located | None:
        """The photo of that name, whatever its cookie."""
        for slot in self._table.candidates(self._bits(volume, key, alternate)):
            found = self._at(slot)
            if (found.volume, found.key, found.alternate) == (volume, key, alternate):
                return found
        return None

    def add(
        self,
        volume: int,
        key: int,
        alternate: int,
        *,
        cookie: int,
        checksum: int,
        position: int,
        verified_ns: int,
        stored_ms: int,
        size_bytes: int,
    ) -> int | None:
        """Add a photo whose name is not there; returns its slot, None when there is no room in the table."""
        if self.full:
            return None
        slot = self._free.pop() if self._free else self._opened
        if not self._table.put(self._bits(volume, key, alternate), slot):
            if slot != self._opened:
                self._free.append(slot)
            return None
        self._opened = max(self._opened, slot + 1)
        _FIELDS.pack_into(
            self._entries,
            slot * ENTRY_BYTES,
            key,
            cookie,
            checksum,
            position,
            verified_ns,
            stored_ms,
            volume,
            alternate,
            size_bytes,
        )
        self.live_bytes += size_bytes
        return slot

    def is_at(self, slot: int, position: int) -> bool:
        """Whether that needle still counts."""
        return self._position(slot) == position

    def set_verified(self, slot: int, verified_ns: int) -> None:
        """The photo is known to have been there at that moment."""
        _POSITION.pack_into(self._entries, slot * ENTRY_BYTES + _VERIFIED_AT, verified_ns)

    def remove(self, slot: int, position: int) -> bool:
        """Forget a needle; False when it does not count any more."""
        if not self.is_at(slot, position):
            return False
        found = self._at(slot)
        self._table.remove(self._bits(found.volume, found.key, found.alternate), slot)
        _POSITION.pack_into(self._entries, slot * ENTRY_BYTES + _POSITION_AT, _NOWHERE)
        self._free.append(slot)
        self.live_bytes -= found.size_bytes
        return True

    def drop(self, volume: int, key: int, alternate: int | None) -> int:
        """Forget a photo, all its alternate keys when None is given; returns how many were there."""
        bits = self._bits(volume, key, alternate or 0)
        return self._remove_all(
            found
            for slot in list(self._table.candidates(bits, alternates=alternate is None))
            if (found := self._at(slot)).volume == volume and found.key == key and alternate in (None, found.alternate)
        )

    def drop_volume(self, volume: int) -> int:
        """Forget all photos of a volume; looks at each photo that is here."""
        return self._remove_all(found for found in self._all() if found.volume == volume)

    def drop_all(self) -> int:
        """Forget all."""
        return self._remove_all(self._all())

    def _all(self) -> Iterable[Located]:
        for slot in range(self._opened):
            if self._position(slot) != _NOWHERE:
                yield self._at(slot)

    def _remove_all(self, those: Iterable[Located]) -> int:
        return sum(self.remove(found.slot, found.position) for found in list(those))

    def _bits(self, volume: int, key: int, alternate: int) -> int:
        return name_bits(volume, key, alternate, self._table.shift)

    def _position(self, slot: int) -> int:
        position: int = _POSITION.unpack_from(self._entries, slot * ENTRY_BYTES + _POSITION_AT)[0]
        return position

    def _at(self, slot: int) -> Located:
        return Located(slot, *_FIELDS.unpack_from(self._entries, slot * ENTRY_BYTES))
