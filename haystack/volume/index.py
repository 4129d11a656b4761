"""The needle index of one volume: LMDB, disposable, rebuilt from the volume whenever it is in doubt.

Keys are 12 bytes, big-endian photo id and alternate key, so that ids in order fill pages in order; values are 12 bytes.
The one other key is ``b"\\0"`` (it sorts before all) with the :class:`IndexState`.

LMDB's single write transaction is the append lock of the volume: it works across processes, and the kernel gives it
back when its holder dies. LMDB runs without sync and without a write map (a write map on a full disk is a SIGBUS);
what that costs after a power cut, recovery pays. py-lmdb bundles two engines with incompatible files; new indexes use
0.9 (``lib_version=0``), and a file of the other one counts as damaged and is rebuilt.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lmdb

from haystack.errors import DiskError, IndexDamaged, InvalidRequest, OutOfSpace, VolumeUnavailable
from haystack.volume.files import disk_error
from haystack.volume.index_records import DELETED, DELETED_NOW, KEY, STATE_KEY, IndexEntry, IndexState

MAP_BYTES = 16 * 2**30
"""Address space of one index, not memory or disk: room for about 450 million needles."""

LMDB_ENGINE = 0
_FROM_FILE: Any = None
"""Lets an existing file choose the engine; py-lmdb takes None for that, though its stub does not say so."""
MAX_READERS = 1024
"""Read transactions at once over all processes; LMDB's 126 would be few for many workers with threads."""

PAGE_BYTES = 4096


