"""A cluster in memory that carries out what a repair plan says, with the checks of safety that hold for each step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from directory.decisions import failure
from directory.decisions.liveness import Liveness
from directory.decisions.repair import plan_repair
from directory.decisions.repair_facts import may_give_up
from directory.decisions.repair_views import (
    Action,
    CopyView,
    MoveView,
    Plan,
    Rules,
    Snapshot,
    Step,
    StoreView,
    VolumeView,
)
from directory.decisions.replication import Site, parse_replication
from directory.decisions.spaces import FolderSpace
from directory.storage.tables import NO_MARK, MarkRecord, VolumeRecord
from haystack.units import GIB

RULES = Rules(delay_seconds=10, copies=4, copies_per_store=2)
NOW_MS = 1_000_000
REPLICATIONS = ["000", "001", "010", "100", "011", "110", "002"]


@dataclass
class World:
    """Stores with marks, volumes with copies; carries out what a plan says."""

    sites: dict[str, Site]
    dead: set[str] = field(default_factory=set)
    marks: dict[str, MarkRecord] = field(default_factory=dict)
    records: dict[int, VolumeRecord] = field(default_factory=dict)
    copies: dict[int, dict[str, CopyView]] = field(default_factory=dict)
    settled: bool = True
    moves: dict[int, MoveView] = field(default_factory=dict)

    def spaces(self) -> list[FolderSpace]:
        return [
            FolderSpace(
                store_id=name,
                url=f"{name}:1",
                data_center=site.data_center,
                rack=site.rack,
                folder=f"f{name}",
                path="/d",
                alive=name not in self.dead,
                state="ok",
                free_bytes=100 * GIB,
                total_bytes=200 * GIB,
                volumes=0,
                writable=0,
                mark="" if self.marks.get(name, NO_MARK).takes_new else "marked",
            )
            for name, site in self.sites.items()
        ]

    def snapshot(self, **changes: object) -> Snapshot:
        stores = {
            name: StoreView(
                site,
                f"{name}:1",
                Liveness.DEAD if name in self.dead else Liveness.ALIVE,
                self.marks.get(name, NO_MARK),
            )
            for name, site in self.sites.items()
        }
        reported = {
            volume: {name: copy for name, copy in copies.items() if name not in self.dead}
            for volume, copies in self.copies.items()
        }
        views = [VolumeView(record, reported[volume]) for volume, record in self.records.items()]
        base = Snapshot(views, stores, self.spaces(), self.settled, NOW_MS, moves=self.moves)
        return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace

    def kept(self, record: VolumeRecord) -> int:
        alive = [self.sites[member] for member in record.in_sync if member not in self.dead]
        return parse_replication(record.replication).kept(alive)

    def do(self, step: Step) -> None:
        """Carry out a step, with the checks of safety that hold for each."""
        record, copies = self.records[step.volume], self.copies[step.volume]
        promised = record.promised
        if step.action in (Action.REJOIN, Action.COPY):
            assert step.source == record.primary and step.source not in self.dead and step.target not in self.dead
            assert step.target not in record.in_sync
            if step.action is Action.COPY:
                assert step.target not in copies, "two copies on one Store"
                assert step.folder
                assert self.marks.get(step.target, NO_MARK).takes_new
            copies[step.target] = CopyView(10, step.folder or f"f{step.target}")
            after = failure.admitted(record, step.target, gone=self.dead, now_ms=NOW_MS)
        elif step.action is Action.GIVE_UP:
            assert self.settled and not set(record.in_sync) & self.dead
            assert may_give_up(record, step.target, self.sites, set(self.sites) - self.dead)
            after = failure.given_up(record, step.target, tails={}, led={}, now_ms=NOW_MS)
            assert self.kept(after) >= promised
        elif step.action is Action.DELETE:
            assert self.settled and step.target not in record.in_sync and self.kept(record) >= promised
            del copies[step.target]
            after = failure.forgotten(record, step.target)
        elif step.action is Action.DISCARD:
            assert step.target not in record.in_sync and step.target not in self.dead
            copies.pop(step.target, None)
            self.moves[step.volume] = replace(self.moves[step.volume], began=False)
            after = failure.forgotten(failure.raised(record, 0), step.target)
        else:
            assert step.target not in record.in_sync
            after = failure.forgotten(record, step.target)
        assert after.in_sync and after.primary in after.in_sync
        assert set(after.in_sync) <= set(after.members)
        assert len(after.members) == len(set(after.members))
        assert 0 <= after.extra_copies <= max(0, len(after.members) - after.promised)
        self.records[step.volume] = after

    def converge(self) -> None:
        for _ in range(60 * max(1, len(self.records))):
            if not self.go_on():
                return
        raise AssertionError("the plan never comes to an end")

    def go_on(self) -> Plan | None:
        """Carry out one plan; None when there is nothing left to do."""
        plan = plan_repair(self.snapshot(), RULES)
        for volume in plan.moved:
            self.over(volume)
        for step in plan.steps:
            if step.move and step.action.copies_bytes:
                self.moves[step.volume] = replace(self.moves[step.volume], began=True)
            self.do(step)
        return plan if plan.steps or plan.moved else None

    def over(self, volume: int) -> None:
        """Nothing is left to do of a move, as whoever ordered it does then."""
        move = self.moves.pop(volume)
        if move.target and not move.source and not move.cancelling:
            self.records[volume] = failure.with_extras(self.records[volume])


def record(volume: int, replication: str, in_sync: tuple[str, ...], stale: tuple[str, ...] = ()) -> VolumeRecord:
    base = VolumeRecord(
        volume=volume,
        uuid="u",
        replication=replication,
        epoch=5,
        primary=in_sync[0],
        in_sync=in_sync,
        state="writable",
        created_ms=1,
        max_bytes=None,
        members=in_sync + stale,
    )
    return failure.tidy(base, 1)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    places = draw(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=8))
    sites = {f"s{n}": Site(f"s{n}", center, rack) for n, (center, rack) in enumerate(places)}
    names = sorted(sites)
    world = World(sites)
    world.dead = set(draw(st.lists(st.sampled_from(names), max_size=2)))
    kinds = st.sampled_from(["none", "none", "readonly", "maintenance", "draining"])
    world.marks = {name: MarkRecord(draw(kinds), 1) for name in names}
    world.settled = draw(st.booleans())
    for volume in range(1, draw(st.integers(1, 5)) + 1):
        holders = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5, unique=True))
        split = draw(st.integers(1, len(holders)))
        made = record(volume, draw(st.sampled_from(REPLICATIONS)), tuple(holders[:split]), tuple(holders[split:]))
        world.records[volume] = made
        world.copies[volume] = {name: CopyView(draw(st.integers(1, 9)), f"f{name}") for name in holders}
    return world
