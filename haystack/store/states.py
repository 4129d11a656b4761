"""Decisions about volumes and folders, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from haystack.store.control_cells import FolderState, Reason, VolumeState
from haystack.store.replication.rules import Duty
from haystack.store.settings import RESERVE_SHARE
from haystack.units import GIB, MIB

SMALLEST_ROOM_BYTES = 4096
SMALLEST_ROOM_SHARE = 256
"""A volume with less room than this, in bytes and as a part of its size, takes no photos."""

SAME_FREE_BYTES = 64 * MIB
"""Free space is compared in steps of this size: folders on the same disk should count as alike."""

LEAST_RESERVE_BYTES = 64 * MIB
"""Reserve of a folder whose volumes are small, unless an operator set another one."""

FAST_DISK_BYTES_PER_SECOND = 2 * GIB
LEAST_SPACE_PAUSE_SECONDS = 0.02
"""In this time the fastest disk takes less than the least reserve."""

NEARLY_FULL_SHARE = 32
"""At most this part of a volume's size is kept for uploads that were assigned before it was reported full."""


def reserve_of(setting_bytes: int | None, compacted_bytes: Iterable[int]) -> int:
    """Free space that uploads leave on a disk, for deletes and compactions.

    Parameters
    ----------
    setting_bytes: as an operator set it; None for as much as the largest volume takes to be compacted.
    compacted_bytes: what each volume of the folder takes, with its index, after a compaction.
    """
    if setting_bytes is not None:
        return setting_bytes
    return max(LEAST_RESERVE_BYTES, max(compacted_bytes, default=0))


def folder_state(now: FolderState, total_bytes: int, free_bytes: int, reserve_bytes: int) -> FolderState:
    """The state of a folder that answers, by its free space.

    A full folder becomes usable again only with a tenth of the reserve to spare, so that it does not flap.

    Parameters
    ----------
    reserve_bytes: free space that uploads may not use up; at most a tenth of the disk counts.
    """
    if now is FolderState.FAILED:
        return now
    reserve = min(reserve_bytes, total_bytes // RESERVE_SHARE)
    if now is FolderState.FULL:
        reserve += reserve // 10
    return FolderState.FULL if free_bytes < reserve else FolderState.OK


def space_pause_seconds(free_bytes: int, reserve_bytes: int, most_seconds: float) -> float:
    """How long the free space of a disk need not be looked at: so long that uploads cannot use up the reserve."""
    room_bytes = free_bytes - reserve_bytes
    if room_bytes <= 0:
        return most_seconds
    return min(most_seconds, max(LEAST_SPACE_PAUSE_SECONDS, room_bytes / FAST_DISK_BYTES_PER_SECOND))


def volume_state(size_bytes: int, max_bytes: int, folder: FolderState) -> tuple[VolumeState, Reason]:
    """The state of a sound volume in a folder that has not failed."""
    if size_bytes + min(SMALLEST_ROOM_BYTES, max_bytes // SMALLEST_ROOM_SHARE) > max_bytes:
        return VolumeState.READONLY, Reason.VOLUME_FULL
    if folder is not FolderState.OK:
        return VolumeState.READONLY, Reason.DISK_FULL
    return VolumeState.WRITABLE, Reason.NONE


_REASON_OF_DUTY = {
    Duty.DEGRADED: Reason.DEGRADED,
    Duty.REPLICA: Reason.REPLICA,
    Duty.FOLLOWER: Reason.STALE,
    Duty.STALE: Reason.STALE,
    Duty.UNTOLD: Reason.UNTOLD,
}


def state_of_copy(state: VolumeState, reason: Reason, duty: Duty) -> tuple[VolumeState, Reason]:
    """The same for a copy of a volume: only a primary with as many copies as promised takes uploads by itself."""
    if state is VolumeState.WRITABLE and duty in _REASON_OF_DUTY:
        return VolumeState.READONLY, _REASON_OF_DUTY[duty]
    return state, reason


def nearly_full(size_bytes: int, max_bytes: int, max_photo_bytes: int) -> bool:
    """Whether a volume is to be reported as full although it still takes what fits.

    Photos that were assigned to it before the Directory knew should still find room.
    """
    return size_bytes + min(max_photo_bytes, max_bytes // NEARLY_FULL_SHARE) > max_bytes


@dataclass(frozen=True, slots=True)
class Room:
    """A data folder as a place for a new volume: its number, free bytes, and how many volumes it has."""

    folder: int
    state: FolderState
    free_bytes: int
    volumes: int


def best_folder(rooms: Iterable[Room]) -> int | None:
    """The folder for a new volume: most free space, then fewest volumes, then the first; None when there is none."""
    usable = [room for room in rooms if room.state is FolderState.OK]
    if not usable:
        return None
    return min(usable, key=lambda room: (-(room.free_bytes // SAME_FREE_BYTES), room.volumes, room.folder)).folder


def checkpoint_due(
    now: float, appended: float, dirty_since: float, *, idle_seconds: float, most_seconds: float
) -> bool:
    """Whether a volume that has changes since its last checkpoint should get the next one (times in seconds)."""
    return now - appended >= idle_seconds or now - dirty_since >= most_seconds
