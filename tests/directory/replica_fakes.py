"""Stand-in Stores that keep copies of volumes: they take memberships, follow, admit and delete as the contract says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from directory_fakes import FakeStore

BEAT_SECONDS = 0.05


class ReplicaStore(FakeStore):
    """Keeps a number for each volume in the place of bytes: how long it is. Heartbeats by itself once it is started.

    Attributes
    ----------
    memberships: what was pushed last, by volume.
    log: every call about copies, in order: (call, volume, epoch).
    follow_gate: while it is not set, copying goes on for ever.
    beats_with_volumes: heartbeats tell all volumes, not none.
    born_told: takes the membership that comes with the order to make a volume.
    refuse_calls: answers all calls with 503 while it is true.
    writing: every heartbeat tells of one more upload to each volume.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        super().__init__(secret)
        self.memberships: dict[int, dict[str, Any]] = {}
        self.log: list[tuple[str, int, int]] = []
        self.learners: dict[int, set[str]] = {}
        self.follow_gate = asyncio.Event()
        self.follow_gate.set()
        self.following: dict[int, str] = {}
        self.peers: dict[str, ReplicaStore] = {}
        self.refuse_calls = False
        self.writing = False
        self.born_told = True
        self.beats_with_volumes = True
        self.frozen = asyncio.Event()
        self.frozen.set()
        self._beat: asyncio.Task[None] | None = None
        self._base = ""

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_put("/admin/volumes/{volume}/membership", self._push)
        app.router.add_post("/admin/volumes/{volume}/follow", self._follow)
        app.router.add_post("/admin/volumes/{volume}/admit", self._admit)
        app.router.add_delete("/admin/volumes/{volume}", self._delete)

    def volume(self, volume: int, **changes: Any) -> dict[str, Any]:
        asked = next((asked for asked in reversed(self.made) if asked["volume"] == volume), None)
        replication = {"replication": asked["replication"]} if asked else {}
        return super().volume(volume, **{**replication, **changes})

    async def _make_volume(self, request: web.Request) -> web.Response:
        await self.frozen.wait()
        response = await super()._make_volume(request)
        asked = self.made[-1]
        if response.status == 201 and "membership" in asked and self.born_told:
            self.memberships[asked["volume"]] = asked["membership"]
            self.describe(asked["volume"])
            return web.json_response(self.volumes[asked["volume"]], status=201)
        return response

    # -- life

    async def join(self, base: str) -> None:
        """Register, and heartbeat from now on."""
        self._base = base
        status, answer = await self.register(base)
        assert status == 200, answer
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._beat_for_ever())

    async def go(self) -> None:
        """Fall silent; calls are not answered any more, either."""
        self.frozen.clear()
        if self._beat:
            self._beat.cancel()
            await asyncio.wait([self._beat])

    async def come_back(self) -> None:
        """Register again, as after a restart."""
        self.frozen.set()
        self.started_ms += 1
        await self.join(self._base)

    async def stop(self) -> None:
        self.frozen.set()
        if self._beat:
            self._beat.cancel()
            await asyncio.wait([self._beat])
        await super().stop()

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            for document in self.volumes.values() if self.writing else ():
                document["writes"] += 1
            try:
                reported = self.volumes.values() if self.beats_with_volumes else ()
                _, answer = await self.heartbeat(self._base, *reported)
                if not answer.get("known", True):
                    await self.register(self._base)
            except OSError:
                pass  # the Directory is away for a moment

    # -- calls

    def describe(self, volume: int) -> None:
        """Bring a volume's document into line with the membership."""
        known = self.memberships.get(volume)
        if known and volume in self.volumes:
            members = [member["storeId"] for member in known["inSync"]]
            self.volumes[volume] |= {
                "epoch": known["epoch"],
                "primary": known["primary"],
                "inSync": members,
                "stale": self.store_id not in members,
            }

    async def _call(self, request: web.Request, name: str) -> tuple[int, dict[str, Any]]:
        volume = int(request.match_info["volume"])
        document = json.loads(await request.read())
        await self.frozen.wait()
        self.log.append((name, volume, document["epoch"]))
        if self.refuse_calls:
            raise web.HTTPServiceUnavailable
        return volume, document

    async def _push(self, request: web.Request) -> web.Response:
        volume, pushed = await self._call(request, "membership")
        if volume not in self.volumes:
            return web.json_response({"error": "no such volume"}, status=404)
        known = self.memberships.get(volume)
        if known and (pushed["epoch"] < known["epoch"] or (pushed["epoch"] == known["epoch"] and pushed != known)):
            return web.json_response({"error": "newer", "epoch": known["epoch"]}, status=409)
        if not known or pushed["epoch"] > known["epoch"]:
            self.learners.pop(volume, None)
        self.memberships[volume] = pushed
        self.describe(volume)
        return web.json_response({"epoch": pushed["epoch"], "tail": self.volumes[volume]["sizeBytes"]})

    async def _follow(self, request: web.Request) -> web.Response:
        volume, order = await self._call(request, "follow")
        known = self.memberships.get(volume)
        counted = known and self.store_id in [member["storeId"] for member in known["inSync"]]
        if known and (order["epoch"] < known["epoch"] or (order["epoch"] == known["epoch"] and counted)):
            return web.json_response({"error": "this copy counts"}, status=409)
        source = self.peers[order["source"]["storeId"]]
        size = source.volumes[volume]["sizeBytes"]
        if not self.follow_gate.is_set():
            return web.json_response({"state": "running", "copiedBytes": 1, "totalBytes": size}, status=202)
        if volume not in self.volumes:
            self.volumes[volume] = self.volume(
                volume,
                uuid=order["uuid"],
                folder=order["folder"],
                replication=order["replication"],
                epoch=0,
                stale=True,
            )
        self.volumes[volume]["sizeBytes"] = size
        return web.json_response({"state": "done", "copiedBytes": size, "totalBytes": size}, status=202)

    async def _admit(self, request: web.Request) -> web.Response:
        volume, order = await self._call(request, "admit")
        known = self.memberships.get(volume)
        if known is not None and (known["epoch"], known["primary"]) != (order["epoch"], self.store_id):
            return web.json_response({"error": "not under this epoch", "epoch": known["epoch"]}, status=409)
        self.learners.setdefault(volume, set()).add(order["member"]["storeId"])
        size = self.volumes[volume]["sizeBytes"]
        self.peers[order["member"]["storeId"]].volumes[volume]["sizeBytes"] = size
        return web.json_response({"epoch": order["epoch"], "tail": size})

    async def _delete(self, request: web.Request) -> web.Response:
        volume, _ = await self._call(request, "delete")
        known = self.memberships.get(volume)
        if known and self.store_id in [member["storeId"] for member in known["inSync"]]:
            return web.json_response({"error": "this copy counts"}, status=409)
        self.volumes.pop(volume, None)
        self.memberships.pop(volume, None)
        await self.heartbeat(self._base, removed=[volume])
        return web.Response(status=204)


def meet(*stores: ReplicaStore) -> None:
    """Let Stores know each other, to copy from."""
    for store in stores:
        store.peers = {peer.store_id: peer for peer in stores}
