"""All that a supervisor does for copies, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web

from haystack.store.directories import DirectoryCalls
from haystack.store.folder import DataFolder
from haystack.store.replication.admin import MembershipApi
from haystack.store.replication.committed import CommittedTails
from haystack.store.replication.link import SupervisorLinks
from haystack.store.replication.memberships import Memberships
from haystack.store.replication.outgoing import Outgoing
from haystack.store.replication.peers import Peers
from haystack.store.replication.suspect_desk import Spawn, SuspectDesk
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes

LOOK_SECONDS = 1.0
"""How often copies are looked at that stay behind."""


class ReplicationService:
    """Links to the workers, reports to the Directory, copies that are brought up.

    Parameters
    ----------
    secret: of the cluster.
    spawn: runs something beside the rest.
    on_committed: called with a volume of which the Directory can be told more.
    """

    def __init__(
        self,
        folders: Sequence[DataFolder],
        volumes: StoreVolumes,
        memberships: Memberships,
        calls: DirectoryCalls,
        *,
        secret: bytes | None,
        spawn: Spawn,
        on_committed: Callable[[StoreVolume], None],
    ) -> None:
        self._spawn = spawn
        self._peers = Peers(secret)
        self.links = SupervisorLinks(lambda report: self._desk.report(report))
        self._desk = SuspectDesk(volumes, memberships, calls, self.links.notify, spawn)
        committed = {folder: CommittedTails(folder, volumes) for folder in folders}
        self.outgoing = Outgoing(volumes, memberships, self._peers, committed, self._desk.report, on_committed)
        self._api = MembershipApi(volumes, memberships, self.outgoing)

    def add_routes(self, app: web.Application) -> None:
        """Add the calls of the Directory."""
        self._api.add_routes(app)

    def taken(self, entry: StoreVolume) -> None:
        """A membership has come into force."""
        self.links.notify()
        self._spawn(self.outgoing.bring_up(entry))

    async def run(self) -> None:
        """Look after copies for ever."""
        while True:
            await self.outgoing.look()
            await self.outgoing.save()
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Write down what is known, and close all connections."""
        await self.outgoing.save()
        self.links.close()
        self._peers.close()
