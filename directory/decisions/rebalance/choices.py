"""Steps that copy bytes, as they are weighed against each other: how much load each takes off for a byte."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from directory.decisions.rebalance.state import State
from directory.decisions.rebalance.views import StepKind


@dataclass(frozen=True, slots=True)
class Taste:
    """What is preferred among steps; which is best depends on the snapshot.

    Parameters
    ----------
    copy_worth: what the gain of a temporary copy counts for: it takes up space.
    tight: a copy goes to the hottest machine that can carry it, not to the coldest: that keeps room for larger ones.
    """

    copy_worth: float = 0.8
    tight: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A possible step. ``score``: gain for each byte; ``moved``: load that the target gets."""

    kind: StepKind
    v: int
    source: int
    target: int
    gain: float
    moved: float
    score: float
    other: int = -1

    def is_better(self, other: Choice | None) -> bool:
        """More gain a byte; of equals the one that moves less load."""
        if other is None or self.score > other.score * (1 + 1e-9):
            return True
        return self.score >= other.score * (1 - 1e-9) and self.moved < other.moved * (1 - 1e-9)


class Prices:
    """Says which steps win more than they cost, and why others are left out.

    Attributes
    ----------
    obstacles: why machines above the aim could not be relieved, and how often that was.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self.obstacles: Counter[str] = Counter()

    def worthwhile(self, choice: Choice) -> Choice | None:
        """Return the step if it wins more than it costs."""
        state, settings = self._state, self._state.settings
        size_bytes = state.sizes[choice.v] + (state.sizes[choice.other] if choice.other >= 0 else 0)
        if choice.gain * settings.payback_seconds >= 2 * size_bytes / settings.bytes_per_load:
            return choice
        self.obstacles["what a move would win is less than what it costs"] += 1
        return None
