"""Which volumes were used since the last look, from the control block, at next to no cost when none was."""

from __future__ import annotations

from haystack.store.control import ControlBlock
from haystack.store.control_cells import CELL_BYTES, VOLUME_CELLS, Header, VolumeCell


class ChangedSlots:
    """Finds the slots whose cells have changed in any worker's region.

    Parameters
    ----------
    only: look at this cell alone; otherwise at all cells of a volume.
    """

    def __init__(self, control: ControlBlock, only: VolumeCell | None = None) -> None:
        self._control = control
        self._only = only
        self._row_bytes = CELL_BYTES if only is not None else CELL_BYTES * VOLUME_CELLS
        self._seen = [b""] * control.workers

    def take(self) -> set[int]:
        """Slots that changed since the last call; at the first one, all in use."""
        changed: set[int] = set()
        for worker in range(self._control.workers):
            before, now = self._seen[worker], self._copy(worker)
            if now != before:
                self._seen[worker] = now
                changed |= self._differing(before, now)
        return changed

    def _copy(self, worker: int) -> bytes:
        start = self._control.volume_base(worker, 0)
        end = start + self._control.cells[Header.SLOTS] * VOLUME_CELLS
        if self._only is None:
            return self._control.cells[start:end].tobytes()
        return self._control.cells[start + self._only : end : VOLUME_CELLS].tobytes()

    def _differing(self, before: bytes, now: bytes) -> set[int]:
        size = self._row_bytes
        return {
            slot
            for slot, start in enumerate(range(0, len(now), size))
            if now[start : start + size] != before[start : start + size]
        }
