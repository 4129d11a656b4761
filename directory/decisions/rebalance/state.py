"""The picture that a plan is made on: a snapshot as lists of numbers, which steps change.

Machines and volumes are numbered in the order of their ids, so a plan does not depend on the order of a snapshot. The
lists are public: the planner walks a hundred thousand volumes, and a call for each would take most of its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import lru_cache
from operator import attrgetter

from directory.decisions.rebalance.views import Machine, RebalanceSettings, Snapshot, Volume
from directory.decisions.replication import Home, Replication, Site, parse_replication

WEIGHT_DIGITS = 3
"""Decimals of a read weight: of a volume with fifty times the mean load, one step is a thousandth of the mean."""

LEAST_SHIFT = 0.002
"""Load that is not worth a step, as a multiple of the mean."""

CRUMB = 0.001
"""The same when a machine is cleared for a hot volume: what stays there takes away from what copied bytes win."""

SPENT = 0.01
"""Part of a budget of bytes that is not worth looking for what it would still do."""


class State:
    """Machines (by number ``m``) and volumes (by number ``v``).

    Attributes
    ----------
    level, load, capacity: of each machine. mean: the mean level. aim: the highest level that is aimed at.
    limit: the load at which a machine is at the aim.
    stuck: over how many machines each was asked in vain to pass load on, in this round.
    least, crumb: loads that are worth a step, of weights, and to clear a machine for a hot volume.
    used, total, room: bytes of each machine; room for one more copy.
    holders: of each volume, the machines that have it. shares: the load that each of them has of it.
    on: of each machine, the volumes that it has; some of them may have left.
    loads, sizes: of each volume.
    fixed: volumes of which no copy may come or go. resting: those of which none may go.
    left_bytes: what the plan may still copy.
    """

    def __init__(self, snapshot: Snapshot, settings: RebalanceSettings) -> None:
        self.settings = settings
        self.machines: list[Machine] = sorted(snapshot.machines, key=attrgetter("id"))
        self.number = {machine.id: m for m, machine in enumerate(self.machines)}
        self.capacity = [machine.capacity for machine in self.machines]
        self.load = [machine.other_load for machine in self.machines]
        self.used = [machine.used_bytes for machine in self.machines]
        self.total = [machine.total_bytes for machine in self.machines]
        self.room = [machine.largest_copy_bytes for machine in self.machines]
        self.takes = [machine.takes for machine in self.machines]
        self.homes: list[Home] = [(machine.data_center, machine.rack) for machine in self.machines]
        self.hosts = [machine.host for machine in self.machines]
        self.volumes: list[Volume] = []
        self.holders: list[list[int]] = []
        self.shares: list[list[float]] = []
        self.loads: list[float] = []
        self.sizes: list[int] = []
        self.on: list[list[int]] = [[] for _ in self.machines]
        self.fixed: set[int] = set()
        self.resting: set[int] = set()
        self.left: dict[int, set[int]] = {}
        self._take_in(snapshot)
        self.total_load = sum(self.load)
        self.level = [load / capacity for load, capacity in zip(self.load, self.capacity, strict=True)]
        self.mean = self.total_load / (sum(self.capacity) or 1.0)
        self.aim = self.mean * settings.aim
        self.limit = [self.aim * capacity for capacity in self.capacity]
        self.stuck = [0] * len(self.machines)
        self._used_bytes, self._total_bytes = sum(self.used), sum(self.total) or 1
        self._shared: dict[int, list[int]] = {}
        self.least = LEAST_SHIFT * self.total_load / (len(self.machines) or 1)
        self.crumb = self.least * CRUMB / LEAST_SHIFT
        self.left_bytes = settings.budget_bytes
        self._smallest_bytes = min((size for size in self.sizes if size), default=0)
        self._smallest_read_bytes = min(
            (size for size, load in zip(self.sizes, self.loads, strict=True) if load > 0), default=0
        )

    def _take_in(self, snapshot: Snapshot) -> None:
        number, load = self.number, self.load
        rests_until_seconds = snapshot.now_seconds - self.settings.rest_seconds
        for volume in sorted(snapshot.volumes, key=attrgetter("id")):
            holders = [number[holder] for holder in volume.holders if holder in number]
            if not holders:
                continue
            shares = _shares(volume, holders, number)
            v = len(self.volumes)
            for m, share in zip(holders, shares, strict=True):
                load[m] += share
                self.on[m].append(v)
            if volume.fixed:
                self.fixed.add(v)
            elif volume.moved_seconds > rests_until_seconds:
                self.resting.add(v)
            if volume.left:
                self.left[v] = {number[machine] for machine in volume.left if machine in number}
            self.volumes.append(volume)
            self.holders.append(holders)
            self.shares.append(shares)
            self.loads.append(volume.load)
            self.sizes.append(volume.size_bytes)

    def fork(self) -> State:
        """Return a state of its own that is the same."""
        twin = copy(self)
        for name in ("load", "level", "used", "room", "stuck"):
            setattr(twin, name, list(getattr(self, name)))
        for name in ("holders", "shares", "on"):
            setattr(twin, name, [list(one) for one in getattr(self, name)])
        twin.resting = set(self.resting)
        twin._shared = {}
        return twin

    # -- questions

    @property
    def mean_fill(self) -> float:
        """How full all machines together are."""
        return self._used_bytes / self._total_bytes

    def shared(self, m: int) -> list[int]:
        """Return the volumes of a machine that have other copies, too, and load that is worth a step; the hottest
        first."""
        found = self._shared.get(m)
        if found is None:
            holders = self.holders
            found = [v for v in self.on[m] if self.loads[v] >= self.crumb and len(holders[v]) > 1 and m in holders[v]]
            found.sort(key=lambda v: (-self.loads[v], v))
            self._shared[m] = found
        return found

    def worst(self) -> float:
        """The highest level as a multiple of the mean."""
        return max(self.level, default=0.0) / self.mean if self.mean > 0 else 1.0

    def fullest(self) -> float:
        """The fill of the fullest machine."""
        return max((used / total for used, total in zip(self.used, self.total, strict=True) if total), default=0.0)

    def slack(self, m: int) -> float:
        """Load that a machine can take up to the level aimed at."""
        return self.aim * self.capacity[m] - self.load[m]

    def excess(self, m: int) -> float:
        """Load that a machine has above the level aimed at; negative: room."""
        return self.load[m] - self.aim * self.capacity[m]

    def share(self, v: int, m: int) -> float:
        """The load that a machine has of a volume; 0 when it has no copy."""
        for holder, share in zip(self.holders[v], self.shares[v]):  # noqa: B905  # equally long; asked a million times
            if holder == m:
                return share
        return 0.0

    def replication(self, v: int) -> Replication:
        """What is promised of a volume."""
        return parse_replication(self.volumes[v].replication)

    def name(self, m: int) -> str:
        """A machine in words."""
        return self.machines[m].url or self.machines[m].id

    def times(self, m: int) -> str:
        """A machine's level in words."""
        return f"{self.level[m] / self.mean if self.mean else 0.0:.2f}"

    def keeps_promise(self, v: int, source: int | None, target: int | None) -> bool:
        """Say whether a volume keeps as much of its promise as it does now, when a copy goes and another one comes."""
        text = self.volumes[v].replication
        stay = [m for m in self.holders[v] if m != source]
        after = stay if target is None else [*stay, target]
        if text == "000":
            return bool(after)
        return self._kept(text, after) >= self._kept(text, self.holders[v])

    def shares_host(self, v: int, source: int, target: int) -> bool:
        """Say whether a copy would come to a machine that has another one (Stores of one host), unless the copy that
        goes was in the same situation."""
        holders = self.holders[v]
        if len(holders) == 1:
            return False
        hosts = [self.hosts[m] for m in holders if m != source]
        return self.hosts[target] in hosts and self.hosts[source] not in hosts

    def _kept(self, replication: str, machines: Sequence[int]) -> int:
        return _kept(replication, tuple(sorted(self.homes[m] for m in machines)))

    def has_room(self, m: int, size_bytes: int) -> bool:
        """Say whether a machine may get a copy: below the fill limit, and not so far above the others that it would
        have to give something away again."""
        settings = self.settings
        fill_limit = min(settings.fill_limit, self.mean_fill + settings.fill_band)
        return size_bytes <= self.room[m] and self.used[m] + size_bytes <= fill_limit * self.total[m]

    def is_spent(self, *, read: bool) -> bool:
        """Say whether the plan may not copy even the smallest volume any more, or has a hundredth of its budget left;
        ``read``: the smallest of those that are read."""
        least_bytes = self._smallest_read_bytes if read else self._smallest_bytes
        return self.left_bytes < max(least_bytes, self.settings.budget_bytes * SPENT)

    def stays(self, v: int) -> bool:
        """Say whether a volume's copies have to stay where they are."""
        return v in self.resting or v in self.fixed

    def may_get(self, v: int, m: int) -> bool:
        """Say whether a machine has no copy of a volume, and had none lately."""
        return m not in self.holders[v] and (v not in self.left or m not in self.left[v])

    # -- changes

    def shift(self, v: int, source: int, target: int, amount: float) -> None:
        """Have some of a volume's load at another one of its copies."""
        holders, shares = self.holders[v], self.shares[v]
        shares[holders.index(source)] -= amount
        shares[holders.index(target)] += amount
        self._add_load(source, -amount)
        self._add_load(target, amount)

    def reweigh(self, v: int, shares: list[float]) -> None:
        """Have the load of a volume shared otherwise among its copies; the shares are as weights can say them."""
        load, level, capacity = self.load, self.level, self.capacity
        for m, before, after in zip(self.holders[v], self.shares[v], shares, strict=True):
            if before != after:
                load[m] += after - before
                level[m] = load[m] / capacity[m]
        self.shares[v] = shares

    def put(self, v: int, holders: list[int], shares: Sequence[float]) -> None:
        """Have the copies of a volume elsewhere; shares are rounded to what weights can say."""
        before = self.holders[v]
        for m, share in zip(before, self.shares[v], strict=True):
            self._add_load(m, -share)
        rounded = self.rounded(v, shares)
        for m, share in zip(holders, rounded, strict=True):
            self._add_load(m, share)
        size_bytes = self.sizes[v]
        self.shares[v] = rounded
        if before == holders:
            return
        for m in before:
            self._shared.pop(m, None)
            if m not in holders:
                self.used[m] -= size_bytes
                self.room[m] += size_bytes
        for m in holders:
            self._shared.pop(m, None)
            if m not in before:
                self.used[m] += size_bytes
                self.room[m] -= size_bytes
                self.on[m].append(v)
        self._used_bytes += size_bytes * (len(holders) - len(before))
        self.holders[v] = holders

    def rounded(self, v: int, shares: Sequence[float]) -> list[float]:
        """Return the shares that weights of so many digits come to."""
        load = self.loads[v]
        percents = percents_of(shares, load)
        whole = sum(percents)
        return [load * percent / whole for percent in percents]

    def weights(self, v: int) -> tuple[tuple[str, float], ...]:
        """Return the weights that make these shares; nothing when they are even."""
        percents = percents_of(self.shares[v], self.loads[v])
        if max(percents) - min(percents) <= 2 * 10**-WEIGHT_DIGITS:
            return ()
        return tuple((self.machines[m].id, percent) for m, percent in zip(self.holders[v], percents, strict=True))

    def _add_load(self, m: int, load: float) -> None:
        self.load[m] += load
        self.level[m] = self.load[m] / self.capacity[m]


