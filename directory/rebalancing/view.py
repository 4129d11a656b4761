"""The snapshot that a rebalance plan is made from, as this Directory sees the cluster now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping

from directory.cluster.cluster import Cluster
from directory.decisions.rebalance import Machine, Snapshot, Volume
from directory.decisions.spaces import MIN_FREE_BYTES, MIN_FREE_FRACTION, FolderSpace, refusal
from directory.service import Service
from directory.storage.tables import VolumeRecord

Obstacle = Callable[[VolumeRecord], str]
"""Why copies of a volume have to stay where they are; empty when they do not."""


VOLUMES_AT_ONCE = 2_000
"""Volumes that are looked at before others have their turn on the event loop."""


async def take_snapshot(
    service: Service,
    obstacle: Obstacle,
    moved_seconds: Mapping[int, float],
    left: Mapping[int, tuple[str, ...]],
    coming_bytes: Mapping[str, int],
) -> Snapshot:
    """Return machines and volumes. Only living Stores take part, and volumes that one of them has in sync.

    Parameters
    ----------
    moved_seconds: when volumes were moved last, unix time. left: the Stores that they left lately.
    coming_bytes: what is on its way to Stores.
    """
    cluster, now_seconds = service.cluster, service.clock()
    alive = {store_id for store_id in cluster.stores if cluster.alive(store_id, now_seconds)}
    loads = _loads(service, alive)
    volumes = []
    for place, record in enumerate(list(cluster.records.values()), 1):
        if holders := _holders(record, alive):
            load = _load(service, record.volume, holders, loads, now_seconds)
            volumes.append(_volume(cluster, record, holders, load, obstacle(record), moved_seconds, left))
        if place % VOLUMES_AT_ONCE == 0:
            await asyncio.sleep(0)
    counted = {(holder, volume.id) for volume in volumes for holder in volume.holders}
    others = {
        store_id: sum(load for volume, load in rows.items() if (store_id, volume) not in counted)
        for store_id, rows in loads.items()
    }
    return Snapshot(_machines(service, alive, others, coming_bytes), volumes, service.wall_clock())


def _loads(service: Service, alive: set[str]) -> dict[str, dict[int, float]]:
    """Return the load of all copies, by Store."""
    by_store: dict[str, dict[int, float]] = defaultdict(dict)
    load_bytes = service.heat.load_bytes
    for store_id, volume, copy in service.heat.rows():
        if store_id in alive and (load := copy.load(load_bytes)) > 0:
            by_store[store_id][volume] = load
    return by_store


def _load(
    service: Service,
    volume: int,
    holders: tuple[str, ...],
    loads: Mapping[str, Mapping[int, float]],
    now_seconds: float,
) -> float:
    """Return the load of a volume, all its copies together."""
    if len(holders) == 1:
        return loads.get(holders[0], {}).get(volume, 0.0)
    return sum(service.heat.loads(volume, holders, now_seconds).values())


def _holders(record: VolumeRecord, alive: set[str]) -> tuple[str, ...]:
    """Those that have a volume in sync, the primary first."""
    holders = [member for member in record.in_sync if member in alive]
    return tuple(sorted(holders, key=lambda member: member != record.primary))


def _volume(
    cluster: Cluster,
    record: VolumeRecord,
    holders: tuple[str, ...],
    load: float,
    fixed: str,
    moved_seconds: Mapping[int, float],
    left: Mapping[int, tuple[str, ...]],
) -> Volume:
    volume = record.volume
    reported = [cluster.stores[holder].volumes.get(volume) for holder in holders if holder in cluster.stores]
    sizes = [document.size_bytes for document in reported if document is not None]
    return Volume(
        volume,
        load,
        max(sizes, default=record.size_bytes),
        holders,
        record.replication if record.promised > 1 else "000",
        weights=tuple(record.weight_of(holder) for holder in holders) if record.weights else (),
        moved_seconds=moved_seconds.get(volume, float("-inf")),
        fixed=fixed,
        left=left.get(volume, ()),
    )


def _machines(
    service: Service, alive: set[str], other_loads: Mapping[str, float], coming_bytes: Mapping[str, int]
) -> list[Machine]:
    cluster = service.cluster
    spaces: dict[str, list[FolderSpace]] = defaultdict(list)
    for space in cluster.folder_spaces(service.clock(), {}):
        spaces[space.store_id].append(space)
    machines = []
    for store_id in sorted(alive & cluster.stores.keys()):  # one may have been removed meanwhile
        document = cluster.stores[store_id].document
        taking = [space for space in spaces[store_id] if not refusal(space)]
        coming = coming_bytes.get(store_id, 0)
        machines.append(
            Machine(
                store_id,
                sum(space.total_bytes for space in spaces[store_id]),
                sum(space.total_bytes - space.free_bytes for space in spaces[store_id]) + coming,
                url=document.url,
                data_center=document.data_center,
                rack=document.rack,
                room_bytes=max((_room(space) for space in taking), default=0) - coming,
                other_load=other_loads.get(store_id, 0.0),
                takes=bool(taking),
            )
        )
    return machines


def _room(space: FolderSpace) -> int:
    """The largest copy after which the folder would still take a volume."""
    return int(space.free_bytes - min(MIN_FREE_BYTES, space.total_bytes * MIN_FREE_FRACTION))
