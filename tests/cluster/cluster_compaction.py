"""Compactions of a real cluster's volume: under a steady load, and while its processes are killed at any step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import shutil
import subprocess
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
TIDYING_SECONDS = 0.5
"""After a compaction's end: what a Store removes then is counted, too."""

REUSED_SECONDS = 5.0
"""A compaction that goes on may make a file with the inode of one that was removed at the start."""

STORE_CALLS = ("rename", "fsync", "fdatasync", "unlink")
DIRECTORY_CALLS = ("fdatasync", "pwrite", "writev")
"""System calls whose order a crash may cut: of the Stores' supervisors, and of the Directory's storage."""
STORE_FILES = ("{volume}.vol.compact", "{volume}.members.new", "{old}", "{old}-lock")
"""Only calls on these files of a Store are counted under load, and when it is quiet those on its folder, too: what
others do to the volume and to the folder all the time would be counted instead of what a compaction does."""

NEVER = 10**9
MOST_ATTEMPTS = 5
"""A compaction may fail when those before it were killed a moment ago; then it is begun again."""


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

    async def volumes(self) -> dict[int, Any]:
        """The volumes as the Directory knows them."""
        async with HttpClient() as http:
            document = await directory_document(http, self.cluster)
        return {int(volume["volume"]): volume for volume in document["Volumes"]}

    async def begin(self, volume: int | None = None) -> None:
        """Have one volume compacted, or all."""
        request = {"volumes": None if volume is None else [volume], "now": True, "dryRun": False}
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

    async def until_garbage(self) -> int:
        """Wait until the Directory has something to compact, and nothing keeps it from that; returns a volume."""
        request = {"volumes": None, "now": True, "dryRun": True}
        deadline = time.monotonic() + COMPACT_SECONDS
        while time.monotonic() < deadline:
            said = await self.call("POST", self.cluster.directory.address, "/cluster/compactions", request)
            if said["volumes"] and not any(one["obstacle"] for one in said["volumes"]):
                return int(said["volumes"][0]["volume"])
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"nothing can be compacted after {COMPACT_SECONDS:g} s: {said}")

    async def pauses(self) -> list[float]:
        """For how long nobody could append, on each Store and for each volume, the last time; milliseconds."""
        found = []
        for store in self.cluster.stores:
            address = store.admin_url.removeprefix("http://")
            for volume in await self.volumes():
                job = await self.call("GET", address, f"/admin/volumes/{volume}/compact")
                if job.get("state") == "done":
                    found.append(1000 * job["pauseSeconds"])
        return found

    def leftovers(self, only: frozenset[int] | None = None) -> list[str]:
        """Files of compactions that are over.

        Parameters
        ----------
        only: inodes of the files to look at: another compaction may be under way.
        """
        found = []
        for store in self.cluster.stores:
            folder = self.cluster.data_of(store)
            names = [entry.name for entry in os.scandir(folder) if only is None or entry.inode() in only]
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
    volumes: int = 0
    seconds: float = 0.0

    def lines(self) -> list[str]:
        counts = sorted(self.recorder.counts.items())
        return [
            *(f"{count:8,} {what}  ({count / self.seconds:,.0f} a second)" for what, count in counts),
            f"longest pause {max(self.pauses):.1f} ms of {[round(one, 1) for one in self.pauses]}",
            f"reads without compactions: {_in_words(self.quiet)}",
            f"reads with compactions: {_in_words(self.busy)}",
            f"p99 {percentile(self.busy, 99) / percentile(self.quiet, 99):.2f} times that without compactions",
            f"{self.volumes} volumes: {self.size_bytes:,} bytes, of which {self.live_bytes:,} are live",
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
        for _ in range(times):
            load.take_latencies()
            done = await compacting.compact()
            found.busy += load.take_latencies()
            assert done["state"] == "done", done
            found.pauses += await compacting.pauses()
            await asyncio.sleep(pause_seconds)
    finally:
        found.seconds = time.monotonic() - began
        await load.stop()
    found.most_late_seconds = load.most_late_seconds
    await compacting.compact()
    await settled(cluster, recorder, within_seconds=HEAL_SECONDS)
    await verify_photos(cluster, recorder)
    volumes = await until_compact(compacting)
    found.volumes = len(volumes)
    found.live_bytes, found.size_bytes = (sum(one[what] for one in volumes) for what in ("liveBytes", "sizeBytes"))
    await full_strength(cluster, within_seconds=HEAL_SECONDS)
    await verify_files(cluster)
    assert not compacting.leftovers(), compacting.leftovers()
    return found


async def until_compact(compacting: Compacting) -> list[Any]:
    """The volumes once their sizes are those of after the compaction; at the latest after some heartbeats."""
    for _ in range(100):
        volumes = list((await compacting.volumes()).values())
        if all(one["sizeBytes"] - SUPERBLOCK_BYTES == one["liveBytes"] for one in volumes):
            break
        await asyncio.sleep(POLL_SECONDS)
    return volumes


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
            volume = await self._compacting.until_garbage()
            node = await self._node(role, volume)
            await self._compacting.begin()
            await asyncio.sleep(self.dice.random() * self.dice.choice((0.05, 0.3, 1.2)))
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(self.dice.random() * 0.5)
            await self._start(node)
        await self._require_right(f"{role} at random")

    async def at_every_call(self, role: str, *, loaded: bool) -> list[str]:
        """Kill one before each system call that it makes in a compaction, call by call; returns those calls.

        A compaction to its end says first which calls on which files there are, and how many of each.

        Parameters
        ----------
        loaded: uploads, reads and deletes go on meanwhile.
        """
        await self._compact_once()
        made = await self._record(role, loaded=loaded)
        killed: list[str] = []
        for call, times in Counter(made).items():
            for number in range(1, times + 1):
                if not await self.at_call(role, call, number, loaded=loaded):
                    break
                killed.append(f"{call}, {number} of {times}")
        return killed

    async def at_call(self, role: str, call: str, number: int, *, loaded: bool = True) -> bool:
        """Kill one before it makes a call for the time ``number`` in a compaction; False when it does not.

        Parameters
        ----------
        call: with the file's name, as ``rename {volume}.vol.compact``.
        """
        for _ in range(MOST_ATTEMPTS):
            _, node, _ = await self._at_call(role, (call,), number, loaded=loaded)
            if node is not None:
                await self._start(node)
            what = f"{role} before {call}, {number}" if node is not None else f"{role}: not killed"
            await self._require_right(what)
            if node is not None:
                return True
        assert number > 1, f"{MOST_ATTEMPTS} compactions ended without {call}"
        return False  # it is not always made as often

    async def _compact_once(self) -> None:
        """The first compaction of a volume does more, once in its life."""
        for _ in range(MOST_ATTEMPTS):
            async with self._load():
                done = await self._compacting.compact()
            if done["state"] == "done":
                return
        raise AssertionError(done)

    async def _record(self, role: str, *, loaded: bool) -> list[str]:
        """The calls of a compaction that nobody disturbs."""
        calls = DIRECTORY_CALLS if role == "directory" else STORE_CALLS
        for _ in range(MOST_ATTEMPTS):
            made, _, done = await self._at_call(role, calls, NEVER, loaded=loaded)
            if done and made:
                return made
        raise AssertionError(f"{MOST_ATTEMPTS} compactions failed although nobody was killed")

    async def _at_call(
        self, role: str, calls: Sequence[str], number: int, *, loaded: bool
    ) -> tuple[list[str], Node | None, bool]:
        """Try it once. Returns the calls that were counted, who was killed, and whether the compaction is done."""
        async with AsyncExitStack() as load:
            await load.enter_async_context(self._load())
            volume = await self._compacting.until_garbage()
            node = await self._node(role, volume)
            if not loaded:
                await load.aclose()
            done = False
            files = self._files_of(node, volume, with_folder=not loaded)
            with _killed_at_call(self.cluster, node, calls, files, number) as made:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    await self._compacting.begin(volume)
                done = await self._until_killed(node)
            if node.running and len(made) < number:
                return made, None, done
            await asyncio.to_thread(node.kill)  # the workers, should any be left
            return made, node, False

    def _files_of(self, node: Node, volume: int, *, with_folder: bool) -> dict[str, Path]:
        """The files that a compaction changes, beside the volume, by their names in calls."""
        folder = self.cluster.data_of(node)
        if node not in self.cluster.stores:
            return {"directory.lmdb": folder / "directory.lmdb"}
        (old,) = (path.name for path in folder.glob(f"{volume}.*idx"))
        files = {name: folder / name.format(volume=volume, old=old) for name in STORE_FILES}
        return {"folder": folder, **files} if with_folder else files

    async def _until_killed(self, node: Node) -> bool:
        """Wait until it is killed, or the compaction has ended; returns whether it is done."""
        deadline = time.monotonic() + COMPACT_SECONDS
        while node.running and time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                said = await self._compacting.call("GET", self.cluster.directory.address, "/cluster/compactions")
                if all(one["state"] in ("done", "failed") for one in said["compactions"]):
                    await asyncio.sleep(TIDYING_SECONDS)
                    return bool(said["compactions"]) and said["compactions"][-1]["state"] == "done"
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _node(self, role: str, number: int) -> Node:
        if role == "directory":
            return self.cluster.directory
        volume = (await self._compacting.volumes())[number]
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
        there = frozenset[int]()
        if node in self.cluster.stores:
            there = frozenset(entry.inode() for entry in os.scandir(self.cluster.data_of(node)))
        await asyncio.to_thread(node.start)
        deadline = time.monotonic() + REUSED_SECONDS
        while leftovers := [text for text in self._compacting.leftovers(there) if text.startswith(node.name)]:
            assert time.monotonic() < deadline, leftovers
            await asyncio.sleep(POLL_SECONDS)

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
        async with self._load():  # the last one killed may have left nothing to be won
            await self._compacting.until_garbage()
        done = await self._compacting.compact()
        assert done["state"] == "done", done
        await settled(self.cluster, self.recorder, within_seconds=HEAL_SECONDS)
        await verify_photos(self.cluster, self.recorder)
        await full_strength(self.cluster, within_seconds=HEAL_SECONDS)
        await verify_files(self.cluster)
        print(dict(self.outcomes), dict(self.recorder.counts))


def kill_environ(folder: Path) -> dict[str, str]:
    """Build what counts system calls; returns the environment of the nodes that are to be killed by it."""
    library = folder / "kill_at_call.so"
    source = Path(__file__).with_name("kill_at_call.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-lpthread"], check=True)
    return {"LD_PRELOAD": str(library), "KILL_AT_CALL": str(folder / "kill")}


