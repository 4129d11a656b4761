"""What the Directory knows of one Store, in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from directory.decisions.membership import Standing
from directory.messages import FolderDocument, StoreDocument, VolumeDocument
from directory.storage.tables import NO_MARK, MarkRecord, VolumeRecord

OPEN_STATES = ("writable", "recovering")


@dataclass(slots=True)
class StoreState:
    """One Store.

    Parameters
    ----------
    document: its addresses.
    folders, volumes: as reported last, by id; empty until it has registered with this Directory process.
    misfits: the copies among ``volumes`` that are not used, and why.
    last_seen_seconds: monotonic time of its last registration or heartbeat, None before its first.
    heard_seconds: monotonic time of its last message of any kind.
    doubted: a primary could not reach it, and no heartbeat of it came since.
    alive_since_seconds: when it registered, or was heard again after it had counted as dead.
    sequence: number of its last heartbeat.
    open_volumes: the few among ``volumes`` that take photos, or will when they are recovered. Most volumes of a Store
        are full, and what is asked all the time must not walk them all.
    failed: those of ``volumes`` that are reported as failed.
    shrunk: volumes that have lost their end: they are shorter than what was confirmed of them.
    left_behind: epoch of a membership that it could not take, since its file is of another generation; and which.
    told: the epochs of the memberships that it has acknowledged, by volume.
    volume_counts: how many volumes each folder holds.
    """

    document: StoreDocument
    folders: dict[str, FolderDocument] = field(default_factory=dict)
    volumes: dict[int, VolumeDocument] = field(default_factory=dict)
    misfits: dict[int, Standing] = field(default_factory=dict)
    last_seen_seconds: float | None = None
    heard_seconds: float = float("-inf")
    doubted: bool = False
    alive_since_seconds: float = 0.0
    sequence: int = -1
    writes_per_second: float = 0.0
    open_volumes: dict[int, VolumeDocument] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    shrunk: set[int] = field(default_factory=set)
    left_behind: dict[int, tuple[int, int]] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)
    volume_counts: Counter[str] = field(default_factory=Counter)
    mark: MarkRecord = NO_MARK

    @property
    def registered(self) -> bool:
        """Whether it has registered with this Directory process."""
        return self.last_seen_seconds is not None

    @property
    def last_sign_seconds(self) -> float | None:
        """Monotonic time of the last sign of life, None before it has registered."""
        return None if self.last_seen_seconds is None else max(self.last_seen_seconds, self.heard_seconds)

    def put_volume(self, volume: VolumeDocument) -> None:
        """Take over what is reported of one volume."""
        self.drop_volume(volume.volume)
        self.volumes[volume.volume] = volume
        self.volume_counts[volume.folder] += 1
        if volume.state in OPEN_STATES:
            self.open_volumes[volume.volume] = volume
        elif volume.state == "failed":
            self.failed.add(volume.volume)

    def drop_volume(self, volume_id: int) -> None:
        """Forget a volume that the Store does not have any more."""
        volume = self.volumes.pop(volume_id, None)
        if volume is not None:
            self.volume_counts[volume.folder] -= 1
            self.open_volumes.pop(volume_id, None)
            self.failed.discard(volume_id)

    def knows(self, record: VolumeRecord) -> bool:
        """Say whether the Store has acknowledged, or reported, the membership that is in force."""
        if not record.replicated or self.told.get(record.volume) == record.epoch:
            return True
        reported = self.volumes.get(record.volume)
        if reported is None or reported.epoch != record.epoch:
            return False
        if self.document.store_id not in record.in_sync:
            return reported.stale  # that it does not count is all that it has to know
        return (
            not reported.stale and reported.primary == record.primary and set(reported.in_sync) == set(record.in_sync)
        )

    def accepts(self, volume: VolumeDocument) -> bool:
        """Say whether this copy can take photos now, as far as the Store goes."""
        folder = self.folders.get(volume.folder)
        return (
            volume.state == "writable"
            and volume.volume not in self.misfits
            and (folder is None or folder.state == "ok")
            and self.mark.takes_new
            and not self.mark.draining(volume.folder)
        )
