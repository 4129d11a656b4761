"""What is free: entries, and granules of the arena. Pure but for giving pages back to the system.

Entries are opened block by block. What a block takes beside the arena (descriptors, pins, the policy's part) is taken
away from the arena when it is opened, as whole pages that are given back to the system, so that the sum stays. An entry
that was opened stays open.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Final

from cache.memory.layout import GRANULE_BYTES, INLINE_RUNS, MAX_RUNS, PAGE_BYTES, Runs, data_start, granules
from cache.memory.plan import ENTRY_BLOCK, MemoryPlan
from cache.memory.runs import FreeRuns

_PAGE_GRANULES: Final = PAGE_BYTES // GRANULE_BYTES


class Space:
    """Free entries and granules.

    Parameters
    ----------
    policy_entry_bytes: what the policy takes an entry.
    give_back: called with (start, size) in bytes of the arena, whole pages.
    """

    def __init__(self, plan: MemoryPlan, policy_entry_bytes: int, give_back: Callable[[int, int], None]) -> None:
        self._plan = plan
        self._give_back = give_back
        self._runs = FreeRuns(plan.arena_granules)
        self._free_entries = array("I")
        self._unused_entry = 0
        self._opened = 0
        block_granules = -(-ENTRY_BLOCK * (plan.entry_bytes + policy_entry_bytes) // GRANULE_BYTES)
        self._block_granules = -(-block_granules // _PAGE_GRANULES) * _PAGE_GRANULES
        self._owed = 0
        """Granules that must be given back before another block is opened."""
        self.held_back = 0
        """Granules that are not the arena's any more."""
        self.touched = 0
        """Granules before the end of the furthest run that was ever taken."""

    @property
    def free_granules(self) -> int:
        """Granules that are free and need not be given back."""
        return self._runs.free_granules - self._owed

    @property
    def arena_granules(self) -> int:
        """Granules that the arena has now."""
        return self._plan.arena_granules - self.held_back - self._owed

    @property
    def free_entries(self) -> int:
        """Entries that could be taken now, as far as is known without opening a block."""
        return len(self._free_entries) + self._opened - self._unused_entry

    @property
    def opened_entries(self) -> int:
        return self._opened

    @property
    def may_open(self) -> bool:
        """Whether there are entries beyond those that are open."""
        return self._opened + ENTRY_BLOCK <= self._plan.max_entries

    @property
    def holes(self) -> int:
        """Free runs."""
        return len(self._runs)

    def take(self, head_bytes: int, meta_bytes: int, data_bytes: int) -> tuple[int, Runs] | None:
        """An entry and runs for a photo of that size, or None."""
        entry = self._take_entry()
        if entry is None:
            return None
        runs = self._take_runs(head_bytes, meta_bytes, data_bytes)
        if runs is None:
            self._free_entries.append(entry)
            return None
        self.touched = max(self.touched, max(start + length for start, length in runs))
        return entry, tuple(runs)

    def give(self, entry: int, runs: Iterable[tuple[int, int]]) -> None:
        """Both are free again."""
        self._give_runs(runs)
        self._free_entries.append(entry)
        if self._owed:
            self._pay()

    def _take_runs(self, head_bytes: int, meta_bytes: int, data_bytes: int) -> list[tuple[int, int]] | None:
        expected = 1
        while True:
            wanted = max(1, granules(data_start(head_bytes, meta_bytes, expected) + data_bytes))
            if wanted > self.free_granules:
                return None
            runs = self._runs.take(wanted, granules(head_bytes + meta_bytes), MAX_RUNS)
            if runs is None:
                return None
            if len(runs) <= max(expected, INLINE_RUNS):
                if data_start(head_bytes, meta_bytes, len(runs)) <= runs[0][1] * GRANULE_BYTES:
                    return runs
                expected = MAX_RUNS  # the first is too short for the table of runs, and none is longer
            self._give_runs(runs)
            if expected == MAX_RUNS:
                return None
            expected = len(runs)  # so many runs need room for a table of them

    def _give_runs(self, runs: Iterable[tuple[int, int]]) -> None:
        for start, length in runs:
            self._runs.give(start, length)

    def _take_entry(self) -> int | None:
        if self._free_entries:
            return self._free_entries.pop()
        if self._unused_entry == self._opened and not self._open_block():
            return None
        self._unused_entry += 1
        return self._unused_entry - 1

    def _open_block(self) -> bool:
        if not self.may_open:
            return False
        if not self._owed:
            self._owed = self._block_granules
        before = self._opened
        self._pay()
        return self._opened > before

    def _pay(self) -> None:
        """Give back what is owed, as far as possible; the block is open when all of it is."""
        for start, length in self._runs.take_pages(self._owed):
            self._give_back(start * GRANULE_BYTES, length * GRANULE_BYTES)
            self.held_back += length
            self._owed -= length
        if not self._owed:
            self._opened += ENTRY_BLOCK
