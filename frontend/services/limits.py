"""How many requests are taken of whom: leaky buckets (GCRA), in the memory of this process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from frontend.services.errors import TooMany

MAX_KEYS = 100_000
"""Buckets that are remembered; the one longest unused is forgotten first, which is full again or nearly."""


@dataclass(frozen=True, slots=True)
class Rule:
    """So many requests in so many seconds; all of them may come at once."""

    name: str
    count: int
    window_seconds: int


ANY = Rule("any", 1200, 60)
WRITE = Rule("write", 300, 60)
SEARCH = Rule("search", 120, 60)
UPLOAD = Rule("upload", 600, 3600)
SIGN_UP = Rule("sign-up", 20, 3600)
LOG_IN_ADDRESS = Rule("log-in-address", 30, 300)
LOG_IN_ACCOUNT = Rule("log-in-account", 10, 300)


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands with a rule.

    Parameters
    ----------
    remaining: requests that would be taken at once.
    reset_seconds: until all of them would be.
    """

    rule: Rule
    remaining: int
    reset_seconds: int


class Limits:
    """Counts requests.

    Parameters
    ----------
    on: False lets all pass.
    now: a clock that never goes back, in seconds.
    """

    def __init__(self, *, on: bool = True, max_keys: int = MAX_KEYS, now: Callable[[], float] = time.monotonic) -> None:
        self._on = on
        self._max_keys = max_keys
        self._now = now
        self._full_at: OrderedDict[tuple[str, str], float] = OrderedDict()

    def take(self, rule: Rule, key: str) -> Standing:
        """Count one request of somebody. Raises TooMany."""
        now = self._now()
        if not self._on:
            return Standing(rule, rule.count, 0)
        each = rule.window_seconds / rule.count
        empty_at = max(self._full_at.get((rule.name, key), now), now)
        behind = empty_at + each - now
        if behind > rule.window_seconds * (1 + 1e-9):
            wait_seconds = max(1, math.ceil(behind - rule.window_seconds))
            raise TooMany(
                f"more than {rule.count:,} requests of this kind in {rule.window_seconds:,} s; "
                f"try again in {wait_seconds} s",
                wait_seconds,
            )
        self._full_at[rule.name, key] = now + behind
        self._full_at.move_to_end((rule.name, key))
        while len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)
        remaining = int((rule.window_seconds - behind) / each + 1e-6)
        return Standing(rule, remaining, math.ceil(behind))
