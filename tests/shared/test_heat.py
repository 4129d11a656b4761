"""The decayed averages: equal to the closed form, whatever the ticks; restarts; heats that add up."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.heat import LOAD_BYTES, ROW_NUMBERS, WINDOWS_SECONDS, ZERO_HEAT, Averages, Heat, Rates

ticks = st.lists(
    st.tuples(st.floats(0.001, 900.0), st.integers(0, 10**6), st.integers(0, 10**9), st.floats(0.0, 100.0)), max_size=12
)
"""Length of each tick in seconds, and what the three counters grow by in it."""


def closed_form(steps: list[tuple[float, int, int, float]], idle_seconds: float) -> list[float]:
    """∫ rate(t)·exp(-(now - t)/τ) dt / ∫ exp(-(now - t)/τ) dt, interval by interval."""
    now_seconds = sum(step[0] for step in steps) + idle_seconds
    row = []
    for window in WINDOWS_SECONDS:
        weight = window * (1.0 - exp(-now_seconds / window))
        for quantity in (1, 2, 3):
            at_seconds, total = 0.0, 0.0
            for step in steps:
                rate = step[quantity] / step[0]
                end_seconds = at_seconds + step[0]
                total += (
                    rate
                    * window
                    * (exp((end_seconds - now_seconds) / window) - exp((at_seconds - now_seconds) / window))
                )
                at_seconds = end_seconds
            row.append(total / weight if weight else 0.0)
    return row


def averages_of(steps: list[tuple[float, int, int, float]], start: float = 0.0) -> tuple[Averages, float]:
    averages, now_seconds, reads, size, busy = Averages(start), start, 0, 0, 0.0
    for elapsed, more_reads, more_bytes, more_busy in steps:
        now_seconds += elapsed
        reads, size, busy = reads + more_reads, size + more_bytes, busy + more_busy
        averages.count(now_seconds, reads, size, busy)
    return averages, now_seconds


@given(ticks, st.floats(0.0, 5000.0))
def test_averages_equal_the_closed_form(steps: list[tuple[float, int, int, float]], idle_seconds: float) -> None:
    averages, now_seconds = averages_of(steps)
    row = averages.row(now_seconds + idle_seconds)
    assert row == pytest.approx(closed_form(steps, idle_seconds), rel=1e-6, abs=1e-6)
    assert len(row) == ROW_NUMBERS


@given(st.floats(0.1, 1e5), st.lists(st.floats(0.01, 500.0), min_size=1, max_size=20))
def test_a_steady_rate_is_seen_at_once_whatever_the_ticks(rate: float, elapsed: list[float]) -> None:
    averages, now_seconds = Averages(100.0), 100.0
    for seconds in elapsed:
        now_seconds += seconds
        averages.count(now_seconds, rate * (now_seconds - 100.0), 0.0, 0.0)
        row = averages.row(now_seconds)
        assert [row[0], row[3], row[6]] == pytest.approx([rate] * 3, rel=1e-6)


@given(ticks, st.floats(1.0, 10_000.0))
def test_splitting_an_idle_time_changes_nothing(
    steps: list[tuple[float, int, int, float]], idle_seconds: float
) -> None:
    at_once, now_seconds = averages_of(steps)
    in_steps, _ = averages_of(steps)
    totals = [float(sum(step[quantity] for step in steps)) for quantity in (1, 2, 3)]
    for part in (0.1, 0.5, 0.9):
        in_steps.count(now_seconds + part * idle_seconds, *totals)
    end_seconds = now_seconds + idle_seconds
    assert in_steps.row(end_seconds) == pytest.approx(at_once.row(end_seconds), rel=1e-6, abs=1e-9)


def test_short_windows_follow_a_change_first() -> None:
    averages = Averages(0.0)
    averages.count(36_000.0, 0, 0, 0.0)
    averages.count(36_060.0, 6000, 0, 0.0)  # 100 a second for a minute
    minute, ten_minutes, hour = (averages.row(36_060.0)[index] for index in (0, 3, 6))
    assert minute == pytest.approx(100 * (1 - exp(-1)), rel=1e-3)
    assert ten_minutes == pytest.approx(100 * (1 - exp(-0.1)), rel=1e-3)
    assert hour == pytest.approx(100 * (1 - exp(-1 / 60)), rel=1e-3)


def test_a_counter_that_goes_back_began_anew() -> None:
    averages = Averages(0.0)
    averages.count(10.0, 1000, 64_000, 1.0)
    averages.count(20.0, 500, 32_000, 0.5)  # restarted: 500 reads since
    expected = 100 * (exp(-10 / 60) - exp(-20 / 60)) + 50 * (1 - exp(-10 / 60))
    assert averages.row(20.0)[0] == pytest.approx(expected / (1 - exp(-20 / 60)))
    averages.count(30.0, 500, 32_000, 0.5)
    assert min(averages.row(30.0)) >= 0.0


def test_a_clock_that_stands_still_or_goes_back_loses_nothing() -> None:
    averages, other = Averages(0.0), Averages(0.0)
    averages.count(10.0, 100, 0, 0.0)
    averages.count(10.0, 150, 0, 0.0)
    averages.count(9.0, 160, 0, 0.0)
    averages.count(20.0, 200, 0, 0.0)
    other.count(10.0, 100, 0, 0.0)
    other.count(20.0, 200, 0, 0.0)
    assert averages.row(20.0) == other.row(20.0)
    assert averages.row(0.0) == (0.0,) * ROW_NUMBERS
    assert averages.row(-5.0) == (0.0,) * ROW_NUMBERS
    assert averages.known_seconds(25.0) == 25.0
    assert averages.known_seconds(-1.0) == 0.0


def test_load_and_sums() -> None:
    heat = Heat.of_row([1, LOAD_BYTES, 0.1, 2, 4 * LOAD_BYTES, 0.2, 3, 0, 0.3])
    assert heat.minute == Rates(1, LOAD_BYTES, 0.1)
    assert heat.load() == 2 + 4
    assert heat.load(2 * LOAD_BYTES) == 2 + 2
    assert Rates(3, LOAD_BYTES).load() == 4
    assert (heat + heat).hour == Rates(6, 0, 0.6)
    assert heat + ZERO_HEAT == heat
