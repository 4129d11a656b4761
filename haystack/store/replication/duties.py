"""What follows from a volume's membership for this Store."""

from __future__ import annotations

from haystack.store.replication import rules
from haystack.store.replication.membership import promised_copies
from haystack.store.replication.rules import Standing
from haystack.store.store_volume import StoreVolume


def assign_duty(entry: StoreVolume, me: str) -> None:
    """Set what this Store has to do with the volume, from its membership and its superblock."""
    membership = entry.membership
    promised = promised_copies(entry.superblock.replication) if entry.superblock is not None else 1
    followed = membership is not None and entry.followed_epoch == membership.epoch
    generation = entry.superblock.generation if entry.superblock is not None else None
    entry.duty = rules.duty_of(membership, me, promised=promised, followed=followed, generation=generation)


def standing_of(entry: StoreVolume) -> Standing:
    """Epoch and duty of a volume."""
    return Standing(entry.membership.epoch if entry.membership is not None else 0, entry.duty)
