"""Many clients at once: one fetch for all of them; slow readers while the memory is churned; large photos."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_harness import Behind, one_store, until
from store_data_harness import MIB, Client, head, new_fid

from haystack.fid import Fid

CLIENTS = 1000
SLOW = 8
ANSWERS = 3
"""For each slow reader: the kernel takes the first one whole, and nothing of the last."""


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with one_store(tmp_path_factory.mktemp("many"), workers=2, memory_bytes=192 * MIB) as behind:
        yield behind


def store_reads(behind: Behind) -> float:
    return behind.store.metrics()['haystack_store_requests_total{method="GET"}'] - 1  # this one's own


async def _read_at_once(port: int, path: str, clients: int) -> list[bytes]:
    """All connections are there before the first request is sent."""
    streams = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(clients)))
    request = head("GET", path)
    for _, writer in streams:
        writer.write(request)

    async def answer(reader: asyncio.StreamReader) -> bytes:
        lines = await reader.readuntil(b"\r\n\r\n")
        assert lines.startswith(b"HTTP/1.1 200"), lines
        length = int(lines.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return await reader.readexactly(length)

    bodies = await asyncio.gather(*(answer(reader) for reader, _ in streams))
    for _, writer in streams:
        writer.close()
    return list(bodies)


@pytest.mark.parametrize("size", [4096, 1_500_000], ids=["whole", "streamed"])
def test_a_thousand_clients_for_one_missing_photo_are_one_store_read(behind: Behind, size: int) -> None:
    fid = new_fid()
    body = random.Random(size).randbytes(size)
    behind.put(fid, body)
    clients = CLIENTS if size < MIB else 100
    fetches = behind.node.counter("fetches")
    before = store_reads(behind)
    bodies = asyncio.run(_read_at_once(behind.node.port, f"/{fid}", clients))
    assert len(bodies) == clients and all(one == body for one in bodies)
    assert store_reads(behind) - before - 2 == 1  # two pages of metrics beside it
    behind.node.counted("fetches", fetches + 1)


def test_slow_readers_never_get_wrong_bytes_while_the_memory_is_churned(behind: Behind) -> None:
    """Their answers lie in memory that is wanted for other photos, many times over."""
    node = behind.node
    dice = random.Random(3)
    shared = dice.randbytes(3 * MIB)
    photos: dict[Fid, bytes] = {}
    with behind.store.client() as uploader:
        for number in range(150):
            fid = new_fid()
            start = dice.randrange(MIB)
            size = 1_900_000 if number < SLOW else dice.randrange(300_000, 1_900_000)
            photos[fid] = number.to_bytes(4, "big") + shared[start : start + size]
            assert uploader.put(f"/{fid}", photos[fid]).status == 201
    fids = list(photos)
    evictions = node.counter("evictions")
    slow = [(fid, Client(node.port, receive_buffer_bytes=4096)) for fid in fids[:SLOW]]
    try:
        for fid, client in slow:
            with node.client() as first:
                assert first.get(f"/{fid}").body == photos[fid]
            client.send(head("GET", f"/{fid}") * ANSWERS)
        with node.client() as churning:
            until(lambda: _gauge(behind, "open_connections") >= SLOW)
            assert node.admin("/admin/cache/purge", {"fids": [str(fid) for fid in fids[:SLOW]]})["purged"] == SLOW
            for _ in range(2):
                for fid in fids[SLOW:]:
                    assert churning.get(f"/{fid}").body == photos[fid]
        until(lambda: node.counter("evictions") > evictions + 20, "the memory was churned")
        assert _gauge(behind, "waiting_bytes") > MIB, "what is being sent was evicted, and is not given to others"
        for fid, client in slow:
            for _ in range(ANSWERS):
                assert client.answer().body == photos[fid]
    finally:
        for _, client in slow:
            client.close()


def test_what_is_too_large_passes_through_with_ranges(behind: Behind) -> None:
    fid = new_fid()
    body = random.Random(9).randbytes(5 * MIB)
    behind.put(fid, body)
    with behind.node.client() as client:
        answer = client.get(f"/{fid}")
        assert (answer.body, answer.headers["x-cache"]) == (body, "pass")
        part = client.get(f"/{fid}", Range="bytes=1000000-3999999")
        assert (part.status, part.body) == (206, body[1_000_000:4_000_000])
        assert client.get(f"/{fid}", If_None_Match=answer.headers["etag"]).status == 304
        assert client.request("HEAD", f"/{fid}").headers["content-length"] == str(len(body))


def test_a_reader_that_goes_away_leaves_nothing_behind(behind: Behind) -> None:
    node = behind.node
    fid = new_fid()
    body = random.Random(10).randbytes(1_800_000)
    behind.put(fid, body)
    for _ in range(20):
        client = Client(node.port, receive_buffer_bytes=4096)
        client.send(head("GET", f"/{fid}"))
        client.read(100)
        client.reset()
    node.admin("/admin/cache/purge", {"all": True})
    until(lambda: _gauge(behind, "waiting_bytes") == 0, "nothing is pinned any more")
    assert node.get(f"/{fid}").body == body


def _gauge(behind: Behind, name: str) -> float:
    time.sleep(0.1)  # the page is published that often
    with behind.node.client() as client:
        page = client.get("/metrics").body.decode()
    return float(page.partition(f"\nhaystack_cache_{name} ")[2].split("\n")[0])


def test_paper_admission(tmp_path: Path) -> None:
    with one_store(tmp_path, admission="paper") as behind, behind.node.client() as client:
        fid, other = new_fid(), new_fid()
        for one in (fid, other):
            behind.put(one, b"photo")
        for _ in range(2):
            assert client.get(f"/{fid}", Via="1.1 cdn").headers["x-cache"] == "pass"
        assert [client.get(f"/{fid}").headers["x-cache"] for _ in range(2)] == ["miss", "hit"]
        assert client.get(f"/{fid}", Via="1.1 cdn").headers["x-cache"] == "hit"
        behind.directory.writable = False
        behind.directory.change(1, None, None, "locations")
        until(lambda: behind.node.status()["feed"]["sequence"] == 1)
        for _ in range(2):
            assert client.get(f"/{other}").headers["x-cache"] == "pass"
