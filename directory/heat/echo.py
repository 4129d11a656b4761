"""What an average still tells of the time before another copy took its share of the reads.

The average of a copy that has just come shows its true rate at once, and that of the others goes down to theirs only in
the time that they are taken over. Added up as they are, they make a volume hotter than it is, by up to all of what the
new copy has, so a plan right after another would find new work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

TAU_WINDOWS = 10.0
"""The average by which decisions are made is taken over ten of a Store's windows; see ``haystack.heat``."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The load of one copy.

    Parameters
    ----------
    load: its average, from the beginning of the watching on.
    known_seconds: for how long it is watched.
    window_seconds: of its Store, see ``heat_window_seconds``.
    came_later: than its Store's watching began. Otherwise its Store has begun anew, and took no reads from the others.
    """

    load: float
    known_seconds: float
    window_seconds: float
    came_later: bool


def without_echo(copies: Mapping[str, Watched]) -> dict[str, float]:
    """Return the loads of a volume's copies so that their sum is that of the volume, as long as that is constant.

    A copy that came later counts as if it had been watched as long as the others, without a read until it came.
    """
    longest_seconds = max((one.known_seconds for one in copies.values()), default=0.0)
    return {store_id: one.load * _part(one, longest_seconds) for store_id, one in copies.items()}


def _part(one: Watched, longest_seconds: float) -> float:
    tau_seconds = TAU_WINDOWS * one.window_seconds
    if not one.came_later or one.known_seconds >= longest_seconds:
        return 1.0
    return math.expm1(-max(0.0, one.known_seconds) / tau_seconds) / math.expm1(-longest_seconds / tau_seconds)
