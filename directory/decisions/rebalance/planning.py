"""The rebalance plan: from a snapshot of machines and volumes to the steps that even out load, and fill. Pure.

Invariants, which the tests state as properties:

- no step makes the worst machine worse, wherever in the order one stops; none brings a target above the aim, above the
  fill limit, or near the fill from which on it would be levelled again;
- no step keeps less of a volume's promise than was kept before;
- within the dead band nothing is planned, and outside it the aim lies below the band, so that a plan after the plan is
  empty, and noise that is smaller than the distance does not make another one;
- what was moved is left alone for a while; what would win less than it costs is left out;
- the same snapshot gives the same plan, in whatever order its machines and volumes are named.

A plan is made in rounds, each from nothing but the state that the one before has left, until a round finds nothing
more, or the budget of bytes is spent: that is what a second plan would find.
"""

from __future__ import annotations

from collections import Counter

from directory.decisions.rebalance.bounds import least_bytes
from directory.decisions.rebalance.choices import Taste
from directory.decisions.rebalance.drops import drop_cooled
from directory.decisions.rebalance.fill import level_fill
from directory.decisions.rebalance.state import LEAST_SHIFT, State
from directory.decisions.rebalance.transfers import Transfers
from directory.decisions.rebalance.views import MachineEffect, Plan, RebalanceSettings, Snapshot, Step, StepKind
from directory.decisions.rebalance.weights import even_out, shift_weights

MAX_ROUNDS = 8

TASTES = (
    Taste(),
    Taste(copy_worth=1.0),
    Taste(copy_worth=0.5),
    Taste(tight=True),
    Taste(copy_worth=1.0, tight=True),
    Taste(copy_worth=0.5, tight=True),
)
LEAST_GAIN = 0.01
"""What weights alone must lower the worst level by, as a multiple of the mean; else they stay as they are."""

MANY_VOLUMES = 1_000
"""With so many volumes one taste is as good as the other, and trying all of them would take long."""

_TOLERANCE = 1e-9
"""Levels that differ by less are equal: they are sums of many numbers."""


def plan(snapshot: Snapshot, settings: RebalanceSettings | None = None) -> Plan:
    """Return the steps that even out load and fill; none when all is well, or nothing can be done.

    It takes 1 to 4 s for 1,000 machines and 100,000 volumes.
    """
    settings = settings or RebalanceSettings()
    first = State(snapshot, settings)
    best = _Attempt(first, snapshot.now_seconds, TASTES[0])
    if best.size_bytes and len(snapshot.volumes) <= MANY_VOLUMES:
        others = (_Attempt(first, snapshot.now_seconds, taste) for taste in TASTES[1:])
        best = min((best, *others), key=_Attempt.demerit)
    return _finish(first, best)


class _Attempt:
    """The steps of one taste, and the state that they lead to."""

    def __init__(self, first: State, now_seconds: float, taste: Taste) -> None:
        self.state = first.fork()
        self.obstacles: Counter[str] = Counter()
        self.steps: list[Step] = []
        for _ in range(MAX_ROUNDS):
            found = _round(self.state, now_seconds, taste, self.obstacles)
            if not found:
                break
            self.steps += found
            if self.state.is_spent(read=False):
                break  # the next plan goes on, and not with weights alone
        weights_only = all(step.kind is StepKind.WEIGHTS for step in self.steps)
        if weights_only and first.worst() - self.state.worst() < LEAST_GAIN:
            self.state, self.steps = first.fork(), []
        self.size_bytes = sum(step.size_bytes for step in self.steps)

    def demerit(self) -> tuple[float, int, int]:
        """Even enough counts first, then bytes, then steps."""
        state = self.state
        return max(0.0, state.worst() - state.settings.aim - LEAST_SHIFT), self.size_bytes, len(self.steps)


def _round(state: State, now_seconds: float, taste: Taste, obstacles: Counter[str]) -> list[Step]:
    steps = drop_cooled(state, now_seconds)
    if _too_uneven(state):
        state.stuck = [0] * len(state.machines)
        steps += shift_weights(state)
        # What is left above the aim is moved, even if it is within the band: noise would bring it out again.
        transfers = Transfers(state, taste)
        steps += transfers.plan()
        steps += even_out(state)
        obstacles.clear()
        obstacles.update(transfers.obstacles)
    return steps + level_fill(state)


def _too_uneven(state: State) -> bool:
    return state.mean >= state.settings.least_load and state.worst() > state.settings.dead_band + _TOLERANCE


class _Picture:
    """Load and fill of all machines at one moment."""

    def __init__(self, state: State) -> None:
        self.load = list(state.load)
        self.used = list(state.used)
        self.worst = state.worst()
        self.fullest = state.fullest()


def _finish(first: State, best: _Attempt) -> Plan:
    state, steps, before = best.state, best.steps, _Picture(first)
    size_bytes = sum(step.size_bytes for step in steps)
    after = _Picture(state)
    levelled = any(step.kind is StepKind.MOVE and not step.gain for step in steps)
    bound_bytes = 0
    if size_bytes and not levelled:
        bound_bytes = least_bytes(first, max(after.worst, state.settings.aim) * state.mean)
    machines = tuple(
        MachineEffect(
            machine.id,
            machine.url,
            machine.capacity,
            before.load[m],
            after.load[m],
            before.used[m] / machine.total_bytes if machine.total_bytes else 0.0,
            after.used[m] / machine.total_bytes if machine.total_bytes else 0.0,
        )
        for m, machine in enumerate(state.machines)
    )
    return Plan(
        tuple(steps),
        machines,
        size_bytes,
        min(bound_bytes, size_bytes),
        before.worst,
        after.worst,
        state.mean,
        before.fullest,
        after.fullest,
        state.mean_fill,
        _reason(state, before, after, steps, best.obstacles),
    )


def _reason(state: State, before: _Picture, after: _Picture, steps: list[Step], obstacles: Counter[str]) -> str:
    settings = state.settings
    if not state.machines:
        return "no Store is alive"
    busiest = f"the busiest Store has {before.worst:.2f} times the mean load"
    if state.mean < settings.least_load:
        heat = (
            f"the Stores do {state.mean:.1f} reads a second on average (64 KiB count as one more): "
            f"below {settings.least_load:g} nobody is hot"
        )
    elif before.worst <= settings.dead_band + _TOLERANCE:
        heat = f"{busiest}; up to {settings.dead_band:.2f} nothing is done"
    elif after.worst > settings.dead_band + _TOLERANCE:
        why = obstacles.most_common(1)[0][0] if obstacles else "no step would make it less"
        stays = "and stays so" if not steps else f"and keeps {after.worst:.2f}"
        heat = f"{busiest}, {stays}: {why}"
    else:
        heat = ""
    if steps:
        return heat if after.worst > settings.dead_band + _TOLERANCE and state.mean >= settings.least_load else ""
    fill = (
        f"the fullest is {before.fullest:.0%} full, {state.mean_fill:.0%} on average; up to "
        f"{settings.fill_band * 100:.0f} points above that nothing is done"
    )
    if before.fullest > state.mean_fill + settings.fill_band + _TOLERANCE:
        fill = (
            f"the fullest is {before.fullest:.0%} full, {state.mean_fill:.0%} on average, but none of its volumes may "
            "go elsewhere now"
        )
    return f"{heat}; {fill}" if heat else fill
