"""A lower bound on the bytes of a plan, from the dual of the linear programme that plans are a solution of.

In the linear programme reads are shared in any proportion among copies, and a part of a new copy costs that part of its
bytes. Its dual has a price for each machine: each unit of load is carried by a machine that has its volume, at that
machine's price, or by new copies, at theirs. Whatever the prices are, what all load costs at least, less what all room
of the machines is worth, bounds the bytes of every plan from below; so bad prices make a weak bound, never a wrong one.
It is a little better than the programme itself, since a volume here has a whole number of new copies.

Prices are the same for machines that hot volumes link, and each group gets the price that bounds most. Failure domains,
room and rest are left out: with them it takes as many bytes or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, gcd

from directory.decisions.rebalance.state import State

LINKS = (1.0, 0.5, 0.25)
"""Loads of a volume, as multiples of what a machine may carry, from which on it links its machines; each is tried."""

_Inside = Sequence[tuple[float, int, int]]
"""Volumes whose copies are all in a group: load, bytes, and copies that they lack in any case."""


def dual_bytes(state: State, level: float) -> int:
    """Return the bound for bringing every machine to ``level`` (load for each unit of capacity), from the state now."""
    level *= 1 + 1e-9
    most = level * max(state.capacity, default=0.0)
    grain = gcd(*(size for size, load in zip(state.sizes, state.loads, strict=True) if load > 0)) or 1
    bounds = [0]
    for link in LINKS if most > 0 else ():
        groups = _groups(state, link * most)
        bounds.append(sum(_group_bytes(state, group, level, most, grain) for group in groups))
    return max(bounds)


def _groups(state: State, linking: float) -> Iterator[set[int]]:
    """Yield the machines that volumes of so much load link; others are alone."""
    root = list(range(len(state.load)))

    def find(m: int) -> int:
        while root[m] != m:
            root[m] = root[root[m]]
            m = root[m]
        return m

    for holders, load in zip(state.holders, state.loads, strict=True):
        if load >= linking:
            for other in holders[1:]:
                root[find(other)] = find(holders[0])
    groups: dict[int, set[int]] = {}
    for m in range(len(root)):
        groups.setdefault(find(m), set()).add(m)
    yield from groups.values()


def _group_bytes(state: State, group: set[int], level: float, most: float, grain: int) -> int:
    """The least bytes of copies of the volumes in a group: a sum of whole sizes, and so of their common measure."""
    inside = [
        (state.loads[v], state.sizes[v], _missing(state, v, level, most))
        for m in sorted(group)
        for v in state.on[m]
        if state.holders[v][0] == m and state.loads[v] > 0 and group.issuperset(state.holders[v])
    ]
    room = sum(level * state.capacity[m] - state.machines[m].other_load for m in group)
    prices = sorted({0.0, *(size / min(load, most) for load, size, _ in inside)})
    low, high = 0, len(prices) - 1
    while low < high:  # the bound is concave in the price
        middle = (low + high) // 2
        if _bound(inside, room, most, prices[middle]) < _bound(inside, room, most, prices[middle + 1]):
            low = middle + 1
        else:
            high = middle
    return ceil(_bound(inside, room, most, prices[low]) / grain - 1e-6) * grain


def _missing(state: State, v: int, level: float, most: float) -> int:
    """How many copies a volume needs more, even if its machines carried nothing else."""
    held = sum(level * state.capacity[m] for m in state.holders[v])
    return max(0, ceil((state.loads[v] - held) / most - 1e-9))


def _bound(inside: _Inside, room: float, most: float, price: float) -> float:
    return sum(_cost(load, size, missing, price, most) for load, size, missing in inside) - price * room


def _cost(load: float, size_bytes: int, missing: int, price: float, most: float) -> float:
    """What a volume costs at least, with any whole number of new copies from the missing ones on."""
    best = size_bytes * missing + price * max(0.0, load - missing * most)
    whole = max(missing, int(load / most))
    for copies in (whole, whole + 1):
        best = min(best, size_bytes * copies + price * max(0.0, load - copies * most))
    return best
