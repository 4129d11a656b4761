"""The records of all logical volumes, and what is asked of them by Store or by need, without walking them all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from directory.storage.tables import VolumeRecord


class VolumeIndex:
    """Records by volume, and what follows from them.

    Attributes
    ----------
    records: by volume id.
    by_member: the volumes that each Store is a member of.
    shared: the volumes that each Store holds in sync together with others: what its loss changes.
    led: how many volumes each Store is the primary of.
    untidy: volumes that lack copies, or have members that are not in sync, or more in sync than are wanted.
    replications: how many volumes there are of each.
    watcher: called with every record that is new, or whose membership is, and with the one before; after it was taken
        over.
    """

    def __init__(self) -> None:
        self.records: dict[int, VolumeRecord] = {}
        self.by_member: defaultdict[str, set[int]] = defaultdict(set)
        self.shared: defaultdict[str, set[int]] = defaultdict(set)
        self.led: Counter[str] = Counter()
        self.untidy: set[int] = set()
        self.replications: Counter[str] = Counter()
        self.watcher: Callable[[VolumeRecord | None, VolumeRecord], None] = _nobody

    def led_by(self, store_id: str) -> Iterator[int]:
        """Return the volumes of which a Store is the primary."""
        records = self.records
        return (volume for volume in self.by_member[store_id] if records[volume].primary == store_id)

    def put(self, record: VolumeRecord) -> None:
        """Take over a record."""
        before = self.records.get(record.volume)
        self.records[record.volume] = record
        if before is not None:
            if _indexed(before) == _indexed(record):
                return
            self._forget(before)
        volume = record.volume
        for member in {*record.members, *record.in_sync}:
            self.by_member[member].add(volume)
        if len(record.in_sync) > 1:
            for member in record.in_sync:
                self.shared[member].add(volume)
        self.led[record.primary] += 1
        self.replications[record.replication] += 1
        if len(record.in_sync) != record.wanted or record.stale:
            self.untidy.add(volume)
        self.watcher(before, record)

    def _forget(self, record: VolumeRecord) -> None:
        volume = record.volume
        for member in {*record.members, *record.in_sync}:
            self.by_member[member].discard(volume)
            self.shared[member].discard(volume)
        self.led[record.primary] -= 1
        self.replications[record.replication] -= 1
        self.untidy.discard(volume)


def _nobody(before: VolumeRecord | None, record: VolumeRecord) -> None:
    """Until somebody wants to hear of it."""


def _indexed(record: VolumeRecord) -> tuple[object, ...]:
    return record.epoch, record.members, record.in_sync, record.primary, record.replication, record.extra_copies
