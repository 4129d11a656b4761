"""Lives sealed into cookies: they come out as they went in, for who has the secret, and out of nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haystack.sealed_ttl import LifeSeal
from haystack.ttl import DAY_SECONDS, HOUR_SECONDS, LAST_SECOND

SEAL = LifeSeal(b"s" * 32)
keys = st.integers(1, 2**64 - 1)


@given(keys, st.integers(1, LAST_SECOND - HOUR_SECONDS))
def test_a_life_is_read_as_it_was_sealed_and_never_shorter(key: int, ttl_seconds: int) -> None:
    cookie = SEAL.cookie(key, ttl_seconds)
    assert 0 <= cookie < 2**64
    found = SEAL.ttl_seconds(key, cookie)
    assert found - HOUR_SECONDS < ttl_seconds <= found
    if ttl_seconds < 97 * DAY_SECONDS or ttl_seconds % HOUR_SECONDS == 0:
        assert found == ttl_seconds


@given(keys, st.integers(1, 90 * DAY_SECONDS))
def test_only_the_same_key_and_secret_open_it(key: int, ttl_seconds: int) -> None:
    cookie = SEAL.cookie(key, ttl_seconds)
    assert SEAL.ttl_seconds(key ^ 1, cookie) == 0
    assert LifeSeal(b"t" * 32).ttl_seconds(key, cookie) == 0
    assert LifeSeal(None).ttl_seconds(key, cookie) == 0


@given(keys, st.integers(0, 2**64 - 1))
def test_any_other_cookie_has_no_end(key: int, cookie: int) -> None:
    assert SEAL.ttl_seconds(key, cookie) == 0


def test_a_photo_without_ttl_never_gets_a_cookie_that_has_one() -> None:
    drawn = iter([SEAL.cookie(7, 60), SEAL.cookie(7, DAY_SECONDS), 5])
    assert SEAL.cookie(7, 0, lambda: next(drawn)) == 5


def test_what_nobody_would_have_sealed_has_no_end() -> None:
    mask = SEAL.cookie(7, 1) ^ 1 << 40
    assert SEAL.ttl_seconds(7, mask) == 0
    in_hours = 1 << 23
    assert SEAL.ttl_seconds(7, mask ^ (in_hours | 1) << 40) == 0, "an hour is written in seconds"
    assert SEAL.ttl_seconds(7, mask ^ (2 * in_hours - 1) << 40) == 0, "957 years"
    assert SEAL.ttl_seconds(7, mask ^ 3600 << 40) == 3600
