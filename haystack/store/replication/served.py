"""The membership of a volume as a worker sees it: epoch and duty in shared memory, addresses in ``<id>.members``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from haystack.errors import VolumeUnavailable
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Slot, VolumeCell, tagged_tail
from haystack.store.replication import rules
from haystack.store.replication.members_file import read_members
from haystack.store.replication.membership import Membership
from haystack.store.replication.rules import Standing

CHANGE_SECONDS = 1.0
"""How long the supervisor may take between the file and the control block."""

CHANGE_POLL_SECONDS = 0.002


class Now(NamedTuple):
    """A membership that is in force, and what belongs to it.

    Parameters
    ----------
    version: of the control block; another one means that this may not be in force any more.
    changed_ms: when it came into force, by the monotonic clock.
    """

    membership: Membership
    standing: Standing
    reign: int
    version: int
    changed_ms: int


class ServedMembership:
    """Of one volume, in one worker; for any thread.

    Parameters
    ----------
    path: of the volume.
    worker: number of this worker.
    generation: of the file that this worker has open; what it says of offsets is of that one.
    """

    __slots__ = (
        "_cells",
        "_committed_cell",
        "_control",
        "_known",
        "_path",
        "_slot",
        "_tag",
        "generation",
        "standing_cell",
    )

    def __init__(self, control: ControlBlock, slot: int, path: Path, worker: int, generation: int) -> None:
        self.generation = generation
        self._tag = tagged_tail(generation, 0)
        self._control = control
        self._cells = control.cells
        self._slot = slot
        self._path = path
        self._known: Now | None = None
        self._committed_cell = control.volume_base(worker, slot) + VolumeCell.COMMITTED_TAIL
        self.standing_cell = control.slot_cell(slot, Slot.STANDING)

    @property
    def standing(self) -> Standing:
        """Epoch and duty now."""
        return Standing.unpack(self._cells[self.standing_cell])

    @property
    def version(self) -> int:
        """Changes with the membership."""
        return self._control.standing(self._slot)[2]

    @property
    def reign(self) -> int:
        """See :mod:`haystack.store.replication.rules`."""
        return self._control.standing(self._slot)[1]

    def now(self) -> Now | None:
        """What is in force; None when the Directory has told nothing. May read a file.

        Raises VolumeUnavailable when it cannot be found out.
        """
        deadline = time.monotonic() + CHANGE_SECONDS
        while True:
            packed, reign, version = self._control.standing(self._slot)
            known = self._known
            if known is not None and known.version == version:
                return known
            standing = Standing.unpack(packed)
            if not standing.epoch:
                return None
            membership = read_members(self._path)
            if membership is not None and membership.epoch == standing.epoch:
                changed_ms = self._cells[self._control.slot_cell(self._slot, Slot.MEMBERS_CHANGED_MS)]
                known = Now(membership, standing, reign, version, changed_ms)
                if self.version == version:
                    self._known = known
                    return known
            elif time.monotonic() >= deadline:
                raise VolumeUnavailable(f"{self._path}: its membership is being changed; try again soon")
            else:
                time.sleep(CHANGE_POLL_SECONDS)

    @property
    def committed(self) -> int:
        """Below this all copies in sync are equal."""
        return self._control.committed_tail(self._slot)

    def commit(self, start: int, end: int) -> bool:
        """Note that all copies have bytes ``start`` to ``end``; False while something before them is open."""
        committed = self.committed
        reached = rules.committed_by(committed, start, end)
        self._publish(reached)
        return reached >= end

    def note_committed(self, committed: int, tail: int) -> None:
        """As a replica: note what the primary says to be equal everywhere, as far as it is here."""
        self._publish(min(committed, tail))

    def _publish(self, committed: int) -> None:
        if self._tag | committed > self._cells[self._committed_cell]:
            self._cells[self._committed_cell] = self._tag | committed
            self._control.ring()
