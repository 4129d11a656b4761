"""Is a Store there? Judged by its last message alone."""

from __future__ import annotations

from enum import Enum


class Liveness(Enum):
    """UNKNOWN: silent since this Directory started, which a short while says nothing about the Store."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    DEAD = "dead"


def judge(
    last_seen_seconds: float | None, started_seconds: float, now_seconds: float, dead_after_seconds: float
) -> Liveness:
    """Return a Store's liveness. All times are of one monotonic clock.

    Parameters
    ----------
    last_seen_seconds: when its last message came, None when there was none since the start.
    started_seconds: when this Directory started to listen.
    dead_after_seconds: silence after which a Store counts as dead.
    """
    if last_seen_seconds is None:
        return Liveness.UNKNOWN if now_seconds - started_seconds <= dead_after_seconds else Liveness.DEAD
    return Liveness.ALIVE if now_seconds - last_seen_seconds <= dead_after_seconds else Liveness.DEAD
