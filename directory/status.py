"""The state of the cluster as documents: for ``/dir/status`` and ``/cluster/status``, and for the page for people."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from directory.cluster.store_state import StoreState
from directory.decisions.membership import Standing
from directory.decisions.spaces import FolderSpace
from directory.messages import VolumeDocument
from directory.repair.healer import Healer
from directory.service import Service
from directory.settings import MAX_VOLUMES_PER_FOLDER
from directory.storage.interface import Table
from directory.storage.tables import VolumeRecord
from directory.storage.transactions import misfit_in_words
from haystack import __version__
from haystack.units import GIB

MAX_NAMED = 10
MAX_REASONS = 20
"""Volumes that one line names, and different reasons that are told."""

USUAL_VOLUME_BYTES = 32 * GIB
"""What one more volume is counted as when free places are told in SeaweedFS' terms."""


def directory_status(service: Service, healer: Healer) -> dict[str, Any]:
    """Return the document of ``/dir/status``: SeaweedFS' ``Topology`` and ``Version``, then our own details."""
    return {
        "Version": f"haystack {__version__}",
        "Topology": _topology(service),
        "ClusterId": service.cluster_id,
        "Counts": {**counts(service), **copy_counts(service, healer)},
        "Stores": [_store(service, state) for state in _sorted_stores(service)],
        "Volumes": [_volume(service, volume) for volume in sorted(service.cluster.records)],
        "Caches": service.caches.documents(),
        "Problems": problems(service, healer),
    }


def cluster_status(service: Service, healer: Healer, address: str) -> dict[str, Any]:
    """Return the document of ``/cluster/status``. This Directory leads: it is the only one."""
    return {
        "IsLeader": True,
        "Leader": address,
        "Peers": [],
        "Version": f"haystack {__version__}",
        "ClusterId": service.cluster_id,
        "Counts": {**counts(service), **copy_counts(service, healer)},
        "Confirmed": confirmed(service),
        "Caches": service.caches.documents(),
        "Problems": problems(service, healer),
    }


def counts(service: Service) -> dict[str, int]:
    """Return how many there are of what matters."""
    now_seconds = service.clock()
    return {
        "stores": len(service.cluster.stores),
        "storesAlive": sum(service.cluster.alive(store_id, now_seconds) for store_id in service.cluster.stores),
        "volumes": len(service.cluster.records),
        "volumesWritable": service.writable_count(),
        "photos": service.storage.count(Table.PHOTOS),
    }


def copy_counts(service: Service, healer: Healer) -> dict[str, int]:
    """Return how many volumes lack copies, and how many copies are being made."""
    cluster, now_seconds = service.cluster, service.clock()
    living = {store_id for store_id in cluster.stores if cluster.alive(store_id, now_seconds)}
    return {
        "volumesDegraded": len(degraded(service)),
        "volumesUnavailable": sum(living.isdisjoint(record.in_sync) for record in cluster.records.values()),
        "copiesRunning": sum(progress.step.action.copies_bytes for progress in healer.running.values()),
        "membershipsWaiting": healer.memberships.pusher.waiting,
    }


def degraded(service: Service) -> list[VolumeRecord]:
    """Return the volumes of which fewer copies are in sync than promised."""
    records = service.cluster.records
    found = (records[volume] for volume in sorted(service.cluster.index.untidy))
    return [record for record in found if len(record.in_sync) < record.promised]


def confirmed(service: Service) -> dict[str, int]:
    """Return of how many volumes all needles are known, that their primaries reported: what a rebuild waits for."""
    cluster = service.cluster
    complete = 0
    for volume in cluster.records:
        reported = volume_report(service, volume)
        if reported is not None and service.confirmed_to.get(volume, -1) >= reported.size_bytes:
            complete += 1
    return {
        "stores": sum(state.registered for state in cluster.stores.values()),
        "volumes": len(cluster.records),
        "volumesConfirmed": complete,
    }


