"""A whole run: from a scenario to its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from directory.simulation.balance import Balance, PlanSample
from directory.simulation.clock import Clock
from directory.simulation.hardware import Bought, Hardware
from directory.simulation.losses import Estimate
from directory.simulation.measures import Measures, Sample, quantile
from directory.simulation.popularity import Popularity
from directory.simulation.repairs import Repairs, Totals
from directory.simulation.scenario import Scenario
from directory.simulation.traffic import Traffic
from directory.simulation.uploads import Uploads
from directory.simulation.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    scenario: Scenario
    samples: tuple[Sample, ...]
    plans: tuple[PlanSample, ...]
    bought: Bought
    totals: Totals
    estimates: tuple[Estimate, ...]
    stored_bytes: int
    refused_bytes: int
    repair_seconds: dict[str, float]
    degraded_volume_seconds: float
    volume_seconds: float
    handovers: int
    events: int

    @property
    def last(self) -> Sample:
        """How it was at the end."""
        return self.samples[-1]

    def document(self) -> dict[str, Any]:
        """Return everything, as JSON can hold it."""
        found = dataclasses.asdict(self)
        for estimate, one in zip(found["estimates"], self.estimates, strict=True):
            estimate["most"] = None if one.most == float("inf") else one.most
            estimate["chance"] = one.chance
        return found


class Simulation:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.world = World(scenario)
        self.measures = Measures(self.world, self.clock)
        self.world.on_copies = self.measures.copies_changed
        popularity = Popularity.of(scenario)
        # A stream of chance each: a plan that moves other bytes must not change which machines die.
        self.repairs = Repairs(self.world, self.clock)
        self.hardware = Hardware(
            self.world, self.clock, self.repairs, self.measures.something_died, _stream(scenario, "hardware")
        )
        self.uploads = Uploads(self.world, self.clock, popularity, _stream(scenario, "uploads"))
        self.traffic = Traffic(self.world, self.clock, popularity, _stream(scenario, "traffic"))
        self.balance = Balance(self.world, self.clock, self.repairs, self.traffic)
        self._due_bytes = 0.0

    def run(self, watch: Callable[[Sample], None] = lambda sample: None) -> Result:
        """Run to the end.

        Parameters
        ----------
        watch: told of each new point of the curves.
        """
        scenario, clock = self.scenario, self.clock
        self.hardware.begin()
        self.uploads.grow()
        self.traffic.begin()
        clock.after(scenario.step_seconds, self._step)
        clock.after(scenario.sample_seconds, lambda: self._sample(watch))
        if scenario.rebalance_seconds:
            clock.after(scenario.rebalance_seconds, self._rebalance)
        clock.run_until(scenario.seconds)
        watch(self.measures.sample(self.uploads.stored_bytes, self.traffic, self.repairs))
        return self.result()

    def result(self) -> Result:
        """Return what came of it so far; there must be a sample."""
        measures = self.measures
        times = sorted(measures.repair_seconds)
        return Result(
            scenario=self.scenario,
            samples=tuple(measures.samples),
            plans=tuple(self.balance.plans),
            bought=self.hardware.bought,
            totals=self.repairs.totals,
            estimates=tuple(measures.estimates(self.repairs.totals.lost_volumes)),
            stored_bytes=self.uploads.stored_bytes,
            refused_bytes=self.uploads.refused_bytes,
            repair_seconds={
                "count": len(times),
                "mean": measures.mean_repair_seconds,
                "p50": quantile(times, 0.5),
                "p99": quantile(times, 0.99),
                "max": times[-1] if times else 0.0,
            },
            degraded_volume_seconds=measures.samples[-1].degraded_volume_seconds,
            volume_seconds=measures.volume_seconds,
            handovers=self.uploads.handovers,
            events=self.clock.events,
        )

    def _step(self) -> None:
        """Photos of one step come in."""
        scenario = self.scenario
        self.hardware.order_if_needed()
        self.uploads.grow()
        self.uploads.hand_over()
        self._due_bytes += scenario.bytes_per_second * scenario.step_seconds
        photos = int(self._due_bytes // scenario.photo_bytes)
        self._due_bytes -= photos * scenario.photo_bytes
        self.uploads.store(photos * scenario.photo_bytes, scenario.step_seconds)
        self.clock.after(scenario.step_seconds, self._step)

    def _sample(self, watch: Callable[[Sample], None]) -> None:
        watch(self.measures.sample(self.uploads.stored_bytes, self.traffic, self.repairs))
        self.clock.after(self.scenario.sample_seconds, lambda: self._sample(watch))

    def _rebalance(self) -> None:
        self.balance.look()
        self.clock.after(self.scenario.rebalance_seconds, self._rebalance)


def _stream(scenario: Scenario, name: str) -> Random:
    return Random(f"{scenario.seed}/{name}")
