"""What the Directory keeps of a move. How far it is, the membership of its volume says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from directory.decisions.move_orders import MoveKind
from directory.storage.interface import Value


class MoveState(Enum):
    """ACTIVE and the two that undo it (and what they will have become) are under way; the others are ends."""

    ACTIVE = "active"
    CANCELLING = "cancelling"
    FAILING = "failing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether nothing more is done about it."""
        return self in (MoveState.DONE, MoveState.CANCELLED, MoveState.FAILED)

    @property
    def undoing(self) -> bool:
        """Whether what it did is taken back."""
        return self in (MoveState.CANCELLING, MoveState.FAILING)


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """One copy of a volume that goes from a Store to another; or is made; or goes.

    Parameters
    ----------
    number: its id; moves begin in this order.
    source, target: Store ids; empty when there is none. folder: data folder at the target; empty: any.
    reason: in words. by: who asked, ``operator`` or ``rebalance``.
    after: number of a move that must be done first; 0: of none.
    created_ms, began_ms, ended_ms: unix time in milliseconds; 0: not yet.
    total_bytes: of the volume when it was ordered; what was copied when it is over.
    error: why it failed, or was given up.
    """

    number: int
    kind: MoveKind
    volume: int
    source: str
    target: str
    folder: str
    reason: str
    by: str
    created_ms: int
    after: int = 0
    state: MoveState = MoveState.ACTIVE
    began_ms: int = 0
    ended_ms: int = 0
    total_bytes: int = 0
    error: str = ""

    def pack(self) -> Value:
        """Return the value for the storage."""
        return {
            "kind": self.kind.value,
            "volume": self.volume,
            "source": self.source,
            "target": self.target,
            "folder": self.folder,
            "reason": self.reason,
            "by": self.by,
            "createdMs": self.created_ms,
            "after": self.after,
            "state": self.state.value,
            "beganMs": self.began_ms,
            "endedMs": self.ended_ms,
            "totalBytes": self.total_bytes,
            "error": self.error,
        }

    @classmethod
    def unpack(cls, number: int, value: Value) -> MoveRecord:
        """Return the record that :meth:`pack` made."""
        return cls(
            number=number,
            kind=MoveKind(value["kind"]),
            volume=value["volume"],
            source=value["source"],
            target=value["target"],
            folder=value["folder"],
            reason=value["reason"],
            by=value["by"],
            created_ms=value["createdMs"],
            after=value["after"],
            state=MoveState(value["state"]),
            began_ms=value["beganMs"],
            ended_ms=value["endedMs"],
            total_bytes=value["totalBytes"],
            error=value["error"],
        )
