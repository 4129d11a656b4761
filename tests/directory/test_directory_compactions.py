"""What the Directory plans and orders when volumes are to be compacted, and what it tells the snapshots afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from directory_fakes import GIB, FakeStore, until


class CompactingStore(FakeStore):
    """Compacts at once, or as told."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[tuple[int, dict[str, Any]]] = []
        self.jobs: dict[int, dict[str, Any]] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_post("/admin/volumes/{volume}/compact", self._compact)
        app.router.add_get("/admin/volumes/{volume}/compact", self._show)
        app.router.add_get("/admin/volumes/{volume}/hashes", self._hashes)

    async def _compact(self, request: web.Request) -> web.Response:
        volume, order = int(request.match_info["volume"]), json.loads(await request.read())
        self.orders.append((volume, order))
        self.jobs[volume] = {"volume": volume, "state": "running", "error": "", "doneBytes": 1, "totalBytes": 2}
        return web.json_response(self.jobs[volume], status=202)

    async def _show(self, request: web.Request) -> web.Response:
        volume = int(request.match_info["volume"])
        if self.go_on.is_set():
            order = dict(self.orders)[volume]
            ends = {str(end): end // 2 for end in order["snapshots"]}
            self.jobs[volume] |= {
                "state": "done",
                "generation": 1,
                "cut": 4096,
                "newCut": 2048,
                "oldBytes": 4096,
                "newBytes": 2048,
                "ends": ends,
            }
        return web.json_response(self.jobs[volume])

    async def _hashes(self, request: web.Request) -> web.Response:
        volume = self.volumes[int(request.match_info["volume"])]
        tail = {"tail": 4096, "committed": 4096, "uuid": volume["uuid"], "generation": volume["generation"]}
        return web.json_response({**tail, "hashes": []})


@pytest.fixture
async def store() -> AsyncIterator[CompactingStore]:
    store = CompactingStore()
    await store.start()
    yield store
    await store.stop()


async def _with_garbage(directory: Any, store: CompactingStore, *deleted: int) -> list[int]:
    """Volumes of the Store, the first ones with so much garbage."""
    await directory.with_store(store)
    numbers = sorted(store.volumes)
    for number, deleted_bytes in zip(numbers, deleted, strict=False):
        store.volumes[number] |= {"sizeBytes": 4096, "deletedBytes": deleted_bytes, "liveBytes": 4096 - deleted_bytes}
    await store.register(directory.base)
    return numbers


async def _ended(directory: Any, count: int) -> list[dict[str, Any]]:
    async def ended() -> bool:
        _, answer = await directory.call("/cluster/compactions")
        return [one["state"] for one in answer["compactions"]].count("done") == count

    await until(ended, "compactions end")
    return list((await directory.call("/cluster/compactions"))[1]["compactions"])


async def test_a_plan_names_gain_room_and_obstacles(directory: Any, store: CompactingStore) -> None:
    numbers = await _with_garbage(directory, store, 1000, 3000)
    request = {"volumes": None, "now": False, "dryRun": True}
    status, answer = await directory.call("/cluster/compactions", "POST", json=request)
    assert status == 200 and answer["applied"] is False and not store.orders
    assert [(one["volume"], one["gainBytes"], one["neededBytes"]) for one in answer["volumes"]] == [
        (numbers[1], 3000, 1096),
        (numbers[0], 1000, 3096),
    ]
    assert answer["volumes"][0]["freeBytes"] == 100 * GIB and "wins at most 2.93 KiB" in answer["steps"][0]
    store.volumes[numbers[0]] |= {"liveBytes": 200 * GIB}
    store.volumes[numbers[1]] |= {"state": "failed"}
    await store.register(directory.base)
    _, answer = await directory.call("/cluster/compactions", "POST", json=request | {"volumes": numbers[:2]})
    obstacles = {one["volume"]: one["obstacle"] for one in answer["volumes"]}
    assert "no room" in obstacles[numbers[0]] and "failed" in obstacles[numbers[1]]
    for wrong, expected in (({"volumes": [999_999]}, 404), ({"volumes": ["x"]}, 400)):
        status, _ = await directory.call("/cluster/compactions", "POST", json=request | wrong)
        assert status == expected


async def test_stores_compact_what_is_asked_for(directory: Any, store: CompactingStore) -> None:
    numbers = await _with_garbage(directory, store, 1000, 3000)
    request = {"volumes": numbers[:2], "now": True, "dryRun": False}
    status, answer = await directory.call("/cluster/compactions", "POST", json=request)
    assert status == 200 and answer["applied"]
    done = await _ended(directory, 2)
    assert {one["volume"] for one in done} == set(numbers[:2])
    assert [order["trashMs"] for _, order in store.orders] == [0, 0]


async def test_vacuum_compacts_what_has_enough_garbage(directory: Any, store: CompactingStore) -> None:
    numbers = await _with_garbage(directory, store, 1000, 3000)
    for wrong in ("x", "2"):
        assert (await directory.call(f"/vol/vacuum?garbageThreshold={wrong}"))[0] == 400
    status, answer = await directory.call("/vol/vacuum", "POST")
    assert (status, answer) == (200, {"volumes": [numbers[1]], "skipped": {}})
    await _ended(directory, 1)
    assert [(volume, order["trashMs"]) for volume, order in store.orders] == [(numbers[1], None)]
    _, answer = await directory.call("/vol/vacuum?garbageThreshold=0.01")
    assert sorted(answer["volumes"]) == numbers[:2]
    await _ended(directory, 2)


async def test_held_snapshots_are_named_and_told(directory: Any, store: CompactingStore) -> None:
    numbers = await _with_garbage(directory, store, 3000)
    status, _ = await directory.call("/cluster/snapshots", "POST", json={"name": "monday"})
    assert status in (200, 201)
    await directory.call("/vol/vacuum")
    await _ended(directory, 1)
    assert [(volume, order["snapshots"]) for volume, order in store.orders] == [(numbers[0], [4096])]
    _, snapshot = await directory.call("/cluster/snapshots/monday")
    held = next(one for one in snapshot["held"] if one["volume"] == numbers[0])
    assert (held["generation"], held["end"]) == (1, 2048)


async def test_a_compaction_that_its_store_refuses_is_told(directory: Any, store: CompactingStore) -> None:
    numbers = await _with_garbage(directory, store, 3000)

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": "not now"}, status=507)

    fresh = CompactingStore()
    fresh._compact = refuse
    fresh.store_id, fresh.volumes, fresh.folders = store.store_id, store.volumes, store.folders
    fresh.sequence = store.sequence
    await fresh.start()
    await fresh.register(directory.base)
    await directory.call("/vol/vacuum")

    async def failed() -> bool:
        _, answer = await directory.call("/cluster/compactions")
        return [one["state"] for one in answer["compactions"]] == ["failed"]

    await until(failed, "it fails")
    _, answer = await directory.call("/cluster/compactions")
    assert answer["compactions"][0]["volume"] == numbers[0] and "not now" in answer["compactions"][0]["error"]
    await fresh.stop()
