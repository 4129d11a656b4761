"""The Caches that this Directory knows, in memory: who is there, how they do, and to which of them a photo belongs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from directory.caches.messages import CacheBeat
from directory.decisions.caches import spread
from directory.errors import NotPossibleNow
from haystack.rendezvous import Node, order, turned

MAX_CACHES = 1024
MAX_HANDED_OUT = 3
"""Caches that one answer names for a photo, unless it is shared by more."""

FORGOTTEN_SECONDS = 3600.0
"""Silence after which a Cache is not shown any more."""

WANTED_SECONDS = 30.0
"""Stores go on telling how far they have told everything for so long after the last sign of any Cache."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class CacheState:
    """One Cache: what it said last, and when, in monotonic seconds."""

    beat: CacheBeat
    seen_seconds: float
    reads_per_second: float = 0.0

    def document(self, now_seconds: float, *, alive: bool) -> dict[str, Any]:
        """As in ``/cluster/status``."""
        beat = self.beat
        return {
            "cacheId": beat.cache_id,
            "url": beat.url,
            "publicUrl": beat.public_url,
            "adminUrl": beat.admin_url,
            "state": "alive" if alive else "dead",
            "lastSeenSecondsAgo": round(now_seconds - self.seen_seconds, 3),
            "memoryBytes": beat.memory_bytes,
            "workers": beat.workers,
            "version": beat.version,
            "startedMs": beat.started_ms,
            "readsPerSecond": round(self.reads_per_second, 1),
            "counters": dict(beat.counters),
        }


class Caches:
    """Keeps the Caches.

    Parameters
    ----------
    dead_after_seconds: silence after which a Cache is handed out no more.
    spread_reads_per_second: reads of one photo that one Cache is to take; 0: photos are never shared.
    clock: monotonic seconds. dice: random numbers in 0 ≤ x < 1.
    """

    def __init__(
        self,
        *,
        dead_after_seconds: float,
        spread_reads_per_second: float,
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self._dead_after_seconds = dead_after_seconds
        self._spread_reads_per_second = spread_reads_per_second
        self._clock = clock
        self._dice = dice
        self._states: dict[str, CacheState] = {}
        self._nodes: list[Node] = []
        self._check_at = float("inf")
        self._heat: dict[int, float] = {}
        self._wanted_until = float("-inf")

    # -- what they say

    def beat(self, beat: CacheBeat) -> None:
        """Take a heartbeat in. Raises NotPossibleNow when there are too many Caches."""
        now = self._clock()
        before = self._states.get(beat.cache_id)
        if before is None:
            self._forget_silent(now)
            if len(self._states) >= MAX_CACHES:
                raise NotPossibleNow(f"{MAX_CACHES} Caches are known, the most that a Directory looks after")
            log.info("Cache %s at %s is there", beat.cache_id, beat.url)
        elif not self._alive(before, now):
            log.info("Cache %s at %s is back", beat.cache_id, beat.url)
        state = self._states[beat.cache_id] = CacheState(beat, now)
        if before is not None and now > before.seen_seconds:
            elapsed_seconds = now - before.seen_seconds
            reads = max(0.0, beat.counters.get("requests", 0) - before.beat.counters.get("requests", 0))
            # Half old, half new, as for Stores: one busy beat is no load.
            state.reads_per_second = (before.reads_per_second + reads / elapsed_seconds) / 2
        self.wanted()
        self._choose_nodes(now)

    def leave(self, cache_id: str) -> None:
        """A Cache stops: nobody is sent to it any more."""
        if self._states.pop(cache_id, None) is not None:
            log.info("Cache %s has taken its leave", cache_id)
            self._choose_nodes(self._clock())

    def wanted(self) -> None:
        """A Cache has given a sign of itself: Stores are to tell how far they have told everything."""
        self._wanted_until = self._clock() + WANTED_SECONDS

    @property
    def are_wanted(self) -> bool:
        """Whether there has been a Cache lately."""
        return self._clock() <= self._wanted_until

    # -- what follows from it

    def of_photo(self, photo_id: int) -> list[CacheBeat]:
        """Return the living Caches that one reader of a photo is to ask, in this order."""
        nodes = self._living_nodes()
        if not nodes:
            return []
        sharing = self._sharing(photo_id)
        ordered = order(photo_id, nodes, max(sharing, MAX_HANDED_OUT))
        chosen = turned(ordered, sharing, self._dice() if sharing > 1 else 0.0)
        return [self._states[node.id].beat for node in chosen[:MAX_HANDED_OUT]]

    def handed_out(self) -> dict[str, Any]:
        """Return what a reader needs to know to which Cache a photo belongs, by itself."""
        named = [
            {"id": node.id, "url": beat.url, "publicUrl": beat.public_url, "weight": node.weight}
            for node in self._living_nodes()
            for beat in (self._states[node.id].beat,)
        ]
        sharing = {f"{photo_id:x}": self._sharing(photo_id) for photo_id in self._heat}
        return {"caches": named, "shared": {photo: nodes for photo, nodes in sharing.items() if nodes > 1}}

    def states(self) -> list[tuple[CacheState, bool]]:
        """Return all Caches in the order of their addresses, each with whether it is alive."""
        now = self._clock()
        self._forget_silent(now)
        found = sorted(self._states.values(), key=lambda state: (state.beat.url, state.beat.cache_id))
        return [(state, self._alive(state, now)) for state in found]

    def documents(self) -> list[dict[str, Any]]:
        """As in ``/cluster/status``."""
        now = self._clock()
        return [state.document(now, alive=alive) for state, alive in self.states()]

    def _alive(self, state: CacheState, now: float) -> bool:
        return now - state.seen_seconds <= self._dead_after_seconds

    def _living_nodes(self) -> list[Node]:
        now = self._clock()
        if now > self._check_at:
            self._choose_nodes(now)
        return self._nodes

    def _sharing(self, photo_id: int) -> int:
        return spread(len(self._nodes), self._heat.get(photo_id, 0.0), self._spread_reads_per_second)

    def _choose_nodes(self, now: float) -> None:
        living = [state for state in self._states.values() if self._alive(state, now)]
        self._nodes = [Node(state.beat.cache_id, float(state.beat.memory_bytes)) for state in living]
        # The first of them that can fall silent: before that the list holds.
        seen = min((state.seen_seconds for state in living), default=float("inf"))
        self._check_at = seen + self._dead_after_seconds
        heat: defaultdict[int, float] = defaultdict(float)
        for state in living:
            for photo_id, rate in state.beat.hot:
                heat[photo_id] += rate
        self._heat = dict(heat)

    def _forget_silent(self, now: float) -> None:
        silent = [one for one, state in self._states.items() if now - state.seen_seconds > FORGOTTEN_SECONDS]
        for cache_id in silent:
            del self._states[cache_id]
