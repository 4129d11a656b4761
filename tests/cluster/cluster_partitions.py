"""Partitions of a cluster whose processes have networks of their own, under load from clients that still reach all.

Beside the usual load there are clients who do not ask the Directory any more: they have names from before, and put
photos under them at every Store that had the volume then. If two Stores believed that they lead one volume, both would
acknowledge some of them.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster_chaos import Report
from cluster_http import HttpClient, NoAnswer
from cluster_load import Load, Rates
from cluster_networks import Networks
from cluster_nodes import Cluster
from cluster_record import Recorder
from cluster_verify import full_strength, settled, verify_files, verify_photos

from haystack.fid import Fid

NAMES_KEPT = 4_000
STUBBORN_CLIENTS = 6
STUBBORN_PAUSE_SECONDS = 0.05
STUBBORN_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Partition:
    """A way to part a cluster. ``cut`` gets the networks; hosts[0] is the Directory's."""

    name: str
    cut: Callable[[Networks], None]


def partitions(stores: int) -> list[Partition]:
    """Return all kinds of partitions for a number of Stores."""
    middle = 1 + stores // 2

    def each(number: int) -> Callable[[Networks], None]:
        return lambda net: net.cut(net.hosts[:1], [net.hosts[number]])

    return [
        Partition("Directory from all Stores", lambda net: net.cut(net.hosts[:1], net.hosts[1:])),
        Partition("half with the Directory from half", lambda net: net.cut(net.hosts[:middle], net.hosts[middle:])),
        Partition("each Store from the next", _from_the_next),
        Partition("first Store from the other Stores", lambda net: net.cut([net.hosts[1]], net.hosts[2:])),
        Partition("first Store hears nobody", lambda net: net.cut(net.hosts, [net.hosts[1]], both=False)),
        Partition("first Store is heard by nobody", lambda net: net.cut([net.hosts[1]], net.hosts, both=False)),
        *(Partition(f"Directory from Store {number}", each(number)) for number in range(1, stores + 1)),
    ]


def _from_the_next(net: Networks) -> None:
    for one, other in zip(net.hosts[1:], net.hosts[2:], strict=False):
        net.cut([one], [other])


@dataclass(slots=True)
class Stubborn:
    """Clients with names from before, who try every Store that had the volume."""

    recorder: Recorder
    names: list[tuple[str, list[str]]] = field(default_factory=list)
    running: bool = True

    async def learn(self, cluster: Cluster, http: HttpClient, count: int) -> None:
        """Get names, and where their volumes are now."""
        directory = cluster.directory.address
        where: dict[int, list[str]] = {}
        for _ in range(count):
            answer = await http.request("GET", directory, "/dir/assign", timeout_seconds=10)
            assert answer.status == 200, answer
            fid = answer.json()["fid"]
            volume = Fid.parse(fid).volume
            if volume not in where:
                answer = await http.request("GET", directory, f"/dir/lookup?volumeId={volume}", timeout_seconds=10)
                where[volume] = [location["url"] for location in answer.json()["locations"]]
            self.names.append((fid, where[volume]))

    async def go(self, http: HttpClient, dice: random.Random) -> None:
        while self.running and self.names:
            fid, addresses = self.names.pop()
            content = dice.randbytes(2000)
            for address in dice.sample(addresses, len(addresses)):
                try:
                    answer = await http.request(
                        "PUT", address, f"/{fid}", content, timeout_seconds=STUBBORN_TIMEOUT_SECONDS
                    )
                except NoAnswer:
                    self.recorder.counts["stubborn uploads without answer"] += 1
                    continue
                self.recorder.counts[f"stubborn uploads answered {answer.status}"] += 1
                if answer.status == 201:
                    self.recorder.stored(fid, content, json.loads(answer.body).get("locator", ""))
                    break
            await asyncio.sleep(STUBBORN_PAUSE_SECONDS)


async def part_and_heal(
    cluster: Cluster,
    net: Networks,
    kinds: Sequence[Partition],
    *,
    rates: Rates,
    seed: int,
    parted_seconds: float = 7.0,
    heal_seconds: float = 60.0,
) -> Report:
    """Part the cluster in each way, heal it each time, and verify everything at the end."""
    recorder = Recorder()
    report = Report(recorder)
    await full_strength(cluster, within_seconds=heal_seconds)
    load = Load(cluster.directory.address, recorder, rates, seed)
    stubborn = Stubborn(recorder)
    async with HttpClient() as http:
        await stubborn.learn(cluster, http, min(NAMES_KEPT, int(len(kinds) * (parted_seconds + 10) * 40)))
        load.start()
        clients = [
            asyncio.create_task(stubborn.go(http, random.Random(seed + number))) for number in range(STUBBORN_CLIENTS)
        ]
        try:
            await asyncio.sleep(1.0)
            for kind in kinds:
                kind.cut(net)
                await asyncio.sleep(parted_seconds)
                net.heal()
                healed = time.monotonic()
                await full_strength(cluster, within_seconds=heal_seconds)
                print(
                    f"{kind.name}: parted for {parted_seconds:g} s, whole again after "
                    f"{time.monotonic() - healed:.1f} s; {len(recorder.photos):,} photos acknowledged so far",
                    flush=True,
                )
        finally:
            stubborn.running = False
            await asyncio.gather(*clients)
            await load.stop()
            report.most_late_seconds = load.most_late_seconds
    await full_strength(cluster, within_seconds=heal_seconds)
    await settled(cluster, recorder, within_seconds=heal_seconds)
    report.compared = await verify_photos(cluster, recorder)
    report.volumes = await verify_files(cluster)
    assert not recorder.wrong, "\n".join(report.lines())
    return report
