"""The Stores as a document for the operator: marks, what they hold, how far a drain is."""

from __future__ import annotations

from typing import Any

from directory.cluster.store_state import StoreState
from directory.repair.healer import Healer
from directory.service import Service

MAX_LISTED = 1_000
"""Volumes of each list."""


def nodes_document(service: Service, healer: Healer) -> dict[str, Any]:
    """Return the document of ``/cluster/nodes``."""
    waits = {waiting.volume: waiting.reason for waiting in healer.plan.waiting}
    states = sorted(service.cluster.stores.values(), key=lambda state: (state.document.url, state.document.store_id))
    return {"nodes": [_node(service, state, waits) for state in states]}


def _node(service: Service, state: StoreState, waits: dict[int, str]) -> dict[str, Any]:
    document, store_id = state.document, state.document.store_id
    seen, index = state.last_seen_seconds, service.cluster.index
    members = index.by_member[store_id]
    records = [index.records[volume] for volume in sorted(members)]
    return {
        "storeId": store_id,
        "url": document.url,
        "publicUrl": document.public_url,
        "services": document.services,
        "adminUrl": document.admin_url,
        "dataCenter": document.data_center,
        "rack": document.rack,
        "version": document.version,
        "startedMs": document.started_ms,
        "workers": document.workers,
        "state": service.cluster.liveness(store_id, service.clock()).value,
        "lastSeenSecondsAgo": round(service.clock() - seen, 3) if seen is not None else None,
        "mark": state.mark.mark,
        "markSinceMs": state.mark.since_ms or None,
        "volumes": len(members),
        "primaries": index.led[store_id],
        "stale": sum(store_id not in record.in_sync for record in records),
        "onlyCopies": [record.volume for record in records if record.in_sync == (store_id,)][:MAX_LISTED],
        "freeBytes": sum(folder.free_bytes for folder in state.folders.values()),
        "totalBytes": sum(folder.total_bytes for folder in state.folders.values()),
        "writesPerSecond": round(state.writes_per_second, 1),
        "folders": [
            {
                "id": folder.id,
                "path": folder.path,
                "state": folder.state,
                "error": folder.error,
                "freeBytes": folder.free_bytes,
                "totalBytes": folder.total_bytes,
                "volumes": state.volume_counts[folder.id],
                "mark": "draining" if folder.id in dict(state.mark.folders) else "none",
            }
            for folder in state.folders.values()
        ],
        "drain": _drain(service, state, waits),
    }


def _drain(service: Service, state: StoreState, waits: dict[int, str]) -> dict[str, Any] | None:
    """Return how much is left on what is being drained; None when nothing is."""
    if state.mark.mark not in ("draining", "removed") and not state.mark.folders:
        return None
    store_id, index = state.document.store_id, service.cluster.index
    left = {
        volume
        for volume in index.by_member[store_id]
        if state.mark.mark in ("draining", "removed")
        or (volume in state.volumes and state.mark.draining(state.volumes[volume].folder))
    }
    blocked = [{"volume": volume, "reason": waits[volume]} for volume in sorted(left & waits.keys())]
    return {
        "volumesLeft": len(left),
        "bytesLeft": sum(state.volumes[volume].size_bytes for volume in left if volume in state.volumes),
        "blocked": blocked[:MAX_LISTED],
        "done": not left,
    }
