"""The client among several Stores, of which some freeze, die, refuse or lie."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web
from client_fakes import FakeCluster, FakeStore, break_after, refuse, store_and_hang_up

from haystack.client import HaystackClient, RetryPolicy, Unreachable, WrongContent, reading, uploading
from haystack.client.health import StoreHealth
from haystack.client.reading import worst
from haystack.client.retry import Transient
from haystack.errors import NeedleNotFound, VolumeNotFound, VolumeUnavailable
from haystack.fid import Fid

PHOTO = bytes(range(256)) * 100
FID = Fid(1, 7, 0xC0FFEE)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a second in earnest is a tenth of it here."""
    monkeypatch.setattr(reading, "FIRST_BYTE_SECONDS", 0.1)
    monkeypatch.setattr(uploading, "SILENCE_SECONDS", 0.1)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    fake = FakeCluster(stores=[FakeStore(), FakeStore(), FakeStore()])
    await fake.start()
    for store in fake.stores:
        store.needles[str(FID)] = (PHOTO, "image/jpeg", "")
    fake.places = {1: [0, 1, 2], 2: [1, 2]}
    yield fake
    await fake.stop()


@pytest.fixture
def frozen() -> Iterator[str]:
    """Address of a Store that was stopped: the kernel takes connections, and nobody reads."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def make_client(cluster: FakeCluster, **options: object) -> HaystackClient:
    """A client that begins with the first location always, and hardly waits between attempts."""
    policy = RetryPolicy(retries=4, first_delay_seconds=0.01, uniform=lambda: 0.0)
    return HaystackClient(cluster.url, retries=policy, uniform=lambda: 0.0, **options)  # type: ignore[arg-type]


async def test_a_frozen_store_is_passed_over_and_then_tried_last(cluster: FakeCluster, frozen: str) -> None:
    cluster.stores[0].address = frozen
    async with make_client(cluster) as client:
        began = time.monotonic()
        assert await client.read(FID) == PHOTO
        first_seconds = time.monotonic() - began
        began = time.monotonic()
        for _ in range(20):
            assert await client.read(FID) == PHOTO
            assert (await client.stat(FID)).size_bytes == len(PHOTO)
        later_seconds = time.monotonic() - began
    assert 0.1 <= first_seconds < 2
    assert later_seconds < first_seconds + 2
    assert len(cluster.stores[1].requests) == 41


async def test_a_store_that_freezes_within_a_photo(cluster: FakeCluster) -> None:
    never = asyncio.Event()
    large = PHOTO * 200
    for store in cluster.stores:
        store.needles[str(FID)] = (large, "image/jpeg", "")

    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"ETag": f'"{len(large):x}"'})
        answer.content_length = len(large)
        await answer.prepare(request)
        await answer.write(large[: len(large) // 2])
        await never.wait()
        return answer

    cluster.stores[0].script.append(half)
    async with make_client(cluster) as client:
        assert await client.read(FID) == large
    assert cluster.stores[1].requests == [f"GET {FID}"]
    never.set()


async def test_a_dead_store_is_tried_last(cluster: FakeCluster, unused_tcp_port: int) -> None:
    cluster.stores[0].address = f"127.0.0.1:{unused_tcp_port}"
    async with make_client(cluster) as client:
        for _ in range(3):
            assert await client.read(FID) == PHOTO
    assert len(cluster.stores[1].requests) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_copy_in_trouble_is_tried_last_but_its_store_is_not(cluster: FakeCluster, status: int) -> None:
    other = Fid(5, 7, 0xC0FFEE)
    cluster.places[5] = [0, 1]
    cluster.stores[0].needles[str(other)] = (PHOTO, "image/jpeg", "")
    cluster.stores[0].script.append(refuse(status))
    async with make_client(cluster) as client:
        for _ in range(3):
            assert await client.read(FID) == PHOTO
        assert await client.read(other) == PHOTO
    assert cluster.stores[0].requests == [f"GET {FID}", f"GET {other}"]


async def test_all_are_in_trouble_for_a_while(cluster: FakeCluster) -> None:
    for store in cluster.stores:
        store.script.extend([refuse(503), refuse(503)])
    async with make_client(cluster) as client:
        assert await client.read(FID) == PHOTO


async def test_patience_grows_when_all_are_slow(cluster: FakeCluster) -> None:
    async def slow(request: web.Request) -> None:
        await asyncio.sleep(0.25)

    for store in cluster.stores:
        store.script.extend([slow] * 3)
    async with make_client(cluster) as client:
        assert await client.read(FID) == PHOTO


async def test_a_location_that_lies_about_the_photo(cluster: FakeCluster) -> None:
    cluster.stores[0].needles[str(FID)] = (b"an older photo", "image/jpeg", "")
    async with make_client(cluster) as client:
        assert await client.read(FID, etag=f"{len(PHOTO):x}") == PHOTO
        assert await client.read(FID, etag=f"{len(PHOTO):x}") == PHOTO
        with pytest.raises(WrongContent, match="where ffff is expected"):
            await client.read(FID, etag="ffff")


async def test_a_photo_cut_short_goes_on_elsewhere(cluster: FakeCluster) -> None:
    cluster.stores[0].script.append(break_after(1000, PHOTO))
    async with make_client(cluster) as client:
        assert await client.read(FID) == PHOTO
    assert len(cluster.stores[1].requests) == 1


# -- without a Directory


async def test_reads_go_on_without_a_directory(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        assert await client.read(FID) == PHOTO
        assert cluster.server is not None
        await cluster.server.close()
        now_seconds = 1000.0
        cluster.stores[0].script.extend([refuse(503)] * 3)
        for _ in range(3):
            assert await client.read(FID) == PHOTO
        assert (await client.lookup(1))[0].url == cluster.stores[0].address
        with pytest.raises(Unreachable):
            await client.lookup(2)


async def test_a_silent_directory_is_not_waited_for(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haystack.client.client.REFRESH_PATIENCE_SECONDS", 0.1)
    never = asyncio.Event()

    async def silent(request: web.Request) -> None:
        await never.wait()

    now_seconds = 0.0
    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        await client.read(FID)
        cluster.directory_script.extend([silent] * 2)
        now_seconds = 20.0
        began = time.monotonic()
        for _ in range(10):
            assert await client.read(FID) == PHOTO
        assert time.monotonic() - began < 5
    assert len(cluster.requests) == 2
    never.set()


async def test_a_volume_that_is_gone_is_gone(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        await client.read(FID)
        del cluster.places[1]
        now_seconds = 20.0
        with pytest.raises(VolumeNotFound):
            await client.read(FID)


# -- uploads


async def test_a_frozen_store_costs_an_upload_little(cluster: FakeCluster, frozen: str) -> None:
    cluster.stores[0].address = frozen
    cluster.assign_to.extend([1, 1, 2])
    async with make_client(cluster) as client:
        began = time.monotonic()
        stored = await client.upload(PHOTO)
        assert time.monotonic() - began < 2
        assert Fid.parse(stored.fid).volume == 2
        # The Directory still believes in that Store; the client does not.
        cluster.assign_to.extend([1, 1, 2])
        began = time.monotonic()
        assert Fid.parse((await client.upload(PHOTO)).fid).volume == 2
        assert time.monotonic() - began < 0.1


async def test_another_volume_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.stores[0].script.append(refuse(503, "degraded", {"Retry-After": "30"}))
    cluster.assign_to.extend([1, 2])
    async with make_client(cluster) as client:
        began = time.monotonic()
        await client.upload(PHOTO)
        assert time.monotonic() - began < 5


async def test_refusals_do_not_make_the_client_patient(cluster: FakeCluster, frozen: str) -> None:
    cluster.places[3] = [2]
    cluster.stores[2].address = frozen
    cluster.stores[0].script.extend([refuse(503)] * 3)
    cluster.assign_to.extend([1, 1, 1, 3, 2])
    async with make_client(cluster) as client:
        began = time.monotonic()
        assert Fid.parse((await client.upload(PHOTO)).fid).volume == 2
        assert time.monotonic() - began < 0.6


async def test_an_upload_has_a_deadline(cluster: FakeCluster) -> None:
    cluster.stores[0].script.extend([refuse(503, "degraded")] * 100)
    now_seconds = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now_seconds
        now_seconds += seconds

    policy = RetryPolicy(retries=1000, uniform=lambda: 0.0, sleep=sleep, now=lambda: now_seconds)
    async with HaystackClient(cluster.url, retries=policy, upload_deadline_seconds=10) as client:
        with pytest.raises(VolumeUnavailable, match="degraded"):
            await client.upload(PHOTO)
    assert 7 < now_seconds <= 10
    assert 5 < len(cluster.stores[0].requests) < 12


async def test_each_attempt_has_a_new_name(cluster: FakeCluster) -> None:
    store = cluster.stores[0]
    store.script.extend([refuse(503), refuse(507), refuse(409), store_and_hang_up(store)])
    async with make_client(cluster) as client:
        await client.upload(PHOTO)
    posts = [one for one in store.requests if one.startswith("POST")]
    assert len(posts) == len(set(posts)) == 5


async def test_many_uploads_share_a_call(cluster: FakeCluster) -> None:
    async with make_client(cluster, now=lambda: 0.0) as client:  # no name expires, however slow the machine is
        stored = await asyncio.gather(*(client.upload(PHOTO) for _ in range(50)))
        for number in range(100):
            stored.append(await client.upload(b"%d" % number))
    assert len({one.fid for one in stored}) == 150
    assert len({Fid.parse(one.fid).key for one in stored}) == 150
    assigns = [one for one in cluster.requests if "assign" in one]
    assert len(assigns) < 12
    assert "POST /dir/assign?photos=50" in assigns


async def test_one_upload_asks_for_one_name(cluster: FakeCluster) -> None:
    async with make_client(cluster) as client:
        await client.upload(PHOTO)
        await client.upload(PHOTO, replication="001")
    assert cluster.requests == ["POST /dir/assign", "POST /dir/assign?replication=001"]


async def test_leftovers_expire(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    async with make_client(cluster, now=lambda: now_seconds) as client:
        for _ in range(4):
            await client.upload(PHOTO)
        assert cluster.requests[1:] == ["POST /dir/assign?photos=2", "POST /dir/assign?photos=4"]
        now_seconds = 6.0
        await client.upload(PHOTO)
        assert cluster.requests[3:] == ["POST /dir/assign"]


async def test_a_refusal_takes_the_leftovers_away(cluster: FakeCluster) -> None:
    async with make_client(cluster) as client:
        await asyncio.gather(*(client.upload(PHOTO) for _ in range(10)))
        for _ in range(6):
            await client.upload(PHOTO)
        asked = len(cluster.requests)
        cluster.stores[0].script.append(refuse(409, "read-only"))
        cluster.assign_to.extend([2])
        assert Fid.parse((await client.upload(PHOTO)).fid).volume == 2
    assert len(cluster.requests) == asked + 1


async def test_a_failed_assign_fails_all_who_wait(cluster: FakeCluster) -> None:
    cluster.directory_script.append(refuse(400, "replication 999"))
    async with make_client(cluster) as client:
        results = await asyncio.gather(
            *(client.upload(PHOTO, replication="999") for _ in range(5)), return_exceptions=True
        )
        assert [str(one) for one in results].count(str(results[0])) == 5
        waiting = asyncio.create_task(client.upload(PHOTO))
        await asyncio.sleep(0)
        waiting.cancel()
        assert (await client.upload(PHOTO)).size_bytes == len(PHOTO)


async def test_a_new_primary_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.places[1] = [0]

    async def moved(request: web.Request) -> web.StreamResponse:
        cluster.places[1] = [1]
        return await refuse(503, "no longer primary", {"Retry-After": "30"})(request)

    async with make_client(cluster) as client:
        cluster.stores[0].script.append(moved)
        began = time.monotonic()
        await client.upload(PHOTO, fid=FID)
        cluster.places[1] = [0]
        client.doubt(FID.volume)
        cluster.stores[0].script.append(moved)
        await client.delete(FID)
        assert time.monotonic() - began < 5


def test_of_locations_in_trouble_the_one_that_may_be_asked_soonest_counts() -> None:
    busy, gone = Transient(Unreachable("busy"), 30.0), Transient(Unreachable("gone"))
    assert worst([busy, NeedleNotFound("none"), gone]) is gone


# -- deletes


async def test_a_delete_goes_to_the_next_member(cluster: FakeCluster) -> None:
    cluster.stores[0].script.append(refuse(503, "stale"))
    async with make_client(cluster) as client:
        assert await client.delete(FID) == len(PHOTO)
    assert str(FID) not in cluster.stores[1].needles


async def test_a_delete_waits_for_a_new_primary(cluster: FakeCluster) -> None:
    cluster.places[1] = [0]
    cluster.stores[0].script.extend([refuse(503, "no longer primary")] * 2)
    async with make_client(cluster) as client:
        assert await client.delete(FID) == len(PHOTO)


def test_health() -> None:
    now_seconds = 0.0
    health = StoreHealth(first_penalty_seconds=5, most_penalty_seconds=12, max_remembered=2, now=lambda: now_seconds)

    def order() -> str:
        return "".join(health.in_order("abc", lambda one: (one,)))

    assert order() == "abc"
    health.failed("a")
    assert order() == "bca"
    health.failed("b")
    assert order() == "cab"
    health.failed("a")  # of the same moment
    now_seconds = 4.9
    assert health.suspect("a")
    now_seconds = 5.0
    assert order() == "abc"
    health.failed("a")
    now_seconds = 14.9
    assert order() == "bca"
    health.worked("a")
    assert order() == "abc"
    for name in "abc":
        health.failed(name)
    assert not health.suspect("a")  # only two are remembered


async def test_urls_name_the_place_of_a_minute_ago_while_it_is_asked_for_anew(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    cluster.places[1] = [0]
    goes_on, answered = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await goes_on.wait()
        answered.set()
        return web.json_response({"volumeId": "1", "locations": [cluster._location(1)]})

    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        old, new = (f"http://{store.address}/{FID}" for store in cluster.stores[:2])
        assert await client.read_urls(FID, at_once=True) == [old]
        now_seconds = 19.0
        cluster.directory_script.append(slow)
        assert [await client.read_urls(FID, at_once=True) for _ in range(3)] == [[old]] * 3
        goes_on.set()
        await answered.wait()
        await asyncio.gather(*client._asking.values())
        assert await client.read_urls(FID, at_once=True) == [new]
        assert len(cluster.requests) == 2
        now_seconds = 44.1  # 15 s after the lifetime of what came then
        cluster.places[1] = [2]
        assert await client.read_urls(FID, at_once=True) == [f"http://{cluster.stores[2].address}/{FID}"]


async def test_who_reads_by_urls_has_no_old_places(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    cluster.places[1] = [0]
    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        old, new = (f"http://{store.address}/{FID}" for store in cluster.stores[:2])
        assert await client.read_urls(FID) == [old]
        cluster.places[1] = [1]
        assert await client.read_urls(FID) == [old]
        client.doubt(FID.volume)
        assert await client.read_urls(FID) == [new]
        cluster.places[1] = [0]
        now_seconds = 11.0
        assert await client.read_urls(FID) == [old]


async def test_a_client_is_closed_while_a_place_is_asked_for_beside(cluster: FakeCluster) -> None:
    now_seconds = 0.0
    asked, never = asyncio.Event(), asyncio.Event()

    async def silent(request: web.Request) -> None:
        asked.set()
        await never.wait()

    async with make_client(cluster, location_lifetime_seconds=10, now=lambda: now_seconds) as client:
        await client.read_urls(FID, at_once=True)
        now_seconds = 15.0
        cluster.directory_script.append(silent)
        await client.read_urls(FID, at_once=True)
        await asked.wait()
    never.set()
    assert not any("_ask_beside" in repr(task) for task in asyncio.all_tasks())