def problems(service: Service, healer: Healer) -> list[str]:
    """Return in words what the operator should look at."""
    now_seconds = service.clock()
    found = [f"storage: {service.storage.failure}"] if service.storage.failure else []
    found += [
        f"Cache {state.beat.url} ({state.beat.cache_id}) is silent: its photos are read from the others, or from Stores"
        for state, alive in service.caches.states()
        if not alive
    ]
    for state in _sorted_stores(service):
        document = state.document
        if not service.cluster.alive(document.store_id, now_seconds) and service.cluster.settled(now_seconds):
            found.append(f"Store {document.url} ({document.store_id}) is silent{_mark_in_words(state)}")
        elif state.mark.mark != "none":
            found.append(f"Store {document.url} ({document.store_id}) is alive{_mark_in_words(state)}")
        for folder in state.folders.values():
            if folder.state != "ok":
                found.append(f"Store {document.url}: data folder {folder.path} is {folder.state}: {folder.error}")
        for volume, standing in sorted(state.misfits.items()):
            if volume in state.volumes and standing is not Standing.STALE:
                record = service.cluster.records[volume]
                found.append(misfit_in_words(record, state.volumes[volume], document.store_id, standing))
        for reported in state.volumes.values():
            if reported.state == "failed":
                found.append(f"Store {document.url}: volume {reported.volume} has failed: {reported.reason}")
    found += _lacking_copies(service, healer)
    found += [
        f"volume {volume}: Store {record.primary} does not have it any more"
        for volume, record in sorted(service.cluster.records.items())
        if not service.cluster.holders(volume)
    ]
    return found


def _lacking_copies(service: Service, healer: Healer) -> list[str]:
    """Return one line for the volumes that lack copies, and one for each different reason why nothing is done."""
    lacking = degraded(service)
    if not lacking:
        return []
    running = sum(progress.step.action.copies_bytes for progress in healer.running.values())
    found = [
        f"{len(lacking)} volumes have fewer copies in sync than promised: {_named([r.volume for r in lacking])}; "
        f"{running} copies are being made"
    ]
    reasons: dict[str, list[int]] = {}
    for waiting in healer.plan.waiting:
        if waiting.blocked:
            reasons.setdefault(waiting.reason, []).append(waiting.volume)
    return found + [f"volumes {_named(volumes)}: {reason}" for reason, volumes in reasons.items()][:MAX_REASONS]


def _named(volumes: list[int]) -> str:
    more = f" and {len(volumes) - MAX_NAMED} more" if len(volumes) > MAX_NAMED else ""
    return ", ".join(map(str, volumes[:MAX_NAMED])) + more


def _mark_in_words(state: StoreState) -> str:
    return f", and marked {state.mark.mark}" if state.mark.mark != "none" else ""


def volume_report(service: Service, volume: int) -> VolumeDocument | None:
    """Return what the primary reported last of a volume, None when it did not."""
    record = service.cluster.records[volume]
    state = service.cluster.stores.get(record.primary)
    return state.volumes.get(volume) if state else None


def _sorted_stores(service: Service) -> list[StoreState]:
    return sorted(service.cluster.stores.values(), key=lambda state: (state.document.url, state.document.store_id))


def _store(service: Service, state: StoreState) -> dict[str, Any]:
    document = state.document
    seen = state.last_seen_seconds
    return {
        "storeId": document.store_id,
        "url": document.url,
        "publicUrl": document.public_url,
        "adminUrl": document.admin_url,
        "dataCenter": document.data_center,
        "rack": document.rack,
        "version": document.version,
        "startedMs": document.started_ms,
        "workers": document.workers,
        "state": service.cluster.liveness(document.store_id, service.clock()).value,
        "lastSeenSecondsAgo": round(service.clock() - seen, 3) if seen is not None else None,
        "mark": state.mark.mark,
        "writesPerSecond": round(state.writes_per_second, 1),
        "volumes": len(state.volumes),
        "folders": [
            {
                "id": folder.id,
                "path": folder.path,
                "totalBytes": folder.total_bytes,
                "freeBytes": folder.free_bytes,
                "state": folder.state,
                "error": folder.error,
                "volumes": state.volume_counts[folder.id],
            }
            for folder in state.folders.values()
        ],
        "misfits": {str(volume): standing.value for volume, standing in sorted(state.misfits.items())},
    }


