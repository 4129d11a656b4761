"""The pure parts: names, retries, locations, file names in headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.client import Location, RetryPolicy, Unreachable, parse_photo_name
from haystack.client.errors import Refused, UnexpectedAnswer, error_for
from haystack.client.locations import LocationCache
from haystack.client.photo import disposition, file_name, info_from
from haystack.client.retry import MAX_RETRY_AFTER_SECONDS, Transient, retry_after_seconds
from haystack.errors import InvalidFid, NeedleNotFound, VolumeNotFound
from haystack.fid import Fid, Locator

FID = Fid(3, 0x1F5A, 0xDEADBEEF, 2)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (str(FID), FID),
        (f" {FID}\n", FID),
        ("3@1f40,1f5a00000000deadbeef_2", Locator(FID, 0x1F40)),
        ("1f5a", 0x1F5A),
        ("FFFFFFFFFFFFFFFF", 2**64 - 1),
        (f"http://127.0.0.1:8080/{FID}", FID),
        (f"http://127.0.0.1:8080/{FID}.jpg", FID),
        (f"https://photos.example/base/{FID}/cat.jpg?width=3", FID),
        ("http://127.0.0.1:8080/3@1f40,1f5a00000000deadbeef_2", Locator(FID, 0x1F40)),
        ("http://127.0.0.1:9333/photos/1f5a", 0x1F5A),
    ],
)
def test_names(text: str, name: Fid | Locator | int) -> None:
    assert parse_photo_name(text) == name


@pytest.mark.parametrize(
    "text", ["", "cat.jpg", "0x1f", "3,xyz", "3@7,1f5a00000000deadbeef", "1" * 17, "http://a/", "-1"]
)
def test_wrong_names(text: str) -> None:
    with pytest.raises(InvalidFid):
        parse_photo_name(text)


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True), st.floats(0, 1000))
def test_delays_are_bounded(attempt: int, dice: float, asked_seconds: float) -> None:
    policy = RetryPolicy(first_delay_seconds=0.1, most_delay_seconds=2.0, uniform=lambda: dice)
    delay = policy.delay_seconds(attempt, asked_seconds)
    assert 0.05 <= delay <= MAX_RETRY_AFTER_SECONDS
    assert delay >= min(asked_seconds, MAX_RETRY_AFTER_SECONDS)
    assert policy.delay_seconds(attempt) <= 2.0


async def test_retries_end_with_the_last_error() -> None:
    slept: list[float] = []
    calls = 0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def attempt() -> None:
        nonlocal calls
        calls += 1
        raise Transient(Unreachable(f"attempt {calls}"), retry_after_seconds=3.0 if calls == 2 else 0.0)

    policy = RetryPolicy(retries=3, first_delay_seconds=1, most_delay_seconds=9, uniform=lambda: 0.0, sleep=sleep)
    with pytest.raises(Unreachable, match="attempt 4"):
        await policy.run(attempt)
    assert slept == [0.5, 3.0, 2.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("7", 7),
        ("0", 0),
        ("-1", 0),
        ("1.5", 0),
        ("٣", 0),
        ("9" * 30, 0),
        ("Sat, 21 Nov 2026 14:00:00 GMT", 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header) == seconds


def test_locations_are_forgotten_in_time_and_in_number() -> None:
    now = 100.0
    cache = LocationCache(lifetime_seconds=10, max_volumes=2, now=lambda: now)
    here = (Location("a:1", "b:1"),)
    cache.put(1, here)
    cache.put(2, here)
    assert cache.get(1) == here
    cache.put(3, here)
    assert cache.get(2) is None
    assert len(cache) == 2
    now = 109.9
    assert cache.get(1) == here
    now = 110.0
    assert cache.get(1) is None
    assert cache.remembered(1) == here
    assert cache.lately(1, 0.1) == here and cache.lately(1, 0) is None and cache.lately(2, 100) is None
    cache.put(1, here)
    cache.doubt(1)
    assert cache.lately(1, 100) is None
    assert cache.get(1) is None
    assert cache.remembered(1) == here
    cache.forget(1)
    assert cache.remembered(1) is None
    assert len(cache) == 1
    cache.forget(3)
    cache.forget(3)
    assert len(cache) == 0


def test_addresses() -> None:
    assert Location("10.0.0.1:80", "https://p.example/x/").base(internal=False) == "https://p.example/x"
    assert Location("10.0.0.1:80", "https://p.example/x/").base(internal=True) == "http://10.0.0.1:80"
    assert Location("10.0.0.1:80", "").base(internal=False) == "http://10.0.0.1:80"


def test_statuses_become_errors() -> None:
    assert type(error_for(404, "x")) is NeedleNotFound
    assert type(error_for(404, "x", not_found=VolumeNotFound)) is VolumeNotFound
    assert type(error_for(409, "x")) is Refused
    assert type(error_for(504, "x")) is Unreachable
    assert type(error_for(302, "x")) is UnexpectedAnswer


@given(st.text(max_size=60))
def test_any_name_fits_a_header_and_comes_back(name: str) -> None:
    header = disposition(name)
    assert header.isascii() and header.isprintable()
    assert file_name(header) == name.encode("utf-8", "replace").decode()


def test_plain_file_names() -> None:
    assert file_name('attachment; filename="a\\"b.jpg"; x=y') == 'a"b.jpg'
    assert file_name("inline") == ""


def test_long_names_are_cut_between_characters() -> None:
    info = info_from({"Content-Disposition": disposition("ä" * 5000)}, 1, "f", "u")
    assert info.name == "ä" * 512
