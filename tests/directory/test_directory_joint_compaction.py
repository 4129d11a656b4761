"""The Directory compacts all copies of a volume, and what becomes of it when something dies at each of its steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from directory_fakes import until
from replica_fakes import ReplicaStore, meet

from directory.server import serve
from directory.settings import DirectorySettings

FAST: dict[str, Any] = {
    "heartbeat_seconds": 0.05,
    "dead_after_seconds": 0.6,
    "writable_volumes": 1,
    "default_replication": "001",
}
SIZE_BYTES = 10 * 2**20
LIVE_BYTES = 2**20


class PreparingStore(ReplicaStore):
    """Prepares next generations at once, and takes memberships of the generation that it has, or has prepared.

    Attributes
    ----------
    generation: of its file, by volume. prepared: what a membership may put in its place.
    forgets: a restart comes before each membership of a next generation.
    prefix: what it says of what it has prepared.
    gate: while it is not set, preparing goes on for ever.
    pushes: while it is not set, memberships wait, but for the first ``open_for``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generation: dict[int, int] = {}
        self.prepared: dict[int, int] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.orders: list[dict[str, Any]] = []
        self.forgets = False
        self.prefix = "same"
        self.gate = asyncio.Event()
        self.gate.set()
        self.pushes = asyncio.Event()
        self.pushes.set()
        self.open_for = 0

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        path = "/admin/volumes/{volume}/compact"
        app.router.add_post(path, self._compact)
        app.router.add_get(path, self._show)
        app.router.add_delete(path, self._cancel)
        app.router.add_get("/admin/volumes/{volume}/hashes", self._hashes)
        app.router.add_get("/admin/volumes/{volume}/space", self._space)

    async def _compact(self, request: web.Request) -> web.Response:
        volume, order = int(request.match_info["volume"]), json.loads(await request.read())
        self.orders.append(order)
        self.jobs[volume] = {"volume": volume, "state": "running", "error": "", "trashMs": order["trashMs"] or 77}
        return web.json_response(self.jobs[volume], status=202)

    async def _show(self, request: web.Request) -> web.Response:
        volume = int(request.match_info["volume"])
        job = self.jobs.get(volume)
        if job is None:
            return web.json_response({"error": "not since the start"}, status=404)
        if job["state"] == "running" and self.gate.is_set():
            generation = self.prepared[volume] = self.generation.get(volume, 0) + 1
            more = {"generation": generation, "cut": SIZE_BYTES, "newCut": LIVE_BYTES, "ends": {}}
            job |= {"state": "ready", "prefixHash": self.prefix, **more}
        return web.json_response(job)

    async def _cancel(self, request: web.Request) -> web.Response:
        volume = int(request.match_info["volume"])
        self.prepared.pop(volume, None)
        if self.jobs.pop(volume, None) is None:
            return web.json_response({"error": "none"}, status=404)
        return web.json_response({})

    async def _hashes(self, request: web.Request) -> web.Response:
        volume = int(request.match_info["volume"])
        tail = {"tail": SIZE_BYTES, "committed": SIZE_BYTES, "uuid": self.volumes[volume]["uuid"], "hashes": []}
        return web.json_response(tail | {"generation": self.generation.get(volume, 0)})

    async def _space(self, request: web.Request) -> web.Response:
        return web.json_response({"garbageBytes": SIZE_BYTES - LIVE_BYTES, "expiredBytes": 0})

    async def _push(self, request: web.Request) -> web.Response:
        volume, pushed = int(request.match_info["volume"]), json.loads(await request.read())
        if self.open_for:
            self.open_for -= 1
        else:
            await self.pushes.wait()
        here, wanted = self.generation.get(volume, 0), pushed.get("generation")
        counts = self.store_id in [member["storeId"] for member in pushed["inSync"]]
        known = self.memberships.get(volume, {"epoch": 0})
        if counts and wanted not in (None, here) and pushed["epoch"] > known["epoch"]:
            if self.forgets:
                self.prepared.pop(volume, None)
            if self.prepared.pop(volume, None) != wanted:
                return web.json_response({"error": "another generation", "generation": here}, status=409)
            self.generation[volume] = self.volumes[volume]["generation"] = wanted
            self.volumes[volume] |= {"sizeBytes": LIVE_BYTES, "deletedBytes": 0}
            self.jobs[volume] |= {"state": "done", "oldBytes": SIZE_BYTES, "newBytes": LIVE_BYTES}
        return await super()._push(request)

    async def _follow(self, request: web.Request) -> web.Response:
        volume, order = int(request.match_info["volume"]), json.loads(await request.read())
        response = await super()._follow(request)
        if response.status == 202:
            source = self.peers[order["source"]["storeId"]]
            assert isinstance(source, PreparingStore)
            self.generation[volume] = self.volumes[volume]["generation"] = source.generation.get(volume, 0)
        return response


