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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from cluster_http import HttpClient, NoAnswer
from cluster_nodes import Cluster

from haystack.weighted import weighted_order

LOOKUP_SECONDS = 1.0
"""How long a location is believed."""

TICK_SECONDS = 0.005
READ_TIMEOUT_SECONDS = 5.0
MAX_AT_ONCE = 2_000


@dataclass(slots=True)
class Measured:
    """What was seen in one stretch of time."""

    began: float = field(default_factory=time.monotonic)
    seconds: list[float] = field(default_factory=list)
    by_store: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

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
        self._known: dict[int, tuple[float, list[dict[str, Any]]]] = {}
        self._lookups: dict[int, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._volumes: list[int] = []
        self._bounds: list[float] = []
        self._driver: asyncio.Task[None] | None = None
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
        self._driver = asyncio.create_task(self._drive(per_second))

    async def stop(self) -> None:
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
        await asyncio.gather(*self._running)
        await self._http.__aexit__()

    def _fresh(self) -> Measured:
        return Measured(by_store=Counter(dict.fromkeys(self._stores, 0)))

    async def _drive(self, per_second: float) -> None:
        began, begun = time.monotonic(), 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            due = int((time.monotonic() - began) * per_second)
            for _ in range(due - begun):
                if len(self._running) >= MAX_AT_ONCE:
                    self.measured.failed.append("not begun: too many reads wait")
                    continue
                task = asyncio.create_task(self._read())
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            begun = due

    async def _read(self) -> None:
        volume = self._dice.choices(self._volumes, cum_weights=self._bounds)[0]
        fid, content = self._dice.choice(self._photos[volume])
        measured, started = self.measured, time.monotonic()
        problems: list[str] = []
        for fresh in (False, True):
            for location in await self._where(volume, fresh=fresh):
                problem = await self._read_at(location["url"], fid, content)
                if not problem:
                    measured.by_store[location["url"]] += 1
                    measured.seconds.append(time.monotonic() - started)
                    return
                problems.append(problem)
        measured.failed.append(f"{time.strftime('%X')} {fid}: {problems}")

    async def _read_at(self, url: str, fid: str, content: bytes) -> str:
        try:
            answer = await self._http.request("GET", url, f"/{fid}", timeout_seconds=READ_TIMEOUT_SECONDS)
        except NoAnswer as problem:
            return f"{url}: {problem}"
        if answer.status != 200:
            return f"{url}: {answer.status}"
        assert answer.body == content, f"{fid}: other bytes from {url}"
        return ""

    async def _where(self, volume: int, *, fresh: bool) -> list[dict[str, Any]]:
        known = self._known.get(volume)
        if fresh or known is None or known[0] < time.monotonic():
            if volume not in self._lookups:
                self._lookups[volume] = asyncio.create_task(self._look_up(volume))
            if fresh or known is None:  # others are served by what was known until the answer is there
                await self._lookups[volume]
        locations = self._known[volume][1] if volume in self._known else []
        weights = [float(location["weight"]) for location in locations]
        return weighted_order(locations, weights, self._dice.random)

    async def _look_up(self, volume: int) -> None:
        path = f"/dir/lookup?volumeId={volume}"
        try:
            answer = await self._http.request("GET", self._directory, path, timeout_seconds=READ_TIMEOUT_SECONDS)
            if answer.status == 200:
                self._known[volume] = (time.monotonic() + LOOKUP_SECONDS, answer.json()["locations"])
        except NoAnswer:
            pass  # what was known is tried; a read that finds nothing counts as failed
        finally:
            del self._lookups[volume]


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
