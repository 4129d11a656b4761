"""All scrubbing of a Store, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from haystack.store.control_cells import Counter, unpack_damaged
from haystack.store.copies.peer import Peer
from haystack.store.folder import DataFolder
from haystack.store.scrub.scrub_api import ScrubApi
from haystack.store.scrub.scrubber import Scrubber
from haystack.store.settings import Timing
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes


class Scrubbing:
    """The scrubbers of all data folders.

    Parameters
    ----------
    secret: of the cluster, None for unsigned calls.
    bytes_per_second: of each folder; 0 for never by itself.
    """

    def __init__(
        self,
        volumes: StoreVolumes,
        session: aiohttp.ClientSession,
        secret: bytes | None,
        timing: Timing,
        *,
        bytes_per_second: int,
    ) -> None:
        self._volumes = volumes
        self._session = session
        self._secret = secret
        self._scrubbers = [
            Scrubber(folder, volumes, timing, self._peers, bytes_per_second=bytes_per_second)
            for folder in volumes.folders
        ]
        self._looked = asyncio.Event()
        self.add_routes = ScrubApi(volumes, self._scrubbers).add_routes

    async def run(self) -> None:
        """Scrub for ever."""
        await asyncio.gather(self._watch_reports(), *(scrubber.run() for scrubber in self._scrubbers))

    def look(self) -> None:
        """Workers may have met needles with wrong bytes. Of several of one worker the last one counts."""
        self._looked.set()

    async def _watch_reports(self) -> None:
        """Look at the needles with wrong bytes that workers meet."""
        control = self._volumes.control
        cells = [control.worker_base(worker) + Counter.DAMAGED for worker in range(control.workers)]
        seen = [control.cells[cell] for cell in cells]
        while True:
            await self._looked.wait()
            self._looked.clear()
            now = [control.cells[cell] for cell in cells]
            for before, value in zip(seen, now, strict=True):
                slot, offset = unpack_damaged(value)
                entry = self._volumes.at(slot)
                if value != before and value and entry is not None:
                    await self._scrubbers[entry.folder.number].look_at(entry, offset)
            seen = now

    def of(self, folder: DataFolder) -> Scrubber:
        """The scrubber of a data folder."""
        return self._scrubbers[folder.number]

    def _peers(self, entry: StoreVolume) -> Sequence[Peer]:
        membership, me = entry.membership, entry.folder.identity.store_id
        if membership is None or not membership.counts(me):
            return ()
        others = [member for member in membership.in_sync if member.store_id != me]
        others.sort(key=lambda member: member.store_id != membership.primary)
        generation = entry.superblock.generation if entry.superblock is not None else None
        return [Peer(self._session, member, entry.id, self._secret, generation) for member in others]
