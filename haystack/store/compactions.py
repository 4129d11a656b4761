"""The compactions of a Store: one at a time in each data folder, each on a thread of its own.

A volume goes on in service all through: the workers read, append and delete, and open the next generation when it is in
force (:meth:`~haystack.store.control.ControlBlock.next_generation`). Before that the Directory has heard of everything
below the cut, since what is left out can never be told again.

What is prepared and waits for its membership has given its turn back: a Directory that died may have left it behind,
and the next one may begin with another volume.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from haystack.errors import CompactionFailed, HaystackError, IndexDamaged, OutOfSpace, VolumeUnavailable
from haystack.lifetime import end_tasks
from haystack.store.compaction_job import CompactionJob
from haystack.store.control import ControlBlock
from haystack.store.control_cells import CompactionPhase, Header, Slot, VolumeState
from haystack.store.folder import DataFolder
from haystack.store.joint_swap import JointSwap
from haystack.store.replication.membership import Membership
from haystack.store.replication.memberships import OtherGeneration
from haystack.store.replication.rules import Duty
from haystack.store.store_volume import StoreVolume
from haystack.store.users import Users
from haystack.store.volumes import StoreVolumes
from haystack.units import format_duration, format_size
from haystack.volume import Volume
from haystack.volume.compaction import Compacted, Compaction
from haystack.volume.live import CompactionOrder
from haystack.volume.pace import Cancelled, Pace

_log = logging.getLogger(__name__)

CONFIRM_SECONDS = 60.0
"""How long a compaction waits for the Directory to hear of what it leaves out."""

CONFIRM_POLL_SECONDS = 0.02

NICENESS = 10
"""Of the threads that copy."""

MAX_THREADS = 64
"""Compactions that are at work or wait for their membership; more wait for their turn."""

CLOSE_SECONDS = 3600.0
"""How long the old generation is kept open for those in the supervisor who still work with it."""

LET_GO_SECONDS = 30.0
"""How long it is kept open for the workers, who look several times a second whether it is still in force."""

Confirmed = Callable[[StoreVolume], int]
"""Up to where the needles of a volume are known to the Directory."""


class HasCopies(HaystackError):
    """The volume has copies on other Stores, and is compacted together with them, by the Directory's order."""

    http_status = 409


