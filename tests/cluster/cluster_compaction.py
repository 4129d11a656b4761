"""Compactions of a real cluster's volume: under a steady load, and while its processes are killed at any step."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cluster_http import HttpClient
from cluster_load import Load, Rates
from cluster_nodes import Cluster, ClusterOptions, Node, places
from cluster_record import Recorder
from cluster_verify import directory_document, full_strength, settled, verify_files, verify_photos
from yarl import URL

from benchmarks.client import percentile
from haystack.json_calls import signed_headers
from haystack.store.joint_swap import HOLD_SECONDS
from haystack.volume.layout import SUPERBLOCK_BYTES

COMPACT_SECONDS = 120.0
HEAL_SECONDS = 90.0
POLL_SECONDS = 0.05
STORE_CALLS = "rename,fsync,fdatasync,unlink"
DIRECTORY_CALLS = "fdatasync,pwrite64"
"""System calls whose order a crash may cut: of the Stores' supervisors, and of the Directory's storage."""


def options(replication: str, **more: Any) -> ClusterOptions:
    """Three Stores, or one; a single volume, so that all that happens, happens to it."""
    spots = places("dc/A") * (3 if replication != "000" else 1)
    return ClusterOptions(
        spots, replication=replication, writable_volumes=1, directory_flags=("--compact-garbage-share", "0"), **more
    )


class CompactedRecorder(Recorder):
    """Knows that an offset of a volume that was compacted may be another photo's."""

    def stored(self, fid: str, content: bytes, locator: str = "") -> None:
        super().stored(fid, content)


@dataclass
class Compacting:
    """Has the volumes of a cluster compacted, and knows how they are."""

    cluster: Cluster

    async def call(self, method: str, address: str, path: str, document: Any = None) -> Any:
        """A signed call. Raises aiohttp.ClientError, OSError, TimeoutError."""
        url = URL(f"http://{address}{path}")
        body = b"" if document is None else json.dumps(document).encode()
        headers = signed_headers(self.cluster.secret, method, url, body)
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.request(method, url, data=body, headers=headers, timeout=timeout) as answer:
            return await answer.json()

    async def volume(self) -> Any:
        """The volume as the Directory knows it."""
        async with HttpClient() as http:
            return (await directory_document(http, self.cluster))["Volumes"][0]

    async def begin(self) -> None:
        request = {"volumes": None, "now": True, "dryRun": False}
        await self.call("POST", self.cluster.directory.address, "/cluster/compactions", request)

    async def ended(self) -> Any:
        """How the compaction that was begun has ended; None when nobody knows of one."""
        async with asyncio.timeout(COMPACT_SECONDS):
            while True:
                said = await self.call("GET", self.cluster.directory.address, "/cluster/compactions")
                if all(one["state"] in ("done", "failed") for one in said["compactions"]):
                    return said["compactions"][-1] if said["compactions"] else None
                await asyncio.sleep(POLL_SECONDS)

    async def compact(self) -> Any:
        await self.until_garbage()
        await self.begin()
        return await self.ended()

    async def until_garbage(self) -> None:
        """Wait until the Directory has something to compact, and nothing keeps it from that."""
        request = {"volumes": None, "now": True, "dryRun": True}
        async with asyncio.timeout(COMPACT_SECONDS):
            while True:
                said = await self.call("POST", self.cluster.directory.address, "/cluster/compactions", request)
                if said["volumes"] and not any(one["obstacle"] for one in said["volumes"]):
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def pauses(self, volume: int) -> list[float]:
        """For how long nobody could append, on each Store, the last time; milliseconds."""
        found = []
        for store in self.cluster.stores:
            job = await self.call("GET", store.admin_url.removeprefix("http://"), f"/admin/volumes/{volume}/compact")
            if job.get("state") == "done":
                found.append(1000 * job["pauseSeconds"])
        return found

    def leftovers(self) -> list[str]:
        """Files of compactions that are over."""
        found = []
        for store in self.cluster.stores:
            folder = self.cluster.data_of(store)
            names = [path.name for path in folder.iterdir()]
            found += [f"{store.name}/{name}" for name in names if ".compact" in name or ".cut." in name]
            indexes = Counter(name.partition(".")[0] for name in names if name.endswith(".idx"))
            found += [f"{store.name}: {count} indexes of {volume}" for volume, count in indexes.items() if count > 1]
        return found


