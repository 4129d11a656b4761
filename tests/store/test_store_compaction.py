"""Compaction in a running Store: real processes, under uploads, deletes and reads, killed, cancelled, refused."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
from compaction_load import DAY_MS, Load, compact, order
from supervisor_harness import FakeDirectory, StoreProcess, fid, new_volume, until

from haystack.volume import Volume
from haystack.volume.layout import SUPERBLOCK_BYTES


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("1.")}


async def test_a_volume_is_compacted_again_and_again_under_load(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, StoreProcess(tmp_path, workers=2, directories=[directory.url]) as store:
        await store.make_volume(1)
        load = Load(store, 1)
        await load.fill(100)
        running = asyncio.create_task(load.run())
        pauses = []
        for generation in range(1, 5):
            before = dict(load.counts)
            done = await compact(store, 1)
            assert (done["state"], done.get("generation")) == ("done", generation), done
            pauses.append(done["pauseSeconds"])
            await until(lambda before=before: all(load.counts[kind] > before[kind] for kind in before), "load goes on")
        load.stopped = True
        await running
        assert not load.failures, load.failures[:5]
        done = await compact(store, 1)
        await load.require_all()
        document = await store.until_volume(1, generation=5, liveCount=len(load.live))
        assert document["sizeBytes"] == SUPERBLOCK_BYTES + document["liveBytes"] == done["newBytes"]
        live = {fid(1, key) for key in load.live}
        await until(lambda: {f"1,{key}{cookie}" for (key, _), (_, _, cookie) in directory.photos.items()} == live)
        assert _names(tmp_path) == {"1.vol", "1.5.idx", "1.5.idx-lock"}
        assert (await store.admin("POST", "/admin/volumes/1/check", {"full": True}))["ok"]
        assert await store.stop() == 0
    with Volume.open(tmp_path / "1.vol") as volume:
        assert volume.report.clean and volume.state().live_count == len(load.live)


async def test_trash_is_kept_by_the_retention_of_the_order(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(1)
        for key in (1, 2):
            assert await store.put(fid(1, key), b"photo" * 100) == 201
        await _delete(store, 2)
        size = (await store.volume(1))["sizeBytes"]
        done = await compact(store, 1, trashMs=DAY_MS)
        assert done["newBytes"] == done["oldBytes"] == size
        done = await compact(store, 1, trashMs=DAY_MS, nowMs=order()["nowMs"] + DAY_MS)
        assert done["newBytes"] < size / 2 and done["generation"] == 2
        assert await store.get(fid(1, 1)) == b"photo" * 100 and await store.get(fid(1, 2)) == 404


async def test_a_listing_does_not_go_on_in_another_generation(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(1)
        await Load(store, 1).fill(20)
        page = await store.admin("GET", "/admin/volumes/1/needles?limit=5")
        path = f"/admin/volumes/1/needles?after={page['next']}&generation={page['generation']}"
        await store.admin("GET", path, expect=200)
        await compact(store, 1)
        refused = await store.admin("GET", path, expect=409)
        assert "list it from the start" in refused["error"]


async def test_what_the_directory_has_not_heard_of_is_not_left_out(tmp_path: Path) -> None:
    async with FakeDirectory() as directory, StoreProcess(tmp_path, directories=[directory.url]) as store:
        await store.make_volume(1)
        load = Load(store, 1)
        await load.fill(10)
        await until(lambda: directory.listed(fid(1, 3)))
        await directory.go_down()
        await _delete(store, 3)
        await store.admin("POST", "/admin/volumes/1/compact", order(), expect=202)
        await asyncio.sleep(0.3)
        job = await store.admin("GET", "/admin/volumes/1/compact")
        assert (job["state"], job["step"]) == ("running", "carrying over")
        await directory.go_up()
        await until(lambda: not directory.listed(fid(1, 3)), "the delete is told")
        await until(lambda: (1, 1) in directory.confirmed, "the next generation is told")
        assert directory.listed(fid(1, 4)) and not directory.listed(fid(1, 3))


async def test_a_compaction_can_be_slowed_down_and_cancelled(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(1)
        load = Load(store, 1)
        await load.fill(60)
        job = await store.admin("POST", "/admin/volumes/1/compact", order(bytesPerSecond=1000), expect=202)
        again = await store.admin("POST", "/admin/volumes/1/compact", order(), expect=202)
        assert job["state"] in ("waiting", "running") and again["state"] in ("waiting", "running")
        job = await store.admin("DELETE", "/admin/volumes/1/compact", expect=200)
        assert (job["state"], job["error"]) == ("failed", "it was cancelled")
        assert (await store.volume(1))["generation"] == 0 and "1.vol.compact" not in _names(tmp_path)
        await store.admin("POST", "/admin/volumes/1/compact", order(bytesPerSecond=1000), expect=202)
        assert await store.stop() == 0
    assert _names(tmp_path) == {"1.vol", "1.idx", "1.idx-lock"}


async def test_compaction_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path) as store:
        await store.make_volume(1)
        await store.admin("POST", "/admin/volumes", new_volume(2, replication="001"), expect=201)
        refused = await store.admin("POST", "/admin/volumes/2/compact", order(), expect=409)
        assert "on other Stores" in refused["error"]
        await store.admin("POST", "/admin/volumes/3/compact", order(), expect=404)
        await store.admin("GET", "/admin/volumes/1/compact", expect=404)
        for wrong in ({}, order(nowMs=-1), order(cut=5), order(snapshots=["x"]), order(snapshots=5)):
            await store.admin("POST", "/admin/volumes/1/compact", wrong, expect=400)
        job = await compact(store, 1, cut=10_000)
        assert job["state"] == "failed" and "cannot be cut" in job["error"]


async def test_a_store_that_is_killed_rolls_forward_or_back(tmp_path: Path) -> None:
    rng = random.Random(7)
    load = None
    for _ in range(3):
        async with StoreProcess(tmp_path, workers=2) as store:
            if load is None:
                await store.make_volume(1)
                load = Load(store, 1)
                await load.fill(150)
            load.store = store
            load.stopped = False
            await load.require_all()
            index = "1.idx" if not (generation := (await store.volume(1))["generation"]) else f"1.{generation}.idx"
            assert _names(tmp_path) - {"1.dirty"} == {"1.vol", index, f"{index}-lock"}
            running = asyncio.create_task(load.run(deleters=0, putters=1, readers=1))
            await store.admin("POST", "/admin/volumes/1/compact", order(bytesPerSecond=2_000_000), expect=202)
            await asyncio.sleep(rng.random() * 0.4)
            load.stopped = True
            await running
            assert not load.failures, load.failures[:3]
            await store.kill()
    assert load is not None
    with Volume.open(tmp_path / "1.vol") as volume:
        assert volume.state().live_count == len(load.live)
        assert _names(tmp_path) - {"1.dirty"} == {"1.vol", volume.index.path.name, f"{volume.index.path.name}-lock"}


async def _delete(store: StoreProcess, key: int) -> None:
    async with aiohttp.request("DELETE", f"http://127.0.0.1:{store.port}/{fid(1, key)}") as answer:
        assert answer.status == 202, await answer.text()
