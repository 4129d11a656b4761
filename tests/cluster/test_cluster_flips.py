"""Every byte of several needles is flipped on one replica, one at a time, while clients read."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_http import HttpClient
from cluster_nodes import Cluster, ClusterOptions, places, running_cluster
from cluster_record import Recorder
from cluster_verify import directory_document, full_strength, verify_files, verify_photos

SIZES = (1, 40, 90)
MEND_SECONDS = 20.0
POLL_SECONDS = 0.02
STRIDE = 5
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
                deadline = asyncio.get_running_loop().time() + MEND_SECONDS
                while True:
                    answer = await http.request("GET", needle.address, f"/{needle.fid}", timeout_seconds=10)
                    assert answer.status == 200, (at - needle.start, answer)
                    assert photo.is_content(answer.body), f"wrong bytes with byte {at - needle.start} flipped"
                    if needle.file.read_bytes()[needle.start : needle.end] == healthy:
                        break
                    assert asyncio.get_running_loop().time() < deadline, f"byte {at - needle.start} was not mended"
                    await asyncio.sleep(POLL_SECONDS)
    await verify_photos(cluster, recorder)
    await verify_files(cluster)
    return flips


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
