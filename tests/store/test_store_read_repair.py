"""A client never notices that a copy is damaged, and the copy is mended."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import aiohttp
from copies_harness import fill, flip, member, order, pair, photo, replicas, require_same
from store_data_harness import drop_cache
from supervisor_harness import StoreProcess, fid, new_volume, until, until_async

from haystack.json_calls import json_call
from haystack.volume import Volume
from haystack.volume.layout import FOOTER_BYTES, HEADER_BYTES

KEYS = range(1, 8)
SAMPLED = 60


async def test_every_byte_of_a_needle(tmp_path: Path) -> None:
    """Header, metadata, data, padding and footer, flipped one at a time."""
    async with replicas(tmp_path, KEYS) as (a, b):
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        with Volume.attach(path) as volume:
            entry = volume.find(5)
            assert entry is not None
        end = entry.offset + entry.total_bytes
        dice = random.Random(11)
        edges = [*range(entry.offset, entry.offset + HEADER_BYTES, 5), *range(end - FOOTER_BYTES - 8, end, 3)]
        for offset in [*edges, *dice.sample(range(entry.offset + HEADER_BYTES, end), SAMPLED - len(edges))]:
            flip(path, offset, 1 << dice.randrange(8))
            assert await b.get(fid(1, 5)) == photo(5)
            await until(lambda: path.read_bytes() == good, f"mended at {offset}")
        assert await b.get(fid(1, 3)) == 404
        assert await a.stop() == 0
        assert await b.stop() == 0
    require_same(tmp_path / "a", tmp_path / "b", 1)


async def test_all_kinds_of_reads(tmp_path: Path) -> None:
    async with replicas(tmp_path, KEYS) as (_, b):
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        with Volume.attach(path) as volume:
            entry = volume.find(5)
            assert entry is not None
            needle = volume.read(entry)
        tag, data = f'"{needle.checksum:016x}"', photo(5)
        url = f"http://127.0.0.1:{b.port}/{fid(1, 5)}"
        async with aiohttp.ClientSession() as session:
            for cold in (False, True):
                for method, headers, status, body in (
                    ("GET", {}, 200, data),
                    ("HEAD", {}, 200, b""),
                    ("GET", {"Range": "bytes=10-19"}, 206, data[10:20]),
                    ("GET", {"Range": f"bytes={len(data)}-"}, 416, None),
                    ("GET", {"If-None-Match": tag}, 304, b""),
                    ("GET", {"If-Range": tag, "Range": "bytes=-5"}, 206, data[-5:]),
                ):
                    flip(path, entry.offset + HEADER_BYTES + 50)
                    if cold:
                        drop_cache(path)
                    async with session.request(method, url, headers=headers) as answer:
                        got = await answer.read()
                        assert answer.status == status, (method, headers, got[:300])
                        assert body is None or got == body
                        if status != 416:
                            assert answer.headers["ETag"] == tag
                    await until(lambda: path.read_bytes() == good, f"mended after {method} {headers}")
            # A wrong cookie is a wrong cookie.
            flip(path, entry.offset + HEADER_BYTES + 50)
            async with session.get(url[:-1] + ("0" if url[-1] != "0" else "1")) as answer:
                assert answer.status == 404
            async with session.get(f"http://127.0.0.1:{b.port}/metrics") as answer:
                page = await answer.text()
            repaired = re.search(r"^haystack_store_repaired_reads_total (\d+)$", page, re.MULTILINE)
            # Some of them may have been mended by whoever met the damage first.
            assert repaired is not None and int(repaired[1]) >= 1


async def test_a_large_photo(tmp_path: Path) -> None:
    """More than what is verified on the event loop, and more than what is held in memory."""
    large = {50: 3_000_000, 51: 20_000_000}
    async with replicas(tmp_path, range(1, 4), large=large) as (a, _):
        path = tmp_path / "a" / "1.vol"
        good = path.read_bytes()
        for key, size in large.items():
            with Volume.attach(path) as volume:
                entry = volume.find(key)
                assert entry is not None
            flip(path, entry.offset + size // 2)
            assert await a.get(fid(1, key)) == photo(key, size)
            await until(lambda: path.read_bytes() == good)


async def test_without_another_copy_it_is_refused_and_reported(tmp_path: Path) -> None:
    async with StoreProcess(tmp_path / "a") as store:
        await store.make_volume(1)
        await fill(store, 1, KEYS)
        path = tmp_path / "a" / "1.vol"
        with Volume.attach(path) as volume:
            entry = volume.find(5)
            assert entry is not None
        flip(path, entry.offset + HEADER_BYTES + 50)
        assert await store.get(fid(1, 5)) == 500
        document = await store.until_volume(1, brokenBytes=entry.total_bytes)
        assert "no copy has them" in document["problem"]
        assert await store.get(fid(1, 6)) == photo(6)


async def test_a_dead_peer_costs_nothing_but_the_damaged_photo(tmp_path: Path) -> None:
    async with replicas(tmp_path, KEYS) as (a, b):
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        with Volume.attach(path) as volume:
            entry = volume.find(5)
            assert entry is not None
        await a.kill()
        flip(path, entry.offset + HEADER_BYTES + 50)
        assert await b.get(fid(1, 5)) == 500
        assert await b.get(fid(1, 6)) == photo(6)
        assert path.read_bytes() != good


async def test_calls_between_stores_are_signed(tmp_path: Path) -> None:
    secret = "s" * 40
    async with pair(tmp_path, secret=secret) as (a, b), aiohttp.ClientSession() as session:

        async def admin(store: StoreProcess, method: str, path: str, document: Any) -> Any:
            url = f"http://127.0.0.1:{store.admin_port}/admin/volumes{path}"
            called = await json_call(session, method, url, document, secret=secret.encode())
            status, answer = called.status, called.document
            assert status < 300, answer
            return answer

        await b.admin("GET", "/admin/volumes/1/bytes?from=0&to=1", expect=401)
        made = await admin(a, "POST", "", new_volume(1))
        await fill(a, 1, KEYS)
        first, second = member(tmp_path / "a", a), member(tmp_path / "b", b)
        body = order(first, made["uuid"])

        async def followed() -> bool:
            answer = await admin(b, "POST", "/1/follow", body)
            assert answer["state"] != "failed", answer
            return bool(answer["state"] == "done")

        await until_async(followed)
        pushed = {"uuid": made["uuid"], "epoch": 3, "primary": first["storeId"], "copies": 2, "inSync": [first, second]}
        for store in (a, b):
            await admin(store, "PUT", "/1/membership", pushed)
        path = tmp_path / "b" / "1.vol"
        good = path.read_bytes()
        with Volume.attach(path) as volume:
            entry = volume.find(5)
            assert entry is not None
        flip(path, entry.offset + HEADER_BYTES + 50)
        assert await b.get(fid(1, 5)) == photo(5)
        await until(lambda: path.read_bytes() == good)
