"""``committed.json`` of a data folder: up to where all copies of each volume are equal, as of a moment ago.

It may be behind. What it is for: a primary that was restarted, or that was a replica before, compares its copies from
there on. Its loss costs a comparison of whole volumes.
"""

from __future__ import annotations

import logging

from haystack.errors import HaystackError
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Slot, tagged_tail
from haystack.store.folder import DataFolder
from haystack.store.store_volume import StoreVolume
from haystack.store.tables import Record, read_table, write_table
from haystack.store.volumes import StoreVolumes

_log = logging.getLogger(__name__)

COMMITTED_FILE = "committed.json"


class CommittedTails:
    """Keeps the committed tails of one data folder."""

    def __init__(self, folder: DataFolder, volumes: StoreVolumes) -> None:
        self._folder = folder
        self._volumes = volumes
        self._saved: dict[int, Record] | None = None

    async def load(self, entry: StoreVolume) -> None:
        """Publish what is known of a volume from before; once it is open."""
        if self._saved is None:
            self._saved = await self._folder.run(read_table, self._folder.path / COMMITTED_FILE)
        record = self._saved.get(entry.id, {})
        committed = record.get("committed")
        if entry.superblock is None or entry.stat is None or record.get("uuid") != entry.superblock.uuid.hex():
            return
        if isinstance(committed, int) and record.get("generation") == entry.superblock.generation:
            raise_base(self._volumes, entry, min(committed, entry.stat.size_bytes))

    async def save(self) -> None:
        """Write down what has moved. A failure costs time after the next start, no more."""
        if self._folder.failed:
            return
        records = dict(self._saved or {})
        for entry in self._volumes.of(self._folder):
            committed = self._volumes.control.committed_tail(entry.slot)
            if committed and entry.superblock is not None:
                uuid, generation = entry.superblock.uuid.hex(), entry.superblock.generation
                records[entry.id] = {"uuid": uuid, "generation": generation, "committed": committed}
        if records == (self._saved or {}):
            return
        self._saved = records
        try:
            await self._folder.run(write_table, self._folder.path / COMMITTED_FILE, records)
        except HaystackError as error:
            _log.warning("what all copies have cannot be written down: %s", error)


def raise_base(volumes: StoreVolumes, entry: StoreVolume, committed: int) -> None:
    """Note that all copies in sync are equal below ``committed``."""
    generation = entry.superblock.generation if entry.superblock is not None else 0
    raise_committed(volumes.control, entry.slot, generation, committed)


def raise_committed(control: ControlBlock, slot: int, generation: int, committed: int) -> None:
    """As :func:`raise_base`, of a generation that may not be in force yet."""
    cell = control.slot_cell(slot, Slot.COMMITTED_BASE)
    tagged = tagged_tail(generation, committed)
    if tagged > control.cells[cell]:
        control.cells[cell] = tagged
