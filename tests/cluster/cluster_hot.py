"""A cluster whose volumes are read very unevenly, and what is measured of it: load by Store, failed reads, latencies.

Reads come at a fixed rate, whatever the cluster does. As a client does, each read draws a location by weight from what
was looked up a moment ago, tries the next ones when it does not answer, and looks up again before it gives up.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from cluster_http import HttpClient, NoAnswer
from cluster_light import LightClient, LightRead, Ticker
from cluster_nodes import Cluster

from haystack.weighted import weighted_order

LOOKUP_SECONDS = 1.0
"""How long a location is believed."""

READ_TIMEOUT_SECONDS = 5.0
MAX_AT_ONCE = 2_000


@dataclass(slots=True)
class Measured:
    """What was seen in one stretch of time."""

    began: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    by_store: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def note(self, store: str, seconds: float) -> None:
        """A read was answered."""
        self.by_store[store] += 1
        self.seconds.append(seconds)

    @property
    def worst(self) -> float:
        """Reads of the busiest Store, as a multiple of the mean."""
        return max(self.by_store.values()) * len(self.by_store) / sum(self.by_store.values())

    def percentile_ms(self, share: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * share)] * 1000

    def in_words(self) -> str:
        rate = len(self.seconds) / (time.monotonic() - self.began)
        return (
            f"{len(self.seconds)} reads ({rate:.0f}/s), {len(self.failed)} failed, busiest Store {self.worst:.2f} "
            f"times the mean, p50 {self.percentile_ms(0.5):.1f} ms, p99 {self.percentile_ms(0.99):.1f} ms"
        )


class HotReads:
    """Readers of a cluster.

    Parameters
    ----------
    photos: fids with their contents, by volume.
    stores: addresses of all Stores.
    """

    def __init__(
        self, directory: str, photos: Mapping[int, Sequence[tuple[str, bytes]]], stores: Sequence[str], seed: int
    ) -> None:
        self._directory = directory
        self._photos = photos
        self._stores = stores
        self._dice = random.Random(seed)
        self._http = HttpClient()
        self._light = LightClient(timeout_seconds=READ_TIMEOUT_SECONDS)
        self._known: dict[int, _Known] = {}
        self._lookups: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._volumes: list[int] = []
        self._bounds: list[float] = []
        self._ticker: Ticker | None = None
        self.measured = self._fresh()

    def heat(self, order: Sequence[int], exponent: float = 1.0) -> None:
        """Read volumes by Zipf's law, those most that stand first."""
        self._volumes = list(order)
        self._bounds = list(accumulate(1 / rank**exponent for rank in range(1, len(order) + 1)))

    def restart(self) -> Measured:
        """Begin to measure anew; returns what was measured until now."""
        before, self.measured = self.measured, self._fresh()
        return before

    def start(self, per_second: float) -> None:
        self._ticker = Ticker(per_second, self._begin)

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
        await self._light.close()
        await asyncio.gather(*self._running)
        await self._http.__aexit__()

    def _fresh(self) -> Measured:
        return Measured(by_store=Counter(dict.fromkeys(self._stores, 0)))

    def _begin(self) -> None:
        """Begin a read where a volume was found to be; what does not come back well is tried elsewhere in a task."""
        volume = self._dice.choices(self._volumes, cum_weights=self._bounds)[0]
        fid, content = self._dice.choice(self._photos[volume])
        if self._light.in_flight + len(self._running) >= MAX_AT_ONCE:
            self.measured.failed.append("not begun: too many reads wait")
            return
        known = self._known.get(volume)
        if known is None or known.until < time.monotonic():
            self._refresh(volume)
        locations = [] if known is None else known.drawn(self._dice.random)
        if not locations:
            self.go_on(_Reading(self, volume, fid, content, time.monotonic()))
            return
        self._light.begin(_FirstRead(self, locations, volume, fid, content))

    def go_on(self, reading: _Reading) -> None:
        """Try the other locations, then those of a fresh lookup."""
        task = asyncio.create_task(self._read(reading))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _read(self, reading: _Reading) -> None:
        problems = list(reading.problems)
        for fresh in (False, True):
            urls = reading.others
            if fresh or not problems:
                await self._refresh(reading.volume)
                known = self._known.get(reading.volume)
                urls = [] if known is None else known.drawn(self._dice.random)
            for url in urls:
                problem = await self._read_at(url, reading.fid, reading.content)
                if not problem:
                    reading.measured.note(url, time.monotonic() - reading.began)
                    return
                problems.append(problem)
        reading.measured.failed.append(f"{time.strftime('%X')} {reading.fid}: {problems}")

    async def _read_at(self, url: str, fid: str, content: bytes) -> str:
        try:
            answer = await self._http.request("GET", url, f"/{fid}", timeout_seconds=READ_TIMEOUT_SECONDS)
        except NoAnswer as problem:
            return f"{url}: {problem}"
        if answer.status != 200:
            return f"{url}: {answer.status}"
        return "" if answer.body == content else f"{url}: other bytes"

    def _refresh(self, volume: int) -> asyncio.Task[None]:
        """Look a volume up, once at a time; until the answer is there what was known is believed."""
        if volume not in self._lookups:
            self._lookups[volume] = asyncio.create_task(self._look_up(volume))
        return self._lookups[volume]

    async def _look_up(self, volume: int) -> None:
        path = f"/dir/lookup?volumeId={volume}"
        try:
            answer = await self._http.request("GET", self._directory, path, timeout_seconds=READ_TIMEOUT_SECONDS)
            if answer.status == 200:
                self._known[volume] = _Known.of(answer.json()["locations"])
        except NoAnswer:
            pass  # what was known is tried; a read that finds nothing counts as failed
        finally:
            del self._lookups[volume]


