"""Range and If-Range, from RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.http.ranges import (
    UNSATISFIABLE,
    WHOLE,
    ByteRange,
    RangeOutcome,
    if_range_matches,
    parse_range,
    select_range,
    unsatisfied_content_range,
)

SUNDAY = "Sun, 06 Nov 1994 08:49:37 GMT"
SUNDAY_SECONDS = 784111777


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, WHOLE),
        ("", WHOLE),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-99", ByteRange(0, 100)),
        ("bytes=0-100", ByteRange(0, 100)),
        ("bytes=0-999999999999999999", ByteRange(0, 100)),
        ("bytes=10-", ByteRange(10, 100)),
        ("bytes=99-", ByteRange(99, 100)),
        ("bytes=100-", UNSATISFIABLE),
        ("bytes=100-200", UNSATISFIABLE),
        ("bytes=-1", ByteRange(99, 100)),
        ("bytes=-100", ByteRange(0, 100)),
        ("bytes=-101", ByteRange(0, 100)),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=5-4", WHOLE),
        ("bytes=200-100", WHOLE),
        ("Bytes=1-2", ByteRange(1, 3)),
        ("bytes= 1-2 ", ByteRange(1, 3)),
        ("bytes=,1-2,", ByteRange(1, 3)),
        ("bytes=1-2,5-6", WHOLE),
        ("bytes=-1,-2", WHOLE),
        ("lines=1-2", WHOLE),
        ("bytes 1-2", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=--1", WHOLE),
        ("bytes=1 - 2", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=١-٢", WHOLE),
        ("bytes=1-99999999999999999999999", WHOLE),
    ],
)
def test_range(value: str | None, expected: ByteRange | RangeOutcome) -> None:
    assert parse_range(value, 100) == expected


def test_nothing_of_an_empty_representation_is_satisfiable() -> None:
    for value in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        assert parse_range(value, 0) is UNSATISFIABLE


def test_content_range() -> None:
    assert ByteRange(10, 20).content_range(100) == "bytes 10-19/100"
    assert ByteRange(10, 20).length_bytes == 10
    assert unsatisfied_content_range(100) == "bytes */100"


@pytest.mark.parametrize(
    ("value", "matches"),
    [
        (None, True),
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),
        ("a", False),
        (SUNDAY, True),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        ("Sun, 06 Nov 1994 08:49:36 GMT", False),
        ("", False),
    ],
)
def test_if_range(value: str | None, matches: bool) -> None:
    assert if_range_matches(value, '"a"', SUNDAY_SECONDS) is matches


def test_if_range_without_a_date_or_with_a_weak_tag() -> None:
    assert not if_range_matches(SUNDAY, '"a"', None)
    assert not if_range_matches('W/"a"', 'W/"a"', None)


def test_select() -> None:
    def select(range_value: str | None, if_range_value: str | None) -> ByteRange | RangeOutcome:
        return select_range(
            range_value, if_range_value, etag='"a"', last_modified_seconds=SUNDAY_SECONDS, size_bytes=100
        )

    assert select("bytes=0-9", None) == ByteRange(0, 10)
    assert select("bytes=0-9", '"a"') == ByteRange(0, 10)
    assert select("bytes=0-9", '"b"') is WHOLE
    assert select("bytes=100-", '"b"') is WHOLE
    assert select(None, '"a"') is WHOLE


@given(st.text(max_size=20) | st.from_regex(r"bytes=[0-9]{0,5}-[0-9]{0,5}", fullmatch=True), st.integers(0, 2**63))
def test_a_range_lies_inside(value: str, size: int) -> None:
    result = parse_range(value, size)
    if isinstance(result, ByteRange):
        assert 0 <= result.start < result.end <= size
