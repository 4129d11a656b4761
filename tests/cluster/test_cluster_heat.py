"""Heat and weights in a real cluster: what is read is seen by the Directory, and reads go where the weights say."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from math import exp
from pathlib import Path
from typing import Any

import pytest
from cluster_http import HttpClient, NoAnswer
from cluster_nodes import Cluster, ClusterOptions, places, running_cluster

from haystack.client import HaystackClient
from haystack.fid import Fid
from tools.control import Control

PHOTO = random.Random(1).randbytes(40_000)
SEEN_SECONDS = 15.0
"""Within which the Directory knows what is read, on a machine that is busy with other tests, too."""

NEVER_SECONDS = 30.0


def within(count: float, share: float, n: int) -> bool:
    """Whether a count over n draws is as near to its share as it is but for a chance of 1e-9 (Hoeffding)."""
    return 2 * exp(-2 * n * (count / n - share) ** 2) > 1e-9


class Bench:
    """A cluster with a photo in each of some volumes, and a client with dice of its own."""

    def __init__(self, cluster: Cluster, http: HttpClient, client: HaystackClient) -> None:
        self.cluster = cluster
        self.http = http
        self.client = client

    async def ask(self, path: str) -> Any:
        answer = await self.http.request("GET", self.cluster.directory.address, path, timeout_seconds=10)
        assert answer.status == 200, answer
        return answer.json()

    async def weigh(self, volume: int, weights: dict[str, float] | None) -> None:
        url = f"http://{self.cluster.directory.address}"
        async with Control([url], lambda: self.cluster.secret) as control:
            document = {"weights": weights}
            await control.directory("POST", f"/cluster/volumes/{volume}/weights", document=document, signed=True)

    async def reads_by_store(self, volume: int) -> dict[str, int]:
        """Reads of a volume since the start of each Store, from the Stores' own counters."""
        found = {}
        for store in self.cluster.stores:
            answer = await self.http.request("GET", store.address, "/metrics", timeout_seconds=10)
            prefix = f'haystack_store_volume_reads_total{{volume="{volume}"}} '
            lines = [line for line in answer.body.decode().splitlines() if line.startswith(prefix)]
            found[store.address] = int(lines[0].removeprefix(prefix)) if lines else 0
        return found

    async def heat_within(self, seconds: float, wanted: Callable[[Any], bool]) -> Any:
        """What the Directory says of heat, as soon as it is what is wanted."""

        async def look() -> Any:
            document = await self.ask("/cluster/heat?limit=50")
            return document if wanted(document) else None

        return await until(look, seconds)