class IndexWriter:
    """The open write transaction: holder of the volume's append lock. Commit by leaving the block without an error."""

    def __init__(self, index: NeedleIndex) -> None:
        self._index = index
        self._txn: lmdb.Transaction | None = None
        self.state: IndexState

    def __enter__(self) -> IndexWriter:
        self._txn = self._index._begin_write()
        try:
            raw = self._txn.get(STATE_KEY)
            if raw is None:
                raise IndexDamaged(f"{self._index.path}: the index has no state")
            self.state = IndexState.unpack(raw)
        except lmdb.Error as error:
            self._txn.abort()
            raise _index_error(self._index.path, "read", error) from error
        except BaseException:
            self._txn.abort()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        assert self._txn is not None
        if kind is not None:
            self._txn.abort()
            return
        try:
            self._txn.put(STATE_KEY, self.state.pack())
            self._txn.commit()
        except lmdb.Error as error:
            self._txn.abort()  # gives the lock back when it was the put that failed; nothing after a failed commit
            raise _index_error(self._index.path, "write", error) from error

    def get(self, key: int, alternate: int) -> IndexEntry | None:
        assert self._txn is not None
        try:
            raw = self._txn.get(KEY.pack(key, alternate))
        except lmdb.Error as error:
            raise _index_error(self._index.path, "read", error) from error
        return None if raw is None else IndexEntry.unpack(raw)

    def store(self, key: int, alternate: int, entry: IndexEntry, time_ms: int) -> IndexEntry | None:
        """Enter a needle that was appended at the tail; returns the older one of the same name that it supersedes."""
        old = self.get(key, alternate)
        self.replace(key, alternate, entry, time_ms, old)
        return old

    def replace(self, key: int, alternate: int, entry: IndexEntry, time_ms: int, old: IndexEntry | None) -> None:
        """As :meth:`store`, for a caller who has just asked for the ``old`` entry."""
        self._put(key, alternate, entry)
        state = self.state
        state.live_bytes += entry.total_bytes
        if old is not None and not old.deleted:
            state.live_bytes -= old.total_bytes
            state.deleted_count += 1
            state.deleted_bytes += old.total_bytes
        else:
            state.live_count += 1
        if key > state.max_key:
            state.max_key = key
        if time_ms > state.last_append_ms:
            state.last_append_ms = time_ms

    def add_new(
        self, entries: Sequence[tuple[bytes, bytes]], needles_bytes: int, largest_key: int, last_ms: int
    ) -> bool:
        """Enter needles that nothing is known of; False when one has an entry: the transaction must be given up then.

        Parameters
        ----------
        entries: packed keys and values, in the order of keys.
        needles_bytes: what all of them take in the volume.
        largest_key, last_ms: the largest photo id and time among them.
        """
        assert self._txn is not None
        state = self.state
        beyond = bisect_left(entries, (KEY.pack(state.max_key, 0),))
        try:
            with self._txn.cursor() as cursor:
                # As in _put. A key that cannot be appended though it is as large as the largest one is refused too;
                # that is rare, and the caller then goes the way that it goes for keys that are there.
                for part, append in ((entries[:beyond], False), (entries[beyond:], True)):
                    if part and cursor.putmulti(part, overwrite=False, append=append)[1] != len(part):
                        return False
        except lmdb.Error as error:
            raise _index_error(self._index.path, "write", error) from error
        state.live_count += len(entries)
        state.live_bytes += needles_bytes
        state.max_key = max(state.max_key, largest_key)
        state.last_append_ms = max(state.last_append_ms, last_ms)
        return True

    def delete(self, key: int, alternate: int, tombstone_bytes: int, time_ms: int, *, now: bool = False) -> bool:
        """Mark a needle deleted by a tombstone of that size; False when there is no live one (the tombstone counts).

        Parameters
        ----------
        now: for good, also what is in the trash already.
        """
        state = self.state
        self._count_marker(tombstone_bytes, time_ms)
        old = self.get(key, alternate)
        flags = DELETED | DELETED_NOW if now else DELETED
        if old is None or old.deleted:
            if old is not None and old.flags | flags != old.flags:
                self._put(key, alternate, old._replace(flags=old.flags | flags))
            return False
        self._put(key, alternate, old._replace(flags=old.flags | flags, deleted_ms=time_ms))
        state.live_count -= 1
        state.live_bytes -= old.total_bytes
        state.deleted_count += 1
        state.deleted_bytes += old.total_bytes
        return True

    def undelete(self, key: int, alternate: int, marker_bytes: int, time_ms: int) -> bool:
        """Take back the deletion of a needle by a marker of that size; False when it is not in the trash."""
        state = self.state
        self._count_marker(marker_bytes, time_ms)
        old = self.get(key, alternate)
        if old is None or not old.in_trash:
            return False
        self._put(key, alternate, old._replace(flags=old.flags & ~DELETED, deleted_ms=0))
        state.live_count += 1
        state.live_bytes += old.total_bytes
        state.deleted_count -= 1
        state.deleted_bytes -= old.total_bytes
        return True

    def _count_marker(self, marker_bytes: int, time_ms: int) -> None:
        self.state.deleted_bytes += marker_bytes
        self.state.last_append_ms = max(self.state.last_append_ms, time_ms)

    def take_back(self, key: int, alternate: int, entry: IndexEntry) -> None:
        """Remove the entry of a needle that is cut off; for one that superseded nothing and was not deleted."""
        assert self._txn is not None
        try:
            self._txn.delete(KEY.pack(key, alternate))
        except lmdb.Error as error:
            raise _index_error(self._index.path, "write", error) from error
        self.state.live_count -= 1
        self.state.live_bytes -= entry.total_bytes

    def move_tail(self, tail: int) -> None:
        """Say that everything below ``tail`` is covered now."""
        self.state.tail = tail

    def _put(self, key: int, alternate: int, entry: IndexEntry) -> None:
        assert self._txn is not None
        raw_key, raw = KEY.pack(key, alternate), entry.pack()
        try:
            # Appending packs pages full when ids come in order (34 bytes a needle instead of 50 and more). LMDB
            # refuses it (False) when the key is not the largest after all.
            if key >= self.state.max_key and self._txn.put(raw_key, raw, append=True):
                return
            self._txn.put(raw_key, raw)
        except lmdb.Error as error:
            raise _index_error(self._index.path, "write", error) from error