class Compactions:
    """All compactions of a Store.

    Parameters
    ----------
    store_id: of this Store.
    confirmed: None when there is no Directory to hear of anything.
    bytes_per_second: when nothing else is said; 0 for no limit.
    """

    def __init__(
        self, volumes: StoreVolumes, store_id: str, confirmed: Confirmed | None, *, bytes_per_second: int = 0
    ) -> None:
        self._store_id = store_id
        self._rate = bytes_per_second
        self._volumes = volumes
        self._confirmed = confirmed
        self._jobs: dict[int, CompactionJob] = {}
        self._turns: dict[int, asyncio.Lock] = {}
        self._threads = ThreadPoolExecutor(MAX_THREADS, "compact", initializer=_stand_back)
        self._closing: set[asyncio.Task[None]] = set()

    def job(self, volume: int) -> CompactionJob | None:
        """The last job of a volume since the Store's start."""
        return self._jobs.get(volume)

    def start(
        self, volume: int, order: CompactionOrder, bytes_per_second: int | None, *, hold: bool = False
    ) -> CompactionJob:
        """Start a compaction, or tell of the one that is under way.

        Parameters
        ----------
        bytes_per_second: 0 for no limit, None for that of the Store.
        hold: wait for the membership of the next generation when that is prepared, see :meth:`swap`.

        Raises CompactionFailed (another order is under way), VolumeNotFound, VolumeUnavailable, HasCopies, OutOfSpace.
        """
        job = self._jobs.get(volume)
        if job is not None and not job.is_over:
            if job.hold != hold or (hold and job.order != order):
                raise CompactionFailed(f"volume {volume} is being compacted by another order; cancel that first")
            return job
        entry = self._volumes.get(volume)
        self._require_possible(entry, hold)
        job = self._jobs[volume] = CompactionJob(
            volume,
            order,
            Pace((self._rate if bytes_per_second is None else bytes_per_second) or None),
            hold,
            time.monotonic(),
        )
        job.task = asyncio.create_task(self._run(job, entry))
        return job

    async def swap(self, entry: StoreVolume, membership: Membership) -> None:
        """Put what is prepared in place, together with the membership that it comes into force with.

        Returns when both are durable and in the control block; or one of them is not, and the volume takes no writes.

        Raises OtherGeneration: nothing has changed, and what was prepared, if anything, is gone.
        """
        job = self._jobs.get(entry.id)
        if (
            job is not None
            and job.task is not None
            and job.state == "ready"
            and job.prepared is not None
            and job.prepared.generation == membership.generation
        ):
            job.membership = membership
            job.granted.set()
            await _until_done(job.task)
            if job.state == "done":
                return
        raise OtherGeneration(entry.id, entry.require_open().superblock.generation)

    async def cancel(self, volume: int) -> CompactionJob | None:
        """Give up a compaction that is under way; returns it when it has ended."""
        job = self._jobs.get(volume)
        if job is not None and job.task is not None:
            job.pace.stop()
            job.granted.set()
            await asyncio.wait((job.task,))
        return job

    async def close(self) -> None:
        """Give up all of them."""
        for volume in list(self._jobs):
            await self.cancel(volume)
        await end_tasks(self._closing)
        await asyncio.to_thread(self._threads.shutdown)

    def _require_possible(self, entry: StoreVolume, hold: bool) -> None:
        if self._volumes.state(entry) is VolumeState.FAILED:
            raise VolumeUnavailable(f"volume {entry.id} is set aside: {entry.reason}; it cannot be compacted")
        entry.require_open()
        if hold:
            if entry.duty not in (Duty.PRIMARY, Duty.REPLICA):
                raise VolumeUnavailable(
                    f"volume {entry.id}: its copy here is {entry.duty.name.lower()}, and not compacted"
                )
        elif entry.membership is not None or entry.duty is not Duty.ALONE:
            raise HasCopies(
                f"volume {entry.id} has, or had, copies on other Stores: have it compacted by `haystack volume compact`"
            )

    async def _run(self, job: CompactionJob, entry: StoreVolume) -> None:
        self._note_phase(entry, CompactionPhase.WAITING)
        try:
            async with self._turns.setdefault(entry.folder.number, asyncio.Lock()):
                job.pace.check()
                job.state = "running"
                self._note_phase(entry, CompactionPhase.COPYING)
                work = asyncio.create_task(self._compact(job, entry))
                await _until_ready(job, work)
            self._note_phase(entry, CompactionPhase.READY)
            await work
            job.state = "done"
        except Cancelled:
            job.state, job.error = "failed", "it was cancelled"
        except HaystackError as error:
            job.state, job.error = "failed", str(error)
            _log.warning("volume %d is not compacted: %s", entry.id, error)
        except Exception as error:
            job.state, job.error = "failed", f"unexpected {type(error).__name__}: {error}"
            _log.exception("volume %d is not compacted", entry.id)
        finally:
            self._note_phase(entry, CompactionPhase.NONE)
            _count(self._volumes.control, job)

    def _note_phase(self, entry: StoreVolume, phase: CompactionPhase) -> None:
        control = self._volumes.control
        control.cells[control.slot_cell(entry.slot, Slot.COMPACTING)] = phase

    async def _compact(self, job: CompactionJob, entry: StoreVolume) -> None:
        self._require_possible(entry, job.hold)
        old, users = entry.require_open(), entry.users
        await entry.folder.run(_require_room, old, entry.folder)
        loop = asyncio.get_running_loop()
        on_ready = partial(loop.call_soon_threadsafe, job.ready.set)
        joint = JointSwap(self._volumes.control, self._store_id, entry, job, on_ready)
        compaction = Compaction(
            old,
            job.order,
            job.pace,
            before_swap=lambda cut: self._await_confirmed(job, entry, cut),
            # Whoever wants to append waits for this, so it goes on a thread that does not stand back.
            call_swap=lambda swap: entry.folder.submit(swap).result(),
            hold=joint.hold,
            settled=joint.settled,
            on_swapped=joint.publish,
            progress=job.progress,
        )
        began = time.monotonic()
        users.enter()
        entry.compaction = job.pace
        try:
            done = await loop.run_in_executor(self._threads, compaction.run)
            job.result, job.generation, job.error = done, done.volume.superblock.generation, done.problem
            if job.membership is not None:
                entry.membership = job.membership
            if entry.volume is not old:
                # Taken out of service in the last moment: who did that opens what is there, when nobody else has it.
                entry.superblock = done.volume.superblock
                await entry.folder.run(done.volume.close)
                return
        except IndexDamaged:
            await entry.folder.run(old.dirty.distrust)
            raise
        finally:
            entry.compaction = None
            users.leave()
        await self._go_on(entry, done)
        self._close_later(old, users)
        _log.info(
            "volume %d compacted from %s to %s in %s; nobody could append for %.1f ms",
            entry.id,
            format_size(done.old_bytes),
            format_size(done.new_bytes),
            format_duration(time.monotonic() - began),
            done.pause_seconds * 1000,
        )

    async def _go_on(self, entry: StoreVolume, done: Compacted) -> None:
        entry.users = Users()
        self._volumes.replace(entry, done.volume)
        if done.problem:
            self._volumes.fail(entry, done.problem)
        else:
            await self._volumes.checkpoint(entry)

    def _await_confirmed(self, job: CompactionJob, entry: StoreVolume, cut: int) -> None:
        """Wait, on the compaction's thread, until the Directory has heard of everything below the cut."""
        if entry.duty is Duty.REPLICA:
            return  # its primary tells the Directory
        deadline = time.monotonic() + CONFIRM_SECONDS
        while self._confirmed is not None and self._confirmed(entry) < cut:
            job.pace.check()
            if time.monotonic() >= deadline:
                raise CompactionFailed(
                    f"volume {entry.id}: the Directory has not heard of all its photos and deletes within "
                    f"{format_duration(CONFIRM_SECONDS)}, and could not after a compaction; try again when it answers"
                )
            time.sleep(CONFIRM_POLL_SECONDS)
        if entry.membership is not None and not job.hold:
            raise CompactionFailed(f"volume {entry.id} was given copies while it was compacted; nothing was changed")

    def _close_later(self, old: Volume, users: Users) -> None:
        """Close the old generation when nobody works with it any more."""
        task = asyncio.create_task(_close(old, users))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _count(control: ControlBlock, job: CompactionJob) -> None:
    """For the metrics."""
    result, cells = job.result, control.cells
    if result is None:
        cells[Header.COMPACTIONS_FAILED] += 1
        return
    pause_microseconds = int(result.pause_seconds * 1_000_000)
    longest = Header.COMPACTION_LONGEST_PAUSE_MICROSECONDS
    cells[Header.COMPACTIONS] += 1
    cells[Header.COMPACTED_BYTES] += max(0, result.old_bytes - result.new_bytes)
    cells[Header.COMPACTION_PAUSES_MICROSECONDS] += pause_microseconds
    cells[longest] = max(cells[longest], pause_microseconds)


