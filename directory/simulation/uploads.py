"""Photos that come in: volumes are made for them, and written to, as the Directory decides."""

from __future__ import annotations

from collections import Counter
from math import ceil
from random import Random

from directory.decisions.choice import WriteTable
from directory.decisions.growth import plan_top_up
from directory.decisions.leadership import handed_over, plan_handover
from directory.simulation.clock import Clock
from directory.simulation.parts import Volume
from directory.simulation.popularity import Popularity
from directory.simulation.world import World

MAX_HANDOVERS = 1
"""Volumes that get another primary in one step."""

MAX_ROUNDS = 8
"""Times that photos are shared out anew which found their volume full."""


class Uploads:
    """Grows and fills volumes."""

    def __init__(self, world: World, clock: Clock, popularity: Popularity, random: Random) -> None:
        self.stored_bytes = 0
        """Each photo counted once."""
        self.refused_bytes = 0
        """What no volume had room for."""
        self.handovers = 0
        self._world = world
        self._clock = clock
        self._popularity = popularity
        self._random = random

    def grow(self) -> None:
        """Make the volumes that are wanted, as far as there is room."""
        world, scenario = self._world, self._world.scenario
        plan = plan_top_up(
            world.spaces(),
            scenario.writable_volumes,
            scenario.volume_bytes,
            replication=scenario.promise,
            writable=sum(1 for candidate in world.candidates() if not candidate.crowded),
            still_open=world.open_count(),
            spread=not self._mending(),
        )
        for new in plan.volumes:
            places = [world.machines[place.store_id].disks[place.folder] for place in new.places]
            luck = self._popularity.luck(self._random)
            world.make_volume(places, luck, self._clock.now_seconds, self._clock.now_ms)

    def hand_over(self) -> None:
        """Even out who leads, a few volumes a step: as fast as it goes in a real cluster costs more than it tells."""
        world = self._world
        for _ in range(MAX_HANDOVERS):
            handover = plan_handover(world.candidates())
            if handover is None:
                return
            volume = world.volumes[handover.volume]
            world.put_record(volume, handed_over(volume.record, handover, volume.record.epoch))
            self.handovers += 1

    def store(self, size_bytes: int, seconds: float) -> None:
        """Store what has come in within some seconds."""
        left_bytes = size_bytes
        written = Counter[str]()
        for _ in range(MAX_ROUNDS):
            left_bytes = self._share_out(left_bytes, written)
            if not left_bytes:
                break
            self.grow()
        self.stored_bytes += size_bytes - left_bytes
        self.refused_bytes += left_bytes
        photo_seconds = self._world.scenario.photo_bytes * seconds
        for machine in self._world.machines.values():
            machine.writes_per_second = written[machine.id] / photo_seconds

    def _share_out(self, size_bytes: int, written: Counter[str]) -> int:
        """Give each volume its part, as the Directory chooses; returns what did not fit.

        Many photos are chosen for one by one, so each volume gets about what is to be expected.
        """
        left_bytes, now_seconds = size_bytes, self._clock.now_seconds
        for candidate, share in WriteTable(self._world.candidates()).shares():
            volume = self._world.volumes[candidate.volume]
            taken_bytes = min(left_bytes, ceil(size_bytes * share), self._room(volume))
            if taken_bytes > 0:
                self._world.write(volume, taken_bytes, now_seconds)
                left_bytes -= taken_bytes
                for store_id in volume.record.in_sync:
                    written[store_id] += taken_bytes
        return left_bytes

    def _room(self, volume: Volume) -> int:
        """Return what a volume takes until it, or one of its disks, is full."""
        room_bytes = min(disk.free_bytes - disk.reserve_bytes for disk in volume.disks.values())
        return max(0, min(self._world.scenario.volume_bytes - volume.size_bytes, room_bytes + 1))

    def _mending(self) -> bool:
        """Say whether a volume lacks copies that would take photos."""
        volumes = (self._world.open.get(number) for number in self._world.untidy)
        return any(volume is not None and volume.record.degraded_since_ms > 0 for volume in volumes)