class IndexSnapshot:
    """An index at one moment, see :meth:`NeedleIndex.snapshot`."""

    def __init__(self, path: Path, txn: lmdb.Transaction) -> None:
        self._path = path
        self._txn = txn
        raw = txn.get(STATE_KEY)
        if raw is None:
            raise IndexDamaged(f"{path}: the index has no state")
        self.state = IndexState.unpack(raw)

    def get(self, key: int, alternate: int) -> IndexEntry | None:
        """The entry of a needle, deleted ones included. Raises IndexDamaged."""
        raw = self.get_raw(KEY.pack(key, alternate))
        return None if raw is None else IndexEntry.unpack(raw)

    def get_raw(self, raw_key: bytes) -> bytes | None:
        """The packed entry of a packed key. Raises IndexDamaged."""
        try:
            return cast("bytes | None", self._txn.get(raw_key))  # a view only for transactions with buffers
        except lmdb.Error as error:
            raise _index_error(self._path, "read", error) from error

    def get_raws(self, raw_keys: Sequence[bytes]) -> list[bytes | None]:
        """As :meth:`get_raw` for many; None for those that have no entry. Raises IndexDamaged."""
        get = cast("Callable[[bytes], bytes | None]", self._txn.get)
        try:
            return [get(raw_key) for raw_key in raw_keys]
        except lmdb.Error as error:
            raise _index_error(self._path, "read", error) from error


