"""Which needs of volumes are met now: limits at once, free hands of Stores, and room for new copies.

Repair and moves have limits of their own. A Store's hands are for repair first: moves count the copies of repair that
it is busy with, repair does not count those of moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from directory.decisions.placement import copy_in, missing_in_words
from directory.decisions.repair_facts import promise_of, sites_of
from directory.decisions.repair_views import Action, Need, Plan, Rules, Snapshot, Step, Waiting
from directory.decisions.room import Room
from directory.decisions.spaces import FolderSpace, refusal


def allot(needs: Sequence[Need], waiting: list[Waiting], snapshot: Snapshot, rules: Rules) -> Plan:
    """Give the steps their targets, as far as limits and room go.

    Parameters
    ----------
    needs: the most urgent first. waiting: what waits already; more is added.
    """
    hands = _Hands(snapshot.running, rules)
    room = _Taken(snapshot, rules)
    steps: list[Step] = []
    later: list[int] = []
    for need in needs:
        step = need.step
        if not hands.free_for(step) or (
            not step.action.copies_bytes and (step.volume, step.target) in snapshot.resting
        ):
            later.append(step.volume)
            continue
        if step.action is Action.COPY:
            space, problem = room.at(step) if step.target else room.find(need, hands.full(step))
            if space is None:
                if problem:
                    waiting.append(Waiting(step.volume, problem, blocked=True))
                else:
                    later.append(step.volume)
                continue
            step = replace(step, target=space.store_id, folder=space.folder)
        hands.take(step)
        steps.append(step)
    return Plan(tuple(steps), tuple(waiting), tuple(later))


class _Hands:
    """What is under way, in all and at each Store."""

    def __init__(self, running: Iterable[Step], rules: Rules) -> None:
        self._rules = rules
        self._removals = 0
        self._repairs: Counter[str] = Counter()
        self._moves: Counter[str] = Counter()
        self._transfers = {True: 0, False: 0}
        for step in running:
            self.take(step)

    def take(self, step: Step) -> None:
        """Count a step as under way."""
        if not step.action.copies_bytes:
            self._removals += 1
            return
        self._transfers[bool(step.move)] += 1
        (self._moves if step.move else self._repairs).update((step.target, step.source))

    def free_for(self, step: Step) -> bool:
        """Say whether a step may begin, as far as its Stores are known yet."""
        if not step.action.copies_bytes:
            return self._removals < self._rules.removals
        most = self._rules.moves if step.move else self._rules.copies
        full = self.full(step)
        return self._transfers[bool(step.move)] < most and step.source not in full and step.target not in full

    def full(self, step: Step) -> set[str]:
        """Return the Stores that have no hand free for a step of this kind."""
        if not step.move:
            return {store for store, count in self._repairs.items() if count >= self._rules.copies_per_store}
        busy = self._repairs + self._moves
        return {store for store, count in busy.items() if count >= self._rules.moves_per_store}


class _Taken:
    """Data folders, less what is planned for them."""

    def __init__(self, snapshot: Snapshot, rules: Rules) -> None:
        self._snapshot = snapshot
        self._limit_bytes = rules.max_volume_bytes
        self._room = room_of(snapshot.spaces).branch()
        for step in snapshot.running:
            if step.action is Action.COPY:
                self._take(step.target, step.folder, step.size_bytes)

    def at(self, step: Step) -> tuple[FolderSpace | None, str]:
        """Return the folder for a copy at the Store that a step names; or None and why not."""
        there = [space for space in self._room.of_store(step.target) if step.folder in ("", space.folder)]
        problems = [refusal(space, self._limit_bytes, taken_bytes=step.size_bytes) for space in there]
        fitting = [space for space, problem in zip(there, problems, strict=True) if not problem]
        best = max(fitting, key=_claim, default=None)
        if best is None:
            return None, "; ".join(problems) or f"Store {step.target} reports no data folder for it"
        self._take(best.store_id, best.folder, step.size_bytes)
        return best, ""

    def find(self, need: Need, full: Collection[str]) -> tuple[FolderSpace | None, str]:
        """Return a folder for a copy; or None and why not, without words when a Store only has to be free again."""
        record, snapshot = need.view.record, self._snapshot
        promise = promise_of(record)
        holders = sites_of(need.holders, snapshot)
        taken = {*record.in_sync, *(member for member in record.stale if member in need.view.copies)}

        def fits(space: FolderSpace) -> bool:
            return (
                space.store_id not in taken
                and (record.volume, space.store_id) not in snapshot.resting
                and not refusal(space, self._limit_bytes, taken_bytes=need.step.size_bytes)
            )

        hosts = {snapshot.stores[holder].host for holder in need.holders if holder in snapshot.stores}
        space = copy_in(self._room, promise, holders, fits, hosts)
        if space is None:
            where = missing_in_words(promise, holders)
            return None, f"{need.step.reason}, but there is no room for another one: it needs {where} with free space"
        if full:
            space = copy_in(self._room, promise, holders, lambda one: one.store_id not in full and fits(one), hosts)
        if space is not None:
            self._take(space.store_id, space.folder, need.step.size_bytes)
        return space, ""

    def _take(self, store_id: str, folder: str, size_bytes: int) -> None:
        space = self._room.get(store_id, folder)
        if space is not None:
            self._room.put(replace(space, free_bytes=space.free_bytes - size_bytes, volumes=space.volumes + 1))


def room_of(spaces: Iterable[FolderSpace]) -> Room:
    """Return data folders in the order in which they get copies; a room as it is."""
    return spaces if isinstance(spaces, Room) else Room(spaces, _claim)


def _claim(space: FolderSpace) -> tuple[float, str, str]:
    return space.free_bytes / (space.writable + 1), space.store_id, space.folder
