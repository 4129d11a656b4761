"""The repair plan: from what is known of volumes and Stores to the steps that bring every volume to its promise.

Invariants, which the tests state as properties:

- nothing is given up or deleted before all Stores have reported or had their time (``settled``), or while a Store that
  has the volume in sync is silent;
- a copy in sync is given up only when the others keep everything that the replication promises, each on a living Store;
- what is deleted does not count (a new epoch came before it), and the volume keeps its promise without it;
- two copies are never planned on one Store; a plan that is carried out leads to one without steps.

Each volume has one step at a time; what follows from it is planned anew. So every step may fail, or be forgotten by a
Directory that dies. Moves that were ordered are steps of the same plan (:mod:`directory.decisions.moves`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from directory.decisions.allotment import allot, room_of
from directory.decisions.liveness import Liveness
from directory.decisions.moves import next_of_move
from directory.decisions.repair_facts import (
    is_alive,
    is_leaving,
    is_usable_stale,
    mark_of,
    name_of,
    names_of,
    promise_of,
    sites_of,
    size_of,
)
from directory.decisions.repair_views import Action, Need, Plan, Rules, Snapshot, Step, VolumeView, Waiting
from directory.decisions.replication import Replication
from directory.storage.tables import VolumeRecord
from haystack.units import format_duration


def plan_repair(snapshot: Snapshot, rules: Rules) -> Plan:
    """Return what to do now."""
    busy = {step.volume for step in snapshot.running}
    needs: list[Need] = []
    waiting: list[Waiting] = []
    moved: list[int] = []
    for view in snapshot.volumes:
        if view.record.volume in busy:
            continue
        found = _assess(view, snapshot, rules)
        if isinstance(found, Need):
            needs.append(found)
        elif found is not None:
            waiting.append(found)
        elif view.record.volume in snapshot.moves:
            moved.append(view.record.volume)
    needs.sort(key=lambda need: need.rank)
    return replace(allot(needs, waiting, snapshot, rules), moved=tuple(moved))


# -- what a volume needs


def _assess(view: VolumeView, snapshot: Snapshot, rules: Rules) -> Need | Waiting | None:
    record = view.record
    promise = promise_of(record)
    alive = [member for member in record.in_sync if is_alive(member, snapshot)]
    if record.primary not in alive:
        return Waiting(record.volume, _unavailable(record, alive, snapshot), blocked=not alive)
    staying = [member for member in record.in_sync if not is_leaving(member, view, snapshot)]
    if promise.kept(sites_of(record.in_sync, snapshot)) < promise.copies:
        return _complete(view, record.in_sync, promise, snapshot, rules)
    if move := snapshot.moves.get(record.volume):
        return next_of_move(view, move, snapshot, rules)
    if len(staying) < len(record.in_sync) and promise.kept(sites_of(staying, snapshot)) < promise.copies:
        return _complete(view, staying, promise, snapshot, rules)
    return _thin_out(view, promise, alive, snapshot)


def _complete(
    view: VolumeView, holders: Sequence[str], promise: Replication, snapshot: Snapshot, rules: Rules
) -> Need | Waiting:
    """Return how a volume gets one more copy beside those of ``holders``: an old one, or a new one."""
    record = view.record
    kept = promise.kept(sites_of(holders, snapshot))
    left = len(record.in_sync)
    stale = [member for member in record.stale if is_usable_stale(member, view, snapshot)]
    if left >= promise.copies:
        stale = _closer(holders, stale, promise, snapshot)
    if stale:
        # One that stays rather than one that leaves; the one that has most lacks least.
        target = min(stale, key=lambda m: (is_leaving(m, view, snapshot), -view.copies[m].size_bytes, m))
        reason = f"{name_of(target, snapshot)} is back, its copy lacks what came meanwhile"
        step = Step(Action.REJOIN, record.volume, target, record.primary, "", size_of(view), reason)
        return Need((0, left, record.volume), view, step)
    draining = kept < promise.kept(sites_of(record.in_sync, snapshot))
    if not draining and (wait := _reason_to_wait(view, promise, snapshot, rules)):
        return wait
    if draining:
        leaving = [member for member in record.in_sync if member not in holders]
        reason = f"{', '.join(name_of(member, snapshot) for member in leaving)} is being drained"
    elif left >= promise.copies:
        reason = f"{left} copies are in sync, but only {kept} of them as far apart as promised"
    else:
        reason = f"{left} of {promise.copies} promised copies are in sync"
    step = Step(Action.COPY, record.volume, "", record.primary, "", size_of(view), reason)
    return Need((2 if draining else 1, left, record.volume), view, step, tuple(holders))


def _closer(holders: Sequence[str], stale: Sequence[str], promise: Replication, snapshot: Snapshot) -> list[str]:
    """Return the stale copies that bring a volume closer to its promise: one of them does, or all that are needed do.

    Two copies in one rack are nothing to a volume that has two in two others, one alone as little as none.
    """

    def kept(members: Iterable[str]) -> int:
        return promise.kept(sites_of([*holders, *members], snapshot))

    now, with_all = kept(()), kept(stale)
    if alone := [member for member in stale if kept((member,)) > now]:
        return alone
    if with_all == now:
        return []
    needed = [member for member in stale if kept(other for other in stale if other != member) < with_all]
    return needed or list(stale)


def _reason_to_wait(view: VolumeView, promise: Replication, snapshot: Snapshot, rules: Rules) -> Waiting | None:
    record = view.record
    if record.volume in snapshot.urgent or len(record.in_sync) >= promise.copies:
        return None
    absent = [
        member
        for member in record.stale
        if mark_of(member, snapshot).mark != "removed" and (member in view.copies or not is_alive(member, snapshot))
    ]
    if not absent:
        return None  # nobody can come back with a copy
    cared_for = [member for member in absent if mark_of(member, snapshot).mark == "maintenance"]
    if cared_for and promise.kept(sites_of([*record.in_sync, *cared_for], snapshot)) >= promise.copies:
        names = names_of(cared_for, snapshot)
        return Waiting(record.volume, f"{names} is in maintenance; no copy is made elsewhere because of that")
    waited_seconds = (snapshot.now_ms - record.degraded_since_ms) / 1000
    left_seconds = rules.delay_seconds - waited_seconds
    if left_seconds <= 0:
        return None
    names = names_of(absent, snapshot)
    reason = f"waits for {names} to come back; in {format_duration(left_seconds)} a copy is made elsewhere"
    return Waiting(record.volume, reason, left_seconds)


def _thin_out(
    view: VolumeView, promise: Replication, alive: Sequence[str], snapshot: Snapshot
) -> Need | Waiting | None:
    """Return what a volume has too much; its promise is kept."""
    record = view.record
    if not record.stale and len(record.in_sync) <= record.wanted and not _any_leaving(view, snapshot):
        return None
    lacking = len(record.in_sync) < record.wanted
    back = [member for member in record.stale if lacking and is_usable_stale(member, view, snapshot)]
    if back:
        reason = f"{name_of(back[0], snapshot)} is back, with a copy above the promise that is wanted for now"
        step = Step(Action.REJOIN, record.volume, back[0], record.primary, "", size_of(view), reason)
        return Need((2, len(record.in_sync), record.volume), view, step)
    if not snapshot.settled:
        return Waiting(
            record.volume, "has more copies than promised; nothing is given up before all Stores have reported"
        )
    if len(alive) < len(record.in_sync):
        return Waiting(record.volume, "has more copies than promised; nothing is given up while one in sync is silent")
    for member in record.stale:
        if not is_alive(member, snapshot) or member not in view.copies:
            if lacking and not is_alive(member, snapshot) and mark_of(member, snapshot).mark != "removed":
                continue  # a copy above the promise may come back
            reason = "the volume has all its copies without it"
            return Need((3, 0, record.volume), view, Step(Action.FORGET, record.volume, member, reason=reason))
    for member in record.stale:
        copy = view.copies.get(member)
        if copy is not None and not lacking and copy.state not in ("failed", "recovering"):
            reason = "it does not count, and the volume has all its copies without it"
            size_bytes = copy.size_bytes
            step = Step(Action.DELETE, record.volume, member, size_bytes=size_bytes, reason=reason)
            return Need((3, 1, record.volume), view, step)
    target = _least_liked(view, promise, snapshot)
    if target is None:
        return None
    leaving = is_leaving(target, view, snapshot)
    reason = "it is being drained, and all is elsewhere" if leaving else "there are more copies than promised"
    step = Step(Action.GIVE_UP, record.volume, target, size_bytes=size_of(view), reason=reason)
    return Need((3, 2, record.volume), view, step)


def _least_liked(view: VolumeView, promise: Replication, snapshot: Snapshot) -> str | None:
    """Return the copy in sync to give up: one that leaves first, then where there is least room, the primary last."""
    record = view.record
    dispensable = []
    for member in record.in_sync:
        others = [other for other in record.in_sync if other != member]
        too_many = len(others) >= record.wanted or is_leaving(member, view, snapshot)
        if too_many and promise.kept(sites_of(others, snapshot)) >= promise.copies:
            dispensable.append(member)
    free = room_of(snapshot.spaces).free_bytes(dispensable)
    # Two that leave are two steps; one that stays is given up only if there are too many of those that stay.
    leaving = [member for member in dispensable if is_leaving(member, view, snapshot)]
    return min(
        leaving or dispensable,
        key=lambda member: (member == record.primary, free.get(member, 0), member),
        default=None,
    )


# -- small questions


def _any_leaving(view: VolumeView, snapshot: Snapshot) -> bool:
    return any(is_leaving(member, view, snapshot) for member in view.record.in_sync)


def _unavailable(record: VolumeRecord, alive: Sequence[str], snapshot: Snapshot) -> str:
    names = names_of(record.in_sync, snapshot)
    if alive:
        return f"its primary {name_of(record.primary, snapshot)} is silent; another one takes its place in a moment"
    if any(
        (store := snapshot.stores.get(m)) is not None and store.liveness is Liveness.UNKNOWN for m in record.in_sync
    ):
        return f"waits for {names} to report after the start of the Directory"
    return (
        f"every copy in sync is on a silent Store: start {names}, or see haystack node remove for what giving up means"
    )
