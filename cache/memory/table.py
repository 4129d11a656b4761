"""The hash table from the names of needles to entries, in memory that many processes read and one writes.

Open addressing with linear probing. A cell holds 32 bits of the name's hash and 1 + the entry, so it is written and
read whole. Its place follows from those bits alone, so a cell can be moved without looking at the entry. All alternate
keys of a photo begin at one place, which makes "this photo, whatever the rendition" one look-up.

Readers need no lock. One that comes while cells are moved may miss an entry, which costs it a question to the keeper;
it never sees an entry under a name that it does not have, since it compares the name in the entry's descriptor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cache.memory.layout import HASH_BITS, HASH_MASK

MAX_PROBES: Final = 256
"""Cells from its place in which an entry may lie. Only names chosen for that purpose can have so many before them."""


class NameTable:
    """The keeper's side.

    Parameters
    ----------
    cells: a power of two of 64-bit cells, all 0.
    """

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._mask = len(cells) - 1
        self.shift = len(cells).bit_length() - 1
        if len(cells) & self._mask or self.shift > HASH_BITS:
            raise ValueError(f"a table of {len(cells)} cells is no power of two up to 2^{HASH_BITS}")

    def candidates(self, bits: int, alternates: bool = False) -> Iterator[int]:
        """Entries that may have the name with these bits; with ``alternates`` those of all its alternate keys."""
        cells, mask = self._cells, self._mask
        wanted = bits & mask
        place = wanted
        while cell := cells[place]:
            found = cell >> HASH_BITS
            if found == bits or (alternates and found & mask == wanted):
                yield (cell & HASH_MASK) - 1
            place = (place + 1) & mask

    def put(self, bits: int, entry: int) -> bool:
        """Add an entry; False when there are too many others near its place."""
        cells, mask = self._cells, self._mask
        place = bits & mask
        for _ in range(MAX_PROBES):
            if not cells[place]:
                cells[place] = bits << HASH_BITS | entry + 1
                return True
            place = (place + 1) & mask
        return False

    def replace(self, bits: int, entry: int, by: int) -> bool:
        """Let another entry take the place of one, in one step for all readers; False when that one is not there."""
        place = self._place_of(bits, entry)
        if place is None:
            return False
        self._cells[place] = bits << HASH_BITS | by + 1
        return True

    def remove(self, bits: int, entry: int) -> bool:
        """Take an entry out; False when it is not there.

        What follows without a gap moves up if it may, so that there are no graves and a search ends at the first gap.
        """
        hole = self._place_of(bits, entry)
        if hole is None:
            return False
        cells, mask = self._cells, self._mask
        place = hole
        while True:
            place = (place + 1) & mask
            cell = cells[place]
            if not cell:
                break
            home = cell >> HASH_BITS & mask
            if (place - home) & mask >= (place - hole) & mask:  # its home is not behind the hole
                cells[hole] = cell
                hole = place
        cells[hole] = 0
        return True

    def _place_of(self, bits: int, entry: int) -> int | None:
        cells, mask = self._cells, self._mask
        wanted = bits << HASH_BITS | entry + 1
        place = bits & mask
        while cell := cells[place]:
            if cell == wanted:
                return place
            place = (place + 1) & mask
        return None
