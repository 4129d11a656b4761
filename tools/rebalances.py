"""Rebalance plans and runs as the Directory describes them (``/cluster/rebalance``), read once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from haystack.client.errors import UnexpectedAnswer

REBALANCE = "/cluster/rebalance"
STOP = "/cluster/rebalance/stop"
DECISIONS = "/cluster/decisions"

_View = TypeVar("_View")


@dataclass(frozen=True, slots=True)
class MachineView:
    """What a plan does to a Store. Levels are multiples of the mean load, fills parts of the disks."""

    url: str
    load_before: float
    level_before: float
    level_after: float
    fill_before: float
    fill_after: float


@dataclass(frozen=True, slots=True)
class StepView:
    """One step. ``other``: volume that comes back in an exchange, or 0."""

    kind: str
    volume: int
    other: int
    source: str
    target: str
    size_bytes: int
    worst_after: float
    reason: str


@dataclass(frozen=True, slots=True)
class RunView:
    """How far a plan that is carried out is."""

    finished: bool
    stopped: bool
    done: int
    failed: int
    skipped: int
    copied_bytes: int
    total_bytes: int
    errors: tuple[tuple[int, str], ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan. ``steps`` may be only the first of ``step_count``."""

    reason: str
    worst_before: float
    worst_after: float
    size_bytes: int
    least_bytes: int
    machines: tuple[MachineView, ...]
    counts: tuple[tuple[str, int], ...]
    steps: tuple[StepView, ...]
    automatic: str
    run: RunView | None
    document: Mapping[str, Any]

    @property
    def step_count(self) -> int:
        """The number of all steps."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True, slots=True)
class DecisionView:
    """One decision; ``when``: local time."""

    when: str
    by: str
    what: str
    why: str


def parse_plan(document: Mapping[str, Any]) -> PlanView:
    """Read the answer to ``POST /cluster/rebalance``. Raises UnexpectedAnswer."""
    return _read(_plan, document)


def parse_state(document: Mapping[str, Any]) -> RunView:
    """Read the run in ``GET /cluster/rebalance``. Raises UnexpectedAnswer."""
    return _read(lambda found: _run(found["run"]), document)


def parse_decisions(document: Mapping[str, Any]) -> list[DecisionView]:
    """Read ``GET /cluster/decisions``, the newest first. Raises UnexpectedAnswer."""
    return _read(lambda found: [_decision(one) for one in found["decisions"]], document)


def _read(reader: Callable[[Mapping[str, Any]], _View], document: Mapping[str, Any]) -> _View:
    try:
        return reader(document)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"{REBALANCE}: the answer is not understood ({type(error).__name__}: {error}); "
            "are Directory and this command of the same release?"
        ) from error


def _plan(document: Mapping[str, Any]) -> PlanView:
    return PlanView(
        reason=str(document["reason"]),
        worst_before=float(document["worstBefore"]),
        worst_after=float(document["worstAfter"]),
        size_bytes=int(document["bytes"]),
        least_bytes=int(document["leastBytes"]),
        machines=tuple(
            MachineView(
                str(one["url"] or one["storeId"]),
                float(one["loadBefore"]),
                float(one["levelBefore"]),
                float(one["levelAfter"]),
                float(one["fillBefore"]),
                float(one["fillAfter"]),
            )
            for one in document["machines"]
        ),
        counts=tuple((str(kind), int(count)) for kind, count in document["counts"].items()),
        steps=tuple(
            StepView(
                str(one["kind"]),
                int(one["volume"]),
                int(one["otherVolume"] or 0),
                str(one["sourceUrl"] or ""),
                str(one["targetUrl"] or ""),
                int(one["bytes"]),
                float(one["worstAfter"]),
                str(one["reason"]),
            )
            for one in document["steps"]
        ),
        automatic=str(document["automatic"]),
        run=_run(document["run"]) if document["run"] is not None else None,
        document=document,
    )


def _run(document: Mapping[str, Any]) -> RunView:
    steps = document["steps"]
    return RunView(
        finished=document["finishedMs"] is not None,
        stopped=bool(document["stopped"]),
        done=int(steps["done"]),
        failed=int(steps["failed"]),
        skipped=int(steps["skipped"]),
        copied_bytes=int(document["copiedBytes"]),
        total_bytes=int(document["totalBytes"]),
        errors=tuple((int(one["volume"]), str(one["error"])) for one in document["errors"]),
        document=document,
    )


def _decision(document: Mapping[str, Any]) -> DecisionView:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(document["timeMs"]) / 1000))
    return DecisionView(when, str(document["by"]), str(document["what"]), str(document["why"]))
