"""Machines that get copies: which of them can carry most, once what they have is read elsewhere."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from directory.decisions.rebalance.passing import passable
from directory.decisions.rebalance.ranking import Ranking
from directory.decisions.rebalance.state import State

GRAIN = 0.02
"""Loads that differ by less are alike, as a multiple of the mean."""

COLDEST_TRIED = 16
"""Machines that are looked at before one is taken that carries more than is wanted."""


class Targets:
    """Machines that may get copies, and have room for the smallest at least."""

    def __init__(self, state: State, smallest_bytes: int, *, tight: bool) -> None:
        self._state = state
        self._smallest_bytes = smallest_bytes
        self._tight = tight
        roomy = [m for m, takes in enumerate(state.takes) if takes and state.has_room(m, smallest_bytes)]
        self._cold = Ranking(roomy, state.level)
        self._roomiest: list[tuple[int, float, int]] | None = None
        self._most: dict[int, float] = {}
        """What machines that carry less than was wanted could carry then. It only falls as a plan goes on."""

    def for_move(self, v: int, source: int, load: float) -> int | None:
        """Return the machine that gets a copy, and can carry so much load as it is: the coldest, or when tastes are
        tight the hottest."""
        state, size_bytes = self._state, self._state.sizes[v]
        fitting: dict[tuple[str, str], bool] = {}
        found: int | None = None
        for m in self._cold:
            if state.slack(m) < max(load, state.least):
                break
            if not state.may_get(v, m) or not state.has_room(m, size_bytes):
                continue
            home = state.homes[m]
            if home not in fitting:
                fitting[home] = state.keeps_promise(v, source, m)
            if fitting[home] and not state.shares_host(v, source, m):
                found = m
                if not self._tight:
                    break
        return found

    def for_copy(self, v: int, wanted: float) -> tuple[int, float] | None:
        """Return the machine for one more copy, and about the load that it can carry of it, ``wanted`` at most."""
        if (found := self._coldest(v, wanted)) is not None:
            return found, wanted
        found = self._roomiest_for(v, wanted)
        return None if found is None else (found, min(wanted, self._carries(found, wanted)))

    def _coldest(self, v: int, wanted: float) -> int | None:
        state = self._state
        for tried, m in enumerate(self._cold, 1):
            if tried > COLDEST_TRIED or state.limit[m] < wanted:
                return None
            if state.slack(m) < state.least or self._most.get(m, wanted) < wanted or not self._may_get(v, m):
                continue
            if self._carries(m, wanted) >= wanted:
                return m
        return None

    def _roomiest_for(self, v: int, wanted: float) -> int | None:
        """Return the machine that carries most. What machines carry only falls as a plan goes on, so it is reckoned
        anew only of those that come first."""
        state = self._state
        if self._roomiest is None:
            self._roomiest = [self._entry(m) for m in self._cold]
            heapify(self._roomiest)
        others: list[tuple[int, float, int]] = []
        found: int | None = None
        while self._roomiest and found is None:
            before, _, m = heappop(self._roomiest)
            if not before:
                others.append((before, 0.0, m))
                break
            entry = self._entry(m)
            if entry[0] > before and self._roomiest and entry > self._roomiest[0]:
                heappush(self._roomiest, entry)
                continue
            others.append(entry)
            if entry[0] and state.slack(m) > -state.least and self._may_get(v, m):
                found = m
        for entry in others:
            heappush(self._roomiest, entry)
        return found

    def _entry(self, m: int) -> tuple[int, float, int]:
        grain = GRAIN * self._state.mean or 1.0
        return -int(self._carries(m, self._state.limit[m]) / grain), self._state.level[m], m

    def _carries(self, m: int, wanted: float) -> float:
        slack = max(0.0, self._state.slack(m))
        if slack >= wanted:
            return slack
        found = slack + passable(self._state, m, wanted - slack)
        if found < wanted:
            self._most[m] = found
        return found

    def _may_get(self, v: int, m: int) -> bool:
        return self._state.may_get(v, m) and self._state.has_room(m, self._state.sizes[v])

    def changed(self, m: int) -> None:
        """Take note that a machine has another load, or less room."""
        self._cold.put(m, self._state.level[m])
        if not self._state.has_room(m, self._smallest_bytes):
            self._cold.remove(m)

    def all_changed(self) -> None:
        """Take note of all loads."""
        for m, level in enumerate(self._state.level):
            self._cold.put(m, level)
