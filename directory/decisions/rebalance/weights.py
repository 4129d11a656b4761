"""Shifting reads among the copies that there are: the cheapest step, before any byte moves.

With fractional shares the highest level is lowest when no volume could move load from a copy at a higher level to one
at a lower level, over however many others. First machines with too much load give it to copies whose machines have room
below the aim, then also to such as can pass some of theirs on (:mod:`passing`). What is above the aim after bytes were
moved, too, is evened out at the end, like heat that spreads.

The hottest volumes are shifted first, so that few steps carry much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from directory.decisions.rebalance.passing import FEW_MACHINES, Before, pass_on
from directory.decisions.rebalance.state import State
from directory.decisions.rebalance.views import Step, StepKind

SMALL_GROUP = 16
"""Of linked machines; for so many all ways are looked for after each step."""

SPREADING_ROUNDS = 12
"""How often load is passed on at most; each round carries it one machine further."""

LEAST_PROGRESS = 0.005
"""A round that makes what machines have too much less by a smaller part, squared and summed, is the last one."""


def shift_weights(state: State) -> list[Step]:
    """Shift reads until no level is above the aim, as far as that is possible; returns the steps in their order."""
    before: Before = {}
    for m in _hot(state):
        pass_on(state, m, state.excess(m), before, longest=1)
    # What one machine could not pass on it may when another one, hot itself until then, has passed on something.
    few = len(state.machines) <= FEW_MACHINES
    for _ in range(len(state.machines) if few else 1):
        if not sum([pass_on(state, m, state.excess(m), before) for m in _hot(state)]):
            break
        if few:
            state.stuck = [0] * len(state.machines)
    return _in_order(state, before)


def even_out(state: State) -> list[Step]:
    """Have machines above the aim, which nothing takes below it, give to those at a lower level that they share volumes
    with, and so on; returns the steps."""
    before: Before = {}
    bad = _badness(state)
    for _ in range(SPREADING_ROUNDS):
        hot = _hot(state)
        if not hot or not sum(_give_down(state, m, before) for m in hot):
            break
        before_bad, bad = bad, _badness(state)
        if bad > before_bad * (1 - LEAST_PROGRESS):
            break
    return _in_order(state, before)


def clear(state: State, m: int, wanted: float) -> list[Step]:
    """Make room on a machine for so much more load, as far as other copies can take over what it has."""
    before: Before = {}
    pass_on(state, m, wanted, before, least=state.crumb)
    return _in_order(state, before, state.crumb)


def fill_up(state: State, group: Sequence[int]) -> list[Step]:
    """Have machines that have come below the aim take over what others of their group have too much."""
    before: Before = {}
    members = set(group)
    for m in group:
        slack = state.slack(m)
        for v in state.shared(m) if slack > state.least else ():
            for giver in state.holders[v]:
                if giver in members and giver != m:
                    amount = min(slack, state.excess(giver), state.share(v, giver))
                    if amount >= state.least:
                        before.setdefault(v, list(state.shares[v]))
                        state.shift(v, giver, m, amount)
                        slack -= amount
            if slack < state.least:
                break
    if len(group) <= SMALL_GROUP:
        for m in _hot(state, group):
            pass_on(state, m, state.excess(m), before)
    return _in_order(state, before)


def _hot(state: State, among: Iterable[int] | None = None) -> list[int]:
    """Machines above the aim, the hottest first."""
    hot = [m for m in (range(len(state.load)) if among is None else among) if state.excess(m) > state.least]
    return sorted(hot, key=lambda m: (-state.level[m], m))


def _badness(state: State) -> float:
    """What machines have too much, squared and summed. Load that is passed on lowers this at once, the worst later."""
    return sum(max(0.0, state.excess(m)) ** 2 for m in range(len(state.load)))


def _give_down(state: State, m: int, before: Before) -> int:
    """Shift load from a machine to others at a lower level; returns how many shifts that were."""
    excess, shifts = state.excess(m), 0
    level, capacity = state.level, state.capacity
    for v in state.shared(m):
        if excess < state.least:
            break
        holders = state.holders[v]
        share = state.shares[v][holders.index(m)]
        if share < state.least:
            continue
        targets = [t for t in holders if level[t] < level[m]]
        if len(targets) > 1:
            targets.sort(key=level.__getitem__)
        for target in targets:
            widths = 1 / capacity[m] + 1 / capacity[target]
            amount = min(share, excess, (level[m] - level[target]) / widths)
            if amount < state.least:
                break  # the others have more
            before.setdefault(v, list(state.shares[v]))
            state.shift(v, m, target, amount)
            share -= amount
            excess -= amount
            shifts += 1
    return shifts


def _in_order(state: State, before: Before, least: float | None = None) -> list[Step]:
    """Return the shifts as one step a volume, in an order in which no step makes the worst machine worse.

    Load that is passed on has to leave a machine before other load comes to it. What cannot be put in order is taken
    back.
    """
    after = {v: state.rounded(v, state.shares[v]) for v in before}
    for v, shares in before.items():
        state.reweigh(v, shares)
    steps: list[Step] = []
    level = state.level
    waiting = [v for v in before if _differs(before[v], after[v], state.least if least is None else least)]
    worst = max(level, default=0.0)
    while waiting:
        later = []
        for v in waiting:
            old, new, holders = before[v], after[v], state.holders[v]
            was_worst = max(map(level.__getitem__, holders)) >= worst
            state.reweigh(v, new)
            highest = max([level[m] for m, one, two in zip(holders, old, new, strict=True) if two > one])
            if highest > max(worst, state.aim) * (1 + 1e-9):
                state.reweigh(v, old)
                later.append(v)
                continue
            worst_before = worst
            worst = max(level) if was_worst else max(worst, highest)
            steps.append(_step(state, v, old, new, worst_before, worst))
        if len(later) == len(waiting):
            break
        waiting = later
    return steps


def _differs(old: list[float], new: list[float], least: float) -> bool:
    return max(abs(a - b) for a, b in zip(old, new, strict=True)) >= least / 2


def _step(state: State, v: int, old: list[float], new: list[float], before: float, after: float) -> Step:
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
        worst_before=before / state.mean,
        worst_after=after / state.mean,
    )
