"""What must hold when a cluster has come to rest."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from cluster_http import HttpClient, NoAnswer
from cluster_nodes import Cluster
from cluster_record import Fate, Photo, Recorder

POLL_SECONDS = 0.2
READS_AT_ONCE = 32
READ_TIMEOUT_SECONDS = 20.0
UNSURE_SECONDS = 10.0
"""Within which a copy knows that it counts, and says of what is not there that it is not there: until then 503."""


def promised_copies(replication: str) -> int:
    return 1 + sum(int(digit) for digit in replication)


async def directory_document(http: HttpClient, cluster: Cluster, path: str = "/dir/status") -> Any:
    answer = await http.request("GET", cluster.directory.address, path, timeout_seconds=READ_TIMEOUT_SECONDS)
    assert answer.status == 200, answer
    return answer.json()


def weaknesses(status: Any, stores: int, gone: str = "") -> list[str]:
    """Return in which ways a cluster is not at full strength, from its ``/dir/status``."""
    found = []
    alive = {store["storeId"]: store["url"] for store in status["Stores"] if store["state"] == "alive"}
    alive.pop(gone, None)
    if len(alive) < stores:
        found.append(f"{len(alive)} of {stores} Stores are alive")
    if not status["Volumes"]:
        found.append("there are no volumes")
    for volume in status["Volumes"]:
        promised, members = promised_copies(volume["replication"]), volume.get("members", volume["inSync"])
        if len(alive.keys() & volume["inSync"]) != promised or set(members) != set(volume["inSync"]):
            found.append(
                f"volume {volume['volume']}: {len(volume['inSync'])} of {promised} in sync, {len(members)} members, "
                f"epoch {volume['epoch']}"
            )
    return found


async def full_strength(cluster: Cluster, *, within_seconds: float, gone: str = "") -> float:
    """Wait until all Stores are there and all volumes have all copies. Returns the seconds that it took.

    Parameters
    ----------
    gone: id of a Store that will never be back; no volume may count on it.
    """
    started = time.monotonic()
    found: list[str] = []
    async with HttpClient() as http:
        while time.monotonic() - started < within_seconds:
            try:
                found = weaknesses(await directory_document(http, cluster), len(cluster.stores), gone)
            except NoAnswer as problem:
                found = [str(problem)]
            if not found:
                return time.monotonic() - started
            await asyncio.sleep(POLL_SECONDS)
        status = await directory_document(http, cluster)
    raise AssertionError(f"not at full strength after {within_seconds:g} s: {found[:10]}; {status['Problems'][:10]}")


async def settled(cluster: Cluster, recorder: Recorder, *, within_seconds: float) -> None:
    """Wait until the Directory knows all photos that were acknowledged."""
    deadline = time.monotonic() + within_seconds
    photos = recorder.of_fate(Fate.STORED)
    async with HttpClient() as http:
        for photo in photos:
            key = photo.fid.partition(",")[2][:-16]
            while True:
                answer = await http.request(
                    "GET", cluster.directory.address, f"/photos/{key}", timeout_seconds=READ_TIMEOUT_SECONDS
                )
                if answer.status == 200:
                    break
                assert time.monotonic() < deadline, f"{photo.fid}: the Directory does not know it: {answer}"
                await asyncio.sleep(POLL_SECONDS)


async def verify_photos(cluster: Cluster, recorder: Recorder) -> int:
    """Read every photo at each of its locations. Returns how many answers were compared."""
    compared = 0
    limit = asyncio.Semaphore(READS_AT_ONCE)
    problems: list[str] = []
    async with HttpClient() as http:
        locations: dict[int, list[str]] = {}
        for volume in {photo.volume for photo in recorder.photos.values()}:
            document = await directory_document(http, cluster, f"/dir/lookup?volumeId={volume}")
            locations[volume] = [location["url"] for location in document["locations"]]

        async def verify(photo: Photo, address: str) -> None:
            nonlocal compared
            deadline = time.monotonic() + UNSURE_SECONDS
            async with limit:
                while True:
                    try:
                        answer = await http.request(
                            "GET", address, f"/{photo.fid}", timeout_seconds=READ_TIMEOUT_SECONDS
                        )
                    except NoAnswer as problem:
                        problems.append(str(problem))
                        return
                    if answer.status != 503 or time.monotonic() >= deadline:
                        break
                    await asyncio.sleep(0.1)
            compared += 1
            if photo.fate is Fate.STORED and (answer.status != 200 or not photo.is_content(answer.body)):
                problems.append(f"{photo.fid} is lost at {address}: {answer.status} {answer.body[:100]!r}")
            if photo.fate is Fate.DELETED and answer.status != 404:
                problems.append(f"{photo.fid} was deleted and is back at {address}: {answer.status}")

        await asyncio.gather(
            *(verify(photo, address) for photo in recorder.photos.values() for address in locations[photo.volume])
        )
    assert not problems, f"{len(problems)} of {compared} answers were wrong: {problems[:10]}"
    return compared


async def verify_files(cluster: Cluster) -> int:
    """Stop the Stores, and compare the files of each volume's copies. Returns how many volumes there are."""
    async with HttpClient() as http:
        status = await directory_document(http, cluster)
    await asyncio.to_thread(cluster.stop_stores)
    hashes: dict[int, dict[str, str]] = defaultdict(dict)
    for store in cluster.stores:
        for path in cluster.data_of(store).rglob("*.vol"):
            hashes[int(path.stem)][store.name] = sha256_of(path)
    different = {volume: copies for volume, copies in hashes.items() if len(set(copies.values())) > 1}
    assert not different, f"copies differ: {different}"
    expected = {volume["volume"]: promised_copies(volume["replication"]) for volume in status["Volumes"]}
    found = {volume: len(copies) for volume, copies in hashes.items()}
    assert found == expected, f"copies on disk {found}, promised {expected}"
    return len(hashes)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
