"""A storage that comes from a backup: what it says of Stores, and made fit for the Stores that are restored with it.

Photos and confirmed offsets stay. Volumes keep their uuid, epoch and primary; their members are those that had all of
it, for each of them gets the volume's bytes. What was decided about Stores (marks), moves, and snapshots, are of the
cluster that was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from directory.messages import StoreDocument
from directory.storage.interface import Change, Delete, Put, Storage, Table, scan_all
from directory.storage.lmdb_storage import LmdbStorage
from directory.storage.tables import META_CLUSTER, VolumeRecord
from haystack.errors import FolderError


@dataclass(frozen=True, slots=True)
class Contents:
    """What a storage says of Stores and volumes."""

    cluster_id: str
    stores: dict[str, StoreDocument]
    volumes: dict[int, VolumeRecord]


def read_contents(path: Path) -> Contents:
    """Read a copy of a storage that nobody writes to. Raises FolderError, DiskError."""
    storage = LmdbStorage(path, readonly=True)
    try:
        cluster = storage.get(Table.META, META_CLUSTER)
        if cluster is None:
            raise FolderError(f"{path}: has no cluster's id; it is no storage of a Directory")
        return Contents(
            cluster.value["id"],
            {key.decode(): StoreDocument(**stored.value) for key, stored in scan_all(storage, Table.STORES)},
            read_volumes(storage),
        )
    finally:
        storage.close()


def make_fit(path: Path, volumes: Mapping[int, VolumeRecord], stores: Collection[str]) -> None:
    """Change a storage so that it knows these volumes and Stores only; durable when this returns.

    Raises FolderError, DiskError, OutOfSpace.
    """
    storage = LmdbStorage(path)
    try:
        changes: list[Change] = []
        for key, stored in scan_all(storage, Table.VOLUMES):
            record = volumes.get(int.from_bytes(key, "big"))
            if record is None:
                changes.append(Delete(Table.VOLUMES, key, stored.version))
            else:
                changes.append(Put(Table.VOLUMES, key, stored.version, _whole(record).pack()))
        for key, stored in scan_all(storage, Table.STORES):
            if key.decode() not in stores:
                changes.append(Delete(Table.STORES, key, stored.version))
        for table in (Table.MARKS, Table.SNAPSHOTS, Table.MOVES):
            changes += [Delete(table, key, stored.version) for key, stored in scan_all(storage, table)]
        if changes:
            storage.commit(changes)
    finally:
        storage.close()
    path.with_name(f"{path.name}-lock").unlink(missing_ok=True)


def _whole(record: VolumeRecord) -> VolumeRecord:
    """Return a record whose members are those in sync; what else was wanted of it is not."""
    extra_copies = min(record.extra_copies, max(0, len(record.in_sync) - record.promised))
    return replace(record, members=record.in_sync, extra_copies=extra_copies)


def read_volumes(storage: Storage) -> dict[int, VolumeRecord]:
    """Return the records of all volumes. Raises DiskError."""
    found = {}
    for key, stored in scan_all(storage, Table.VOLUMES):
        volume = int.from_bytes(key, "big")
        found[volume] = VolumeRecord.unpack(volume, stored.value)
    return found
