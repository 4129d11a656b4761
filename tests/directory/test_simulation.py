"""The simulator: what is put in comes out, in the same way each time; every decision gets a snapshot that could be."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, pairwise
from math import exp
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from directory.decisions import rebalance
from directory.decisions.choice import Candidate
from directory.decisions.repair_views import Plan, Rules, Snapshot
from directory.decisions.spaces import FolderSpace
from directory.simulation import repairs, uploads
from directory.simulation.clock import Clock
from directory.simulation.engine import Result, Simulation
from directory.simulation.losses import Exposure, chain_rate, counted, independent, poisson_at_most, share_bounds
from directory.simulation.measures import quantile
from directory.simulation.pipe import Pipe
from directory.simulation.popularity import Popularity
from directory.simulation.scenario import DAY_SECONDS, Scenario, load_scenario
from haystack.errors import ConfigError

SMALL = Scenario(
    months=2,
    uploads_per_month=2_000_000,
    rack_machines=3,
    machine_disks=3,
    disk_bytes=10**11,
    volume_bytes=10**10,
    writable_volumes=10,
    machine_failures_per_year=0.8,
    disk_failures_per_year=0.5,
    rebalance_seconds=5 * DAY_SECONDS,
    rebalance_bytes=10**12,
    step_seconds=DAY_SECONDS,
)


@pytest.fixture(scope="module")
def small() -> tuple[Simulation, Result]:
    simulation = Simulation(SMALL)
    return simulation, simulation.run()


def test_two_months_of_a_small_cluster(small: tuple[Simulation, Result]) -> None:
    simulation, result = small
    simulation.world.check()
    assert result.refused_bytes == 0
    expected_bytes = SMALL.uploads_per_month * SMALL.photo_bytes * SMALL.months
    assert result.stored_bytes == pytest.approx(expected_bytes, rel=0.02)
    assert result.totals.repaired_copies > 100 and result.totals.moved_copies > 10
    assert result.bought.dead_machines > 3 and result.bought.dead_disks > 3
    assert len(result.plans) == 12
    assert result.last.load_max >= result.last.load_p99 >= 1
    assert result.last.fill_min <= result.last.fill_mean <= result.last.fill_max < 1
    assert result.repair_seconds["mean"] > 0


def test_bytes_and_copies_are_conserved(small: tuple[Simulation, Result]) -> None:
    simulation, result = small
    kept_bytes = sum(volume.size_bytes for volume in simulation.world.volumes.values())
    assert kept_bytes + result.totals.lost_bytes == result.stored_bytes
    copies_bytes = sum(volume.size_bytes * len(volume.disks) for volume in simulation.world.volumes.values())
    assert simulation.world.used_bytes == copies_bytes
    lacking = [v for v in simulation.world.volumes.values() if len(v.record.in_sync) < v.record.promised]
    assert len(lacking) == result.last.degraded
    bought = result.bought
    assert len(simulation.world.machines) == bought.machines + bought.replaced_machines - bought.dead_machines


def test_the_same_seed_gives_the_same_run(small: tuple[Simulation, Result]) -> None:
    assert Simulation(SMALL).run().document() == small[1].document()


def test_another_seed_gives_another_run_of_the_same_traffic(small: tuple[Simulation, Result]) -> None:
    other = Simulation(replace(SMALL, seed=2)).run()
    assert other.stored_bytes == small[1].stored_bytes
    assert other.samples != small[1].samples


def test_plans_do_not_decide_which_machines_die(small: tuple[Simulation, Result]) -> None:
    """Two ways of running a cluster are compared on the same machines, uploads and reads."""
    other = Simulation(replace(SMALL, rebalance_seconds=0.0)).run()
    assert other.plans == () and other.totals.moved_bytes == 0
    assert other.stored_bytes == small[1].stored_bytes
    first = [sample.machines for sample in small[1].samples[:3]]
    assert [sample.machines for sample in other.samples[:3]] == first


@given(
    st.integers(0, 1000),
    st.sampled_from(["000", "001", "010", "100", "011", "110", "200"]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 3.0]),
)
@settings(max_examples=6, deadline=None)
def test_no_decision_gets_a_snapshot_that_could_not_be(seed: int, replication: str, dying: float, days: float) -> None:
    """Whatever dies, and however little repair copies: the books stay right, and snapshots agree with them."""
    scenario = replace(
        SMALL,
        seed=seed,
        months=1,
        replication=replication,
        machine_failures_per_year=dying,
        disk_failures_per_year=dying,
        bad_lot_share=0.5,
        burst_share=0.4 if dying else 0.0,
        repair_bytes_per_second=10_000_000,
        rebalance_seconds=days * DAY_SECONDS,
    )
    simulation = Simulation(scenario)
    with pytest.MonkeyPatch.context() as patch:
        _watch_decisions(patch, simulation)
        result = simulation.run(lambda sample: simulation.world.check())
    simulation.world.check()
    kept_bytes = sum(volume.size_bytes for volume in simulation.world.volumes.values())
    assert kept_bytes + result.totals.lost_bytes == result.stored_bytes
    if dying == 0:
        assert result.totals.lost_volumes == 0 and result.last.degraded == 0 and result.totals.failed_copies == 0


def _watch_decisions(patch: pytest.MonkeyPatch, simulation: Simulation) -> None:
    """Look at what the decisions are given."""
    world = simulation.world
    plan_repair, top_up, plan, table = repairs.plan_repair, uploads.plan_top_up, rebalance.plan, uploads.WriteTable

    plans = count()

    def see_repair(snapshot: Snapshot, rules: Rules) -> Plan:
        for view in snapshot.volumes:
            record = view.record
            assert record.primary in record.in_sync and set(record.in_sync) <= set(record.members)
            assert set(record.in_sync) <= set(view.copies) <= set(snapshot.stores)
        if next(plans) % 10 == 0:
            see_spaces(list(snapshot.spaces))
        return plan_repair(snapshot, rules)

    def see_spaces(spaces: list[FolderSpace]) -> None:
        for space in spaces:
            disk = world.machines[space.store_id].disks[space.folder]
            assert space.free_bytes == disk.free_bytes >= 0 and space.volumes == len(disk.volumes)
            assert space.writable == disk.writable >= 0

    def see_growth(spaces: list[FolderSpace], *arguments: Any, **options: Any) -> Any:
        see_spaces(spaces)
        return top_up(spaces, *arguments, **options)

    def see_balance(snapshot: rebalance.Snapshot, options: rebalance.RebalanceSettings) -> rebalance.Plan:
        known = {machine.id for machine in snapshot.machines}
        for volume in snapshot.volumes:
            assert volume.holders and set(volume.holders) <= known and volume.load >= 0
            assert not volume.weights or len(volume.weights) == len(volume.holders)
        return plan(snapshot, options)

    def see_candidates(candidates: list[Candidate]) -> Any:
        assert len({candidate.volume for candidate in candidates}) == len(candidates)
        for candidate in candidates:
            record = world.volumes[candidate.volume].record
            assert {place.store_id for place in candidate.places} == set(record.in_sync)
            assert candidate.store_id == record.primary and len(record.in_sync) >= record.promised
        return table(candidates)

    patch.setattr(repairs, "plan_repair", see_repair)
    patch.setattr(uploads, "plan_top_up", see_growth)
    patch.setattr(rebalance, "plan", see_balance)
    patch.setattr(uploads, "WriteTable", see_candidates)


def test_without_repair_photos_are_lost_and_it_is_said() -> None:
    scenario = replace(
        SMALL,
        machine_failures_per_year=3.0,
        repair_delay_seconds=365 * DAY_SECONDS,
        disk_failures_per_year=0.0,
        rebalance_seconds=0.0,  # a temporary copy that is not where the promise wants one would be replaced at once
    )
    simulation = Simulation(scenario)
    result = simulation.run()
    simulation.world.check()
    assert result.totals.lost_volumes > 0
    assert result.estimates[0].losses == result.totals.lost_volumes
    assert result.totals.repaired_copies == 0


def test_rebalancing_evens_load_and_fill_out(small: tuple[Simulation, Result]) -> None:
    without = Simulation(replace(SMALL, rebalance_seconds=0.0)).run()
    assert _mean_of_spread(small[1]) < _mean_of_spread(without)


def _mean_of_spread(result: Result) -> float:
    return sum(sample.fill_max - sample.fill_mean for sample in result.samples) / len(result.samples)


# -- parts


def test_time_goes_forward_and_what_is_cancelled_does_not_happen() -> None:
    clock, seen = Clock(), list[str]()
    clock.at(5, lambda: seen.append("b"))
    clock.at(2, lambda: seen.append("a")).cancelled = True
    clock.at(5, lambda: clock.at(1, lambda: seen.append(f"late {clock.now_seconds:g}")))
    clock.at(9, lambda: seen.append("never"))
    clock.run_until(8)
    assert seen == ["b", "late 5"] and clock.now_seconds == 8


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 1000)), min_size=1, max_size=8), st.integers(1, 200))
def test_transfers_share_a_pipe(begins: list[tuple[float, int]], each: int) -> None:
    """Beside a simulation in small steps."""
    clock, ended = Clock(), dict[int, float]()
    pipe = Pipe(clock, 100.0, each, lambda key: ended.__setitem__(key, clock.now_seconds))
    for key, (at, size) in enumerate(begins):
        clock.at(at, lambda key=key, size=size: pipe.begin(key, size))  # type: ignore[misc]  # bound now, not later
    clock.run_until(1e6)
    assert len(ended) == len(begins) and len(pipe) == 0
    total = sum(size for _, size in begins)
    first = min(at for at, _ in begins)
    for key, (at, size) in enumerate(begins):
        assert ended[key] >= at + size / min(each, 100.0) - 1e-6
    assert max(ended.values()) <= max(at for at, _ in begins) + total / min(each, 100.0) + 1e-6
    assert max(ended.values()) >= first + total / 100.0 - 1e-6


def test_a_transfer_alone_takes_its_own_rate_and_two_share() -> None:
    clock, ended = Clock(), dict[int, float]()
    pipe = Pipe(clock, 100.0, 80.0, lambda key: ended.__setitem__(key, clock.now_seconds))
    pipe.begin(1, 400)
    clock.at(1, lambda: pipe.begin(2, 500))
    clock.at(2, lambda: pipe.begin(3, 10_000))
    clock.at(3, lambda: pipe.cancel(3))
    clock.run_until(100)
    # 1: 80 in the first second, 50 in the second, 33.3 in the third, then 50 a second until 400 are there.
    assert ended[1] == pytest.approx(3 + (400 - 80 - 50 - 100 / 3) / 50)
    assert ended[2] == pytest.approx(ended[1] + (500 - 50 - 100 / 3 - (ended[1] - 3) * 50) / 80)
    assert 3 not in ended


POPULARITY = Popularity.of(Scenario())


def test_a_week_old_photo_is_read_a_tenth_as_often_as_one_of_today() -> None:
    today = POPULARITY.between(0, DAY_SECONDS)
    assert POPULARITY.at_age(7 * DAY_SECONDS) / today == pytest.approx(0.1, rel=0.2)


@given(st.floats(0, 1e7), st.floats(10, 1e8), st.sampled_from([0.0, 0.5, 1.0, 1.1, 3.0]))
def test_the_mean_over_ages_is_the_mean(youngest: float, span: float, exponent: float) -> None:
    popularity = replace(POPULARITY, exponent=exponent)
    steps = 2000
    # Even steps of the logarithm of the age: the curve is steep where ages are low.
    ages = [youngest + (span + 1) ** (step / steps) - 1 for step in range(steps + 1)]
    summed = sum(
        (after - before) * (popularity.at_age(before) + popularity.at_age(after)) / 2
        for before, after in pairwise(ages)
    )
    assert popularity.between(youngest, youngest + span) == pytest.approx(summed / span, rel=0.01)


def test_luck_is_one_in_the_mean_and_has_a_long_tail() -> None:
    random = Random(7)
    drawn = sorted(POPULARITY.luck(random) for _ in range(20_000))
    assert sum(drawn) / len(drawn) == pytest.approx(1, rel=0.1)
    assert 0.75 < drawn[len(drawn) // 2] < 1 and drawn[-1] > 3


# -- chances


def test_counts_have_the_intervals_of_the_books() -> None:
    assert counted(0).most == pytest.approx(3.689, abs=0.001)
    assert (counted(3).least, counted(3).most) == pytest.approx((0.6187, 8.7673), abs=0.001)
    assert share_bounds(0, 100) == pytest.approx((0.0, 0.0362), abs=0.0001)
    assert share_bounds(5, 20) == pytest.approx((0.0866, 0.4910), abs=0.0001)
    assert share_bounds(20, 20)[1] == 1.0
    assert poisson_at_most(1, 2.0) == pytest.approx(3 * exp(-2))


def test_the_chain_agrees_with_a_markov_process_that_is_played() -> None:
    """Three copies, repair much faster than death, so that losses are rare and yet seen."""
    rate, repair_seconds, seconds, random = 1.0, 0.05, 30_000.0, Random(3)
    losses, two_left, one_left = 0, Exposure(), Exposure()
    now, copies, since = 0.0, 3, 0.0
    while now < seconds:
        dying = copies * rate
        mending = (1 / repair_seconds) if copies < 3 else 0.0
        now += random.expovariate(dying + mending)
        if copies < 3:
            (two_left if copies == 2 else one_left).add(now - since, chain_rate([rate] * copies), int(now))
        copies += 1 if random.random() < mending / (dying + mending) else -1
        since = now
        if copies == 0:
            losses, copies = losses + 1, 3
    assert losses > 300
    assert one_left.estimate(1, repair_seconds).losses == pytest.approx(losses, rel=0.15)
    assert two_left.estimate(2, repair_seconds).losses == pytest.approx(losses, rel=0.25)
    assert independent(seconds, 3, rate, repair_seconds).losses == pytest.approx(losses, rel=0.35)
    bounds = one_left.estimate(1, repair_seconds)
    assert bounds.least < bounds.losses < bounds.most


def test_quantiles() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0.0, 0.25, 0.5, 0.99, 1.0)] == [1, 1, 2, 4, 4]
    assert quantile([], 0.5) == 0.0


# -- scenarios


def test_a_scenario_comes_from_a_file_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text('months = 3\ndisk_bytes = "4TB"\nrepair_delay_seconds = "1h"\nreplication = "010"\n')
    scenario = load_scenario(path, {"months": "6", "seed": None, "bad_lot_share": "0.5"})
    assert (scenario.months, scenario.disk_bytes, scenario.repair_delay_seconds) == (6, 4 * 10**12, 3600.0)
    assert (scenario.seed, scenario.bad_lot_share, scenario.promise.copies) == (1, 0.5, 2)


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("monts = 3", {}, "did you mean months"),
        ("months = 0", {}, "months"),
        ('disk_bytes = "4TT"', {}, "disk_bytes"),
        ("[months", {}, "cannot be read"),
        ("", {"popularity_shape": "1"}, "popularity_shape"),
        ("", {"popularity_shape": "x"}, "popularity_shape"),
        ("", {"replication": "300"}, "data centers"),
        ("", {"replication": "020"}, "racks"),
        ("rack_machines = 1", {"replication": "001"}, "machines in a rack"),
        ("", {"volume_bytes": "3TB"}, "more than a disk holds"),
        ("", {"photo_bytes": "150GB"}, "more than a volume holds"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_setting_named(
    tmp_path: Path, text: str, flags: dict[str, object], words: str
) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_scenario(path, flags)


def test_a_scenario_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(tmp_path / "none.toml", {})
