"""The memberships of a Store's volumes, in its supervisor: taken from the Directory, kept on disk, told to the workers.

The order of a change is always: on disk, then in the control block, then once through the append lock. From then on no
append goes on under the membership before, in whatever process, and only then is the Directory answered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

from haystack.errors import HaystackError, VolumeExists, VolumeUnavailable
from haystack.store.folder import DataFolder
from haystack.store.replication import rules
from haystack.store.replication.duties import assign_duty, standing_of
from haystack.store.replication.members_file import remove_members, write_members
from haystack.store.replication.membership import Member, Membership
from haystack.store.replication.rules import LEADING, RECEIVING, Duty, Push
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume

_log = logging.getLogger(__name__)


class NewerEpoch(HaystackError):
    """A call of the Directory names an older membership than the one that is known here.

    Parameters
    ----------
    epoch: that is known here.
    """

    http_status = 409

    def __init__(self, volume: int, epoch: int) -> None:
        super().__init__(f"volume {volume} has epoch {epoch} here; take a higher one")
        self.epoch = epoch


class OtherGeneration(HaystackError):
    """A membership is of another generation of the volume than the file that is here, and cannot become.

    Parameters
    ----------
    generation: of the file here.
    """

    http_status = 409

    def __init__(self, volume: int, generation: int) -> None:
        super().__init__(f"volume {volume} is of generation {generation} here, and nothing is prepared to change that")
        self.generation = generation


Swap = Callable[[StoreVolume, Membership], Awaitable[None]]
"""Puts a prepared next generation in place together with its membership. Raises OtherGeneration."""


async def _nothing_prepared(entry: StoreVolume, membership: Membership) -> None:
    raise OtherGeneration(entry.id, entry.require_open().superblock.generation)


class Granted(NamedTuple):
    """A membership that is in force, and the end of the volume when the last append under an older one had ended."""

    epoch: int
    tail: int


class Memberships:
    """Changes memberships; one change of a volume at a time.

    Parameters
    ----------
    store_id: of this Store.
    on_taken: called with a volume whose membership has changed, when that is in force.
    """

    def __init__(
        self, volumes: StoreVolumes, store_id: str, *, on_taken: Callable[[StoreVolume], None] = lambda entry: None
    ) -> None:
        self.store_id = store_id
        self._volumes = volumes
        self._on_taken = on_taken
        self.swap: Swap = _nothing_prepared
        """What is done when a membership is of the next generation."""

    def known(self, entry: StoreVolume) -> Membership | None:
        """What is in force here."""
        return entry.membership

    async def push(self, entry: StoreVolume, pushed: Membership) -> Granted:
        """Take a membership that the Directory has granted; may be repeated.

        Raises NewerEpoch, OtherGeneration, VolumeExists (another volume), DiskError, OutOfSpace, VolumeUnavailable.
        """
        _require_same_volume(entry, pushed)
        async with entry.membering:
            before = entry.duty
            verdict = rules.supersedes(pushed, entry.membership)
            if verdict is Push.OLDER:
                assert entry.membership is not None
                raise NewerEpoch(entry.id, entry.membership.epoch)
            if verdict is Push.TAKE:
                await self._take_or_swap(entry, pushed)
            tail = await _through_the_lock(entry, before)
            if verdict is Push.TAKE:
                self._on_taken(entry)
            return Granted(pushed.epoch, tail)

    async def add_learner(self, entry: StoreVolume, epoch: int, member: Member) -> Granted:
        """Have every acknowledgement wait for one copy more from now on; durable, since the Directory will rely on it.

        Raises NewerEpoch when the epoch is not the one in force or this Store does not lead; DiskError, OutOfSpace.
        """
        async with entry.membering:
            known = entry.membership
            if known is None or not rules.may_admit(known, self.store_id, epoch):
                raise NewerEpoch(entry.id, known.epoch if known is not None else entry.epoch)
            if member not in known.followers(self.store_id):
                await self._take(entry, known.with_learner(member))
            return Granted(epoch, await _through_the_lock(entry, entry.duty))

    async def follow(self, folder: DataFolder, volume: int, entry: StoreVolume | None, membership: Membership) -> None:
        """Note durably that this copy does not count, before its bytes are changed.

        Parameters
        ----------
        entry: None for a copy that is not registered yet.
        membership: names the source as the only one in sync, see ``membership.following``.

        Raises NewerEpoch when the copy counts here, VolumeExists, DiskError, OutOfSpace.
        """
        if entry is None:
            await folder.run(write_members, folder.path / f"{volume}.vol", membership, self.store_id)
            return
        _require_same_volume(entry, membership)
        async with entry.membering:
            known = entry.membership
            if not rules.may_follow(known, self.store_id, membership.epoch):
                raise NewerEpoch(volume, known.epoch if known is not None else entry.epoch)
            if known is None or membership.epoch > known.epoch:
                before = entry.duty
                await self._take(entry, membership)
                await _through_the_lock(entry, before)

    def followed(self, entry: StoreVolume, epoch: int) -> None:
        """Note that all bytes were compared with the primary's under this epoch: batches of it are taken from now on.

        Forgotten by a restart, after which the copy has to follow again. Nothing happens when the epoch has passed.
        """
        if entry.membership is not None and entry.membership.epoch == epoch:
            entry.followed_epoch = epoch
            self._publish(entry)

    def unfollow(self, entry: StoreVolume) -> None:
        """The bytes are about to be changed: take no batches as a follower."""
        entry.followed_epoch = 0
        self._publish(entry)

    async def forget(self, folder: DataFolder, volume: int) -> None:
        """Remove what was written down of a volume that is deleted. Raises DiskError."""
        await folder.run(remove_members, folder.path / f"{volume}.vol")

    async def _take_or_swap(self, entry: StoreVolume, pushed: Membership) -> None:
        here = entry.superblock.generation if entry.superblock is not None else None
        if pushed.suits(here) or not pushed.counts(self.store_id):
            await self._take(entry, pushed)
            return
        await self.swap(entry, pushed)
        self._publish(entry)
        _log.info("volume %d: epoch %d, generation %s", entry.id, pushed.epoch, pushed.generation)

    async def _take(self, entry: StoreVolume, membership: Membership) -> None:
        if entry.folder.failed:
            raise VolumeUnavailable(f"volume {entry.id}: its data folder has failed: {entry.folder.error}")
        await entry.folder.run(write_members, entry.path, membership, self.store_id)
        entry.membership = membership
        self._publish(entry)
        _log.info(
            "volume %d: epoch %d, %d copies in sync, %d promised, here %s",
            entry.id,
            membership.epoch,
            len(membership.in_sync),
            membership.copies,
            entry.duty.name.lower(),
        )

    def _publish(self, entry: StoreVolume) -> None:
        before = entry.duty
        assign_duty(entry, self.store_id)
        epoch = entry.membership.epoch if entry.membership is not None else entry.epoch
        entry.reign = rules.next_reign(entry.reign, before, entry.duty, epoch)
        self._volumes.control.set_standing(entry.slot, standing_of(entry).pack(), entry.reign)
        entry.revision += 1
        self._volumes.judge(entry)
        self._volumes.changed()


async def _through_the_lock(entry: StoreVolume, before: Duty) -> int:
    """Wait until no append goes on that began before; returns the end of the volume."""
    if entry.volume is None and (before in LEADING or before in RECEIVING):
        # Out of service, or being recovered: nobody appends when that is over, and who came before has ended.
        async with entry.changing:
            pass
    if entry.volume is None:
        return entry.stat.size_bytes if entry.stat is not None else 0
    return await entry.run(_tail_under_lock)


def _tail_under_lock(volume: Volume) -> int:
    with volume.index.lock():
        return volume.tail()


def _require_same_volume(entry: StoreVolume, membership: Membership) -> None:
    if entry.superblock is not None and UUID(bytes=entry.superblock.uuid) != UUID(membership.uuid):
        raise VolumeExists(f"volume {entry.id} is another one here than the membership is of")
