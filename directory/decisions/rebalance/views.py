"""What a rebalance plan is made from, and what it is made of.

A machine is one Store. Its *level* is its load for each unit of capacity; levels are what is evened out. Loads have one
unit, whatever it is: the Directory counts a read as one, and each 64 KiB read as one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from haystack.errors import ConfigError
from haystack.units import KIB, TIB


@dataclass(frozen=True, slots=True)
class Machine:
    """One Store, alive.

    Parameters
    ----------
    id: the Store's id. url: its address, for words, and to tell Stores of one machine from others.
    total_bytes, used_bytes: of all its disks together.
    room_bytes: largest copy that fits, that is the free space of its emptiest disk less the reserve; None: all that is
        free.
    capacity: load that it can carry, in any unit that is the same for all.
    other_load: load that no volume of the snapshot accounts for.
    takes: whether it may get copies. One that may not is read from all the same.
    """

    id: str
    total_bytes: int
    used_bytes: int
    url: str = ""
    data_center: str = ""
    rack: str = ""
    room_bytes: int | None = None
    capacity: float = 1.0
    other_load: float = 0.0
    takes: bool = True

    @property
    def host(self) -> str:
        """The machine, as far as the address tells; the Store itself when there is none."""
        return self.url.rpartition(":")[0] or self.id

    @property
    def largest_copy_bytes(self) -> int:
        """The largest copy that fits."""
        free_bytes = max(0, self.total_bytes - self.used_bytes)
        return free_bytes if self.room_bytes is None else min(free_bytes, max(0, self.room_bytes))


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume.

    Parameters
    ----------
    load: of all its copies together.
    holders: the machines that have it in sync, the primary first.
    weights: how reads are shared among the holders, in their order; empty: evenly.
    moved_seconds: when a copy of it was moved, added or dropped last, on the snapshot's clock.
    cool_since_seconds: since when it needs no temporary copy; None: it does, or that is not known.
    fixed: why its copies have to stay where they are, in words; its weights may change.
    left: machines that gave up a copy of it lately: none goes back there.
    """

    id: int
    load: float
    size_bytes: int
    holders: tuple[str, ...]
    replication: str = "000"
    weights: tuple[float, ...] = ()
    moved_seconds: float = float("-inf")
    cool_since_seconds: float | None = None
    fixed: str = ""
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on. Holders that are no machines of it are passed over."""

    machines: Sequence[Machine]
    volumes: Sequence[Volume]
    now_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RebalanceSettings:
    """What a plan aims at, and its limits.

    Parameters
    ----------
    dead_band: nothing is planned while the highest level is at most so many times the mean.
    aim: what is aimed at when it is higher.
    fill_limit: part of a machine's disks that copies may fill.
    fill_band, fill_aim: the same for the fill of the fullest machine, as parts of the disks above the mean.
    budget_bytes: what one plan may copy.
    rest_seconds: how long a volume is left where it is after one of its copies was moved, added or dropped.
    cool_seconds: how long a volume must have done without a temporary copy before that is dropped.
    max_copies: of one volume, temporary ones included.
    payback_seconds: a copy costs as much work as reading and writing its bytes; that is to be won back in this time.
    bytes_per_load: bytes whose reading is one unit of load.
    least_load: mean level below which nobody is hot: so few reads say nothing.

    Raises
    ------
    ConfigError: they contradict each other.
    """

    dead_band: float = 1.10
    aim: float = 1.05
    fill_limit: float = 0.85
    fill_band: float = 0.10
    fill_aim: float = 0.05
    budget_bytes: int = TIB
    rest_seconds: float = 3600.0
    cool_seconds: float = 1800.0
    max_copies: int = 10
    payback_seconds: float = 24 * 3600.0
    bytes_per_load: float = 64.0 * KIB
    least_load: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.aim < self.dead_band:
            raise ConfigError(
                f"a rebalance aims at {self.aim:g}, which is not from 1 to the {self.dead_band:g} of rest"
            )
        if not 0 <= self.fill_aim < self.fill_band:
            raise ConfigError(f"a rebalance aims at a fill of {self.fill_aim:g}, above what it leaves alone")


class StepKind(Enum):
    """What a step does."""

    WEIGHTS = "weights"
    MOVE = "move"
    SWAP = "swap"
    ADD = "add"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan.

    Parameters
    ----------
    source: the machine that gives its copy up (move, swap, drop), or is relieved (weights, add).
    target: the machine that gets a copy (move, swap, add), or most of the reads (weights).
    other: swap: the volume that goes from target to source.
    size_bytes: what is copied.
    weights: how the volume is read from then on, by machine, 0 to 100; empty: evenly. other_weights: of ``other``.
    reason: in words, with the expected effect.
    gain: load that it takes off machines that have too much.
    worst_before, worst_after: the highest level, as a multiple of the mean.
    """

    kind: StepKind
    volume: int
    source: str
    target: str = ""
    other: int = 0
    size_bytes: int = 0
    weights: tuple[tuple[str, float], ...] = ()
    other_weights: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    gain: float = 0.0
    worst_before: float = 0.0
    worst_after: float = 0.0


@dataclass(frozen=True, slots=True)
class MachineEffect:
    """What a plan does to one machine. Fill: part of its disks."""

    id: str
    url: str
    capacity: float
    load_before: float
    load_after: float
    fill_before: float
    fill_after: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in their order.

    Parameters
    ----------
    machines: what they come to.
    size_bytes: what is copied. least_bytes: no plan that comes so far copies less; a bound, not always reached.
    worst_before, worst_after: the highest level, as a multiple of the mean. mean_load: for each unit of capacity.
    fullest_before, fullest_after, mean_fill: part of the disks.
    reason: why there are no steps, or what stays as it is, in words.
    """

    steps: tuple[Step, ...]
    machines: tuple[MachineEffect, ...]
    size_bytes: int
    least_bytes: int
    worst_before: float
    worst_after: float
    mean_load: float
    fullest_before: float
    fullest_after: float
    mean_fill: float
    reason: str
