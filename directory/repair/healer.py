"""Has the repair plan carried out: copies come in, copies go, one step a volume, a few at a time.

Nothing about a step is kept: it is found again from the records and the Stores' reports. A Directory may be killed at
any moment; what its successor finds is a copy that does not count yet (it rejoins), or one that counts no more (it is
deleted).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from directory.cluster.store_client import StoreClient
from directory.cluster.store_state import StoreState
from directory.decisions.repair import plan_repair
from directory.decisions.repair_views import (
    Action,
    CopyView,
    MoveView,
    Plan,
    Rules,
    Snapshot,
    Step,
    StoreView,
    VolumeView,
)
from directory.decisions.spaces import FolderSpace
from directory.membership.memberships import Memberships
from directory.repair.steps import Progress, Rates, StepRunner
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import HaystackError
from haystack.lifetime import end_tasks

PLAN_SECONDS = 1.0
LEAST_PAUSE_SECONDS = 0.2
PAUSE_FACTOR = 20
"""Everything is looked at when the state of the cluster has changed, at the latest after ``PLAN_SECONDS``, but a plan
takes no more than a twentieth of the time. In between, only volumes whose turn has come are planned."""

FIRST_REST_SECONDS = 1.0
LAST_REST_SECONDS = 60.0
MAX_NEXT = 64
"""Volumes that are planned anew when a step has ended."""

MAX_RECENT = 50

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Rest:
    until_seconds: float
    failures: int
    reason: str


class Moves(Protocol):
    """Moves that were ordered, which the plan has to reckon with."""

    def views(self) -> Mapping[int, MoveView]:
        """Return those that are under way, by volume."""

    def step_began(self, step: Step) -> None:
        """A step of a move begins."""

    def step_ended(self, progress: Progress) -> None:
        """A step of a move has ended."""

    def planned(self, plan: Plan) -> None:
        """A plan was made."""


class NoMoves:
    """Nobody orders any."""

    def views(self) -> Mapping[int, MoveView]:
        return {}

    def step_began(self, step: Step) -> None:
        """There is none."""

    def step_ended(self, progress: Progress) -> None:
        """There is none."""

    def planned(self, plan: Plan) -> None:
        """Nothing follows from it."""


class Healer:
    """Repairs, and carries out moves. Make it inside the event loop, end it with :meth:`close`.

    Attributes
    ----------
    running: steps under way, by volume. recent: those that ended.
    urgent: volumes for which lost copies are not waited for.
    plan: of everything, as made last.
    moves: what was ordered; put in by whoever takes orders.
    """

    def __init__(
        self, service: Service, memberships: Memberships, client: StoreClient, rules: Rules, rates: Rates
    ) -> None:
        self.service = service
        self.memberships = memberships
        self.rules = rules
        self.rates = rates
        self.running: dict[int, Progress] = {}
        self.recent: deque[Progress] = deque(maxlen=MAX_RECENT)
        self.urgent: set[int] = set()
        self.plan = Plan((), ())
        self.moves: Moves = NoMoves()
        self._steps = StepRunner(
            service, memberships, client, rates, lambda: [progress.step for progress in self.running.values()]
        )
        self._spaces: list[FolderSpace] = []
        self._next: deque[int] = deque()
        self._resting: dict[tuple[int, str], _Rest] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def bytes_per_second(self) -> int:
        """What all copies of repair together may take."""
        return self.rates.repairs

    async def run(self) -> None:
        """Plan and begin steps for ever."""
        while True:
            began_seconds = self.service.clock()
            try:
                self.look()
            except Exception:  # the next look may go better, and without one nothing is ever repaired
                log.exception("the repair plan could not be made")
            took_seconds = self.service.clock() - began_seconds
            await asyncio.sleep(max(LEAST_PAUSE_SECONDS, took_seconds * PAUSE_FACTOR))
            await self.service.wait_for_change(PLAN_SECONDS)

    def look(self) -> None:
        """Plan everything anew, and begin what can begin."""
        self.urgent &= self.service.cluster.index.untidy
        self._spaces = self.service.cluster.folder_spaces(self.service.clock(), {})
        self.plan = self.preview()
        self._next = deque(self.plan.next_volumes)
        self.moves.planned(self.plan)
        self._begin(self.plan)

    def hurry(self, volumes: Collection[int]) -> None:
        """Wait no longer for lost copies of these volumes to come back, nor for the next try of what failed."""
        self.urgent |= set(volumes)
        self._resting = {key: rest for key, rest in self._resting.items() if key[0] not in self.urgent}
        self.look()

    def preview(self, urgent: Collection[int] | None = None) -> Plan:
        """Return the plan without beginning anything."""
        return plan_repair(self._snapshot(self._in_need(), urgent), self.rules)

    async def close(self) -> None:
        """End what is going on; the Stores stop by themselves when nobody asks any more."""
        self._closed = True
        await end_tasks(self._tasks.values())

    # -- planning

    def _in_need(self) -> set[int]:
        """The volumes that may need something."""
        index = self.service.cluster.index
        found = index.untidy | self.moves.views().keys()
        for store_id, store in self.service.cluster.stores.items():
            if store.mark.mark in ("draining", "removed"):
                found |= index.by_member[store_id]
            elif store.mark.folders:
                found |= {v for v in index.by_member[store_id] if v in store.volumes and _leaving(store, v)}
        return found

    def _snapshot(self, volumes: Iterable[int], urgent: Collection[int] | None = None) -> Snapshot:
        cluster, now_seconds = self.service.cluster, self.service.clock()
        self._resting = {key: rest for key, rest in self._resting.items() if rest.until_seconds > now_seconds - 60}
        stores = {
            store_id: StoreView(
                cluster.site(store_id), state.document.url, cluster.liveness(store_id, now_seconds), state.mark
            )
            for store_id, state in cluster.stores.items()
        }
        return Snapshot(
            volumes=[self._view(cluster.records[volume]) for volume in sorted(volumes) if volume in cluster.records],
            stores=stores,
            spaces=self._spaces,
            settled=cluster.settled(now_seconds),
            now_ms=self._now_ms(),
            running=[progress.step for progress in self.running.values()],
            urgent=self.urgent if urgent is None else urgent,
            resting={key: r.reason for key, r in self._resting.items() if r.until_seconds > now_seconds},
            moves=self.moves.views(),
        )

    def _view(self, record: VolumeRecord) -> VolumeView:
        copies = {}
        for member in record.members:
            store = self.service.cluster.stores.get(member)
            reported = store.volumes.get(record.volume) if store else None
            if reported is not None and reported.uuid == record.uuid:
                copies[member] = CopyView(reported.size_bytes, reported.folder, reported.state)
        return VolumeView(record, copies)

    def _begin(self, plan: Plan) -> None:
        for step in plan.steps:
            if step.volume not in self.running and not self._closed:
                self.running[step.volume] = Progress(step, self._now_ms(), total_bytes=step.size_bytes)
                if step.move:
                    self.moves.step_began(step)
                self._tasks[step.volume] = asyncio.get_running_loop().create_task(self._carry_out(step))

    def _begin_next(self) -> None:
        """A hand is free: begin what has waited for one."""
        batch = [self._next.popleft() for _ in range(min(MAX_NEXT, len(self._next)))]
        if batch and not self._closed:
            plan = plan_repair(self._snapshot(batch), self.rules)
            self._next.extendleft(reversed(plan.next_volumes))
            self.moves.planned(plan)
            self._begin(plan)

    # -- doing

    async def _carry_out(self, step: Step) -> None:
        progress = self.running[step.volume]
        try:
            await self._steps.do(progress)
            self._resting.pop((step.volume, step.target), None)
        except HaystackError as error:
            progress.error = str(error)
            if not progress.cancelled:
                self._rest(step, str(error))
        except Exception as error:  # whatever it is: the other volumes are repaired all the same
            log.exception("volume %d: %s failed", step.volume, step.action.value)
            progress.error = f"internal error: {error}"
            self._rest(step, progress.error)
        finally:
            progress.finished_ms = self._now_ms()
            del self.running[step.volume]
            del self._tasks[step.volume]
        if step.action is not Action.FORGET:
            self.recent.append(progress)
            _report(progress)
        if step.move:
            self.moves.step_ended(progress)
            if not progress.error:
                self._next.appendleft(step.volume)  # what follows does not wait for the next look at everything
        self._begin_next()

    def _rest(self, step: Step, reason: str) -> None:
        """Leave a copy alone for a while; longer each time."""
        key = (step.volume, step.target)
        failures = self._resting[key].failures + 1 if key in self._resting else 1
        rest_seconds = min(FIRST_REST_SECONDS * 2 ** (failures - 1), LAST_REST_SECONDS)
        self._resting[key] = _Rest(self.service.clock() + rest_seconds, failures, reason)

    def _now_ms(self) -> int:
        return int(self.service.wall_clock() * 1000)


def _leaving(store: StoreState, volume: int) -> bool:
    return store.mark.draining(store.volumes[volume].folder)


def _report(progress: Progress) -> None:
    step = progress.step
    level = logging.INFO if not progress.error else logging.WARNING
    log.log(
        level,
        "volume %d: %s at Store %s %s",
        step.volume,
        step.action.value,
        step.target,
        f"failed: {progress.error}" if progress.error else f"done, {progress.copied_bytes} bytes copied",
    )
