"""How few bytes any plan must copy to bring every machine to a level: a lower bound, to print beside a plan.

Three relaxations, of which the largest counts. Each leaves out failure domains, room and rest.

- *givers*: what a machine has too much has to leave it. Reads of volumes with other copies might be shifted for free
  and are left out. Of the rest a new copy takes away at most the whole load of one volume, and at most what a machine
  may carry; so the least is a knapsack for each machine with such pieces: a fractional one, or so many
  whole copies of the smallest size.
- *takers*: when all load has to fit below the level, only so much room may stay unused. A machine that has no volume
  with another copy can be given load by a new copy only; so all but those whose room adds up to what may stay unused
  get at least one, and none is smaller than the smallest volume.
- *hot volumes*: a volume needs as many copies as machines to carry it, each below the level.
"""

from __future__ import annotations

from heapq import heappop, heappush

from directory.decisions.rebalance.state import State


def least_bytes(state: State, level: float) -> int:
    """Return the bound for bringing every machine to ``level`` (load for each unit of capacity), from the state now."""
    level *= 1 + 1e-9  # a level that comes from sums of loads is not exact
    return max(_givers(state, level), _takers(state, level), _hot_volumes(state, level))


def _givers(state: State, level: float) -> int:
    most = level * max(state.capacity, default=0.0)
    needed = 0.0
    for m, capacity in enumerate(state.capacity):
        alone = [v for v in state.on[m] if len(state.holders[v]) == 1 and state.holders[v][0] == m]
        excess = state.machines[m].other_load + sum(state.loads[v] for v in alone) - level * capacity
        if excess > 0:
            needed += _knapsack(state, alone, excess, most)
    return int(needed)


def _knapsack(state: State, volumes: list[int], excess: float, most: float) -> float:
    """Bytes that take so much load away: pieces of volumes, each at most ``most``, those first that carry most a byte.

    What remains of a volume goes last: of the load that a further copy would take.
    """
    pieces: list[tuple[float, int, float]] = []
    for v in volumes:
        if state.loads[v] > 0:
            heappush(pieces, (-min(state.loads[v], most) / max(1, state.sizes[v]), v, state.loads[v]))
    needed, missing = 0.0, excess
    while pieces and missing > 0:
        _, v, left = heappop(pieces)
        piece = min(left, most)
        needed += state.sizes[v] * min(1.0, missing / piece)
        missing -= piece
        if left > piece:
            heappush(pieces, (-min(left - piece, most) / max(1, state.sizes[v]), v, left - piece))
    return max(needed, _whole_copies(state, volumes, excess, most))


def _whole_copies(state: State, volumes: list[int], excess: float, most: float) -> int:
    """Bytes of as many copies as it takes at least, all as small as the smallest: none can be split."""
    pieces: list[float] = []
    for v in volumes:
        whole, rest = divmod(state.loads[v], most)
        pieces += [most] * int(whole) + [rest]
    pieces.sort(reverse=True)
    sizes = [state.sizes[v] for v in volumes if state.loads[v] > 0]
    copies = 0
    for piece in pieces:
        if excess <= 0:
            break
        excess -= piece
        copies += 1
    return min(sizes, default=0) * copies


def _takers(state: State, level: float) -> int:
    smallest = min((size for size, load in zip(state.sizes, state.loads, strict=True) if load > 0), default=0)
    rooms = []
    for m, capacity in enumerate(state.capacity):
        alone = all(len(state.holders[v]) == 1 for v in state.on[m] if m in state.holders[v])
        room = level * capacity - state.load[m]
        if alone and room > 0:
            rooms.append(room)
    unused = level * sum(state.capacity) - state.total_load
    # Machines that share volumes can be filled without a new copy; all their room counts as used.
    takers = 0
    for room in sorted(rooms):
        unused -= room
        takers += unused < -1e-9 * state.total_load
    return takers * smallest


def _hot_volumes(state: State, level: float) -> int:
    if level <= 0:
        return 0
    largest = sorted(state.capacity, reverse=True)
    needed = 0
    for v, load in enumerate(state.loads):
        copies = len(state.holders[v])
        if load > level * largest[min(copies, len(largest)) - 1] * copies:
            needed += state.sizes[v] * max(0, _machines_for(load, level, largest) - copies)
    return needed


def _machines_for(load: float, level: float, largest: list[float]) -> int:
    """How many of the machines, the largest first, it takes to carry a load; all if they cannot."""
    for count, capacity in enumerate(largest, 1):
        load -= level * capacity
        if load <= 0:
            return count
    return len(largest)
