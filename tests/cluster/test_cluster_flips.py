"""Every byte of several needles is flipped on one replica, one at a time, while clients read."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cluster_http import HttpClient
from cluster_nodes import Cluster, ClusterOptions, places, running_cluster
from cluster_record import Photo, Recorder
from cluster_verify import directory_document, full_strength, verify_files, verify_photos

from haystack.json_calls import json_call

SIZES = (1, 40, 90)
MEND_SECONDS = 20.0
POLL_SECONDS = 0.02
READS_ALONE_SECONDS = 0.3
STRIDE = 7
"""Every so many bytes in this run; the campaign takes each."""


@dataclass(frozen=True, slots=True)
class Needle:
    """Where one copy of a photo lies in a file."""

    fid: str
    file: Path
    address: str
    start: int
    end: int


async def stored_needles(cluster: Cluster, http: HttpClient, recorder: Recorder) -> list[Needle]:
    """Upload photos of one volume, and return where they lie at a replica that does not lead."""
    status = await directory_document(http, cluster)
    volume = status["Volumes"][0]
    follower = next(store for store in volume["inSync"] if store != volume["primary"])
    url = next(store["url"] for store in status["Stores"] if store["storeId"] == follower)
    node = next(store for store in cluster.stores if store.address == url)
    file = next(cluster.data_of(node).rglob(f"{volume['volume']}.vol"))
    dice, needles = random.Random(1), []
    for size_bytes in SIZES:
        fid = await _name_in(cluster, http, volume["volume"])
        content = dice.randbytes(size_bytes)
        before = file.stat().st_size
        leader = next(store["url"] for store in status["Stores"] if store["storeId"] == volume["primary"])
        answer = await http.request("PUT", leader, f"/{fid}", content, timeout_seconds=10)
        assert answer.status == 201, answer
        recorder.stored(fid, content, answer.json().get("locator", ""))
        needles.append(Needle(fid, file, url, before, file.stat().st_size))
    return needles


async def _name_in(cluster: Cluster, http: HttpClient, volume: int) -> str:
    while True:
        answer = await http.request("GET", cluster.directory.address, "/dir/assign", timeout_seconds=10)
        fid: str = answer.json()["fid"]
        if fid.startswith(f"{volume},"):
            return fid


async def flip_and_mend(cluster: Cluster, *, stride: int) -> int:
    """Flip bytes of needles on a replica; each must be mended, and nobody may see a wrong byte. Returns how many."""
    recorder = Recorder()
    flips = 0
    async with HttpClient() as http:
        needles = await stored_needles(cluster, http, recorder)
        for needle in needles:
            photo = recorder.photos[needle.fid]
            healthy = needle.file.read_bytes()[needle.start : needle.end]
            for at in range(needle.start, needle.end, stride):
                flip(needle.file, at)
                flips += 1
                await _mended(cluster, http, needle, photo, healthy, f"byte {at - needle.start} of {len(healthy)}")
    await verify_photos(cluster, recorder)
    await verify_files(cluster)
    return flips


async def _mended(cluster: Cluster, http: HttpClient, needle: Needle, photo: Photo, healthy: bytes, which: str) -> None:
    """Read until the file is as it was. A wrong byte is never right; being out of service for a moment is.

    What no read looks at, or what is answered from memory, waits for the scrub, which is asked for here.
    """
    deadline = asyncio.get_running_loop().time() + MEND_SECONDS
    asked = False
    while True:
        answer = await http.request("GET", needle.address, f"/{needle.fid}", timeout_seconds=10)
        assert answer.status in (200, 503), (which, answer)
        assert answer.status == 503 or photo.is_content(answer.body), f"wrong bytes while {which} was flipped"
        if answer.status == 200 and needle.file.read_bytes()[needle.start : needle.end] == healthy:
            break
        now = asyncio.get_running_loop().time()
        assert now < deadline, f"{which} was not mended: {answer}"
        if answer.status == 200 and not asked and now > deadline - MEND_SECONDS + READS_ALONE_SECONDS:
            asked = (await _scrub(cluster, "POST", needle, photo))[0] == 202
        await asyncio.sleep(POLL_SECONDS)
    # The next flip must not meet the mending of this one, which reads back what it has written.
    while (await _scrub(cluster, "GET", needle, photo))[1]["running"]:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(POLL_SECONDS)
    await full_strength(cluster, within_seconds=MEND_SECONDS)


async def _scrub(cluster: Cluster, method: str, needle: Needle, photo: Photo) -> tuple[int, Any]:
    node = next(store for store in cluster.stores if store.address == needle.address)
    url = f"{node.admin_url}/admin/volumes/{photo.volume}/scrub"
    async with aiohttp.ClientSession() as session:
        answer = await json_call(session, method, url, secret=cluster.secret)
    return answer.status, answer.document


def flip(file: Path, at: int) -> None:
    """Turn all bits of one byte round."""
    with file.open("r+b", buffering=0) as raw:
        raw.seek(at)
        byte = raw.read(1)
        raw.seek(at)
        raw.write(bytes([byte[0] ^ 0xFF]))


@pytest.mark.timeout(180)
async def test_flipped_bytes_are_never_served_and_are_mended(tmp_path: Path) -> None:
    options = ClusterOptions(places("dc1/A", "dc1/A"), replication="001", writable_volumes=1)
    with running_cluster(tmp_path / "cluster", options) as cluster:
        await full_strength(cluster, within_seconds=60)
        flips = await flip_and_mend(cluster, stride=STRIDE)
        print(f"{flips} bytes of {len(SIZES)} needles flipped one at a time; all were mended, no wrong byte was served")
