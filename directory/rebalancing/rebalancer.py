"""Evens out load and fill: makes plans, runs them when it is asked to, or by itself.

A run is a plan's steps in their order, a few at a time. Moves, copies and drops are orders to the mover, which keeps
them durably and carries them out; weights are written into the volumes' records. The run itself is in memory: after a
restart the moves that were ordered are ended, and the next plan is made from where things are.

What was moved is known from the moves that ended; so it is left alone over a restart, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from directory.decisions.rebalance import CoolingLog, Plan, RebalanceSettings, Snapshot, plan
from directory.errors import NotPossibleNow
from directory.moves.mover import Mover
from directory.moves.record import MoveRecord, MoveState
from directory.rebalancing.decision_log import DecisionLog
from directory.rebalancing.run import Run
from directory.rebalancing.view import take_snapshot
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import HaystackError

REMEMBERED_RESTS = 6
"""For so many times the rest a volume does not go back to a Store that it left."""

BY_ITSELF = "rebalance"
"""Who orders the moves of a run, whoever wants the run: operators' own moves may be taken back, these are not."""

LEAST_LOOKS = 2
"""Plans in a row that find something to do before anything is done by itself: one busy moment is no reason."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RebalanceRules:
    """What the operator has set.

    Parameters
    ----------
    auto: whether plans are made and run without being asked.
    look_seconds: how often, then.
    watch_seconds: how long each living Store must have watched its reads before anything is done by itself.
    at_once: steps of a run that may be under way together.
    planning: see there.
    """

    auto: bool
    look_seconds: float
    watch_seconds: float
    at_once: int
    planning: RebalanceSettings


class Rebalancer:
    """Plans and runs. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    is_compacting: says whether a volume is being compacted, or waits for its turn.

    Attributes
    ----------
    last: the plan that was made last. run_now: the run that is under way, or the last one.
    status: what it does by itself, in words.
    """

    def __init__(
        self,
        service: Service,
        mover: Mover,
        rules: RebalanceRules,
        decisions: DecisionLog,
        is_compacting: Callable[[int], bool],
    ) -> None:
        self.rules = rules
        self.decisions = decisions
        self.last: Plan | None = None
        self.run_now: Run | None = None
        self.status = ""
        self.counts: Counter[str] = Counter()
        self._service = service
        self._mover = mover
        self._is_compacting = is_compacting
        self._cooling = CoolingLog()
        self._planning = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._looks = 0
        self._history: dict[int, MoveRecord] = {}

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """End what is going on. Moves that were ordered go on when a Directory runs again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def run(self) -> None:
        """Even out by itself for ever, if that is set."""
        while self.rules.auto:
            await asyncio.sleep(self.rules.look_seconds)
            try:
                await self.look()
            except HaystackError as error:
                log.info("nothing is rebalanced by itself now: %s", error)
            except Exception:  # the next look may go better, and without one nothing is ever evened out
                log.exception("no rebalance plan could be made")

    async def look(self) -> None:
        """Make a plan, and run it when it was wanted twice."""
        if self.running:
            self.status = "a run is under way"
            return
        if obstacle := self._not_yet():
            self._looks, self.status = 0, obstacle
            return
        found = await self.plan()
        if not found.steps:
            self._looks, self.status = 0, found.reason
            return
        self._looks += 1
        if self._looks < LEAST_LOOKS:
            self.status = f"{len(found.steps)} steps would help; if they still do at the next look, they are run"
            return
        self._looks = 0
        self.begin(found, "rebalance")
        self.status = "a run is under way"

    def _not_yet(self) -> str:
        cluster, now_seconds = self._service.cluster, self._service.clock()
        if not cluster.settled(now_seconds):
            return "not all Stores have reported since the start"
        living = [store_id for store_id in cluster.stores if cluster.alive(store_id, now_seconds)]
        known_seconds = min((self._service.heat.known_seconds(one, now_seconds) for one in living), default=0.0)
        if known_seconds < self.rules.watch_seconds:
            waited_for = f"{self.rules.watch_seconds:g} are waited for"
            return f"a Store has watched its reads for {known_seconds:.0f} s, {waited_for}"
        return ""

    async def plan(self) -> Plan:
        """Make a plan of things as they are. It is made beside the event loop: it may take seconds."""
        async with self._planning:
            snapshot = await self.snapshot()
            found = await asyncio.to_thread(self._plan, snapshot)
        self.last = found
        self.counts["plans"] += 1
        return found

    def _plan(self, snapshot: Snapshot) -> Plan:
        return plan(self._cooling.note(snapshot), self.rules.planning)

    def begin(self, found: Plan, by: str) -> Run:
        """Run a plan. Raises NotPossibleNow while another one runs.

        Parameters
        ----------
        by: who wants it, ``operator`` or ``rebalance``.
        """
        if self.running:
            raise NotPossibleNow("a rebalance is under way; `haystack rebalance --stop` ends it after its moves")
        run = Run(self._service, self._mover, self.decisions, found, by, self.rules.at_once)
        run.on_moved = self._remember
        self.run_now = run
        self._task = asyncio.get_running_loop().create_task(self._carry_out(run))
        return run

    def stop(self) -> bool:
        """Begin no more steps of the run that is under way. Returns False when there is none."""
        if not self.running or self.run_now is None:
            return False
        self.run_now.stopped = True
        self.decisions.note("operator", "the rebalance is stopped", "no more of its steps are begun")
        return True

    def _remember(self, record: MoveRecord) -> None:
        """Note a move that ended: the mover itself tells of the last ones only."""
        self._history[record.number] = record

    async def _carry_out(self, run: Run) -> None:
        await run.carry_out()
        self.counts["runs"] += 1
        for state, count in run.counts().items():
            self.counts[state] += count
        self.counts["bytes"] += run.copied_bytes()

    # -- what plans are made from

    async def snapshot(self) -> Snapshot:
        """Return the cluster as a plan sees it."""
        moved_seconds, left = self._moved()
        return await take_snapshot(self._service, self._obstacle, moved_seconds, left, self._coming())

    def _obstacle(self, record: VolumeRecord) -> str:
        volume, cluster = record.volume, self._service.cluster
        if volume in self._mover.active:
            return "it is being moved"
        if self._is_compacting(volume) or volume in cluster.compacting:
            return "it is being compacted"
        if record.degraded_since_ms or record.stale:
            return "it lacks copies, which comes first"
        return ""

    def _moved(self) -> tuple[dict[int, float], dict[int, tuple[str, ...]]]:
        """Return when volumes were moved last, and where they came from lately."""
        moved_seconds: dict[int, float] = {}
        left: dict[int, tuple[str, ...]] = {}
        horizon_seconds = self._service.wall_clock() - REMEMBERED_RESTS * self.rules.planning.rest_seconds
        for record in self._mover.ended:
            self._history[record.number] = record
        for record in list(self._history.values()):
            ended_seconds = record.ended_ms / 1000
            if ended_seconds < horizon_seconds:
                del self._history[record.number]
                continue
            moved_seconds[record.volume] = max(moved_seconds.get(record.volume, 0.0), ended_seconds)
            if record.source and record.state is MoveState.DONE and record.by == BY_ITSELF:
                left[record.volume] = (*left.get(record.volume, ()), record.source)
        return moved_seconds, left

    def _coming(self) -> Counter[str]:
        """Return the bytes that are on their way to Stores."""
        coming: Counter[str] = Counter()
        for record in self._mover.active.values():
            if record.target:
                coming[record.target] += record.total_bytes
        return coming
