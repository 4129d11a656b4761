"""One copy of several on its way to the next generation: it waits for the membership, and takes both together.

What is here is called on the compaction's thread, or on one of the data folder's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from haystack.errors import CompactionFailed, HaystackError
from haystack.store.compaction_job import CompactionJob
from haystack.store.control import ControlBlock
from haystack.store.replication.committed import raise_committed
from haystack.store.replication.members_file import write_members
from haystack.store.replication.membership import promised_copies
from haystack.store.replication.rules import Duty, Standing, duty_of, next_reign
from haystack.store.store_volume import StoreVolume
from haystack.units import format_duration
from haystack.volume import Superblock
from haystack.volume.compaction import Prepared

HOLD_SECONDS = 30.0
"""How long what is prepared waits when nobody asks about it any more: the Directory may be back, and have committed."""

HOLD_POLL_SECONDS = 0.2
"""How often what was appended meanwhile is carried over while it waits."""

SETTLE_SECONDS = 0.03
SETTLE_POLL_SECONDS = 0.001
SETTLE_TRIES = 30
"""How long, and how often, nobody may append so that all copies come to have what was appended before."""


class JointSwap:
    """What a compaction asks and tells between its copy and its end; for one alone there is nothing to wait for.

    Parameters
    ----------
    on_ready: called when it is prepared, and waits.
    """

    def __init__(
        self,
        control: ControlBlock,
        store_id: str,
        entry: StoreVolume,
        job: CompactionJob,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_ready = on_ready
        self._control = control
        self._store_id = store_id
        self._entry = entry
        self._job = job

    def hold(self, prepared: Prepared) -> bool:
        """Wait a moment for the membership."""
        job = self._job
        if not job.hold:
            return True
        if job.prepared is None:
            job.prepared, job.state = prepared, "ready"
            self._on_ready()
        if time.monotonic() - job.asked_seconds > HOLD_SECONDS and job.membership is None:
            raise CompactionFailed(
                f"nobody has asked about it for {format_duration(HOLD_SECONDS)}; nothing was changed"
            )
        return job.granted.wait(HOLD_POLL_SECONDS)

    def settled(self, tail: int) -> bool:
        """Whether all copies have everything that a primary has; it is waited for, under the append lock.

        What is not by then, after many tries, will not be acknowledged: its offsets are those of the old generation.
        """
        job, entry = self._job, self._entry
        if job.hold and job.membership is None:
            raise CompactionFailed(f"volume {entry.id}: there is no membership for its next generation")
        if not job.hold or entry.duty is not Duty.PRIMARY:
            return True
        job.settling += 1
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._control.committed_tail(entry.slot) < tail:
            if time.monotonic() >= deadline:
                return job.settling >= SETTLE_TRIES
            time.sleep(SETTLE_POLL_SECONDS)
        return True

    def publish(self, superblock: Superblock, tail: int) -> None:
        """Publish the next generation, and the membership that it comes with, under the append locks of both."""
        control, entry, membership = self._control, self._entry, self._job.membership
        if membership is None:
            control.next_generation(entry.slot, superblock.generation)
            return
        committed = _moved_committed(control.committed_tail(entry.slot), self._job.prepared)
        promised = promised_copies(superblock.replication)
        duty = duty_of(membership, self._store_id, promised=promised, generation=superblock.generation)
        reign = next_reign(entry.reign, entry.duty, duty, membership.epoch)
        try:
            write_members(entry.path, membership, self._store_id)
        except HaystackError:
            duty = Duty.UNTOLD
            raise
        finally:
            control.set_standing(entry.slot, Standing(membership.epoch, duty).pack(), reign)
            control.next_generation(entry.slot, superblock.generation)
            raise_committed(control, entry.slot, superblock.generation, min(committed, tail))


def _moved_committed(committed: int, prepared: Prepared | None) -> int:
    """Where the committed tail lies in the next generation; 0, which has everything compared, when it is unknown."""
    if prepared is None or committed < prepared.cut:
        return 0
    return committed - prepared.cut + prepared.new_cut
