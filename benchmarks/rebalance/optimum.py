"""The fewest bytes by which every machine comes to a level: exact, by search, for a handful of machines and volumes.

A plan is a set of new copies; giving copies up costs nothing, and reads may be shared in any proportion. So sets of new
copies are tried in the order of their bytes until one allows to share the reads so that no machine is above the level,
which is a question of flow. Failure domains, room and the number of copies are left out: with them it takes as many
bytes or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from directory.decisions.rebalance.state import State

MAX_TRIED = 200_000
_TOLERANCE = 1e-7


class TooManyPossibilities(Exception):
    """The search was given up."""


def fewest_bytes(state: State, level: float, most_tried: int = MAX_TRIED) -> int:
    """Return the fewest bytes; ``level`` is load for each unit of capacity. Raises TooManyPossibilities."""
    pairs = sorted(
        (state.sizes[v], v, m)
        for v in range(len(state.volumes))
        for m in range(len(state.machines))
        if m not in state.holders[v] and state.loads[v] > 0
    )
    for tried, (size_bytes, chosen) in enumerate(_by_bytes([size for size, _, _ in pairs])):
        if tried > most_tried:
            raise TooManyPossibilities(f"{most_tried} sets of copies do not suffice")
        holders = [set(one) for one in state.holders]
        for place in chosen:
            holders[pairs[place][1]].add(pairs[place][2])
        if can_carry(state, holders, level):
            return size_bytes
    raise TooManyPossibilities("no set of copies suffices")


def can_carry(state: State, holders: Sequence[set[int]], level: float) -> bool:
    """Say whether reads can be shared among these copies so that no machine is above a level."""
    room = [
        level * capacity * (1 + _TOLERANCE) - machine.other_load
        for capacity, machine in zip(state.capacity, state.machines, strict=True)
    ]
    carried: list[dict[int, float]] = [{} for _ in room]
    for v in sorted(range(len(holders)), key=lambda v: len(holders[v])):
        left = state.loads[v]
        while left > _TOLERANCE * state.total_load:
            pushed = _push(v, left, holders, room, carried)
            if pushed <= 0:
                return False
            left -= pushed
    return True


def _push(
    v: int, amount: float, holders: Sequence[set[int]], room: list[float], carried: list[dict[int, float]]
) -> float:
    """Push load of a volume along the shortest way to a machine with room; machines on the way pass others' load on."""
    came: dict[int, tuple[int, int]] = {}
    ways = [(m, -1, v) for m in sorted(holders[v])]
    while ways:
        following: list[tuple[int, int, int]] = []
        for m, before, by in ways:
            if m in came:
                continue
            came[m] = (before, by)
            if room[m] > 1e-12:
                return _along(m, amount, room, carried, came)
            following += [(t, m, u) for u in carried[m] if carried[m][u] > 1e-12 for t in sorted(holders[u])]
        ways = following
    return 0.0


def _along(
    end: int, amount: float, room: list[float], carried: list[dict[int, float]], came: dict[int, tuple[int, int]]
) -> float:
    amount = min(amount, room[end])
    m = end
    while came[m][0] >= 0:
        before, by = came[m]
        amount = min(amount, carried[before][by])
        m = before
    room[end] -= amount
    m = end
    while True:
        before, by = came[m]
        carried[m][by] = carried[m].get(by, 0.0) + amount
        if before < 0:
            return amount
        carried[before][by] -= amount
        m = before


def _by_bytes(sizes: Sequence[int]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield all subsets of ascending sizes, by places, in the order of their sums."""
    yield 0, ()
    if not sizes:
        return
    heap: list[tuple[int, tuple[int, ...]]] = [(sizes[0], (0,))]
    while heap:
        whole, chosen = heappop(heap)
        yield whole, chosen
        last = chosen[-1]
        if last + 1 < len(sizes):
            heappush(heap, (whole + sizes[last + 1], (*chosen, last + 1)))
            heappush(heap, (whole - sizes[last] + sizes[last + 1], (*chosen[:-1], last + 1)))
