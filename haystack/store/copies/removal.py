"""Giving up a copy: out of service in all workers, then its files."""

from __future__ import annotations

import logging
from pathlib import Path

from haystack.errors import DiskError, VolumeUnavailable
from haystack.store.control_cells import VolumeState
from haystack.store.copies.fresh import copy_path
from haystack.store.out_of_service import withdrawn
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume.files import sync_folder
from haystack.volume.names import compact_path, index_files

_log = logging.getLogger(__name__)


async def remove_volume(volumes: StoreVolumes, entry: StoreVolume) -> None:
    """Take a volume away for good. Raises VolumeUnavailable (somebody does not let go of it), DiskError."""
    if entry.folder.failed:
        raise VolumeUnavailable(f"volume {entry.id}: its data folder has failed: {entry.folder.error}")
    if entry.volume is None and volumes.state(entry) is VolumeState.FAILED:
        # It could not be opened, neither by the workers.
        async with entry.changing:
            await _remove(volumes, entry)
    else:
        async with withdrawn(volumes, entry, "it is deleted"):
            await _remove(volumes, entry)
    _log.info("volume %d is deleted from %s", entry.id, entry.folder.path)


async def _remove(volumes: StoreVolumes, entry: StoreVolume) -> None:
    await entry.folder.run(_remove_files, entry.path)
    volumes.forget(entry)


def remove_unfinished(folder: Path, volume: int) -> None:
    """Remove a copy that was not finished. Raises DiskError."""
    _unlink(copy_path(folder, volume))


def remove_index_files(path: Path) -> None:
    """Remove what belongs to the file of a volume that is about to be replaced by another one. Raises DiskError."""
    for companion in (*index_files(path), path.with_suffix(".dirty")):
        _unlink(companion)
    sync_folder(path.parent)


def _remove_files(path: Path) -> None:
    # The volume first: what is beside it means nothing without it, and the other way round it would come back.
    _unlink(path)
    sync_folder(path.parent)
    torn = path.parent.glob(f"{path.stem}.torn-*")
    for companion in (*index_files(path), compact_path(path), path.with_suffix(".dirty"), *torn):
        _unlink(companion)
    remove_unfinished(path.parent, int(path.stem))
    sync_folder(path.parent)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: cannot be removed: {error.strerror}") from error
