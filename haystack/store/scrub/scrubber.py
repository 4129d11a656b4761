"""The job that walks the volumes of one data folder, slowly, and mends what it finds damaged.

A volume whose last pass ended long ago comes first. What somebody asks for (a call, a worker that met a bad checksum)
comes before that, and does not wait for the rate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from haystack.errors import HaystackError, VolumeUnavailable
from haystack.store.control_cells import Slot, VolumeState
from haystack.store.copies.bandwidth import Bandwidth
from haystack.store.copies.peer import Peer
from haystack.store.copies.ranges import durable_tail
from haystack.store.folder import DataFolder
from haystack.store.scrub.comparing import Comparison, compare
from haystack.store.scrub.examine import Examined, examine
from haystack.store.scrub.mending import mend
from haystack.store.scrub.record import SCRUB_FILE, ScrubRecord
from haystack.store.scrub.superblocks import mend_superblock, needs_superblock
from haystack.store.settings import Timing
from haystack.store.store_volume import StoreVolume
from haystack.store.tables import Record, read_table, write_table
from haystack.store.volumes import StoreVolumes
from haystack.units import MIB
from haystack.volume.layout import SUPERBLOCK_BYTES

_log = logging.getLogger(__name__)

SLICE_BYTES = 4 * MIB
"""Verified at once, unless a single needle is larger."""

Peers = Callable[[StoreVolume], Sequence[Peer]]
"""The other in-sync copies of a volume, the primary first; empty when this one does not count itself."""


class Scrubber:
    """Scrubs one data folder.

    Parameters
    ----------
    bytes_per_second: 0 for never by itself.
    peers: where to look for other copies.
    clock_ms: milliseconds since 1970.
    """

    def __init__(
        self,
        folder: DataFolder,
        volumes: StoreVolumes,
        timing: Timing,
        peers: Peers,
        *,
        bytes_per_second: int,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._timing = timing
        self._peers = peers
        self._rate = bytes_per_second
        self._clock_ms = clock_ms
        self._path = folder.path / SCRUB_FILE
        self._saved: dict[int, Record] | None = None
        self._records: dict[int, ScrubRecord] = {}
        self._asked: set[int] = set()
        self._walking = 0
        self._woken = asyncio.Event()
        self._saved_at = 0.0
        self._turns: dict[int, asyncio.Lock] = {}

    # -- what others ask for

    def start_now(self, entry: StoreVolume) -> None:
        """Walk a volume now, from the start, as fast as it goes."""
        self._asked.add(entry.id)
        self._woken.set()

    async def record(self, entry: StoreVolume) -> ScrubRecord:
        """How far a volume is."""
        if self._saved is None:
            self._saved = await self._folder.run(read_table, self._path)
        block = entry.superblock
        uuid, generation = (block.uuid.hex(), block.generation) if block is not None else ("", 0)
        record = self._records.get(entry.id)
        if record is None or (record.uuid, record.generation) != (uuid, generation):
            record = ScrubRecord.from_json(self._saved.get(entry.id, {}), uuid, generation)
            self._records[entry.id] = record
            self._publish(entry, record)
        return record

    def is_running(self, entry: StoreVolume) -> bool:
        """Whether a walk that was asked for is still to end."""
        return entry.id in self._asked or self._walking == entry.id

    async def look_at(self, entry: StoreVolume, offset: int) -> None:
        """Look at one needle now, and mend it: a worker met wrong bytes there."""
        try:
            record = await self.record(entry)
            async with self._turn(entry):
                limit = durable_tail(self._volumes, entry)
                known = _is_in(record.broken, offset) and not self._peers(entry)
                if known or not SUPERBLOCK_BYTES <= offset < limit:
                    return
                await self._handle(entry, record, await entry.run(examine, offset, 1, limit), compared=False)
            await self._save(record)
        except HaystackError as error:
            _log.warning("volume %d: the needle at %d is not looked at now: %s", entry.id, offset, error)

    # -- the walk

    async def run(self) -> None:
        """Scrub for ever, as long as the folder has not failed."""
        if self._folder.failed:
            return
        for entry in self._volumes.of(self._folder):
            await self.record(entry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._walk_asked())
            tasks.create_task(self._mend_superblocks())
            if self._rate:
                tasks.create_task(self._walk_slowly())

    async def _walk_asked(self) -> None:
        unlimited = Bandwidth(None)
        while not self._folder.failed:
            await self._woken.wait()
            self._woken.clear()
            for entry in self._volumes.of(self._folder):
                if entry.id in self._asked:
                    self._asked.discard(entry.id)  # who asks during the walk wants another one
                    self._walking = entry.id
                    await self._walk_guarded(entry, unlimited, anew=True)
                    self._walking = 0

    async def _mend_superblocks(self) -> None:
        while not self._folder.failed:
            for entry in self._volumes.of(self._folder):
                if needs_superblock(self._volumes, entry):
                    await mend_superblock(self._volumes, entry, self._peers(entry))
            await asyncio.sleep(self._timing.scrub_look_seconds)

    async def _walk_slowly(self) -> None:
        bandwidth = Bandwidth(self._rate)
        while not self._folder.failed:
            entry = await self._next()
            if entry is not None:
                await self._walk_guarded(entry, bandwidth, anew=False)
            await asyncio.sleep(self._timing.scrub_look_seconds)

    async def _next(self) -> StoreVolume | None:
        """The volume that is due: one whose pass is under way, else the one that waited longest."""
        due: list[tuple[int, int, StoreVolume]] = []
        for entry in self._volumes.of(self._folder):
            if not self._can_walk(entry):
                continue
            record = await self.record(entry)
            curable = bool(record.broken and self._peers(entry))
            rest_seconds = self._timing.scrub_rest_broken_seconds if curable else self._timing.scrub_rest_seconds
            rested = self._clock_ms() - record.finished_ms >= rest_seconds * 1000
            if record.started_ms or rested:
                due.append((0 if record.started_ms else 1, record.finished_ms, entry))
        return min(due, key=lambda one: one[:2])[2] if due else None

    def _can_walk(self, entry: StoreVolume) -> bool:
        return entry.volume is not None and self._volumes.state(entry) is not VolumeState.FAILED

    async def _walk_guarded(self, entry: StoreVolume, bandwidth: Bandwidth, *, anew: bool) -> None:
        try:
            await self._walk(entry, bandwidth, anew=anew)
        except VolumeUnavailable as error:
            _log.info("volume %d is not scrubbed now: %s", entry.id, error)
        except HaystackError as error:
            _log.error("volume %d is not scrubbed: %s", entry.id, error)
        except Exception:  # one volume that nobody can explain must not keep the others from being looked at
            _log.exception("volume %d is not scrubbed", entry.id)

    async def _walk(self, entry: StoreVolume, bandwidth: Bandwidth, *, anew: bool) -> None:
        """Walk a volume from where the last walk ended, or from the start."""
        record = await self.record(entry)
        if anew or not record.started_ms:
            record.begin(self._clock_ms())
        position = record.position
        while position < (limit := durable_tail(self._volumes, entry)):
            await bandwidth.take(min(SLICE_BYTES, limit - position))
            async with self._turn(entry):
                # The volume may have been cut, or compacted, meanwhile.
                if record is not await self.record(entry) or durable_tail(self._volumes, entry) < limit:
                    return
                found = await entry.run(examine, position, SLICE_BYTES, limit)
                await self._handle(entry, record, found, compared=True)
            position = record.position = found.end
            await self._save(record, now=False)
        record.finish(self._clock_ms())
        self._publish(entry, record)
        await self._save(record)

    def _turn(self, entry: StoreVolume) -> asyncio.Lock:
        """One range of a volume is handled at a time."""
        return self._turns.setdefault(entry.id, asyncio.Lock())

    async def _handle(self, entry: StoreVolume, record: ScrubRecord, found: Examined, *, compared: bool) -> None:
        """Mend what is damaged, compare what is sound, and note both."""
        peers = self._peers(entry)
        broken: list[tuple[int, int]] = []
        for damage in found.damage:
            _log.error("volume %d: scrubbing found damage: %s", entry.id, damage)
            if await mend(self._volumes, entry, damage, peers):
                record.mended += 1
            else:
                broken.append((damage.offset, damage.length))
        diverged: list[tuple[int, int]] | None = None
        if compared and peers and not broken and found.end > found.start:
            diverged = await self._compare(entry, found, peers)
        if broken:
            _log.error("volume %d: no copy can mend %s", entry.id, "; ".join(map(str, found.damage)))
        record.examined(found.start, found.end, broken, diverged)
        self._publish(entry, record)

    async def _compare(
        self, entry: StoreVolume, found: Examined, peers: Sequence[Peer]
    ) -> list[tuple[int, int]] | None:
        """Where this piece differs from the primary's, or on the primary from any; None when nobody could be asked."""
        leads = entry.membership is not None and entry.membership.primary == self._folder.identity.store_id
        results = [await compare(entry, peer, found.start, found.end) for peer in (peers if leads else peers[:1])]
        if Comparison.DIVERGED in results:
            return [(found.start, found.end - found.start)]
        return [] if Comparison.SAME in results else None

    # -- telling

    def _publish(self, entry: StoreVolume, record: ScrubRecord) -> None:
        said = (record.finished_ms, record.broken_bytes, record.mended, record.problem())
        if said == entry.scrubbed:
            return
        entry.scrubbed = said
        entry.revision += 1
        control = self._volumes.control
        for cell, value in (
            (Slot.SCRUBBED_MS, record.finished_ms),
            (Slot.BROKEN_BYTES, record.broken_bytes),
            (Slot.MENDED, record.mended),
        ):
            control.cells[control.slot_cell(entry.slot, cell)] = value
        self._volumes.changed()

    async def _save(self, record: ScrubRecord, *, now: bool = True) -> None:
        """Write down how far all volumes are, at most every few seconds unless it is to be ``now``."""
        moment = time.monotonic()
        if not now and moment - self._saved_at < self._timing.scrub_save_seconds:
            return
        self._saved_at = moment
        here = {entry.id for entry in self._volumes.of(self._folder)}
        saved = {volume: one for volume, one in (self._saved or {}).items() if volume in here}
        records = saved | {volume: one.to_json() for volume, one in self._records.items() if volume in here}
        try:
            await self._folder.run(write_table, self._path, records)
        except HaystackError as error:
            _log.warning("how far scrubbing is cannot be written down: %s", error)


def _is_in(ranges: Sequence[Sequence[int]], offset: int) -> bool:
    return any(start <= offset < start + size for start, size in ranges)
