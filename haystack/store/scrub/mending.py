"""Mending one damaged range of a volume from another copy."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from haystack.errors import DiskError, HaystackError, OutOfSpace
from haystack.store.control_cells import Reason, VolumeState
from haystack.store.copies.arriving import arriving_batches
from haystack.store.copies.peer import Peer, PeerUnavailable
from haystack.store.copies.progress import FollowFailed, Progress
from haystack.store.out_of_service import out_of_service, withdrawn
from haystack.store.scrub.restore import index_lacks, restore, restore_superblock
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Damage, Volume
from haystack.volume.layout import SUPERBLOCK_BYTES

_log = logging.getLogger(__name__)


async def mend(volumes: StoreVolumes, entry: StoreVolume, damage: Damage, peers: Sequence[Peer]) -> bool:
    """Replace a damaged range by what another copy has there; returns whether it is good now.

    What comes is verified needle by needle before any of it is written. A disk that cannot be written sets the volume
    aside.
    """
    try:
        if damage.offset < SUPERBLOCK_BYTES:
            await entry.run(restore_superblock)
            _log.warning("volume %d: mended its superblock", entry.id)
            return True
        return await _mend_from_any(volumes, entry, damage, peers)
    except (DiskError, OutOfSpace) as error:
        volumes.fail(entry, str(error))
        return False
    except HaystackError as error:
        _log.warning("volume %d: cannot be mended now: %s", entry.id, error)
        return False


async def _mend_from_any(volumes: StoreVolumes, entry: StoreVolume, damage: Damage, peers: Sequence[Peer]) -> bool:
    for peer in peers:
        try:
            await _mend_from(volumes, entry, damage, peer)
        except (PeerUnavailable, FollowFailed) as error:
            _log.warning("volume %d: %s cannot mend %s: %s", entry.id, peer, damage, error)
            continue
        _log.warning("volume %d: mended %s from %s", entry.id, damage, peer)
        return True
    return False


async def _mend_from(volumes: StoreVolumes, entry: StoreVolume, damage: Damage, peer: Peer) -> None:
    seed = entry.require_open().seed
    lacking = False
    # All of it is looked at before the first byte is written: half a range from a copy that is damaged itself would
    # hide where the damage began.
    batches = [one async for one in arriving_batches(peer, seed, damage.offset, damage.end, Progress())]
    position = damage.offset
    for raw, needles in batches:
        await entry.run(restore, position, raw)
        position += len(raw)
        lacking = lacking or await entry.run(index_lacks, needles)
    if lacking:
        await rebuild_index(volumes, entry, "what was mended is not in its index")


async def rebuild_index(volumes: StoreVolumes, entry: StoreVolume, reason: str) -> None:
    """Make the index of a volume anew, while it is out of service. Raises VolumeUnavailable, DiskError."""
    async with out_of_service(volumes, entry, f"its index is rebuilt: {reason}") as volume:
        await entry.folder.run(_distrust, volume)


async def renew_failed_index(volumes: StoreVolumes, entry: StoreVolume) -> None:
    """Make the index of a volume anew that was set aside because of it, and put the volume back into service.

    When anything else has failed meanwhile the volume stays aside. Raises VolumeUnavailable, DiskError.
    """
    if volumes.control.reason(entry.slot) is not Reason.INDEX:
        return
    async with withdrawn(volumes, entry, "its index was damaged, and is made anew") as volume:
        await entry.folder.run(_distrust, volume)
    # A worker that had not closed it yet may have met the old index once more; nobody has that one open now.
    if volumes.state(entry) is VolumeState.FAILED and volumes.control.reason(entry.slot) is not Reason.INDEX:
        return
    volumes.control.try_again(entry.slot)
    entry.doubted = False
    await volumes.recover(entry)
    volumes.control.limit_committed(entry.slot, entry.durable_tail)


def _distrust(volume: Volume) -> None:
    volume.dirty.distrust()
