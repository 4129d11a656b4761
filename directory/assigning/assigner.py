"""Gives a new photo its place: a volume that takes it, and an id."""

from __future__ import annotations

import asyncio

from directory.assigning.grower import Grower
from directory.decisions.choice import ANYWHERE, Candidate, Where
from directory.errors import DirectoryBusy, NothingWritable
from directory.service import Service
from directory.settings import ASSIGN_WAIT_SECONDS, MAX_WAITING_ASSIGNS
from haystack.fid import Fid
from haystack.sealed_ttl import LifeSeal

POLL_SECONDS = 0.25
"""How often a waiting assign looks whether the time of silent Stores is over; all else wakes it at once."""

TAKES_LONG = "the Stores take long to make new ones; try again in a moment"


class Assigner:
    """Assigns names to photos.

    Parameters
    ----------
    seal: puts the lives of photos into their cookies.
    wait_seconds: how long an assign waits while volumes are being made, or Stores have yet to report after a start.
    """

    def __init__(
        self, service: Service, grower: Grower, seal: LifeSeal, *, wait_seconds: float = ASSIGN_WAIT_SECONDS
    ) -> None:
        self._seal = seal
        self._service = service
        self._grower = grower
        self._wait_seconds = wait_seconds
        self._waiting = 0

    async def assign(
        self, where: Where = ANYWHERE, replication: str | None = None, ttl_seconds: int = 0
    ) -> tuple[Fid, Candidate]:
        """Return a name that was never given before, and the Store to send the photo to.

        Parameters
        ----------
        where: where the primary should be.
        replication: None for the default one.
        ttl_seconds: how long what is uploaded lives when the upload says nothing else; 0 for ever.

        Raises
        ------
        NothingWritable: no volume takes photos; the message says why.
        DirectoryBusy: too many assigns are waiting for a volume.
        """
        candidate = self._service.choose(where, replication) or await self._wait_for_volume(where, replication)
        return await self._name(candidate.volume, ttl_seconds), candidate

    async def more(self, volume: int, count: int, ttl_seconds: int = 0) -> list[Fid]:
        """Return more names of a volume that :meth:`assign` chose."""
        return [await self._name(volume, ttl_seconds) for _ in range(count)]

    def services(self, candidate: Candidate) -> dict[str, str]:
        """Return the other servers on the machine of a Store that :meth:`assign` chose, by name."""
        store = self._service.cluster.stores.get(candidate.store_id)
        return store.document.services if store is not None else {}

    async def _name(self, volume: int, ttl_seconds: int) -> Fid:
        photo_id = self._service.ids.take_now()
        if photo_id is None:
            photo_id = await self._service.ids.take()
        return Fid(volume, photo_id, self._seal.cookie(photo_id, ttl_seconds))

    async def _wait_for_volume(self, where: Where, replication: str | None) -> Candidate:
        if self._waiting >= MAX_WAITING_ASSIGNS:
            raise DirectoryBusy(f"no volume takes photos, and {self._waiting} requests are waiting for one")
        self._waiting += 1
        try:
            return await self._find_volume(where, replication, self._service.clock() + self._wait_seconds)
        finally:
            self._waiting -= 1

    async def _find_volume(self, where: Where, replication: str | None, deadline_seconds: float) -> Candidate:
        service = self._service
        reason = ""
        while True:
            hopeful = True
            if service.cluster.settled(service.clock()):
                grown = await self._grow(where, replication, deadline_seconds)
                reason = grown if grown is not None else reason or TAKES_LONG
                hopeful = service.cluster.recovering() or service.cluster.mending(replication, service.clock())
                hopeful = hopeful or service.gathering
            if candidate := service.choose(where, replication):
                return candidate
            left_seconds = deadline_seconds - service.clock()
            if left_seconds <= 0 or not hopeful:
                raise NothingWritable(f"no volume takes photos now: {reason or self._why()}")
            await service.wait_for_change(min(left_seconds, POLL_SECONDS))

    async def _grow(self, where: Where, replication: str | None, deadline_seconds: float) -> str | None:
        """Have volumes made, and return why not as many as wanted; None when there was no time to learn it."""
        growing = self._grower.top_up(replication) if where == ANYWHERE else self._grower.grow(1, where, replication)
        try:
            async with asyncio.timeout(max(0.0, deadline_seconds - self._service.clock())):
                return (await growing).reason
        except TimeoutError:
            return None

    def _why(self) -> str:
        if not self._service.cluster.settled(self._service.clock()):
            return "the Stores have not reported yet; try again in a moment"
        if self._service.cluster.recovering():
            return "the Stores are recovering their volumes; try again in a moment"
        return "all are full, and new ones are not ready yet; try again in a moment"
