"""Waiting for work that the Directory drives: drains and repair, with a bar on a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haystack.client.errors import Unreachable
from haystack.errors import VolumeUnavailable
from haystack.units import format_duration, format_size
from tools.control import Control
from tools.nodes import NODES, REPAIR, RepairView, find_node, parse_nodes, parse_repair
from tools.output import Output

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
"""How long the Directory may be away, as during a restart, before the waiting ends."""

STUCK_SECONDS = 10.0
"""How long nothing may move, and all that is left be blocked, before the waiting ends."""

COPYING = ("copy", "rejoin")
"""Actions of repair that bring bytes to a Store."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Left:
    """What was left when the waiting ended; ``stuck``: nothing moves any more; ``done``: what was done meanwhile."""

    stuck: bool
    blocked: Sequence[tuple[int, str]]
    done: Mapping[str, object] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        blocked = [{"volume": volume, "reason": reason} for volume, reason in self.blocked]
        return {"done": not self.stuck, "blocked": blocked, **self.done}


async def wait_for_drain(control: Control, output: Output, store_id: str, *, sleep: Sleep = asyncio.sleep) -> Left:
    """Return when a Store is empty, or when nothing of what is left can leave it."""
    stuck = _Patience(STUCK_SECONDS)
    first_bytes: int | None = None
    with output.progress("Draining", None, "bytes") as bar:
        while True:
            nodes = parse_nodes(await patiently(lambda: control.directory("GET", NODES), sleep))
            drain = find_node(nodes, store_id).drain
            if drain is None or drain.done:
                break
            first_bytes = max(first_bytes or 0, drain.bytes_left)
            bar.at(first_bytes - drain.bytes_left, first_bytes)
            waiting = len(drain.blocked) >= drain.volumes_left > 0
            if stuck.over(waiting, (drain.volumes_left, drain.bytes_left)):
                _tell_blocked(output, drain.blocked)
                return Left(True, drain.blocked)
            await sleep(POLL_SECONDS)
    if drain is None:
        output.note("It is not being drained any more.")
        return Left(True, ())
    output.say("It is empty: stop it, then remove it.")
    return Left(False, ())


async def wait_for_repair(control: Control, output: Output, *, sleep: Sleep = asyncio.sleep) -> Left:
    """Return when all volumes have their copies, or when what is left cannot be repaired."""
    stuck = _Patience(STUCK_SECONDS)
    begun_seconds = time.monotonic()
    before: set[tuple[Any, ...]] | None = None
    copied: dict[tuple[Any, ...], int] = {}
    with output.progress("Repairing", None, "bytes") as bar:
        while True:
            repair = parse_repair(await patiently(lambda: control.directory("GET", REPAIR), sleep))
            before = set(_copies(repair)) if before is None else before
            copied |= {key: size for key, size in _copies(repair).items() if key not in before}
            if repair.settled and not repair.degraded and not repair.running and not repair.steps:
                break
            done_bytes = sum(copied.values())
            bar.at(
                done_bytes + sum(one.copied_bytes for one in repair.running),
                done_bytes + sum(one.total_bytes for one in repair.running),
            )
            waiting = bool(repair.blocked) and not repair.running and not repair.steps
            if stuck.over(waiting, _amount(repair)):
                _tell_blocked(output, repair.blocked)
                return Left(True, repair.blocked)
            await sleep(POLL_SECONDS)
    seconds = time.monotonic() - begun_seconds
    copies = "1 copy was" if len(copied) == 1 else f"{len(copied)} copies were"
    made = f" {copies} made or mended in {format_duration(seconds)}: {format_size(sum(copied.values()))}."
    output.say(f"All volumes have all their copies.{made if copied else ''}")
    return Left(False, (), {"copies": len(copied), "bytes": sum(copied.values()), "seconds": round(seconds, 3)})


def _copies(repair: RepairView) -> dict[tuple[Any, ...], int]:
    """Return the copies that were finished lately, with their bytes."""
    return {
        (one.get("volume"), one.get("target"), one.get("finishedMs")): int(one.get("bytes") or 0)
        for one in repair.recent
        if one.get("ok") and one.get("action") in COPYING
    }


def _amount(repair: RepairView) -> object:
    return len(repair.degraded), len(repair.recent)


def _tell_blocked(output: Output, blocked: Sequence[tuple[int, str]]) -> None:
    for volume, reason in blocked:
        output.note(f"haystack: volume {volume}: {reason}")


class _Patience:
    """Says when something has been stuck for long enough."""

    def __init__(self, seconds: float) -> None:
        self._polls_left = self._polls = round(seconds / POLL_SECONDS)
        self._last: object = None

    def over(self, waiting: bool, state: object) -> bool:
        if not waiting or state != self._last:
            self._polls_left, self._last = self._polls, state
            return False
        self._polls_left -= 1
        return self._polls_left <= 0


async def patiently(ask: Callable[[], Awaitable[dict[str, Any]]], sleep: Sleep) -> dict[str, Any]:
    """Return an answer; asks again while the Directory is away, since the work goes on after its restart."""
    tries = round(PATIENCE_SECONDS / POLL_SECONDS)
    while True:
        try:
            return await ask()
        except (Unreachable, VolumeUnavailable):
            tries -= 1
            if tries <= 0:
                raise
        await sleep(POLL_SECONDS)


def moved(copied_bytes: int, total_bytes: int) -> str:
    """Say how far a copy is."""
    if not total_bytes:
        return "beginning"
    return f"{100 * copied_bytes // total_bytes}% of {format_size(total_bytes)}"
