"""The Caches as the Directory describes them (``/cluster/status``), and what their counters come to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haystack.client.errors import UnexpectedAnswer


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
    hit_bytes = counters.get("hitBytes", 0)
    served_bytes = hit_bytes + counters.get("missBytes", 0) + counters.get("passBytes", 0)
    return Ratios(hits / served if served else None, hit_bytes / served_bytes if served_bytes else None)


def fetch_milliseconds(counters: Mapping[str, float]) -> float | None:
    """Return how long a fetch from a Store took on average, None when there was none."""
    fetches = counters.get("fetches", 0)
    return counters.get("fetchMicroseconds", 0) / fetches / 1000 if fetches else None


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what was counted between two readings; all of the second when the Cache has begun anew."""
    if any(after.get(name, 0) < before.get(name, 0) for name in ("hits", "misses", "fetches")):
        return dict(after)
    return {name: value - before.get(name, 0) for name, value in after.items()}


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
