"""How far a Store has told what it acknowledged: what it says is true at the moment that it names."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from haystack.store.told import MAX_NOTES, Told


class Tails:
    """Tails of volumes, and what was told of them."""

    def __init__(self) -> None:
        self.tail: dict[int, int | None] = {}
        self.told: dict[int, int] = {}
        self.state = Told()

    def look(self, now: float, *changed: int) -> dict[int, float | None]:
        self.state.look(now, changed, self.tail.__getitem__, lambda volume: self.told.get(volume, 0))
        return dict(self.state.behind())


def test_a_volume_that_is_told_is_not_behind() -> None:
    tails = Tails()
    tails.tail[1], tails.told[1] = 100, 100
    assert tails.look(5.0, 1) == {}


def test_a_volume_is_behind_since_the_last_look_that_found_it_told() -> None:
    tails = Tails()
    tails.tail[1], tails.told[1] = 100, 100
    tails.look(5.0, 1)
    tails.tail[1] = 200
    assert tails.look(5.1, 1) == {1: 5.1 - 5.0}
    assert tails.look(5.3) == {1: 5.3 - 5.0}
    tails.told[1] = 200
    assert tails.look(5.4) == {}


def test_a_volume_that_is_always_written_to_is_only_as_late_as_its_confirmations() -> None:
    tails = Tails()
    tails.tail[1] = tails.told[1] = 0
    tails.look(0.0, 1)
    for turn in range(1, 3 * MAX_NOTES):
        tails.tail[1] = turn * 10
        tails.told[1] = (turn - 2) * 10  # two looks late
        behind = tails.look(float(turn), 1)
        assert behind[1] is not None
        if turn > 3:
            assert behind == {1: 2.0}


def test_a_volume_that_is_not_confirmed_for_long_keeps_what_is_known() -> None:
    tails = Tails()
    tails.tail[1] = tails.told[1] = 10
    tails.look(0.0, 1)
    for turn in range(1, 3 * MAX_NOTES):
        tails.tail[1] = 10 + turn
        assert tails.look(float(turn), 1) == {1: float(turn)}
    tails.told[1] = 10 + 3 * MAX_NOTES
    assert tails.look(1000.0) == {}


def test_what_is_led_anew_is_behind_until_everything_is_told() -> None:
    tails = Tails()
    tails.tail[1], tails.told[1] = 100, 0
    tails.state.doubt(1)
    assert tails.look(1.0) == {1: None}
    tails.told[1] = 100
    assert tails.look(1.1) == {}


def test_out_of_service_nothing_is_learned() -> None:
    tails = Tails()
    tails.tail[1] = tails.told[1] = 100
    tails.look(1.0, 1)
    tails.tail[1] = 200
    tails.look(1.1, 1)
    tails.tail[1], tails.told[1] = None, 200
    assert tails.look(1.2, 1) == {1: 1.2 - 1.0}, "what it ends with afterwards is not known"
    tails.tail[1] = 200
    assert tails.look(1.3, 1) == {}


def test_a_volume_that_is_shorter_afterwards_is_not_behind_for_ever() -> None:
    tails = Tails()
    tails.tail[1], tails.told[1] = 200, 100
    tails.look(1.0, 1)
    tails.tail[1] = None  # a compaction, say
    tails.look(1.1, 1)
    tails.tail[1] = tails.told[1] = 50
    assert tails.look(1.2, 1) == {}


def test_another_stores_volume_is_forgotten() -> None:
    tails = Tails()
    tails.tail[1] = 100
    tails.state.doubt(1)
    tails.look(1.0)
    tails.state.forget(1)
    assert tails.look(1.1) == {}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_everything_before_the_named_moment_was_told(seed: int) -> None:
    rng, tails, now = random.Random(seed), Tails(), 0.0
    acknowledged: dict[int, list[tuple[float, int]]] = {1: [], 2: []}
    tails.tail.update({1: 0, 2: 0})
    for _ in range(300):
        now += rng.choice((0.0, 0.01, 0.2))
        volume = rng.choice((1, 2))
        match rng.randrange(3):
            case 0:
                tail = (tails.tail[volume] or 0) + 1
                tails.tail[volume] = tail
                acknowledged[volume].append((now, tail))
            case 1:
                tails.told[volume] = rng.randint(tails.told.get(volume, 0), tails.tail[volume] or 0)
            case _:
                behind = tails.look(now, 1, 2)
                for one, acks in acknowledged.items():
                    lag = behind.get(one, 0.0)
                    named = now - lag if lag is not None else float("-inf")
                    told = tails.told.get(one, 0)
                    assert all(tail <= told for at, tail in acks if at < named - 1e-9)
