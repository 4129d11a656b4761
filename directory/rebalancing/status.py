"""Rebalance plans and runs as documents."""

from __future__ import annotations

from typing import Any

from directory.decisions.rebalance import Plan, Step
from directory.rebalancing.rebalancer import Rebalancer
from directory.rebalancing.run import DONE, FAILED, RUNNING, SKIPPED, WAITING, Run
from haystack.units import format_duration

MAX_STEPS_TOLD = 10_000
"""Steps of one answer; ``counts`` has all of them."""

MAX_ERRORS_TOLD = 20


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan. Levels are multiples of the mean load; fills are parts of the disks."""
    urls = {machine.id: machine.url for machine in plan.machines}
    mean = plan.mean_load or 1.0
    counts: dict[str, int] = {}
    for step in plan.steps:
        counts[step.kind.value] = counts.get(step.kind.value, 0) + 1
    return {
        "reason": plan.reason,
        "meanLoad": round(plan.mean_load, 3),
        "worstBefore": round(plan.worst_before, 4),
        "worstAfter": round(plan.worst_after, 4),
        "fullestBefore": round(plan.fullest_before, 4),
        "fullestAfter": round(plan.fullest_after, 4),
        "bytes": plan.size_bytes,
        "leastBytes": plan.least_bytes,
        "machines": [
            {
                "storeId": one.id,
                "url": one.url,
                "loadBefore": round(one.load_before, 3),
                "loadAfter": round(one.load_after, 3),
                "levelBefore": round(one.load_before / one.capacity / mean, 4),
                "levelAfter": round(one.load_after / one.capacity / mean, 4),
                "fillBefore": round(one.fill_before, 4),
                "fillAfter": round(one.fill_after, 4),
            }
            for one in plan.machines
        ],
        "counts": counts,
        "steps": [_step_document(step, urls) for step in plan.steps[:MAX_STEPS_TOLD]],
    }


def _step_document(step: Step, urls: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": step.kind.value,
        "volume": step.volume,
        "otherVolume": step.other or None,
        "source": step.source or None,
        "sourceUrl": urls.get(step.source),
        "target": step.target or None,
        "targetUrl": urls.get(step.target),
        "bytes": step.size_bytes,
        "weights": dict(step.weights),
        "otherWeights": dict(step.other_weights),
        "reason": step.reason,
        "gain": round(step.gain, 3),
        "worstBefore": round(step.worst_before, 4),
        "worstAfter": round(step.worst_after, 4),
    }


def run_document(run: Run) -> dict[str, Any]:
    """Return how far a run is."""
    counts = run.counts()
    failed = [one for one in run.steps if one.error]
    return {
        "by": run.by,
        "startedMs": run.started_ms,
        "finishedMs": run.finished_ms or None,
        "stopped": run.stopped,
        "steps": {state: counts[state] for state in (WAITING, RUNNING, DONE, FAILED, SKIPPED)},
        "copiedBytes": run.copied_bytes(),
        "totalBytes": run.plan.size_bytes,
        "leastBytes": run.plan.least_bytes,
        "errors": [
            {"volume": one.step.volume, "kind": one.step.kind.value, "error": one.error}
            for one in failed[:MAX_ERRORS_TOLD]
        ],
    }


def state_document(rebalancer: Rebalancer) -> dict[str, Any]:
    """Return the document of ``GET /cluster/rebalance``."""
    rules, planning = rebalancer.rules, rebalancer.rules.planning
    run = rebalancer.run_now
    if rules.auto:
        automatic = f"the cluster is looked at every {format_duration(rules.look_seconds)}"
        automatic += f"; {rebalancer.status}" if rebalancer.status else ""
    else:
        automatic = "nothing is rebalanced by itself: rebalance_auto is off"
    return {
        "auto": rules.auto,
        "automatic": automatic,
        "limits": {
            "bytes": planning.budget_bytes,
            "atOnce": rules.at_once,
            "restSeconds": planning.rest_seconds,
            "copies": planning.max_copies,
            "fillLimit": planning.fill_limit,
        },
        "running": rebalancer.running,
        "run": run_document(run) if run is not None else None,
    }
