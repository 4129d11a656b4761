"""What the simulated cluster consists of: orders, machines, disks and logical volumes."""

from __future__ import annotations

from dataclasses import dataclass, field

from directory.storage.tables import VolumeRecord


@dataclass(slots=True, eq=False)
class Lot:
    """What was ordered together: it may be bad, and some of it may die together."""

    number: int
    factor: float = 1.0
    burst_from_seconds: float = float("inf")
    burst_to_seconds: float = float("inf")
    burst_rate: float = 0.0
    """Deaths a second, for each machine, while the burst lasts."""


@dataclass(slots=True, eq=False)
class Disk:
    """One data folder."""

    machine: Machine
    folder: str
    total_bytes: int
    reserve_bytes: int
    used_bytes: int = 0
    writable: int = 0
    volumes: set[int] = field(default_factory=set)

    @property
    def free_bytes(self) -> int:
        """What nothing is written to."""
        return self.total_bytes - self.used_bytes

    @property
    def full(self) -> bool:
        """Whether only the reserve is left, so that no photos are taken."""
        return self.free_bytes < self.reserve_bytes

    @property
    def name(self) -> tuple[str, str]:
        """Store and folder."""
        return self.machine.id, self.folder


@dataclass(slots=True, eq=False)
class Machine:
    """One Store."""

    id: str
    data_center: str
    rack: str
    lot: Lot
    disks: dict[str, Disk] = field(default_factory=dict)
    writes_per_second: float = 0.0
    disks_made: int = 0

    url: str = field(init=False)
    """Its address: one Store is one machine."""

    def __post_init__(self) -> None:
        self.url = f"{self.id}:8080"


@dataclass(slots=True, eq=False)
class Volume:
    """A logical volume.

    Parameters
    ----------
    disks: where its copies are, by Store.
    made_seconds, written_seconds: when it was made, and when its last photo came.
    luck: how popular its photos are.
    moved_seconds: when one of its copies was moved last.
    weights: how much of the reads each Store gets; empty: evenly.
    counted: whether its copies count as writable ones.
    """

    record: VolumeRecord
    disks: dict[str, Disk]
    luck: float
    made_seconds: float
    written_seconds: float = 0.0
    size_bytes: int = 0
    moved_seconds: float = float("-inf")
    weights: dict[str, float] = field(default_factory=dict)
    counted: bool = False

    @property
    def number(self) -> int:
        """Its id."""
        return self.record.volume
