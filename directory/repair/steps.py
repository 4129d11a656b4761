"""Carries out one step of the repair plan: a copy comes in, is given up, or goes. Repair and moves share it.

Every step may be repeated, and may be left half done: what a Directory that was killed has left is a copy that does not
count yet, or does not count any more, and the next plan finds it in the records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from directory.cluster.store_client import StoreClient
from directory.cluster.store_state import StoreState
from directory.decisions.repair_facts import may_give_up
from directory.decisions.repair_views import Action, Step
from directory.errors import NewerEpoch
from directory.membership.memberships import Memberships
from directory.membership.pusher import member_document
from directory.service import Service
from directory.storage.tables import VolumeRecord
from haystack.errors import VolumeNotFound, VolumeUnavailable

FIRST_POLL_SECONDS = 0.02
LAST_POLL_SECONDS = 1.0
STALLED_SECONDS = 120.0
"""Time without a further byte after which a copy is given up for now."""


@dataclass(slots=True)
class Progress:
    """A step that is being carried out, or has ended (``finished_ms`` is above 0).

    ``cancelled``: nothing more is to be copied.
    """

    step: Step
    started_ms: int
    copied_bytes: int = 0
    total_bytes: int = 0
    finished_ms: int = 0
    error: str = ""
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second: what all copies of repair together may take, and all copies of moves."""

    repairs: int
    moves: int


