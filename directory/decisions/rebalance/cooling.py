"""Since when a volume does without its temporary copies: what has to be remembered between plans, kept by the caller.

A volume is cool when it could give one copy up and each of the others would still carry less than half of what makes
it hot (:data:`~directory.decisions.rebalance.transfers.HOT_SHARE`). The distance between the two keeps a copy from
coming and going.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from directory.decisions.rebalance.transfers import HOT_SHARE
from directory.decisions.rebalance.views import Snapshot, Volume
from directory.decisions.replication import promised_copies

COOL_SHARE = HOT_SHARE / 2
"""Load that each copy carries without one of them, as a multiple of the mean, below which a volume is cool."""


class CoolingLog:
    """Remembers since when volumes with temporary copies are cool. Forgotten, the copies stay a little longer."""

    def __init__(self) -> None:
        self._since_seconds: dict[int, float] = {}

    def note(self, snapshot: Snapshot) -> Snapshot:
        """Look at the volumes, and return the snapshot with what is known of their cooling."""
        mean = mean_level(snapshot)
        cool = {volume.id for volume in snapshot.volumes if is_cool(volume, mean)}
        since = {volume: self._since_seconds.get(volume, snapshot.now_seconds) for volume in cool}
        self._since_seconds = since
        if not since and all(volume.cool_since_seconds is None for volume in snapshot.volumes):
            return snapshot
        volumes = [
            volume
            if volume.cool_since_seconds == since.get(volume.id)
            else replace(volume, cool_since_seconds=since.get(volume.id))
            for volume in snapshot.volumes
        ]
        return replace(snapshot, volumes=volumes)


def mean_level(snapshot: Snapshot) -> float:
    """Return the mean level of the machines."""
    load = sum(volume.load for volume in snapshot.volumes) + _sum(machine.other_load for machine in snapshot.machines)
    return load / (_sum(machine.capacity for machine in snapshot.machines) or 1.0)


def is_cool(volume: Volume, mean: float) -> bool:
    """Say whether a volume has a temporary copy that it could do without."""
    copies = len(volume.holders)
    return copies > promised_copies(volume.replication) and volume.load <= COOL_SHARE * mean * (copies - 1)


def _sum(numbers: Iterable[float]) -> float:
    return sum(numbers, 0.0)
