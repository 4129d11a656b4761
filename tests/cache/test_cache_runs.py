"""Free runs of granules: never given twice, never lost, the fewest pieces that there are."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.memory.runs import FreeRuns, _class_of


def cells_of(runs: list[tuple[int, int]]) -> set[int]:
    return {cell for start, length in runs for cell in range(start, start + length)}


def test_classes_of_lengths_grow_with_them() -> None:
    classes = [_class_of(length) for length in range(1, 20_000)]
    assert all(0 <= after - before <= 1 for before, after in pairwise(classes))


def test_a_photo_gets_the_smallest_run_that_holds_it() -> None:
    free = FreeRuns(100)
    assert free.take(100, 1, 1) == [(0, 100)]
    for start, length in ((0, 10), (20, 30), (60, 12)):
        free.give(start, length)
    assert free.take(11, 1, 4) == [(60, 11)]
    assert free.take(10, 1, 4) == [(0, 10)]


def test_several_runs_are_taken_the_longest_first_and_only_if_there_are_few_enough() -> None:
    free = FreeRuns(100)
    free.take(100, 1, 1)
    for start, length in ((0, 10), (20, 30), (60, 12)):
        free.give(start, length)
    assert free.take(45, 1, 2) is None
    assert free.take(45, 31, 3) is None
    assert free.runs() == [(0, 10), (20, 30), (60, 12)]
    assert free.take(45, 30, 3) == [(20, 30), (60, 12), (0, 3)]
    assert free.free_granules == 7


def test_neighbours_are_joined() -> None:
    free = FreeRuns(30)
    for _ in range(3):
        free.take(10, 1, 1)
    for start in (0, 20, 10):
        free.give(start, 10)
    assert free.runs() == [(0, 30)]
    assert free.longest == 30


def test_pages_are_whole_and_come_from_the_end() -> None:
    free = FreeRuns(100)
    assert free.take_pages(17) == [(80, 16)]
    assert free.runs() == [(0, 80), (96, 4)]
    free.take(80, 1, 1)
    assert free.take_pages(8) == []


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**32), st.integers(1, 300))
def test_granules_are_given_once_and_come_back(granules: int, seed: int, largest: int) -> None:
    rng = random.Random(seed)
    free = FreeRuns(granules)
    expected = set(range(granules))
    taken: list[list[tuple[int, int]]] = []
    for _ in range(60):
        if taken and rng.random() < 0.45:
            for run in (back := taken.pop(rng.randrange(len(taken)))):
                free.give(*run)
            expected |= cells_of(back)
        else:
            wanted, max_runs = rng.randint(1, largest), rng.choice((1, 3, 512))
            runs = free.take(wanted, 1, max_runs)
            if runs is None:
                assert wanted > len(expected) or max_runs < 512
                continue
            assert len(runs) <= max_runs
            cells = cells_of(runs)
            assert len(cells) == wanted == sum(length for _, length in runs)
            assert cells <= expected
            expected -= cells
            taken.append(runs)
        assert cells_of(free.runs()) == expected
        assert free.free_granules == len(expected)
        assert all(a + n < b for (a, n), (b, _) in pairwise(free.runs()))
