"""Uploads, deletes and reads that go on while a volume is compacted, each checked: for the tests and the campaign."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from supervisor_harness import StoreProcess, fid, until_async

DAY_MS = 86_400_000


def photo(key: int, version: int = 0) -> bytes:
    rng = random.Random(key * 1000 + version)
    return rng.randbytes(rng.randint(1, 6000))


def order(**more: Any) -> dict[str, Any]:
    """Leaves out all that is deleted."""
    return {"nowMs": time.time_ns() // 1_000_000, "trashMs": 0, "snapshots": []} | more


async def compact(store: StoreProcess, volume: int, **more: Any) -> dict[str, Any]:
    """Compact a volume, and return what came of it."""
    path = f"/admin/volumes/{volume}/compact"
    await store.admin("POST", path, order(**more), expect=202)

    async def ended() -> Any:
        job = await store.admin("GET", path, expect=200)
        return job if job["state"] in ("done", "failed") else None

    job: dict[str, Any] = await until_async(ended, "compaction")
    return job


@dataclass
class Load:
    """Clients of one volume.

    Parameters
    ----------
    live, deleted: what the clients were told is stored, and what is not any more; keys.
    locators: by which each photo was once stored.
    failures: answers that no client should get.
    """

    store: StoreProcess
    volume: int
    seed: int = 0
    live: dict[int, bytes] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    locators: dict[int, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"put": 0, "delete": 0, "read": 0})
    stopped: bool = False

    def __post_init__(self) -> None:
        self._next = 1
        self._busy: set[int] = set()
        self._rng = random.Random(self.seed)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.store.port}/{name}"

    async def fill(self, count: int) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(count):
                await self.put(session)

    async def run(
        self, *, putters: int = 2, deleters: int = 1, readers: int = 3, rates: tuple[float, ...] = ()
    ) -> None:
        """Go on until ``stopped``.

        Parameters
        ----------
        rates: uploads, deletes and reads a second; by default as many as there is time for.
        """
        kinds = ((self.put, putters), (self.delete, deleters), (self.read, readers))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            clients = []
            for place, (act, count) in enumerate(kinds):
                pause = count / rates[place] if rates else 0.0
                clients += [self._repeat(act, session, pause) for _ in range(count)]
            await asyncio.gather(*clients)

    async def _repeat(self, act: Any, session: aiohttp.ClientSession, pause: float) -> None:
        due = time.monotonic() + self._rng.random() * pause
        while not self.stopped:
            try:
                await act(session)
            except (aiohttp.ClientError, OSError) as error:
                self.failures.append(f"{act.__name__}: {type(error).__name__} {error}")
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def put(self, session: aiohttp.ClientSession) -> None:
        again = self._rng.random() < 0.2 and self.live
        key = self._rng.choice(list(self.live)) if again else self._next
        if key in self._busy or key in self.deleted:
            return
        self._next += not again
        self._busy.add(key)
        data = photo(key, self._rng.randint(0, 99))
        async with session.put(self.url(fid(self.volume, key)), data=data) as answer:
            body = await answer.read()
        if answer.status == 201:
            self.live[key] = data
            self.locators[key] = (await answer.json())["locator"]
            self.counts["put"] += 1
        else:
            self.failures.append(f"put {key}: {answer.status} {body[:300]!r}")
        self._busy.discard(key)

    async def delete(self, session: aiohttp.ClientSession) -> None:
        idle = [key for key in self.live if key not in self._busy]
        if len(idle) < 20:
            await asyncio.sleep(0.01)
            return
        key = self._rng.choice(idle)
        self._busy.add(key)
        async with session.delete(self.url(fid(self.volume, key))) as answer:
            body = await answer.read()
        if answer.status == 202:
            del self.live[key]
            self.deleted.add(key)
            self.counts["delete"] += 1
        else:
            self.failures.append(f"delete {key}: {answer.status} {body[:300]!r}")
        self._busy.discard(key)

    async def read(self, session: aiohttp.ClientSession) -> None:
        if self.deleted and self._rng.random() < 0.3:
            key = self._rng.choice(list(self.deleted))
            name, expected = fid(self.volume, key), None
        elif self.live:
            key = self._rng.choice(list(self.live))
            if key in self._busy:
                return
            name, expected = fid(self.volume, key), self.live[key]
            if self._rng.random() < 0.2:
                name = self.locators[key]
        else:
            return
        began = time.perf_counter()
        async with session.get(self.url(name)) as answer:
            body = await answer.read()
        self.latencies.append(time.perf_counter() - began)
        self.counts["read"] += 1
        if key in self._busy or self.live.get(key) is not expected:
            return  # changed meanwhile
        right = (answer.status == 200 and body == expected) if expected is not None else answer.status == 404
        if not right:
            self.failures.append(f"read {name}: {answer.status} {body[:200]!r}")

    async def require_all(self) -> None:
        """Everything live is as it was stored, everything deleted is gone, by name and by the last locator."""
        async with aiohttp.ClientSession() as session:
            for key in (*self.live, *self.deleted):
                for name in (fid(self.volume, key), self.locators[key]):
                    async with session.get(self.url(name)) as answer:
                        body = await answer.read()
                    if key in self.deleted:
                        assert answer.status == 404, (name, answer.status)
                    else:
                        assert (answer.status, body) == (200, self.live[key]), (name, answer.status, body[:100])