def percents_of(shares: Sequence[float], load: float) -> list[float]:
    """Return shares of a load as percents whose sum is 100."""
    if load <= 0:
        return [100.0 / len(shares)] * len(shares)
    percents = [round(max(0.0, share) * 100 / load, WEIGHT_DIGITS) for share in shares]
    largest = max(range(len(percents)), key=percents.__getitem__)
    percents[largest] = round(percents[largest] + 100.0 - sum(percents), WEIGHT_DIGITS)
    return percents


def pour(state: State, amount: float, machines: Iterable[int]) -> dict[int, float]:
    """Return how much of a load each machine gets when it is poured over them like water: the lowest level first."""
    level, capacity = state.level, state.capacity
    lowest = sorted(machines, key=lambda m: (level[m], m))
    wide, held = 0.0, 0.0
    surface = 0.0
    for place, m in enumerate(lowest):
        wide += capacity[m]
        held += state.load[m]
        surface = (held + amount) / wide
        if place + 1 == len(lowest) or surface <= level[lowest[place + 1]]:
            break
    return {m: max(0.0, surface * capacity[m] - state.load[m]) for m in lowest}


def _shares(volume: Volume, holders: list[int], number: dict[str, int]) -> list[float]:
    if len(holders) == 1:
        return [volume.load]
    if not volume.weights:
        return [volume.load / len(holders)] * len(holders)
    weights = [w for holder, w in zip(volume.holders, volume.weights, strict=True) if holder in number]
    whole = sum(weights)
    if whole <= 0:
        return [volume.load / len(holders)] * len(holders)
    return [volume.load * weight / whole for weight in weights]


@lru_cache(maxsize=200_000)
def _kept(replication: str, homes: tuple[Home, ...]) -> int:
    """How many of the promised copies are kept by copies in these racks."""
    sites = [Site(str(number), center, rack) for number, (center, rack) in enumerate(homes)]
    return parse_replication(replication).kept(sites)
