"""Needles read from another copy, verified before anything is done with them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from haystack.errors import DamagedNeedle
from haystack.store.copies.peer import Peer
from haystack.store.copies.progress import FollowFailed, Progress
from haystack.units import MIB
from haystack.volume import ScannedNeedle
from haystack.volume.incoming import verified_needles, whole_batches

FETCH_BYTES = 8 * MIB
"""Of needles that are held in memory, unless a single one, or a multi-write, is larger."""


async def arriving_batches(
    peer: Peer, seed: int, start: int, end: int, progress: Progress
) -> AsyncIterator[tuple[bytes, list[ScannedNeedle]]]:
    """Needles of a peer between two boundaries, verified, with their bytes; multi-writes are not cut through.

    Raises FollowFailed for damaged ones, PeerUnavailable.
    """
    held = bytearray()
    position = fetched = start
    while position < end:
        stop = min(end, fetched + FETCH_BYTES)
        if stop > fetched:
            async for piece in peer.pieces(fetched, stop):
                await progress.bandwidth.take(len(piece))
                held += piece
            fetched = stop
        try:
            needles = whole_batches(verified_needles(held, seed, position, str(peer)), is_end=fetched == end)
        except DamagedNeedle as error:
            raise FollowFailed(f"the source is damaged: {error}") from error
        if needles:
            used = needles[-1].end - position
            yield bytes(held[:used]), needles
            del held[:used]
            position += used
        elif fetched == end:
            raise FollowFailed(f"{peer}: its bytes {position} to {end} are not whole needles")
