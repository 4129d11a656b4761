"""The storage behind the Directory: nine small tables of versioned records.

Invariants that every backend keeps (``tests/directory/storage_contract.py`` is run against each):

- A record has a version, a number above 0 that the same key never gets twice, not even after a delete. Version 0 means
  "is not there".
- A commit names the version that it expects of every record that it writes or has relied on. It happens wholly, or,
  when one of them has another version by now, not at all (:class:`StorageConflict`).
- When ``commit`` has returned, its changes survive the death of the process and of the machine.
- The cost of a call does not grow with the number of records, but for the depth of a tree.

Nothing else is asked of a backend, so that a database that several Directories share fits behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, BinaryIO

Value = Any
"""What msgpack can hold: None, bool, int, str, bytes, lists (tuples come back as lists) and dicts of these."""

MAX_KEY_BYTES = 255


class Table(Enum):
    """The Directory's tables; the layouts of keys and values are in :mod:`directory.storage.tables`."""

    META = "meta"
    STORES = "stores"
    VOLUMES = "volumes"
    PHOTOS = "photos"
    EXPIRIES = "expiries"
    CONFIRMED = "confirmed"
    MARKS = "marks"
    SNAPSHOTS = "snapshots"
    MOVES = "moves"

    # Enum's own is a Python function of the name; members are singletons, and this is asked several times a needle.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as read. The value is shared: treat it as immutable."""

    version: int
    value: Value


@dataclass(frozen=True, slots=True)
class Put:
    """Set a record, if its version still is ``expected`` (0: it must not be there)."""

    table: Table
    key: bytes
    expected: int
    value: Value


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record, if its version still is ``expected`` (0: it must not be there, nothing is removed)."""

    table: Table
    key: bytes
    expected: int


@dataclass(frozen=True, slots=True)
class Check:
    """Change nothing, but require that the version still is ``expected``."""

    table: Table
    key: bytes
    expected: int


Change = Put | Delete | Check


class Storage(ABC):
    """One backend. Reads may come from any thread; commits from one thread at a time.

    Errors of all calls: :class:`haystack.errors.DiskError`, :class:`haystack.errors.OutOfSpace`.
    """

    @abstractmethod
    def get(self, table: Table, key: bytes) -> Stored | None:
        """Return the record, or None. ``key``: 1 … :data:`MAX_KEY_BYTES` bytes."""

    @abstractmethod
    def scan(self, table: Table, *, after: bytes = b"", limit: int) -> list[tuple[bytes, Stored]]:
        """Return up to ``limit`` records with keys above ``after``, in order of their keys as bytes."""

    @abstractmethod
    def count(self, table: Table) -> int:
        """Return the number of records."""

    @abstractmethod
    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes durable at once. A key may occur only once.

        Raises
        ------
        StorageConflict: a record has another version than expected; nothing was changed.
        """

    @abstractmethod
    def backup(self, target: BinaryIO) -> None:
        """Write a copy of everything as it is at one moment, while reads and commits go on. For a thread of its own.

        ``target`` is an open file with a descriptor; what is written makes a storage of the same content again.
        """

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more before a restart; None as long as all is well."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give up files and connections. Calling it twice is harmless."""


def scan_all(storage: Storage, table: Table, *, page: int = 1000) -> list[tuple[bytes, Stored]]:
    """Return every record of a small table, read in pages."""
    found: list[tuple[bytes, Stored]] = []
    while True:
        rows = storage.scan(table, after=found[-1][0] if found else b"", limit=page)
        found += rows
        if len(rows) < page:
            return found


class Draft:
    """Reads and intended changes of a decision; nothing is written before the storage commits :meth:`changes`.

    A draft may lie on top of another one: it sees the other's changes, and is merged into it or forgotten.
    """

    def __init__(self, storage: Storage, below: Draft | None = None) -> None:
        self._storage = storage
        self._below = below
        self._seen: dict[tuple[Table, bytes], Stored | None] = {}
        self._changed: dict[tuple[Table, bytes], Value] = {}

    def get(self, table: Table, key: bytes) -> Value | None:
        """Return the record's value as this draft sees it, or None. Treat it as immutable."""
        place = (table, key)
        if place in self._changed:
            return self._changed[place]
        if self._below is not None:
            return self._below.get(table, key)
        if place not in self._seen:
            self._seen[place] = self._storage.get(table, key)
        stored = self._seen[place]
        return stored.value if stored else None

    def put(self, table: Table, key: bytes, value: Value) -> None:
        """Intend to set a record. The value must not be None and must not be changed afterwards."""
        self.get(table, key)
        self._changed[table, key] = value

    def delete(self, table: Table, key: bytes) -> None:
        """Intend to remove a record, whether it is there or not."""
        self.get(table, key)
        self._changed[table, key] = None

    def merge(self) -> None:
        """Hand the changes to the draft below."""
        if self._below is None:
            raise ValueError("a draft that lies on no other cannot be merged")
        self._below._changed.update(self._changed)

    def changes(self) -> list[Change]:
        """Return what to commit; empty when nothing is to be changed.

        What was only read is checked too: the decision holds only as long as it is unchanged.
        """
        if not self._changed:
            return []
        changes: list[Change] = []
        for (table, key), stored in self._seen.items():
            version = stored.version if stored else 0
            if (table, key) not in self._changed:
                changes.append(Check(table, key, version))
            elif (value := self._changed[table, key]) is not None:
                changes.append(Put(table, key, version, value))
            elif stored:
                changes.append(Delete(table, key, version))
            else:
                changes.append(Check(table, key, version))
        return changes
