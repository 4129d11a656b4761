"""What rebalancing does, for Prometheus."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from directory.rebalancing.rebalancer import Rebalancer
from directory.rebalancing.run import DONE, FAILED, SKIPPED


class RebalanceMetrics(Collector):
    """Counters of runs, and how uneven the last plan found the cluster."""

    def __init__(self, rebalancer: Rebalancer) -> None:
        self._rebalancer = rebalancer

    def collect(self) -> list[Metric]:
        prefix, counts = "haystack_directory_rebalance_", self._rebalancer.counts
        steps = CounterMetricFamily(f"{prefix}steps", "Steps of rebalance runs that are over.", labels=["outcome"])
        for outcome in (DONE, FAILED, SKIPPED):
            steps.add_metric([outcome], counts[outcome])
        found: list[Metric] = [
            steps,
            CounterMetricFamily(f"{prefix}plans", "Rebalance plans made.", value=counts["plans"]),
            CounterMetricFamily(f"{prefix}runs", "Rebalance runs that are over.", value=counts["runs"]),
            CounterMetricFamily(f"{prefix}bytes", "Bytes that runs have copied.", value=counts["bytes"]),
            GaugeMetricFamily(f"{prefix}running", "Whether a run is under way.", value=self._rebalancer.running),
        ]
        if (last := self._rebalancer.last) is not None:
            text = "Load of the busiest Store as a multiple of the mean, as of the last plan."
            found.append(GaugeMetricFamily(f"{prefix}worst", text, value=last.worst_before))
        return found
