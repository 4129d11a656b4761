"""Checking a volume without changing it: structure, checksums, and index against volume both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from haystack.errors import IndexDamaged, UnknownFormat
from haystack.volume.files import VolumeFile
from haystack.volume.index import NeedleIndex
from haystack.volume.index_records import IndexEntry, IndexState
from haystack.volume.layout import HEADER_BYTES, SUPERBLOCK_BYTES, LayoutError, NeedleHeader
from haystack.volume.names import index_path
from haystack.volume.opening import read_superblock
from haystack.volume.scan import Damage, ScannedNeedle, scan

MAX_PROBLEMS = 1000
"""Problems listed one by one; further ones are only counted."""

PROGRESS_NEEDLES = 1000

APPEND_WAITS = 20
APPEND_WAIT_SECONDS = 0.05
"""How often and how long to wait for an append that was met half done."""


@dataclass(slots=True)
class CheckReport:
    """Result of a check.

    Parameters
    ----------
    path: the volume file.
    full: whether data was verified, or structure alone.
    size_bytes: bytes walked.
    needles, tombstones: valid ones found.
    problems: one sentence each, at most MAX_PROBLEMS; ``problem_count`` counts all.
    damage: offset and bytes of damaged ranges, at most MAX_PROBLEMS; what a copy can mend.
    index_problems: how many of the problems are the index's: what making it anew mends.
    """

    path: str
    full: bool
    size_bytes: int = 0
    needles: int = 0
    tombstones: int = 0
    problem_count: int = 0
    problems: list[str] = field(default_factory=list)
    damage: list[tuple[int, int]] = field(default_factory=list)
    index_problems: int = 0

    @property
    def ok(self) -> bool:
        return not self.problem_count

    def add(self, problem: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def add_damage(self, damage: Damage) -> None:
        """A damaged range."""
        self.add(f"damage: {damage}")
        if len(self.damage) < MAX_PROBLEMS:
            self.damage.append((damage.offset, damage.length))

    def add_of_index(self, problem: str) -> None:
        """Something that is wrong with the index."""
        self.index_problems += 1
        self.add(problem)

    def to_json(self) -> dict[str, object]:
        return {
            "path": self.path,
            "ok": self.ok,
            "full": self.full,
            "sizeBytes": self.size_bytes,
            "needles": self.needles,
            "tombstones": self.tombstones,
            "problemCount": self.problem_count,
            "problems": self.problems,
            "damage": [list(one) for one in self.damage],
            "indexProblems": self.index_problems,
        }


def check_volume(
    path: Path, *, full: bool, progress: Callable[[int, int], None] | None = None, index: NeedleIndex | None = None
) -> CheckReport:
    """Check a volume, running or stopped; only reads.

    Parameters
    ----------
    full: verify every checksum; otherwise only headers are followed and compared with the index.
    progress: called with bytes done and bytes to do.
    index: the open index when this process has it open already (LMDB allows one opening a process).

    Raises DiskError when the file cannot be read at all.
    """
    report = CheckReport(str(path), full)
    file = VolumeFile(path, readonly=True)
    try:
        superblock = read_superblock(file)
        seed = superblock.seed
        opened, own = _open_index(path, superblock.generation, index, report)
        try:
            end = opened.state().tail if opened else file.size_bytes()
            _check_end(report, file, end, opened)
            walked = scan(file, seed, SUPERBLOCK_BYTES, end, verify=full)
            _Check(report, opened, progress, end, file, seed).run(walked)
        finally:
            if opened and own:
                opened.close()
    except UnknownFormat as error:
        report.add(str(error))
    finally:
        file.close()
    return report


def _open_index(
    path: Path, generation: int, index: NeedleIndex | None, report: CheckReport
) -> tuple[NeedleIndex | None, bool]:
    if index is not None:
        return index, False
    try:
        return NeedleIndex(index_path(path, generation), readonly=True), True
    except IndexDamaged as error:
        report.add_of_index(f"index: {error}; it is rebuilt when the Store starts")
        return None, False


def _check_end(report: CheckReport, file: VolumeFile, tail: int, index: NeedleIndex | None) -> None:
    report.size_bytes = size_bytes = file.size_bytes()
    if size_bytes < tail:
        report.add_of_index(f"the volume has {size_bytes} bytes, the index covers {tail}: its end is missing")
    elif index is not None and not _becomes_covered(size_bytes, tail, index):
        report.add_of_index(f"{size_bytes - tail} bytes at offset {tail} are not covered by the index (a torn append)")


def _becomes_covered(size_bytes: int, tail: int, index: NeedleIndex) -> bool:
    """Whether an append is on its way: it writes first, and says so in the index after it."""
    for _ in range(APPEND_WAITS):
        if size_bytes == tail or index.state().tail != tail:
            return True
        time.sleep(APPEND_WAIT_SECONDS)
    return False


class _Check:
    """One walk over a volume, compared with its index."""

    def __init__(
        self,
        report: CheckReport,
        index: NeedleIndex | None,
        progress: Callable[[int, int], None] | None,
        end: int,
        file: VolumeFile,
        seed: int,
    ) -> None:
        self._report = report
        self._index = index
        self._progress = progress
        self._end = end
        self._file = file
        self._seed = seed
        self._current = 0
        self._deleted = 0
        self._deletions = 0
        self._disagreeing: dict[tuple[int, int], str] = {}
        """Names whose last marker so far says otherwise than the index, and where it is."""

    def run(self, walked: Iterator[ScannedNeedle | Damage]) -> None:
        for count, item in enumerate(walked, 1):
            if isinstance(item, Damage):
                self._report.add_damage(item)
            if item.header is not None and (isinstance(item, ScannedNeedle) or item.is_needle):
                self._needle(item, item.header)
            if self._progress and count % PROGRESS_NEEDLES == 0:
                self._progress(item.end, self._end)
        self._compare_markers()
        if self._index:
            state = self._index.state()
            if state.tail == self._end:  # otherwise somebody appends meanwhile, and the sums are of another moment
                self._compare_counts(self._index, state)
        if self._progress:
            self._progress(self._end, self._end)

    def _needle(self, item: ScannedNeedle | Damage, header: NeedleHeader) -> None:
        """Compare one needle with the index; a damaged one with a sound header is there, too."""
        whole = isinstance(item, ScannedNeedle)
        entry = self._index.get(header.key, header.alternate) if self._index else None
        where = f"photo {header.key:x}, alternate {header.alternate} at offset {item.offset}"
        if header.is_marker:
            self._report.tombstones += whole and header.is_tombstone
            if entry is not None and entry.offset < item.offset:
                self._marker(header, entry, where)
            return
        self._report.needles += whole
        if self._index is None:
            return
        if entry is None or entry.offset < item.offset:
            self._report.add_of_index(f"{where} is not in the index")
        elif entry.offset == item.offset:
            self._matched(header, entry, where)

    def _marker(self, header: NeedleHeader, entry: IndexEntry, where: str) -> None:
        """A marker behind the needle that the index has; the last one of a name must agree with it."""
        name = header.key, header.alternate
        if header.is_undelete:
            disagrees = f"{where} was brought back, but the index has it deleted" if entry.in_trash else ""
        else:
            self._deletions += 1
            disagrees = "" if entry.deleted else f"{where} was deleted, but the index still has it"
        if disagrees:
            self._disagreeing[name] = disagrees
        else:
            self._disagreeing.pop(name, None)

    def _compare_markers(self) -> None:
        if self._index is not None and self._disagreeing:
            # Photos that were deleted, or brought back, while this walk went on are no problem.
            limit = max(self._end, self._index.state().tail)
            for item in scan(self._file, self._seed, self._end, limit, verify=False):
                header = item.header
                if header is not None and header.is_marker and (header.key, header.alternate) in self._disagreeing:
                    entry = self._index.get(header.key, header.alternate)
                    if entry is not None:
                        self._marker(header, entry, f"photo {header.key:x} at offset {item.offset}")
        for problem in self._disagreeing.values():
            self._report.add_of_index(problem)

    def _matched(self, header: NeedleHeader, entry: IndexEntry, where: str) -> None:
        if (entry.data_bytes, entry.meta_bytes) != (header.data_bytes, header.meta_bytes):
            self._report.add_of_index(f"{where}: the index gives it other sizes")
        if entry.deleted:
            self._deleted += 1
        else:
            self._current += 1

    def _compare_counts(self, index: NeedleIndex, state: IndexState) -> None:
        """Entries whose needle was not met point to nothing; counting finds that there are any, a second walk which."""
        found = self._current + self._deleted
        entries = index.count()
        # A needle whose header is damaged is in the index all the same, and making that anew would lose it.
        add = self._report.add if self._report.damage else self._report.add_of_index
        if entries != found:
            add(f"the index has {entries} entries, {found} of them match a needle of the volume")
            self._name_strays(index)
        if self._deleted > self._deletions:
            add(f"the index has {self._deleted} deleted photos, the volume deletes {self._deletions}")
        if state.live_count != self._current:
            add(f"the index counts {state.live_count} photos, the volume has {self._current}")

    def _name_strays(self, index: NeedleIndex) -> None:
        """Say which entries point to no needle of theirs: a walk over the index, for when the sums are wrong."""
        for key, alternate, entry in index.entries():
            if entry.offset < self._end and not self._points_right(key, alternate, entry.offset):
                where = f"photo {key:x}, alternate {alternate}"
                self._report.add_of_index(f"{where}: the index has it at offset {entry.offset}, where it is not")

    def _points_right(self, key: int, alternate: int, offset: int) -> bool:
        try:
            header = NeedleHeader.unpack(self._file.pread(HEADER_BYTES, offset), self._seed)
        except LayoutError:
            # The index knows more than the volume while a header is damaged.
            return any(start <= offset < start + size for start, size in self._report.damage)
        return not header.is_marker and (header.key, header.alternate) == (key, alternate)
