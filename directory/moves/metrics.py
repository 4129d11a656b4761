"""What moves do, for Prometheus."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from directory.moves.mover import Mover
from directory.moves.record import MoveState


class MoveMetrics(Collector):
    """Moves that ended since the start of this Directory, and those under way."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover

    def collect(self) -> list[Metric]:
        prefix, counts = "haystack_directory_", self._mover.counts
        ended = CounterMetricFamily(f"{prefix}moves", "Moves of copies that are over.", labels=["outcome"])
        for outcome in (MoveState.DONE, MoveState.CANCELLED, MoveState.FAILED):
            ended.add_metric([outcome.value], counts[outcome.value])
        return [
            ended,
            CounterMetricFamily(f"{prefix}moved_bytes", "Bytes that moves have copied.", value=counts["bytes"]),
            GaugeMetricFamily(
                f"{prefix}moves_under_way", "Moves that wait or are carried out.", value=len(self._mover.active)
            ),
        ]
