"""The embedded backend: one LMDB file, synced at every commit.

Files: ``<path>`` holds everything (its loss costs what ``docs/design.md`` says of a lost Directory), ``<path>-lock`` is
LMDB's table of readers and may be removed while nobody has the file open.

Each table is a named LMDB database. A value is msgpack of ``[version, value]``; the version is the number of the LMDB
transaction that wrote it, so no key ever gets one twice.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import lmdb
import msgpack

from directory.errors import StorageConflict
from directory.storage.interface import Change, Check, Put, Storage, Stored, Table
from haystack.errors import DiskError, FolderError, OutOfSpace

LMDB_ENGINE = 0
"""The 0.9 engine and its file format; the binding also bundles 1.0, whose files are incompatible."""

DEFAULT_MAP_BYTES = 1 << 30
"""Address space to begin with. It is doubled when it is full; the file itself grows with what it holds."""

FULL_BELOW_BYTES = 1 << 20
"""LMDB reports a write that was cut short by a full disk as an I/O error; with less than this left, it was that."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class LmdbStorage(Storage):
    """A :class:`~directory.storage.interface.Storage` in one LMDB file.

    Parameters
    ----------
    path: the file; made when it is not there. Its folder must exist, and no other process may write to the file.
    map_bytes: address space to begin with.
    readonly: only read a file that nobody writes to, and leave nothing beside it.

    Raises
    ------
    FolderError: the file cannot be opened or is no LMDB 0.9 file.
    """

    def __init__(self, path: Path, *, map_bytes: int = DEFAULT_MAP_BYTES, readonly: bool = False) -> None:
        self._path = path
        # Held for the moment of each read, and while the map is replaced: LMDB forbids that during a transaction.
        self._gate = threading.Lock()
        self._copying = threading.Lock()
        self._failure: str | None = None
        self._closed = False
        try:
            self._env = lmdb.Environment(
                str(path),
                map_size=map_bytes,
                subdir=False,
                max_dbs=len(Table),
                readahead=False,
                mode=0o600,
                lib_version=LMDB_ENGINE,
                readonly=readonly,
                lock=not readonly,
                create=not readonly,
            )
            self._tables = self._open_tables(readonly=readonly)
            if not readonly:
                sync_folder(path.parent)  # LMDB syncs the file, but not its name
        except (lmdb.Error, OSError) as error:
            raise FolderError(
                f"{path}: cannot be opened as the Directory's storage: {error}; restore it from a backup, or move it "
                "away: the Stores then register and confirm everything again"
            ) from error

    def _open_tables(self, *, readonly: bool) -> dict[Table, Any]:
        tables = {}
        for table in Table:
            try:
                tables[table] = self._env.open_db(table.value.encode(), create=not readonly)
            except lmdb.NotFoundError:
                continue  # the file is of a release that did not have this table: it is empty
        return tables

    def get(self, table: Table, key: bytes) -> Stored | None:
        with self._gate:
            self._require_open()
            if table not in self._tables:
                return None
            try:
                with self._env.begin(db=self._tables[table]) as transaction:
                    packed = transaction.get(key)
            except lmdb.Error as error:
                raise DiskError(f"{self._path}: cannot read {table.value}: {error}") from error
        return _unpack(packed) if packed is not None else None

    def scan(self, table: Table, *, after: bytes = b"", limit: int) -> list[tuple[bytes, Stored]]:
        rows: list[tuple[bytes, bytes]] = []
        with self._gate:
            self._require_open()
            if table not in self._tables:
                return []
            try:
                with self._env.begin(db=self._tables[table]) as transaction, transaction.cursor() as cursor:
                    # The smallest key above ``after`` is ``after`` with a zero byte.
                    found = cursor.set_range(after + b"\0") if after else cursor.first()
                    while found and len(rows) < limit:
                        rows.append(cursor.item())
                        found = cursor.next()
            except lmdb.Error as error:
                raise DiskError(f"{self._path}: cannot read {table.value}: {error}") from error
        return [(key, _unpack(packed)) for key, packed in rows]

    def count(self, table: Table) -> int:
        with self._gate:
            self._require_open()
            if table not in self._tables:
                return 0
            with self._env.begin() as transaction:
                return transaction.stat(self._tables[table])["entries"]

    def commit(self, changes: Sequence[Change]) -> None:
        if self._failure:
            raise DiskError(self._failure)
        while True:
            self._require_open()
            try:
                self._commit_once(changes)
                return
            except lmdb.MapFullError:
                self._double_map()
            except lmdb.Error as error:
                self._fail(error)

    def backup(self, target: BinaryIO) -> None:
        # The map must not be replaced meanwhile; reads and commits that need no larger one go on.
        with self._copying:
            self._require_open()
            try:
                # A compacted copy would count transactions anew, and versions would be given twice.
                self._env.copyfd(target.fileno(), compact=False)
            except (lmdb.Error, OSError) as error:
                raise DiskError(f"{self._path}: cannot be copied: {error}") from error

    @property
    def failure(self) -> str | None:
        return self._failure

    def close(self) -> None:
        with self._copying, self._gate:
            if not self._closed:
                self._closed = True
                self._env.close()

    def _commit_once(self, changes: Sequence[Change]) -> None:
        with self._env.begin(write=True) as transaction:
            # All expectations first: a conflict must leave nothing behind, and this way nothing has been written.
            for change in changes:
                packed = transaction.get(change.key, db=self._tables[change.table])
                version = _unpack(packed).version if packed is not None else 0
                if version != change.expected:
                    raise StorageConflict(
                        f"{self._path}: {change.table.value} {change.key.hex()} has version {version}, "
                        f"expected {change.expected}"
                    )
            new_version = transaction.id()
            for change in changes:
                database = self._tables[change.table]
                if isinstance(change, Put):
                    transaction.put(change.key, msgpack.packb([new_version, change.value]), db=database)
                elif not isinstance(change, Check):
                    transaction.delete(change.key, db=database)

    def _double_map(self) -> None:
        with self._copying, self._gate:
            size_bytes = self._env.info()["map_size"] * 2
            try:
                self._env.set_mapsize(size_bytes)
            except lmdb.Error as error:
                raise OutOfSpace(
                    f"{self._path}: no {size_bytes} bytes of address space for it: {error}; raise the process's limit "
                    "of virtual memory"
                ) from error

    def _fail(self, error: lmdb.Error) -> NoReturn:
        if error.code in _NO_SPACE or (error.code == errno.EIO and _free_bytes(self._path) < FULL_BELOW_BYTES):
            # The commit was undone, and the next one writes all its pages anew.
            raise OutOfSpace(f"{self._path}: the disk is full; nothing was recorded: free some space") from error
        # After any other failure it is unknown what the disk does with what it is given. Opening the file again goes on
        # from the last commit that was synced.
        self._failure = f"{self._path}: writing failed: {error}; check the disk, then restart the Directory"
        raise DiskError(self._failure) from error

    def _require_open(self) -> None:
        if self._closed:
            raise DiskError(f"{self._path}: the Directory's storage is closed")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(path: Path) -> int:
    try:
        status = os.statvfs(path)
    except OSError:
        return FULL_BELOW_BYTES  # not known to be full: then the failure counts as the disk's
    return status.f_bavail * status.f_frsize


def _unpack(packed: bytes) -> Stored:
    version, value = msgpack.unpackb(packed, strict_map_key=False)
    return Stored(version, value)
