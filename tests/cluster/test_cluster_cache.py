"""Caches in real clusters: what serves, and that a deleted photo is gone within a second whatever is cut off."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from cluster_networks import missing, networks
from cluster_nodes import Cluster, ClusterOptions, Node, places, running_cluster

from haystack.client import HaystackClient
from haystack.fid import Fid

PROMISE_SECONDS = 1.0
PHOTO_BYTES = 20_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Directory, two Stores that keep two copies, and one Cache."""
    options = ClusterOptions(places("dc1/A", "dc1/A"), replication="001", writable_volumes=2, caches=1)
    with running_cluster(tmp_path_factory.mktemp("caches"), options) as cluster:
        yield cluster


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[HaystackClient]:
    async with HaystackClient(f"http://{cluster.directory.address}", timeout_seconds=2) as client:
        yield client


class Reader:
    """Reads one photo at one Cache."""

    def __init__(self, http: aiohttp.ClientSession, cache: Node, fid: Fid) -> None:
        self._http = http
        self._url = f"http://{cache.address}/{fid}"

    async def read(self) -> tuple[int, str, bytes]:
        """Return status, what the Cache says of the answer, and the bytes."""
        async with self._http.get(self._url) as answer:
            return answer.status, answer.headers.get("X-Cache", ""), await answer.read()

    async def until(self, wanted: Callable[[tuple[int, str, bytes]], bool], what: str, seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not wanted(found := await self.read()):
            assert time.monotonic() < deadline, f"{what} never came true; last was {found[:2]}"
            await asyncio.sleep(0.02)

    async def until_kept(self, photo: bytes) -> None:
        """Have the Cache keep it, and vouch for it by itself."""
        await self.until(lambda found: found[:2] == (200, "hit") and found[2] == photo, "a hit")

    async def gone_seconds(self, since: float, watch_seconds: float = 1.5) -> float:
        """Return after how long since ``since`` the photo was given out last; nothing that is else wrong may come."""
        last = since
        while time.monotonic() < since + watch_seconds:
            status, _, _ = await self.read()
            assert status in (200, 404, 503)
            if status == 200:
                last = time.monotonic()
        return last - since


async def put(client: HaystackClient) -> tuple[Fid, bytes]:
    photo = os.urandom(PHOTO_BYTES)
    return Fid.parse((await client.upload(photo)).fid), photo


async def kept(client: HaystackClient, http: aiohttp.ClientSession, cache: Node) -> tuple[Fid, Reader]:
    """Upload a photo and have the Cache keep it."""
    fid, photo = await put(client)
    await client.lookup(fid.volume)  # the client knows the place also when no Directory answers
    reader = Reader(http, cache, fid)
    await reader.until_kept(photo)
    return fid, reader


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


async def test_a_photo_is_fetched_once_and_then_served_from_memory(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession
) -> None:
    fid, photo = await put(client)
    reader = Reader(http, cluster.caches[0], fid)
    found = [await reader.read() for _ in range(3)]
    assert [one[2] for one in found] == [photo] * 3
    assert found[0][1] == "miss" and found[2][1] == "hit"
    assert await client.read(fid) == photo
    async with http.get(f"http://{cluster.directory.address}/{fid}") as answer:
        assert answer.headers["X-Cache"] == "hit" and await answer.read() == photo


async def test_a_deleted_photo_is_gone_within_a_second(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession
) -> None:
    taken = []
    for _ in range(5):
        fid, reader = await kept(client, http, cluster.caches[0])
        await client.delete(fid)
        taken.append(await reader.gone_seconds(time.monotonic()))
    print(f"given out after its delete for at most {max(taken) * 1000:.0f} ms, of {[round(one, 3) for one in taken]}")
    assert max(taken) < PROMISE_SECONDS


async def test_a_replaced_photo_is_another_one_within_a_second(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession
) -> None:
    fid, reader = await kept(client, http, cluster.caches[0])
    photo = os.urandom(PHOTO_BYTES)
    await client.upload(photo, fid=fid)
    await asyncio.sleep(PROMISE_SECONDS)
    assert (await reader.read())[2] == photo


async def test_a_cache_that_was_frozen_meanwhile_gives_nothing_out(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession
) -> None:
    cache = cluster.caches[0]
    fid, reader = await kept(client, http, cache)
    with frozen(cache):
        await client.delete(fid)
        since = time.monotonic()
        waiting = asyncio.create_task(reader.read())
        await asyncio.sleep(PROMISE_SECONDS)
    assert (await waiting)[0] in (404, 503)
    assert await reader.gone_seconds(since) == 0


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_without_a_directory_stores_are_asked(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession, how: str
) -> None:
    directory = cluster.directory
    kept_fid, kept_reader = await kept(client, http, cluster.caches[0])
    fid, reader = await kept(client, http, cluster.caches[0])
    if how == "frozen":
        directory.freeze()
    else:
        directory.kill()
    try:
        await client.delete(fid)
        assert await reader.gone_seconds(time.monotonic()) < PROMISE_SECONDS
        status, said, _ = await kept_reader.read()
        assert (status, said) == (200, "hit"), "what is not deleted is served all the same"
    finally:
        if how == "frozen":
            directory.thaw()
        else:
            directory.start()
    await kept_reader.until(lambda found: found[:2] == (200, "hit"), "a hit")
    assert (await reader.read())[0] == 404
    await client.delete(kept_fid)
    assert await kept_reader.gone_seconds(time.monotonic()) < PROMISE_SECONDS


async def test_a_photo_deleted_while_its_store_was_frozen(
    cluster: Cluster, client: HaystackClient, http: aiohttp.ClientSession
) -> None:
    """The primary is lost, a copy takes its place: what it deletes is gone, what it did not stays."""
    first, second = [await kept(client, http, cluster.caches[0]) for _ in range(2)]
    with frozen(cluster.stores[0]):
        await client.delete(first[0])
        assert await first[1].gone_seconds(time.monotonic()) < PROMISE_SECONDS
        assert (await second[1].read())[0] == 200
    assert (await first[1].read())[0] == 404


async def test_each_photo_is_at_one_of_several_caches_and_a_dead_one_is_skipped(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    options = ClusterOptions(places("dc1/A"), writable_volumes=1, caches=3, dead_after_seconds=1.5)
    with running_cluster(tmp_path / "cluster", options) as cluster:
        async with HaystackClient(f"http://{cluster.directory.address}") as client:
            await _until_named(http, cluster, 3)
            # So many that each Cache has some: with 15, one of 150 times one has none.
            photos = dict([await put(client) for _ in range(60)])
            for _ in range(3):
                for fid, photo in photos.items():
                    assert await client.read(fid) == photo
            counters = [await _counters(http, cluster, cache) for cache in cluster.caches]
            assert all(one["misses"] > 0 for one in counters)
            assert sum(one["misses"] for one in counters) == len(photos)
            cluster.caches[0].kill()
            for fid, photo in photos.items():
                assert await client.read(fid) == photo
            await _until_named(http, cluster, 2)
            cluster.caches[1].freeze()
            for fid, photo in photos.items():
                assert await client.read(fid) == photo
            cluster.caches[1].thaw()
            cluster.caches[0].start()
            await _until_named(http, cluster, 3)


async def _counters(http: aiohttp.ClientSession, cluster: Cluster, cache: Node) -> dict[str, int]:
    """Return what a Cache has counted, once the Directory knows of all reads."""
    found: dict[str, int] = {}
    for _ in range(100):
        async with http.get(f"http://{cluster.directory.address}/cluster/status") as answer:
            documents = (await answer.json())["Caches"]
        before, found = found, next(one["counters"] for one in documents if one["url"] == cache.address)
        if before == found and found.get("requests"):
            return found
        await asyncio.sleep(0.7)
    raise AssertionError(f"the counters of {cache.name} never rest: {found}")


async def _until_named(http: aiohttp.ClientSession, cluster: Cluster, count: int) -> None:
    for _ in range(200):
        async with http.get(f"http://{cluster.directory.address}/dir/caches") as answer:
            if len((await answer.json())["caches"]) == count:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"there are never {count} Caches")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
@pytest.mark.timeout(120)
async def test_a_store_that_the_directory_does_not_hear_is_not_vouched_for(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """It goes on acknowledging deletes that the Directory cannot hear of, and so the feed has nothing to say."""
    options = ClusterOptions(places("dc1/A"), writable_volumes=1, caches=1)
    with networks(3, subnet=3) as net:
        cluster = Cluster(tmp_path, options, hosts=net.hosts, prefix_of=net.prefix)
        try:
            cluster.start()
            async with HaystackClient(f"http://{cluster.directory.address}") as client:
                fid, reader = await kept(client, http, cluster.caches[0])
                stays, stays_reader = await kept(client, http, cluster.caches[0])
                net.cut(net.hosts[:1], net.hosts[1:2])
                await client.delete(fid)
                assert await reader.gone_seconds(time.monotonic()) < PROMISE_SECONDS
                assert (await stays_reader.read())[0] == 200
                await asyncio.sleep(1)
                await client.delete(stays)
                assert await stays_reader.gone_seconds(time.monotonic()) < PROMISE_SECONDS
                net.heal()
        except BaseException:
            print(cluster.says())
            raise
        finally:
            cluster.close()
