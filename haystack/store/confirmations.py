"""Telling the Directory of stored and deleted needles, each at least once, in the order of the volume.

The volume is the log: the needles between what is confirmed and what is durable are read and sent in batches, and the
mark moves only on the Directory's answer. Where the Directory says that it knows less (it lost its disk) or more (we
lost ``confirmed.json``), the walk goes on from there. After every registration each volume is asked about once, with an
empty batch, because a Directory that knows less would otherwise hear of it only with the next upload.

Each data folder has a walker of its own, so that a disk that hangs keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from haystack.errors import HaystackError
from haystack.store.activity import ChangedSlots
from haystack.store.control import ControlBlock
from haystack.store.control_cells import VolumeCell
from haystack.store.directories import DirectoryCalls, DirectoryUnreachable, retry_pause_seconds
from haystack.store.folder import DataFolder
from haystack.store.needles import Batch, read_batch
from haystack.store.replication.rules import LEADING, Duty
from haystack.store.settings import Timing
from haystack.store.store_volume import StoreVolume
from haystack.store.tables import CONFIRMED_FILE, Record, read_table, write_table
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Mark:
    """How far one volume is confirmed.

    Parameters
    ----------
    ask: the Directory is to be asked how far it knows the volume.
    failures: refusals in a row; retry_at: monotonic seconds before which the volume rests.
    """

    entry: StoreVolume
    uuid: str
    generation: int
    confirmed_to: int
    ask: bool = False
    failures: int = 0
    retry_at: float = 0.0

    def record(self) -> Record:
        return {"uuid": self.uuid, "generation": self.generation, "confirmedTo": self.confirmed_to}


class Confirmer:
    """Confirms the needles of one data folder.

    Parameters
    ----------
    store_id: of this Store.
    clock: monotonic seconds. dice: random numbers in 0 ≤ x < 1.
    """

    def __init__(
        self,
        folder: DataFolder,
        volumes: StoreVolumes,
        calls: DirectoryCalls,
        store_id: str,
        timing: Timing,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._calls = calls
        self._store_id = store_id
        self._timing = timing
        self._clock = clock
        self._dice = dice
        self._path = folder.path / CONFIRMED_FILE
        self._saved: dict[int, Record] | None = None
        self._marks: dict[int, _Mark] = {}
        self._pending: dict[int, StoreVolume] = {}
        self._woken = asyncio.Event()
        self._failures = 0
        self._changed = False

    # -- what there is to do

    def ask_all(self) -> None:
        """A Directory has registered us: ask it about every volume."""
        for mark in self._marks.values():
            mark.ask = True
        self.look_at(self._volumes.of(self._folder))

    def look_at(self, entries: Iterable[StoreVolume]) -> None:
        """These volumes may have needles to confirm; those of other folders are passed over."""
        for entry in entries:
            if entry.folder is self._folder:
                self._pending[entry.id] = entry
        if self._pending:
            self._woken.set()

    # -- doing it

    async def run(self) -> None:
        """Confirm for ever, as long as the folder has not failed."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_for_ever())
            tasks.create_task(self._confirm_for_ever())

    async def _confirm_for_ever(self) -> None:
        while not self._folder.failed:
            self._woken.clear()
            worked = await self.step()
            if worked or self._woken.is_set():
                continue
            try:
                async with asyncio.timeout(self._rest_seconds()):
                    await self._woken.wait()
            except TimeoutError:
                pass  # a volume that rested after a refusal is to be tried again

    async def drain(self) -> None:
        """Confirm what there is, as far as the Directory takes it at once; for the end of a Store."""
        self.look_at(self._volumes.of(self._folder))
        failures = self._failures
        while await self.step(patient=False) and self._failures == failures:
            pass

    async def step(self, *, patient: bool = True) -> bool:
        """Send one batch of one volume; returns whether there was something to do.

        Parameters
        ----------
        patient: when no Directory can be reached, wait before returning.
        """
        mark = await self._next()
        if mark is None:
            return False
        try:
            await self._confirm(mark)
        except DirectoryUnreachable as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("needles are not confirmed: %s; trying again", error)
            if patient:
                await asyncio.sleep(retry_pause_seconds(self._failures, self._dice(), self._timing))
        except HaystackError as error:
            self._refused(mark, str(error))
        else:
            if self._failures:
                _log.info("needles are confirmed again")
            self._failures = 0
        return True

    async def _next(self) -> _Mark | None:
        """A volume that may have something to confirm; the one that waited longest."""
        now = self._clock()
        for volume, entry in list(self._pending.items()):
            mark = await self._mark(entry)
            if mark is None or self._is_done(mark):
                self._pending.pop(volume, None)
            elif mark.retry_at <= now:
                # To the end of the queue, so that one busy volume does not keep the others waiting.
                self._pending.pop(volume, None)
                self._pending[volume] = entry
                return mark
        return None

    async def _mark(self, entry: StoreVolume) -> _Mark | None:
        """The volume's mark; None while it is not open, or while another Store is the one to confirm it."""
        if entry.volume is None or not may_confirm(entry, self._volumes.control):
            return None
        if self._saved is None:
            self._saved = await self._folder.run(read_table, self._path)
        block = entry.volume.superblock
        mark = self._marks.get(entry.id)
        if mark is None or mark.entry is not entry or mark.generation != block.generation:
            mark = self._marks[entry.id] = _mark_from(entry, entry.volume, self._saved.get(entry.id, {}))
        limit = self._limit(mark)
        if mark.confirmed_to > limit and entry.membership is None:
            _log.warning(
                "volume %d has %d bytes, but %d were confirmed: its end was lost, or cut",
                entry.id,
                limit,
                mark.confirmed_to,
            )
            mark.confirmed_to = limit
        return mark

    def confirmed_to(self, entry: StoreVolume) -> int:
        """Up to where the needles of a volume are known to the Directory, in the generation that is in force."""
        mark, block = self._marks.get(entry.id), entry.superblock
        known = mark is not None and block is not None and mark.entry is entry and mark.generation == block.generation
        return mark.confirmed_to if mark is not None and known else 0

    def _limit(self, mark: _Mark) -> int:
        return confirmable_tail(mark.entry, self._volumes.control)

    def _is_done(self, mark: _Mark) -> bool:
        return not mark.ask and mark.confirmed_to >= self._limit(mark)

    async def _confirm(self, mark: _Mark) -> None:
        limit = self._limit(mark)
        if mark.ask:
            batch = Batch(mark.confirmed_to, mark.confirmed_to, [])
        else:
            batch = await mark.entry.run(read_batch, mark.confirmed_to, limit)
        if mark.entry.superblock is None or mark.entry.superblock.generation != mark.generation:
            return  # compacted meanwhile: offsets of that generation mean something else now
        confirmed_to = await self._calls.confirm(
            {
                "storeId": self._store_id,
                "volume": mark.entry.id,
                "generation": mark.generation,
                "epoch": mark.entry.membership.epoch if mark.entry.membership else mark.entry.epoch,
                "from": batch.start,
                "to": batch.end,
                "needles": batch.rows,
            }
        )
        self._move(mark, batch, confirmed_to, limit)

    def _move(self, mark: _Mark, batch: Batch, confirmed_to: int, limit: int) -> None:
        if confirmed_to < batch.start:
            _log.info(
                "volume %d: the Directory knows %d of %d confirmed bytes; telling it the rest again",
                mark.entry.id,
                confirmed_to,
                batch.start,
            )
        elif confirmed_to == batch.start < batch.end:
            self._refused(mark, "the Directory took none of the needles")
            return
        mark.ask, mark.failures = False, 0
        mark.confirmed_to = min(confirmed_to, limit)
        self._changed = True

    def _refused(self, mark: _Mark, problem: str) -> None:
        mark.failures += 1
        mark.retry_at = self._clock() + retry_pause_seconds(mark.failures, self._dice(), self._timing)
        if mark.failures == 1:
            _log.warning("needles of volume %d are not confirmed: %s; trying again", mark.entry.id, problem)

    def _rest_seconds(self) -> float | None:
        """Until the first volume that was refused may be tried again; None for as long as it takes."""
        resting = [self._marks[volume].retry_at for volume in self._pending if volume in self._marks]
        return max(0.0, min(resting) - self._clock()) if resting else None

    # -- keeping the marks

    async def _save_for_ever(self) -> None:
        while not self._folder.failed:
            await asyncio.sleep(self._timing.confirmed_save_seconds)
            await self.save()

    async def save(self) -> None:
        """Write the marks down if they have moved. A failure costs repeated confirmations, no more."""
        if not self._changed or self._folder.failed:
            return
        self._changed = False
        records = (self._saved or {}) | {volume: mark.record() for volume, mark in self._marks.items()}
        self._saved = records
        try:
            await self._folder.run(write_table, self._path, records)
        except HaystackError as error:
            _log.warning("what is confirmed cannot be written down: %s", error)


