"""The decisions that the safety of copies rests on, each by name. Pure: no I/O, no clock, no locks.

The engine around them only carries bytes. Whoever calls them holds what they were given still while it acts on the
answer: a replica its append lock, a primary the membership that it read. Take one of the checks away and the
model-based test of the protocol finds an acknowledged photo that a primary does not have.

What each Store keeps of a volume: its bytes (a *tail*: how many), its :class:`Membership`, a :class:`Duty` that follows
from it, and a *reign*: a number that changes whenever the Store was not the primary in between, as far as it knows.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from haystack.store.replication.membership import Membership

_DUTY_BITS: Final = 8


class Duty(enum.IntEnum):
    """What a Store has to do with its copy of a volume."""

    ALONE = 0
    """No membership is known, and one copy was promised: it takes everything and asks nobody."""
    PRIMARY = 1
    """Orders the appends; as many copies in sync as promised."""
    DEGRADED = 2
    """Orders the appends, but there are fewer copies in sync than promised: takes deletes alone."""
    REPLICA = 3
    """In sync; takes batches of the primary of its epoch."""
    FOLLOWER = 4
    """Does not count, but was compared with the primary under its epoch: takes batches of that epoch, as a learner."""
    STALE = 5
    """Does not count: takes nothing until it has followed."""
    UNTOLD = 6
    """Several copies were promised and no membership is known: takes nothing until the Directory has told it."""


LEADING: Final = frozenset((Duty.ALONE, Duty.PRIMARY, Duty.DEGRADED))
RECEIVING: Final = frozenset((Duty.REPLICA, Duty.FOLLOWER))


class Standing(NamedTuple):
    """Epoch and duty, which are always read and changed together: one cell of the control block."""

    epoch: int
    duty: Duty

    def pack(self) -> int:
        """As one number; 0 is :attr:`Duty.ALONE`, whatever the epoch: such a volume has none to check."""
        return 0 if self.duty is Duty.ALONE else self.epoch << _DUTY_BITS | self.duty

    @classmethod
    def unpack(cls, value: int) -> Standing:
        return cls(value >> _DUTY_BITS, Duty(value & ((1 << _DUTY_BITS) - 1)))


class Kind(enum.Enum):
    """What waits to be acknowledged: an upload (one photo or several), or a delete (or the taking back of one)."""

    UPLOAD = "upload"
    DELETE = "delete"


# -- memberships


def duty_of(
    membership: Membership | None, me: str, *, promised: int, followed: bool = False, generation: int | None = None
) -> Duty:
    """The duty of the Store ``me``.

    Parameters
    ----------
    promised: copies that the volume's superblock promises.
    followed: its bytes were compared with the primary's under this epoch.
    generation: of the file here. Of each epoch there is one generation; a file of another one takes nothing, whatever
        the membership says: offsets mean something else in it.
    """
    if membership is None:
        return Duty.UNTOLD if promised > 1 else Duty.ALONE
    if not membership.suits(generation):
        return Duty.UNTOLD if membership.counts(me) else Duty.STALE
    if not membership.counts(me):
        return Duty.FOLLOWER if followed else Duty.STALE
    if membership.primary != me:
        return Duty.REPLICA
    return Duty.DEGRADED if membership.degraded else Duty.PRIMARY


class Push(enum.Enum):
    """What becomes of a membership that the Directory pushes."""

    TAKE = "take"
    SAME = "same"
    OLDER = "older"


def supersedes(pushed: Membership, known: Membership | None) -> Push:
    """Whether a pushed membership takes the place of the known one.

    Only a higher epoch does. That is also the one way to lose a learner: a primary that has promised the Directory to
    wait for it must not stop because of an answer that says nothing new. The same epoch with another content is a
    Directory that has forgotten what it granted: it has to take a higher one.
    """
    if known is None or pushed.epoch > known.epoch:
        return Push.TAKE
    same = pushed.epoch == known.epoch and pushed.document() == known.document()
    return Push.SAME if same else Push.OLDER


def next_reign(reign: int, before: Duty, after: Duty, epoch: int) -> int:
    """The reign after a change of duty: the same only for a primary that stays one."""
    return reign if before in LEADING and after in LEADING else epoch


def may_follow(known: Membership | None, me: str, epoch: int) -> bool:
    """Whether bytes of this copy may be cut or replaced for a call that names ``epoch``.

    The Directory has said that it does not count: either it is written down here, or the call's epoch is newer than
    what is written down here.
    """
    if known is None or epoch > known.epoch:
        return True
    return epoch == known.epoch and not known.counts(me)


def may_delete(known: Membership | None, me: str, epoch: int, own_epoch: int) -> bool:
    """Whether this copy may be deleted for a call that names ``epoch``.

    Parameters
    ----------
    own_epoch: under which a volume without members was made; the Directory names a newer one to give it up.
    """
    if known is None:
        return epoch > own_epoch
    return epoch >= known.epoch and not known.counts(me)


def may_admit(known: Membership | None, me: str, epoch: int) -> bool:
    """Whether the primary may take on a learner for a call that names ``epoch``."""
    return known is not None and known.primary == me and known.epoch == epoch


# -- a batch that arrives at a replica


class Verdict(enum.Enum):
    """What becomes of a batch."""

    APPEND = "append"
    """Compare what is here already, append the rest."""
    GAP = "gap"
    """It begins behind the tail."""
    EPOCH = "epoch"
    """A newer epoch is known here, or this is no replica."""
    BEHIND = "behind"
    """It is of an epoch that was not told here yet."""
    DIVERGED = "diverged"
    """There are other bytes here."""


class Judgement(NamedTuple):
    """What to do with a batch.

    Parameters
    ----------
    shared_to: bytes of the volume from the batch's beginning to here must be equal to those of the batch; what lies
        behind is appended.
    """

    verdict: Verdict
    shared_to: int


def judge_epoch(standing: Standing, epoch: int) -> Verdict:
    """Whether a batch of ``epoch`` may be looked at at all.

    An equal epoch says who sent it: each has one primary. An older one is a deposed primary's, or came late. A newer
    one is not believed before it is written down here, because from then on the older one has to be refused.
    """
    if epoch > standing.epoch or standing.duty in (Duty.ALONE, Duty.UNTOLD):
        return Verdict.BEHIND
    if epoch < standing.epoch or standing.duty not in RECEIVING:
        return Verdict.EPOCH
    return Verdict.APPEND


def judge_batch(standing: Standing, tail: int, epoch: int, start: int, end: int) -> Judgement:
    """What a replica does with bytes ``start`` to ``end`` of the volume; ``start`` = ``end`` asks for the tail.

    To be called under the append lock, with the standing and the tail read under it.
    """
    verdict = judge_epoch(standing, epoch)
    if verdict is Verdict.APPEND and start > tail:
        verdict = Verdict.GAP
    return Judgement(verdict, min(end, tail) if verdict is Verdict.APPEND else start)


def judge_generation(mine: int, theirs: int | None) -> Verdict:
    """Whether the offsets of a batch mean something in the file here; None: its sender knows of no generations."""
    if theirs is None or mine == theirs:
        return Verdict.APPEND
    return Verdict.BEHIND if theirs > mine else Verdict.EPOCH


def judge_overlap(mine: object, theirs: object) -> Verdict:
    """The bytes that are here already, against those of the batch: equal lengths are not enough."""
    return Verdict.APPEND if mine == theirs else Verdict.DIVERGED


# -- answers that arrive at the primary


class Confirmation(NamedTuple):
    """A replica has answered under ``epoch`` that bytes ``start`` to ``end`` are there as they were sent, durable."""

    epoch: int
    start: int
    end: int


def confirms(epoch: int, start: int, end: int, tail: int) -> Confirmation:
    """What the answer ``tail`` to a batch of ``start`` to ``end`` confirms: bytes that were sent, and no others.

    A replica may have more, of a primary that crashed with its machine and lost the end that this one then wrote anew.
    An empty batch asks for the tail; it confirms nothing.
    """
    return Confirmation(epoch, start, max(start, min(end, tail)))


def committed_by(committed: int, start: int, end: int) -> int:
    """The committed tail after ``start`` to ``end`` were confirmed by all: it knows no holes.

    Everything below it is equal on all copies in sync; it is what a new primary compares from, and how far the
    Directory is told of needles.
    """
    return max(committed, end) if start <= committed else committed


class Next(enum.Enum):
    """What a primary does after an answer of a replica."""

    COUNT = "count"
    RESEND = "resend"
    SUSPECT = "suspect"


def judge_answer(own_tail: int, end: int, tail: int) -> Next:
    """What an answer with ``tail`` means for a batch that ends at ``end``; see :func:`confirms` for what it confirms.

    Parameters
    ----------
    own_tail: of the primary, read after the answer came: another worker may have sent more meanwhile.
    """
    if tail > own_tail:
        return Next.SUSPECT  # it has bytes that this primary never wrote
    return Next.COUNT if tail >= end else Next.RESEND


# -- acknowledging


class May(enum.Enum):
    """Whether an operation may be acknowledged."""

    YES = "yes"
    WAIT = "wait"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An append that waits for its copies.

    Parameters
    ----------
    kind: of the operation.
    start, end: of what was appended, bytes from the start of the volume; it is durable here.
    reign: under which it was appended.
    """

    kind: Kind
    start: int
    end: int
    reign: int


