"""What a repair plan is made from, and what it is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from directory.decisions.liveness import Liveness
from directory.decisions.replication import Site
from directory.decisions.spaces import FolderSpace
from directory.tables import NO_MARK, MarkRecord, VolumeRecord


class Action(Enum):
    """What a step does. FORGET changes the record alone."""

    REJOIN = "rejoin"
    COPY = "copy"
    GIVE_UP = "giveUp"
    DELETE = "delete"
    FORGET = "forget"

    @property
    def copies_bytes(self) -> bool:
        """Whether bytes go from one Store to another."""
        return self in (Action.REJOIN, Action.COPY)


@dataclass(frozen=True, slots=True)
class StoreView:
    """A Store, as repair sees it."""

    site: Site
    url: str
    liveness: Liveness
    mark: MarkRecord = NO_MARK

    @property
    def alive(self) -> bool:
        """Whether it can be worked with."""
        return self.liveness is Liveness.ALIVE

    @property
    def host(self) -> str:
        """The machine, as far as the address tells."""
        return self.url.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class CopyView:
    """A copy that a Store has reported."""

    size_bytes: int
    folder: str
    state: str = "writable"


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume: its record, and the copies that Stores have reported, by Store."""

    record: VolumeRecord
    copies: Mapping[str, CopyView]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do for a volume.

    Parameters
    ----------
    target: the Store whose copy it is about. source: the Store that bytes come from.
    folder: data folder of a new copy. size_bytes: of the volume.
    reason: in words.
    """

    action: Action
    volume: int
    target: str
    source: str = ""
    folder: str = ""
    size_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A volume that needs something which is not done now, and why.

    ``seconds``: until a new copy is made if nothing else happens; None when time does not help.
    """

    volume: int
    reason: str
    seconds: float | None = None
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits of repair."""

    delay_seconds: float
    copies: int
    copies_per_store: int
    removals: int = 8
    max_volume_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on.

    Parameters
    ----------
    volumes: those that may need something; others can be left out.
    settled: all Stores have reported since the start, or had their time.
    running: steps that are being carried out.
    urgent: volumes for which the operator does not want to wait.
    resting: (volume, Store) of steps that failed a moment ago, and why.
    """

    volumes: Sequence[VolumeView]
    stores: Mapping[str, StoreView]
    spaces: Sequence[FolderSpace]
    settled: bool
    now_ms: int
    running: Collection[Step] = ()
    urgent: Collection[int] = ()
    resting: Mapping[tuple[int, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to begin now, in this order; what waits, and why; ``next_volumes``: those that wait for their turn."""

    steps: tuple[Step, ...]
    waiting: tuple[Waiting, ...]
    next_volumes: tuple[int, ...] = ()
