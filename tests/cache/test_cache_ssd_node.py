"""A Cache with little memory and a second level: real processes, a real file, and a Store behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cache_harness import Behind, FakeDirectory, cache_node, freeze, one_store, thaw, until
from store_data_harness import MIB, new_fid, running

from cache.ssd.plan import BLOCK_BYTES
from haystack.fid import Fid

MEMORY_BYTES = 92 * MIB
"""Some 15 MiB of it for photos."""

SSD_BYTES = 128 * MIB
PHOTO_BYTES = 200_000
PHOTOS = 200


def body_of(fid: Fid) -> bytes:
    return random.Random(fid.key).randbytes(PHOTO_BYTES)


@dataclass
class Filled:
    """A node whose memory has given photos up to its second level."""

    behind: Behind
    path: Path
    fids: list[Fid]

    def below(self) -> Iterator[Fid]:
        """Photos that left memory long ago, one after the other; each once."""
        while True:
            yield self.fids.pop(0)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("ssd")
    path = folder / "level"
    options = {"ssd": str(path), "ssd_size_bytes": SSD_BYTES, "ssd_write_bytes_per_second": 0}
    with one_store(folder, memory_bytes=MEMORY_BYTES, **options) as behind:
        fids = [new_fid() for _ in range(PHOTOS)]
        for fid in fids:
            behind.put(fid, body_of(fid), ("Content-Type", "image/jpeg"))
        with behind.node.client() as client:
            for fid in fids:
                for expected in ("miss", "hit"):
                    answer = client.get(f"/{fid}")
                    assert (answer.status, answer.headers["x-cache"]) == (200, expected)
                time.sleep(0.005)  # as between people: the policy hears of hits 50 times a second
        until(lambda: behind.node.counter("ssdEntries") > 80, "most of them left memory")
        until(lambda: behind.node.counter("ssdWrittenBytes") > 80 * PHOTO_BYTES, "and are written")
        yield Filled(behind, path, fids)


def test_a_hit_below_is_a_hit_and_no_read_of_a_store(filled: Filled) -> None:
    node, below = filled.behind.node, filled.below()
    fetches, hits = node.counter("fetches"), node.counter("ssdHits")
    with node.client() as client:
        for fid in (next(below) for _ in range(10)):
            answer = client.get(f"/{fid}", Range="bytes=5-1000")
            assert (answer.status, answer.body, answer.headers["x-cache"]) == (206, body_of(fid)[5:1001], "hit")
            whole = client.get(f"/{fid}")
            assert (whole.body, whole.headers["content-type"]) == (body_of(fid), "image/jpeg")
    node.counted("ssdHits", hits + 10)
    assert node.counter("fetches") == fetches
    status = node.status()
    assert status["ssd"]["on"] and status["ssd"]["path"] == str(filled.path)
    assert filled.path.stat().st_size <= SSD_BYTES
    with node.client() as client:
        page = client.get("/metrics").body.decode()
    assert "\nhaystack_cache_ssd_on 1" in page and "\nhaystack_cache_ssd_hits_total " in page


def test_all_who_wait_for_a_photo_share_one_read_of_the_disk(filled: Filled) -> None:
    node, fid = filled.behind.node, next(filled.below())
    before = {name: node.counter(name) for name in ("ssdHits", "fetches", "hits")}

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"GET /{fid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    async def run() -> list[bytes]:
        return await asyncio.gather(*(ask() for _ in range(100)))

    assert asyncio.run(run()) == [body_of(fid)] * 100
    node.counted("hits", before["hits"] + 100)
    assert (node.counter("ssdHits"), node.counter("fetches")) == (before["ssdHits"] + 1, before["fetches"])


def test_what_was_deleted_does_not_come_back_from_below(filled: Filled) -> None:
    behind, below = filled.behind, filled.below()
    told, silent, purged = next(below), next(below), next(below)
    with behind.node.client() as client:
        behind.delete(told)
        behind.directory.change(1, told.key)
        until(lambda: behind.node.counter("ssdEntries") and client.get(f"/{told}").status == 404, "it is gone")
        behind.delete(silent)
        behind.directory.change(1, None, None, "unsure")
        until(lambda: client.get(f"/{silent}").status == 404, "a Store was asked about it")
        assert client.get(f"/{silent}").status == 404
        behind.node.admin("/admin/cache/purge", {"fids": [str(purged)]})
        assert client.get(f"/{purged}").headers["x-cache"] == "miss"


def test_what_cannot_be_vouched_for_is_asked_for_and_then_given_from_below(filled: Filled) -> None:
    behind, below = filled.behind, filled.below()
    checked, stale = next(below), next(below)
    behind.directory.doubtful = None
    try:
        time.sleep(0.6)
        before = behind.node.counter("revalidations")
        fetches = behind.node.counter("fetches")
        with behind.node.client() as client:
            answer = client.get(f"/{checked}")
            assert (answer.status, answer.headers["x-cache"], answer.body) == (200, "hit", body_of(checked))
            behind.node.counted("revalidations", before + 1)
            assert behind.node.counter("fetches") == fetches
            freeze(behind.store.processes[0].pid)
            answer = client.get(f"/{stale}")
            assert (answer.status, answer.headers["x-cache"], answer.body) == (200, "stale", body_of(stale))
    finally:
        thaw(behind.store.processes[0].pid)
        behind.directory.doubtful = []
    until(lambda: behind.node.status()["vouched"])


def test_flipped_bytes_are_never_served(filled: Filled) -> None:
    behind, below = filled.behind, filled.below()
    fids = [next(below) for _ in range(20)]
    size = filled.path.stat().st_size
    with filled.path.open("r+b") as file:
        for place in range(BLOCK_BYTES, size, 50_000):
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 0x10]))
        file.flush()
        os.fsync(file.fileno())
    with behind.node.client() as client:
        for fid in fids:
            answer = client.get(f"/{fid}")
            assert (answer.status, answer.headers["x-cache"]) == (200, "miss")
            assert answer.body == body_of(fid)
    assert behind.node.counter("ssdFailures") >= len(fids)
    assert behind.node.status()["ssd"]["on"]


def test_killed_it_begins_empty_and_full_it_goes_without(tmp_path: Path) -> None:
    path = tmp_path / "level"
    with FakeDirectory() as directory, running(tmp_path / "store") as store:
        directory.serve(store)
        fid = new_fid()
        with store.client() as client:
            assert client.put(f"/{fid}", b"photo").status == 201
        options = {"memory_bytes": MEMORY_BYTES, "ssd": str(path)}
        with cache_node(tmp_path / "one", directory, ssd_size_bytes=16 * MIB, **options) as node:
            assert node.get(f"/{fid}").body == b"photo"
            os.kill(node.process.pid, signal.SIGKILL)
            node.process.wait()
        with cache_node(tmp_path / "two", directory, ssd_size_bytes=16 * MIB, **options) as node:
            assert node.status()["ssd"]["on"] and node.counter("ssdEntries") == 0
            assert node.get(f"/{fid}").headers["x-cache"] == "miss"
        with cache_node(tmp_path / "three", directory, ssd_size_bytes=2**45, **options) as node:
            assert "are free" in node.status()["ssd"]["why"]
            assert node.get(f"/{fid}").body == b"photo"
        path.unlink()
        path.write_bytes(b"somebody's")
        with pytest.raises(AssertionError, match="file of somebody else"):
            cache_node(tmp_path / "four", directory, ssd_size_bytes=16 * MIB, **options).__enter__()