class Pair:
    """Two Stores and a volume with much garbage on both."""

    def __init__(self, directory: Any, stores: list[PreparingStore]) -> None:
        self.directory = directory
        self.stores = stores
        self.volume = 0

    async def fill(self) -> None:
        for store in self.stores:
            await store.join(self.directory.base)
        status, answer = await self.directory.call("/dir/assign?replication=001")
        assert status == 200, answer
        self.volume = int(answer["fid"].partition(",")[0])
        for store in self.stores:
            sizes = {"sizeBytes": SIZE_BYTES, "liveBytes": LIVE_BYTES, "deletedBytes": SIZE_BYTES - LIVE_BYTES}
            store.volumes[self.volume] |= sizes
        await until(self.planned, "the Directory has heard of the garbage")

    async def planned(self) -> bool:
        plan = await self.post(dryRun=True)
        return bool(plan["volumes"][0]["gainBytes"]) and not plan["volumes"][0]["obstacle"]

    async def post(self, **more: Any) -> dict[str, Any]:
        request = {"volumes": [self.volume], "now": False, **more}
        _, answer = await self.directory.call("/cluster/compactions", "POST", json=request)
        result: dict[str, Any] = answer
        return result

    async def ended(self) -> dict[str, Any]:
        async def over() -> Any:
            _, answer = await self.directory.call("/cluster/compactions")
            return next((one for one in answer["compactions"] if one["state"] in ("done", "failed")), None)

        result: dict[str, Any] = await until(over, "the compaction ends")
        return result

    async def compact(self) -> dict[str, Any]:
        await self.post()
        return await self.ended()

    async def settled(self, generation: int) -> None:
        """Both copies are in sync, of this generation, and know it."""

        async def well() -> bool:
            _, document = await self.directory.call("/dir/status")
            record = next(one for one in document["Volumes"] if one["volume"] == self.volume)
            told = [store.memberships.get(self.volume, {}) for store in self.stores]
            return (
                len(record["inSync"]) == 2
                and [store.generation.get(self.volume, 0) for store in self.stores] == [generation] * 2
                and all((one.get("epoch"), one.get("generation")) == (record["epoch"], generation) for one in told)
            )

        await until(well, f"both copies are of generation {generation}", 15)

    async def preparing(self) -> bool:
        """The replica has its order."""
        return bool(self.replica.orders)

    async def committed(self) -> bool:
        """The record has the next generation."""
        _, document = await self.directory.call("/dir/status")
        record = next(one for one in document["Volumes"] if one["volume"] == self.volume)
        return all(store.prepared.get(self.volume) for store in self.stores) and bool(record["epoch"] >= 3)

    @property
    def primary(self) -> PreparingStore:
        leader = self.stores[0].memberships[self.volume]["primary"]
        return next(store for store in self.stores if store.store_id == leader)

    @property
    def replica(self) -> PreparingStore:
        return next(store for store in self.stores if store is not self.primary)


@pytest.fixture
async def pair(start: Callable[..., Any]) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        stores = [PreparingStore(), PreparingStore()]
        for store in stores:
            await store.start()
            stack.push_async_callback(store.stop)
        meet(*stores)
        pair = Pair(await start(**FAST), stores)
        await pair.fill()
        yield pair


