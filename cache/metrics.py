"""The metrics of a Cache, from the board alone: as a page for Prometheus, and as counters in JSON."""

from __future__ import annotations

from typing import Any, Final

from cache.board import STATUS_CELL, Board, Cell, Counter, Histogram, KeeperCell
from haystack.metrics_page import MetricsPage

PREFIX: Final = "haystack_cache_"

_METHODS = (("GET", Counter.GET), ("HEAD", Counter.HEAD), ("other", Counter.OTHER))
_RESULTS = (
    ("hit", Counter.HITS, Counter.HIT_BYTES),
    ("miss", Counter.MISSES, Counter.MISS_BYTES),
    ("stale", Counter.STALE, Counter.STALE_BYTES),
    ("pass", Counter.PASSED, Counter.PASSED_BYTES),
)
_COUNTERS = (
    ("negative_answers", "Requests for what is known not to be there.", Counter.NEGATIVE),
    ("refused_requests", "Requests that were refused: too many waited, or nobody answered.", Counter.REFUSED),
    ("connections", "Connections accepted.", Counter.CONNECTIONS_TOTAL),
    ("connections_refused", "Connections refused because there were too many.", Counter.CONNECTIONS_REFUSED),
    ("timeouts", "Connections closed because the client was too slow.", Counter.TIMEOUTS),
    ("broken_answers", "Answers that were cut off.", Counter.BROKEN_OFF),
)
_GAUGES = (
    ("open_connections", "Connections open now.", Counter.CONNECTIONS_OPEN),
    ("waiting_requests", "Requests that wait for a Store.", Counter.WAITING),
    ("passing_requests", "Requests that are being passed through.", Counter.PASSING),
    ("hot_records", "Request lines that the workers remember.", Counter.HOT_RECORDS),
)
_KEEPER_COUNTERS = (
    ("fetches", "Photos fetched from Stores.", KeeperCell.FETCHES),
    ("fetch_failures", "Fetches that no Store answered.", KeeperCell.FETCH_FAILURES),
    ("fetched_bytes", "Bytes of needles fetched.", KeeperCell.FETCHED_BYTES),
    ("failovers", "Stores that did not answer a fetch, so that another one was asked.", KeeperCell.FAILOVERS),
    ("coalesced_requests", "Questions that joined a fetch under way.", KeeperCell.COALESCED),
    (
        "revalidations",
        "Photos that Stores were asked about, because they might have been deleted.",
        KeeperCell.REVALIDATIONS,
    ),
    ("not_kept", "Photos that were passed through: too large, not admitted, or no room.", KeeperCell.NOT_KEPT),
    ("changes_taken", "Changes that the Directory's feed told of.", KeeperCell.DELETES_TAKEN),
    ("purged", "Photos purged by operators.", KeeperCell.PURGED),
    ("evictions", "Photos that made room for others.", KeeperCell.EVICTIONS),
    ("evicted_bytes", "Bytes of these photos.", KeeperCell.EVICTED_BYTES),
    ("ssd_hits", "Photos that were not in memory, but on the SSD.", KeeperCell.SSD_HITS),
    ("ssd_hit_bytes", "Bytes of these photos.", KeeperCell.SSD_HIT_BYTES),
    ("ssd_written", "Photos written to the SSD.", KeeperCell.SSD_WRITTEN),
    ("ssd_written_bytes", "Bytes written to the SSD.", KeeperCell.SSD_WRITTEN_BYTES),
    ("ssd_not_written", "Photos beyond the SSD's budget, or its speed.", KeeperCell.SSD_NOT_WRITTEN),
    ("ssd_evictions", "Photos on the SSD that made room for others.", KeeperCell.SSD_EVICTIONS),
    ("ssd_failures", "Reads and writes of the SSD that failed, were wrong, or took too long.", KeeperCell.SSD_FAILURES),
    ("hits_lost", "Hits that the policy did not hear of.", KeeperCell.HITS_LOST),
)
_KEEPER_GAUGES = (
    ("memory_limit_bytes", "Memory that the node may use.", KeeperCell.LIMIT_BYTES),
    ("memory_used_bytes", "Memory that the node uses, bookkeeping and processes included.", KeeperCell.USED_BYTES),
    ("photo_bytes", "Bytes of photos that are kept.", KeeperCell.DATA_BYTES),
    ("photos", "Photos that are kept.", KeeperCell.ENTRIES),
    ("waiting_bytes", "Memory that was given up and is still being read.", KeeperCell.WAITING_BYTES),
    ("ssd_photos", "Photos on the SSD.", KeeperCell.SSD_ENTRIES),
    ("ssd_bytes", "Bytes of the photos on the SSD.", KeeperCell.SSD_BYTES),
    ("ssd_limit_bytes", "Size of the file on the SSD; 0 without one.", KeeperCell.SSD_LIMIT_BYTES),
    ("ssd_on", "1 while the SSD is used; 0 without one, or when it was switched off.", KeeperCell.SSD_ON),
    ("fetching", "Photos that are being fetched.", KeeperCell.FETCHING),
)


