"""Two planners of the usual kind, to compare with: one evens out how many volumes machines have, one their bytes.

Both take a volume from the machine that has most to the one that has least until no move makes the difference smaller.
They know nothing of reads. Failure domains and fill limits bind them, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from directory.decisions.rebalance import RebalanceSettings, Snapshot
from directory.decisions.rebalance.ranking import Ranking
from directory.decisions.rebalance.state import State

TOLERANCE_BYTES = 0.02
"""Part of the mean that machines may differ by in bytes."""


@dataclass(frozen=True, slots=True)
class Levelled:
    """What came of it. ``worst``: highest load, as a multiple of the mean."""

    worst_before: float
    worst_after: float
    moves: int
    size_bytes: int


def by_count(snapshot: Snapshot) -> Levelled:
    """Even out the number of volumes."""
    return _level(snapshot, lambda state, v: 1, lambda mean: 1)


def by_bytes(snapshot: Snapshot) -> Levelled:
    """Even out the bytes."""
    return _level(snapshot, lambda state, v: state.sizes[v], lambda mean: TOLERANCE_BYTES * mean)


def _level(snapshot: Snapshot, weigh: Callable[[State, int], int], tolerance: Callable[[float], float]) -> Levelled:
    state = State(snapshot, RebalanceSettings(fill_band=1.0))
    amounts = [sum(weigh(state, v) for v in state.on[m]) for m in range(len(state.machines))]
    mean = sum(amounts) / len(amounts)
    few = Ranking(range(len(amounts)), [float(amount) for amount in amounts])
    many = [(-amount, m) for m, amount in enumerate(amounts)]
    heapify(many)
    queues = {m: sorted(state.on[m], reverse=True) for m in range(len(amounts))}
    worst_before, moves, size_bytes = state.worst(), 0, 0
    while many:
        _, source = heappop(many)
        # What is above the mean goes; at the end nobody differs from it by more than is tolerated.
        if amounts[source] - mean < tolerance(mean) or not queues[source]:
            continue
        v = queues[source].pop()
        target = _target(state, v, source, few, amounts, weigh(state, v))
        if target is not None:
            holders = [target if m == source else m for m in state.holders[v]]
            state.put(v, holders, state.shares[v])
            for m, change in ((source, -weigh(state, v)), (target, weigh(state, v))):
                amounts[m] += change
                few.put(m, float(amounts[m]))
            moves += 1
            size_bytes += state.sizes[v]
        heappush(many, (-amounts[source], source))
    return Levelled(worst_before, state.worst(), moves, size_bytes)


def _target(state: State, v: int, source: int, few: Ranking, amounts: list[int], weight: int) -> int | None:
    for m in few:
        if amounts[m] + weight >= amounts[source]:
            return None
        if m not in state.holders[v] and state.has_room(m, state.sizes[v]) and state.keeps_promise(v, source, m):
            return m
    return None
