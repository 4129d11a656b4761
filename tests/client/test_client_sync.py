"""The client without asyncio, against a fake cluster that runs in another thread."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web
from client_fakes import FakeCluster, refuse

from haystack.client import SyncHaystackClient, Unreachable
from haystack.errors import InvalidRequest, NeedleNotFound
from haystack.fid import Fid

PHOTO = bytes(range(256)) * 5000


@pytest.fixture(scope="module")
def running() -> Iterator[FakeCluster]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fake = FakeCluster()
    asyncio.run_coroutine_threadsafe(fake.start(), loop).result(30)
    yield fake
    asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture
def client(running: FakeCluster) -> Iterator[SyncHaystackClient]:
    with SyncHaystackClient(running.url, timeout_seconds=5, retries=3) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["bytes", "view", "path", "file", "text-less iterator", "list"])
def test_upload_and_read(client: SyncHaystackClient, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(PHOTO)
    data = {
        "bytes": PHOTO,
        "view": memoryview(PHOTO),
        "path": path,
        "file": io.BytesIO(PHOTO),
        "text-less iterator": iter([PHOTO[:1000], PHOTO[1000:]]),
        "list": [PHOTO[:1000], PHOTO[1000:]],
    }[kind]
    stored = client.upload(data, name="cat.jpg", mime="image/jpeg")  # type: ignore[arg-type]  # one of many kinds
    assert client.read(stored.fid) == PHOTO
    assert client.stat(stored.fid).name == "cat.jpg"
    with client.stream(stored.fid) as photo:
        assert photo.info.size_bytes == len(PHOTO)
        assert b"".join(photo) == PHOTO
    assert client.delete(stored.fid) == len(PHOTO)
    with pytest.raises(NeedleNotFound):
        client.read(stored.fid)


def test_the_directory(client: SyncHaystackClient, running: FakeCluster) -> None:
    assert client.assign().fid.volume == 1
    assert client.lookup(1)[0].url == running.stores[0].address
    client.upload(b"small", fid=Fid(1, 7, 0xC0FFEE))
    assert client.photo(7).fid == Fid(1, 7, 0xC0FFEE)
    with pytest.raises(NeedleNotFound):
        client.cluster_status()  # the fake one has none


def test_a_stream_that_is_left_early(client: SyncHaystackClient) -> None:
    stored = client.upload(PHOTO)
    for _ in range(3):
        with client.stream(stored.fid) as photo:
            assert len(next(iter(photo))) > 0
    assert client.read(stored.fid) == PHOTO


def test_many_threads_share_one(client: SyncHaystackClient) -> None:
    def work(number: int) -> bool:
        data = b"%d" % number * 1000
        return client.read(client.upload(data).fid) == data

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(100)))


def test_failures_are_those_of_the_other_client(client: SyncHaystackClient, running: FakeCluster) -> None:
    running.stores[0].script.append(refuse(503))
    assert client.upload(b"x").size_bytes == 1
    with pytest.raises(InvalidRequest, match="cannot upload a str"):
        client.upload("text")
    with pytest.raises(FileNotFoundError):
        client.upload(Path("/nothing/there"))

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        client.upload(broken())


def test_closing_breaks_off_what_is_under_way(running: FakeCluster, unused_tcp_port: int) -> None:
    client = SyncHaystackClient(running.url)
    begun, over = threading.Event(), asyncio.Event()

    async def silent(request: web.Request) -> None:
        begun.set()
        await asyncio.wait_for(over.wait(), 1)

    running.directory_script.append(silent)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(client.lookup, 1)
        assert begun.wait(10)
        client.close()
        assert reading.exception(10) is not None
    client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        client.lookup(1)
    with SyncHaystackClient(f"127.0.0.1:{unused_tcp_port}", retries=0) as nowhere, pytest.raises(Unreachable):
        nowhere.lookup(1)
