"""Reads go where the weights of the lookup say, of a remembered one as well; uploads and deletes to the primary."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from math import exp
from typing import Any

import pytest
from client_fakes import FakeCluster, FakeStore, hang_up

from haystack.client import HaystackClient, Location, SyncHaystackClient, UnexpectedAnswer
from haystack.client.locations import for_reading, for_writing
from haystack.fid import Fid

FID = Fid(1, 7, 0xC0FFEE)
READS = 300


class WeightedCluster(FakeCluster):
    """Three Stores, all with the photo; lookups name what ``extra`` says of each."""

    def __init__(self) -> None:
        super().__init__(stores=[FakeStore(), FakeStore(), FakeStore()], places={1: [0, 1, 2]})
        self.extra: list[dict[str, Any]] = [{}, {}, {}]
        for store in self.stores:
            store.needles[str(FID)] = (b"photo", "image/jpeg", "")

    def weigh(self, *weights: Any, primary: int = 0) -> None:
        self.extra = [{"weight": weight, "primary": number == primary} for number, weight in enumerate(weights)]

    def _location(self, number: int) -> dict[str, Any]:
        return {**super()._location(number), **self.extra[number]}

    @property
    def reads(self) -> list[int]:
        return [sum(one.startswith("GET") for one in store.requests) for store in self.stores]

    @property
    def lookups(self) -> int:
        return sum("lookup" in one for one in self.requests)


@pytest.fixture
async def weighted() -> AsyncIterator[WeightedCluster]:
    fake = WeightedCluster()
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


def within(count: int, share: float, n: int) -> bool:
    """Whether a count over n draws is as near to its share as it is but for a chance of 1e-9 (Hoeffding)."""
    return 2 * exp(-2 * n * (count / n - share) ** 2) > 1e-9


async def test_reads_follow_the_weights_of_one_lookup(weighted: WeightedCluster) -> None:
    weighted.weigh(10, 60, 30)
    async with HaystackClient(weighted.url, uniform=random.Random(4).random) as client:
        for _ in range(READS):
            assert await client.read(FID) == b"photo"
    assert weighted.lookups == 1
    assert sum(weighted.reads) == READS
    assert all(within(count, share, READS) for count, share in zip(weighted.reads, (0.1, 0.6, 0.3), strict=True))


async def test_a_directory_that_names_no_weights_has_the_reads_spread_evenly(weighted: WeightedCluster) -> None:
    async with HaystackClient(weighted.url, uniform=random.Random(4).random) as client:
        for _ in range(READS):
            await client.read(FID)
    assert all(within(count, 1 / 3, READS) for count in weighted.reads)


async def test_a_copy_without_weight_is_read_when_the_others_fail(weighted: WeightedCluster) -> None:
    weighted.weigh(0, 100, 0)
    async with HaystackClient(weighted.url) as client:
        for _ in range(20):
            await client.read(FID)
        assert weighted.reads == [0, 20, 0]
        weighted.stores[1].script.extend([hang_up] * 2)  # aiohttp itself asks once more
        assert await client.read(FID) == b"photo"
        assert weighted.reads == [1, 22, 0]  # those without weight in the order given
        assert await client.read(FID) == b"photo"
        assert weighted.reads == [2, 22, 0]  # what failed lately comes last


async def test_what_changes_goes_to_the_primary_first(weighted: WeightedCluster) -> None:
    weighted.weigh(100, 50, 0, primary=2)
    async with HaystackClient(weighted.url) as client:
        assert await client.delete(FID) == 5
        await client.upload(b"other", fid=FID)
    changing = [[one.split()[0] for one in store.requests] for store in weighted.stores]
    assert changing == [[], [], ["DELETE", "POST"]]


@pytest.mark.parametrize("weight", ["10", -1, True, None, [1]])
async def test_a_weight_that_is_none_is_told(weighted: WeightedCluster, weight: Any) -> None:
    weighted.weigh(weight, 1, 1)
    async with HaystackClient(weighted.url, retries=0) as client:
        with pytest.raises(UnexpectedAnswer, match="weight"):
            await client.read(FID)


def test_without_asyncio() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        fake = WeightedCluster()
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(30)
        fake.weigh(0, 0, 40, primary=1)
        with SyncHaystackClient(fake.url) as client:
            for _ in range(20):
                assert client.read(str(FID)) == b"photo"
            assert client.delete(str(FID)) == 5
        assert fake.reads == [0, 0, 20]
        assert fake.stores[1].requests == [f"DELETE {FID}"]
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def test_orders() -> None:
    places = [Location("a:1", "a:1", 0), Location("b:1", "b:1", 5), Location("c:1", "c:1", 0, primary=True)]
    assert [one.url for one in for_reading(places, lambda: 0.9)] == ["b:1", "a:1", "c:1"]
    assert [one.url for one in for_writing(places)] == ["c:1", "a:1", "b:1"]