# -- under load


@dataclass(slots=True)
class UnderLoad:
    """What came of compactions under load."""

    recorder: Recorder
    pauses: list[float] = field(default_factory=list)
    quiet: array[float] = field(default_factory=lambda: array("d"))
    busy: array[float] = field(default_factory=lambda: array("d"))
    """Seconds that reads took without compactions, and with them."""
    most_late_seconds: float = 0.0
    live_bytes: int = 0
    size_bytes: int = 0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        counts = sorted(self.recorder.counts.items())
        return [
            *(f"{count:8,} {what}  ({count / self.seconds:,.0f} a second)" for what, count in counts),
            f"longest pause {max(self.pauses):.1f} ms of {[round(one, 1) for one in self.pauses]}",
            f"reads without compactions: {_in_words(self.quiet)}",
            f"reads with compactions: {_in_words(self.busy)}",
            f"p99 {percentile(self.busy, 99) / percentile(self.quiet, 99):.2f} times that without compactions",
            f"volume: {self.size_bytes:,} bytes, of which {self.live_bytes:,} are live",
            f"the load itself stood still for up to {self.most_late_seconds:.2f} s",
        ]

    def failures(self) -> list[str]:
        """Requests that failed, whoever asked again."""
        found = [*self.recorder.wrong, *self.recorder.failed]
        found += [one.problem for one in self.recorder.attempts if one.problem]
        bad = ("answers 5", "answers missing", "deletes without", "deletes answered", "uploads refused", "not begun")
        return found + [
            f"{count} {what}" for what, count in self.recorder.counts.items() if any(b in what for b in bad)
        ]


async def compact_under_load(cluster: Cluster, rates: Rates, times: int, pause_seconds: float) -> UnderLoad:
    """Compact a volume again and again while it is used; then everything is compared."""
    recorder = CompactedRecorder()
    found = UnderLoad(recorder)
    compacting = Compacting(cluster)
    load = Load(cluster.directory.address, recorder, rates, seed=1)
    began = time.monotonic()
    load.start()
    try:
        await asyncio.sleep(pause_seconds)
        load.take_latencies()
        await asyncio.sleep(max(2.0, 2 * pause_seconds))
        found.quiet = load.take_latencies()
        volume = int((await compacting.volume())["volume"])
        for _ in range(times):
            load.take_latencies()
            done = await compacting.compact()
            found.busy += load.take_latencies()
            assert done["state"] == "done", done
            found.pauses += await compacting.pauses(volume)
            await asyncio.sleep(pause_seconds)
    finally:
        found.seconds = time.monotonic() - began
        await load.stop()
    found.most_late_seconds = load.most_late_seconds
    await compacting.compact()
    await settled(cluster, recorder, within_seconds=HEAL_SECONDS)
    await verify_photos(cluster, recorder)
    document = await until_compact(compacting)
    found.live_bytes, found.size_bytes = document["liveBytes"], document["sizeBytes"]
    await full_strength(cluster, within_seconds=HEAL_SECONDS)
    await verify_files(cluster)
    assert not compacting.leftovers(), compacting.leftovers()
    return found


async def until_compact(compacting: Compacting) -> Any:
    """The volume once its sizes are those of after the compaction; at the latest after some heartbeats."""
    for _ in range(100):
        document = await compacting.volume()
        if document["sizeBytes"] - SUPERBLOCK_BYTES == document["liveBytes"]:
            break
        await asyncio.sleep(POLL_SECONDS)
    return document


def _in_words(seconds: array[float]) -> str:
    at = {percent: f"p{percent:g} {1000 * percentile(seconds, percent):.2f} ms" for percent in (50, 90, 99, 99.9)}
    return ", ".join([f"{len(seconds):,}", *at.values()])


# -- killed


