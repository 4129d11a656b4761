"""The bounds of Space-Saving hold at every moment of every stream."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.heavy_hitters import Hitter, SpaceSaving

steps = st.lists(st.one_of(st.tuples(st.integers(0, 12), st.integers(1, 64)), st.just("halve")), max_size=120)
"""Items with weights, and halvings in between. Halves of whole numbers are exact for long enough."""


@given(st.integers(1, 10), steps)
def test_bounds(capacity: int, stream: list[tuple[int, int] | str]) -> None:
    sketch = SpaceSaving[int](capacity)
    true: dict[int, float] = defaultdict(float)
    for step in stream:
        if isinstance(step, str):
            sketch.scale(0.5)
            true = defaultdict(float, {item: count / 2 for item, count in true.items()})
        else:
            sketch.add(step[0], step[1])
            true[step[0]] += step[1]
        counted = {one.item: one for one in sketch}
        assert len(counted) == len(sketch) == min(capacity, len(true))
        assert sum(one.count for one in counted.values()) == pytest.approx(sum(true.values()))
        assert sketch.total == pytest.approx(sum(true.values()))
        for item, one in counted.items():
            assert one.certain <= true[item] + 1e-9
            assert true[item] <= one.count + 1e-9
        most_uncounted = max((count for item, count in true.items() if item not in counted), default=0.0)
        assert most_uncounted <= sketch.least() + 1e-9
        assert sketch.least() <= sketch.total / capacity + 1e-9
        for item, count in true.items():
            assert count <= sketch.total / capacity + 1e-9 or item in counted


@given(steps)
def test_exact_while_there_is_room(stream: list[tuple[int, int] | str]) -> None:
    sketch = SpaceSaving[int](13)
    true: dict[int, int] = defaultdict(int)
    for step in stream:
        if not isinstance(step, str):
            sketch.add(*step)
            true[step[0]] += step[1]
    assert {one.item: one.count for one in sketch} == true
    assert not any(one.error for one in sketch)
    assert [one.count for one in sketch.top(5)] == sorted(true.values(), reverse=True)[:5]


def test_finds_the_heavy_ones_in_a_long_skewed_stream() -> None:
    dice = random.Random(1)
    sketch = SpaceSaving[str](64)
    for _ in range(20_000):
        rank = int(dice.paretovariate(1.0))
        sketch.add(f"photo {rank}" if rank <= 20 else f"noise {dice.random()}")
    assert {one.item for one in sketch.top(4)} == {"photo 1", "photo 2", "photo 3", "photo 4"}
    assert sketch.top(1)[0].certain == pytest.approx(10_000, rel=0.05)
    assert not any(one.certain > 300 for one in sketch if one.item.startswith("noise"))


def test_follows_a_change() -> None:
    sketch = SpaceSaving[str](4)
    for _ in range(1000):
        sketch.add("old")
    for _ in range(5):
        sketch.scale(0.5)
        for _ in range(100):
            sketch.add("new")
    assert sketch.top(1)[0] == Hitter("new", 100 * (1 + 0.5 + 0.25 + 0.125 + 0.0625), 0.0)


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="at least one counter"):
        SpaceSaving[str](0)
    sketch = SpaceSaving[str](1)
    for weight in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="cannot be counted"):
            sketch.add("a", weight)
    for factor in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match="scaled"):
            sketch.scale(factor)
    assert sketch.top(3) == []
    assert sketch.least() == 0.0
