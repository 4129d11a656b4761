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
"""Time behind that in which its Store must not report an upload to it; some heartbeats long."""

TELL_SECONDS = 2.0
"""Time that the Stores have to learn of it before the volume counts as one that takes no photos."""

log = logging.getLogger(__name__)


class Leadership:
    """Looks at who leads what."""

    def __init__(self, service: Service, memberships: Memberships) -> None:
        self._service = service
        self._memberships = memberships

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
        writes = self._writes(handover)
        await asyncio.sleep(WATCH_SECONDS)
        if self._writes(handover) != writes:
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

    def _writes(self, handover: Handover) -> int | None:
        """Return how many uploads the giver has reported of the volume; None when it is not there any more."""
        giver = self._service.cluster.stores.get(handover.giver)
        volume = giver.volumes.get(handover.volume) if giver is not None else None
        return volume.writes if volume is not None else None

    async def _until_told(self, volume: int) -> None:
        cluster = self._service.cluster
        deadline_seconds = self._service.clock() + TELL_SECONDS
        while (left_seconds := deadline_seconds - self._service.clock()) > 0:
            record = cluster.records[volume]
            if all(member in cluster.stores and cluster.stores[member].knows(record) for member in record.in_sync):
                return
            await self._service.wait_for_change(left_seconds)
