"""The next generation of a volume while a compaction writes it: ``<id>.vol.compact`` and its index.

What is written is read back and compared by hash before it counts. Index entries are made in bulk, in the order of
keys, which packs the index as densely as uploads in the order of ids do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import xxhash

from haystack.errors import CompactionFailed, DiskError
from haystack.volume.entering import enter_header
from haystack.volume.files import VolumeFile, disk_error, sync_folder
from haystack.volume.index import IndexWriter, NeedleIndex, remove_index
from haystack.volume.index_records import KEY, IndexEntry, IndexState, entry_flags, pack_entry
from haystack.volume.layout import (
    MARKER_FLAGS,
    SUPERBLOCK_BYTES,
    Buffer,
    Flags,
    NeedleHeader,
    Superblock,
    needle_bytes,
)
from haystack.volume.names import compact_path, index_path
from haystack.volume.writeback import begin_writeback

ENTERED_NEEDLES = 20_000
"""Needles entered in one index transaction; bounds LMDB's dirty pages."""

SUBMITTED_BYTES = 2 * 2**20
"""The disk is given so much at once, while the next bytes are verified."""


class CompactionFiles:
    """The seam between a compaction and the operating system, beside :class:`VolumeFile`; tests let it fail."""

    def create(self, path: Path) -> VolumeFile:
        """Make an empty file, or empty the one that is there, and open it. Raises DiskError, OutOfSpace."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise disk_error(str(path), "make it", error) from error
        return VolumeFile(path)

    def rename(self, source: Path, target: Path) -> None:
        """Put ``source`` in the place of ``target``. Raises DiskError."""
        try:
            source.replace(target)
        except OSError as error:
            raise disk_error(str(source), f"rename it to {target.name}", error) from error

    def sync_folder(self, folder: Path) -> None:
        """Make renames durable. Raises DiskError."""
        sync_folder(folder)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there. Raises DiskError."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(str(path), "remove it", error) from error

    def remove_index(self, path: Path) -> None:
        """Remove an index, if it is there. Raises DiskError."""
        try:
            remove_index(path)
        except OSError as error:
            raise disk_error(str(path), "remove it", error) from error


class Moved(NamedTuple):
    """A needle in the next generation: where it lies there, and what its header says that the index wants to know."""

    offset: int
    key: int
    alternate: int
    data_bytes: int
    meta_bytes: int
    time_ms: int
    flags: int
    expires: int

    @classmethod
    def of(cls, offset: int, header: NeedleHeader) -> Moved:
        """A needle with this header."""
        return cls(
            offset,
            header.key,
            header.alternate,
            header.data_bytes,
            header.meta_bytes,
            header.time_ms,
            header.flags,
            header.expires,
        )

    @classmethod
    def of_entry(cls, raw_key: bytes, raw: bytes, time_ms: int) -> Moved:
        """A photo without flags and without an end, of which the index has this."""
        key, alternate = KEY.unpack(raw_key)
        entry = IndexEntry.unpack(raw)
        return cls(entry.offset, key, alternate, entry.data_bytes, entry.meta_bytes, time_ms, 0, 0)

    @property
    def header(self) -> NeedleHeader:
        """Its header, without what the index does not want to know."""
        return NeedleHeader(
            self.key, 0, self.alternate, self.data_bytes, self.meta_bytes, self.time_ms, self.flags, self.expires
        )


@dataclass(slots=True)
class Entered:
    """Needles for the index of the next generation.

    Parameters
    ----------
    plain: keys and values of photos without flags and without an end, as the index has them; in the order of offsets.
    plain_bytes: what those take in the volume.
    last_ms: latest time among them.
    others: all others, in the order of offsets.
    """

    plain: list[tuple[bytes, bytes]] = field(default_factory=list)
    plain_bytes: int = 0
    last_ms: int = 0
    others: list[Moved] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.plain) + len(self.others)

    def add(self, more: Entered) -> None:
        self.plain += more.plain
        self.plain_bytes += more.plain_bytes
        self.last_ms = max(self.last_ms, more.last_ms)
        self.others += more.others

    def in_order(self) -> list[Moved]:
        """All of them, in the order of offsets; the plain ones with the latest time of all of those."""
        plain = (Moved.of_entry(raw_key, raw, self.last_ms) for raw_key, raw in self.plain)
        return list(merge(plain, self.others, key=attrgetter("offset")))


class NextGeneration:
    """What is written of the next generation, from its first byte on.

    Parameters
    ----------
    volume: the ``.vol`` file that it is to replace.
    superblock: of the volume as it is.

    ``position`` is its end so far. Raises DiskError, OutOfSpace.
    """

    def __init__(self, volume: Path, superblock: Superblock, files: CompactionFiles) -> None:
        self.path = compact_path(volume)
        self.index_path = index_path(volume, superblock.generation + 1)
        self._base = superblock
        self._files = files
        self.superblock = self._superblock(0)
        self.position = SUPERBLOCK_BYTES
        self.compacted_bytes = 0
        self.in_force = False
        """It has taken the place of the volume."""
        self.problem = ""
        """Why it takes no writes."""
        self.prefix_hash = ""
        """Of everything up to ``compacted_bytes``, the superblock included; xxh3-128, hex. Known from there on."""
        self._hasher = xxhash.xxh3_128()
        self._in_tail = False
        self._waiting = Entered()
        self._submitted_to = 0
        self._read_back = memoryview(b"")
        self.file = files.create(self.path)
        try:
            self.index = NeedleIndex.create(
                self.index_path, IndexState(superblock.uuid, superblock.generation + 1, SUPERBLOCK_BYTES)
            )
        except BaseException:
            self.file.close()
            files.remove(self.path)
            raise

    def _superblock(self, compacted_bytes: int) -> Superblock:
        base = self._base
        return Superblock(
            base.volume, base.uuid, base.created_ms, base.generation + 1, base.replication, compacted_bytes
        )

    def add(self, content: Buffer) -> None:
        """Write bytes at the end. Raises DiskError, OutOfSpace."""
        self._write(content, self.position)
        self.position += len(content)
        if not self._in_tail:
            self._hasher.update(content)

    def _write(self, content: Buffer, offset: int) -> None:
        size_bytes = len(content)
        self.file.pwrite([content], offset)
        if offset + size_bytes - self._submitted_to >= SUBMITTED_BYTES:
            begin_writeback(self.file.sync_fd, self._submitted_to, offset + size_bytes - self._submitted_to)
            self._submitted_to = offset + size_bytes
        if len(self._read_back) < size_bytes:
            self._read_back = memoryview(bytearray(size_bytes))
        there = self._read_back[:size_bytes]
        self.file.pread_into(there, offset)
        if xxhash.xxh3_64_intdigest(content) != xxhash.xxh3_64_intdigest(there):
            raise DiskError(f"{self.path}: reads back differently at offset {offset} than it was written")

    def enter(self, needles: Entered) -> None:
        """Note needles that were added; the index has them after :meth:`flush`. Raises IndexDamaged, OutOfSpace."""
        self._waiting.add(needles)
        if len(self._waiting) >= ENTERED_NEEDLES:
            self.flush()

    def flush(self) -> None:
        """Enter what waits into the index. Raises CompactionFailed, IndexDamaged, OutOfSpace."""
        waiting, self._waiting = self._waiting, Entered()
        one_by_one = self._in_tail and any(needle.flags == Flags.UNDELETE for needle in waiting.others)
        if waiting and not one_by_one and _enter_new(self.index, waiting, self.position):
            return
        with self.index.write() as writer:
            for needle in waiting.in_order():
                if self._in_tail and needle.flags == Flags.UNDELETE:
                    _require_in_trash(writer, needle)
                enter_header(writer, needle.offset, needle.header)
            writer.move_tail(self.position)

    def begin_tail(self) -> None:
        """From here on what is added was appended behind the cut, and is whole."""
        self.flush()
        self.compacted_bytes = self.position
        self._in_tail = True

    def finish_superblock(self) -> None:
        """Write the superblock, which says what was compacted. Raises DiskError, OutOfSpace."""
        self.superblock = self._superblock(self.compacted_bytes)
        raw = self.superblock.pack()
        self._write(raw, 0)
        self._hasher.update(raw)
        self.prefix_hash = self._hasher.hexdigest()

    def sync(self) -> None:
        """Make the file durable. Raises DiskError."""
        self.file.sync()

    def require_whole(self) -> None:
        """File and index must end where what was written ends. Raises DiskError."""
        size_bytes, tail = self.file.size_bytes(), self.index.state().tail
        if (size_bytes, tail) != (self.position, self.position):
            raise DiskError(f"{self.path}: has {size_bytes} bytes, {tail} in its index, where {self.position} are due")

    def close(self) -> None:
        """Close file and index."""
        self.index.close()
        self.file.close()

    def discard(self) -> None:
        """Close and remove it. Raises DiskError; what is left then goes when the volume is opened the next time."""
        self.close()
        self._files.remove(self.path)
        self._files.remove_index(self.index_path)


class _NotNew(Exception):
    """Some name has an entry: gives up the transaction."""


def _enter_new(index: NeedleIndex, needles: Entered, tail: int) -> bool:
    """Enter photos whose names are new, and then the markers; False, and nothing is changed, when one is not new."""
    entries = dict(needles.plain)
    markers: list[Moved] = []
    needles_bytes, last_ms = needles.plain_bytes, needles.last_ms
    for needle in needles.others:
        offset, key, alternate, data_bytes, meta_bytes, time_ms, flags, expires = needle
        if flags & MARKER_FLAGS:
            markers.append(needle)
            continue
        entries[KEY.pack(key, alternate)] = pack_entry(offset, data_bytes, meta_bytes, entry_flags(expires, flags))
        needles_bytes += needle_bytes(meta_bytes, data_bytes)
        last_ms = max(last_ms, time_ms)
    if len(entries) + len(markers) != len(needles):
        return False
    in_order = sorted(entries.items())
    largest_key = KEY.unpack(in_order[-1][0])[0] if in_order else 0
    try:
        with index.write() as writer:
            if not writer.add_new(in_order, needles_bytes, largest_key, last_ms):
                raise _NotNew
            _enter_markers(writer, markers)
            writer.move_tail(tail)
    except _NotNew:
        return False
    return True


def _require_in_trash(writer: IndexWriter, needle: Moved) -> None:
    """What an undelete behind the cut brings back must not have been left out before the cut."""
    entry = writer.get(needle.key, needle.alternate)
    if entry is None or not entry.in_trash:
        raise CompactionFailed(
            f"photo {needle.key:x}, alternate {needle.alternate} was brought back while it was compacted away; "
            "nothing was changed, compact the volume again"
        )


def _enter_markers(writer: IndexWriter, markers: Sequence[Moved]) -> None:
    for marker in markers:
        enter_header(writer, marker.offset, marker.header)
