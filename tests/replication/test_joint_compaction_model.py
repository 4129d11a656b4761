"""Compaction of all copies, as a model: any order of its messages, with crashes, silence and pushes that come late.

The decisions are the real ones; a file is the set of needles in it, since what is carried over is what was there. After
every step each copy that the record counts has everything that was acknowledged, of whatever generation it is. Without
the checks of generations the model finds walks that lose something, so it looks at the right thing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from directory.decisions import failure
from directory.storage.tables import VolumeRecord
from haystack.store.replication.membership import Member, Membership
from haystack.store.replication.rules import LEADING, RECEIVING, Duty, duty_of

STORES = ("a", "b", "c")
STEPS = 120
WALKS = 400


class Lost(Exception):
    """A copy that counts lacks something that was acknowledged."""


@dataclass
class Store:
    """One copy. ``appended``: needles with the generation in which they have their offset here."""

    name: str
    membership: Membership
    generation: int = 0
    needles: set[int] = field(default_factory=set)
    appended: dict[int, int] = field(default_factory=dict)
    prepared: int | None = None

    def duty(self, *, checked: bool) -> Duty:
        generation = self.generation if checked else None
        return duty_of(self.membership, self.name, promised=2, generation=generation)


class World:
    """The Directory's record, the Stores, and what clients were told."""

    def __init__(self, seed: int, *, checked: bool) -> None:
        self.dice = random.Random(seed)
        self.checked = checked
        self.record = VolumeRecord(1, "u", "002", 1, "a", STORES, "writable", 1, None, members=STORES, generation=0)
        self.stores = {name: Store(name, self._membership()) for name in STORES}
        self.confirmed: set[tuple[int, str, int]] = set()
        self.acknowledged: set[int] = set()
        self.refused: dict[str, tuple[int, int]] = {}
        self.next_needle = 0
        self.crashes = 3
        self.reached: set[int] = set()

    def walk(self) -> None:
        """Take steps until something is lost. Raises Lost."""
        moves: list[Callable[[Store], None]] = [
            self.append, self.copy, self.copy, self.copy, self.acknowledge, self.acknowledge, self.prepare,
            self.prepare, self.commit, self.push, self.push, self.push_and_die, self.crash, self.silence, self.sweep,
        ]  # fmt: skip
        for _ in range(STEPS):
            self.dice.choice(moves)(self.stores[self.dice.choice(STORES)])
            self.require_nothing_lost()

    def require_nothing_lost(self) -> None:
        for name in self.record.in_sync:
            if missing := self.acknowledged - self.stores[name].needles:
                raise Lost(f"{name} lacks {missing}")

    # -- Stores

    def append(self, store: Store) -> None:
        if store.duty(checked=self.checked) in LEADING and self.next_needle < 12:
            store.needles.add(self.next_needle)
            store.appended[self.next_needle] = store.generation
            self.next_needle += 1

    def copy(self, store: Store) -> None:
        """A batch of one needle from the primary arrives at a copy: by its epoch, and its offset."""
        epoch, primary = store.membership.epoch, self.stores[store.membership.primary]
        if not primary.needles:
            return
        needle = self.dice.choice(sorted(primary.needles))
        if store.duty(checked=self.checked) not in RECEIVING or primary.membership.epoch != epoch:
            return
        if primary.duty(checked=self.checked) not in LEADING:
            return
        if primary.generation != store.generation:
            if self.checked:
                return
            # Its offset means another place here: what was there before is overwritten, or taken for it.
            self.confirmed.add((needle, store.name, epoch))
            return
        store.needles.add(needle)
        self.confirmed.add((needle, store.name, epoch))

    def acknowledge(self, store: Store) -> None:
        membership = store.membership
        if store.duty(checked=self.checked) not in LEADING:
            return
        for needle, generation in store.appended.items():
            others = [member.store_id for member in membership.followers(store.name)]
            if (generation == store.generation or not self.checked) and all(
                (needle, other, membership.epoch) in self.confirmed for other in others
            ):
                self.acknowledged.add(needle)

    def prepare(self, store: Store) -> None:
        if store.duty(checked=self.checked) in (Duty.PRIMARY, Duty.REPLICA):
            store.prepared = store.generation + 1

    def crash(self, store: Store) -> None:
        if self.crashes:
            self.crashes -= 1
            store.prepared = None

    # -- the Directory

    def commit(self, store: Store) -> None:
        generation = (self.record.generation or 0) + 1
        if len(self.record.in_sync) > 1 and all(self.stores[m].prepared == generation for m in self.record.in_sync):
            self.record = replace(self.record, epoch=self.record.epoch + 1, generation=generation)

    def push(self, store: Store) -> None:
        pushed = self._membership()
        if pushed.epoch <= store.membership.epoch:
            return
        if not self.checked or pushed.suits(store.generation) or not pushed.counts(store.name):
            store.membership = pushed
        elif store.prepared == pushed.generation:
            store.generation, store.prepared, store.membership = store.prepared, None, pushed
            self.reached.add(store.generation)
        else:
            self.refused[store.name] = pushed.epoch, store.generation

    def push_and_die(self, store: Store) -> None:
        """The Store dies between the rename and the writing down of its membership."""
        pushed = self._membership()
        swaps = pushed.epoch > store.membership.epoch and store.prepared == pushed.generation and self.crashes
        if swaps and store.prepared is not None and pushed.counts(store.name):
            self.crashes -= 1
            store.generation, store.prepared = store.prepared, None

    def silence(self, store: Store) -> None:
        """The Directory gives up on a Store, at whatever moment."""
        if self.crashes:
            self.crashes -= 1
            self._lose({store.name})

    def sweep(self, store: Store) -> None:
        self.record = failure.rolled_back(self.record, self.refused)
        epoch = self.record.epoch
        behind = {m for m in self.record.in_sync if self.refused.get(m, (0, 0))[0] == epoch}
        if any(self.stores[m].membership.epoch == epoch for m in self.record.in_sync if m not in behind):
            self._lose(behind)

    def _lose(self, lost: set[str]) -> None:
        self.record = failure.without(self.record, lost, ready=lambda name: True, tails={}, led={}, now_ms=1)

    def _membership(self) -> Membership:
        record = self.record
        members = tuple(Member(name, name, name) for name in record.in_sync)
        # Uploads go on with two copies, so that walks get further.
        return Membership(record.uuid, record.epoch, record.primary, 1, members, generation=record.generation)


def test_nothing_acknowledged_is_lost_by_whatever_happens() -> None:
    reached: set[int] = set()
    acknowledged = 0
    for seed in range(WALKS):
        world = World(seed, checked=True)
        world.walk()
        reached |= world.reached
        acknowledged += len(world.acknowledged)
    assert max(reached) >= 1 and acknowledged > WALKS / 4, (reached, acknowledged)


def test_the_model_finds_what_the_checks_of_generations_are_for() -> None:
    """Half of the copies swap, the others take the epoch without: then offsets mean two things under one epoch."""

    def careless(seed: int) -> None:
        world = World(seed, checked=False)
        world.stores["b"].generation = 1
        world.walk()

    with pytest.raises(Lost):
        for seed in range(WALKS):
            careless(seed)
