"""Scrubbing: damage anywhere is found, and mended from another copy."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from copies_harness import fill, flip, photo, replicas, require_same
from supervisor_harness import StoreProcess, fid, until, until_async

from haystack.store.scrub.examine import examine
from haystack.store.scrub.record import ScrubRecord
from haystack.volume import Damage, Volume
from haystack.volume.layout import SUPERBLOCK_BYTES


def test_a_flip_of_any_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        for key in range(1, 6):
            volume.put(key, key, photo(key, 10 * key + key % 3))
        volume.delete(3, 3)
        tail = volume.tail()
        assert not examine(volume, 0, tail, tail).damage
        for offset in range(tail):
            flip(path, offset, 1 << offset % 8)
            found = examine(volume, 0, tail, tail)
            assert found.end == tail
            assert len(found.damage) == 1, offset
            assert found.damage[0].offset <= offset < found.damage[0].end
            assert found.damage[0].length < 300
            flip(path, offset, 1 << offset % 8)
        # Piece by piece it is the same as at once.
        flip(path, tail // 2)
        position = 0
        pieces: list[Damage] = []
        while position < tail:
            piece = examine(volume, position, 1, tail)
            assert piece.end > position
            position, pieces = piece.end, [*pieces, *piece.damage]
        assert pieces == examine(volume, 0, tail, tail).damage


def test_records_are_kept_and_what_is_unusable_begins_anew() -> None:
    record = ScrubRecord("u", 0)
    record.begin(5)
    record.examined(0, 100, [(64, 8), (80, 8)], [])
    record.examined(100, 200, [], [(100, 100)])
    record.position = 200
    assert ScrubRecord.from_json(record.to_json(), "u", 0) == record
    record.examined(0, 72, [], None)
    assert record.broken == [[80, 8]]
    assert record.diverged == [[100, 100]]
    assert "8 bytes in 1 places" in record.problem()
    record.finish(9)
    assert (record.position, record.started_ms, record.finished_ms) == (0, 0, 9)
    fresh = ScrubRecord("u", 1)
    for saved in (record.to_json(), {}, {"uuid": 1}, record.to_json() | {"generation": 1, "position": -1}):
        assert ScrubRecord.from_json(saved, "u", 1) == fresh


async def scrub(store: StoreProcess, volume: int = 1) -> Any:
    await store.admin("POST", f"/admin/volumes/{volume}/scrub", expect=202)

    async def ended() -> Any:
        document = await store.admin("GET", f"/admin/volumes/{volume}/scrub", expect=200)
        return None if document["running"] else document

    return await until_async(ended)


@pytest.mark.parametrize("damaged", ["a", "b"])
async def test_damage_is_mended_from_the_other_copy(tmp_path: Path, damaged: str) -> None:
    async with replicas(tmp_path, range(1, 40)) as (a, b):
        path = tmp_path / damaged / "1.vol"
        good = path.read_bytes()
        store = a if damaged == "a" else b
        clean = await scrub(store)
        assert (clean["mended"], clean["broken"], clean["problem"]) == (0, [], "")
        dice = random.Random(5)
        for offset in [8, 60, *(dice.randrange(SUPERBLOCK_BYTES, len(good)) for _ in range(6))]:
            flip(path, offset)
        done = await scrub(store)
        assert done["broken"] == []
        assert done["mended"] >= 3
        assert path.read_bytes() == good
        document = await store.volume(1)
        assert document["scrubbedMs"] > 0
        assert (document["brokenBytes"], document["problem"]) == (0, "")
        assert "mended its superblock" in store.log
        async with aiohttp.request("GET", f"http://127.0.0.1:{store.admin_port}/metrics") as answer:
            page = await answer.text()
        assert f'haystack_store_volume_mended_ranges{{volume="1"}} {done["mended"]}' in page
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)


async def test_damage_of_the_other_copy_is_found_by_comparing(tmp_path: Path) -> None:
    async with replicas(tmp_path, range(1, 20)) as (a, b):
        path = tmp_path / "a" / "1.vol"
        good = path.read_bytes()
        flip(path, len(good) // 2)
        await scrub(b)

        async def mended() -> bool:
            document = await a.admin("GET", "/admin/volumes/1/scrub")
            return not document["running"] and document["mended"] == 1

        await until_async(mended)
        assert path.read_bytes() == good


async def test_what_no_copy_has_is_reported(tmp_path: Path) -> None:
    async with replicas(tmp_path, range(1, 20)) as (_, b):
        paths = [tmp_path / name / "1.vol" for name in "ab"]
        for path in paths:
            flip(path, 200)
        done = await scrub(b)
        assert len(done["broken"]) == 1
        document = await b.volume(1)
        assert "damaged" in document["problem"]
        assert document["brokenBytes"] == done["broken"][0][1]
        status = await b.admin("GET", "/admin/status")
        assert status["volumes"][0]["problem"] == document["problem"]
        # One that is good again mends the other.
        flip(paths[0], 200)
        assert (await scrub(b))["broken"] == []
        assert (await b.volume(1))["problem"] == ""
        assert paths[0].read_bytes() == paths[1].read_bytes()


async def test_sound_copies_that_differ_are_reported(tmp_path: Path) -> None:
    async with replicas(tmp_path, range(1, 20)) as (_, b):
        assert await b.stop() == 0
        raw = bytearray((tmp_path / "b" / "1.vol").read_bytes())
        with Volume.open(tmp_path / "b" / "1.vol") as volume:
            offsets = [volume.find(key) for key in (5, 6)]
            first, second = (volume.read(entry) for entry in offsets if entry is not None)
        one = bytes(raw[first.offset : first.offset + first.header.total_bytes])
        two = bytes(raw[second.offset : second.offset + second.header.total_bytes])
        raw[first.offset : second.offset + len(two)] = two + one
        (tmp_path / "b" / "1.vol").write_bytes(raw)
        (tmp_path / "b" / "1.idx").unlink()
        await b.start()
        done = await scrub(b)
        assert done["diverged"], b.log
        assert "not as in another copy" in (await b.volume(1))["problem"]


async def test_a_header_that_was_damaged_when_the_index_was_made(tmp_path: Path) -> None:
    """The index does not know the needle; when it is mended, it is there again."""
    async with replicas(tmp_path, range(1, 20)) as (a, b):
        assert await b.stop() == 0
        path = tmp_path / "b" / "1.vol"
        with Volume.open(path) as volume:
            entry = volume.find(7)
            assert entry is not None
        flip(path, entry.offset + 20)
        path.with_suffix(".idx").unlink()
        await b.start()
        assert await b.get(fid(1, 7)) == 404
        workers = b.workers()
        assert (await scrub(b))["mended"] == 1
        assert await b.get(fid(1, 7)) == photo(7)
        assert b.workers() == workers
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)


async def test_it_walks_by_itself_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    timing = {"scrub_look_seconds": 0.02, "scrub_rest_seconds": 0.05, "scrub_save_seconds": 0.0}
    async with StoreProcess(tmp_path / "a", timing=timing, scrub_bytes_per_second=2**30) as store:
        await store.make_volume(1)
        await fill(store, 1, range(1, 20))

        async def finished() -> int:
            return int((await store.volume(1))["scrubbedMs"])

        first = await until_async(finished)
        await until_async(lambda: _later(finished, first))
        assert await store.stop() == 0
        assert b"finished_ms" in (tmp_path / "a" / "scrub.json").read_bytes()
        flip(tmp_path / "a" / "1.vol", 300)
        await store.start()
        assert await finished() > 0

        async def found() -> bool:
            return bool((await store.volume(1))["problem"])

        await until_async(found)


async def _later(finished: Any, first: int) -> bool:
    return bool(await finished() > first)


async def test_a_superblock_that_was_damaged_while_the_store_was_down(tmp_path: Path) -> None:
    async with replicas(tmp_path, range(1, 20)) as (a, b):
        assert await b.stop() == 0
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        flip(path, 20)
        b.timing["scrub_look_seconds"] = 0.05
        await b.start()
        await b.until_volume(1, uuid=(await a.volume(1))["uuid"])
        assert path.read_bytes() == good
        assert await b.get(fid(1, 7)) == photo(7)


async def test_a_copy_that_cannot_be_opened_can_be_deleted(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "a") as store:
        made = await store.make_volume(1)
        assert await store.stop() == 0
        flip(tmp_path / "a" / "1.vol", 20)
        await store.start()
        await store.until_volume(1, state="failed")
        await store.admin("DELETE", "/admin/volumes/1", {"uuid": made["uuid"], "epoch": 2}, expect=200)
        assert not (tmp_path / "a" / "1.vol").exists()
        await store.make_volume(1)
        await fill(store, 1, range(1, 3))


async def test_an_index_that_ends_workers_is_made_anew(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "a", timing={"restart_most_seconds": 0.05}) as store:
        await store.make_volume(1)
        await store.make_volume(2)
        await fill(store, 1, range(1, 20))
        assert await store.put(fid(2, 5), photo(5)) == 201
        for _ in range(3):
            assert await store.get(fid(1, 7)) == photo(7)
            before = store.workers()
            os.kill(before[0], signal.SIGBUS)
            await restarted(store, before)
            await until_async(lambda: answers(store))
        await until(lambda: "index rebuilt" in store.log)
        await store.until_volume(1, state="writable", liveCount=19)
        assert await store.get(fid(1, 7)) == photo(7)
        assert store.log.count("taken out of service") == 1


async def restarted(store: StoreProcess, before: list[int]) -> None:
    await until(lambda: store.workers() and store.workers() != before)


async def answers(store: StoreProcess) -> bool:
    try:
        return await store.get(fid(2, 5)) == photo(5)
    except aiohttp.ClientError:
        return False
