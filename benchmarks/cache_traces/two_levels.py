"""Replaying a trace against memory with a second level on an SSD, with the code that a Cache has for both."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cache_traces.replay import WARM_UP
from benchmarks.cache_traces.traces import Trace
from cache.policies import Policy
from cache.ssd.admission import Admission, AskedPolicy, Budget
from cache.ssd.index import SsdIndex
from cache.ssd.log import Log
from cache.ssd.plan import BLOCK_BYTES
from haystack.volume.layout import needle_bytes


@dataclass(slots=True)
class TwoLevels:
    """What was found in memory, and what below it; of the requests that counted.

    Parameters
    ----------
    written_bytes: to the SSD, in all.
    """

    requests: int = 0
    hits: int = 0
    ssd_hits: int = 0
    asked_bytes: int = 0
    written_bytes: int = 0

    @property
    def memory_ratio(self) -> float:
        """Of the requests, those that memory answered."""
        return self.hits / self.requests

    @property
    def ratio(self) -> float:
        """Of the requests, those that one of the levels answered."""
        return (self.hits + self.ssd_hits) / self.requests

    @property
    def written_share(self) -> float:
        """Bytes written for each byte that was asked for."""
        return self.written_bytes / self.asked_bytes


class SsdModel:
    """The second level without a disk."""

    def __init__(self, log_bytes: int, bytes_per_second: int, photos: int, largest_bytes: int) -> None:
        chunk_bytes = (largest_bytes // BLOCK_BYTES + 2) * BLOCK_BYTES
        self._log = Log(log_bytes // BLOCK_BYTES * BLOCK_BYTES, chunk_bytes, BLOCK_BYTES)
        self._index = SsdIndex(photos)
        self._admission = Admission(log_bytes, photos)
        self._budget = Budget(bytes_per_second, chunk_bytes, 0.0)
        self.written_bytes = 0

    def has(self, photo: int) -> bool:
        return self._index.find(1, photo, 0) is not None

    def offer(self, photo: int, data_bytes: int, again: bool, now: float) -> None:
        """A photo leaves memory."""
        size_bytes = needle_bytes(0, data_bytes)
        found = self._index.find(1, photo, 0)
        age = None if found is None else self._log.age(found.position)
        if not self._admission.wants(hash((1, photo, 0)), size_bytes, again, age):
            return
        if not self._budget.take(size_bytes, now):
            return
        if self._log.gathered_bytes and not self._log.fits(size_bytes):
            self._log.seal()
        if not self._log.gathered_bytes:
            for gone, position in self._log.begin(size_bytes):
                self._index.remove(gone, position)
        if found is not None:
            self._index.remove(found.slot, found.position)
        position = self._log.place(size_bytes)
        slot = self._index.add(
            1, photo, 0, cookie=0, checksum=0, position=position, verified_ns=0, stored_ms=0, size_bytes=size_bytes
        )
        if slot is not None:
            self._log.note(slot, position)
        self.written_bytes += size_bytes


def replay_two(trace: Trace, memory_bytes: int, ssd_bytes: int, policy: Policy, bytes_per_second: int = 0) -> TwoLevels:
    """Memory of that size with that policy, which must be empty, over an SSD.

    Parameters
    ----------
    bytes_per_second: that may be written to the SSD; 0 for no limit.
    """
    sizes = trace.sizes
    memory = AskedPolicy(policy)
    memory.resize(memory_bytes)
    ssd = SsdModel(ssd_bytes, bytes_per_second, len(sizes), max(sizes))
    cached = bytearray(len(sizes))
    used = 0
    result = TwoLevels()
    first = int(len(trace.photos) * WARM_UP)
    for request, photo in enumerate(trace.photos):
        size_bytes, now = sizes[photo], request / trace.requests_per_second
        result.asked_bytes += size_bytes
        below = not cached[photo] and ssd.has(photo)
        if request >= first:
            result.requests += 1
            result.hits += cached[photo]
            result.ssd_hits += below
        if cached[photo]:
            memory.hits((photo,))
        else:
            if size_bytes > memory_bytes:
                continue
            while used + size_bytes > memory_bytes:
                gone = memory.victim()
                assert gone is not None
                cached[gone] = 0
                used -= sizes[gone]
                ssd.offer(gone, sizes[gone], memory.again(gone), now)
            memory.add(photo, hash((1, photo, 0)), size_bytes)
            cached[photo] = 1
            used += size_bytes
            if below:
                memory.hits((photo,))  # to the workers of a node it is a hit
    result.written_bytes = ssd.written_bytes
    return result
