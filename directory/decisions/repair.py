"""The repair plan: from what is known of volumes and Stores to the steps that bring every volume to its promise.

Invariants, which the tests state as properties:

- nothing is given up or deleted before all Stores have reported or had their time (``settled``), or while a Store that
  has the volume in sync is silent;
- a copy in sync is given up only when the others keep everything that the replication promises, each on a living Store;
- what is deleted does not count (a new epoch came before it), and the volume keeps its promise without it;
- two copies are never planned on one Store; a plan that is carried out leads to one without steps.

Each volume has one step at a time; what follows from it is planned anew. So every step may fail, or be forgotten by a
Directory that dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from directory.decisions.liveness import Liveness
from directory.decisions.placement import missing_in_words, place_copy
from directory.decisions.repair_views import Action, Plan, Rules, Snapshot, Step, VolumeView, Waiting
from directory.decisions.replication import Replication, Site, parse_replication
from directory.decisions.spaces import FolderSpace, refusal
from directory.tables import NO_MARK, MarkRecord, VolumeRecord
from haystack.units import format_duration


@dataclass(frozen=True, slots=True)
class _Need:
    """What one volume needs, before it is looked whether there is room and a free hand for it."""

    rank: tuple[int, int, int]
    view: VolumeView
    step: Step
    holders: tuple[str, ...] = ()


def plan_repair(snapshot: Snapshot, rules: Rules) -> Plan:
    """Return what to do now."""
    busy = {step.volume for step in snapshot.running}
    needs: list[_Need] = []
    waiting: list[Waiting] = []
    for view in snapshot.volumes:
        if view.record.volume in busy:
            continue
        found = _assess(view, snapshot, rules)
        if isinstance(found, _Need):
            needs.append(found)
        elif found is not None:
            waiting.append(found)
    needs.sort(key=lambda need: need.rank)
    return _allot(needs, waiting, snapshot, rules)


# -- what a volume needs


def _assess(view: VolumeView, snapshot: Snapshot, rules: Rules) -> _Need | Waiting | None:
    record = view.record
    promise = _promise(record)
    alive = [member for member in record.in_sync if _alive(member, snapshot)]
    if record.primary not in alive:
        return Waiting(record.volume, _unavailable(record, alive, snapshot), blocked=not alive)
    staying = [member for member in record.in_sync if not _leaving(member, view, snapshot)]
    if promise.kept(_sites(record.in_sync, snapshot)) < promise.copies:
        return _complete(view, record.in_sync, promise, snapshot, rules)
    if len(staying) < len(record.in_sync) and promise.kept(_sites(staying, snapshot)) < promise.copies:
        return _complete(view, staying, promise, snapshot, rules)
    return _thin_out(view, promise, alive, snapshot)


def _complete(
    view: VolumeView, holders: Sequence[str], promise: Replication, snapshot: Snapshot, rules: Rules
) -> _Need | Waiting:
    """Return how a volume gets one more copy beside those of ``holders``: an old one, or a new one."""
    record = view.record
    kept = promise.kept(_sites(holders, snapshot))
    left = len(record.in_sync)
    stale = [
        member
        for member in record.stale
        if _usable_stale(member, view, snapshot)
        and (left < promise.copies or promise.kept(_sites([*holders, member], snapshot)) > kept)
    ]
    if stale:
        # One that stays rather than one that leaves; the one that has most lacks least.
        target = min(stale, key=lambda m: (_leaving(m, view, snapshot), -view.copies[m].size_bytes, m))
        reason = f"{_name(target, snapshot)} is back, its copy lacks what came meanwhile"
        step = Step(Action.REJOIN, record.volume, target, record.primary, "", _size(view), reason)
        return _Need((0, left, record.volume), view, step)
    draining = kept < promise.kept(_sites(record.in_sync, snapshot))
    if not draining and (wait := _reason_to_wait(view, promise, snapshot, rules)):
        return wait
    if draining:
        leaving = [member for member in record.in_sync if member not in holders]
        reason = f"{', '.join(_name(member, snapshot) for member in leaving)} is being drained"
    else:
        reason = f"{left} of {promise.copies} promised copies are in sync"
    step = Step(Action.COPY, record.volume, "", record.primary, "", _size(view), reason)
    return _Need((2 if draining else 1, left, record.volume), view, step, tuple(holders))


def _reason_to_wait(view: VolumeView, promise: Replication, snapshot: Snapshot, rules: Rules) -> Waiting | None:
    record = view.record
    if record.volume in snapshot.urgent or len(record.in_sync) >= promise.copies:
        return None
    absent = [
        member
        for member in record.stale
        if _mark(member, snapshot).mark != "removed" and (member in view.copies or not _alive(member, snapshot))
    ]
    if not absent:
        return None  # nobody can come back with a copy
    cared_for = [member for member in absent if _mark(member, snapshot).mark == "maintenance"]
    if cared_for and promise.kept(_sites([*record.in_sync, *cared_for], snapshot)) >= promise.copies:
        names = ", ".join(_name(member, snapshot) for member in cared_for)
        return Waiting(record.volume, f"{names} is in maintenance; no copy is made elsewhere because of that")
    waited_seconds = (snapshot.now_ms - record.degraded_since_ms) / 1000
    left_seconds = rules.delay_seconds - waited_seconds
    if left_seconds <= 0:
        return None
    names = ", ".join(_name(member, snapshot) for member in absent)
    reason = f"waits for {names} to come back; in {format_duration(left_seconds)} a copy is made elsewhere"
    return Waiting(record.volume, reason, left_seconds)


def _thin_out(
    view: VolumeView, promise: Replication, alive: Sequence[str], snapshot: Snapshot
) -> _Need | Waiting | None:
    """Return what a volume has too much; its promise is kept."""
    record = view.record
    if not record.stale and len(record.in_sync) <= promise.copies and not _any_leaving(view, snapshot):
        return None
    if not snapshot.settled:
        return Waiting(
            record.volume, "has more copies than promised; nothing is given up before all Stores have reported"
        )
    if len(alive) < len(record.in_sync):
        return Waiting(record.volume, "has more copies than promised; nothing is given up while one in sync is silent")
    for member in record.stale:
        if not _alive(member, snapshot) or member not in view.copies:
            reason = "the volume has all its copies without it"
            return _Need((3, 0, record.volume), view, Step(Action.FORGET, record.volume, member, reason=reason))
    for member in record.stale:
        if view.copies[member].state not in ("failed", "recovering"):
            reason = "it does not count, and the volume has all its copies without it"
            size_bytes = view.copies[member].size_bytes
            step = Step(Action.DELETE, record.volume, member, size_bytes=size_bytes, reason=reason)
            return _Need((3, 1, record.volume), view, step)
    target = _least_liked(view, promise, snapshot)
    if target is None:
        return None
    leaving = _leaving(target, view, snapshot)
    reason = "it is being drained, and all is elsewhere" if leaving else "there are more copies than promised"
    step = Step(Action.GIVE_UP, record.volume, target, size_bytes=_size(view), reason=reason)
    return _Need((3, 2, record.volume), view, step)


def may_give_up(record: VolumeRecord, target: str, sites: Mapping[str, Site], alive: Collection[str]) -> bool:
    """Say whether the promise is kept, on living Stores, without one copy. Asked again when it is really given up."""
    if target not in record.in_sync or not set(record.in_sync) <= set(alive):
        return False
    others = [sites[member] for member in record.in_sync if member != target]
    promise = _promise(record)
    return promise.kept(others) >= promise.copies


def _least_liked(view: VolumeView, promise: Replication, snapshot: Snapshot) -> str | None:
    """Return the copy in sync to give up: one that leaves first, then where there is least room, the primary last."""
    record = view.record
    dispensable = []
    for member in record.in_sync:
        others = [other for other in record.in_sync if other != member]
        if promise.kept(_sites(others, snapshot)) >= promise.copies:
            dispensable.append(member)
    free = {space.store_id: 0 for space in snapshot.spaces}
    for space in snapshot.spaces:
        free[space.store_id] += space.free_bytes
    # Two that leave are two steps; one that stays is given up only if there are too many of those that stay.
    leaving = [member for member in dispensable if _leaving(member, view, snapshot)]
    return min(
        leaving or dispensable,
        key=lambda member: (member == record.primary, free.get(member, 0), member),
        default=None,
    )


# -- room, and free hands


def _allot(needs: Sequence[_Need], waiting: list[Waiting], snapshot: Snapshot, rules: Rules) -> Plan:
    """Give the steps their targets, as far as limits and room go."""
    transfers = sum(1 for step in snapshot.running if step.action.copies_bytes)
    removals = len(snapshot.running) - transfers
    hands = Counter(
        store for step in snapshot.running if step.action.copies_bytes for store in (step.target, step.source)
    )
    room = _Room(snapshot, rules)
    steps: list[Step] = []
    later: list[int] = []
    for need in needs:
        step = need.step
        if not step.action.copies_bytes:
            if removals < rules.removals and (step.volume, step.target) not in snapshot.resting:
                removals += 1
                steps.append(step)
            else:
                later.append(step.volume)
            continue
        if transfers >= rules.copies or hands[step.source] >= rules.copies_per_store:
            later.append(step.volume)
            continue
        full = {store for store, count in hands.items() if count >= rules.copies_per_store}
        if step.action is Action.COPY:
            space, problem = room.find(need, full)
            if space is None:
                if problem:
                    waiting.append(Waiting(step.volume, problem, blocked=True))
                else:
                    later.append(step.volume)
                continue
            step = replace(step, target=space.store_id, folder=space.folder)
        elif step.target in full:
            later.append(step.volume)
            continue
        transfers += 1
        hands.update((step.target, step.source))
        steps.append(step)
    return Plan(tuple(steps), tuple(waiting), tuple(later))


class _Room:
    """Data folders, less what is planned for them."""

    def __init__(self, snapshot: Snapshot, rules: Rules) -> None:
        self._snapshot = snapshot
        self._limit_bytes = rules.max_volume_bytes
        self._spaces = {(space.store_id, space.folder): space for space in snapshot.spaces}
        for step in snapshot.running:
            if step.action is Action.COPY:
                self._take(step.target, step.folder, step.size_bytes)

    def find(self, need: _Need, full: Collection[str]) -> tuple[FolderSpace | None, str]:
        """Return a folder for a copy; or None and why not, without words when a Store only has to be free again."""
        record, snapshot = need.view.record, self._snapshot
        promise = _promise(record)
        holders = _sites(need.holders, snapshot)
        taken = {*record.in_sync, *(member for member in record.stale if member in need.view.copies)}
        fitting = [
            space
            for space in self._spaces.values()
            if space.store_id not in taken
            and (record.volume, space.store_id) not in snapshot.resting
            and not refusal(replace(space, free_bytes=space.free_bytes - need.step.size_bytes), self._limit_bytes)
        ]
        hosts = {snapshot.stores[holder].host for holder in need.holders if holder in snapshot.stores}
        space = place_copy(promise, holders, fitting, _claim, hosts)
        if space is None:
            where = missing_in_words(promise, holders)
            return None, f"{need.step.reason}, but there is no room for another one: it needs {where} with free space"
        free_hands = [space for space in fitting if space.store_id not in full]
        space = place_copy(promise, holders, free_hands, _claim, hosts)
        if space is not None:
            self._take(space.store_id, space.folder, need.step.size_bytes)
        return space, ""

    def _take(self, store_id: str, folder: str, size_bytes: int) -> None:
        space = self._spaces.get((store_id, folder))
        if space is not None:
            self._spaces[store_id, folder] = replace(
                space, free_bytes=space.free_bytes - size_bytes, volumes=space.volumes + 1
            )


def _claim(space: FolderSpace) -> tuple[float, str, str]:
    return space.free_bytes / (space.writable + 1), space.store_id, space.folder


# -- small questions


def _promise(record: VolumeRecord) -> Replication:
    return parse_replication(record.replication if record.promised > 1 else "000")


def _alive(store_id: str, snapshot: Snapshot) -> bool:
    store = snapshot.stores.get(store_id)
    return store is not None and store.alive


def _mark(store_id: str, snapshot: Snapshot) -> MarkRecord:
    store = snapshot.stores.get(store_id)
    return store.mark if store else NO_MARK


def _leaving(store_id: str, view: VolumeView, snapshot: Snapshot) -> bool:
    """Say whether the operator wants this copy elsewhere."""
    mark = _mark(store_id, snapshot)
    copy = view.copies.get(store_id)
    return mark.mark == "removed" or mark.draining(copy.folder if copy else "")


def _any_leaving(view: VolumeView, snapshot: Snapshot) -> bool:
    return any(_leaving(member, view, snapshot) for member in view.record.in_sync)


def _usable_stale(store_id: str, view: VolumeView, snapshot: Snapshot) -> bool:
    copy = view.copies.get(store_id)
    return (
        copy is not None
        and copy.state not in ("failed", "recovering")
        and _alive(store_id, snapshot)
        and (view.record.volume, store_id) not in snapshot.resting
    )


def _sites(members: Iterable[str], snapshot: Snapshot) -> list[Site]:
    return [_site(member, snapshot) for member in members]


def _site(store_id: str, snapshot: Snapshot) -> Site:
    store = snapshot.stores.get(store_id)
    return store.site if store else Site(store_id, f"?{store_id}", f"?{store_id}")


def _size(view: VolumeView) -> int:
    return max((view.copies[m].size_bytes for m in view.record.in_sync if m in view.copies), default=0)


def _name(store_id: str, snapshot: Snapshot) -> str:
    store = snapshot.stores.get(store_id)
    return f"Store {store.url}" if store else f"Store {store_id}"


def _unavailable(record: VolumeRecord, alive: Sequence[str], snapshot: Snapshot) -> str:
    names = ", ".join(_name(member, snapshot) for member in record.in_sync)
    if alive:
        return f"its primary {_name(record.primary, snapshot)} is silent; another one takes its place in a moment"
    if any(
        (store := snapshot.stores.get(m)) is not None and store.liveness is Liveness.UNKNOWN for m in record.in_sync
    ):
        return f"waits for {names} to report after the start of the Directory"
    return (
        f"every copy in sync is on a silent Store: start {names}, or see haystack node remove for what giving up means"
    )
