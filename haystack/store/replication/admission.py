"""Which operations of clients a Store carries out on its copy of a volume. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from haystack.errors import HaystackError, VolumeUnavailable
from haystack.store.replication import rules
from haystack.store.replication.rules import Duty, Kind, Standing
from haystack.volume.operations import Operation, Outcome, Put

_WHY = {
    Duty.DEGRADED: "has fewer copies in sync than promised; get a new fid from /dir/assign",
    Duty.REPLICA: "has its primary on another Store; ask /dir/lookup, or get a new fid from /dir/assign",
    Duty.FOLLOWER: "is being brought up to date here; ask /dir/lookup for its other copies",
    Duty.STALE: "is out of date here; ask /dir/lookup for its other copies",
    Duty.UNTOLD: "has copies that the Directory has not named here yet; try again soon",
}


class MembershipChanged(VolumeUnavailable):
    """Between the look at the membership and the append lock it has changed."""


def kind_of(operation: Operation) -> Kind:
    """What it is to the rules."""
    return Kind.UPLOAD if isinstance(operation, Put) else Kind.DELETE


def refusals(
    operations: Sequence[Operation], standing: Standing, volume: int, hopeless: Callable[[], str]
) -> list[HaystackError | None]:
    """Why each operation is not carried out; None for those that are.

    Parameters
    ----------
    hopeless: says why an upload could not be acknowledged now anyway; empty when it could.
    """
    reason = ""
    if any(kind_of(operation) is Kind.UPLOAD for operation in operations):
        reason = hopeless()
    return [_refusal(operation, standing, volume, reason) for operation in operations]


def _refusal(operation: Operation, standing: Standing, volume: int, hopeless: str) -> HaystackError | None:
    kind = kind_of(operation)
    if not rules.may_append(standing, kind):
        return VolumeUnavailable(f"volume {volume} {_WHY.get(standing.duty, 'takes nothing now')}")
    if hopeless and kind is Kind.UPLOAD:
        return VolumeUnavailable(f"volume {volume}: {hopeless}; get a new fid from /dir/assign")
    return None


def merged(refused: Sequence[HaystackError | None], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of all operations: those that were refused, and of the others what became of them."""
    following = iter(outcomes)
    return [next(following) if one is None else one for one in refused]
