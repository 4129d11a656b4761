"""Compaction of volumes with copies in a real cluster of three Stores, while it is used, and Stores are killed."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_replicated_cluster import ReplicatedCluster

from haystack.client import SyncHaystackClient
from haystack.errors import HaystackError, NeedleNotFound

WAIT_SECONDS = 60.0


class Load:
    """Uploads, deletes and reads, and what must be true of it."""

    def __init__(self, cluster: ReplicatedCluster) -> None:
        self.url = cluster.directory.ready.url
        self.live: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.problems: list[str] = []
        self.stopped = threading.Event()

    def fill(self, count: int, seed: int) -> None:
        dice = random.Random(seed)
        with SyncHaystackClient(self.url) as client:
            for _ in range(count):
                content = dice.randbytes(dice.choice((100, 5000, 60_000)))
                self.live[client.upload(content).fid] = content
            for fid in list(self.live)[::2]:
                client.delete(fid, now=True)
                del self.live[fid]
                self.deleted.add(fid)

    def run(self, seed: int, *, strict: bool) -> None:
        """Use the cluster until it is stopped; ``strict``: no request may fail."""
        dice = random.Random(seed)
        with SyncHaystackClient(self.url) as client:
            while not self.stopped.is_set():
                try:
                    self._step(client, dice)
                except HaystackError as error:
                    if strict:
                        self.problems.append(f"{type(error).__name__}: {error}")

    def _step(self, client: SyncHaystackClient, dice: random.Random) -> None:
        content = dice.randbytes(dice.choice((100, 5000, 60_000)))
        fid = client.upload(content).fid
        self.live[fid] = content
        kept = dice.choice(list(self.live))
        if dice.random() < 0.2:
            if self.live.pop(kept, None) is not None:
                client.delete(kept, now=True)
                self.deleted.add(kept)
            return
        expected = self.live.get(kept)
        try:
            if expected is not None and client.read(kept) != expected:
                self.problems.append(f"{kept} has other bytes")
        except NeedleNotFound:
            if kept in self.live:
                self.problems.append(f"{kept} is not there")

    def require_all(self) -> None:
        assert not self.problems
        with SyncHaystackClient(self.url) as client:
            for fid, content in self.live.items():
                assert client.read(fid) == content
            for fid in self.deleted:
                with pytest.raises(NeedleNotFound):
                    client.read(fid)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedCluster]:
    running = ReplicatedCluster(tmp_path_factory.mktemp("copies"))
    yield running
    running.stop()


def _until_planned(cluster: ReplicatedCluster) -> None:
    """The Directory has heard of the deletes, and nothing keeps it from compacting."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        plan = cluster.json("volume", "compact", "--all")["volumes"]
        if plan and not any(one["obstacle"] for one in plan):
            return
        assert time.monotonic() < deadline, plan
        time.sleep(0.1)


def _require_identical(cluster: ReplicatedCluster) -> None:
    """All copies of each volume are the same, byte for byte."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found: dict[str, list[bytes]] = defaultdict(list)
        for path in sorted(cluster.folder.glob("store*/*.vol")):
            found[path.name].append(path.read_bytes())
        if all(len(copies) == 2 and copies[0] == copies[1] for copies in found.values()):
            return
        assert time.monotonic() < deadline, {name: [len(copy) for copy in copies] for name, copies in found.items()}
        time.sleep(0.2)


def test_copies_are_compacted_while_they_are_used(cluster: ReplicatedCluster) -> None:
    load = Load(cluster)
    load.fill(60, seed=1)
    _until_planned(cluster)
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(load.run, seed, strict=True) for seed in (2, 3, 4)]
        for _ in range(2):
            done = cluster.json("volume", "compact", "--all", "--now", "--apply")
            assert {one["state"] for one in done["compactions"]} == {"done"}, done
        load.stopped.set()
        for one in running:
            one.result()
    load.require_all()
    _require_identical(cluster)
    assert max(one["pauseSeconds"] for one in done["compactions"]) < 2
    cluster.run("volume", "check", "--full")


@pytest.mark.parametrize("number", [1, 2])
def test_a_store_is_killed_in_the_middle(cluster: ReplicatedCluster, number: int) -> None:
    load = Load(cluster)
    load.fill(60, seed=10 + number)
    cluster.until_well()
    _until_planned(cluster)
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(load.run, seed, strict=False) for seed in (2, 3)]
        compacting = subprocess.Popen(
            cluster.argv("volume", "compact", "--all", "--now", "--apply"), env=cluster.environ, stderr=subprocess.PIPE
        )
        time.sleep(0.5 + 0.2 * number)
        cluster.stores[number - 1].kill()
        time.sleep(1)
        cluster.stores[number - 1].start_again()
        compacting.communicate(timeout=WAIT_SECONDS)
        load.stopped.set()
        for one in running:
            one.result()
    cluster.until_well()
    load.require_all()
    _require_identical(cluster)
    cluster.run("volume", "compact", "--all", "--now", "--apply")
    load.require_all()
    _require_identical(cluster)


@pytest.mark.parametrize("seconds", [0.5, 0.9])
def test_the_directory_is_killed_in_the_middle(cluster: ReplicatedCluster, seconds: float) -> None:
    load = Load(cluster)
    load.fill(60, seed=round(100 * seconds))
    cluster.until_well()
    _until_planned(cluster)
    compacting = subprocess.Popen(
        cluster.argv("volume", "compact", "--all", "--now", "--apply"), env=cluster.environ, stderr=subprocess.PIPE
    )
    time.sleep(seconds)
    cluster.directory.kill()
    cluster.directory.start_again()
    compacting.communicate(timeout=WAIT_SECONDS)
    cluster.until_well()
    load.require_all()
    _require_identical(cluster)
    cluster.run("volume", "compact", "--all", "--now", "--apply")
    load.require_all()
    _require_identical(cluster)