async def test_all_copies_get_the_same_order_and_the_same_generation(pair: Pair) -> None:
    assert (await pair.compact())["state"] == "done"
    await pair.settled(1)
    assert [order["trashMs"] for order in (*pair.primary.orders, *pair.replica.orders)] == [None, 77]
    ours, theirs = pair.primary.orders[0], pair.replica.orders[0]
    assert all(ours[name] == theirs[name] for name in ("nowMs", "cut", "snapshots", "hold"))


async def test_copies_that_come_to_different_bytes_stay_as_they_are(pair: Pair) -> None:
    pair.replica.prefix = "other"
    job = await pair.compact()
    assert job["state"] == "failed" and "different bytes" in job["error"]
    await pair.settled(0)
    assert not any(store.prepared for store in pair.stores)


async def test_what_is_written_already_needs_no_room_any_more(pair: Pair) -> None:
    pair.primary.gate.clear()
    await pair.post()

    async def begun() -> bool:
        return bool(pair.primary.orders)

    async def without_room() -> bool:
        return "no room" in (await pair.post(dryRun=True))["volumes"][0]["obstacle"]

    await until(begun, "the primary has its order")
    for store in pair.stores:
        store.folders[0]["freeBytes"] = LIVE_BYTES // 2
    await until(without_room, "the Directory knows how little room is left")
    pair.primary.gate.set()
    assert (await pair.ended())["state"] == "done"


async def test_a_copy_that_lost_what_it_had_prepared_is_made_anew(pair: Pair) -> None:
    pair.replica.forgets = True
    await pair.post()
    await pair.settled(1)
    assert "follow" in [call for store in pair.stores for call, _, _ in store.log]


async def test_a_primary_that_lost_what_it_had_prepared_gives_way(pair: Pair) -> None:
    pair.primary.forgets = True
    await pair.post()
    await pair.settled(1)


async def test_when_no_copy_can_the_old_generation_is_taken_up_again(pair: Pair) -> None:
    for store in pair.stores:
        store.forgets = True
    job = await pair.compact()
    assert job["state"] == "failed" and "no copy came" in job["error"]
    await pair.settled(0)


async def test_a_store_that_dies_before_the_commit_changes_nothing(pair: Pair) -> None:
    replica = pair.replica
    replica.gate.clear()
    await pair.post()
    await until(pair.preparing, "it prepares")
    await replica.go()
    assert (await pair.ended())["state"] == "failed"
    replica.gate.set()
    await replica.come_back()
    await pair.settled(0)


@pytest.mark.parametrize("committed", [False, True])
async def test_the_next_directory_finishes_what_was_committed_and_nothing_else(tmp_path: Path, committed: bool) -> None:
    async with AsyncExitStack() as stack:
        stores = [PreparingStore(), PreparingStore()]
        for store in stores:
            await store.start()
            stack.push_async_callback(store.stop)
        meet(*stores)
        async with running(tmp_path / "directory") as directory:
            pair = Pair(directory, stores)
            await pair.fill()
            for store in stores if committed else [pair.replica]:
                (store.pushes if committed else store.gate).clear()
            # A first push, which only names the generation, has to go through.
            pinned = committed and stores[0].memberships[pair.volume].get("generation") is None
            for store in stores if pinned else []:
                store.open_for = 1
            await pair.post()
            await until(pair.committed if committed else pair.preparing, "it is on its way")
        for store in stores:
            store.pushes.set()
            store.gate.set()
        async with running(tmp_path / "directory") as directory:
            pair.directory = directory
            for store in stores:
                await store.join(directory.base)
            await pair.settled(1 if committed else 0)
            assert committed or (await pair.compact())["state"] == "done"
            await pair.settled(1)


class _Running:
    """As the harness of the other tests, as far as it is needed."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self._session = session

    async def call(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        async with self._session.request(method, self.base + path, **options) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Any]:
    """A Directory for the length of a block."""
    settings = DirectorySettings(data=data, port=0, **FAST)
    async with serve(settings) as base, aiohttp.ClientSession() as session:
        yield _Running(base, session)
