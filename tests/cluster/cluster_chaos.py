"""Faults on the Stores of a cluster under load, one after the other, and what they did to clients."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from enum import Enum

from cluster_load import Load, Rates
from cluster_nodes import Cluster, Node
from cluster_record import Fate, Recorder
from cluster_verify import full_strength, settled, verify_files, verify_photos

MOST_REFUSED_SECONDS = 5.0


class Fault(Enum):
    """What happens to a Store."""

    KILL = "killed"
    FREEZE = "frozen"
    RESTART = "restarted"


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault and how the cluster took it."""

    fault: Fault
    store: str
    refused_seconds: float
    """From the fault to the begin of the last upload that failed."""
    refused_after_return_seconds: float
    gap_seconds: float
    away_seconds: float
    healed_seconds: float
    """From the Store's return to full strength."""


@dataclass(slots=True)
class Report:
    """What a campaign found."""

    recorder: Recorder
    happened: list[Happened] = field(default_factory=list)
    compared: int = 0
    volumes: int = 0
    most_late_seconds: float = 0.0

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [
            f"{one.fault.value:9} {one.store}: away {one.away_seconds:4.1f} s, uploads refused for "
            f"{one.refused_seconds:4.1f} s (after its return {one.refused_after_return_seconds:4.1f} s), longest time "
            f"without an upload {one.gap_seconds:4.1f} s, full strength {one.healed_seconds:5.1f} s after its return"
            for one in self.happened
        ]
        lines += [f"{count:8,} {what}" for what, count in sorted(self.recorder.counts.items())]
        lines.append(f"the load itself stood still for up to {self.most_late_seconds:.2f} s")
        photos = {fate.value: len(self.recorder.of_fate(fate)) for fate in Fate}
        lines.append(f"photos: {photos}; {self.compared:,} answers compared at the end, {self.volumes} volumes")
        problems = sorted({one.problem[:160] for one in self.recorder.attempts if one.problem})
        lines += [f"refused: {problem}" for problem in problems[:8]]
        lines += [f"not served: {text[:300]}" for text in self.recorder.failed]
        return lines + [f"WRONG: {text}" for text in self.recorder.wrong]

    def check(self) -> None:
        """Raise AssertionError when something was lost, returned, failed or took too long."""
        text = "\n".join(self.lines())
        assert not self.recorder.wrong and not self.recorder.failed, text
        slow = [
            one
            for one in self.happened
            if max(one.refused_seconds, one.refused_after_return_seconds) > MOST_REFUSED_SECONDS
        ]
        assert not slow, f"uploads were refused for more than {MOST_REFUSED_SECONDS:g} s: {slow}\n{text}"


async def chaos(
    cluster: Cluster,
    *,
    seconds: float,
    seed: int,
    rates: Rates,
    away_seconds: tuple[float, float] = (4.0, 10.0),
    heal_seconds: float = 60.0,
    faults: tuple[Fault, ...] = tuple(Fault),
    most_faults: int = 10_000,
) -> Report:
    """Make faults for a while under load, let the cluster heal, and verify everything.

    Parameters
    ----------
    seconds: no further fault begins after this time.
    away_seconds: shortest and longest time that a Store stays away.
    heal_seconds: time that the cluster has to be at full strength after a Store's return.
    """
    dice = random.Random(seed)
    recorder = Recorder()
    report = Report(recorder)
    await full_strength(cluster, within_seconds=heal_seconds)
    load = Load(cluster.directory.address, recorder, rates, seed)
    load.start()
    try:
        await asyncio.sleep(1.0)
        deadline = time.monotonic() + seconds
        turn: list[tuple[Node, Fault]] = []
        while time.monotonic() < deadline and len(report.happened) < most_faults:
            if not turn:
                turn = [(store, fault) for store in cluster.stores for fault in faults]
                dice.shuffle(turn)
            store, fault = turn.pop()
            one = await _suffer(cluster, store, fault, recorder, dice.uniform(*away_seconds), heal_seconds)
            report.happened.append(one)
            print(report.lines()[len(report.happened) - 1], flush=True)
    finally:
        await load.stop()
        report.most_late_seconds = load.most_late_seconds
    await full_strength(cluster, within_seconds=heal_seconds)
    await settled(cluster, recorder, within_seconds=heal_seconds)
    report.compared = await verify_photos(cluster, recorder)
    report.volumes = await verify_files(cluster)
    return report


async def _suffer(
    cluster: Cluster, store: Node, fault: Fault, recorder: Recorder, away_seconds: float, heal_seconds: float
) -> Happened:
    began = time.monotonic()
    if fault is Fault.FREEZE:
        store.freeze()
    elif fault is Fault.KILL:
        await asyncio.to_thread(store.kill)
    else:
        await asyncio.to_thread(store.stop)
        away_seconds = 0.0
    await asyncio.sleep(away_seconds)
    returning = time.monotonic()
    if fault is Fault.FREEZE:
        store.thaw()
    else:
        await asyncio.to_thread(store.start)
    returned = time.monotonic()
    healed_seconds = await full_strength(cluster, within_seconds=heal_seconds)
    await asyncio.sleep(0.5)
    now = time.monotonic()
    return Happened(
        fault,
        store.name,
        refused_seconds=recorder.refused_seconds(began, returning),
        refused_after_return_seconds=recorder.refused_seconds(returning, now),
        gap_seconds=recorder.gap_seconds(began, now),
        away_seconds=returned - began,
        healed_seconds=healed_seconds,
    )
