"""One run of a rebalance plan: its steps in their order, a few at a time.

Weights wait for the moves before them that touch the same Stores: load is only sent where there is room by then. A
step that fails is told and passed over; the others are right without it, since none needs the gain of another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from directory.decisions.move_orders import MoveKind, MoveOrder, swap
from directory.decisions.rebalance import Plan, Step, StepKind
from directory.errors import NotPossibleNow
from directory.moves.mover import MoveNotFound, Mover
from directory.moves.record import MoveRecord, MoveState
from directory.rebalancing.decision_log import DecisionLog
from directory.service import Service
from haystack.errors import HaystackError

LOOK_SECONDS = 1.0
"""How often it is looked whether moves have ended, at least; changes of the cluster are looked at at once."""

WEIGHTS_AT_ONCE = 256
"""Records that are written together."""

WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"

_KINDS = {StepKind.MOVE: MoveKind.MOVE, StepKind.ADD: MoveKind.COPY, StepKind.DROP: MoveKind.DROP}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class StepState:
    """How far a step is. ``moves``: numbers of its moves."""

    step: Step
    state: str = WAITING
    error: str = ""
    moves: tuple[int, ...] = ()


class Run:
    """Carries a plan out.

    Parameters
    ----------
    by: who wants it, ``operator`` or ``rebalance``.
    at_once: moves that may be under way together.

    Attributes
    ----------
    started_ms, finished_ms: unix time in milliseconds; 0: not yet.
    stopped: no more steps are begun.
    """

    def __init__(
        self, service: Service, mover: Mover, decisions: DecisionLog, plan: Plan, by: str, at_once: int
    ) -> None:
        self.plan = plan
        self.by = by
        self.steps = [StepState(step) for step in plan.steps]
        self.started_ms = int(service.wall_clock() * 1000)
        self.finished_ms = 0
        self.stopped = False
        self.on_moved: Callable[[MoveRecord], None] = lambda record: None
        self._service = service
        self._mover = mover
        self._decisions = decisions
        self._hands = asyncio.Semaphore(at_once)
        self._last: dict[int, asyncio.Task[None]] = {}
        self._at_work: dict[asyncio.Task[None], frozenset[str]] = {}

    def counts(self) -> Counter[str]:
        """Return how many steps are in which state."""
        return Counter(one.state for one in self.steps)

    def copied_bytes(self) -> int:
        """Return how much was copied."""
        return sum(self._mover.copied_bytes(record) for one in self.steps for record in self._records(one))

    async def carry_out(self) -> None:
        """Begin the steps in their order; returns when the last one is over."""
        try:
            weights: list[StepState] = []
            for one in self.steps:
                if one.step.kind is StepKind.WEIGHTS:
                    weights.append(one)
                    continue
                await self._weigh_all(weights)
                weights = []
                await self._begin(one)
            await self._weigh_all(weights)
            if self._at_work:
                await asyncio.wait(self._at_work)
        finally:
            for task in self._at_work:
                task.cancel()
            for one in self.steps:
                if one.state in (WAITING, RUNNING):
                    one.state = SKIPPED
            self.finished_ms = int(self._service.wall_clock() * 1000)

    # -- weights

    async def _weigh_all(self, steps: list[StepState]) -> None:
        for start in range(0, len(steps), WEIGHTS_AT_ONCE):
            batch = steps[start : start + WEIGHTS_AT_ONCE]
            touched = frozenset().union(*(self._stores(one.step) for one in batch))
            await self._until_left_alone(touched)
            await asyncio.gather(*(self._weigh(one) for one in batch))

    async def _until_left_alone(self, stores: frozenset[str]) -> None:
        """Wait for the moves that touch some of these Stores."""
        while busy := [task for task, touched in self._at_work.items() if touched & stores]:
            await asyncio.wait(busy)

    async def _weigh(self, one: StepState) -> None:
        if self.stopped:
            one.state = SKIPPED
            return
        step = one.step
        self._note(step, "its reads are shared out anew")
        await self._guarded(one, self._set_weights(step.volume, step.weights))

    async def _set_weights(self, volume: int, weights: tuple[tuple[str, float], ...]) -> None:
        record = self._service.cluster.records[volume]
        if dict(weights) != record.weights:
            await self._service.set_weights(volume, dict(weights))

    # -- moves

    async def _begin(self, one: StepState) -> None:
        await self._hands.acquire()
        volumes = {one.step.volume, one.step.other} - {0}
        # A volume has one move at a time; a very hot one may get several copies.
        before = [self._last[volume] for volume in volumes if volume in self._last]
        task = asyncio.get_running_loop().create_task(self._move(one, before))
        self._last |= dict.fromkeys(volumes, task)
        self._at_work[task] = self._stores(one.step)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._at_work.pop(task, None)
        self._hands.release()

    async def _move(self, one: StepState, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        if self.stopped:
            one.state = SKIPPED
            return
        one.state = RUNNING
        await self._guarded(one, self._order_and_wait(one))

    async def _order_and_wait(self, one: StepState) -> None:
        step = one.step
        while step.volume in self._mover.active or step.other in self._mover.active:
            await self._service.wait_for_change(LOOK_SECONDS)
        records = await self._mover.queue(_orders(step), "rebalance")
        one.moves = tuple(record.number for record in records)
        self._note(step, _WORDS[step.kind])
        while any(not record.state.over for record in self._records(one)):
            await self._service.wait_for_change(LOOK_SECONDS)
        for record in self._records(one):
            self.on_moved(record)
            if record.state is not MoveState.DONE:
                raise NotPossibleNow(f"move {record.number} was {record.state.value}: {record.error}")
        await self._set_weights(step.volume, step.weights)
        if step.other:
            await self._set_weights(step.other, step.other_weights)

    def _records(self, one: StepState) -> list[MoveRecord]:
        found = []
        for number in one.moves:
            try:
                found.append(self._mover.find(number))
            except MoveNotFound:
                continue  # it ended long ago, and is not told of any more
        return found

    # -- both

    async def _guarded(self, one: StepState, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            one.state = DONE
        except HaystackError as error:
            one.state, one.error = FAILED, str(error)
            self._decisions.note(self.by, f"volume {one.step.volume}: a step failed", str(error), one.step.volume)

    def _stores(self, step: Step) -> frozenset[str]:
        touched = {step.source, step.target, *(store for store, _ in step.weights)}
        for volume in (step.volume, step.other):
            record = self._service.cluster.records.get(volume)
            touched |= set(record.in_sync) if record else set()
        return frozenset(touched - {""})

    def _note(self, step: Step, what: str) -> None:
        names = {"source": self._name(step.source), "target": self._name(step.target), "other": str(step.other)}
        text = f"volume {step.volume}: {what.format(**names)}"
        self._decisions.note(self.by, text, step.reason, step.volume)

    def _name(self, store_id: str) -> str:
        store = self._service.cluster.stores.get(store_id)
        return store.document.url if store else store_id


_WORDS = {
    StepKind.MOVE: "moves from {source} to {target}",
    StepKind.SWAP: "changes places with volume {other}: {source} to {target}",
    StepKind.ADD: "gets a temporary copy on {target}",
    StepKind.DROP: "gives up its temporary copy on {source}",
}


def _orders(step: Step) -> list[MoveOrder]:
    if step.kind is StepKind.SWAP:
        return swap(step.volume, step.source, step.other, step.target, step.reason)
    source = "" if step.kind is StepKind.ADD else step.source
    return [MoveOrder(_KINDS[step.kind], step.volume, source, step.target, reason=step.reason)]