async def until(look: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, "never came true"
        await asyncio.sleep(0.02)


def volume_in(document: Any, volume: int) -> Any:
    return next((one for one in document["volumes"] if one["volume"] == volume), None)


def machine_in(document: Any, address: str) -> Any:
    return next(one for one in document["machines"] if one["url"] == address)


@pytest.mark.timeout(150)
async def test_what_is_read_is_seen_and_weights_are_followed(tmp_path: Path) -> None:
    options = ClusterOptions(
        places("dc/A", "dc/A", "dc/A"),
        replication="002",
        writable_volumes=3,
        heartbeat_seconds=0.3,
        dead_after_seconds=1.5,
    )
    with running_cluster(tmp_path / "cluster", options) as cluster:
        client = HaystackClient(
            f"http://{cluster.directory.address}", uniform=random.Random(9).random, location_lifetime_seconds=0.2
        )
        async with HttpClient() as http, client:
            bench = Bench(cluster, http, client)
            photos = [Fid.parse((await client.upload(PHOTO)).fid) for _ in range(12)]
            by_volume = {fid.volume: fid for fid in photos}
            hot = photos[0]
            await _every_copy_answers_reads(bench, photos)
            await _skewed_reads_are_seen(bench, hot, [fid for fid in by_volume.values() if fid.volume != hot.volume])
            await _reads_follow_weights(bench, hot)
            await _weights_outlive_the_directory(bench, hot)
            await _a_killed_store_has_no_heat(bench, hot)


async def _every_copy_answers_reads(bench: Bench, photos: list[Fid]) -> None:
    """Replicas in sync serve reads like the primary, at once after the acknowledgement."""
    for fid in photos:
        for store in bench.cluster.stores:
            answer = await bench.http.request("GET", store.address, f"/{fid}", timeout_seconds=10)
            assert (answer.status, answer.body) == (200, PHOTO)


async def _skewed_reads_are_seen(bench: Bench, hot: Fid, others: list[Fid]) -> None:
    before = sum((await bench.reads_by_store(hot.volume)).values())
    for _ in range(150):
        assert await bench.client.read(hot) == PHOTO
    for fid in others:
        await bench.client.read(fid)
    reads = 150 + before

    def seen(document: Any) -> bool:
        found = volume_in(document, hot.volume)
        known = found is not None and found["heat"]["1m"]["readsPerSecond"] * machine_seconds(found) >= 0.8 * reads
        hottest = (f"{hot.key:x}", hot.volume)  # the volume is known when the Stores have confirmed the photo
        return known and any((one["photo"], one["volume"]) == hottest for one in document["photos"])

    def machine_seconds(found: Any) -> float:
        return float(max(copy["knownSeconds"] for copy in found["copies"]))

    document = await bench.heat_within(SEEN_SECONDS, seen)
    assert document["volumes"][0]["volume"] == hot.volume
    assert document["photos"][0]["photo"] == f"{hot.key:x}"
    assert document["photos"][0]["volume"] == hot.volume
    found = document["volumes"][0]
    assert found["heat"]["10m"]["bytesPerSecond"] == pytest.approx(
        found["heat"]["10m"]["readsPerSecond"] * len(PHOTO), rel=0.01
    )
    assert 0 < found["heat"]["10m"]["busySecondsPerSecond"] < 1
    assert len([copy for copy in found["copies"] if copy["load"] > 0]) == 3


async def _reads_follow_weights(bench: Bench, hot: Fid) -> None:
    stores = [store.address for store in bench.cluster.stores]
    for shares, reads in (((0.0, 100.0, 0.0), 60), ((10.0, 20.0, 70.0), 400)):
        weights = dict(zip(stores, shares, strict=True))
        await bench.weigh(hot.volume, weights)
        await asyncio.sleep(0.25)  # until the client's own memory of the places is over
        before = await bench.reads_by_store(hot.volume)
        for _ in range(reads):
            await bench.client.read(hot)
        after = await bench.reads_by_store(hot.volume)
        total = sum(weights.values())
        for store, weight in weights.items():
            count, share = after[store] - before[store], weight / total
            assert within(count, share, reads), (store, count, weights)
            assert weight or not count
    # Redirects do so, too.
    await bench.weigh(hot.volume, {stores[0]: 100, stores[1]: 0, stores[2]: 0})
    for _ in range(20):
        answer = await bench.ask(f"/dir/lookup?volumeId={hot.volume}")
        assert [one["weight"] for one in answer["locations"]] == [100, 0, 0]
        assert answer["locations"][0]["url"] == stores[0]
        assert f"//{stores[0]}/" in (await bench.ask(f"/photos/{hot.key:x}"))["renditions"][0]["urls"][0]


async def _weights_outlive_the_directory(bench: Bench, hot: Fid) -> None:
    bench.cluster.directory.kill()
    bench.cluster.directory.start()
    first = bench.cluster.stores[0].address

    async def back() -> Any:
        try:
            document = await bench.ask("/cluster/heat")
        except NoAnswer:  # a connection to the one that was killed
            return None
        return volume_in(document, hot.volume) and len(document["machines"]) == 3 and document

    document = await until(back, NEVER_SECONDS)
    weights = {copy["url"]: copy["weight"] for copy in volume_in(document, hot.volume)["copies"]}
    assert weights[first] == 100 and sorted(weights.values()) == [0, 0, 100]


async def _a_killed_store_has_no_heat(bench: Bench, hot: Fid) -> None:
    """Its reads go to the others, although they have no weight; when it is back it begins anew."""
    store = bench.cluster.stores[0]
    store.kill()
    assert await bench.client.read(hot) == PHOTO

    def dead(document: Any) -> bool:
        return bool(machine_in(document, store.address)["state"] == "dead")

    document = await bench.heat_within(NEVER_SECONDS, dead)
    assert machine_in(document, store.address)["load"] == 0
    copies = {copy["url"]: copy["load"] for copy in volume_in(document, hot.volume)["copies"]}
    assert copies.get(store.address, 0) == 0 < max(copies.values())

    async def evenly() -> bool:
        locations = (await bench.ask(f"/dir/lookup?volumeId={hot.volume}"))["locations"]
        return [one["weight"] for one in locations] == [100, 100]

    await until(evenly, NEVER_SECONDS)
    store.start()
    document = await bench.heat_within(
        NEVER_SECONDS, lambda found: machine_in(found, store.address)["state"] == "alive"
    )
    assert machine_in(document, store.address)["load"] == 0
