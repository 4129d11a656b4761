"""Hands the lead of volumes over, one at a time, to Stores that lead clearly fewer than others.

No photo is meant to notice: for a moment before, nothing is assigned in that volume, so that uploads to it come to
their end. When some still arrive, from clients that took their names long before, it is left for another time. What
arrives at the very moment is passed on by the former primary, or refused with 503.
"""

from __future__ import annotations

import asyncio
import logging

from directory.decisions.leadership import Handover, handed_over, plan_handover
from directory.membership.memberships import Memberships
from directory.service import Service
from haystack.errors import HaystackError

LOOK_SECONDS = 2.0
QUIET_SECONDS = 10.0
"""Time since the last change of any membership: nothing is handed over while Stores come and go."""

REST_SECONDS = 1.0
"""Time without assigns in a volume before it is handed over."""

WATCH_SECONDS = 1.5
"""Time behind that, at least, in which its Store must not report an upload to it."""

WATCH_HEARTBEATS = 2
"""Heartbeats that must have come in that time: the second was surely written in it, and silence says nothing."""

TELL_SECONDS = 2.0
"""Time that the Stores have to learn of it before the volume counts as one that takes no photos."""

log = logging.getLogger(__name__)


class Leadership:
    """Looks at who leads what.

    Parameters
    ----------
    heartbeat_seconds: how often Stores report.
    """

    def __init__(self, service: Service, memberships: Memberships, heartbeat_seconds: float) -> None:
        self._service = service
        self._memberships = memberships
        self._heartbeat_seconds = heartbeat_seconds

    async def run(self) -> None:
        """Hand over for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except HaystackError as error:
                log.error("no volume can be handed over, trying again: %s", error)

    async def look(self) -> bool:
        """Hand one volume over, if that is called for; says whether it was."""
        cluster, now_seconds = self._service.cluster, self._service.clock()
        quiet = now_seconds - cluster.membership_changed_seconds >= QUIET_SECONDS
        if not quiet or not cluster.settled(now_seconds) or cluster.mending(None, now_seconds):
            return False
        candidates = cluster.candidates(now_seconds)
        handover = plan_handover([one for one in candidates if one.volume not in cluster.compacting | cluster.moving])
        if handover is None:
            return False
        cluster.resting.add(handover.volume)
        self._service.cluster_changed()
        try:
            return await self._hand_over(handover)
        finally:
            cluster.resting.discard(handover.volume)
            self._service.cluster_changed()

    async def _hand_over(self, handover: Handover) -> bool:
        cluster = self._service.cluster
        epoch = cluster.records[handover.volume].epoch
        await asyncio.sleep(REST_SECONDS)
        if not await self._has_no_uploads(handover):
            return False
        now_seconds = self._service.clock()
        if not all(cluster.alive(member, now_seconds) for member in cluster.records[handover.volume].in_sync):
            return False
        changes = await self._memberships.change([handover.volume], lambda record: handed_over(record, handover, epoch))
        if not changes:
            return False
        log.info(
            "volume %d is led by Store %s from now on: Store %s led more",
            handover.volume,
            handover.taker,
            handover.giver,
        )
        await self._until_told(handover.volume)
        return True

    async def _has_no_uploads(self, handover: Handover) -> bool:
        """Watch the volume; say whether its giver reported all the time, and no upload to it."""
        before = self._reported(handover)
        await asyncio.sleep(max(WATCH_SECONDS, (WATCH_HEARTBEATS + 1) * self._heartbeat_seconds))
        after = self._reported(handover)
        if before is None or after is None:
            return False
        return after[0] - before[0] >= WATCH_HEARTBEATS and after[1] == before[1]

    def _reported(self, handover: Handover) -> tuple[int, int] | None:
        """Return the number of the giver's last heartbeat, and how many uploads to the volume it has reported."""
        giver = self._service.cluster.stores.get(handover.giver)
        volume = giver.volumes.get(handover.volume) if giver is not None else None
        return (giver.sequence, volume.writes) if giver is not None and volume is not None else None

    async def _until_told(self, volume: int) -> None:
        cluster = self._service.cluster
        deadline_seconds = self._service.clock() + TELL_SECONDS
        while (left_seconds := deadline_seconds - self._service.clock()) > 0:
            record = cluster.records[volume]
            if all(member in cluster.stores and cluster.stores[member].knows(record) for member in record.in_sync):
                return
            await self._service.wait_for_change(left_seconds)
