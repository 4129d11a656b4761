"""Reads: how much load each volume, and with it each machine, has at a moment.

Load is what the Directory counts: a read is one, and each 64 KiB read is one more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from directory.simulation.clock import Clock
from directory.simulation.parts import Volume
from directory.simulation.popularity import BURST_DAYS, Popularity
from directory.simulation.scenario import DAY_SECONDS, MONTH_SECONDS
from directory.simulation.world import World
from haystack.units import KIB

LOAD_BYTES = 64 * KIB


@dataclass(frozen=True, slots=True)
class Burst:
    """An old photo that is popular for a while.

    Parameters
    ----------
    share: of all reads, while it lasts.
    """

    volume: int
    share: float
    end_seconds: float


class Traffic:
    """What is read where."""

    def __init__(self, world: World, clock: Clock, popularity: Popularity, random: Random) -> None:
        scenario = world.scenario
        self._world = world
        self._clock = clock
        self._popularity = popularity
        self._random = random
        self._bursts: list[Burst] = []
        self._total = scenario.reads_per_second * (1 + scenario.photo_bytes / LOAD_BYTES)
        self._between_bursts_seconds = (
            MONTH_SECONDS / scenario.bursts_per_month if scenario.bursts_per_month else float("inf")
        )

    def begin(self) -> None:
        """Wait for the first burst."""
        if self._between_bursts_seconds < float("inf"):
            self._clock.after(self._random.expovariate(1 / self._between_bursts_seconds), self._burst)

    def volume_loads(self) -> dict[int, float]:
        """Return the load of each volume."""
        now_seconds = self._clock.now_seconds
        loads = {number: self._weight(volume, now_seconds) for number, volume in self._world.volumes.items()}
        self._bursts = [burst for burst in self._bursts if burst.end_seconds > now_seconds]
        bursting = sum(burst.share for burst in self._bursts if burst.volume in loads)
        weight = sum(loads.values())
        scale = self._total * max(0.0, 1 - bursting) / weight if weight else 0.0
        loads = {number: load * scale for number, load in loads.items()}
        for burst in self._bursts:
            if burst.volume in loads:
                loads[burst.volume] += burst.share * self._total
        return loads

    def machine_loads(self, loads: Mapping[int, float]) -> dict[str, float]:
        """Return the load of each machine: each volume's is shared among its copies in sync by their weights."""
        found = dict.fromkeys(self._world.machines, 0.0)
        for number, load in loads.items():
            volume = self._world.volumes[number]
            holders = volume.record.in_sync
            if volume.weights:
                weights = read_weights(volume)
                total = sum(weights)
                for holder, weight in zip(holders, weights, strict=True):
                    found[holder] += load * weight / total
            else:
                each = load / len(holders)
                for holder in holders:
                    found[holder] += each
        return found

    def _weight(self, volume: Volume, now_seconds: float) -> float:
        if not volume.size_bytes:
            return 0.0
        age = self._popularity.between(now_seconds - volume.written_seconds, now_seconds - volume.made_seconds)
        return volume.luck * volume.size_bytes * age

    def _burst(self) -> None:
        volumes = self._world.volumes
        if volumes:
            # Volumes are numbered in the order in which they were made; of those that were lost nothing is read.
            number = self._random.randrange(1, next(reversed(volumes)) + 1)
            end_seconds = self._clock.now_seconds + self._random.expovariate(1 / (BURST_DAYS * DAY_SECONDS))
            if number in volumes:
                self._bursts.append(Burst(number, self._popularity.burst_share(self._random), end_seconds))
        self.begin()


def read_weights(volume: Volume) -> list[float]:
    """Return how the reads of a volume are shared among its copies in sync, in their order.

    A copy that came after the weights were set gets the mean of the others.
    """
    known = [volume.weights[holder] for holder in volume.record.in_sync if holder in volume.weights]
    mean = sum(known) / len(known) if known else 1.0
    found = [volume.weights.get(holder, mean) for holder in volume.record.in_sync]
    return found if sum(found) > 0 else [1.0] * len(found)
