"""What the Directory counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from directory.caches.metrics import CacheMetrics
from directory.compaction.compactor import Compactor
from directory.decisions.liveness import Liveness
from directory.heat.metrics import HeatMetrics
from directory.moves.metrics import MoveMetrics
from directory.moves.mover import Mover
from directory.rebalancing.metrics import RebalanceMetrics
from directory.rebalancing.rebalancer import Rebalancer
from directory.repair.healer import Healer
from directory.service import Service
from directory.status import copy_counts
from directory.storage.interface import Table

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one Directory, in a registry of their own."""

    def __init__(
        self, service: Service, healer: Healer, compactor: Compactor, mover: Mover, rebalancer: Rebalancer
    ) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "haystack_directory_requests", "Requests answered.", ["call", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "haystack_directory_request_seconds",
            "Time to answer a request.",
            ["call"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.needles = Counter(
            "haystack_directory_confirmed_needles",
            "Needles confirmed by Stores: stored, deleted, or unlisted (their key is another photo's).",
            ["outcome"],
            registry=self.registry,
        )
        self.registry.register(_State(service, healer))
        self.registry.register(CacheMetrics(service))
        self.registry.register(HeatMetrics(service))
        self.registry.register(_Compactions(compactor))
        self.registry.register(MoveMetrics(mover))
        self.registry.register(RebalanceMetrics(rebalancer))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Compactions(Collector):
    """What is won by compactions, and what they would win."""

    def __init__(self, compactor: Compactor) -> None:
        self._compactor = compactor

    def collect(self) -> list[Metric]:
        prefix, counts = "haystack_directory_", self._compactor.counts
        ended = CounterMetricFamily(f"{prefix}compactions", "Volumes compacted, with all copies.", labels=["outcome"])
        for outcome in ("done", "failed"):
            ended.add_metric([outcome], counts[outcome])
        planned = self._compactor.plan(None)
        gauges = {
            "compactions_under_way": ("Volumes that are being compacted or wait for it.", self._compactor.under_way),
            "garbage_bytes": ("What compactions would win at most, of one copy.", sum(o.gain_bytes for o in planned)),
            "compactions_blocked": (
                "Volumes with garbage that cannot be compacted now.",
                sum(bool(one.obstacle) for one in planned),
            ),
        }
        text = "Bytes won by compactions, of one copy."
        return [
            ended,
            CounterMetricFamily(f"{prefix}compactions_won_bytes", text, value=counts["wonBytes"]),
            *(GaugeMetricFamily(prefix + name, text, value=value) for name, (text, value) in gauges.items()),
        ]


class _State(Collector):
    """Gauges that are read from the state at each scrape."""

    def __init__(self, service: Service, healer: Healer) -> None:
        self._service = service
        self._healer = healer

    def collect(self) -> list[GaugeMetricFamily]:
        service = self._service
        now_seconds = service.clock()
        stores = GaugeMetricFamily("haystack_directory_stores", "Stores by liveness.", labels=["state"])
        states = [service.cluster.liveness(store_id, now_seconds) for store_id in service.cluster.stores]
        for state in Liveness:
            stores.add_metric([state.value], states.count(state))
        single = {
            "volumes": ("Logical volumes.", len(service.cluster.records)),
            "writable_volumes": ("Volumes that take photos now.", service.writable_count()),
            "photos": ("Photos in the map.", service.storage.count(Table.PHOTOS)),
            "misfit_volumes": (
                "Copies that are not used because they conflict with, or exceed, the volume of the same id.",
                sum(len(store.misfits) for store in service.cluster.stores.values()),
            ),
            "waiting_commits": ("Changes that wait to be written.", service.committer.waiting),
            "next_photo_id": ("The lowest photo id that may still be handed out.", service.ids.next_id),
        }
        copies = copy_counts(service, self._healer)
        single |= {
            "degraded_volumes": ("Volumes with fewer copies in sync than promised.", copies["volumesDegraded"]),
            "unavailable_volumes": ("Volumes without a copy in sync on a living Store.", copies["volumesUnavailable"]),
            "repairs_running": ("Copies that are being made or brought up to date.", copies["copiesRunning"]),
            "repairs_queued": ("Volumes whose repair waits for its turn.", len(self._healer.plan.next_volumes)),
            "repairs_blocked": (
                "Volumes that lack copies, and for which nothing can be done as things are.",
                sum(waiting.blocked for waiting in self._healer.plan.waiting),
            ),
            "memberships_to_tell": ("Memberships that Stores have yet to be told.", copies["membershipsWaiting"]),
        }
        gauges = [
            GaugeMetricFamily(f"haystack_directory_{name}", text, value=value) for name, (text, value) in single.items()
        ]
        return [stores, *gauges]
