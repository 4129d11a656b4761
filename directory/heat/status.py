"""What ``/cluster/heat`` answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from heapq import nlargest
from typing import Any

from directory.heat.reported import CopyHeat, HotPhoto
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.heat import WINDOWS_SECONDS, ZERO_HEAT, Heat, Rates

WINDOW_NAMES = ("1m", "10m", "1h")
"""Names of :data:`haystack.heat.WINDOWS_SECONDS` in answers."""


def heat_document(service: Service, limit: int) -> dict[str, Any]:
    """Return the hottest volumes and photos, at most ``limit`` of each, and all machines.

    Copies on Stores that are not alive are left out: nobody reads there.
    """
    alive = {store_id for store_id in service.cluster.stores if service.cluster.alive(store_id, service.clock())}
    loads: defaultdict[int, float] = defaultdict(float)
    for store_id, volume, copy in service.heat.rows():
        if store_id in alive and volume in service.cluster.records:
            loads[volume] += copy.load(service.heat.load_bytes)
    hottest = nlargest(
        limit, (volume for volume, load in loads.items() if load > 0), key=lambda one: (loads[one], -one)
    )
    machines = [_machine(service, store_id, alive=store_id in alive) for store_id in service.cluster.stores]
    photos = service.heat.photos(limit, service.clock())
    urls = {state.beat.cache_id: state.beat.url for state, _ in service.caches.states()}
    urls |= {store_id: store.document.url for store_id, store in service.cluster.stores.items()}
    living = [service.heat.machine(store_id) for store_id in alive]
    return {
        "windowsSeconds": list(WINDOWS_SECONDS),
        "loadBytes": service.heat.load_bytes,
        "total": _heat(sum(living, ZERO_HEAT)),
        "machines": sorted(machines, key=lambda one: (-one["load"], one["url"])),
        "volumes": [_volume(service, volume, alive) for volume in hottest],
        "photos": [_photo(service, photo, urls) for photo in photos],
    }


def _machine(service: Service, store_id: str, *, alive: bool) -> dict[str, Any]:
    store = service.cluster.stores[store_id]
    heat = service.heat.machine(store_id) if alive else ZERO_HEAT
    return {
        "storeId": store_id,
        "url": store.document.url,
        "dataCenter": store.document.data_center,
        "rack": store.document.rack,
        "state": service.cluster.liveness(store_id, service.clock()).value,
        "knownSeconds": round(service.heat.known_seconds(store_id, service.clock()) if alive else 0.0, 1),
        "load": _figure(heat.load(service.heat.load_bytes)),
        "heat": _heat(heat),
    }


def _volume(service: Service, volume: int, alive: set[str]) -> dict[str, Any]:
    record = service.cluster.records[volume]
    stores = [store_id for store_id in record.members if store_id in service.cluster.stores]
    heats = {one: service.heat.copy(one, volume) if one in alive else None for one in stores}
    heat = sum((copy.heat for copy in heats.values() if copy), ZERO_HEAT)
    return {
        "volume": volume,
        "load": _figure(heat.load(service.heat.load_bytes)),
        "heat": _heat(heat),
        "sizeBytes": max((_size_bytes(service, one, volume) for one in stores), default=0),
        "copies": [_copy(service, record, store_id, copy) for store_id, copy in heats.items()],
    }


def _copy(service: Service, record: VolumeRecord, store_id: str, copy: CopyHeat | None) -> dict[str, Any]:
    heat = copy.heat if copy else ZERO_HEAT
    return {
        "storeId": store_id,
        "url": service.cluster.stores[store_id].document.url,
        "inSync": store_id in record.in_sync,
        "weight": round(record.weight_of(store_id), 3),
        "knownSeconds": round(service.clock() - copy.since_seconds, 1) if copy else 0.0,
        "load": _figure(heat.load(service.heat.load_bytes)),
        "heat": _heat(heat),
    }


def _size_bytes(service: Service, store_id: str, volume: int) -> int:
    store = service.cluster.stores.get(store_id)
    return store.volumes[volume].size_bytes if store is not None and volume in store.volumes else 0


def _photo(service: Service, hot: HotPhoto, urls: Mapping[str, str]) -> dict[str, Any]:
    photo = service.photo(hot.photo_id)
    return {
        "photo": f"{hot.photo_id:x}",
        "volume": photo.volume if photo else None,
        "readsPerSecond": _figure(hot.reads_per_second),
        "sources": [
            {
                "id": source_id,
                "url": urls.get(source_id),
                "readsPerSecond": _figure(rate),
            }
            for source_id, rate in sorted(hot.by_source.items(), key=lambda one: -one[1])
        ],
    }


def _heat(heat: Heat) -> dict[str, Any]:
    return dict(zip(WINDOW_NAMES, map(_rates, (heat.minute, heat.ten_minutes, heat.hour)), strict=True))


def _rates(rates: Rates) -> dict[str, float]:
    return {
        "readsPerSecond": _figure(rates.reads),
        "bytesPerSecond": _figure(rates.bytes),
        "busySecondsPerSecond": _figure(rates.busy_seconds),
    }


def _figure(value: float) -> float:
    """Return it with four digits that count."""
    return float(f"{value:.4g}")
