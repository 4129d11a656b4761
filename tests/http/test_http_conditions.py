"""HTTP-dates, If-None-Match and If-Modified-Since, from RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.http.conditions import is_not_modified, modified_since, none_match
from haystack.http.dates import format_http_date, parse_http_date

SUNDAY = "Sun, 06 Nov 1994 08:49:37 GMT"
SECONDS = 784111777


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SUNDAY, SECONDS),
        ("Sunday, 06-Nov-94 08:49:37 GMT", SECONDS),
        ("Sun Nov  6 08:49:37 1994", SECONDS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thursday, 01-Jan-26 00:00:00 GMT", 1767225600),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228799),
        ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 06 Nov 1994 08:49:37 UTC", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, ٠٦ Nov 1994 08:49:37 GMT", None),
        ("sun, 06 nov 1994 08:49:37 gmt", None),
        ("784111777", None),
        ("", None),
    ],
)
def test_dates(text: str, seconds: int | None) -> None:
    assert parse_http_date(text) == seconds


@given(st.integers(0, 253402300799))
def test_dates_round_trip(seconds: int) -> None:
    assert parse_http_date(format_http_date(seconds)) == seconds


@pytest.mark.parametrize(
    ("value", "matched"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b"', False),
        ("*", True),
        (" * ", True),
        ('"b", "a"', True),
        ('"b","a"', True),
        ('"b" , ,, W/"a"', True),
        (', "a"', True),
        ('"b" "a"', False),
        ('"a,b"', False),
        ('"b, "a", c"', False),
        ("a", False),
        ('w/"a"', False),
        ('"a', False),
        ('"A"', False),
        ("", False),
        ('"b", *', False),
    ],
)
def test_if_none_match(value: str, matched: bool) -> None:
    assert none_match(value, '"a"') is not matched


def test_weak_tag_of_ours() -> None:
    assert not none_match('"a"', 'W/"a"')


def test_if_modified_since() -> None:
    assert not modified_since(SUNDAY, SECONDS)
    assert not modified_since(SUNDAY, SECONDS - 1)
    assert modified_since(SUNDAY, SECONDS + 1)
    assert modified_since("yesterday", SECONDS)


def test_if_none_match_comes_first() -> None:
    assert is_not_modified('"a"', None, '"a"', None)
    assert not is_not_modified('"b"', SUNDAY, '"a"', SECONDS)
    assert is_not_modified(None, SUNDAY, '"a"', SECONDS)
    assert not is_not_modified(None, SUNDAY, '"a"', None)
    assert not is_not_modified(None, None, '"a"', SECONDS)


@given(st.text(max_size=60), st.sampled_from(['"a"', '""', 'W/"x"']))
def test_any_list_is_read_without_harm(value: str, etag: str) -> None:
    assert none_match(value, etag) in (True, False)
