"""Which photos are asked for most: a sample of the hits that the policy hears of, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from cache.policies import Policy
from cache.policies.around import PolicyAround
from haystack.heavy_hitters import SpaceSaving
from haystack.store.hot_photos import Hits
from haystack.views import is_view

COUNTERS = 512
SAMPLED = 16
"""One hit of so many is counted."""

HALF_LIFE_SECONDS = 10.0

EXACT_HITS = 256
"""Of more hits at a time, for those who count views, only about so many are looked at, each for several."""

MAX_UNTOLD = 8192
"""Photos whose hits wait for the Directory to be told."""


class HeatPolicy(PolicyAround):
    """A policy that takes a sample of the hits on their way to another one.

    Parameters
    ----------
    inner: decides.
    clock: seconds, monotonic.
    """

    name: ClassVar[str] = "heat"

    def __init__(self, inner: Policy, clock: Callable[[], float]) -> None:
        super().__init__(inner)
        self._clock = clock
        self.key_of: Callable[[int], int | None] = lambda entry: None
        """The photo of an entry; set when the memory is there, as the next one is."""
        self.alternate_of: Callable[[int], int] = lambda entry: 0
        self._hot = SpaceSaving[int](COUNTERS)
        self.untold = Hits(MAX_UNTOLD)
        """Views by photo that no Directory has heard of yet."""
        self._skipped = 0
        self._scaled = clock()

    def hits(self, entries: Iterable[int]) -> None:
        taken = list(entries)
        super().hits(taken)
        for entry in taken[self._skipped :: SAMPLED]:
            key = self.key_of(entry)
            if key is not None:
                self._hot.add(key, SAMPLED)
        self._skipped = (self._skipped - len(taken)) % SAMPLED
        self._count(taken)

    def _count(self, taken: Sequence[int]) -> None:
        each = max(1, len(taken) // EXACT_HITS)
        looked_at = (entry for entry in taken[self._skipped % each :: each] if is_view(self.alternate_of(entry)))
        keys = (self.key_of(entry) for entry in looked_at)
        self.untold.take((key, each) for key in keys if key is not None)

    def hottest(self, count: int) -> list[tuple[int, float]]:
        """Photos with their hits a second, the hottest first."""
        self._decay()
        # In a steady stream, what halves every T seconds holds the hits of T / ln 2.
        seconds = HALF_LIFE_SECONDS / 0.6931
        found = sorted(((one.count, one.item) for one in self._hot), reverse=True)
        return [(key, hits / seconds) for hits, key in found[:count]]

    def _decay(self) -> None:
        now = self._clock()
        self._hot.scale(0.5 ** ((now - self._scaled) / HALF_LIFE_SECONDS))
        self._scaled = now
