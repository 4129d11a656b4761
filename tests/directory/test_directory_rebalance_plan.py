"""Rebalance plans by example: each kind of step, limits, and what is said when nothing is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.rebalance import baselines
from benchmarks.rebalance.dual import dual_bytes
from benchmarks.rebalance.optimum import can_carry, fewest_bytes
from benchmarks.rebalance.snapshots import Shape, make
from directory.decisions.rebalance import (
    CoolingLog,
    Machine,
    RebalanceSettings,
    Snapshot,
    StepKind,
    Volume,
    apply_plan,
    plan,
)
from directory.decisions.rebalance.bounds import least_bytes
from directory.decisions.rebalance.state import State
from haystack.errors import ConfigError
from haystack.units import GIB

GB = 10**9
KINDS = StepKind


def machines(count: int, total_gb: int = 1000, **changes: object) -> list[Machine]:
    made = [Machine(f"m{n}", total_gb * GB, 0, url=f"10.0.0.{n}:80") for n in range(count)]
    return [replace(machine, **changes) for machine in made]  # type: ignore[arg-type]  # checked by replace


def filled(snapshot: Snapshot) -> Snapshot:
    used = {machine.id: machine.used_bytes for machine in snapshot.machines}
    for volume in snapshot.volumes:
        for holder in volume.holders:
            used[holder] += volume.size_bytes
    return replace(snapshot, machines=[replace(m, used_bytes=used[m.id]) for m in snapshot.machines])


def snapshot_of(count: int, *volumes: Volume, total_gb: int = 1000, now_seconds: float = 0.0) -> Snapshot:
    return filled(Snapshot(machines(count, total_gb), volumes, now_seconds))


def test_reads_are_shifted_before_any_byte_moves() -> None:
    volumes = [Volume(n, 100, GB, ("m0", "m1"), "001", weights=(90, 10)) for n in range(1, 5)]
    found = plan(snapshot_of(2, *volumes))
    assert found.worst_before == pytest.approx(1.8) and found.worst_after <= 1.051
    assert {step.kind for step in found.steps} == {KINDS.WEIGHTS} and found.size_bytes == found.least_bytes == 0


def test_reads_are_passed_on_through_a_machine_that_is_full() -> None:
    """m0 shares with m1 alone, and m1 with m2: m1 has to give before it gets."""
    snapshot = snapshot_of(
        3, Volume(1, 300, GB, ("m0", "m1"), "001", weights=(100, 0)), Volume(2, 170, GB, ("m1", "m2"), "001", (100, 0))
    )
    found = plan(snapshot)
    assert {step.kind for step in found.steps} == {KINDS.WEIGHTS} and found.worst_after <= 1.07
    assert found.steps[0].volume == 2, "what makes room comes first"


def test_reads_are_passed_on_over_several_machines_before_a_copy_is_made() -> None:
    """Only the last machine of a chain has room; what the first one has too much goes there, step by step."""
    chain = [Volume(n, 100, GB, (f"m{n}", f"m{n + 1}"), "001", weights=(100, 0)) for n in range(1, 4)]
    snapshot = snapshot_of(5, Volume(9, 145, GB, ("m0", "m1"), "001", weights=(100, 0)), *chain)
    found = plan(snapshot)
    assert found.worst_before > 1.6 and found.worst_after <= 1.06 and not found.size_bytes


def test_what_its_target_has_is_read_elsewhere_before_a_hot_volume_gets_a_copy_there() -> None:
    """Every machine is busy, but each can give what it has to the others: one copy is enough."""
    others = [
        Volume(n, 30, GB, (f"m{n % 4}", f"m{(n + 1 + n // 4 % 3) % 4}"), "001", weights=(100, 0)) for n in range(4, 16)
    ]
    snapshot = snapshot_of(6, Volume(1, 520, GB, ("m4", "m5"), "001"), *others)
    found = plan(snapshot, RebalanceSettings(dead_band=1.25, aim=1.2))
    assert found.worst_before > 1.7 and found.worst_after <= 1.21
    assert [step.kind for step in found.steps if step.size_bytes] == [KINDS.ADD]
    assert found.steps[0].kind is KINDS.WEIGHTS, "room comes first"


def test_a_hot_volume_moves_to_the_coldest_machine() -> None:
    snapshot = snapshot_of(
        3, Volume(1, 50, GB, ("m0",)), Volume(2, 50, GB, ("m0",)), Volume(3, 40, GB, ("m1",)), Volume(4, 5, GB, ("m2",))
    )
    (step,) = plan(snapshot, RebalanceSettings(dead_band=1.2, aim=1.15)).steps
    assert (step.kind, step.source, step.target, step.size_bytes, step.weights) == (KINDS.MOVE, "m0", "m2", GB, ())
    assert step.worst_before > 2 > step.worst_after and "lightly used" in step.reason


def test_a_volume_too_hot_for_one_machine_gets_a_temporary_copy_which_goes_when_it_has_cooled() -> None:
    others = [Volume(n, 5, GB, (f"m{n % 3}",)) for n in range(2, 20)]
    snapshot = snapshot_of(3, Volume(1, 300, GB, ("m0",)), *others)
    found = plan(snapshot)
    assert [step.kind for step in found.steps].count(KINDS.ADD) == 2 and found.worst_after <= 1.06
    hot = next(volume for volume in apply_plan(snapshot, found).volumes if volume.id == 1)
    assert set(hot.holders) == {"m0", "m1", "m2"}
    assert plan(snapshot, RebalanceSettings(max_copies=1)).worst_after > 1.5
    cooled = apply_plan(snapshot, found)
    cooled = replace(cooled, volumes=[replace(v, load=20.0) for v in cooled.volumes], now_seconds=10_000.0)
    log = CoolingLog()
    assert not plan(log.note(cooled)).steps
    for now_seconds, left in ((11_000.0, 3), (12_000.0, 2)):
        cooled = log.note(replace(cooled, now_seconds=now_seconds))
        cooled = apply_plan(cooled, plan(cooled))
        assert len(next(volume for volume in cooled.volumes if volume.id == 1).holders) == left
    hot_again = replace(cooled, volumes=[replace(v, load=300.0) for v in cooled.volumes])
    assert all(volume.cool_since_seconds is None or volume.id != 1 for volume in CoolingLog().note(hot_again).volumes)


def test_full_machines_exchange_volumes() -> None:
    volumes = [Volume(n, 100, 80 * GB, ("m0",)) for n in range(1, 11)]
    volumes += [Volume(n, 10, 80 * GB, ("m1",)) for n in range(11, 21)]
    snapshot = snapshot_of(2, *volumes)
    found = plan(snapshot, RebalanceSettings(fill_band=0.9))
    assert {step.kind for step in found.steps} == {KINDS.SWAP} and found.worst_after <= 1.1
    for done in range(len(found.steps) + 1):
        assert all(m.used_bytes <= 850 * GB for m in apply_plan(snapshot, found, done).machines)


def test_fill_is_levelled_after_a_machine_was_added() -> None:
    volumes = [Volume(n, 1, 20 * GB, (f"m{n % 3}",)) for n in range(1, 100)]
    found = plan(snapshot_of(4, *volumes))
    assert {step.kind for step in found.steps} == {KINDS.MOVE}
    assert {step.target for step in found.steps} == {"m3"}
    assert found.fullest_after <= found.mean_fill + 0.0501 < found.fullest_before
    assert "full, the mean" in found.steps[0].reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load": 1.0}, "below 5 nobody is hot"),
        ({"moved_seconds": -10.0}, "moved lately"),
        ({"fixed": "it is being compacted"}, "busy otherwise"),
        ({"size_bytes": 10**15}, "budget of bytes"),
    ],
)
def test_it_is_said_why_nothing_is_done(changes: dict[str, object], words: str) -> None:
    volumes = [replace(Volume(n, 100.0, GB, ("m0",)), **changes) for n in (1, 2, 3)]  # type: ignore[arg-type]
    found = plan(Snapshot(machines(3, 10**7), volumes), RebalanceSettings(max_copies=1))
    assert not found.steps and words in found.reason, found.reason


def test_a_move_that_costs_more_than_it_wins_is_left_out() -> None:
    volumes = [Volume(n, 10.0, 100 * GB, ("m0",)) for n in range(1, 7)]
    snapshot = snapshot_of(3, *volumes, total_gb=10_000)
    assert not plan(snapshot, RebalanceSettings(payback_seconds=3600)).steps
    assert "less than what it costs" in plan(snapshot, RebalanceSettings(payback_seconds=3600)).reason
    assert plan(snapshot, RebalanceSettings(payback_seconds=30 * 86_400)).steps


def test_a_copy_does_not_go_back_where_it_came_from() -> None:
    snapshot = snapshot_of(2, *[Volume(n, 100, GB, ("m0",), left=("m1",)) for n in range(1, 5)])
    assert not plan(snapshot).steps
    assert plan(replace(snapshot, volumes=[replace(v, left=()) for v in snapshot.volumes])).steps


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"aim": 1.2}, {"aim": 0.9}, {"fill_aim": 0.2}):
        with pytest.raises(ConfigError):
            RebalanceSettings(**wrong)


# -- how good it is


SMALL = Shape(machines=4, volumes=8, racks=1, sizes_bytes=(8 * GIB, 32 * GIB))
FREE = RebalanceSettings(budget_bytes=2**62, max_copies=100, fill_band=1.0, fill_limit=1.0)


@pytest.mark.parametrize(("sizes", "factor"), [((32 * GIB, 32 * GIB), 1.1), ((8 * GIB, 32 * GIB), 1.5)])
def test_bytes_are_near_those_of_the_best_plans(sizes: tuple[int, int], factor: float) -> None:
    planned_bytes = fewest = 0
    for seed in range(12):
        snapshot = make(replace(SMALL, sizes_bytes=sizes), seed)
        found, state = plan(snapshot, FREE), State(snapshot, FREE)
        assert found.worst_after <= 1.1
        level = max(found.worst_after, FREE.aim) * state.mean
        least = fewest_bytes(state, level)
        assert least_bytes(state, level) <= least, "the bound is none"
        planned_bytes += found.size_bytes
        fewest += least
    assert fewest <= planned_bytes <= factor * fewest


def test_bytes_are_near_those_of_the_best_plans_with_two_copies() -> None:
    """Most is done by weights; no bound may be above what suffices."""
    shape = Shape(machines=6, volumes=10, racks=1, exponent=1.2, replication="001", sizes_bytes=(8 * GIB, 32 * GIB))
    planned_bytes = fewest = bound = 0
    for seed in range(12):
        snapshot = make(shape, seed)
        found, state = plan(snapshot, FREE), State(snapshot, FREE)
        assert found.worst_after <= 1.1
        level = max(found.worst_after, FREE.aim) * state.mean
        least = fewest_bytes(state, level)
        better = max(least_bytes(state, level), dual_bytes(state, level))
        assert better <= least, "the bound is none"
        planned_bytes, fewest, bound = planned_bytes + found.size_bytes, fewest + least, bound + better
    assert fewest <= planned_bytes <= 1.2 * fewest
    assert bound >= 0.5 * fewest, "a bound that is never near says nothing"


@pytest.mark.parametrize("replication", ["000", "010"])
def test_a_large_cluster_is_even_for_little_more_than_the_bound(replication: str) -> None:
    snapshot = make(Shape(machines=100, volumes=5_000, racks=5, exponent=0.9, replication=replication), 1)
    found = plan(snapshot, FREE)
    assert found.worst_before > 5 and found.worst_after <= 1.06
    assert found.size_bytes <= 1.5 * found.least_bytes
    assert not plan(apply_plan(snapshot, found), FREE).steps
    for other in (baselines.by_count(snapshot), baselines.by_bytes(snapshot)):
        assert other.worst_after > 3 * found.worst_after and other.moves


def test_what_can_be_carried_is_a_question_of_flow() -> None:
    state = State(snapshot_of(3, Volume(1, 100, GB, ("m0", "m1"), "001"), Volume(2, 50, GB, ("m1",))), FREE)
    assert can_carry(state, [{0, 1}, {1}], 75.0) and not can_carry(state, [{0, 1}, {1}], 74.0)
    assert can_carry(state, [{0, 1}, {1, 2}], 50.0) and not can_carry(state, [{0, 1}, {1, 2}], 49.0)
    assert fewest_bytes(state, 75.0) == 0 and fewest_bytes(state, 60.0) == GB
