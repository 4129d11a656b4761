"""One volume as a Store's supervisor has it, and the blocking work on its files: opened, made, checkpointed.

Nothing here decides; :class:`~haystack.store.volumes.StoreVolumes` does, and calls this on the folder's threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from haystack.errors import HaystackError, UnknownFormat, VolumeExists, VolumeUnavailable
from haystack.store.folder import DataFolder
from haystack.store.replication.members_file import remove_members, write_members
from haystack.store.replication.membership import Membership
from haystack.store.replication.rules import Duty
from haystack.store.tables import VOLUMES_FILE, read_table, write_table
from haystack.store.users import Users
from haystack.volume import Superblock, Volume, VolumeStat
from haystack.volume.files import VolumeFile, sync_folder
from haystack.volume.index import remove_index
from haystack.volume.opening import read_superblock
from haystack.volume.pace import Pace
from haystack.volume.recovery import Progress

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class StoreStopping(VolumeUnavailable):
    """Ends a long walk over a volume (recovery, check) when the Store is to stop."""


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What the Directory says of a volume that is to be made.

    Parameters
    ----------
    volume: logical volume id.
    uuid: of the logical volume.
    replication: copies as a number 0 … 999.
    created_ms: milliseconds since 1970.
    epoch: of its membership.
    membership: who has copies of it; None for one copy, or when that is told later.
    max_bytes: size limit, None for the Store's own.
    folder: id of the data folder that should hold it, None for any.
    """

    volume: int
    uuid: UUID
    replication: int
    created_ms: int
    epoch: int
    max_bytes: int | None
    folder: str | None
    membership: Membership | None = None


@dataclass(slots=True, eq=False)
class StoreVolume:
    """One volume of this Store.

    Parameters
    ----------
    slot: in the control block.
    max_bytes: its size limit.
    epoch: that it was made under; ``membership`` has the one in force.
    volume: open, or None while it is recovering or cannot be used.
    reason: why it is not writable, for people.
    superblock: None when it cannot be read.
    stat: as of the last look.
    durable_tail: bytes that are known to be durable apart from what the workers have published.
    revision: rises with every change of what is said of the volume, apart from the workers' counters.
    appended_at, dirty_since: monotonic seconds; ``dirty_since`` is None when there is nothing to checkpoint.
    waits_for_space: it could not be recovered because the disk was full, and is tried again.
    doubted: it is written down on disk that the index is not to be trusted.
    users: those who work with ``volume`` on threads, see :meth:`run`.
    changing: held by whoever takes the volume out of service.
    compaction: stops the compaction that is under way; None when there is none.
    membership, duty, reign: see :mod:`haystack.store.replication`.
    followed_epoch: under which its bytes were compared with the primary's, 0 for none.
    membering: held by whoever changes the membership.
    scrubbed: end of the last full scrub (milliseconds since 1970), bytes that are broken, ranges that were mended, and
        what an operator should know of it.
    """

    id: int
    slot: int
    folder: DataFolder
    path: Path
    max_bytes: int
    epoch: int = 1
    volume: Volume | None = None
    reason: str = ""
    superblock: Superblock | None = None
    stat: VolumeStat | None = None
    durable_tail: int = 0
    revision: int = 0
    appended_at: float = 0.0
    dirty_since: float | None = None
    waits_for_space: bool = False
    doubted: bool = False
    users: Users = field(default_factory=Users)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    compaction: Pace | None = None
    membership: Membership | None = None
    duty: Duty = Duty.ALONE
    reign: int = 0
    followed_epoch: int = 0
    membering: asyncio.Lock = field(default_factory=asyncio.Lock)
    scrubbed: tuple[int, int, int, str] = (0, 0, 0, "")

    async def run(
        self,
        function: Callable[Concatenate[Volume, _Parameters], _Result],
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result:
        """Call a function with the open volume, on a thread of its folder; it is not closed meanwhile.

        Raises VolumeUnavailable when it is not open, and what the function raises.
        """
        volume, users = self.require_open(), self.users
        users.enter()
        try:
            future = self.folder.submit(function, volume, *args, **kwargs)
        except BaseException:
            users.leave()
            raise
        # Not when the caller stops waiting: the thread goes on then.
        future.add_done_callback(lambda _: users.leave())
        return await asyncio.wrap_future(future)

    def require_open(self) -> Volume:
        """The open volume. Raises VolumeUnavailable."""
        if self.volume is None:
            raise VolumeUnavailable(f"volume {self.id} cannot be used now: {self.reason or 'it is being recovered'}")
        return self.volume


def open_volume(entry: StoreVolume, progress: Progress) -> tuple[Volume, VolumeStat]:
    """Open and recover a volume, and make it durable as it then is.

    Parameters
    ----------
    progress: called now and then during a long walk; may raise.

    Raises UnknownFormat, OutOfSpace, DiskError, VolumeUnavailable, and what ``progress`` raises.
    """
    volume = Volume.open(entry.path, max_bytes=entry.max_bytes, progress=progress)
    try:
        inside = volume.superblock.volume
        if inside != entry.id:
            raise UnknownFormat(str(entry.path), 0, f"holds volume {inside}, but its name says {entry.id}")
        # Committed is not yet durable after a kill, and only what is durable may be told to a Directory.
        volume.checkpoint()
        volume.index.warm()
        return volume, volume.stat()
    except BaseException:
        volume.close()
        raise


def superblock_of(path: Path) -> Superblock | None:
    """The superblock, or None: opening the volume will then say what is wrong with it."""
    try:
        file = VolumeFile(path, readonly=True)
    except HaystackError:
        return None
    try:
        return read_superblock(file)
    except HaystackError:
        return None
    finally:
        file.close()


def checkpoint_volume(volume: Volume) -> int:
    """Make volume and index durable; returns how far the volume surely is. Raises DiskError, OutOfSpace."""
    tail = volume.tail()
    volume.checkpoint()
    return tail


def make_volume(path: Path, new: NewVolume, max_bytes: int, store_id: str) -> tuple[Volume, VolumeStat]:
    """Make a volume with its settings; leaves nothing behind when that fails.

    Raises VolumeExists, OutOfSpace, DiskError.
    """
    if path.exists():
        raise VolumeExists(f"{path} exists already, but is not in use; restart the Store to have it recovered")
    table = path.parent / VOLUMES_FILE
    # Before the volume: settings without a volume do no harm.
    write_table(table, read_table(table) | {new.volume: {"maxBytes": max_bytes, "epoch": new.epoch}})
    if new.membership is None:
        remove_members(path)  # of a volume that was here before
    else:
        write_members(path, new.membership, store_id)
    try:
        volume = Volume.create(
            path,
            new.volume,
            uuid=new.uuid.bytes,
            created_ms=new.created_ms,
            replication=new.replication,
            max_bytes=max_bytes,
        )
    except HaystackError:
        remove_index(path.with_suffix(".idx"))
        for leftover in (path, path.with_suffix(".dirty"), path.with_name(path.name + ".new")):
            leftover.unlink(missing_ok=True)
        sync_folder(path.parent)
        raise
    return volume, volume.stat()
