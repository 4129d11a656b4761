"""A backend that keeps nothing, to show that the contract is not about LMDB, and for tests that need no disk."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from directory.errors import StorageConflict
from directory.storage.interface import Change, Delete, Put, Storage, Stored, Table


class MemoryStorage(Storage):
    def __init__(self) -> None:
        self._rows: dict[Table, dict[bytes, Stored]] = {table: {} for table in Table}
        self._commits = 0
        self.before_commit: Callable[[], None] = lambda: None

    def get(self, table: Table, key: bytes) -> Stored | None:
        return self._rows[table].get(key)

    def scan(self, table: Table, *, after: bytes = b"", limit: int) -> list[tuple[bytes, Stored]]:
        keys = sorted(key for key in self._rows[table] if key > after)
        return [(key, self._rows[table][key]) for key in keys[:limit]]

    def count(self, table: Table) -> int:
        return len(self._rows[table])

    def commit(self, changes: Sequence[Change]) -> None:
        self.before_commit()
        for change in changes:
            stored = self.get(change.table, change.key)
            if (stored.version if stored else 0) != change.expected:
                raise StorageConflict(f"{change.table} {change.key!r}")
        self._commits += 1
        for change in changes:
            if isinstance(change, Put):
                self._rows[change.table][change.key] = Stored(self._commits, change.value)
            elif isinstance(change, Delete):
                self._rows[change.table].pop(change.key, None)

    def backup(self, target: BinaryIO) -> None:
        pickle.dump((self._rows, self._commits), target)
        target.flush()

    @classmethod
    def restored(cls, path: Path) -> MemoryStorage:
        storage = cls()
        storage._rows, storage._commits = pickle.loads(path.read_bytes())  # noqa: S301  # made by the test itself
        return storage

    def close(self) -> None:
        pass
