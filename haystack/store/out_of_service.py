"""Taking a volume out of service and putting it back, while the workers go on with all others.

For whatever changes a volume's file other than by appending: cutting a tail, rebuilding an index, compaction.

1. The state becomes RECOVERING: from now on requests are answered 503. Workers close the volume at their next tick, as
   soon as nobody in them uses it; clients that do not take an answer out of its page cache are reset.
2. The supervisor waits until no thread of its own uses the volume, and then for the exclusive lock on the file. A map
   of the file holds the lock too, so who has it knows that nobody can touch a page that is about to go.
3. The file is changed; whatever that was, the volume is then opened and recovered as at a start, and put back.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from haystack.errors import HaystackError, VolumeUnavailable
from haystack.store.control_cells import Reason, VolumeState
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import Volume

_log = logging.getLogger(__name__)

WAIT_SECONDS = 10.0
"""How long to wait for those who use the volume before it is put back as it was."""


@asynccontextmanager
async def out_of_service(
    volumes: StoreVolumes, entry: StoreVolume, reason: str, *, wait_seconds: float = WAIT_SECONDS
) -> AsyncIterator[Volume]:
    """The volume, locked so that nobody else has it open; it is recovered and put back at the end of the block.

    Parameters
    ----------
    reason: what is done with it, for people.

    Raises VolumeUnavailable when it is not in service, or when somebody does not let go of it: then nothing happened.
    """
    if volumes.state(entry) is VolumeState.FAILED:
        raise VolumeUnavailable(f"volume {entry.id} is set aside: {entry.reason}; restart the Store to recover it")
    async with withdrawn(volumes, entry, reason, wait_seconds=wait_seconds) as volume:
        try:
            yield volume
        finally:
            await _put_back(volumes, entry, volume)


@asynccontextmanager
async def withdrawn(
    volumes: StoreVolumes, entry: StoreVolume, reason: str, *, wait_seconds: float = WAIT_SECONDS
) -> AsyncIterator[Volume]:
    """As :func:`out_of_service`, but nobody puts the volume back; it is closed at the end. It may have failed before.

    Raises VolumeUnavailable.
    """
    async with entry.changing:
        volume = entry.require_open()
        volumes.control.take_out(entry.slot)
        _detach(entry, reason)
        _log.info("volume %d is taken out of service: %s", entry.id, reason)
        try:
            await entry.folder.run(_lock, entry, volume, wait_seconds)
        except BaseException:
            entry.volume = volume
            entry.revision += 1
            volumes.judge(entry)
            raise
        volumes.control.forget_tails(entry.slot)
        entry.durable_tail = 0
        try:
            yield volume
        finally:
            await _close(volumes, entry, volume)


def _detach(entry: StoreVolume, reason: str) -> None:
    entry.volume = None
    if entry.compaction is not None:
        entry.compaction.stop()
    entry.reason = reason
    entry.dirty_since = None
    entry.revision += 1


def _lock(entry: StoreVolume, volume: Volume, wait_seconds: float) -> None:
    if not entry.users.wait_for_none(wait_seconds):
        raise VolumeUnavailable(f"volume {entry.id} cannot be taken out of service: something here still works with it")
    volume.lock_alone(wait_seconds)


async def _close(volumes: StoreVolumes, entry: StoreVolume, volume: Volume) -> None:
    try:
        await entry.folder.run(volume.close)
    except HaystackError as error:
        volumes.fail(entry, str(error))


async def _put_back(volumes: StoreVolumes, entry: StoreVolume, volume: Volume) -> None:
    await _close(volumes, entry, volume)
    # A damaged index is no reason to leave it closed: that is mended with the volume open.
    if volumes.state(entry) is not VolumeState.FAILED or volumes.control.reason(entry.slot) is Reason.INDEX:
        await volumes.recover(entry)
    # What all copies have, they still have, as far as it is still here.
    volumes.control.limit_committed(entry.slot, entry.durable_tail)
