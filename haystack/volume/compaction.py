"""Compaction of one physical volume: what lives is copied to the next generation, which then takes its place.

It goes on while the volume is read, written and deleted from, by any number of processes:

1. *copy*: the needles that the order keeps (:mod:`haystack.volume.live`) below the cut;
2. *carry over*: what was appended behind the cut meanwhile, byte for byte, again and again until little is left;
3. *swap*, under the append lock: the last bytes, fdatasync, then the new file is renamed over the old one. This rename
   is the only commit point. Before it the volume is as it was, and what was written is removed, now or by the next
   opening; after it the next generation is in force. Its index has a name of its own, and is there already.

Whoever has the old generation open notices under its append lock that its file was replaced (``VolumeMoved``) and opens
the volume anew; until then it goes on reading the old file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from haystack.errors import CompactionFailed, HaystackError, VolumeMoved, VolumeUnavailable
from haystack.volume.compact_copy import Copier, Everything
from haystack.volume.index import remove_index
from haystack.volume.layout import SUPERBLOCK_BYTES, Superblock
from haystack.volume.live import CompactionOrder, live_set
from haystack.volume.locks import lock_shared
from haystack.volume.next_generation import CompactionFiles, NextGeneration
from haystack.volume.pace import Pace
from haystack.volume.volume import Volume

_log = logging.getLogger(__name__)

LAST_BYTES = 256 * 1024
"""The append lock is asked for when no more than this is left to be carried over."""

MOST_LAST_BYTES = 4 * 2**20
"""When more than this has been appended by the time the lock is there, it is given back once more."""

MAX_ROUNDS = 64
"""Rounds of carrying over and attempts to swap."""


@dataclass(slots=True)
class CompactionProgress:
    """How far a compaction is; read by others while it runs.

    Parameters
    ----------
    step: "copying", "carrying over", "swapping" or "done".
    done_bytes, all_bytes: walked of what lies below the cut.
    copied_bytes: written to the next generation.
    """

    step: str = "copying"
    done_bytes: int = 0
    all_bytes: int = 0
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of the next generation before it takes its place.

    Parameters
    ----------
    generation: its number.
    cut, new_cut, ends: as of :class:`Compacted`; only the held ends below the cut.
    prefix_hash: of its bytes below ``new_cut``. Copies that were given the same order must agree on it.
    """

    generation: int
    cut: int
    new_cut: int
    ends: dict[int, int]
    prefix_hash: str


@dataclass(slots=True)
class Compacted:
    """What came of a compaction.

    Parameters
    ----------
    volume: the next generation, open; its owner when the volume that was compacted was.
    cut, new_cut: end of the part in which something was left out, in the old generation and in the new one.
    old_bytes, new_bytes: sizes when the generations changed.
    carried_bytes: appended meanwhile and carried over.
    ends: where the held ends of the old generation lie in the new one.
    pause_seconds: for how long nobody could append.
    problem: why the volume takes no writes now, although the generation has changed; or nothing.
    """

    volume: Volume
    cut: int
    new_cut: int
    old_bytes: int
    new_bytes: int
    carried_bytes: int
    ends: dict[int, int]
    pause_seconds: float
    problem: str = ""


