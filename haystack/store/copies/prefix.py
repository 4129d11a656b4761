"""Up to where two copies of a volume are the same.

Copies part where one of them appended under another primary, so what differs is the end: hashes are compared from the
end backwards, in windows that grow, until one begins with a block that is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from haystack.store.copies.peer import Peer
from haystack.store.copies.ranges import MAX_HASHED_BYTES, block_hashes, read_piece
from haystack.store.store_volume import StoreVolume
from haystack.units import MIB

BLOCK_BYTES = MIB


def windows(end: int) -> Iterator[tuple[int, int]]:
    """Ranges to compare, from ``end`` backwards to 0: each as large as all before it, in steps of what one call reads.

    All but the first begin and end at a whole block.
    """
    high, width = end, MAX_HASHED_BYTES
    while high > 0:
        low = max(0, (high - width + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES)
        yield low, high
        width = max(width, end - low)
        high = low


def calls(low: int, high: int) -> list[tuple[int, int]]:
    """A window in parts that one call may ask for, from its beginning on."""
    return [(start, min(start + MAX_HASHED_BYTES, high)) for start in range(low, high, MAX_HASHED_BYTES)]


async def differing_blocks(entry: StoreVolume, peer: Peer, start: int, end: int) -> list[tuple[int, int]]:
    """The blocks of a range (of at most ``MAX_HASHED_BYTES``) that differ. Raises PeerUnavailable, DiskError."""
    theirs = (await peer.hashes(start, end, BLOCK_BYTES)).hashes
    ours = await entry.run(block_hashes, start, end, BLOCK_BYTES)
    return [
        (at, min(at + BLOCK_BYTES, end))
        for at, (one, other) in zip(range(start, end, BLOCK_BYTES), zip(ours, theirs, strict=True), strict=True)
        if one != other
    ]


async def shared_prefix(entry: StoreVolume, peer: Peer, end: int) -> int:
    """How many bytes from the start both copies have in common, looked at as far as needed.

    Parameters
    ----------
    end: both are at least so long.

    The blocks before a window that begins alike are taken to be alike; scrubbing compares all. Raises PeerUnavailable,
    DiskError, VolumeUnavailable.
    """
    shared = end
    for low, high in windows(end):
        differing: list[tuple[int, int]] = []
        for start, stop in calls(low, high):
            differing += await differing_blocks(entry, peer, start, stop)
        if not differing:
            return shared
        shared = await _first_difference(entry, peer, *differing[0])
        if differing[0][0] > low:
            return shared
    return shared


async def _first_difference(entry: StoreVolume, peer: Peer, start: int, end: int) -> int:
    theirs = await peer.read(start, end)
    ours = await entry.run(read_piece, start, end)
    return start + next((index for index, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other), 0)
