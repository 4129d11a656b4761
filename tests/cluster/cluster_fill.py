"""Small disks that are filled to the last byte by uploads, again and again, with deletes and compactions in between.

What was acknowledged is read all through, by a reader of its own, and all of it after every step. A refusal must be one
that says so (507, or 503 with a reason); everything else is told as wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_http import Answer, HttpClient, NoAnswer
from cluster_nodes import Cluster

TIMEOUT_SECONDS = 30.0
NAMES_AHEAD = 200
"""Photos of one volume that are named before it is full: uploads that come late."""

SIZES = (200_000, 50_000, 5_000, 300, 10)

REFUSED = (507, 503, 409)
"""The disk is full; nothing can be assigned; the volume has no room. Each with the reason."""

DELETES_REPORTED_SECONDS = 20.0
"""Within which the Directory knows what is garbage."""

REPORTED_SECONDS = 0.3
"""After a refusal: until the Directory has heard that a volume is full, and names another one."""

WRITABLE_SECONDS = 20.0
REFUSALS = 4
"""In a row, before a size counts as refused."""

COMPACTED_SECONDS = 60.0
COMMAND_SECONDS = 300.0


@dataclass(slots=True)
class Round:
    """What one round came to."""

    stored_bytes: int = 0
    stored: int = 0
    free_bytes: int = 0
    deleted: int = 0
    won_bytes: int = 0

    def line(self) -> str:
        return (
            f"{self.stored:6,} photos, {self.stored_bytes / 2**20:6.1f} MiB stored until the disks were full "
            f"({self.free_bytes:,} bytes free), {self.deleted:,} deleted, {self.won_bytes / 2**20:.1f} MiB won"
        )


@dataclass(slots=True)
class Filling:
    """Clients of a cluster whose Stores have small disks.

    Parameters
    ----------
    disks: the Stores' data folders, each a file system of its own.
    sizes: of uploads, until each is refused.
    live: what was acknowledged and not deleted, by fid.
    """

    cluster: Cluster
    disks: list[Path]
    dice: random.Random
    sizes: Sequence[int] = SIZES
    live: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    ahead: list[tuple[str, str]] = field(default_factory=list)
    """Names with their addresses that were assigned and not used yet."""

    async def run(self, rounds: int) -> list[Round]:
        """Fill, delete and compact so many times. Raises AssertionError when something was lost."""
        done = []
        async with HttpClient() as http:
            reader = asyncio.create_task(self._read_for_ever(http))
            try:
                for _ in range(rounds):
                    done.append(await self._round(http))
                    print(done[-1].line())
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            await self._read_all(http)
        assert not self.wrong, self.wrong[:10]
        return done

    async def _round(self, http: HttpClient) -> Round:
        before = sum(map(len, self.live.values()))
        count = len(self.live)
        await self._until_writable(http)
        for size_bytes in self.sizes:
            await self._upload_until_full(http, size_bytes)
        one = Round(sum(map(len, self.live.values())) - before, len(self.live) - count)
        await self._read_all(http)
        one.free_bytes = min(map(_free_bytes, self.disks))
        await self._to_the_last_byte(http)
        await self._read_all(http)
        one.deleted = await self._delete(http, 0.6)
        full_bytes = self._volume_bytes()
        await self._compact(http)
        one.won_bytes = full_bytes - self._volume_bytes()
        await self._read_all(http)
        return one

    async def _until_writable(self, http: HttpClient) -> None:
        """The Stores have registered, and have noticed what was won. Without a restart."""
        async with asyncio.timeout(WRITABLE_SECONDS):
            while not await self._assign(http):  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(REPORTED_SECONDS)

    # -- uploads

    async def _upload_until_full(self, http: HttpClient, size_bytes: int) -> None:
        refused, named = 0, True
        while refused < REFUSALS:
            # An assign that finds no room waits for some before it says so; names from before may still fit.
            named = named and await self._assign(http)
            if not self.ahead:
                return
            if await self._upload(http, self.dice.randint(max(1, size_bytes // 2), size_bytes)):
                refused = 0
            else:
                refused += 1
                await asyncio.sleep(REPORTED_SECONDS)

    async def _upload(self, http: HttpClient, size_bytes: int) -> bool:
        fid, url = self.ahead.pop()
        data = self.dice.randbytes(size_bytes)
        answer = await self._ask(http, "PUT", url, f"/{fid}", data)
        if answer.status == 201:
            self.live[fid] = data
            return True
        self._require_refusal(answer, f"PUT {fid}", REFUSED)
        return False

    async def _assign(self, http: HttpClient) -> bool:
        """Take new names for photos; when there are none, those of before stay."""
        answer = await self._ask(http, "GET", self.cluster.directory.address, f"/dir/assign?photos={NAMES_AHEAD}")
        if answer.status == 200:
            said = answer.json()
            self.ahead = [(fid, said["url"]) for fid in said["fids"]]
            return True
        self._require_refusal(answer, "assign", (503,))
        return False

    async def _to_the_last_byte(self, http: HttpClient) -> None:
        """Something else takes what is left of the disks: uploads and deletes find no room, or do, and lose nothing."""
        fillers = [take_all(disk) for disk in self.disks]
        for fid, url in self.ahead[:REFUSALS]:
            data = self.dice.randbytes(self.dice.choice((10, 3000, 100_000)))
            answer = await self._ask(http, "PUT", url, f"/{fid}", data)
            if answer.status == 201:
                self.live[fid] = data
            else:
                self._require_refusal(answer, f"PUT {fid} on a full disk", REFUSED)
        for fid in self.dice.sample(list(self.live), min(REFUSALS, len(self.live))):
            await self._delete_one(http, fid, REFUSED)
        for filler in fillers:
            filler.unlink()

    # -- deletes, and what they win

    async def _delete(self, http: HttpClient, share: float) -> int:
        chosen = [fid for fid in list(self.live) if self.dice.random() < share]
        for fid in chosen:
            for _ in range(50):
                if await self._delete_one(http, fid, REFUSED):
                    break
                await asyncio.sleep(0.2)
            else:
                self.wrong.append(f"{fid} cannot be deleted although there is room")
        return len(chosen)

    async def _delete_one(self, http: HttpClient, fid: str, refusals: tuple[int, ...]) -> bool:
        url = (await self._locations(http, fid))[0]
        data = self.live.pop(fid)
        answer = await self._ask(http, "DELETE", url, f"/{fid}?now=true")
        if answer.status in (202, 404):
            self.deleted.add(fid)
            return True
        self.live[fid] = data
        self._require_refusal(answer, f"DELETE {fid}", refusals)
        return False

    async def _deletes_reported(self, http: HttpClient) -> None:
        """Wait until the Directory counts the photos that there are, and no more."""
        counted = -1
        async with asyncio.timeout(DELETES_REPORTED_SECONDS):
            while counted != len(self.live):
                answer = await self._ask(http, "GET", self.cluster.directory.address, "/dir/status")
                counted = sum(volume["liveCount"] for volume in answer.json()["Volumes"])
                await asyncio.sleep(REPORTED_SECONDS / 3)

    async def _compact(self, http: HttpClient) -> None:
        """Compact until nothing is to be won any more: what is won makes room for more."""
        said: Any = None
        deadline = time.monotonic() + COMPACTED_SECONDS
        while time.monotonic() < deadline:
            await self._deletes_reported(http)
            said = await self._command("volume", "compact", "--all", "--now", "--apply", "--json")
            self.counts["compactions"] += sum(one["state"] == "done" for one in said["compactions"])
            self.counts["compactions without room"] += sum(bool(one["obstacle"]) for one in said["volumes"])
            if not said["volumes"]:
                return
            if all(one["obstacle"] for one in said["volumes"]):
                await asyncio.sleep(REPORTED_SECONDS)  # the Store looks at its free space again
        self.wrong.append(f"compactions do not come to an end: {said}")

    async def _command(self, *arguments: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tools.cli",
            *arguments,
            env=self.cluster.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_SECONDS):
            output, errors = await process.communicate()
        assert output, errors.decode()
        return json.loads(output)

    # -- reads

    async def _read_for_ever(self, http: HttpClient) -> None:
        while True:
            await asyncio.sleep(0.005)
            if self.live:
                await self._read(http, self.dice.choice(list(self.live)))

    async def _read_all(self, http: HttpClient) -> None:
        for fid in list(self.live):
            await self._read(http, fid)
        for fid in self.dice.sample(sorted(self.deleted), min(50, len(self.deleted))):
            for url in await self._locations(http, fid):
                answer = await self._ask(http, "GET", url, f"/{fid}")
                if answer.status != 404:
                    self.wrong.append(f"{fid} was deleted, and is answered {answer.status}")
        assert not self.wrong, self.wrong[:10]

    async def _read(self, http: HttpClient, fid: str) -> None:
        data = self.live.get(fid)
        for url in await self._locations(http, fid):
            answer = await self._ask(http, "GET", url, f"/{fid}")
            self.counts["reads"] += 1
            if self.live.get(fid) is data and data is not None and (answer.status, answer.body) != (200, data):
                self.wrong.append(f"{fid} at {url}: {answer.status} {answer.body[:200]!r}")

    async def _locations(self, http: HttpClient, fid: str) -> list[str]:
        path = f"/dir/lookup?volumeId={fid.partition(',')[0]}"
        answer = await self._ask(http, "GET", self.cluster.directory.address, path)
        return [one["url"] for one in answer.json()["locations"]]

    # -- inside

    async def _ask(self, http: HttpClient, method: str, address: str, path: str, body: bytes = b"") -> Answer:
        try:
            answer = await http.request(method, address, path, body, timeout_seconds=TIMEOUT_SECONDS)
        except NoAnswer as error:
            self.wrong.append(str(error))
            return Answer(599, b"{}")
        self.counts[f"{method} answered {answer.status}"] += 1
        return answer

    def _require_refusal(self, answer: Answer, what: str, statuses: tuple[int, ...]) -> None:
        if answer.status not in statuses or not answer.json().get("error"):
            self.wrong.append(f"{what}: {answer.status} {answer.body[:300]!r}")

    def _volume_bytes(self) -> int:
        return sum(path.stat().st_size for disk in self.disks for path in disk.glob("*.vol"))


def _free_bytes(disk: Path) -> int:
    space = os.statvfs(disk)
    return space.f_bavail * space.f_frsize


def take_all(disk: Path, leave_bytes: int = 0) -> Path:
    """Fill a disk to its last byte with a file, or leave some room; returns that."""
    filler = disk / "filler.tmp"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size_bytes in (65536, 4096, 1):
            try:
                while os.write(descriptor, bytes(size_bytes)) == size_bytes:
                    pass
            except OSError:
                continue
        os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - leave_bytes))
    finally:
        os.close(descriptor)
    return filler
