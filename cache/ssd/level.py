"""The second level: takes what memory gives up, and gives it back when it is asked for again.

Lives on the keeper's event loop; all that may wait for the disk is done by threads, within :data:`READ_SECONDS` or
without us. Nothing of the disk is believed: a needle is found by the index alone, which is in memory, and verified when
it was read: it is sealed with a number that is drawn at each start, and with its position. When the disk fails or is
slow the level is switched off, and the Cache goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache.memory import Kept, PhotoMemory
from cache.ssd.admission import Admission, AskedPolicy, Budget
from cache.ssd.file import SsdFile
from cache.ssd.index import Located, SsdIndex
from cache.ssd.log import Log
from cache.ssd.plan import BLOCK_BYTES, CHUNK_BYTES, READING_BYTES, SsdPlan
from haystack.fid import Fid
from haystack.store.read_threads import ReadThreads
from haystack.volume.layout import (
    FOOTER_BYTES,
    HEADER_BYTES,
    LayoutError,
    NeedleHeader,
    check_needle,
    needle_bytes,
    pack_needle,
)

READ_SECONDS: Final = 0.25
"""A read that takes longer is not waited for: a Store is asked."""

WRITE_SECONDS: Final = 10.0
"""A write that takes longer switches the level off."""

FLUSH_SECONDS: Final = 1.0
"""After so long what was gathered is written, however little it is. It cannot be found before."""

MAX_FAILURES: Final = 3
FAILURES_SECONDS: Final = 60.0
"""So many failures of reads within that time switch the level off."""

MAX_LOGGED: Final = 100
"""So many failures are logged, and then one of so many."""

READERS: Final = 8
_MASK: Final = 2**64 - 1
_STRIDE: Final = 0x9E3779B97F4A7C15

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SsdPhoto:
    """A photo that was read, and verified.

    Parameters
    ----------
    located: what the index says of it.
    header: times, end and flags as the Stores' needle has them.
    """

    located: Located
    header: NeedleHeader
    meta: bytes
    data: memoryview


@dataclass(slots=True)
class SsdUsage:
    """Counts since the start.

    Parameters
    ----------
    not_written: photos that were worth it, but beyond the budget, or the disk was busy.
    evictions: photos that were given up for others. failures: reads that were wrong, refused, or took too long.
    """

    hits: int = 0
    hit_bytes: int = 0
    written: int = 0
    written_bytes: int = 0
    not_written: int = 0
    evictions: int = 0
    failures: int = 0


class SecondLevel:
    """The level of one node.

    Parameters
    ----------
    memory: what it gives up is offered.
    asked: the memory's policy, which knows what was asked for again.
    bytes_per_second: that may be written; 0 for no limit.
    clock: seconds, monotonic.
    """

    def __init__(
        self,
        plan: SsdPlan,
        memory: PhotoMemory,
        asked: AskedPolicy,
        *,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.usage = SsdUsage()
        self.off = "it was not opened yet"
        """Why the level is switched off; empty while it is on."""
        self._memory = memory
        self._asked = asked
        self._clock = clock
        self._index = SsdIndex(plan.max_entries)
        self._log = Log(plan.log_bytes, CHUNK_BYTES, BLOCK_BYTES)
        self._admission = Admission(plan.log_bytes, plan.max_entries)
        self._budget = Budget(bytes_per_second, CHUNK_BYTES, clock())
        self._seed = int.from_bytes(os.urandom(8), "little")
        self._filling, self._spare = memoryview(mmap.mmap(-1, CHUNK_BYTES)), memoryview(mmap.mmap(-1, CHUNK_BYTES))
        self._written_to = 0
        self._writing = False
        self._flush: asyncio.TimerHandle | None = None
        self._reading_bytes = 0
        self._failures: deque[float] = deque()
        self._file: SsdFile | None = None
        self._readers = ReadThreads(READERS, "ssd-read", daemon=True)
        self._writer = ReadThreads(1, "ssd-write", daemon=True)

    async def open(self, path: Path) -> None:
        """Make the file and begin; a disk that refuses leaves the level off. Raises ConfigError."""
        try:
            self._file = await self._writer.run(SsdFile, path, self.plan.log_bytes)
        except OSError as error:
            self._switch_off(f"{path} cannot be used: {error.strerror or error}")
            return
        self.off = ""
        self._memory.evicted = self.evicted

    def close(self) -> None:
        """Let go of the file; threads that hang in the disk are left behind."""
        self._memory.evicted = None
        if self._flush is not None:
            self._flush.cancel()
        if self._writing or self._reading_bytes:
            return
        self._readers.close()
        self._writer.close()
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def live_bytes(self) -> int:
        """Of the needles that can be found."""
        return self._index.live_bytes

    # -- taking out

    def drop(self, volume: int, key: int, alternate: int | None = None) -> int:
        """Forget a photo, all its alternate keys when None is given, also while it is being read or written."""
        return self._index.drop(volume, key, alternate)

    def drop_volume(self, volume: int) -> int:
        """Forget all photos of a volume."""
        return self._index.drop_volume(volume)

    def drop_all(self) -> int:
        """Forget all."""
        return self._index.drop_all()

    def came(self, fid: Fid, checksum: int) -> None:
        """A Store has given the photo: what is here of that name is forgotten unless it is the same."""
        found = self._index.find(fid.volume, fid.key, fid.alternate)
        if found is not None and (found.cookie, found.checksum) != (fid.cookie, checksum):
            self._index.remove(found.slot, found.position)

    # -- reading

    async def read(self, fid: Fid) -> SsdPhoto | None:
        """The photo, if it is here and can be read soon; whether it may be given out is not looked at."""
        found = self._index.find(fid.volume, fid.key, fid.alternate)
        if found is None or found.cookie != fid.cookie or found.position >= self._written_to or self._file is None:
            return None
        if self.off or self._reading_bytes + found.size_bytes > READING_BYTES:
            return None
        self._reading_bytes += found.size_bytes
        reading = self._readers.run(_read, self._file, found, self._seed_at(found.position))
        reading.add_done_callback(lambda done: self._was_read(done, found.size_bytes))
        await asyncio.wait((reading,), timeout=READ_SECONDS)
        still = self._index.is_at(found.slot, found.position)
        if not reading.done():
            self._failed(f"a read took more than {READ_SECONDS:g} s")
            return None
        error = reading.exception()
        if isinstance(error, LayoutError | OSError):
            if still:  # otherwise something else is being written there by now
                self._index.remove(found.slot, found.position)
                self._failed(f"{fid} could not be read: {error}", counts=isinstance(error, OSError))
            return None
        if not still:
            return None
        return reading.result()

    def still(self, located: Located) -> bool:
        """Whether what was read still counts. To be asked before it is used in a later turn of the loop."""
        return self._index.is_at(located.slot, located.position)

    def gave(self, photo: SsdPhoto) -> None:
        """The photo is in memory now: a hit."""
        self.usage.hits += 1
        self.usage.hit_bytes += photo.header.data_bytes

    def _was_read(self, reading: asyncio.Future[SsdPhoto], size_bytes: int) -> None:
        self._reading_bytes -= size_bytes
        reading.exception()  # nobody may be waiting for it any more

    # -- writing

    def evicted(self, kept: Kept, views: list[memoryview]) -> None:
        """Memory gives up a photo, whose data these are."""
        if self.off:
            return
        found = self._index.find(kept.volume, kept.key, kept.alternate)
        if found is not None and (found.cookie, found.checksum) != (kept.cookie, kept.checksum):
            self._index.remove(found.slot, found.position)
            found = None
        if found is not None and kept.verified_ns > found.verified_ns:
            self._index.set_verified(found.slot, kept.verified_ns)
        meta = self._memory.meta(kept)
        size_bytes = needle_bytes(len(meta), kept.data_bytes)
        age = None if found is None else self._log.age(found.position)
        name_hash = hash((kept.volume, kept.key, kept.alternate))
        if size_bytes > CHUNK_BYTES or not self._admission.wants(
            name_hash, size_bytes, self._asked.again(kept.entry), age
        ):
            return
        if not self._make_room(size_bytes) or not self._budget.take(size_bytes, self._clock()):
            self.usage.not_written += 1
            return
        if found is not None:
            self._index.remove(found.slot, found.position)
        self._append(kept, meta, views, size_bytes)

    def _make_room(self, size_bytes: int) -> bool:
        """Have the needle fit into the chunk that is being gathered; False when the disk is behind."""
        if self._log.gathered_bytes and not self._log.fits(size_bytes):
            if self._writing:
                return False
            self._write_out()
        if not self._log.gathered_bytes:
            self._forget(self._log.begin(size_bytes))
        while self._index.full and (oldest := self._log.give_up_oldest()):
            self._forget(oldest)
        return self._log.fits(size_bytes) and not self._index.full

    def _forget(self, gone: list[tuple[int, int]]) -> None:
        self.usage.evictions += sum(self._index.remove(slot, position) for slot, position in gone)

    def _append(self, kept: Kept, meta: bytes, views: list[memoryview], size_bytes: int) -> None:
        position = self._log.place(size_bytes)
        slot = self._index.add(
            kept.volume,
            kept.key,
            kept.alternate,
            cookie=kept.cookie,
            checksum=kept.checksum,
            position=position,
            verified_ns=kept.verified_ns,
            stored_ms=kept.stored_ms,
            size_bytes=size_bytes,
        )
        if slot is None:
            return  # the hash table is crowded at this place
        self._log.note(slot, position)
        header = NeedleHeader(
            key=kept.key,
            cookie=kept.cookie,
            alternate=kept.alternate,
            data_bytes=kept.data_bytes,
            meta_bytes=len(meta),
            time_ms=kept.time_ms,
            flags=kept.flags,
            expires=kept.expires,
        )
        pieces, _ = pack_needle(header, meta, views, self._seed_at(position))
        place = position - self._log.chunk_start
        for piece in pieces:
            self._filling[place : place + len(piece)] = piece
            place += len(piece)
        self.usage.written += 1
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self.off or not self._log.gathered_bytes:
            return
        if self._writing:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now)
        else:
            self._write_out()

    def _write_out(self) -> None:
        assert self._file is not None
        chunk = self._log.seal()
        self._filling, self._spare = self._spare, self._filling
        self._writing = True
        written = self._writer.run(self._file.write, chunk.start, self._spare[: chunk.size_bytes])
        late = asyncio.get_running_loop().call_later(
            WRITE_SECONDS, self._switch_off, f"a write took more than {WRITE_SECONDS:g} s"
        )
        written.add_done_callback(lambda done: self._was_written(done, late, chunk.start, chunk.size_bytes))

    def _was_written(
        self, written: asyncio.Future[None], late: asyncio.TimerHandle, start: int, size_bytes: int
    ) -> None:
        late.cancel()
        self._writing = False
        error = written.exception()
        if error is not None:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.usage.failures += 1
            self._switch_off(f"it could not be written to: {said}")
            return
        self._written_to = start + size_bytes
        self.usage.written_bytes += size_bytes

    # -- failures

    def _failed(self, what: str, *, counts: bool = True) -> None:
        self.usage.failures += 1
        if self.usage.failures <= MAX_LOGGED or self.usage.failures % MAX_LOGGED == 0:
            _log.warning("the SSD level, failure %d: %s", self.usage.failures, what)
        if not counts:
            return
        now = self._clock()
        self._failures.append(now)
        while self._failures[0] < now - FAILURES_SECONDS:
            self._failures.popleft()
        if len(self._failures) >= MAX_FAILURES:
            self._switch_off(f"{MAX_FAILURES} reads failed within {FAILURES_SECONDS:g} s; the last one: {what}")

    def _switch_off(self, why: str) -> None:
        if not self.off or self._file is None:
            self.off = why
            self._index.drop_all()
            _log.error("the SSD level is switched off until the Cache is started again: %s", why)

    def _seed_at(self, position: int) -> int:
        """What a needle at that position is sealed with: none is taken for another, or for one of another time."""
        return (self._seed + position * _STRIDE) & _MASK


def _read(file: SsdFile, found: Located, seed: int) -> SsdPhoto:
    """Read and verify, on a thread. Raises OSError; LayoutError for what is not as it was written."""
    raw = file.read(found.position, found.size_bytes)
    header = NeedleHeader.unpack(raw[:HEADER_BYTES], seed)
    if (header.key, header.alternate, header.cookie) != (found.key, found.alternate, found.cookie):
        raise LayoutError(f"a needle of photo {header.key:x}, alternate {header.alternate}")
    check_needle(raw, header, seed)
    first = HEADER_BYTES + header.meta_bytes
    if first + header.data_bytes + FOOTER_BYTES > len(raw):
        raise LayoutError(f"the needle has {len(raw)} bytes, its header says more")
    return SsdPhoto(found, header, bytes(raw[HEADER_BYTES:first]), raw[first : first + header.data_bytes])