def confirmable_tail(entry: StoreVolume, control: ControlBlock) -> int:
    """Up to where needles may be told to the Directory: what is durable here, and, with copies, on all of them."""
    durable = max(entry.durable_tail, control.durable_tail(entry.slot))
    return durable if entry.membership is None else min(durable, control.committed_tail(entry.slot))


def may_confirm(entry: StoreVolume, control: ControlBlock) -> bool:
    """Whether this Store tells of the volume: as its primary, once it knows what all copies have."""
    if entry.duty is Duty.ALONE:
        return True
    return entry.duty in LEADING and confirmable_tail(entry, control) > 0


def _mark_from(entry: StoreVolume, volume: Volume, saved: Record) -> _Mark:
    """A mark as saved, or at the beginning when that is of another volume or generation."""
    block = volume.superblock
    uuid, confirmed_to = block.uuid.hex(), saved.get("confirmedTo")
    same = saved.get("uuid") == uuid and saved.get("generation") == block.generation
    known = confirmed_to if same and isinstance(confirmed_to, int) and confirmed_to >= 0 else 0
    return _Mark(entry, uuid, block.generation, known, ask=True)


class TailLook:
    """Tells of the slots whose durable or committed tail has moved, at every look.

    Parameters
    ----------
    notify: is given these slots, if there are any.
    looked: called after every look, with a moment before it (monotonic seconds) and these slots.
    """

    def __init__(
        self,
        control: ControlBlock,
        notify: Callable[[set[int]], None],
        looked: Callable[[float, set[int]], None] = lambda now, slots: None,
    ) -> None:
        self._changed = [ChangedSlots(control, cell) for cell in (VolumeCell.DURABLE_TAIL, VolumeCell.COMMITTED_TAIL)]
        self._notify = notify
        self._looked = looked

    def __call__(self) -> None:
        now = time.monotonic()
        slots = set[int]().union(*(one.take() for one in self._changed))
        if slots:
            self._notify(slots)
        self._looked(now, slots)