async def _until_done(task: asyncio.Task[None]) -> None:
    """Wait for a task, and to its end although the waiting is cancelled: the caller's lock must outlast it."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _until_ready(job: CompactionJob, work: asyncio.Task[None]) -> None:
    """Wait until nothing more is copied: it is prepared, or over."""
    ready = asyncio.create_task(job.ready.wait())
    try:
        await asyncio.wait((ready, work), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()


def _stand_back() -> None:
    """Let the workers have the processor first; this is for the thread alone."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


async def _close(old: Volume, users: Users) -> None:
    try:
        await asyncio.to_thread(_close_in_thread, old, users)
    except HaystackError as error:
        _log.warning("the old generation of a volume was not closed: %s", error)


def _close_in_thread(old: Volume, users: Users) -> None:
    if not users.wait_for_none(CLOSE_SECONDS):
        return
    # Whoever closes the last descriptor of a file that is gone frees its pages, tens of milliseconds for each 100 MiB:
    # that should be this thread, and no worker.
    with contextlib.suppress(VolumeUnavailable):
        old.lock_alone(LET_GO_SECONDS)
    old.close()


def _require_room(volume: Volume, folder: DataFolder) -> None:
    """What lives must fit beside the volume; trash comes to that, and what is uploaded meanwhile."""
    space = os.statvfs(folder.path)
    free_bytes = space.f_bavail * space.f_frsize
    stat = volume.stat()
    needed_bytes = stat.live_bytes + stat.index_bytes
    if needed_bytes > free_bytes:
        raise OutOfSpace(
            f"data folder {folder.path} has {format_size(free_bytes)} free, and compacting volume "
            f"{volume.superblock.volume} needs {format_size(needed_bytes)}; free some space first, or move the volume"
        )
