"""What a compaction keeps of the needles below its cut.

The choice follows from the bytes below the cut and from the order alone: not from a clock, nor from what was appended
behind the cut meanwhile. So copies with the same bytes are compacted to the same bytes.

It takes two questions to an index, which bounds memory whatever the volume holds: which needle is the latest of its
name, and whether it is deleted. When the volume ends at the cut its own index answers, as a snapshot. Otherwise, and
when snapshots are held, an index of the part below the cut is made first, from the headers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from haystack.errors import DamagedNeedle, IndexDamaged, InvalidRequest
from haystack.volume.entering import enter_header
from haystack.volume.files import VolumeFile
from haystack.volume.index import IndexSnapshot, IndexWriter, NeedleIndex, remove_index
from haystack.volume.index_records import DELETED_NOW, DELETED_VALUE, VALUE, IndexEntry, IndexState
from haystack.volume.layout import (
    ALIGNMENT,
    HEADER_BYTES,
    KNOWN_FLAGS,
    MARKER_FLAGS,
    MAX_BATCH_NEEDLES,
    SUPERBLOCK_BYTES,
    LayoutError,
    NeedleHeader,
    Superblock,
)
from haystack.volume.names import scratch_path
from haystack.volume.pace import Pace
from haystack.volume.scan import Damage, scan
from haystack.volume.window import COUNT, DATA_BYTES, EXPIRES, FLAGS, INDEX, META_BYTES, Walked

_value = VALUE.pack

COMMIT_NEEDLES = 20_000
"""Needles entered in one transaction of a scratch index; bounds LMDB's dirty pages."""

MAX_SNAPSHOTS = 1024


@dataclass(frozen=True, slots=True)
class CompactionOrder:
    """What a compaction is to keep; the same order for all copies of a volume.

    Parameters
    ----------
    now_ms: the moment that trash and expiry are judged by, milliseconds since 1970.
    trash_ms: how long deleted needles are kept; 0 for not at all.
    snapshots: ends of the volume, offsets in ascending order, at which what was live then is still needed.
    cut: end of the part in which something is left out; None for the end of the volume.
    """

    now_ms: int
    trash_ms: int
    snapshots: tuple[int, ...] = ()
    cut: int | None = None

    def __post_init__(self) -> None:
        if len(self.snapshots) > MAX_SNAPSHOTS or list(self.snapshots) != sorted(set(self.snapshots)):
            raise InvalidRequest(f"snapshots must be at most {MAX_SNAPSHOTS} different offsets in ascending order")
        if self.now_ms < 0 or self.trash_ms < 0 or (self.cut is not None and self.cut < SUPERBLOCK_BYTES):
            raise InvalidRequest(
                f"a compaction cannot have cut {self.cut}, nowMs {self.now_ms}, trashMs {self.trash_ms}"
            )


def is_expired(header: NeedleHeader, now_ms: int) -> bool:
    """Whether a needle's time was over at ``now_ms``."""
    return header.expires != 0 and now_ms >= header.expires * 1000


def is_kept_trash(entry: IndexEntry, order: CompactionOrder) -> bool:
    """Whether a deleted needle can still be brought back."""
    return entry.in_trash and order.trash_ms > 0 and entry.deleted_ms + order.trash_ms > order.now_ms


