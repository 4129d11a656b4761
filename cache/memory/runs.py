"""The free granules of the arena: which runs of them there are, and which are taken for a photo. Pure.

A photo gets the smallest run that holds it. When no run does, it gets several, the longest first, so that what is free
can always be used: space is never lost to holes between photos. Runs that touch each other are joined when they come
back. All steps take constant time but for the number of runs that a photo is spread over.
"""

from __future__ import annotations

from typing import Final

from cache.memory.layout import GRANULE_BYTES, PAGE_BYTES

_EXACT: Final = 64
"""Runs shorter than this have a class for each length; longer ones 16 classes for each doubling."""

_STEPS_BITS: Final = 4
_PAGE_GRANULES: Final = PAGE_BYTES // GRANULE_BYTES
_OPEN_SHIFT: Final = 6 - _STEPS_BITS  # so that the classes of longer runs begin right behind the exact ones


class FreeRuns:
    """Free runs of granules 0 … ``granules`` - 1; all are free at first.

    Parameters
    ----------
    granules: at least 1.
    """

    def __init__(self, granules: int) -> None:
        self.free_granules = 0
        self._ends: dict[int, int] = {}
        """End of a run → its start."""
        self._classes: list[dict[int, int]] = [{} for _ in range(_class_of(granules) + 1)]
        """For each class of lengths: start of a run → its length."""
        self._lengths: dict[int, int] = {}
        """Start of a run → its length."""
        self._filled = 0
        """Bit i is set when class i has a run."""
        self._add(0, granules)

    @property
    def longest(self) -> int:
        """Length of a run of which none is much longer (none at all below 64 granules); 0 when nothing is free."""
        if not self._filled:
            return 0
        return next(reversed(self._classes[self._filled.bit_length() - 1].values()))

    def __len__(self) -> int:
        return len(self._lengths)

    def take(self, granules: int, least_first: int, max_runs: int) -> list[tuple[int, int]] | None:
        """Runs of so many granules in all, as (start, length); None when there are none such.

        Parameters
        ----------
        least_first: the first run is at least that long.
        max_runs: in at most so many runs.
        """
        if granules > self.free_granules:
            return None
        start = self._best(granules)
        if start is not None:
            self._carve(start, granules)
            return [(start, granules)]
        return self._take_several(granules, least_first, max_runs)

    def give(self, start: int, length: int) -> None:
        """A run is free again."""
        before = self._ends.get(start)
        if before is not None:
            length += self._remove(before)
            start = before
        if start + length in self._lengths:
            length += self._remove(start + length)
        self._add(start, length)

    def take_pages(self, granules: int) -> list[tuple[int, int]]:
        """Whole pages of memory, at most so many granules, as (start, length), from the ends of the longest runs."""
        taken: list[tuple[int, int]] = []
        while granules >= _PAGE_GRANULES and self._filled:
            start, length = self._longest_run()
            first = -(-start // _PAGE_GRANULES) * _PAGE_GRANULES
            end = (start + length) // _PAGE_GRANULES * _PAGE_GRANULES
            if end <= first:
                break
            first = max(first, end - granules // _PAGE_GRANULES * _PAGE_GRANULES)
            self._remove(start)
            if first > start:
                self._add(start, first - start)
            if start + length > end:
                self._add(end, start + length - end)
            taken.append((first, end - first))
            granules -= end - first
        return taken

    def runs(self) -> list[tuple[int, int]]:
        """All free runs in their order."""
        return sorted(self._lengths.items())

    def _take_several(self, granules: int, least_first: int, max_runs: int) -> list[tuple[int, int]] | None:
        taken: list[tuple[int, int]] = []
        left = granules
        while left:
            start = self._best(left)
            if start is None:
                start, length = self._longest_run()
                self._remove(start)
            else:
                length = left
                self._carve(start, length)
            taken.append((start, length))
            left -= length
            if (len(taken) == max_runs and left) or taken[0][1] < least_first:
                for run in taken:
                    self.give(*run)
                return None
        return taken

    def _best(self, granules: int) -> int | None:
        """Start of a run that is long enough, of the lowest class that has one."""
        number = _class_of(granules)
        if number < len(self._classes) and self._filled >> number & 1:
            start, length = next(reversed(self._classes[number].items()))
            if length >= granules:
                return start
        above = self._filled >> (number + 1)
        if not above:
            return None
        return next(reversed(self._classes[number + (above & -above).bit_length()]))

    def _longest_run(self) -> tuple[int, int]:
        return next(reversed(self._classes[self._filled.bit_length() - 1].items()))

    def _carve(self, start: int, granules: int) -> None:
        length = self._remove(start)
        if length > granules:
            self._add(start + granules, length - granules)

    def _add(self, start: int, length: int) -> None:
        number = _class_of(length)
        self._classes[number][start] = length
        self._filled |= 1 << number
        self._lengths[start] = length
        self._ends[start + length] = start
        self.free_granules += length

    def _remove(self, start: int) -> int:
        length = self._lengths.pop(start)
        del self._ends[start + length]
        number = _class_of(length)
        members = self._classes[number]
        del members[start]
        if not members:
            self._filled &= ~(1 << number)
        self.free_granules -= length
        return length


def _class_of(length: int) -> int:
    """The class of a length: all of a class are at least as long as all of the classes before it."""
    if length < _EXACT:
        return length
    shift = length.bit_length() - 1 - _STEPS_BITS
    return _EXACT + ((shift - _OPEN_SHIFT) << _STEPS_BITS) + (length >> shift) - (1 << _STEPS_BITS)
