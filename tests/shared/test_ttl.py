"""The notation of times to live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.errors import InvalidRequest
from haystack.ttl import LAST_SECOND, UNIT_SECONDS, expiry, parse_ttl


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("0", 0),
        ("0m", 0),
        ("1", 1),
        ("90", 90),
        ("3m", 180),
        ("4h", 14_400),
        ("5d", 432_000),
        ("6w", 3_628_800),
        ("7M", 18_748_800),
        ("8y", 252_288_000),
        ("007m", 420),
        ("136y", 4_288_896_000),
    ],
)
def test_ttl_notation(text: str, seconds: int) -> None:
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize(
    "text", ["m", "-1", "+1", "1.5h", "1 m", " 1m", "1m ", "1D", "1s", "1mm", "1m2h", "١m", "1\n", "x" * 1000, "1" * 11]
)
def test_ttl_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a number with m, h, d, w, M"):
        parse_ttl(text)


@pytest.mark.parametrize("text", ["137y", "4294967296", "9999999999y"])
def test_ttl_that_no_needle_could_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="ends after the year 2105"):
        parse_ttl(text)


@given(st.integers(1, 5000), st.sampled_from(sorted(UNIT_SECONDS)), st.integers(0, 4_000_000_000_000))
def test_ttl_ends_between_its_time_and_a_second_later(count: int, unit: str, now_ms: int) -> None:
    try:
        seconds = parse_ttl(f"{count}{unit}")
        expires = expiry(seconds, now_ms)
    except InvalidRequest:
        assert now_ms // 1000 + count * UNIT_SECONDS[unit] >= LAST_SECOND
    else:
        assert seconds * 1000 <= expires * 1000 - now_ms < (seconds + 1) * 1000
        assert 0 < expires <= LAST_SECOND


def test_ttl_of_none_never_ends() -> None:
    assert expiry(0, 2**50) == 0


def test_ttl_at_the_end_of_time() -> None:
    assert expiry(1, (LAST_SECOND - 1) * 1000) == LAST_SECOND
    with pytest.raises(InvalidRequest, match="2105"):
        expiry(1, (LAST_SECOND - 1) * 1000 + 1)