class StepRunner:
    """Does steps.

    Parameters
    ----------
    running: what is under way; each copy gets its share of the rate.
    """

    def __init__(
        self,
        service: Service,
        memberships: Memberships,
        client: StoreClient,
        rates: Rates,
        running: Callable[[], Iterable[Step]],
    ) -> None:
        self.rates = rates
        self._service = service
        self._memberships = memberships
        self._client = client
        self._running = running

    async def do(self, progress: Progress) -> None:
        """Carry out a step, and note in ``progress`` how far it is. Raises HaystackError; it may be tried again."""
        step = progress.step
        if step.action.copies_bytes:
            await self._bring_in(step, progress)
        elif step.action is Action.GIVE_UP:
            await self._give_up(step)
        elif step.action is Action.DELETE:
            await self._delete(step)
        elif step.action is Action.DISCARD:
            await self._discard(step)
        else:
            await self._memberships.forget([step.volume], step.target)

    async def _bring_in(self, step: Step, progress: Progress) -> None:
        """Have a copy followed, admitted by the primary, and counted."""
        await self._with_membership(step.volume)
        record = await self._follow(step, progress)
        primary = self._living(record.primary)
        member = member_document(self._service, step.target)
        await self._client.admit(primary.document, step.volume, record.epoch, member)
        if not await self._memberships.admit(step.volume, step.target, record.epoch):
            raise VolumeUnavailable("the membership has changed while the copy came in; it is tried again")

    async def _with_membership(self, volume: int) -> VolumeRecord:
        """Return the record once the primary knows its membership; one copy alone never had any."""
        records = self._service.cluster.records
        if not records[volume].replicated:
            await self._memberships.raise_epoch(volume, records[volume].epoch)
        record = records[volume]
        primary = self._living(record.primary)
        if not primary.knows(record):
            await self._tell(record.primary, record)
        return record

    async def _follow(self, step: Step, progress: Progress) -> VolumeRecord:
        """Have everything copied; returns the record in force, under whose epoch it was compared."""
        cluster = self._service.cluster
        pause_seconds, moved_seconds = FIRST_POLL_SECONDS, self._service.clock()
        while True:
            if progress.cancelled:
                raise VolumeUnavailable("it was cancelled")
            record = cluster.records[step.volume]
            if step.target in record.in_sync:
                raise VolumeUnavailable("the copy is in sync already")
            self._living(record.primary)
            target = self._living(step.target)
            state = await self._client.follow(target.document, step.volume, self._order(record, step))
            if state.state == "done":
                progress.copied_bytes, progress.total_bytes = state.copied_bytes, state.total_bytes
                if cluster.records[step.volume].epoch == record.epoch:
                    return record
                continue
            if state.state == "failed":
                raise VolumeUnavailable(f"Store {target.document.url} could not copy it: {state.error}")
            now_seconds = self._service.clock()
            if state.copied_bytes != progress.copied_bytes:
                moved_seconds = now_seconds
            elif now_seconds - moved_seconds > STALLED_SECONDS:
                raise VolumeUnavailable(f"nothing was copied for {STALLED_SECONDS:g} s")
            progress.copied_bytes, progress.total_bytes = state.copied_bytes, state.total_bytes
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LAST_POLL_SECONDS)

    def _order(self, record: VolumeRecord, step: Step) -> dict[str, object]:
        reported = self._service.cluster.stores[step.target].volumes.get(record.volume)
        return {
            "epoch": record.epoch,
            "uuid": record.uuid,
            "replication": record.replication,
            "createdMs": record.created_ms,
            "maxBytes": record.max_bytes,
            "folder": step.folder or (reported.folder if reported else None),
            "source": member_document(self._service, record.primary),
            "generation": record.generation,
            "bytesPerSecond": self._share(step),
        }

    def _share(self, step: Step) -> int:
        """Return the bytes a second of a copy."""
        rate = self.rates.moves if step.move else self.rates.repairs
        others = sum(1 for one in self._running() if one.action.copies_bytes and bool(one.move) == bool(step.move))
        return max(1, rate // max(1, others))

    async def _give_up(self, step: Step) -> None:
        """Let a copy count no more. Its file goes in a step of its own, after everybody knows."""
        cluster = self._service.cluster
        sites = {member: cluster.site(member) for member in cluster.records[step.volume].members}

        def allowed(record: VolumeRecord) -> bool:
            now_seconds = self._service.clock()
            alive = {member for member in record.in_sync if cluster.alive(member, now_seconds)}
            return set(record.in_sync) <= set(sites) and may_give_up(record, step.target, sites, alive)

        if not await self._memberships.give_up(step.volume, step.target, allowed=allowed):
            raise VolumeUnavailable("the copy is needed after all")

    async def _delete(self, step: Step) -> None:
        """Remove the file of a copy that does not count, when all who count know that."""
        record = self._service.cluster.records[step.volume]
        if step.target in record.in_sync:
            raise VolumeUnavailable("the copy counts again")
        for member in (step.target, *record.in_sync):
            if not self._living(member).knows(record):
                await self._tell(member, record)
        if self._service.cluster.records[step.volume].epoch != record.epoch:
            raise VolumeUnavailable("the membership has changed; it is tried again")
        await self._remove(step, record)
        await self._memberships.forget([step.volume], step.target)

    async def _discard(self, step: Step) -> None:
        """Remove what was copied for a move that was cancelled, of a copy that never counted."""
        records = self._service.cluster.records
        if records[step.volume].replicated:
            # Its primary may wait for it as a learner; only a higher epoch ends that.
            await self._memberships.raise_epoch(step.volume, records[step.volume].epoch)
        record = records[step.volume]
        if step.target in record.in_sync:
            raise VolumeUnavailable("the copy counts")
        await self._remove(step, record)
        await self._memberships.forget([step.volume], step.target)

    async def _remove(self, step: Step, record: VolumeRecord) -> None:
        store = self._living(step.target)
        await self._client.delete_volume(store.document, step.volume, record.uuid, record.epoch)
        store.drop_volume(step.volume)
        store.misfits.pop(step.volume, None)

    async def _tell(self, store_id: str, record: VolumeRecord) -> None:
        try:
            await self._memberships.pusher.tell(store_id, record)
        except NewerEpoch as error:
            await self._memberships.raise_epoch(record.volume, error.known_epoch)
            raise VolumeUnavailable(f"{error}; it is tried again under a higher one") from error
        except VolumeNotFound as error:
            raise VolumeUnavailable(str(error)) from error

    def _living(self, store_id: str) -> StoreState:
        if not self._service.cluster.alive(store_id, self._service.clock()):
            raise VolumeUnavailable(f"Store {store_id} is silent")
        return self._service.cluster.stores[store_id]
