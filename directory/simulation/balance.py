"""Rebalancing: the real plan at regular times, carried out by the same hands as repair."""

from __future__ import annotations

from dataclasses import dataclass, replace

from directory.decisions import rebalance
from directory.decisions.rebalance import CoolingLog, RebalanceSettings, StepKind
from directory.decisions.repair_views import MoveView
from directory.simulation.clock import Clock
from directory.simulation.parts import Machine, Volume
from directory.simulation.repairs import Repairs
from directory.simulation.traffic import Traffic, read_weights
from directory.simulation.world import World


@dataclass(frozen=True, slots=True)
class PlanSample:
    """One plan: the worst load and fill before it and as it is to be, steps, and bytes to move."""

    seconds: float
    steps: int
    size_bytes: int
    worst_before: float
    worst_after: float
    fullest_before: float
    fullest_after: float
    mean_fill: float


class Balance:
    """Plans, and has plans carried out."""

    def __init__(self, world: World, clock: Clock, repairs: Repairs, traffic: Traffic) -> None:
        scenario = world.scenario
        self.plans: list[PlanSample] = []
        self._world = world
        self._clock = clock
        self._repairs = repairs
        self._traffic = traffic
        self._cooling = CoolingLog()
        self._settings = RebalanceSettings(budget_bytes=scenario.rebalance_bytes)
        self._orders = 0

    def look(self) -> None:
        """Plan anew. What the plan before has not begun by now is forgotten."""
        self._repairs.drop_orders()
        plan = rebalance.plan(self._cooling.note(self.snapshot()), self._settings)
        self.plans.append(
            PlanSample(
                self._clock.now_seconds,
                len(plan.steps),
                plan.size_bytes,
                plan.worst_before,
                plan.worst_after,
                plan.fullest_before,
                plan.fullest_after,
                plan.mean_fill,
            )
        )
        self._carry_out(plan)

    def snapshot(self) -> rebalance.Snapshot:
        """Return what the Directory would plan from."""
        world = self._world
        return rebalance.Snapshot(
            [_machine_view(machine) for machine in world.machines.values() if machine.disks],
            [
                _volume_view(world.volumes[number], load, "a copy of it is being moved" if self._busy(number) else "")
                for number, load in self._traffic.volume_loads().items()
            ],
            self._clock.now_seconds,
        )

    def _busy(self, number: int) -> bool:
        return number in self._world.untidy or number in self._repairs.moves

    def _carry_out(self, plan: rebalance.Plan) -> None:
        moves: dict[int, MoveView] = {}
        after: dict[int, int] = {}
        for step in plan.steps:
            volume = self._world.volumes[step.volume]
            self._weigh(volume, step.weights)
            if step.kind is StepKind.WEIGHTS:
                continue
            if step.volume in moves:
                continue  # a volume has one move at a time; the next plan orders what is still wanted then
            moves[step.volume] = self._order(step.source if step.kind is not StepKind.ADD else "", step.target)
            if step.kind is StepKind.SWAP:
                self._weigh(self._world.volumes[step.other], step.other_weights)
                moves[step.other] = self._order(step.target, step.source)
                after[step.other] = step.volume
            elif step.kind in (StepKind.ADD, StepKind.DROP):
                more = 1 if step.kind is StepKind.ADD else -1
                record = replace(volume.record, extra_copies=max(0, volume.record.extra_copies + more))
                self._world.put_record(volume, record)
        if moves:
            self._repairs.order(moves, after)

    def _order(self, source: str, target: str) -> MoveView:
        self._orders += 1
        return MoveView(self._orders, source, target)

    def _weigh(self, volume: Volume, weights: tuple[tuple[str, float], ...]) -> None:
        """Have a volume read as planned. Copies that are still to come take their part when they count."""
        volume.weights = dict(weights)


def _machine_view(machine: Machine) -> rebalance.Machine:
    disks = machine.disks.values()
    return rebalance.Machine(
        id=machine.id,
        url=machine.url,
        data_center=machine.data_center,
        rack=machine.rack,
        total_bytes=sum(disk.total_bytes for disk in disks),
        used_bytes=sum(disk.used_bytes for disk in disks),
        room_bytes=max(disk.free_bytes - disk.reserve_bytes for disk in disks),
    )


def _volume_view(volume: Volume, load: float, fixed: str) -> rebalance.Volume:
    record = volume.record
    holders = tuple(sorted(record.in_sync, key=lambda member: member != record.primary))
    weights: tuple[float, ...] = ()
    if volume.weights:
        by_holder = dict(zip(record.in_sync, read_weights(volume), strict=True))
        weights = tuple(by_holder[holder] for holder in holders)
    return rebalance.Volume(
        id=volume.number,
        load=load,
        size_bytes=volume.size_bytes,
        holders=holders,
        replication=record.replication,
        weights=weights,
        moved_seconds=volume.moved_seconds,
        fixed=fixed,
    )
