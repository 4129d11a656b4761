"""Faults of a cluster with a Cache, under load: Cache, Stores and Directory are killed and frozen in turn.

Clients read through the Cache and go to Stores when it does not answer, as ``haystack.client`` does; others ask a Cache
alone, and take whatever it says. What must never be seen: other bytes than were stored, a photo whose delete was
acknowledged a second ago or longer, and a client's read that fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cluster_nodes import Cluster, Node

from haystack.client import HaystackClient
from haystack.errors import HaystackError
from haystack.fid import Fid

GONE_AFTER_SECONDS = 1.0
SIZES = (2_000, 20_000, 100_000, 700_000)
WARM_UP_SECONDS = 3.0
FAULT_SECONDS = (1.0, 6.0)
REST_SECONDS = 4.0
MAX_AT_ONCE = 300


@dataclass(slots=True)
class Report:
    """What was seen."""

    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def lines(self) -> list[str]:
        """Return it for people."""
        sums = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return [*self.faults, sums, f"slowest read of a client {self.slowest_seconds:.2f} s", *self.wrong, *self.failed]

    def check(self) -> None:
        assert not self.wrong, self.wrong[:10]
        assert not self.failed, self.failed[:10]
        assert self.counts["hit"] > 100, self.counts
        assert self.counts["deleted photos asked for"] > 10, self.counts


class CacheChaos:
    """Load and faults on one cluster.

    Parameters
    ----------
    reads: of clients in a second; as many go to the Cache alone.
    """

    def __init__(self, cluster: Cluster, seed: int, reads: float) -> None:
        self.report = Report()
        self._cluster = cluster
        self._dice = random.Random(seed)
        self._reads = reads
        self._photos: dict[Fid, bytes] = {}
        self._deleted: list[tuple[float, Fid]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._client: HaystackClient
        self._session: aiohttp.ClientSession

    async def run(self, seconds: float) -> Report:
        """Run for so long."""
        url = f"http://{self._cluster.directory.address}"
        timeout = aiohttp.ClientTimeout(total=4)
        async with (
            HaystackClient(url, internal=True, max_concurrency=2 * MAX_AT_ONCE) as self._client,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as self._session,
        ):
            for _ in range(60):
                await self._upload()
            load = asyncio.create_task(self._load())
            try:
                await asyncio.sleep(WARM_UP_SECONDS)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    for fault in self._faults():
                        await self._suffer(*fault)
                        if time.monotonic() >= end:
                            break
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
                await asyncio.gather(*self._running, return_exceptions=True)
        return self.report

    # -- faults

    def _faults(self) -> list[tuple[str, Node, str]]:
        cluster = self._cluster
        store, other = self._dice.sample(cluster.stores, 2)
        cache = self._dice.choice(cluster.caches)
        faults = [
            ("kill", cache, "the Cache"),
            ("freeze", cache, "the Cache"),
            ("freeze keeper", cache, "the Cache's keeper"),
            ("kill worker", cache, "a worker of the Cache"),
            ("kill", store, store.name),
            ("freeze", other, other.name),
            ("kill", cluster.directory, "the Directory"),
            ("freeze", cluster.directory, "the Directory"),
        ]
        self._dice.shuffle(faults)
        return faults

    async def _suffer(self, what: str, node: Node, name: str) -> None:
        seconds = self._dice.uniform(*FAULT_SECONDS)
        before = Counter(self.report.counts)
        assert node.pid is not None
        if what == "kill":
            await asyncio.to_thread(node.kill)
        elif what == "freeze":
            node.freeze()
        elif what == "freeze keeper":
            os.kill(node.pid, signal.SIGSTOP)
        else:
            os.kill(self._dice.choice(_children(node.pid)), signal.SIGKILL)
        await asyncio.sleep(seconds)
        if what == "kill":
            await asyncio.to_thread(node.start)
        elif what == "freeze":
            node.thaw()
        elif what == "freeze keeper":
            os.kill(node.pid, signal.SIGCONT)
        await asyncio.sleep(REST_SECONDS)
        seen = ", ".join(f"{key} {count}" for key, count in sorted((self.report.counts - before).items()))
        self.report.faults.append(f"{what} {name} for {seconds:.1f} s: {seen}")

    # -- load

    async def _load(self) -> None:
        tick = 0.02
        next_write = time.monotonic()
        while True:
            await asyncio.sleep(tick)
            for _ in range(max(1, int(self._reads * tick))):
                self._spawn(self._read(self._some_photo()))
                self._spawn(self._ask_cache(self._some_photo()))
            if self._deleted and self._dice.random() < 0.5:
                self._spawn(self._read_deleted())
            if time.monotonic() >= next_write:
                next_write += 0.15
                self._spawn(self._upload())
                if len(self._photos) > 100:
                    self._spawn(self._delete())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._running) >= MAX_AT_ONCE:
            self.report.counts["not begun, too many at once"] += 1
            work.close()
            return
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _some_photo(self) -> Fid:
        """The newest are read most."""
        fids = list(self._photos)
        return fids[-1 - min(int(self._dice.expovariate(1 / 25)), len(fids) - 1)]

    async def _upload(self) -> None:
        body = self._dice.randbytes(self._dice.choice(SIZES))
        try:
            stored = await self._client.upload(body)
        except HaystackError:
            self.report.counts["uploads refused"] += 1
            return
        self._photos[stored.fid] = hashlib.sha256(body).digest()

    async def _delete(self) -> None:
        fid = self._dice.choice(list(self._photos))
        del self._photos[fid]  # whatever becomes of it, nobody relies on it from now on
        try:
            await self._client.delete(fid)
        except HaystackError:
            self.report.counts["deletes refused"] += 1
            return
        self._deleted.append((time.monotonic(), fid))

    async def _read(self, fid: Fid) -> None:
        digest = self._photos[fid]
        began = time.monotonic()
        try:
            body = await self._client.read(fid)
        except HaystackError as error:
            if fid in self._photos:
                self.report.failed.append(f"{fid}: {type(error).__name__}: {error}")
            return
        self.report.slowest_seconds = max(self.report.slowest_seconds, time.monotonic() - began)
        self.report.counts["clients' reads"] += 1
        self._compare(fid, digest, body, "a client")

    async def _ask_cache(self, fid: Fid) -> None:
        digest = self._photos[fid]
        address = self._dice.choice(self._cluster.caches).address
        try:
            async with self._session.get(f"http://{address}/{fid}") as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.report.counts["no answer of the Cache"] += 1
            return
        if answer.status == 200:
            self.report.counts[answer.headers["X-Cache"]] += 1
            self._compare(fid, digest, body, "the Cache")
        else:
            self.report.counts[f"status {answer.status}"] += 1
            if answer.status not in (503, 404) or (answer.status == 404 and fid in self._photos):
                self.report.wrong.append(f"{fid}: the Cache answers {answer.status} {body[:200]!r}")

    async def _read_deleted(self) -> None:
        now = time.monotonic()
        old = [(at, fid) for at, fid in self._deleted if now - at >= GONE_AFTER_SECONDS]
        if not old:
            return
        at, fid = self._dice.choice(old[-20:])
        address = self._dice.choice(self._cluster.caches).address
        self.report.counts["deleted photos asked for"] += 1
        began = time.monotonic()
        try:
            async with self._session.get(f"http://{address}/{fid}") as answer:
                status, how = answer.status, answer.headers.get("X-Cache", "")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        if status == 200:
            self.report.wrong.append(f"{fid}: deleted {began - at:.2f} s before it was asked for, and is there ({how})")

    def _compare(self, fid: Fid, digest: bytes, body: bytes, who: str) -> None:
        if hashlib.sha256(body).digest() != digest:
            self.report.wrong.append(f"{fid}: {who} got {len(body)} wrong bytes")


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(one) for one in file.read().split()]
