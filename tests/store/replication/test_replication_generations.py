"""Generations of a volume in memberships, duties and batches; committed tails that name theirs."""

from __future__ import annotations

import pytest

from haystack.store.control import ControlBlock
from haystack.store.control_cells import VolumeCell, VolumeState, tagged_tail
from haystack.store.replication.committed import raise_committed
from haystack.store.replication.membership import (
    Member,
    Membership,
    following,
    pack_members,
    parse_membership,
    unpack_members,
)
from haystack.store.replication.rules import Duty, Verdict, duty_of, judge_generation

UUID = "11111111-2222-3333-4444-555555555555"
A, B = Member("a", "host:1", "host:2"), Member("b", "host:3", "host:4")
NAMED = Membership(UUID, 7, "a", 2, (A, B), generation=3)
UNNAMED = Membership(UUID, 7, "a", 2, (A, B))


def test_a_membership_keeps_its_generation() -> None:
    assert unpack_members(pack_members(NAMED, "a")) == parse_membership(NAMED.document()) == NAMED
    assert unpack_members(pack_members(UNNAMED, "a")) == UNNAMED
    assert "generation" not in UNNAMED.document()


@pytest.mark.parametrize(("me", "right", "wrong"), [("a", Duty.PRIMARY, Duty.UNTOLD), ("b", Duty.REPLICA, Duty.UNTOLD)])
def test_a_file_of_another_generation_takes_nothing(me: str, right: Duty, wrong: Duty) -> None:
    for generation, expected in ((3, right), (2, wrong), (4, wrong), (None, right)):
        assert duty_of(NAMED, me, promised=2, generation=generation) is expected
    assert duty_of(UNNAMED, me, promised=2, generation=9) is right


def test_a_follower_of_another_generation_is_stale() -> None:
    follows = following(UUID, 8, A, 2, 3)
    assert duty_of(follows, "b", promised=2, followed=True, generation=3) is Duty.FOLLOWER
    assert duty_of(follows, "b", promised=2, followed=True, generation=2) is Duty.STALE


def test_a_batch_is_of_the_generation_of_the_file() -> None:
    assert judge_generation(2, 2) is judge_generation(2, None) is Verdict.APPEND
    assert judge_generation(2, 3) is Verdict.BEHIND
    assert judge_generation(3, 2) is Verdict.EPOCH


def test_a_committed_tail_of_the_generation_before_says_nothing() -> None:
    control = ControlBlock.create(2)
    slot = control.add_volume(1, 0, VolumeState.WRITABLE, max_bytes=2**30)
    worker = control.volume_base(1, slot) + VolumeCell.COMMITTED_TAIL
    control.cells[worker] = tagged_tail(0, 5000)
    assert control.committed_tail(slot) == 5000
    control.next_generation(slot, 1)
    assert control.committed_tail(slot) == 0
    raise_committed(control, slot, 1, 2000)
    assert control.committed_tail(slot) == 2000
    control.cells[worker] = tagged_tail(0, 9000)  # of a worker that had not noticed
    assert control.committed_tail(slot) == 2000
    control.cells[worker] = tagged_tail(1, 2400)
    assert control.committed_tail(slot) == 2400
