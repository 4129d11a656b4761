"""The Directory is killed again and again while clients ask it for names and upload under them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from cluster_http import HttpClient, NoAnswer
from cluster_nodes import Cluster
from cluster_record import Recorder

from haystack.fid import Fid

CLIENTS = 12
ASSIGN_TIMEOUT_SECONDS = 8.0
PAUSE_SECONDS = 0.02


@dataclass(slots=True)
class Storm:
    """What clients saw."""

    recorder: Recorder = field(default_factory=Recorder)
    given_ids: set[int] = field(default_factory=set)
    kills: int = 0
    running: bool = True

    def given(self, fid: str, count: int) -> None:
        """Note an answer of the Directory: none of these ids may ever be given again."""
        key = Fid.parse(fid).key
        if key in self.given_ids:
            self.recorder.wrong.append(f"{fid}: id {key:x} was given out twice")
        self.given_ids.add(key)
        self.recorder.counts["names given"] += count


async def storm(cluster: Cluster, *, kills: int, seed: int) -> Storm:
    """Kill the Directory many times, at random moments of its life, from its first breath on."""
    dice = random.Random(seed)
    state = Storm()
    async with HttpClient() as http:
        clients = [asyncio.create_task(_client(cluster, http, state, dice)) for _ in range(CLIENTS)]
        try:
            for number in range(kills):
                # Every third life is long enough for uploads and confirmations, others end amid the start's work.
                enough = state.recorder.counts["uploads"] + (20 if number % 3 == 0 else 0)
                await asyncio.sleep(dice.uniform(0.0, 0.3))
                while state.recorder.counts["uploads"] < enough:  # noqa: ASYNC110 - a counter, not an event
                    await asyncio.sleep(PAUSE_SECONDS)
                await asyncio.to_thread(cluster.directory.kill)
                state.kills += 1
                await asyncio.to_thread(cluster.directory.start)
        finally:
            state.running = False
            await asyncio.gather(*clients)
    return state


async def _client(cluster: Cluster, http: HttpClient, state: Storm, dice: random.Random) -> None:
    while state.running:
        try:
            await _upload(cluster, http, state, dice)
        except NoAnswer:
            state.recorder.counts["answers missing"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def _upload(cluster: Cluster, http: HttpClient, state: Storm, dice: random.Random) -> None:
    counts = state.recorder.counts
    address = cluster.directory.address
    answer = await http.request("GET", address, "/dir/assign?count=2", timeout_seconds=ASSIGN_TIMEOUT_SECONDS)
    if answer.status != 200:
        counts[f"assigns answered {answer.status}"] += 1
        return
    document = answer.json()
    fid = document["fid"]
    state.given(fid, document["count"])
    content = dice.randbytes(dice.choice((10, 1000, 20_000)))
    answer = await http.request("PUT", document["url"], f"/{fid}", content, timeout_seconds=ASSIGN_TIMEOUT_SECONDS)
    if answer.status == 201:
        counts["uploads"] += 1
        state.recorder.stored(fid, content)
    else:
        counts[f"uploads answered {answer.status}"] += 1


async def verify_by_photo_id(cluster: Cluster, recorder: Recorder) -> None:
    """Ask the Directory for each photo by its id, and fetch it where it says."""
    limit = asyncio.Semaphore(32)
    problems: list[str] = []
    async with HttpClient() as http:

        async def verify(fid: str) -> None:
            photo = recorder.photos[fid]
            key = Fid.parse(fid).key
            async with limit:
                answer = await http.request("GET", cluster.directory.address, f"/photos/{key:x}", timeout_seconds=20)
                if answer.status != 200:
                    problems.append(f"{fid}: the Directory answers {answer.status} {answer.body[:200]!r}")
                    return
                url = answer.json()["renditions"][0]["urls"][0].removeprefix("http://")
                host, _, path = url.partition("/")
                answer = await http.request("GET", host, f"/{path}", timeout_seconds=20)
                if answer.status != 200 or not photo.is_content(answer.body):
                    problems.append(f"{fid}: {url} gives {answer.status} {answer.body[:100]!r}")

        await asyncio.gather(*(verify(fid) for fid in recorder.photos))
    assert not problems, f"{len(problems)} photos: {problems[:10]}"
