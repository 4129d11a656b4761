"""Snapshots to plan on: machines in racks, volumes placed at random as the replication wants, loads by Zipf's law.

The load of the volume of rank r is proportional to 1 / r^exponent. With exponent 1 and 100,000 volumes the hottest one
has 8.3% of all load: of 1,000 machines it could keep 83 busy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from directory.decisions.rebalance import Machine, Snapshot, Volume
from directory.decisions.replication import parse_replication
from haystack.units import GIB, TIB


@dataclass(frozen=True, slots=True)
class Shape:
    """What a snapshot is like.

    Parameters
    ----------
    exponent: of Zipf's law. mean_load: of a machine.
    sizes_bytes: smallest and largest volume; in between evenly distributed.
    """

    machines: int = 1_000
    volumes: int = 100_000
    racks: int = 50
    replication: str = "000"
    exponent: float = 1.0
    mean_load: float = 2_000.0
    sizes_bytes: tuple[int, int] = (32 * GIB, 32 * GIB)
    disk_bytes: int = 16 * TIB


def zipf_loads(count: int, exponent: float, total: float) -> list[float]:
    """Return loads, the largest first."""
    parts = [1 / rank**exponent for rank in range(1, count + 1)]
    whole = sum(parts)
    return [total * part / whole for part in parts]


def make(shape: Shape, seed: int) -> Snapshot:
    """Return a snapshot; the same for the same shape and seed."""
    dice = random.Random(seed)
    ids = [f"store{number:05}" for number in range(shape.machines)]
    racks = [f"rack{number % shape.racks:03}" for number in range(shape.machines)]
    loads = zipf_loads(shape.volumes, shape.exponent, shape.mean_load * shape.machines)
    dice.shuffle(loads)
    by_rack: dict[str, list[int]] = {}
    for m, rack in enumerate(racks):
        by_rack.setdefault(rack, []).append(m)
    used = [0] * shape.machines
    volumes = []
    for number, load in enumerate(loads, 1):
        size_bytes = dice.randint(*shape.sizes_bytes)
        holders = _place(shape.replication, racks, by_rack, dice)
        for m in holders:
            used[m] += size_bytes
        volumes.append(Volume(number, load, size_bytes, tuple(ids[m] for m in holders), shape.replication))
    machines = [
        Machine(ids[m], shape.disk_bytes, used[m], url=f"10.{m // 250}.{m % 250}.1:8080", rack=racks[m])
        for m in range(shape.machines)
    ]
    return Snapshot(machines, volumes)


def _place(replication: str, racks: list[str], by_rack: dict[str, list[int]], dice: random.Random) -> list[int]:
    promise = parse_replication(replication)
    first = dice.randrange(len(racks))
    holders = [first]
    if promise.stores:
        holders += dice.sample([m for m in by_rack[racks[first]] if m != first], promise.stores)
    if promise.racks:
        elsewhere = dice.sample(sorted(set(by_rack) - {racks[first]}), promise.racks)
        holders += [dice.choice(by_rack[rack]) for rack in elsewhere]
    return holders
