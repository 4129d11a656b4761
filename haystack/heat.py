"""Heat: how much is read, as decayed averages over a minute, ten minutes and an hour. Pure; time is an argument.

An average over the window τ is the mean of all that was seen, weighted by ``exp(-age / τ)``. What was seen begins with
the watching, so an average of something that is watched for five seconds is its true mean over these five seconds, and
not a sixtieth of it: ∫ rate(t)·exp(-(now - t)/τ) dt / ∫ exp(-(now - t)/τ) dt, both from the begin of the watching on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, expm1
from typing import Final

from haystack.units import KIB

Windows = tuple[float, float, float]

WINDOWS_SECONDS: Final[Windows] = (60.0, 600.0, 3600.0)
"""Time constants of the three averages."""

LOAD_BYTES: Final = 64 * KIB
"""Bytes that weigh as much as a read, whatever is read, in the one number by which decisions are made."""

_LEAST_SECONDS: Final = 1e-6
"""What is watched for less than this has no rates."""

ROW_NUMBERS: Final = 9
"""Numbers of a heat: reads, bytes and busy seconds a second, of each window."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happens in a second.

    Parameters
    ----------
    reads: photos read. bytes: bytes of photos sent.
    busy_seconds: time spent on reads, waiting for disks included; reads at the same time add up.
    """

    reads: float = 0.0
    bytes: float = 0.0
    busy_seconds: float = 0.0

    def __add__(self, other: Rates) -> Rates:
        return Rates(self.reads + other.reads, self.bytes + other.bytes, self.busy_seconds + other.busy_seconds)

    def load(self, load_bytes: float = LOAD_BYTES) -> float:
        """Return the one number for decisions: a read of ``load_bytes`` counts twice as much as an empty one."""
        return self.reads + self.bytes / load_bytes


@dataclass(frozen=True, slots=True)
class Heat:
    """The three averages of a copy, a volume or a machine. Heats of different things add up."""

    minute: Rates = Rates()
    ten_minutes: Rates = Rates()
    hour: Rates = Rates()

    def __add__(self, other: Heat) -> Heat:
        return Heat(self.minute + other.minute, self.ten_minutes + other.ten_minutes, self.hour + other.hour)

    def load(self, load_bytes: float = LOAD_BYTES) -> float:
        """Return the load by which decisions are made: that of the ten minutes."""
        return self.ten_minutes.load(load_bytes)

    @classmethod
    def of_row(cls, row: Sequence[float]) -> Heat:
        """Return the heat of :data:`ROW_NUMBERS` numbers: reads, bytes, busy seconds; of each window in turn."""
        return cls(Rates(*row[0:3]), Rates(*row[3:6]), Rates(*row[6:9]))


ZERO_HEAT: Final = Heat()


class Averages:
    """The decayed averages of three counters that only rise, but for restarts of whoever counts.

    Parameters
    ----------
    started_seconds: since when it is watched; the counters were 0 then.
    windows_seconds: time constants of the three averages.
    """

    __slots__ = ("_before", "_last_seconds", "_started_seconds", "_sums", "_windows_seconds")

    def __init__(self, started_seconds: float, windows_seconds: Windows = WINDOWS_SECONDS) -> None:
        self._windows_seconds = windows_seconds
        self._started_seconds = started_seconds
        self._last_seconds = started_seconds
        self._before = (0.0, 0.0, 0.0)
        self._sums = (0.0,) * ROW_NUMBERS

    def count(self, now_seconds: float, reads: float, bytes_: float, busy_seconds: float) -> None:
        """Take the counters as they are now; what came since the last time is spread evenly over the time since.

        A counter that went back began anew at 0. A clock that stands still, or goes back, leaves the growth to the
        next call.
        """
        elapsed_seconds = now_seconds - self._last_seconds
        if elapsed_seconds <= 0.0:
            return
        before = self._before
        self._before = (reads, bytes_, busy_seconds)
        self._last_seconds = now_seconds
        read_rate = (reads - before[0] if reads >= before[0] else reads) / elapsed_seconds
        byte_rate = (bytes_ - before[1] if bytes_ >= before[1] else bytes_) / elapsed_seconds
        busy_rate = (busy_seconds - before[2] if busy_seconds >= before[2] else busy_seconds) / elapsed_seconds
        # Spelled out: a Store does this for each volume that is read, twice a second.
        first, second, third = self._windows_seconds
        kept, kept_longer, kept_longest = (
            exp(-elapsed_seconds / first),
            exp(-elapsed_seconds / second),
            exp(-elapsed_seconds / third),
        )
        a, b, c, d, e, f, g, h, i = self._sums
        self._sums = (
            read_rate + (a - read_rate) * kept,
            byte_rate + (b - byte_rate) * kept,
            busy_rate + (c - busy_rate) * kept,
            read_rate + (d - read_rate) * kept_longer,
            byte_rate + (e - byte_rate) * kept_longer,
            busy_rate + (f - busy_rate) * kept_longer,
            read_rate + (g - read_rate) * kept_longest,
            byte_rate + (h - byte_rate) * kept_longest,
            busy_rate + (i - busy_rate) * kept_longest,
        )

    def row(self, now_seconds: float) -> tuple[float, ...]:
        """Return the averages as :meth:`Heat.of_row` reads them, as if nothing had come since the last count."""
        known_seconds = now_seconds - self._started_seconds
        if known_seconds < _LEAST_SECONDS:
            return (0.0,) * ROW_NUMBERS
        idle_seconds = max(0.0, now_seconds - self._last_seconds)
        first, second, third = self._windows_seconds
        x = -exp(-idle_seconds / first) / expm1(-known_seconds / first)
        y = -exp(-idle_seconds / second) / expm1(-known_seconds / second)
        z = -exp(-idle_seconds / third) / expm1(-known_seconds / third)
        a, b, c, d, e, f, g, h, i = self._sums
        return (a * x, b * x, c * x, d * y, e * y, f * y, g * z, h * z, i * z)

    def known_seconds(self, now_seconds: float) -> float:
        """Return for how long it is watched."""
        return max(0.0, now_seconds - self._started_seconds)
