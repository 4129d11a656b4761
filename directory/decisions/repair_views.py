"""What a repair plan is made from, and what it is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from directory.decisions.liveness import Liveness
from directory.decisions.replication import Site
from directory.decisions.spaces import FolderSpace
from directory.storage.tables import NO_MARK, MarkRecord, VolumeRecord


class Action(Enum):
    """What a step does. FORGET changes the record alone; DISCARD removes what a cancelled move has copied."""

    REJOIN = "rejoin"
    COPY = "copy"
    GIVE_UP = "giveUp"
    DELETE = "delete"
    FORGET = "forget"
    DISCARD = "discard"

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
    move: the number of the move that it belongs to; 0: it is repair's own.
    """

    action: Action
    volume: int
    target: str
    source: str = ""
    folder: str = ""
    size_bytes: int = 0
    reason: str = ""
    move: int = 0


@dataclass(frozen=True, slots=True)
class MoveView:
    """A move of a copy that was ordered, as the plan sees it (:mod:`directory.decisions.moves`).

    Parameters
    ----------
    number: its id; moves begin in this order.
    source: the Store whose copy goes; empty when a copy is added.
    target: the Store that gets a copy; empty when one is only dropped.
    folder: data folder at the target; empty: the one with most room.
    began: bytes may have come to the target.
    cancelling: it is being undone.
    held: why it must not begin now, in words; empty when it may.
    switched_ms: unix time in milliseconds since when the source's copy does not count; 0: it counts.
    """

    number: int
    source: str
    target: str
    folder: str = ""
    began: bool = False
    cancelling: bool = False
    held: str = ""
    switched_ms: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What one volume needs, before it is looked whether there is room and a free hand for it. Low ranks go first."""

    rank: tuple[int, int, int]
    view: VolumeView
    step: Step
    holders: tuple[str, ...] = ()


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
    """Limits of repair, and of moves.

    Parameters
    ----------
    copies, copies_per_store: that repair makes at once, in all and at one Store.
    moves, moves_per_store: the same of moves; at a Store the copies of repair count too, and go first.
    move_linger_seconds: for how long the source's copy stays readable after a move.
    """

    delay_seconds: float
    copies: int
    copies_per_store: int
    removals: int = 8
    max_volume_bytes: int | None = None
    moves: int = 2
    moves_per_store: int = 1
    move_linger_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on.

    Parameters
    ----------
    volumes: those that may need something; others can be left out.
    spaces: all data folders; for many plans of one picture as :func:`~directory.decisions.allotment.room_of` orders
        them.
    settled: all Stores have reported since the start, or had their time.
    running: steps that are being carried out.
    urgent: volumes for which the operator does not want to wait.
    resting: (volume, Store) of steps that failed a moment ago, and why.
    moves: those that are to be carried out, by volume.
    """

    volumes: Sequence[VolumeView]
    stores: Mapping[str, StoreView]
    spaces: Iterable[FolderSpace]
    settled: bool
    now_ms: int
    running: Collection[Step] = ()
    urgent: Collection[int] = ()
    resting: Mapping[tuple[int, str], str] = field(default_factory=dict)
    moves: Mapping[int, MoveView] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to begin now, in this order; what waits, and why.

    Parameters
    ----------
    next_volumes: those that wait for their turn.
    moved: those of whose moves nothing is left to do.
    """

    steps: tuple[Step, ...]
    waiting: tuple[Waiting, ...]
    next_volumes: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
