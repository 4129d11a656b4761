"""The client against a fake cluster that fails on purpose."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from client_fakes import (
    FakeCluster,
    break_after,
    hang_up,
    refuse,
    refuse_at_once,
    store_and_hang_up,
)

from haystack.client import (
    FileSource,
    HaystackClient,
    Refused,
    RetryPolicy,
    SourceChanged,
    UnexpectedAnswer,
    Unreachable,
    WrongContent,
)
from haystack.errors import (
    ConfigError,
    DiskError,
    InvalidRequest,
    NeedleNotFound,
    OutOfSpace,
    TooLarge,
    VolumeNotFound,
    VolumeUnavailable,
)
from haystack.fid import Fid

PHOTO = bytes(range(256)) * 5000
FID = Fid(1, 7, 0xC0FFEE)


def keep(cluster: FakeCluster, *stores: int, data: bytes = PHOTO, fid: Fid = FID) -> None:
    cluster.places[fid.volume] = list(stores)
    for number in stores:
        cluster.stores[number].needles[str(fid)] = (data, "image/jpeg", 'inline; filename="cat.jpg"')


# -- the ordinary course


@pytest.mark.parametrize("size_bytes", [0, 1, 262_144, 262_145, 3_000_000])
@pytest.mark.parametrize("kind", ["bytes", "file", "iterator"])
async def test_upload_and_read(client: HaystackClient, tmp_path: Path, size_bytes: int, kind: str) -> None:
    data = (PHOTO * 3)[:size_bytes]
    path = tmp_path / "x"
    path.write_bytes(data)

    async def pieces() -> AsyncIterator[bytes]:
        for offset in range(0, len(data), 100_000):
            yield data[offset : offset + 100_000]

    upload = {"bytes": data, "file": path, "iterator": pieces()}[kind]
    stored = await client.upload(upload, name="kätzchen.jpg", mime="image/jpeg")
    assert stored.size_bytes == size_bytes
    assert await client.read(stored.fid) == data
    assert await client.read(stored.url) == data
    info = await client.stat(stored.fid)
    assert (info.name, info.mime, info.size_bytes) == ("kätzchen.jpg", "image/jpeg", size_bytes)
    assert info.modified is not None and info.modified.isoformat() == "2026-11-21T14:00:00+00:00"
    assert await client.delete(stored.fid) == size_bytes
    with pytest.raises(NeedleNotFound):
        await client.read(stored.fid)


async def test_photo_ids_and_renditions(client: HaystackClient, cluster: FakeCluster) -> None:
    stored = await client.upload(b"small", fid=Fid(1, 7, 0xC0FFEE), name="a")
    assert await client.read("7") == b"small"
    assert await client.read(7) == b"small"
    rendition = await client.upload(b"tiny", alternate=3)
    assert Fid.parse(rendition.fid).alternate == 3
    assert Fid.parse(stored.fid) == FID
    with pytest.raises(NeedleNotFound):
        await client.read("8")


async def test_places_are_remembered(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    for _ in range(3):
        await client.read(FID)
    assert len(cluster.requests) == 1
    assert (await client.lookup(1))[0].url == cluster.stores[0].address
    assert len(cluster.requests) == 1


async def test_reads_are_spread_over_replicas(cluster: FakeCluster) -> None:
    keep(cluster, 0, 1)
    dice = iter([0.0, 0.6, 0.99, 0.3])
    async with HaystackClient(cluster.url, uniform=lambda: next(dice)) as client:
        for _ in range(4):
            await client.read(FID)
    assert [len(store.requests) for store in cluster.stores] == [2, 2]


async def test_concurrency_is_limited(cluster: FakeCluster) -> None:
    keep(cluster, 0)
    running = most = 0
    full = asyncio.Event()

    async def count(request: web.Request) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1

    cluster.stores[0].script.extend([count] * 9)
    async with HaystackClient(cluster.url, max_concurrency=3) as client:
        await asyncio.gather(*(client.read(FID) for _ in range(9)))
    assert most == 3


async def test_a_session_from_outside_stays_open(cluster: FakeCluster) -> None:
    import aiohttp

    keep(cluster, 0)
    async with aiohttp.ClientSession() as session:
        async with HaystackClient(cluster.url, session=session) as client:
            assert await client.read(FID) == PHOTO
        assert not session.closed


# -- uploads that fail


@pytest.mark.parametrize("status", [404, 409, 500, 503, 507])
async def test_a_refused_upload_gets_another_name(client: HaystackClient, cluster: FakeCluster, status: int) -> None:
    cluster.assign_to.extend([1, 2])
    cluster.stores[0].script.append(refuse(status))
    stored = await client.upload(PHOTO)
    assert Fid.parse(stored.fid).volume == 2
    assert [one.split()[0] for one in cluster.stores[0].requests + cluster.stores[1].requests] == ["POST", "POST"]


async def test_a_dead_store_is_left_for_another(client: HaystackClient, cluster: FakeCluster) -> None:
    cluster.assign_to.extend([1, 2])
    dead = cluster.stores[0].server
    assert dead is not None
    await dead.close()
    assert Fid.parse((await client.upload(PHOTO)).fid).volume == 2


async def test_a_lost_answer_means_a_new_name(client: HaystackClient, cluster: FakeCluster) -> None:
    cluster.assign_to.extend([1, 2])
    store = cluster.stores[0]
    store.script.append(store_and_hang_up(store))
    stored = await client.upload(PHOTO)
    assert Fid.parse(stored.fid).volume == 2
    assert len(store.needles) == 1  # nobody was told its name


async def test_a_store_that_keeps_hanging_up_is_left(client: HaystackClient, cluster: FakeCluster) -> None:
    cluster.assign_to.extend([1, 2])
    cluster.stores[0].script.extend([hang_up, hang_up])
    assert Fid.parse((await client.upload(PHOTO)).fid).volume == 2


async def test_retries_end(client: HaystackClient, cluster: FakeCluster, slept: list[float]) -> None:
    cluster.stores[0].script.extend([refuse(507, "disk full")] * 4)
    with pytest.raises(OutOfSpace, match="disk full"):
        await client.upload(PHOTO)
    assert slept == pytest.approx([0.1, 0.2, 0.4])


async def test_the_server_may_ask_for_patience(
    client: HaystackClient, cluster: FakeCluster, slept: list[float]
) -> None:
    cluster.directory_script.append(refuse(503, "nothing is writable", {"Retry-After": "4"}))
    await client.upload(PHOTO)
    assert slept == [4.0]


@pytest.mark.parametrize("make", [refuse, refuse_at_once])
async def test_a_photo_that_is_too_large_is_not_sent_again(
    client: HaystackClient, cluster: FakeCluster, make: object, slept: list[float]
) -> None:
    cluster.stores[0].script.append(make(413, "at most 64 MiB"))  # type: ignore[operator]  # both make scripts
    with pytest.raises(TooLarge, match="at most 64 MiB"):
        await client.upload(PHOTO)
    assert slept == []


async def test_a_name_of_the_callers_is_not_changed(client: HaystackClient, cluster: FakeCluster) -> None:
    cluster.stores[0].script.append(refuse(409, "holds another photo"))
    with pytest.raises(Refused, match="holds another photo"):
        await client.upload(PHOTO, fid=FID)
    assert cluster.stores[1].requests == []


async def test_an_iterator_is_not_read_twice(client: HaystackClient, cluster: FakeCluster) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    cluster.directory_script.append(refuse(503))
    cluster.stores[0].script.append(refuse(503, "recovering"))
    with pytest.raises(VolumeUnavailable, match="recovering"):
        await client.upload(pieces())
    assert len(cluster.stores[0].requests) == 1


async def test_a_wrong_size_is_an_error(client: HaystackClient, cluster: FakeCluster) -> None:
    async def lie(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"size": 5, "eTag": "x"}, status=201)

    cluster.stores[0].script.append(lie)
    with pytest.raises(WrongContent, match="counted 5 bytes"):
        await client.upload(PHOTO)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"size": "many", "eTag": "x"}', b'{"size": 4}'])
async def test_answers_that_are_none(client: HaystackClient, cluster: FakeCluster, body: bytes) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=201)

    cluster.stores[0].script.append(answer)
    with pytest.raises(UnexpectedAnswer):
        await client.upload(b"1234")


async def test_slow_bodies_are_no_silence(cluster: FakeCluster) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            await asyncio.sleep(0.05)
            yield b"slow"

    async with HaystackClient(cluster.url, timeout_seconds=0.25) as client:
        assert (await client.upload(pieces())).size_bytes == 32


async def test_a_store_has_time_to_sync_a_large_photo(cluster: FakeCluster) -> None:
    async def slow(request: web.Request) -> None:
        await request.read()
        await asyncio.sleep(0.4)

    cluster.stores[0].script.append(slow)
    async with HaystackClient(cluster.url, timeout_seconds=0.2, retries=0) as client:
        assert (await client.upload(bytes(4 * 2**20))).size_bytes == 4 * 2**20


async def test_a_silent_store_is_given_up(cluster: FakeCluster) -> None:
    never = asyncio.Event()

    async def silent(request: web.Request) -> None:
        await never.wait()

    cluster.stores[0].script.append(silent)
    async with HaystackClient(cluster.url, timeout_seconds=0.1, retries=0) as client:
        with pytest.raises(Unreachable, match="no answer or no progress"):
            await client.upload(b"x")
    never.set()


# -- files


async def test_a_file_that_changes_is_not_stored(client: HaystackClient, cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(PHOTO * 2)
    async with FileSource(path) as source:
        path.write_bytes(PHOTO)
        with pytest.raises(SourceChanged, match="became shorter"):
            await client.upload(source)
    path.write_bytes(PHOTO * 2)
    async with FileSource(path) as source:
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChanged, match="was changed"):
            await client.upload(source)
    assert cluster.stores[0].needles == {}


async def test_only_files_are_uploaded(client: HaystackClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        await client.upload(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        await client.upload(tmp_path / "nothing")
    with pytest.raises(InvalidRequest, match="cannot upload a str"):
        await client.upload("text")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("mime", ["text", "a/b\r\nX: y", "ä/b", "multipart/form-data; boundary=x", " /x"])
async def test_wrong_types_are_refused(client: HaystackClient, cluster: FakeCluster, mime: str) -> None:
    with pytest.raises(InvalidRequest, match="no MIME type"):
        await client.upload(b"x", mime=mime)
    assert cluster.requests == []


# -- reads that fail


@pytest.mark.parametrize("status", [404, 500, 503])
@pytest.mark.parametrize("what", ["read", "stat"])
async def test_another_replica_answers(
    client: HaystackClient, cluster: FakeCluster, status: int, what: str, slept: list[float]
) -> None:
    keep(cluster, 0, 1)
    cluster.stores[0].script.append(refuse(status))
    await getattr(client, what)(FID)
    assert len(cluster.stores[1].requests) == 1
    assert slept == []


async def test_a_volume_that_moved_is_found(client: HaystackClient, cluster: FakeCluster, slept: list[float]) -> None:
    keep(cluster, 0)
    await client.read(FID)
    cluster.stores[0].needles.clear()
    keep(cluster, 1)
    assert await client.read(FID) == PHOTO
    assert slept == []


async def test_not_found_waits_for_the_replica_that_is_away(
    client: HaystackClient, cluster: FakeCluster, slept: list[float]
) -> None:
    keep(cluster, 0, 1)
    cluster.stores[0].needles.clear()
    cluster.stores[1].script.append(refuse(503, "recovering"))
    assert await client.read(FID) == PHOTO
    assert slept == [0.1]


async def test_not_found_is_not_retried(client: HaystackClient, cluster: FakeCluster, slept: list[float]) -> None:
    cluster.places[1] = [0, 1]
    with pytest.raises(NeedleNotFound):
        await client.read(FID)
    with pytest.raises(VolumeNotFound, match="no volume 9"):
        await client.read(Fid(9, 1, 1))
    assert slept == []


async def test_a_failing_disk_is_reported(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    cluster.stores[0].script.extend([refuse(500, "read of 1.vol failed")] * 2)
    with pytest.raises(DiskError, match="read of 1.vol failed"):
        await client.read(FID)


async def test_a_broken_read_goes_on_elsewhere(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0, 1)
    cluster.stores[0].script.extend([break_after(500_000, PHOTO), break_after(100_000, PHOTO), refuse(503)])
    assert await client.read(FID) == PHOTO
    assert len(cluster.stores[1].requests) == 1


async def test_a_read_that_always_breaks_ends(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    cluster.stores[0].script.extend([break_after(0, PHOTO)] * 20)
    with pytest.raises(Unreachable, match="the connection broke"):
        await client.read(FID)


async def test_two_photos_are_never_glued_together(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    cluster.stores[0].script.append(break_after(500_000, PHOTO, etag="another"))
    with pytest.raises(WrongContent, match="replaced by another photo"):
        await client.read(FID)


async def test_errors_of_the_reader_are_its_own(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    with pytest.raises(OSError, match="disk full"):
        async with client.stream(FID) as photo:
            async for _ in photo:
                raise OSError("disk full")


async def test_reads_are_bounded(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    with pytest.raises(TooLarge):
        await client.read(FID, max_bytes=len(PHOTO) - 1)


# -- deletes


async def test_a_delete_whose_answer_was_lost(client: HaystackClient, cluster: FakeCluster) -> None:
    keep(cluster, 0)
    cluster.stores[0].script.append(store_and_hang_up(cluster.stores[0]))
    assert await client.delete(FID) == 0
    with pytest.raises(NeedleNotFound):
        await client.delete(FID)


# -- Directories


async def test_another_directory_answers(cluster: FakeCluster, unused_tcp_port: int) -> None:
    keep(cluster, 0)
    async with HaystackClient([f"127.0.0.1:{unused_tcp_port}", cluster.url], retries=0) as client:
        assert await client.read(FID) == PHOTO
        assert (await client.upload(b"x")).size_bytes == 1


async def test_no_directory(unused_tcp_port: int) -> None:
    with pytest.raises(ConfigError):
        HaystackClient([])
    async with HaystackClient(f"http://127.0.0.1:{unused_tcp_port}", retries=0) as client:
        with pytest.raises(Unreachable, match="cannot connect.*is the server running"):
            await client.assign()
        with pytest.raises(Unreachable):
            await client.cluster_status()


async def test_the_reason_wins_over_silence(cluster: FakeCluster, unused_tcp_port: int) -> None:
    cluster.directory_script.append(refuse(503, "no Store has room"))
    urls = [f"http://127.0.0.1:{unused_tcp_port}", cluster.url]
    async with HaystackClient(urls, retries=RetryPolicy(retries=0)) as client:
        with pytest.raises(VolumeUnavailable, match="no Store has room"):
            await client.assign()
