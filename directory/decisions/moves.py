"""Which step of a move comes next. Pure.

A move needs no notes of how far it is: the volume's membership says it. The target gets a copy, is compared, and
counts; only then the source's copy is given up, and is deleted a while later. Each of these is a step of the repair
plan (:mod:`directory.decisions.repair`) and is carried out by the same hands, so its invariants hold for moves: never
fewer copies than promised, nothing deleted that counts. In particular

- repair goes first: as long as a volume lacks copies, its move does nothing;
- while a volume has a move, repair gives up none of its copies, and makes none for it when it has all it was promised;
- a source whose copy is needed after all (another one was lost meanwhile) keeps it.
"""

from __future__ import annotations

from directory.decisions.repair_facts import (
    is_alive,
    is_usable_stale,
    may_give_up,
    name_of,
    names_of,
    sites_of,
    size_of,
)
from directory.decisions.repair_views import Action, MoveView, Need, Rules, Snapshot, Step, VolumeView, Waiting
from haystack.units import format_duration


def next_of_move(view: VolumeView, move: MoveView, snapshot: Snapshot, rules: Rules) -> Need | Waiting | None:
    """Return what comes next; None when nothing is left to do. The volume has all copies that it was promised."""
    record = view.record
    if move.cancelling:
        return _undo(view, move, snapshot)
    if move.target and move.target not in record.in_sync:
        return _bring_in(view, move, snapshot)
    if move.source in record.in_sync:
        return _let_go(view, move, move.source, snapshot)
    if move.source in record.members:
        return _clear_away(view, move, snapshot, rules)
    return None


def _bring_in(view: VolumeView, move: MoveView, snapshot: Snapshot) -> Need | Waiting:
    volume, target = view.record.volume, move.target
    if move.held:
        return Waiting(volume, move.held)
    if move.source and move.source not in view.record.in_sync:
        return Waiting(volume, f"the copy on {name_of(move.source, snapshot)} was lost meanwhile", blocked=True)
    if not is_alive(target, snapshot):
        return Waiting(volume, f"{name_of(target, snapshot)} is silent", blocked=True)
    if why := snapshot.resting.get((volume, target)):
        return Waiting(volume, f"{why}; it is tried again", blocked=True)
    copy = view.copies.get(target)
    if copy is not None and not is_usable_stale(target, view, snapshot):
        return Waiting(volume, f"what was copied to {name_of(target, snapshot)} is {copy.state}", blocked=True)
    action = Action.COPY if copy is None else Action.REJOIN
    reason = "it is moved" if move.source else "a copy more was ordered"
    step = Step(action, volume, target, view.record.primary, move.folder, size_of(view), reason, move.number)
    return Need((4, 0, move.number), view, step)


def _let_go(view: VolumeView, move: MoveView, leaving: str, snapshot: Snapshot) -> Need | Waiting:
    """Give a copy up; or, while it is needed, bring back another one that was lost."""
    record = view.record
    found = _give_up(view, move, leaving, snapshot)
    if found is not None:
        return found
    stale = [member for member in record.stale if member != leaving and is_usable_stale(member, view, snapshot)]
    if stale:
        reason = f"the copy on {name_of(leaving, snapshot)} is to go"
        step = Step(Action.REJOIN, record.volume, stale[0], record.primary, "", size_of(view), reason, move.number)
        return Need((2, len(record.in_sync), move.number), view, step)
    words = f"the copy on {name_of(leaving, snapshot)} is needed: the others do not keep the promise without it"
    return Waiting(record.volume, words, blocked=True)


def _give_up(view: VolumeView, move: MoveView, leaving: str, snapshot: Snapshot) -> Need | Waiting | None:
    """Return how a copy is given up; None when the others do not keep the promise without it."""
    record = view.record
    if not snapshot.settled:
        return Waiting(record.volume, "nothing is given up before all Stores have reported")
    alive = {member for member in record.in_sync if is_alive(member, snapshot)}
    if silent := [member for member in record.in_sync if member not in alive]:
        return Waiting(record.volume, f"nothing is given up while {names_of(silent, snapshot)} is silent", blocked=True)
    sites = dict(zip(record.in_sync, sites_of(record.in_sync, snapshot), strict=True))
    if not may_give_up(record, leaving, sites, alive):
        return None
    if why := snapshot.resting.get((record.volume, leaving)):
        return Waiting(record.volume, f"{why}; it is tried again", blocked=True)
    reason = "its move was cancelled" if move.cancelling else "it was moved" if move.target else "it is dropped"
    step = Step(Action.GIVE_UP, record.volume, leaving, "", "", size_of(view), reason, move.number)
    return Need((3, 3, move.number), view, step)


def _clear_away(view: VolumeView, move: MoveView, snapshot: Snapshot, rules: Rules) -> Need | Waiting | None:
    """Delete the source's copy. One whose Store is away is left to repair, which looks after it when it is back."""
    record, source = view.record, move.source
    left_seconds = rules.move_linger_seconds - (snapshot.now_ms - (move.switched_ms or snapshot.now_ms)) / 1000
    if left_seconds > 0:
        where = name_of(source, snapshot)
        words = f"readers that remember {where} find it there for {format_duration(left_seconds)} more"
        return Waiting(record.volume, words, left_seconds)
    return _delete(view, move, source, "it was moved", snapshot)


def _undo(view: VolumeView, move: MoveView, snapshot: Snapshot) -> Need | Waiting | None:
    """Return to what was before: the target's copy is given up and removed."""
    record, target = view.record, move.target
    if not target:
        return None
    if target in record.in_sync:
        return _give_up(view, move, target, snapshot)  # it stays when it is needed: another one was lost meanwhile
    if target in record.members:
        return _delete(view, move, target, "its move was cancelled", snapshot)
    if not move.began or not is_alive(target, snapshot):
        return None
    if why := snapshot.resting.get((record.volume, target)):
        return Waiting(record.volume, why, blocked=True)
    step = Step(Action.DISCARD, record.volume, target, reason="its move was cancelled", move=move.number)
    return Need((3, 2, move.number), view, step)


def _delete(view: VolumeView, move: MoveView, leaving: str, reason: str, snapshot: Snapshot) -> Need | Waiting | None:
    record = view.record
    copy = view.copies.get(leaving)
    if copy is None or not is_alive(leaving, snapshot) or copy.state in ("failed", "recovering"):
        return None
    silent = [member for member in record.in_sync if not is_alive(member, snapshot)]
    if not snapshot.settled or silent:
        return Waiting(record.volume, "nothing is deleted before all its Stores are heard", blocked=bool(silent))
    if why := snapshot.resting.get((record.volume, leaving)):
        return Waiting(record.volume, f"{why}; it is tried again", blocked=True)
    step = Step(Action.DELETE, record.volume, leaving, "", "", copy.size_bytes, reason, move.number)
    return Need((3, 1, move.number), view, step)
