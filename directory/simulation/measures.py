"""What is written down of a run: curves over time, times without enough copies, and the chance of loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from directory.simulation.clock import Clock
from directory.simulation.hardware import death_rate
from directory.simulation.losses import Estimate, Exposure, chain_rate, counted, independent
from directory.simulation.parts import Volume
from directory.simulation.repairs import Repairs
from directory.simulation.scenario import YEAR_SECONDS, Scenario
from directory.simulation.traffic import Traffic
from directory.simulation.world import World


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the curves.

    Parameters
    ----------
    stored_bytes: uploaded so far, each photo once. used_bytes, total_bytes: of all disks.
    load_mean: of a machine; load_max, load_p99: as multiples of it.
    fill_mean, fill_max, fill_p99, fill_min: of machines, parts of their disks.
    moved_bytes, repaired_bytes: copied so far.
    degraded: volumes that lack a copy at this moment. degraded_volume_seconds: time of all volumes so far.
    losses: expected so far, from volumes that had lost one copy.
    """

    seconds: float
    machines: int
    disks: int
    volumes: int
    stored_bytes: int
    used_bytes: int
    total_bytes: int
    load_mean: float
    load_max: float
    load_p99: float
    fill_mean: float
    fill_max: float
    fill_p99: float
    fill_min: float
    moved_bytes: int
    repaired_bytes: int
    degraded: int
    degraded_volume_seconds: float
    losses: float


@dataclass(slots=True)
class _Episode:
    """A volume that lacks copies."""

    began_seconds: float
    incident: int
    since_seconds: float
    copies: int
    rate: float


@dataclass(slots=True)
class Measures:
    """Watches a run."""

    world: World
    clock: Clock
    samples: list[Sample] = field(default_factory=list)
    repair_seconds: list[float] = field(default_factory=list)
    """How long each volume lacked copies that lacks none any more."""
    degraded_volume_seconds: float = 0.0
    volume_seconds: float = 0.0
    incident: int = 0
    """Number of the last machine or disk that died."""
    exposures: dict[int, Exposure] = field(default_factory=dict)
    _episodes: dict[int, _Episode] = field(default_factory=dict)
    _sampled_seconds: float = 0.0

    def something_died(self) -> None:
        """Note that a machine or a disk has died: what follows is one incident."""
        self.incident += 1

    def copies_changed(self, volume: Volume, copies: int) -> None:
        """Note that a volume has more or fewer copies in sync than before; 0: it is lost."""
        number, now_seconds = volume.number, self.clock.now_seconds
        episode = self._episodes.get(number)
        if episode is not None:
            seconds = now_seconds - episode.since_seconds
            self.exposures.setdefault(episode.copies, Exposure()).add(seconds, episode.rate, episode.incident)
            self.degraded_volume_seconds += seconds
        if copies >= volume.record.promised or copies == 0:
            if episode is not None:
                del self._episodes[number]
                if copies:
                    self.repair_seconds.append(now_seconds - episode.began_seconds)
            return
        scenario = self.world.scenario
        disks = [volume.disks[member] for member in volume.record.in_sync]
        rate = chain_rate([death_rate(disk, scenario, now_seconds) for disk in disks])
        began_seconds = episode.began_seconds if episode else now_seconds
        incident = episode.incident if episode else self.incident
        self._episodes[number] = _Episode(began_seconds, incident, now_seconds, copies, rate)

    def sample(self, stored_bytes: int, traffic: Traffic, repairs: Repairs) -> Sample:
        """Add a point to the curves."""
        world, now_seconds = self.world, self.clock.now_seconds
        machines = [machine for machine in world.machines.values() if machine.disks]
        loads = sorted(traffic.machine_loads(traffic.volume_loads()).values())
        fills = sorted(
            sum(disk.used_bytes for disk in machine.disks.values())
            / sum(disk.total_bytes for disk in machine.disks.values())
            for machine in machines
        )
        mean = sum(loads) / len(loads) if loads else 0.0
        pending = sum(now_seconds - episode.since_seconds for episode in self._episodes.values())
        self.volume_seconds += len(world.volumes) * (now_seconds - self._sampled_seconds)
        self._sampled_seconds = now_seconds
        found = Sample(
            seconds=now_seconds,
            machines=len(world.machines),
            disks=sum(len(machine.disks) for machine in machines),
            volumes=len(world.volumes),
            stored_bytes=stored_bytes,
            used_bytes=world.used_bytes,
            total_bytes=world.total_bytes,
            load_mean=mean,
            load_max=loads[-1] / mean if mean else 0.0,
            load_p99=quantile(loads, 0.99) / mean if mean else 0.0,
            fill_mean=world.used_bytes / max(1, world.total_bytes),
            fill_max=fills[-1] if fills else 0.0,
            fill_p99=quantile(fills, 0.99),
            fill_min=fills[0] if fills else 0.0,
            moved_bytes=repairs.totals.moved_bytes,
            repaired_bytes=repairs.totals.repaired_bytes,
            degraded=len(self._episodes),
            degraded_volume_seconds=self.degraded_volume_seconds + pending,
            losses=self._estimate(max(1, world.scenario.promise.copies - 1)).losses,
        )
        self.samples.append(found)
        return found

    def estimates(self, lost_volumes: int) -> list[Estimate]:
        """Return the expected losses, from each depth; the count first, the closed formula last."""
        scenario = self.world.scenario
        copies = scenario.promise.copies
        closed = independent(self.volume_seconds, copies, copy_death_rate(scenario), self.mean_repair_seconds)
        return [counted(lost_volumes), *(self._estimate(depth) for depth in range(1, copies)), closed]

    def _estimate(self, depth: int) -> Estimate:
        return self.exposures.get(depth, Exposure()).estimate(depth, self.mean_repair_seconds)

    @property
    def mean_repair_seconds(self) -> float:
        """The mean time that a volume lacks a copy."""
        return sum(self.repair_seconds) / len(self.repair_seconds) if self.repair_seconds else 0.0


def copy_death_rate(scenario: Scenario) -> float:
    """Return how often a copy is lost with its disk or machine, per second, in the mean over good and bad lots."""
    factor = 1 + scenario.bad_lot_share * (scenario.bad_lot_factor - 1)
    return (scenario.machine_failures_per_year + scenario.disk_failures_per_year) * factor / YEAR_SECONDS


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least this share of them do not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else 0.0