class LiveSet:
    """Says of each needle below the cut whether it is kept. For one thread, for needles in the volume's order.

    Parameters
    ----------
    known: the names as of the cut.
    held: from where on the needles of a name are kept for a snapshot; None when there are no snapshots.
    """

    def __init__(
        self,
        file: VolumeFile,
        seed: int,
        order: CompactionOrder,
        cut: int,
        known: IndexSnapshot,
        held: IndexSnapshot | None,
    ) -> None:
        self.cut = cut
        self._file = file
        self._seed = seed
        self._order = order
        self._known = known
        self._held = held
        self._has_trash = order.trash_ms > 0
        self._trash_since_ms = order.now_ms - order.trash_ms
        self._live = 0

    def judge(self, start: int, walked: Walked) -> list[bool | None]:
        """As a :class:`~haystack.volume.compact_copy.Choice` does. Raises IndexDamaged."""
        known = self._known.get_raws(walked.raw_keys)
        verdicts: list[bool | None] = []
        live = 0
        for at, header, raw in zip(walked.starts, walked.headers, known, strict=True):
            unit = (start + at) // ALIGNMENT
            if raw == _value(unit & 0xFFFFFFFF, unit >> 32, header[DATA_BYTES], header[META_BYTES], 0):
                plain = not (header[FLAGS] or header[EXPIRES]) and header[INDEX] < header[COUNT] <= MAX_BATCH_NEEDLES
                verdicts.append(True if plain else None)
                live += plain
            else:
                verdicts.append(False if raw is not None and self._is_gone(raw, start + at, header[FLAGS]) else None)
        self._live += live
        return verdicts

    def _is_gone(self, raw: bytes, offset: int, flags: int) -> bool:
        """Whether a needle is left out because its name was deleted for good; False when that takes a closer look."""
        if len(raw) != DELETED_VALUE.size or self._held is not None or flags not in KNOWN_FLAGS:
            return False
        low, high, _, _, entry_flags, deleted_ms = DELETED_VALUE.unpack(raw)
        if self._has_trash and not entry_flags & DELETED_NOW and deleted_ms > self._trash_since_ms:
            return False
        return bool(flags & MARKER_FLAGS) or (high << 32 | low) * ALIGNMENT >= offset

    def keeps(self, offset: int, header: NeedleHeader) -> bool:
        """Whether the needle there is kept. Raises IndexDamaged when the index does not know it."""
        entry = self._known.get(header.key, header.alternate)
        if header.is_marker:
            kept = entry is not None and self._keeps_marker(entry, offset, header)
        else:
            kept = self._keeps_photo(entry, offset, header)
        return kept or (self._held is not None and self._is_held(self._held, offset, header))

    def require_complete(self) -> None:
        """All live needles of the index must have been met; whatever it lost track of must not be lost with it.

        Raises IndexDamaged.
        """
        expected = self._known.state.live_count
        if self._live != expected:
            raise IndexDamaged(
                f"{self._file.path}: the index counts {expected} photos, and {self._live} of them are where it says"
            )

    def _keeps_photo(self, entry: IndexEntry | None, offset: int, header: NeedleHeader) -> bool:
        if entry is None or entry.offset < offset:
            raise IndexDamaged(f"{self._file.path}: the needle at offset {offset} is not in the index")
        if entry.offset > offset:
            return False
        if not entry.deleted:
            self._live += 1
        if is_expired(header, self._order.now_ms):
            return False
        return not entry.deleted or is_kept_trash(entry, self._order)

    def _keeps_marker(self, entry: IndexEntry, offset: int, header: NeedleHeader) -> bool:
        """Only the tombstone of what is kept in the trash says something that the needles alone do not."""
        if not header.is_tombstone or entry.offset > offset or header.time_ms != entry.deleted_ms:
            return False
        if not is_kept_trash(entry, self._order):
            return False
        return not (entry.expires and is_expired(self._header_at(entry.offset), self._order.now_ms))

    def _is_held(self, held: IndexSnapshot, offset: int, header: NeedleHeader) -> bool:
        since = held.get(header.key, header.alternate)
        return since is not None and offset >= since.offset

    def _header_at(self, offset: int) -> NeedleHeader:
        try:
            return NeedleHeader.unpack(self._file.pread(HEADER_BYTES, offset), self._seed)
        except LayoutError as error:
            raise DamagedNeedle(self._file.path, offset, str(error)) from error


