"""Exchanging volumes: a hot machine's goes to a lightly used one that is too full, and a cool one comes back."""

from __future__ import annotations

from directory.decisions.rebalance.choices import Choice, Prices
from directory.decisions.rebalance.state import State
from directory.decisions.rebalance.views import StepKind

MAX_TRIED = 500
"""Pairs of volumes that are looked at for one swap."""

MAX_FULL_TARGETS = 8
"""Full machines that are looked at for one swap."""

COOLEST = 50
"""Volumes of each that may come back."""


class Swaps:
    """Finds exchanges."""

    def __init__(self, state: State, prices: Prices, smallest_bytes: int) -> None:
        self._state = state
        self._prices = prices
        self._smallest_bytes = smallest_bytes
        self._coolest: dict[int, list[int]] = {}
        self._full: list[int] | None = None

    def changed(self) -> None:
        """Take note that a step was planned."""
        self._full = None

    def best(self, m: int, queue: list[int]) -> Choice | None:
        """Return the exchange that wins most for each byte; ``queue``: volumes of the hot machine ``m``, those first
        that carry most load a byte."""
        state = self._state
        excess, tried = state.excess(m), 0
        best: Choice | None = None
        if state.left_bytes < 2 * self._smallest_bytes:
            return None
        if self._full is None:
            self._full = self._full_machines()
        full = [t for t in self._full if t != m]
        for v in queue if full else ():
            if tried > MAX_TRIED:
                break
            if state.stays(v) or m not in state.holders[v]:
                continue
            share = state.share(v, m)
            for t in full:
                if not (state.may_get(v, t) and state.keeps_promise(v, m, t)) or state.shares_host(v, m, t):
                    continue
                for other in self._coolest_first(t):
                    if state.stays(other) or t not in state.holders[other]:
                        continue
                    tried += 1
                    choice = self._swap(v, m, t, other, share, excess)
                    if choice is not None and choice.is_better(best):
                        best = choice
                    if choice is not None or tried > MAX_TRIED:
                        break
        return best

    def _full_machines(self) -> list[int]:
        """Machines with little load and no room, the coldest first."""
        state = self._state
        found = [
            m
            for m, level in enumerate(state.level)
            if level < state.aim and state.takes[m] and not state.has_room(m, self._smallest_bytes)
        ]
        return sorted(found, key=lambda m: (state.level[m], m))[:MAX_FULL_TARGETS]

    def _coolest_first(self, m: int) -> list[int]:
        """The coolest volumes as they were when they were asked for first: sorting takes longer than a step."""
        found = self._coolest.get(m)
        if found is None:
            state = self._state
            found = [v for v in state.on[m] if m in state.holders[v] and not state.stays(v)]
            found.sort(key=lambda v: (state.share(v, m), -state.sizes[v], v))
            self._coolest[m] = found = found[:COOLEST]
        return found

    def _swap(self, v: int, m: int, t: int, other: int, share: float, excess: float) -> Choice | None:
        state = self._state
        size_bytes, other_bytes = state.sizes[v], state.sizes[other]
        back = state.share(other, t)
        gain = min(share - back, excess)
        fits = (
            gain > state.least
            and state.may_get(other, m)
            and state.slack(t) >= share - back
            and size_bytes + other_bytes <= state.left_bytes
            and size_bytes <= state.room[t]
            and _still_fits(state, t, size_bytes - other_bytes)
            and _still_fits(state, m, other_bytes - size_bytes)
            and state.keeps_promise(other, t, m)
            and not state.shares_host(other, t, m)
        )
        if not fits:
            return None
        score = gain / max(1, size_bytes + other_bytes)
        return self._prices.worthwhile(Choice(StepKind.SWAP, v, m, t, gain, share - back, score, other))


def _still_fits(state: State, m: int, change_bytes: int) -> bool:
    after_bytes = state.used[m] + change_bytes
    return change_bytes <= 0 or after_bytes <= state.settings.fill_limit * state.total[m]
