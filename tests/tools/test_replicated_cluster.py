"""The client and the commands against a real cluster of three Stores in three racks, replication 010."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transfer_cluster import RealCluster, Role

from haystack.client import HaystackClient, SyncHaystackClient
from haystack.errors import NeedleNotFound
from haystack.fid import Fid
from haystack.security import new_secret

WAIT_SECONDS = 60.0


class ReplicatedCluster(RealCluster):
    """One Directory and three Stores. Repair makes new copies after 2 s."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "secret"
        secret.write_text(new_secret())
        secret.chmod(0o600)
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
        self.environ.update(HAYSTACK_SECRET_FILE=str(secret), PYTHONUNBUFFERED="1")
        self.directory_arguments = ("--default-replication", "010", "--repair-delay-seconds", "2s")
        self.directory = Role(
            "directory", "--data", str(folder / "directory"), *self.directory_arguments, environ=self.environ
        )
        self.environ["HAYSTACK_DIRECTORY"] = self.directory.ready.url
        self.kept: dict[str, bytes] = {}
        """Photos that must be there from now on."""
        self.deleted: list[str] = []
        self.stores = [self.add_store(number) for number in (1, 2, 3)]
        self.until(lambda counts: counts["storesAlive"] == 3 and counts["volumesWritable"] >= 3)

    def add_store(self, number: int) -> Role:
        arguments = ("--data", str(self.folder / f"store{number}"), "--rack", f"rack{number}", "--workers", "1")
        return Role("store", *arguments, "--admin-port", "0", environ=self.environ)

    def stop(self) -> None:
        try:
            for store in self.stores:
                store.stop()
        finally:
            self.directory.stop()

    def until(self, done: Callable[[dict[str, int]], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            status = self.status()
            if done(status["Counts"]):
                return
            assert time.monotonic() < deadline, status

    def status(self) -> Any:
        with SyncHaystackClient(self.directory.ready.url) as client:
            return client.cluster_status()

    def until_well(self) -> None:
        self.until(lambda counts: counts["storesAlive"] == len(self.stores))
        self.run("repair", "--wait", "--apply")
        self.until(lambda counts: counts["volumesWritable"] >= 3 and not counts["volumesDegraded"])

    def address(self, number: int) -> str:
        return self.stores[number - 1].ready.url.removeprefix("http://")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedCluster]:
    running = ReplicatedCluster(tmp_path_factory.mktemp("replicated"))
    yield running
    running.stop()


@pytest.fixture
def client(cluster: ReplicatedCluster) -> Iterator[SyncHaystackClient]:
    with SyncHaystackClient(cluster.directory.ready.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(cluster: ReplicatedCluster) -> dict[str, bytes]:
    """Photos that are there from the beginning, and must be there all the time."""
    dice = random.Random(1)
    with SyncHaystackClient(cluster.directory.ready.url) as client:
        contents = [dice.randbytes(dice.choice((10, 5000, 300_000))) for _ in range(30)]
        return {client.upload(content).fid: content for content in contents}


def check_all(client: SyncHaystackClient, photos: dict[str, bytes]) -> float:
    """Read every photo; return how long the slowest took."""
    slowest_seconds = 0.0
    for fid, content in photos.items():
        began = time.monotonic()
        assert client.read(fid) == content
        slowest_seconds = max(slowest_seconds, time.monotonic() - began)
    return slowest_seconds


def test_each_photo_has_two_copies(cluster: ReplicatedCluster, photos: dict[str, bytes]) -> None:
    with SyncHaystackClient(cluster.directory.ready.url) as client:
        assert all(len(client.lookup(int(fid.partition(",")[0]))) == 2 for fid in photos)
        check_all(client, photos)
    cluster.until_well()  # on a busy machine a Store that was slow leaves, and comes back
    status = cluster.json("status")
    assert status["health"] == "well"
    assert {volume["copies"] for volume in status["Volumes"]} == {2}
    assert all(one["ok"] for one in cluster.json("volume", "check", "--full")["checked"])
    frame = cluster.json("top", "--interval", "0.3")
    assert len(frame["stores"]) == 3


def test_a_frozen_store(cluster: ReplicatedCluster, client: SyncHaystackClient, photos: dict[str, bytes]) -> None:
    check_all(client, photos)
    cluster.stores[0].freeze()
    try:
        assert check_all(client, photos) < 5
        began = time.monotonic()
        stored = client.upload(b"while it is frozen")
        assert time.monotonic() - began < 12
        cluster.until(lambda counts: counts["storesAlive"] == 2)
        status = cluster.json("status", code=1)
        assert any(cluster.address(1) in problem for problem in status["problems"])
        assert any(f"Start Store {cluster.address(1)} again" in advice for advice in status["advice"])
        check_all(client, photos)
    finally:
        cluster.stores[0].thaw()
    cluster.until_well()
    assert client.read(stored.fid) == b"while it is frozen"
    check_all(client, photos)


async def test_uploads_go_on_when_a_store_dies(cluster: ReplicatedCluster) -> None:
    stored: dict[str, bytes] = {}
    slowest_seconds = 0.0
    stop = asyncio.Event()

    async def upload(client: HaystackClient, number: int) -> None:
        nonlocal slowest_seconds
        dice = random.Random(number)
        while not stop.is_set():
            content = dice.randbytes(2000)
            began = time.monotonic()
            fid = (await client.upload(content)).fid
            slowest_seconds = max(slowest_seconds, time.monotonic() - began)
            stored[fid] = content
            await asyncio.sleep(0.02)

    async with HaystackClient(cluster.directory.ready.url) as client:
        uploads = [asyncio.create_task(upload(client, number)) for number in range(4)]
        await _until(lambda: len(stored) >= 20)
        await asyncio.to_thread(cluster.stores[1].kill)
        before = len(stored)
        await _until(lambda: len(stored) >= before + 100)
        stop.set()
        await asyncio.gather(*uploads)
        assert slowest_seconds < 12
        for fid, content in stored.items():
            assert await client.read(fid) == content
        await asyncio.to_thread(cluster.stores[1].start_again)
        await asyncio.to_thread(cluster.until_well)
        for fid in list(stored)[:10]:
            await client.delete(fid)
            del stored[fid]
            cluster.deleted.append(fid)
    cluster.kept |= stored


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not done():  # noqa: ASYNC110 - it is other processes that do it
            await asyncio.sleep(0.02)


def test_a_wiped_disk(cluster: ReplicatedCluster, client: SyncHaystackClient, photos: dict[str, bytes]) -> None:
    store_id = json.loads((cluster.folder / "store1" / "folder.json").read_text())["store_id"]
    cluster.stores[0].kill()
    shutil.rmtree(cluster.folder / "store1")
    cluster.until(lambda counts: counts["volumesDegraded"] > 0)
    cluster.stores[0].start_again()
    done = cluster.run("repair", "--apply", "--wait").stdout.decode()
    assert re.search(r"All volumes have all their copies\. \d+ cop\w+ \w+ made or mended in .+: .+B\.\n", done)
    check_all(client, photos)
    status = cluster.json("status", code=1)
    assert any(f"haystack node remove {store_id} --apply" in advice for advice in status["advice"])
    cluster.run("node", "remove", store_id, "--apply")
    cluster.until_well()
    assert cluster.json("status")["health"] == "well"


def test_a_directory_that_is_away(
    cluster: ReplicatedCluster, client: SyncHaystackClient, photos: dict[str, bytes], tmp_path: Path
) -> None:
    check_all(client, photos)
    cluster.run("directory", "backup", tmp_path / "backup")
    cluster.directory.stop()
    assert check_all(client, photos) < 5
    # Its disk is lost too: the backup is put in its place.
    restored = tmp_path / "restored"
    restored.mkdir()
    (tmp_path / "backup").rename(restored / "directory.lmdb")
    cluster.directory.start_again("directory", "--data", str(restored), *cluster.directory_arguments)
    cluster.until_well()
    with SyncHaystackClient(cluster.directory.ready.url) as another:
        check_all(another, photos)


def test_a_directory_without_backup(cluster: ReplicatedCluster, photos: dict[str, bytes], tmp_path: Path) -> None:
    cluster.directory.stop()
    port = cluster.directory.ready.url.rpartition(":")[2]
    arguments = ("--data", str(tmp_path / "new"), *cluster.directory_arguments)
    done = cluster.run("directory", "rebuild", "--stores", "3", "--port", port, *arguments, "--json")
    document = json.loads(done.stdout)
    cluster.directory.start_again("directory", *arguments)
    cluster.until_well()
    kept = photos | cluster.kept
    with SyncHaystackClient(cluster.directory.ready.url) as client:
        for fid, content in kept.items():
            assert client.read(photo_id(fid)) == content
        for fid in cluster.deleted:
            with pytest.raises(NeedleNotFound):
                client.read(photo_id(fid))
    assert document["stores"] == 3
    assert document["photos"] >= len(kept)  # beside those whose upload was not acknowledged, but stored


def photo_id(fid: str) -> str:
    """Return the photo's id as text: the key without the cookie."""
    return f"{Fid.parse(fid).key:x}"


def test_drain_and_remove(cluster: ReplicatedCluster, client: SyncHaystackClient, photos: dict[str, bytes]) -> None:
    address = cluster.address(3)
    plan = cluster.json("node", "drain", address)
    assert (plan["applied"], bool(plan["plan"])) == (False, True)
    document = cluster.json("node", "drain", address, "--apply", "--wait")
    assert document["drain"]["done"] is True
    check_all(client, photos)
    assert "draining      done" in cluster.run("node", "show", address).stdout.decode()
    cluster.stores.pop(2).stop()
    cluster.until(lambda counts: counts["storesAlive"] == 2)
    assert cluster.json("node", "remove", address, "--apply")["applied"] is True
    cluster.until_well()
    check_all(client, photos)
    assert cluster.json("status")["health"] == "well"
