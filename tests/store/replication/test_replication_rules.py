"""Memberships and the rules that follow from them, as pure functions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.errors import InvalidRequest
from haystack.store.replication import rules
from haystack.store.replication.membership import (
    MAX_EPOCH,
    Member,
    Membership,
    following,
    pack_members,
    parse_membership,
    promised_copies,
    unpack_members,
)
from haystack.store.replication.rules import Confirmation, Duty, Kind, May, Next, Push, Standing, Verdict, Waiting

UUID = "11111111-2222-3333-4444-555555555555"
A, B, C = (Member(name, f"{name}:1", f"{name}:2") for name in "abc")
PAIR = Membership(UUID, 5, "a", 2, (A, B))

memberships = st.builds(
    Membership,
    st.uuids().map(str),
    st.integers(1, MAX_EPOCH),
    st.just("a"),
    st.integers(1, 28),
    st.sampled_from([(A,), (A, B), (B, A, C)]),
    st.sampled_from([(), (C,)]),
)


@given(memberships)
def test_a_membership_is_read_as_it_was_written(membership: Membership) -> None:
    assert unpack_members(pack_members(membership, "a")) == membership
    assert parse_membership(membership.document()) == replace(membership, learners=())
    assert json.loads(pack_members(membership, "z"))["stale"] is True


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"uuid": "x"}, "uuid"),
        ({"epoch": 0}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"copies": "2"}, "copies"),
        ({"primary": "c"}, "primary"),
        ({"primary": ""}, "primary"),
        ({"inSync": []}, "primary"),
        ({"inSync": [A.document(), A.document()]}, "twice"),
        ({"inSync": [{"storeId": "a"}]}, "inSync.url"),
        ({"inSync": None}, "inSync"),
        ({"format": 2}, "format"),
    ],
)
def test_a_membership_that_is_none_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parse_membership(PAIR.document() | change)
    for raw in (b"", b"[]", b"{}", pack_members(PAIR, "a")[:-9]):
        with pytest.raises(InvalidRequest):
            unpack_members(raw)


def test_promised_copies_are_counted() -> None:
    assert [promised_copies(number) for number in (0, 1, 10, 100, 11, 999)] == [1, 2, 2, 2, 3, 28]


def test_a_duty_follows_from_the_membership() -> None:
    def duty(membership: Membership | None, me: str, promised: int = 2, *, followed: bool = False) -> Duty:
        return rules.duty_of(membership, me, promised=promised, followed=followed)

    assert duty(None, "a", 1) is Duty.ALONE
    assert duty(None, "a") is Duty.UNTOLD
    assert duty(PAIR, "a") is Duty.PRIMARY
    assert duty(PAIR, "b") is Duty.REPLICA
    assert duty(PAIR, "c") is Duty.STALE
    assert duty(PAIR, "c", followed=True) is Duty.FOLLOWER
    assert duty(replace(PAIR, in_sync=(A,)), "a") is Duty.DEGRADED


@given(st.integers(1, MAX_EPOCH), st.sampled_from(list(Duty)))
def test_a_standing_fits_into_a_cell(epoch: int, duty: Duty) -> None:
    packed = Standing(epoch, duty).pack()
    assert packed < 2**64
    assert Standing.unpack(packed) == (Standing(0, Duty.ALONE) if duty is Duty.ALONE else Standing(epoch, duty))


def test_only_a_higher_epoch_supersedes() -> None:
    assert rules.supersedes(PAIR, None) is Push.TAKE
    assert rules.supersedes(replace(PAIR, epoch=6), PAIR) is Push.TAKE
    assert rules.supersedes(PAIR, PAIR) is Push.SAME
    assert rules.supersedes(PAIR, PAIR.with_learner(C)) is Push.SAME  # which keeps the learner
    assert rules.supersedes(replace(PAIR, epoch=4), PAIR) is Push.OLDER
    assert rules.supersedes(replace(PAIR, primary="b"), PAIR) is Push.OLDER


def test_a_reign_lasts_while_a_primary_stays_one() -> None:
    assert rules.next_reign(3, Duty.PRIMARY, Duty.DEGRADED, 7) == 3
    assert rules.next_reign(3, Duty.ALONE, Duty.PRIMARY, 7) == 3
    assert rules.next_reign(3, Duty.PRIMARY, Duty.STALE, 7) == 7
    assert rules.next_reign(7, Duty.STALE, Duty.PRIMARY, 9) == 9


def test_what_gives_up_a_copy_needs_the_directorys_word() -> None:
    assert rules.may_follow(None, "a", 1)
    assert not rules.may_follow(PAIR, "b", 5)
    assert not rules.may_follow(PAIR, "c", 4)
    assert rules.may_follow(PAIR, "c", 5)
    assert rules.may_follow(PAIR, "b", 6)
    assert not rules.may_delete(PAIR, "b", 9, 1)
    assert rules.may_delete(PAIR, "c", 5, 1)
    assert not rules.may_delete(PAIR, "c", 4, 1)
    assert rules.may_delete(None, "a", 2, 1)
    assert not rules.may_delete(None, "a", 1, 1)
    assert rules.may_admit(PAIR, "a", 5)
    assert not rules.may_admit(PAIR, "a", 4)
    assert not rules.may_admit(PAIR, "b", 5)
    assert not rules.may_admit(None, "a", 5)


@pytest.mark.parametrize(
    ("duty", "epoch", "start", "verdict"),
    [
        (Duty.REPLICA, 5, 100, Verdict.APPEND),
        (Duty.FOLLOWER, 5, 100, Verdict.APPEND),
        (Duty.REPLICA, 5, 40, Verdict.APPEND),
        (Duty.REPLICA, 5, 108, Verdict.GAP),
        (Duty.REPLICA, 4, 100, Verdict.EPOCH),
        (Duty.REPLICA, 6, 100, Verdict.BEHIND),
        (Duty.STALE, 5, 100, Verdict.EPOCH),
        (Duty.STALE, 6, 100, Verdict.BEHIND),
        (Duty.PRIMARY, 5, 100, Verdict.EPOCH),
        (Duty.PRIMARY, 6, 100, Verdict.BEHIND),
        (Duty.DEGRADED, 4, 100, Verdict.EPOCH),
        (Duty.UNTOLD, 5, 100, Verdict.BEHIND),
        (Duty.ALONE, 5, 100, Verdict.BEHIND),
    ],
)
def test_a_batch_is_judged(duty: Duty, epoch: int, start: int, verdict: Verdict) -> None:
    assert rules.judge_batch(Standing(5, duty), 100, epoch, start, start + 32).verdict is verdict


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_of_a_batch_only_what_is_behind_the_tail_is_appended(tail: int, start: int, length: int) -> None:
    verdict, shared_to = rules.judge_batch(Standing(5, Duty.REPLICA), tail, 5, start, start + length)
    if start > tail:
        assert verdict is Verdict.GAP
        return
    assert verdict is Verdict.APPEND
    assert start <= shared_to <= min(start + length, tail)
    assert shared_to == min(start + length, tail)


def test_what_is_there_already_is_compared() -> None:
    assert rules.judge_overlap(b"one", b"one") is Verdict.APPEND
    assert rules.judge_overlap(b"one", b"two") is Verdict.DIVERGED


def test_answers_are_judged() -> None:
    assert rules.judge_answer(100, 80, 80) is Next.COUNT
    assert rules.judge_answer(100, 80, 100) is Next.COUNT
    assert rules.judge_answer(100, 80, 40) is Next.RESEND
    assert rules.judge_answer(100, 80, 108) is Next.SUSPECT


def test_an_answer_confirms_what_was_sent_and_nothing_else() -> None:
    assert rules.confirms(5, 80, 100, 100) == Confirmation(5, 80, 100)
    assert rules.confirms(5, 80, 100, 148) == Confirmation(5, 80, 100)
    assert rules.confirms(5, 80, 100, 88) == Confirmation(5, 80, 88)
    assert rules.confirms(5, 100, 100, 148) == Confirmation(5, 100, 100)


def test_the_committed_tail_knows_no_holes() -> None:
    assert rules.committed_by(80, 80, 100) == 100
    assert rules.committed_by(80, 72, 100) == 100
    assert rules.committed_by(80, 88, 100) == 80
    assert rules.committed_by(80, 64, 72) == 80


UPLOAD, DELETE = Waiting(Kind.UPLOAD, 80, 100, 3), Waiting(Kind.DELETE, 80, 100, 3)


def test_an_acknowledgement_needs_every_copy_under_the_epoch_in_force() -> None:
    def may(now: Membership, confirmed: dict[str, Confirmation], waiting: Waiting = UPLOAD, reign: int = 3) -> May:
        return rules.may_acknowledge(now, "a", reign, confirmed, waiting)

    assert may(PAIR, {}) is May.WAIT
    assert may(PAIR, {"b": Confirmation(5, 80, 99)}) is May.WAIT
    assert may(PAIR, {"b": Confirmation(4, 80, 100)}) is May.WAIT
    assert may(PAIR, {"b": Confirmation(5, 88, 108)}) is May.WAIT
    assert may(PAIR, {"b": Confirmation(5, 80, 100)}) is May.YES
    assert may(PAIR, {"b": Confirmation(5, 80, 100)}, reign=4) is May.NEVER
    assert may(replace(PAIR, primary="b"), {"b": Confirmation(5, 80, 100)}) is May.NEVER
    assert may(PAIR.with_learner(C), {"b": Confirmation(5, 80, 100)}) is May.WAIT
    assert may(PAIR.with_learner(C), {"b": Confirmation(5, 80, 100), "c": Confirmation(5, 80, 100)}) is May.YES
    degraded = replace(PAIR, in_sync=(A,))
    assert may(degraded, {}) is May.NEVER
    assert may(degraded, {}, DELETE) is May.YES
    assert may(degraded.with_learner(C), {}, DELETE) is May.WAIT


def test_clients_are_served_by_a_primary() -> None:
    allowed = {kind: {duty for duty in Duty if rules.may_append(Standing(5, duty), kind)} for kind in Kind}
    assert allowed == {
        Kind.UPLOAD: {Duty.ALONE, Duty.PRIMARY},
        Kind.DELETE: {Duty.ALONE, Duty.PRIMARY, Duty.DEGRADED},
    }


def test_a_copy_that_follows_does_not_count_itself() -> None:
    membership = following(UUID, 9, A, 2)
    assert rules.duty_of(membership, "c", promised=2) is Duty.STALE
    assert membership.leader == A
