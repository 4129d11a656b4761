"""Sizes and durations: what is read, what is refused, and that writing and reading agree."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.units import exact_size, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("64MiB", 64 * 2**20),
        ("64 MiB", 64 * 2**20),
        ("64mib", 64 * 2**20),
        (" 64MiB ", 64 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("8TiB", 2**43),
        ("1KB", 1000),
        ("1.5MB", 1_500_000),
        ("2TB", 2 * 10**12),
        ("12B", 12),
        ("4294967295", 2**32 - 1),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", "MiB", "-1", "+1", "64M", "1e3", "1_000", "0x10", "1.5", "1.B", ".5KiB", "1 2", "1  KiB", "1KiBs"),
        *("inf", "nan", "١", "²", "1\nKiB", "9" * 40, "0.0001KiB", "1,5GiB"),
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="number|unit"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10.0),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("0.25s", 0.25),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1h30m", "inf", "nan", "1e3s", "10 seconds", "9" * 40])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="number|unit"):
        parse_duration(text)


@given(st.integers(0, 2**63))
def test_exact_sizes_are_read_back(size_bytes: int) -> None:
    assert parse_size(exact_size(size_bytes)) == size_bytes


@given(st.integers(0, 2**20), st.sampled_from([("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("GB", 10**9)]))
def test_whole_numbers_of_every_unit(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@given(st.integers(0, 2**50))
def test_shown_sizes_are_near(size_bytes: int) -> None:
    shown = format_size(size_bytes)
    number, unit = shown.split()
    factor = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert abs(float(number) * factor - size_bytes) <= max(0.006 * size_bytes, 0)
    assert len(number) <= 4


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1536, "1.50 KiB"),
        (10 * 2**20, "10.0 MiB"),
        (200 * 2**30, "200 GiB"),
    ],
)
def test_shown_sizes(size_bytes: int, shown: str) -> None:
    assert format_size(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (12, "12 s"),
        (119, "119 s"),
        (180, "3 min"),
        (18000, "5.0 h"),
        (12 * 86400, "12 d"),
    ],
)
def test_shown_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown
