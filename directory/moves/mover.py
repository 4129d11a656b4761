"""Moves of copies from Store to Store: taken as orders, kept durably, begun as far as limits allow, cancelled, told.

The steps of a move are steps of the repair plan (:mod:`directory.decisions.moves`); the healer carries them out. Kept
is what was ordered, and how it ended: how far a move is, the membership of its volume says. So a Directory may be
killed at any moment, and its successor goes on where the Stores are.

A volume has one move at a time, which excludes its compaction and the handover of its lead once it has begun. Before
that it waits for a compaction. Snapshots do not mind: bytes and generation stay, and a snapshot asks whoever leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from directory.decisions import failure
from directory.decisions.move_orders import MoveKind, MoveOrder
from directory.decisions.repair_views import Action, MoveView, Plan, Step
from directory.decisions.spaces import FolderSpace
from directory.errors import NotPossibleNow
from directory.membership.memberships import Memberships
from directory.moves import transactions as move_transactions
from directory.moves.intake import resolve, size_of
from directory.moves.record import MoveRecord, MoveState
from directory.repair.healer import Healer
from directory.repair.steps import Progress
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import HaystackError, InvalidRequest
from haystack.lifetime import end_tasks

MAX_ACTIVE = 10_000
"""Moves that may be under way or wait for their turn."""

MAX_ENDED = 200
"""Moves that are over and still told of."""

PATIENCE_SECONDS = 600.0
"""Time without anything going forward after which a move is given up."""

log = logging.getLogger(__name__)


class MoveNotFound(HaystackError):
    """There is no move of this number, or it ended long ago."""

    http_status = 404


@dataclass(slots=True)
class _Watch:
    """What is known of a move beside its record: since when nothing went forward, how much was copied last."""

    moved_seconds: float
    touched: bool = False
    copied_bytes: int = 0
    switched_ms: int = 0
    problem: str = ""


class Mover:
    """Takes orders and looks after them. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    healer: carries the steps out.
    is_compacting: says whether a volume is being compacted, or waits for its turn.

    Attributes
    ----------
    active: moves that are not over, by volume. ended: those that are, the newest last.
    counts: moves since the start by how they ended (done, cancelled, failed), and the ``bytes`` that they copied.
    """

    def __init__(
        self, service: Service, memberships: Memberships, healer: Healer, is_compacting: Callable[[int], bool]
    ) -> None:
        self.active: dict[int, MoveRecord] = {}
        self.ended: deque[MoveRecord] = deque(maxlen=MAX_ENDED)
        self.counts = Counter[str]()
        self._service = service
        self._memberships = memberships
        self._healer = healer
        self._is_compacting = is_compacting
        self._watches: dict[int, _Watch] = {}
        self._ending: set[int] = set()
        self._taking: set[int] = set()
        self._forgotten: set[int] = set()
        """Moves that are not told of any more, and go from the storage with the next that ends."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._load()
        healer.moves = self

    def _load(self) -> None:
        records = move_transactions.load(self._service.storage)
        for record in sorted((one for one in records if one.state.over), key=lambda one: one.ended_ms):
            self._remember(record)
        for record in records:
            if not record.state.over:
                self.active[record.volume] = record
                # Whether bytes came to its target is not known for sure.
                self._watches[record.number] = _Watch(self._service.clock(), touched=True)
                if record.began_ms:
                    self._service.cluster.moving.add(record.volume)

    async def close(self) -> None:
        """Wait for nothing more; what is under way is found again by the next Directory."""
        await end_tasks(self._tasks)

    # -- orders

    def resolve(self, order: MoveOrder, spaces: Sequence[FolderSpace] | None = None) -> MoveOrder:
        """Return an order with source and target filled in, if it can be carried out as things are.

        Parameters
        ----------
        spaces: all data folders, for many orders at once.

        Raises as :func:`~directory.moves.intake.resolve`, and NotPossibleNow for a volume that is being compacted, or
        in another move.
        """
        volume = order.volume
        if volume in self.active:
            raise NotPossibleNow(f"volume {volume} is in move {self.active[volume].number} already; cancel that first")
        if volume in self._taking:
            raise NotPossibleNow(f"another move of volume {volume} is being ordered at this moment")
        if self._is_compacting(volume):
            raise NotPossibleNow(f"volume {volume} is being compacted; try again when that is done")
        if spaces is None:
            spaces = self._service.cluster.folder_spaces(self._service.clock(), {})
        return resolve(self._service, order, self._healer.rules.max_volume_bytes, spaces)

    def refusal(self, order: MoveOrder) -> str:
        """Return why an order would be refused now; empty when it would not."""
        try:
            self.resolve(order)
        except HaystackError as error:
            return str(error)
        return ""

    async def queue(self, orders: Sequence[MoveOrder], by: str) -> list[MoveRecord]:
        """Take orders, all or none; they are durable when this returns. Raises as :meth:`resolve`.

        Parameters
        ----------
        by: who wants them, ``operator`` or ``rebalance``.
        """
        if len(self.active) + len(orders) > MAX_ACTIVE:
            raise NotPossibleNow(f"{len(self.active)} moves are under way or wait; at most {MAX_ACTIVE} may")
        for position, order in enumerate(orders):
            if order.after is not None and not 0 <= order.after < position:
                raise InvalidRequest(f"order {position} names {order.after} as the one that comes before it")
        spaces = self._service.cluster.folder_spaces(self._service.clock(), {})
        resolved = [self.resolve(order, spaces) for order in orders]
        if len({order.volume for order in orders}) < len(orders):
            raise InvalidRequest("a volume is in two of these moves; one has to end before the next begins")
        now_ms = self._now_ms()

        wanted = [self._record(number, order, by, now_ms) for number, order in enumerate(resolved, 1)]

        def know(records: list[MoveRecord]) -> None:
            for record in records:
                self.active[record.volume] = record
                self._watches[record.number] = _Watch(self._service.clock())

        volumes = {order.volume for order in orders}
        self._taking |= volumes
        try:
            records: list[MoveRecord] = await self._service.committer.run(
                lambda draft: move_transactions.take(draft, wanted), know
            )
        finally:
            self._taking -= volumes
        for record in records:
            log.info("move %d of volume %d is ordered (%s): %s", record.number, record.volume, by, record.reason)
        self._healer.look()
        return records

    def find(self, number: int) -> MoveRecord:
        """Return a move by its number. Raises MoveNotFound."""
        for record in (*self.active.values(), *self.ended):
            if record.number == number:
                return record
        raise MoveNotFound(f"there is no move {number}, or it ended long ago; `haystack volume moves` lists them")

    def may_cancel(self, record: MoveRecord) -> None:
        """Raise NotPossibleNow when a move cannot be cancelled any more."""
        if record.state.over:
            raise NotPossibleNow(f"move {record.number} is over already: {record.state.value}")
        known = self._service.cluster.records[record.volume]
        running = self._healer.running.get(record.volume)
        giving_up = running is not None and running.step.action is Action.GIVE_UP and not record.state.undoing
        if giving_up or (record.source and record.source not in known.in_sync and self._has_arrived(record, known)):
            raise NotPossibleNow(
                f"move {record.number} has switched: the copy on the source does not count any more; order a move back"
            )

    async def cancel(self, number: int) -> MoveRecord:
        """Have a move undone. Raises MoveNotFound, NotPossibleNow."""
        record = self.find(number)
        self.may_cancel(record)
        await self._undo(record, MoveState.CANCELLING, "")
        return self.find(number)

    # -- what the healer asks, and tells

    def views(self) -> Mapping[int, MoveView]:
        return {volume: self._view(record) for volume, record in self.active.items()}

    def step_began(self, step: Step) -> None:
        record = self.active.get(step.volume)
        if record is None or record.number != step.move:
            return
        watch = self._watches[record.number]
        watch.touched = watch.touched or step.action.copies_bytes
        watch.moved_seconds = self._service.clock()
        self._service.cluster.moving.add(record.volume)
        if not record.began_ms:
            self.active[record.volume] = record = replace(record, began_ms=self._now_ms())
            self._spawn(self._note(record.number, beganMs=record.began_ms))

    def step_ended(self, progress: Progress) -> None:
        record = self.active.get(progress.step.volume)
        if record is None or record.number != progress.step.move:
            return
        watch = self._watches[record.number]
        watch.problem = "" if progress.cancelled else progress.error
        if progress.step.action.copies_bytes:
            watch.copied_bytes = max(watch.copied_bytes, progress.copied_bytes)
        if not progress.error:
            watch.moved_seconds = self._service.clock()
            if progress.step.action is Action.DISCARD:
                watch.touched = False

    def planned(self, plan: Plan) -> None:
        now_seconds = self._service.clock()
        going = {*self._healer.running, *plan.next_volumes, *(step.volume for step in plan.steps)}
        for record in list(self.active.values()):
            watch = self._watches[record.number]
            known = self._service.cluster.records[record.volume]
            if record.source and record.source not in known.in_sync and not watch.switched_ms:
                watch.switched_ms = self._now_ms()
            if record.volume in going or self._held(record) or self._lingers(watch):
                watch.moved_seconds = now_seconds
        for volume in plan.moved:
            if volume in self.active and volume not in self._healer.running:
                self._end_later(self.active[volume])
        if plan is self._healer.plan:
            self._lose_patience(now_seconds)

    def _lose_patience(self, now_seconds: float) -> None:
        reasons = self.waits()
        for record in list(self.active.values()):
            if record.number in self._ending:
                continue
            if (
                record.after
                and not record.state.undoing
                and (first := self._result_of(record.after)) not in (None, MoveState.DONE)
            ):
                self._spawn(self._undo(record, MoveState.FAILING, f"move {record.after}, before it, was {first.value}"))
            elif now_seconds - self._watches[record.number].moved_seconds > PATIENCE_SECONDS:
                why = self._watches[record.number].problem or reasons.get(record.volume, "nothing went forward")
                log.warning("move %d of volume %d is given up: %s", record.number, record.volume, why)
                if self._has_arrived(record, self._service.cluster.records[record.volume]) or record.state.undoing:
                    self._end_later(replace(record, error=why))
                else:
                    self._spawn(self._undo(record, MoveState.FAILING, why))

    # -- inside

    def copied_bytes(self, record: MoveRecord) -> int:
        """Return how much of a move was copied."""
        progress = self._healer.running.get(record.volume)
        if progress is not None and progress.step.move == record.number and progress.step.action.copies_bytes:
            return progress.copied_bytes
        watch = self._watches.get(record.number)
        return watch.copied_bytes if watch is not None else record.total_bytes

    def waits(self) -> dict[int, str]:
        """Return why volumes wait, as planned last."""
        return {waiting.volume: waiting.reason for waiting in self._healer.plan.waiting}

    def problem(self, record: MoveRecord, waits: Mapping[int, str]) -> str:
        """Return why a move waits, or what went wrong last; empty when it goes forward."""
        if record.error or record.state.over:
            return record.error
        running = self._healer.running.get(record.volume)
        if running is not None and running.step.move == record.number:
            return ""
        return waits.get(record.volume) or self._watches[record.number].problem

    def _record(self, number: int, order: MoveOrder, by: str, now_ms: int) -> MoveRecord:
        return MoveRecord(
            number=number,
            kind=order.kind,
            volume=order.volume,
            source=order.source,
            target=order.target,
            folder=order.folder,
            reason=order.reason,
            by=by,
            created_ms=now_ms,
            after=0 if order.after is None else 1 + order.after,
            total_bytes=0
            if order.kind is MoveKind.DROP
            else size_of(self._service, self._service.cluster.records[order.volume]),
        )

    def _view(self, record: MoveRecord) -> MoveView:
        watch = self._watches[record.number]
        return MoveView(
            record.number,
            record.source,
            record.target,
            record.folder,
            watch.touched,
            record.state.undoing,
            self._held(record),
            watch.switched_ms,
        )

    def _held(self, record: MoveRecord) -> str:
        """Return why a move must not begin now; empty when it may, or has begun."""
        if record.began_ms:
            return ""
        if self._is_compacting(record.volume):
            return "it is being compacted"
        if record.after and self._result_of(record.after) is not MoveState.DONE:
            return f"move {record.after} comes first"
        return ""

    def _lingers(self, watch: _Watch) -> bool:
        since_seconds = (self._now_ms() - watch.switched_ms) / 1000
        return bool(watch.switched_ms) and since_seconds < self._healer.rules.move_linger_seconds

    def _result_of(self, number: int) -> MoveState | None:
        """Return how a move ended; None when it is under way. One that nobody remembers was done long ago."""
        if number in self._watches:
            return None
        return next((record.state for record in self.ended if record.number == number), MoveState.DONE)

    @staticmethod
    def _has_arrived(record: MoveRecord, known: VolumeRecord) -> bool:
        return not record.target or record.target in known.in_sync

    async def _undo(self, record: MoveRecord, state: MoveState, error: str) -> None:
        # At once, so that nothing further of it begins while this is written down.
        self.active[record.volume] = replace(self.active[record.volume], state=state, error=error)
        running = self._healer.running.get(record.volume)
        if running is not None and running.step.move == record.number and running.step.target == record.target:
            running.cancelled = True
        await self._note(record.number, state=state.value, error=error)
        self._healer.look()

    async def _note(self, number: int, **changes: object) -> None:
        await self._service.committer.run(lambda draft: move_transactions.note(draft, number, changes))

    def _end_later(self, record: MoveRecord) -> None:
        if record.number not in self._ending:
            self._ending.add(record.number)
            self._spawn(self._end(record))

    async def _end(self, record: MoveRecord) -> None:
        """Write down how a move ended."""
        try:
            known = self._service.cluster.records[record.volume]
            state = self._outcome(record, known)
            if state is MoveState.DONE and record.kind is MoveKind.COPY:
                await self._memberships.change([record.volume], failure.with_extras)
            copied_bytes = self._watches[record.number].copied_bytes
            if state is MoveState.DONE and not copied_bytes:
                copied_bytes = record.total_bytes  # by the Directory before this one
            over = replace(record, state=state, ended_ms=self._now_ms(), total_bytes=copied_bytes)
            forgotten = tuple(self._forgotten)
            await self._service.committer.run(
                lambda draft: move_transactions.end(draft, over, forgotten), lambda _: self._forget(over)
            )
            self._forgotten.difference_update(forgotten)
        finally:
            self._ending.discard(record.number)
        level = logging.INFO if state is MoveState.DONE else logging.WARNING
        log.log(level, "move %d of volume %d is over: %s %s", over.number, over.volume, state.value, over.error)

    @staticmethod
    def _outcome(record: MoveRecord, known: VolumeRecord) -> MoveState:
        if Mover._has_arrived(record, known) and record.source not in known.in_sync:
            return MoveState.DONE
        return MoveState.CANCELLED if record.state is MoveState.CANCELLING else MoveState.FAILED

    def _remember(self, record: MoveRecord) -> None:
        if len(self.ended) == self.ended.maxlen:
            self._forgotten.add(self.ended[0].number)
        self.ended.append(record)

    def _forget(self, record: MoveRecord) -> None:
        del self.active[record.volume]
        del self._watches[record.number]
        self._service.cluster.moving.discard(record.volume)
        self._remember(record)
        self.counts[record.state.value] += 1
        self.counts["bytes"] += record.total_bytes
        self._service.cluster_changed()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a move could not be written down, trying again: %s", error)

    def _now_ms(self) -> int:
        return int(self._service.wall_clock() * 1000)
