"""The state of repair as a document, in words."""

from __future__ import annotations

from typing import Any

from directory.decisions.repair_views import Plan, Step
from directory.repair.healer import Healer
from directory.repair.steps import Progress
from directory.service import Service
from directory.storage.tables import VolumeRecord

MAX_LISTED = 10_000
"""Volumes of each list."""


def repair_document(service: Service, healer: Healer, plan: Plan | None = None) -> dict[str, Any]:
    """Return the document of ``/cluster/repair``; ``plan`` in the place of the last one that was begun."""
    plan = plan or healer.plan
    now_seconds = service.clock()
    waits = {waiting.volume: waiting for waiting in plan.waiting}
    lacking = [record for volume in sorted(service.cluster.index.untidy) if _lacks(record := _record(service, volume))]
    steps = [step for step in plan.steps if step.volume not in healer.running]
    return {
        "settled": service.cluster.settled(now_seconds),
        "waitingFor": service.cluster.unheard(now_seconds),
        "delaySeconds": healer.rules.delay_seconds,
        "bytesPerSecond": healer.bytes_per_second,
        "maxCopies": healer.rules.copies,
        "maxCopiesPerStore": healer.rules.copies_per_store,
        "degradedCount": len(lacking),
        "degraded": [
            {
                "volume": record.volume,
                "replication": record.replication,
                "promised": record.promised,
                "inSync": list(record.in_sync),
                "stale": list(record.stale),
                "degradedSinceMs": record.degraded_since_ms,
                "copyInSeconds": waits[record.volume].seconds if record.volume in waits else None,
                "reason": waits[record.volume].reason if record.volume in waits else _doing(record.volume, healer),
            }
            for record in lacking[:MAX_LISTED]
        ],
        "steps": [_step(step) for step in steps[:MAX_LISTED]],
        "queued": len(plan.next_volumes),
        "running": [_progress(progress) for progress in healer.running.values()],
        "recent": [_recent(progress) for progress in reversed(healer.recent)],
        "blocked": [
            {"volume": waiting.volume, "reason": waiting.reason}
            for waiting in plan.waiting[:MAX_LISTED]
            if waiting.blocked
        ],
        "told": {"waiting": healer.memberships.pusher.waiting},
    }


def _record(service: Service, volume: int) -> VolumeRecord:
    return service.cluster.records[volume]


def _lacks(record: VolumeRecord) -> bool:
    return len(record.in_sync) < record.promised


def _doing(volume: int, healer: Healer) -> str:
    progress = healer.running.get(volume)
    return f"{progress.step.action.value}: {progress.step.reason}" if progress else "waits for its turn"


def _step(step: Step) -> dict[str, Any]:
    return {
        "action": step.action.value,
        "volume": step.volume,
        "target": step.target,
        "source": step.source or None,
        "bytes": step.size_bytes,
        "reason": step.reason,
    }


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        **_step(progress.step),
        "copiedBytes": progress.copied_bytes,
        "totalBytes": progress.total_bytes,
        "startedMs": progress.started_ms,
        "error": progress.error,
    }


def _recent(progress: Progress) -> dict[str, Any]:
    return {
        "action": progress.step.action.value,
        "volume": progress.step.volume,
        "target": progress.step.target,
        "bytes": progress.copied_bytes,
        "seconds": round((progress.finished_ms - progress.started_ms) / 1000, 3),
        "finishedMs": progress.finished_ms,
        "ok": not progress.error,
        "error": progress.error,
    }