@contextlib.contextmanager
def _killed_at_call(
    cluster: Cluster, node: Node, calls: Sequence[str], files: dict[str, Path], number: int
) -> Iterator[list[str]]:
    """Have a node killed before it makes one of these calls for the time ``number``.

    Parameters
    ----------
    calls: names of system calls, each maybe with the name of the only file that counts.
    files: what else counts.

    Gives a list that has the calls that were counted, with the names of files, afterwards.
    """
    order = Path(cluster.options.environ["KILL_AT_CALL"])
    log = order.with_name(order.name + ".log")
    made: list[str] = []
    named = {call.partition(" ")[2] for call in calls} - {""}
    paths = {str(path): name for name, path in files.items() if not named or name in named}
    lines = [f"{node.pid} {number} {time.monotonic_ns()}", "".join(f"{call.split()[0]} " for call in calls), *paths]
    prepared = order.with_suffix(".new")
    prepared.write_text("".join(f"{line}\n" for line in lines))
    prepared.replace(order)
    try:
        yield made
    finally:
        with order.open() as given:
            fcntl.flock(given, fcntl.LOCK_EX)  # a call in the middle of being counted, or a process being killed, ends
            order.unlink()
        if log.exists():
            found = (line.partition(" ") for line in log.read_text().splitlines())
            made += [f"{call} {paths[path]}" for call, _, path in found]
            log.unlink()


def has_compiler() -> bool:
    return shutil.which("cc") is not None
