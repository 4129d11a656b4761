"""The load of Stores, for Prometheus."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from directory.heat.status import WINDOW_NAMES
from directory.service import Service


class HeatMetrics(Collector):
    """Gauges that are read from the state at each scrape. Of Stores only: they tell of their volumes themselves."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> list[GaugeMetricFamily]:
        """Return them."""
        prefix, labels = "haystack_directory_store_", ["store", "window"]
        load = GaugeMetricFamily(
            f"{prefix}load", "Reads a second, and as much for each 64 KiB a second, over 10 minutes.", labels=["store"]
        )
        rates = {
            "reads": GaugeMetricFamily(f"{prefix}reads_per_second", "Photos read.", labels=labels),
            "bytes": GaugeMetricFamily(f"{prefix}read_bytes_per_second", "Bytes of photos sent.", labels=labels),
            "busy_seconds": GaugeMetricFamily(f"{prefix}busy", "Time spent on reads, of each second.", labels=labels),
        }
        service = self._service
        for store_id, store in service.cluster.stores.items():
            if not service.cluster.alive(store_id, service.clock()):
                continue
            url, heat = store.document.url, service.heat.machine(store_id)
            load.add_metric([url], heat.load(service.heat.load_bytes))
            for window, found in zip(WINDOW_NAMES, (heat.minute, heat.ten_minutes, heat.hour), strict=True):
                for name, family in rates.items():
                    family.add_metric([url, window], getattr(found, name))
        return [load, *rates.values()]