class NeedleIndex:
    """The index of one volume, open in this process; any number of processes may have it open.

    Raises :class:`IndexDamaged` from the constructor when the file is missing (unless ``create``) or not sound, and
    VolumeUnavailable when this process has it open already.
    """

    def __init__(self, path: Path, *, create: bool = False, readonly: bool = False) -> None:
        self.path = path
        if not create:
            _require_sound_file(path)
        try:
            self._env = lmdb.open(
                str(path),
                subdir=False,
                create=create,
                readonly=readonly,
                map_size=MAP_BYTES,
                sync=False,
                metasync=False,
                readahead=False,
                max_readers=MAX_READERS,
                max_spare_txns=1,  # begin() then renews instead of allocating: 0.4 µs
                lib_version=LMDB_ENGINE if create else _FROM_FILE,
            )
        except lmdb.Error as error:
            raise _index_error(path, "open", error) from error
        try:
            self._check()
        except BaseException:
            self._env.close()
            raise

    @classmethod
    def create(cls, path: Path, state: IndexState) -> NeedleIndex:
        """Make an empty index with this state, replacing what was there."""
        remove_index(path)
        index = cls(path, create=True)
        try:
            with index._env.begin(write=True) as txn:
                txn.put(STATE_KEY, state.pack())
        except lmdb.Error as error:
            index.close()
            raise _index_error(path, "write", error) from error
        return index

    def _check(self) -> None:
        if self._env.lib_version()[0] != LMDB_ENGINE:
            raise IndexDamaged(f"{self.path}: made by another LMDB engine")
        info = self._env.info()
        pages = info["last_pgno"] + 1
        if self.path.stat().st_size < pages * PAGE_BYTES:
            # Reading a page beyond the end of the file would be a SIGBUS, so this must be known before.
            raise IndexDamaged(f"{self.path}: shorter than its {pages} pages")

    def state(self) -> IndexState:
        """The state as last committed. Raises IndexDamaged when there is none."""
        try:
            with self._env.begin() as txn:
                raw = txn.get(STATE_KEY)
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error
        if raw is None:
            raise IndexDamaged(f"{self.path}: the index has no state")
        return IndexState.unpack(raw)

    def get(self, key: int, alternate: int = 0) -> IndexEntry | None:
        """The entry of a needle, deleted ones included. Raises IndexDamaged, InvalidRequest (a key out of range)."""
        try:
            raw_key = KEY.pack(key, alternate)
        except struct.error as error:
            raise InvalidRequest(f"photo {key}, alternate {alternate} is no key: {error}") from error
        try:
            with self._env.begin() as txn:
                raw = txn.get(raw_key)
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error
        return None if raw is None else IndexEntry.unpack(raw)

    def get_raw(self, raw_key: bytes) -> bytes | None:
        """The packed entry of a packed key: the read path, without an object in between."""
        try:
            # Without `with`: the transaction ends as its last reference goes, which is here, and 0.15 µs sooner.
            value: bytes | None = self._env.begin().get(raw_key)
            return value
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error

    def entries(self) -> Iterator[tuple[int, int, IndexEntry]]:
        """All entries in key order as (key, alternate key, entry), from one snapshot. Raises IndexDamaged.

        The pages of the snapshot cannot be used again while the walk lasts, so appends make the index grow.
        """
        try:
            with self._env.begin() as txn, txn.cursor() as cursor:
                for raw_key, raw in cursor:
                    if raw_key == STATE_KEY:
                        continue
                    if len(raw_key) != KEY.size:
                        raise IndexDamaged(f"{self.path}: a key has {len(raw_key)} bytes, expected {KEY.size}")
                    yield *KEY.unpack(raw_key), IndexEntry.unpack(raw)
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error

    @contextmanager
    def snapshot(self) -> Iterator[IndexSnapshot]:
        """The index as it is now, for as long as the block lasts, whatever is written meanwhile; on one thread.

        Its pages cannot be used again before the end, so appends make the index grow. Raises IndexDamaged.
        """
        try:
            txn = self._env.begin()
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error
        try:
            yield IndexSnapshot(self.path, txn)
        finally:
            txn.abort()

    def write(self) -> IndexWriter:
        """The append lock as a context manager; waits for it, so never call it on an event loop."""
        return IndexWriter(self)

    def count(self) -> int:
        """Number of entries, deleted ones included."""
        return int(self._env.stat()["entries"]) - 1

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The append lock alone: nobody appends inside the block, and the index is not changed by it."""
        txn = self._begin_write()
        try:
            yield
        finally:
            txn.abort()

    def _begin_write(self) -> lmdb.Transaction:
        try:
            return self._env.begin(write=True)
        except lmdb.Error as error:
            raise _index_error(self.path, "lock", error) from error

    def forget_dead_readers(self) -> int:
        """Free what killed processes left in the table of readers: while there, no page that they saw is used again.

        Returns their number. Raises IndexDamaged.
        """
        try:
            return int(self._env.reader_check())
        except lmdb.Error as error:
            raise _index_error(self.path, "read", error) from error

    def warm(self) -> None:
        """Ask the kernel to read the index into memory, where it belongs. Returns before all of it is there.

        A look-up that met a page on the disk would hold up its event loop for as long as the disk takes.
        Raises DiskError.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)
        except OSError as error:
            raise disk_error(str(self.path), "read it ahead", error) from error

    def size_bytes(self) -> int:
        """Bytes in use by the index."""
        return int((self._env.info()["last_pgno"] + 1) * PAGE_BYTES)

    def sync(self) -> None:
        """Make all commits so far durable. Raises DiskError."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise DiskError(f"{self.path}: cannot make the index durable: {error}") from error

    def close(self) -> None:
        """Close it; may be called twice."""
        self._env.close()


def remove_index(path: Path) -> None:
    """Remove an index and its lock file."""
    path.unlink(missing_ok=True)
    Path(f"{path}-lock").unlink(missing_ok=True)


def _require_sound_file(path: Path) -> None:
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise IndexDamaged(f"{path}: missing") from error
    if size_bytes < 2 * PAGE_BYTES:
        raise IndexDamaged(f"{path}: {size_bytes} bytes, too short for an index")


def _index_error(path: Path, action: str, error: lmdb.Error) -> IndexDamaged | OutOfSpace | VolumeUnavailable:
    if "already open" in str(error):
        return VolumeUnavailable(f"{path}: open in this process already; use that volume or close it first")
    if "closed" in str(error):
        return VolumeUnavailable(f"{path}: closed")
    if isinstance(error, lmdb.ReadersFullError):
        return VolumeUnavailable(f"{path}: more reads at once than the index has room for; try again")
    if isinstance(error, lmdb.MapFullError):
        return OutOfSpace(f"{path}: the index has reached {MAP_BYTES} bytes")
    if isinstance(error, lmdb.DiskError):
        return OutOfSpace(f"{path}: no room left to {action} the index: {error}")
    return IndexDamaged(f"{path}: cannot {action} the index: {error}")
