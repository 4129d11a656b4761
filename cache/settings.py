"""What a worker gets from its keeper, and how often the keeper does what it does."""

from __future__ import annotations

from dataclasses import dataclass

from haystack.config import CacheSettings
from haystack.worker_settings import NodeWorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(NodeWorkerSettings):
    """Settings of one worker.

    Parameters
    ----------
    hot_records: request lines that it may remember.
    max_waiting: requests of its clients that may wait for Stores.

    The secret is what signatures of URLs are checked by.
    """

    hot_records: int
    max_waiting: int

    @classmethod
    def of_cache(cls, cache: CacheSettings, *, port: int, worker: int, hot_records: int) -> WorkerSettings:
        """Settings of worker number ``worker`` of a Cache that listens on ``port``."""
        return cls.of_node(cache, port=port, worker=worker, hot_records=hot_records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the keeper does what it does. Production has the defaults; tests are in a hurry.

    Parameters
    ----------
    tick_seconds, idle_tick_seconds: hits are taken in, space is reclaimed, and workers see that the keeper lives; less
        often while nothing is fetched or waits to be reclaimed, since each time takes the core from a worker.
    publish_seconds: sizes and counters are put on the board; workers are looked after.
    worker_patience_seconds: a worker whose event loop does not turn for so long is killed.
    restart_first_seconds, restart_most_seconds, worker_stable_seconds: see :class:`haystack.workers.RestartTiming`.
    kill_margin_seconds: what a worker gets beyond its time for requests in flight before it is killed.
    """

    tick_seconds: float = 0.02
    idle_tick_seconds: float = 0.1
    publish_seconds: float = 0.5
    worker_patience_seconds: float = 10.0
    restart_first_seconds: float = 0.1
    restart_most_seconds: float = 10.0
    worker_stable_seconds: float = 60.0
    kill_margin_seconds: float = 1.0
