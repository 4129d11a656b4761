"""What the Directory knows of the Caches, for Prometheus."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from directory.service import Service


class CacheMetrics(Collector):
    """Gauges that are read from the state at each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """Return them."""
        states = self._service.caches.states()
        feed = self._service.feed
        caches = GaugeMetricFamily("haystack_directory_caches", "Caches by liveness.", labels=["state"])
        living = sum(alive for _, alive in states)
        caches.add_metric(["alive"], living)
        caches.add_metric(["dead"], len(states) - living)
        doubtful = feed.doubtful()
        return [
            caches,
            GaugeMetricFamily(
                "haystack_directory_cache_memory_bytes",
                "Memory of the living Caches.",
                value=sum(state.beat.memory_bytes for state, alive in states if alive),
            ),
            CounterMetricFamily(
                "haystack_directory_cache_changes",
                "Changes told to the Caches: deletes, replaced photos, volumes in doubt, changes of locations.",
                value=feed.changes.sequence,
            ),
            GaugeMetricFamily(
                "haystack_directory_doubtful_volumes",
                "Volumes whose primary has not said lately that all deletes are told; all while there is no Cache.",
                value=len(self._service.cluster.records) if doubtful is None else len(doubtful),
            ),
        ]
