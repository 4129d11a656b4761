"""Of which volumes it is known that everything acknowledged is in the feed of the Caches, and until when.

A Cache may serve what it keeps only while it would have heard of its delete. That the feed has nothing new says little:
a Store that cannot reach this Directory acknowledges deletes that nobody here knows of. So Stores say several times a
second how far they have told everything, and a volume is *doubtful* as soon as its primary's word is older than
:data:`FRESH_SECONDS`.

Clocks are never compared. The Directory gives out a *token*, its own time; the Store says how long after it received
the token it looked, by its own clock. It looked, then, no earlier than the token's time and that together, however long
any message was on its way.

All times are seconds of this process's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

NEVER = float("-inf")

FRESH_SECONDS = 0.5
"""Age of a primary's word above which its volumes are doubtful. Together with the age that a Cache allows the answer
which tells it so, this bounds how long a deleted photo is served: one second."""

MAX_DOUBTFUL = 20_000
"""Volumes that one answer names; when there are more, all are doubtful."""


@dataclass(slots=True)
class _Word:
    """What a Store has said last: everything that it acknowledged before ``fresh_at`` has been told, except as in
    ``behind``, by volume."""

    fresh_at: float = NEVER
    behind: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Unsettled:
    """A volume with a new membership: the word of its primary counts once that has said so knowing of the membership.

    ``known_at``: when it was known here that it does; NEVER until then.
    """

    primary: str
    known_at: float = NEVER


class Freshness:
    """Keeps the words of all Stores."""

    def __init__(self) -> None:
        self._words: dict[str, _Word] = {}
        self._unsettled: dict[int, _Unsettled] = {}
        self._unsettled_of: dict[str, set[int]] = {}

    def changed(self, volume: int, primary: str) -> None:
        """A volume is new, or its membership is."""
        self._settle(volume)
        self._unsettled[volume] = _Unsettled(primary)
        self._unsettled_of.setdefault(primary, set()).add(volume)

    def said(
        self,
        store_id: str,
        looked_at: float,
        behind: Mapping[int, float | None],
        now: float,
        knows: Callable[[int], bool],
    ) -> None:
        """Take a Store's word.

        Parameters
        ----------
        looked_at: no later than when the Store looked.
        behind: volumes of which it has not told everything, and by how many seconds; None: nothing is known of them.
        knows: says of a volume whether the Store knows the membership that is in force.
        """
        word = self._words.setdefault(store_id, _Word())
        if looked_at >= word.fresh_at:
            word.fresh_at = looked_at
            word.behind = {
                volume: NEVER if lag is None else looked_at - max(0.0, lag) for volume, lag in behind.items()
            }
        for volume in list(self._unsettled_of.get(store_id, ())):
            unsettled = self._unsettled[volume]
            if looked_at >= unsettled.known_at > NEVER:
                self._settle(volume)
            elif unsettled.known_at == NEVER and knows(volume):
                unsettled.known_at = now

    def fresh_at(self, store_id: str) -> float:
        """Return up to when a Store has told everything, apart from single volumes."""
        word = self._words.get(store_id)
        return word.fresh_at if word else NEVER

    def doubtful(self, led: Mapping[str, Iterable[int]], now: float) -> list[int] | None:
        """Return the doubtful volumes in their order; None when these are too many to be named.

        Parameters
        ----------
        led: the volumes that each Store leads; those of a Store whose word is fresh are not walked.
        """
        limit = now - FRESH_SECONDS
        found = set(self._unsettled)
        for store_id, volumes in led.items():
            word = self._words.get(store_id)
            if word is None or word.fresh_at < limit:
                found.update(volumes)
            else:
                found.update(volume for volume, fresh_at in word.behind.items() if fresh_at < limit)
            if len(found) > MAX_DOUBTFUL:
                return None
        return sorted(found)

    def _settle(self, volume: int) -> None:
        unsettled = self._unsettled.pop(volume, None)
        if unsettled is not None:
            self._unsettled_of[unsettled.primary].discard(volume)
