"""Rates of Stores, from two readings of their counters (``/metrics``). Pure, but for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from haystack import heat

PREFIX = "haystack_store_"
OPERATIONS = ("read", "write", "delete")

_LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Buckets = Mapping[float, float]
"""Upper bound in seconds → how many requests took at most so long."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one Store's counters.

    Parameters
    ----------
    at_seconds: when it was read, by a clock that never goes back.
    requests, buckets: by operation (read, write, delete).
    volume_reads, volume_writes: by volume.
    """

    at_seconds: float
    requests: Mapping[str, float]
    buckets: Mapping[str, Buckets]
    received_bytes: float
    sent_bytes: float
    volume_reads: Mapping[int, float]
    volume_writes: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two readings, each second; ``p99_seconds`` by operation, None when there was nothing."""

    requests: Mapping[str, float]
    p99_seconds: Mapping[str, float | None]
    received_bytes: float
    sent_bytes: float
    volume_reads: Mapping[int, float]
    volume_writes: Mapping[int, float]

    @property
    def load(self) -> float:
        """The load of the reads, as it is when heat is meant, but of this time alone."""
        return heat.Rates(self.requests["read"], self.sent_bytes).load()


def parse_sample(page: str, at_seconds: float) -> Sample:
    """Read a page in Prometheus' text format; what is not known is left aside."""
    requests = dict.fromkeys(OPERATIONS, 0.0)
    buckets: dict[str, dict[float, float]] = {operation: {} for operation in OPERATIONS}
    totals = {"received_bytes": 0.0, "sent_bytes": 0.0}
    by_volume: dict[str, dict[int, float]] = {"volume_reads": {}, "volume_writes": {}}
    for name, labels, value in _lines(page):
        operation = labels.get("operation", "")
        if name == "request_duration_seconds_bucket" and operation in buckets:
            buckets[operation][float(labels["le"])] = value
        elif name == "request_duration_seconds_count" and operation in requests:
            requests[operation] = value
        elif name.removesuffix("_total") in totals:
            totals[name.removesuffix("_total")] = value
        elif name.removesuffix("_total") in by_volume and labels.get("volume", "").isdecimal():
            by_volume[name.removesuffix("_total")][int(labels["volume"])] = value
    return Sample(
        at_seconds,
        requests,
        buckets,
        totals["received_bytes"],
        totals["sent_bytes"],
        by_volume["volume_reads"],
        by_volume["volume_writes"],
    )


def rates(before: Sample, after: Sample) -> Rates:
    """Return what happened between two readings. Counters that went back (a restart) count from 0."""
    seconds = max(after.at_seconds - before.at_seconds, 1e-6)
    return Rates(
        requests={name: _more(before.requests[name], after.requests[name]) / seconds for name in OPERATIONS},
        p99_seconds={name: p99(before.buckets[name], after.buckets[name]) for name in OPERATIONS},
        received_bytes=_more(before.received_bytes, after.received_bytes) / seconds,
        sent_bytes=_more(before.sent_bytes, after.sent_bytes) / seconds,
        volume_reads=_each(before.volume_reads, after.volume_reads, seconds),
        volume_writes=_each(before.volume_writes, after.volume_writes, seconds),
    )


def p99(before: Buckets, after: Buckets) -> float | None:
    """Return the upper bound of the bucket that the slowest hundredth begins in; None when nothing happened."""
    counts = {bound: _more(before.get(bound, 0.0), count) for bound, count in after.items()}
    total = counts.get(float("inf"), 0.0)
    if total <= 0:
        return None
    return next(bound for bound in sorted(counts) if counts[bound] >= 0.99 * total)


def hottest(rates_of_stores: Iterable[Rates], most: int) -> list[tuple[int, float, float]]:
    """Return the volumes with most requests over all Stores: volume, reads and writes a second."""
    reads: dict[int, float] = {}
    writes: dict[int, float] = {}
    for one in rates_of_stores:
        for volume, rate in one.volume_reads.items():
            reads[volume] = reads.get(volume, 0.0) + rate
        for volume, rate in one.volume_writes.items():
            writes[volume] = writes.get(volume, 0.0) + rate
    rows = [(volume, reads.get(volume, 0.0), writes.get(volume, 0.0)) for volume in reads.keys() | writes.keys()]
    busy = [row for row in rows if row[1] or row[2]]
    return sorted(busy, key=lambda row: (-row[1] - row[2], row[0]))[:most]


def _lines(page: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for line in page.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or not match["name"].startswith(PREFIX):
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        yield match["name"].removeprefix(PREFIX), dict(_LABEL.findall(match["labels"] or "")), value


def _more(before: float, after: float) -> float:
    return after - before if after >= before else after


def _each(before: Mapping[int, float], after: Mapping[int, float], seconds: float) -> dict[int, float]:
    return {volume: _more(before.get(volume, 0.0), count) / seconds for volume, count in after.items()}
