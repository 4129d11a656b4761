"""A volume is as hot as it was when its copies have changed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.heat.echo import Watched, without_echo
from haystack.heat import Averages, Heat

WINDOW_SECONDS = 2.0
WINDOWS = (WINDOW_SECONDS, 10 * WINDOW_SECONDS, 60 * WINDOW_SECONDS)
RATE = 300.0


def load_of(averages: Averages, now_seconds: float) -> float:
    return Heat.of_row(averages.row(now_seconds)).load(float("inf"))


@given(
    st.floats(1.0, 500.0),
    st.lists(st.floats(0.5, 60.0), min_size=1, max_size=3),
    st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4),
)
def test_reads_that_are_shared_by_more_copies_stay_as_many(
    alone_seconds: float, since_each: list[float], weights: list[float]
) -> None:
    """One copy takes all reads, then others come, one after the other."""
    moments = [0.0, alone_seconds]
    for seconds in since_each:
        moments.append(moments[-1] + seconds)
    watched: list[tuple[float, Averages]] = []
    reads: list[float] = []
    for count, (began, ended) in enumerate(pairwise(moments), 1):
        watched.append((began, Averages(began, WINDOWS)))
        reads.append(0.0)
        whole = sum(weights[:count])
        for number, (_, averages) in enumerate(watched):
            reads[number] += RATE * (ended - began) * weights[number] / whole
            averages.count(ended, reads[number], 0.0, 0.0)
    loads = without_echo(
        {
            f"s{number}": Watched(load_of(averages, moments[-1]), moments[-1] - began, WINDOW_SECONDS, began > 0)
            for number, (began, averages) in enumerate(watched)
        }
    )
    assert sum(loads.values()) == pytest.approx(RATE, rel=1e-6)


def test_a_store_that_has_begun_anew_took_nothing_from_the_others() -> None:
    copies = {"s0": Watched(100.0, 500.0, 60.0, False), "s1": Watched(100.0, 5.0, 60.0, False)}
    assert without_echo(copies) == {"s0": 100.0, "s1": 100.0}


def test_one_copy_alone_has_its_own_load_from_the_first_moment() -> None:
    assert without_echo({"s0": Watched(100.0, 0.5, 60.0, True)}) == {"s0": 100.0}
    assert without_echo({"s0": Watched(100.0, 0.0, 60.0, True)}) == {"s0": 100.0}
    assert without_echo({}) == {}
