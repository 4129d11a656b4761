"""Copies of a volume are compacted together: prepared one after the other, in force with an epoch of their own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from replication_harness import Cluster, cluster, fid, request
from supervisor_harness import StoreProcess, until, until_async

from haystack.store.replication.membership import Membership

PHOTO = bytes(range(256)) * 40
NOW_MS = 2_000_000_000_000
COMPACT = "/admin/volumes/1/compact"
COMPACT_OTHER = "/admin/volumes/2/compact"


async def put(store: StoreProcess, key: int, data: bytes = PHOTO, volume: int = 1) -> None:
    status, answer = await request(store, "PUT", fid(key, volume), data + bytes([key % 256]))
    assert status == 201, answer


async def prepare(some: Cluster, *stores: StoreProcess, path: str = COMPACT) -> tuple[int, list[dict[str, Any]]]:
    """Prepare on these Stores (all by default), one after the other; returns the next generation and the jobs."""

    async def tail_of() -> Any:
        tail = await some.admin(some.stores[0], "GET", path.replace("compact", "hashes"))
        return tail if tail["committed"] else None

    tail = await until_async(tail_of, "all copies have what was put")
    order = {"nowMs": NOW_MS, "trashMs": 0, "snapshots": [], "cut": tail["committed"], "hold": True}
    jobs = []
    for store in stores or some.stores:
        await some.admin(store, "POST", path, order, expect=202)
        jobs.append(await until_state(some, store, "ready", path))
    assert len({(job["prefixHash"], job["newCut"], job["generation"]) for job in jobs}) == 1
    return tail["generation"] + 1, jobs


async def metrics(store: StoreProcess) -> str:
    status, page = await request(store, "GET", "/metrics")
    assert status == 200
    return str(page.decode())


async def until_state(some: Cluster, store: StoreProcess, state: str, path: str = COMPACT) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = await some.admin(store, "GET", path)
        if job["state"] == state:
            return job
        assert job["state"] in ("waiting", "running", "ready"), job
        await asyncio.sleep(0.02)


async def pinned(some: Cluster, membership: Membership) -> Membership:
    """The same membership, which says of which generation the files are."""
    pinned = replace(membership, epoch=membership.epoch + 1, generation=0)
    await some.push(pinned)
    return pinned


def left_over(folder: Path) -> list[Path]:
    return list(folder.glob("*compact*"))


async def some_garbage(store: StoreProcess, count: int = 40) -> None:
    await asyncio.gather(*(put(store, key) for key in range(1, count + 1)))
    for key in range(1, count // 2 + 1):
        assert (await request(store, "DELETE", fid(key)))[0] == 202


async def require_photos(some: Cluster, live: set[int], deleted: set[int]) -> None:
    for store in some.stores:
        for key in live:
            assert await request(store, "GET", fid(key)) == (200, PHOTO + bytes([key % 256])), key
        for key in deleted:
            assert (await request(store, "GET", fid(key)))[0] == 404


async def test_copies_are_compacted_together_while_they_are_used(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, workers=2) as some:
        membership = await pinned(some, await some.make(replication="002"))
        first = some.stores[0]
        await some_garbage(first)
        stop, written, deleted, failed = asyncio.Event(), {100}, set(range(1, 21)), []
        await put(first, 100)

        async def load(number: int) -> None:
            key = 1000 * number
            while not stop.is_set():
                key += 1
                status, answer = await request(first, "PUT", fid(key), PHOTO + bytes([key % 256]))
                if status != 201:
                    failed.append(answer)
                    continue
                written.add(key)
                if key % 4 == 0:
                    status, answer = await request(first, "DELETE", fid(key))
                    if status != 202:
                        failed.append(answer)
                    else:
                        written.discard(key)
                        deleted.add(key)
                if (await request(some.stores[2], "GET", fid(30)))[0] != 200:
                    failed.append("read")

        loads = [asyncio.create_task(load(number)) for number in (1, 2, 3)]
        generation, _ = await prepare(some)
        assert 'haystack_store_volume_compaction{volume="1",state="ready"} 1' in await metrics(some.stores[1])
        await asyncio.sleep(0.3)
        await some.push(replace(membership, epoch=3, generation=generation))
        jobs = [await until_state(some, store, "done") for store in some.stores]
        await asyncio.sleep(0.3)
        stop.set()
        await asyncio.gather(*loads)
        assert not failed
        assert [job["generation"] for job in jobs] == [1, 1, 1]
        page = await metrics(first)
        assert 'haystack_store_volume_compaction{volume="1",state="ready"} 0' in page
        assert 'haystack_store_compactions_total{outcome="done"} 1' in page
        assert "haystack_store_compactions_won_bytes_total 0" not in page
        assert jobs[0]["newCut"] < jobs[0]["cut"] and max(job["pauseSeconds"] for job in jobs) < 1
        some.require_equal()
        await require_photos(some, written | set(range(21, 41)), deleted)
        for store in some.stores:
            assert (await some.admin(store, "POST", "/admin/volumes/1/check", {"full": True}))["ok"]
        await until(lambda: some.directory.listed(*(fid(key)[1:] for key in written)))


async def test_a_copy_with_nothing_prepared_refuses_and_takes_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        membership = await pinned(some, await some.make())
        first, second = some.stores
        await some_garbage(first, 10)
        generation, _ = await prepare(some, first)
        granted = replace(membership, epoch=3, generation=generation)
        answer = await some.push(granted, second, expect=409)
        assert answer["generation"] == 0
        await put(first, 50)  # nothing has changed: both are of the old epoch
        await some.push(granted, first)
        status, _ = await request(first, "PUT", fid(51), PHOTO)
        assert status == 503, "an upload needs both copies, and they are of two generations"
        # The Directory may go on with either of them. Here: with the one that has the old generation.
        alone = replace(membership, epoch=4, primary=some.members[1].store_id, in_sync=some.members[1:], generation=0)
        await some.push(alone, first, second)
        assert (await request(second, "DELETE", fid(50)))[0] == 202
        follow = {
            "epoch": 4,
            "uuid": some.uuid,
            "replication": "001",
            "createdMs": 0,
            "maxBytes": None,
            "folder": None,
            "source": some.members[1].document(),
            "bytesPerSecond": None,
            "generation": 0,
        }
        while (answer := await some.admin(first, "POST", "/admin/volumes/1/follow", follow, 202))["state"] != "done":
            assert answer["state"] == "running", answer
            await asyncio.sleep(0.02)
        some.require_equal()
        assert (await some.document(first))["generation"] == 0


@pytest.mark.parametrize("killed", [0, 1])
async def test_a_store_that_is_killed_when_it_is_prepared_has_the_old_generation(tmp_path: Path, killed: int) -> None:
    async with cluster(tmp_path) as some:
        membership = await pinned(some, await some.make())
        await some_garbage(some.stores[0], 10)
        generation, _ = await prepare(some)
        store, other = some.stores[killed], some.stores[1 - killed]
        await store.kill()
        await store.start()
        assert left_over(tmp_path / f"store{killed}") == []
        granted = replace(membership, epoch=3, generation=generation)
        await some.push(granted, other)
        assert (await some.push(granted, store, expect=409))["generation"] == 0
        document = await some.document(store)
        assert (document["epoch"], document["generation"]) == (2, 0)
        assert (await some.document(other))["generation"] == 1


async def test_what_a_dead_directory_left_prepared_keeps_no_other_volume_waiting(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        membership = await pinned(some, await some.make())
        other = replace(await some.make(volume=2), epoch=2, generation=0)
        await some.push(other, volume=2)
        await some_garbage(some.stores[0], 10)
        await put(some.stores[0], 1, volume=2)
        generation, _ = await prepare(some)
        async with asyncio.timeout(10):
            await prepare(some, path=COMPACT_OTHER)
            await some.push(replace(other, epoch=3, generation=1), volume=2)
        # It is still there for who finds that it was committed.
        await some.push(replace(membership, epoch=3, generation=generation))
        for volume in (1, 2):
            some.require_equal(volume=volume)
            assert [(await some.document(store, volume))["generation"] for store in some.stores] == [1, 1]
        await require_photos(some, set(range(6, 11)), set(range(1, 6)))


async def test_what_nobody_swaps_is_given_up(tmp_path: Path) -> None:
    async with cluster(tmp_path) as some:
        await pinned(some, await some.make())
        first = some.stores[0]
        await some_garbage(first, 10)
        before = some.file(first)
        await prepare(some)
        for store in some.stores:
            await some.admin(store, "DELETE", COMPACT)
            assert (await some.admin(store, "GET", COMPACT))["state"] == "failed"
        assert some.file(first) == before
        for number in (0, 1):
            assert left_over(tmp_path / f"store{number}") == []
        await put(first, 60)
        some.require_equal()
        order = {"nowMs": NOW_MS, "trashMs": 0, "snapshots": []}
        await some.admin(first, "POST", COMPACT, order, expect=409)
