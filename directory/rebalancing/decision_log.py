"""What the Directory has decided by itself or for the operator, and why: the last of it, in memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_DECISIONS = 1_000
"""Decisions that are remembered."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Parameters
    ----------
    time_ms: unix time in milliseconds.
    by: ``operator`` or ``rebalance``, what runs by itself.
    what: in words, with what it is about. why: in words.
    volume: what it is about; 0: no single one.
    """

    time_ms: int
    by: str
    what: str
    why: str
    volume: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "timeMs": self.time_ms,
            "by": self.by,
            "what": self.what,
            "why": self.why,
            "volume": self.volume or None,
        }


class DecisionLog:
    """The last decisions.

    Parameters
    ----------
    wall_clock: unix seconds.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._last: deque[Decision] = deque(maxlen=MAX_DECISIONS)

    def note(self, by: str, what: str, why: str, volume: int = 0) -> None:
        """Remember a decision, and write it to the log."""
        self._last.append(Decision(int(self._wall_clock() * 1000), by, what, why, volume))
        log.info("%s: %s: %s", by, what, why)

    def latest(self, most: int) -> list[Decision]:
        """Return the last decisions, the newest first."""
        return list(self._last)[::-1][:most]
