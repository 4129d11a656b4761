"""What a worker gets from its keeper, and how often the keeper does what it does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from haystack.config import CacheSettings
from haystack.workers import load_document, share_document

_CARRIED_OVER = (
    "host",
    "max_header_bytes",
    "max_connections",
    "header_timeout_seconds",
    "idle_timeout_seconds",
    "stall_timeout_seconds",
    "stop_timeout_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Settings of one worker. They travel as JSON in a memfd that the worker inherits.

    Parameters
    ----------
    port: where to listen on ``host``, together with the other workers (SO_REUSEPORT); never 0.
    worker: number of this worker, from 0.
    hot_records: request lines that it may remember.
    max_waiting: requests of its clients that may wait for Stores.
    secret: of the cluster, which signatures of URLs are checked by.

    The others are as in :class:`haystack.config.CacheSettings`.
    """

    host: str
    port: int
    worker: int
    hot_records: int
    max_waiting: int
    secret: bytes | None = field(default=None, repr=False)
    max_header_bytes: int
    max_connections: int
    header_timeout_seconds: float
    idle_timeout_seconds: float
    stall_timeout_seconds: float
    stop_timeout_seconds: float

    @classmethod
    def of_cache(cls, cache: CacheSettings, *, port: int, worker: int, hot_records: int) -> WorkerSettings:
        """Settings of worker number ``worker`` of a Cache that listens on ``port``."""
        return cls(
            port=port,
            worker=worker,
            hot_records=hot_records,
            max_waiting=cache.max_waiting,
            secret=cache.secret,
            **{name: getattr(cache, name) for name in _CARRIED_OVER},
        )

    def share(self) -> int:
        """Put the settings into a new memfd and return its descriptor, for :meth:`load` in the worker."""
        secret = None if self.secret is None else self.secret.hex()
        return share_document(dataclasses.asdict(self) | {"secret": secret})

    @classmethod
    def load(cls, fd: int) -> WorkerSettings:
        """Read the settings from an inherited descriptor and close it. Raises ValueError when they are not ours."""
        document: dict[str, Any] = load_document(fd)
        expected = {one.name for one in dataclasses.fields(cls)}
        if document.keys() != expected:
            raise ValueError(f"these are settings of another release: {sorted(document.keys() ^ expected)}")
        document["secret"] = None if document["secret"] is None else bytes.fromhex(document["secret"])
        return cls(**document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the keeper does what it does. Production has the defaults; tests are in a hurry.

    Parameters
    ----------
    tick_seconds: hits are taken in, space is reclaimed, and workers see that the keeper lives.
    publish_seconds: sizes and counters are put on the board; workers are looked after.
    worker_patience_seconds: a worker whose event loop does not turn for so long is killed.
    restart_first_seconds, restart_most_seconds, worker_stable_seconds: see :class:`haystack.workers.RestartTiming`.
    kill_margin_seconds: what a worker gets beyond its time for requests in flight before it is killed.
    """

    tick_seconds: float = 0.02
    publish_seconds: float = 0.5
    worker_patience_seconds: float = 10.0
    restart_first_seconds: float = 0.1
    restart_most_seconds: float = 10.0
    worker_stable_seconds: float = 60.0
    kill_margin_seconds: float = 1.0
