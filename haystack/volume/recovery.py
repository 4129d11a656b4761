"""Bringing a volume and its index together when a volume is opened.

- The index is trusted when it belongs to this volume, does not claim more than the file has, and the machine did not
  stop while it had changes that may not have reached the disk (``<id>.dirty`` from another boot). Then only what it
  does not cover is read; otherwise it is rebuilt from the superblock on.
- Bytes after the last valid needle are a torn append, which nobody was promised: they are saved aside and cut off.
- Bytes between valid needles are damage: reported by offset and length and stepped over.
- A multi-write is all or nothing. Members of one that is not whole are dropped when it was possibly never acknowledged:
  nothing after it says that its end was durable (the ``durable_distance`` of later needles does). Below that mark the
  batch was acknowledged, so what misses is damage, and the members that are left are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from haystack.errors import IndexDamaged
from haystack.volume.dirty import DirtyMarker
from haystack.volume.files import VolumeFile, sync_folder
from haystack.volume.index import IndexEntry, IndexState, IndexWriter, NeedleIndex
from haystack.volume.layout import ALIGNMENT, SUPERBLOCK_BYTES, UNKNOWN_DISTANCE, Superblock
from haystack.volume.scan import CHUNK_BYTES, Damage, ScannedNeedle, scan

COMMIT_NEEDLES = 50_000
"""Needles entered in one index transaction during a rebuild; bounds LMDB's dirty pages."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes to do."""


@dataclass(slots=True)
class RecoveryReport:
    """What opening a volume found and did.

    Parameters
    ----------
    rebuilt: why the index was rebuilt, or None.
    scanned_bytes: bytes of the volume that had to be walked.
    needles: needles entered in the index.
    damage: damaged ranges, each with offset, length and reason.
    torn_offset, torn_bytes, torn_file: a torn tail that was cut off, and where it was saved.
    """

    rebuilt: str | None = None
    scanned_bytes: int = 0
    needles: int = 0
    damage: list[Damage] = field(default_factory=list)
    torn_offset: int = 0
    torn_bytes: int = 0
    torn_file: str | None = None

    @property
    def clean(self) -> bool:
        return self.rebuilt is None and not self.damage and not self.torn_bytes

    def lines(self) -> list[str]:
        """One sentence for each thing that an operator should know."""
        said = []
        if self.rebuilt:
            said.append(f"index rebuilt ({self.rebuilt}): {self.needles} needles from {self.scanned_bytes} bytes")
        said += [f"damage: {damage}" for damage in self.damage]
        if self.torn_bytes:
            said.append(
                f"torn tail of {self.torn_bytes} bytes at offset {self.torn_offset} saved as {self.torn_file} and cut"
            )
        return said


def recover(
    file: VolumeFile,
    superblock: Superblock,
    dirty: DirtyMarker,
    *,
    now: float | None = None,
    progress: Progress | None = None,
) -> tuple[NeedleIndex, RecoveryReport]:
    """Open the index of a volume, mended or rebuilt so that it covers the file exactly.

    The caller must be the only one that has the volume open for writing. Raises DiskError or OutOfSpace.
    """
    report = RecoveryReport()
    index = _open_index(file, superblock, dirty, report)
    start = index.state().tail
    end = file.size_bytes()
    if start < end:
        dirty.set()
        _Walk(file, superblock, index, report, progress).run(start, end, now)
    return index, report


def _open_index(file: VolumeFile, superblock: Superblock, dirty: DirtyMarker, report: RecoveryReport) -> NeedleIndex:
    path = Path(file.path).with_suffix(".idx")
    try:
        if dirty.from_another_boot():
            raise IndexDamaged("the machine stopped while the index had changes that may not have reached the disk")
        index = NeedleIndex(path)
        try:
            _require_match(index.state(), superblock, file.size_bytes())
        except BaseException:
            index.close()
            raise
        return index
    except IndexDamaged as error:
        report.rebuilt = str(error)
    dirty.renew()
    return NeedleIndex.create(path, IndexState(superblock.uuid, superblock.generation, SUPERBLOCK_BYTES))


def _require_match(state: IndexState, superblock: Superblock, size_bytes: int) -> None:
    if state.uuid != superblock.uuid or state.generation != superblock.generation:
        raise IndexDamaged("it belongs to another volume or another generation of this one")
    if state.tail > size_bytes:
        raise IndexDamaged(f"the volume has {size_bytes} bytes but the index covers {state.tail}: its end was lost")


