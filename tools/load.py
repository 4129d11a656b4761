"""A load of uploads, reads and deletes with verified payloads: what ``haystack bench`` does, without words."""

from __future__ import annotations

import math
import random
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from haystack.client import HaystackClient, WrongContent
from haystack.errors import HaystackError
from tools.output import Progress
from tools.pool import ClusterGone, FailureRun, run_pool

PERCENTILES = (50.0, 90.0, 99.0)
VARIANTS = 65_521
"""Payloads that differ; a prime, so that no pattern of the load meets a pattern of the payloads."""

MIME = "application/octet-stream"


class Payloads:
    """Bytes that look random, are made fast, and can be made again to compare.

    Parameters
    ----------
    size_bytes: of each payload. seed: decides over all of them.
    """

    def __init__(self, size_bytes: int, seed: int) -> None:
        self.size_bytes = size_bytes
        self._base = random.Random(seed).randbytes(size_bytes + VARIANTS)

    def make(self, number: int) -> bytes:
        """Return payload ``number``."""
        start = number * 7919 % VARIANTS
        return self._base[start : start + self.size_bytes]


@dataclass(slots=True)
class Phase:
    """What came of many operations of one kind."""

    name: str
    size_bytes: int = 0
    errors: int = 0
    first_error: str = ""
    aborted: str = ""
    seconds: float = 0.0
    latencies_seconds: array[float] = field(default_factory=lambda: array("d"))
    """Of those that succeeded."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        done = len(self.latencies_seconds)
        return {
            "name": self.name,
            "operations": done,
            "errors": self.errors,
            "firstError": self.first_error or None,
            "aborted": self.aborted or None,
            "seconds": round(self.seconds, 3),
            "perSecond": round(done / self.seconds, 1) if self.seconds else None,
            "bytesPerSecond": round(self.size_bytes / self.seconds) if self.seconds else None,
            "latencyMs": {name: round(value * 1000, 3) for name, value in summarize(self.latencies_seconds).items()},
        }


@dataclass(slots=True)
class Load:
    """One run.

    Parameters
    ----------
    concurrency: operations at a time.
    progress: is told of each operation.
    now: a clock that never goes back, in seconds.
    """

    client: HaystackClient
    payloads: Payloads
    concurrency: int
    progress: Progress
    now: Callable[[], float] = time.perf_counter

    async def write(self, count: int) -> tuple[Phase, dict[int, str]]:
        """Upload payloads 0 … count-1; returns the fids of those that were stored."""
        fids: dict[int, str] = {}

        async def one(number: int) -> int:
            payload = self.payloads.make(number)
            stored = await self.client.upload(payload, name=f"bench-{number}", mime=MIME)
            fids[number] = stored.fid
            return len(payload)

        return await self._phase("write", range(count), one), fids

    async def read(self, fids: dict[int, str], numbers: Sequence[int]) -> Phase:
        """Read these payloads and compare every byte."""

        async def one(number: int) -> int:
            data = await self.client.read(fids[number])
            if data != self.payloads.make(number):
                raise WrongContent(f"{fids[number]}: other bytes came back than were stored")
            return len(data)

        return await self._phase("read", numbers, one)

    async def delete(self, fids: dict[int, str]) -> Phase:
        """Delete what was uploaded."""
        return await self._phase("delete", list(fids), lambda number: self.client.delete(fids[number]))

    async def _phase(self, name: str, numbers: Iterable[int], work: Callable[[int], Awaitable[int]]) -> Phase:
        phase = Phase(name)
        failures = FailureRun()

        async def timed(number: int) -> None:
            started_seconds = self.now()
            try:
                size_bytes = await work(number)
            except HaystackError as error:
                phase.errors += 1
                phase.first_error = phase.first_error or str(error)
                failures.failed(error)
            else:
                phase.latencies_seconds.append(self.now() - started_seconds)
                phase.size_bytes += size_bytes
                failures.succeeded()
            self.progress.advance()

        started_seconds = self.now()
        try:
            await run_pool(_each(numbers), timed, self.concurrency)
        except ClusterGone as gone:
            phase.aborted = str(gone)
        phase.seconds = self.now() - started_seconds
        return phase


def choose_reads(stored: Sequence[int], count: int, seed: int) -> list[int]:
    """Return which payloads to read: all of them in random order, again and again, until there are ``count``."""
    dice = random.Random(seed)
    chosen: list[int] = []
    while stored and len(chosen) < count:
        chosen += dice.sample(stored, len(stored))
    return chosen[:count]


def summarize(latencies_seconds: Iterable[float]) -> dict[str, float]:
    """Return percentiles by nearest rank, and the largest; empty when there is nothing."""
    ordered = sorted(latencies_seconds)
    if not ordered:
        return {}
    values = {f"p{percent:g}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in PERCENTILES}
    return {**values, "max": ordered[-1]}


async def _each(numbers: Iterable[int]) -> AsyncIterator[int]:
    for number in numbers:
        yield number
