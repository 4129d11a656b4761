"""What a snapshot becomes when steps of a plan are done: for simulations, tests, and to see that a plan is complete."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from directory.decisions.rebalance.views import Plan, Snapshot, Step, StepKind, Volume


def apply_plan(snapshot: Snapshot, plan: Plan, steps: int | None = None) -> Snapshot:
    """Return the snapshot after the first ``steps`` of a plan, None: after all of them; done now, all at once."""
    volumes = {volume.id: volume for volume in snapshot.volumes}
    used: defaultdict[str, int] = defaultdict(int)
    for step in plan.steps[:steps]:
        _apply(step, volumes, used, snapshot.now_seconds)
    machines = [
        replace(
            machine,
            used_bytes=machine.used_bytes + used[machine.id],
            room_bytes=None if machine.room_bytes is None else machine.room_bytes - used[machine.id],
        )
        if used[machine.id]
        else machine
        for machine in snapshot.machines
    ]
    return replace(snapshot, machines=machines, volumes=[volumes[volume.id] for volume in snapshot.volumes])


def _apply(step: Step, volumes: dict[int, Volume], used: dict[str, int], now_seconds: float) -> None:
    volume = volumes[step.volume]
    holders = holders_after(volume.holders, step)
    for machine in set(holders) - set(volume.holders):
        used[machine] += volume.size_bytes
    for machine in set(volume.holders) - set(holders):
        used[machine] -= volume.size_bytes
    given = dict(step.weights)
    weights = tuple(given.get(holder, 0.0) for holder in holders) if given else ()
    moved_seconds = volume.moved_seconds if step.kind is StepKind.WEIGHTS else now_seconds
    left = tuple(holder for holder in volume.holders if holder not in holders)
    volumes[step.volume] = replace(
        volume, holders=holders, weights=weights, moved_seconds=moved_seconds, left=(*volume.left, *left)
    )
    if step.kind is StepKind.SWAP:
        back = Step(StepKind.MOVE, step.other, step.target, step.source, weights=step.other_weights)
        _apply(back, volumes, used, now_seconds)


def holders_after(holders: tuple[str, ...], step: Step) -> tuple[str, ...]:
    """Return who holds the step's volume after it."""
    if step.kind is StepKind.ADD:
        return (*holders, step.target)
    if step.kind is StepKind.DROP:
        return tuple(holder for holder in holders if holder != step.source)
    if step.kind is StepKind.WEIGHTS:
        return holders
    return tuple(step.target if holder == step.source else holder for holder in holders)