def may_acknowledge(
    now: Membership, me: str, reign: int, confirmed: Mapping[str, Confirmation], waiting: Waiting
) -> May:
    """Whether the Store ``me`` may tell its client that an operation is done.

    Parameters
    ----------
    now: the membership in force here, read after the last confirmation.
    reign: in force here.
    confirmed: the latest confirmation of each Store.
    """
    if not leads(now, me) or not same_reign(reign, waiting) or not enough_copies(now, waiting.kind):
        return May.NEVER
    return May.YES if all_confirmed(now, me, confirmed, waiting.start, waiting.end) else May.WAIT


def leads(now: Membership, me: str) -> bool:
    """Only a primary acknowledges."""
    return now.primary == me


def same_reign(reign: int, waiting: Waiting) -> bool:
    """A Store that was no primary in between may have cut what it appended before."""
    return reign == waiting.reign


def enough_copies(now: Membership, kind: Kind) -> bool:
    """An upload needs the promised copies; a delete makes do with those that there are."""
    return kind is Kind.DELETE or not now.degraded


def all_confirmed(now: Membership, me: str, confirmed: Mapping[str, Confirmation], start: int, end: int) -> bool:
    """All other in-sync copies and all learners have it, and have said so under the epoch in force.

    A confirmation of an older epoch says nothing: in between that copy may have been cut and admitted anew.
    """
    return all(has_confirmed(now, confirmed.get(one.store_id), start, end) for one in now.followers(me))


def has_confirmed(now: Membership, found: Confirmation | None, start: int, end: int) -> bool:
    """One copy has it, and has said so under the epoch in force."""
    return found is not None and found.epoch == now.epoch and found.start <= start and found.end >= end


def may_append(standing: Standing, kind: Kind) -> bool:
    """Whether an operation of a client is carried out here; looked at under the append lock."""
    if standing.duty is Duty.DEGRADED:
        return kind is Kind.DELETE
    return standing.duty in LEADING
