"""Reads go through the Caches, and never fail because of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from client_fakes import FakeCluster, FakeStore, break_after, hang_up, refuse
from hypothesis import given
from hypothesis import strategies as st

from haystack.client import HaystackClient, SyncHaystackClient
from haystack.client.caches import CacheList, CacheNode, CacheNodes, parse_caches
from haystack.errors import NeedleNotFound
from haystack.fid import Fid, Locator
from haystack.rendezvous import Node, order

FID = Fid(1, 0x5EED, 0xC0FFEE)
PHOTO = b"photo" * 1000


@pytest.fixture
async def cache(cluster: FakeCluster) -> AsyncIterator[FakeStore]:
    """The only Cache; it and the Store have the photo."""
    cache = await cluster.add_cache()
    for node in (cache, cluster.stores[0]):
        node.needles[str(FID)] = (PHOTO, "image/jpeg", "")
    yield cache


async def test_a_read_goes_to_the_cache(cluster: FakeCluster, client: HaystackClient, cache: FakeStore) -> None:
    for _ in range(3):
        assert await client.read(FID) == PHOTO
    assert len(cache.requests) == 3 and not cluster.stores[0].requests
    assert cluster.cache_questions == 1


async def test_caches_can_be_passed_by(cluster: FakeCluster, client: HaystackClient, cache: FakeStore) -> None:
    assert await client.read(FID, via_cache=False) == PHOTO
    async with HaystackClient(cluster.url, via_cache=False) as direct:
        assert await direct.read(FID) == PHOTO
        assert cluster.cache_questions == 0
        assert await direct.read(FID, via_cache=True) == PHOTO
    assert (len(cache.requests), len(cluster.stores[0].requests)) == (1, 2)


async def test_what_a_store_knows_is_asked_there(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore
) -> None:
    await client.stat(FID)
    await client.delete(FID)
    assert not cache.requests and len(cluster.stores[0].requests) == 2


@pytest.mark.parametrize("script", [hang_up, refuse(503), refuse(500), refuse(404), refuse(200)])
async def test_what_a_cache_cannot_give_is_read_at_the_store(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore, slept: list[float], script: object
) -> None:
    cache.script.append(script)  # type: ignore[arg-type]  # one of several kinds of script
    if script is not hang_up:
        cache.needles.clear()
    assert await client.read(FID, etag=f"{len(PHOTO):x}") == PHOTO
    assert not slept


async def test_a_locator_is_a_fid_to_a_cache(cluster: FakeCluster, client: HaystackClient, cache: FakeStore) -> None:
    locator = Locator(FID, 4096)
    assert await client.read(locator) == PHOTO
    cache.needles.clear()
    assert await client.read(locator) == PHOTO
    assert cache.requests == [f"GET {FID}"] * 2
    assert cluster.stores[0].requests == [f"GET {locator}"]


async def test_a_cache_that_is_gone_is_asked_once(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore, slept: list[float]
) -> None:
    assert cache.server is not None
    await cache.server.close()
    for _ in range(5):
        assert await client.read(FID) == PHOTO
    assert len(cluster.stores[0].requests) == 5 and not slept


async def test_a_frozen_cache_is_waited_for_once_and_shortly(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore
) -> None:
    forever = asyncio.Event()

    async def freeze(_: object) -> None:
        await forever.wait()

    cache.script.extend([freeze] * 5)
    began = asyncio.get_running_loop().time()
    for _ in range(5):
        assert await client.read(FID) == PHOTO
    seconds = asyncio.get_running_loop().time() - began
    forever.set()
    assert len(cache.requests) == 1
    assert seconds < 4


async def test_the_store_goes_on_where_a_cache_broke_off(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore
) -> None:
    cache.script.append(break_after(1234, PHOTO))
    assert await client.read(FID) == PHOTO
    assert cluster.stores[0].requests


async def test_a_photo_that_is_nowhere_is_not_found(
    cluster: FakeCluster, client: HaystackClient, cache: FakeStore
) -> None:
    with pytest.raises(NeedleNotFound):
        await client.read(Fid(1, 99, 1))
    assert cache.requests and cluster.stores[0].requests


async def test_every_client_finds_the_same_cache(cluster: FakeCluster) -> None:
    caches = [await cluster.add_cache() for _ in range(3)]
    photos = [Fid(1, key, 7) for key in range(1, 30)]
    for cache in caches:
        cache.needles.update({str(fid): (PHOTO, "image/jpeg", "") for fid in photos})
    for _ in range(2):
        async with HaystackClient(cluster.url) as client:
            for fid in photos:
                await client.read(fid)
    for cache in caches:
        assert cache.requests == cache.requests[: len(cache.requests) // 2] * 2
    assert sum(len(cache.requests) for cache in caches) == 2 * len(photos)


def test_the_sync_client_reads_through_caches_too() -> None:
    async def serve(stop: asyncio.Event, found: asyncio.Future[FakeCluster]) -> None:
        cluster = FakeCluster()
        await cluster.start()
        cache = await cluster.add_cache()
        cache.needles[str(FID)] = (PHOTO, "image/jpeg", "")
        found.set_result(cluster)
        await stop.wait()
        await cluster.stop()

    async def both() -> None:
        stop, found = asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(stop, found))
        cluster = await found

        def read() -> bytes:
            with SyncHaystackClient(cluster.url) as client, client.stream(FID, via_cache=True) as photo:
                return b"".join(photo)

        assert await asyncio.to_thread(read) == PHOTO
        stop.set()
        await serving

    asyncio.run(both())


# -- the list


class Source:
    """Answers with lists, one after the other; a missing one is a failure."""

    def __init__(self, *lists: CacheList | None) -> None:
        self.lists = list(lists)
        self.asked = 0

    async def fetch(self) -> CacheList:
        self.asked += 1
        found = self.lists.pop(0)
        if found is None:
            raise NeedleNotFound("an old Directory")
        return found


def nodes(*names: str) -> CacheList:
    return CacheList(tuple(CacheNode(name, 1.0, name, name) for name in names))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_old_list_is_used_while_a_new_one_is_asked_for() -> None:
    now = 0.0
    source = Source(nodes("a"), nodes("b"), None)
    known = CacheNodes(source.fetch, now=lambda: now)
    assert await known.known() == nodes("a")
    now = 4.9
    assert await known.known() == nodes("a") and source.asked == 1
    now = 5.1
    assert await known.known() == nodes("a")
    await settle()
    assert await known.known() == nodes("b") and source.asked == 2
    now = 10.2
    await known.known()
    await settle()
    assert await known.known() == nodes("b"), "a failure forgets nothing"
    await known.close()


async def test_without_an_answer_there_are_no_caches() -> None:
    now = 0.0
    source = Source(None, nodes("a"))
    known = CacheNodes(source.fetch, now=lambda: now)
    assert await known.known() == CacheList()
    assert await known.known() == CacheList() and source.asked == 1
    now = 6.0
    await known.known()
    await settle()
    assert await known.known() == nodes("a")


async def test_a_question_that_hangs_ends_with_the_client() -> None:
    async def hang() -> CacheList:
        await asyncio.Event().wait()
        return CacheList()

    known = CacheNodes(hang, now=lambda: 0.0)
    assert await known.known() == CacheList()
    await known.close()


@given(st.integers(0, 2**64 - 1), st.integers(1, 6))
def test_the_choice_is_the_directorys(photo: int, count: int) -> None:
    listed = nodes(*(f"cache-{number}" for number in range(count)))
    expected = order(photo, [Node(node.id, node.weight) for node in listed.nodes])
    assert [node.id for node in listed.of_photo(photo, lambda: 0.0)] == [node.id for node in expected][:2]


def test_a_shared_photo_begins_at_one_of_those_who_share_it() -> None:
    listed = CacheList(nodes("a", "b", "c").nodes, {7: 2, 8: 99})
    first = {listed.of_photo(7, lambda dice=dice: dice / 10)[0].id for dice in range(10)}  # type: ignore[misc]
    assert first == {node.id for node in order(7, [Node(one, 1.0) for one in "abc"], 2)}
    assert {listed.of_photo(8, lambda dice=dice: dice / 30)[0].id for dice in range(30)} == {"a", "b", "c"}  # type: ignore[misc]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"caches": 3},
        {"caches": [3, {}, {"id": "a"}, {"id": "a", "url": "h:1", "weight": 0}]},
        {"caches": [{"id": "a", "url": "h:1", "weight": float("nan")}], "shared": []},
    ],
)
def test_a_strange_list_is_none(document: object) -> None:
    assert parse_caches(document).nodes == ()


def test_a_list_is_read() -> None:
    document = {"caches": [{"id": "a", "url": "h:1", "weight": 2, "more": 1}], "shared": {"ff": 2, "x": 3, "1": "y"}}
    found = parse_caches(document)
    assert found.nodes == (CacheNode("a", 2.0, "h:1", "h:1"),)
    assert found.shared is not None and found.shared[255] == 2
