"""Shifting reads among the copies that there are: the cheapest step, before any byte moves.

With fractional shares the highest level is lowest when no volume could move load from a copy at a higher level to one
at a lower level; so local shifts find the best there is. First machines with too much load give it to copies whose
machines have room below the aim. That may leave some that could only be helped by passing load on through machines that
are full themselves; so then loads are evened out pairwise, whatever the level, like heat that spreads.

The hottest volumes are shifted first, so that few steps carry much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from directory.decisions.rebalance.state import State
from directory.decisions.rebalance.views import Step, StepKind

SPREADING_ROUNDS = 12
"""How often load is passed on at most; each round carries it one machine further."""

LARGE_GROUP = 16
"""Of linked machines; loads of so many are passed on once at a time."""

LEAST_GAIN = 0.01
"""What weights must lower the worst level by, as a multiple of the mean; else they stay as they are."""

LEAST_PROGRESS = 0.005
"""A round that makes what machines have too much less by a smaller part, squared and summed, is the last one."""


def shift_weights(state: State) -> list[Step]:
    """Shift reads until no level is above the aim, as far as that is possible; returns the steps in their order.

    Nothing is shifted when all of it together lowers the worst level by less than :data:`LEAST_GAIN`.
    """
    before: dict[int, list[float]] = {}
    first = state.worst()
    for m in _hot(state):
        _relieve(state, m, before, spreading=False)
    for _ in range(SPREADING_ROUNDS):
        before_bad = _badness(state)
        hot = _hot(state)
        if not hot or not sum(_relieve(state, m, before, spreading=True) for m in hot):
            break
        if _badness(state) > before_bad * (1 - LEAST_PROGRESS):
            break
    if first - state.worst() < LEAST_GAIN:
        for v, shares in before.items():
            _set(state, v, shares)
        return []
    return _in_order(state, before)


def clearable(state: State, m: int) -> float:
    """Return about how much load a machine could give to other copies whose machines have room below the aim."""
    found = 0.0
    for v in state.shared(m):
        room = max(state.slack(t) for t in state.holders[v] if t != m)
        found += max(0.0, min(state.share(v, m), room))
    return found


def clear(state: State, m: int, wanted: float) -> list[Step]:
    """Make room on a machine for so much more load, as far as other copies can take over what it has."""
    before: dict[int, list[float]] = {}
    for v in state.shared(m):
        if wanted < state.least:
            break
        for target in sorted((t for t in state.holders[v] if t != m), key=lambda t: (state.level[t], t)):
            amount = min(state.share(v, m), wanted, state.slack(target))
            if amount >= state.least:
                before.setdefault(v, list(state.shares[v]))
                state.shift(v, m, target, amount)
                wanted -= amount
    return _in_order(state, before)


def relieve_group(state: State, group: Sequence[int]) -> list[Step]:
    """Shift reads away from some machines, and through them; returns the steps."""
    before: dict[int, list[float]] = {}
    for m in _hot(state, group):
        _relieve(state, m, before, spreading=False)
    for _ in range(SPREADING_ROUNDS if len(group) < LARGE_GROUP else 1):
        hot = _hot(state, group)
        if not hot or not sum(_relieve(state, m, before, spreading=True) for m in hot):
            break
    return _in_order(state, before)


def _hot(state: State, among: Iterable[int] | None = None) -> list[int]:
    """Machines above the aim, the hottest first."""
    hot = [m for m in (range(len(state.load)) if among is None else among) if state.excess(m) > state.least]
    return sorted(hot, key=lambda m: (-state.level[m], m))


def _badness(state: State) -> float:
    """What machines have too much, squared and summed. Load that is passed on lowers this at once, the worst later."""
    return sum(max(0.0, state.excess(m)) ** 2 for m in range(len(state.load)))


def _relieve(state: State, m: int, before: dict[int, list[float]], *, spreading: bool) -> int:
    """Shift load away from a machine; returns how many shifts that were."""
    excess, shifts = state.excess(m), 0
    level = state.level
    for v in state.shared(m):
        if excess < state.least:
            break
        holders = state.holders[v]
        share = state.shares[v][holders.index(m)]
        if share < state.least:
            continue
        for target in sorted([t for t in holders if t != m], key=level.__getitem__) if len(holders) > 2 else holders:
            if target == m:
                continue
            amount = min(share, excess, _takes(state, m, target, spreading=spreading))
            if amount < state.least:
                break  # the others have no more room
            before.setdefault(v, list(state.shares[v]))
            state.shift(v, m, target, amount)
            share -= amount
            excess -= amount
            shifts += 1
    return shifts


def _takes(state: State, source: int, target: int, *, spreading: bool) -> float:
    if not spreading:
        return state.slack(target)
    widths = 1 / state.capacity[source] + 1 / state.capacity[target]
    return (state.level[source] - state.level[target]) / widths


def _in_order(state: State, before: dict[int, list[float]]) -> list[Step]:
    """Return the shifts as one step a volume, in an order in which no step makes the worst machine worse.

    Load that is passed on has to leave a machine before other load comes to it. What cannot be put in order is taken
    back.
    """
    after = {v: state.rounded(v, state.shares[v]) for v in before}
    for v, shares in before.items():
        _set(state, v, shares)
    steps: list[Step] = []
    waiting = [v for v in before if _differs(before[v], after[v], state.least)]
    while waiting:
        later = []
        for v in waiting:
            gaining = [m for m, old, new in zip(state.holders[v], before[v], after[v], strict=True) if new > old]
            worst = max(state.level)
            _set(state, v, after[v])
            if max(state.level[m] for m in gaining) > max(worst, state.aim) * (1 + 1e-9):
                _set(state, v, before[v])
                later.append(v)
                continue
            steps.append(_step(state, v, before[v], after[v], worst / state.mean))
        if len(later) == len(waiting):
            break
        waiting = later
    return steps


def _set(state: State, v: int, shares: list[float]) -> None:
    state.put(v, state.holders[v], shares)


def _differs(old: list[float], new: list[float], least: float) -> bool:
    return max(abs(a - b) for a, b in zip(old, new, strict=True)) >= least / 2


def _step(state: State, v: int, old: list[float], new: list[float], worst_before: float) -> Step:
    holders = state.holders[v]
    changes = [b - a for a, b in zip(old, new, strict=True)]
    giver = min(range(len(changes)), key=changes.__getitem__)
    taker = max(range(len(changes)), key=changes.__getitem__)
    source, target = holders[giver], holders[taker]
    load = state.loads[v]
    reason = (
        f"{state.name(target)} has room for more reads than {state.name(source)}: it takes "
        f"{new[taker] / load:.0%} of the volume's instead of {old[taker] / load:.0%}"
    )
    return Step(
        StepKind.WEIGHTS,
        state.volumes[v].id,
        source=state.machines[source].id,
        target=state.machines[target].id,
        weights=state.weights(v),
        reason=reason,
        gain=-changes[giver],
        worst_before=worst_before,
        worst_after=state.worst(),
    )
