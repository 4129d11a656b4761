"""Moves as steps of the repair plan, by properties: a cluster in memory carries them out, whatever happens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from repair_world import NOW_MS, RULES, World, record, worlds

from directory.decisions import failure
from directory.decisions.move_orders import MoveKind, MoveOrder, choose_target, refusal_of, swap
from directory.decisions.repair import plan_repair
from directory.decisions.repair_views import Action, CopyView, MoveView, Step
from directory.decisions.replication import Site, parse_replication
from directory.storage.tables import MarkRecord, VolumeRecord
from haystack.units import GIB

STORES = ("s0", "s1", "s2", "s3")


def flat(replication: str = "000", in_sync: tuple[str, ...] = ("s0",), stale: tuple[str, ...] = ()) -> World:
    """Four Stores of one rack, one volume."""
    world = World({name: Site(name, "a", "x") for name in STORES})
    world.records[1] = record(1, replication, in_sync, stale)
    world.copies[1] = {name: CopyView(9, f"f{name}") for name in (*in_sync, *stale)}
    return world


def actions(world: World) -> list[tuple[Action, str]]:
    """Carry everything out; returns what was done."""
    found = []
    while plan := world.go_on():
        found += [(step.action, step.target) for step in plan.steps]
    return found


def ordered(world: World, source: str, target: str, **more: object) -> World:
    world.moves[1] = replace(MoveView(7, source, target), **more)  # type: ignore[arg-type]  # checked by replace
    return world


def test_a_volume_of_one_copy_moves_in_three_steps() -> None:
    world = ordered(flat(), "s0", "s2")
    assert actions(world) == [(Action.COPY, "s2"), (Action.GIVE_UP, "s0"), (Action.DELETE, "s0")]
    assert world.records[1].members == ("s2",) and not world.moves and set(world.copies[1]) == {"s2"}


def test_a_copy_more_is_kept_and_goes_only_by_order() -> None:
    world = ordered(flat("001", ("s0", "s1")), "", "s2")
    assert actions(world) == [(Action.COPY, "s2")]
    assert world.records[1].extra_copies == 1 and set(world.records[1].in_sync) == {"s0", "s1", "s2"}
    ordered(world, "s1", "")
    assert actions(world) == [(Action.GIVE_UP, "s1"), (Action.DELETE, "s1")]
    assert world.records[1].extra_copies == 0 and set(world.records[1].members) == {"s0", "s2"}


def test_a_copy_above_the_promise_comes_back_and_is_not_made_elsewhere() -> None:
    world = ordered(flat("001", ("s0", "s1")), "", "s2")
    actions(world)
    world.dead = {"s2"}
    world.records[1] = failure.without(world.records[1], {"s2"}, ready=lambda _: True, tails={}, led={}, now_ms=NOW_MS)
    assert not world.records[1].degraded_since_ms and actions(world) == []
    assert world.records[1].stale == ("s2",), "it is forgotten"
    world.dead = set()
    assert actions(world) == [(Action.REJOIN, "s2")]
    world.marks["s2"] = MarkRecord("draining", 1)
    assert actions(world) == [(Action.GIVE_UP, "s2"), (Action.DELETE, "s2")]
    assert world.records[1].extra_copies == 0


def test_a_copy_above_the_promise_is_not_one_too_many_because_another_one_is_broken() -> None:
    world = flat("001", ("s0", "s1", "s2"), ("s3",))
    world.records[1] = replace(world.records[1], extra_copies=1)
    world.copies[1]["s3"] = CopyView(9, "fs3", "failed")
    assert not plan_repair(world.snapshot(), RULES).steps
    world.records[1] = replace(world.records[1], extra_copies=0)
    (step,) = plan_repair(world.snapshot(), RULES).steps
    assert step.action is Action.GIVE_UP


def test_while_a_target_counts_repair_gives_nothing_up() -> None:
    """The source is on the Store with least room: repair would like it least, or the target."""
    for leaving in ("s0", "s1", "s2"):
        world = ordered(flat("001", ("s0", "s1", "s2")), "s0", "s2")
        world.marks[leaving] = MarkRecord("draining", 1)
        (step,) = plan_repair(world.snapshot(), RULES).steps
        assert (step.action, step.target) == (Action.GIVE_UP, "s0")


def test_repair_goes_before_a_move_that_has_not_begun() -> None:
    world = ordered(flat("001", ("s0",), ("s1",)), "s0", "s2")
    (step,) = plan_repair(world.snapshot(), RULES).steps
    assert (step.action, step.target, step.move) == (Action.REJOIN, "s1", 0)
    world.dead = {"s1"}
    world.records[1] = replace(world.records[1], degraded_since_ms=NOW_MS)
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and "waits for Store s1:1" in plan.waiting[0].reason


def test_two_that_come_back_together_keep_the_promise() -> None:
    """Of four copies the two in one rack were away; what is left is in two racks, where nobody else is."""
    world = World({name: Site(name, "a", rack) for name, rack in zip(STORES, "zyzx", strict=True)})
    world.records[1] = record(1, "001", ("s1", "s3"), ("s0", "s2"))
    world.copies[1] = {name: CopyView(9, f"f{name}") for name in STORES}
    done = actions(world)
    assert done[:2] == [(Action.REJOIN, "s0"), (Action.REJOIN, "s2")]
    assert set(world.records[1].in_sync) == set(world.copies[1]) == {"s0", "s2"}


def test_no_copy_is_made_for_a_volume_whose_move_brings_one() -> None:
    """Another copy is lost while the target comes in: then the target is the promised one, and the source stays."""
    world = ordered(flat("001", ("s0", "s1")), "s0", "s2", began=True)
    copying = Step(Action.COPY, 1, "s2", "s0", move=7)
    world.dead = {"s1"}
    world.records[1] = record(1, "001", ("s0",), ("s1",))
    snapshot = world.snapshot(running=[copying], now_ms=NOW_MS * 1000)
    assert plan_repair(snapshot, RULES).steps == ()
    world.do(replace(copying, folder="fs2"))
    plan = plan_repair(world.snapshot(now_ms=NOW_MS * 1000), RULES)
    assert plan.steps == () and "is needed" in plan.waiting[0].reason
    world.dead = set()
    world.records[1] = replace(world.records[1], members=("s0", "s2", "s1"))
    assert actions(world) == [(Action.REJOIN, "s1"), (Action.GIVE_UP, "s0"), (Action.DELETE, "s0")]


def test_nothing_goes_before_all_have_reported_nor_while_one_is_silent() -> None:
    for changes, words in (({"settled": False}, "reported"), ({"dead": {"s1"}}, "silent")):
        world = ordered(flat("001", ("s0", "s1", "s2")), "s0", "s2")
        for name, value in changes.items():
            setattr(world, name, value)
        plan = plan_repair(world.snapshot(), RULES)
        assert not plan.steps and words in plan.waiting[0].reason


def test_nothing_is_deleted_before_all_have_reported_nor_while_one_that_counts_is_silent() -> None:
    for changes in ({"settled": False}, {"dead": {"s1"}}):
        for cancelling in (False, True):
            target, source = ("s0", "s2") if cancelling else ("s2", "s0")
            world = ordered(flat("000", ("s2", "s1"), ("s0",)), source, target, cancelling=cancelling)
            for name, value in changes.items():
                setattr(world, name, value)
            plan = plan_repair(world.snapshot(), RULES)
            assert not plan.steps and not plan.moved and "before all its Stores are heard" in plan.waiting[0].reason


def test_the_source_stays_readable_for_a_while() -> None:
    world = ordered(flat("000", ("s2",), ("s0",)), "s0", "s2", switched_ms=NOW_MS - 3000)
    rules = replace(RULES, move_linger_seconds=10)
    plan = plan_repair(world.snapshot(), rules)
    assert not plan.steps and not plan.moved and plan.waiting[0].seconds == 7
    (step,) = plan_repair(world.snapshot(now_ms=NOW_MS + 7001), rules).steps
    assert (step.action, step.target) == (Action.DELETE, "s0")


def test_a_source_that_is_gone_ends_the_move() -> None:
    world = ordered(flat("000", ("s2",), ("s0",)), "s0", "s2")
    world.dead = {"s0"}
    assert plan_repair(world.snapshot(), RULES).moved == (1,)


def test_what_was_cancelled_leaves_things_as_they_were() -> None:
    before = flat("001", ("s0", "s1")).records[1]
    for in_sync, stale, copies, expected in (
        (("s0", "s1"), (), (), []),
        (("s0", "s1"), (), ("began",), [(Action.DISCARD, "s2")]),
        (("s0", "s1"), ("s2",), (), [(Action.DELETE, "s2")]),
        (("s0", "s1", "s2"), (), (), [(Action.GIVE_UP, "s2"), (Action.DELETE, "s2")]),
    ):
        world = ordered(flat("001", in_sync, stale), "s0", "s2", cancelling=True, began="began" in copies)
        assert actions(world) == expected and not world.moves
        assert (world.records[1].members, set(world.copies[1])) == (before.members, {"s0", "s1"})


def test_a_cancelled_target_that_is_needed_stays() -> None:
    world = ordered(flat("001", ("s0", "s2"), ("s1",)), "s0", "s2", cancelling=True)
    world.dead = {"s1"}
    assert plan_repair(world.snapshot(), RULES).moved == (1,)
    assert set(world.records[1].in_sync) == {"s0", "s2"}


def test_limits_of_moves_and_hands_for_repair_first() -> None:
    world = World({f"s{n}": Site(f"s{n}", "a", "x") for n in range(12)})
    for volume in range(1, 7):
        source, target = f"s{2 * (volume - 1)}", f"s{2 * volume - 1}"
        world.records[volume] = record(volume, "000", (source,))
        world.copies[volume] = {source: CopyView(9, f"f{source}")}
        world.moves[volume] = MoveView(volume, source, target)
    rules = replace(RULES, moves=3, moves_per_store=1)
    plan = plan_repair(world.snapshot(), rules)
    assert [step.volume for step in plan.steps] == [1, 2, 3] and plan.next_volumes == (4, 5, 6)
    assert not plan_repair(world.snapshot(), replace(rules, moves=0)).steps
    world.moves = {volume: MoveView(volume, f"s{2 * (volume - 1)}", "s11") for volume in range(1, 6)}
    assert [step.volume for step in plan_repair(world.snapshot(), rules).steps] == [1]
    # Repair has as many hands as it would have without moves, and moves have none where repair is at work.
    world.records[6] = record(6, "001", ("s10",))
    running = [Step(Action.COPY, 1, "s11", "s0", "fs11", 9, move=1)]
    steps = plan_repair(world.snapshot(running=running, urgent={6}), rules).steps
    assert [(step.volume, step.move) for step in steps] == [(6, 0)]
    repair = [Step(Action.COPY, 6, "s11", "s10", "fs11", 9)]
    assert plan_repair(world.snapshot(running=repair), rules).steps == ()


def test_a_target_without_room_is_said_and_a_move_that_is_held_waits() -> None:
    world = ordered(flat(), "s0", "s2")
    world.marks["s2"] = MarkRecord("readonly", 1)
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and plan.waiting[0].blocked and "s2:1" in plan.waiting[0].reason
    world = ordered(flat(), "s0", "s2", held="it is being compacted")
    plan = plan_repair(world.snapshot(), RULES)
    assert not plan.steps and plan.waiting[0].reason == "it is being compacted"


# -- orders


def test_orders_that_make_no_sense_are_refused_in_words() -> None:
    sites = {name: Site(name, "a", "x") for name in STORES} | {"far": Site("far", "a", "y")}
    known = record(1, "001", ("s0", "s1"), ("s3",))
    for order, words in (
        (MoveOrder(MoveKind.MOVE, 1, "s2", "s3"), "no copy in sync"),
        (MoveOrder(MoveKind.MOVE, 1, "s0", "s1"), "on that Store already"),
        (MoveOrder(MoveKind.MOVE, 1, "s0", "s3"), "on that Store already"),
        (MoveOrder(MoveKind.MOVE, 1, "s0", "far"), "would keep 1 of its 2"),
        (MoveOrder(MoveKind.DROP, 1, "s0"), "would keep 1 of its 2"),
        (MoveOrder(MoveKind.MOVE, 1, "s0", "s2"), ""),
        (MoveOrder(MoveKind.COPY, 1, "", "far"), ""),
    ):
        found = refusal_of(order, known, sites)
        assert (words in found) if words else not found, (order, found)
    lacking = record(1, "001", ("s0",), ("s1",))
    assert "repair comes first" in refusal_of(MoveOrder(MoveKind.MOVE, 1, "s0", "s2"), lacking, sites)


def test_a_target_is_chosen_where_there_is_room_and_the_promise_is_kept() -> None:
    sites = {
        "s0": Site("s0", "a", "x"),
        "s1": Site("s1", "a", "y"),
        "s2": Site("s2", "a", "y"),
        "s3": Site("s3", "a", "z"),
    }
    world = World(sites)
    known = record(1, "010", ("s0", "s1"))
    order = MoveOrder(MoveKind.MOVE, 1, "s0")
    space, problem = choose_target(order, known, sites, world.spaces(), size_bytes=1)
    assert space is not None and space.store_id == "s3" and not problem, "s2 is in the rack of the other copy"
    spaces = [replace(one, free_bytes=0) if one.store_id == "s3" else one for one in world.spaces()]
    space, problem = choose_target(order, known, sites, spaces, size_bytes=1)
    assert space is None and "no other Store has room" in problem
    space, problem = choose_target(replace(order, target="s3"), known, sites, spaces, size_bytes=GIB)
    assert space is None and "free" in problem
    space, problem = choose_target(replace(order, target="s2"), known, sites, spaces, size_bytes=1)
    assert space is None and "would keep 1 of its 2" in problem
    first, second = swap(1, "s0", 2, "s1", "why")
    assert (first.source, first.target, second.source, second.target, second.after) == ("s0", "s1", "s1", "s0", 0)


# -- properties


@st.composite
def moving_worlds(draw: st.DrawFn) -> World:
    """A world of :func:`worlds` with moves, some of them begun, some being cancelled."""
    world = draw(worlds())
    names = sorted(world.sites)
    for volume, known in world.records.items():
        kind = draw(st.sampled_from(MoveKind))
        source = "" if kind is MoveKind.COPY else draw(st.sampled_from(known.in_sync))
        target = "" if kind is MoveKind.DROP else draw(st.sampled_from(names))
        if draw(st.booleans()) and not refusal_of(MoveOrder(kind, volume, source, target), known, world.sites):
            world.moves[volume] = MoveView(volume, source, target, began=draw(st.booleans()))
    return world


def lose(world: World, volume: int, dead: set[str]) -> None:
    """What the Directory does when Stores die."""
    alive = set(world.sites) - dead
    known = world.records[volume]
    world.records[volume] = failure.without(
        known, set(known.in_sync) & dead, ready=alive.__contains__, tails={}, led={}, now_ms=NOW_MS
    )


def report(world: World) -> None:
    """What follows from the reports of living Stores: whoever has a copy is a member."""
    for volume, known in world.records.items():
        found = [store for store in world.copies[volume] if store not in (*known.members, *world.dead)]
        world.records[volume] = replace(known, members=(*known.members, *found))


def leave_half_done(world: World, step: Step) -> None:
    """What a copy leaves whose Directory, source or target dies before it counts."""
    if step.action.copies_bytes:
        copies, known = world.copies[step.volume], world.records[step.volume]
        copies.setdefault(step.target, CopyView(1, step.folder))
        members = known.members if step.target in known.members else (*known.members, step.target)
        world.records[step.volume] = replace(known, members=members)


@given(moving_worlds(), st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_dies_meanwhile_every_step_is_safe_and_all_comes_to_an_end(world: World, data: st.DataObject) -> None:
    """The checks of each step are in :meth:`World.do`."""
    promised = {volume: world.kept(known) for volume, known in world.records.items()}
    for _ in range(data.draw(st.integers(0, 8), "rounds")):
        plan = plan_repair(world.snapshot(), RULES)
        for volume in plan.moved:
            world.over(volume)
        for step in plan.steps:
            if step.move and step.action.copies_bytes:
                world.moves[step.volume] = replace(world.moves[step.volume], began=True)
            happens = data.draw(st.sampled_from(("done", "nothing", "half")))
            if happens == "done":
                world.do(step)
            elif happens == "half":
                leave_half_done(world, step)
        world.dead = set(data.draw(st.lists(st.sampled_from(sorted(world.sites)), max_size=2), "dead"))
        for volume in world.records:
            lose(world, volume, world.dead)
        report(world)
        for volume, move in list(world.moves.items()):
            if data.draw(st.integers(0, 9)) == 0:
                world.moves[volume] = replace(move, cancelling=True)
    world.dead, world.settled = set(), True
    world.marks = {}
    report(world)
    world.converge()
    # Patience comes to its end: what did not go forward is taken back, and if even that cannot be done, it is over.
    world.moves = {volume: replace(move, cancelling=True) for volume, move in world.moves.items()}
    world.converge()
    stuck = set(world.moves)
    world.moves.clear()
    world.converge()
    for volume, known in world.records.items():
        assert world.kept(known) >= min(promised[volume], known.promised)
        if world.kept(known) < known.promised:
            continue  # there are not the racks for it: what there is stays
        assert volume not in stuck and len(known.in_sync) <= known.wanted
        assert not known.stale and set(world.copies[volume]) == set(known.in_sync), "something is left"


@given(worlds(), st.data())
@settings(max_examples=200, deadline=None)
def test_an_undisturbed_move_does_exactly_what_was_ordered(world: World, data: st.DataObject) -> None:
    world.dead, world.settled, world.marks = set(), True, {}
    world.converge()
    before = {volume: known for volume, known in world.records.items() if world.kept(known) >= known.promised}
    kinds: dict[int, MoveKind] = {}
    for volume, known in before.items():
        order = data.draw(orders(known, sorted(world.sites)))
        if not refusal_of(order, known, world.sites):
            world.moves[volume], kinds[volume] = MoveView(volume, order.source, order.target), order.kind
    asked = dict(world.moves)
    world.converge()
    for volume, move in asked.items():
        expected = {*before[volume].in_sync, move.target} - {move.source, ""}
        assert set(world.records[volume].members) == expected == set(world.copies[volume])
        more = kinds[volume] is MoveKind.COPY
        assert world.records[volume].extra_copies == (len(expected) - before[volume].promised if more else 0)
        assert parse_replication(before[volume].replication).kept(world.sites[s] for s in expected) >= (
            before[volume].promised
        )


@st.composite
def orders(draw: st.DrawFn, known: VolumeRecord, names: list[str]) -> MoveOrder:
    kind = draw(st.sampled_from(MoveKind))
    source = "" if kind is MoveKind.COPY else draw(st.sampled_from(known.in_sync))
    return MoveOrder(kind, known.volume, source, "" if kind is MoveKind.DROP else draw(st.sampled_from(names)))