def render(board: Board, now_ns: int) -> bytes:
    """The page.

    Parameters
    ----------
    now_ns: by :mod:`cache.clock`.
    """
    page = MetricsPage(PREFIX)
    page.counter("requests", "Requests.", ((f'method="{name}"', board.sum(cell)) for name, cell in _METHODS))
    page.counter(
        "results",
        "Photos answered, by where they came from.",
        ((f'x="{x}"', board.sum(cell)) for x, cell, _ in _RESULTS),
    )
    page.counter("result_bytes", "Bytes of these photos.", ((f'x="{x}"', board.sum(cell)) for x, _, cell in _RESULTS))
    page.counter(
        "responses",
        "Answers by HTTP status.",
        ((f'status="{status}"', board.sum(cell)) for status, cell in STATUS_CELL.items()),
    )
    page.histogram(
        "request_duration_seconds",
        "Time from a request's last byte to its answer; of plain hits every 16th is timed.",
        ((name, *board.histogram(kind)) for name, kind in (("hit", Histogram.HIT), ("miss", Histogram.MISS))),
        "x",
    )
    page.histogram("fetch_duration_seconds", "Time that a fetch took.", [("all", *board.fetch_histogram())], "fetch")
    for name, help_text, cell in _COUNTERS:
        page.counter(name, help_text, [("", board.sum(cell))])
    for name, help_text, cell in _GAUGES:
        page.gauge(name, help_text, [("", board.sum(cell))])
    for name, help_text, keeper_cell in _KEEPER_COUNTERS:
        page.counter(name, help_text, [("", board.keeper(keeper_cell))])
    for name, help_text, keeper_cell in _KEEPER_GAUGES:
        page.gauge(name, help_text, [("", board.keeper(keeper_cell))])
    running = sum(1 for worker in range(board.workers) if board.cells[board.base(worker) + Counter.PID])
    page.gauge("workers", "Worker processes that run.", [("", running)])
    page.counter("worker_restarts", "Workers that died and were started again.", [("", board.cells[Cell.RESTARTS])])
    page.gauge(
        "vouching",
        "1 while the Directory's feed is fresh; otherwise Stores are asked about each photo.",
        [("", int(now_ns < board.cells[Cell.FRESH_UNTIL_NS]))],
    )
    return page.bytes()


def counters(board: Board) -> dict[str, int]:
    """What a heartbeat and the admin API say: since the start, but for ``entries`` and ``usedBytes``,
    and those of the SSD."""
    total, keeper = board.sum, board.keeper
    return {
        "requests": total(Counter.GET) + total(Counter.HEAD),
        "hits": total(Counter.HITS),
        "misses": total(Counter.MISSES),
        "stale": total(Counter.STALE),
        "passes": total(Counter.PASSED),
        "negative": total(Counter.NEGATIVE),
        "refused": total(Counter.REFUSED),
        "hitBytes": total(Counter.HIT_BYTES),
        "missBytes": total(Counter.MISS_BYTES),
        "passBytes": total(Counter.PASSED_BYTES),
        "staleBytes": total(Counter.STALE_BYTES),
        "fetches": keeper(KeeperCell.FETCHES),
        "fetchMicroseconds": keeper(KeeperCell.FETCH_MICROSECONDS),
        "fetchFailures": keeper(KeeperCell.FETCH_FAILURES),
        "fetchedBytes": keeper(KeeperCell.FETCHED_BYTES),
        "failovers": keeper(KeeperCell.FAILOVERS),
        "coalesced": keeper(KeeperCell.COALESCED),
        "revalidations": keeper(KeeperCell.REVALIDATIONS),
        "evictions": keeper(KeeperCell.EVICTIONS),
        "evictedBytes": keeper(KeeperCell.EVICTED_BYTES),
        "purged": keeper(KeeperCell.PURGED),
        "notKept": keeper(KeeperCell.NOT_KEPT),
        "usedBytes": keeper(KeeperCell.USED_BYTES),
        "entries": keeper(KeeperCell.ENTRIES),
        "ssdHits": keeper(KeeperCell.SSD_HITS),
        "ssdHitBytes": keeper(KeeperCell.SSD_HIT_BYTES),
        "ssdWritten": keeper(KeeperCell.SSD_WRITTEN),
        "ssdWrittenBytes": keeper(KeeperCell.SSD_WRITTEN_BYTES),
        "ssdNotWritten": keeper(KeeperCell.SSD_NOT_WRITTEN),
        "ssdEvictions": keeper(KeeperCell.SSD_EVICTIONS),
        "ssdFailures": keeper(KeeperCell.SSD_FAILURES),
        "ssdEntries": keeper(KeeperCell.SSD_ENTRIES),
        "ssdBytes": keeper(KeeperCell.SSD_BYTES),
    }


def ratios(found: dict[str, int]) -> dict[str, float]:
    """Hit ratios of :func:`counters`; 0 when nothing was asked for."""
    photos = found["hits"] + found["misses"] + found["stale"] + found["passes"]
    size = found["hitBytes"] + found["missBytes"] + found["staleBytes"] + found["passBytes"]
    return {
        "hitRatio": found["hits"] / photos if photos else 0.0,
        "byteHitRatio": found["hitBytes"] / size if size else 0.0,
    }


def fetch_latency(board: Board) -> dict[str, Any]:
    """Quantiles of the time that fetches took, as upper bounds of their buckets; None without any."""
    buckets, _ = board.fetch_histogram()
    return {"p50Ms": _quantile_ms(buckets, 0.5), "p99Ms": _quantile_ms(buckets, 0.99)}


def _quantile_ms(buckets: list[int], share: float) -> float | None:
    total = sum(buckets)
    seen = 0
    for exponent, count in enumerate(buckets):
        seen += count
        if total and seen >= share * total:
            return float(2**exponent) / 1000
    return None
