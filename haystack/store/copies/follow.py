"""One copy that is here already, brought up to its source: compared, cut where it is another, completed.

Nothing is cut before what takes its place was read from the source and verified, so a source that is damaged or dies
costs nothing. What is cut is kept as ``<id>.torn-…``.
"""

from __future__ import annotations

import logging

from haystack.store.copies.arriving import FETCH_BYTES, arriving_batches
from haystack.store.copies.peer import Peer
from haystack.store.copies.prefix import BLOCK_BYTES, calls, differing_blocks, shared_prefix
from haystack.store.copies.progress import FollowFailed, Progress
from haystack.store.copies.ranges import read_piece
from haystack.store.out_of_service import out_of_service
from haystack.store.store_volume import StoreVolume, checkpoint_volume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume
from haystack.volume.cutting import boundary_before, cut
from haystack.volume.layout import SUPERBLOCK_BYTES

_log = logging.getLogger(__name__)

MAX_ROUNDS = 100
"""How often to look whether the source has grown meanwhile, before that counts as a failure."""


async def bring_up(volumes: StoreVolumes, entry: StoreVolume, peer: Peer, progress: Progress) -> int:
    """Make the copy equal to its source up to a tail that the source had a moment ago; returns that tail.

    It is durable then, and what was copied was compared by hash. Raises FollowFailed, PeerUnavailable,
    VolumeUnavailable, DiskError, OutOfSpace.
    """
    start = await _cut_to_shared(volumes, entry, peer)
    position = start
    for _ in range(MAX_ROUNDS):
        end = await peer.tail()
        progress.copied_bytes, progress.total_bytes = position, end
        if end < position:
            raise FollowFailed(f"volume {entry.id}: {peer} has {end} bytes, fewer than it had before")
        lacking = end - position
        async for raw, _ in arriving_batches(peer, entry.require_open().seed, position, end, progress):
            position = await entry.run(_append, position, raw)
            volumes.control.cells[volumes.control.epoch_cell(entry.slot)] = position  # it may delete or supersede
            progress.copied_bytes = position
        if lacking <= FETCH_BYTES:
            await _settle(volumes, entry, peer, start, position)
            return position
    raise FollowFailed(f"volume {entry.id}: {peer} takes photos faster than they are copied")


def _append(volume: Volume, start: int, raw: bytes) -> int:
    """Append whole needles at the tail, on a thread; returns the new tail."""

    def require_tail(tail: int) -> int:
        if tail != start:
            raise FollowFailed(f"{volume}: ends at {tail}, but it had {start} bytes: somebody else appends to it")
        return start

    return volume.append_batch(start, raw, require_tail).tail


async def _settle(volumes: StoreVolumes, entry: StoreVolume, peer: Peer, start: int, end: int) -> None:
    """Make what was copied durable, and compare it."""
    entry.durable_tail = max(entry.durable_tail, await entry.run(checkpoint_volume))
    for first, last in calls(start // BLOCK_BYTES * BLOCK_BYTES, end):
        differing = await differing_blocks(entry, peer, first, last)
        if differing:
            low, high = differing[0]
            raise FollowFailed(f"volume {entry.id}: bytes {low} to {high} differ from {peer} though just copied")
    await volumes.refresh(entry)


async def _cut_to_shared(volumes: StoreVolumes, entry: StoreVolume, peer: Peer) -> int:
    """Cut what the source does not have; returns the new tail."""
    ours, theirs = await entry.run(Volume.tail), await peer.tail()
    if await peer.read(0, SUPERBLOCK_BYTES) != await entry.run(read_piece, 0, SUPERBLOCK_BYTES):
        raise FollowFailed(f"volume {entry.id}: its superblock and that of {peer} differ; scrub both copies")
    shared = await shared_prefix(entry, peer, min(ours, theirs))
    if shared == ours:
        return ours
    at = await entry.run(boundary_before, shared)
    await _verify_source(entry, peer, at, min(theirs, ours))
    reason = f"its last {ours - at} bytes are not those of {peer}"
    async with out_of_service(volumes, entry, reason) as volume:
        saved = await entry.folder.run(cut, volume, at)
    _log.warning("volume %d: %s; they are cut, and kept as %s", entry.id, reason, saved)
    return at


async def _verify_source(entry: StoreVolume, peer: Peer, start: int, until: int) -> None:
    """Read what is to replace our bytes, so that they are not given up for something damaged."""
    tail = await peer.tail()
    async for _, needles in arriving_batches(peer, entry.require_open().seed, start, tail, Progress()):
        if needles[-1].end >= until:
            return
