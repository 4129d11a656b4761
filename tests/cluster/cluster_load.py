"""Load on a cluster at a fixed rate, whatever the cluster does: uploads, reads with failover, deletes.

Uploads ask the Directory for each name and try one name only, so that a refusal is seen as such. Reads go to the
locations of the volume in random order, one after the other, with a deadline each; when none serves the photo, they ask
the Directory once more where it is. Only what fails then counts as failed. The first try of a read is made by the light
client, which is what makes thousands of them a second possible; what does not succeed goes on as a task.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_http import HttpClient, NoAnswer
from cluster_light import LightClient, LightRead, Ticker
from cluster_record import Attempt, Fate, Photo, Recorder

LOCATIONS_BELIEVED_SECONDS = 2.0
SHUNNED_SECONDS = 2.0
"""A location that did not answer in time is asked last for so long, as sensible clients do."""

TICK_SECONDS = 0.01
MAX_READS_AT_ONCE = 3000
MAX_UPLOADS_AT_ONCE = 600
SAMPLES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Rates:
    """What the load does each second, and how patient it is."""

    uploads: float = 50.0
    reads: float = 1000.0
    deletes: float = 3.0
    reads_of_deleted: float = 10.0
    read_timeout_seconds: float = 1.0
    write_timeout_seconds: float = 6.0


class Load:
    """Clients of one cluster, all in one event loop.

    Parameters
    ----------
    directory: its address, as host:port.
    """

    def __init__(self, directory: str, recorder: Recorder, rates: Rates, seed: int) -> None:
        self.recorder = recorder
        self.rates = rates
        self.most_late_seconds = 0.0
        """How long the load itself did not run: more than a moment, and what it measured is about the machine."""
        self.latencies = array("d")
        """Seconds from the begin of each read until a location had served it."""
        self._directory = directory
        self._dice = random.Random(seed)
        self._http = HttpClient()
        self._locations: dict[int, tuple[float, list[str]]] = {}
        self._lookups: dict[int, asyncio.Task[list[str]]] = {}
        self._shunned: dict[str, float] = {}
        self._running: set[asyncio.Task[object]] = set()
        self._drivers: list[asyncio.Task[None]] = []
        self._light: LightClient | None = None
        self._reading: Ticker | None = None

    def start(self) -> None:
        rates = self.rates
        if rates.reads:
            self._light = LightClient(timeout_seconds=rates.read_timeout_seconds)
            self._reading = Ticker(rates.reads, self._begin_read)
        for rate, work, most in (
            (rates.uploads, self.upload, MAX_UPLOADS_AT_ONCE),
            (rates.deletes, self.delete_one, MAX_UPLOADS_AT_ONCE),
            (rates.reads_of_deleted, self.read_deleted, MAX_UPLOADS_AT_ONCE),
        ):
            if rate:
                self._drivers.append(asyncio.create_task(self._drive(rate, work, most)))

    async def stop(self) -> None:
        """Begin nothing more, and wait for what runs."""
        if self._reading is not None:
            self._reading.stop()
            self.most_late_seconds = max(self.most_late_seconds, self._reading.most_late_seconds)
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        if self._light is not None:
            await self._light.close()
        await asyncio.gather(*self._running, *self._lookups.values())
        await self._http.__aexit__()

    async def _drive(self, per_second: float, work: Callable[[], Awaitable[None]], most: int) -> None:
        begun, began_at = 0, time.monotonic()
        now = began_at
        mine: set[asyncio.Task[object]] = set()

        async def run() -> None:
            await work()

        while True:
            await asyncio.sleep(TICK_SECONDS)
            late_seconds, now = time.monotonic() - now - TICK_SECONDS, time.monotonic()
            self.most_late_seconds = max(self.most_late_seconds, late_seconds)
            due = int((now - began_at) * per_second)
            for _ in range(due - begun):
                if len(mine) >= most:
                    self.recorder.counts[f"{work.__name__}: not begun, too many are waiting"] += 1
                    continue
                task = asyncio.create_task(run())
                for tasks in (mine, self._running):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            begun = due

    # -- writing

    async def upload(self) -> None:
        size_bytes = self._dice.choice((300, 4_000, 20_000, 60_000))
        content = self._dice.randbytes(size_bytes)
        started = time.monotonic()
        problem = await self._upload_once(content)
        self.recorder.attempts.append(Attempt(started, time.monotonic(), problem))
        self.recorder.counts["uploads refused or without answer" if problem else "uploads acknowledged"] += 1

    async def _upload_once(self, content: bytes) -> str:
        patience = self.rates.write_timeout_seconds
        try:
            answer = await self._http.request("GET", self._directory, "/dir/assign", timeout_seconds=patience)
            if answer.status != 200:
                return f"assign {answer.status}: {answer.body[:300]!r}"
            assigned = answer.json()
            fid, url = assigned["fid"], assigned["url"]
            answer = await self._http.request("PUT", url, f"/{fid}", content, timeout_seconds=patience)
        except NoAnswer as problem:
            return str(problem)
        if answer.status != 201:
            return f"PUT {url}/{fid} {answer.status}: {answer.body[:300]!r}"
        self.recorder.stored(fid, content, answer.json().get("locator", ""))
        return ""

    async def delete_one(self) -> None:
        photo = self.recorder.any_stored(self._dice)
        if photo is None:
            return
        self.recorder.deleting(photo)
        counts = self.recorder.counts
        for _ in range(5):
            for address in await self._where(photo.volume, fresh=True):
                try:
                    answer = await self._http.request(
                        "DELETE", address, f"/{photo.fid}", timeout_seconds=self.rates.write_timeout_seconds
                    )
                except NoAnswer:
                    counts["deletes without answer"] += 1
                    continue
                if answer.status == 202:
                    self.recorder.deleted(photo)
                    counts["deletes acknowledged"] += 1
                    return
                counts[f"deletes answered {answer.status}"] += 1
            await asyncio.sleep(0.5)

    # -- reading

    def take_latencies(self) -> array[float]:
        """Return what was measured since this was last asked."""
        taken, self.latencies = self.latencies, array("d")
        return taken

    def _begin_read(self) -> None:
        light = self._light
        photo = self.recorder.any_stored(self._dice)
        if photo is None or light is None:
            return
        if light.in_flight >= MAX_READS_AT_ONCE:
            self.recorder.counts["reads: not begun, too many are waiting"] += 1
            return
        address = self._one_of(photo.volume)
        if address is None:
            self._spawn(self.read(photo, time.monotonic()))
        else:
            light.begin(_FirstTry(self, photo, address))

    def _one_of(self, volume: int) -> str | None:
        """Return a location by what was looked up last; None when a read has to wait for a lookup."""
        now = time.monotonic()
        known = self._locations.get(volume)
        if known is None or known[0] < now - LOCATIONS_BELIEVED_SECONDS:
            return None
        if known[0] < now and volume not in self._lookups:  # others go on with what is known
            self._lookups[volume] = asyncio.create_task(self._look_up(volume))
        good = [address for address in known[1] if self._shunned.get(address, 0.0) <= now]
        return self._dice.choice(good) if good else None

    def go_on(self, photo: Photo, began_seconds: float, problem: str) -> None:
        """A read's first location did not serve it."""
        self._spawn(self.read(photo, began_seconds, [problem]))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def read(self, photo: Photo, began_seconds: float, failures: Sequence[str] = ()) -> bool:
        """Read a photo as a client does; notes what was wrong.

        Parameters
        ----------
        failures: what became of it at the locations that were asked already.
        """
        counts, failures = self.recorder.counts, list(failures)
        for lookup in ("remembered", "fresh"):
            for address in await self._where(photo.volume, fresh=lookup == "fresh"):
                problem = await self._read_at(photo, address)
                if not problem:
                    if failures:
                        counts[
                            "reads served by the next location" if lookup == "remembered" else "reads looked up again"
                        ] += 1
                    self.served(began_seconds)
                    return True
                failures.append(problem)
        counts["reads"] += 1
        if photo.fate is not Fate.STORED:
            return True  # a delete began meanwhile
        counts["reads failed"] += 1
        if len(self.recorder.failed) < SAMPLES_KEPT:
            self.recorder.failed.append(f"{photo.fid}: no location served it: {failures or 'no location is known'}")
        return False

    def served(self, began_seconds: float) -> None:
        self.recorder.counts["reads"] += 1
        self.latencies.append(time.monotonic() - began_seconds)

    async def _read_at(self, photo: Photo, address: str) -> str:
        try:
            answer = await self._http.request(
                "GET", address, f"/{photo.fid}", timeout_seconds=self.rates.read_timeout_seconds
            )
        except NoAnswer as problem:
            return self.missing(address, str(problem))
        return self.judged(photo, address, answer.status, answer.body)

    def missing(self, address: str, problem: str) -> str:
        """Note that there was no answer; returns what is wrong."""
        self._shunned[address] = time.monotonic() + SHUNNED_SECONDS
        self.recorder.counts["answers missing"] += 1
        return problem

    def judged(self, photo: Photo, address: str, status: int, body: bytes | memoryview) -> str:
        """Compare an answer with what was stored; returns why another location has to be asked."""
        if status != 200:
            self.recorder.counts[f"answers {status}"] += 1
            return f"{address} {status} {bytes(body[:200])!r}"
        if not photo.is_content(body):
            self._wrong(f"{photo.fid}: wrong bytes from {address} ({len(body)} of {photo.size_bytes} bytes)")
        return ""

    async def read_deleted(self) -> None:
        """Ask a location that the Directory names now for a photo whose delete was acknowledged."""
        photo = self.recorder.any_deleted(self._dice)
        if photo is None:
            return
        try:
            # Not one that is under way: it may have been answered before the delete was acknowledged.
            addresses = await self._ask_where(photo.volume)
        except NoAnswer:
            return
        for address in self._dice.sample(addresses, min(1, len(addresses))):
            try:
                answer = await self._http.request(
                    "GET", address, f"/{photo.fid}", timeout_seconds=self.rates.read_timeout_seconds
                )
            except NoAnswer:
                return
            self.recorder.counts["reads of deleted photos"] += 1
            if answer.status == 200:
                self._wrong(f"{photo.fid}: was deleted, and {address} served it")

    def _wrong(self, text: str) -> None:
        self.recorder.counts["WRONG"] += 1
        if len(self.recorder.wrong) < SAMPLES_KEPT:
            self.recorder.wrong.append(text)

    async def _where(self, volume: int, *, fresh: bool = False) -> list[str]:
        """Return the addresses of a volume in random order, those that did not answer of late last."""
        known = self._locations.get(volume)
        now = time.monotonic()
        if fresh or known is None or known[0] < now:
            if volume not in self._lookups:
                self._lookups[volume] = asyncio.create_task(self._look_up(volume))
            addresses = await self._lookups[volume]
        else:
            addresses = known[1]
        shuffled = self._dice.sample(addresses, len(addresses))
        return sorted(shuffled, key=lambda address: self._shunned.get(address, 0.0) > now)

    async def _look_up(self, volume: int) -> list[str]:
        try:
            addresses = await self._ask_where(volume)
            if addresses:
                self._locations[volume] = (time.monotonic() + LOCATIONS_BELIEVED_SECONDS, addresses)
        except NoAnswer:
            self.recorder.counts["lookups without answer"] += 1
        finally:
            del self._lookups[volume]
        return self._locations.get(volume, (0.0, []))[1]

    async def _ask_where(self, volume: int) -> list[str]:
        """Ask the Directory. Raises NoAnswer."""
        path, patience = f"/dir/lookup?volumeId={volume}", self.rates.read_timeout_seconds
        answer = await self._http.request("GET", self._directory, path, timeout_seconds=patience)
        return [location["url"] for location in answer.json()["locations"]] if answer.status == 200 else []


class _FirstTry(LightRead):
    """A read at the first location that it is tried at."""

    __slots__ = ("_load", "_photo")

    def __init__(self, load: Load, photo: Photo, address: str) -> None:
        super().__init__(address, b"/" + photo.fid.encode())
        self._load = load
        self._photo = photo

    def answered(self, status: int, body: memoryview) -> None:
        problem = self._load.judged(self._photo, self.address, status, body)
        if problem:
            self._load.go_on(self._photo, self.begun_seconds, problem)
        else:
            self._load.served(self.begun_seconds)

    def unanswered(self, problem: str) -> None:
        self._load.go_on(self._photo, self.begun_seconds, self._load.missing(self.address, problem))
