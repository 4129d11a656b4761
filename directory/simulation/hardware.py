"""Machines and disks: when they are bought, when they die, and when they are replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from directory.simulation.clock import Clock
from directory.simulation.parts import Disk, Lot, Machine
from directory.simulation.repairs import Repairs
from directory.simulation.scenario import YEAR_SECONDS, Scenario
from directory.simulation.world import World

BURST_WITHIN_SECONDS = YEAR_SECONDS
"""A burst comes at any moment of a bad lot's first year."""


@dataclass(slots=True)
class Bought:
    """What was bought, and what died."""

    machines: int = 0
    replaced_machines: int = 0
    replaced_disks: int = 0
    orders: int = 0
    bad_lots: int = 0
    dead_machines: int = 0
    dead_disks: int = 0
    burst_deaths: int = 0


class Hardware:
    """Buys, breaks and replaces.

    Parameters
    ----------
    on_death: told of each machine and disk before its copies are lost.
    """

    def __init__(
        self, world: World, clock: Clock, repairs: Repairs, on_death: Callable[[], None], random: Random
    ) -> None:
        self.bought = Bought()
        self._world = world
        self._clock = clock
        self._repairs = repairs
        self._on_death = on_death
        self._random = random
        self._ordered_bytes = 0
        self._racks = Counter[str]()
        self._machines = 0

    def begin(self) -> None:
        """Take the first machines into use."""
        scenario = self._world.scenario
        racks = scenario.order_racks * scenario.data_centers
        if scenario.machines:
            racks = max(racks, -(-scenario.machines // scenario.rack_machines))
        self._deliver(racks, scenario.machines or racks * scenario.rack_machines)

    def order_if_needed(self) -> None:
        """Order machines when the disks would be too full on the day of delivery."""
        world, scenario = self._world, self._world.scenario
        coming_bytes = scenario.bytes_per_second * scenario.delivery_seconds * scenario.promise.copies
        order_bytes = scenario.order_machines * scenario.machine_disks * scenario.disk_bytes
        while True:
            foreseen_bytes = world.used_bytes + coming_bytes
            if foreseen_bytes < scenario.order_at_fill * (world.total_bytes + self._ordered_bytes):
                return
            self._ordered_bytes += order_bytes
            self._clock.after(scenario.delivery_seconds, self._delivered)

    def _delivered(self) -> None:
        scenario = self._world.scenario
        self._ordered_bytes -= scenario.order_machines * scenario.machine_disks * scenario.disk_bytes
        self._deliver(scenario.order_racks * scenario.data_centers, scenario.order_machines)

    def _deliver(self, racks: int, machines: int) -> None:
        """Set up new racks, in the data centers by turns."""
        lot = self._new_lot()
        scenario = self._world.scenario
        homes = []
        for number in range(racks):
            center = f"dc{number % scenario.data_centers + 1}"
            self._racks[center] += 1
            homes.append((center, f"r{self._racks[center]}"))
        for number in range(machines):
            self._add(*homes[number % racks], lot)
        self.bought.machines += machines

    def _new_lot(self) -> Lot:
        scenario, random = self._world.scenario, self._random
        self.bought.orders += 1
        lot = Lot(self.bought.orders)
        if random.random() < scenario.bad_lot_share:
            self.bought.bad_lots += 1
            lot.factor = scenario.bad_lot_factor
            lot.burst_from_seconds = self._clock.now_seconds + random.uniform(0, BURST_WITHIN_SECONDS)
            lot.burst_to_seconds = lot.burst_from_seconds + scenario.burst_seconds
            lot.burst_rate = scenario.burst_share / scenario.burst_seconds
            self._clock.at(lot.burst_from_seconds, lambda: self._burst(lot))
        return lot

    def _add(self, center: str, rack: str, lot: Lot) -> None:
        self._machines += 1
        machine = Machine(f"m{self._machines:06}", center, rack, lot)
        self._world.add_machine(machine)
        for _ in range(self._world.scenario.machine_disks):
            self._add_disk(machine)
        rate = self._world.scenario.machine_failures_per_year * lot.factor
        if rate:
            self._clock.after(self._random.expovariate(rate) * YEAR_SECONDS, lambda: self._die(machine))

    def _add_disk(self, machine: Machine) -> None:
        disk = self._world.add_disk(machine)
        rate = self._world.scenario.disk_failures_per_year * machine.lot.factor
        if rate:
            self._clock.after(self._random.expovariate(rate) * YEAR_SECONDS, lambda: self._die_disk(disk))

    def _burst(self, lot: Lot) -> None:
        """Some machines of a bad lot die together."""
        scenario, random = self._world.scenario, self._random
        for machine in [machine for machine in self._world.machines.values() if machine.lot is lot]:
            if random.random() < scenario.burst_share:
                self.bought.burst_deaths += 1
                self._clock.after(random.uniform(0, scenario.burst_seconds), partial(self._die, machine))

    def _die(self, machine: Machine) -> None:
        if self._world.machines.get(machine.id) is not machine:
            return  # it died before
        self.bought.dead_machines += 1
        self._on_death()
        self._repairs.lose_machine(machine)
        self._clock.after(self._world.scenario.replace_seconds, lambda: self._replace(machine))

    def _replace(self, machine: Machine) -> None:
        self.bought.replaced_machines += 1
        self._add(machine.data_center, machine.rack, Lot(0))

    def _die_disk(self, disk: Disk) -> None:
        machine = disk.machine
        if self._world.machines.get(machine.id) is not machine or machine.disks.get(disk.folder) is not disk:
            return
        self.bought.dead_disks += 1
        self._on_death()
        self._repairs.lose_disk(disk)
        self._clock.after(self._world.scenario.replace_seconds, lambda: self._replace_disk(machine))

    def _replace_disk(self, machine: Machine) -> None:
        if self._world.machines.get(machine.id) is machine:
            self.bought.replaced_disks += 1
            self._add_disk(machine)


def death_rate(disk: Disk, scenario: Scenario, now_seconds: float) -> float:
    """Return how likely it is, each second, that what is on a disk is lost."""
    lot = disk.machine.lot
    a_year = (scenario.machine_failures_per_year + scenario.disk_failures_per_year) * lot.factor
    in_burst = lot.burst_from_seconds <= now_seconds < lot.burst_to_seconds
    return a_year / YEAR_SECONDS + (lot.burst_rate if in_burst else 0.0)
