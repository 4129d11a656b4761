"""What Caches say to the Directory, and what Stores say for their sake, read from JSON and checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from directory.fields import MAX_U64, Fields
from directory.heat.messages import parse_hits
from directory.settings import MAX_VOLUMES_PER_STORE
from haystack.errors import InvalidRequest
from haystack.fid import MAX_VOLUME_ID

MAX_COUNTERS = 200
MAX_COUNTER_NAME_CHARS = 60
MAX_HOT = 200
MAX_RATE = 1e12
MAX_TOKEN_CHARS = 60


@dataclass(frozen=True, slots=True)
class CacheBeat:
    """A Cache's heartbeat; it says everything each time, so that it registers, too.

    Parameters
    ----------
    memory_bytes: what it may keep.
    counters: since its start, by name; shown to people, and summed up.
    hot: photo ids that it is asked for most, with their reads a second.
    hits: reads by photo since the last heartbeat, about.
    """

    cache_id: str
    url: str
    public_url: str
    admin_url: str
    memory_bytes: int
    workers: int
    version: str
    started_ms: int
    counters: Mapping[str, float]
    hot: tuple[tuple[int, float], ...]
    hits: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StoreWord:
    """How far a Store has told what it has acknowledged, see :mod:`directory.decisions.freshness`.

    Parameters
    ----------
    token: that it was given last; empty for none.
    age_seconds: from its arrival there to the moment of which this is true; may be below zero.
    behind: volumes of which it has not told everything, by how many seconds; None: unknown.
    """

    store_id: str
    token: str
    age_seconds: float
    behind: dict[int, float | None]


def parse_cache_beat(document: Any) -> CacheBeat:
    """Read a Cache's heartbeat. Raises InvalidRequest."""
    fields = Fields(document, "heartbeat of a Cache")
    memory_bytes = fields.number("memoryBytes")
    if memory_bytes == 0:
        raise fields.wrong("memoryBytes", "more than 0", memory_bytes)
    url = fields.address("url")
    return CacheBeat(
        cache_id=fields.uuid("cacheId"),
        url=url,
        public_url=fields.public_address("publicUrl", url),
        admin_url=fields.address("adminUrl"),
        memory_bytes=memory_bytes,
        workers=fields.number("workers", default=0),
        version=fields.text("version", ""),
        started_ms=fields.number("startedMs", default=0),
        counters=_counters(document),
        hot=tuple(_hot(item) for item in fields.items("hot", MAX_HOT)),
        hits=parse_hits(fields),
    )


def parse_cache_id(document: Any) -> str:
    """Read which Cache takes its leave. Raises InvalidRequest."""
    return Fields(document, "leave of a Cache").uuid("cacheId")


def parse_word(document: Any) -> StoreWord:
    """Read a Store's word. Raises InvalidRequest."""
    fields = Fields(document, "word of a Store")
    token = fields.text("token", "")
    if len(token) > MAX_TOKEN_CHARS:
        raise fields.wrong("token", "one that this Directory gave", token)
    return StoreWord(
        store_id=fields.uuid("storeId"),
        token=token,
        age_seconds=_number(document.get("ageMs", 0), "ageMs") / 1000,
        behind=dict(_behind(item) for item in fields.items("behind", MAX_VOLUMES_PER_STORE)),
    )


def _counters(document: Any) -> dict[str, float]:
    counters = document.get("counters", {})
    if not isinstance(counters, dict) or len(counters) > MAX_COUNTERS:
        raise InvalidRequest(
            f"heartbeat of a Cache: field 'counters' must be an object of at most {MAX_COUNTERS} fields"
        )
    return {str(name)[:MAX_COUNTER_NAME_CHARS]: _number(value, f"counters.{name}") for name, value in counters.items()}


def _hot(item: Any) -> tuple[int, float]:
    try:
        photo, rate = item
        photo_id = int(photo, 16)
    except (TypeError, ValueError):
        photo_id, rate = -1, 0
    if not 0 <= photo_id <= MAX_U64:
        raise InvalidRequest(f"field 'hot' must be a list of [photo id hex, reads a second], got {str(item)[:100]!r}")
    return photo_id, max(0.0, _number(rate, "hot"))


def _behind(item: Any) -> tuple[int, float | None]:
    try:
        volume, lag_ms = item
    except (TypeError, ValueError):
        volume, lag_ms = None, None
    if type(volume) is not int or not 1 <= volume <= MAX_VOLUME_ID:
        raise InvalidRequest(
            f"field 'behind' must be a list of [volume, milliseconds or null], got {str(item)[:100]!r}"
        )
    return volume, None if lag_ms is None else _number(lag_ms, "behind") / 1000


def _number(value: Any, name: str) -> float:
    # NaN compares false with everything, so it is refused here, too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_RATE <= value <= MAX_RATE * 1e6:
        raise InvalidRequest(f"field {name!r:.80} must be a number, got {str(value)[:100]!r}")
    return value
