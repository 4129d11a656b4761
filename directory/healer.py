"""Carries out the repair plan: copies come in, copies go, one step a volume, a few at a time.

Nothing about a step is kept: it is found again from the records and the Stores' reports. A Directory may be killed at
any moment; what its successor finds is a copy that does not count yet (it rejoins), or one that counts no more (it is
deleted).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from directory.decisions.repair import may_give_up, plan_repair
from directory.decisions.repair_views import (
    Action,
    CopyView,
    Plan,
    Rules,
    Snapshot,
    Step,
    StoreView,
    VolumeView,
)
from directory.decisions.spaces import FolderSpace
from directory.errors import NewerEpoch
from directory.memberships import Memberships
from directory.pusher import member_document
from directory.service import Service
from directory.store_client import StoreClient
from directory.store_state import StoreState
from directory.tables import VolumeRecord
from haystack.errors import HaystackError, VolumeNotFound, VolumeUnavailable

PLAN_SECONDS = 1.0
LEAST_PAUSE_SECONDS = 0.2
PAUSE_FACTOR = 20
"""Everything is looked at when the state of the cluster has changed, at the latest after ``PLAN_SECONDS``, but a plan
takes no more than a twentieth of the time. In between, only volumes whose turn has come are planned."""

FIRST_POLL_SECONDS = 0.02
LAST_POLL_SECONDS = 1.0
STALLED_SECONDS = 120.0
"""Time without a further byte after which a copy is given up for now."""

FIRST_REST_SECONDS = 1.0
LAST_REST_SECONDS = 60.0
MAX_NEXT = 64
"""Volumes that are planned anew when a step has ended."""

MAX_RECENT = 50

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """A step that is being carried out, or has ended (``finished_ms`` is above 0)."""

    step: Step
    started_ms: int
    copied_bytes: int = 0
    total_bytes: int = 0
    finished_ms: int = 0
    error: str = ""


@dataclass(slots=True)
class _Rest:
    until_seconds: float
    failures: int
    reason: str


@dataclass(slots=True)
class Healer:
    """Repairs. Make it inside the event loop, end it with :meth:`close`.

    Parameters
    ----------
    bytes_per_second: what all copies together may take.
    """

    service: Service
    memberships: Memberships
    client: StoreClient
    rules: Rules
    bytes_per_second: int
    running: dict[int, Progress] = field(default_factory=dict)
    recent: deque[Progress] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))
    urgent: set[int] = field(default_factory=set)
    plan: Plan = field(default_factory=lambda: Plan((), ()))
    _spaces: list[FolderSpace] = field(default_factory=list)
    _next: deque[int] = field(default_factory=deque)
    _resting: dict[tuple[int, str], _Rest] = field(default_factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _closed: bool = False

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
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- planning

    def _in_need(self) -> set[int]:
        """The volumes that may need something."""
        index = self.service.cluster.index
        found = set(index.untidy)
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
                self._tasks[step.volume] = asyncio.get_running_loop().create_task(self._carry_out(step))

    def _begin_next(self) -> None:
        """A hand is free: begin what has waited for one."""
        batch = [self._next.popleft() for _ in range(min(MAX_NEXT, len(self._next)))]
        if batch and not self._closed:
            plan = plan_repair(self._snapshot(batch), self.rules)
            self._next.extendleft(reversed(plan.next_volumes))
            self._begin(plan)

    # -- doing

    async def _carry_out(self, step: Step) -> None:
        progress = self.running[step.volume]
        try:
            await self._do(step, progress)
            self._resting.pop((step.volume, step.target), None)
        except HaystackError as error:
            progress.error = str(error)
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
        self._begin_next()

    async def _do(self, step: Step, progress: Progress) -> None:
        if step.action.copies_bytes:
            await self._bring_in(step, progress)
        elif step.action is Action.GIVE_UP:
            await self._give_up(step)
        elif step.action is Action.DELETE:
            await self._delete(step)
        else:
            await self.memberships.forget([step.volume], step.target)

    async def _bring_in(self, step: Step, progress: Progress) -> None:
        """Have a copy followed, admitted by the primary, and counted."""
        await self._with_membership(step.volume)
        record = await self._follow(step, progress)
        primary = self._living(record.primary)
        await self.client.admit(primary.document, step.volume, record.epoch, member_document(self.service, step.target))
        if not await self.memberships.admit(step.volume, step.target, record.epoch):
            raise VolumeUnavailable("the membership has changed while the copy came in; it is tried again")

    async def _with_membership(self, volume: int) -> VolumeRecord:
        """Return the record once the primary knows its membership; one copy alone never had any."""
        if not self.service.cluster.records[volume].replicated:
            await self.memberships.raise_epoch(volume, self.service.cluster.records[volume].epoch)
        record = self.service.cluster.records[volume]
        primary = self._living(record.primary)
        if not primary.knows(record):
            await self._tell(record.primary, record)
        return record

    async def _follow(self, step: Step, progress: Progress) -> VolumeRecord:
        """Have everything copied; returns the record in force, under whose epoch it was compared."""
        cluster = self.service.cluster
        pause_seconds, moved_seconds = FIRST_POLL_SECONDS, self.service.clock()
        while True:
            record = cluster.records[step.volume]
            if step.target in record.in_sync:
                raise VolumeUnavailable("the copy is in sync already")
            self._living(record.primary)
            target = self._living(step.target)
            state = await self.client.follow(target.document, step.volume, self._order(record, step))
            if state.state == "done":
                progress.copied_bytes, progress.total_bytes = state.copied_bytes, state.total_bytes
                if cluster.records[step.volume].epoch == record.epoch:
                    return record
                continue
            if state.state == "failed":
                raise VolumeUnavailable(f"Store {target.document.url} could not copy it: {state.error}")
            now_seconds = self.service.clock()
            if state.copied_bytes != progress.copied_bytes:
                moved_seconds = now_seconds
            elif now_seconds - moved_seconds > STALLED_SECONDS:
                raise VolumeUnavailable(f"nothing was copied for {STALLED_SECONDS:g} s")
            progress.copied_bytes, progress.total_bytes = state.copied_bytes, state.total_bytes
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LAST_POLL_SECONDS)

    def _order(self, record: VolumeRecord, step: Step) -> dict[str, object]:
        transfers = sum(1 for progress in self.running.values() if progress.step.action.copies_bytes)
        reported = self.service.cluster.stores[step.target].volumes.get(record.volume)
        return {
            "epoch": record.epoch,
            "uuid": record.uuid,
            "replication": record.replication,
            "createdMs": record.created_ms,
            "maxBytes": record.max_bytes,
            "folder": step.folder or (reported.folder if reported else None),
            "source": member_document(self.service, record.primary),
            "generation": record.generation,
            "bytesPerSecond": max(1, self.bytes_per_second // max(1, transfers)),
        }

    async def _give_up(self, step: Step) -> None:
        """Let a copy count no more. Its file goes in a step of its own, after everybody knows."""
        cluster = self.service.cluster
        sites = {member: cluster.site(member) for member in cluster.records[step.volume].members}

        def allowed(record: VolumeRecord) -> bool:
            now_seconds = self.service.clock()
            alive = {member for member in record.in_sync if cluster.alive(member, now_seconds)}
            return set(record.in_sync) <= set(sites) and may_give_up(record, step.target, sites, alive)

        if not await self.memberships.give_up(step.volume, step.target, allowed=allowed):
            raise VolumeUnavailable("the copy is needed after all")

    async def _delete(self, step: Step) -> None:
        """Remove the file of a copy that does not count, when all who count know that."""
        record = self.service.cluster.records[step.volume]
        if step.target in record.in_sync:
            raise VolumeUnavailable("the copy counts again")
        for member in (step.target, *record.in_sync):
            if not self._living(member).knows(record):
                await self._tell(member, record)
        if self.service.cluster.records[step.volume].epoch != record.epoch:
            raise VolumeUnavailable("the membership has changed; it is tried again")
        store = self._living(step.target)
        await self.client.delete_volume(store.document, step.volume, record.uuid, record.epoch)
        store.drop_volume(step.volume)
        store.misfits.pop(step.volume, None)
        await self.memberships.forget([step.volume], step.target)

    async def _tell(self, store_id: str, record: VolumeRecord) -> None:
        try:
            await self.memberships.pusher.tell(store_id, record)
        except NewerEpoch as error:
            await self.memberships.raise_epoch(record.volume, error.known_epoch)
            raise VolumeUnavailable(f"{error}; it is tried again under a higher one") from error
        except VolumeNotFound as error:
            raise VolumeUnavailable(str(error)) from error

    def _living(self, store_id: str) -> StoreState:
        if not self.service.cluster.alive(store_id, self.service.clock()):
            raise VolumeUnavailable(f"Store {store_id} is silent")
        return self.service.cluster.stores[store_id]

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
