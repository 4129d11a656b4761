"""Sending what a copy misses, read from this Store's file: in pieces that end where an append ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from haystack.store.replication.peers import PeerFailed, Peers
from haystack.store.replication.wire import Answer, batch_target
from haystack.units import MIB
from haystack.volume import ScannedNeedle, Volume
from haystack.volume.scan import scan

PIECE_BYTES = 8 * MIB
"""Bytes of one piece, unless a single multi-write has more."""

ANSWER_SECONDS = 1.5
"""How long a copy may take to answer, beside the time for its bytes."""

SLOWEST_BYTES_PER_SECOND = 32 * MIB
"""A copy that takes batches more slowly than this is too slow."""


def patience_seconds(size_bytes: int) -> float:
    """How long to wait for the answer to so many bytes."""
    return ANSWER_SECONDS + size_bytes / SLOWEST_BYTES_PER_SECOND


class Place(NamedTuple):
    """Where bytes go: a volume under an epoch, of a generation, on another Store; and up to where copies are equal."""

    url: str
    volume: int
    epoch: int
    committed: int
    generation: int

    def target(self, start: int) -> str:
        """Path and query for bytes that lie at ``start``."""
        return batch_target(self.volume, self.epoch, start, self.committed, self.generation)


def pieces_between(volume: Volume, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range of whole appends into pieces; multi-writes stay whole. Raises PeerFailed where it is damaged."""
    begin = position = start
    for item in scan(volume.file, volume.seed, start, end, verify=False):
        if not isinstance(item, ScannedNeedle):
            raise PeerFailed(f"{volume}: cannot be sent, it is damaged: {item}")
        header = item.header
        if item.end - begin > PIECE_BYTES and header.batch_index == 0 and position > begin:
            yield begin, position
            begin = item.offset
        if header.batch_index == header.batch_size - 1:
            position = item.end
    if begin < end:
        yield begin, end


def send_between(peers: Peers, volume: Volume, place: Place, start: int, end: int, deadline: float) -> Answer | None:
    """Send a range of the volume, piece by piece; returns the last answer, or the first that is no 200.

    None when there was nothing to send. Raises PeerFailed.

    Parameters
    ----------
    deadline: monotonic seconds; beyond it no further piece is begun.
    """
    answer = None
    for begin, until in pieces_between(volume, start, end):
        if time.monotonic() >= deadline:
            raise PeerFailed(f"Store {place.url} is too far behind on volume {place.volume}")
        data = volume.file.pread(until - begin, begin)
        limit = time.monotonic() + patience_seconds(len(data))
        answer = peers.call(place.url, place.target(begin), [data], limit)
        if answer.status != 200:
            return answer
    return answer
