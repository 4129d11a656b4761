"""Signed calls: what is accepted once, and everything that must be refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.errors import AuthenticationError, ConfigError
from haystack.security import MAX_SECRET_FILE_BYTES, Verifier, load_secret, new_cookie, new_secret, sign

SECRET = b"s" * 64
START = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return Verifier(SECRET, now=clock)


def signed(
    method: str = "POST",
    path: str = "/admin/volumes?a=1",
    body: bytes = b"{}",
    *,
    now: float = START,
    nonce: str | None = None,
) -> str:
    return sign(SECRET, method, path, body, now=now, nonce=nonce)


def test_accepts_its_own_signature(verifier: Verifier) -> None:
    verifier.verify(signed(), "POST", "/admin/volumes?a=1", b"{}")


def test_the_signature_does_not_change() -> None:
    # Machines of different releases must understand each other: this text is part of the protocol.
    assert sign(b"k" * 32, "GET", "/x?y=1", b"", now=1.5, nonce="0" * 32) == (
        "v1:1500:00000000000000000000000000000000:a609774361f37a3fbb6c443e1040309946f02adb64923c9e1456e5eaa71e74b6"
    )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/admin/volumes?a=1", b"{}"),
        ("POST", "/admin/volumes?a=2", b"{}"),
        ("POST", "/admin/volumes", b"{}"),
        ("POST", "/admin/volumes?a=1", b"{} "),
        ("POST", "/admin/volumes?a=1", b""),
        ("post", "/admin/volumes?a=1", b"{}"),
    ],
)
def test_a_header_fits_no_other_call(verifier: Verifier, method: str, path: str, body: bytes) -> None:
    with pytest.raises(AuthenticationError, match="wrong signature"):
        verifier.verify(signed(), method, path, body)


def test_another_secret_is_refused(clock: Clock) -> None:
    with pytest.raises(AuthenticationError, match="same secret"):
        Verifier(b"t" * 64, now=clock).verify(signed(), "POST", "/admin/volumes?a=1", b"{}")


@pytest.mark.parametrize("header", [None, ""])
def test_unsigned_is_refused(verifier: Verifier, header: str | None) -> None:
    with pytest.raises(AuthenticationError, match="must be signed"):
        verifier.verify(header, "GET", "/", b"")


@pytest.mark.parametrize(
    "header",
    [
        "v1",
        "v2:1:00000000:" + "0" * 64,
        "v1:-1:00000000:" + "0" * 64,
        "v1:1:short:" + "0" * 64,
        "v1:1:" + "0" * 65 + ":" + "0" * 64,
        "v1:1:00000000:" + "0" * 63,
        "v1:1:00000000:" + "0" * 64 + "\n",
        "v1:١:00000000:" + "0" * 64,
        "v1:" + "9" * 400 + ":00000000:" + "0" * 64,
        "x" * 100_000,
    ],
)
def test_malformed_is_refused(verifier: Verifier, header: str) -> None:
    with pytest.raises(AuthenticationError, match="malformed"):
        verifier.verify(header, "GET", "/", b"")


def test_each_changed_character_is_refused(verifier: Verifier) -> None:
    good = signed("GET", "/", b"")
    for index, old in enumerate(good):
        bad = good[:index] + ("0" if old != "0" else "1") + good[index + 1 :]
        with pytest.raises(AuthenticationError):
            verifier.verify(bad, "GET", "/", b"")
    verifier.verify(good, "GET", "/", b"")


def test_a_replay_is_refused(verifier: Verifier, clock: Clock) -> None:
    header = signed("GET", "/", b"")
    verifier.verify(header, "GET", "/", b"")
    for clock.now in (START, START + 29.9):
        with pytest.raises(AuthenticationError, match="replayed"):
            verifier.verify(header, "GET", "/", b"")


def test_no_moment_lets_a_replay_in(verifier: Verifier, clock: Clock) -> None:
    # Signed by a clock that is ahead as far as allowed: valid for the longest time.
    header = signed("GET", "/", b"", now=START + 30)
    verifier.verify(header, "GET", "/", b"")
    for tenth in range(1, 1000):
        clock.now = START + tenth / 10
        with pytest.raises(AuthenticationError):
            verifier.verify(header, "GET", "/", b"")


@pytest.mark.parametrize(("age", "word"), [(30.1, "ago"), (-30.1, "in the future"), (1e9, "ago")])
def test_stale_and_early_calls_are_refused(verifier: Verifier, age: float, word: str) -> None:
    with pytest.raises(AuthenticationError, match=rf"{word}.*clocks"):
        verifier.verify(signed("GET", "/", b"", now=START - age), "GET", "/", b"")


@pytest.mark.parametrize("age", [-30, -1, 0, 29.9, 30])
def test_clock_differences_within_the_window_are_accepted(verifier: Verifier, age: float) -> None:
    verifier.verify(signed("GET", "/", b"", now=START - age), "GET", "/", b"")


def test_a_wrong_signature_costs_no_memory_and_burns_no_nonce(clock: Clock) -> None:
    verifier = Verifier(SECRET, now=clock, max_nonces=1)
    for number in range(10):
        with pytest.raises(AuthenticationError, match="wrong signature"):
            verifier.verify(f"v1:{int(START * 1000)}:nonce-{number:04}:{'0' * 64}", "GET", "/", b"")
    verifier.verify(signed("GET", "/", b""), "GET", "/", b"")


def test_memory_is_bounded_and_freed_again(clock: Clock) -> None:
    verifier = Verifier(SECRET, now=clock, max_nonces=3)
    for _ in range(3):
        verifier.verify(signed("GET", "/", b""), "GET", "/", b"")
    with pytest.raises(AuthenticationError, match="try again later"):
        verifier.verify(signed("GET", "/", b""), "GET", "/", b"")
    clock.now += 61
    verifier.verify(signed("GET", "/", b"", now=clock.now), "GET", "/", b"")


def test_messages_do_not_tell_the_secret_or_the_right_signature(verifier: Verifier) -> None:
    right = signed("GET", "/", b"", nonce="n" * 32)
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify(right[:-1] + ("0" if right[-1] != "0" else "1"), "GET", "/", b"")
    assert SECRET.decode() not in str(caught.value)
    assert right.rsplit(":", 1)[1][:16] not in str(caught.value)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.text(min_size=1, max_size=50).map(lambda text: "/" + text),
    body=st.binary(max_size=100),
)
def test_whatever_is_signed_verifies_once(method: str, path: str, body: bytes) -> None:
    verifier = Verifier(SECRET, now=lambda: START)
    header = sign(SECRET, method, path, body, now=START)
    verifier.verify(header, method, path, body)
    with pytest.raises(AuthenticationError):
        verifier.verify(header, method, path, body)


@given(
    first=st.tuples(st.sampled_from(["GET", "PUT"]), st.text(max_size=20), st.binary(max_size=20)),
    second=st.tuples(st.sampled_from(["GET", "PUT"]), st.text(max_size=20), st.binary(max_size=20)),
)
def test_different_calls_have_different_signatures(
    first: tuple[str, str, bytes], second: tuple[str, str, bytes]
) -> None:
    same = sign(SECRET, *first, now=START, nonce="n" * 8) == sign(SECRET, *second, now=START, nonce="n" * 8)
    assert same == (first == second)


@pytest.mark.parametrize("method", ["", "GET\nPOST", "GE T", "ÜBER"])
def test_a_method_that_is_none_is_refused(verifier: Verifier, method: str) -> None:
    with pytest.raises(AuthenticationError, match="HTTP method"):
        verifier.verify(signed(), method, "/", b"")


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_new_secret_loads(tmp_path: Path) -> None:
    secret = new_secret()
    assert load_secret(secret_file(tmp_path, f"  {secret}\n".encode())) == secret.encode()
    assert new_secret() != secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620, 0o601])
def test_a_secret_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, b"x" * 64, mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}.*chmod 600 {path}"):
        load_secret(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "0 bytes"), (b" \n", "0 bytes"), (b"short", "5 bytes"), (b"x" * (MAX_SECRET_FILE_BYTES + 1), "longer")],
)
def test_an_unusable_secret_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_secret(secret_file(tmp_path, content))


def test_a_missing_secret_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: cannot be read: No such file"):
        load_secret(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="directory"):
        load_secret(tmp_path)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_secret(tmp_path / "fifo")


def test_cookies_have_64_bits() -> None:
    cookies = {new_cookie() for _ in range(1000)}
    assert len(cookies) == 1000
    assert all(0 <= cookie < 2**64 for cookie in cookies)
    assert max(cookies) >= 2**63