@contextmanager
def live_set(
    file: VolumeFile, superblock: Superblock, index: NeedleIndex, order: CompactionOrder, pace: Pace
) -> Iterator[LiveSet]:
    """The choice for one volume, for the length of a block.

    Raises InvalidRequest (no needle ends at the cut), DamagedNeedle, CompactionFailed, DiskError, OutOfSpace.
    """
    with ExitStack() as stack:
        snapshot = stack.enter_context(index.snapshot())
        cut = snapshot.state.tail if order.cut is None else order.cut
        ends = [end for end in order.snapshots if end < cut]
        if cut > snapshot.state.tail:
            raise InvalidRequest(f"{file.path}: has {snapshot.state.tail} bytes, and cannot be cut at {cut}")
        if cut == snapshot.state.tail and not ends:
            yield LiveSet(file, superblock.seed, order, cut, snapshot, None)
            return
        known = stack.enter_context(_scratch(Path(file.path), "cut", superblock))
        held = stack.enter_context(_scratch(Path(file.path), "held", superblock)) if ends else None
        _enter_all(file, superblock, cut, ends, known, held, pace)
        yield LiveSet(
            file,
            superblock.seed,
            order,
            cut,
            stack.enter_context(known.snapshot()),
            stack.enter_context(held.snapshot()) if held else None,
        )


@contextmanager
def _scratch(volume: Path, what: str, superblock: Superblock) -> Iterator[NeedleIndex]:
    path = scratch_path(volume, what)
    index = NeedleIndex.create(path, IndexState(superblock.uuid, superblock.generation, SUPERBLOCK_BYTES))
    try:
        yield index
    finally:
        index.close()
        remove_index(path)


def _enter_all(
    file: VolumeFile,
    superblock: Superblock,
    cut: int,
    ends: Sequence[int],
    known: NeedleIndex,
    held: NeedleIndex | None,
    pace: Pace,
) -> None:
    """Enter everything below the cut, by the headers."""
    walked = _headers(file, superblock, cut)
    at_end = False
    while not at_end:
        pace.check()
        with ExitStack() as stack:
            writer = stack.enter_context(known.write())
            holder = stack.enter_context(held.write()) if held else None
            for _ in range(COMMIT_NEEDLES):
                found = next(walked, None)
                if found is None:
                    at_end = True
                    break
                offset, header = found
                if holder is not None:
                    _hold(writer, holder, offset, header, ends)
                enter_header(writer, offset, header)
                writer.move_tail(offset + header.total_bytes)


def _hold(writer: IndexWriter, holder: IndexWriter, offset: int, header: NeedleHeader, ends: Sequence[int]) -> None:
    """Note the name of a needle whose life ends, or begins again, here when a snapshot ended since it was stored.

    From that needle on everything of its name is kept: what deleted or superseded it would otherwise be missing.
    """
    before = writer.get(header.key, header.alternate)
    if before is None or before.deleted != header.is_undelete:
        return
    ended_within = bisect_right(ends, offset) > bisect_left(ends, before.offset + 1)
    if ended_within and holder.get(header.key, header.alternate) is None:
        holder.replace(header.key, header.alternate, IndexEntry(before.offset, 0, 0, 0), 0, None)


def _headers(file: VolumeFile, superblock: Superblock, cut: int) -> Iterator[tuple[int, NeedleHeader]]:
    """Offset and header of every needle below the cut. Raises DamagedNeedle, InvalidRequest."""
    expected = 0
    last: NeedleHeader | None = None
    for item in scan(file, superblock.seed, SUPERBLOCK_BYTES, cut, verify=False):
        header = item.header
        if isinstance(item, Damage) or header is None:
            needed = HEADER_BYTES if header is None else header.total_bytes
            if item.offset + needed > cut:
                raise InvalidRequest(f"{file.path}: no needle ends at {cut}; a compaction cannot be cut there")
            raise DamagedNeedle(file.path, item.offset, f"nobody knows what is here: {item}")
        if item.end > superblock.compacted_bytes:
            if header.batch_index != expected or (expected and last and last.batch_size != header.batch_size):
                raise DamagedNeedle(file.path, item.offset, "a multi-write is not whole before this needle")
            expected = (header.batch_index + 1) % header.batch_size
        last = header
        yield item.offset, header
    if expected:
        raise InvalidRequest(f"{file.path}: offset {cut} is inside of a multi-write; a compaction cannot be cut there")
