"""What is remembered of photos that are gone: that they were here not long ago. Eight bytes each."""

from __future__ import annotations

from array import array
from typing import Final

_UNIT_BYTES: Final = 512
_MASK: Final = 2**32 - 1
_LEAST_SLOTS: Final = 1024


class Ghosts:
    """Remembers the hashes of names that went while the last so many bytes went.

    A direct-mapped table of 32 bits of hash and a stamp: a later name may overwrite an earlier one, and one in some
    thousands is taken for another. Both cost a little hit ratio and nothing else.
    """

    def __init__(self) -> None:
        self._hashes = array("I", bytes(4 * _LEAST_SLOTS))
        self._stamps = array("I", bytes(4 * _LEAST_SLOTS))
        self._clock = 1
        """Units of what has gone so far; never 0, which stands for an empty slot."""

    def fit(self, photos: int) -> None:
        """Have at least as many slots as there are photos."""
        slots = len(self._hashes)
        if photos <= slots:
            return
        while slots < photos:
            slots *= 2
        hashes, stamps = self._hashes, self._stamps
        self._hashes, self._stamps = array("I", bytes(4 * slots)), array("I", bytes(4 * slots))
        for number, stamp in zip(hashes, stamps, strict=True):
            self._hashes[number & slots - 1] = number
            self._stamps[number & slots - 1] = stamp

    def add(self, name_hash: int, size_bytes: int) -> None:
        """A photo is gone."""
        self._clock = (self._clock + 1 + size_bytes // _UNIT_BYTES) & _MASK or 1
        slot = name_hash & len(self._hashes) - 1
        self._hashes[slot] = name_hash & _MASK
        self._stamps[slot] = self._clock

    def take(self, name_hash: int, window_bytes: int) -> bool:
        """Whether it went while the last ``window_bytes`` went; it is forgotten with that."""
        slot = name_hash & len(self._hashes) - 1
        stamp = self._stamps[slot]
        if not stamp or self._hashes[slot] != name_hash & _MASK:
            return False
        self._stamps[slot] = 0
        return (self._clock - stamp) & _MASK <= window_bytes // _UNIT_BYTES
