"""Temporary copies that have cooled go again. That copies no byte, and gives space back."""

from __future__ import annotations

from directory.decisions.rebalance.state import State, pour
from directory.decisions.rebalance.views import Step, StepKind
from haystack.units import format_duration


def drop_cooled(state: State, now_seconds: float) -> list[Step]:
    """Return the copies to drop, one of each volume at most, and take them out of the state.

    The primary stays, the promise is kept, and nobody comes above the aim, or above what he has if that is more.
    """
    steps = []
    for v, volume in enumerate(state.volumes):
        since_seconds = volume.cool_since_seconds
        if since_seconds is None or state.stays(v) or now_seconds - since_seconds < state.settings.cool_seconds:
            continue
        if len(state.holders[v]) > state.replication(v).copies:
            step = _drop(state, v, now_seconds - since_seconds)
            if step is not None:
                steps.append(step)
    return steps


def _drop(state: State, v: int, cool_seconds: float) -> Step | None:
    for m in sorted(state.holders[v][1:], key=lambda m: (-state.level[m], m)):
        if not state.keeps_promise(v, m, None):
            continue
        worst_before = state.worst()
        share = state.share(v, m)
        stay = [holder for holder in state.holders[v] if holder != m]
        poured = pour(state, share, stay)
        if any(got > max(state.slack(holder), 0.0) for holder, got in poured.items() if got > state.least):
            continue
        state.put(v, stay, [state.share(v, holder) + poured[holder] for holder in stay])
        state.resting.add(v)
        return Step(
            StepKind.DROP,
            state.volumes[v].id,
            source=state.machines[m].id,
            weights=state.weights(v),
            reason=f"the volume has done without this temporary copy for {format_duration(cool_seconds)}",
            worst_before=worst_before,
            worst_after=state.worst(),
        )
    return None