class _Walk:
    """One pass over what the index does not cover."""

    def __init__(
        self,
        file: VolumeFile,
        superblock: Superblock,
        index: NeedleIndex,
        report: RecoveryReport,
        progress: Progress | None,
    ) -> None:
        self._file = file
        self._superblock = superblock
        self._index = index
        self._report = report
        self._progress = progress
        self._durable: int | None = None

    def run(self, start: int, end: int, now: float | None) -> None:
        tail = start
        pending: list[list[ScannedNeedle]] = []
        waiting = 0
        damage: list[Damage] = []
        for group in _groups(scan(self._file, self._superblock.seed, start, end)):
            if isinstance(group, Damage):
                damage.append(group)
                continue
            if not self._counts(group, end):
                damage.append(_incomplete(group))
                continue
            self._report.damage += damage  # something valid follows, so it was no torn tail
            damage = []
            pending.append(group)
            waiting += len(group)
            tail = group[-1].end
            if waiting >= COMMIT_NEEDLES:
                self._enter(pending, tail)
                pending, waiting = [], 0
                if self._progress:
                    self._progress(tail - start, end - start)
        if tail < end:
            self._cut(tail, end, now)
        self._enter(pending, tail)
        self._report.scanned_bytes = end - start

    def _counts(self, group: list[ScannedNeedle], end: int) -> bool:
        """Whether the needles of a batch are to be served: it is whole, or it was acknowledged once."""
        first = group[0].header
        if first.batch_size == len(group) and first.batch_index == 0:
            return True
        batch_end = group[-1].end
        if batch_end <= self._superblock.compacted_bytes:
            return True
        if self._durable is None:
            self._durable = _durable_mark(self._file, self._superblock.seed, batch_end, end)
        return batch_end <= self._durable

    def _enter(self, groups: list[list[ScannedNeedle]], tail: int) -> None:
        with self._index.write() as writer:
            for group in groups:
                for needle in group:
                    enter_needle(writer, needle)
                    self._report.needles += 1
            writer.move_tail(tail)

    def _cut(self, tail: int, end: int, now: float | None) -> None:
        """Save the torn tail beside the volume, then cut it off, durably in that order."""
        saved = Path(self._file.path).with_suffix(f".torn-{tail}-{int(now if now is not None else time.time())}")
        save_range(self._file, tail, end, saved)
        self._file.truncate(tail)
        self._file.sync()
        self._report.torn_offset, self._report.torn_bytes = tail, end - tail
        self._report.torn_file = str(saved)


def enter_needle(writer: IndexWriter, needle: ScannedNeedle) -> None:
    """Enter a scanned needle into the index, as its append did."""
    header = needle.header
    if header.is_tombstone:
        writer.delete(header.key, header.alternate, header.total_bytes, header.time_ms)
    else:
        entry = IndexEntry(needle.offset, header.data_bytes, header.meta_bytes, 0)
        writer.store(header.key, header.alternate, entry, header.time_ms)


def save_range(file: VolumeFile, start: int, end: int, target: Path) -> None:
    """Copy bytes of a volume into a file of their own, durably. Raises DiskError or OutOfSpace."""
    target.write_bytes(b"")
    copy = VolumeFile(target)
    try:
        for offset in range(start, end, CHUNK_BYTES):
            copy.pwrite([file.pread(min(CHUNK_BYTES, end - offset), offset)], offset - start)
        copy.sync()
    finally:
        copy.close()
    sync_folder(target.parent)


def _groups(found: Iterator[ScannedNeedle | Damage]) -> Iterator[list[ScannedNeedle] | Damage]:
    """Put needles of one batch together; a batch that misses members comes as the part that is there."""
    group: list[ScannedNeedle] = []
    for item in found:
        if group and not _continues(group, item):
            yield group
            group = []
        if isinstance(item, Damage):
            yield item
            continue
        group.append(item)
        if item.header.batch_index + 1 == item.header.batch_size:
            yield group
            group = []
    if group:
        yield group


def _continues(group: list[ScannedNeedle], item: ScannedNeedle | Damage) -> bool:
    last = group[-1].header
    return (
        isinstance(item, ScannedNeedle)
        and item.header.batch_size == last.batch_size
        and item.header.batch_index == last.batch_index + 1
    )


def _incomplete(group: list[ScannedNeedle]) -> Damage:
    first = group[0]
    problem = f"{len(group)} of {first.header.batch_size} needles of a multi-write that was not acknowledged"
    return Damage(first.offset, group[-1].end - first.offset, problem, first.header)


def _durable_mark(file: VolumeFile, seed: int, start: int, end: int) -> int:
    """The highest offset that needles after ``start`` say was durable before they were written."""
    mark = 0
    for item in scan(file, seed, start, end):
        if isinstance(item, ScannedNeedle) and item.header.durable_distance != UNKNOWN_DISTANCE:
            mark = max(mark, item.offset - item.header.durable_distance * ALIGNMENT)
    return mark
