"""Replaying a trace against a policy, against the ideal, and against a model of Varnish."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from benchmarks.cache_traces.plain_lru import PlainLru
from benchmarks.cache_traces.traces import Trace
from cache.policies import Policy

WARM_UP: Final = 0.2
"""Share of the requests, at the beginning, that are not counted."""

NEVER: Final = 2**31 - 1


@dataclass(slots=True)
class Result:
    """What was found in the cache, of the requests that counted."""

    requests: int = 0
    hits: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    recent: int = 0
    recent_hits: int = 0

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.requests

    @property
    def byte_hit_ratio(self) -> float:
        return self.hit_bytes / self.bytes

    @property
    def recent_hit_ratio(self) -> float:
        return self.recent_hits / self.recent if self.recent else 0.0

    def count(self, trace: Trace, hit: bytearray) -> Result:
        """Sum up: ``hit`` has for each request whether it was one."""
        start = int(len(hit) * WARM_UP)
        for request in range(start, len(hit)):
            size_bytes = trace.sizes[trace.photos[request]]
            self.requests += 1
            self.bytes += size_bytes
            if hit[request]:
                self.hits += 1
                self.hit_bytes += size_bytes
        if trace.recent:
            self.recent = sum(trace.recent[start:])
            self.recent_hits = sum(map(int.__and__, trace.recent[start:], hit[start:]))
        return self


def replay(trace: Trace, capacity_bytes: int, policy: Policy, keep: Callable[[int], bool] | None = None) -> Result:
    """A cache of that size with that policy, which must be empty.

    Parameters
    ----------
    keep: whether to keep what the request with this number asked for; None for all.
    """
    policy.resize(capacity_bytes)
    sizes, cached = trace.sizes, bytearray(len(trace.sizes))
    hit = bytearray(len(trace.photos))
    hits, victim, add = policy.hits, policy.victim, policy.add
    used = 0
    for request, photo in enumerate(trace.photos):
        if cached[photo]:
            hit[request] = 1
            hits((photo,))
            continue
        size_bytes = sizes[photo]
        if size_bytes > capacity_bytes or (keep is not None and not keep(request)):
            continue
        while used + size_bytes > capacity_bytes:
            gone = victim()
            assert gone is not None
            cached[gone] = 0
            used -= sizes[gone]
        add(photo, hash((1, photo, 0)), size_bytes)
        cached[photo] = 1
        used += size_bytes
    return Result().count(trace, hit)


def ideal(trace: Trace, capacity_bytes: int) -> Result:
    """Bélády's rule: out goes what will not be asked for longest, which may be the photo that just came.

    With photos of one size nothing is better. With several sizes finding the best is NP-hard; this rule looks at the
    time alone and comes near it.
    """
    upcoming = _next_requests(trace)
    sizes, hit = trace.sizes, bytearray(len(trace.photos))
    due = array("i", bytes(4 * len(sizes)))
    """When a photo that is cached is asked for next; 0 for one that is not."""
    heap: list[tuple[int, int]] = []
    used = 0
    for request, photo in enumerate(trace.photos):
        coming = upcoming[request]
        if due[photo]:
            hit[request] = 1
        elif coming == NEVER or sizes[photo] > capacity_bytes:
            continue
        else:
            used += sizes[photo]
        if coming == NEVER:
            due[photo] = 0
            used -= sizes[photo]
            continue
        due[photo] = coming
        heappush(heap, (-coming, photo))
        while used > capacity_bytes:
            negative, gone = heappop(heap)
            if due[gone] == -negative:
                due[gone] = 0
                used -= sizes[gone]
    return Result().count(trace, hit)


def _next_requests(trace: Trace) -> array[int]:
    """For each request, which one asks for the same photo next."""
    upcoming = array("i", bytes(4 * len(trace.photos)))
    seen = array("i", [NEVER]) * len(trace.sizes)
    for request in range(len(trace.photos) - 1, -1, -1):
        photo = trace.photos[request]
        upcoming[request] = seen[photo]
        seen[photo] = request
    return upcoming


VARNISH_INTERVAL_SECONDS: Final = 2.0
"""Varnish's ``lru_interval``: an object is not moved to the front again before so long."""

VARNISH_NUKE_LIMIT: Final = 50
"""Varnish's ``nuke_limit``: objects that are evicted for a new one before it is given up."""


def varnish(trace: Trace, capacity_bytes: int) -> Result:
    """Varnish's LRU as its documentation describes it, with its defaults and without its overhead for each object."""
    lru = PlainLru()
    sizes, cached = trace.sizes, bytearray(len(trace.sizes))
    hit = bytearray(len(trace.photos))
    moved = array("d", bytes(8 * len(sizes)))
    used = 0
    for request, photo in enumerate(trace.photos):
        now = request / trace.requests_per_second
        if cached[photo]:
            hit[request] = 1
            if now - moved[photo] > VARNISH_INTERVAL_SECONDS:
                lru.hits((photo,))
                moved[photo] = now
            continue
        size_bytes = sizes[photo]
        for _ in range(VARNISH_NUKE_LIMIT):
            if used + size_bytes <= capacity_bytes:
                break
            gone = lru.victim()
            if gone is None:
                break
            cached[gone] = 0
            used -= sizes[gone]
        if used + size_bytes <= capacity_bytes:
            lru.add(photo, 0, size_bytes)
            cached[photo] = 1
            moved[photo] = now
            used += size_bytes
    return Result().count(trace, hit)