@dataclass(frozen=True, slots=True)
class _Known:
    """Where a volume is, and until when that is believed."""

    until: float
    urls: list[str]
    weights: list[float]

    @classmethod
    def of(cls, locations: Sequence[dict[str, Any]]) -> _Known:
        urls, weights = [one["url"] for one in locations], [float(one["weight"]) for one in locations]
        return cls(time.monotonic() + LOOKUP_SECONDS, urls, weights)

    def drawn(self, dice: Callable[[], float]) -> list[str]:
        """Return the addresses in the order in which one reader tries them."""
        return self.urls if len(self.urls) == 1 else list(weighted_order(self.urls, self.weights, dice))


class _Reading:
    """A read that goes on after its first location."""

    def __init__(
        self,
        reads: HotReads,
        volume: int,
        fid: str,
        content: bytes,
        began: float,
        others: Sequence[str] = (),
        problems: Sequence[str] = (),
    ) -> None:
        self.measured = reads.measured
        self.volume, self.fid, self.content, self.began = volume, fid, content, began
        self.others, self.problems = others, problems


class _FirstRead(LightRead):
    """A read at its first location."""

    __slots__ = ("_content", "_fid", "_locations", "_measured", "_reads", "_volume")

    def __init__(self, reads: HotReads, locations: list[str], volume: int, fid: str, content: bytes) -> None:
        super().__init__(locations[0], f"/{fid}".encode())
        self._reads, self._locations = reads, locations
        self._volume, self._fid, self._content = volume, fid, content
        self._measured = reads.measured

    def answered(self, status: int, body: memoryview) -> None:
        if status == 200 and body == self._content:
            self._measured.note(self.address, time.monotonic() - self.begun_seconds)
        else:
            self.unanswered(f"{self.address}: {status}" if status != 200 else f"{self.address}: other bytes")

    def unanswered(self, problem: str) -> None:
        reads, others = self._reads, self._locations[1:]
        reading = _Reading(reads, self._volume, self._fid, self._content, self.begun_seconds, others, [problem])
        reading.measured = self._measured
        reads.go_on(reading)


async def fill(cluster: Cluster, photos: int, size_bytes: int, seed: int) -> dict[int, list[tuple[str, bytes]]]:
    """Store photos; returns fids with their contents, by volume."""
    dice = random.Random(seed)
    found: dict[int, list[tuple[str, bytes]]] = {}
    async with HttpClient() as http:

        async def put() -> None:
            content = dice.randbytes(size_bytes)
            for _ in range(20):
                answer = await http.request("GET", cluster.directory.address, "/dir/assign", timeout_seconds=10.0)
                if answer.status == 200:
                    break
            assigned = answer.json()
            stored = await http.request("PUT", assigned["url"], f"/{assigned['fid']}", content, timeout_seconds=10.0)
            assert stored.status == 201, stored.body
            found.setdefault(int(assigned["fid"].partition(",")[0]), []).append((assigned["fid"], content))

        for start in range(0, photos, 4):
            await asyncio.gather(*(put() for _ in range(min(4, photos - start))))
    return found


async def command(cluster: Cluster, *arguments: str) -> tuple[int, str, str]:
    """Run ``haystack`` beside the event loop; returns exit code, output and errors."""
    environ = {**os.environ, **cluster.environ, "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tools.cli",
        *arguments,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def plan_of(cluster: Cluster) -> dict[str, Any]:
    """Return the plan as ``haystack rebalance --json`` tells it."""
    code, output, errors = await command(cluster, "rebalance", "--json")
    assert code == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found