@dataclass(slots=True)
class Compaction:
    """One compaction, to be run once.

    Parameters
    ----------
    volume: open in this process; the caller closes it afterwards when the generation has changed.
    order: what is kept.
    pace: limits the rate, and ends it when it is stopped, up to the swap.
    before_swap: called without the lock when all but the last bytes are there; what it raises gives the compaction up.
    hold: called without the lock, again and again, with what is prepared and everything carried over up to a moment
        ago, until it says that the next generation may take its place; what it raises gives the compaction up.
    settled: asked under the lock, with the end of the volume, whether everything that was appended has come to its end;
        when it has not, the lock is given back for a moment.
    on_swapped: called under both append locks when the next generation is in force, and nobody has appended to it; with
        its superblock and its end. What it raises leaves the next generation in force, and the volume without writes.
    call_swap: calls the function that it is given, which holds the append lock for a moment, and returns what that
        returns; on another thread when this one has to stand back for others.
    files: the seam to the operating system.
    clock: monotonic seconds.
    """

    volume: Volume
    order: CompactionOrder
    pace: Pace = field(default_factory=Pace)
    before_swap: Callable[[int], None] = lambda cut: None
    hold: Callable[[Prepared], bool] = lambda prepared: True
    settled: Callable[[int], bool] = lambda tail: True
    on_swapped: Callable[[Superblock, int], None] = lambda superblock, tail: None
    call_swap: Callable[[Callable[[], float | None]], float | None] = lambda swap: swap()
    files: CompactionFiles = field(default_factory=CompactionFiles)
    clock: Callable[[], float] = time.monotonic
    progress: CompactionProgress = field(default_factory=CompactionProgress)

    def run(self) -> Compacted:
        """Compact the volume. Blocks for as long as that takes.

        Raises CompactionFailed, DamagedNeedle, IndexDamaged, DiskError, OutOfSpace, InvalidRequest, VolumeMoved,
        VolumeUnavailable, Cancelled; the volume is then as it was.
        """
        path = Path(self.volume.file.path)
        if self.volume.failed is not None:
            raise VolumeUnavailable(f"{path}: set aside after {self.volume.failed}; it cannot be compacted")
        if not self.volume.file.is_in_place():
            raise VolumeMoved(f"{path}: compacted meanwhile, or removed; open it anew")
        target = NextGeneration(path, self.volume.superblock, self.files)
        try:
            lock_shared(target.file)
            cut, ends = self._copy(target)
            return self._swap(path, target, cut, ends)
        except BaseException:
            if not target.in_force:
                self._discard(target)
            raise

    def _discard(self, target: NextGeneration) -> None:
        try:
            target.discard()
        except HaystackError as error:
            _log.warning("%s: what a compaction wrote is removed at the next opening: %s", target.path, error)

    def _copy(self, target: NextGeneration) -> tuple[int, dict[int, int]]:
        """Copy what is kept below the cut; returns the cut and the held ends below it in the new generation."""
        volume, order = self.volume, self.order
        with live_set(volume.file, volume.superblock, volume.index, order, self.pace) as live:
            self.progress.all_bytes = live.cut
            ends = [end for end in order.snapshots if end <= live.cut]
            copier = self._copier(target, ends)
            copier.copy(SUPERBLOCK_BYTES, live.cut, live)
            live.require_complete()
        moved = copier.moved_ends
        moved |= dict.fromkeys((end for end in ends if end not in moved), target.position)
        target.begin_tail()
        target.finish_superblock()
        return live.cut, moved

    def _copier(self, target: NextGeneration, ends: list[int]) -> Copier:
        def walked(offset: int) -> None:
            self.progress.done_bytes = offset
            self.progress.copied_bytes = target.position

        volume = self.volume
        return Copier(volume.file, volume.seed, target, self.pace, ends=ends, progress=walked)

    # -- carrying over

    def _swap(self, path: Path, target: NextGeneration, cut: int, ends: dict[int, int]) -> Compacted:
        # What comes in faster than the rate would never end otherwise.
        unlimited = Copier(self.volume.file, self.volume.seed, target, Pace())
        carried_to = cut
        self.progress.step = "carrying over"
        target.sync()
        self.before_swap(cut)
        prepared = Prepared(target.superblock.generation, cut, target.compacted_bytes, dict(ends), target.prefix_hash)
        while not self.hold(prepared):
            self.pace.check()
            carried_to = self._catch_up(unlimited, target, carried_to)
        for _ in range(MAX_ROUNDS):
            self.pace.check()
            carried_to = self._catch_up(unlimited, target, carried_to)
            if self.volume.tail() - carried_to > LAST_BYTES:
                continue
            self.progress.step = "swapping"
            pause_seconds = self.call_swap(partial(self._try_swap, path, target, unlimited, carried_to))
            if pause_seconds is not None:
                return self._finish(path, target, cut, ends, pause_seconds)
        raise CompactionFailed(f"{path}: so much is uploaded that a compaction cannot catch up; try again later")

    def _catch_up(self, copier: Copier, target: NextGeneration, carried_to: int) -> int:
        """Carry over what was appended since; returns up to where."""
        tail = self.volume.tail()
        if tail > carried_to:
            self._carry(copier, target, carried_to, tail)
            target.sync()
        return tail

    def _carry(self, copier: Copier, target: NextGeneration, start: int, end: int) -> None:
        copier.copy(start, end, Everything())
        target.flush()
        self.progress.copied_bytes = target.position

    def _try_swap(self, path: Path, target: NextGeneration, copier: Copier, carried_to: int) -> float | None:
        """Put the next generation in place; returns how long that took, or None when too much was appended again."""
        volume = self.volume
        with volume.index.lock():
            began = self.clock()
            tail = volume.tail()
            if not volume.file.is_in_place():
                raise VolumeMoved(f"{path}: somebody else has compacted it, or removed it")
            if tail - carried_to > MOST_LAST_BYTES or not self.settled(tail):
                return None
            self._carry(copier, target, carried_to, tail)
            target.sync()
            target.require_whole()
            volume.dirty.set()  # the new index is not on the disk yet
            with target.index.lock():
                self.files.rename(target.path, path)
                target.in_force = True
                target.file.path = str(path)
                self._settle(path, target)
                self._tell(path, target)
            return self.clock() - began

    def _settle(self, path: Path, target: NextGeneration) -> None:
        """Make the rename durable: before that no upload to the next generation may be acknowledged."""
        try:
            self.files.sync_folder(path.parent)
        except HaystackError as error:
            # A power cut may bring back either generation, both as of now; so nothing may be added.
            target.problem = str(error)
            _log.error("%s: %s; it takes no more writes", path, error)

    def _tell(self, path: Path, target: NextGeneration) -> None:
        try:
            self.on_swapped(target.superblock, target.position)
        except HaystackError as error:
            target.problem = str(error)
            _log.error("%s: the next generation is in force, but takes no writes: %s", path, error)

    def _finish(
        self, path: Path, target: NextGeneration, cut: int, ends: dict[int, int], pause_seconds: float
    ) -> Compacted:
        old = self.volume
        volume = Volume(
            target.file,
            target.index,
            target.superblock,
            old.dirty,
            max_bytes=old.max_bytes,
            owner=old.is_owner,
            durable_bytes=target.position,
        )
        volume.failed = target.problem or None
        with suppress(OSError):  # what is left of it goes at the next opening
            remove_index(old.index.path)
        old_bytes = old.tail()
        shift = target.compacted_bytes - cut
        ends |= {end: end + shift for end in self.order.snapshots if cut < end <= old_bytes}
        self.progress.step = "done"
        return Compacted(
            volume=volume,
            cut=cut,
            new_cut=target.compacted_bytes,
            old_bytes=old_bytes,
            new_bytes=target.position,
            carried_bytes=old_bytes - cut,
            ends=ends,
            pause_seconds=pause_seconds,
            problem=target.problem,
        )
