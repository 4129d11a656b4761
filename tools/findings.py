"""What is not well in a cluster, and what to do about it, in words for whoever is woken up by it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from haystack.units import format_duration
from tools.node import heard_of
from tools.nodes import NodeView, RepairView
from tools.view import ClusterView

MAX_LISTED = 10
MAX_ERROR_CHARS = 200
NEARLY_FULL = 0.95


_SAID_HERE = re.compile(
    r"Store \S+ \(\S+\) is (?:silent|alive)|\d+ volumes have fewer copies|volumes [\d, ]+(?: and \d+ more)?: "
)
"""What the Directory says of silence, marks and missing copies: here it is said with what to do about it."""


class Health(Enum):
    """How a cluster is; the value is its sentence."""

    WELL = "The cluster is well"
    REPAIRING = "The cluster is repairing itself, nothing to do"
    ATTENTION = "The cluster needs attention"
    EMERGENCY = "Photos cannot be read"


@dataclass(slots=True)
class Findings:
    """What was found.

    Parameters
    ----------
    problems: what is not well. advice: what to do. notes: what is worth to know, and no problem.
    """

    health: Health = Health.WELL
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, health: Health, problem: str, advice: str = "") -> None:
        """Add a problem; the health is that of the worst."""
        order = list(Health)
        self.health = max(self.health, health, key=order.index)
        self.problems.append(problem)
        if advice:
            self.advice.append(advice)


def findings(view: ClusterView, nodes: Sequence[NodeView], repair: RepairView) -> Findings:
    """Judge a cluster."""
    found = Findings()
    _unreadable(found, view, nodes)
    for problem in view.problems:
        if not _SAID_HERE.match(problem):
            found.add(Health.ATTENTION, problem)
    _writable(found, view)
    _machines(found, nodes, repair)
    _copies(found, nodes, repair)
    if compaction := view.document.get("Compaction"):
        found.notes.append(f"Compaction: {compaction}.")
    return found


def _unreadable(found: Findings, view: ClusterView, nodes: Sequence[NodeView]) -> None:
    state = {node.store_id: node.state for node in nodes}
    lost: dict[str, list[int]] = {}
    for volume in view.volumes:
        if volume.in_sync and all(state.get(store) == "dead" for store in volume.in_sync):
            lost.setdefault(", ".join(view.address_of(store) for store in volume.in_sync), []).append(volume.volume)
    for stores, volumes in sorted(lost.items()):
        found.add(
            Health.EMERGENCY,
            f"{_volumes(volumes)} cannot be read: all up-to-date copies are on {stores}, which is silent",
            f"Start {stores} again: nothing else has all photos of {_volumes(volumes)}.",
        )


def _writable(found: Findings, view: ClusterView) -> None:
    if not view.stores:
        found.add(Health.ATTENTION, "no Store has registered", "Start one: haystack store --data DIR --directory URL")
    elif not view.counts["storesAlive"]:
        found.add(
            Health.EMERGENCY,
            "no Store is alive; photos can neither be read nor stored",
            "Start the Stores; if they run, see whether they reach the Directory.",
        )
    elif not view.counts["volumesWritable"]:
        found.add(
            Health.ATTENTION,
            "no volume takes new photos",
            "Look at the disks (haystack node list); with room on them: haystack volume grow --apply",
        )


def _machines(found: Findings, nodes: Sequence[NodeView], repair: RepairView) -> None:
    alive = {node.url for node in nodes if node.state == "alive"}
    for node in nodes:
        if node.state == "dead" and node.mark != "removed" and node.url in alive:
            found.add(
                Health.ATTENTION,
                f"the Store that was at {node.url} before ({node.store_id}) is gone; {_of_the_dead(node)}",
                f"If its disks are lost: haystack node remove {node.store_id} --apply",
            )
        elif node.state == "dead" and node.mark == "maintenance":
            found.notes.append(f"Store {node.url} is away for maintenance, heard of {heard_of(node)}.")
        elif node.state == "dead" and node.mark != "removed":
            found.add(
                Health.ATTENTION,
                f"Store {node.url} was heard of {heard_of(node)}; {_of_the_dead(node)}",
                f"Start Store {node.url} again (its log says why it stopped). If it never comes back: "
                f"haystack node remove {node.url} --apply",
            )
        elif node.mark == "readonly":
            found.notes.append(
                f"Store {node.url} is marked read-only; to end that: haystack node readonly --off {node.url} --apply"
            )
        elif node.mark == "maintenance":
            found.notes.append(
                f"Store {node.url} is back from maintenance? Then: haystack node maintenance --off {node.url} --apply"
            )
        if node.drain is not None and node.drain.done:
            found.notes.append(f"Store {node.url} is drained: stop it, then: haystack node remove {node.url} --apply")
        elif node.drain is not None:
            found.notes.append(f"Store {node.url} is being drained: {node.drain.volumes_left} volumes are left.")
        if node.state == "alive" and node.total_bytes and node.free_bytes < (1 - NEARLY_FULL) * node.total_bytes:
            used = 1 - node.free_bytes / node.total_bytes
            found.add(
                Health.ATTENTION,
                f"the disks of Store {node.url} are {used:.0%} full",
                f"Add a disk to Store {node.url}, or a Store to the cluster.",
            )
    if not repair.settled:
        found.notes.append("The Directory has just started; until all Stores have reported, nothing is given up.")


def _of_the_dead(node: NodeView) -> str:
    if node.only_copies:
        return f"it has the only up-to-date copies of {_volumes(node.only_copies)}"
    if not node.volumes:
        return "it is not needed: all volumes have their copies elsewhere"
    return "other Stores have its photos"


def _copies(found: Findings, nodes: Sequence[NodeView], repair: RepairView) -> None:
    reasons: dict[str, list[int]] = {}
    for volume, reason in repair.blocked:
        reasons.setdefault(reason, []).append(volume)
    for reason, volumes in reasons.items():
        found.add(Health.ATTENTION, f"{_volumes(volumes)} cannot get all copies: {reason}")
    errors: dict[str, list[int]] = {}
    for volume, error in repair.failing(nodes).items():
        errors.setdefault(error[:MAX_ERROR_CHARS], []).append(volume)
    for error, volumes in errors.items():
        found.add(Health.ATTENTION, f"the repair of {_volumes(volumes)} failed and is tried again: {error}")
    groups: dict[tuple[int, int], list[int]] = {}
    for one in repair.degraded:
        groups.setdefault((len(one.in_sync), one.promised), []).append(one.volume)
    for (have, promised), volumes in sorted(groups.items()):
        verb = "has" if len(volumes) == 1 else "have"
        found.add(Health.REPAIRING, f"{_volumes(volumes)} {verb} {have} of {promised} copies")
    found.notes += _progress(repair)


def _progress(repair: RepairView) -> Iterator[str]:
    if repair.running:
        copied = sum(one.copied_bytes for one in repair.running)
        total = sum(one.total_bytes for one in repair.running)
        share = f", {100 * copied // total}% done" if total else ""
        count = len(repair.running)
        copies = "1 copy is" if count == 1 else f"{count} copies are"
        yield f"{copies} being made{share}; see: haystack repair"
    waits = [one.copy_in_seconds for one in repair.degraded if one.copy_in_seconds]
    if waits:
        yield (
            f"New copies are made in {format_duration(min(waits))}, unless the Stores come back before; "
            "at once with: haystack repair --apply"
        )


def _volumes(volumes: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(volumes)[:MAX_LISTED]))
    more = len(volumes) - MAX_LISTED
    name = "volume" if len(volumes) == 1 else "volumes"
    return f"{name} {shown}{f' and {more} more' if more > 0 else ''}"
