"""Copies that follow another Store's: from nothing, after they parted, after something died, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from copies_harness import (
    MIB,
    change,
    fill,
    flip,
    make_stale,
    member,
    order,
    pair,
    photo,
    require_same,
    until_followed,
)
from supervisor_harness import StoreProcess, fid, until

from haystack.store.replication.members_file import remove_members
from haystack.volume import Volume

UNCERTAIN = 503
"""What a copy that does not count says of a photo that it does not have: another one may have it."""


async def test_a_copy_is_made_from_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 60))
        async with asyncio.timeout(10):
            for key in (3, 7):
                assert await delete(a, fid(1, key)) == 202
        done = await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]))
        assert done["copiedBytes"] == done["totalBytes"] == (tmp_path / "a" / "1.vol").stat().st_size
        document = await b.until_volume(1, uuid=made["uuid"])
        assert document["liveCount"] == 57
        assert await b.get(fid(1, 5)) == photo(5)
        assert await b.get(fid(1, 3)) == UNCERTAIN
        # It does not count, so it stores no uploads of its own: they are for the primary.
        await b.put(fid(1, 900), b"x")
        assert await b.get(fid(1, 900)) == UNCERTAIN
        # A second call finds nothing more to do, and later ones follow what came meanwhile.
        await fill(a, 1, range(100, 110))
        await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]))
        assert await b.get(fid(1, 105)) == photo(105)
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)
    assert not list((tmp_path / "b").glob("*.copy"))


async def delete(store: StoreProcess, name: str) -> int:
    import aiohttp

    async with aiohttp.request("DELETE", f"http://127.0.0.1:{store.port}/{name}") as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("kind", ["prefix", "extra", "other", "overwritten", "deleted"])
async def test_a_copy_that_was_away_follows(tmp_path: Path, kind: str) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 40))
        await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]))
        assert await b.stop() == 0
        ours = {
            "prefix": lambda: None,
            "extra": lambda: change(tmp_path / "b", 1, range(500, 505)),
            "other": lambda: change(tmp_path / "b", 1, range(500, 530), size=100_000),
            "overwritten": lambda: change(tmp_path / "b", 1, range(30, 35)),
            "deleted": lambda: change(tmp_path / "b", 1, range(600, 602), delete=(8, 9)),
        }
        ours[kind]()
        if kind != "extra":
            await fill(a, 1, range(200, 215))
            assert await delete(a, fid(1, 11)) == 202
        await b.start()
        workers = b.workers()
        await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"], epoch=3))
        assert b.workers() == workers
        assert await b.get(fid(1, 8)) == photo(8)
        assert await b.get(fid(1, 31)) == photo(31)
        assert await b.get(fid(1, 501)) == UNCERTAIN
        if kind != "extra":
            assert await b.get(fid(1, 11)) == UNCERTAIN
            assert await b.get(fid(1, 210)) == photo(210)
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)
    assert bool(list((tmp_path / "b").glob("1.torn-*"))) == (kind != "prefix")


async def test_what_was_cached_before_a_cut_is_void_at_the_same_tail(tmp_path: Path) -> None:
    """The copy had a tombstone at its end, and gets another one in its place: its tail is the same number again."""
    async with pair(tmp_path, workers=1) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 12))
        first, second = member(tmp_path / "a", a), member(tmp_path / "b", b)
        await until_followed(b, 1, order(first, made["uuid"]))
        alone = {"uuid": made["uuid"], "epoch": 3, "primary": second["storeId"], "copies": 2, "inSync": [second]}
        await b.admin("PUT", "/admin/volumes/1/membership", alone, expect=200)
        assert await delete(b, fid(1, 8)) == 202
        tail = (tmp_path / "b" / "1.vol").stat().st_size
        for _ in range(4):  # cached from the second time on
            assert await b.get(fid(1, 9)) == photo(9)
        assert await delete(a, fid(1, 9)) == 202
        await until_followed(b, 1, order(first, made["uuid"], epoch=4))
        assert (tmp_path / "b" / "1.vol").stat().st_size == tail
        assert await b.get(fid(1, 9)) == UNCERTAIN
        assert await b.get(fid(1, 8)) == photo(8)


async def test_a_copy_without_its_membership_does_not_say_that_a_photo_is_unknown(tmp_path: Path) -> None:
    """It may be one that does not count; the Directory has yet to say so."""
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1, replication="001")
        first = member(tmp_path / "a", a)
        alone = {"uuid": made["uuid"], "epoch": 2, "primary": first["storeId"], "copies": 1, "inSync": [first]}
        await a.admin("PUT", "/admin/volumes/1/membership", alone, expect=200)
        await fill(a, 1, range(1, 5))
        await until_followed(b, 1, order(first, made["uuid"]))
        assert await b.stop() == 0
        remove_members(tmp_path / "b" / "1.vol")
        await b.start()
        assert await b.get(fid(1, 3)) == photo(3)
        assert await b.get(fid(1, 99)) == UNCERTAIN
        assert await a.get(fid(1, 99)) == 404


async def test_an_interrupted_copy_goes_on(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 12), size=MIB)
        slow = order(member(tmp_path / "a", a), made["uuid"], bytesPerSecond=2 * MIB)
        copy = tmp_path / "b" / "1.vol.copy"
        await b.admin("POST", "/admin/volumes/1/follow", slow, expect=202)
        await until(lambda: copy.exists() and copy.stat().st_size > 2 * MIB)
        await b.kill()
        await b.start()
        assert (await b.admin("GET", "/admin/volumes"))["volumes"] == []
        assert copy.exists()
        await until_followed(b, 1, slow | {"bytesPerSecond": None})
        assert await b.get(fid(1, 11)) == photo(11, MIB)
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)


async def test_a_source_that_dies_in_the_middle(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 12), size=MIB)
        slow = order(member(tmp_path / "a", a), made["uuid"], bytesPerSecond=2 * MIB)
        await b.admin("POST", "/admin/volumes/1/follow", slow, expect=202)
        copy = tmp_path / "b" / "1.vol.copy"
        await until(lambda: copy.exists() and copy.stat().st_size > MIB)
        await a.kill()
        failed = await until_followed(b, 1, slow, "failed")
        assert "127.0.0.1" in failed["error"]
        assert (await b.admin("GET", "/admin/volumes"))["volumes"] == []
        await a.start()
        await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]))
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)


async def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 30))
        with Volume.attach(tmp_path / "a" / "1.vol") as volume:
            entry = volume.find(20)
            assert entry is not None
        flip(tmp_path / "a" / "1.vol", entry.offset + 100)
        failed = await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]), "failed")
        assert "damaged" in failed["error"]
        assert (await b.admin("GET", "/admin/volumes"))["volumes"] == []
        flip(tmp_path / "a" / "1.vol", entry.offset + 100)
        await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"]))
        # A copy that parted is not cut for something damaged.
        assert await b.stop() == 0
        change(tmp_path / "b", 1, range(500, 503))
        before = (tmp_path / "b" / "1.vol").read_bytes()
        tail = (tmp_path / "a" / "1.vol").stat().st_size
        await fill(a, 1, range(700, 705))
        flip(tmp_path / "a" / "1.vol", tail + 70)
        await b.start()
        failed = await until_followed(b, 1, order(member(tmp_path / "a", a), made["uuid"], epoch=3), "failed")
        assert "damaged" in failed["error"]
        assert (tmp_path / "b" / "1.vol").read_bytes() == before
        assert await b.get(fid(1, 5)) == photo(5)


async def test_what_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        other = await b.make_volume(1)
        source = member(tmp_path / "a", a)
        # Another volume under the same number; a copy that may be the only one; one that counts.
        await b.admin("POST", "/admin/volumes/1/follow", order(source, made["uuid"]), expect=409)
        await b.admin("POST", "/admin/volumes/1/follow", order(source, other["uuid"], epoch=1), expect=409)
        await b.admin("DELETE", "/admin/volumes/1", {"uuid": made["uuid"], "epoch": 5}, expect=409)
        await b.admin("DELETE", "/admin/volumes/1", {"uuid": other["uuid"], "epoch": 1}, expect=409)
        await b.admin("DELETE", "/admin/volumes/9", {"uuid": other["uuid"], "epoch": 1}, expect=404)
        mine = member(tmp_path / "b", b)
        pushed = {"uuid": other["uuid"], "epoch": 7, "primary": mine["storeId"], "copies": 1, "inSync": [mine]}
        await b.admin("PUT", "/admin/volumes/1/membership", pushed, expect=200)
        answer = await b.admin("POST", "/admin/volumes/1/follow", order(source, other["uuid"], epoch=7), expect=409)
        assert answer["epoch"] == 7
        await b.admin("DELETE", "/admin/volumes/1", {"uuid": other["uuid"], "epoch": 8}, expect=409)
        # A source without the volume.
        failed = await until_followed(b, 4, order(source, made["uuid"]), "failed")
        assert "404" in failed["error"]


async def test_a_copy_is_deleted_and_made_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 20))
        body = order(member(tmp_path / "a", a), made["uuid"])
        for _ in range(2):
            await until_followed(b, 1, body)
            assert await b.get(fid(1, 5)) == photo(5)
            await b.admin("DELETE", "/admin/volumes/1", {"uuid": made["uuid"], "epoch": 2}, expect=200)
            assert await b.get(fid(1, 5)) == 404
            assert not [path.name for path in (tmp_path / "b").iterdir() if path.name.startswith("1.")]
        await until_followed(b, 1, body)
        assert await b.get(fid(1, 5)) == photo(5)


async def test_a_stale_copy_is_cut_while_it_is_read(tmp_path: Path) -> None:
    """A storm of reads, also by a client that does not take its answer; no worker dies, no byte is wrong."""
    async with pair(tmp_path, workers=2) as (a, b):
        made = await a.make_volume(1)
        await fill(a, 1, range(1, 60))
        source = member(tmp_path / "a", a)
        await until_followed(b, 1, order(source, made["uuid"]))
        assert await b.stop() == 0
        change(tmp_path / "b", 1, range(500, 530), size=1_500_000)
        await fill(a, 1, range(100, 130))
        make_stale(tmp_path / "b", 1, source, made["uuid"], epoch=3)
        await b.start()
        workers = b.workers()
        reader, writer = await asyncio.open_connection("127.0.0.1", b.port, limit=1024)
        for _ in range(8):
            writer.write(f"GET /{fid(1, 520)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await writer.drain()
        ended = asyncio.Event()
        seen: set[object] = set()

        async def storm(keys: range, wanted: int) -> None:
            while not ended.is_set():
                for key in keys:
                    got = await b.get(fid(1, key))
                    if isinstance(got, bytes):
                        assert got == photo(key + wanted, 1_500_000 if wanted else None)
                    seen.add(got if isinstance(got, int) else "photo")

        storms = [asyncio.create_task(storm(range(1, 60), 0)) for _ in range(2)]
        storms.append(asyncio.create_task(storm(range(500, 530), 1_000_000)))
        await until_followed(b, 1, order(source, made["uuid"], epoch=3))
        await asyncio.sleep(0.05)
        ended.set()
        await asyncio.gather(*storms)
        assert seen <= {"photo", 404, 503}
        assert b.workers() == workers
        writer.close()
        assert reader is not None
        assert await b.get(fid(1, 120)) == photo(120)
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)
