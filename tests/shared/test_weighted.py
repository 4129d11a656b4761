"""The order that is drawn by weight."""

from __future__ import annotations

import random
from collections import Counter
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.weighted import weighted_order

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 100.0)), max_size=8)


def binomial_slack(n: int, chance: float = 1e-9) -> float:
    """By how much a share over ``n`` draws may miss its expectation, but for this chance (Hoeffding)."""
    slack = 0.0
    while 2 * exp(-2 * n * slack**2) > chance:
        slack += 0.0005
    return slack


@given(weights, st.randoms(use_true_random=False))
def test_an_order_of_all_with_those_of_weight_0_last(given_weights: list[float], dice: random.Random) -> None:
    items = list(range(len(given_weights)))
    order = weighted_order(items, given_weights, dice.random)
    assert sorted(order) == items
    idle = [item for item in items if given_weights[item] == 0]
    assert order[len(order) - len(idle) :] == idle


@given(weights, st.floats(0.0, 1.0, exclude_max=True))
def test_any_chance_will_do(given_weights: list[float], chance: float) -> None:
    items = list(range(len(given_weights)))
    assert sorted(weighted_order(items, given_weights, lambda: chance)) == items


def test_the_first_one_comes_in_proportion_to_the_weights_and_so_does_the_second() -> None:
    dice, n = random.Random(7), 20_000
    found = Counter(tuple(weighted_order("abc", [60, 30, 10], dice.random)) for _ in range(n))
    firsts, slack = Counter[str](), binomial_slack(n)
    for order, count in found.items():
        firsts[order[0]] += count
    for item, share in zip("abc", (0.6, 0.3, 0.1), strict=True):
        assert firsts[item] / n == pytest.approx(share, abs=slack)
    assert found["a", "b", "c"] / n == pytest.approx(0.6 * 30 / 40, abs=slack)
    assert found["c", "b", "a"] / n == pytest.approx(0.1 * 30 / 90, abs=slack)


def test_few() -> None:
    assert weighted_order([], [], random.random) == []
    assert weighted_order(["a"], [0], random.random) == ["a"]
    assert weighted_order(["a", "b", "c"], [0, 0, 0], random.random) == ["a", "b", "c"]
    assert weighted_order(["a", "b"], [0, 5], lambda: 0.0) == ["b", "a"]
    with pytest.raises(ValueError, match="2 items"):
        weighted_order(["a", "b"], [1], random.random)
