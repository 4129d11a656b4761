"""The repair plan, by properties: a cluster in memory carries plans out until there is nothing left to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repair_world import NOW_MS, REPLICATIONS, RULES, World, record, worlds

from directory.decisions import failure
from directory.decisions.placement import copy_in, place_in
from directory.decisions.repair import plan_repair
from directory.decisions.repair_views import Action, CopyView
from directory.decisions.replication import Replication, Site, parse_replication
from directory.decisions.room import Room
from directory.storage.tables import MarkRecord
from haystack.errors import InvalidRequest
from haystack.units import GIB


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_every_plan_is_safe_and_comes_to_an_end(world: World) -> None:
    """The checks are in :meth:`World.do`."""
    world.converge()
    for volume, made in world.records.items():
        # A drain for which there is no room keeps what there is.
        drained = not any(world.marks[member].mark == "draining" for member in made.in_sync)
        if drained and world.settled and not set(made.in_sync) & world.dead and world.kept(made) >= made.promised:
            assert not set(world.copies[volume]) - set(made.in_sync) - world.dead, "a copy too many is left"
            for member in made.in_sync:
                # What is left is needed, each for itself.
                others = [world.sites[other] for other in made.in_sync if other != member]
                assert parse_replication(made.replication).kept(others) < made.promised


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_limits_hold_and_the_same_picture_gives_the_same_plan(world: World) -> None:
    plan = plan_repair(world.snapshot(), RULES)
    assert plan == plan_repair(world.snapshot(), RULES)
    transfers = [step for step in plan.steps if step.action.copies_bytes]
    assert len(transfers) <= RULES.copies
    for name in world.sites:
        assert sum(name in (step.target, step.source) for step in transfers) <= RULES.copies_per_store
    assert len({step.volume for step in plan.steps}) == len(plan.steps)
    again = plan_repair(world.snapshot(running=plan.steps), RULES)
    assert not {step.volume for step in again.steps} & {step.volume for step in plan.steps}


def three(**changes: object) -> World:
    world = World({name: Site(name, "a", "x") for name in ("s0", "s1", "s2")})
    world.records[1] = record(1, "001", ("s0",), ("s1",))
    world.copies[1] = {"s0": CopyView(9, "fs0"), "s1": CopyView(5, "fs1")}
    for name, value in changes.items():
        setattr(world, name, value)
    return world


def test_a_copy_that_is_back_rejoins_at_once() -> None:
    (step,) = plan_repair(three().snapshot(), RULES).steps
    assert (step.action, step.target, step.source) == (Action.REJOIN, "s1", "s0")


def test_a_lost_copy_is_waited_for_then_made_elsewhere() -> None:
    world = three(dead={"s1"})
    world.records[1] = replace(world.records[1], degraded_since_ms=NOW_MS - 4000)
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and plan.waiting[0].seconds == 6
    assert "waits for Store s1:1 to come back" in plan.waiting[0].reason
    for snapshot in (world.snapshot(urgent={1}), world.snapshot(now_ms=NOW_MS + 6001)):
        (step,) = plan_repair(snapshot, RULES).steps
        assert (step.action, step.target, step.folder) == (Action.COPY, "s2", "fs2")


def test_maintenance_starts_no_repair() -> None:
    world = three(dead={"s1"}, marks={"s1": MarkRecord("maintenance", 1)})
    plan = plan_repair(world.snapshot(now_ms=NOW_MS * 1000), RULES)
    assert not plan.steps and "maintenance" in plan.waiting[0].reason


def test_it_says_what_room_is_missing() -> None:
    world = three(dead={"s1", "s2"})
    plan = plan_repair(world.snapshot(now_ms=NOW_MS * 1000), RULES)
    assert not plan.steps and plan.waiting[0].blocked
    assert "another Store in rack a/x" in plan.waiting[0].reason
    world = three(dead={"s0", "s1", "s2"})
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and "start Store s0:1" in plan.waiting[0].reason


def test_a_copy_that_failed_a_moment_ago_rests() -> None:
    plan = plan_repair(three().snapshot(resting={(1, "s1"): "disk"}, now_ms=NOW_MS * 1000), RULES)
    assert [(step.action, step.target) for step in plan.steps] == [(Action.COPY, "s2")]


def test_nothing_is_given_up_before_all_have_reported() -> None:
    world = three(settled=False)
    world.records[1] = record(1, "000", ("s0", "s1", "s2"))
    world.copies[1] = {name: CopyView(9, f"f{name}") for name in world.sites}
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and "reported" in plan.waiting[0].reason
    world.settled, world.dead = True, {"s2"}
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and "silent" in plan.waiting[0].reason


def test_a_disk_is_drained_to_another_store() -> None:
    world = three(marks={"s0": MarkRecord("none", 0, (("fs0", 1),))})
    world.records[1] = record(1, "001", ("s0", "s1"))
    (step,) = plan_repair(world.snapshot(), RULES).steps
    assert (step.action, step.target) == (Action.COPY, "s2")
    world.marks["s0"] = MarkRecord("none", 0, (("another", 1),))
    assert not plan_repair(world.snapshot(), RULES).steps


# -- placement


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(1, 100)), max_size=10),
    st.sampled_from(REPLICATIONS),
)
@settings(max_examples=300)
def test_a_new_volume_honours_its_domains_or_is_not_placed(rows: list[tuple[str, str, int]], text: str) -> None:
    world = World({f"s{n}": Site(f"s{n}", center, rack) for n, (center, rack, _) in enumerate(rows)})
    spaces = [replace(space, free_bytes=rows[n][2] * GIB) for n, space in enumerate(world.spaces())]
    promise = parse_replication(text)
    placed = place_in(Room(spaces, lambda space: (space.free_bytes, space.store_id)), promise)
    if placed.spaces:
        stores = [space.store_id for space in placed.spaces]
        assert len(set(stores)) == len(stores) == promise.copies
        assert promise.kept([world.sites[store] for store in stores]) == promise.copies
        primary = placed.spaces[0]
        same_rack = [s for s in placed.spaces[1:] if (s.data_center, s.rack) == (primary.data_center, primary.rack)]
        assert len(same_rack) == promise.stores
    else:
        # Nobody could have: all ways of counting all Stores fall short.
        assert promise.kept(world.sites.values()) < promise.copies or not spaces
        assert placed.reason or not spaces


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_one_more_copy_brings_the_promise_nearer(world: World) -> None:
    for made in world.records.values():
        promise = parse_replication(made.replication)
        holders = [world.sites[member] for member in made.in_sync]
        space = copy_in(Room(world.spaces(), lambda space: space.store_id), promise, holders, lambda space: True)
        if space is not None:
            assert space.store_id not in made.in_sync
            assert promise.kept([*holders, world.sites[space.store_id]]) >= promise.kept(holders)
            fits = [other for other in world.spaces() if other.store_id not in made.in_sync]
            most = promise.kept([*holders, *(world.sites[other.store_id] for other in fits)])
            assert most > promise.kept(holders) or most == promise.copies


def test_another_machine_is_preferred() -> None:
    base = World({name: Site(name, "a", "x") for name in ("s0", "s1", "s2")}).spaces()
    spaces = [replace(space, url=url) for space, url in zip(base, ("h1:1", "h1:2", "h2:1"), strict=True)]
    room = Room(spaces, lambda space: space.store_id == "s1")
    placed = place_in(room, Replication(0, 0, 1), lambda space: space.store_id == "s0")
    assert [space.store_id for space in placed.spaces] == ["s0", "s2"]


@pytest.mark.parametrize("text", ["", "1", "0000", "a00", "٠٠١", "-01", "999"])
def test_what_is_no_replication(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_replication(text)


def test_replications_in_words() -> None:
    assert parse_replication("000").in_words() == "one copy"
    assert parse_replication("012").in_words() == ("one copy, and 2 on other Stores of the rack, 1 in another rack")
    assert str(parse_replication("120")) == "120"


# -- failure


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True),
    st.sets(st.sampled_from("abcdef")),
    st.sets(st.sampled_from("abcdef")),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)),
)
def test_a_loss_never_takes_the_last_nor_promotes_a_stranger(
    members: list[str], lost: set[str], ready: set[str], tails: dict[str, int]
) -> None:
    before = record(1, "002", tuple(members), tuple(name for name in "xy"))
    after = failure.without(before, lost, ready=ready.__contains__, tails=tails, led={}, now_ms=9)
    assert after.in_sync and set(after.in_sync) <= set(before.in_sync) and after.primary in after.in_sync
    assert set(before.members) == set(after.members)
    if after == before:
        staying = set(members) - lost
        assert not lost & set(members) or not staying & ready
    else:
        assert after.epoch == before.epoch + 1 and not set(after.in_sync) & lost
        assert (after.degraded_since_ms > 0) == (len(after.in_sync) < 3)
        if before.primary in lost:
            assert after.primary in ready
            assert tails.get(after.primary, 0) == max(tails.get(m, 0) for m in after.in_sync if m in ready)
        else:
            assert after.primary == before.primary
        again = failure.without(after, lost, ready=ready.__contains__, tails=tails, led={}, now_ms=9)
        assert again == after


def test_the_one_that_leads_fewest_is_promoted() -> None:
    before = record(1, "002", ("a", "b", "c"))
    after = failure.without(before, {"a"}, ready=lambda _: True, tails={}, led={"b": 2, "c": 1}, now_ms=9)
    assert after.primary == "c"


def test_a_suspicion_is_believed_of_the_primary_alone() -> None:
    before = record(1, "002", ("a", "b", "c"))
    for reporter, epoch, suspects in (
        ("b", 5, {"a"}),
        ("a", 4, {"b"}),
        ("a", 6, {"b"}),
        ("a", 5, {"a"}),
        ("a", 5, set()),
    ):
        assert failure.suspected(before, reporter, epoch, suspects, 9) == before
    after = failure.suspected(before, "a", 5, {"b"}, 9)
    assert (after.in_sync, after.epoch, after.stale) == (("a", "c"), 6, ("b",))
    learner = failure.suspected(before, "a", 5, {"z"}, 9)
    assert (learner.in_sync, learner.epoch) == (before.in_sync, 6)
    alone = failure.suspected(record(1, "001", ("a",)), "a", 5, {"a", "q"}, 9)
    assert alone.in_sync == ("a",)