def _volume(service: Service, volume: int) -> dict[str, Any]:
    record = service.cluster.records[volume]
    reported = volume_report(service, volume)
    return {
        "volume": volume,
        "uuid": record.uuid,
        "replication": record.replication,
        "epoch": record.epoch,
        "primary": record.primary,
        "inSync": list(record.in_sync),
        "members": list(record.members),
        "copies": record.promised,
        "degradedSinceMs": record.degraded_since_ms,
        "extraCopies": record.extra_copies,
        "mark": record.mark or "none",
        "state": reported.state if reported else record.state,
        "reason": reported.reason if reported else "",
        "createdMs": record.created_ms,
        "generation": reported.generation if reported else None,
        "folder": reported.folder if reported else None,
        "maxBytes": reported.max_bytes if reported else record.max_bytes,
        "sizeBytes": reported.size_bytes if reported else record.size_bytes,
        "liveBytes": reported.live_bytes if reported else record.live_bytes,
        "liveCount": reported.live_count if reported else record.live_count,
        "deletedBytes": reported.deleted_bytes if reported else None,
        "deletedCount": reported.deleted_count if reported else None,
        "reads": max(reported.reads, _reads_told(service, record.primary, volume)) if reported else None,
        "writes": reported.writes if reported else None,
        "lastAppendMs": reported.last_append_ms if reported else None,
    }


def _reads_told(service: Service, store_id: str, volume: int) -> int:
    """Reads are told with the heat, not with each heartbeat's documents."""
    copy = service.heat.copy(store_id, volume)
    return copy.reads if copy else 0


def _topology(service: Service) -> dict[str, Any]:
    spaces = service.cluster.folder_spaces(service.clock(), {})
    key_of_center, key_of_rack, key_of_node = (
        lambda space: space.data_center,
        lambda space: (space.data_center, space.rack),
        lambda space: (space.data_center, space.rack, space.url),
    )
    spaces.sort(key=key_of_node)
    public_urls = {state.document.url: state.document.public_url for state in service.cluster.stores.values()}
    centers = []
    for center, in_center in groupby(spaces, key_of_center):
        racks = []
        for (_, rack), in_rack in groupby(list(in_center), key_of_rack):
            nodes = []
            for (_, _, url), on_node in groupby(list(in_rack), key_of_node):
                folders = list(on_node)
                volumes = sum(folder.volumes for folder in folders)
                free = sum(_free_places(folder) for folder in folders)
                nodes.append(
                    {"Url": url, "PublicUrl": public_urls[url], "Volumes": volumes, "Free": free, "Max": volumes + free}
                )
            racks.append({"Id": rack, "DataNodes": nodes, **_sums(nodes)})
        centers.append({"Id": center, "Racks": racks, **_sums(racks)})
    layouts = _layouts(service)
    return {"DataCenters": centers, **_sums(centers), "Layouts": layouts, "layouts": layouts}


def _layouts(service: Service) -> list[dict[str, Any]]:
    writables: dict[str, list[int]] = {service.default_replication: []}
    writables |= {replication: [] for replication, count in service.cluster.index.replications.items() if count}
    for candidate in service.cluster.candidates(service.clock()):
        writables[service.cluster.records[candidate.volume].replication].append(candidate.volume)
    return [
        {"collection": "", "replication": replication, "ttl": "", "writables": sorted(volumes)}
        for replication, volumes in sorted(writables.items())
    ]


def _free_places(folder: FolderSpace) -> int:
    if not folder.alive or folder.state != "ok":
        return 0
    return min(MAX_VOLUMES_PER_FOLDER - folder.volumes, folder.free_bytes // USUAL_VOLUME_BYTES)


def _sums(parts: list[dict[str, Any]]) -> dict[str, int]:
    return {"Free": sum(part["Free"] for part in parts), "Max": sum(part["Max"] for part in parts)}
