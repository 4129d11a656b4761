"""Volumes of a real cluster are compacted by themselves: the best first, one at a time, and none without room."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cluster_compaction import Compacting
from cluster_fill import take_all
from cluster_http import HttpClient
from cluster_nodes import ClusterOptions, places, running_cluster
from test_cluster_fill import small_disk

from haystack.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts small disks, which takes root")

PHOTOS, PHOTO_BYTES = 30, 100_000
WAIT_SECONDS = 60.0
_AT_WORK = re.compile(r'haystack_store_volume_compaction\{volume="(\d+)",state="copying"\} 1')


class Watcher:
    """Looks all the time which copies are being compacted."""

    def __init__(self, http: HttpClient, stores: list[str]) -> None:
        self._http = http
        self._stores = stores
        self.seen: list[str] = []
        self.at_once = 0

    async def run(self) -> None:
        while True:
            found: list[str] = []
            for store in self._stores:
                page = await self._http.request("GET", store, "/metrics", timeout_seconds=10)
                found += _AT_WORK.findall(page.body.decode())
            self.at_once = max(self.at_once, len(found))
            self.seen += [volume for volume in found if volume not in self.seen]
            await asyncio.sleep(0.02)


async def _until(done: Callable[[], Awaitable[bool]], outlook: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not await done():
        assert time.monotonic() < deadline, await outlook()
        await asyncio.sleep(0.1)


async def test_the_best_first_one_at_a_time_and_none_without_room(tmp_path: Path) -> None:
    options = ClusterOptions(
        places("dc/A", "dc/A"),
        replication="001",
        writable_volumes=2,
        heartbeat_seconds=0.2,
        store_flags=("--compact-bytes-per-second", "2MiB", "--reserve-bytes", "0"),
    )
    with ExitStack() as stack:
        disks = [stack.enter_context(small_disk(tmp_path / f"store{number}", 64 * MIB)) for number in (1, 2)]
        cluster = stack.enter_context(running_cluster(tmp_path, options))
        compacting = Compacting(cluster)
        async with HttpClient() as http:

            async def ask(method: str, address: str, path: str, body: bytes = b"") -> Any:
                return await http.request(method, address, path, body, timeout_seconds=20)

            async def outlook() -> dict[int, str]:
                answer = await ask("GET", cluster.directory.address, "/cluster/compactions?outlook=true")
                return {one["volume"]: one["when"] for one in json.loads(answer.body)["outlook"]}

            dice, photos = random.Random(1), dict[str, tuple[str, bytes]]()
            by_volume: list[list[str]] = [[], []]
            while min(map(len, by_volume)) < PHOTOS:
                answer = await ask("GET", cluster.directory.address, "/dir/assign")
                if answer.status == 200:
                    fid, url, data = answer.json()["fid"], answer.json()["url"], dice.randbytes(PHOTO_BYTES)
                    if len(by_volume[int(fid.partition(",")[0]) - 1]) == PHOTOS:
                        continue  # names need not be given out evenly
                    assert (await ask("PUT", url, f"/{fid}", data)).status == 201
                    photos[fid] = url, data
                    by_volume[int(fid.partition(",")[0]) - 1].append(fid)
            watcher = Watcher(http, [store.address for store in cluster.stores])
            watching = asyncio.create_task(watcher.run())
            better, worse = 1, 2
            filler = take_all(disks[1], leave_bytes=PHOTO_BYTES)  # nothing begins before all is deleted
            for volume, share in ((better, 0.9), (worse, 0.5)):
                for fid in _first(by_volume[volume - 1], share):
                    assert (await ask("DELETE", photos[fid][0], f"/{fid}?now=true")).status == 202
            left = PHOTOS // 2
            os.truncate(filler, filler.stat().st_size - (left - 3) * PHOTO_BYTES)

            async def said_no_room() -> bool:
                return "no room" in (await outlook())[worse]

            await _until(said_no_room, outlook)

            async def compacted(volume: int = better) -> bool:
                status = (await ask("GET", cluster.directory.address, "/dir/status")).json()
                sizes = {one["volume"]: (one["sizeBytes"], one["liveBytes"]) for one in status["Volumes"]}
                return bool(sizes[volume][0] - sizes[volume][1] <= 64)

            await _until(compacted, outlook)
            await _until(said_no_room, outlook)  # it was "next" while the other one was compacted
            assert not await compacted(worse)
            filler.unlink()
            await _until(lambda: compacted(worse), outlook)
            watching.cancel()
            assert watcher.seen == [str(better), str(worse)] and watcher.at_once == 1
            gone = {*_first(by_volume[better - 1], 0.9), *_first(by_volume[worse - 1], 0.5)}
            for fid, (_, data) in photos.items():
                for store in cluster.stores:
                    answer = await ask("GET", store.address, f"/{fid}")
                    assert (answer.status, answer.body) == (200, data) if fid not in gone else answer.status == 404
        assert not compacting.leftovers()


def _first(fids: list[str], share: float) -> list[str]:
    return fids[: int(share * len(fids))]
