"""When to try again, and after how long. Pure, but for the one loop that sleeps."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from haystack.errors import HaystackError

TRANSIENT_STATUSES = frozenset({408, 429, 502, 503, 504, 507})
"""Answers that another server, or the same one later, may not give."""

MAX_RETRY_AFTER_SECONDS = 30.0
"""A server may ask for patience, not for eternity."""

MAX_RETRY_AFTER_DIGITS = 6

_Result = TypeVar("_Result")


class Transient(Exception):
    """An attempt failed in a way that may pass. It never leaves this package; the error that it carries does.

    Parameters
    ----------
    error: what to raise when no attempt is left.
    retry_after_seconds: what the server asked for; 0 when it asked for nothing.
    """

    def __init__(self, error: HaystackError, retry_after_seconds: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    The delay doubles from ``first_delay_seconds`` to ``most_delay_seconds``; half of it is random, so that clients that
    failed together do not come back together.

    Parameters
    ----------
    retries: attempts after the first one.
    now: a clock that never goes back, in seconds.
    uniform: returns a random number from 0 up to 1.
    sleep: waits for so many seconds.
    """

    retries: int = 6
    first_delay_seconds: float = 0.2
    most_delay_seconds: float = 5.0
    uniform: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.monotonic

    def delay_seconds(self, attempt: int, retry_after_seconds: float = 0.0) -> float:
        """Return how long to wait after attempt number ``attempt``, counted from 0, has failed."""
        full = min(self.first_delay_seconds * 2.0 ** min(attempt, 32), self.most_delay_seconds)
        return max(full * (0.5 + 0.5 * self.uniform()), min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS))

    async def run(self, attempt: Callable[[], Awaitable[_Result]], *, within_seconds: float = float("inf")) -> _Result:
        """Call ``attempt`` until it raises no :class:`Transient`; raise the last one's error when none is left.

        Parameters
        ----------
        within_seconds: no attempt begins later than this; the last one may end later.
        """
        number = 0
        begun_seconds = self.now()
        while True:
            try:
                return await attempt()
            except Transient as failure:
                delay_seconds = self.delay_seconds(number, failure.retry_after_seconds)
                over = self.now() - begun_seconds + delay_seconds > within_seconds
                if number >= self.retries or over:
                    raise failure.error from failure.__cause__
                await self.sleep(delay_seconds)
                number += 1


def retry_after_seconds(header: str | None) -> float:
    """Return the seconds of a Retry-After header; 0 when there is none, or a date, which our servers never send."""
    if header is None or not (header.isascii() and header.isdigit()) or len(header) > MAX_RETRY_AFTER_DIGITS:
        return 0.0
    return float(header)
