"""The clock of a Cache: one for all its processes, which goes on while the machine sleeps.

What may be vouched for depends on how long ago something was heard. A machine that was suspended must not believe
afterwards that no time has passed, so this is CLOCK_BOOTTIME and not CLOCK_MONOTONIC.
"""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since the machine was started, those that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now_ns() -> int:
    """As :func:`now`, in whole nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
