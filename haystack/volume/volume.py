"""One physical volume: an append-only file of needles with its index. The API of the engine alone.

>>> volume = Volume.create(Path("/data/7.vol"), 7)                          # doctest: +SKIP
>>> stored = volume.put(key=1, cookie=new_cookie(), data=photo_bytes)        # doctest: +SKIP
>>> volume.get(key=1, cookie=cookie).data                                    # doctest: +SKIP

Files of a volume, and what the loss of each costs:

- ``<id>.vol``: the photos. Nothing else is needed to get every photo back.
- ``<id>.idx``, ``<id>.idx-lock``: the index; rebuilt at the next opening, which then reads the whole volume.
- ``<id>.dirty``: says that the index may not have reached the disk; losing it risks an outdated index after a power
  cut, which ``haystack volume check`` finds.
- ``<id>.torn-*``: bytes of appends that were never acknowledged, cut off by recovery; nothing.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from haystack.errors import (
    HaystackError,
    IndexDamaged,
    VolumeReadOnly,
    VolumeUnavailable,
)
from haystack.volume.append import Appender, Guard
from haystack.volume.dirty import DirtyMarker, current_boot_id
from haystack.volume.files import VolumeFile, prefetch
from haystack.volume.index import NeedleIndex
from haystack.volume.index_records import IndexState
from haystack.volume.layout import (
    SUPERBLOCK_BYTES,
    Buffer,
    NeedleMeta,
    Superblock,
)
from haystack.volume.locks import LOCK_WAIT_SECONDS, lock_alone, lock_shared
from haystack.volume.opening import attach, make_files, now_ms, read_superblock, require_max_bytes
from haystack.volume.operations import (
    Appended,
    Delete,
    Deleted,
    NewNeedle,
    Operation,
    Put,
    Stored,
    Undelete,
    Undeleted,
)
from haystack.volume.reading import NeedleReader
from haystack.volume.recovery import Progress, RecoveryReport, recover
from haystack.volume.replica import Judge, Landed, append_batch, read_batch
from haystack.volume.scan import Damage, ScannedNeedle, scan
from haystack.volume.stat import VolumeStat

_log = logging.getLogger(__name__)

PREFETCHED_INDEX_BYTES = 256 * 2**20
"""How much of an index is read ahead when its volume is opened. Looking a photo up otherwise means waiting for the disk
again and again until the pages of the index have come in one by one."""

DEFAULT_MAX_BYTES = 32 * 2**30


class Volume(NeedleReader):
    """An open volume; many threads may use it, and many processes when one opens it and the others attach.

    Make one with :meth:`create`, :meth:`open` or :meth:`attach`, and close it, or use it as a context manager.
    """

    def __init__(
        self,
        file: VolumeFile,
        index: NeedleIndex,
        superblock: Superblock,
        dirty: DirtyMarker,
        *,
        max_bytes: int,
        report: RecoveryReport | None = None,
        owner: bool = True,
        durable_bytes: int | None = None,
    ) -> None:
        super().__init__(file, index, superblock.seed)
        self.superblock = superblock
        self.max_bytes = max_bytes
        self.report = report or RecoveryReport()
        self.failed: str | None = None
        self._owner = owner
        # Taken in this order: checkpointing, appending, syncing. They also keep close() from taking the descriptors and
        # the index away from a thread that is using them for a write.
        self._checkpointing = threading.Lock()
        self._appending = threading.Lock()
        self._syncing = threading.Lock()
        self._covered = 0
        """What the sync between begin_sync and end_sync makes durable."""
        self._closed = False
        self._dirty = dirty
        self._appender = Appender(file, index, superblock, dirty, max_bytes=max_bytes)
        if durable_bytes is not None:
            self._appender.durable(durable_bytes)

    # -- opening and closing

    @classmethod
    def create(
        cls,
        path: Path,
        volume: int,
        *,
        uuid: bytes | None = None,
        created_ms: int | None = None,
        replication: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Volume:
        """Make a new, empty volume and open it; it is durable when this returns.

        Parameters
        ----------
        path: ``<folder>/<id>.vol``; must not exist.
        volume: logical volume id.
        uuid: 16 bytes, the same for all copies of a logical volume; random by default.
        created_ms: milliseconds since 1970; now by default.
        max_bytes: size that uploads may not exceed.

        Raises VolumeExists, InvalidRequest, DiskError or OutOfSpace.
        """
        require_max_bytes(max_bytes)
        make_files(path, volume, uuid=uuid, created_ms=created_ms, replication=replication)
        return cls.open(path, max_bytes=max_bytes)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        boot_id: str | None = None,
        progress: Progress | None = None,
        file_type: Callable[[Path], VolumeFile] = VolumeFile,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> Volume:
        """Open a volume as its owner: lock it, recover it, mend its index. ``volume.report`` tells what was found.

        Nobody else may have it open meanwhile, not even attached: recovery may cut what another one is writing.

        Parameters
        ----------
        boot_id: identity of this boot of the machine (tests give their own).
        file_type: how the file is opened (tests give one that fails).
        lock_wait_seconds: how long to wait for those who have it open, such as workers of a killed Store, to be gone.

        Raises VolumeUnavailable when others keep it open, UnknownFormat, DiskError.
        """
        require_max_bytes(max_bytes)
        file = file_type(path)
        try:
            lock_alone(file, lock_wait_seconds)
            superblock = read_superblock(file)
            dirty = DirtyMarker(path, boot_id or current_boot_id(path.parent))
            index, report = recover(file, superblock, dirty, progress=progress)
        except BaseException:
            file.close()
            raise
        try:
            prefetch(index.path, PREFETCHED_INDEX_BYTES)
            lock_shared(file)
            return cls(
                file, index, superblock, dirty, max_bytes=max_bytes, report=report, durable_bytes=index.state().tail
            )
        except BaseException:
            index.close()
            file.close()
            raise

    @classmethod
    def attach(cls, path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Volume:
        """Open a volume that another process owns and has recovered, to read and to append.

        Raises VolumeUnavailable while it is being recovered, UnknownFormat, IndexDamaged, DiskError.
        """
        file, superblock, index = attach(path)
        dirty = DirtyMarker(path, current_boot_id(path.parent))
        return cls(file, index, superblock, dirty, max_bytes=max_bytes, owner=False)

    def close(self) -> None:
        """Checkpoint (as the owner) and close; may be called twice."""
        with self._checkpointing:
            if self._closed:
                return
            try:
                if self._owner and self.failed is None:
                    self._checkpoint()
            finally:
                with self._appending, self._syncing:
                    self._closed = True
                    self.index.close()
                    self.file.close()

    def lock_alone(self, wait_seconds: float) -> None:
        """Wait until nobody else has the volume open, and keep everybody out until it is closed.

        Raises VolumeUnavailable when somebody keeps it open; then it is shared as before.
        """
        try:
            lock_alone(self.file, wait_seconds)
        except VolumeUnavailable:
            lock_shared(self.file)
            raise

    @property
    def is_owner(self) -> bool:
        """Whether it was opened, or made, rather than attached to."""
        return self._owner

    @property
    def dirty(self) -> DirtyMarker:
        """Says whether the index may be ahead of the disk."""
        return self._dirty

    def __str__(self) -> str:
        return self.file.path

    def __enter__(self) -> Volume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- writing

    def append(self, operations: Sequence[Operation], guard: Guard | None = None) -> Appended:
        """Carry out puts and deletes with one lock, one write and one index commit; not yet durable: see :meth:`sync`.

        Parameters
        ----------
        guard: called under the append lock; what it raises ends the append before anything is written.

        Raises OutOfSpace, DiskError, VolumeUnavailable; errors of single operations are among the outcomes.
        """
        if self._appender.unsure:
            # What the needles of this process say to be durable protects those before them; see docs/format.md.
            self.sync(self.index.state().tail)
        with self._appending:
            self._require_usable()
            try:
                return self._appender.append(operations, guard)
            except IndexDamaged as error:
                self._distrust(str(error))
                raise

    def append_batch(self, start: int, data: Buffer, judge: Judge) -> Landed:
        """Append bytes that another copy of this volume has written, see :mod:`haystack.volume.replica`.

        Not yet durable: see :meth:`sync`.

        Parameters
        ----------
        start: where they lie in the volume.
        judge: called under the append lock.

        Raises BatchDamaged, BatchDiverged, OutOfSpace, DiskError, VolumeUnavailable, and what ``judge`` raises.
        """
        batch = read_batch(self.file.path, start, data, self.seed)
        with self._appending:
            self._require_usable()
            try:
                return append_batch(self.file, self.index, self._appender, batch, judge)
            except IndexDamaged as error:
                self._distrust(str(error))
                raise

    def sync(self, tail: int) -> None:
        """Make everything below ``tail`` (of an :class:`Appended`) durable.

        Raises DiskError; the volume then takes no more writes, because the kernel may have dropped the pages and would
        report success for the next fdatasync. That is also why threads take turns: the kernel tells an error once.
        """
        with self._syncing:
            self._require_usable()
            if self._appender.is_durable(tail):
                return  # by the sync of another thread that began after this append had ended
            covered = max(tail, self._appender.appended)
            self._sync_file()
            self._appender.durable(covered)

    def begin_sync(self, tail: int) -> int:
        """As :meth:`sync`, but the caller calls fdatasync, and then :meth:`end_sync` on the same thread.

        Returns the descriptor to be synced, or -1 when everything is durable already and nothing is to be done.
        Raises VolumeUnavailable.
        """
        self._syncing.acquire()
        try:
            self._require_usable()
            if not self._appender.is_durable(tail):
                self._covered = max(tail, self._appender.appended)
                return self.file.sync_fd
        except BaseException:
            self._syncing.release()
            raise
        self._syncing.release()
        return -1

    def end_sync(self, problem: int) -> None:
        """Note how the fdatasync went. Raises DiskError, as :meth:`sync`.

        Parameters
        ----------
        problem: its errno, 0 for success.
        """
        try:
            if problem:
                error = self.file.sync_error(OSError(problem, os.strerror(problem)))
                self._sync_failed(error)
                raise error
            self._appender.durable(self._covered)
        finally:
            self._syncing.release()

    def _sync_file(self) -> None:
        try:
            self.file.sync()
        except HaystackError as error:
            self._sync_failed(error)
            raise

    def _sync_failed(self, error: HaystackError) -> None:
        self.failed = str(error)
        self._distrust(str(error))

    def _require_usable(self) -> None:
        if self.failed is not None:
            raise VolumeUnavailable(f"{self.file.path}: set aside after {self.failed}; restart the Store to recover it")
        if self._closed:
            raise VolumeUnavailable(f"{self.file.path}: closed")

    def _distrust(self, reason: str) -> None:
        """Have the index rebuilt at the next opening."""
        try:
            self._dirty.distrust()
        except HaystackError as error:
            # The disk is failing already; the caller reports that, and this is what it means for the next opening.
            _log.error("%s: %s, and that the index must be rebuilt cannot be noted: %s", self.file.path, reason, error)

    def put(
        self,
        key: int,
        cookie: int,
        data: Buffer,
        *,
        alternate: int = 0,
        meta: NeedleMeta | None = None,
        time_ms: int | None = None,
        expires: int = 0,
        flags: int = 0,
    ) -> Stored:
        """Store one photo durably. Raises CookieMismatch, VolumeReadOnly (full), TooLarge, OutOfSpace, DiskError."""
        packed = meta.pack() if meta else b""
        when = now_ms() if time_ms is None else time_ms
        return self.put_many([NewNeedle(key, cookie, (data,), when, alternate, packed, expires, flags)])[0]

    def put_many(self, needles: Sequence[NewNeedle]) -> list[Stored]:
        """Store several needles durably, all or none. Raises as :meth:`put`."""
        outcome = self._one(Put(tuple(needles)))
        assert isinstance(outcome, list)
        return outcome

    def delete(
        self, key: int, cookie: int, *, alternate: int = 0, time_ms: int | None = None, now: bool = False
    ) -> int:
        """Delete a needle durably; returns the bytes of its data. Raises NeedleNotFound, OutOfSpace, DiskError.

        Parameters
        ----------
        now: skip the trash.
        """
        outcome = self._one(Delete(key, cookie, now_ms() if time_ms is None else time_ms, alternate, now))
        assert isinstance(outcome, Deleted)
        return outcome.data_bytes

    def undelete(
        self,
        key: int,
        cookie: int,
        *,
        alternate: int = 0,
        time_ms: int | None = None,
        retention_ms: int | None = None,
    ) -> int:
        """Take back a deletion durably; returns the bytes of the needle's data. Raises as :meth:`delete`.

        Parameters
        ----------
        retention_ms: see :class:`~haystack.volume.operations.Undelete`.
        """
        when = now_ms() if time_ms is None else time_ms
        outcome = self._one(Undelete(key, cookie, when, alternate, retention_ms))
        assert isinstance(outcome, Undeleted)
        return outcome.data_bytes

    def _one(self, operation: Operation) -> list[Stored] | Deleted | Undeleted:
        if self.file.readonly:
            raise VolumeReadOnly(f"{self.file.path}: opened read-only")
        appended = self.append([operation])
        outcome = appended.outcomes[0]
        if isinstance(outcome, HaystackError):
            raise outcome
        self.sync(appended.tail)
        return outcome

    def checkpoint(self) -> None:
        """Make volume and index durable and note that the index can be trusted after a power cut.

        Appends wait only for what was written since a first sync without the lock. Raises DiskError.
        """
        with self._checkpointing:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._require_usable()
        self.index.forget_dead_readers()
        if not self._dirty.is_set():
            return
        self._sync_both()
        with self.index.lock():
            if not self.file.is_in_place():
                return  # compacted meanwhile: the marker is the next generation's by now
            self._sync_both()
            if not self._dirty.from_another_boot():  # somebody found the index damaged: leave that to the next opening
                self._dirty.clear()

    def _sync_both(self) -> None:
        with self._syncing:
            self._require_usable()
            self._sync_file()
        self.index.sync()

    # -- looking

    def scan(self, start: int = SUPERBLOCK_BYTES, *, verify: bool = True) -> Iterator[ScannedNeedle | Damage]:
        """Walk needles (tombstones and superseded ones too) and damage in the order of the file, up to the tail."""
        return scan(self.file, self.seed, start, self.index.state().tail, verify=verify)

    def tail(self) -> int:
        """Where the next needle goes, bytes from the start of the file."""
        return self.index.state().tail

    def state(self) -> IndexState:
        """Sums over the volume as of the last append."""
        return self.index.state()

    def stat(self) -> VolumeStat:
        """Sizes and counts."""
        return VolumeStat.of(self.superblock, self.index, self.max_bytes)
