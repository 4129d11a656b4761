"""Levelling how full the machines are, once one is clearly fuller than the mean: after machines were added, say.

Cold volumes go, so that the load stays where it is; a target never comes above the level of load that is aimed at, nor
above the fill that is aimed at.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from directory.decisions.rebalance.ranking import Ranking
from directory.decisions.rebalance.state import State
from directory.decisions.rebalance.views import Step, StepKind


def level_fill(state: State) -> list[Step]:
    """Return the moves, and carry them out in the state."""
    settings = state.settings
    if state.fullest() <= state.mean_fill + settings.fill_band + 1e-9:
        return []
    limit = state.mean_fill + settings.fill_aim
    steps: list[Step] = []
    full = [(-_fill(state, m), m) for m in range(len(state.machines)) if state.total[m] and _fill(state, m) > limit]
    heapify(full)
    takers = (m for m, takes in enumerate(state.takes) if takes)
    empty = Ranking(takers, [_fill(state, m) for m in range(len(state.used))])
    queues: dict[int, list[int]] = {}
    while full and not state.is_spent(read=False):
        _, m = heappop(full)
        if _fill(state, m) <= limit:
            continue
        if m not in queues:
            queues[m] = _coldest_first(state, m)
        step = _relieve(state, m, queues[m], empty, limit)
        if step is not None:
            steps.append(step)
            heappush(full, (-_fill(state, m), m))
    return steps


def _fill(state: State, m: int) -> float:
    return state.used[m] / state.total[m] if state.total[m] else 1.0


def _coldest_first(state: State, m: int) -> list[int]:
    """The volumes that may go, those last that carry least load a byte: they are taken from the end."""
    found: list[tuple[float, int]] = []
    for v in dict.fromkeys(state.on[m]):
        holders, size_bytes = state.holders[v], state.sizes[v]
        if size_bytes and m in holders and not state.stays(v):
            found.append((-state.shares[v][holders.index(m)] / size_bytes, -v))
    found.sort()
    return [-number for _, number in found]


def _relieve(state: State, m: int, queue: list[int], empty: Ranking, limit: float) -> Step | None:
    excess_bytes = state.used[m] - limit * state.total[m]
    # What is larger than all that has to go waits: a smaller one may do. If there is none, it goes all the same.
    larger: list[int] = []
    while queue or larger:
        v = queue.pop() if queue else larger.pop(0)
        if m not in state.holders[v] or state.stays(v) or state.sizes[v] > state.left_bytes:
            continue
        if queue and state.sizes[v] > excess_bytes:
            larger.append(v)
            continue
        target = _emptiest(state, v, m, empty, limit)
        if target is not None:
            queue.extend(reversed(larger))
            step = _move(state, v, m, target)
            for changed in (m, target):
                empty.put(changed, _fill(state, changed))
            return step
    return None


def _emptiest(state: State, v: int, source: int, empty: Ranking, limit: float) -> int | None:
    size_bytes, share = state.sizes[v], state.share(v, source)
    limit = min(limit, state.settings.fill_limit)
    load, most_load, used, total, room = state.load, state.limit, state.used, state.total, state.room
    for t in empty:
        if used[t] >= limit * total[t]:
            return None
        # Plain numbers first: of a thousand machines most are ruled out by them.
        if share and load[t] + share > most_load[t]:
            continue
        if used[t] + size_bytes > limit * total[t] or size_bytes > room[t] or not state.may_get(v, t):
            continue
        if state.keeps_promise(v, source, t) and not state.shares_host(v, source, t):
            return t
    return None


def _move(state: State, v: int, source: int, target: int) -> Step:
    worst_before, before = state.worst(), _fill(state, source)
    holders = [target if m == source else m for m in state.holders[v]]
    state.put(v, holders, list(state.shares[v]))
    state.resting.add(v)
    state.left_bytes -= state.sizes[v]
    return Step(
        StepKind.MOVE,
        state.volumes[v].id,
        source=state.machines[source].id,
        target=state.machines[target].id,
        size_bytes=state.sizes[v],
        weights=state.weights(v),
        reason=f"{state.name(source)} is {before:.0%} full, the mean {state.mean_fill:.0%}; then it has "
        f"{_fill(state, source):.0%}, and {state.name(target)} {_fill(state, target):.0%}",
        worst_before=worst_before,
        worst_after=state.worst(),
    )
