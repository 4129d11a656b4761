"""The reserve of a data folder: how large it is, and what may use it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from supervisor_harness import StoreProcess, fid, until_async
from test_store_volumes import AS_ROOT, bench

from haystack.store.control_cells import VolumeState
from haystack.store.states import LEAST_RESERVE_BYTES, reserve_of, space_pause_seconds
from haystack.units import GIB, MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=False)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


def test_room_for_the_largest_volume_unless_it_was_set() -> None:
    assert reserve_of(None, []) == reserve_of(None, [1, 2]) == LEAST_RESERVE_BYTES
    assert reserve_of(None, [GIB, 3 * GIB, 0]) == 3 * GIB
    assert reserve_of(5, [GIB]) == 5
    assert reserve_of(0, [GIB]) == 0


def test_the_nearer_the_reserve_the_sooner_a_look() -> None:
    assert space_pause_seconds(100 * GIB, GIB, 2.0) == 2.0
    assert space_pause_seconds(2 * GIB, GIB, 2.0) == 0.5
    assert space_pause_seconds(GIB + 1, GIB, 2.0) == 0.02
    assert space_pause_seconds(GIB, GIB, 2.0) == space_pause_seconds(0, GIB, 2.0) == 2.0


async def test_it_grows_with_the_largest_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, reserve_bytes=None) as store:
        entry = await store.make(3)
        assert entry.stat is not None
        real = tuple(os.statvfs(tmp_path))
        total_mib, free_mib = 10_000, 500
        monkeypatch.setattr(
            "haystack.store.folder.os.statvfs",
            lambda path: os.statvfs_result((MIB, MIB, total_mib, free_mib, free_mib, *real[5:])),
        )
        await store.keepers[0].probe()
        assert store.documents.folders()[0]["reserveBytes"] == LEAST_RESERVE_BYTES
        assert store.volumes.state(entry) is VolumeState.WRITABLE
        entry.stat = replace(entry.stat, live_bytes=600 * MIB, index_bytes=MIB)
        await store.keepers[0].probe()
        assert store.documents.folders()[0]["reserveBytes"] == 601 * MIB
        assert store.volumes.state(entry) is VolumeState.READONLY
        # Never more than a tenth of the disk.
        entry.stat = replace(entry.stat, live_bytes=5000 * MIB)
        await store.keepers[0].probe()
        assert store.documents.folders()[0]["reserveBytes"] == 1000 * MIB


@AS_ROOT
async def test_deletes_use_the_reserve_and_space_that_is_won_is_used(disk: Path) -> None:
    async with StoreProcess(disk, reserve_bytes=None) as store:
        await store.make_volume(3)
        filler, stored = disk / "filler", []
        for key in range(1, 1000):
            status = await store.put(fid(3, key), bytes(100_000))
            if status != 201:
                assert status == 507
                break
            stored.append(key)
        await store.until_volume(3, state="readonly", reason="the disk is full")
        space = os.statvfs(disk)
        assert space.f_bavail > 0, "the reserve is left"
        filler.write_bytes(bytes(max(0, space.f_bavail * space.f_frsize - 300_000)))
        for key in stored[:3]:
            async with aiohttp.request("DELETE", f"http://127.0.0.1:{store.port}/{fid(3, key)}") as answer:
                assert answer.status == 202
        assert await store.put(fid(3, 5000), b"photo") == 507
        filler.unlink()
        # The volume itself is what filled the disk: room comes from elsewhere here, from a compaction below.
        enlarge(disk)
        await store.until_volume(3, state="writable", reason="")
        assert await store.put(fid(3, 5000), b"photo") == 201
        for key in stored[3:]:
            assert await store.get(fid(3, key)) == bytes(100_000)
        assert await store.stop() == 0


@AS_ROOT
async def test_a_compaction_uses_the_reserve_and_gives_space_back(disk: Path) -> None:
    enlarge(disk)
    async with StoreProcess(disk, reserve_bytes=None) as store:
        await store.make_volume(3)
        stored = []
        for key in range(1, 1000):
            if await store.put(fid(3, key), bytes(200_000)) != 201:
                break
            stored.append(key)
        await store.until_volume(3, state="readonly", reason="the disk is full")
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 2 * MIB, "most of the reserve is left"
        kept = stored[:10]
        for key in stored[10:]:
            async with aiohttp.request("DELETE", f"http://127.0.0.1:{store.port}/{fid(3, key)}") as answer:
                assert answer.status == 202
        order = {"nowMs": 2**50, "trashMs": 0}
        await store.admin("POST", "/admin/volumes/3/compact", order, expect=202)

        async def compacted() -> bool:
            job = await store.admin("GET", "/admin/volumes/3/compact", expect=200)
            assert job["state"] != "failed", (job["error"], len(stored))
            return bool(job["state"] == "done")

        await until_async(compacted, "the volume is compacted")
        await store.until_volume(3, state="writable", reason="")
        for key in range(2000, 2100):
            assert await store.put(fid(3, key), bytes(200_000)) == 201
        for key in kept:
            assert await store.get(fid(3, key)) == bytes(200_000)
        assert await store.stop() == 0
