"""The Caches as the Directory describes them, and what their counters come to, as tables and as rates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_size
from tools.output import Column

COLUMNS = (
    Column("cache"),
    Column("state"),
    Column("memory", right=True),
    Column("of", right=True),
    Column("photos", right=True),
    Column("requests", right=True),
    Column("hits", right=True),
    Column("by bytes", right=True),
    Column("from ssd", right=True),
    Column("evicted", right=True),
    Column("fetches", right=True),
    Column("took", right=True),
    Column("joined", right=True),
)
"""from ssd: hits that came from the second level. joined: requests that waited for a fetch under way already."""


SSD_COUNTERS = (
    "ssdEntries",
    "ssdBytes",
    "ssdHits",
    "ssdWrittenBytes",
    "ssdNotWritten",
    "ssdEvictions",
    "ssdFailures",
)


@dataclass(frozen=True, slots=True)
class CacheView:
    """One Cache; ``counters``: since its start, as docs/cache.md has them."""

    cache_id: str
    url: str
    admin_url: str
    state: str
    memory_bytes: int
    workers: int
    version: str
    reads_per_second: float
    counters: Mapping[str, float]
    document: Mapping[str, Any]

    @property
    def alive(self) -> bool:
        """Whether the Directory has heard of it lately."""
        return self.state == "alive"

    def count(self, name: str) -> int:
        """Return a counter; 0 when the Cache does not count that."""
        return int(self.counters.get(name, 0))


@dataclass(frozen=True, slots=True)
class Ratios:
    """Of what was served, the share that came from memory: by requests and by bytes; None when nothing was served."""

    requests: float | None
    bytes: float | None


def parse_caches(document: Mapping[str, Any]) -> tuple[CacheView, ...]:
    """Read the Caches of a Directory's status; one of before there were Caches has none. Raises UnexpectedAnswer."""
    try:
        return tuple(_view(one) for one in document.get("Caches") or ())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"the Directory's list of Caches is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


def ratios(counters: Mapping[str, float]) -> Ratios:
    """Return the hit ratios of counters, or of differences of counters.

    What could not be found anywhere counts as no request: there was nothing to keep.
    """
    hits = counters.get("hits", 0) + counters.get("stale", 0)
    served = hits + counters.get("misses", 0) + counters.get("passes", 0)
    hit_bytes = counters.get("hitBytes", 0) + counters.get("staleBytes", 0)
    served_bytes = hit_bytes + counters.get("missBytes", 0) + counters.get("passBytes", 0)
    return Ratios(hits / served if served else None, hit_bytes / served_bytes if served_bytes else None)


def ssd_share(counters: Mapping[str, float]) -> float | None:
    """Return the share of the hits that came from an SSD; None when none of them did."""
    from_ssd, hits = counters.get("ssdHits", 0), counters.get("hits", 0)
    return min(1.0, from_ssd / hits) if from_ssd and hits else None


def ssd_line(counters: Mapping[str, float], ssd: Mapping[str, Any]) -> str:
    """Say what a Cache's second level holds and does; ``ssd`` as its admin API has it."""
    if not ssd.get("on"):
        return f"{ssd.get('path')} is switched off: {ssd.get('why')}"
    count = {name: int(counters.get(name, 0)) for name in SSD_COUNTERS}
    return (
        f"{ssd.get('path')} has {count['ssdEntries']:,} photos, {format_size(count['ssdBytes'])} of "
        f"{format_size(int(ssd.get('sizeBytes') or 0))}; {count['ssdHits']:,} hits, "
        f"{format_size(count['ssdWrittenBytes'])} written, {count['ssdNotWritten']:,} photos not (budget), "
        f"{count['ssdEvictions']:,} given up, {count['ssdFailures']:,} failures"
    )


