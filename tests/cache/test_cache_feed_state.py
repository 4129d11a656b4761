"""What a Cache may vouch for: never a photo whose delete it may have missed, and all else as soon as it may."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.feed_state import (
    DELETED,
    FRESH_SECONDS,
    LOCATIONS,
    MAX_HORIZONS,
    UNSURE,
    Answer,
    Change,
    FeedAnswerInvalid,
    Vouching,
    parse_answer,
    status,
)


def answer(sequence: int = 0, *changes: Change, incarnation: str = "i", **others: Any) -> Answer:
    fields: dict[str, Any] = {"complete": True, "more": False, "doubtful": frozenset(), **others}
    return Answer(incarnation, sequence, changes, **fields)


def started(now: float = 10.0) -> Vouching:
    vouching = Vouching()
    vouching.took(answer(complete=False), now - 0.01, now)
    return vouching


def test_nothing_is_vouched_for_before_the_first_answer() -> None:
    assert not Vouching().vouches(1, 100.0, 100.0)


def test_what_was_read_before_the_first_answer_is_asked_for() -> None:
    vouching = started(10.0)
    assert not vouching.vouches(1, 9.999, 10.0)
    assert vouching.vouches(1, 10.0, 10.1)


def test_an_answer_holds_for_half_a_second_from_its_beginning() -> None:
    vouching = started()
    vouching.took(answer(), 20.0, 20.4)
    assert vouching.vouches(1, 15.0, 20.49)
    assert not vouching.vouches(1, 15.0, 20.0 + FRESH_SECONDS)
    assert not vouching.vouches(1, 20.45, 20.0 + FRESH_SECONDS), "however new it is"


def test_silence_costs_nothing_that_was_not_missed() -> None:
    vouching = started()
    vouching.took(answer(7, Change(1, 5, 0, DELETED)), 500.0, 500.01)
    assert vouching.vouches(2, 11.0, 500.1)


@pytest.mark.parametrize("incarnation", ["i", "another"])
def test_a_gap_has_everything_asked_for_again(incarnation: str) -> None:
    vouching = started()
    vouching.took(answer(9, incarnation=incarnation, complete=False), 20.0, 20.2)
    assert not vouching.vouches(1, 20.1, 20.3), "the Directory may have answered before this was read"
    assert vouching.vouches(1, 20.2, 20.3)


def test_doubtful_volumes_and_those_that_became_unsure() -> None:
    vouching = started()
    vouching.took(answer(doubtful=frozenset({3})), 20.0, 20.0)
    assert not vouching.vouches(3, 19.0, 20.1) and vouching.vouches(4, 19.0, 20.1)
    vouching.took(answer(1, Change(4, None, None, UNSURE)), 20.2, 20.3)
    assert vouching.vouches(3, 19.0, 20.4), "doubts end with the Store's word"
    assert not vouching.vouches(4, 20.25, 20.4) and vouching.vouches(4, 20.3, 20.4)
    vouching.took(answer(1, doubtful=None), 20.5, 20.5)
    assert not vouching.vouches(3, 20.5, 20.5)


def test_other_locations_take_nothing_back() -> None:
    vouching = started()
    vouching.took(answer(1, Change(4, None, None, LOCATIONS)), 20.0, 20.0)
    assert vouching.vouches(4, 19.0, 20.1)


def test_a_cut_answer_says_nothing_of_now() -> None:
    vouching = started()
    vouching.took(answer(10_000, more=True), 20.0, 20.0)
    assert not vouching.vouches(1, 15.0, 20.1)
    vouching.took(answer(10_500), 20.1, 20.2)
    assert vouching.vouches(1, 15.0, 20.2)


def test_many_unsure_volumes_are_bounded() -> None:
    vouching = started()
    changes = [Change(volume, None, None, UNSURE) for volume in range(1, MAX_HORIZONS + 2)]
    vouching.took(answer(len(changes), *changes), 20.0, 20.1)
    assert not vouching.horizons
    assert not vouching.vouches(10**6, 20.0, 20.2) and vouching.vouches(10**6, 20.1, 20.2)


def test_the_version_rises_with_what_is_to_be_copied() -> None:
    vouching = started()
    version = vouching.version
    vouching.took(answer(1, Change(1, 2, 0, DELETED)), 20.0, 20.0)
    assert vouching.version == version
    for changed in (answer(2, Change(1, None, None, UNSURE)), answer(2, doubtful=None), answer(2, complete=False)):
        vouching.took(changed, 21.0, 21.0)
        assert vouching.version > version
        version = vouching.version


def test_people_are_told() -> None:
    assert status(Vouching(), 5.0)["fresh"] is False
    vouching = started(10.0)
    assert status(vouching, 10.1)["fresh"] is True
    assert status(vouching, 12.0)["behindSeconds"] == pytest.approx(2.01)


GOOD: dict[str, Any] = {
    "incarnation": "i",
    "sequence": 3,
    "complete": True,
    "more": False,
    "changes": [[1, "ff", 0, "deleted"], [2, None, None, "unsure"]],
    "doubtful": [7],
}


def test_an_answer_is_read() -> None:
    assert parse_answer(GOOD) == answer(
        3, Change(1, 255, 0, DELETED), Change(2, None, None, UNSURE), doubtful=frozenset({7})
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": "3"},
        {"sequence": True},
        {"complete": 1},
        {"more": None},
        {"incarnation": None},
        {"changes": [[1, "xyz", 0, "deleted"]]},
        {"changes": [[1, "ff"]]},
        {"changes": [["1", "ff", 0, "deleted"]]},
        {"doubtful": ["7"]},
        {"doubtful": 7},
    ],
)
def test_a_strange_answer_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(FeedAnswerInvalid):
        parse_answer({**GOOD, **change})
    with pytest.raises(FeedAnswerInvalid):
        parse_answer([change])
    short = {name: value for name, value in GOOD.items() if name not in change}
    with pytest.raises(FeedAnswerInvalid):
        parse_answer(short)


# -- a Directory, a Cache, and whatever may happen between them


@dataclass
class World:
    """Photos of one volume, each deleted at most once. Deletes are in the feed at once; what a Store does not tell in
    time is the business of the Directory's tests.

    ``kept``: what the Cache has, with the time of the question that showed it.
    """

    rng: random.Random
    now: float = 0.0
    incarnation: int = 0
    held: int = 3
    deleted: dict[int, float] = field(default_factory=dict)
    feed: list[int] = field(default_factory=list)
    first: int = 0
    kept: dict[int, float] = field(default_factory=dict)
    fetching: dict[int, tuple[float, bool]] = field(default_factory=dict)
    vouching: Vouching = field(default_factory=Vouching)
    asked: tuple[float, str, int] | None = None
    on_its_way: tuple[float, Answer] | None = None

    def delete(self) -> None:
        photo = self.rng.randrange(12)
        if photo not in self.deleted:
            self.deleted[photo] = self.now
            self.feed.append(photo)

    def restart_directory(self) -> None:
        if self.rng.random() < 0.1:
            self.incarnation += 1
            self.feed.clear()
            self.asked = None if self.rng.random() < 0.5 else self.asked

    def ask(self) -> None:
        self.asked = (self.now, self.vouching.incarnation, self.vouching.sequence)
        self.on_its_way = None

    def answer(self) -> None:
        if self.asked is None:
            return
        began, incarnation, after = self.asked
        sequence = len(self.feed)
        complete = incarnation == str(self.incarnation) and 0 <= sequence - after <= self.held
        photos = self.feed[after:] if complete else []
        changes = tuple(Change(1, photo, 0, DELETED) for photo in photos)
        made = Answer(str(self.incarnation), sequence, changes, complete, False, frozenset())
        self.asked, self.on_its_way = None, (began, made)

    def take(self) -> None:
        if self.on_its_way is None:
            return
        began, made = self.on_its_way
        self.on_its_way = None
        for change in made.changes:
            assert change.key is not None
            self.kept.pop(change.key, None)
            self.fetching.pop(change.key, None)
        self.vouching.took(made, began, self.now)

    def begin_fetch(self) -> None:
        photo = self.rng.randrange(12)
        if photo not in self.fetching:
            self.fetching[photo] = (self.now, photo not in self.deleted)

    def end_fetch(self) -> None:
        if self.fetching:
            photo = self.rng.choice(sorted(self.fetching))
            began, there = self.fetching.pop(photo)
            if there:
                self.kept[photo] = began

    def check(self) -> int:
        vouched = [photo for photo, at in self.kept.items() if self.vouching.vouches(1, at, self.now)]
        for photo in vouched:
            assert self.now - self.deleted.get(photo, self.now) <= FRESH_SECONDS + 1e-9
        return len(vouched)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_a_deleted_photo_is_not_vouched_for_beyond_the_promise(seed: int) -> None:
    world = World(random.Random(seed))
    moves: tuple[Callable[[], None], ...] = (
        *(world.delete, world.restart_directory),
        *(world.ask, world.answer, world.take, world.begin_fetch, world.end_fetch) * 2,
    )
    for _ in range(300):
        world.now += world.rng.choice((0.0, 0.01, 0.1, 0.3))
        world.rng.choice(moves)()
        world.check()
