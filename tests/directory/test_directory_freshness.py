"""Doubtful volumes: what a Store acknowledged and did not tell is never passed over for longer than the promise."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from directory.decisions.freshness import FRESH_SECONDS, MAX_DOUBTFUL, Freshness
from haystack.store.told import Told

S, T = "store-1", "store-2"


def knows_all(volume: int) -> bool:
    return True


def settled(*volumes: int, store: str = S) -> Freshness:
    """Return a state in which the Store knows that it leads these volumes."""
    freshness = Freshness()
    for volume in volumes:
        freshness.changed(volume, store)
    freshness.said(store, 0.0, {}, 0.0, knows_all)
    freshness.said(store, 0.1, {}, 0.1, knows_all)
    return freshness


def test_a_store_that_was_never_heard_is_doubted() -> None:
    assert Freshness().doubtful({S: [3, 1]}, 5.0) == [1, 3]


def test_a_fresh_word_holds_for_half_a_second() -> None:
    freshness = settled(1, 2)
    assert freshness.doubtful({S: [1, 2]}, 0.1 + FRESH_SECONDS) == []
    assert freshness.doubtful({S: [1, 2]}, 0.11 + FRESH_SECONDS) == [1, 2]


def test_a_word_that_was_long_on_its_way_is_as_old_as_it_is() -> None:
    freshness = settled(1)
    freshness.said(S, 0.2, {}, 9.0, knows_all)
    assert freshness.doubtful({S: [1]}, 9.0) == [1]


def test_an_older_word_that_comes_later_changes_nothing() -> None:
    freshness = settled(1)
    freshness.said(S, 5.0, {1: 2.0}, 5.0, knows_all)
    freshness.said(S, 4.9, {}, 5.1, knows_all)
    assert freshness.doubtful({S: [1]}, 5.1) == [1]


def test_single_volumes_that_are_behind() -> None:
    freshness = settled(1, 2, 3)
    freshness.said(S, 5.0, {1: 0.1, 2: 0.6, 3: None}, 5.0, knows_all)
    led = {S: [1, 2, 3]}
    assert freshness.doubtful(led, 5.0) == [2, 3]
    assert freshness.doubtful(led, 5.41) == [1, 2, 3]
    freshness.said(S, 5.5, {}, 5.5, knows_all)
    assert freshness.doubtful(led, 5.5) == []


def test_the_word_of_a_new_primary_counts_once_it_was_given_knowing_that() -> None:
    freshness = settled(1)
    known: set[int] = set()
    freshness.said(T, 1.0, {}, 1.0, known.__contains__)
    freshness.changed(1, T)
    led = {T: [1]}
    freshness.said(T, 1.2, {}, 1.2, known.__contains__)
    assert freshness.doubtful(led, 1.2) == [1]
    known.add(1)
    freshness.said(T, 1.4, {}, 1.5, known.__contains__)
    assert freshness.doubtful(led, 1.5) == [1], "it may have looked before it knew"
    freshness.said(T, 1.45, {}, 1.55, known.__contains__)
    assert freshness.doubtful(led, 1.55) == [1]
    freshness.said(T, 1.6, {}, 1.6, known.__contains__)
    assert freshness.doubtful(led, 1.6) == []


def test_the_former_primary_says_nothing_of_a_volume() -> None:
    freshness = settled(1)
    freshness.changed(1, T)
    for now in (1.0, 2.0):
        freshness.said(S, now, {}, now, knows_all)
    assert freshness.doubtful({S: [], T: [1]}, 2.0) == [1]


def test_too_many_to_be_named_are_all() -> None:
    assert Freshness().doubtful({S: range(1, MAX_DOUBTFUL + 2)}, 1.0) is None


# -- a Store and the Directory, with messages that take as long as they like

SKEW = 1234.5
"""The Store's clock is that far ahead."""


@dataclass
class World:
    """One Store with two volumes.

    ``acked[v]``: when which tail was acknowledged. ``heard[v]``: the tail that the Directory was told;
    ``confirmed[v]``: what the Store knows of that. ``words``: on their way to the Directory.
    """

    rng: random.Random
    now: float = 100.0
    acked: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: {1: [(0.0, 10)], 2: [(0.0, 10)]})
    heard: dict[int, int] = field(default_factory=lambda: {1: 10, 2: 10})
    confirmed: dict[int, int] = field(default_factory=lambda: {1: 10, 2: 10})
    told: Told = field(default_factory=Told)
    freshness: Freshness = field(default_factory=lambda: settled(1, 2))
    token: tuple[float, float] | None = None
    words: list[tuple[float, dict[int, float | None]]] = field(default_factory=list)

    def acknowledge(self) -> None:
        volume = self.rng.choice((1, 2))
        self.acked[volume].append((self.now, self.acked[volume][-1][1] + 10))

    def look(self) -> None:
        self.told.look(self.now + SKEW, (1, 2), lambda volume: self.acked[volume][-1][1], self.confirmed.__getitem__)

    def confirm(self) -> None:
        volume = self.rng.choice((1, 2))
        self.heard[volume] = self.acked[volume][-1][1]
        if self.rng.random() < 0.8:  # else the answer is lost
            self.confirmed[volume] = self.heard[volume]

    def take_token(self) -> None:
        given_at = self.now
        self.now += self.rng.choice((0.0, 0.01, 0.3))
        self.token = (given_at, self.now + SKEW)

    def send_word(self) -> None:
        if self.token is not None and self.told.looked_at > 0:
            given_at, arrived_at = self.token
            self.words.append((given_at + self.told.looked_at - arrived_at, dict(self.told.behind())))

    def deliver_word(self) -> None:
        if self.words:
            looked_at, behind = self.words.pop(self.rng.randrange(len(self.words)))
            self.freshness.said(S, looked_at, behind, self.now, knows_all)

    def vouched(self) -> set[int]:
        doubtful = self.freshness.doubtful({S: [1, 2]}, self.now)
        assert doubtful is not None
        return {1, 2} - set(doubtful)

    def check(self) -> None:
        for volume in self.vouched():
            missing = [at for at, tail in self.acked[volume] if tail > self.heard[volume]]
            assert not missing or self.now - missing[0] <= FRESH_SECONDS + 1e-6


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_untold_is_vouched_for_beyond_the_promise(seed: int) -> None:
    world = World(random.Random(seed))
    moves = (
        *(world.acknowledge, world.take_token),
        *(world.look, world.confirm, world.send_word, world.deliver_word) * 2,
    )
    for _ in range(250):
        world.now += world.rng.choice((0.001, 0.02, 0.05))
        world.rng.choice(moves)()
        world.check()


def test_a_store_that_tells_everything_in_time_is_never_doubted() -> None:
    world = World(random.Random(1))
    for turn in range(200):
        world.now += 0.05
        world.acknowledge()
        for volume in (1, 2):
            world.heard[volume] = world.confirmed[volume] = world.acked[volume][-1][1]
        world.look()
        if turn % 4 == 0:
            world.send_word()
            world.deliver_word()
            world.token = (world.now, world.now + SKEW)
        if turn > 12:
            assert world.vouched() == {1, 2}
