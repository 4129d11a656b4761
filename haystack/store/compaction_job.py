"""One compaction of a Store, as its calls tell of it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

from haystack.store.replication.membership import Membership
from haystack.volume.compaction import Compacted, CompactionProgress, Prepared
from haystack.volume.live import CompactionOrder
from haystack.volume.pace import Pace


@dataclass(slots=True)
class CompactionJob:
    """One compaction.

    Parameters
    ----------
    state: "waiting" (for another one of its folder), "running", "ready" (waits for its ``membership``), "done" or
        "failed".
    hold: it is one of several copies, and waits when it is prepared.
    asked_seconds: when somebody asked for it last, monotonic.
    error: why it failed; or, when it is done, why the volume takes no more writes.
    ready: set when it is prepared.
    membership: under which the next generation comes into force, once the Directory has granted it.
    """

    volume: int
    order: CompactionOrder
    pace: Pace
    hold: bool = False
    asked_seconds: float = 0.0
    state: str = "waiting"
    error: str = ""
    progress: CompactionProgress = field(default_factory=CompactionProgress)
    result: Compacted | None = None
    generation: int = 0
    task: asyncio.Task[None] | None = None
    prepared: Prepared | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    membership: Membership | None = None
    granted: threading.Event = field(default_factory=threading.Event)
    settling: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")

    def document(self) -> dict[str, Any]:
        """As the calls answer."""
        progress, result = self.progress, self.result
        document: dict[str, Any] = {
            "volume": self.volume,
            "state": self.state,
            "step": progress.step,
            "doneBytes": progress.done_bytes,
            "totalBytes": progress.all_bytes,
            "copiedBytes": progress.copied_bytes,
            "trashMs": self.order.trash_ms,
            "error": self.error,
        }
        if self.prepared is not None:
            document |= {
                "generation": self.prepared.generation,
                "cut": self.prepared.cut,
                "newCut": self.prepared.new_cut,
                "ends": {str(old): new for old, new in self.prepared.ends.items()},
                "prefixHash": self.prepared.prefix_hash,
            }
        if result is not None:
            document |= {
                "generation": self.generation,
                "cut": result.cut,
                "newCut": result.new_cut,
                "oldBytes": result.old_bytes,
                "newBytes": result.new_bytes,
                "carriedBytes": result.carried_bytes,
                "pauseSeconds": round(result.pause_seconds, 6),
                "ends": {str(old): new for old, new in result.ends.items()},
            }
        return document
