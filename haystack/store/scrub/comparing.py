"""A piece of a volume, which was verified here, against another copy."""

from __future__ import annotations

import enum
import logging

from haystack.store.copies.arriving import arriving_batches
from haystack.store.copies.peer import Peer, PeerUnavailable
from haystack.store.copies.prefix import calls, differing_blocks
from haystack.store.copies.progress import FollowFailed, Progress
from haystack.store.store_volume import StoreVolume
from haystack.volume.layout import SUPERBLOCK_BYTES

_log = logging.getLogger(__name__)


class Comparison(enum.Enum):
    """What came of it."""

    SAME = "same"
    UNKNOWN = "unknown"
    """The other copy cannot be asked, or does not reach so far."""
    THEIRS_DAMAGED = "damaged there"
    DIVERGED = "diverged"
    """Both are sound, and different."""


async def compare(entry: StoreVolume, peer: Peer, start: int, end: int) -> Comparison:
    """Compare bytes between two boundaries; all of them were found sound here. Raises DiskError, VolumeUnavailable."""
    try:
        if await peer.tail() < end:
            return Comparison.UNKNOWN
        for first, last in calls(start, end):
            if await differing_blocks(entry, peer, first, last):
                return await _judge(entry, peer, start, end)
    except PeerUnavailable as error:
        _log.info("volume %d: not compared with %s: %s", entry.id, peer, error)
        return Comparison.UNKNOWN
    return Comparison.SAME


async def _judge(entry: StoreVolume, peer: Peer, start: int, end: int) -> Comparison:
    """Which copy is right: the one whose needles verify, and ours do."""
    volume = entry.require_open()
    try:
        if start < SUPERBLOCK_BYTES and await peer.read(0, SUPERBLOCK_BYTES) != volume.superblock.pack():
            raise FollowFailed(f"the source is damaged: {peer}: its superblock is another")
        async for _ in arriving_batches(peer, volume.seed, max(start, SUPERBLOCK_BYTES), end, Progress()):
            pass
    except FollowFailed as error:
        _log.warning("volume %d: %s", entry.id, error)
        await peer.scrub()
        return Comparison.THEIRS_DAMAGED
    _log.error("volume %d: bytes %d to %d are sound here and on %s, but not the same", entry.id, start, end, peer)
    return Comparison.DIVERGED