def fetch_milliseconds(counters: Mapping[str, float]) -> float | None:
    """Return how long a fetch from a Store took on average, None when there was none."""
    fetches = counters.get("fetches", 0)
    return counters.get("fetchMicroseconds", 0) / fetches / 1000 if fetches else None


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what was counted between two readings; all of the second when the Cache has begun anew."""
    if any(after.get(name, 0) < before.get(name, 0) for name in ("hits", "misses", "fetches")):
        return dict(after)
    return {name: value - before.get(name, 0) for name, value in after.items()}


def row(view: CacheView) -> list[object]:
    """Return a Cache's line of the table."""
    found, took = ratios(view.counters), fetch_milliseconds(view.counters)
    return [
        view.url,
        view.state,
        format_size(view.count("usedBytes")),
        format_size(view.memory_bytes),
        f"{view.count('entries'):,}",
        f"{view.count('requests'):,}",
        percent(found.requests),
        percent(found.bytes),
        percent(ssd_share(view.counters)),
        f"{view.count('evictions'):,}",
        f"{view.count('fetches'):,}",
        "-" if took is None else f"{took:.1f} ms",
        f"{view.count('coalesced'):,}",
    ]


def percent(share: float | None) -> str:
    """Return a share for people."""
    return "-" if share is None else f"{share:.1%}"


@dataclass(frozen=True, slots=True)
class CacheRates:
    """What a Cache did between two readings, and how long that was."""

    view: CacheView
    seconds: float
    counted: Mapping[str, float]

    def per_second(self, name: str) -> float:
        """Return how often something was counted in a second."""
        return self.counted.get(name, 0) / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = ratios(self.counted)
        return {
            "cacheId": self.view.cache_id,
            "url": self.view.url,
            "state": self.view.state,
            "usedBytes": self.view.count("usedBytes"),
            "memoryBytes": self.view.memory_bytes,
            "hitRatio": found.requests,
            "byteHitRatio": found.bytes,
            "fetchMilliseconds": fetch_milliseconds(self.counted),
            "perSecond": {name: round(self.per_second(name), 2) for name in RATES},
        }


RATES = (
    "requests",
    "fetches",
    "coalesced",
    "evictions",
    "hitBytes",
    "missBytes",
    "passBytes",
    "ssdHits",
    "ssdWrittenBytes",
)

RATE_COLUMNS = (
    Column("cache"),
    Column("state"),
    Column("reads/s", right=True),
    Column("hits", right=True),
    Column("by bytes", right=True),
    Column("from ssd", right=True),
    Column("out/s", right=True),
    Column("fetches/s", right=True),
    Column("took", right=True),
    Column("joined/s", right=True),
    Column("evicted/s", right=True),
    Column("memory", right=True),
    Column("of", right=True),
)


class CacheWatch:
    """Turns readings of the Caches' counters into rates."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, Mapping[str, float]]] = {}

    def take(self, views: Sequence[CacheView], now_seconds: float) -> list[CacheRates]:
        """Return what was counted since the call before.

        Parameters
        ----------
        now_seconds: when the Directory answered, by a clock that never goes back.
        """
        found = []
        for view in views:
            # The counters are as old as the Cache's last heartbeat.
            at = now_seconds - float(view.document.get("lastSeenSecondsAgo") or 0.0)
            before_at, before = self._before.get(view.cache_id, (at, view.counters))
            found.append(CacheRates(view, at - before_at, difference(before, view.counters)))
            self._before[view.cache_id] = (at, view.counters)
        return found


def rate_row(rates: CacheRates) -> list[str]:
    """Return a Cache's line of ``haystack top``."""
    found, took = ratios(rates.counted), fetch_milliseconds(rates.counted)
    out_bytes = sum(rates.per_second(name) for name in ("hitBytes", "missBytes", "passBytes"))
    return [
        rates.view.url,
        rates.view.state,
        f"{rates.per_second('requests'):,.0f}",
        percent(found.requests),
        percent(found.bytes),
        percent(ssd_share(rates.counted)),
        format_size(int(out_bytes)),
        f"{rates.per_second('fetches'):,.1f}",
        "-" if took is None else f"{took:.1f} ms",
        f"{rates.per_second('coalesced'):,.1f}",
        f"{rates.per_second('evictions'):,.1f}",
        format_size(rates.view.count("usedBytes")),
        format_size(rates.view.memory_bytes),
    ]


def _view(document: Mapping[str, Any]) -> CacheView:
    return CacheView(
        cache_id=str(document["cacheId"]),
        url=str(document["url"]),
        admin_url=str(document["adminUrl"]),
        state=str(document["state"]),
        memory_bytes=int(document["memoryBytes"]),
        workers=int(document["workers"]),
        version=str(document["version"]),
        reads_per_second=float(document["readsPerSecond"]),
        counters={str(name): float(value) for name, value in document["counters"].items()},
        document=document,
    )
