"""The files of snapshots: copies of the Directory's storage in ``DATA/snapshots``. Everything here blocks."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import xxhash

from directory.settings import STORAGE_NAME
from directory.storage.interface import Storage
from directory.storage.lmdb_storage import LmdbStorage, sync_folder
from directory.storage.restored import read_volumes
from directory.storage.tables import VolumeRecord
from haystack.errors import DiskError, OutOfSpace
from haystack.units import MIB, format_size

FOLDER_NAME = "snapshots"
SUFFIX = ".lmdb"
PART_SUFFIX = ".part"
CHUNK_BYTES = MIB
SPARE_BYTES = 16 * MIB
"""What a copy must leave free: the Directory itself goes on writing."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made: its size, its xxh3-64 in hex, and the volumes that it names."""

    size_bytes: int
    checksum: str
    volumes: dict[int, VolumeRecord]


class SnapshotFiles:
    """The folder of the copies.

    Parameters
    ----------
    data: the Directory's data folder.
    """

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER_NAME
        self._storage_path = data / STORAGE_NAME

    def path(self, name: str) -> Path:
        """Where the copy of a snapshot is."""
        return self._folder / f"{name}{SUFFIX}"

    def copy(self, name: str, storage: Storage) -> Copied:
        """Copy the storage as it is at one moment, and look into the copy. It counts only after :meth:`keep`.

        Raises DiskError, OutOfSpace, FolderError (the copy cannot be read).
        """
        part = self._part(name)
        try:
            self._folder.mkdir(exist_ok=True)
            self._require_room()
            with part.open("wb") as file:
                storage.backup(file)
                os.fsync(file.fileno())
            volumes = _volumes_of(part)
            return Copied(part.stat().st_size, checksum_of(part), volumes)
        except OSError as error:
            raise DiskError(f"{error.filename or part}: the storage cannot be copied: {error.strerror}") from error

    def keep(self, name: str) -> None:
        """Give a copy its name, durably. Raises DiskError."""
        try:
            self._part(name).rename(self.path(name))
            sync_folder(self._folder)
        except OSError as error:
            raise DiskError(f"{self.path(name)}: cannot be written: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Remove a copy, complete or not. Raises DiskError."""
        try:
            self._part(name).unlink(missing_ok=True)
            self.path(name).unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(f"{self.path(name)}: cannot be removed: {error.strerror}") from error

    def tidy(self, names: Collection[str]) -> set[str]:
        """Remove what belongs to none of these snapshots; returns those whose copy is there. Raises DiskError."""
        there = set()
        try:
            for path in list(self._folder.iterdir()) if self._folder.is_dir() else []:
                if path.suffix == SUFFIX and path.stem in names:
                    there.add(path.stem)
                else:
                    path.unlink()
        except OSError as error:
            raise DiskError(f"{error.filename or self._folder}: cannot be tidied up: {error.strerror}") from error
        return there

    def _part(self, name: str) -> Path:
        return self._folder / f"{name}{SUFFIX}{PART_SUFFIX}"

    def _require_room(self) -> None:
        space = os.statvfs(self._folder)
        free_bytes, needed_bytes = space.f_bavail * space.f_frsize, self._storage_path.stat().st_size + SPARE_BYTES
        if free_bytes < needed_bytes:
            raise OutOfSpace(
                f"{self._folder}: a snapshot needs {format_size(needed_bytes)} for a copy of the Directory's storage, "
                f"and {format_size(free_bytes)} are free; delete another snapshot, or free some space"
            )


def checksum_of(path: Path) -> str:
    """xxh3-64 of a file, in hex. Raises OSError."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _volumes_of(path: Path) -> dict[int, VolumeRecord]:
    copy = LmdbStorage(path, readonly=True)
    try:
        return read_volumes(copy)
    finally:
        copy.close()
