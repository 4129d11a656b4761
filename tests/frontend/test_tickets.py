"""Tickets: what was given out is taken, and nothing else."""

from __future__ import annotations

import base64
import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.tickets import MAX_TICKET_TEXT, Ticket, TicketOffice, TicketRefused

OFFICE = TicketOffice(b"0123456789abcdef0123456789abcdef")
NOW = 1_000
GOOD = Ticket(bytes(16), "3,10123456789abcdef", 7, "ada", "Ada", 100, 2_000, tags=("a", "b"))
TEXT = OFFICE.issue(GOOD)

tickets = st.builds(
    Ticket,
    id=st.binary(min_size=16, max_size=16),
    fid=st.just("3,10123456789abcdef"),
    owner_id=st.integers(0, 2**63 - 1),
    owner_name=st.text(max_size=30),
    owner_shown=st.text(max_size=60),
    size_bytes=st.integers(1, 2**40),
    expires=st.integers(NOW + 1, 2**40),
    name=st.text(max_size=100),
    title=st.text(max_size=200),
    caption=st.text(max_size=2000),
    tags=st.lists(st.text(max_size=50), max_size=5).map(tuple),
    visibility=st.sampled_from([0, 1, 2]),
    keep_place=st.booleans(),
    keep_untouched=st.booleans(),
)


@given(tickets)
def test_what_was_issued_is_what_is_checked(ticket: Ticket) -> None:
    assert OFFICE.check(OFFICE.issue(ticket), NOW) == ticket


@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_changed_character_is_noticed(at: int, character: str) -> None:
    changed = TEXT[:at] + character + TEXT[at + 1 :]
    if changed != TEXT:
        with pytest.raises(TicketRefused):
            OFFICE.check(changed, NOW)


@given(st.integers(0, len(TEXT) * 6 - 1))
def test_a_changed_bit_is_noticed(bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TEXT + "=" * (-len(TEXT) % 4)))
    bit %= len(raw) * 8
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TicketRefused):
        OFFICE.check(base64.urlsafe_b64encode(raw).decode().rstrip("="), NOW)


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TicketRefused):
        OFFICE.check(text, NOW)


def test_longer_and_shorter_ones_are_refused() -> None:
    for text in (TEXT + "A", TEXT[:-1], TEXT + "=", " " + TEXT, "A" * (MAX_TICKET_TEXT + 1)):
        with pytest.raises(TicketRefused):
            OFFICE.check(text, NOW)


def test_a_ticket_expires() -> None:
    assert OFFICE.check(TEXT, 1_999.9) == GOOD
    with pytest.raises(TicketRefused, match="expired"):
        OFFICE.check(TEXT, 2_000)


def test_another_secret_signs_other_tickets() -> None:
    with pytest.raises(TicketRefused):
        TicketOffice(b"another secret of another cluster").check(TEXT, NOW)


@pytest.mark.parametrize(
    "document", ([2, []], [1, []], [1, [1] * 14], 5, [1], {"a": 1}, [1, list(dataclasses.astuple(GOOD))[:-1]])
)
def test_what_another_release_signs_is_refused_in_words(document: object) -> None:
    import hashlib
    import hmac

    body = msgpack.packb(document)
    mac = hmac.digest(OFFICE._key, body, hashlib.sha256)
    with pytest.raises(TicketRefused):
        OFFICE.check(base64.urlsafe_b64encode(body + mac).decode().rstrip("="), NOW)