@dataclass
class Kills:
    """Kills a process of a cluster in the middle of a compaction, again and again.

    Everything that was acknowledged has to be there after each, in equal copies, and no file that does not belong.
    """

    cluster: Cluster
    dice: random.Random
    recorder: Recorder = field(default_factory=CompactedRecorder)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._compacting = Compacting(self.cluster)
        self._killed = 0

    async def at_random(self, role: str) -> None:
        """Kill one at a random moment of a compaction, under load."""
        async with self._load():
            await self._compacting.until_garbage()
            node = await self._node(role)
            await self._compacting.begin()
            await asyncio.sleep(self.dice.random() * self.dice.choice((0.05, 0.3, 1.2)))
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(self.dice.random() * 0.5)
            await self._start(node)
        await self._require_right(f"{role} at random")

    async def at_call(self, role: str, number: int) -> bool:
        """Kill one before its system call with this number, counted from now on; False when there are not so many."""
        async with self._load():
            await self._compacting.until_garbage()
            node = await self._node(role)
            calls = DIRECTORY_CALLS if role == "directory" else STORE_CALLS
            with _killed_by_strace(node, calls, number):
                try:
                    await self._compacting.begin()
                    await self._until_killed(node)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    await self._until_killed(node)
            killed = not node.running
            if killed:
                await asyncio.to_thread(node.kill)  # the workers, should any be left
                await self._start(node)
        await self._require_right(f"{role} before call {number}" if killed else f"{role}: not killed")
        return killed

    async def _until_killed(self, node: Node) -> None:
        deadline = time.monotonic() + COMPACT_SECONDS
        while node.running and time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                said = await self._compacting.call("GET", self.cluster.directory.address, "/cluster/compactions")
                if all(one["state"] in ("done", "failed") for one in said["compactions"]):
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _node(self, role: str) -> Node:
        if role == "directory":
            return self.cluster.directory
        volume = await self._compacting.volume()
        async with HttpClient() as http:
            status = await directory_document(http, self.cluster)
        urls = {store["storeId"]: store["url"] for store in status["Stores"]}
        wanted = volume["primary"] if role == "primary" else next(m for m in volume["inSync"] if m != volume["primary"])
        return next(store for store in self.cluster.stores if store.address == urls[wanted])

    @asynccontextmanager
    async def _load(self) -> AsyncIterator[None]:
        """A little of everything, before and all through."""
        rates = Rates(uploads=30, reads=30, deletes=15, reads_of_deleted=10)
        load = Load(self.cluster.directory.address, self.recorder, rates, self.dice.randrange(2**32))
        load.start()
        try:
            yield
        finally:
            await load.stop()

    async def _start(self, node: Node) -> None:
        """Start it again; nothing is left of what it was at."""
        await asyncio.to_thread(node.start)
        leftovers = [text for text in self._compacting.leftovers() if text.startswith(node.name)]
        assert not leftovers, leftovers

    async def _require_right(self, what: str) -> None:
        await full_strength(self.cluster, within_seconds=HEAL_SECONDS)
        self._killed += 1
        self.outcomes[what.partition(" before")[0]] += 1
        print(f"{self._killed}: {what}; {dict(self.recorder.counts)}", flush=True)
        assert not self.recorder.wrong, (what, self.recorder.wrong)
        if self._killed % 10 == 0:
            await verify_photos(self.cluster, self.recorder)

    async def _until_tidy(self) -> list[str]:
        """What is prepared is given up in the end, when the Directory that wanted it is not there any more."""
        deadline = time.monotonic() + HOLD_SECONDS + HEAL_SECONDS
        while (found := self._compacting.leftovers()) and time.monotonic() < deadline:  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.2)
        return found

    async def finish(self) -> None:
        """Compare everything."""
        await settled(self.cluster, self.recorder, within_seconds=HEAL_SECONDS)
        await verify_photos(self.cluster, self.recorder)
        leftovers = await self._until_tidy()
        assert not leftovers, leftovers
        done = await self._compacting.compact()
        assert done["state"] == "done", done
        await verify_photos(self.cluster, self.recorder)
        await full_strength(self.cluster, within_seconds=HEAL_SECONDS)
        await verify_files(self.cluster)
        print(dict(self.outcomes), dict(self.recorder.counts))


@contextlib.contextmanager
def _killed_by_strace(node: Node, calls: str, number: int) -> Any:
    """Have a process killed before it makes one of these calls for the time ``number``."""
    assert node.pid is not None
    command = ["strace", "-f", "-p", str(node.pid), "-o", "/dev/null", "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:signal=SIGKILL:when={number}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        tracer.stderr.readline()  # "Process … attached": from now on
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)
        tracer.stderr.close()


def has_strace() -> bool:
    return any((Path(folder) / "strace").exists() for folder in ("/usr/bin", "/bin", "/usr/local/bin"))
