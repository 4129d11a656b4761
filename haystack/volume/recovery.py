"""Bringing a volume and its index together when a volume is opened.

- The index is trusted when it belongs to this volume, does not claim more than the file has, and the machine did not
  stop while it had changes that may not have reached the disk (``<id>.dirty`` from another boot). Then only what it
  does not cover is read; otherwise it is rebuilt from the superblock on.
- Bytes after the last valid needle are a torn append, which nobody was promised: they are saved aside and cut off.
- Bytes between valid needles are damage: reported by offset and length and stepped over. A needle whose header is sound
  keeps its place in the index when it was acknowledged, as it does without a rebuild: reading it fails by name, an
  older photo of that name is not served in its place, and a damaged tombstone still deletes.
- A multi-write is all or nothing. Members of one that is not whole are dropped when it was possibly never acknowledged:
  nothing after it says that its end was durable (the ``durable_distance`` of later needles does). Below that mark the
  batch was acknowledged, so what misses is damage, and the members that are left are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from haystack.errors import IndexDamaged, OutOfSpace
from haystack.volume.dirty import DirtyMarker
from haystack.volume.entering import enter_header
from haystack.volume.files import VolumeFile, sync_folder
from haystack.volume.index import IndexWriter, NeedleIndex, remove_index
from haystack.volume.index_records import IndexState
from haystack.volume.layout import ALIGNMENT, SUPERBLOCK_BYTES, UNKNOWN_DISTANCE, Superblock
from haystack.volume.names import index_path, remove_leftovers
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
    torn_offset, torn_bytes, torn_file: a torn tail that was cut off, and where it was saved; no file when the disk was
        too full for it: then the next append cuts it.
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
            done = f"saved as {self.torn_file} and cut" if self.torn_file else "not saved, for the disk is full"
            said.append(f"torn tail of {self.torn_bytes} bytes at offset {self.torn_offset} {done}")
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
    remove_leftovers(Path(file.path), superblock.generation)
    index = _open_index(file, superblock, dirty, report)
    try:
        try:
            _cover(file, superblock, index, dirty, report, progress, now)
        except IndexDamaged as error:
            index.close()
            report = RecoveryReport(rebuilt=str(error))
            index = _new_index(file, superblock, dirty)
            _cover(file, superblock, index, dirty, report, progress, now)
        if dirty.is_set():
            # What a killed process wrote may be in memory alone; from here on it counts as stored.
            file.sync()
    except BaseException:
        index.close()
        raise
    return index, report


def _cover(
    file: VolumeFile,
    superblock: Superblock,
    index: NeedleIndex,
    dirty: DirtyMarker,
    report: RecoveryReport,
    progress: Progress | None,
    now: float | None,
) -> None:
    """Walk what the index does not cover."""
    start, end = index.state().tail, file.size_bytes()
    if start < end:
        dirty.set()
        _Walk(file, superblock, index, report, progress).run(start, end, now)


def _open_index(file: VolumeFile, superblock: Superblock, dirty: DirtyMarker, report: RecoveryReport) -> NeedleIndex:
    path = index_path(Path(file.path), superblock.generation)
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
    return _new_index(file, superblock, dirty)


def _new_index(file: VolumeFile, superblock: Superblock, dirty: DirtyMarker) -> NeedleIndex:
    path = index_path(Path(file.path), superblock.generation)
    # In this order: a marker of this boot beside the old index would make the next opening trust it.
    remove_index(path)
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
        pending: list[Group] = []
        waiting = 0
        damage: list[Damage] = []
        for group in _groups(scan(self._file, self._superblock.seed, start, end)):
            if not self._counts(group, end):
                damage.append(_dropped(group))
                continue
            # Something that counts follows, so what came before was no torn tail.
            self._report.damage += damage
            self._report.damage += [item for item in group if isinstance(item, Damage)]
            damage = []
            pending.append(group)
            waiting += len(group)
            tail = group[-1].end
            if waiting >= COMMIT_NEEDLES:
                self._enter(pending, tail)
                pending, waiting = [], 0
                if self._progress:
                    self._progress(tail - start, end - start)
        self._enter(pending, tail)
        if tail < end:
            self._cut(tail, end, now)
        self._report.scanned_bytes = end - start

    def _counts(self, group: Group, end: int) -> bool:
        """Whether the needles of a batch are to be served: it is whole, or it was acknowledged once."""
        header = group[0].header
        if header is None or (isinstance(group[0], Damage) and not group[0].is_needle):
            return False
        if (
            header.batch_size == len(group)
            and header.batch_index == 0
            and not any(isinstance(item, Damage) for item in group)
        ):
            return True
        batch_end = group[-1].end
        if batch_end <= self._superblock.compacted_bytes:
            return True
        if self._durable is None:
            self._durable = _durable_mark(self._file, self._superblock.seed, batch_end, end)
        return batch_end <= self._durable

    def _enter(self, groups: list[Group], tail: int) -> None:
        with self._index.write() as writer:
            for group in groups:
                for item in group:
                    if item.header is not None:
                        enter_needle(writer, ScannedNeedle(item.offset, item.header, 0))
                    self._report.needles += isinstance(item, ScannedNeedle)
            writer.move_tail(tail)

    def _cut(self, tail: int, end: int, now: float | None) -> None:
        """Save the torn tail beside the volume, then cut it off, durably in that order."""
        report = self._report
        report.torn_offset, report.torn_bytes = tail, end - tail
        saved = torn_name(Path(self._file.path), tail, now if now is not None else time.time())
        try:
            save_range(self._file, tail, end, saved)
        except OutOfSpace:
            # A full disk must not keep the photos before the tail from being read. It is left for the next append.
            saved.unlink(missing_ok=True)
            return
        self._file.truncate(tail)
        self._file.sync()
        report.torn_file = str(saved)


def torn_name(path: Path, tail: int, now: float) -> Path:
    """A name that is free for the bytes of a volume from ``tail`` on (``now``: seconds since 1970)."""
    base = f".torn-{tail}-{int(now)}"
    saved, number = path.with_suffix(base), 1
    while saved.exists():
        number += 1
        saved = path.with_suffix(f"{base}-{number}")
    return saved


def enter_needle(writer: IndexWriter, needle: ScannedNeedle) -> None:
    """Enter a scanned needle into the index, as its append did."""
    enter_header(writer, needle.offset, needle.header)


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


Group = list[ScannedNeedle | Damage]
"""The needles of one batch that are there, damaged ones with a sound header among them; or one other damage alone."""


def _groups(found: Iterator[ScannedNeedle | Damage]) -> Iterator[Group]:
    """Put needles of one batch together; a batch that misses members comes as the parts that are there."""
    group: Group = []
    for item in found:
        if group and not continues_batch(group[-1], item):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def continues_batch(last: ScannedNeedle | Damage, item: ScannedNeedle | Damage) -> bool:
    """Whether ``item``, which follows ``last``, belongs to the same multi-write."""
    for each in (last, item):
        if each.header is None or (isinstance(each, Damage) and not each.is_needle):
            return False
    before, after = last.header, item.header
    assert before is not None and after is not None
    return after.batch_size == before.batch_size and after.batch_index == before.batch_index + 1


def _dropped(group: Group) -> Damage:
    first = group[0]
    if isinstance(first, Damage) and len(group) == 1:
        return first
    assert first.header is not None
    whole = sum(isinstance(item, ScannedNeedle) for item in group)
    problem = f"{whole} of {first.header.batch_size} needles of a multi-write that was not acknowledged"
    return Damage(first.offset, group[-1].end - first.offset, problem, first.header)


def _durable_mark(file: VolumeFile, seed: int, start: int, end: int) -> int:
    """The highest offset that headers after ``start`` say was durable before they were written."""
    mark = 0
    for item in scan(file, seed, start, end):
        if item.header is not None and item.header.durable_distance != UNKNOWN_DISTANCE:
            mark = max(mark, item.offset - item.header.durable_distance * ALIGNMENT)
    return mark
