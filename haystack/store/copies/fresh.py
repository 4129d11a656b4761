"""A copy made from nothing: ``<id>.vol.copy``, which becomes ``<id>.vol`` when all of it was verified and compared.

A Store that stops in the middle goes on with the file when it is asked again; a name that does not end in ``.vol`` is
never taken for a volume.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from haystack.errors import DiskError, OutOfSpace
from haystack.store.copies.peer import Peer
from haystack.store.copies.prefix import BLOCK_BYTES, calls
from haystack.store.copies.progress import FollowFailed, Order, Progress
from haystack.store.copies.ranges import MAX_BYTES
from haystack.store.folder import DataFolder
from haystack.volume import ScannedNeedle, Superblock
from haystack.volume.files import VolumeFile, disk_error, sync_folder
from haystack.volume.hashing import hash_blocks
from haystack.volume.layout import HEADER_BYTES, SUPERBLOCK_BYTES, LayoutError
from haystack.volume.scan import Damage, scan

_log = logging.getLogger(__name__)

SUFFIX = ".vol.copy"
IMPORT_SUFFIX = ".vol.import"
"""Of a volume that an operator brings as a file."""

ABANDONED_SECONDS = 24 * 3600
"""A copy that nobody went on with for so long is removed when the Store starts."""


def copy_path(folder: Path, volume: int) -> Path:
    """Where a copy grows."""
    return folder / f"{volume}{SUFFIX}"


def remove_abandoned(folder: Path, now: float) -> None:
    """Remove copies that nobody goes on with (``now``: seconds since 1970). Raises DiskError."""
    try:
        for path in (*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{IMPORT_SUFFIX}")):
            if now - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
                _log.info("%s is removed: nobody went on with it", path)
    except OSError as error:
        raise DiskError(f"{folder}: cannot remove abandoned copies: {error.strerror}") from error


async def make_copy(folder: DataFolder, order: Order, peer: Peer, progress: Progress) -> Path:
    """Make a copy of all that the source has; returns the file, which is durable, verified and compared.

    Raises FollowFailed, PeerUnavailable, DiskError, OutOfSpace.
    """
    path = copy_path(folder.path, order.volume)
    superblock = await _superblock(order, peer)
    end = await peer.tail()
    if end > folder.free_bytes:
        raise OutOfSpace(f"data folder {folder.path} has no room for the {end} bytes of volume {order.volume}")
    file = await folder.run(_open, path, superblock)
    try:
        position = await folder.run(_resume_at, file, superblock.seed)
        progress.copied_bytes, progress.total_bytes = position, end
        await _fill(folder, file, superblock.seed, position, end, peer, progress)
        await folder.run(file.sync)
        await _compare(folder, file, end, peer)
    finally:
        await folder.run(file.close)
    return path


async def _superblock(order: Order, peer: Peer) -> Superblock:
    """The source's superblock, which is the copy's too."""
    try:
        superblock = Superblock.unpack(await peer.read(0, SUPERBLOCK_BYTES))
    except LayoutError as error:
        raise FollowFailed(f"the source is damaged: {peer}: {error}") from error
    if superblock.volume != order.volume or superblock.uuid != order.uuid.bytes:
        raise FollowFailed(f"{peer} has another volume under the number {order.volume}")
    return superblock


def _open(path: Path, superblock: Superblock) -> VolumeFile:
    """The file to be filled: the one that is there if it is of the same volume, else a new one."""
    raw = superblock.pack()
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:
            if file.read(SUPERBLOCK_BYTES) != raw:
                file.truncate(0)
                file.seek(0)
                file.write(raw)
    except OSError as error:
        raise disk_error(str(path), "make it", error) from error
    sync_folder(path.parent)
    return VolumeFile(path)


async def _fill(
    folder: DataFolder, file: VolumeFile, seed: int, position: int, end: int, peer: Peer, progress: Progress
) -> None:
    """Copy from ``position`` on, and verify each needle when all of it is in the file."""
    verified = position
    while position < end:
        stop = min(position + MAX_BYTES, end)
        async for piece in peer.pieces(position, stop):
            await progress.bandwidth.take(len(piece))
            position += await folder.run(file.pwrite, [piece], position)
            progress.copied_bytes = position
        verified = await folder.run(_verified_end, file, seed, verified, end if stop == end else None)
    if verified != end:
        raise FollowFailed(f"the source is damaged: {peer}: bytes {verified} to {end} are no needle")


def _resume_at(file: VolumeFile, seed: int) -> int:
    """Where to go on: behind the last needle that is whole; what follows may be what a crash left, and is cut off."""
    position = SUPERBLOCK_BYTES
    for item in scan(file, seed, position, file.size_bytes()):
        if isinstance(item, Damage):
            break
        position = item.end
    file.truncate(position)
    return position


def _verified_end(file: VolumeFile, seed: int, start: int, end: int | None) -> int:
    """Where the last needle ends that is whole and verified. Raises FollowFailed for a damaged one.

    Parameters
    ----------
    end: where the last one of all ends; None while more is to come.
    """
    size_bytes = file.size_bytes()
    for item in scan(file, seed, start, size_bytes):
        if isinstance(item, ScannedNeedle):
            start = item.end
        elif end is None and _is_incomplete(item, size_bytes):
            break
        else:
            file.truncate(start)
            raise FollowFailed(f"the source is damaged: {item}")
    return start


def _is_incomplete(damage: Damage, size_bytes: int) -> bool:
    """Whether this is the beginning of a needle of which the rest is still to come."""
    if damage.header is None:
        return size_bytes - damage.offset < HEADER_BYTES
    return damage.offset + damage.header.total_bytes > size_bytes


async def _compare(folder: DataFolder, file: VolumeFile, end: int, peer: Peer) -> None:
    """Compare all of it by hash."""
    for start, stop in calls(0, end):
        theirs = (await peer.hashes(start, stop, BLOCK_BYTES)).hashes
        if await folder.run(hash_blocks, file, start, stop, BLOCK_BYTES) != list(theirs):
            raise FollowFailed(f"bytes {start} to {stop} differ from {peer} though they were just copied")


def put_in_place(path: Path, volume: int) -> Path:
    """Give a complete copy its name as a volume, durably. Raises DiskError."""
    target = path.with_name(f"{volume}.vol")
    try:
        path.rename(target)
    except OSError as error:
        raise disk_error(str(path), "rename it", error) from error
    sync_folder(target.parent)
    return target
