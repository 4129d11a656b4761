"""Frames, sessions, answers, suspects and open ranges, without processes."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.addresses import split
from haystack.errors import AuthenticationError, ConfigError, InvalidRequest
from haystack.security import sign
from haystack.store.replication.sessions import MAX_SESSIONS, Sessions
from haystack.store.replication.suspects import SUSPECT_MS, Suspects
from haystack.store.replication.wire import (
    SESSION_PATH,
    Session,
    batch_target,
    parse_answer,
    parse_batch_path,
    parse_frame,
)

SECRET = b"0123456789abcdef0123456789abcdef"
NONCE = "ab" * 16
TARGET = batch_target(7, 3, 64, 0, 0)


def agreed(sessions: Sessions, secret: bytes = SECRET) -> Session:
    body = json.dumps({"nonce": NONCE}).encode()
    answer = sessions.begin(sign(secret, "POST", SESSION_PATH, body, now=time.time()), body)
    return Session.made(secret, answer["session"], NONCE, answer["nonce"])


@given(st.lists(st.lists(st.binary(max_size=50), max_size=4), max_size=5))
def test_frames_are_taken_in_their_order(bodies: list[list[bytes]]) -> None:
    sessions = Sessions(SECRET)
    sender = agreed(sessions)
    for body in bodies:
        frame = sessions.expect(sender.sign("POST", TARGET, body))
        sessions.verify(frame, "POST", TARGET, [b"".join(body)])  # in whatever pieces it came


def test_a_frame_is_taken_once() -> None:
    sessions = Sessions(SECRET)
    sender = agreed(sessions)
    first, second = (sender.sign("POST", TARGET, [b"body"]) for _ in range(2))
    early = sessions.expect(first)
    sessions.verify(sessions.expect(second), "POST", TARGET, [b"body"])
    with pytest.raises(AuthenticationError, match="replayed"):
        sessions.expect(second)
    with pytest.raises(AuthenticationError, match="replayed"):
        sessions.verify(early, "POST", TARGET, [b"body"])  # it was looked at before, but came to its end after
    with pytest.raises(AuthenticationError, match="session"):
        Sessions(SECRET).expect(second)  # another worker, or this one after a restart


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", TARGET, b"bodz"),
        ("POST", TARGET, b"body "),
        ("POST", TARGET, b""),
        ("POST", batch_target(7, 4, 64, 0, 0), b"body"),
        ("POST", batch_target(8, 3, 64, 0, 0), b"body"),
        ("PUT", TARGET, b"body"),
    ],
)
def test_a_frame_that_was_changed_is_refused(method: str, target: str, body: bytes) -> None:
    sessions = Sessions(SECRET)
    frame = sessions.expect(agreed(sessions).sign("POST", TARGET, [b"body"]))
    with pytest.raises(AuthenticationError, match="wrong signature"):
        sessions.verify(frame, method, target, [body])


def test_a_session_needs_the_secret() -> None:
    sessions = Sessions(SECRET)
    with pytest.raises(AuthenticationError):
        agreed(sessions, b"another secret, as long as the first")
    with pytest.raises(AuthenticationError):
        sessions.begin(None, b"{}")
    for body in (b"", b"[]", b'{"nonce": 1}', b'{"nonce": "ab"}'):
        with pytest.raises(InvalidRequest):
            sessions.begin(sign(SECRET, "POST", SESSION_PATH, body, now=time.time()), body)
    body = json.dumps({"nonce": NONCE}).encode()
    stale = sign(SECRET, "POST", SESSION_PATH, body, now=time.time() - 60)
    with pytest.raises(AuthenticationError, match="ago"):
        sessions.begin(stale, body)
    fresh = sign(SECRET, "POST", SESSION_PATH, body, now=time.time())
    sessions.begin(fresh, body)
    with pytest.raises(AuthenticationError, match="replayed"):
        sessions.begin(fresh, body)


def test_the_oldest_session_is_forgotten() -> None:
    sessions = Sessions(SECRET)
    oldest, used = agreed(sessions), agreed(sessions)
    for _ in range(MAX_SESSIONS - 2):
        agreed(sessions)
    sessions.verify(sessions.expect(used.sign("POST", TARGET, [])), "POST", TARGET, [])
    agreed(sessions)
    with pytest.raises(AuthenticationError):
        sessions.expect(oldest.sign("POST", TARGET, []))
    sessions.expect(used.sign("POST", TARGET, []))


def test_without_a_secret_nothing_is_signed() -> None:
    sessions = Sessions(None)
    sessions.verify(sessions.expect(None), "POST", TARGET, [b"body"])
    with pytest.raises(InvalidRequest):
        sessions.begin(None, b"{}")


@pytest.mark.parametrize(
    "header", [None, "", "x", f"{NONCE}:1:abc", f"{NONCE}:-1:{'0' * 64}", f"{NONCE}:1:{'0' * 64} "]
)
def test_a_frame_header_is_read_strictly(header: str | None) -> None:
    with pytest.raises(AuthenticationError):
        parse_frame(header)


def test_paths_of_batches() -> None:
    assert parse_batch_path("/internal/volumes/7/batch") == 7
    for path in (
        "/internal/volumes/07/batch",
        "/internal/volumes/7/batch/",
        "/volumes/7/batch",
        "/internal/volumes//batch",
    ):
        assert parse_batch_path(path) is None


ANSWER = (
    b'HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n{"reason":"gap","tail":64}'
)


def test_an_answer_is_read_when_it_is_complete() -> None:
    for end in range(len(ANSWER)):
        assert parse_answer(ANSWER[:end]) is None
    received = parse_answer(ANSWER)
    assert received is not None and received.keep
    assert (received.answer.status, received.answer.tail, received.answer.reason) == (409, 64, "gap")
    closing = parse_answer(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert closing is not None and not closing.keep
    odd = parse_answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nabc")
    assert odd is not None and (odd.answer.tail, odd.answer.reason) == (None, "status 500")


@pytest.mark.parametrize("raw", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 70_000])
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="its answer"):
        parse_answer(raw)


def test_a_suspect_fails_at_once_until_something_changes() -> None:
    now = [10_000]
    suspects = Suspects(lambda: now[0])
    assert not suspects.has("a:1", 0)
    suspects.add("a:1")
    assert suspects.has("a:1", 9_000)
    assert not suspects.has("b:1", 9_000)
    assert not suspects.has("a:1", 10_001)  # counted in after that
    now[0] += SUSPECT_MS
    assert not suspects.has("a:1", 9_000)
    suspects.add("a:1")
    suspects.clear("a:1")
    assert not suspects.has("a:1", 0)


def test_addresses_are_split() -> None:
    assert split("10.0.0.1:80") == ("10.0.0.1", 80)
    assert split("[::1]:8080") == ("::1", 8080)
    for address in ("", "host", "host:", "host:99999", ":80"):
        with pytest.raises(ConfigError):
            split(address)
