"""Looking after one data folder: its health and free space, and the sizes, states and checkpoints of its volumes.

Each folder has a keeper of its own, so that a disk that hangs keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from haystack.errors import HaystackError
from haystack.store.activity import ChangedSlots
from haystack.store.control_cells import FolderCell, FolderState, Reason, VolumeState
from haystack.store.folder import DataFolder, Probe
from haystack.store.scrub.mending import renew_failed_index
from haystack.store.settings import RESERVE_SHARE, Timing
from haystack.store.states import checkpoint_due, folder_state, reserve_of, space_pause_seconds
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.units import format_duration, format_size

_log = logging.getLogger(__name__)

RENEW_REST_SECONDS = 600.0
"""An index that is damaged again within this time after it was made anew is not the problem: the disk is."""


class FolderKeeper:
    """Keeps one folder.

    Parameters
    ----------
    reserve_bytes: free space that uploads may not use up; None for room to compact the largest volume.
    clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: DataFolder,
        volumes: StoreVolumes,
        timing: Timing,
        *,
        reserve_bytes: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._volumes = volumes
        self._timing = timing
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._changed = ChangedSlots(volumes.control)
        self._renewed: dict[int, float] = {}
        self._renewing: set[asyncio.Task[None]] = set()
        self._recovering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep the folder until it fails."""
        await asyncio.gather(self._probe_for_ever(), self._watch_space_for_ever(), self._tick_for_ever())

    async def _probe_for_ever(self) -> None:
        while not self._folder.failed:
            await asyncio.sleep(self._timing.probe_seconds)
            await self.probe()

    async def _watch_space_for_ever(self) -> None:
        """Between the probes, which write: the less room there is, the sooner uploads could use up the reserve."""
        folder, most_seconds = self._folder, self._timing.probe_seconds
        while not folder.failed:
            pause_seconds = space_pause_seconds(folder.free_bytes, folder.reserve_bytes, most_seconds)
            await asyncio.sleep(pause_seconds)
            if pause_seconds < most_seconds and not folder.failed:
                found = await folder.run(folder.space)
                if found.error is None and not folder.failed:  # what is wrong with it the probe says
                    self._weigh(found)
                    self._publish()

    async def _tick_for_ever(self) -> None:
        while not self._folder.failed:
            await asyncio.sleep(self._timing.tick_seconds)
            await self.tick()

    async def probe(self) -> None:
        """Ask the folder how it is, and act on it."""
        if self._folder.failed:
            self._publish()
            return
        try:
            async with asyncio.timeout(self._timing.probe_timeout_seconds):
                found = await self._folder.probe_in_thread()
        except TimeoutError:
            waited = format_duration(self._timing.probe_timeout_seconds)
            found = Probe(error=f"it did not answer for {waited}; look at the disk and the kernel's log")
        if found.error is not None:
            self._volumes.fail_folder(self._folder, found.error)
        else:
            self._weigh(found)
        self._publish()

    def _weigh(self, found: Probe) -> None:
        folder = self._folder
        folder.total_bytes, folder.free_bytes = found.total_bytes, found.free_bytes
        stats = [entry.stat for entry in self._volumes.of(folder) if entry.stat is not None]
        # What is in the trash is carried over as well; how much that is, only a walk over the volume can tell.
        reserve_bytes = reserve_of(self._reserve_bytes, (stat.live_bytes + stat.index_bytes for stat in stats))
        folder.reserve_bytes = min(reserve_bytes, found.total_bytes // RESERVE_SHARE)
        state = folder_state(folder.state, found.total_bytes, found.free_bytes, folder.reserve_bytes)
        if state is folder.state:
            return
        folder.state = state
        free = format_size(found.free_bytes)
        if state is FolderState.FULL:
            _log.warning("data folder %s takes no more photos: only %s are free", folder.path, free)
        else:
            _log.info("data folder %s takes photos again: %s are free", folder.path, free)
        for entry in self._volumes.of(folder):
            self._volumes.judge(entry)

    def _publish(self) -> None:
        control, folder = self._volumes.control, self._folder
        for cell, value in (
            (FolderCell.TOTAL_BYTES, folder.total_bytes),
            (FolderCell.FREE_BYTES, folder.free_bytes),
            (FolderCell.STATE, folder.state),
        ):
            control.cells[control.folder_cell(folder.number, cell)] = value

    async def tick(self) -> None:
        """Look at the volumes that were used, checkpoint those that are due."""
        changed = self._changed.take()
        now = self._clock()
        for entry in self._volumes.of(self._folder):
            if self._volumes.state(entry) is VolumeState.FAILED:
                await self._look_at_failed(entry)
                continue
            if entry.waits_for_space and self._folder.state is FolderState.OK:
                await self._volumes.recover(entry)
            if entry.slot in changed:
                await self._look_at(entry, now)
            if entry.dirty_since is not None and checkpoint_due(
                now,
                entry.appended_at,
                entry.dirty_since,
                idle_seconds=self._timing.checkpoint_idle_seconds,
                most_seconds=self._timing.checkpoint_most_seconds,
            ):
                await self._volumes.checkpoint(entry)

    async def look_at_all(self) -> None:
        """Look at every volume, because a worker died and may not have told what it appended."""
        now = self._clock()
        for entry in self._volumes.of(self._folder):
            await self._look_at(entry, now)

    async def _look_at(self, entry: StoreVolume, now: float) -> None:
        before = entry.stat
        await self._volumes.refresh(entry)
        if before is not None and entry.stat is not None and entry.stat.size_bytes != before.size_bytes:
            entry.appended_at = now
            if entry.dirty_since is None:
                entry.dirty_since = now

    async def _look_at_failed(self, entry: StoreVolume) -> None:
        self._volumes.judge(entry)
        if entry.volume is not None and not entry.doubted:
            await self._volumes.doubt(entry)
        if entry.volume is not None and self._volumes.control.reason(entry.slot) is Reason.INDEX:
            self._renew_soon(entry)

    def _renew_soon(self, entry: StoreVolume) -> None:
        """Have a damaged index made anew, beside the rest; one that is damaged again soon is left to a restart."""
        renewed_seconds = self._renewed.get(entry.id)
        if renewed_seconds is not None and self._clock() - renewed_seconds < RENEW_REST_SECONDS:
            return
        self._renewed[entry.id] = self._clock()
        task = asyncio.create_task(self._renew(entry))
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _renew(self, entry: StoreVolume) -> None:
        try:
            await renew_failed_index(self._volumes, entry)
        except HaystackError as error:
            _log.error("volume %d: its index is not made anew: %s", entry.id, error)
