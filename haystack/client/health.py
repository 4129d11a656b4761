"""Which Stores failed lately, so that they are tried last for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

FIRST_PENALTY_SECONDS = 5.0
MOST_PENALTY_SECONDS = 60.0
MAX_REMEMBERED = 10_000

_Place = TypeVar("_Place")


@dataclass(frozen=True, slots=True)
class _Trouble:
    until_seconds: float
    penalty_seconds: float


class StoreHealth:
    """Remembers failures by address: of a Store, or of a volume there.

    What fails again when its time is over is avoided twice as long.

    Parameters
    ----------
    now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        *,
        first_penalty_seconds: float = FIRST_PENALTY_SECONDS,
        most_penalty_seconds: float = MOST_PENALTY_SECONDS,
        max_remembered: int = MAX_REMEMBERED,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_penalty_seconds = first_penalty_seconds
        self._most_penalty_seconds = most_penalty_seconds
        self._max_remembered = max_remembered
        self._now = now
        self._troubles: OrderedDict[str, _Trouble] = OrderedDict()

    def failed(self, address: str) -> None:
        """Note a failure."""
        now_seconds = self._now()
        before = self._troubles.pop(address, None)
        penalty_seconds = self._first_penalty_seconds
        if before is not None:
            # Requests that were under way together fail together; that is one failure.
            again = now_seconds >= before.until_seconds
            penalty_seconds = before.penalty_seconds * 2 if again else before.penalty_seconds
        penalty_seconds = min(penalty_seconds, self._most_penalty_seconds)
        self._troubles[address] = _Trouble(now_seconds + penalty_seconds, penalty_seconds)
        while len(self._troubles) > self._max_remembered:
            self._troubles.popitem(last=False)

    def worked(self, address: str) -> None:
        """Forget the failures."""
        if self._troubles:
            self._troubles.pop(address, None)

    def suspect(self, address: str) -> bool:
        """Say whether it is to be avoided now."""
        trouble = self._troubles.get(address)
        return trouble is not None and self._now() < trouble.until_seconds

    def in_order(self, places: Sequence[_Place], addresses_of: Callable[[_Place], Sequence[str]]) -> list[_Place]:
        """Return the places with those that failed lately at the end, the longest ago first among them."""
        if not self._troubles:
            return list(places)
        return sorted(places, key=lambda place: max(map(self._rank, addresses_of(place))))

    def _rank(self, address: str) -> float:
        return self._troubles[address].until_seconds if self.suspect(address) else float("-inf")
